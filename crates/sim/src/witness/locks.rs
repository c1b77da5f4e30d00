//! Locks that were for nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_types::{Attempt, ContainerUuid, Instant};

/// Within this a container is locked twice for nothing at most.
pub(super) const SPAN: Duration = Duration::from_secs(3_600);

/// When each container was locked, and for which attempts another lock is nobody's fault.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// The newest attempt of each container after which there was a cause to lock it again.
    caused: BTreeMap<ContainerUuid, Attempt>,
    /// When each was locked without one for the last time, and for the one before.
    last: BTreeMap<ContainerUuid, (Instant, Option<Instant>)>,
}

impl Locks {
    /// There is a cause to lock a container again after this attempt: it ran, or something that the
    /// dispatcher can do nothing about kept it from running.
    pub(super) fn cause(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        let caused = self.caused.entry(uuid).or_insert(attempt);
        *caused = attempt.max(*caused);
    }

    /// An attempt of a container is locked; whether that is once too often.
    pub(super) fn count(&mut self, uuid: ContainerUuid, attempt: Attempt, now: Instant) -> bool {
        let before = Attempt(attempt.0.saturating_sub(1));
        if before.0 > 0 && self.caused.get(&uuid) >= Some(&before) {
            return false;
        }
        let last = self.last.get(&uuid).copied();
        let earlier = last.and_then(|(_, earlier)| earlier);
        self.last.insert(uuid, (now, last.map(|(last, _)| last)));
        earlier.is_some_and(|at| now.since(at) < SPAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(locks: &mut Locks, attempt: u32, minute: u64) -> bool {
        let uuid = "zzzzz-dz642-000000000000001".parse().unwrap();
        let now = Instant::ZERO + Duration::from_secs(60 * minute);
        locks.count(uuid, Attempt(attempt), now)
    }

    #[test]
    fn a_third_lock_within_an_hour_is_one_too_many() {
        let mut locks = Locks::default();
        assert!(!lock(&mut locks, 1, 1) && !lock(&mut locks, 2, 50));
        assert!(!lock(&mut locks, 3, 62));
        assert!(lock(&mut locks, 4, 109));
    }

    #[test]
    fn a_lock_for_which_there_was_a_cause_does_not_count() {
        let mut locks = Locks::default();
        let uuid = "zzzzz-dz642-000000000000001".parse().unwrap();
        for attempt in 1..10 {
            assert!(!lock(&mut locks, attempt, u64::from(attempt)));
            locks.cause(uuid, Attempt(attempt));
        }
        assert!(!lock(&mut locks, 10, 10) && !lock(&mut locks, 11, 11));
        assert!(lock(&mut locks, 12, 12));
    }
}
