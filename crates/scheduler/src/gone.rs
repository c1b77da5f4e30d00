//! Instances that are surely gone.

use std::collections::{BTreeSet, VecDeque};

use longshore_types::InstanceId;

/// The last instances that were said to be gone; the oldest are forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    ids: BTreeSet<InstanceId>,
    order: VecDeque<InstanceId>,
}

impl Gone {
    /// How many are remembered.
    const MAX: usize = 10_000;

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn contains(&self, id: &InstanceId) -> bool {
        self.ids.contains(id)
    }

    pub(crate) fn insert(&mut self, id: InstanceId) {
        if self.ids.insert(id.clone()) {
            self.order.push_back(id);
        }
        if self.order.len() > Self::MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, id: &InstanceId) {
        if self.ids.remove(id) {
            self.order.retain(|other| other != id);
        }
    }
}
