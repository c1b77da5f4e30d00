//! The clock that a core is given.

use std::time::Duration;

use longshore_types::Instant;

/// Time since the core was made, on tokio's clock (so that tests can hold it).
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(tokio::time::Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(super) fn now(self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    /// The moment as tokio's timers want it; no later than a day from now.
    pub(super) fn timer(self, at: Instant) -> tokio::time::Instant {
        const LONGEST: Duration = Duration::from_secs(86_400);
        let now = self.now();
        tokio::time::Instant::now() + at.since(now).min(LONGEST)
    }
}
