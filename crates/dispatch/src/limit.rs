//! How many containers may run at once without overloading the controller.

use std::time::Duration;

use longshore_types::Instant;

/// After this long without a refusal the limit grows.
const QUIET: Duration = Duration::from_secs(60);

/// The limit on containers that run at once: none until the controller answers that it has too
/// much to do, then just below what ran at that moment, growing while it stays quiet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ContainerLimit {
    limit: Option<u32>,
    grows_at: Option<Instant>,
    overloaded_at: Option<Instant>,
}

impl ContainerLimit {
    pub(crate) fn current(self) -> Option<u32> {
        self.limit
    }

    pub(crate) fn grows_at(self) -> Option<Instant> {
        self.grows_at
    }

    /// When the controller last had too much to do.
    pub(crate) fn overloaded_at(self) -> Option<Instant> {
        self.overloaded_at
    }

    /// Whether it may grow now.
    pub(crate) fn is_due(self, now: Instant) -> bool {
        self.grows_at.is_some_and(|at| at <= now)
    }

    /// The controller refused a call while `running` containers ran.
    pub(crate) fn handle_overload(&mut self, running: u32, now: Instant) {
        self.overloaded_at = Some(now);
        let lower = running.saturating_sub(1).max(1);
        self.limit = Some(self.limit.map_or(lower, |limit| limit.min(lower)));
        self.grows_at = Some(now + QUIET);
    }

    /// Grows to a tenth more than what runs, and one, once it has been quiet for long enough.
    pub(crate) fn handle_timeout(&mut self, running: u32, now: Instant) {
        let (Some(limit), Some(at)) = (self.limit, self.grows_at) else {
            return;
        };
        if at <= now {
            let grown = running.saturating_add(running / 10).saturating_add(1);
            self.limit = Some(limit.max(grown));
            self.grows_at = Some(now + QUIET);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn falls_below_what_ran_and_grows_after_a_quiet_minute() {
        let mut limit = ContainerLimit::default();
        assert_eq!(limit.current(), None);
        limit.handle_overload(100, at(0));
        assert_eq!(limit.current(), Some(99));
        limit.handle_overload(150, at(1));
        assert_eq!(limit.current(), Some(99), "a later refusal never raises it");
        limit.handle_timeout(99, at(60));
        assert_eq!(limit.current(), Some(99), "not quiet for long enough");
        limit.handle_timeout(99, at(61));
        assert_eq!(limit.current(), Some(109));
        limit.handle_timeout(10, at(121));
        assert_eq!(limit.current(), Some(109), "growing never lowers it");
    }

    #[test]
    fn is_never_zero() {
        let mut limit = ContainerLimit::default();
        limit.handle_overload(0, at(0));
        assert_eq!(limit.current(), Some(1));
    }
}
