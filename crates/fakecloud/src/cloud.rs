//! The cloud itself: calls in, replies out, time passes.

mod asks;
mod batch;
mod calls;
mod create;
mod fleet;
mod life;
mod limits;
mod list;
mod plan;
mod rules;
mod script;
mod witness;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use longshore_cloud::{CloudError, ErrorKind};
use longshore_types::{InstanceId, Instant};

use self::fleet::Fleet;
use self::limits::Buckets;
use self::plan::Weather;
use self::rules::{Fate, Rules};
use self::witness::Witness;
use crate::random::Random;
use crate::{Call, CallId, CallKind, Happening, HeldId, Reply, Settings};

/// An in-memory cloud: a pure state machine. See the [crate's documentation](crate) for how to
/// drive it; [`FakeCloud`](crate::FakeCloud) does.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::CreateRequest;
/// use longshore_fakecloud::{Call, Cloud, Reply, Settings};
/// use longshore_types::Instant;
/// let mut cloud = Cloud::new(Settings::default(), 7);
/// let timeout = Duration::from_secs(10);
/// cloud.handle_call(Call::Create(CreateRequest::example()), timeout, Instant::ZERO);
/// assert!(cloud.poll_reply().is_none());
/// let mut now = Instant::ZERO;
/// let reply = loop {
///     now = cloud.poll_timeout().unwrap();
///     cloud.handle_timeout(now);
///     if let Some((_, reply)) = cloud.poll_reply() { break reply }
/// };
/// assert!(matches!(reply, Reply::Created(Ok(_))));
/// assert!(now <= Instant::ZERO + timeout);
/// ```
#[derive(Debug)]
pub struct Cloud {
    settings: Settings,
    seed: u64,
    random: Random,
    now: Instant,
    timers: BTreeMap<(Instant, u64), Timer>,
    timers_made: u64,
    calls: BTreeMap<CallId, OpenCall>,
    calls_made: u64,
    held: BTreeMap<HeldId, CallId>,
    held_made: u64,
    replies: VecDeque<(CallId, Reply)>,
    fleet: Fleet,
    buckets: Buckets,
    rules: Rules,
    weather: Weather,
    witness: Witness,
}

/// What happens at a moment.
#[derive(Clone, Debug)]
enum Timer {
    /// A call acts.
    Act(CallId),
    /// A call's reply arrives.
    Arrive(CallId),
    /// A caller gives up.
    GiveUp(CallId),
    /// Something happens to an instance.
    Live(u64, life::Step),
    /// An episode of a plan begins or ends.
    Weather(u64),
}

/// A call between its beginning and its end.
#[derive(Debug)]
struct OpenCall {
    kind: CallKind,
    /// What it names, for the reply if there is none from the provider.
    ids: Vec<InstanceId>,
    /// Of a create.
    token: Option<String>,
    /// Taken when it acts.
    call: Option<Call>,
    fate: Fate,
    /// Made when it acted.
    reply: Option<Reply>,
    /// From acting to the reply.
    after: Duration,
    deadline: Instant,
    /// The timer of the deadline.
    give_up: (Instant, u64),
    /// When it next moves by itself; none if it is held or lost.
    next: Option<Instant>,
    /// Whether nobody waits for the reply any more.
    abandoned: bool,
    held: Option<HeldId>,
}

/// Why the provider does not do something: a kind, and its own words.
#[derive(Clone, Debug)]
struct Refusal {
    kind: ErrorKind,
    words: String,
}

impl Refusal {
    fn new(kind: ErrorKind, words: impl Into<String>) -> Self {
        let words = words.into();
        Self { kind, words }
    }
}

