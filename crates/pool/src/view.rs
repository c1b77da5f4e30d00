//! What can be seen from outside.

use std::collections::BTreeMap;

use longshore_types::{InstanceId, Instant, PendingView, WorkerState, WorkerView};

use crate::core::Core;
use crate::worker::{Held, Stage, Worker};

/// Everything at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Every worker, by instance.
    pub workers: Vec<WorkerView>,
    /// Creates whose instance is not known.
    pub pendings: Vec<PendingView>,
    /// What is held off.
    pub hold_offs: Vec<HoldOffView>,
    /// How many workers are in each state.
    pub counts: BTreeMap<WorkerState, usize>,
    /// How many effects are under way.
    pub effects_in_flight: usize,
    /// Whether absence is evidence.
    pub absence_is_evidence: bool,
}

/// A kind of create that is not tried for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HoldOffView {
    /// What is held off, as a phrase.
    pub what: String,
    /// Until when.
    pub until: Instant,
    /// The failure that led to it, one line.
    pub cause: String,
}

impl Core {
    /// One worker; none once it is gone.
    pub fn worker(&self, instance: &InstanceId) -> Option<WorkerView> {
        let worker = self.workers.get(instance)?;
        Some(worker.view(instance))
    }

    /// Every worker, by instance.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> + '_ {
        self.workers.iter().map(|(id, worker)| worker.view(id))
    }

    /// One pending create; none once it has ended.
    pub fn pending(&self, id: u64) -> Option<PendingView> {
        Some(self.pendings.get(&id)?.view(id))
    }

    /// Every pending create, oldest first.
    pub fn pendings(&self) -> impl Iterator<Item = PendingView> + '_ {
        self.pendings.iter().map(|(id, pending)| pending.view(*id))
    }

    /// Everything at once. Hold-offs that ended are not shown.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut counts = BTreeMap::new();
        for worker in self.workers.values() {
            *counts.entry(worker.state).or_default() += 1;
        }
        let held = self.hold_offs.iter().filter(|(_, hold)| hold.until > now);
        Snapshot {
            workers: self.workers().collect(),
            pendings: self.pendings().collect(),
            hold_offs: held
                .map(|(key, hold)| HoldOffView {
                    what: key.to_string(),
                    until: hold.until,
                    cause: hold.cause.clone(),
                })
                .collect(),
            counts,
            effects_in_flight: self.in_flight.len(),
            absence_is_evidence: self.absence_is_evidence(),
        }
    }
}

impl Worker {
    fn view(&self, instance: &InstanceId) -> WorkerView {
        // What is acknowledged only waits for the runner to forget it, which concerns nobody.
        let acked = |held: &Held| matches!(&held.stage, Stage::Ended(ended) if ended.acked);
        let held = self.held.iter().filter(|(_, held)| !acked(held));
        WorkerView {
            instance: instance.clone(),
            type_name: self.type_name.clone(),
            state: self.state,
            idle_behavior: self.behavior,
            capacity: self.capacity,
            granted: self.granted(),
            containers: held
                .map(|(uuid, held)| held.view(*uuid, self.capacity))
                .collect(),
            probed_at: self.probed_at,
            last_error: self.last_error.clone(),
        }
    }
}
