//! Commands on machines.

use std::time::Duration;

use longshore_dispatch::Effect;
use longshore_pool::{
    Effect as PoolEffect, EffectAction, EffectId, HostFailure, KillOutcome, Outcome as PoolOutcome,
    StartOutcome,
};
use longshore_runner_api::command::ReportOptions;
use longshore_types::{Attempt, ContainerUuid, ExitCause, InstanceId};

use super::{Arrival, Asker, Event, Waiting, World, dispatcher};
use crate::machine::{Poll, Stuck};
use crate::runner::{Killed, Plan, Started};
use crate::story::{About, Happening};
use crate::{FaultKind, Rule};

/// How long a kill waits for the end.
const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// Output comes home at so many bytes a second.
const BYTES_PER_SECOND: u64 = 50_000_000;

impl World {
    /// A command sets out for its machine.
    pub(super) fn command(&mut self, effect: PoolEffect) {
        let about = dispatcher::about_action(&effect.action);
        let Some(host) = effect.action.host() else {
            let asker = Asker::of(self.life, &effect);
            self.answer(self.now, asker, PoolOutcome::Disconnected);
            return;
        };
        let instance = host.instance.clone();
        self.witness.touched(&instance, "command");
        let deadline = self.now + effect.timeout;
        if let EffectAction::Start { uuid, .. } = effect.action
            && let Some(machine) = self.machines.get_mut(&instance)
        {
            machine.place(uuid);
        }
        if self.strikes(FaultKind::CommandLost) {
            self.fault(FaultKind::CommandLost, about);
            self.lose(self.life, &effect, deadline);
            return;
        }
        let mut delay = self.random.millis(1, 30);
        let mut answered = true;
        if self.is_slow(&instance) {
            delay = self.random.seconds(1, 45);
        }
        if self.strikes(FaultKind::CommandLate) {
            self.fault(FaultKind::CommandLate, about.clone());
            self.trouble(&instance);
            delay = self.random.seconds(1, 120);
        }
        if let EffectAction::Start { uuid, attempt, .. } = effect.action {
            self.witness.start_sent(uuid, attempt);
            if self.strikes(FaultKind::DiskStall) {
                self.fault(FaultKind::DiskStall, about.clone());
                self.trouble(&instance);
                delay = self.random.seconds(1, 600);
            }
        }
        if self.strikes(FaultKind::AnswerLost) {
            self.fault(FaultKind::AnswerLost, about);
            answered = false;
        }
        if !answered || self.now + delay >= deadline {
            answered = false;
            self.lose(self.life, &effect, deadline);
        }
        let waiting = Waiting {
            life: self.life,
            deadline,
            answered,
        };
        let arrival = Arrival {
            effect: Effect::Pool(effect),
            waiting,
        };
        self.schedule(delay, Event::Arrive(Box::new(arrival)));
    }

    fn is_slow(&self, instance: &InstanceId) -> bool {
        let machine = self.machines.get(instance);
        machine.is_some_and(|machine| machine.condition.slow > self.now)
    }

    pub(super) fn trouble(&mut self, instance: &InstanceId) {
        if let Some(machine) = self.machines.get_mut(instance) {
            machine.troubled = true;
        }
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) {
        match arrival.effect {
            Effect::Queue(request) => self.answer_request(arrival.waiting, &request),
            Effect::Pool(effect) => self.reach(arrival.waiting, effect),
        }
    }

    /// A command reaches its machine, or not.
    fn reach(&mut self, waiting: Waiting, effect: PoolEffect) {
        let Some(host) = effect.action.host() else {
            return;
        };
        let now = self.now;
        let there = self.answers_at(&host.instance, &host.address);
        let machine = self.machines.get_mut(&host.instance).filter(|_| there);
        let Some(machine) = machine.filter(|machine| machine.condition.unreachable <= now) else {
            let slow = self.random.percent(50);
            let at = if slow {
                waiting.deadline
            } else {
                now + Duration::from_millis(5)
            };
            if waiting.answered {
                let asker = Asker::of(waiting.life, &effect);
                self.answer(at, asker, not_reached(&effect.action));
            }
            return;
        };
        if machine.condition.hung > now {
            let at = machine.condition.hung;
            let id = machine.id.clone();
            if waiting.answered {
                self.lose(waiting.life, &effect, waiting.deadline);
            }
            if let Some(machine) = self.machines.get_mut(&id) {
                machine.stuck.push(Stuck {
                    life: waiting.life,
                    effect,
                    deadline: waiting.deadline,
                });
            }
            self.schedule_at(at, Event::Recover(id));
            return;
        }
        let mute = machine.condition.half_open > now;
        let id = host.instance.clone();
        if waiting.answered && mute {
            self.lose(waiting.life, &effect, waiting.deadline);
        }
        let answered = waiting.answered && !mute;
        let done = self.carry_out(
            &id,
            &effect,
            Waiting {
                answered,
                ..waiting
            },
        );
        if let Some((outcome, after)) = done
            && answered
        {
            let at = now + after + self.random.millis(1, 10);
            if at >= waiting.deadline {
                self.lose(waiting.life, &effect, waiting.deadline);
            } else {
                self.answer(at, Asker::of(waiting.life, &effect), outcome);
            }
        }
        self.answer_polls(&id);
    }

