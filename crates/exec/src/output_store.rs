//! Where the output of containers is kept after they ended.

use std::fmt;
use std::io;

use async_trait::async_trait;
use longshore_types::{Attempt, ContainerUuid};

/// Keeps what containers wrote, so that their machines may go.
///
/// One that keeps nothing:
///
/// ```
/// use std::io;
/// use async_trait::async_trait;
/// use longshore_exec::{OutputSink, OutputStore};
/// use longshore_types::{Attempt, ContainerUuid};
///
/// #[derive(Debug)]
/// struct Nowhere;
///
/// #[async_trait]
/// impl OutputStore for Nowhere {
///     async fn wanted(&self, _: ContainerUuid) -> io::Result<Option<u64>> { Ok(Some(0)) }
///     async fn begin(&self, _: ContainerUuid, _: Attempt, _: &'static str, _: u64)
///         -> io::Result<Box<dyn OutputSink>> { Ok(Box::new(Nowhere)) }
/// }
///
/// #[async_trait]
/// impl OutputSink for Nowhere {
///     async fn write(&mut self, _: &[u8]) -> io::Result<()> { Ok(()) }
///     async fn finish(&mut self) -> io::Result<()> { Ok(()) }
/// }
/// ```
#[async_trait]
pub trait OutputStore: fmt::Debug + Send + Sync {
    /// How much of an output stream is wanted: its last so many bytes, or all of it if none.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) where there is no such container: nobody wants any of
    /// it. Anything else, and it is asked again until there is an answer.
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
///
/// Dropping it before [`OutputSink::finish`] keeps nothing.
///
/// No example: the one of [`OutputStore`] has one.
#[async_trait]
pub trait OutputSink: fmt::Debug + Send {
    /// Adds bytes at the end.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable and visible. Without it nothing is kept.
    async fn finish(&mut self) -> io::Result<()>;
}
