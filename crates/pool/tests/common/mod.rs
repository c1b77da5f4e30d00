//! A rig around a core: answers effects by hand, on a clock set by hand.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of it"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{CreateRequest, ErrorKind, Instance, InstanceState, Tags};
use longshore_pool::*;
use longshore_runner_api::command::ReportOptions;
use longshore_types::*;

pub const SECOND: Duration = Duration::from_secs(1);

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn uuid(n: usize) -> ContainerUuid {
    format!("zzzzz-dz642-{n:015}").parse().unwrap()
}

pub fn instance_type(name: &str, vcpus: u32) -> InstanceType {
    let mut t = CreateRequest::example().instance_type;
    t.name = name.into();
    t.vcpus = vcpus;
    t
}

pub fn cpus(vcpus: u32) -> Resources {
    Resources {
        vcpus,
        ..Resources::NONE
    }
}

pub fn config() -> Config {
    let mut config = Config::new(
        "set",
        vec![instance_type("small", 4), instance_type("big", 16)],
    );
    config.capabilities.idempotent_create = true;
    config.collect_output = true;
    config
}

pub fn running(n: usize, attempt: u32) -> ContainerReport {
    ContainerReport {
        uuid: uuid(n),
        attempt: Attempt(attempt),
        state: ReportedState::Running {
            started_at: Some(Timestamp(1)),
        },
    }
}

pub fn finished(n: usize, attempt: u32) -> ContainerReport {
    let exit = Exit::unseen(ExitCause::Exited { code: 0 });
    ContainerReport {
        uuid: uuid(n),
        attempt: Attempt(attempt),
        state: ReportedState::Finished(exit),
    }
}

pub fn stale(n: usize, attempt: u32) -> ContainerReport {
    ContainerReport {
        uuid: uuid(n),
        attempt: Attempt(attempt),
        state: ReportedState::Stale,
    }
}

/// A report whose digest follows from what it says.
pub fn report(containers: Vec<ContainerReport>) -> Outcome {
    let digest = format!("{containers:?}");
    Outcome::Reported(Ok(RunnerReport {
        containers,
        broken: None,
        digest,
    }))
}

pub fn failure(kind: ErrorKind, may_have_acted: bool) -> CloudFailure {
    CloudFailure {
        kind,
        may_have_acted,
        error: "cloud words".into(),
    }
}

pub fn unreachable() -> HostFailure {
    HostFailure {
        unreachable: true,
        ours: false,
        error: "connection refused".into(),
    }
}

pub fn badly() -> HostFailure {
    HostFailure {
        unreachable: false,
        ours: false,
        error: "exit code 1".into(),
    }
}

pub fn unknown_start() -> Outcome {
    Outcome::Started(StartOutcome::Unknown {
        error: "connection lost".into(),
    })
}

pub fn unknown_kill() -> Outcome {
    Outcome::Killed(KillOutcome::Unknown {
        error: "connection lost".into(),
    })
}