    /// What a machine has accepted while it hung it now carries out; nobody waits for it.
    pub(super) fn recover(&mut self, id: &InstanceId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        if machine.condition.hung > now {
            return;
        }
        for stuck in std::mem::take(&mut machine.stuck) {
            let waiting = Waiting {
                life: stuck.life,
                deadline: stuck.deadline,
                answered: false,
            };
            self.carry_out(id, &stuck.effect, waiting);
        }
        self.answer_polls(id);
    }

    /// Does what a command says; the answer, and how much later it comes.
    fn carry_out(
        &mut self,
        id: &InstanceId,
        effect: &PoolEffect,
        waiting: Waiting,
    ) -> Option<(PoolOutcome, Duration)> {
        let now = self.now;
        let machine = self.machines.get_mut(id)?;
        let at_once = |outcome| Some((outcome, Duration::ZERO));
        match &effect.action {
            EffectAction::Boot(_) => at_once(PoolOutcome::Booted(Ok(()))),
            EffectAction::Deploy(_) => {
                if machine.condition.no_runner > now {
                    return at_once(PoolOutcome::Deployed(Err(badly("no space left on device"))));
                }
                machine.deployed = true;
                Some((PoolOutcome::Deployed(Ok(())), Duration::from_millis(300)))
            }
            EffectAction::Report(_, options) => self.report(id, effect.id, options, waiting),
            EffectAction::Start { uuid, attempt, .. } => {
                at_once(PoolOutcome::Started(self.start(id, *uuid, *attempt)))
            }
            EffectAction::Kill { uuid, attempt, .. } => {
                let (outcome, after) = self.kill(id, *uuid, *attempt);
                Some((PoolOutcome::Killed(outcome), after))
            }
            EffectAction::Collect { stdout_bytes, .. } => {
                let millis = stdout_bytes * 1_000 / BYTES_PER_SECOND;
                let after = Duration::from_millis(millis);
                Some((PoolOutcome::Collected(Ok(())), after))
            }
            EffectAction::Create(_)
            | EffectAction::List(_)
            | EffectAction::Destroy(_)
            | EffectAction::SetTags(..)
            | EffectAction::Console(..)
            | EffectAction::Disconnect(_) => None,
        }
    }

    fn report(
        &mut self,
        id: &InstanceId,
        asked: EffectId,
        options: &ReportOptions,
        waiting: Waiting,
    ) -> Option<(PoolOutcome, Duration)> {
        let now = self.now;
        let machine = self.machines.get_mut(id)?;
        let failed = |why| Some((PoolOutcome::Reported(Err(badly(why))), Duration::ZERO));
        if !machine.deployed {
            return failed("no such file or directory");
        }
        machine.runner.acknowledge(&options.acks);
        if machine.floods {
            return failed("the report is longer than it may be");
        }
        if options.wait.is_zero() || machine.digest() != options.known {
            return Some((PoolOutcome::Reported(Ok(machine.report())), Duration::ZERO));
        }
        if waiting.answered {
            let until = now + options.wait;
            machine.polls.push(Poll {
                life: waiting.life,
                id: asked,
                known: options.known.clone(),
                until,
                deadline: waiting.deadline,
            });
            self.schedule_at(until, Event::PollDue(id.clone()));
        }
        None
    }

    fn start(&mut self, id: &InstanceId, uuid: ContainerUuid, attempt: Attempt) -> StartOutcome {
        let (now, wall) = (self.now, self.wall_time());
        let (runtime, needs) = match self.job(uuid) {
            Some(job) => (job.runtime, self.needs(uuid)),
            None => return not_started("no such job"),
        };
        let plan = Plan {
            ends_at: now + runtime,
            exit: ExitCause::Exited {
                code: i32::from(self.random.percent(5)),
            },
            term: (self.faultless || !self.random.percent(2)).then(|| self.random.millis(0, 5_000)),
            output_bytes: self.random.below(3) * 1_000_000,
        };
        let ends_at = plan.ends_at;
        let Some(machine) = self.machines.get_mut(id) else {
            return not_started("no such machine");
        };
        if !machine.deployed {
            return not_started("no such file or directory");
        }
        if machine.black_hole && !machine.runner.knows(uuid, attempt) {
            if attempt.0.is_multiple_of(2) {
                return not_started("cannot fork");
            }
            machine.runner.fail(uuid, attempt, wall);
            return StartOutcome::Started;
        }
        match machine.runner.start(uuid, attempt, plan, wall) {
            Started::Known => StartOutcome::KnownAttempt,
            Started::OlderRuns => not_started("an older attempt still runs"),
            Started::Yes => {
                let capacity = machine.capacity;
                if !self.witness.is_busy(id) {
                    machine.idle_time += now.since(machine.idle_since);
                }
                self.tell(Happening::ProcessStarted(About::on(id, uuid, attempt)));
                if self.controller.is_foreign(uuid) {
                    let what = format!("{uuid} starts, which another dispatcher has locked");
                    self.witness
                        .find(Rule::OthersTouched, &[uuid.to_string()], what);
                }
                self.witness
                    .process_started(uuid, attempt, id, needs, capacity, now);
                let due = Event::ProcessDue(id.clone(), uuid, attempt);
                self.schedule_at(ends_at, due);
                StartOutcome::Started
            }
        }
    }

