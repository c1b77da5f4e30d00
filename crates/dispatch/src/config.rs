//! Settings of a dispatcher.

use std::time::Duration;

/// Settings of a dispatcher.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Of the pool; whether it asks about claims follows from what the controller can do.
    pub pool: longshore_pool::Config,
    /// Of the scheduler; whether placements are recorded follows from what the controller can do.
    pub scheduler: longshore_scheduler::Config,
    /// What the controller can do.
    pub queue: longshore_queue::Capabilities,
    /// From one refresh of the queue to the next, where the controller tells of no changes.
    pub poll_interval: Duration,
    /// The longest that one request to the controller may take.
    pub request_timeout: Duration,
    /// How long the controller may wait for a change before it answers that there is none.
    pub watch_timeout: Duration,
}

impl Config {
    /// The documented defaults around the settings of the parts.
    pub fn new(
        pool: longshore_pool::Config,
        scheduler: longshore_scheduler::Config,
        queue: longshore_queue::Capabilities,
    ) -> Self {
        Self {
            pool,
            scheduler,
            queue,
            poll_interval: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            watch_timeout: Duration::from_secs(30),
        }
    }
}
