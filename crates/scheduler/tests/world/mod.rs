//! A small model of everything around a scheduler: controller, pool, instances, processes.
//!
//! The truth is kept apart from what the scheduler was told, so that a wrong conclusion shows as
//! two processes of one container, or as more on an instance than it holds.

use std::collections::{BTreeMap, BTreeSet};

use longshore_scheduler::{Action, Config, Core, Limits};
use longshore_types::*;

use crate::support::*;

/// A change of the world, chosen at random.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Submit {
        vcpus: u32,
        priority: i64,
    },
    Priority {
        which: usize,
        priority: i64,
    },
    Settle {
        which: usize,
        well: bool,
    },
    Boot {
        which: usize,
    },
    BootFails {
        which: usize,
    },
    Exit {
        which: usize,
        badly: bool,
    },
    Crash {
        which: usize,
    },
    Probe {
        which: usize,
    },
    Behave {
        which: usize,
        behavior: IdleBehavior,
    },
    Refresh,
    Quota {
        instances: usize,
    },
    Restart,
    Wait {
        seconds: u64,
    },
}

#[derive(Clone, Debug)]
struct Known {
    attempt: Attempt,
    phase: HeldPhase,
    granted: Resources,
}

#[derive(Clone, Debug)]
struct Machine {
    type_name: TypeName,
    capacity: Resources,
    ready: bool,
    behavior: IdleBehavior,
    /// The truth: what runs, and what it uses.
    processes: BTreeMap<ContainerUuid, (Attempt, Resources)>,
    /// Results that the runner keeps.
    results: BTreeMap<ContainerUuid, (Attempt, ExitCause)>,
    /// The newest attempt that the runner has seen.
    marks: BTreeMap<ContainerUuid, Attempt>,
    /// What the pool believes.
    known: BTreeMap<ContainerUuid, Known>,
    probed_at: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Op {
    Call(Action),
    Report(ContainerUuid, ContainerState),
    Start(ContainerUuid, Attempt, InstanceId, Resources),
    /// The last says whether what was started goes on.
    Kill(ContainerUuid, Attempt, InstanceId, bool),
}

pub(crate) struct World {
    pub(crate) now: Instant,
    config: Config,
    core: Core,
    limits: Limits,
    quota: usize,
    next: u32,
    pub(crate) containers: BTreeMap<ContainerUuid, Container>,
    calling: BTreeSet<ContainerUuid>,
    machines: BTreeMap<InstanceId, Machine>,
    pendings: BTreeMap<u64, PendingView>,
    ops: Vec<Op>,
    pub(crate) actions: usize,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let mut world = Self {
            now: at(1),
            core: Core::new(config.clone()),
            config,
            limits: Limits::default(),
            quota: 3,
            next: 0,
            containers: BTreeMap::new(),
            calling: BTreeSet::new(),
            machines: BTreeMap::new(),
            pendings: BTreeMap::new(),
            ops: Vec::new(),
            actions: 0,
        };
        world.limits.absence_is_evidence = true;
        world.tell_limits();
        world
    }

    fn pick<T: Clone>(items: impl Iterator<Item = T>, which: usize) -> Option<T> {
        let all: Vec<T> = items.collect();
        (!all.is_empty()).then(|| all[which % all.len()].clone())
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.now = self.now + std::time::Duration::from_millis(10);
        match *step {
            Step::Submit { vcpus, priority } => self.submit(vcpus, priority),
            Step::Priority { which, priority } => {
                let open = self.containers.values().filter(|c| !c.state.is_final());
                if let Some(uuid) = Self::pick(open.map(|c| c.uuid), which) {
                    self.change(uuid, |c| c.priority = priority);
                    self.tell(uuid);
                }
            }
            Step::Settle { which, well } => {
                if !self.ops.is_empty() {
                    let op = self.ops.remove(which % self.ops.len());
                    self.settle(op, well);
                }
            }
            Step::Boot { which } => self.boot(which),
            Step::BootFails { which } => {
                if let Some(id) = Self::pick(self.pendings.keys().copied(), which) {
                    self.pendings.remove(&id);
                    self.core.remove_pending(id, self.now);
                    self.tell_limits();
                }
            }
            Step::Exit { which, badly } => self.exit(which, badly),
            Step::Crash { which } => {
                if let Some(id) = Self::pick(self.machines.keys().cloned(), which) {
                    self.machines.remove(&id);
                    self.ops.retain(|op| match op {
                        Op::Start(_, _, on, _) | Op::Kill(_, _, on, _) => *on != id,
                        _ => true,
                    });
                    self.core.remove_worker(&id, self.now);
                    self.tell_limits();
                }
            }
            Step::Probe { which } => {
                if let Some(id) = Self::pick(self.machines.keys().cloned(), which) {
                    self.probe(&id);
                }
            }
            Step::Behave { which, behavior } => {
                if let Some(id) = Self::pick(self.machines.keys().cloned(), which) {
                    if let Some(machine) = self.machines.get_mut(&id) {
                        machine.behavior = behavior;
                    }
                    self.tell_worker(&id);
                }
            }
            Step::Refresh => self.refresh(),
            Step::Quota { instances } => {
                self.quota = instances;
                self.tell_limits();
            }
            Step::Restart => self.restart(),
            Step::Wait { seconds } => {
                self.now = self.now + std::time::Duration::from_secs(seconds);
            }
        }
        self.drain();
    }

