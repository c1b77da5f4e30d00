//! A cloud of machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_cloud::{CreateRequest, ErrorKind, Instance, InstanceState, Tags};
use longshore_pool::{CloudFailure, EffectAction, Host, HostFailure, Outcome, StartOutcome};
use longshore_runner_api::command::ReportOptions;
use longshore_types::{Attempt, ContainerUuid, ExitCause, InstanceId, Instant};

use super::machine::{Machine, Supervision, unknown_outcome};
use super::random::Random;

const QUOTA: usize = 4;

/// What a cloud and its machines do that they should not.
#[derive(Debug, Default)]
pub(crate) struct Habits {
    /// Every create fails, and so.
    pub(crate) refuses: Option<(ErrorKind, &'static str)>,
    /// Machines do not come to answer.
    pub(crate) never_boots: bool,
    /// Nothing can be started on machines, and this is what they say.
    pub(crate) starts_nothing: Option<&'static str>,
    /// The list of machines cannot be read.
    pub(crate) lists_nothing: bool,
    /// Containers run for a day.
    pub(crate) runs_long: bool,
}

#[derive(Debug)]
struct Vm {
    instance: Instance,
    boots_at: Instant,
    machine: Machine,
}

#[derive(Debug, Default)]
pub(crate) struct Cloud {
    vms: BTreeMap<InstanceId, Vm>,
    by_token: BTreeMap<String, InstanceId>,
    pub(crate) made: u64,
    pub(crate) habits: Habits,
    /// Every process that was ever started: which attempt, where.
    pub(crate) started: BTreeSet<(ContainerUuid, Attempt)>,
}

impl Cloud {
    pub(crate) fn is_empty(&self) -> bool {
        self.vms.is_empty()
    }

    pub(crate) fn starts_of(&self, uuid: ContainerUuid) -> usize {
        self.started
            .iter()
            .filter(|(started, _)| *started == uuid)
            .count()
    }

    /// Has every runner refuse an attempt.
    pub(crate) fn refuse(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        for vm in self.vms.values_mut() {
            vm.machine.marks.insert(uuid, attempt);
        }
    }

    pub(crate) fn next_change(&self) -> Option<Instant> {
        self.vms
            .values()
            .filter_map(|vm| vm.machine.next_end())
            .min()
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        for vm in self.vms.values_mut() {
            vm.machine.advance(now);
        }
    }

    pub(crate) fn is_unchanged(&self, host: &Host, options: &ReportOptions) -> bool {
        self.vms.get(&host.instance).is_some_and(|vm| {
            vm.machine.deployed
                && options.acks.is_empty()
                && vm.machine.report().digest == options.known
        })
    }

    /// The answer to a long poll that has ended.
    pub(crate) fn report(&self, action: &EffectAction) -> Outcome {
        let EffectAction::Report(host, _) = action else {
            return unknown_outcome(action);
        };
        match self.vms.get(&host.instance) {
            Some(vm) => Outcome::Reported(Ok(vm.machine.report())),
            None => Outcome::Reported(Err(unreachable_host())),
        }
    }

    pub(crate) fn perform(
        &mut self,
        action: &EffectAction,
        now: Instant,
        random: &mut Random,
    ) -> Result<Outcome, String> {
        Ok(match action {
            EffectAction::Create(request) => self.create(request, now, random),
            EffectAction::List(_) if self.habits.lists_nothing => {
                Outcome::Listed(Err(failure(ErrorKind::Other, "the list is out of order")))
            }
            EffectAction::List(tags) => Outcome::listed(self.list(tags)),
            EffectAction::Destroy(ids) => {
                for id in ids {
                    self.vms.remove(id);
                }
                Outcome::Destroyed(ids.iter().map(|id| (id.clone(), Ok(()))).collect())
            }
            EffectAction::SetTags(id, tags) => {
                if let Some(vm) = self.vms.get_mut(id) {
                    vm.instance.tags.extend(tags.clone());
                }
                Outcome::TagsSet(Ok(()))
            }
            EffectAction::Console(..) => Outcome::Console(Ok(Vec::new())),
            EffectAction::Disconnect(_) => Outcome::Disconnected,
            on_host => return self.on_host(on_host, now, random),
        })
    }

    fn create(&mut self, request: &CreateRequest, now: Instant, random: &mut Random) -> Outcome {
        if let Some(vm) = self
            .by_token
            .get(&request.token)
            .and_then(|id| self.vms.get(id))
        {
            return Outcome::Created(Ok(Box::new(vm.instance.clone())));
        }
        if let Some((kind, error)) = &self.habits.refuses {
            return Outcome::Created(Err(failure(kind.clone(), error)));
        }
        if self.vms.len() == QUOTA {
            let kind = ErrorKind::QuotaExceeded(longshore_cloud::Scope::Everything);
            return Outcome::Created(Err(failure(kind, "quota")));
        }
        self.made += 1;
        let id = InstanceId::new(format!("i-{}", self.made));
        let provider_type = request.instance_type.provider_type.clone();
        let tags = request.tags.clone();
        let mut instance = Instance::new(id.clone(), provider_type, InstanceState::Running, tags);
        instance.address = Some(format!("10.0.0.{}", self.made));
        self.by_token.insert(request.token.clone(), id.clone());
        let boots_at = now + Duration::from_secs(5 + random.below(20));
        let vm = Vm {
            instance: instance.clone(),
            boots_at,
            machine: Machine::default(),
        };
        self.vms.insert(id, vm);
        Outcome::Created(Ok(Box::new(instance)))
    }

