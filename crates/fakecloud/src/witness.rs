//! What the cloud remembers of what happened.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use longshore_cloud::ErrorKind;
use longshore_types::{InstanceId, Instant, TypeName};

use crate::{CallId, CallKind, Episode, Misfortune, RuleId};

/// Something that happened. Prints as one line.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::CreateRequest;
/// use longshore_fakecloud::{Call, Cloud, Happening, Settings};
/// use longshore_types::Instant;
/// let mut cloud = Cloud::new(Settings::instant(), 1);
/// let timeout = Duration::from_secs(10);
/// cloud.handle_call(Call::Create(CreateRequest::example()), timeout, Instant::ZERO);
/// let first = cloud.poll_event().unwrap();
/// assert_eq!(first.to_string(), "0.000000000 call 1 begins: create");
/// assert!(std::iter::from_fn(|| cloud.poll_event())
///     .any(|event| matches!(event.what, Happening::Booted(_))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub what: Happening,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.since(Instant::ZERO);
        write!(f, "{}.{:09} {}", at.as_secs(), at.subsec_nanos(), self.what)
    }
}

/// What can happen.
///
/// No example: see [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happening {
    /// A call begins.
    CallBegan(CallId, CallKind),
    /// A call has a rule's fault.
    RuleMet(CallId, RuleId),
    /// A call acts.
    CallActed(CallId),
    /// A call is held.
    CallHeld(CallId),
    /// A call's reply, with the kinds of the errors in it.
    CallEnded(CallId, Vec<ErrorKind>),
    /// Nobody waits for a call any more.
    CallCancelled(CallId),
    /// An instance was made, of this type and in this zone.
    Born(InstanceId, TypeName, Option<String>),
    /// An instance runs at this address, or has it from now on.
    Running(InstanceId, String),
    /// An instance has booted.
    Booted(InstanceId),
    /// The tags of an instance changed.
    Tagged(InstanceId),
    /// An instance is being destroyed: by its owner, else by the provider.
    Stopping(InstanceId, bool),
    /// An instance is destroyed for good.
    Gone(InstanceId),
    /// An instance left the listings.
    Vanished(InstanceId),
    /// An instance that was gone runs again.
    CameBack(InstanceId),
    /// A misfortune befell an instance.
    Struck(InstanceId, Misfortune),
    /// A bad time begins.
    EpisodeBegan(Episode),
    /// The bad time is over.
    EpisodeEnded(Episode),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CallBegan(call, kind) => write!(f, "{call} begins: {kind}"),
            Self::RuleMet(call, rule) => write!(f, "{call} meets {rule}"),
            Self::CallActed(call) => write!(f, "{call} acts"),
            Self::CallHeld(call) => write!(f, "{call} is held"),
            Self::CallEnded(call, errors) => {
                write!(f, "{call} ends")?;
                errors.iter().try_for_each(|error| write!(f, ", {error}"))
            }
            Self::CallCancelled(call) => write!(f, "{call} is cancelled"),
            Self::Born(id, name, zone) => {
                let zone = zone.as_deref().unwrap_or("-");
                write!(f, "{id} is born: {name} in {zone}")
            }
            Self::Running(id, address) => write!(f, "{id} runs at {address}"),
            Self::Booted(id) => write!(f, "{id} has booted"),
            Self::Tagged(id) => write!(f, "{id} has other tags"),
            Self::Stopping(id, true) => write!(f, "{id} is being destroyed"),
            Self::Stopping(id, false) => write!(f, "{id} is taken away"),
            Self::Gone(id) => write!(f, "{id} is gone"),
            Self::Vanished(id) => write!(f, "{id} has vanished"),
            Self::CameBack(id) => write!(f, "{id} is back"),
            Self::Struck(id, misfortune) => write!(f, "{id} is struck: {misfortune:?}"),
            Self::EpisodeBegan(episode) => write!(f, "{episode} begins"),
            Self::EpisodeEnded(episode) => write!(f, "{episode} ends"),
        }
    }
}

/// How many calls of one kind there were.
///
/// No example: see [`Cloud::counts`](crate::Cloud::counts).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that began.
    pub begun: u64,
    /// Calls that reached the provider.
    pub acted: u64,
    /// Replies.
    pub ended: u64,
    /// Calls that were cancelled.
    pub cancelled: u64,
    /// Errors in replies, by kind without its details; a batch has one for each id that failed.
    /// The kinds are `rate limited`, `quota exceeded`, `no capacity`, `not found`, `denied`,
    /// `invalid request`, `unsupported`, `timed out` and `failed`.
    pub errors: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(crate) fn add_error(&mut self, kind: &ErrorKind) {
        let name = match kind {
            ErrorKind::RateLimited { .. } => "rate limited",
            ErrorKind::QuotaExceeded(_) => "quota exceeded",
            ErrorKind::NoCapacity(_) => "no capacity",
            ErrorKind::NotFound => "not found",
            ErrorKind::Denied => "denied",
            ErrorKind::InvalidRequest => "invalid request",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::Other => "failed",
        };
        *self.errors.entry(name).or_default() += 1;
    }
}

/// What the instances of one type added up to.
///
/// No example: see
/// [`Cloud::usage`](crate::Cloud::usage).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Instances that were ever made.
    pub made: u64,
    /// Instances that are pending or running.
    pub live: u64,
    /// The most that ever were at a time.
    pub peak: u64,
    /// The time that they were pending or running, added up, in nanoseconds.
    pub nanos: u128,
    /// What that cost, in billionths of the currency unit times nanoseconds of an hour.
    pub(crate) cost: u128,
}

impl Usage {
    /// The time that they were pending or running, added up.
    pub fn time(&self) -> Duration {
        let (seconds, rest) = (self.nanos / 1_000_000_000, self.nanos % 1_000_000_000);
        let nanos = u32::try_from(rest).unwrap_or(0);
        Duration::new(u64::try_from(seconds).unwrap_or(u64::MAX), nanos)
    }

    /// What that cost, in billionths of the currency unit, rounded down.
    pub fn cost_billionths(&self) -> u128 {
        self.cost / Duration::from_secs(3_600).as_nanos()
    }
}
