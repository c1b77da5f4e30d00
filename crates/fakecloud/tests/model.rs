//! Random calls at random times against a simple model, and absurd settings.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{request, tags};
use longshore_cloud::{Capabilities, CreateRequest, ErrorKind, InstanceState, Scope, Tags};
use longshore_fakecloud::{
    Call, CallId, CallKind, CapacityHole, Chance, Cloud, Episode, Fault, FaultPlan, Latency, Match,
    Misfortune, Quota, RateLimit, Reply, Rule, Settings, Spread,
};
use longshore_types::{InstanceId, Instant, Price};
use proptest::prelude::*;

/// What a test does next.
#[derive(Clone, Debug)]
enum Do {
    Create(u8),
    List(u8),
    Destroy(Vec<u8>),
    SetTags(u8, u8),
    Ask(u8),
    Cancel(u8),
    Inject(u8, u8),
    Release,
    Strike(u8, u8),
    Wait(u32),
}

fn anything() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (0..30_u8).prop_map(Do::Create),
        2 => (0..4_u8).prop_map(Do::List),
        2 => prop::collection::vec(0..30_u8, 0..4).prop_map(Do::Destroy),
        1 => (0..30_u8, 0..4_u8).prop_map(|(i, tag)| Do::SetTags(i, tag)),
        1 => (0..30_u8).prop_map(Do::Ask),
        1 => any::<u8>().prop_map(Do::Cancel),
        1 => (0..8_u8, 0..20_u8).prop_map(|(kind, fault)| Do::Inject(kind, fault)),
        1 => Just(Do::Release),
        1 => (0..30_u8, 0..9_u8).prop_map(|(i, what)| Do::Strike(i, what)),
        4 => (0..20_000_u32).prop_map(Do::Wait),
    ]
}

const QUOTA: u64 = 6;

/// Keeps what was asked, and checks what comes back.
struct World {
    cloud: Cloud,
    now: Instant,
    open: BTreeMap<CallId, (CallKind, Instant)>,
    /// Listings, and the tags that they asked for.
    listings: BTreeMap<CallId, Tags>,
    tokens: BTreeMap<CallId, String>,
    ids_by_token: BTreeMap<String, InstanceId>,
    honest: bool,
}

impl World {
    fn new(seed: u64, honest: bool) -> Self {
        let second = Duration::from_secs(1);
        let spread = |most| Spread::uniform(Duration::ZERO, second * most);
        let mut settings = Settings::instant()
            .with_latency(Latency::new(spread(4), spread(4)))
            .with_address_delay(spread(5))
            .with_boot(spread(10))
            .with_stopping(spread(5))
            .with_gone(spread(5))
            .with_quota(Quota::instances(Scope::Everything, QUOTA))
            .with_page_size(2);
        if !honest {
            settings.capabilities = Capabilities::new().with_idempotent_create();
            settings.plan = FaultPlan::wild();
            settings.listing_lag = spread(5);
        }
        Self {
            cloud: Cloud::new(settings, seed),
            now: Instant::ZERO,
            open: BTreeMap::new(),
            listings: BTreeMap::new(),
            tokens: BTreeMap::new(),
            ids_by_token: BTreeMap::new(),
            honest,
        }
    }

    fn id(n: u8) -> InstanceId {
        format!("fake-{n}").into()
    }

    fn call(&mut self, call: Call) {
        let timeout = Duration::from_secs(10);
        let kind = call.kind();
        let (tags, token) = match &call {
            Call::List(tags) => (Some(tags.clone()), None),
            Call::Create(request) => (None, Some(request.token.clone())),
            _ => (None, None),
        };
        let id = self.cloud.handle_call(call, timeout, self.now);
        self.open.insert(id, (kind, self.now + timeout));
        tags.and_then(|tags| self.listings.insert(id, tags));
        token.and_then(|token| self.tokens.insert(id, token));
    }