    fn submit(&mut self, vcpus: u32, priority: i64) {
        self.next += 1;
        let mut container = queued(self.next).container;
        container.request = request(vcpus);
        container.priority = priority;
        container.supervisor = self.next.is_multiple_of(7);
        self.containers.insert(container.uuid, container.clone());
        self.tell(container.uuid);
    }

    fn change(&mut self, uuid: ContainerUuid, change: impl FnOnce(&mut Container)) {
        if let Some(container) = self.containers.get_mut(&uuid) {
            change(container);
            container.revision += 1;
        }
    }

    fn tell(&mut self, uuid: ContainerUuid) {
        if let Some(container) = self.containers.get(&uuid) {
            let entry = QueueEntry {
                container: container.clone(),
                as_of: self.now,
                call_in_flight: self.calling.contains(&uuid),
            };
            self.core.upsert_entry(entry, self.now);
        }
    }

    fn tell_limits(&mut self) {
        let full = self.machines.len() + self.pendings.len() >= self.quota;
        self.limits.create_blocked.clear();
        self.limits.quota_blocked.clear();
        if full {
            for t in &self.config.types {
                self.limits
                    .create_blocked
                    .insert(t.name.clone(), "quota".into());
                self.limits.quota_blocked.insert(t.name.clone());
            }
        }
        self.core.set_limits(self.limits.clone(), self.now);
    }

    fn refresh(&mut self) {
        for uuid in self.containers.keys().copied().collect::<Vec<_>>() {
            if !self.calling.contains(&uuid) {
                self.tell(uuid);
            }
        }
        self.tell_limits();
    }

    fn boot(&mut self, which: usize) {
        let unready = self.machines.iter().filter(|(_, m)| !m.ready);
        if let Some(id) = Self::pick(unready.map(|(id, _)| id.clone()), which) {
            if let Some(machine) = self.machines.get_mut(&id) {
                machine.ready = true;
            }
            self.probe(&id);
        } else if let Some(number) = Self::pick(self.pendings.keys().copied(), which) {
            let view = self.pendings.remove(&number).unwrap();
            let id = InstanceId::from(format!("i{:04}", number).as_str());
            let machine = Machine {
                type_name: view.type_name,
                capacity: view.capacity,
                ready: false,
                behavior: IdleBehavior::Run,
                processes: BTreeMap::new(),
                results: BTreeMap::new(),
                marks: BTreeMap::new(),
                known: BTreeMap::new(),
                probed_at: None,
            };
            self.machines.insert(id.clone(), machine);
            self.tell_worker(&id);
            self.core.remove_pending(number, self.now);
        }
    }

    fn exit(&mut self, which: usize, badly: bool) {
        let all = self.machines.iter().flat_map(|(id, m)| {
            m.processes
                .iter()
                .map(|(uuid, (attempt, _))| (id.clone(), *uuid, *attempt))
        });
        let Some((id, uuid, attempt)) = Self::pick(all, which) else {
            return;
        };
        let machine = self.machines.get_mut(&id).unwrap();
        machine.processes.remove(&uuid);
        if badly {
            // Its supervisor is gone without a trace.
            return;
        }
        let cause = ExitCause::Exited { code: 0 };
        if self.config.records_placement {
            machine.results.insert(uuid, (attempt, cause));
        } else {
            self.change(uuid, |c| {
                if matches!(c.state, ContainerState::Locked | ContainerState::Running) {
                    c.state = ContainerState::Complete;
                }
            });
        }
    }