/// An instance as a listing shows it.
pub fn listed(id: &str, type_name: &str, secret: &str, behavior: &str) -> Instance {
    let tags: Tags = [
        ("ArvadosInstanceSetID", "set"),
        ("ArvadosInstanceType", type_name),
        ("ArvadosIdleBehavior", behavior),
        ("ArvadosInstanceSecret", secret),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let mut instance = Instance::new(id, "s1", InstanceState::Running, tags);
    instance.address = Some(format!("{id}.example:22"));
    instance
}

pub struct Rig {
    pub core: Core,
    pub now: Instant,
    pub effects: Vec<Effect>,
    pub events: Vec<Event>,
    pub changed: BTreeSet<Changed>,
    /// What the cloud would list.
    pub cloud: Vec<Instance>,
    reports: usize,
}

impl Rig {
    pub fn new(config: Config) -> Self {
        let now = Instant::ZERO;
        let mut rig = Self {
            core: Core::new(config, [1; 32], now),
            now,
            effects: Vec::new(),
            events: Vec::new(),
            changed: BTreeSet::new(),
            cloud: Vec::new(),
            reports: 0,
        };
        rig.drain();
        rig
    }

    /// A rig whose first listing, which shows nothing, was answered.
    pub fn ready(config: Config) -> Self {
        let mut rig = Self::new(config);
        rig.answer_list();
        rig
    }

    pub fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            self.effects.push(effect);
        }
        while let Some(event) = self.core.poll_event() {
            self.events.push(event);
        }
        while let Some(changed) = self.core.poll_changed() {
            self.changed.insert(changed);
        }
        self.core.check_invariants().unwrap();
    }

    pub fn outcome(&mut self, effect: &Effect, outcome: Outcome) {
        self.core.handle_outcome(effect.id, outcome, self.now);
        self.drain();
    }

    pub fn find(&self, wanted: impl Fn(&EffectAction) -> bool) -> Option<Effect> {
        self.effects
            .iter()
            .find(|effect| wanted(&effect.action))
            .cloned()
    }

    /// Takes the oldest unanswered effect of a kind.
    #[track_caller]
    pub fn take(&mut self, wanted: impl Fn(&EffectAction) -> bool) -> Effect {
        let found = self
            .effects
            .iter()
            .position(|effect| wanted(&effect.action));
        let Some(found) = found else {
            panic!("no such effect in {:#?}", self.effects)
        };
        self.effects.remove(found)
    }

    #[track_caller]
    pub fn answer(&mut self, wanted: impl Fn(&EffectAction) -> bool, outcome: Outcome) {
        let effect = self.take(wanted);
        self.outcome(&effect, outcome);
    }

    #[track_caller]
    pub fn answer_list(&mut self) {
        let cloud = self.cloud.clone();
        self.answer(is_list, Outcome::listed(cloud));
    }

    /// Lets time pass, answering listings as the cloud is and everything that `answer` answers.
    pub fn pass(
        &mut self,
        span: Duration,
        mut answer: impl FnMut(&EffectAction) -> Option<Outcome>,
    ) {
        let end = self.now + span;
        let mut rounds = 0;
        loop {
            while let Some(at) = self
                .effects
                .iter()
                .position(|effect| is_list(&effect.action) || answer(&effect.action).is_some())
            {
                rounds += 1;
                assert!(rounds < 100_000, "it does not come to rest");
                let effect = self.effects.remove(at);
                let outcome = match answer(&effect.action) {
                    Some(outcome) => outcome,
                    None => Outcome::listed(self.cloud.clone()),
                };
                self.outcome(&effect, outcome);
            }
            match self.core.poll_timeout() {
                Some(deadline) if deadline.at <= end => {
                    self.now = self.now.max(deadline.at);
                    self.core.handle_timeout(self.now);
                    self.drain();
                }
                _ => break,
            }
        }
        self.now = end;
        self.core.handle_timeout(end);
        self.drain();
    }

    /// Lets time pass with nobody answering but the cloud's listing.
    pub fn wait(&mut self, span: Duration) {
        self.pass(span, |_| None);
    }

    /// Lets time pass with nobody answering anything.
    pub fn later(&mut self, span: Duration) {
        self.now = self.now + span;
        self.core.handle_timeout(self.now);
        self.drain();
    }

    /// Creates an instance that boots; it is idle then, and one report waits on it.
    pub fn idle(&mut self, id: &str) {
        self.booting(id);
        self.boot(id, vec![]);
        assert_eq!(self.state(id), WorkerState::Idle);
    }

    pub fn booting(&mut self, id: &str) {
        self.core.create(&"small".into(), self.now).unwrap();
        self.drain();
        let effect = self.take(|action| matches!(action, EffectAction::Create(_)));
        let EffectAction::Create(request) = &effect.action else {
            unreachable!()
        };
        let mut instance = Instance::new(id, "s1", InstanceState::Running, request.tags.clone());
        instance.address = Some(format!("{id}.example:22"));
        self.cloud.push(instance.clone());
        self.outcome(&effect, Outcome::Created(Ok(Box::new(instance))));
    }

    /// Adopts an instance from a listing.
    pub fn adopted(&mut self, id: &str) {
        self.cloud
            .push(listed(id, "small", &format!("secret of {id}"), "run"));
        if self.find(is_list).is_none() {
            self.wait(seconds(61));
        } else {
            self.answer_list();
        }
        assert_eq!(self.state(id), WorkerState::Unknown);
    }

    /// Answers the boot round of a worker.
    pub fn boot(&mut self, id: &str, containers: Vec<ContainerReport>) {
        self.answer(on(id, is_boot), Outcome::Booted(Ok(())));
        self.answer(on(id, is_deploy), Outcome::Deployed(Ok(())));
        self.report(id, containers);
    }

    /// Answers the oldest report of a worker.
    #[track_caller]
    pub fn report(&mut self, id: &str, containers: Vec<ContainerReport>) {
        let fresh = self.fresh(containers);
        self.answer(on(id, is_report), fresh);
    }

    /// A report with a digest of its own, as if something had changed and changed back.
    pub fn fresh(&mut self, containers: Vec<ContainerReport>) -> Outcome {
        self.reports += 1;
        let digest = format!("fresh {}", self.reports);
        Outcome::Reported(Ok(RunnerReport {
            containers,
            broken: None,
            digest,
        }))
    }

    pub fn start(&mut self, id: &str, n: usize, attempt: u32) -> Result<(), Refusal> {
        self.start_with(id, n, attempt, cpus(1))
    }

    pub fn start_with(
        &mut self,
        id: &str,
        n: usize,
        attempt: u32,
        resources: Resources,
    ) -> Result<(), Refusal> {
        let request = StartRequest {
            instance: id.into(),
            uuid: uuid(n),
            attempt: Attempt(attempt),
            resources,
            document: Arc::from(&b"document"[..]),
        };
        let result = self.core.start(request, self.now);
        self.drain();
        result
    }

    /// Starts a container; the runner says that it runs.
    pub fn run(&mut self, id: &str, n: usize) {
        self.start(id, n, 1).unwrap();
        self.answer(is_start, Outcome::Started(StartOutcome::Started));
    }

    pub fn kill(&mut self, id: &str, n: usize) {
        self.core
            .kill(uuid(n), &id.into(), "test", self.now)
            .unwrap();
        self.drain();
    }

    pub fn acknowledge(&mut self, id: &str, n: usize, attempt: u32) {
        self.core
            .acknowledge(uuid(n), Attempt(attempt), &id.into(), self.now);
        self.drain();
    }

    pub fn view(&self, id: &str) -> Option<WorkerView> {
        self.core.worker(&id.into())
    }

    #[track_caller]
    pub fn state(&self, id: &str) -> WorkerState {
        self.view(id).unwrap().state
    }

    #[track_caller]
    pub fn behavior(&self, id: &str) -> IdleBehavior {
        self.view(id).unwrap().idle_behavior
    }

    pub fn phase(&self, id: &str, n: usize) -> Option<HeldPhase> {
        let view = self.view(id)?;
        view.containers
            .into_iter()
            .find(|c| c.uuid == uuid(n))
            .map(|c| c.phase)
    }

    pub fn alarms(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, Event::Alarm { .. }))
            .count()
    }

    pub fn ended(&self, n: usize) -> Vec<ExitCause> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Ended { uuid: u, exit, .. } if *u == uuid(n) => Some(exit.cause.clone()),
                _ => None,
            })
            .collect()
    }

    pub fn has_event(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(wanted)
    }
}