    fn kill(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        attempt: Attempt,
    ) -> (KillOutcome, Duration) {
        let now = self.now;
        let record = self.controller.get(uuid);
        self.witness.killed(uuid, attempt, id, record);
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.deployed) else {
            let error = "no such file or directory".into();
            return (KillOutcome::Unknown { error }, Duration::ZERO);
        };
        match machine.runner.kill(uuid, attempt, now) {
            Killed::Gone => (KillOutcome::Gone, Duration::ZERO),
            Killed::Ignored => (KillOutcome::StillRuns, KILL_PATIENCE),
            Killed::EndsAt(at) => {
                self.schedule_at(at, Event::ProcessDue(id.clone(), uuid, attempt));
                if at <= now + KILL_PATIENCE {
                    (KillOutcome::Gone, at.since(now))
                } else {
                    (KillOutcome::StillRuns, KILL_PATIENCE)
                }
            }
        }
    }

    pub(super) fn process_due(&mut self, id: &InstanceId, uuid: ContainerUuid, attempt: Attempt) {
        let (now, wall) = (self.now, self.wall_time());
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let due = machine.runner.ends_at(uuid, attempt);
        if due.is_none_or(|at| at > now) {
            return;
        }
        if let Some(how) = machine.runner.process_ended(uuid, attempt, wall) {
            self.process_over(id, uuid, attempt, how);
            self.answer_polls(id);
        }
    }

    pub(super) fn process_over(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        attempt: Attempt,
        how: ExitCause,
    ) {
        self.witness.process_ended(uuid, attempt, &how);
        self.tell(Happening::ProcessEnded(About::on(id, uuid, attempt), how));
        let busy = self.witness.is_busy(id);
        if let Some(machine) = self.machines.get_mut(id)
            && !busy
        {
            machine.idle_since = self.now;
        }
    }

    /// Answers the reports that wait on a machine and need wait no longer.
    pub(super) fn answer_polls(&mut self, id: &InstanceId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let due = machine.due_polls(now);
        if due.is_empty() {
            return;
        }
        let condition = machine.condition;
        let mute = condition.half_open > now
            || condition.unreachable > now
            || condition.hung > now
            || !machine.deployed
            || machine.floods;
        let report = machine.report();
        for poll in due {
            if mute {
                self.lose_poll(id, &poll);
                continue;
            }
            let asker = Asker {
                life: poll.life,
                id: poll.id,
                about: About::instance(id),
            };
            let at = now + self.random.millis(1, 10);
            self.answer(at, asker, PoolOutcome::Reported(Ok(report.clone())));
        }
    }

    pub(super) fn lose_poll(&mut self, id: &InstanceId, poll: &Poll) {
        let asker = Asker {
            life: poll.life,
            id: poll.id,
            about: About::instance(id),
        };
        let lost = PoolOutcome::Reported(Err(badly("no answer in time")));
        self.answer(poll.deadline.max(self.now), asker, lost);
    }
}

/// What is known where a machine was not reached: that nothing was done there.
fn not_reached(action: &EffectAction) -> PoolOutcome {
    let failure = HostFailure {
        unreachable: true,
        error: "no route to host".into(),
    };
    match action {
        EffectAction::Boot(_) => PoolOutcome::Booted(Err(failure)),
        EffectAction::Deploy(_) => PoolOutcome::Deployed(Err(failure)),
        EffectAction::Report(..) => PoolOutcome::Reported(Err(failure)),
        EffectAction::Collect { .. } => PoolOutcome::Collected(Err(failure)),
        EffectAction::Start { .. } => PoolOutcome::Started(not_started("no route to host")),
        other => other.lost("no route to host"),
    }
}

fn not_started(why: &str) -> StartOutcome {
    StartOutcome::NotStarted { error: why.into() }
}

fn badly(why: &str) -> HostFailure {
    HostFailure {
        unreachable: false,
        error: why.into(),
    }
}

impl Asker {
    pub(super) fn of(life: u32, effect: &PoolEffect) -> Self {
        Self {
            life,
            id: effect.id,
            about: dispatcher::about_action(&effect.action),
        }
    }
}
