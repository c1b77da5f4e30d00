//! What the core asks its shell to do, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use longshore_queue::{Call, Change, QueueErrorKind, Refresh, Reply};
use longshore_types::ContainerUuid;

/// The number of a request to the controller, unique within one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something that the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a shell that misses an effect must not compile"
)]
pub enum Effect {
    /// For the pool: ends in [`Answer::Pool`].
    Pool(longshore_pool::Effect),
    /// For the controller: ends in [`Answer::Queue`].
    Queue(QueueRequest),
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "one variant for each kind of effect"
)]
pub enum Answer {
    /// Of an effect of the pool.
    Pool(longshore_pool::EffectId, longshore_pool::Outcome),
    /// Of a request to the controller.
    Queue(RequestId, QueueReply),
}

/// A request to the controller. It ends in exactly one [`QueueReply`] with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRequest {
    /// Its number.
    pub id: RequestId,
    /// How long it may take; after that the shell reports [`QueueErrorKind::Unknown`].
    pub timeout: Duration,
    /// What to ask.
    pub action: QueueAction,
}

/// What to ask the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a shell that misses an effect must not compile"
)]
pub enum QueueAction {
    /// Everything that this dispatcher has to know, and what became of these.
    Refresh(Vec<ContainerUuid>),
    /// Wait for changes.
    Watch,
    /// Change a container.
    Call(ContainerUuid, Call),
    /// The start document of a container.
    Document(ContainerUuid),
}

/// The controller's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "one variant for each request")]
pub enum QueueReply {
    /// To [`QueueAction::Refresh`].
    Refreshed(Result<Refresh, QueueFailure>),
    /// To [`QueueAction::Watch`].
    Changed(Result<Vec<Change>, QueueFailure>),
    /// To [`QueueAction::Call`].
    Called(Result<Reply, QueueFailure>),
    /// To [`QueueAction::Document`].
    Document(Result<Arc<[u8]>, QueueFailure>),
}

/// A request to the controller failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFailure {
    /// Why.
    pub kind: QueueErrorKind,
    /// The error and its causes as one line.
    pub error: String,
}