pub fn is_list(action: &EffectAction) -> bool {
    matches!(action, EffectAction::List(_))
}

pub fn is_create(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Create(_))
}

pub fn is_destroy(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Destroy(_))
}

pub fn is_tags(action: &EffectAction) -> bool {
    matches!(action, EffectAction::SetTags(..))
}

pub fn is_boot(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Boot(_))
}

pub fn is_deploy(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Deploy(..))
}

pub fn is_report(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Report(..))
}

pub fn is_start(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Start { .. })
}

pub fn is_kill(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Kill { .. })
}

pub fn is_collect(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Collect { .. })
}

/// A report that does not wait.
pub fn is_short(action: &EffectAction) -> bool {
    matches!(
        action,
        EffectAction::Report(
            _,
            ReportOptions {
                wait: Duration::ZERO,
                ..
            }
        )
    )
}

/// A report that waits.
pub fn is_long(action: &EffectAction) -> bool {
    is_report(action) && !is_short(action)
}

pub fn on(id: &str, wanted: fn(&EffectAction) -> bool) -> impl Fn(&EffectAction) -> bool {
    let id: InstanceId = id.into();
    move |action| wanted(action) && action.host().is_some_and(|host| host.instance == id)
}

pub fn gone(action: &EffectAction) -> Option<Outcome> {
    match action {
        EffectAction::Destroy(ids) => Some(Outcome::Destroyed(
            ids.iter().map(|id| (id.clone(), Ok(()))).collect(),
        )),
        EffectAction::SetTags(..) => Some(Outcome::TagsSet(Ok(()))),
        EffectAction::Disconnect(_) => Some(Outcome::Disconnected),
        _ => None,
    }
}
