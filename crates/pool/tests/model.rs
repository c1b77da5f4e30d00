//! The core against a small world of machines with runners, with replies that are late, lost or
//! repeated, commands that arrive long after they were given up, listings that lag, machines that
//! die, and restarts. The witness is in the world: no container has two processes at once.
//! `LONGSHORE_CASES` sets how many cases are tried; a soak sets 200,000.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use longshore_cloud::{CreateRequest, ErrorKind, Instance, InstanceState, Tags};
use longshore_pool::*;
use longshore_types::*;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const CONTAINERS: usize = 4;

#[derive(Debug)]
struct Machine {
    tags: Tags,
    alive: bool,
    dying: bool,
    booted: bool,
    /// Not listed before then, although it is there.
    hidden_until: Instant,
    /// Whether a listing that arrived has shown it since: what two in a row miss is gone.
    may_hide: bool,
    /// Attempts that run, or ended and were not acknowledged.
    entries: BTreeMap<ContainerUuid, (Attempt, Option<Exit>)>,
    marks: BTreeMap<ContainerUuid, Attempt>,
}

#[derive(Debug, Default)]
struct Composed {
    attempt: u32,
    at: Option<(InstanceId, Attempt)>,
}

struct Flying {
    effect: Effect,
    applied: Option<Outcome>,
}

struct World {
    core: Core,
    now: Instant,
    restarts: u8,
    machines: BTreeMap<InstanceId, Machine>,
    made: BTreeMap<String, InstanceId>,
    flying: Vec<Flying>,
    /// Commands whose sender has given up; they may still arrive.
    late: Vec<EffectAction>,
    done: Vec<(EffectId, Outcome)>,
    composed: BTreeMap<ContainerUuid, Composed>,
    unacked: Vec<(ContainerUuid, Attempt, InstanceId)>,
    told: BTreeSet<(ContainerUuid, Attempt, InstanceId)>,
    starts: BTreeMap<(ContainerUuid, Attempt), u32>,
    fair: bool,
}

fn model_config() -> Config {
    let mut config = config();
    config.types.truncate(1);
    config.max_instances = 4;
    config.collect_output = true;
    config.console_output = true;
    config
}

