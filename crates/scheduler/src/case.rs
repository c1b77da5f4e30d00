//! What is known of one container: its entry, who claims to have it, what was done about it.

use std::cmp::Reverse;

use longshore_types::{
    Attempt, ContainerState, ContainerUuid, HeldPhase, InstanceId, Instant, QueueEntry, Reason,
    Timestamp,
};

use crate::action::Action;
use crate::slots::SlotId;

/// The place in line: Locked before Queued, then priority, age, and UUID.
pub(crate) type OrderKey = (bool, Reverse<i64>, Timestamp, ContainerUuid);

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
}

/// Where the latest attempt was started, as far as this core knows by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Perhaps somewhere, before this core was made.
    Unknown,
    /// This core took the lock and has not started it.
    Nowhere,
    /// This core started it there, or saw it there.
    On(InstanceId),
}

/// The last kill of an attempt, and whether it is known to be gone since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KillMark {
    pub(crate) instance: InstanceId,
    pub(crate) attempt: Attempt,
    pub(crate) gone: bool,
}

/// A pause after failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) failures: u32,
    pub(crate) until: Instant,
    pub(crate) error: String,
}

/// Room promised to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Booking {
    pub(crate) slot: SlotId,
    /// Whether an action relies on it; otherwise it is made anew in each pass.
    pub(crate) hard: bool,
}

/// What the rules say about a container apart from room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is no entry.
    Absent,
    /// Nothing can be started; this is why.
    Settled(Box<Reason>),
    /// Something failed a moment ago.
    Paused,
    /// It needs a place.
    Waiting,
    /// It can be started on this instance and nowhere else.
    Bound(InstanceId),
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) uuid: ContainerUuid,
    pub(crate) entry: Option<QueueEntry>,
    /// As of when the controller surely does not have it.
    pub(crate) absent_as_of: Option<Instant>,
    /// Index of its shape; meaningful while there is an entry.
    pub(crate) shape: usize,
    pub(crate) claims: Vec<Claim>,
    pub(crate) origin: Origin,
    /// As of when the latest attempt was first known.
    pub(crate) seen_as_of: Instant,
    /// Since when no possible place of the latest attempt is left.
    pub(crate) cleared_at: Option<Instant>,
    /// Whether the latest attempt was seen on a worker.
    pub(crate) ran: bool,
    pub(crate) kill: Option<KillMark>,
    pub(crate) avoid: Option<SlotId>,
    pub(crate) in_flight: Vec<Action>,
    pub(crate) pause: Option<Pause>,
    pub(crate) booking: Option<Booking>,
    pub(crate) standing: Standing,
    pub(crate) wants: Vec<Action>,
    /// The instance whose next delta may change the verdict.
    pub(crate) watch: Option<InstanceId>,
    /// How it is counted: nothing, or the place in line, or as active.
    pub(crate) counted: Counted,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Its place in line, while it is in line.
    pub(crate) line: Option<OrderKey>,
    /// Whether it is in its shape's queue.
    pub(crate) queued: bool,
    /// Whether it counts as running; and whether as a supervisor.
    pub(crate) active: Option<bool>,
}

impl Case {
    pub(crate) fn new(uuid: ContainerUuid) -> Self {
        Self {
            uuid,
            entry: None,
            absent_as_of: None,
            shape: 0,
            claims: Vec::new(),
            origin: Origin::Unknown,
            seen_as_of: Instant::ZERO,
            cleared_at: None,
            ran: false,
            kill: None,
            avoid: None,
            in_flight: Vec::new(),
            pause: None,
            booking: None,
            standing: Standing::Absent,
            wants: Vec::new(),
            watch: None,
            counted: Counted::default(),
        }
    }

    pub(crate) fn order(&self) -> Option<OrderKey> {
        let container = &self.entry.as_ref()?.container;
        Some((
            container.state != ContainerState::Locked,
            Reverse(container.priority),
            container.created_at,
            container.uuid,
        ))
    }

    /// Whether a call about the entry is under way, or about to be.
    pub(crate) fn entry_busy(&self) -> bool {
        self.entry.as_ref().is_some_and(|e| e.call_in_flight)
            || self
                .in_flight
                .iter()
                .any(|a| a.settled_by_worker().is_none())
    }

    /// The instance that a start under way goes to.
    pub(crate) fn starting_on(&self) -> Option<&InstanceId> {
        self.in_flight.iter().find_map(|action| match action {
            Action::Start { instance, .. } => Some(instance),
            _ => None,
        })
    }

    pub(crate) fn claim_on(&self, instance: &InstanceId) -> Option<&Claim> {
        self.claims.iter().find(|c| c.instance == *instance)
    }

    /// Whether a claim is about something else than what the entry stands for now.
    ///
    /// Attempt 0 is one whose number the runner does not know.
    pub(crate) fn is_outdated(entry: &QueueEntry, claim: &Claim) -> bool {
        let container = &entry.container;
        let (of_entry, of_claim) = (container.attempt(), claim.attempt);
        match container.state {
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
