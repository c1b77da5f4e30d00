//! What is known of one container: its entry, who claims to have it, what was done about it.

use longshore_types::{
    Attempt, ContainerState, ContainerUuid, HeldPhase, InstanceId, Instant, QueueEntry, Reason,
    Resources, Timestamp,
};

use crate::action::Action;
use crate::history::Log;
use crate::ids::{CaseNo, OrderKey, SlotNo, UuidKey};
use crate::seldom::{Seldom, Untouched};

/// The entry of a container, without what its shape stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) state: ContainerState,
    pub(crate) supervisor: bool,
    pub(crate) locked_by_us: bool,
    pub(crate) call_in_flight: bool,
    pub(crate) lock_count: u32,
    /// How many of the tries that it is allowed it has used up, with this one.
    pub(crate) tries: u32,
    pub(crate) priority: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) placed_on: Option<Box<InstanceId>>,
    pub(crate) as_of: Instant,
}

impl Record {
    pub(crate) fn of(entry: QueueEntry) -> Self {
        let container = entry.container;
        Self {
            tries: container.tries(),
            state: container.state,
            supervisor: container.supervisor,
            locked_by_us: container.locked_by_us,
            call_in_flight: entry.call_in_flight,
            lock_count: container.lock_count,
            priority: container.priority,
            created_at: container.created_at,
            placed_on: container.placed_on.map(Box::new),
            as_of: entry.as_of,
        }
    }

    pub(crate) fn attempt(&self) -> Attempt {
        Attempt(self.lock_count)
    }
}

/// A container on a worker, as that worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) instance: InstanceId,
    pub(crate) attempt: Attempt,
    pub(crate) phase: ClaimPhase,
    /// When this was first heard.
    pub(crate) first_seen: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimPhase {
    Starting,
    Running,
    /// It is being killed, or that was given up.
    Dying,
    Stale,
    Ended,
}

impl ClaimPhase {
    pub(crate) fn of(phase: &HeldPhase) -> Self {
        match phase {
            HeldPhase::Starting => Self::Starting,
            HeldPhase::Running => Self::Running,
            HeldPhase::Killing | HeldPhase::GivenUp => Self::Dying,
            HeldPhase::Stale => Self::Stale,
            HeldPhase::Ended(_) => Self::Ended,
        }
    }

    pub(crate) fn may_run(self) -> bool {
        self != Self::Ended
    }

    /// Whether it says that there was a process, not only that one may begin.
    pub(crate) fn shows_process(self) -> bool {
        matches!(self, Self::Running | Self::Stale | Self::Ended)
    }
}

/// Where the latest attempt was started, as far as this core knows by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Perhaps somewhere, before this core was made.
    Unknown,
    /// This core took the lock and has not started it, or its start surely failed.
    Nowhere,
    /// This core started it there, or saw it there.
    On(InstanceId),
}

/// The last kill of an attempt, and whether it is known to be gone since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KillMark {
    pub(crate) instance: InstanceId,
    pub(crate) attempt: Attempt,
    /// Whether it was only to be kept from being started.
    pub(crate) only_unstarted: bool,
    pub(crate) gone: bool,
}

/// A pause after failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) failures: u32,
    pub(crate) until: Instant,
    pub(crate) error: String,
}

/// Of what there are pauses: what has failed does not hold back the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paused {
    /// What the controller is asked for.
    Calls,
    /// What an instance is told to do.
    Commands,
}

impl Paused {
    pub(crate) const ALL: [Self; 2] = [Self::Calls, Self::Commands];

    pub(crate) fn of(action: &Action) -> Self {
        match Call::of(action) {
            Some(_) => Self::Calls,
            None => Self::Commands,
        }
    }
}

/// The last pause of each kind, which may be over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pauses([Option<Pause>; Paused::ALL.len()]);

impl Pauses {
    const NONE: Self = Self([None, None]);

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pause> {
        self.0.iter().flatten()
    }

    pub(crate) fn get_mut(&mut self, what: Paused) -> &mut Option<Pause> {
        &mut self.0[what as usize]
    }

    /// The one that ends last of those that are not over.
    pub(crate) fn last(&self, now: Instant) -> Option<&Pause> {
        let open = self.iter().filter(|pause| pause.until > now);
        open.max_by_key(|pause| pause.until)
    }

    fn holds_back(&self, action: &Action, now: Instant) -> bool {
        let pause = &self.0[Paused::of(action) as usize];
        pause.as_ref().is_some_and(|pause| pause.until > now)
    }