    fn step(&mut self, what: Do) {
        match what {
            Do::Create(n) => self.call(Call::Create(request(&format!("token-{n}")))),
            Do::List(0) => self.call(Call::List(Tags::new())),
            Do::List(n) => self.call(Call::List(tags("color", &n.to_string()))),
            Do::Destroy(ids) => self.call(Call::Destroy(ids.into_iter().map(Self::id).collect())),
            Do::SetTags(i, n) => {
                let change = (Self::id(i), tags("color", &n.to_string()));
                self.call(Call::SetTags(vec![change]));
            }
            Do::Ask(i) => {
                self.call(Call::Console(Self::id(i), 100));
                self.call(Call::Prices(Self::id(i), Duration::MAX));
                self.call(Call::Interruptions);
            }
            Do::Cancel(n) => {
                let ids: Vec<_> = self.open.keys().copied().collect();
                if let Some(id) = ids.get(usize::from(n) % ids.len().max(1)) {
                    self.cloud.cancel(*id, self.now);
                    self.open.remove(id);
                }
            }
            Do::Inject(kind, fault) => self.inject(kind, fault),
            Do::Release => {
                if let Some(held) = self.cloud.held().first() {
                    assert!(self.cloud.release(held.id, self.now));
                }
            }
            Do::Strike(i, what) if !self.honest => {
                self.cloud.strike(&Self::id(i), misfortune(what), self.now);
            }
            Do::Strike(..) => {}
            Do::Wait(ms) => self.pass(Duration::from_millis(ms.into())),
        }
        self.check();
    }

    fn inject(&mut self, kind: u8, which: u8) {
        let second = Duration::from_secs(1);
        let fault = match which {
            0 => Fault::Refuse(ErrorKind::Denied),
            1 => Fault::LoseRequest,
            2 => Fault::LoseReply,
            3 => Fault::FailAfterActing(ErrorKind::Other),
            4 => Fault::Delay {
                before: second * 8,
                after: second * 8,
            },
            5 => Fault::HoldRequest,
            6 => Fault::HoldReply,
            7 => Fault::RepeatPages,
            8 => Fault::FailAfterPages(1),
            9 => Fault::FailSome(Chance::percent(50), ErrorKind::Other),
            _ if self.honest => return,
            10 => Fault::EmptyId,
            11 => Fault::RepeatedId,
            12 => Fault::StaleListing(second * 5),
            13 => Fault::OmitSome(Chance::percent(50)),
            n => Fault::Strike {
                after: second,
                misfortune: misfortune(n - 14),
            },
        };
        let kind = CallKind::ALL[usize::from(kind)];
        self.cloud.inject(Rule::new(kind, fault).times(2));
    }

    /// Lets time pass as a good driver does, or in one leap.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while time.subsec_millis().is_multiple_of(2)
            && let Some(at) = self.cloud.poll_timeout().filter(|at| *at <= until)
        {
            assert!(at >= self.now, "time goes back");
            self.now = at;
            self.cloud.handle_timeout(at);
            self.check();
            assert!(self.cloud.poll_timeout().is_none_or(|next| next > at));
        }
        self.now = until;
        self.cloud.handle_timeout(until);
    }

    fn check(&mut self) {
        while let Some((id, reply)) = self.cloud.poll_reply() {
            let (kind, _) = self
                .open
                .remove(&id)
                .expect("one reply for each call that is open");
            assert_eq!(kind, kind_of(&reply));
            self.check_reply(id, reply);
        }
        for (kind, deadline) in self.open.values() {
            assert!(*deadline > self.now, "{kind} is overdue");
        }
        for id in self.open.keys() {
            assert!(self.cloud.call_due(*id).is_some_and(|due| due > self.now));
        }
        let counted = self.cloud.instances().filter(|i| i.gone.is_none()).count();
        let comes_back = u64::from(!self.honest) * 100;
        assert!(counted as u64 <= QUOTA + comes_back, "{counted} instances");
        let live = self.cloud.instances().filter(|i| i.is_live()).count();
        let total = self.cloud.total_usage(self.now);
        assert_eq!(total.live, live as u64);
        let known = self.cloud.instances().count() + self.cloud.past().count();
        assert_eq!(total.made, known as u64);
    }

    fn check_reply(&mut self, id: CallId, reply: Reply) {
        match reply {
            Reply::Created(Ok(made)) if self.honest => {
                let token = self.tokens.remove(&id).expect("a create has a token");
                let first = self.ids_by_token.entry(token).or_insert(made.id.clone());
                assert_eq!(*first, made.id, "one token, two instances");
            }
            Reply::Listed(Ok(listed)) => {
                let wanted = self.listings.remove(&id).expect("a listing has tags");
                assert!(listed.iter().all(|instance| instance.has_tags(&wanted)));
                let unique: BTreeSet<_> = listed.iter().map(|i| &i.id).collect();
                if wanted.is_empty() && self.honest {
                    // What changed between acting and now is at most what stops or begins.
                    assert!(unique.len() <= self.cloud.instances().count() + 30);
                }
                assert!(unique.iter().all(|id| self.cloud.instance(id).is_some()));
            }
            _ => {}
        }
    }
}

