//! What an event costs does not grow with the number of workers: 10,000 against 100, in one run.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::time::Duration;

use common::*;
use longshore_cloud::{ErrorKind, Instance, InstanceState, Scope};
use longshore_pool::{Core, Effect, EffectAction, EffectId, Outcome, StartOutcome, StartRequest};
use longshore_types::*;
use nix::time::{ClockId, clock_gettime};

const FEW: usize = 100;
const MANY: usize = 10_000;
/// Events of a kind in a row.
const EVENTS: usize = 50;
/// The shortest of so many rows is compared.
const ROUNDS: usize = 7;
/// What costs the logarithm doubles from few to many, and memory that is further away costs more;
/// what walks over all workers costs a hundred times as much.
const MOST: f64 = 8.0;

/// A pool of so many workers that wait for something to do.
struct Fleet {
    core: Core,
    now: Instant,
    count: usize,
    next: usize,
    reports: Vec<Option<EffectId>>,
    creates: Vec<Effect>,
    last: Option<Effect>,
}

impl Fleet {
    fn new(count: usize) -> Self {
        let mut config = config();
        config.max_instances = 0;
        config.max_creates_in_flight = 0;
        // Nothing is due of itself.
        config.timeout_idle = seconds(10_000_000);
        config.timeout_probe = seconds(10_000_000);
        config.sync_interval = seconds(10_000_000);
        let now = Instant::ZERO;
        let mut fleet = Self {
            core: Core::new(config, [0; 32], now),
            now,
            count,
            next: 0,
            reports: vec![None; count],
            creates: Vec::new(),
            last: None,
        };
        fleet.drain();
        fleet
    }

    fn name(number: usize) -> String {
        format!("i-{number:05}")
    }

