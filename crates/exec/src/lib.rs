//! The contract "run a command on a host".
//!
//! An [`Executor`] keeps whatever connections it needs and runs [`Command`]s on [`Target`]s; what
//! it promises is written on the trait. `longshore-ssh` has one over SSH, [`testing::Scripted`] is
//! one for tests, and anything else that starts processes elsewhere can be one.
//!
//! # Using an executor
//!
//! Most callers want [`ExecutorExt::exec`]: one command to its end, with a bounded part of what it
//! says.
//!
//! ```
//! use std::time::Duration;
//! use longshore_exec::testing::Scripted;
//! use longshore_exec::{Command, ExecutorExt, Identity, Target};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let executor = Scripted::new(|_, line| match line {
//!     "uname" => "Linux\n".into(),
//!     other => panic!("nobody expected {other}"),
//! });
//! let target = Target::new("i-1", "10.0.0.1", "root", Identity::Unchecked);
//! let ten_seconds = Duration::from_secs(10);
//! let done = executor.exec(&target, &Command::new("uname"), &[], ten_seconds, 1024).await?;
//! assert!(done.succeeded());
//! assert_eq!(done.stdout, b"Linux\n");
//! # Ok::<(), longshore_exec::ExecError>(()) }).unwrap();
//! ```
//!
//! # May have run
//!
//! A command is not repeated as if nothing had happened only because it failed: its effect may be
//! there. So every [`ExecError`] says whether the command may have been carried out, wholly or in
//! part. "May have run" is never to be treated as "did not run".
//!
//! | what happened | `may_have_run` |
//! |---|---|
//! | the address does not answer, the login fails, the host's key is wrong | no |
//! | the time was up while the command waited for its turn | no |
//! | the line has a NUL byte and cannot be sent | no |
//! | the host refused the request to run it, and said so | perhaps: an executor that cannot be sure says yes |
//! | the request was sent and the connection broke before any answer | yes |
//! | it ran and the time was up, or the connection broke, before it ended | yes |
//! | it ended and the host did not say how | no error: [`Process::wait`] gives `None`, which is not success |
//!
//! # Writing an executor
//!
//! Two traits, six methods. A complete one, which runs commands on this very machine, whatever the
//! target. It identifies nobody, so it refuses whoever asks for that:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Mutex;
//! use std::time::Duration;
//! use async_trait::async_trait;
//! use longshore_exec::*;
//! use longshore_types::InstanceId;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
//! use tokio::sync::watch;
//! use tokio::time::{Instant, timeout_at};
//!
//! /// What stands for the connections: whoever drops a sender cuts all processes that listen.
//! #[derive(Debug, Default)]
//! struct Local(Mutex<BTreeMap<InstanceId, watch::Sender<()>>>);
//!
//! #[derive(Debug)]
//! struct LocalProcess {
//!     child: Child,
//!     stdin: Option<ChildStdin>,
//!     stdout: Option<ChildStdout>,
//!     stderr: Option<ChildStderr>,
//!     limits: Limits,
//! }
//!
//! /// When it has to end at the latest, and what is cut when its instance is disconnected.
//! #[derive(Debug)]
//! struct Limits { deadline: Instant, connected: watch::Receiver<()> }
//!
//! impl Limits {
//!     async fn keep<T>(&mut self, work: impl Future<Output = std::io::Result<T>>)
//!         -> Result<T, ExecError> {
//!         tokio::select! {
//!             done = timeout_at(self.deadline, work) => match done {
//!                 Ok(done) => done.map_err(broke),
//!                 Err(_) => Err(broke("the time is up")),
//!             },
//!             _ = self.connected.changed() => Err(broke("it was disconnected")),
//!         }
//!     }
//! }
//!
//! #[async_trait]
//! impl Executor for Local {
//!     async fn open(&self, target: &Target, command: &Command, timeout: Duration)
//!         -> Result<Box<dyn Process>, ExecError> {
//!         if let Identity::Checked { .. } = target.identity {
//!             let why = "this executor cannot tell who answers; allow Identity::Unchecked";
//!             return Err(ExecError::not_run(Phase::HostIdentity, why));
//!         }
//!         // Deadlines: everything from here on has until then. A sum that does not fit is never.
//!         let now = Instant::now();
//!         let never = now + Duration::from_secs(30 * 365 * 24 * 3600);
//!         let deadline = now.checked_add(timeout).unwrap_or(never);
//!         if command.line.contains('\0') {
//!             return Err(ExecError::not_run(Phase::Open, "the line has a NUL byte"));
//!         }
//!         let pipe = std::process::Stdio::piped;
//!         let mut child = tokio::process::Command::new("sh").args(["-c", &command.line])
//!             .stdin(pipe()).stdout(pipe()).stderr(pipe()).kill_on_drop(true)
//!             .spawn().map_err(|error| ExecError::not_run(Phase::Open, error))?;
//!         let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
//!         let stderr = child.stderr.take();
//!         let mut connections = self.0.lock().unwrap();
//!         let connection = connections.entry(target.instance.clone()).or_default();
//!         let limits = Limits { deadline, connected: connection.subscribe() };
//!         Ok(Box::new(LocalProcess { child, stdin, stdout, stderr, limits }))
//!     }
//!
//!     async fn disconnect(&self, instance: &InstanceId) {
//!         self.0.lock().unwrap().remove(instance);
//!     }
//! }
//!
//! /// From here on nobody knows what the command did.
//! fn broke(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ExecError {
//!     ExecError::may_have_run(Phase::Command, error)
//! }
//!
//! /// One read, or nothing for ever once the stream has ended. Dropping it loses nothing.
//! async fn read(stream: &mut Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
//!     let Some(open) = stream else { return std::future::pending().await };
//!     let mut bytes = vec![0; MAX_CHUNK];
//!     let count = open.read(&mut bytes).await?;
//!     bytes.truncate(count);
//!     if count == 0 {
//!         *stream = None;
//!     }
//!     Ok(bytes)
//! }
//!
//! #[async_trait]
//! impl Process for LocalProcess {
//!     async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
//!         let Some(stdin) = &mut self.stdin else { return Err(broke("its input is closed")) };
//!         let write = async {
//!             match stdin.write_all(bytes).await {
//!                 // A command that does not want its input: the rest is dropped.
//!                 Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
//!                 written => written,
//!             }
//!         };
//!         self.limits.keep(write).await
//!     }
//!
//!     async fn close_stdin(&mut self) -> Result<(), ExecError> {
//!         self.stdin = None;
//!         Ok(())
//!     }
//!
//!     async fn output(&mut self) -> Result<Option<Output>, ExecError> {
//!         while self.stdout.is_some() || self.stderr.is_some() {
//!             let (stdout, stderr) = (&mut self.stdout, &mut self.stderr);
//!             let either = async {
//!                 tokio::select! {
//!                     bytes = read(stdout) => bytes.map(Output::Stdout),
//!                     bytes = read(stderr) => bytes.map(Output::Stderr),
//!                 }
//!             };
//!             match self.limits.keep(either).await? {
//!                 // The end of one of them.
//!                 Output::Stdout(bytes) | Output::Stderr(bytes) if bytes.is_empty() => {}
//!                 output => return Ok(Some(output)),
//!             }
//!         }
//!         Ok(None)
//!     }
//!
//!     async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
//!         while self.output().await?.is_some() {}
//!         let status = self.limits.keep(self.child.wait()).await?;
//!         // No code: a signal ended it. That is not success, and not a code.
//!         Ok(status.code().map(|code| ExitStatus::Code(code.cast_unsigned())))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let target = Target::new("here", "127.0.0.1", "me", Identity::Unchecked);
//! let line = Command::new("read name; echo hello $name; exit 3");
//! let local = Local::default();
//! let done = local.exec(&target, &line, b"you\n", Duration::from_secs(10), 1024).await?;
//! assert_eq!(done.stdout, b"hello you\n");
//! assert_eq!(done.status, Some(ExitStatus::Code(3)));
//! let sleep = Command::new("sleep 5");
//! let late = local.exec(&target, &sleep, &[], Duration::from_millis(10), 1024).await.unwrap_err();
//! assert!(late.may_have_run);
//! let mut cut = local.open(&target, &sleep, Duration::from_secs(10)).await?;
//! local.disconnect(&target.instance).await;
//! assert!(cut.wait().await.unwrap_err().may_have_run);
//! # Ok::<(), ExecError>(()) }).unwrap();
//! ```

