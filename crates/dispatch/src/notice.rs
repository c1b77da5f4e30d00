//! What the core tells whoever watches it.

use longshore_queue::Call;
use longshore_scheduler::Action;
use longshore_types::{ContainerUuid, InstanceId};

/// Something that was decided or that happened, for logs and displays.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The scheduler decided this, and it is being done.
    Decided(Action),
    /// The scheduler decided this, and it could not be done.
    NotDone {
        /// What.
        action: Action,
        /// Why, one line.
        error: String,
    },
    /// Something happened to an attempt or an instance.
    Happened(longshore_pool::Event),
    /// A worker is gone.
    WorkerGone(InstanceId),
    /// The controller took a call.
    Told(ContainerUuid, Call),
    /// The controller did not take a call.
    NotTold {
        /// Which container.
        uuid: ContainerUuid,
        /// What it was to be told.
        call: Call,
        /// Why, one line.
        error: String,
    },
    /// The queue could not be read; it is tried again.
    QueueUnreadable {
        /// Why, one line.
        error: String,
    },
    /// This much was left out because nobody took the notices.
    Dropped(u64),
}
