//! The cache of the controller's answers.
//!
//! Pure: which record is newer is decided by its revision where the controller numbers them, and
//! else by the time at which it was asked for: what may be older than this dispatcher's own last
//! write of the container is dropped.

use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{Container, ContainerUuid, Instant, QueueEntry};

use crate::{Change, Refresh};

/// A call about this container is under way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a call about {0} is under way already")]
pub struct Busy(pub ContainerUuid);

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "an entry is there or it is not")]
pub enum Delta {
    /// It is new or differs from what was polled before.
    Upsert(QueueEntry),
    /// It is gone.
    Remove(ContainerUuid),
}

#[derive(Clone, Debug)]
struct Cached {
    container: Container,
    as_of: Instant,
    last_write: Option<Instant>,
    call_in_flight: bool,
}

/// The containers that this dispatcher knows of.
///
/// ```
/// use longshore_queue::{Cache, Delta};
/// let mut cache = Cache::new();
/// assert!(cache.poll_delta().is_none());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cache {
    entries: BTreeMap<ContainerUuid, Cached>,
    changed: BTreeSet<ContainerUuid>,
}
