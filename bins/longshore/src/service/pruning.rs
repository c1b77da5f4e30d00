//! Removing what ended long ago, as long as a state directory is held.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use longshore_controller::{Retention, Store};

/// What is kept unless somebody says otherwise.
pub(crate) const USUAL: Retention = Retention {
    max_finished: 100_000,
    min_age: MIN_AGE,
    max_age: Duration::from_secs(720 * 3600),
    max_output_bytes: 10 << 30,
};
/// For how long everything is kept, so that whoever waits for an end finds it.
pub(crate) const MIN_AGE: Duration = Duration::from_secs(60);
/// How often what is old is looked for.
const INTERVAL: Duration = Duration::from_secs(60);
/// For how long a clock has to go right before anything is removed for its age: until then it may
/// be the clock of a machine that has just started.
const PROBATION: Duration = Duration::from_secs(600);
/// How far the time of day may move against the steady clock between two looks.
const MAX_STEP: Duration = Duration::from_secs(30);

/// Removes what is older or more than is kept, at once and every minute.
pub(crate) async fn prune_forever(store: &Store, retention: Retention) -> Infallible {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut clock = Clock::new(SystemTime::now(), Instant::now());
    loop {
        interval.tick().await;
        let mut retention = retention;
        if !clock.is_right(SystemTime::now(), Instant::now()) {
            retention.max_age = Duration::MAX;
        }
        match store.prune(&retention).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "removed what ended long ago"),
            Err(error) => tracing::warn!(%error, "what ended long ago cannot be removed"),
        }
    }
}

/// Whether the time of day can be believed as far as it decides what is deleted.
#[derive(Debug)]
struct Clock {
    looked: (SystemTime, Instant),
    right_since: Instant,
}

impl Clock {
    fn new(wall: SystemTime, steady: Instant) -> Self {
        Self {
            looked: (wall, steady),
            right_since: steady,
        }
    }

    /// Looks at the clocks.
    fn is_right(&mut self, wall: SystemTime, steady: Instant) -> bool {
        let (wall_before, steady_before) = std::mem::replace(&mut self.looked, (wall, steady));
        let passed = steady.saturating_duration_since(steady_before);
        let expected = wall_before + passed;
        let step = wall
            .duration_since(expected)
            .unwrap_or_else(|back| back.duration());
        if step > MAX_STEP {
            tracing::warn!(
                seconds = step.as_secs(),
                "the time of day has jumped; nothing is removed for its age for a while"
            );
            self.right_since = steady;
        }
        steady.saturating_duration_since(self.right_since) >= PROBATION
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_run_keeps_what_a_service_keeps() {
        let Command::Serve(args) = Cli::parse_from(["longshore", "serve"]).command else {
            panic!("it is something else than serve");
        };
        let kept = (args.keep_jobs, args.keep_for, args.keep_output.0);
        assert_eq!(
            kept,
            (USUAL.max_finished, USUAL.max_age, USUAL.max_output_bytes)
        );
    }

    #[test]
    fn a_clock_is_believed_after_a_while_and_not_after_a_jump() {
        let (mut wall, mut steady) = (SystemTime::UNIX_EPOCH + INTERVAL, Instant::now());
        let mut clock = Clock::new(wall, steady);
        let mut looks = |jump: Duration| {
            wall += jump;
            let right = (0..20).map(|_| {
                wall += INTERVAL;
                steady += INTERVAL;
                clock.is_right(wall, steady)
            });
            right.filter(|right| !right).count()
        };
        let until_believed = 9;
        assert_eq!(looks(Duration::ZERO), until_believed);
        assert_eq!(looks(Duration::from_secs(20)), 0);
        // The look that sees the jump, and those of ten minutes from then on.
        assert_eq!(looks(Duration::from_secs(3600)), until_believed + 1);
    }
}
