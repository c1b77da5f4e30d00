//! Provider calls on threads of their own, so that a driver that blocks stalls nobody.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, ConsoleOutput, CreateRequest, ErrorKind, Extensions,
    Instance, InstanceResults, InstanceSet, Operation, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::text::one_line;

/// The most calls of one kind that may have been given up and not returned.
const MAX_STUCK: usize = 8;
/// How long a kind of call with so many stuck ones is left alone at a time.
const STUCK_PAUSE: Duration = Duration::from_secs(10);
/// The most calls of one kind that run; further ones wait.
const MAX_RUNNING: usize = 64;
/// The part of its time that a call may wait for its place: what is made with less is answered too
/// late, and nobody knows what it did.
const WAITING_PART: f64 = 0.9;
/// How long the end of an instance set is waited for.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// An instance set each of whose calls runs on a thread of its own.
///
/// A driver should neither block nor panic. One that does harms only the call:
///
/// - a call that **blocks** its thread costs that thread; it is given up at its deadline
///   ([`CallContext::timeout`]), as [`ErrorKind::TimedOut`]: nobody knows what it did. The end of
///   the set is waited for ten seconds.
///   Once eight calls of a kind (create, list, destroy, set tags, verify host key) were given up
///   and have not returned, further ones of that kind are refused at once, as
///   [`ErrorKind::RateLimited`], until one returns;
/// - a call that **panics** fails with [`ErrorKind::Other`] and the text of the panic: nobody
///   knows what it did;
/// - at most 64 calls of a kind run at a time; further ones wait, and are refused as
///   [`ErrorKind::RateLimited`], which means that they were not made, when nine tenths of their time
///   are over;
/// - a call that waits for ever without blocking is dropped at the deadline, and its thread ends.
///
/// [`Pool`](super::Pool) wraps what it is given in one. It needs a tokio runtime, whose context
/// the calls have. Do not use it on a paused clock: tokio does not see that a thread is at work,
/// and lets the deadline pass.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/stub.rs"));
/// use longshore_pool::runtime::Isolated;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cloud = Isolated::new(Arc::new(Stub::default()));
/// assert!(cloud.list(&CallContext::example(), &Tags::new()).await?.is_empty());
/// assert_eq!(cloud.to_string(), "Isolated(Stub)");
/// assert!(cloud.stuck().is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Isolated {
    inner: Arc<dyn InstanceSet>,
    name: Arc<str>,
    lanes: Arc<Lanes>,
}

/// A kind of call of which so many are stuck that further ones are refused.
///
/// No example: it is what [`Isolated::stuck`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stuck {
    /// Which.
    pub operation: Operation,
    /// How many were given up and have not returned.
    pub calls: usize,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, calls } = self;
        write!(
            f,
            "{calls} provider calls ({operation}) do not return; no more are made until one does"
        )
    }
}

#[derive(Default)]
struct Lanes {
    create: Arc<Lane>,
    list: Arc<Lane>,
    destroy: Arc<Lane>,
    set_tags: Arc<Lane>,
    verify: Arc<Lane>,
    console: Arc<Lane>,
    /// Questions at the start, and the end.
    other: Arc<Lane>,
}

/// The calls of one kind.
struct Lane {
    places: Arc<Semaphore>,
    /// Calls that were given up and have not returned.
    stuck: AtomicUsize,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_RUNNING)),
            stuck: AtomicUsize::new(0),
        }
    }
}

impl Isolated {
    /// Puts each call of `inner` on a thread of its own.
    pub fn new(inner: Arc<dyn InstanceSet>) -> Self {
        let name = catch_unwind(AssertUnwindSafe(|| one_line(&inner.to_string())));
        Self {
            inner,
            name: name.unwrap_or_else(|_| "?".into()).into(),
            lanes: Arc::default(),
        }
    }

    /// The kinds of calls that are refused at the moment because so many of them are stuck.
    pub fn stuck(&self) -> Vec<Stuck> {
        let lanes = &self.lanes;
        let kinds = [
            (Operation::Create, &lanes.create),
            (Operation::List, &lanes.list),
            (Operation::Destroy, &lanes.destroy),
            (Operation::SetTags, &lanes.set_tags),
            (Operation::VerifyHostKey, &lanes.verify),
        ];
        kinds
            .into_iter()
            .map(|(operation, lane)| Stuck {
                operation,
                calls: lane.stuck.load(Ordering::Acquire),
            })
            .filter(|stuck| stuck.calls >= MAX_STUCK)
            .collect()
    }