impl World {
    fn new(idempotent: bool) -> Self {
        let mut config = model_config();
        config.capabilities.idempotent_create = idempotent;
        let now = Instant::ZERO;
        let mut world = Self {
            core: Core::new(config, [0; 32], now),
            now,
            restarts: 0,
            machines: BTreeMap::new(),
            made: BTreeMap::new(),
            flying: Vec::new(),
            late: Vec::new(),
            done: Vec::new(),
            composed: (0..CONTAINERS)
                .map(|n| (uuid(n), Composed::default()))
                .collect(),
            unacked: Vec::new(),
            told: BTreeSet::new(),
            starts: BTreeMap::new(),
            fair: false,
        };
        world.drain();
        world
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            self.flying.push(Flying {
                effect,
                applied: None,
            });
        }
        while let Some(event) = self.core.poll_event() {
            self.on_event(event);
        }
        while self.core.poll_changed().is_some() {}
        self.core.check_invariants().unwrap();
        let workers = self.core.workers().count();
        let bound = 10 + 6 * workers + 4 * CONTAINERS;
        assert!(
            self.flying.len() <= bound,
            "{} effects under way",
            self.flying.len()
        );
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Ended {
                uuid,
                attempt,
                instance,
                ..
            } => {
                let new = self.told.insert((uuid, attempt, instance.clone()));
                assert!(new, "the end of {uuid} {attempt} is told twice");
                self.unacked.push((uuid, attempt, instance.clone()));
                self.free(uuid, attempt, &instance);
            }
            Event::NotStarted {
                uuid,
                attempt,
                instance,
                ..
            }
            | Event::NeverRan {
                uuid,
                attempt,
                instance,
            } => self.free(uuid, attempt, &instance),
            Event::Running { .. }
            | Event::CreateFailed { .. }
            | Event::Claimed { .. }
            | Event::Alarm { .. } => {}
        }
    }

    fn free(&mut self, uuid: ContainerUuid, attempt: Attempt, instance: &InstanceId) {
        let composed = self.composed.get_mut(&uuid).unwrap();
        if composed.at.as_ref() == Some(&(instance.clone(), attempt)) {
            composed.at = None;
        }
    }

    /// Carries an effect out, as far as the world goes.
    fn apply(&mut self, action: &EffectAction) -> Outcome {
        if let Some(host) = action.host() {
            let alive = |machine: &&mut Machine| machine.alive;
            let Some(_) = self.machines.get_mut(&host.instance).filter(alive) else {
                return not_done(action);
            };
        }
        match action {
            EffectAction::Create(request) => Outcome::Created(Ok(Box::new(self.make(request)))),
            EffectAction::List(_) => Outcome::listed(self.listing()),
            EffectAction::Destroy(ids) => {
                for id in ids {
                    if let Some(machine) = self.machines.get_mut(id) {
                        machine.dying = true;
                        machine.hidden_until = Instant::ZERO;
                    }
                }
                Outcome::Destroyed(ids.iter().map(|id| (id.clone(), Ok(()))).collect())
            }
            EffectAction::SetTags(id, tags) => {
                if let Some(machine) = self.machines.get_mut(id) {
                    machine.tags.extend(tags.clone());
                }
                Outcome::TagsSet(Ok(()))
            }
            EffectAction::Console(..) => Outcome::Console(Ok(b"kernel panic".to_vec())),
            EffectAction::Disconnect(_) => Outcome::Disconnected,
            EffectAction::Boot(host) => {
                let booted = self.machines[&host.instance].booted;
                Outcome::Booted(if booted { Ok(()) } else { Err(badly()) })
            }
            EffectAction::Deploy(..) => Outcome::Deployed(Ok(())),
            EffectAction::Report(host, options) => {
                let machine = self.machines.get_mut(&host.instance).unwrap();
                for (uuid, attempt) in &options.acks {
                    if machine
                        .entries
                        .get(uuid)
                        .is_some_and(|(a, exit)| a == attempt && exit.is_some())
                    {
                        machine.entries.remove(uuid);
                    }
                }
                report(entries(machine))
            }
            EffectAction::Start {
                host,
                uuid,
                attempt,
                ..
            } => self.start(&host.instance, *uuid, *attempt),
            EffectAction::Kill {
                host,
                uuid,
                attempt,
                signal,
            } => {
                let machine = self.machines.get_mut(&host.instance).unwrap();
                let mark = machine.marks.entry(*uuid).or_default();
                *mark = (*mark).max(*attempt);
                assert_ne!(*signal, 0, "nothing is withdrawn here");
                if let Some((a, exit @ None)) = machine.entries.get_mut(uuid)
                    && a == attempt
                {
                    *exit = Some(Exit {
                        stdout_bytes: 3,
                        ..Exit::unseen(ExitCause::Killed)
                    });
                }
                Outcome::Killed(KillOutcome::Gone)
            }
            EffectAction::Collect { .. } => Outcome::Collected(Ok(())),
        }
    }

    fn start(&mut self, id: &InstanceId, uuid: ContainerUuid, attempt: Attempt) -> Outcome {
        let machine = self.machines.get_mut(id).unwrap();
        if machine
            .marks
            .get(&uuid)
            .is_some_and(|mark| *mark >= attempt)
        {
            return Outcome::Started(StartOutcome::KnownAttempt);
        }
        if matches!(machine.entries.get(&uuid), Some((_, None))) {
            let error = "an older attempt runs".into();
            return Outcome::Started(StartOutcome::NotStarted { error });
        }
        machine.marks.insert(uuid, attempt);
        machine.entries.insert(uuid, (attempt, None));
        *self.starts.entry((uuid, attempt)).or_default() += 1;
        assert_eq!(
            self.starts[&(uuid, attempt)],
            1,
            "attempt {attempt} of {uuid} was started twice"
        );
        let processes = self
            .machines
            .values()
            .filter(|machine| {
                machine.alive && matches!(machine.entries.get(&uuid), Some((_, None)))
            })
            .count();
        assert_eq!(processes, 1, "{uuid} runs twice");
        Outcome::Started(StartOutcome::Started)
    }

    fn make(&mut self, request: &CreateRequest) -> Instance {
        let idempotent = model_config().capabilities.idempotent_create;
        let known = self
            .made
            .get(&request.token)
            .filter(|_| idempotent)
            .cloned();
        let id = known.unwrap_or_else(|| {
            let id: InstanceId = format!("i-{}", self.machines.len()).into();
            self.made.insert(request.token.clone(), id.clone());
            let machine = Machine {
                tags: request.tags.clone(),
                alive: true,
                dying: false,
                booted: false,
                hidden_until: Instant::ZERO,
                may_hide: true,
                entries: BTreeMap::new(),
                marks: BTreeMap::new(),
            };
            self.machines.insert(id.clone(), machine);
            id
        });
        instance(&id, &self.machines[&id])
    }

    fn listing(&self) -> Vec<Instance> {
        let listed = |machine: &Machine| machine.alive && machine.hidden_until <= self.now;
        let machines = self.machines.iter().filter(|(_, machine)| listed(machine));
        machines
            .map(|(id, machine)| instance(id, machine))
            .collect()
    }

    fn deliver(&mut self, id: EffectId, outcome: Outcome) {
        if let Outcome::Listed(Ok(shown)) = &outcome {
            for instance in shown {
                if let Some(machine) = self.machines.get_mut(&instance.id) {
                    machine.may_hide |= machine.hidden_until <= self.now;
                }
            }
        }
        self.core.handle_outcome(id, outcome.clone(), self.now);
        self.done.push((id, outcome));
        self.drain();
    }

    /// One thing that happens, chosen by three numbers.
    fn step(&mut self, op: u8, a: usize, b: usize) {
        match op % 24 {
            0..=5 => self.fly(a, Fate::Done),
            6 | 7 => self.fly(a, Fate::Apply),
            8 => self.fly(a, Fate::LostAfter),
            9 => self.fly(a, Fate::LostBefore),
            10 => self.fly(a, Fate::NotDone),
            11 => self.arrive_late(a),
            12 => self.repeat(a),
            13 => self.pass([100, 1_000, 5_000, 11_000, 31_000, 61_000][a % 6]),
            14 => {
                let _ = self.core.create(&"small".into(), self.now);
            }
            15 | 16 => self.place(a, b),
            17 => self.kill(a),
            18 => self.acknowledge(a),
            19 => self.finish(a, b),
            20 => self.machine(a, |machine, now| match b % 8 {
                0 => machine.alive = false,
                1 if machine.may_hide && !machine.dying => {
                    machine.hidden_until = now + seconds(50);
                    machine.may_hide = false;
                }
                2 | 3 if machine.dying => machine.alive = false,
                _ => machine.booted = true,
            }),
            21 => self.ask(a, b),
            22 => self.settle_restarted(a),
            _ if a.is_multiple_of(4) && self.restarts < 3 => self.restart(),
            _ => self.fly_all(),
        }
        self.drain();
    }

    fn fly(&mut self, at: usize, fate: Fate) {
        if self.flying.is_empty() {
            return;
        }
        let at = at % self.flying.len();
        if let Fate::Apply = fate {
            let action = self.flying[at].effect.action.clone();
            if self.flying[at].applied.is_none() {
                let outcome = self.apply(&action);
                self.flying[at].applied = Some(outcome);
            }
            return;
        }
        let Flying { effect, applied } = self.flying.remove(at);
        let outcome = match (fate, applied) {
            (Fate::LostAfter | Fate::LostBefore | Fate::NotDone, Some(_)) => {
                effect.action.lost("lost")
            }
            (_, Some(outcome)) => outcome,
            (Fate::LostAfter, None) => {
                self.apply(&effect.action);
                effect.action.lost("lost")
            }
            (Fate::LostBefore, None) => {
                self.late.push(effect.action.clone());
                effect.action.lost("lost")
            }
            (Fate::NotDone, None) => not_done(&effect.action),
            (_, None) => self.apply(&effect.action),
        };
        self.deliver(effect.id, outcome);
    }

    fn fly_all(&mut self) {
        for _ in 0..self.flying.len() {
            self.fly(0, Fate::Done);
        }
    }

    fn arrive_late(&mut self, at: usize) {
        if !self.late.is_empty() {
            let action = self.late.remove(at % self.late.len());
            // A provider does not act on a listing, and a create that acts late is one more
            // machine that nobody waits for.
            self.apply(&action);
        }
    }

    fn repeat(&mut self, at: usize) {
        if !self.done.is_empty() {
            let (id, outcome) = self.done[at % self.done.len()].clone();
            self.core.handle_outcome(id, outcome, self.now);
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + std::time::Duration::from_millis(millis);
        self.now = end;
        self.core.handle_timeout(end);
    }

    fn place(&mut self, a: usize, b: usize) {
        let uuid = uuid(a % CONTAINERS);
        let workers: Vec<WorkerView> = self
            .core
            .workers()
            .filter(WorkerView::takes_containers)
            .collect();
        let composed = self.composed.get_mut(&uuid).unwrap();
        if workers.is_empty() || composed.at.is_some() {
            return;
        }
        let instance = workers[b % workers.len()].instance.clone();
        composed.attempt += 1;
        let request = StartRequest {
            instance: instance.clone(),
            uuid,
            attempt: Attempt(composed.attempt),
            resources: cpus(1),
            document: [].into(),
        };
        if self.core.start(request, self.now).is_ok() {
            composed.at = Some((instance, Attempt(composed.attempt)));
        }
    }

    fn kill(&mut self, a: usize) {
        let uuid = uuid(a % CONTAINERS);
        if let Some((instance, _)) = &self.composed[&uuid].at {
            let _ = self.core.kill(uuid, instance, "model", self.now);
        }
    }

    /// What a composer does about a container after a restart: proof of absence, or a mark.
    fn settle_restarted(&mut self, a: usize) {
        let uuid = uuid(a % CONTAINERS);
        let Some((instance, attempt)) = self.composed[&uuid].at.clone() else {
            return;
        };
        match self.core.worker(&instance) {
            None if self.core.absence_is_evidence() => self.free(uuid, attempt, &instance),
            None => {}
            Some(worker) => {
                let held = worker.containers.iter().any(|held| held.uuid == uuid);
                if worker.probed_at.is_some() && !held {
                    let _ = self
                        .core
                        .kill_attempt(uuid, attempt, &instance, "model", self.now);
                }
            }
        }
    }

    fn acknowledge(&mut self, a: usize) {
        if !self.unacked.is_empty() {
            let (uuid, attempt, instance) = self.unacked.remove(a % self.unacked.len());
            self.core.acknowledge(uuid, attempt, &instance, self.now);
        }
    }

    fn finish(&mut self, a: usize, b: usize) {
        let now_lost = b.is_multiple_of(16);
        self.machine(a, |machine, _| {
            let uuid = uuid(b % CONTAINERS);
            if let Some((_, exit @ None)) = machine.entries.get_mut(&uuid) {
                if now_lost {
                    machine.entries.remove(&uuid);
                } else {
                    let cause = ExitCause::Exited { code: 0 };
                    *exit = Some(Exit {
                        stdout_bytes: b as u64 % 3,
                        ..Exit::unseen(cause)
                    });
                }
            }
        });
    }

    fn machine(&mut self, a: usize, change: impl FnOnce(&mut Machine, Instant)) {
        if !self.machines.is_empty() {
            let at = a % self.machines.len();
            let now = self.now;
            if let Some(machine) = self.machines.values_mut().nth(at) {
                change(machine, now);
            }
        }
    }

    fn ask(&mut self, a: usize, b: usize) {
        let ids: Vec<InstanceId> = self.core.workers().map(|worker| worker.instance).collect();
        if ids.is_empty() {
            return;
        }
        let id = &ids[a % ids.len()];
        let _ = match b % 12 {
            0 => self.core.shut_down(id, "model", self.now),
            1 => self.core.give_back(id, self.now),
            2 => self
                .core
                .set_idle_behavior(id, IdleBehavior::Drain, self.now),
            3 => self
                .core
                .set_idle_behavior(id, IdleBehavior::Hold, self.now),
            4 => {
                self.core.handle_sleep(seconds(60), self.now);
                Ok(())
            }
            _ => self.core.set_idle_behavior(id, IdleBehavior::Run, self.now),
        };
    }

    fn restart(&mut self) {
        self.restarts += 1;
        for flying in std::mem::take(&mut self.flying) {
            if flying.applied.is_none() {
                self.late.push(flying.effect.action);
            }
        }
        self.done.clear();
        self.unacked.clear();
        self.told.clear();
        let mut config = model_config();
        config.capabilities.idempotent_create = true;
        self.core = Core::new(config, [self.restarts; 32], self.now);
    }

    /// Calm: everything is carried out and answered, everything ends, and everything is shut
    /// down. Then nothing may be left.
    fn come_to_rest(&mut self) {
        self.fair = true;
        self.late
            .retain(|action| !matches!(action, EffectAction::Create(_)));
        for round in 0..400 {
            let machines: Vec<usize> = (0..self.machines.len()).collect();
            for a in machines {
                self.machine(a, |machine, now| {
                    machine.booted = true;
                    machine.hidden_until = machine.hidden_until.min(now);
                    machine.alive &= !machine.dying;
                    for (_, exit) in machine.entries.values_mut() {
                        exit.get_or_insert(Exit::unseen(ExitCause::Exited { code: 0 }));
                    }
                });
            }
            self.fly_all();
            while !self.unacked.is_empty() {
                self.acknowledge(0);
            }
            for n in 0..CONTAINERS {
                self.settle_restarted(n);
                self.kill(n);
            }
            if round > 60 {
                let ids: Vec<InstanceId> = self.core.workers().map(|w| w.instance).collect();
                for id in ids {
                    let _ = self
                        .core
                        .set_idle_behavior(&id, IdleBehavior::Drain, self.now);
                    if round > 200 {
                        let _ = self.core.shut_down(&id, "model", self.now);
                    }
                }
            }
            self.pass(3_000);
            self.drain();
        }
        assert_eq!(
            self.core.workers().count(),
            0,
            "workers are left: {:#?}",
            self.core.snapshot(self.now)
        );
        assert_eq!(self.core.pendings().count(), 0);
        assert!(
            self.machines.values().all(|machine| !machine.alive),
            "machines are left"
        );
        for (uuid, composed) in &self.composed {
            assert!(composed.at.is_none(), "{uuid} was lost: {composed:?}");
        }
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Done,
    Apply,
    LostAfter,
    LostBefore,
    NotDone,
}

fn instance(id: &InstanceId, machine: &Machine) -> Instance {
    let state = if machine.dying {
        InstanceState::Stopping
    } else {
        InstanceState::Running
    };
    let mut instance = Instance::new(id.clone(), "s1", state, machine.tags.clone());
    instance.address = Some(format!("{id}:22"));
    instance
}

fn entries(machine: &Machine) -> Vec<ContainerReport> {
    let entries = machine.entries.iter();
    entries
        .map(|(uuid, (attempt, exit))| ContainerReport {
            uuid: *uuid,
            attempt: *attempt,
            state: match exit {
                None => ReportedState::Running {
                    started_at: Some(Timestamp(1)),
                },
                Some(exit) => ReportedState::Finished(exit.clone()),
            },
        })
        .collect()
}

/// An answer after which it is sure that nothing was done, nor will be.
fn not_done(action: &EffectAction) -> Outcome {
    let cloud = || failure(ErrorKind::RateLimited { retry_after: None }, false);
    match action {
        EffectAction::Create(_) => Outcome::Created(Err(cloud())),
        EffectAction::List(_) => Outcome::Listed(Err(cloud())),
        EffectAction::Destroy(ids) => {
            Outcome::Destroyed(ids.iter().map(|id| (id.clone(), Err(cloud()))).collect())
        }
        EffectAction::SetTags(..) => Outcome::TagsSet(Err(cloud())),
        EffectAction::Console(..) => Outcome::Console(Err(cloud())),
        EffectAction::Disconnect(_) => Outcome::Disconnected,
        EffectAction::Boot(_) => Outcome::Booted(Err(unreachable())),
        EffectAction::Deploy(..) => Outcome::Deployed(Err(unreachable())),
        EffectAction::Report(..) => Outcome::Reported(Err(unreachable())),
        EffectAction::Start { .. } => {
            let error = "refused".into();
            Outcome::Started(StartOutcome::NotStarted { error })
        }
        EffectAction::Kill { .. } => Outcome::Killed(KillOutcome::Unknown {
            error: "refused".into(),
        }),
        EffectAction::Collect { .. } => Outcome::Collected(Err(unreachable())),
    }
}

fn cases() -> ProptestConfig {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test may be told how long to run"
    )]
    let asked = std::env::var("LONGSHORE_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|cases| cases.parse().ok()).unwrap_or(400),
        max_shrink_iters: 40_000,
        // Beside this file, to be committed with what mends it.
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_container_runs_twice_and_nothing_is_lost_or_left(
        idempotent in any::<bool>(),
        steps in proptest::collection::vec((any::<u8>(), 0..1000usize, 0..1000usize), 50..600),
    ) {
        let mut world = World::new(idempotent);
        // Something to begin with.
        for op in [23, 14, 14, 23, 20, 20, 23, 13, 23, 23, 23] {
            world.step(op, 1, 7);
        }
        for (op, a, b) in steps {
            world.step(op, a, b);
        }
        world.come_to_rest();
    }
}
