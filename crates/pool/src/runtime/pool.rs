//! The handle of a running pool.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_cloud::InstanceSet;
use longshore_exec::Executor;
use longshore_types::{
    Attempt, ContainerUuid, Exit, IdleBehavior, InstanceId, InstanceType, Instant, PendingView,
    Resources, TypeName,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::builder::PoolBuilder;
use super::event_loop::Message;
use super::events::Events;
use super::random_uuid;
use super::run::{NotReady, Run, RunError};
use super::shutdown::{Ending, Shutdown};
use super::waiting::{Waiter, Want};
use crate::core::Core;
use crate::event::Event;
use crate::refusal::Refusal;
use crate::start::StartRequest;
use crate::view::Snapshot;

/// A worker pool that runs in the background, as one task that owns the [`Core`].
///
/// Cheap to clone; every clone is the same pool. The module's documentation has a whole program;
/// here are the other verbs:
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/stub.rs"));
/// use longshore_pool::StartRequest;
/// use longshore_pool::runtime::{Pool, random_uuid};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
/// # let (cloud, hosts) = (Arc::new(Stub::default()), Arc::new(Hosts::default()));
/// # let pool = Pool::builder("doc", vec![small], cloud, hosts).protocol(Arc::new(Plain))
/// #     .auto_acknowledge(false)
/// #     .configure(|config| config.probe_interval = Duration::from_millis(10))
/// #     .start().await?;
/// assert!(pool.wait_until_known(Duration::from_secs(60)).await);
/// pool.create(&"small".into()).await?;
/// let instance = pool.ready(&"small".into(), Duration::from_secs(60)).await?;
/// let uuid = random_uuid()?;
/// let request = StartRequest {
///     instance: instance.clone(),
///     uuid,
///     attempt: Attempt(1),
///     resources: Resources::NONE,
///     document: b"payload".to_vec().into(),
/// };
/// pool.start(request).await?;
/// pool.grant(uuid, &instance, Resources::NONE).await?;
/// // It may have ended already; then there is nothing to kill.
/// let _ = pool.kill(uuid, &instance, "not wanted any more").await;
/// let has_ended = |held: &HeldContainer| !held.phase.may_run();
/// pool.snapshots()
///     .wait_for(|s| s.workers.iter().any(|w| w.containers.iter().any(has_ended)))
///     .await?;
/// pool.acknowledge(uuid, Attempt(1)).await?;
/// assert!(pool.give_back(&"i-unknown".into()).await.is_err());
/// pool.shut_down(&instance, "it is not needed").await?;
/// # Ok(()) }
/// ```
///
/// **Dropping.** Any future of these methods may be dropped at any await: what was asked for is
/// then either not done, or done without anybody waiting for it. When the last clone is dropped,
/// the pool ends like [`Pool::shutdown`] with [`Ending::Keep`] and five seconds: instances and
/// what runs on them stay, and a later pool of the same instance set ID takes them over. Dropping
/// the tokio runtime ends it at once, with the same effect as the death of the process.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) events: broadcast::WeakSender<Event>,
    /// Has heard everything since the start, until somebody wants to read it.
    pub(super) first: Arc<Mutex<Option<broadcast::Receiver<Event>>>>,
    pub(super) ended: watch::Receiver<Option<Shutdown>>,
}

/// Why a verb of a [`Pool`] was not carried out.
///
/// ```
/// use longshore_pool::{Refusal, runtime::PoolError};
/// let error = PoolError::from(Refusal::MaxInstances { limit: 64 });
/// assert!(error.to_string().starts_with("the limit of 64 instances is reached"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The pool refused it; nothing was done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The pool has ended, or is ending; nothing was done.
    #[error("the pool has ended")]
    Ended,
}

impl Pool {
    /// Begins to describe a pool.
    ///
    /// `instance_set_id` is the value of the tag by which the pool knows its instances. A pool
    /// takes over **every** instance with this value that `instance_set` lists, and shuts it down
    /// when it is idle: give each service one of its own, and each service only one pool at a
    /// time. `types` are what may be created; `executor` reaches the instances.
    pub fn builder(
        instance_set_id: impl Into<String>,
        types: Vec<InstanceType>,
        instance_set: Arc<dyn InstanceSet>,
        executor: Arc<dyn Executor>,
    ) -> PoolBuilder {
        PoolBuilder::new(instance_set_id.into(), types, instance_set, executor)
    }

