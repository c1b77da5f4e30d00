//! The contract "run a command on a host".
//!
//! An [`Executor`] keeps whatever connections it needs and runs [`Command`]s on [`Target`]s. What
//! it promises:
//!
//! - **Deadlines.** [`Executor::open`] and everything done with the [`Process`] it returns end
//!   within the timeout given to `open`, with an error if need be, whatever the host does.
//! - **May have run.** An error says whether the command may have been carried out
//!   ([`ExecError::may_have_run`]). Whoever acts on an error must not treat "may have run" as "did
//!   not run".
//! - **No invented success.** [`Process::wait`] gives `None` if the host did not say how the
//!   command ended. That is unknown, never success.
//! - **Bounded.** Output arrives in chunks of at most [`MAX_CHUNK`] bytes, and a host that sends
//!   faster than the caller reads is made to wait.
//! - **Identity.** No command but the one that reads the host's secret runs before the host was
//!   identified as [`Target::identity`] asks.
//! - **Dropping.** A process that is dropped is closed in the background. The command may go on
//!   running on the host.
//!
//! An executor for a host that is this very process:
//!
//! ```
//! use std::time::Duration;
//! use async_trait::async_trait;
//! use longshore_exec::*;
//! use longshore_types::InstanceId;
//!
//! #[derive(Debug)]
//! struct Echo;
//!
//! #[derive(Debug)]
//! struct Echoed(Option<Vec<u8>>);
//!
//! #[async_trait]
//! impl Executor for Echo {
//!     async fn open(&self, _: &Target, command: &Command, _: Duration)
//!         -> Result<Box<dyn Process>, ExecError> {
//!         Ok(Box::new(Echoed(Some(command.line.clone().into_bytes()))))
//!     }
//!     async fn disconnect(&self, _: &InstanceId) {}
//! }
//!
//! #[async_trait]
//! impl Process for Echoed {
//!     async fn write_stdin(&mut self, _: &[u8]) -> Result<(), ExecError> { Ok(()) }
//!     async fn close_stdin(&mut self) -> Result<(), ExecError> { Ok(()) }
//!     async fn output(&mut self) -> Result<Option<Output>, ExecError> {
//!         Ok(self.0.take().map(Output::Stdout))
//!     }
//!     async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
//!         Ok(Some(ExitStatus::Code(0)))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let target = Target::new("i-1", "127.0.0.1:22", "root", Identity::Unchecked);
//! let done = Echo.exec(&target, &Command::new("hello"), &[], Duration::from_secs(1), 1024).await?;
//! assert_eq!(done.stdout, b"hello");
//! assert!(done.succeeded());
//! # Ok::<(), ExecError>(()) }).unwrap();
//! ```

mod collect;
mod error;
mod output_store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use collect::{Collected, ExecutorExt};
pub use error::{ExecError, Phase};
use longshore_types::InstanceId;
pub use longshore_types::{HostKey, HostKeyVerdict};
pub use output_store::{OutputSink, OutputStore};

/// The most bytes in one piece of output.
pub const MAX_CHUNK: usize = 64 * 1024;

/// Runs commands on hosts. See the crate documentation for what it promises.
#[async_trait]
pub trait Executor: fmt::Debug + Send + Sync {
    /// Starts `command` on `target`, connecting first where there is no connection.
    ///
    /// `timeout` bounds everything from here to the end of the process, connecting included.
    async fn open(
        &self,
        target: &Target,
        command: &Command,
        timeout: Duration,
    ) -> Result<Box<dyn Process>, ExecError>;

    /// Closes the connection to an instance, if there is one, and forgets it.
    ///
    /// Its processes fail with "may have run". A later `open` connects anew.
    async fn disconnect(&self, instance: &InstanceId);
}

/// A command that was started on a host.
#[async_trait]
pub trait Process: fmt::Debug + Send {
    /// Writes to its standard input; returns when everything was handed over.
    ///
    /// A host that closed its standard input early is no error: the rest is dropped.
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError>;

    /// Ends its standard input. Doing it twice is no error.
    async fn close_stdin(&mut self) -> Result<(), ExecError>;

    /// The next piece of output, at most [`MAX_CHUNK`] bytes; `None` once both streams ended.
    ///
    /// Safe to drop at any await: no output is lost.
    async fn output(&mut self) -> Result<Option<Output>, ExecError>;

    /// How it ended, reading and dropping output that is left; `None` if the host did not say.
    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError>;
}

/// A host to run commands on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The instance; connections are kept by this.
    pub instance: InstanceId,
    /// Host, or host and port: `10.0.0.1`, `10.0.0.1:2222`, `[::1]:22`.
    pub address: String,
    /// The user to log in as.
    pub user: String,
    /// How the host proves that it is the instance.
    pub identity: Identity,
}

impl Target {
    /// A host by its address, and the user to log in as.
    pub fn new(
        instance: impl Into<InstanceId>,
        address: impl Into<String>,
        user: impl Into<String>,
        identity: Identity,
    ) -> Self {
        Self {
            instance: instance.into(),
            address: address.into(),
            user: user.into(),
            identity,
        }
    }
}

/// How a host proves that it is the instance it is taken for.
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "an executor that ignores one must not compile"
)]
pub enum Identity {
    /// Its host key is shown to `verifier`. Where that cannot tell and there is a `secret`, the
    /// file `secret_path` on the host must hold exactly the secret; otherwise it is refused.
    Checked {
        /// Who knows the host's key.
        verifier: Arc<dyn HostKeyVerifier>,
        /// What the file must hold, if the instance was given a secret.
        secret: Option<String>,
        /// Absolute path of that file on the host.
        secret_path: String,
    },
    /// Anybody is believed. For tests, and for networks where nobody can come between.
    Unchecked,
}

/// Somebody who may know the host key of an instance.
#[async_trait]
pub trait HostKeyVerifier: fmt::Debug + Send + Sync {
    /// Whether `key` is the host key of `instance`. Must answer within a few seconds.
    async fn verify(&self, instance: &InstanceId, key: &HostKey) -> HostKeyVerdict;
}

/// A command for the login shell of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// The line that the shell is given. Quoting is the caller's.
    pub line: String,
}

impl Command {
    /// A command from its line.
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into() }
    }
}

/// A piece of output, at most [`MAX_CHUNK`] bytes, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a process has these two output streams"
)]
pub enum Output {
    /// From standard output.
    Stdout(Vec<u8>),
    /// From standard error.
    Stderr(Vec<u8>),
}

/// How a command ended, as the host said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the two ways that the SSH protocol knows"
)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u32),
    /// A signal of this name (without `SIG`) ended it.
    Signal(String),
}

impl ExitStatus {
    /// Whether it exited with code 0.
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}
