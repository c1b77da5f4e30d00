//! Processes on machines: started, killed, ended.

use std::time::Duration;

use longshore_pool::{KillOutcome, StartOutcome};
use longshore_types::{Attempt, ContainerUuid, ExitCause, InstanceId, Instant, Resources};

use super::hosts::not_started;
use super::{Event, World};
use crate::runner::{Killed, Plan, Started};
use crate::scenario::ControllerShape;
use crate::story::{About, Happening};
use crate::{FaultKind, Rule};

/// How long a kill waits for the end.
const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// A runner that cannot tell the controller of an end tries again after this.
const TELLING_PAUSE: Duration = Duration::from_secs(7);

impl World {
    pub(super) fn start(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        attempt: Attempt,
        sent_by: u32,
    ) -> StartOutcome {
        let (now, wall) = (self.now, self.time_on(id));
        let (runtime, needs) = match self.job(uuid) {
            Some(job) => (job.runtime, self.needs(uuid)),
            None => return not_started("no such job"),
        };
        let plan = Plan {
            ends_at: now + runtime,
            exit: ExitCause::Exited {
                code: i32::from(self.random.percent(5)),
            },
            term: self.patience(id, uuid, attempt),
            output_bytes: self.random.below(3) * 1_000_000,
        };
        let ends_at = plan.ends_at;
        let Some(machine) = self.machines.get_mut(id) else {
            return not_started("no such machine");
        };
        if !machine.deployed {
            return not_started("no such file or directory");
        }
        let stalls = machine.stalled.get(&(uuid, attempt));
        let stalls = stalls.is_some_and(|until| *until > now);
        if stalls && self.strikes(FaultKind::StartRefused) {
            self.fault(FaultKind::StartRefused, About::on(id, uuid, attempt));
            return not_started("resource temporarily unavailable");
        }
        let Some(machine) = self.machines.get_mut(id) else {
            return not_started("no such machine");
        };
        if stalls {
            // Once that has begun, nobody knows that the one that stands still is on its way.
            machine.overtaken.insert((uuid, attempt));
        }
        if machine.black_hole && !machine.runner.knows(uuid, attempt) {
            if attempt.0.is_multiple_of(2) {
                return not_started("cannot fork");
            }
            machine.runner.fail(uuid, attempt, wall);
            return StartOutcome::Started;
        }
        let (asked, mut attempt) = (attempt, attempt);
        if self.shape == ControllerShape::Bare && !machine.runner.knows(uuid, attempt) {
            // A supervisor that may not run it ends at once.
            match self.runner_asks(uuid) {
                Some(given) => attempt = given,
                None => return StartOutcome::Started,
            }
        }
        let Some(machine) = self.machines.get_mut(id) else {
            return not_started("no such machine");
        };
        match machine.runner.start(uuid, attempt, plan, wall) {
            Started::Known => StartOutcome::KnownAttempt,
            Started::OlderRuns => not_started("an older attempt still runs"),
            Started::Yes => {
                let capacity = machine.capacity;
                let mut needs = needs;
                let asked = machine.overtaken.contains(&(uuid, asked));
                if self.shape == ControllerShape::Bare && (sent_by != self.life || asked) {
                    machine.unforeseen.insert((uuid, attempt));
                    needs = Resources::NONE;
                }
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
                self.judge_kind(id, uuid, sent_by);
                let due = Event::ProcessDue(id.clone(), uuid, attempt);
                self.schedule_at(ends_at, due);
                StartOutcome::Started
            }
        }
    }

    pub(super) fn kill(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        attempt: Attempt,
    ) -> (KillOutcome, Duration) {
        let now = self.now;
        let machine = self.machines.get(id);
        let attempt = machine.map_or(attempt, |m| m.runner.meant(uuid, attempt));
        let record = self.controller.get(uuid);
        self.witness.killed(uuid, attempt, id, record);
        if self.strikes(FaultKind::EndsAtKill) {
            self.end_early(id, uuid, attempt);
        }
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

    /// An attempt that was not started never will be; what was goes on.
    pub(super) fn withdraw(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        attempt: Attempt,
    ) -> KillOutcome {
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.deployed) else {
            let error = "no such file or directory".into();
            return KillOutcome::Unknown { error };
        };
        if machine.runner.withdraw(uuid, attempt) {
            KillOutcome::Gone
        } else {
            KillOutcome::StillRuns
        }
    }