    /// Waits until a worker of a type has nothing on it and can take something, and names it. One
    /// is created if none is there or on its way, as far as limits and hold-offs permit.
    ///
    /// Several callers that wait at the same time get different workers. Nothing is reserved after
    /// that: a worker without work is shut down after [`Config::timeout_idle`](crate::Config).
    pub async fn ready(
        &self,
        type_name: &TypeName,
        timeout: Duration,
    ) -> Result<InstanceId, NotReady> {
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(type_name.clone(), None, timeout, Want::Ready(reply));
        let sent = self.messages.send(Message::Wait(Box::new(waiter))).await;
        sent.map_err(|_| NotReady::Ended)?;
        answer.await.unwrap_or(Err(NotReady::Ended))
    }

    /// Runs one payload to its end on a worker of a type, creating one if need be.
    ///
    /// The result is how it ended, also if its worker was lost: see [`Exit::cause`]. Nothing is
    /// repeated. If this future is dropped while it waits for a worker, nothing is started; after
    /// that the payload goes on, and [`Pool::events`] and [`Pool::snapshot`] tell of it.
    pub async fn run(&self, run: Run) -> Result<Exit, RunError> {
        let is_named = run.uuid.is_some();
        let uuid = match run.uuid {
            Some(uuid) => uuid,
            None => random_uuid().map_err(|error| RunError::NoUuid {
                error: error.to_string(),
            })?,
        };
        let (reply, answer) = oneshot::channel();
        let want = Want::Run {
            uuid,
            attempt: run.attempt,
            is_named,
            document: run.document,
            reply,
        };
        let waiter = Waiter::new(run.type_name, run.resources, run.timeout, want);
        let sent = self.messages.send(Message::Wait(Box::new(waiter))).await;
        sent.map_err(|_| NotReady::Ended)?;
        answer.await.unwrap_or(Err(RunError::Ended))
    }

    /// Asks for an instance of a type. It is known as pending, then as a worker:
    /// see [`Pool::snapshot`].
    pub async fn create(&self, type_name: &TypeName) -> Result<PendingView, PoolError> {
        let type_name = type_name.clone();
        self.ask(move |core, now| core.create(&type_name, now))
            .await
    }

    /// Starts an attempt on a worker: see [`Core::start`]. Its end is an [`Event`].
    pub async fn start(&self, request: StartRequest) -> Result<(), PoolError> {
        self.ask(move |core, now| core.start(request, now)).await
    }

    /// Asks what runs on a worker to end: see [`Core::kill`]. It cannot be taken back.
    ///
    /// The runner is told to send TERM, at once and again every
    /// [`Config::timeout_signal`](crate::Config). If it still runs after
    /// [`Config::timeout_term`](crate::Config), it is given up: nothing more is sent, the worker
    /// gets nothing more to do, and once nothing but what was given up is on it its instance is
    /// destroyed. That, too, is told as [`Event::Ended`] with
    /// [`ExitCause::Killed`](longshore_types::ExitCause). KILL is never sent.
    /// [`WorkerView::last_error`](longshore_types::WorkerView) says that it still runs.
    pub async fn kill(
        &self,
        uuid: ContainerUuid,
        instance: &InstanceId,
        reason: &str,
    ) -> Result<(), PoolError> {
        let (instance, reason) = (instance.clone(), reason.to_owned());
        self.ask(move |core, now| core.kill(uuid, &instance, &reason, now))
            .await
    }

    /// Lets the runner forget a result, on whichever worker holds it: see [`Core::acknowledge`].
    /// Does nothing where none does. Needed only without [`PoolBuilder::auto_acknowledge`].
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/stub.rs"));
    /// # use longshore_pool::runtime::{Pool, Run, random_uuid};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
    /// # let (cloud, hosts) = (Arc::new(Stub::default()), Arc::new(Hosts::default()));
    /// let pool = Pool::builder("doc", vec![small], cloud, hosts)
    ///     .protocol(Arc::new(Plain))
    ///     .auto_acknowledge(false)
    /// #     .configure(|config| config.probe_interval = Duration::from_millis(10))
    ///     .start()
    ///     .await?;
    /// let (uuid, attempt) = (random_uuid()?, Attempt(1));
    /// let exit = pool.run(Run::new("small", *b"work").attempt(uuid, attempt)).await?;
    /// println!("{uuid} {attempt}: {}", exit.cause); // Or write it to a database.
    /// pool.acknowledge(uuid, attempt).await?;
    /// # Ok(()) }
    /// ```
    pub async fn acknowledge(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
    ) -> Result<(), PoolError> {
        self.ask(move |core, now| {
            for instance in core.places.get(&uuid).cloned().unwrap_or_default() {
                core.acknowledge(uuid, attempt, &instance, now);
            }
            Ok(())
        })
        .await
    }