mod collect;
mod error;
mod output_store;
pub mod testing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use collect::{Collected, ExecutorExt};
pub use error::{Alone, ExecError, Phase};
use longshore_types::InstanceId;
pub use longshore_types::{HostKey, HostKeyVerdict};
pub use output_store::{OutputSink, OutputStore};

/// The most bytes in one piece of output.
pub const MAX_CHUNK: usize = 64 * 1024;

/// Runs commands on hosts.
///
/// No example: the crate documentation has a complete one.
///
/// # Deadlines
///
/// [`Executor::open`] and everything done with the [`Process`] it returns end within the timeout
/// given to `open`, with an error if need be, whatever the host does: also one that sends without
/// end, a byte at a time, or nothing. A timeout too long to be added to the clock is no limit.
///
/// # May have run
///
/// An error says whether the command may have been carried out
/// ([`ExecError::may_have_run`](field@ExecError::may_have_run)). An executor that is not sure says
/// yes. It may try a command again by itself only while it surely was not sent.
///
/// # No invented success
///
/// [`Process::wait`] gives `None` if the host did not say how the command ended. That is unknown,
/// never success.
///
/// # Bounds
///
/// Output arrives in pieces of at most [`MAX_CHUNK`] bytes. What is kept for a caller who does not
/// read is bounded, and a host that sends faster is made to wait. Neither one command nor one host
/// holds up another.
///
/// # Identity
///
/// No command, but the one that reads the host's secret, runs before the host was identified as
/// [`Target::identity`] asks. A connection that was made without a check does not serve a target
/// that asks for one.
///
/// # Dropping
///
/// Every future may be dropped at any await. A command whose `open` is dropped may have run, or may
/// still run. A process that is dropped is closed in the background; the command may go on running
/// on the host.
///
/// # Concurrency
///
/// Commands on one target run side by side, as far as the host allows; those that cannot, wait in
/// the order in which they came. Where a host allows one at a time, and one runs that was opened
/// without a limit of time, an executor that knows so refuses the others at once, with [`Alone`].
/// Targets with the same instance share a connection. One with another address or user replaces it.
#[async_trait]
pub trait Executor: fmt::Debug + Send + Sync {
    /// Starts `command` on `target`, connecting first where there is no connection.
    ///
    /// Returns when the host has said that it runs. `timeout` bounds everything from here to the end
    /// of the process, connecting included.
    ///
    /// # Errors
    ///
    /// Whatever keeps the command from being started, with the [`Phase`] that it came to. A line, a
    /// user or an address that cannot be sent or reached is an error that says "not run".
    async fn open(
        &self,
        target: &Target,
        command: &Command,
        timeout: Duration,
    ) -> Result<Box<dyn Process>, ExecError>;

