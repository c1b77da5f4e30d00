//! What a provider may refuse, and what that forbids.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use longshore_types::{Market, TypeName, error_chain};

/// A call of an instance set.
///
/// ```
/// use longshore_cloud::Operation;
/// assert_eq!(Operation::SetTags.to_string(), "set tags");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Making an instance.
    Create,
    /// Listing instances.
    List,
    /// Destroying instances.
    Destroy,
    /// Setting tags.
    SetTags,
    /// Checking a host key.
    VerifyHostKey,
    /// Opening the instance set, or an extension.
    Other,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::List => "list",
            Self::Destroy => "destroy",
            Self::SetTags => "set tags",
            Self::VerifyHostKey => "verify host key",
            Self::Other => "call",
        })
    }
}

/// What a lack of quota or capacity is about.
///
/// ```
/// use longshore_cloud::Scope;
/// use longshore_types::Market;
/// // What a provider means that limits the vCPUs of a family of types, for each market apart.
/// let scope = Scope::QuotaGroup("standard".into(), Market::Preemptible);
/// assert_eq!(scope.to_string(), "preemptible instances of group standard");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the pool keys hold-offs by it; a new scope must not compile unnoticed"
)]
pub enum Scope {
    /// Everything at the provider.
    Everything,
    /// Types of one quota group on one market.
    QuotaGroup(String, Market),
    /// One configured type (which is on one market).
    Type(TypeName),
    /// One market.
    Market(Market),
    /// One zone or subnet.
    Zone(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::QuotaGroup(group, market) => write!(f, "{market} instances of group {group}"),
            Self::Type(name) => write!(f, "type {name}"),
            Self::Market(market) => write!(f, "{market} instances"),
            Self::Zone(zone) => write!(f, "zone {zone}"),
        }
    }
}

/// Why a call failed.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::{ErrorKind, Scope};
///
/// /// The one function of a driver that knows the provider's codes.
/// fn classify(code: &str, type_name: &str) -> ErrorKind {
///     match code {
///         "SlowDown" => ErrorKind::RateLimited { retry_after: Some(Duration::from_secs(5)) },
///         "TooManyMachines" => ErrorKind::QuotaExceeded(Scope::Everything),
///         "SoldOut" => ErrorKind::NoCapacity(Scope::Type(type_name.into())),
///         "NoSuchImage" => ErrorKind::InvalidRequest,
///         _ => ErrorKind::Other,
///     }
/// }
/// assert_eq!(classify("SoldOut", "large").to_string(), "no capacity for type large");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each kind has its consequence; a new one must not compile unnoticed"
)]
pub enum ErrorKind {
    /// Too many calls; none of this kind for a while.
    RateLimited {
        /// How long, if the provider said so.
        retry_after: Option<Duration>,
    },
    /// The account may not have more of this.
    QuotaExceeded(Scope),
    /// The provider has no more of this at the moment.
    NoCapacity(Scope),
    /// There is no such thing.
    NotFound,
    /// The credentials do not allow it.
    Denied,
    /// The provider will never accept this request.
    InvalidRequest,
    /// The driver cannot do this.
    Unsupported,
    /// No answer in time.
    TimedOut,
    /// Anything else.
    Other,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited { .. } => f.write_str("rate limited"),
            Self::QuotaExceeded(scope) => write!(f, "quota exceeded for {scope}"),
            Self::NoCapacity(scope) => write!(f, "no capacity for {scope}"),
            Self::NotFound => f.write_str("not found"),
            Self::Denied => f.write_str("denied"),
            Self::InvalidRequest => f.write_str("invalid request"),
            Self::Unsupported => f.write_str("unsupported"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Other => f.write_str("failed"),
        }
    }
}

/// Whether a failed call may have had an effect.
///
/// ```
/// use longshore_cloud::{CloudError, ErrorKind, Operation, Outcome};
/// let refused = CloudError::new(Operation::Create, "acme", ErrorKind::Denied, "no such role");
/// let silence = CloudError::new(Operation::Create, "acme", ErrorKind::TimedOut, "no answer");
/// assert_eq!(refused.outcome(), Outcome::NotDone);
/// // It has to be looked for: it may have been made.
/// assert_eq!(silence.outcome(), Outcome::Unknown);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two answers there can be")]
pub enum Outcome {
    /// It surely had none.
    NotDone,
    /// It may have had one.
    Unknown,
}

