//! The state of a scheduler, and what changes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use longshore_types::{
    Container, ContainerState, ContainerUuid, ExitCause, HeldContainer, HeldPhase, InstanceId,
    Instant, PendingView, Preemptible, QueueEntry, TypeName, WorkerView,
};

use crate::action::Action;
use crate::case::{Call, Case, Claim, ClaimPhase, Doing, Origin, Pause, Paused, Record};
use crate::gone::Gone;
use crate::history::Log;
use crate::ids::{CaseNo, OrderKey, Slab, SlotNo, UuidKey, WorkerNo};
use crate::pass::Planned;
use crate::reserve::Reservations;
use crate::shape::Shapes;
use crate::slots::Slots;
use crate::type_choice::eligible_indexes;
use crate::workers::Workers;
use crate::{Config, Limits};

/// The longest pause before a call is made again that ends something: others wait for that.
const LONGEST_END_PAUSE: Duration = Duration::from_secs(30);

/// The scheduler: deltas in, actions out, reasons on demand.
///
/// The crate's documentation says how to drive it, and shows each method.
///
/// ```
/// use longshore_scheduler::{Config, Core};
/// use longshore_types::Instant;
/// let mut core = Core::new(Config::new(vec![]));
/// assert_eq!(core.poll_action(Instant::ZERO), None);
/// assert_eq!(core.poll_timeout(), None);
/// ```
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    /// Places of the types in the configuration.
    pub(crate) type_indexes: BTreeMap<TypeName, usize>,
    /// What the limits say of each type.
    pub(crate) gates: Vec<Gate>,
    pub(crate) workers: Workers,
    pub(crate) pendings: BTreeMap<u64, Pending>,
    pub(crate) gone: Gone,
    pub(crate) numbers: BTreeMap<UuidKey, CaseNo>,
    pub(crate) cases: Slab<CaseNo, Case>,
    /// Which verdicts depend on an instance.
    pub(crate) watch: BTreeMap<InstanceId, BTreeSet<CaseNo>>,
    pub(crate) shapes: Shapes,
    pub(crate) slots: Slots,
    /// Creates that were asked for and are not known as pending yet, by type.
    pub(crate) creating: Vec<usize>,
    /// The slots for new instances, by type: those of creates that were asked for come first.
    pub(crate) new_slots: Vec<Vec<SlotNo>>,
    /// Types of which the first two differ, or may.
    pub(crate) dirty_types: BTreeSet<usize>,
    pub(crate) type_pauses: BTreeMap<usize, Pause>,
    pub(crate) type_wakes: BTreeSet<(Instant, usize)>,
    pub(crate) pauses: BTreeSet<(Instant, UuidKey, CaseNo)>,
    pub(crate) reservations: Reservations,
    /// Containers that run or are being started, and how many of them are supervisors.
    pub(crate) active: u32,
    pub(crate) active_supervisors: u32,
    /// Everything that waits, in order.
    pub(crate) line: BTreeSet<OrderKey>,

    /// What changed since the last pass.
    pub(crate) touched: Vec<(UuidKey, CaseNo)>,
    pub(crate) dirty_pendings: BTreeSet<u64>,
    pub(crate) dirty: bool,
    /// What the last pass decided and is not carried out yet.
    pub(crate) todo: BTreeSet<(UuidKey, CaseNo)>,
    pub(crate) planned: VecDeque<Planned>,
    /// Those whose room is promised until the next pass only.
    pub(crate) soft: Vec<CaseNo>,
}

/// What the limits say of a type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    /// Why none can be created.
    pub(crate) blocked: Option<Arc<str>>,
    pub(crate) quota: bool,
}

/// An instance that was asked for, until the pass after it was removed.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) view: Option<PendingView>,
    pub(crate) slot: Option<SlotNo>,
}

