//! What the core asks its shell to do, and what came of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{CreateRequest, ErrorKind, Instance, Tags};
use longshore_runner_api::command::{GuardOptions, OutputStream, ReportOptions};
use longshore_types::{Attempt, ContainerUuid, InstanceId, RunnerReport, Written};

/// The number of an effect, unique within one core.
///
/// ```
/// assert_eq!(longshore_pool::EffectId(7).to_string(), "7");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(pub u64);

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that the shell has to do. It ends in exactly one [`Outcome`], given to
/// [`Core::handle_outcome`](crate::Core::handle_outcome) with the same id.
///
/// ```
/// use longshore_pool::{Config, Core, EffectAction};
/// use longshore_types::Instant;
/// let mut core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
/// let effect = core.poll_effect().unwrap();
/// assert!(matches!(effect.action, EffectAction::List(_)));
/// assert_eq!(effect.timeout.as_secs(), 120);
/// assert_eq!(core.poll_effect(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "tests of shells make them")]
pub struct Effect {
    /// Its number.
    pub id: EffectId,
    /// How long it may take; after that the shell reports a timeout.
    pub timeout: Duration,
    /// What to do.
    pub action: EffectAction,
}

/// Where and as whom to reach an instance, and how it proves who it is.
///
/// ```
/// use longshore_pool::{EffectAction, Host};
/// let host = Host {
///     instance: "i-1".into(),
///     address: "10.0.0.1:22".into(),
///     user: "root".into(),
///     secret: None,
/// };
/// assert_eq!(EffectAction::Boot(host.clone()).host(), Some(&host));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "tests of shells make them")]
pub struct Host {
    /// The instance.
    pub instance: InstanceId,
    /// Host, or host and port.
    pub address: String,
    /// The user to log in as.
    pub user: String,
    /// The secret that the instance was given, if it is known.
    pub secret: Option<String>,
}

/// What the shell has to do.
///
/// ```
/// use longshore_pool::{EffectAction, Outcome};
/// // The task that should have done it broke: nobody knows what came of it.
/// let action = EffectAction::Destroy(vec!["i-1".into()]);
/// let Outcome::Destroyed(results) = action.lost("its task broke") else { unreachable!() };
/// assert!(results[0].1.as_ref().unwrap_err().may_have_acted);
/// assert_eq!(action.kind(), "destroy");
/// assert!(EffectAction::KINDS.contains(&action.kind()) && action.host().is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a shell that misses an effect must not compile"
)]
pub enum EffectAction {
    /// Make an instance.
    Create(Box<CreateRequest>),
    /// List the instances with these tags.
    List(Tags),
    /// Destroy instances.
    Destroy(Vec<InstanceId>),
    /// Merge tags into those of an instance.
    SetTags(InstanceId, Tags),
    /// Run the boot probe command.
    Boot(Host),
    /// Put the runner on the instance unless it is there, and have it keep the dead-man switch
    /// there, if one is given.
    Deploy(Host, Option<GuardOptions>),
    /// Ask the runner for a report.
    Report(Host, ReportOptions),
    /// Start an attempt of a container.
    Start {
        /// Where.
        host: Host,
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// What to run: opaque to the pool.
        document: Arc<[u8]>,
    },
    /// Signal an attempt of a container.
    Kill {
        /// Where.
        host: Host,
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// The signal: 15, or 0, which ends nothing and only sees to it that an attempt which was
        /// not started never will be.
        signal: u8,
    },
    /// Bring one output stream of an attempt that ended home.
    Collect {
        /// Where.
        host: Host,
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Which stream.
        stream: OutputStream,
        /// How much it wrote to it.
        written: Written,
    },
    /// Ask the provider for the last so many bytes that an instance printed on its console. Only
    /// where [`Config::console_output`](crate::Config::console_output) says that it can tell.
    Console(InstanceId, usize),
    /// Close the connection to an instance.
    Disconnect(InstanceId),
}