    /// The pool asks the runner, and believes it except about what is under way.
    fn probe(&mut self, id: &InstanceId) {
        let busy: BTreeSet<ContainerUuid> = self
            .ops
            .iter()
            .filter_map(|op| match op {
                Op::Start(uuid, _, on, _) | Op::Kill(uuid, _, on, _) if on == id => Some(*uuid),
                _ => None,
            })
            .collect();
        let machine = self.machines.get_mut(id).unwrap();
        if !machine.ready {
            return;
        }
        machine.probed_at = Some(self.now);
        let mut known = BTreeMap::new();
        for (uuid, (attempt, granted)) in &machine.processes {
            let dying = machine
                .known
                .get(uuid)
                .is_some_and(|k| k.phase == HeldPhase::Killing);
            let phase = if dying {
                HeldPhase::Killing
            } else {
                HeldPhase::Running
            };
            known.insert(
                *uuid,
                Known {
                    attempt: *attempt,
                    phase,
                    granted: *granted,
                },
            );
        }
        for (uuid, (attempt, cause)) in &machine.results {
            let phase = ended(cause.clone());
            known.insert(
                *uuid,
                Known {
                    attempt: *attempt,
                    phase,
                    granted: Resources::NONE,
                },
            );
        }
        for (uuid, old) in &machine.known {
            if busy.contains(uuid) {
                known.insert(*uuid, old.clone());
            }
        }
        machine.known = known;
        self.tell_worker(id);
        self.report();
    }

    fn tell_worker(&mut self, id: &InstanceId) {
        let machine = &self.machines[id];
        let containers: Vec<HeldContainer> = machine
            .known
            .iter()
            .map(|(uuid, k)| HeldContainer {
                uuid: *uuid,
                attempt: k.attempt,
                phase: k.phase.clone(),
                granted: k.granted,
            })
            .collect();
        let busy = containers.iter().any(|c| c.phase.may_run());
        let view = WorkerView {
            instance: id.clone(),
            type_name: Some(machine.type_name.clone()),
            state: match (machine.probed_at, busy) {
                (None, _) => WorkerState::Booting,
                (_, true) => WorkerState::Running,
                (_, false) => WorkerState::Idle,
            },
            idle_behavior: machine.behavior,
            capacity: machine.capacity,
            granted: containers.iter().map(|c| c.granted).sum(),
            containers,
            probed_at: machine.probed_at,
            last_error: None,
        };
        self.core.upsert_worker(view, self.now);
    }

    /// What the composer tells the controller about what workers show.
    fn report(&mut self) {
        if !self.config.records_placement {
            return;
        }
        let mut reports = Vec::new();
        for (id, machine) in &self.machines {
            for (uuid, known) in &machine.known {
                let Some(c) = self.containers.get(uuid) else {
                    continue;
                };
                let ours = c.placed_on.as_ref() == Some(id) && c.attempt() == known.attempt;
                let next = match (&known.phase, c.state) {
                    (HeldPhase::Running, ContainerState::Locked) => ContainerState::Running,
                    (HeldPhase::Ended(_), ContainerState::Locked | ContainerState::Running) => {
                        ContainerState::Complete
                    }
                    _ => continue,
                };
                if ours && !self.calling.contains(uuid) {
                    reports.push((*uuid, next));
                }
            }
        }
        for (uuid, next) in reports {
            self.calling.insert(uuid);
            self.tell(uuid);
            self.ops.push(Op::Report(uuid, next));
        }
    }

