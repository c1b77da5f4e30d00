//! Calls to the provider, and what instances there are.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_cloud::{CloudError, CreateRequest, Outcome as CloudOutcome};
use longshore_fakecloud::{Call, FakeInstance, Happening as Life, Reply};
use longshore_pool::{CloudFailure, Effect, EffectAction, Outcome as PoolOutcome};
use longshore_types::{ExitCause, InstanceId, Instant, Resources};

use super::{Asker, Event, World};
use crate::machine::{Heard, Machine};
use crate::runner::Runner;
use crate::scenario::ControllerShape;
use crate::story::{About, Happening};
use crate::{FaultKind, Rule};

/// Instances that were made so shortly before a dispatcher began may be missing in its first
/// listing.
const LISTING_LAG: Duration = Duration::from_secs(60);

impl World {
    /// Makes instances that are not the dispatcher's, some of them with tags like its own.
    pub(super) fn plant_others(&mut self, count: usize) {
        let keys = self.config.pool.tag_keys.clone();
        for n in 0..count {
            let Some(instance_type) = self.config.pool.types.first().cloned() else {
                return;
            };
            let mut request = CreateRequest::new(instance_type, format!("others-{n}"));
            request.tags.insert("Owner".into(), "others".into());
            if n % 2 == 0 {
                request.tags.insert(keys.set_id.clone(), "others".into());
                request
                    .tags
                    .insert(keys.idle_behavior.clone(), "drain".into());
            }
            let timeout = Duration::from_secs(600);
            self.cloud
                .handle_call(Call::Create(request), timeout, self.now);
        }
        while self.cloud.instances().count() < count {
            let Some(next) = self.cloud.poll_timeout() else {
                break;
            };
            self.cloud.handle_timeout(next);
        }
        let ids: Vec<InstanceId> = self.cloud.instances().map(|i| i.id.clone()).collect();
        self.witness.others.extend(ids);
    }

    /// A call to the provider begins.
    pub(super) fn call(&mut self, effect: &Effect) {
        let call = match &effect.action {
            EffectAction::Create(request) => {
                self.tokens.insert(request.token.clone(), self.life);
                self.creates_open += 1;
                self.check_creates();
                Call::Create((**request).clone())
            }
            EffectAction::List(tags) => Call::List(tags.clone()),
            EffectAction::Destroy(ids) => {
                self.judge_destroy(ids);
                if self.strikes(FaultKind::DestroyIgnored) {
                    self.ignore_destroy(effect, ids);
                    return;
                }
                Call::Destroy(ids.clone())
            }
            EffectAction::SetTags(id, tags) => {
                self.witness.touched(id, "change of tags");
                Call::SetTags(vec![(id.clone(), tags.clone())])
            }
            EffectAction::Console(id, limit) => Call::Console(id.clone(), *limit),
            _ => return,
        };
        let about = super::dispatcher::about_action(&effect.action);
        let id = self.cloud.handle_call(call, effect.timeout, self.now);
        self.calls.insert(id, (self.life, effect.id, about));
        self.look_at_instances();
    }

    /// The provider accepts a destroy and does nothing.
    fn ignore_destroy(&mut self, effect: &Effect, ids: &[InstanceId]) {
        let asker = Asker::of(self.life, effect);
        self.fault(FaultKind::DestroyIgnored, asker.about.clone());
        let accepted = ids.iter().map(|id| (id.clone(), Ok(()))).collect();
        let at = self.now + Duration::from_millis(100);
        self.answer(at, asker, PoolOutcome::Destroyed(accepted));
    }