    /// Asks something that should be answered at once, on a thread of its own.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce(&dyn InstanceSet) -> T + Send + 'static,
    ) -> Result<T, String> {
        let inner = self.inner.clone();
        let call = run_for(timeout, &self.lanes.other, async move { question(&*inner) });
        call.await.map_err(|failed| failed.to_string())
    }
}

#[async_trait]
impl InstanceSet for Isolated {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        let (inner, context, request) = (self.inner.clone(), context.clone(), request.clone());
        let timeout = context.timeout;
        let call = run_for(timeout, &self.lanes.create, async move {
            inner.create(&context, &request).await
        });
        call.await
            .unwrap_or_else(|failed| Err(failed.error(Operation::Create)))
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        let (inner, context, tags) = (self.inner.clone(), context.clone(), tags.clone());
        let timeout = context.timeout;
        let call = run_for(timeout, &self.lanes.list, async move {
            inner.list(&context, &tags).await
        });
        call.await
            .unwrap_or_else(|failed| Err(failed.error(Operation::List)))
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        let (inner, context, asked) = (self.inner.clone(), context.clone(), ids.to_vec());
        let timeout = context.timeout;
        let call = run_for(timeout, &self.lanes.destroy, async move {
            inner.destroy(&context, &asked).await
        });
        call.await.unwrap_or_else(|failed| {
            let error = |id: &InstanceId| (id.clone(), Err(failed.error(Operation::Destroy)));
            ids.iter().map(error).collect()
        })
    }

    async fn set_tags(
        &self,
        context: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults {
        let (inner, context, asked) = (self.inner.clone(), context.clone(), changes.to_vec());
        let timeout = context.timeout;
        let call = run_for(timeout, &self.lanes.set_tags, async move {
            inner.set_tags(&context, &asked).await
        });
        call.await.unwrap_or_else(|failed| {
            let error = |id: &InstanceId| (id.clone(), Err(failed.error(Operation::SetTags)));
            changes.iter().map(|(id, _)| error(id)).collect()
        })
    }

    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        let (inner, context) = (self.inner.clone(), context.clone());
        let (id, key) = (id.clone(), key.clone());
        let timeout = context.timeout;
        let call = run_for(timeout, &self.lanes.verify, async move {
            inner.verify_host_key(&context, &id, &key).await
        });
        call.await
            .unwrap_or_else(|failed| Err(failed.error(Operation::VerifyHostKey)))
    }

    fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
        self.inner.quota_group(instance_type)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn extensions(&self) -> Extensions<'_> {
        let inner = self.inner.extensions();
        let mut own = inner;
        own.console_output = inner.console_output.map(|_| self as &dyn ConsoleOutput);
        own
    }

    async fn stop(&self) {
        let inner = self.inner.clone();
        let end = async move { inner.stop().await };
        // Whatever goes wrong, it is the end.
        let _ = run_for(STOP_TIMEOUT, &self.lanes.other, end).await;
    }
}

#[async_trait]
impl ConsoleOutput for Isolated {
    async fn console_output(
        &self,
        context: &CallContext,
        id: &InstanceId,
        limit: usize,
    ) -> Result<Vec<u8>, CloudError> {
        let (inner, context, id) = (self.inner.clone(), context.clone(), id.clone());
        let timeout = context.timeout;
        let call = run_for(timeout, &self.lanes.console, async move {
            match inner.extensions().console_output {
                Some(console) => console.console_output(&context, &id, limit).await,
                None => Ok(Vec::new()),
            }
        });
        call.await
            .unwrap_or_else(|failed| Err(failed.error(Operation::Other)))
    }
}

impl fmt::Display for Isolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isolated({})", self.name)
    }
}

impl fmt::Debug for Isolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolated")
            .field("name", &self.name)
            .field("stuck", &self.stuck())
            .finish_non_exhaustive()
    }
}

/// Why a call has no result of its own.
#[derive(Clone, Debug, thiserror::Error)]
enum Failed {
    #[error("the driver panicked: {0}")]
    Panicked(String),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{0} calls before it do not return; it was not made")]
    Stuck(usize),
    #[error("{MAX_RUNNING} calls before it took until {0:?} were nearly over; it was not made")]
    NoPlace(Duration),
    #[error("no thread could be started: {0}; it was not made")]
    NoThread(String),
}

