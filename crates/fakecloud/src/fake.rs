//! The cloud as an instance set.

mod calls;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use longshore_cloud::{Capabilities, InstanceSet as _};
use longshore_types::{InstanceId, Instant};

use crate::{
    CallId, CallKind, Clock, Cloud, Counts, FakeInstance, HeldCall, HeldId, ManualClock,
    Misfortune, Reply, Rule, RuleId, Settings,
};

/// A handle to an in-memory cloud that is an [`InstanceSet`](longshore_cloud::InstanceSet) with
/// every extension. Clones are the same cloud.
///
/// A future that is dropped gives up waiting; what it asked for is done all the same. After
/// [`stop`](longshore_cloud::InstanceSet::stop) new calls fail; [`FakeCloud::reopen`] gives a
/// handle that works, to the same instances.
///
/// ```
/// use longshore_cloud::{CallContext, CreateRequest, InstanceSet, Tags};
/// use longshore_fakecloud::{FakeCloud, Misfortune, Settings};
/// let (cloud, clock) = FakeCloud::manual(Settings::default(), 1);
/// let context = CallContext::example();
/// clock.run(async {
///     let made = cloud.create(&context, &CreateRequest::example()).await?;
///     assert_eq!(cloud.list(&context, &Tags::new()).await?[0].id, made.id);
///     Ok::<(), longshore_cloud::CloudError>(())
/// })?;
/// assert_eq!(cloud.to_string(), "Fake(fake)");
/// let id = cloud.instances()[0].id.clone();
/// assert!(cloud.strike(&id, Misfortune::Vanish) && cloud.held().is_empty());
/// assert_eq!(cloud.with(|core, now| core.total_usage(now).live), 0);
/// assert_eq!(cloud.reopen().now(), cloud.now());
/// # Ok::<(), longshore_cloud::CloudError>(())
/// ```
#[derive(Clone)]
pub struct FakeCloud {
    shared: Arc<Shared>,
    stopped: Arc<AtomicBool>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    name: &'static str,
    capabilities: Capabilities,
    quota_groups: BTreeMap<String, String>,
    extensions: BTreeSet<CallKind>,
    state: Mutex<State>,
}

struct State {
    cloud: Cloud,
    waiting: BTreeMap<CallId, Slot>,
}

/// Where a caller waits.
#[derive(Default)]
struct Slot {
    reply: Option<Reply>,
    waker: Option<Waker>,
}

impl State {
    /// Gives each reply to its caller; the callers to wake.
    fn deliver(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some((id, reply)) = self.cloud.poll_reply() {
            if let Some(slot) = self.waiting.get_mut(&id) {
                slot.reply = Some(reply);
                woken.extend(slot.waker.take());
            }
        }
        woken
    }
}

impl FakeCloud {
    /// An empty cloud on a clock; everything random in it comes from `seed`.
    pub fn new(settings: Settings, seed: u64, clock: impl Clock + 'static) -> Self {
        let shared = Shared {
            clock: Arc::new(clock),
            name: settings.name,
            capabilities: settings.capabilities.clone(),
            quota_groups: settings.quota_groups.clone(),
            extensions: settings.extensions.clone(),
            state: Mutex::new(State {
                cloud: Cloud::new(settings, seed),
                waiting: BTreeMap::new(),
            }),
        };
        Self {
            shared: Arc::new(shared),
            stopped: Arc::default(),
        }
    }

    /// An empty cloud, and the clock that it is on; see [`ManualClock::run`].
    pub fn manual(settings: Settings, seed: u64) -> (Self, ManualClock) {
        let clock = ManualClock::new();
        (Self::new(settings, seed, clock.clone()), clock)
    }

    /// An empty cloud on tokio's clock; to be called inside a runtime.
    ///
    /// ```
    /// use longshore_cloud::{CallContext, CreateRequest, InstanceSet};
    /// use longshore_fakecloud::{FakeCloud, Settings};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
    /// # .unwrap().block_on(async {
    /// let cloud = FakeCloud::tokio(Settings::default(), 1);
    /// let made = cloud.create(&CallContext::example(), &CreateRequest::example()).await;
    /// assert!(made.is_ok());
    /// # });
    /// ```
    #[cfg(feature = "tokio")]
    pub fn tokio(settings: Settings, seed: u64) -> Self {
        Self::new(settings, seed, crate::TokioClock::start())
    }

    /// Another handle to the same cloud, which works even after this one was stopped: what a
    /// process that was started again would open.
    pub fn reopen(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            stopped: Arc::default(),
        }
    }

    /// The time on the cloud's clock.
    pub fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    /// Looks at the cloud, or changes it, with the time: for scripts of tests and for what they
    /// look at afterwards. The cloud is locked meanwhile: `look` must not use this handle or its
    /// clones.
    pub fn with<T>(&self, look: impl FnOnce(&mut Cloud, Instant) -> T) -> T {
        let now = self.shared.clock.now();
        let mut state = self.state();
        state.cloud.handle_timeout(now);
        let seen = look(&mut state.cloud, now);
        let woken = state.deliver();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        seen
    }

    /// See [`Cloud::inject`].
    pub fn inject(&self, rule: Rule) -> RuleId {
        self.with(|cloud, _| cloud.inject(rule))
    }

    /// See [`Cloud::lift`].
    pub fn lift(&self, id: RuleId) -> bool {
        self.with(|cloud, _| cloud.lift(id))
    }

    /// See [`Cloud::held`].
    pub fn held(&self) -> Vec<HeldCall> {
        self.with(|cloud, _| cloud.held())
    }

    /// See [`Cloud::release`].
    pub fn release(&self, id: HeldId) -> bool {
        self.with(|cloud, now| cloud.release(id, now))
    }

    /// See [`Cloud::strike`].
    pub fn strike(&self, id: &InstanceId, misfortune: Misfortune) -> bool {
        self.with(|cloud, now| cloud.strike(id, misfortune, now))
    }

    /// A copy of [`Cloud::instances`].
    pub fn instances(&self) -> Vec<FakeInstance> {
        self.with(|cloud, _| cloud.instances().cloned().collect())
    }

    /// See [`Cloud::is_booted`].
    pub fn is_booted(&self, id: &InstanceId) -> bool {
        self.with(|cloud, now| cloud.is_booted(id, now))
    }

    /// See [`Cloud::counts`].
    pub fn counts(&self, kind: CallKind) -> Counts {
        self.with(|cloud, _| cloud.counts(kind))
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FakeCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeCloud")
            .field("name", &self.shared.name)
            .field("clock", &self.shared.clock)
            .field("capabilities", &self.capabilities())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for FakeCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fake({})", self.shared.name)
    }
}