impl Core {
    /// A scheduler that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let types = config.types.len();
        let mut type_indexes = BTreeMap::new();
        for (index, t) in config.types.iter().enumerate() {
            type_indexes.entry(t.name.clone()).or_insert(index);
        }
        Self {
            config,
            limits: Limits::default(),
            type_indexes,
            gates: vec![Gate::default(); types],
            workers: Workers::default(),
            pendings: BTreeMap::new(),
            gone: Gone::default(),
            numbers: BTreeMap::new(),
            cases: Slab::default(),
            watch: BTreeMap::new(),
            shapes: Shapes::default(),
            slots: Slots::new(types),
            creating: vec![0; types],
            new_slots: vec![Vec::new(); types],
            dirty_types: BTreeSet::new(),
            type_pauses: BTreeMap::new(),
            type_wakes: BTreeSet::new(),
            pauses: BTreeSet::new(),
            reservations: Reservations::default(),
            active: 0,
            active_supervisors: 0,
            line: BTreeSet::new(),
            touched: Vec::new(),
            dirty_pendings: BTreeSet::new(),
            dirty: false,
            todo: BTreeSet::new(),
            planned: VecDeque::new(),
            soft: Vec::new(),
        }
    }

    /// Takes the newest record of a container.
    pub fn upsert_entry(&mut self, mut entry: QueueEntry, now: Instant) {
        if entry.container.request.preemptible == Preemptible::Prefer {
            self.settle_market(&mut entry.container);
        }
        let shape = self.shapes.acquire(&entry.container, &self.config);
        let no = self.case_no(entry.container.uuid);
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        let record = Record::of(entry);
        if case.entry.is_none() {
            case.log = Log::new(now);
        }
        let old = case.entry.as_ref().map(|_| (case.shape, case.order(no)));
        note_progress(case, &record);
        if !record.call_in_flight {
            case.calling = None;
        }
        if let Some((old_shape, place)) = old {
            // It leaves its place in line by the old record, before the old shape can go.
            if old_shape != shape || place != Some(case.order_of(&record, no)) {
                self.leave_line(no);
            }
            self.shapes.release(old_shape);
        }
        if let Some(case) = self.cases.get_mut(no) {
            case.entry = Some(record);
            if let Some(ties) = case.ties.touched_mut() {
                ties.absent_as_of = None;
            }
            case.shape = shape;
        }
        self.touch(no);
    }

    /// One that preemptible instances were taken from too often is to run on others, if any fit.
    fn settle_market(&self, container: &mut Container) {
        let interruptions = self
            .case(container.uuid)
            .map_or(0, |case| case.ties.interruptions);
        if interruptions >= self.config.max_interruptions {
            let mut elsewhere = container.request.clone();
            elsewhere.preemptible = Preemptible::Never;
            if eligible_indexes(&elsewhere, &self.config).is_ok() {
                container.request = elsewhere;
            }
        }
    }

    /// Forgets the record of a container. What workers claim of it is left alone.
    pub fn remove_entry(&mut self, uuid: ContainerUuid, _now: Instant) {
        let Some(no) = self.known(uuid) else {
            return;
        };
        self.leave_line(no);
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        if case.entry.take().is_none() {
            return;
        }
        case.calling = None;
        self.shapes.release(case.shape);
        self.touch(no);
    }

    /// Takes it that the controller surely does not have a container, as of `as_of`: what workers
    /// have claimed of it before then is ended.
    pub fn confirm_absent(&mut self, uuid: ContainerUuid, as_of: Instant, now: Instant) {
        self.remove_entry(uuid, now);
        if let Some(no) = self.known(uuid)
            && let Some(case) = self.cases.get_mut(no)
        {
            case.ties.absent_as_of = Some(as_of);
            self.touch(no);
        }
    }

    /// Takes the newest view of a worker.
    ///
    /// Starts, kills and acknowledgements that were emitted for it must have been handed to the
    /// pool before, so that the view shows what came of them.
    pub fn upsert_worker(&mut self, view: WorkerView, now: Instant) {
        let id = view.instance.clone();
        let no = self.workers.number(&id);
        if self
            .workers
            .worker(no)
            .is_none_or(|worker| worker.view.is_none())
        {
            self.gone.remove(&id);
        }
        if self.only_answered(no, &view) {
            self.workers.answered(no, view.probed_at);
            return;
        }
        self.settle_worker(&id, Some(no));
        for held in &view.containers {
            self.take_claim(&id, held, now);
        }
        let type_index = view.type_name.as_ref().and_then(|n| self.type_index(n));
        let has: Vec<ContainerUuid> = view.containers.iter().map(|c| c.uuid).collect();
        if let Some(old) = self.workers.set(no, Some(view), type_index) {
            for held in old.containers {
                if !has.contains(&held.uuid) {
                    self.drop_claim(held.uuid, &id);
                }
            }
        }
        self.confirm_kills(&id);
        self.dirty = true;
    }

    /// Forgets a worker that is surely gone: nothing can run there any more.
    pub fn remove_worker(&mut self, id: &InstanceId, now: Instant) {
        self.gone.insert(id.clone());
        let no = self.workers.no(id);
        self.settle_worker(id, no);
        if let Some(old) = no.and_then(|no| self.workers.set(no, None, None)) {
            let preemptible = self.is_preemptible(&old);
            for held in &old.containers {
                if preemptible && held.phase.may_run() {
                    self.interrupted(held.uuid);
                }
                self.drop_claim(held.uuid, id);
            }
        }
        self.reservations.worker_gone(id, now);
        self.dirty = true;
    }

    fn is_preemptible(&self, view: &WorkerView) -> bool {
        let index = view
            .type_name
            .as_ref()
            .and_then(|name| self.type_index(name));
        index.is_some_and(|index| self.config.types[index].preemptible)
    }

    fn interrupted(&mut self, uuid: ContainerUuid) {
        if let Some(no) = self.known(uuid)
            && let Some(case) = self.cases.get_mut(no)
        {
            case.ties.interruptions = case.ties.interruptions.saturating_add(1);
        }
    }

    /// Takes an instance that was asked for and is not known as a worker yet.
    pub fn upsert_pending(&mut self, view: PendingView, _now: Instant) {
        let index = self.type_index(&view.type_name);
        let pending = self.pendings.entry(view.id).or_insert(Pending {
            view: None,
            slot: None,
        });
        self.dirty_pendings.insert(view.id);
        let new = pending.view.replace(view).is_none();
        if new && let Some(index) = index {
            self.creating[index] = self.creating[index].saturating_sub(1);
            self.dirty_types.insert(index);
            self.type_pauses.remove(&index);
        }
        self.dirty = true;
    }

    /// Forgets an instance that was asked for: it failed, or is known as a worker now.
    ///
    /// Tell of the worker first, so that its place never seems to be missing.
    pub fn remove_pending(&mut self, id: u64, _now: Instant) {
        if let Some(pending) = self.pendings.get_mut(&id) {
            pending.view = None;
            self.dirty_pendings.insert(id);
        }
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
            let all: Vec<CaseNo> = self.cases.iter().map(|(no, _)| no).collect();
            for no in all {
                self.touch(no);
            }
        }
        self.read_gates();
        // What was planned was planned under other limits.
        self.drop_planned();
        self.dirty = true;
    }

    fn read_gates(&mut self) {
        let mut last: Option<Arc<str>> = None;
        for (t, gate) in self.config.types.iter().zip(&mut self.gates) {
            let cause = self.limits.create_blocked.get(&t.name).map(String::as_str);
            // Most have the same cause.
            if cause.is_some() && cause != last.as_deref() {
                last = cause.map(Arc::from);
            }
            gate.blocked = cause.and_then(|_| last.clone());
            gate.quota = self.limits.quota_blocked.contains(&t.name);
        }
    }

    /// Says that an action was surely not carried out; it is tried again after a growing pause.
    ///
    /// A start or create of which nobody knows whether it had an effect has not failed: the next
    /// view of its worker, or a pending create, says what became of it. Nor is this for a start that
    /// the runner refuses because it knows the attempt, of which nothing is left there: that attempt
    /// can never run, so unlock the container.
    pub fn action_failed(&mut self, action: &Action, error: &str, now: Instant) {
        match action {
            Action::Create { type_name } => {
                if let Some(index) = self.type_index(type_name) {
                    self.creating[index] = self.creating[index].saturating_sub(1);
                    self.dirty_types.insert(index);
                    let old = self.type_pauses.remove(&index);
                    let pause = longer_pause(old.as_ref(), self.pauses_of(action), error, now);
                    self.type_wakes.insert((pause.until, index));
                    self.type_pauses.insert(index, pause);
                }
            }
            // Its next delta allows another try.
            Action::GiveBack { .. } => {}
            other => {
                if let Some(no) = other.uuid().and_then(|uuid| self.known(uuid)) {
                    self.container_action_failed(no, other, error, now);
                }
            }
        }
        self.dirty = true;
    }

    fn container_action_failed(&mut self, no: CaseNo, action: &Action, error: &str, now: Instant) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        if let Some(doing) = Doing::of(action) {
            case.ties.in_flight.retain(|other| *other != doing);
        } else if case.calling == Call::of(action) {
            case.calling = None;
        }
        match action {
            Action::Kill { .. } => case.ties.kill = None,
            Action::Start { instance, .. } => {
                case.ties.avoid = Some(instance.clone());
                let locked = case.entry.as_ref().map(|e| e.state) == Some(ContainerState::Locked);
                if case.ties.origin == Origin::On(instance.clone()) && !case.ties.ran {
                    // What runs without a start of ours was started before.
                    case.ties.origin = match locked {
                        true => Origin::Nowhere,
                        false => Origin::Unknown,
                    };
                }
            }
            _ => {}
        }
        let lengths = self.pauses_of(action);
        self.pause_case(no, Paused::of(action), lengths, error, now);
        self.touch(no);
    }

    /// The first and the longest pause after a failure.
    fn pauses_of(&self, action: &Action) -> (Duration, Duration) {
        let longest = self.config.longest_pause;
        let longest = match Call::of(action) {
            Some(Call::End) => longest.min(LONGEST_END_PAUSE),
            _ => longest,
        };
        (self.config.first_pause, longest)
    }

    fn pause_case(
        &mut self,
        no: CaseNo,
        what: Paused,
        lengths: (Duration, Duration),
        error: &str,
        now: Instant,
    ) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        let key = case.key;
        let pauses = &mut case.ties.pauses;
        let old = pauses.get_mut(what).take();
        if let Some(old) = &old {
            self.pauses.remove(&(old.until, key, no));
        }
        *pauses.get_mut(what) = Some(longer_pause(old.as_ref(), lengths, error, now));
        let open = pauses.iter().filter(|pause| pause.until > now);
        self.pauses.extend(open.map(|pause| (pause.until, key, no)));
    }

    pub(crate) fn type_index(&self, name: &TypeName) -> Option<usize> {
        // A list is quicker to look through while it is short.
        if self.config.types.len() <= 4 {
            return self.config.types.iter().position(|t| t.name == *name);
        }
        self.type_indexes.get(name).copied()
    }

    /// The number of a container's case, if there is one.
    pub(crate) fn known(&self, uuid: ContainerUuid) -> Option<CaseNo> {
        self.numbers.get(&UuidKey::of(uuid)).copied()
    }

    pub(crate) fn case(&self, uuid: ContainerUuid) -> Option<&Case> {
        self.cases.get(self.known(uuid)?)
    }

    fn case_no(&mut self, uuid: ContainerUuid) -> CaseNo {
        let key = UuidKey::of(uuid);
        let cases = &mut self.cases;
        *self
            .numbers
            .entry(key)
            .or_insert_with(|| cases.insert(Case::new(uuid, key)))
    }

    pub(crate) fn touch(&mut self, no: CaseNo) {
        if let Some(case) = self.cases.get_mut(no)
            && !case.touched
        {
            case.touched = true;
            self.touched.push((case.key, no));
        }
        self.dirty = true;
    }

    /// Whatever was under way on a worker is settled by its next delta.
    fn settle_worker(&mut self, id: &InstanceId, no: Option<WorkerNo>) {
        let mut concerned: Vec<CaseNo> = Vec::new();
        if let Some(watching) = self.watch.get(id) {
            concerned.extend(watching);
        }
        if let Some(worker) = no.and_then(|no| self.workers.worker(no)) {
            if let Some(slot) = worker.slot.and_then(|slot| self.slots.slot(slot)) {
                concerned.extend(slot.holders.iter().map(|(no, _)| *no));
            }
            let held = worker.view.iter().flat_map(|view| &view.containers);
            concerned.extend(held.filter_map(|held| self.known(held.uuid)));
        }
        for no in concerned {
            if let Some(case) = self.cases.get_mut(no) {
                if let Some(ties) = case.ties.touched_mut() {
                    ties.in_flight.retain(|doing| doing.instance != *id);
                }
                self.touch(no);
            }
        }
    }

    /// Whether a view says nothing but that the worker answered again, and nobody waits for that.
    fn only_answered(&self, no: WorkerNo, view: &WorkerView) -> bool {
        let Some(worker) = self.workers.worker(no) else {
            return false;
        };
        let same = |old| differs_in_probe_only(old, view);
        let promised = worker.slot.and_then(|slot| self.slots.slot(slot));
        let under_way = |held: &HeldContainer| {
            let case = self.case(held.uuid);
            case.is_none_or(|case| {
                case.ties
                    .in_flight
                    .iter()
                    .any(|d| d.instance == view.instance)
            })
        };
        worker.view.as_ref().is_some_and(same)
            && !worker.giving_back
            && promised.is_none_or(|slot| slot.holders.is_empty())
            && !self.watch.contains_key(&view.instance)
            && !view.containers.iter().any(under_way)
    }

    /// A kill is done once the worker does not have the container any more.
    fn confirm_kills(&mut self, id: &InstanceId) {
        let Some(watching) = self.watch.get(id) else {
            return;
        };
        for no in watching {
            if let Some(case) = self.cases.get_mut(*no) {
                let claimed = case.claim_on(id).is_some_and(|c| c.phase.may_run());
                if let Some(ties) = case.ties.touched_mut()
                    && let Some(kill) = &mut ties.kill
                    && kill.instance == *id
                    && !claimed
                {
                    kill.gone = true;
                }
            }
        }
    }

    fn take_claim(&mut self, id: &InstanceId, held: &HeldContainer, now: Instant) {
        let no = self.case_no(held.uuid);
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        let phase = ClaimPhase::of(&held.phase);
        let known = case
            .ties
            .claims
            .iter_mut()
            .find(|c| c.instance == *id && c.attempt == held.attempt);
        let mut newly_ended = phase == ClaimPhase::Ended;
        if let Some(claim) = known {
            newly_ended &= claim.phase != ClaimPhase::Ended;
            claim.phase = phase;
        } else {
            case.ties.claims.retain(|c| c.instance != *id);
            case.ties.claims.push(Claim {
                instance: id.clone(),
                attempt: held.attempt,
                phase,
                first_seen: now,
            });
            case.ties.claims.sort_by(|a, b| a.instance.cmp(&b.instance));
        }
        if let HeldPhase::Ended(exit) = &held.phase
            && newly_ended
            && exit.failed_to_begin()
        {
            case.ties.avoid = Some(id.clone());
            let error = match &exit.cause {
                ExitCause::NotStarted { error } => error.clone(),
                cause => cause.to_string(),
            };
            let lengths = (self.config.first_pause, self.config.longest_pause);
            for what in Paused::ALL {
                self.pause_case(no, what, lengths, &error, now);
            }
        }
        self.touch(no);
    }

    fn drop_claim(&mut self, uuid: ContainerUuid, id: &InstanceId) {
        if let Some(no) = self.known(uuid)
            && let Some(case) = self.cases.get_mut(no)
        {
            case.ties.claims.retain(|c| c.instance != *id);
            if let Some(kill) = &mut case.ties.kill
                && kill.instance == *id
            {
                kill.gone = true;
            }
            self.touch(no);
        }
    }
}