fn misfortune(n: u8) -> Misfortune {
    match n {
        0 => Misfortune::NeverBoot,
        1 => Misfortune::Vanish,
        2 => Misfortune::ChangeAddress,
        3 => Misfortune::Interrupt(None),
        4 => Misfortune::LingerStopping,
        5 => Misfortune::ComeBack(Duration::from_secs(3)),
        6 => Misfortune::LoseTags,
        7 => Misfortune::PowerOff,
        _ => Misfortune::GarbleTags,
    }
}

fn kind_of(reply: &Reply) -> CallKind {
    match reply {
        Reply::Created(_) => CallKind::Create,
        Reply::Listed(_) => CallKind::List,
        Reply::Destroyed(_) => CallKind::Destroy,
        Reply::Tagged(_) => CallKind::SetTags,
        Reply::HostKey(_) => CallKind::VerifyHostKey,
        Reply::Console(_) => CallKind::Console,
        Reply::Prices(_) => CallKind::Prices,
        Reply::Interruptions(_) => CallKind::Interruptions,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_cloud_keeps_its_word(
        seed: u64,
        honest: bool,
        steps in prop::collection::vec(anything(), 1..80),
    ) {
        let mut world = World::new(seed, honest);
        for step in steps {
            world.step(step);
        }
        world.pass(Duration::from_secs(60));
        world.check();
        prop_assert!(world.open.is_empty(), "{:?}", world.open);
    }

    #[test]
    fn an_honest_listing_shows_exactly_what_there_is(
        seed: u64,
        steps in prop::collection::vec(anything(), 1..40),
    ) {
        let mut world = World::new(seed, true);
        for step in steps {
            match step {
                Do::Inject(..) | Do::Release => {}
                step => world.step(step),
            }
        }
        world.pass(Duration::from_secs(60));
        world.check();
        world.cloud.settings_mut().latency = Latency::ZERO;
        world.cloud.handle_call(Call::List(Tags::new()), Duration::from_secs(1), world.now);
        let Some((_, Reply::Listed(Ok(listed)))) = world.cloud.poll_reply() else {
            return Err(TestCaseError::fail("no listing"));
        };
        let shown: Vec<_> = listed.iter().map(|i| (&i.id, i.state, &i.tags, &i.address)).collect();
        let truth = world.cloud.instances();
        let truth: Vec<_> = truth.map(|i| (&i.id, i.state, &i.tags, &i.address)).collect();
        prop_assert_eq!(shown, truth);
    }

    #[test]
    fn absurd_settings_and_times_never_panic(seed: u64, nanos in prop::collection::vec(any::<u64>(), 1..20)) {
        let mut cloud = Cloud::new(absurd(seed), seed);
        let mut now = Instant::ZERO;
        let (before, after) = (Duration::MAX, Duration::MAX);
        let late = Rule::new(Match::any(), Fault::Delay { before, after });
        cloud.inject(late.with_probability(Chance::percent(20)));
        for (i, nanos) in nanos.into_iter().enumerate() {
            // The times go back as well as forth.
            now = if i % 5 == 4 { Instant::FAR_FUTURE } else { Instant::from_nanos(nanos) };
            let timeout = if i % 2 == 0 { Duration::MAX } else { Duration::from_nanos(nanos) };
            let mut create = CreateRequest::example();
            create.token = String::new();
            create.instance_type.vcpus = u32::MAX;
            create.instance_type.price = Price::from_units(1e9).expect("a price");
            create.instance_type.preemptible = i % 2 == 0;
            cloud.handle_call(Call::Create(create), timeout, now);
            cloud.handle_call(Call::List(Tags::new()), timeout, now);
            let id = InstanceId::from(format!("fake-{i}"));
            cloud.handle_call(Call::Prices(id.clone(), Duration::MAX), timeout, now);
            cloud.handle_call(Call::Console(id.clone(), usize::MAX), timeout, now);
            cloud.handle_call(Call::Interruptions, timeout, now);
            cloud.strike(&id, Misfortune::Interrupt(Some(Duration::MAX)), now);
            cloud.strike(&id, Misfortune::ComeBack(Duration::MAX), now);
            cloud.handle_call(Call::Destroy(vec![id]), timeout, now);
            cloud.usage(now);
        }
        cloud.handle_timeout(Instant::FAR_FUTURE);
        let usage = cloud.total_usage(now);
        prop_assert!(usage.time() >= Duration::ZERO && usage.cost_billionths() < u128::MAX);
        prop_assert_eq!(cloud.poll_timeout(), None, "everything has happened");
    }
}

fn absurd(seed: u64) -> Settings {
    let long = Spread::long_tailed(Duration::MAX, u32::MAX);
    let wide = Spread::uniform(Duration::MAX, Duration::ZERO);
    let price = Price::from_units(1e9).expect("a price");
    let mut plan = FaultPlan::wild();
    plan.episode_every = Some(Spread::ZERO);
    plan.episode_length = Some(Spread::ZERO);
    let mut settings = Settings::instant()
        .with_latency(Latency::new(wide, long))
        .with_address_delay(long)
        .with_boot(wide)
        .with_stopping(if seed.is_multiple_of(2) {
            Spread::ZERO
        } else {
            wide
        })
        .with_gone(long)
        .with_listing_lag(long)
        .with_page_size(usize::MAX)
        .with_quota(Quota::vcpus(Scope::Everything, u64::MAX))
        .with_hole(CapacityHole::new(
            Scope::Everything,
            Instant::FAR_FUTURE,
            Instant::ZERO,
        ))
        .with_rate(CallKind::List, RateLimit::every(u32::MAX, Duration::MAX))
        .with_rate(CallKind::Interruptions, RateLimit::every(0, Duration::MAX))
        .with_rate(CallKind::Destroy, RateLimit::new(0, 0).per_id())
        .with_price("s1", Instant::FAR_FUTURE, price)
        .with_price("s1", Instant::ZERO, price);
    settings.plan = if seed.is_multiple_of(3) {
        plan
    } else {
        FaultPlan::none()
    };
    settings.capabilities = Capabilities::new();
    settings.tag_delay = long;
    settings.epoch = longshore_types::Timestamp(i64::MAX);
    settings
}

#[test]
fn a_hundred_thousand_instances_are_listed_by_looking_at_each_once() {
    let mut settings = Settings::instant();
    settings.events_max = 0;
    let mut cloud = Cloud::new(settings, 1);
    for i in 0..100_000 {
        let call = Call::Create(request(&i.to_string()));
        cloud.handle_call(call, Duration::ZERO, Instant::ZERO);
    }
    assert_eq!(std::iter::from_fn(|| cloud.poll_reply()).count(), 100_000);
    // Nothing waits for its turn, whatever the number of instances.
    assert_eq!(cloud.poll_timeout(), None);
    cloud.handle_call(Call::List(Tags::new()), Duration::ZERO, Instant::ZERO);
    let Some((_, Reply::Listed(Ok(listed)))) = cloud.poll_reply() else {
        panic!()
    };
    assert_eq!(listed.len(), 100_000);
    assert!(listed.iter().all(|i| i.state == InstanceState::Running));
    assert!(listed.is_sorted_by_key(|i| i.id.as_str()[5..].parse::<u32>().unwrap()));
    assert_eq!(Episode::Lag.to_string(), "a time of stale listings");
}