    /// Says what something that an earlier process started is granted: see [`Core::grant`].
    pub async fn grant(
        &self,
        uuid: ContainerUuid,
        instance: &InstanceId,
        resources: Resources,
    ) -> Result<(), PoolError> {
        let instance = instance.clone();
        self.ask(move |core, now| {
            core.grant(uuid, &instance, resources, now);
            Ok(())
        })
        .await
    }

    /// Sets what a worker does when it has nothing to do, and writes it to the instance's tag.
    pub async fn set_idle_behavior(
        &self,
        instance: &InstanceId,
        behavior: IdleBehavior,
    ) -> Result<(), PoolError> {
        let instance = instance.clone();
        self.ask(move |core, now| core.set_idle_behavior(&instance, behavior, now))
            .await
    }

    /// Shuts an instance down, whatever runs there.
    pub async fn shut_down(&self, instance: &InstanceId, reason: &str) -> Result<(), PoolError> {
        let (instance, reason) = (instance.clone(), reason.to_owned());
        self.ask(move |core, now| core.shut_down(&instance, &reason, now))
            .await
    }

    /// Shuts an instance down only if nothing on it would be lost.
    pub async fn give_back(&self, instance: &InstanceId) -> Result<(), PoolError> {
        let instance = instance.clone();
        self.ask(move |core, now| core.give_back(&instance, now))
            .await
    }

    /// Everything as it was when it was last published: at most 20 times a second, and, with very
    /// many workers, so seldom that publishing takes at most a tenth of the time. What a verb has
    /// just done may not be in it yet.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Wakes whoever waits when a new snapshot was published. It ends with the pool.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Waits until everything that an earlier process started is in the snapshot
    /// ([`Snapshot::is_known`]). False if it is not after `timeout`, or the pool has ended.
    ///
    /// Until then no name may be started again that an earlier process may have started.
    pub async fn wait_until_known(&self, timeout: Duration) -> bool {
        let mut snapshots = self.snapshots();
        let known = snapshots.wait_for(|snapshot| snapshot.is_known());
        matches!(tokio::time::timeout(timeout, known).await, Ok(Ok(_)))
    }

    /// What happens: for the first caller, on whichever clone, everything since the start; for
    /// later ones, what happens from now on. See [`Events`] for what becomes of those that nobody
    /// reads.
    pub fn events(&self) -> Events {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = first.take();
        Events::new(receiver.or_else(|| self.events.upgrade().map(|sender| sender.subscribe())))
    }

    /// Ends the pool, and says what it abandoned.
    ///
    /// The first call decides how; later ones wait for the same end. It takes at most `deadline`
    /// and a little. With [`Ending::Destroy`] allow for two listings
    /// ([`Config::timeout_shutdown`](crate::Config) apart) where listings are not consistent, and
    /// for [`Config::consistency_grace`](crate::Config) since the start: until then an instance of
    /// an earlier pool may not have been listed yet.
    pub async fn shutdown(&self, ending: Ending, deadline: Duration) -> Shutdown {
        // If it has ended already, it has said how.
        let _ = self.messages.send(Message::End(ending, deadline)).await;
        let mut ended = self.ended.clone();
        let last = ended.wait_for(Option::is_some).await;
        match last.as_deref() {
            Ok(Some(shutdown)) => shutdown.clone(),
            _ => Shutdown::broken("the pool's task ended without a word"),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Core, Instant) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, PoolError> {
        let (reply, answer) = oneshot::channel();
        let ask = move |core: &mut Core, now| {
            // Whoever asked may have gone; what was asked for is done all the same.
            let _ = reply.send(verb(core, now));
        };
        let sent = self.messages.send(Message::Ask(Box::new(ask))).await;
        sent.map_err(|_| PoolError::Ended)?;
        Ok(answer.await.map_err(|_| PoolError::Ended)??)
    }
}
