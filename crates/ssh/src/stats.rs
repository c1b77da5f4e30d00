//! Counters.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What an executor did so far; see [`SshExecutor::stats`](crate::SshExecutor::stats).
///
/// ```
/// use longshore_ssh::SshExecutor;
/// fn log(executor: &SshExecutor) -> String {
///     let stats = executor.stats();
///     let open = stats.connections_open;
///     format!("{open} connections, {} commands, {} bytes", stats.commands, stats.bytes_received)
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections on which commands can run now.
    pub connections_open: u64,
    /// Connections that were made.
    pub connections_made: u64,
    /// Connections that could not be made.
    pub connections_failed: u64,
    /// Commands that the hosts were asked to run, those that read a secret included.
    pub commands: u64,
    /// Bytes received over TCP.
    pub bytes_received: u64,
    /// Bytes sent over TCP.
    pub bytes_sent: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_made: AtomicU64,
    pub(crate) connections_ended: AtomicU64,
    pub(crate) connections_failed: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        // Read before the connections made, so that the difference is never negative.
        let ended = self.connections_ended.load(Relaxed);
        let made = self.connections_made.load(Relaxed);
        Stats {
            connections_open: made.saturating_sub(ended),
            connections_made: made,
            connections_failed: self.connections_failed.load(Relaxed),
            commands: self.commands.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Relaxed);
}
