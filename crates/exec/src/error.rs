//! What can go wrong.

use std::error::Error as StdError;
use std::fmt;

use longshore_types::error_chain;

/// How far things had come when they went wrong.
///
/// In order: a later one means that the earlier ones went well.
///
/// ```
/// use longshore_exec::Phase;
/// assert!(Phase::Connect < Phase::Authentication);
/// assert_eq!(Phase::HostIdentity.to_string(), "host identity");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Finding and reaching the address.
    Connect,
    /// Waiting for the server to say what it speaks.
    Banner,
    /// Agreeing on keys.
    KeyExchange,
    /// Checking that the host is the instance.
    HostIdentity,
    /// Logging in.
    Authentication,
    /// Asking for the command to be run.
    Open,
    /// Talking with the command.
    Command,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::KeyExchange => "key exchange",
            Self::HostIdentity => "host identity",
            Self::Authentication => "authentication",
            Self::Open => "open",
            Self::Command => "command",
        })
    }
}

/// A command could not be run, or nobody knows how it ended.
///
/// [`fmt::Display`] names the phase only; the cause is in [`StdError::source`]. The crate
/// documentation says when a command may have run.
///
/// ```
/// use longshore_exec::{ExecError, Phase};
///
/// // Nothing was sent: it may be tried again.
/// let refused = ExecError::not_run(Phase::Connect, "connection refused");
/// assert!(!refused.may_have_run);
///
/// // It was sent, and then silence: whoever repeats it may do it twice.
/// let lost = ExecError::may_have_run(Phase::Command, "connection reset");
/// assert!(lost.may_have_run);
/// assert_eq!(lost.to_string(), "command failed (the command may have run)");
/// assert_eq!(lost.chain(), "command failed (the command may have run): connection reset");
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{phase} failed{}", if *.may_have_run { " (the command may have run)" } else { "" })]
#[non_exhaustive]
pub struct ExecError {
    /// How far it came.
    pub phase: Phase,
    /// Whether the command may have been carried out, wholly or in part.
    pub may_have_run: bool,
    /// What went wrong.
    pub source: Box<dyn StdError + Send + Sync>,
}

impl ExecError {
    /// An error after which the command surely did not run.
    pub fn not_run(phase: Phase, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            phase,
            may_have_run: false,
            source: source.into(),
        }
    }

    /// An error after which nobody knows whether the command ran.
    pub fn may_have_run(phase: Phase, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            phase,
            may_have_run: true,
            source: source.into(),
        }
    }

    /// Whether the command had no turn because of [`Alone`].
    ///
    /// ```
    /// use longshore_exec::{Alone, ExecError, Phase};
    /// assert!(ExecError::not_run(Phase::Open, Alone).is_alone());
    /// assert!(!ExecError::not_run(Phase::Open, "the time is up").is_alone());
    /// ```
    pub fn is_alone(&self) -> bool {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&*self.source);
        while let Some(error) = cause {
            if error.is::<Alone>() {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The error and its causes as one line, for logs and for people.
    pub fn chain(&self) -> String {
        error_chain(self)
    }
}

/// The cause of an error where the host lets one command run at a time, and one runs that has no
/// end: no other will ever have its turn.
///
/// No example: the one of [`ExecError::is_alone`], which finds it, is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host lets one command run at a time, and one that has no end runs")]
#[expect(clippy::exhaustive_structs, reason = "it has nothing more to say")]
pub struct Alone;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_each_layer_once() {
        let error = ExecError::may_have_run(Phase::Command, "connection reset");
        assert_eq!(
            error.to_string(),
            "command failed (the command may have run)"
        );
        assert_eq!(
            error.chain(),
            "command failed (the command may have run): connection reset"
        );
        assert_eq!(
            ExecError::not_run(Phase::Banner, "x").to_string(),
            "banner failed"
        );
    }
}
