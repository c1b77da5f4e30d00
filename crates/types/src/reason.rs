//! Why a container is not being started.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{InstanceId, TypeName, format_duration};

/// Why a container waits, with what would unblock it.
///
/// Every entry of the queue has exactly one. [`fmt::Display`] renders one plain sentence; the
/// position in line is added by whoever knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
#[expect(
    clippy::exhaustive_enums,
    reason = "each reason has its remedy and its test; a new one must not compile unnoticed"
)]
pub enum Reason {
    /// It runs or has ended; nothing waits.
    NotWaiting,
    /// A call to the controller about it is under way.
    CallInFlight,
    /// Its priority is less than 1. Unblocked by raising it.
    PriorityZero,
    /// It is being started on an instance.
    Starting {
        /// Which.
        instance: InstanceId,
    },
    /// It has a place on an instance that boots.
    WaitingForBoot {
        /// The type of that instance.
        type_name: TypeName,
        /// Which, once the provider has named it.
        instance: Option<InstanceId>,
        /// What went wrong there last, if anything did.
        last_error: Option<String>,
    },
    /// It is ready to start on an instance and will be at once.
    Ready {
        /// Which.
        instance: InstanceId,
    },
    /// An earlier process of it may still run. Unblocked when that instance answers or is gone.
    MayRunOn {
        /// Where; none if it could be on any instance that has not answered yet.
        instance: Option<InstanceId>,
        /// What would unblock it.
        unblock: String,
    },
    /// An earlier process of it is being stopped.
    Stopping {
        /// Where.
        instance: InstanceId,
    },
    /// Every eligible instance is full. Unblocked when something on one of them ends.
    NoRoom {
        /// The eligible types, cheapest first.
        types: Vec<TypeName>,
        /// Why no further instance is created.
        create_blocked_by: String,
    },
    /// No configured type satisfies it.
    Unsatisfiable {
        /// What the nearest types lack.
        error: String,
    },
    /// Too many containers run at once for the controller.
    ContainerLimit {
        /// The limit in force.
        limit: u32,
    },
    /// Too many supervisors run at once. Unblocked when one of them ends, or room is added.
    SupervisorLimit {
        /// The limit in force.
        limit: u32,
    },
    /// Nothing new is begun at the moment.
    NotAccepting,
    /// It failed to start a moment ago and is tried again.
    Pausing {
        /// How long the pause still lasts.
        remaining: Duration,
        /// What went wrong.
        error: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWaiting => Ok(()),
            Self::CallInFlight => f.write_str("waiting for the controller to answer"),
            Self::PriorityZero => {
                f.write_str("not runnable: its priority is 0; raise it to run it")
            }
            Self::Starting { instance } => write!(f, "starting on {instance}"),
            Self::WaitingForBoot {
                type_name,
                instance: None,
                ..
            } => {
                write!(f, "waiting for a new {type_name} instance to be created")
            }
            Self::WaitingForBoot {
                type_name,
                instance: Some(instance),
                last_error,
            } => {
                write!(f, "waiting for {type_name} instance {instance} to boot")?;
                match last_error {
                    Some(error) => write!(f, "; the last try failed: {error}"),
                    None => Ok(()),
                }
            }
            Self::Ready { instance } => write!(f, "about to start on {instance}"),
            Self::MayRunOn {
                instance: Some(instance),
                unblock,
            } => {
                write!(
                    f,
                    "an earlier attempt may still run on {instance}; {unblock}"
                )
            }
            Self::MayRunOn {
                instance: None,
                unblock,
            } => {
                write!(
                    f,
                    "an earlier attempt may still run on an instance that has not answered; {unblock}"
                )
            }
            Self::Stopping { instance } => {
                write!(f, "waiting for an earlier attempt on {instance} to stop")
            }
            Self::NoRoom {
                types,
                create_blocked_by,
            } => {
                f.write_str("waiting for room on an instance of type ")?;
                for (i, name) in types.iter().enumerate() {
                    let separator = if i == 0 { "" } else { " or " };
                    write!(f, "{separator}{name}")?;
                }
                write!(f, "; no further one is created: {create_blocked_by}")
            }
            Self::Unsatisfiable { error } => f.write_str(error),
            Self::ContainerLimit { limit } => {
                write!(f, "the limit of {limit} containers at once is reached")
            }
            Self::SupervisorLimit { limit } => {
                write!(f, "the limit of {limit} supervisors at once is reached")
            }
            Self::NotAccepting => f.write_str("no new containers are started at the moment"),
            Self::Pausing { remaining, error } => {
                write!(f, "tried again in {}: {error}", format_duration(*remaining))
            }
        }
    }
}
