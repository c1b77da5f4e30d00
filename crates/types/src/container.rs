//! Containers as the scheduler sees them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Attempt, ContainerUuid, InstanceId, Instant, ResourceRequest, Timestamp};

/// The largest priority that a user can give.
pub const MAX_PRIORITY: i64 = 1000;

/// Where a container is in its life.
///
/// ```
/// use longshore_types::ContainerState::*;
/// assert!(Queued.can_become(Locked) && !Queued.can_become(Running));
/// assert!(Complete.is_final());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the controller's contract; a new state must not compile unnoticed"
)]
pub enum ContainerState {
    /// Waiting to be taken.
    Queued,
    /// Taken by a dispatcher.
    Locked,
    /// Its process was started.
    Running,
    /// Its process ended by itself; the exit code is known.
    Complete,
    /// It will not run, or was stopped.
    Cancelled,
}

impl ContainerState {
    /// Every state, in the order of a container's life.
    pub const ALL: [Self; 5] = [
        Self::Queued,
        Self::Locked,
        Self::Running,
        Self::Complete,
        Self::Cancelled,
    ];

    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Cancelled)
    }

    /// Whether a controller lets a container go from this state to `next`.
    ///
    /// `Running` to `Queued` is ours: a controller with `retries` puts a container back whose
    /// machine was lost.
    pub fn can_become(self, next: Self) -> bool {
        use ContainerState::{Cancelled, Complete, Locked, Queued, Running};
        matches!(
            (self, next),
            (Queued, Locked | Cancelled)
                | (Locked, Queued | Running | Cancelled)
                | (Running, Complete | Cancelled | Queued)
        )
    }

    /// The name, as the controller spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Locked => "Locked",
            Self::Running => "Running",
            Self::Complete => "Complete",
            Self::Cancelled => "Cancelled",
        }
    }
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One unit of work in the queue, with what scheduling needs to know of it.
///
/// What it runs (command, environment, image) is not here: that is the start document, opaque
/// to everything between the controller and the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its identifier.
    pub uuid: ContainerUuid,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Higher goes first; less than 1 means "do not run, stop if it runs".
    pub priority: i64,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// What it asks of its machine.
    pub request: ResourceRequest,
    /// Whether it mostly waits for other containers (a workflow's supervisor).
    pub supervisor: bool,
    /// How often it has been locked; also the number of its latest attempt.
    pub lock_count: u32,
    /// How often in a row it was given back before a process of it was started, where the
    /// controller counts that; where it does not, each lock is one of the tries that it allows.
    pub given_back: Option<u32>,
    /// Whether the lock, if there is one, is this dispatcher's.
    pub locked_by_us: bool,
    /// The instance that was recorded before its latest attempt was started, where the
    /// controller records that.
    pub placed_on: Option<InstanceId>,
    /// The controller's version of this record; larger is newer. 0 where it has none.
    pub revision: u64,
}

impl Container {
    /// A container that was just submitted: queued, at the middle priority, 500, and never locked.
    ///
    /// ```
    /// use longshore_types::{ByteSize, Container, ContainerState, ResourceRequest};
    /// let mut request = ResourceRequest::default();
    /// (request.vcpus, request.ram) = (2, ByteSize::gib(4));
    /// let mut container = Container::queued("zzzzz-dz642-0123456789abcde".parse()?, request);
    /// container.priority = 900;
    /// assert_eq!(container.state, ContainerState::Queued);
    /// # Ok::<(), longshore_types::ParseUuidError>(())
    /// ```
    pub fn queued(uuid: ContainerUuid, request: ResourceRequest) -> Self {
        Self {
            uuid,
            state: ContainerState::Queued,
            priority: MAX_PRIORITY / 2,
            created_at: Timestamp(0),
            request,
            supervisor: false,
            lock_count: 0,
            given_back: None,
            locked_by_us: false,
            placed_on: None,
            revision: 0,
        }
    }

    /// How many of the tries that a controller allows (MaxDispatchAttempts) it has used up, with the
    /// one that its latest lock was for.
    ///
    /// ```
    /// # use longshore_types::{Container, ResourceRequest};
    /// # let uuid = "zzzzz-dz642-0123456789abcde".parse()?;
    /// let mut container = Container::queued(uuid, ResourceRequest::default());
    /// container.lock_count = 7;
    /// assert_eq!(container.tries(), 7);
    /// // Six of its attempts were started, and their machines lost.
    /// container.given_back = Some(0);
    /// assert_eq!(container.tries(), 1);
    /// # Ok::<(), longshore_types::ParseUuidError>(())
    /// ```
    pub fn tries(&self) -> u32 {
        match self.given_back {
            Some(given_back) => given_back.saturating_add(1),
            None => self.lock_count,
        }
    }

    /// The attempt that its lock stands for.
    pub fn attempt(&self) -> Attempt {
        Attempt(self.lock_count)
    }
}

/// A container as the scheduler is given it: the record and how fresh it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// The record.
    pub container: Container,
    /// The record is complete as of this moment: it was read no earlier.
    pub as_of: Instant,
    /// Whether a call that changes it at the controller is under way.
    pub call_in_flight: bool,
}

impl QueueEntry {
    /// A record that was read no earlier than `as_of`, with no call about it under way.
    ///
    /// ```
    /// use longshore_types::{Container, Instant, QueueEntry, ResourceRequest};
    /// let uuid = "zzzzz-dz642-0123456789abcde".parse()?;
    /// let container = Container::queued(uuid, ResourceRequest::default());
    /// assert!(!QueueEntry::new(container, Instant::ZERO).call_in_flight);
    /// # Ok::<(), longshore_types::ParseUuidError>(())
    /// ```
    pub fn new(container: Container, as_of: Instant) -> Self {
        Self {
            container,
            as_of,
            call_in_flight: false,
        }
    }
}
