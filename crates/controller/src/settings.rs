//! What can be set.

use std::time::Duration;

/// How a [`crate::Store`] behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The first part of the UUIDs that are made: five characters of `[a-z0-9]`.
    pub cluster: String,
    /// A container that is unlocked this often in a row, without having run and without being held
    /// back at priority 0, is cancelled; at least 1.
    pub max_dispatch_attempts: u32,
    /// The largest size of the database in bytes. Above nine tenths of it submissions fail, so that
    /// the ends of what is there can be recorded; above eight tenths [`crate::Store::prune`] removes
    /// what ended, however little it is.
    pub max_store_bytes: u64,
    /// How many requests of clients may wait to be written, and as many of the dispatcher, which go
    /// first; more are made to wait before they get in line.
    pub max_waiting_requests: usize,
    /// The time limit of the requests that are not given one of their own.
    pub request_timeout: Duration,
    /// How many of the last bytes of each output stream are kept of a container that does not ask
    /// for everything.
    pub kept_output_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster: "local".into(),
            max_dispatch_attempts: 10,
            max_store_bytes: 16 << 30,
            max_waiting_requests: 1024,
            request_timeout: Duration::from_secs(60),
            kept_output_bytes: 1 << 20,
        }
    }
}
