//! What can be seen from outside.

use std::collections::BTreeMap;

use longshore_types::{
    ContainerUuid, HeldContainer, InstanceId, Instant, PendingView, TypeName, WorkerState,
    WorkerView,
};

use crate::core::Core;
use crate::effect::Host;
use crate::holdoff::{HoldKey, HoldOff};
use crate::tally::Tally;
use crate::worker::Worker;

/// Everything at one moment.
///
/// ```
/// use longshore_pool::{Config, Core};
/// use longshore_types::Instant;
/// let core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
/// let snapshot = core.snapshot(Instant::ZERO);
/// assert_eq!(snapshot.effects_by_kind["list"], 1);
/// assert!(!snapshot.is_listed && snapshot.workers.is_empty());
/// assert!(snapshot.hold_offs.iter().all(|hold| hold.until > Instant::ZERO));
/// ```
#[derive(Clone, Debug, Default)]
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
    /// How many effects of each kind are under way: see
    /// [`EffectAction::kind`](crate::EffectAction::kind).
    pub effects_by_kind: BTreeMap<&'static str, usize>,
    /// Why the last listing failed, if it did; one line.
    pub listing_error: Option<String>,
    /// Whether a complete listing was seen, so that every instance that is listed is a worker.
    pub is_listed: bool,
    /// Whether absence is evidence.
    pub absence_is_evidence: bool,
    /// What has happened so often since the core was made.
    pub tally: Tally,
}

impl Snapshot {
    /// Whether everything that an earlier process started is in it: all instances are listed, and
    /// each that this process did not create was asked what runs there.
    ///
    /// ```
    /// use longshore_pool::Snapshot;
    /// assert!(!Snapshot::default().is_known());
    /// ```
    pub fn is_known(&self) -> bool {
        // What boots was created by this process: nobody else has started anything there.
        let asked = |worker: &WorkerView| {
            worker.probed_at.is_some() || worker.state == WorkerState::Booting
        };
        self.is_listed && self.workers.iter().all(asked)
    }
}

/// A kind of create that is not tried for a while.
///
/// No example: it is a row of [`Snapshot::hold_offs`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HoldOffView {
    /// What is held off, as a phrase.
    pub what: String,
    /// Until when.
    pub until: Instant,
    /// The failure that led to it, one line.
    pub cause: String,
    /// Whether it is for lack of quota.
    pub is_quota: bool,
}

impl Core {
    /// One worker; none once it is gone.
    pub fn worker(&self, instance: &InstanceId) -> Option<WorkerView> {
        let worker = self.workers.get(instance)?;
        Some(worker.view(instance))
    }

    /// How the host of a worker is reached; none if it is gone, or has no address yet.
    ///
    /// No example: only a worker that has booted has one.
    pub fn host(&self, instance: &InstanceId) -> Option<Host> {
        self.workers.get(instance)?.host(instance)
    }

    /// The state of one worker; none once it is gone.
    pub fn state(&self, instance: &InstanceId) -> Option<WorkerState> {
        Some(self.workers.get(instance)?.state)
    }

    /// The state of every worker, by instance.
    pub fn states(&self) -> impl Iterator<Item = (&InstanceId, WorkerState)> + '_ {
        self.workers.iter().map(|(id, worker)| (id, worker.state))
    }

    /// Every worker, by instance.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> + '_ {
        self.workers.iter().map(|(id, worker)| worker.view(id))
    }

    /// The workers that have a process or a result of a container, with what each has; those whose
    /// result was acknowledged do not count.
    pub fn holders(
        &self,
        uuid: ContainerUuid,
    ) -> impl Iterator<Item = (&InstanceId, HeldContainer)> + '_ {
        let ids = self.places.get(&uuid).into_iter().flatten();
        ids.filter_map(move |id| {
            let worker = self.workers.get(id)?;
            let held = worker.held.get(&uuid).filter(|held| !held.is_acked())?;
            Some((id, held.view(uuid, worker.capacity)))
        })
    }

    /// How many containers may have a process, on all workers together.
    pub fn processes(&self) -> usize {
        let held = self
            .workers
            .values()
            .flat_map(|worker| worker.held.values());
        held.filter(|held| held.may_run()).count()
    }

    /// One pending create; none once it has ended.
    pub fn pending(&self, id: u64) -> Option<PendingView> {
        Some(self.pendings.get(&id)?.view(id))
    }

    /// Every pending create, oldest first.
    pub fn pendings(&self) -> impl Iterator<Item = PendingView> + '_ {
        self.pendings.iter().map(|(id, pending)| pending.view(*id))
    }

    /// What is held off that concerns creates of a type. Hold-offs that ended are not shown.
    ///
    /// No example: it is a part of [`Core::snapshot`].
    pub fn hold_offs_of(
        &self,
        type_name: &TypeName,
        now: Instant,
    ) -> impl Iterator<Item = HoldOffView> + '_ {
        let configured = self.types.get(type_name);
        self.hold_offs.iter().filter_map(move |(key, hold)| {
            let view = hold.view(key, now)?;
            self.concerns(key, configured?).then_some(view)
        })
    }

    /// Everything at once. Hold-offs that ended are not shown.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut counts = BTreeMap::new();
        for worker in self.workers.values() {
            *counts.entry(worker.state).or_default() += 1;
        }
        let mut effects_by_kind = BTreeMap::new();
        for flight in self.in_flight.values() {
            *effects_by_kind.entry(flight.action.kind()).or_default() += 1;
        }
        Snapshot {
            workers: self.workers().collect(),
            pendings: self.pendings().collect(),
            hold_offs: self
                .hold_offs
                .iter()
                .filter_map(|(key, hold)| hold.view(key, now))
                .collect(),
            counts,
            effects_in_flight: self.in_flight.len(),
            effects_by_kind,
            listing_error: self.listing_error().map(str::to_owned),
            is_listed: self.is_listed(),
            absence_is_evidence: self.absence_is_evidence(),
            tally: self.tally.clone(),
        }
    }
}

impl HoldOff {
    /// None if it has ended.
    fn view(&self, key: &HoldKey, now: Instant) -> Option<HoldOffView> {
        (self.until > now).then(|| HoldOffView {
            what: key.to_string(),
            until: self.until,
            cause: self.cause.clone(),
            is_quota: matches!(key, HoldKey::Quota(_)),
        })
    }
}

impl Worker {
    pub(crate) fn view(&self, instance: &InstanceId) -> WorkerView {
        // What is acknowledged only waits for the runner to forget it, which concerns nobody.
        let held = self.held.iter().filter(|(_, held)| !held.is_acked());
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