impl Failed {
    fn error(&self, operation: Operation) -> CloudError {
        let kind = match self {
            Self::Panicked(_) => ErrorKind::Other,
            Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::Stuck(_) | Self::NoThread(_) => ErrorKind::RateLimited {
                retry_after: Some(STUCK_PAUSE),
            },
            Self::NoPlace(_) => ErrorKind::RateLimited { retry_after: None },
        };
        CloudError::new(operation, "isolated", kind, self.clone())
    }
}

/// Like [`run`], for so long at most.
async fn run_for<T: Send + 'static>(
    timeout: Duration,
    lane: &Arc<Lane>,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, Failed> {
    let began = Instant::now();
    let stuck = lane.stuck.load(Ordering::Acquire);
    if stuck >= MAX_STUCK {
        return Err(Failed::Stuck(stuck));
    }
    let waiting = lane.places.clone().acquire_owned();
    let place = tokio::time::timeout(timeout.mul_f64(WAITING_PART), waiting)
        .await
        .map_err(|_| Failed::NoPlace(timeout))?
        // Never closed, so never an error.
        .ok();
    let left = timeout.saturating_sub(began.elapsed());
    let call = tokio::time::timeout(left, run(lane, place, future));
    call.await.unwrap_or(Err(Failed::TimedOut(timeout)))
}

/// Polls a future to its end on a thread of its own; gives it up when dropped.
async fn run<T: Send + 'static>(
    lane: &Arc<Lane>,
    place: Option<OwnedSemaphorePermit>,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, Failed> {
    let call = Arc::new(Call::new(lane.clone()));
    let (reply, result) = oneshot::channel();
    let on_thread = {
        let (call, runtime) = (call.clone(), Handle::current());
        move || {
            let _context = runtime.enter();
            let outcome = call.drive(Box::pin(future));
            drop(place);
            call.ended();
            if let Some(outcome) = outcome {
                let _ = reply.send(outcome);
            }
        }
    };
    let builder = thread::Builder::new().name("longshore-cloud".into());
    let thread = match builder.spawn(on_thread) {
        Ok(handle) => handle.thread().clone(),
        Err(error) => return Err(Failed::NoThread(error.to_string())),
    };
    let _guard = GiveUp { call, thread };
    match result.await {
        Ok(outcome) => outcome.map_err(Failed::Panicked),
        // Only a call that was given up, or a panic past everything, has no outcome.
        Err(_) => Err(Failed::Panicked("its thread ended".into())),
    }
}

/// A call under way.
struct Call {
    lane: Arc<Lane>,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    GivenUp,
    Ended,
}

impl Call {
    fn new(lane: Arc<Lane>) -> Self {
        let stage = Mutex::new(Stage::Running);
        Self { lane, stage }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self) {
        let mut stage = self.stage();
        if *stage == Stage::Running {
            *stage = Stage::GivenUp;
            self.lane.stuck.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn ended(&self) {
        let mut stage = self.stage();
        if *stage == Stage::GivenUp {
            self.lane.stuck.fetch_sub(1, Ordering::AcqRel);
        }
        *stage = Stage::Ended;
    }

    /// Polls to the end, or until the call is given up, which gives nothing. A panic is its text.
    fn drive<T>(
        &self,
        future: Pin<Box<dyn Future<Output = T> + Send>>,
    ) -> Option<Result<T, String>> {
        let alarm = Arc::new(Alarm {
            thread: thread::current(),
            rang: AtomicBool::new(false),
        });
        let waker = Waker::from(alarm.clone());
        let mut context = Context::from_waker(&waker);
        // Dropped within the net, too: what a call leaves behind may panic once more.
        let mut future = Some(future);
        let outcome = loop {
            let poll = || {
                future
                    .as_mut()
                    .map(|future| future.as_mut().poll(&mut context))
            };
            match catch_unwind(AssertUnwindSafe(poll)) {
                Ok(Some(Poll::Ready(value))) => break Some(Ok(value)),
                Ok(_) => {}
                Err(panic) => break Some(Err(panic_text(&*panic))),
            }
            while !alarm.rang.swap(false, Ordering::AcqRel) && *self.stage() == Stage::Running {
                thread::park();
            }
            if *self.stage() != Stage::Running {
                break None;
            }
        };
        let _ = catch_unwind(AssertUnwindSafe(|| future.take()));
        outcome
    }
}

/// Wakes the thread of a call.
struct Alarm {
    thread: Thread,
    rang: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Gives a call up when its caller does.
struct GiveUp {
    call: Arc<Call>,
    thread: Thread,
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.call.give_up();
        self.thread.unpark();
    }
}

/// What a panic said, as one line.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    one_line(text.unwrap_or("no text"))
}
