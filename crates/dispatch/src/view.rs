//! What others may see of a dispatcher.

use longshore_types::{
    Attempt, Container, ContainerState, ContainerUuid, Instant, PendingView, Reason, TypeName,
    WorkerView,
};

/// A dispatcher at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Every worker, by instance.
    pub workers: Vec<WorkerView>,
    /// Every create that has not ended.
    pub pending: Vec<PendingView>,
    /// The first entries of the queue that wait, in scheduling order.
    pub waiting: Vec<WaitingEntry>,
    /// How many wait, with those behind these.
    pub in_line: usize,
    /// Entries of the queue that are not final.
    pub unfinished: usize,
    /// Whether the queue was read and the instances were listed, so that the above is complete.
    pub ready: bool,
    /// Whether it was told to wind down and has no instances left.
    pub wound_down: bool,
}

/// A container that waits, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WaitingEntry {
    /// Which.
    pub uuid: ContainerUuid,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Its position in line, from 1.
    pub position: Option<usize>,
    /// Why it waits.
    pub reason: Reason,
}

/// An entry of the queue as the management API shows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EntryView {
    /// Its record.
    pub container: Container,
    /// The instance types that it may run on, the one that is preferred first.
    pub types: Vec<TypeName>,
    /// When it came into the queue's cache.
    pub first_seen: Instant,
    /// Its position in line, from 1; none unless it waits.
    pub position: Option<usize>,
    /// How many wait.
    pub in_line: usize,
    /// Why it is not being started, if that is known.
    pub reason: Option<Reason>,
}

/// An instance as the management API shows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InstanceEntry {
    /// What the pool knows of it.
    pub worker: WorkerView,
    /// How its host is reached, once that is known.
    pub address: Option<String>,
    /// The last container that was on it, and when something last was.
    pub last_busy: Option<(ContainerUuid, Instant)>,
}

/// Where an attempt is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Place {
    /// Its host.
    pub host: longshore_pool::Host,
    /// Which attempt.
    pub attempt: Attempt,
}