/// A call to a provider failed.
///
/// [`fmt::Display`] says which call and what kind of failure; the provider's own words are in
/// [`StdError::source`].
///
/// ```
/// use longshore_cloud::{CloudError, ErrorKind, Operation};
/// let kind = ErrorKind::RateLimited { retry_after: None };
/// let error = CloudError::new(Operation::List, "acme", kind, "HTTP status 429");
/// assert_eq!(error.to_string(), "acme: list: rate limited");
/// assert_eq!(error.chain(), "acme: list: rate limited: HTTP status 429");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{provider}: {operation}: {kind}")]
#[non_exhaustive]
pub struct CloudError {
    /// Which call.
    pub operation: Operation,
    /// Who refused it.
    pub provider: &'static str,
    /// Why.
    pub kind: ErrorKind,
    /// What the provider said.
    pub source: Box<dyn StdError + Send + Sync>,
    /// Whether it is known to have had no effect, whatever the kind.
    never_sent: bool,
}

impl CloudError {
    /// An error from its parts.
    pub fn new(
        operation: Operation,
        provider: &'static str,
        kind: ErrorKind,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            operation,
            provider,
            kind,
            source: source.into(),
            never_sent: false,
        }
    }

    /// The same error of a call that surely never reached the provider: its outcome is
    /// [`Outcome::NotDone`] whatever the kind.
    ///
    /// ```
    /// use longshore_cloud::{CloudError, ErrorKind, Operation, Outcome};
    /// let error = CloudError::new(Operation::Create, "acme", ErrorKind::Other, "no route to host");
    /// assert_eq!(error.outcome(), Outcome::Unknown);
    /// assert_eq!(error.never_sent().outcome(), Outcome::NotDone);
    /// ```
    #[must_use]
    pub fn never_sent(mut self) -> Self {
        self.never_sent = true;
        self
    }

    /// The error and its causes as one line, for logs and for people.
    pub fn chain(&self) -> String {
        error_chain(self)
    }

    /// Whether the call may have had an effect: after a refusal, or if it was never sent, it had
    /// none; after silence or an error that the driver does not understand nobody knows.
    pub fn outcome(&self) -> Outcome {
        match self.kind {
            _ if self.never_sent => Outcome::NotDone,
            ErrorKind::TimedOut | ErrorKind::Other => Outcome::Unknown,
            ErrorKind::RateLimited { .. }
            | ErrorKind::QuotaExceeded(_)
            | ErrorKind::NoCapacity(_)
            | ErrorKind::NotFound
            | ErrorKind::Denied
            | ErrorKind::InvalidRequest
            | ErrorKind::Unsupported => Outcome::NotDone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_and_the_unknown_may_have_acted() {
        for (kind, outcome) in [
            (
                ErrorKind::RateLimited { retry_after: None },
                Outcome::NotDone,
            ),
            (
                ErrorKind::QuotaExceeded(Scope::Everything),
                Outcome::NotDone,
            ),
            (
                ErrorKind::NoCapacity(Scope::Type("a".into())),
                Outcome::NotDone,
            ),
            (ErrorKind::NotFound, Outcome::NotDone),
            (ErrorKind::Denied, Outcome::NotDone),
            (ErrorKind::InvalidRequest, Outcome::NotDone),
            (ErrorKind::Unsupported, Outcome::NotDone),
            (ErrorKind::TimedOut, Outcome::Unknown),
            (ErrorKind::Other, Outcome::Unknown),
        ] {
            let error = CloudError::new(Operation::Create, "test", kind, "words");
            assert_eq!(error.outcome(), outcome, "{error}");
        }
    }

    #[test]
    fn display_leaves_the_source_to_the_source() {
        let scope = Scope::QuotaGroup("standard".into(), Market::Preemptible);
        let kind = ErrorKind::QuotaExceeded(scope);
        let error = CloudError::new(Operation::Create, "test", kind, "VcpuLimitExceeded");
        assert_eq!(
            error.to_string(),
            "test: create: quota exceeded for preemptible instances of group standard"
        );
        assert_eq!(
            StdError::source(&error).map(ToString::to_string).unwrap(),
            "VcpuLimitExceeded"
        );
    }
}
