//! One payload from its start to its end, and why it may not come to that.

use std::sync::Arc;
use std::time::Duration;

use longshore_types::{
    Attempt, ContainerUuid, InstanceId, Resource, Resources, TypeName, format_duration,
};

use crate::refusal::Refusal;

/// How long a payload waits for a worker, unless it says something else.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A payload for [`Pool::run`](super::Pool::run).
///
/// ```
/// use std::time::Duration;
/// use longshore_pool::runtime::{Run, random_uuid};
/// use longshore_types::{Attempt, Resources};
///
/// let uuid = random_uuid()?;
/// let half = Resources { vcpus: 2, ..Resources::NONE };
/// let run = Run::new("small", *b"any bytes: your runner reads them")
///     .resources(half)
///     .timeout(Duration::from_secs(60))
///     .attempt(uuid, Attempt(2));
/// assert!(format!("{run:?}").contains("small"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Run {
    pub(super) type_name: TypeName,
    pub(super) document: Arc<[u8]>,
    pub(super) resources: Option<Resources>,
    pub(super) timeout: Duration,
    pub(super) uuid: Option<ContainerUuid>,
    pub(super) attempt: Attempt,
}

impl Run {
    /// A payload for a worker of a type of which it gets everything, and waits at most 15 minutes
    /// for one. `document` is what the runner is given on its standard input.
    pub fn new(type_name: impl Into<TypeName>, document: impl Into<Vec<u8>>) -> Self {
        Self {
            type_name: type_name.into(),
            document: document.into().into(),
            resources: None,
            timeout: DEFAULT_TIMEOUT,
            uuid: None,
            attempt: Attempt(1),
        }
    }

    /// It gets only this of a worker, so that several fit on one.
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = Some(resources);
        self
    }

    /// It waits at most so long for a worker. How long it then runs is not limited.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Its name, and the number of this attempt at it, larger than every earlier one. Without, it
    /// gets a random name and the number 1.
    ///
    /// A payload with a name is not started before every instance that was found has said what
    /// runs there: it may be this one, started by an earlier pool.
    #[must_use]
    pub fn attempt(mut self, uuid: ContainerUuid, attempt: Attempt) -> Self {
        self.uuid = Some(uuid);
        self.attempt = attempt;
        self
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is in a document may be secret.
        f.debug_struct("Run")
            .field("type_name", &self.type_name)
            .field("document_bytes", &self.document.len())
            .field("resources", &self.resources)
            .field("uuid", &self.uuid)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Why no worker is ready. [`std::fmt::Display`] says what would unblock it.
///
/// ```
/// use longshore_pool::runtime::NotReady;
/// use longshore_types::Resource;
/// let error = NotReady::NeverFits { type_name: "small".into(), lacking: Resource::Vcpus };
/// assert!(error.to_string().contains("ask for less"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// There can never be one.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No worker of the type is large enough.
    #[error("type {type_name} has too few {lacking}; ask for less, or for another type")]
    NeverFits {
        /// Which.
        type_name: TypeName,
        /// The first resource that is short.
        lacking: Resource,
    },
    /// It took longer than the caller wanted to wait.
    #[error("no worker of type {type_name} within {}: {why}", format_duration(*.waited))]
    TimedOut {
        /// Which type.
        type_name: TypeName,
        /// How long it was waited.
        waited: Duration,
        /// What stood in the way at the end.
        why: Box<Obstacle>,
    },
    /// So many callers wait already.
    #[error("{limit} callers wait for workers already; try again once some of them were served")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The pool has ended, or is ending.
    #[error("the pool has ended")]
    Ended,
}

/// What stands in the way of a worker being ready.
///
/// ```
/// use longshore_pool::runtime::Obstacle;
/// let why = Obstacle::Coming { last_error: Some("connection refused".into()) };
/// assert!(why.to_string().ends_with("connection refused"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// It is not known which instances there are, so none is created.
    #[error("the instances could not be listed yet{}", after(.error.as_ref()))]
    NotListed {
        /// Why the last try failed, if there was one.
        error: Option<String>,
    },
    /// Something of this name may run on an instance that was found and was not asked yet.
    #[error(
        "instance {instance} was found and has not said what runs there, which may be this; shut it \
         down if it does not answer"
    )]
    NotAsked {
        /// Which.
        instance: InstanceId,
    },
    /// No instance may be created now.
    #[error(transparent)]
    Refused(Refusal),
    /// One is on its way.
    #[error("one is on its way and does not answer yet{}", after(.last_error.as_ref()))]
    Coming {
        /// The last thing that went wrong on such a one.
        last_error: Option<String>,
    },
    /// One was asked for, and the provider's answer does not say whether there is one.
    #[error(
        "one was asked for and nobody knows whether it was made, so it is asked for again or looked \
         for: {error}"
    )]
    InDoubt {
        /// What the provider answered last.
        error: String,
    },
}

fn after(text: Option<&String>) -> String {
    text.map(|text| format!(": {text}")).unwrap_or_default()
}

/// Why a payload has no result.
///
/// ```
/// use longshore_pool::runtime::{NotReady, RunError};
/// assert!(RunError::from(NotReady::Ended).surely_did_not_run());
/// assert!(!RunError::Ended.surely_did_not_run());
/// let error = "the runner had been told not to start it".to_owned();
/// assert!(!RunError::NotStarted { error, spent: true }.surely_did_not_run());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// No worker was ready. It did not run.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The start was refused: this name may run somewhere, or its result is not acknowledged.
    #[error(transparent)]
    Refused(Refusal),
    /// The worker could not start it. It did not run.
    #[error("it was not started: {error}")]
    NotStarted {
        /// Why, one line.
        error: String,
        /// Whether the runner knows the number of this attempt: once more is then the next number.
        /// It did not run now; whether it did earlier is for whoever gave the number twice to say.
        spent: bool,
    },
    /// It was killed before it ran.
    #[error("it was killed before it ran")]
    NeverRan,
    /// It has no name, because no random numbers can be had.
    #[error("no random numbers can be had for its name: {error}")]
    NoUuid {
        /// Why, one line.
        error: String,
    },
    /// The pool ended first; it may go on running.
    #[error("the pool has ended; the payload may go on running")]
    Ended,
}

impl RunError {
    /// Whether it is certain that this attempt did not run and will not. It is not where a name
    /// that may run was given once more: what runs may be this attempt.
    pub fn surely_did_not_run(&self) -> bool {
        match self {
            Self::Ended | Self::Refused(_) | Self::NotStarted { spent: true, .. } => false,
            Self::NotReady(_)
            | Self::NotStarted { spent: false, .. }
            | Self::NeverRan
            | Self::NoUuid { .. } => true,
        }
    }
}
