//! What a scheduler wants done.

use longshore_types::{Attempt, ContainerUuid, ExitCause, InstanceId, Resources, TypeName};

/// Something that the scheduler wants done now.
///
/// ```
/// use longshore_scheduler::Action;
///
/// /// What an action means to whoever only wants to see what is bought.
/// fn bought(action: &Action) -> Option<&str> {
///     match action {
///         Action::Create { type_name } => Some(type_name.as_str()),
///         _ => None,
///     }
/// }
/// assert_eq!(bought(&Action::Create { type_name: "small".into() }), Some("small"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever carries actions out must not miss one"
)]
pub enum Action {
    /// Take a container at the controller.
    Lock {
        /// The container.
        uuid: ContainerUuid,
        /// The instance that it will be started on, if that is ready.
        instance: Option<InstanceId>,
    },
    /// Record at the controller where the latest attempt will be started.
    Place {
        /// The container.
        uuid: ContainerUuid,
        /// The instance.
        instance: InstanceId,
    },
    /// Give a lock back.
    Unlock {
        /// The container.
        uuid: ContainerUuid,
    },
    /// Start an attempt.
    Start {
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Where.
        instance: InstanceId,
        /// What is granted to it.
        resources: Resources,
    },
    /// Create an instance.
    Create {
        /// Its type.
        type_name: TypeName,
    },
    /// Give an empty instance back, which nobody in line can use, so that another can be created.
    GiveBack {
        /// The instance.
        instance: InstanceId,
    },
    /// End an attempt on an instance, or make sure that it can never start there.
    Kill {
        /// Whether only the latter is wanted: what has been started goes on.
        only_unstarted: bool,
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Where.
        instance: InstanceId,
        /// Why, as one clause.
        reason: String,
    },
    /// Tell the controller that an attempt surely has no process any more.
    Lost {
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// What became of the process.
        cause: ExitCause,
    },
    /// Drop the entry: nothing about it is left to do.
    Forget {
        /// The container.
        uuid: ContainerUuid,
    },
    /// Tell the runner that the result of an attempt is not needed any more.
    Acknowledge {
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Where.
        instance: InstanceId,
    },
    /// Cancel a container that can never run.
    Cancel {
        /// The container.
        uuid: ContainerUuid,
        /// Why, for the user.
        error: String,
    },
}

impl Action {
    /// The container that it is about, none for creates and instances given back.
    pub fn uuid(&self) -> Option<ContainerUuid> {
        match self {
            Self::Lock { uuid, .. }
            | Self::Place { uuid, .. }
            | Self::Unlock { uuid }
            | Self::Start { uuid, .. }
            | Self::Kill { uuid, .. }
            | Self::Lost { uuid, .. }
            | Self::Forget { uuid }
            | Self::Acknowledge { uuid, .. }
            | Self::Cancel { uuid, .. } => Some(*uuid),
            Self::Create { .. } | Self::GiveBack { .. } => None,
        }
    }
}