    /// Closes the connection to an instance, if there is one, and forgets it.
    ///
    /// Its processes fail with "may have run". A later `open` connects anew. Returns soon, whatever
    /// the host does.
    async fn disconnect(&self, instance: &InstanceId);
}

/// A command that was started on a host.
///
/// Its input and its two streams of output. All errors are of phase [`Phase::Command`] and say "may
/// have run"; after one, the others fail likewise.
///
/// ```
/// use longshore_exec::{ExecError, Output, Process};
///
/// /// Gives it a line, and counts what comes back.
/// async fn ask(mut process: Box<dyn Process>) -> Result<usize, ExecError> {
///     process.write_stdin(b"a question\n").await?;
///     process.close_stdin().await?;
///     let mut bytes = 0;
///     while let Some(output) = process.output().await? {
///         bytes += match output {
///             Output::Stdout(bytes) | Output::Stderr(bytes) => bytes.len(),
///         };
///     }
///     // `None` is not success: the host did not say.
///     let _status = process.wait().await?;
///     Ok(bytes)
/// }
/// ```
#[async_trait]
pub trait Process: fmt::Debug + Send {
    /// Writes to its standard input; returns when everything was handed over.
    ///
    /// A host that closed its standard input early is no error: the rest is dropped. If this is
    /// dropped before it returns, a beginning of `bytes` of unknown length was written.
    ///
    /// # Errors
    ///
    /// When the time is up or the connection is gone, and after [`Process::close_stdin`].
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError>;