/// What came of an effect. Texts in it may be of any length: the core keeps 1,024 characters of
/// each, as one line.
///
/// No example: the crate's documentation has one, and [`EffectAction`] another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "one variant for each effect")]
pub enum Outcome {
    /// Of [`EffectAction::Create`].
    Created(Result<Box<Instance>, CloudFailure>),
    /// Of [`EffectAction::List`]. Whoever lists may share what has not changed with the outcome
    /// before: see [`Outcome::listed`] where nobody does.
    Listed(Result<Vec<Arc<Instance>>, CloudFailure>),
    /// Of [`EffectAction::Destroy`]; ids that are missing have failed.
    Destroyed(Vec<(InstanceId, Result<(), CloudFailure>)>),
    /// Of [`EffectAction::SetTags`].
    TagsSet(Result<(), CloudFailure>),
    /// Of [`EffectAction::Boot`].
    Booted(Result<(), HostFailure>),
    /// Of [`EffectAction::Deploy`].
    Deployed(Result<(), HostFailure>),
    /// Of [`EffectAction::Report`].
    Reported(Result<RunnerReport, HostFailure>),
    /// Of [`EffectAction::Start`].
    Started(StartOutcome),
    /// Of [`EffectAction::Kill`].
    Killed(KillOutcome),
    /// Of [`EffectAction::Collect`].
    Collected(Result<(), HostFailure>),
    /// Of [`EffectAction::Console`].
    Console(Result<Vec<u8>, CloudFailure>),
    /// Of [`EffectAction::Disconnect`].
    Disconnected,
}

/// What came of a start.
///
/// ```
/// use longshore_exec::{Collected, ExitStatus};
/// use longshore_pool::StartOutcome;
/// // As a protocol judges: only a host that says how the command ended leaves no doubt.
/// fn started(answer: &Collected) -> StartOutcome {
///     match &answer.status {
///         Some(ExitStatus::Code(0)) => StartOutcome::Started,
///         Some(ExitStatus::Code(code)) => StartOutcome::NotStarted { error: format!("exit code {code}") },
///         _ => StartOutcome::Unknown { error: "no exit code".into() },
///     }
/// }
/// assert!(matches!(started(&Collected::default()), StartOutcome::Unknown { .. }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each has its consequence; a new one must not compile unnoticed"
)]
pub enum StartOutcome {
    /// The runner said that it runs.
    Started,
    /// The runner knows this attempt, or a newer one, already: the report says what became of it.
    KnownAttempt,
    /// It surely does not run, and will not.
    NotStarted {
        /// Why, one line.
        error: String,
    },
    /// It may run, or run later.
    Unknown {
        /// Why nobody knows, one line.
        error: String,
    },
}

/// What came of a kill.
///
/// No example: it is to a kill what [`StartOutcome`] is to a start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each has its consequence; a new one must not compile unnoticed"
)]
pub enum KillOutcome {
    /// Nothing of the attempt runs, and a start of it that arrives later is refused.
    Gone,
    /// It still runs.
    StillRuns,
    /// Nobody knows.
    Unknown {
        /// Why, one line.
        error: String,
    },
}

/// A call to the provider failed.
///
/// ```
/// use longshore_cloud::ErrorKind;
/// use longshore_pool::{CloudFailure, Outcome};
/// let refused = Outcome::Created(Err(CloudFailure {
///     kind: ErrorKind::Denied,
///     may_have_acted: false,
///     error: "the credentials have expired".into(),
/// }));
/// # drop(refused);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by every shell")]
pub struct CloudFailure {
    /// Why.
    pub kind: ErrorKind,
    /// Whether it may have had an effect all the same.
    pub may_have_acted: bool,
    /// The error and its causes as one line.
    pub error: String,
}

/// A command on an instance failed, or nobody knows how it ended.
///
/// ```
/// use longshore_pool::{HostFailure, Outcome};
/// let error = "connection refused".into();
/// let silent = HostFailure { unreachable: true, ours: false, error };
/// # drop(Outcome::Booted(Err(silent)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by every shell")]
pub struct HostFailure {
    /// Whether the host could not be reached at all, as opposed to having answered badly.
    pub unreachable: bool,
    /// Whether it is our own side that failed: what came from the host could not be kept, say. That
    /// is tried again until it succeeds, or the instance is gone.
    pub ours: bool,
    /// The error and its causes as one line, with the end of what the command printed.
    pub error: String,
}

