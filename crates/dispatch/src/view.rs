//! What others may see of a dispatcher.

use longshore_types::{ContainerState, ContainerUuid, PendingView, Reason, WorkerView};

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
