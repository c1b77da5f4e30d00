//! The queue: what a dispatcher asks of a controller, and the cache of its answers.
//!
//! [`Queue`] is the one trait that a controller client implements. [`Cache`] is pure: it decides
//! which of the controller's answers is newer, and which change of an entry matters.

mod cache;
mod error;
mod gone;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use cache::{Busy, Cache, Delta};
pub use error::{QueueError, QueueErrorKind};
use longshore_types::{Attempt, Container, ContainerUuid, Exit, InstanceId, Timestamp};

/// A controller as a dispatcher sees it.
///
/// # What every implementation promises
///
/// - Each call ends within its timeout.
/// - A [`Call`] is applied once or not at all; repeating one whose reply was lost is safe: it
///   answers with the record as it is.
/// - A call that is late changes nothing. Each names the attempt that it is about, and those that
///   would be wrong after another one has come first name the place, too: a controller that records
///   placements refuses what its record has left behind, since whoever asked may have died long ago.
/// - Records are complete: every field that scheduling reads is filled in.
/// - Calls may run at the same time as each other; for one container the caller makes one at a
///   time.
#[async_trait]
pub trait Queue: fmt::Debug + Send + Sync {
    /// Everything that this dispatcher has to know: containers locked by it, the queue's top by
    /// priority, and what became of the `known` ones that are neither.
    async fn refresh(
        &self,
        known: &[ContainerUuid],
        timeout: Duration,
    ) -> Result<Refresh, QueueError>;

    /// Waits for changes that this dispatcher has not been told of, at most until the timeout,
    /// and returns them, the newest record of each container, at most 1,000 at once.
    ///
    /// An empty answer means that nothing changed. Only called if [`Capabilities::pushes`].
    /// Dropping the future loses no change.
    async fn changes(&self, timeout: Duration) -> Result<Vec<Change>, QueueError>;

    /// Changes a container.
    async fn call(
        &self,
        uuid: ContainerUuid,
        call: &Call,
        timeout: Duration,
    ) -> Result<Reply, QueueError>;

    /// The start document of a container that this dispatcher has locked.
    async fn document(
        &self,
        uuid: ContainerUuid,
        timeout: Duration,
    ) -> Result<Arc<[u8]>, QueueError>;

    /// What this controller can do. Pure, and always the same answer.
    fn capabilities(&self) -> Capabilities;
}

/// What a controller can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// It tells of changes by itself: [`Queue::changes`] works, nothing needs to be polled.
    pub pushes: bool,
    /// The dispatcher tells it where an attempt will be started, before it is ([`Call::Place`]:
    /// [`Container::placed_on`] is always true for locked and running containers), and how
    /// containers end ([`Call::Running`], [`Call::Ended`]).
    ///
    /// Otherwise the runner tells of ends, and none of the three is ever called: of an attempt that
    /// was lost a locked container is unlocked, and a running one cancelled. Such a controller has
    /// to let one runner alone run a locked container; nothing else keeps it from running twice
    /// after a restart.
    pub takes_reports: bool,
}

/// A change of one container that a dispatcher asks for.
///
/// A request can arrive minutes after its dispatcher gave it up or died, when another one acts for
/// the same containers. So each names the attempt that it was decided on, and within an attempt the
/// place is written once: whatever arrives late either says what is so or is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a controller client that ignores one must not compile"
)]
pub enum Call {
    /// Takes a queued container for this dispatcher and begins a new attempt of it.
    Lock {
        /// The attempt that this begins: the one after [`Container::attempt`]. Refused if another
        /// was begun meanwhile.
        attempt: Attempt,
        /// The instance on which it will be started, if that exists already.
        planned: Option<InstanceId>,
    },
    /// Records the instance on which the locked attempt is about to be started.
    ///
    /// Refused if another instance is recorded for this attempt: a process may be there.
    Place {
        /// Which attempt.
        attempt: Attempt,
        /// Which instance.
        instance: InstanceId,
    },
    /// Gives a locked container back to the queue: nothing of this attempt runs at the place that
    /// was known, or ever will.
    ///
    /// Refused if the attempt was placed elsewhere meanwhile.
    Unlock {
        /// Which attempt. If there is a later one, nothing changes.
        attempt: Attempt,
        /// The instance that was recorded for it.
        placed_on: Option<InstanceId>,
    },
    /// Ends a container that cannot be run. Refused where [`Call::Unlock`] would be, and if there
    /// is a later attempt.
    Cancel {
        /// Which attempt was the latest.
        attempt: Attempt,
        /// The instance that was recorded for it.
        placed_on: Option<InstanceId>,
        /// Why, for the user.
        error: String,
    },
    /// The process of an attempt was started.
    Running {
        /// Which attempt.
        attempt: Attempt,
        /// When, on the clock of its machine, if known.
        started_at: Option<Timestamp>,
    },
    /// The process of an attempt ended, or is gone with its machine. The controller decides what
    /// that means: complete, cancelled, or queued again while retries are left.
    Ended {
        /// Which attempt.
        attempt: Attempt,
        /// How.
        exit: Exit,
    },
}

impl Call {
    /// The attempt that it is about.
    ///
    /// ```
    /// use longshore_queue::Call;
    /// use longshore_types::Attempt;
    /// let call = Call::Place { attempt: Attempt(2), instance: "i-1".into() };
    /// assert_eq!(call.attempt(), Attempt(2));
    /// ```
    pub fn attempt(&self) -> Attempt {
        match self {
            Self::Lock { attempt, .. }
            | Self::Place { attempt, .. }
            | Self::Unlock { attempt, .. }
            | Self::Cancel { attempt, .. }
            | Self::Running { attempt, .. }
            | Self::Ended { attempt, .. } => *attempt,
        }
    }
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The record after the change.
    pub container: Container,
    /// The start document, with the answer to [`Call::Lock`] where that costs nothing extra.
    pub document: Option<Arc<[u8]>>,
}

/// The answer to [`Queue::refresh`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refresh {
    /// The records.
    pub containers: Vec<Container>,
    /// Those of the known ones that surely do not exist any more.
    pub removed: Vec<ContainerUuid>,
}

/// A change that a controller tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a record is there or it is not")]
pub enum Change {
    /// The newest record of a container.
    Updated(Box<Container>),
    /// It does not exist any more.
    Removed(ContainerUuid),
}