impl Outcome {
    /// These were listed, by somebody who shares nothing.
    ///
    /// ```
    /// use longshore_cloud::{Instance, InstanceState, Tags};
    /// use longshore_pool::Outcome;
    /// let found = Instance::new("i-1", "s1", InstanceState::Running, Tags::new());
    /// let Outcome::Listed(Ok(listed)) = Outcome::listed([found]) else { unreachable!() };
    /// assert_eq!(listed[0].id.as_str(), "i-1");
    /// ```
    pub fn listed(instances: impl IntoIterator<Item = Instance>) -> Self {
        Self::Listed(Ok(instances.into_iter().map(Arc::new).collect()))
    }
}

impl EffectAction {
    /// The honest outcome where nobody knows what came of an effect: it was dropped, its task
    /// broke, or it took too long.
    pub fn lost(&self, error: &str) -> Outcome {
        let error = error.to_owned();
        let cloud = |error| CloudFailure {
            kind: ErrorKind::TimedOut,
            may_have_acted: true,
            error,
        };
        let host = HostFailure::answered;
        match self {
            Self::Create(_) => Outcome::Created(Err(cloud(error))),
            Self::List(_) => Outcome::Listed(Err(cloud(error))),
            Self::Destroy(ids) => {
                let failed = |id: &InstanceId| (id.clone(), Err(cloud(error.clone())));
                Outcome::Destroyed(ids.iter().map(failed).collect())
            }
            Self::SetTags(..) => Outcome::TagsSet(Err(cloud(error))),
            Self::Boot(_) => Outcome::Booted(Err(host(error))),
            Self::Deploy(..) => Outcome::Deployed(Err(host(error))),
            Self::Report(..) => Outcome::Reported(Err(host(error))),
            Self::Start { .. } => Outcome::Started(StartOutcome::Unknown { error }),
            Self::Kill { .. } => Outcome::Killed(KillOutcome::Unknown { error }),
            // No answer: the instance has not said that it cannot give it.
            Self::Collect { .. } => Outcome::Collected(Err(HostFailure {
                unreachable: true,
                ..host(error)
            })),
            Self::Console(..) => Outcome::Console(Err(cloud(error))),
            Self::Disconnect(_) => Outcome::Disconnected,
        }
    }

    /// Every kind of effect: what [`EffectAction::kind`] may give.
    pub const KINDS: [&'static str; 12] = [
        "create",
        "list",
        "destroy",
        "tags",
        "boot",
        "deploy",
        "report",
        "start",
        "kill",
        "collect",
        "console",
        "disconnect",
    ];

    /// What it is, as one lower-case word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::List(_) => "list",
            Self::Destroy(_) => "destroy",
            Self::SetTags(..) => "tags",
            Self::Boot(_) => "boot",
            Self::Deploy(..) => "deploy",
            Self::Report(..) => "report",
            Self::Start { .. } => "start",
            Self::Kill { .. } => "kill",
            Self::Collect { .. } => "collect",
            Self::Console(..) => "console",
            Self::Disconnect(_) => "disconnect",
        }
    }

    /// The instance that it needs to reach, if it needs to reach one.
    pub fn host(&self) -> Option<&Host> {
        match self {
            Self::Boot(host) | Self::Deploy(host, _) | Self::Report(host, _) => Some(host),
            Self::Start { host, .. } | Self::Kill { host, .. } | Self::Collect { host, .. } => {
                Some(host)
            }
            Self::Create(_)
            | Self::List(_)
            | Self::Destroy(_)
            | Self::SetTags(..)
            | Self::Console(..)
            | Self::Disconnect(_) => None,
        }
    }
}

impl CloudFailure {
    /// The kind as one lower-case word.
    pub(crate) fn kind_label(&self) -> &'static str {
        match &self.kind {
            ErrorKind::RateLimited { .. } => "rate_limited",
            ErrorKind::QuotaExceeded(_) => "quota_exceeded",
            ErrorKind::NoCapacity(_) => "no_capacity",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Denied => "denied",
            ErrorKind::InvalidRequest => "invalid_request",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::TimedOut => "timed_out",
            ErrorKind::Other => "other",
        }
    }
}

impl HostFailure {
    /// The host was reached and did not do what it was asked to.
    pub(crate) fn answered(error: String) -> Self {
        Self {
            unreachable: false,
            ours: false,
            error,
        }
    }

    /// The shell gave an outcome of another kind than the effect's.
    pub(crate) fn mismatched() -> Self {
        Self::answered("the shell gave an outcome that does not fit".into())
    }
}