    /// How often in a row something has failed.
    pub(crate) fn failures(&self) -> u32 {
        self.iter().map(|pause| pause.failures).max().unwrap_or(0)
    }

    pub(crate) fn forget_failures(&mut self) {
        for pause in self.0.iter_mut().flatten() {
            pause.failures = 0;
        }
    }
}

/// Room promised to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Booking {
    pub(crate) slot: SlotNo,
    /// Whether an action relies on it; otherwise it is made anew in each pass.
    pub(crate) hard: bool,
    /// Whether there is less room than that: it may start there unasked, so nobody else is started
    /// there before it was withdrawn, or has begun.
    pub(crate) over: bool,
    pub(crate) need: Resources,
}

/// A call about an entry that was emitted; the entry shows what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Lock,
    Place,
    /// It is unlocked, lost, cancelled or forgotten: nothing is begun.
    End,
}

impl Call {
    pub(crate) fn of(action: &Action) -> Option<Self> {
        match action {
            Action::Lock { .. } => Some(Self::Lock),
            Action::Place { .. } => Some(Self::Place),
            Action::Unlock { .. }
            | Action::Lost { .. }
            | Action::Forget { .. }
            | Action::Cancel { .. } => Some(Self::End),
            _ => None,
        }
    }
}

/// Something that was emitted for an instance, of which the worker shows what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doing {
    pub(crate) instance: InstanceId,
    pub(crate) attempt: Attempt,
    pub(crate) what: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Kill,
    Acknowledge,
}

impl Doing {
    pub(crate) fn of(action: &Action) -> Option<Self> {
        let (instance, attempt, what) = match action {
            Action::Start {
                instance, attempt, ..
            } => (instance, attempt, Verb::Start),
            Action::Kill {
                instance, attempt, ..
            } => (instance, attempt, Verb::Kill),
            Action::Acknowledge {
                instance, attempt, ..
            } => (instance, attempt, Verb::Acknowledge),
            _ => return None,
        };
        Some(Self {
            instance: instance.clone(),
            attempt: *attempt,
            what,
        })
    }

    /// Whether an action would do to the same object what is being done.
    pub(crate) fn covers(&self, action: &Action) -> bool {
        match (self.what, action) {
            (Verb::Kill, Action::Kill { instance, .. }) => self.instance == *instance,
            _ => Self::of(action).as_ref() == Some(self),
        }
    }
}

/// What the rules say about a container apart from room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is no entry.
    Absent,
    /// Nothing can be started; this is why.
    Settled(Box<Reason>),
    /// The controller has to answer.
    Calling,
    /// Something failed a moment ago.
    Paused,
    /// It needs a place.
    Waiting,
    /// It can be started on the instance that it is bound to and nowhere else.
    Bound,
}

/// What ties a container to instances, and what is under way or went wrong there: nothing, while it
/// merely waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ties {
    /// As of when the controller surely does not have it.
    pub(crate) absent_as_of: Option<Instant>,
    pub(crate) claims: Vec<Claim>,
    /// Whether this core took the lock of the latest attempt, so that nobody else can start it.
    pub(crate) own_lock: bool,
    pub(crate) origin: Origin,
    /// Since when no possible place of the latest attempt is left.
    pub(crate) cleared_at: Option<Instant>,
    /// Whether the latest attempt was seen on a worker.
    pub(crate) ran: bool,
    pub(crate) kill: Option<KillMark>,
    /// The instance where its last start failed.
    pub(crate) avoid: Option<InstanceId>,
    pub(crate) in_flight: Vec<Doing>,
    pub(crate) pauses: Pauses,
    pub(crate) wants: Vec<Action>,
    /// The instance whose next delta may change the verdict; of one that is bound, the instance
    /// that it is bound to.
    pub(crate) watch: Option<InstanceId>,
    /// How many preemptible instances were taken away under it.
    pub(crate) interruptions: u32,
}

impl Ties {
    const fn none() -> Self {
        Self {
            absent_as_of: None,
            claims: Vec::new(),
            own_lock: false,
            origin: Origin::Unknown,
            cleared_at: None,
            ran: false,
            kill: None,
            avoid: None,
            in_flight: Vec::new(),
            pauses: Pauses::NONE,
            wants: Vec::new(),
            watch: None,
            interruptions: 0,
        }
    }

    pub(crate) fn is_paused(&self, now: Instant) -> bool {
        self.pauses.last(now).is_some()
    }

