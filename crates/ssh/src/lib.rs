//! An executor over libssh2: one task per session and its channels.
//!
//! [`SshExecutor`] implements [`longshore_exec::Executor`]. It keeps one connection per instance,
//! opens it on demand, and runs many commands at a time on it.
//!
//! ```no_run
//! use std::time::Duration;
//! use longshore_exec::{Command, ExecutorExt, Identity, Target};
//! use longshore_ssh::{PrivateKey, Settings, SshExecutor};
//!
//! # async fn example(key: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let executor = SshExecutor::new(PrivateKey::parse(key)?, Settings::default());
//! let target = Target::new("i-1", "10.0.0.1", "admin", Identity::Unchecked);
//! let command = Command::new("uptime");
//! let done = executor.exec(&target, &command, &[], Duration::from_secs(10), 4096).await?;
//! assert!(done.succeeded());
//! # Ok(()) }
//! ```
//!
//! # The exit status
//!
//! libssh2 cannot tell an exit status of 0 from none. So a command is sent as
//! `(eval ' LINE');s=$?;printf 'NONCE:%d;' "$s" >&2;exit "$s"`, for a POSIX login shell, and the
//! trailer is taken out of standard error again. Without a trailer only a signal or a code other
//! than 0 is believed. What the shell reports as 128 + n for a command that a signal ended stays
//! that code; a signal is what ended the shell itself.
//!
//! [`Process::wait`](longshore_exec::Process::wait) returns when the trailer was seen, also when
//! something that the command left behind still holds its output open.
//!
//! # How it works
//!
//! One task owns a libssh2 session and all its channels, in non-blocking mode. It reads and writes
//! the TCP connection itself and passes the bytes on through a socket pair, at most 64 KiB at a
//! time in each direction: a libssh2 call goes on for as long as there is something to read, so
//! only this makes deadlines come true for every server, keeps hosts from crowding out each other,
//! and lets bytes be counted. A connection takes three file descriptors.
//!
//! The next channel is opened ahead, while a command runs. A process has a bounded buffer in each
//! direction; a caller that does not read makes its own command wait, and no other.

//!
//! # Limits
//!
//! Everything that can grow has a bound: per process 64 KiB that wait in each direction, 64 KiB that
//! the host may send on a channel ahead of that, and a line of about 30,000 bytes once quoted; per
//! connection and executor what [`Settings`] says.
//!
//! A command that nobody waits for any more is closed, but an OpenSSH server goes on counting its
//! channel until the command ends. Until then there is room for one command less; when commands
//! wait and there is no room left by such channels, the connection is replaced.
//!
//! # What shows through
//!
//! No type of the `ssh2` crate is part of this interface. libssh2 itself shows in two places: the
//! text and the number of [`SshError::Protocol`], and the forms of keys that [`PrivateKey::parse`]
//! takes.

mod connection;
mod dial;
mod engine;
mod error;
mod executor;
mod handshake;
mod job;
mod key;
mod link;
mod pipe;
mod process;
mod raw;
mod settings;
mod stats;
mod verdicts;
mod wrap;

pub use error::SshError;
pub use executor::SshExecutor;
pub use key::{KeyError, PrivateKey};
pub use settings::Settings;
pub use stats::Stats;
