//! The event loop around [`Core`](crate::Core), on tokio.
//!
//! [`Dispatcher::start`] spawns the one task that owns the core. Everybody else sends it messages
//! through the [`Dispatcher`] and reads the [`Snapshot`] that it publishes.

mod ask;
mod event_loop;
mod log;

use std::sync::Arc;
use std::time::Duration;

use longshore_pool::Refusal;
use longshore_pool::runtime::Shell;
use longshore_queue::Queue;
use longshore_types::{ContainerUuid, Explanation, IdleBehavior, InstanceId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::{Config, Notice, Snapshot};
use event_loop::EventLoop;

/// The most messages that wait to be read by the event loop.
const MAX_MESSAGES: usize = 1000;

/// What a dispatcher acts with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Performs the pool's effects.
    pub shell: Arc<Shell>,
    /// The controller.
    pub queue: Arc<dyn Queue>,
    /// Gets every notice, if anybody wants them. Must not block.
    pub observer: Option<Observer>,
}

/// Somebody who watches what a dispatcher decides.
#[derive(Clone)]
pub struct Observer(pub Arc<dyn Fn(&Notice) + Send + Sync>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// A request to the event loop.
#[derive(Debug)]
enum Message {
    SetIdleBehavior(
        InstanceId,
        IdleBehavior,
        oneshot::Sender<Result<(), Refusal>>,
    ),
    KillInstance(InstanceId, String, oneshot::Sender<Result<(), Refusal>>),
    Explain(ContainerUuid, oneshot::Sender<Option<Explanation>>),
    WindDown,
    Stop(Duration),
}

/// A dispatcher that runs in the background. Dropping it stops it abruptly.
#[derive(Debug)]
pub struct Dispatcher {
    messages: mpsc::Sender<Message>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    task: JoinHandle<Stopped>,
}

/// How a dispatcher ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Effects that had not ended when the deadline came, a line each.
    pub abandoned: Vec<String>,
    /// What was found to be wrong with its state, if anything was. A bug.
    pub error: Option<String>,
}

/// The dispatcher has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dispatcher has ended")]
pub struct Ended;

impl Dispatcher {
    /// Starts a dispatcher. `seed` is random and secret.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(config: Config, parts: Parts, seed: [u8; 32]) -> Self {
        let (messages, inbox) = mpsc::channel(MAX_MESSAGES);
        let (publisher, snapshots) = watch::channel(Arc::default());
        let event_loop = EventLoop::new(config, parts, seed, inbox, publisher);
        Self {
            messages,
            snapshots,
            task: tokio::spawn(event_loop.run()),
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

    /// Begins nothing new and gives every instance back once nothing is left on it. Returns at
    /// once; [`Snapshot::wound_down`] says when it is done.
    pub async fn wind_down(&self) -> Result<(), Ended> {
        self.messages
            .send(Message::WindDown)
            .await
            .map_err(|_| Ended)
    }

    /// Begins nothing new, waits at most `grace` for what is under way, and ends. Containers keep
    /// running on their instances and are found again by the next dispatcher.
    pub async fn stop(self, grace: Duration) -> Stopped {
        // It may have ended by itself, which the task tells.
        let _ = self.messages.send(Message::Stop(grace)).await;
        self.task.await.unwrap_or_else(|error| Stopped {
            abandoned: Vec::new(),
            error: Some(format!("the event loop failed: {error}")),
        })
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.messages
            .send(message(reply))
            .await
            .map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }
}
