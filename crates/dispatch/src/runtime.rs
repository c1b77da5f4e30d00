//! The event loop around [`Core`](crate::Core), on tokio.
//!
//! [`Dispatcher::start`] spawns the one task that owns the core. Everybody else sends it messages
//! through the [`Dispatcher`] and reads the [`Snapshot`](crate::Snapshot) that it publishes.

mod ask;
mod event_loop;
mod handle;
mod log;
mod times;

use std::sync::Arc;
use std::time::Duration;

use longshore_pool::Refusal;
use longshore_pool::runtime::Shell;
use longshore_queue::Queue;
use longshore_types::{ContainerUuid, Explanation, IdleBehavior, InstanceId, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::{Config, EntryView, InstanceEntry, Notice, Place};
use event_loop::EventLoop;
pub use handle::{Handle, OutputError};
pub use times::{Measured, Summary};

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
    Entry(ContainerUuid, oneshot::Sender<Shown<Option<EntryView>>>),
    Entries(oneshot::Sender<Shown<Vec<EntryView>>>),
    Instances(oneshot::Sender<Shown<Vec<InstanceEntry>>>),
    Place(ContainerUuid, oneshot::Sender<Option<Place>>),
    Measure(oneshot::Sender<Measured>),
    WindDown,
    Stop(Duration),
}

/// Something that was shown, and the moment of the core's clock at which it was so.
type Shown<T> = (T, Instant);

/// A dispatcher that runs in the background. Dropping it stops it abruptly.
///
/// Others talk to it through its [`Handle`], to which this dereferences.
#[derive(Debug)]
pub struct Dispatcher {
    messages: mpsc::Sender<Message>,
    handle: Handle,
    task: JoinHandle<Stopped>,
}

impl std::ops::Deref for Dispatcher {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
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
        let handle = Handle::new(messages.downgrade(), snapshots, parts.shell.clone());
        let event_loop = EventLoop::new(config, parts, seed, inbox, publisher);
        Self {
            messages,
            handle,
            task: tokio::spawn(event_loop.run()),
        }
    }

    /// What others talk to it with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Begins nothing new and gives every instance back once nothing is left on it. Returns at
    /// once; [`Snapshot::wound_down`](crate::Snapshot::wound_down) says when it is done.
    pub async fn wind_down(&self) -> Result<(), Ended> {
        self.messages
            .send(Message::WindDown)
            .await
            .map_err(|_| Ended)
    }

    /// Returns once the dispatcher has ended. Until [`Dispatcher::stop`] it never should: by itself
    /// it ends only by a bug, and then nobody looks after what runs. Safe to drop at any await.
    pub async fn ended(&self) {
        self.messages.closed().await;
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
}
