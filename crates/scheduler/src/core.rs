//! The state of a scheduler, and what changes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_types::{
    ContainerState, ContainerUuid, HeldPhase, InstanceId, Instant, PendingView, QueueEntry,
    TypeName, WorkerView,
};

use crate::action::Action;
use crate::case::{Case, Claim, ClaimPhase, Origin, Pause};
use crate::gone::Gone;
use crate::reserve::Reservation;
use crate::shape::Shapes;
use crate::slots::{SlotId, Slots};
use crate::{Config, Limits};

/// The scheduler: deltas in, actions out, reasons on demand. See the crate's documentation for
/// how to drive it.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) workers: BTreeMap<InstanceId, WorkerView>,
    /// Workers by when they last answered.
    pub(crate) by_probe: BTreeSet<(Option<Instant>, InstanceId)>,
    pub(crate) pendings: BTreeMap<u64, PendingView>,
    pub(crate) gone: Gone,
    pub(crate) cases: BTreeMap<ContainerUuid, Case>,
    /// Which verdicts depend on an instance.
    pub(crate) watch: BTreeMap<InstanceId, BTreeSet<ContainerUuid>>,
    pub(crate) shapes: Shapes,
    pub(crate) slots: Slots,
    /// Creates that were asked for and are not known as pending yet, by type.
    pub(crate) creating: Vec<u32>,
    /// How many slots there are for new instances, by type.
    pub(crate) new_slots: Vec<u32>,
    pub(crate) type_pauses: BTreeMap<TypeName, Pause>,
    pub(crate) type_wakes: BTreeSet<(Instant, TypeName)>,
    pub(crate) pauses: BTreeSet<(Instant, ContainerUuid)>,
    /// Instances that are being given back.
    pub(crate) giving_back: BTreeSet<InstanceId>,
    pub(crate) reservation: Reservation,
    /// Containers that run or are being started, and how many of them are supervisors.
    pub(crate) active: u32,
    pub(crate) active_supervisors: u32,
    /// Everything that waits, in order.
    pub(crate) line: BTreeSet<crate::case::OrderKey>,

    /// What changed since the last pass.
    pub(crate) touched: BTreeSet<ContainerUuid>,
    pub(crate) dirty_slots: BTreeSet<SlotId>,
    pub(crate) dirty: bool,
    /// What the last pass decided and is not carried out yet.
    pub(crate) todo: BTreeSet<ContainerUuid>,
    pub(crate) planned: VecDeque<Action>,
    pub(crate) soft: BTreeSet<ContainerUuid>,
}