    /// A runner asks the controller whether it may run a container; its attempt.
    fn runner_asks(&mut self, uuid: ContainerUuid) -> Option<Attempt> {
        if !self.hears_runners() {
            return None;
        }
        let attempt = self.controller.runner_begins(uuid)?;
        self.take_transitions();
        Some(attempt)
    }

    /// Whether runners can tell what they have to tell now.
    fn hears_runners(&self) -> bool {
        let answers = self.outage_until <= self.now && self.storm_until <= self.now;
        answers || self.shape != ControllerShape::Bare
    }

    /// A runner stays until it has told how its container ended; until then that counts as running.
    fn tell_later(&mut self, id: &InstanceId, uuid: ContainerUuid, attempt: Attempt) {
        let at = self.now + TELLING_PAUSE;
        if let Some(machine) = self.machines.get_mut(id) {
            machine.runner.go_on(uuid, attempt, at);
            self.schedule_at(at, Event::ProcessDue(id.clone(), uuid, attempt));
        }
    }

    /// How long a process goes on after a TERM; none if it takes no notice.
    fn patience(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        attempt: Attempt,
    ) -> Option<Duration> {
        let about = About::on(id, uuid, attempt);
        if self.strikes(FaultKind::Unkillable) {
            self.fault(FaultKind::Unkillable, about);
            return None;
        }
        if self.strikes(FaultKind::SlowToEnd) {
            self.fault(FaultKind::SlowToEnd, about);
            return Some(self.random.seconds(5, 120));
        }
        Some(self.random.millis(0, 5_000))
    }

    /// The process of an attempt ends by itself, now.
    fn end_early(&mut self, id: &InstanceId, uuid: ContainerUuid, attempt: Attempt) {
        let wall = self.time_on(id);
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.deployed) else {
            return;
        };
        if !machine.runner.supervised().contains(&(uuid, attempt)) || !self.hears_runners() {
            return;
        }
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        if let Some(how) = machine.runner.process_ended(uuid, attempt, wall) {
            self.fault(FaultKind::EndsAtKill, About::on(id, uuid, attempt));
            self.process_over(id, uuid, attempt, how);
        }
    }

    pub(super) fn process_due(&mut self, id: &InstanceId, uuid: ContainerUuid, attempt: Attempt) {
        let (now, wall) = (self.now, self.time_on(id));
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let due = machine.runner.ends_at(uuid, attempt);
        if due.is_none_or(|at| at > now) {
            return;
        }
        if machine.runner.supervised().contains(&(uuid, attempt)) && !self.hears_runners() {
            return self.tell_later(id, uuid, attempt);
        }
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let ended = machine.runner.process_ended(uuid, attempt, wall);
        let next = machine.runner.ends_at(uuid, attempt);
        if let Some(how) = ended {
            self.process_over(id, uuid, attempt, how);
        }
        if let Some(at) = next.filter(|at| *at < Instant::FAR_FUTURE) {
            self.schedule_at(at, Event::ProcessDue(id.clone(), uuid, attempt));
        }
        self.answer_polls(id);
    }

    pub(super) fn process_over(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        attempt: Attempt,
        how: ExitCause,
    ) {
        self.witness.process_ended(uuid, attempt, &how);
        self.tell(Happening::ProcessEnded(
            About::on(id, uuid, attempt),
            how.clone(),
        ));
        if self.shape == ControllerShape::Bare {
            self.controller.runner_ends(uuid, attempt, &how);
            self.take_transitions();
        }
        let busy = self.witness.is_busy(id);
        if let Some(machine) = self.machines.get_mut(id)
            && !busy
        {
            machine.idle_since = self.now;
        }
    }
}