    fn restart(&mut self) {
        // What had been sent arrives or does not; nobody hears of it.
        for op in std::mem::take(&mut self.ops) {
            match op {
                Op::Start(uuid, attempt, id, granted) => self.run(uuid, attempt, &id, granted),
                Op::Kill(..) => {}
                Op::Call(_) | Op::Report(..) => {}
            }
        }
        self.calling.clear();
        self.core = Core::new(self.config.clone());
        self.limits.accept_new = true;
        for machine in self.machines.values_mut() {
            machine.known.clear();
            machine.probed_at = None;
        }
        for number in self.pendings.keys().copied().collect::<Vec<_>>() {
            self.pendings.remove(&number);
        }
        for id in self.machines.keys().cloned().collect::<Vec<_>>() {
            self.tell_worker(&id);
        }
        self.now = self.now + std::time::Duration::from_secs(1);
        self.refresh();
    }

    /// The runner is told to start something.
    fn run(&mut self, uuid: ContainerUuid, attempt: Attempt, id: &InstanceId, granted: Resources) {
        let records = self.config.records_placement;
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let refused = if records {
            machine
                .marks
                .get(&uuid)
                .is_some_and(|mark| *mark >= attempt)
        } else {
            machine.processes.contains_key(&uuid)
        };
        if refused {
            return;
        }
        machine.marks.insert(uuid, attempt);
        machine.processes.insert(uuid, (attempt, granted));
        let used: Resources = machine.processes.values().map(|(_, r)| *r).sum();
        assert!(
            used.fits_in(&machine.capacity),
            "{id} runs more than it holds"
        );
        let copies = self
            .machines
            .values()
            .filter(|m| m.processes.contains_key(&uuid))
            .count();
        assert_eq!(copies, 1, "{uuid} runs {copies} times");
        if !records {
            self.change(uuid, |c| {
                if c.state == ContainerState::Locked {
                    c.state = ContainerState::Running;
                }
            });
        }
    }

    fn has_process(&self, uuid: ContainerUuid) -> bool {
        self.machines
            .values()
            .any(|m| m.processes.contains_key(&uuid))
            || self
                .ops
                .iter()
                .any(|op| matches!(op, Op::Start(u, ..) if *u == uuid))
    }

    fn settle(&mut self, op: Op, well: bool) {
        match op {
            Op::Call(action) => self.answer(&action, well),
            Op::Report(uuid, next) => {
                self.calling.remove(&uuid);
                if well {
                    self.change(uuid, |c| {
                        if c.state.can_become(next) || c.state == ContainerState::Locked {
                            c.state = next;
                        }
                    });
                }
                self.tell(uuid);
                self.report();
            }
            Op::Start(uuid, attempt, id, granted) => {
                if well {
                    self.run(uuid, attempt, &id, granted);
                }
                if let Some(machine) = self.machines.get_mut(&id) {
                    machine.known.remove(&uuid);
                    if self.config.records_placement || machine.processes.contains_key(&uuid) {
                        self.probe(&id);
                    } else {
                        self.tell_worker(&id);
                    }
                    if well {
                        self.give_back_spent(uuid, attempt, &id);
                    }
                }
            }
            Op::Kill(uuid, attempt, id, only_unstarted) => {
                let records = self.config.records_placement;
                if let Some(machine) = self.machines.get_mut(&id) {
                    // It counts only once the start is settled.
                    let starting = self
                        .ops
                        .iter()
                        .any(|op| matches!(op, Op::Start(u, ..) if *u == uuid));
                    if !well || starting {
                        self.ops.push(Op::Kill(uuid, attempt, id, only_unstarted));
                        return;
                    }
                    let mark = machine.marks.entry(uuid).or_default();
                    *mark = (*mark).max(attempt);
                    if !only_unstarted
                        && let Some((attempt, _)) = machine.processes.remove(&uuid)
                        && records
                    {
                        machine.results.insert(uuid, (attempt, ExitCause::Killed));
                    }
                    machine.known.remove(&uuid);
                    self.probe(&id);
                }
            }
        }
    }

    /// What the composer does about a start that the runner refused because it knows the attempt,
    /// of which nothing is left there: it can never run.
    fn give_back_spent(&mut self, uuid: ContainerUuid, attempt: Attempt, id: &InstanceId) {
        let known = &self.machines[id].known;
        let locked = self
            .containers
            .get(&uuid)
            .is_some_and(|c| c.state == ContainerState::Locked && c.attempt() == attempt);
        let spent = self.config.records_placement && !known.contains_key(&uuid);
        if locked && spent && self.calling.insert(uuid) {
            self.tell(uuid);
            self.ops.push(Op::Call(Action::Unlock { uuid }));
        }
    }