    /// Whether an action has to wait for the end of a pause.
    pub(crate) fn holds_back(&self, action: &Action, now: Instant) -> bool {
        self.pauses.holds_back(action, now)
    }

    /// Forgets what was known of an earlier attempt.
    pub(crate) fn begin_attempt(&mut self, own_lock: bool) {
        self.own_lock = own_lock;
        self.origin = if own_lock {
            Origin::Nowhere
        } else {
            Origin::Unknown
        };
        self.cleared_at = None;
        self.ran = false;
        self.kill = None;
    }
}

impl Untouched for Ties {
    const UNTOUCHED: &'static Self = &Self::none();

    fn untouched() -> Self {
        Self::none()
    }
}

/// A container. There may be a hundred thousand that merely wait: what those do not need is in
/// `ties`.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) uuid: ContainerUuid,
    pub(crate) key: UuidKey,
    pub(crate) entry: Option<Record>,
    /// Index of its shape; meaningful while there is an entry.
    pub(crate) shape: usize,
    /// As of when the latest attempt was first known.
    pub(crate) seen_as_of: Instant,
    /// The call about it that is under way.
    pub(crate) calling: Option<Call>,
    pub(crate) booking: Option<Booking>,
    pub(crate) standing: Standing,
    /// How it is counted: nothing, or the place in line, or as active.
    pub(crate) counted: Counted,
    /// Whether it has to be judged again.
    pub(crate) touched: bool,
    /// What it has waited for.
    pub(crate) log: Log,
    pub(crate) ties: Seldom<Ties>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Whether it is in line.
    pub(crate) line: bool,
    /// Whether it is in its shape's queue.
    pub(crate) queued: bool,
    /// Whether it counts as running; and whether as a supervisor.
    pub(crate) active: Option<bool>,
}

impl Case {
    pub(crate) fn new(uuid: ContainerUuid, key: UuidKey) -> Self {
        Self {
            uuid,
            key,
            entry: None,
            shape: 0,
            seen_as_of: Instant::ZERO,
            calling: None,
            booking: None,
            standing: Standing::Absent,
            counted: Counted::default(),
            touched: false,
            log: Log::new(Instant::ZERO),
            ties: Seldom::untouched(),
        }
    }

    pub(crate) fn order(&self, no: CaseNo) -> Option<OrderKey> {
        Some(self.order_of(self.entry.as_ref()?, no))
    }

    pub(crate) fn order_of(&self, entry: &Record, no: CaseNo) -> OrderKey {
        OrderKey::new(
            entry.state == ContainerState::Locked,
            entry.priority,
            entry.created_at,
            self.key,
            no,
        )
    }

    /// Whether a call about the entry is under way, or about to be.
    pub(crate) fn entry_busy(&self) -> bool {
        self.entry.as_ref().is_some_and(|e| e.call_in_flight) || self.calling.is_some()
    }

    /// The instance that a start under way goes to.
    pub(crate) fn starting_on(&self) -> Option<&InstanceId> {
        let start = self.ties.in_flight.iter().find(|d| d.what == Verb::Start);
        start.map(|doing| &doing.instance)
    }

    /// The only instance on which it can be started, if there is one.
    pub(crate) fn bound_to(&self) -> Option<&InstanceId> {
        let watch = self.ties.watch.as_ref();
        watch.filter(|_| self.standing == Standing::Bound)
    }

    pub(crate) fn claim_that_may_run(&self) -> Option<&Claim> {
        self.ties.claims.iter().find(|c| c.phase.may_run())
    }

    pub(crate) fn claim_on(&self, instance: &InstanceId) -> Option<&Claim> {
        self.ties.claims.iter().find(|c| c.instance == *instance)
    }

    /// Whether a claim is about something else than what the entry stands for now.
    ///
    /// Attempt 0 is one whose number the runner does not know.
    pub(crate) fn is_outdated(entry: &Record, claim: &Claim) -> bool {
        let (of_entry, of_claim) = (entry.attempt(), claim.attempt);
        match entry.state {
            ContainerState::Complete | ContainerState::Cancelled => true,
            ContainerState::Queued => of_claim <= of_entry || claim.first_seen < entry.as_of,
            ContainerState::Locked | ContainerState::Running => {
                of_claim != Attempt(0)
                    && (of_claim < of_entry
                        || (of_claim > of_entry && claim.first_seen < entry.as_of))
            }
        }
    }
}