    /// Ends its standard input, after what was written. Doing it twice is no error.
    ///
    /// # Errors
    ///
    /// When the connection is gone. An executor may leave that to the next call.
    async fn close_stdin(&mut self) -> Result<(), ExecError>;

    /// The next piece of output, at most [`MAX_CHUNK`] bytes; `None` once both streams ended.
    ///
    /// The order within a stream is that of the command; between the two it is not known. Safe to
    /// drop at any await: no output is lost.
    ///
    /// # Errors
    ///
    /// When the time is up or the connection is gone, after all output that came before.
    async fn output(&mut self) -> Result<Option<Output>, ExecError>;

    /// How it ended, reading and dropping output that is left; `None` if the host did not say.
    ///
    /// May return before the streams end, if something that the command left behind holds them
    /// open. May be called again, with the same answer.
    ///
    /// # Errors
    ///
    /// When the time is up or the connection is gone before the end was known.
    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError>;
}

/// A host to run commands on.
///
/// ```
/// use longshore_exec::{Identity, Target};
/// let target = Target::new("i-1", "[fd00::1]:2222", "admin", Identity::Unchecked);
/// assert_eq!(target.user, "admin");
/// ```
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
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use longshore_exec::{HostKey, HostKeyVerdict, HostKeyVerifier, Identity};
/// use longshore_types::InstanceId;
///
/// /// Keys as `known_hosts` writes them: `ssh-ed25519 AAAA...`.
/// #[derive(Debug)]
/// struct Known(Vec<String>);
///
/// #[async_trait]
/// impl HostKeyVerifier for Known {
///     async fn verify(&self, _: &InstanceId, key: &HostKey) -> HostKeyVerdict {
///         match self.0.contains(&key.to_string()) {
///             true => HostKeyVerdict::Match,
///             false => HostKeyVerdict::Mismatch,
///         }
///     }
/// }
///
/// let identity = Identity::Checked {
///     verifier: Arc::new(Known(vec!["ssh-ed25519 AAAACw==".to_owned()])),
///     secret: None,
///     secret_path: String::new(),
/// };
/// # let _ = identity;
/// ```
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
///
/// An executor may keep an answer until [`Executor::disconnect`] and ask again only about another
/// key. [`Identity`] has an example.
///
/// No example: the one of [`Identity`] is one.
#[async_trait]
pub trait HostKeyVerifier: fmt::Debug + Send + Sync {
    /// Whether `key` is the host key of `instance`. Must answer within a few seconds.
    async fn verify(&self, instance: &InstanceId, key: &HostKey) -> HostKeyVerdict;
}

/// A command for the login shell of a host.
///
/// ```
/// use longshore_exec::Command;
/// assert_eq!(Command::new("exit 3").line, "exit 3");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// The line that the shell is given. Quoting is the caller's. Newlines are the shell's; a NUL
    /// byte is an error, and so may be a length beyond some thousand bytes.
    pub line: String,
}

impl Command {
    /// A command from its line.
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into() }
    }
}

/// A piece of output, at most [`MAX_CHUNK`] bytes, never empty.
///
/// ```
/// use longshore_exec::Output;
/// let output = Output::Stderr(b"no such file\n".to_vec());
/// assert!(matches!(output, Output::Stderr(bytes) if bytes.starts_with(b"no such")));
/// ```
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
///
/// ```
/// use longshore_exec::ExitStatus;
/// assert!(ExitStatus::Code(0).is_success());
/// assert_eq!(ExitStatus::Code(3).to_string(), "exit code 3");
/// assert_eq!(ExitStatus::Signal("KILL".to_owned()).to_string(), "signal KILL");
/// ```
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