/// The pause after another failure: twice as long as the one before.
fn longer_pause(
    old: Option<&Pause>,
    (first, longest): (Duration, Duration),
    error: &str,
    now: Instant,
) -> Pause {
    let failures = old.map_or(1, |p| p.failures.saturating_add(1));
    let doublings = 1u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
    let length = first.saturating_mul(doublings).min(longest);
    Pause {
        failures,
        until: (now + length).max(old.map_or(now, |p| p.until)),
        error: error.to_owned(),
    }
}

/// Whether nothing but the time of the last answer differs.
fn differs_in_probe_only(old: &WorkerView, new: &WorkerView) -> bool {
    let WorkerView {
        instance,
        type_name,
        state,
        idle_behavior,
        capacity,
        granted,
        containers,
        probed_at: _,
        last_error,
    } = new;
    old.instance == *instance
        && old.type_name == *type_name
        && old.state == *state
        && old.idle_behavior == *idle_behavior
        && old.capacity == *capacity
        && old.granted == *granted
        && old.containers == *containers
        && old.last_error == *last_error
}

/// Compares a new record with what is known, and keeps what that says about the latest attempt.
fn note_progress(case: &mut Case, new: &Record) {
    let container = new;
    let attempt = container.attempt();
    let old = case.entry.as_ref();
    let same_attempt = old.is_some_and(|c| {
        c.attempt() == attempt
            && (c.state == ContainerState::Queued) == (container.state == ContainerState::Queued)
    });
    if !same_attempt {
        let locked_by_this = container.state == ContainerState::Locked
            && old.is_some_and(|c| {
                c.state == ContainerState::Queued
                    && c.lock_count.checked_add(1) == Some(container.lock_count)
            })
            && case.calling == Some(Call::Lock);
        case.seen_as_of = new.as_of;
        if locked_by_this {
            case.ties.begin_attempt(true);
        } else if let Some(ties) = case.ties.touched_mut() {
            ties.begin_attempt(false);
        }
    }
    // Somebody said meanwhile that it runs: what had ruled that out was asked too early.
    let was_locked = old.is_some_and(|c| c.state == ContainerState::Locked);
    if same_attempt && was_locked && container.state == ContainerState::Running {
        case.seen_as_of = new.as_of;
        if let Some(ties) = case.ties.touched_mut() {
            ties.cleared_at = None;
            if ties.origin == Origin::Nowhere {
                // A start of an earlier attempt, whose runner numbers none, was let run.
                ties.origin = Origin::Unknown;
            }
        }
    }
    let began = container.state == ContainerState::Running || container.state.is_final();
    if let (true, Some(ties)) = (began, case.ties.touched_mut()) {
        ties.avoid = None;
        ties.pauses.forget_failures();
    }
}
