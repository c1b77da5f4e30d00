//! The cloud itself: calls in, replies out, time passes.

mod asks;
mod batch;
mod create;
mod life;
mod limits;
mod list;
mod rules;
mod script;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use longshore_cloud::{CloudError, ErrorKind};
use longshore_types::{InstanceId, Instant};

use self::life::Fleet;
use self::limits::Buckets;
use self::rules::{Fate, Rules};
use crate::random::Random;
use crate::{Call, CallId, CallKind, HeldId, Reply, Settings};

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
        Self {
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
        }
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
        if self.calls.len() >= self.settings.calls_max {
            let refusal = Refusal::new(
                ErrorKind::RateLimited { retry_after: None },
                "too many calls at a time",
            );
            self.reply(id, Reply::failed(kind, &ids, || self.error(kind, &refusal)));
            return id;
        }
        let fate = self.draw_fate(&call);
        let latency = self.settings.latency_of(kind);
        let before = self.random.duration(&latency.before);
        let after = self.random.duration(&latency.after);
        let acts = self.now + before.saturating_add(fate.delay_before);
        let deadline = self.now + timeout;
        let (lost, hold) = (fate.lose_request, fate.hold_request);
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
            next: None,
            abandoned: false,
            held: None,
        };
        self.calls.insert(id, open);
        if hold && !lost {
            self.hold(id);
        } else if !lost {
            self.schedule_call(id, acts, Timer::Act(id));
        }
        self.set_timer(deadline, Timer::GiveUp(id));
        self.handle_timeout(self.now);
        id
    }

    /// Nobody waits for the reply of a call any more: there will be none. The call acts all the
    /// same.
    pub fn cancel(&mut self, id: CallId, now: Instant) {
        self.handle_timeout(now);
        self.replies.retain(|(replied, _)| *replied != id);
        self.abandon(id);
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
            }
        }
        self.now = self.now.max(now);
    }

    /// When a call next moves by itself or times out; none once it has ended.
    pub fn call_due(&self, id: CallId) -> Option<Instant> {
        let open = self.calls.get(&id).filter(|open| !open.abandoned)?;
        Some(open.next.map_or(open.deadline, |at| at.min(open.deadline)))
    }

    fn set_timer(&mut self, at: Instant, timer: Timer) {
        self.timers_made += 1;
        self.timers.insert((at, self.timers_made), timer);
    }

    fn schedule_call(&mut self, id: CallId, at: Instant, timer: Timer) {
        if let Some(open) = self.calls.get_mut(&id) {
            open.next = Some(at);
            self.set_timer(at, timer);
        }
    }

    fn reply(&mut self, id: CallId, reply: Reply) {
        self.replies.push_back((id, reply));
    }

    fn error(&self, kind: CallKind, refusal: &Refusal) -> CloudError {
        CloudError::new(
            kind.operation(),
            self.settings.name,
            refusal.kind.clone(),
            refusal.words.clone(),
        )
    }

    /// The first of the two moments of a call.
    fn act(&mut self, id: CallId) {
        let Some((kind, call, fate, abandoned)) = self.calls.get_mut(&id).and_then(|open| {
            open.next = None;
            let call = open.call.take()?;
            Some((open.kind, call, open.fate.clone(), open.abandoned))
        }) else {
            return;
        };
        let (reply, pages) = self.perform(kind, call, &fate);
        if abandoned {
            self.calls.remove(&id);
            return;
        }
        let mut after = self
            .calls
            .get(&id)
            .map_or(Duration::ZERO, |open| open.after);
        for _ in 1..pages {
            let page = self.settings.latency_of(kind).after;
            after = after.saturating_add(self.random.duration(&page));
        }
        if let Some(open) = self.calls.get_mut(&id) {
            open.reply = Some(reply);
            open.after = after;
        }
        if fate.hold_reply {
            self.hold(id);
        } else if !fate.lose_reply {
            self.send_reply(id);
        }
    }

    /// The reply of a call that has acted leaves.
    fn send_reply(&mut self, id: CallId) {
        match self.calls.get(&id).map(|open| open.after) {
            Some(Duration::ZERO) => self.arrive(id),
            Some(after) => self.schedule_call(id, self.now + after, Timer::Arrive(id)),
            None => {}
        }
    }

    /// The second of the two moments of a call.
    fn arrive(&mut self, id: CallId) {
        let reply = self.calls.get_mut(&id).and_then(|open| open.reply.take());
        if let Some(reply) = reply {
            self.calls.remove(&id);
            self.reply(id, reply);
        }
    }

    /// The caller has waited long enough.
    fn give_up(&mut self, id: CallId) {
        let Some(open) = self.calls.get(&id).filter(|open| !open.abandoned) else {
            return;
        };
        let refusal = Refusal::new(ErrorKind::TimedOut, "no answer in time");
        let failed = Reply::failed(open.kind, &open.ids, || self.error(open.kind, &refusal));
        self.reply(id, failed);
        self.abandon(id);
    }

    /// Forgets a call, unless it has yet to act.
    fn abandon(&mut self, id: CallId) {
        let Some(open) = self.calls.get_mut(&id) else {
            return;
        };
        open.abandoned = true;
        let will_act = open.call.is_some() && !open.fate.lose_request;
        if !will_act && let Some(open) = self.calls.remove(&id) {
            open.held.and_then(|held| self.held.remove(&held));
        }
    }

    fn perform(&mut self, kind: CallKind, call: Call, fate: &Fate) -> (Reply, u64) {
        let ids = call.ids();
        if let Err(refusal) = self.admit(kind, fate) {
            return (Reply::failed(kind, &ids, || self.error(kind, &refusal)), 1);
        }
        let error = |cloud: &Self, refusal: Refusal| cloud.error(kind, &refusal);
        let mut pages = 1;
        let reply = match call {
            Call::Create(request) => {
                Reply::Created(self.create(&request, fate).map_err(|r| error(self, r)))
            }
            Call::List(tags) => {
                let listed = self.list(&tags, fate);
                pages = listed.1;
                Reply::Listed(listed.0.map_err(|r| error(self, r)))
            }
            Call::Destroy(ids) => Reply::Destroyed(self.destroy(&ids, fate)),
            Call::SetTags(changes) => Reply::Tagged(self.set_tags(changes, fate)),
            Call::VerifyHostKey(id, key) => {
                Reply::HostKey(self.verify(&id, &key).map_err(|r| error(self, r)))
            }
            Call::Console(id, limit) => {
                Reply::Console(self.console(&id, limit).map_err(|r| error(self, r)))
            }
            Call::Prices(id, span) => {
                Reply::Prices(self.prices(&id, span).map_err(|r| error(self, r)))
            }
            Call::Interruptions => Reply::Interruptions(Ok(self.interruptions())),
        };
        if let Some(kind_of_error) = &fate.fail_after {
            let refusal = Refusal::new(kind_of_error.clone(), "an error after it was done");
            return (
                Reply::failed(kind, &ids, || self.error(kind, &refusal)),
                pages,
            );
        }
        (reply, pages)
    }

    /// What the provider checks before it looks at what a call wants.
    fn admit(&mut self, kind: CallKind, fate: &Fate) -> Result<(), Refusal> {
        if let Some(refused) = &fate.refuse {
            return Err(Refusal::new(refused.clone(), "refused by a rule"));
        }
        if self.settings.denied.contains(&kind) {
            return Err(Refusal::new(ErrorKind::Denied, "not allowed"));
        }
        let offered = match kind {
            CallKind::Console | CallKind::Prices | CallKind::Interruptions => {
                self.settings.extensions.contains(&kind)
            }
            _ => true,
        };
        if !offered {
            return Err(Refusal::new(ErrorKind::Unsupported, "no such call"));
        }
        self.take_token(kind)
    }
}