    fn list(&self, tags: &Tags) -> Vec<Instance> {
        let ours = self.vms.values().filter(|vm| vm.instance.has_tags(tags));
        ours.map(|vm| vm.instance.clone()).collect()
    }

    fn on_host(
        &mut self,
        action: &EffectAction,
        now: Instant,
        random: &mut Random,
    ) -> Result<Outcome, String> {
        let never = self.habits.never_boots;
        let booted = |vm: &&mut Vm| vm.boots_at <= now && !never;
        let id = action.host().map(|host| host.instance.clone());
        let elsewhere = match action {
            EffectAction::Start { uuid, .. } => self.where_it_runs(*uuid),
            _ => None,
        };
        let Some(vm) = id
            .as_ref()
            .and_then(|id| self.vms.get_mut(id))
            .filter(booted)
        else {
            return Ok(not_reached(action));
        };
        Ok(match action {
            EffectAction::Boot(_) => Outcome::Booted(Ok(())),
            EffectAction::Deploy(..) => {
                vm.machine.deployed = true;
                Outcome::Deployed(Ok(()))
            }
            EffectAction::Report(_, options) => {
                if !vm.machine.deployed {
                    return Ok(Outcome::Reported(Err(HostFailure {
                        unreachable: false,
                        ours: false,
                        error: "no runner".into(),
                    })));
                }
                vm.machine.acknowledge(&options.acks);
                Outcome::Reported(Ok(vm.machine.report()))
            }
            EffectAction::Start { .. } if self.habits.starts_nothing.is_some() => {
                let error = self.habits.starts_nothing.unwrap_or_default().into();
                Outcome::Started(StartOutcome::NotStarted { error })
            }
            EffectAction::Start { uuid, attempt, .. } => {
                let mut duration = Duration::from_millis(100 + random.below(60_000));
                if self.habits.runs_long {
                    duration = Duration::from_secs(24 * 3600);
                }
                let outcome = vm.machine.start(*uuid, *attempt, duration, now);
                if outcome == StartOutcome::Started {
                    if let Some(other) = elsewhere {
                        return Err(format!("{uuid} runs on {other} and was started on {id:?}"));
                    }
                    if !self.started.insert((*uuid, *attempt)) {
                        return Err(format!("attempt {attempt} of {uuid} was started twice"));
                    }
                }
                Outcome::Started(outcome)
            }
            EffectAction::Kill {
                uuid,
                attempt,
                signal: 0,
                ..
            } => Outcome::Killed(vm.machine.withdraw(*uuid, *attempt)),
            EffectAction::Kill { uuid, attempt, .. } => {
                Outcome::Killed(vm.machine.kill(*uuid, *attempt, now))
            }
            EffectAction::Collect { .. } => Outcome::Collected(Ok(())),
            other => unknown_outcome(other),
        })
    }

    fn where_it_runs(&self, uuid: ContainerUuid) -> Option<InstanceId> {
        let running = self.vms.iter().find(|(_, vm)| vm.machine.runs(uuid));
        running.map(|(id, _)| id.clone())
    }

    pub(crate) fn lose_an_instance(&mut self, random: &mut Random) {
        let nth = usize::try_from(random.below(self.vms.len() as u64)).unwrap();
        if let Some(id) = self.vms.keys().nth(nth).cloned() {
            self.vms.remove(&id);
        }
    }

    pub(crate) fn lose_a_supervisor(&mut self, random: &mut Random) {
        let running = self
            .vms
            .values_mut()
            .flat_map(|vm| vm.machine.containers.values_mut());
        let mut running: Vec<_> = running
            .filter(|c| !matches!(c.state, Supervision::Finished(_)))
            .collect();
        let nth = usize::try_from(random.below(running.len() as u64)).unwrap();
        if let Some(container) = running.get_mut(nth) {
            container.state = Supervision::Finished(ExitCause::SupervisorLost);
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!("{:#?}", self.vms)
    }
}

fn failure(kind: ErrorKind, error: &str) -> CloudFailure {
    CloudFailure {
        kind,
        may_have_acted: false,
        error: error.into(),
    }
}

fn unreachable_host() -> HostFailure {
    HostFailure {
        unreachable: true,
        ours: false,
        error: "no route".into(),
    }
}

/// A command that surely did not run, since nobody answers there.
fn not_reached(action: &EffectAction) -> Outcome {
    match action {
        EffectAction::Boot(_) => Outcome::Booted(Err(unreachable_host())),
        EffectAction::Deploy(..) => Outcome::Deployed(Err(unreachable_host())),
        EffectAction::Report(..) => Outcome::Reported(Err(unreachable_host())),
        EffectAction::Collect { .. } => Outcome::Collected(Err(unreachable_host())),
        other => unknown_outcome(other),
    }
}
