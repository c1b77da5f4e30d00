//! Commands on machines.

use std::time::Duration;

use longshore_dispatch::Effect;
use longshore_pool::{
    Effect as PoolEffect, EffectAction, EffectId, HostFailure, Outcome as PoolOutcome, StartOutcome,
};
use longshore_runner_api::command::ReportOptions;
use longshore_runner_api::report;
use longshore_types::{InstanceId, Instant};

use super::{Arrival, Asker, Event, Waiting, World, dispatcher};
use crate::FaultKind;
use crate::machine::{Poll, Stuck};
use crate::story::About;

/// Output comes home at so many bytes a second.
const BYTES_PER_SECOND: u64 = 50_000_000;
/// The longest that a command is on its way to a slow machine, or its answer from there, in seconds.
const SLOW_MAX: u64 = 45;
/// The longest from a start that stood still to the one that waits behind it, in milliseconds.
const BEHIND_MAX: u64 = 2_000;

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
        if self.is_slow(&instance) && self.random.percent(50) {
            delay = self.random.seconds(1, SLOW_MAX);
        }
        if self.strikes(FaultKind::CommandLate) {
            self.fault(FaultKind::CommandLate, about.clone());
            self.trouble(&instance);
            delay = self.random.seconds(1, 120);
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
            back: Duration::ZERO,
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
        let there = there && self.cut_until <= now;
        if let EffectAction::Start { uuid, attempt, .. } = effect.action {
            let sound = self
                .machines
                .get(&host.instance)
                .is_some_and(|m| !m.troubled);
            if !sound || !there {
                self.witness.had_cause(uuid, attempt);
            }
        }
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
        if self.stalls(waiting, &effect) {
            return;
        }
        let Some(machine) = self.machines.get_mut(&host.instance) else {
            return;
        };
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
            let outcome = self.garbled(outcome, &id);
            let mut at = now + after + self.random.millis(1, 10);
            let late = match outcome {
                PoolOutcome::Reported(Ok(_)) => Some(FaultKind::OldReport),
                PoolOutcome::Started(_) | PoolOutcome::Killed(_) => Some(FaultKind::OldAnswer),
                _ => None,
            };
            if let Some(late) = late {
                at = self.delivered(at, waiting.deadline, &id, late);
            }
            if self.is_slow(&id) && self.random.percent(50) {
                at = at + self.random.seconds(0, SLOW_MAX);
            }
            if at >= waiting.deadline {
                self.lose(waiting.life, &effect, waiting.deadline);
            } else {
                self.answer(at, Asker::of(waiting.life, &effect), outcome);
            }
        }
        self.answer_polls(&id);
    }

    /// Whether a start stands still before it takes its lock, by itself or behind an earlier one of
    /// the same attempt. It then goes on whatever became of
    /// whoever sent it, unless the machine starts anew.
    fn stalls(&mut self, waiting: Waiting, effect: &PoolEffect) -> bool {
        let EffectAction::Start {
            host,
            uuid,
            attempt,
            ..
        } = &effect.action
        else {
            return false;
        };
        let (id, start) = (&host.instance, (*uuid, *attempt));
        let machine = self.machines.get(id);
        let first = machine.and_then(|machine| machine.stalled.get(&start).copied());
        let first = first.filter(|first| *first > self.now);
        let first = first.filter(|_| self.strikes(FaultKind::StartWaits));
        let kind = match first {
            Some(_) => FaultKind::StartWaits,
            None if self.strikes(FaultKind::DiskStall) => FaultKind::DiskStall,
            None => return false,
        };
        self.fault(kind, About::on(id, *uuid, *attempt));
        self.trouble(id);
        let until = match first {
            Some(first) => first + self.random.millis(1, BEHIND_MAX),
            None => self.now + self.random.seconds(1, 600),
        };
        if let Some(machine) = self.machines.get_mut(id) {
            match first {
                Some(_) => drop(machine.behind.insert((*uuid, *attempt, until))),
                None => drop(machine.stalled.insert(start, until)),
            }
        }
        let mut waiting = waiting;
        if waiting.answered && until >= waiting.deadline {
            waiting.answered = false;
            self.lose(waiting.life, effect, waiting.deadline);
        }
        let stalled = Arrival {
            effect: Effect::Pool(effect.clone()),
            waiting,
        };
        self.schedule_at(until, Event::Unstall(Box::new(stalled)));
        true
    }

    /// A start that stood still takes its lock.
    pub(super) fn unstall(&mut self, arrival: &Arrival) {
        let Effect::Pool(effect) = &arrival.effect else {
            return;
        };
        let EffectAction::Start {
            host,
            uuid,
            attempt,
            ..
        } = &effect.action
        else {
            return;
        };
        let id = &host.instance;
        let (start, now) = ((*uuid, *attempt), self.now);
        let went_on = self.machines.get_mut(id).is_some_and(|machine| {
            let due = machine.stalled.get(&start) == Some(&now);
            let stalled = due && machine.stalled.remove(&start).is_some();
            stalled || machine.behind.remove(&(*uuid, *attempt, now))
        });
        let waiting = arrival.waiting;
        let done = went_on.then(|| self.carry_out(id, effect, waiting));
        if waiting.answered {
            match done.flatten() {
                Some((outcome, _)) if self.cut_until <= self.now => {
                    self.answer(self.now, Asker::of(waiting.life, effect), outcome);
                }
                _ => self.lose(waiting.life, effect, waiting.deadline),
            }
        }
        self.answer_polls(id);
    }

    /// What the dispatcher makes of a report, part of which may not be what the runner wrote.
    fn garbled(&mut self, outcome: PoolOutcome, id: &InstanceId) -> PoolOutcome {
        let PoolOutcome::Reported(Ok(report)) = outcome else {
            return outcome;
        };
        if !self.strikes(FaultKind::GarbledReport) {
            return PoolOutcome::Reported(Ok(report));
        }
        self.fault(FaultKind::GarbledReport, About::instance(id));
        let mut text = report::format(&report).into_bytes();
        let at = self.random.index(text.len());
        match self.random.below(3) {
            0 => text.truncate(at),
            1 => text.insert(at, b'\n'),
            _ => {
                let rubbish = *b"\n{\"container\": \xff\n";
                text.splice(at..at, rubbish);
            }
        }
        match report::parse(&text) {
            Ok(report) => PoolOutcome::Reported(Ok(report)),
            Err(error) => PoolOutcome::Reported(Err(badly(&error.to_string()))),
        }
    }

    /// When an answer that is due at `at` is delivered: some are under way nearly until nobody waits
    /// for them any more.
    fn delivered(
        &mut self,
        at: Instant,
        deadline: Instant,
        id: &InstanceId,
        late: FaultKind,
    ) -> Instant {
        if !self.strikes(late) {
            return at;
        }
        self.fault(late, About::instance(id));
        let left = deadline.since(at);
        at + self.random.between(left / 4, left / 10 * 9)
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
                back: Duration::ZERO,
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
        // One that puts the runner there reaches it only if that succeeds.
        let deploys = matches!(effect.action, EffectAction::Deploy(..));
        if !deploys && !matches!(effect.action, EffectAction::Boot(_)) {
            self.contact(id);
        }
        let machine = self.machines.get_mut(id)?;
        let at_once = |outcome| Some((outcome, Duration::ZERO));
        match &effect.action {
            EffectAction::Boot(_) if machine.condition.boot_fails > now => {
                at_once(PoolOutcome::Booted(Err(badly("degraded"))))
            }
            EffectAction::Boot(_) => at_once(PoolOutcome::Booted(Ok(()))),
            EffectAction::Deploy(_, guard) => {
                if machine.condition.no_runner > now {
                    return at_once(PoolOutcome::Deployed(Err(badly("no space left on device"))));
                }
                machine.deployed = true;
                self.set_switch(id, guard.as_ref());
                self.contact(id);
                Some((PoolOutcome::Deployed(Ok(())), Duration::from_millis(300)))
            }
            EffectAction::Report(_, options) => self.report(id, effect.id, options, waiting),
            EffectAction::Start { uuid, attempt, .. } => {
                let started = self.start(id, *uuid, *attempt, waiting.life);
                at_once(PoolOutcome::Started(started))
            }
            EffectAction::Kill {
                uuid,
                attempt,
                signal: 0,
                ..
            } => at_once(PoolOutcome::Killed(self.withdraw(id, *uuid, *attempt))),
            EffectAction::Kill { uuid, attempt, .. } => {
                let (outcome, after) = self.kill(id, *uuid, *attempt);
                Some((PoolOutcome::Killed(outcome), after))
            }
            EffectAction::Collect { uuid, attempt, .. }
                if self.strikes(FaultKind::OutputRefused) =>
            {
                let about = About::on(id, *uuid, *attempt);
                self.fault(FaultKind::OutputRefused, about);
                at_once(PoolOutcome::Collected(Err(badly("input/output error"))))
            }
            EffectAction::Collect { written, .. } => {
                let millis = written.bytes * 1_000 / BYTES_PER_SECOND;
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
            || self.cut_until > now
            || condition.unreachable > now
            || condition.hung > now
            || !machine.deployed
            || machine.floods;
        let report = machine.report();
        let reports = std::iter::repeat_n(report, due.len());
        for (poll, report) in due.into_iter().zip(reports) {
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
            let at = self.delivered(at, poll.deadline, id, FaultKind::OldReport);
            let outcome = self.garbled(PoolOutcome::Reported(Ok(report)), id);
            self.answer(at, asker, outcome);
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
        ours: false,
        error: "no route to host".into(),
    };
    match action {
        EffectAction::Boot(_) => PoolOutcome::Booted(Err(failure)),
        EffectAction::Deploy(..) => PoolOutcome::Deployed(Err(failure)),
        EffectAction::Report(..) => PoolOutcome::Reported(Err(failure)),
        EffectAction::Collect { .. } => PoolOutcome::Collected(Err(failure)),
        EffectAction::Start { .. } => PoolOutcome::Started(not_started("no route to host")),
        other => other.lost("no route to host"),
    }
}

pub(super) fn not_started(why: &str) -> StartOutcome {
    StartOutcome::NotStarted { error: why.into() }
}

fn badly(why: &str) -> HostFailure {
    HostFailure {
        unreachable: false,
        ours: false,
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