    /// The provider's replies set out for the dispatcher.
    pub(super) fn take_replies(&mut self) {
        while let Some((call, reply)) = self.cloud.poll_reply() {
            let Some((life, id, about)) = self.calls.remove(&call) else {
                continue;
            };
            let outcome = match reply {
                Reply::Created(made) => {
                    PoolOutcome::Created(made.map(Box::new).map_err(|e| failure(&e)))
                }
                Reply::Listed(listed) => PoolOutcome::Listed(listed.map_err(|e| failure(&e))),
                Reply::Destroyed(results) => PoolOutcome::Destroyed(
                    results
                        .into_iter()
                        .map(|(id, result)| (id, result.map_err(|e| failure(&e))))
                        .collect(),
                ),
                Reply::Tagged(results) => {
                    let first = results.into_iter().next().map(|(_, result)| result);
                    PoolOutcome::TagsSet(first.unwrap_or(Ok(())).map_err(|e| failure(&e)))
                }
                Reply::Console(printed) => PoolOutcome::Console(printed.map_err(|e| failure(&e))),
                Reply::HostKey(_) | Reply::Prices(_) | Reply::Interruptions(_) => continue,
            };
            self.hear(Event::Outcome(life, id, Box::new(outcome), about));
        }
    }

    /// Takes note of instances that appeared or went, of which the cloud's log tells.
    pub(super) fn look_at_instances(&mut self) {
        let mut touched = BTreeSet::new();
        while let Some(event) = self.cloud.poll_event() {
            match event.what {
                Life::Born(id, ..)
                | Life::Stopping(id, _)
                | Life::Gone(id)
                | Life::Vanished(id)
                | Life::CameBack(id) => {
                    touched.insert(id);
                }
                _ => {}
            }
        }
        for id in touched {
            self.look_at_instance(&id);
        }
    }

    fn look_at_instance(&mut self, id: &InstanceId) {
        if self.witness.others.contains(id) {
            return;
        }
        let instance = self.cloud.instance(id);
        let is_there = |i: &&FakeInstance| i.gone.is_none() && i.vanished.is_none();
        match instance.filter(is_there) {
            Some(instance) if !self.machines.contains_key(id) => {
                let instance = instance.clone();
                self.instance_made(&instance);
            }
            None if self.machines.contains_key(id) => self.machine_gone(id),
            _ => {}
        }
        self.count_instance(id);
    }

    /// Counts an instance if the limit on instances is to be kept with it.
    fn count_instance(&mut self, id: &InstanceId) {
        if self.is_counted(id) {
            self.counted.insert(id.clone());
            self.check_instances();
        } else {
            self.counted.remove(id);
        }
    }

    /// Whether the limit on instances is to be kept with an instance.
    pub(super) fn is_counted(&self, id: &InstanceId) -> bool {
        let live = self.cloud.instance(id).is_some_and(FakeInstance::is_live);
        live && self.machines.contains_key(id) && !self.excused.contains(id)
    }

    /// The limit on instances need not be kept with these.
    pub(super) fn excuse(&mut self, ids: Vec<InstanceId>) {
        for id in ids {
            self.counted.remove(&id);
            self.excused.insert(id);
        }
    }

    fn instance_made(&mut self, instance: &FakeInstance) {
        let types = &self.config.pool.types;
        let capacity = types
            .iter()
            .find(|t| t.name == instance.type_name)
            .map_or(Resources::NONE, longshore_types::InstanceType::resources);
        let mut machine = Machine::new(instance.id.clone(), capacity, instance.born);
        machine.runner.has_cgroups = self.random.percent(60);
        machine.runner.forgets = self.shape == ControllerShape::Bare;
        if let Some(disk) = self.disks.remove(&instance.id) {
            self.come_back(&mut machine, disk);
        }
        if self.strikes(FaultKind::DiskFull) {
            self.fault(FaultKind::DiskFull, About::instance(&instance.id));
            machine.condition.no_runner = self.now + self.random.seconds(30, 600);
        }
        self.machines.insert(instance.id.clone(), machine);
        self.outcome.instances += 1;
        self.tell(Happening::Instance(instance.id.clone(), "is made"));
        let asked_by = self.tokens.get(&instance.token).copied();
        if asked_by != Some(self.life) || self.core.is_none() {
            self.excused.insert(instance.id.clone());
        }
    }

    /// An instance that was gone runs again, with the disk that it had.
    fn come_back(&mut self, machine: &mut Machine, disk: Runner) {
        machine.runner = disk;
        machine.deployed = true;
        machine.troubled = true;
        machine.born = self.now;
        machine.idle_since = self.now;
        machine.heard = Heard::new(self.now);
        self.excused.insert(machine.id.clone());
    }