impl Cloud {
    /// An empty cloud; everything random in it comes from `seed`.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut cloud = Self {
            buckets: Buckets::default(),
            settings,
            seed,
            random: Random::new(seed),
            now: Instant::ZERO,
            timers: BTreeMap::new(),
            timers_made: 0,
            calls: BTreeMap::new(),
            calls_made: 0,
            held: BTreeMap::new(),
            held_made: 0,
            replies: VecDeque::new(),
            fleet: Fleet::default(),
            rules: Rules::default(),
            weather: Weather::default(),
            witness: Witness::default(),
        };
        cloud.begin_plan();
        cloud
    }

    /// How it behaves.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A call begins. Its reply comes from [`Cloud::poll_reply`], exactly one, at `now + timeout`
    /// at the latest; what it does it may do later than that.
    pub fn handle_call(&mut self, call: Call, timeout: Duration, now: Instant) -> CallId {
        self.handle_timeout(now);
        self.calls_made += 1;
        let id = CallId(self.calls_made);
        let (kind, ids) = (call.kind(), call.ids());
        self.count_mut(kind).begun += 1;
        self.note(Happening::CallBegan(id, kind));
        if self.calls.len() >= self.settings.calls_max {
            let refusal = Refusal::new(
                ErrorKind::RateLimited { retry_after: None },
                "too many calls at a time",
            );
            self.reply(
                id,
                kind,
                Reply::failed(kind, &ids, || self.error(kind, &refusal)),
            );
            return id;
        }
        let fate = self.draw_fate(id, &call);
        let latency = self.settings.latency_of(kind);
        let before = self.random.duration(&latency.before);
        let after = self.random.duration(&latency.after);
        let acts = self.now + before.saturating_add(fate.delay_before);
        let deadline = self.now + timeout;
        let (lost, hold) = (fate.lose_request, fate.hold_request);
        // Set before the deadline, so that it comes first if both are at the same moment.
        let next = (!lost && !hold).then(|| self.set_timer(acts, Timer::Act(id)).0);
        let token = match &call {
            Call::Create(request) => Some(request.token.clone()),
            _ => None,
        };
        let open = OpenCall {
            kind,
            ids,
            token,
            call: Some(call),
            after: after.saturating_add(fate.delay_after),
            fate,
            reply: None,
            deadline,
            give_up: self.set_timer(deadline, Timer::GiveUp(id)),
            next,
            abandoned: false,
            held: None,
        };
        self.calls.insert(id, open);
        if hold && !lost {
            self.hold(id);
        }
        self.handle_timeout(self.now);
        id
    }

    /// Nobody waits for the reply of a call any more: there will be none. The call acts all the
    /// same.
    pub fn cancel(&mut self, id: CallId, now: Instant) {
        self.handle_timeout(now);
        self.replies.retain(|(replied, _)| *replied != id);
        let open = self.calls.get(&id).filter(|open| !open.abandoned);
        if let Some(kind) = open.map(|open| open.kind) {
            self.count_mut(kind).cancelled += 1;
            self.note(Happening::CallCancelled(id));
            self.abandon(id);
        }
    }

    /// The next reply, if there is one.
    pub fn poll_reply(&mut self) -> Option<(CallId, Reply)> {
        self.replies.pop_front()
    }

    /// When [`Cloud::handle_timeout`] is to be called next, if no call comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    /// Everything that is due until `now` happens, each at its own moment. Early, late and
    /// needless calls do no harm; a `now` before an earlier one counts as that.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((at, _), timer) = entry.remove_entry();
            self.now = self.now.max(at);
            match timer {
                Timer::Act(id) => self.act(id),
                Timer::Arrive(id) => self.arrive(id),
                Timer::GiveUp(id) => self.give_up(id),
                Timer::Live(serial, step) => self.live(serial, step),
                Timer::Weather(plan) => self.change_weather(plan, now),
            }
        }
        self.now = self.now.max(now);
    }

    /// When a call next moves by itself or times out; none once it has ended.
    pub fn call_due(&self, id: CallId) -> Option<Instant> {
        let open = self.calls.get(&id).filter(|open| !open.abandoned)?;
        Some(open.next.map_or(open.deadline, |at| at.min(open.deadline)))
    }

    fn set_timer(&mut self, at: Instant, timer: Timer) -> (Instant, u64) {
        self.timers_made += 1;
        let key = (at, self.timers_made);
        self.timers.insert(key, timer);
        key
    }

    fn schedule_call(&mut self, id: CallId, at: Instant, timer: Timer) {
        if let Some(open) = self.calls.get_mut(&id) {
            open.next = Some(at);
            self.set_timer(at, timer);
        }
    }

    fn error(&self, kind: CallKind, refusal: &Refusal) -> CloudError {
        CloudError::new(
            kind.operation(),
            self.settings.name,
            refusal.kind.clone(),
            refusal.words.clone(),
        )
    }
}