    fn answer(&mut self, action: &Action, well: bool) {
        let uuid = action.uuid().unwrap();
        self.calling.remove(&uuid);
        if !well {
            self.tell(uuid);
            self.core
                .action_failed(action, "the controller said no", self.now);
            return;
        }
        let finish = if matches!(self.containers.get(&uuid), Some(c) if c.state == ContainerState::Running && !self.config.records_placement)
        {
            ContainerState::Cancelled
        } else {
            ContainerState::Queued
        };
        let action = action.clone();
        self.change(uuid, |c| match action {
            Action::Lock { .. } if c.state == ContainerState::Queued && c.priority > 0 => {
                c.state = ContainerState::Locked;
                c.locked_by_us = true;
                c.lock_count += 1;
                c.placed_on = None;
            }
            Action::Place { instance, .. } if c.state == ContainerState::Locked => {
                assert_eq!(c.placed_on, None, "a place is recorded once");
                c.placed_on = Some(instance);
            }
            Action::Unlock { .. } | Action::Lost { .. } if !c.state.is_final() => {
                c.state = finish;
                c.locked_by_us = false;
                c.placed_on = None;
            }
            Action::Cancel { .. } => c.state = ContainerState::Cancelled,
            _ => {}
        });
        self.tell(uuid);
    }

    pub(crate) fn drain(&mut self) {
        let mut emitted = 0;
        while let Some(action) = self.core.poll_action(self.now) {
            self.core.check_invariants().unwrap();
            emitted += 1;
            assert!(emitted < 1000, "it never ends: {action:?}");
            self.perform(action);
        }
        self.actions += emitted;
        self.core.check_invariants().unwrap();
        assert_eq!(self.core.poll_action(self.now), None, "no fixed point");
        for uuid in self.containers.keys() {
            assert!(
                self.core.reason(*uuid, self.now).is_some(),
                "{uuid} has no reason"
            );
        }
    }

    fn kill(&mut self, action: &Action) {
        let Action::Kill {
            only_unstarted,
            uuid,
            attempt,
            instance,
            ..
        } = action
        else {
            return;
        };
        let only_unstarted = *only_unstarted;
        let (uuid, attempt, instance) = (*uuid, *attempt, instance.clone());
        let final_or_unwanted = self.containers.get(&uuid).is_none_or(|c| {
            c.state == ContainerState::Queued
                || c.state.is_final()
                || c.priority < 1
                || c.attempt() != attempt
        });
        assert!(
            only_unstarted || final_or_unwanted,
            "{action:?} of what should run"
        );
        let machine = self.machines.get_mut(&instance).unwrap();
        let unseen = match only_unstarted {
            true => machine.capacity,
            false => Resources::NONE,
        };
        let granted = machine.known.get(&uuid).map_or(unseen, |k| k.granted);
        machine.known.insert(
            uuid,
            Known {
                attempt,
                phase: match only_unstarted {
                    true => HeldPhase::Starting,
                    false => HeldPhase::Killing,
                },
                granted,
            },
        );
        self.ops
            .push(Op::Kill(uuid, attempt, instance.clone(), only_unstarted));
        self.tell_worker(&instance);
    }

