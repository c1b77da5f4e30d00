//! Talking to a dispatcher that runs.

use std::sync::Arc;
use std::time::Duration;

use longshore_pool::Refusal;
use longshore_pool::runtime::Shell;
use longshore_runner_api::command::OutputStream;
use longshore_runner_api::{MAX_WINDOW_BYTES, OutputWindow};
use longshore_types::{Attempt, ContainerUuid, Explanation, IdleBehavior, InstanceId, Instant};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Ended, Measured, Message};
use crate::{EntryView, InstanceEntry, Snapshot};

/// The way to a dispatcher. Cheap to clone; does not keep it alive.
#[derive(Clone, Debug)]
pub struct Handle {
    messages: mpsc::WeakSender<Message>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shell: Arc<Shell>,
}

/// The output of an attempt cannot be read now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Nothing of the container is on any instance: it waits, or has ended.
    #[error("nothing of it is on an instance")]
    NotThere,
    /// Its host did not give it.
    #[error("its host does not give the output: {0}")]
    Host(String),
    /// There is no dispatcher any more.
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl Handle {
    pub(super) fn new(
        messages: mpsc::WeakSender<Message>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        shell: Arc<Shell>,
    ) -> Self {
        Self {
            messages,
            snapshots,
            shell,
        }
    }

    /// What it published last; at most 50 ms old while something happens.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// A receiver that wakes when a new snapshot was published.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Changes what a worker does when it has nothing to do.
    pub async fn set_idle_behavior(
        &self,
        instance: InstanceId,
        behavior: IdleBehavior,
    ) -> Result<Result<(), Refusal>, Ended> {
        self.ask(|reply| Message::SetIdleBehavior(instance, behavior, reply))
            .await
    }

    /// Destroys an instance, whatever runs there.
    pub async fn kill_instance(
        &self,
        instance: InstanceId,
        reason: String,
    ) -> Result<Result<(), Refusal>, Ended> {
        self.ask(|reply| Message::KillInstance(instance, reason, reply))
            .await
    }

    /// Why a container waits, in full; none if it is not in the queue as far as is known: it has
    /// ended, or was never there.
    pub async fn explain(&self, uuid: ContainerUuid) -> Result<Option<Explanation>, Ended> {
        self.ask(|reply| Message::Explain(uuid, reply)).await
    }

    /// The entry of a container, as [`crate::Core::entry`], and the moment at which it was so.
    pub async fn entry(&self, uuid: ContainerUuid) -> Result<(Option<EntryView>, Instant), Ended> {
        self.ask(|reply| Message::Entry(uuid, reply)).await
    }

    /// The entries of the queue, as [`crate::Core::entries`], and the moment at which it was so.
    pub async fn entries(&self) -> Result<(Vec<EntryView>, Instant), Ended> {
        self.ask(Message::Entries).await
    }

    /// Every instance, by id, and the moment at which it was so.
    pub async fn instances(&self) -> Result<(Vec<InstanceEntry>, Instant), Ended> {
        self.ask(Message::Instances).await
    }

    /// What there is to measure. It costs a look at every container and worker.
    pub async fn measure(&self) -> Result<Measured, Ended> {
        self.ask(Message::Measure).await
    }

    /// At most `length` bytes, and never more than 1 MiB, of what the latest attempt of a
    /// container has written to a stream until now, from the byte `from` on, or later if that was
    /// left out; and which attempt that is. Only while it is on an instance.
    pub async fn read_output(
        &self,
        uuid: ContainerUuid,
        stream: OutputStream,
        (from, length): (u64, u64),
        timeout: Duration,
    ) -> Result<(Attempt, OutputWindow), OutputError> {
        let place = self.ask(|reply| Message::Place(uuid, reply)).await?;
        let place = place.ok_or(OutputError::NotThere)?;
        let what = (uuid, place.attempt, stream);
        let window = (from, length.min(MAX_WINDOW_BYTES));
        let read = self
            .shell
            .read_output(&place.host, what, window, timeout)
            .await;
        read.map(|window| (place.attempt, window))
            .map_err(|failure| OutputError::Host(failure.error))
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        let messages = self.messages.upgrade().ok_or(Ended)?;
        messages.send(message(reply)).await.map_err(|_| Ended)?;
        drop(messages);
        answer.await.map_err(|_| Ended)
    }
}
