//! What goes wrong inside a connection.

use std::io;
use std::sync::Arc;

use longshore_exec::{Alone, ExecError, Phase};

/// Why a connection or a command failed; the `source` of an
/// [`ExecError`](longshore_exec::ExecError).
///
/// ```
/// use longshore_exec::{ExecError, Phase};
/// use longshore_ssh::SshError;
/// let error = ExecError::not_run(Phase::Connect, SshError::Deadline);
/// assert!(matches!(error.source.downcast_ref(), Some(SshError::Deadline)));
/// assert_eq!(error.chain(), "connect failed: the time is up");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// The address is not `host`, `host:port` or `[host]:port`.
    #[error("{0:?} is not an address")]
    Address(String),
    /// The network or the operating system.
    #[error("the connection broke")]
    Io(#[source] Arc<io::Error>),
    /// libssh2 says why, with its number. Both are for people: another version may say something
    /// else.
    #[error("{message} (libssh2 error {code})")]
    Protocol {
        /// The number, negative.
        code: i32,
        /// What libssh2 says.
        message: String,
    },
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The time was up.
    #[error("the time is up")]
    Deadline,
    /// The server did not answer a request for [`Settings::answer`](crate::Settings::answer).
    #[error("the server does not answer")]
    NoAnswer,
    /// The server sent more than is good for us.
    #[error("the server sent {0} bytes that belong to no command")]
    TooMuch(u64),
    /// The server refused to open a channel or to run the command.
    #[error("the server refused")]
    Refused,
    /// The server refused a second channel beside that of a command without an end.
    #[error("the server refused another channel")]
    Alone(#[source] Alone),
    /// The server sent data that belongs neither to standard output nor to standard error.
    #[error("the server sent data on an unknown stream")]
    UnknownStream,
    /// Somebody said [`disconnect`](longshore_exec::Executor::disconnect), or asked for another
    /// address or user, or dropped the executor.
    #[error("disconnected")]
    Disconnected,
    /// Too many commands wait on this connection.
    #[error("{0} commands are waiting already")]
    QueueFull(usize),
    /// The command is longer than one SSH packet can carry, or has a NUL byte in it.
    #[error("the command cannot be sent: {0}")]
    Line(&'static str),
    /// Nobody can log in with this name.
    #[error("not the name of a user: {0}")]
    User(&'static str),
    /// The standard input was closed before.
    #[error("the standard input is closed")]
    InputClosed,
    /// The host is not the instance.
    #[error("host key {key}: {reason}")]
    Identity {
        /// The key that the host showed.
        key: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// The host could not be asked for its secret.
    #[error("reading the host's secret failed")]
    Secret(#[source] Arc<ExecError>),
    /// There is no source of random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
}

impl From<io::Error> for SshError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl SshError {
    /// What libssh2 says. Not a `From`, which would make `ssh2` part of the public interface.
    pub(crate) fn protocol(error: &ssh2::Error) -> Self {
        let code = match error.code() {
            ssh2::ErrorCode::Session(code) | ssh2::ErrorCode::SFTP(code) => code,
        };
        Self::Protocol {
            code,
            message: error.message().to_owned(),
        }
    }
}

/// An error of a whole connection, which each of its commands turns into its own.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// How far the connection had come; `None` once commands could run on it.
    pub(crate) phase: Option<Phase>,
    /// Whether a command that was not sent may be tried on a new connection.
    pub(crate) retry: bool,
    pub(crate) source: SshError,
}

impl Fault {
    /// The connection could not be made.
    pub(crate) fn early(phase: Phase, source: impl Into<SshError>) -> Self {
        Self {
            phase: Some(phase),
            retry: false,
            source: source.into(),
        }
    }

    /// The connection was there and is no more.
    pub(crate) fn late(source: impl Into<SshError>) -> Self {
        let source = source.into();
        Self {
            phase: None,
            retry: !matches!(source, SshError::Disconnected),
            source,
        }
    }
}

impl Fault {
    /// The same, but nothing is gained by another connection.
    pub(crate) fn without_retry(mut self) -> Self {
        self.retry = false;
        self
    }
}
