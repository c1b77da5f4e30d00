//! Which instances are ours, as far as was seen. Pure.

use std::collections::BTreeMap;

use longshore_types::InstanceId;

/// The most instances that are remembered; those seen longest ago are forgotten first, and looked
/// up again when they are named.
const MOST: usize = 100_000;

/// What is known of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It was made through the layer; a listing that does not show its tags yet changes nothing.
    Born,
    /// It was seen with the tags.
    Ours,
    /// It was seen without the tags.
    Foreign,
}

impl Owner {
    pub(crate) fn is_ours(self) -> bool {
        self != Self::Foreign
    }
}

/// A bounded memory of instances.
#[derive(Debug)]
pub(crate) struct Known {
    owners: BTreeMap<InstanceId, (Owner, u64)>,
    sightings: u64,
    most: usize,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            owners: BTreeMap::new(),
            sightings: 0,
            most: MOST,
        }
    }
}

impl Known {
    pub(crate) fn owner(&self, id: &InstanceId) -> Option<Owner> {
        self.owners.get(id).map(|(owner, _)| *owner)
    }

    pub(crate) fn learn(&mut self, id: &InstanceId, seen: Owner) {
        let owner = match self.owner(id) {
            Some(Owner::Born) => Owner::Born,
            _ => seen,
        };
        self.sightings += 1;
        self.owners.insert(id.clone(), (owner, self.sightings));
        if self.owners.len() > self.most {
            self.forget();
        }
    }

    /// Keeps the half that was seen last.
    fn forget(&mut self) {
        let mut seen: Vec<u64> = self.owners.values().map(|(_, seen)| *seen).collect();
        let (_, median, _) = seen.select_nth_unstable(self.most / 2);
        let median = *median;
        self.owners.retain(|_, (_, seen)| *seen > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_born_here_stays_ours_and_what_is_foreign_may_become_ours() {
        let mut known = Known::default();
        let (a, b) = (InstanceId::from("a"), InstanceId::from("b"));
        known.learn(&a, Owner::Born);
        known.learn(&a, Owner::Foreign);
        known.learn(&b, Owner::Foreign);
        assert!(known.owner(&a).is_some_and(Owner::is_ours));
        assert_eq!(known.owner(&b), Some(Owner::Foreign));
        known.learn(&b, Owner::Ours);
        assert_eq!(known.owner(&b), Some(Owner::Ours));
    }

    #[test]
    fn memory_is_bounded_and_the_latest_stay() {
        let mut known = Known {
            most: 100,
            ..Known::default()
        };
        for i in 0..1000 {
            known.learn(&InstanceId::from(format!("i-{i}")), Owner::Ours);
            assert!(known.owners.len() <= 100);
        }
        assert!(known.owner(&"i-999".into()).is_some());
        assert!(known.owner(&"i-0".into()).is_none());
    }
}
