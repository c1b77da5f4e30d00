//! What can go wrong with a controller.

use std::error::Error as StdError;

/// Why a call to a controller failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each kind has its consequence; a new one must not compile unnoticed"
)]
pub enum QueueErrorKind {
    /// The container does not exist. Nothing was changed.
    NotFound,
    /// The change is not allowed in the state that the container is in. Nothing was changed; the
    /// record should be read again.
    Refused,
    /// The controller has too much to do (503). Nothing was changed.
    Overloaded,
    /// The controller cannot do it now, however little it has to do: its disk is full, its store
    /// is locked. Nothing was changed.
    Unavailable,
    /// The record of this container cannot be understood. Nothing was changed.
    BadRecord,
    /// No answer, or one that cannot be understood. The change may have been made.
    Unknown,
}

/// A call to a controller failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
#[non_exhaustive]
pub struct QueueError {
    /// Why.
    pub kind: QueueErrorKind,
    /// What failed, one line without the cause.
    pub what: String,
    /// The cause, if there is one beneath.
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl QueueError {
    /// An error without a cause beneath it.
    pub fn new(kind: QueueErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// An error with its cause.
    pub fn caused(
        kind: QueueErrorKind,
        what: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            source: Some(source.into()),
        }
    }

    /// Whether the change may have been made all the same.
    pub fn may_have_acted(&self) -> bool {
        self.kind == QueueErrorKind::Unknown
    }
}
