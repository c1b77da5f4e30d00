//! Why a container is not being started.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ContainerState, InstanceId, TypeName, format_duration};

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
    /// A process of it is being stopped: of an earlier attempt, or what is left of one that was
    /// cancelled or has ended.
    Stopping {
        /// Where.
        instance: InstanceId,
    },
    /// Every eligible instance is full. Unblocked when something on one of them ends.
    NoRoom {
        /// The eligible types, cheapest first.
        types: Vec<TypeName>,
        /// An instance of one of them that is on hold, if there is one.
        held: Option<InstanceId>,
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
        /// How long the pause still lasts; seconds on the wire.
        #[serde(with = "crate::duration::seconds")]
        remaining: Duration,
        /// What went wrong.
        error: String,
    },
}

impl Reason {
    /// One plain sentence with the place in line: what a container in this state waits for, or
    /// that it does not wait.
    ///
    /// ```
    /// use longshore_types::{ContainerState, Reason};
    /// let state = ContainerState::Queued;
    /// let said = Reason::PriorityZero.sentence(state, None, 9);
    /// assert_eq!(said, "not runnable: its priority is 0; raise it to run it");
    /// let said = Reason::NotAccepting.sentence(state, Some(1), 9);
    /// assert_eq!(said, "1st of 9 in line: no new containers are started at the moment");
    /// ```
    pub fn sentence(
        &self,
        state: ContainerState,
        position: Option<usize>,
        in_line: usize,
    ) -> String {
        if *self == Self::NotWaiting {
            return match state {
                ContainerState::Running => "it runs".into(),
                ContainerState::Complete => "it has ended".into(),
                ContainerState::Cancelled => "it was cancelled".into(),
                ContainerState::Queued | ContainerState::Locked => {
                    "it was started, and that is being recorded".into()
                }
            };
        }
        match self {
            Self::Stopping { instance } => match state {
                ContainerState::Running => format!("it is being stopped on {instance}"),
                ContainerState::Cancelled => {
                    format!("it was cancelled; its process on {instance} is being stopped")
                }
                ContainerState::Complete => {
                    format!("it has ended; what is left of it on {instance} is being stopped")
                }
                ContainerState::Queued | ContainerState::Locked => self.in_line(position, in_line),
            },
            Self::MayRunOn {
                instance: Some(instance),
                unblock,
            } if state == ContainerState::Running => {
                format!("it ran on {instance} when that was last heard of; {unblock}")
            }
            _ => self.in_line(position, in_line),
        }
    }

    fn in_line(&self, position: Option<usize>, in_line: usize) -> String {
        match position {
            Some(position) => format!("{} of {in_line} in line: {self}", ordinal(position)),
            None => self.to_string(),
        }
    }

    /// What is waited for, as a phrase that follows a length of time: "40 s for the boot of i-1".
    pub fn waited_for(&self) -> String {
        match self {
            Self::NotWaiting => "running".into(),
            Self::CallInFlight => "for the controller to answer".into(),
            Self::PriorityZero => "at priority 0".into(),
            Self::Starting { instance } => format!("for the start on {instance}"),
            Self::WaitingForBoot {
                instance: Some(instance),
                ..
            } => format!("for the boot of {instance}"),
            Self::WaitingForBoot { type_name, .. } => {
                format!("for a new {type_name} instance to be created")
            }
            Self::Ready { instance } => format!("about to start on {instance}"),
            Self::MayRunOn {
                instance: Some(instance),
                ..
            } => format!("for an earlier attempt that may still run on {instance}"),
            Self::MayRunOn { .. } => "for an earlier attempt that may still run".into(),
            Self::Stopping { instance } => {
                format!("for its process on {instance} to stop")
            }
            Self::NoRoom {
                create_blocked_by, ..
            } => format!("for room ({create_blocked_by})"),
            Self::Unsatisfiable { .. } => "while no type satisfied it".into(),
            Self::ContainerLimit { limit } => {
                format!("at the limit of {limit} containers at once")
            }
            Self::SupervisorLimit { limit } => {
                format!("at the limit of {limit} supervisors at once")
            }
            Self::NotAccepting => "while nothing new was begun".into(),
            Self::Pausing { error, .. } => format!("in a pause after a failure ({error})"),
        }
    }
}

/// 1st, 2nd, 3rd, 4th, 11th.
fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
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
                held,
                create_blocked_by,
            } => {
                f.write_str("waiting for room on an instance of type ")?;
                for (i, name) in types.iter().enumerate() {
                    let separator = if i == 0 { "" } else { " or " };
                    write!(f, "{separator}{name}")?;
                }
                if let Some(instance) = held {
                    write!(f, "; {instance} is on hold")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals() {
        let said: Vec<_> = [1, 2, 3, 4, 11, 12, 13, 21, 101, 111].map(ordinal).into();
        assert_eq!(
            said.join(" "),
            "1st 2nd 3rd 4th 11th 12th 13th 21st 101st 111th"
        );
    }

    #[test]
    fn what_is_being_stopped_is_said_by_its_state() {
        let instance = InstanceId::from("i-1");
        let stopping = Reason::Stopping { instance };
        let said = ContainerState::ALL.map(|state| stopping.sentence(state, Some(1), 2));
        assert_eq!(
            said,
            [
                "1st of 2 in line: waiting for an earlier attempt on i-1 to stop",
                "1st of 2 in line: waiting for an earlier attempt on i-1 to stop",
                "it is being stopped on i-1",
                "it has ended; what is left of it on i-1 is being stopped",
                "it was cancelled; its process on i-1 is being stopped",
            ]
        );
    }

    #[test]
    fn what_does_not_wait_is_said_by_its_state() {
        let said = |state| Reason::NotWaiting.sentence(state, None, 0);
        for state in ContainerState::ALL {
            assert!(!said(state).is_empty(), "{state}");
        }
        assert_eq!(said(ContainerState::Running), "it runs");
    }
}
