//! What was dropped from the cache a while ago.

use std::collections::BTreeMap;

use longshore_types::{ContainerUuid, Instant};

/// The most containers in one generation; there are two of these, of about 100 bytes each.
const GENERATION: usize = 4096;

/// What is still known of one of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// What was asked for until then is not newer.
    at: Instant,
    /// The last one known.
    revision: u64,
}

/// Remembers containers that are no longer in the cache, the latest ones surely.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone {
    young: BTreeMap<ContainerUuid, Mark>,
    old: BTreeMap<ContainerUuid, Mark>,
    /// Covers those that had to be dropped from here: no answer that was asked for until then
    /// brings in a container.
    horizon: Option<Instant>,
}

impl Gone {
    /// Remembers a container; marks only move forward.
    pub(crate) fn insert(&mut self, uuid: ContainerUuid, at: Instant, revision: u64) {
        let before = self.remove(uuid);
        let mark = Mark {
            at: before.map_or(at, |mark| mark.at.max(at)),
            revision: before.map_or(revision, |mark| mark.revision.max(revision)),
        };
        if self.young.len() >= GENERATION {
            let dropped = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            let latest = dropped.values().map(|mark| mark.at).max();
            self.horizon = self.horizon.max(latest);
        }
        self.young.insert(uuid, mark);
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Forgets a mark.
    pub(crate) fn remove(&mut self, uuid: ContainerUuid) -> Option<Mark> {
        self.young.remove(&uuid).or_else(|| self.old.remove(&uuid))
    }

    /// The last known revision of a container that is remembered here.
    pub(crate) fn revision(&self, uuid: ContainerUuid) -> Option<u64> {
        Some(self.mark(uuid)?.revision)
    }

    /// Whether a record that was asked for at `asked_at` may bring its container back, or in.
    pub(crate) fn lets_in(&self, uuid: ContainerUuid, asked_at: Instant, revision: u64) -> bool {
        match self.mark(uuid) {
            Some(mark) => asked_at > mark.at && revision >= mark.revision,
            None => self.horizon.is_none_or(|horizon| asked_at > horizon),
        }
    }

    /// Says what is wrong with the state, if anything.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let most = self.young.len().max(self.old.len());
        if most > GENERATION {
            return Err(format!(
                "{most} containers are remembered in one generation"
            ));
        }
        match self.young.keys().find(|uuid| self.old.contains_key(uuid)) {
            Some(uuid) => Err(format!("{uuid} is remembered twice")),
            None => Ok(()),
        }
    }

    fn mark(&self, uuid: ContainerUuid) -> Option<&Mark> {
        self.young.get(&uuid).or_else(|| self.old.get(&uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(n: usize) -> ContainerUuid {
        format!("local-dz642-{n:015}").parse().unwrap()
    }

    #[test]
    fn what_had_to_be_dropped_is_covered_by_the_horizon() {
        let mut gone = Gone::default();
        let at = |n: usize| Instant::from_nanos(n as u64);
        for n in 1..=3 * GENERATION {
            gone.insert(uuid(n), at(n), 0);
            if n % 1000 == 0 {
                gone.check_invariants().unwrap();
            }
        }
        for n in 1..=3 * GENERATION {
            assert!(!gone.lets_in(uuid(n), at(n), 0), "{n}");
            assert!(gone.lets_in(uuid(n), at(3 * GENERATION + 1), 0), "{n}");
        }
        assert!(!gone.lets_in(uuid(0), at(GENERATION), 0));
    }

    #[test]
    fn marks_only_move_forward() {
        let mut gone = Gone::default();
        gone.insert(uuid(1), Instant::from_nanos(5), 7);
        gone.insert(uuid(1), Instant::from_nanos(3), 2);
        assert_eq!(gone.revision(uuid(1)), Some(7));
        assert!(!gone.lets_in(uuid(1), Instant::from_nanos(5), 7));
    }
}
