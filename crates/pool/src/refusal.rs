//! Why a request was refused.

use std::time::Duration;

use longshore_types::{
    ContainerUuid, IdleBehavior, InstanceId, Price, Resource, TypeName, WorkerState,
    format_duration,
};

/// Why the pool does not do what it was asked to. [`std::fmt::Display`] says what would unblock it.
///
/// ```
/// use longshore_pool::Refusal;
/// let refusal = Refusal::CreatesInFlight { limit: 20 };
/// assert_eq!(refusal.to_string(), "20 creates are under way; wait until one of them ends");
/// assert!(!refusal.is_quota() && Refusal::MaxInstances { limit: 64 }.is_quota());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The pool is ending.
    #[error("the pool is stopping; try again once it has restarted")]
    Stopping,
    /// No such instance is known.
    #[error("instance {instance} is not known; the next listing may show it")]
    UnknownInstance {
        /// Which.
        instance: InstanceId,
    },
    /// No such type is configured.
    #[error("type {type_name} is not configured; add it to the configuration")]
    UnknownType {
        /// Which.
        type_name: TypeName,
    },
    /// The worker cannot take containers in its state.
    #[error("instance {instance} is {state}; it takes containers once it is idle or running")]
    NotReady {
        /// Which.
        instance: InstanceId,
        /// Its state.
        state: WorkerState,
    },
    /// The worker takes no containers.
    #[error("the idle behaviour of instance {instance} is {behavior}; set it to run")]
    NotTaking {
        /// Which.
        instance: InstanceId,
        /// Its behaviour.
        behavior: IdleBehavior,
    },
    /// The worker has too little left.
    #[error("instance {instance} has too few {lacking} left; wait until something there ends")]
    NoRoom {
        /// Which.
        instance: InstanceId,
        /// The first resource that is short.
        lacking: Resource,
    },
    /// The container is on that very worker already.
    #[error(
        "container {uuid} is on instance {instance} already; wait for its end, then acknowledge its \
         result"
    )]
    HeldHere {
        /// The container.
        uuid: ContainerUuid,
        /// The worker.
        instance: InstanceId,
    },
    /// The container may run elsewhere.
    #[error(
        "container {uuid} may run on instance {instance}; wait until that is settled or the instance is gone"
    )]
    MayRunOn {
        /// The container.
        uuid: ContainerUuid,
        /// Where.
        instance: InstanceId,
    },
    /// Nothing is known of the container on that worker.
    #[error("container {uuid} is not on instance {instance}; wait for a report that shows it")]
    NotHeld {
        /// The container.
        uuid: ContainerUuid,
        /// The worker.
        instance: InstanceId,
    },
    /// The container has ended.
    #[error("container {uuid} on instance {instance} has ended; acknowledge its result")]
    AlreadyEnded {
        /// The container.
        uuid: ContainerUuid,
        /// The worker.
        instance: InstanceId,
    },
    /// The instance is being destroyed.
    #[error("instance {instance} is being destroyed; use another one")]
    ShuttingDown {
        /// Which.
        instance: InstanceId,
    },
    /// The worker is in use, or not ready.
    #[error("instance {instance} is not idle and empty; wait until it is, or shut it down")]
    NotEmpty {
        /// Which.
        instance: InstanceId,
    },
    /// It is not known where the instance answers.
    #[error("instance {instance} has no address yet; the next listing may show it")]
    NoAddress {
        /// Which.
        instance: InstanceId,
    },
    /// Creates of this kind are held off.
    #[error("creating instances is held off for {what} for another {}: {cause}", format_duration(*.remaining))]
    HeldOff {
        /// What is held off.
        what: String,
        /// Whether a quota that was reached led to it, so that one instance less ends it.
        quota: bool,
        /// How long still.
        remaining: Duration,
        /// The failure that led to it.
        cause: String,
    },
    /// A hold-off has ended and as many creates as are allowed try whether things are well again.
    #[error("a trial create for {what} is under way; more follow when it succeeds: {cause}")]
    Trial {
        /// What was held off.
        what: String,
        /// The failure that led to it.
        cause: String,
    },
    /// As many instances as may be.
    #[error(
        "the limit of {limit} instances is reached; wait until one is gone, or raise MaxInstances"
    )]
    MaxInstances {
        /// The limit.
        limit: usize,
    },
    /// As many instances as the driver can have, whatever the configuration allows.
    #[error("the driver can have only {} at once", instances(*.limit))]
    DriverLimit {
        /// How many.
        limit: usize,
    },
    /// It would cost more than may be spent.
    #[error(
        "an instance of type {type_name} costs {price} per hour, and with the {spent} of those \
         that are there that is more than the ceiling of {ceiling}; wait until one is gone, or \
         raise the ceiling"
    )]
    PriceCeiling {
        /// The type that was asked for.
        type_name: TypeName,
        /// Its price per hour.
        price: Price,
        /// What all instances and pending creates cost per hour.
        spent: Price,
        /// The most that they may.
        ceiling: Price,
    },
    /// As many creates under way as may be.
    #[error("{limit} creates are under way; wait until one of them ends")]
    CreatesInFlight {
        /// The limit.
        limit: usize,
    },
}

impl Refusal {
    /// The same as its text, without what changes by itself: how long a hold-off still lasts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use longshore_pool::Refusal;
    /// let held = |seconds| Refusal::HeldOff {
    ///     what: "type small".into(),
    ///     quota: false,
    ///     remaining: Duration::from_secs(seconds),
    ///     cause: "no capacity".into(),
    /// };
    /// assert_eq!(held(3).cause(), "type small is held off: no capacity");
    /// assert_eq!(held(3).cause(), held(4).cause());
    /// assert_ne!(held(3).to_string(), held(4).to_string());
    /// ```
    pub fn cause(&self) -> String {
        match self {
            Self::HeldOff { what, cause, .. } => {
                format!("{what} is held off: {cause}")
            }
            other => other.to_string(),
        }
    }

    /// Whether giving another instance back would help.
    pub fn is_quota(&self) -> bool {
        matches!(
            self,
            Self::MaxInstances { .. }
                | Self::DriverLimit { .. }
                | Self::PriceCeiling { .. }
                | Self::HeldOff { quota: true, .. }
        )
    }
}

fn instances(count: usize) -> String {
    match count {
        1 => "1 instance".to_owned(),
        _ => format!("{count} instances"),
    }
}