    /// The worker whose turn it is, all over the fleet.
    fn turn(&mut self) -> usize {
        self.next = (self.next + 7_919) % self.count;
        self.next
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match &effect.action {
                EffectAction::List(_) => {
                    let all = (0..self.count).map(|n| {
                        let name = Self::name(n);
                        listed(&name, "small", &format!("secret of {name}"), "run")
                    });
                    let all = Outcome::listed(all);
                    self.core.handle_outcome(effect.id, all, self.now);
                }
                EffectAction::Boot(_) => self.end(&effect, Outcome::Booted(Ok(()))),
                EffectAction::Deploy(..) => self.end(&effect, Outcome::Deployed(Ok(()))),
                EffectAction::Report(host, options) if !options.wait.is_zero() => {
                    let number: usize = host.instance.as_str()[2..].parse().unwrap_or_default();
                    self.reports[number % self.count] = Some(effect.id);
                }
                EffectAction::Report(..) => self.end(&effect, shown("first", vec![])),
                EffectAction::Create(_) => self.creates.push(effect),
                _ => self.last = Some(effect),
            }
        }
        while self.core.poll_event().is_some() {}
        while self.core.poll_changed().is_some() {}
        let _ = self.core.poll_timeout();
    }

    fn end(&mut self, effect: &Effect, outcome: Outcome) {
        self.core.handle_outcome(effect.id, outcome, self.now);
    }

    fn report(&mut self, number: usize, digest: &str, containers: Vec<ContainerReport>) {
        let id = self.reports[number].take().unwrap();
        self.core
            .handle_outcome(id, shown(digest, containers), self.now);
        self.drain();
    }

    fn changed_report(&mut self) {
        let number = self.turn();
        self.report(number, "second", vec![]);
        self.report(number, "first", vec![]);
    }

    fn failed_report(&mut self) {
        let number = self.turn();
        let id = self.reports[number].take().unwrap();
        let failed = Outcome::Reported(Err(unreachable()));
        self.core.handle_outcome(id, failed, self.now);
        self.drain();
        self.now = self.now + seconds(2);
        self.core.handle_timeout(self.now);
        self.drain();
    }

    fn container(&mut self) {
        let number = self.turn();
        let instance: InstanceId = Self::name(number).as_str().into();
        let request = StartRequest {
            instance: instance.clone(),
            uuid: uuid(1),
            attempt: Attempt(1),
            resources: cpus(1),
            document: [].into(),
        };
        self.core.start(request, self.now).unwrap();
        self.drain();
        let start = self.last.take().unwrap();
        self.end(&start, Outcome::Started(StartOutcome::Started));
        self.report(number, "ended", vec![finished(1, 1)]);
        self.core
            .acknowledge(uuid(1), Attempt(1), &instance, self.now);
        self.report(number, "first", vec![]);
        self.now = self.now + seconds(1);
        self.core.handle_timeout(self.now);
        self.drain();
    }

    fn kill_of_what_is_not_there(&mut self) {
        let instance = Self::name(self.turn()).as_str().into();
        let refused = self.core.kill(uuid(1), &instance, "test", self.now);
        assert!(refused.is_err());
        self.drain();
    }

    fn refused_create(&mut self) {
        self.core.create(&"small".into(), self.now).unwrap();
        self.drain();
        let effect = self.creates.pop().unwrap();
        let kind = ErrorKind::QuotaExceeded(Scope::Type("small".into()));
        self.end(&effect, Outcome::Created(Err(failure(kind, false))));
        self.drain();
        self.core.create_refusal(&"small".into(), self.now).unwrap();
        self.now = self.now + seconds(1_000);
        self.core.handle_timeout(self.now);
        self.drain();
    }

    fn instance_that_comes_and_goes(&mut self) {
        self.core.create(&"big".into(), self.now).unwrap();
        self.drain();
        let effect = self.creates.pop().unwrap();
        let EffectAction::Create(request) = &effect.action else {
            unreachable!()
        };
        let made = Instance::new("new", "s1", InstanceState::Pending, request.tags.clone());
        self.end(&effect, Outcome::Created(Ok(Box::new(made))));
        self.drain();
        let id: InstanceId = "new".into();
        self.core.shut_down(&id, "test", self.now).unwrap();
        self.drain();
        let destroy = self.last.take().unwrap();
        self.end(&destroy, Outcome::Destroyed(vec![(id, Ok(()))]));
        self.drain();
    }

    fn idle_behavior(&mut self) {
        let instance = Self::name(self.turn()).as_str().into();
        for behavior in [IdleBehavior::Hold, IdleBehavior::Run] {
            self.core
                .set_idle_behavior(&instance, behavior, self.now)
                .unwrap();
            self.drain();
            let tags = self.last.take().unwrap();
            self.end(&tags, Outcome::TagsSet(Ok(())));
            self.drain();
        }
    }
}

fn shown(digest: &str, containers: Vec<ContainerReport>) -> Outcome {
    Outcome::Reported(Ok(RunnerReport {
        containers,
        broken: None,
        digest: digest.into(),
    }))
}

type Event = fn(&mut Fleet);

/// Time of this thread on a processor: what else the machine does is not in it.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

fn time(fleet: &mut Fleet, event: Event) -> Duration {
    let began = worked();
    for _ in 0..EVENTS {
        event(fleet);
    }
    worked().saturating_sub(began)
}

#[test]
fn an_event_costs_about_as_much_with_10_000_workers_as_with_100() {
    let events: [(&str, Event); 7] = [
        ("a changed report", Fleet::changed_report),
        ("a failed report", Fleet::failed_report),
        ("a container", Fleet::container),
        ("a refused kill", Fleet::kill_of_what_is_not_there),
        ("a refused create", Fleet::refused_create),
        ("an instance", Fleet::instance_that_comes_and_goes),
        ("a behaviour", Fleet::idle_behavior),
    ];
    let (mut few, mut many) = (Fleet::new(FEW), Fleet::new(MANY));
    for (name, event) in events {
        let mut shortest = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            shortest[0] = shortest[0].min(time(&mut few, event));
            shortest[1] = shortest[1].min(time(&mut many, event));
        }
        let ratio = shortest[1].as_secs_f64() / shortest[0].as_secs_f64();
        assert!(
            ratio < MOST,
            "{name}: {ratio:.1} times as much: {shortest:?}"
        );
    }
}
