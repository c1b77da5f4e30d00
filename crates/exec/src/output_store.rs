//! Where the output of containers is kept after they ended.

use std::fmt;
use std::io;

use async_trait::async_trait;
use longshore_types::{Attempt, ContainerUuid};

/// Keeps what containers wrote, so that their machines may go.
#[async_trait]
pub trait OutputStore: fmt::Debug + Send + Sync {
    /// How much of an output stream is wanted: its last so many bytes, or all of it if none.
    async fn wanted(&self, uuid: ContainerUuid) -> io::Result<Option<u64>>;

    /// Begins to keep one stream (`stdout` or `stderr`) of an attempt, from the start: what was
    /// kept of it before is replaced once [`OutputSink::finish`] succeeds.
    ///
    /// `skipped` bytes at its beginning will not come; the kept text says so.
    async fn begin(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        stream: &'static str,
        skipped: u64,
    ) -> io::Result<Box<dyn OutputSink>>;
}

/// One stream that is being kept.
#[async_trait]
pub trait OutputSink: fmt::Debug + Send {
    /// Adds bytes at the end.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable and visible. Without it nothing is kept.
    async fn finish(&mut self) -> io::Result<()>;
}
