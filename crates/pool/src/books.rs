//! How many instances of each type there are, so that a create is judged without looking at each
//! of them.

use std::collections::BTreeMap;

use longshore_types::{InstanceId, Price, TypeName, WorkerState};

use crate::core::Core;
use crate::event::Changed;
use crate::worker::Worker;

/// Instances of one configured type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Creates whose instance is not known.
    pub(crate) pending: usize,
    /// Workers, however near their end.
    pub(crate) workers: usize,
    /// Of these, the ones that this process created and that have not booted.
    pub(crate) booting: usize,
}

/// The counts of each type of which there is anything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    types: BTreeMap<TypeName, Count>,
}

impl Books {
    pub(crate) fn count(&self, name: &TypeName) -> Count {
        self.types.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TypeName, &Count)> {
        self.types.iter()
    }

    /// Changes the count of a type; a type of which nothing is left goes.
    pub(crate) fn change(&mut self, name: &TypeName, change: impl FnOnce(&mut Count)) {
        let count = self.types.entry(name.clone()).or_default();
        change(count);
        if *count == Count::default() {
            self.types.remove(name);
        }
    }

    pub(crate) fn add(&mut self, worker: &Worker) {
        let booting = usize::from(worker.state == WorkerState::Booting);
        if let Some(name) = &worker.type_name {
            self.change(name, |count| {
                count.workers += 1;
                count.booting += booting;
            });
        }
    }

    pub(crate) fn remove(&mut self, worker: &Worker) {
        let booting = usize::from(worker.state == WorkerState::Booting);
        if let Some(name) = &worker.type_name {
            self.change(name, |count| {
                count.workers -= 1;
                count.booting -= booting;
            });
        }
    }
}

impl Core {
    /// Puts a worker into a state, and keeps the counts in step.
    pub(crate) fn enter(&mut self, id: &InstanceId, state: WorkerState) {
        if let Some(worker) = self.workers.get_mut(id) {
            self.books.remove(worker);
            worker.state = state;
            self.books.add(worker);
            // A trial may have ended.
            self.changed(Changed::CreateGate);
        }
    }

    /// What all workers and pending creates cost in an hour. One whose type is not configured any
    /// more counts like the dearest one that is.
    pub(crate) fn hourly_price(&self) -> Price {
        let priced = self.books.iter().filter_map(|(name, count)| {
            let price = self.types.get(name)?.price;
            Some((price, count.pending, count.workers))
        });
        let (mut sum, mut known) = (Price::default(), 0);
        for (price, pending, workers) in priced {
            sum = sum.saturating_add(price.times(pending + workers));
            known += workers;
        }
        let dearest = self.types.values().map(|t| t.price).max();
        let others = self.workers.len().saturating_sub(known);
        sum.saturating_add(dearest.unwrap_or_default().times(others))
    }
}
