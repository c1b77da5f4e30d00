//! Time for cores, from tokio's clock.

use std::time::{Duration, SystemTime};

use longshore_types::{Deadline, Instant};

/// A gap between two ticks that is longer than this means that the process was not running.
const MIN_SLEEP: Duration = Duration::from_secs(30);

/// The clock of a core: nanoseconds since it was made.
///
/// ```
/// # use longshore_pool::runtime::Clock;
/// # use longshore_types::{Deadline, Instant};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let clock = Clock::new();
/// clock.sleep_until(Some(Deadline { at: Instant::from_nanos(1000), why: "example" })).await;
/// assert!(clock.now() >= Instant::from_nanos(1000));
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    /// A clock that shows zero now.
    pub fn new() -> Self {
        let origin = tokio::time::Instant::now();
        Self { origin }
    }

    /// What it shows.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// Waits for a deadline; without one, for ever.
    pub async fn sleep_until(&self, deadline: Option<Deadline>) {
        match deadline {
            None => std::future::pending().await,
            Some(deadline) => {
                let span = deadline.at.since(Instant::ZERO);
                match self.origin.checked_add(span) {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Notices that the process was not running, for [`Core::handle_sleep`](crate::Core::handle_sleep).
///
/// ```
/// let mut watch = longshore_pool::runtime::SleepWatch::new();
/// assert_eq!(watch.tick(), None, "not thirty seconds since it was made");
/// ```
#[derive(Debug)]
pub struct SleepWatch {
    steady: tokio::time::Instant,
    wall: SystemTime,
}

impl SleepWatch {
    /// A watch that has ticked now.
    #[expect(
        clippy::disallowed_methods,
        reason = "only the wall clock goes on while the machine is suspended"
    )]
    pub fn new() -> Self {
        Self {
            steady: tokio::time::Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// How long the process was asleep since the last tick, if it was. To be called every few
    /// seconds. A wall clock that was set forward looks the same, which does no harm.
    pub fn tick(&mut self) -> Option<Duration> {
        let before = std::mem::take(self);
        let steady = self.steady.saturating_duration_since(before.steady);
        let wall = self.wall.duration_since(before.wall).unwrap_or_default();
        Some(steady.max(wall)).filter(|gap| *gap > MIN_SLEEP)
    }
}

impl Default for SleepWatch {
    fn default() -> Self {
        Self::new()
    }
}