    /// Excuses the instances that a new dispatcher's first listing may miss.
    pub(super) fn excuse_recent(&mut self, since: Instant) {
        let recent: Vec<InstanceId> = self
            .machines
            .values()
            .filter(|machine| machine.born + LISTING_LAG >= since)
            .map(|machine| machine.id.clone())
            .collect();
        self.excuse(recent);
    }

    fn machine_gone(&mut self, id: &InstanceId) {
        let now = self.now;
        let Some(mut machine) = self.machines.remove(id) else {
            return;
        };
        if !self.witness.is_busy(id) {
            machine.idle_time += now.since(machine.idle_since);
        }
        for (uuid, attempt) in machine.runner.processes() {
            let lost = ExitCause::InstanceLost;
            self.witness.process_ended(uuid, attempt, &lost);
            if !machine.comes_back {
                self.note_loss(id, uuid);
            }
            self.tell(Happening::ProcessEnded(About::on(id, uuid, attempt), lost));
        }
        self.witness.instance_gone(id);
        self.tell(Happening::Instance(id.clone(), "is gone"));
        self.bill(&machine);
        for poll in std::mem::take(&mut machine.polls) {
            self.lose_poll(id, &poll);
        }
        for stuck in machine.stuck {
            self.lose(stuck.life, &stuck.effect, stuck.deadline);
        }
        self.excused.remove(id);
        machine.runner.reboot();
        self.disks.insert(id.clone(), machine.runner);
    }

    /// Adds what an instance has cost.
    pub(super) fn bill(&mut self, machine: &Machine) {
        let Some(instance) = self.cloud.instance(&machine.id) else {
            return;
        };
        let until = instance.gone.unwrap_or(self.now);
        let time = until.since(instance.born);
        self.outcome.instance_time += time;
        let idle = machine.idle_time.min(time);
        let booting = instance.booted.unwrap_or(until).since(instance.born);
        self.outcome.idle_time += idle;
        self.outcome.boot_time += booting.min(idle);
        let cost_of = |time: Duration| instance.price.units() * time.as_secs_f64() / 3600.0;
        self.outcome.cost += cost_of(time);
        self.outcome.idle_cost += cost_of(idle);
    }

    pub(super) fn check_creates(&mut self) {
        let most = self.config.pool.max_creates_in_flight;
        if most > 0 && self.creates_open > most {
            let what = format!("{} creates, {most} are allowed", self.creates_open);
            self.witness.find(Rule::TooManyCreates, &[], what);
        }
    }

    pub(super) fn check_instances(&mut self) {
        let (most, live) = (self.config.pool.max_instances, self.counted.len());
        if most > 0 && live > most {
            let about: Vec<String> = self.machines.keys().map(ToString::to_string).collect();
            let what = format!("{live} instances, {most} are allowed");
            self.witness.find(Rule::TooManyInstances, &about, what);
        }
    }

    /// Whether commands get through to a machine that is known under this address.
    pub(super) fn answers_at(&self, id: &InstanceId, address: &str) -> bool {
        let Some(instance) = self.cloud.instance(id) else {
            return false;
        };
        let same = instance.address.as_deref().is_some_and(|known| {
            address == known
                || address
                    .strip_prefix(known)
                    .is_some_and(|rest| rest.starts_with(':'))
        });
        let off = self.machines.get(id).is_some_and(|machine| machine.is_off);
        same && !off && instance.booted.is_some() && instance.gone.is_none()
    }

    /// Whoever waits for an effect hears at its deadline that nobody knows.
    pub(super) fn lose(&mut self, life: u32, effect: &Effect, at: Instant) {
        let lost = effect.action.lost("no answer in time");
        self.answer(at.max(self.now), Asker::of(life, effect), lost);
    }
}

fn failure(error: &CloudError) -> CloudFailure {
    CloudFailure {
        kind: error.kind.clone(),
        may_have_acted: error.outcome() == CloudOutcome::Unknown,
        error: error.chain(),
    }
}
