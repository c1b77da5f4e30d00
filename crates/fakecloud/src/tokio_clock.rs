//! Tokio's clock.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use longshore_types::Instant;

use crate::Clock;

/// Tokio's clock: virtual while its time is paused.
///
/// ```
/// use std::time::Duration;
/// use longshore_fakecloud::{Clock, TokioClock};
/// use longshore_types::Instant;
/// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
/// # .block_on(async {
/// let clock = TokioClock::start();
/// tokio::time::sleep(Duration::from_secs(60)).await;
/// assert_eq!(clock.now(), Instant::ZERO + Duration::from_secs(60));
/// # });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokioClock(tokio::time::Instant);

impl TokioClock {
    /// A clock for which it is [`Instant::ZERO`] now.
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let clock = *self;
        Box::pin(async move {
            while clock.now() < at {
                // Tokio counts milliseconds, and not more than some years of them.
                let year = Duration::from_secs(365 * 86_400);
                let left = at.since(clock.now()).min(year);
                tokio::time::sleep(left.max(Duration::from_millis(1))).await;
            }
        })
    }
}