    fn perform(&mut self, action: Action) {
        match &action {
            Action::Lock { uuid, .. }
            | Action::Place { uuid, .. }
            | Action::Unlock { uuid }
            | Action::Lost { uuid, .. }
            | Action::Cancel { uuid, .. } => {
                if !matches!(action, Action::Lock { .. } | Action::Place { .. }) {
                    assert!(!self.has_process(*uuid), "{action:?}, but it runs");
                }
                assert!(self.calling.insert(*uuid), "two calls about {uuid}");
                self.tell(*uuid);
                self.ops.push(Op::Call(action));
            }
            Action::Start {
                uuid,
                attempt,
                instance,
                resources,
            } => {
                let (uuid, attempt, resources) = (*uuid, *attempt, *resources);
                let elsewhere = |(id, m): (&InstanceId, &Machine)| {
                    id != instance && m.processes.contains_key(&uuid)
                };
                assert!(
                    !self.machines.iter().any(elsewhere),
                    "{action:?}, but it runs elsewhere"
                );
                let machine = self
                    .machines
                    .get_mut(instance)
                    .expect("a start on what exists");
                assert!(machine.ready && machine.behavior == IdleBehavior::Run);
                machine.known.insert(
                    uuid,
                    Known {
                        attempt,
                        phase: HeldPhase::Starting,
                        granted: resources,
                    },
                );
                let used: Resources = machine.known.values().map(|k| k.granted).sum();
                assert!(used.fits_in(&machine.capacity), "{action:?} is too much");
                let instance = instance.clone();
                self.ops
                    .push(Op::Start(uuid, attempt, instance.clone(), resources));
                self.tell_worker(&instance);
            }
            Action::Kill { .. } => self.kill(&action),
            Action::Forget { uuid } => {
                assert!(!self.has_process(*uuid), "{action:?}, but it runs");
                self.core.remove_entry(*uuid, self.now);
                let c = self.containers.remove(uuid).unwrap();
                assert!(c.state.is_final() || c.priority < 1);
            }
            Action::Acknowledge { uuid, instance, .. } => {
                let machine = self.machines.get_mut(instance).unwrap();
                machine.results.remove(uuid);
                machine.known.remove(uuid);
                self.tell_worker(&instance.clone());
            }
            Action::Create { type_name } => self.create(&action, type_name),
            Action::GiveBack { instance } => {
                let machine = self.machines.remove(instance).unwrap();
                assert!(machine.processes.is_empty() && machine.results.is_empty());
                self.core.remove_worker(instance, self.now);
                self.tell_limits();
            }
        }
    }

    fn create(&mut self, action: &Action, type_name: &TypeName) {
        if self.machines.len() + self.pendings.len() >= self.quota {
            self.core.action_failed(action, "quota", self.now);
            self.tell_limits();
            return;
        }
        self.next += 1;
        let t = self
            .config
            .types
            .iter()
            .find(|t| t.name == *type_name)
            .unwrap();
        let view = PendingView {
            id: u64::from(self.next),
            type_name: type_name.clone(),
            capacity: t.resources(),
        };
        self.pendings.insert(view.id, view.clone());
        self.core.upsert_pending(view, self.now);
        self.tell_limits();
    }

    /// How much the core keeps of each kind.
    pub(crate) fn sizes(&self) -> Vec<(&'static str, usize)> {
        self.core.sizes()
    }

    /// What has ended takes no room: only what is known of instances is kept.
    fn nothing_is_left_of_containers(&self) {
        let of_instances = [
            "workers",
            "worker names",
            "workers by probe",
            "changed workers",
            "slots",
            "slots to be put into the index",
            "pending instances",
            "remembered instances",
        ];
        let kept = self.core.sizes().into_iter().filter(|(_, size)| *size > 0);
        let left: Vec<_> = kept.filter(|(w, _)| !of_instances.contains(w)).collect();
        assert!(left.is_empty(), "{left:?} are left");
    }

    /// Everything goes well from now on; whatever can end has to.
    pub(crate) fn finish(&mut self) {
        for id in self.machines.keys().cloned().collect::<Vec<_>>() {
            self.machines.get_mut(&id).unwrap().behavior = IdleBehavior::Run;
            self.tell_worker(&id);
        }
        self.step(&Step::Quota { instances: 4 });
        for _ in 0..400 {
            while !self.ops.is_empty() {
                self.step(&Step::Settle {
                    which: 0,
                    well: true,
                });
            }
            self.step(&Step::Boot { which: 0 });
            for which in 0..self.machines.len() {
                self.step(&Step::Probe { which });
            }
            self.step(&Step::Exit {
                which: 0,
                badly: false,
            });
            for which in 0..self.machines.len() {
                self.step(&Step::Probe { which });
            }
            self.step(&Step::Refresh);
            self.step(&Step::Wait { seconds: 20 });
            if self.containers.is_empty() && self.ops.is_empty() {
                self.nothing_is_left_of_containers();
                return;
            }
        }
        let stuck: Vec<String> = self
            .containers
            .values()
            .map(|c| {
                let why = self.core.reason(c.uuid, self.now);
                format!("{} {} #{}: {why:?}", c.uuid, c.state, c.lock_count)
            })
            .collect();
        panic!("stuck: {stuck:#?}");
    }
}