impl Core {
    /// A scheduler that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let types = config.types.len();
        Self {
            config,
            limits: Limits::default(),
            workers: BTreeMap::new(),
            by_probe: BTreeSet::new(),
            pendings: BTreeMap::new(),
            gone: Gone::default(),
            cases: BTreeMap::new(),
            watch: BTreeMap::new(),
            shapes: Shapes::default(),
            slots: Slots::new(types),
            creating: vec![0; types],
            new_slots: vec![0; types],
            type_pauses: BTreeMap::new(),
            type_wakes: BTreeSet::new(),
            pauses: BTreeSet::new(),
            giving_back: BTreeSet::new(),
            reservation: Reservation::default(),
            active: 0,
            active_supervisors: 0,
            line: BTreeSet::new(),
            touched: BTreeSet::new(),
            dirty_slots: BTreeSet::new(),
            dirty: false,
            todo: BTreeSet::new(),
            planned: VecDeque::new(),
            soft: BTreeSet::new(),
        }
    }

    /// Takes the newest record of a container.
    pub fn upsert_entry(&mut self, entry: QueueEntry, now: Instant) {
        let uuid = entry.container.uuid;
        let shape = self.shapes.acquire(&entry.container, &self.config);
        let case = self.cases.entry(uuid).or_insert_with(|| Case::new(uuid));
        let old_shape = case.entry.is_some().then_some(case.shape);
        note_progress(case, &entry);
        if !entry.call_in_flight {
            case.in_flight.retain(|a| a.settled_by_worker().is_some());
        }
        case.entry = Some(entry);
        case.absent_as_of = None;
        case.shape = shape;
        // Its place in line is by the old record; it leaves before the old shape can go.
        self.leave_line(uuid, old_shape);
        if let Some(old) = old_shape {
            self.shapes.release(old);
        }
        self.touch(uuid, now);
    }

    /// Forgets the record of a container. What workers claim of it is left alone.
    pub fn remove_entry(&mut self, uuid: ContainerUuid, now: Instant) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let Some(_) = case.entry.take() else {
            return;
        };
        let shape = case.shape;
        case.in_flight.retain(|a| a.settled_by_worker().is_some());
        self.leave_line(uuid, Some(shape));
        self.shapes.release(shape);
        self.touch(uuid, now);
    }

    /// Takes it that the controller surely does not have a container, as of `as_of`: what workers
    /// have claimed of it before then is ended.
    pub fn confirm_absent(&mut self, uuid: ContainerUuid, as_of: Instant, now: Instant) {
        self.remove_entry(uuid, now);
        if let Some(case) = self.cases.get_mut(&uuid) {
            case.absent_as_of = Some(as_of);
            self.touch(uuid, now);
        }
    }

    /// Takes the newest view of a worker.
    ///
    /// Starts, kills and acknowledgements that were emitted for it must have been handed to the
    /// pool before, so that the view shows what came of them.
    pub fn upsert_worker(&mut self, view: WorkerView, now: Instant) {
        let id = view.instance.clone();
        self.gone.remove(&id);
        self.giving_back.remove(&id);
        self.settle_worker(&id, now);
        if let Some(old) = self.workers.get(&id) {
            let old_probe = (old.probed_at, id.clone());
            let claimed: Vec<ContainerUuid> = old.containers.iter().map(|c| c.uuid).collect();
            self.by_probe.remove(&old_probe);
            for uuid in claimed {
                if !view.containers.iter().any(|c| c.uuid == uuid) {
                    self.drop_claim(uuid, &id, now);
                }
            }
        }
        for held in &view.containers {
            self.take_claim(&id, held, now);
        }
        self.confirm_kills(&id);
        self.by_probe.insert((view.probed_at, id.clone()));
        self.workers.insert(id.clone(), view);
        self.dirty_slots.insert(SlotId::Worker(id));
        self.dirty = true;
    }

    /// Forgets a worker that is surely gone: nothing can run there any more.
    pub fn remove_worker(&mut self, id: &InstanceId, now: Instant) {
        self.gone.insert(id.clone());
        self.giving_back.remove(id);
        self.settle_worker(id, now);
        if let Some(old) = self.workers.remove(id) {
            self.by_probe.remove(&(old.probed_at, id.clone()));
            for held in &old.containers {
                self.drop_claim(held.uuid, id, now);
            }
        }
        self.reservation.worker_gone(id, now);
        self.dirty_slots.insert(SlotId::Worker(id.clone()));
        self.dirty = true;
    }

    /// Takes the newest view of an instance that was asked for.
    pub fn upsert_pending(&mut self, view: PendingView, _now: Instant) {
        let index = self.type_index(&view.type_name);
        if !self.pendings.contains_key(&view.id)
            && let Some(index) = index
        {
            self.creating[index] = self.creating[index].saturating_sub(1);
            self.type_pauses.remove(&view.type_name);
        }
        self.dirty_slots.insert(SlotId::Pending(view.id));
        self.pendings.insert(view.id, view);
        self.dirty = true;
    }

    /// Forgets an instance that was asked for: it failed, or is known as a worker now.
    ///
    /// Tell of the worker first, so that its place never seems to be missing.
    pub fn remove_pending(&mut self, id: u64, _now: Instant) {
        self.pendings.remove(&id);
        self.dirty_slots.insert(SlotId::Pending(id));
        self.dirty = true;
    }

    /// Sets what limits the scheduler.
    pub fn set_limits(&mut self, limits: Limits, _now: Instant) {
        if limits == self.limits {
            return;
        }
        let old = std::mem::replace(&mut self.limits, limits);
        if old.absence_is_evidence != self.limits.absence_is_evidence
            || old.accept_new != self.limits.accept_new
        {
            self.touched.extend(self.cases.keys().copied());
        }
        // What was planned was planned under other limits.
        self.planned.clear();
        self.dirty = true;
    }

    /// Says that an action was surely not carried out; it is tried again after a growing pause.
    ///
    /// A start or create of which nobody knows whether it had an effect has not failed: the next
    /// view of its worker, or a pending create, says what became of it.
    pub fn action_failed(&mut self, action: &Action, error: &str, now: Instant) {
        match action {
            Action::Create { type_name } => {
                if let Some(index) = self.type_index(type_name) {
                    self.creating[index] = self.creating[index].saturating_sub(1);
                }
                let old = self.type_pauses.remove(type_name);
                let pause = self.longer_pause(old, error, now);
                self.type_wakes.insert((pause.until, type_name.clone()));
                self.type_pauses.insert(type_name.clone(), pause);
            }
            // Its next delta allows another try.
            Action::GiveBack { .. } => {}
            other => {
                if let Some(uuid) = other.uuid() {
                    self.container_action_failed(uuid, other, error, now);
                }
            }
        }
        self.dirty = true;
    }

    fn container_action_failed(
        &mut self,
        uuid: ContainerUuid,
        action: &Action,
        error: &str,
        now: Instant,
    ) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        case.in_flight.retain(|other| other != action);
        match action {
            Action::Kill { .. } => case.kill = None,
            Action::Start { instance, .. } => {
                case.avoid = Some(SlotId::Worker(instance.clone()));
                if case.origin == Origin::On(instance.clone()) && !case.ran {
                    case.origin = Origin::Nowhere;
                }
            }
            _ => {}
        }
        self.pause_case(uuid, error, now);
        self.touch(uuid, now);
    }

    pub(crate) fn pause_case(&mut self, uuid: ContainerUuid, error: &str, now: Instant) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let old = case.pause.take();
        if let Some(old) = &old {
            self.pauses.remove(&(old.until, uuid));
        }
        let pause = self.longer_pause(old, error, now);
        self.pauses.insert((pause.until, uuid));
        if let Some(case) = self.cases.get_mut(&uuid) {
            case.pause = Some(pause);
        }
    }

    fn longer_pause(&self, old: Option<Pause>, error: &str, now: Instant) -> Pause {
        let failures = old.as_ref().map_or(1, |p| p.failures.saturating_add(1));
        let doublings = 1u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        let length = self.config.first_pause.saturating_mul(doublings);
        let length: Duration = length.min(self.config.longest_pause);
        Pause {
            failures,
            until: (now + length).max(old.map_or(now, |p| p.until)),
            error: error.to_owned(),
        }
    }

    pub(crate) fn type_index(&self, name: &TypeName) -> Option<usize> {
        self.config.types.iter().position(|t| t.name == *name)
    }

    pub(crate) fn touch(&mut self, uuid: ContainerUuid, _now: Instant) {
        self.touched.insert(uuid);
        self.dirty = true;
    }

    /// Whatever was under way on a worker is settled by its next delta.
    fn settle_worker(&mut self, id: &InstanceId, now: Instant) {
        let slot = SlotId::Worker(id.clone());
        let mut concerned: BTreeSet<ContainerUuid> =
            self.watch.get(id).cloned().unwrap_or_default();
        if let Some(slot) = self.slots.slot(&slot) {
            concerned.extend(slot.holders.keys().copied());
        }
        if let Some(view) = self.workers.get(id) {
            concerned.extend(view.containers.iter().map(|c| c.uuid));
        }
        for uuid in concerned {
            if let Some(case) = self.cases.get_mut(&uuid) {
                case.in_flight.retain(|a| a.settled_by_worker() != Some(id));
                self.touch(uuid, now);
            }
        }
    }

    /// A kill is done once the worker does not have the container any more.
    fn confirm_kills(&mut self, id: &InstanceId) {
        let Some(watching) = self.watch.get(id) else {
            return;
        };
        for uuid in watching {
            if let Some(case) = self.cases.get_mut(uuid) {
                let claimed = case.claim_on(id).is_some_and(|c| c.phase.may_run());
                if let Some(kill) = &mut case.kill
                    && kill.instance == *id
                    && !claimed
                {
                    kill.gone = true;
                }
            }
        }
    }

    fn take_claim(&mut self, id: &InstanceId, held: &longshore_types::HeldContainer, now: Instant) {
        let case = self
            .cases
            .entry(held.uuid)
            .or_insert_with(|| Case::new(held.uuid));
        let phase = ClaimPhase::of(&held.phase);
        let known = case
            .claims
            .iter_mut()
            .find(|c| c.instance == *id && c.attempt == held.attempt);
        let mut newly_ended = phase == ClaimPhase::Ended;
        if let Some(claim) = known {
            newly_ended &= claim.phase != ClaimPhase::Ended;
            claim.phase = phase;
        } else {
            case.claims.retain(|c| c.instance != *id);
            case.claims.push(Claim {
                instance: id.clone(),
                attempt: held.attempt,
                phase,
                first_seen: now,
            });
            case.claims.sort_by(|a, b| a.instance.cmp(&b.instance));
        }
        if let HeldPhase::Ended(exit) = &held.phase
            && newly_ended
            && let longshore_types::ExitCause::NotStarted { error } = &exit.cause
        {
            case.avoid = Some(SlotId::Worker(id.clone()));
            let error = error.clone();
            self.pause_case(held.uuid, &error, now);
        }
        self.touch(held.uuid, now);
    }

    fn drop_claim(&mut self, uuid: ContainerUuid, id: &InstanceId, now: Instant) {
        if let Some(case) = self.cases.get_mut(&uuid) {
            case.claims.retain(|c| c.instance != *id);
            if let Some(kill) = &mut case.kill
                && kill.instance == *id
            {
                kill.gone = true;
            }
            self.touch(uuid, now);
        }
    }
}

/// Compares a new record with what is known, and keeps what that says about the latest attempt.
fn note_progress(case: &mut Case, new: &QueueEntry) {
    let container = &new.container;
    let attempt = container.attempt();
    let old = case.entry.as_ref().map(|e| &e.container);
    let same_attempt = old.is_some_and(|c| {
        c.attempt() == attempt
            && (c.state == ContainerState::Queued) == (container.state == ContainerState::Queued)
    });
    if !same_attempt {
        let locked_by_this = container.state == ContainerState::Locked
            && old.is_some_and(|c| {
                c.state == ContainerState::Queued && c.lock_count + 1 == container.lock_count
            })
            && case
                .in_flight
                .iter()
                .any(|a| matches!(a, Action::Lock { .. }));
        case.origin = if locked_by_this {
            Origin::Nowhere
        } else {
            Origin::Unknown
        };
        case.seen_as_of = new.as_of;
        case.cleared_at = None;
        case.ran = false;
        case.kill = None;
    }
    if container.state == ContainerState::Running || container.state.is_final() {
        case.avoid = None;
        if let Some(pause) = &mut case.pause {
            pause.failures = 0;
        }
    }
}
