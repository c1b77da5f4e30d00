//! What goes wrong with machines by the clock.

use std::time::Duration;

use longshore_fakecloud::Misfortune;
use longshore_types::{Attempt, ContainerUuid, ExitCause, InstanceId, Instant};

use super::{Event, World};
use crate::FaultKind;
use crate::runner::Left;
use crate::scenario::ControllerShape;
use crate::story::About;

impl World {
    pub(super) fn machine_fails(&mut self, kind: FaultKind) {
        let nth = self.random.index(self.machines.len());
        let Some(id) = self.machines.keys().nth(nth).cloned() else {
            return;
        };
        self.fault(kind, About::instance(&id));
        let until = self.now + self.random.tailed(Duration::from_secs(60));
        let longer = self.random.seconds(60, 3_600);
        let off = self.hours_off();
        let lies = self.lies_of(&id, kind == FaultKind::FalseResults);
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        machine.troubled = true;
        match kind {
            FaultKind::Slow => machine.condition.slow = until,
            FaultKind::Hung => {
                machine.condition.hung = until;
                self.schedule_at(until, Event::Recover(id));
            }
            FaultKind::Unreachable => machine.condition.unreachable = until,
            FaultKind::CutOff => machine.condition.unreachable = Instant::FAR_FUTURE,
            FaultKind::HalfOpen => machine.condition.half_open = until,
            FaultKind::RunnerMissing => {
                machine.deployed = false;
                machine.condition.no_runner = self.now + longer;
            }
            FaultKind::SupervisorDies => self.supervisor_dies(&id, false),
            FaultKind::StaleLock => self.supervisor_dies(&id, true),
            FaultKind::BootProbeFails => machine.condition.boot_fails = self.now + longer,
            FaultKind::ClockOff => machine.clock = off,
            FaultKind::Reboot => self.reboot(&id),
            FaultKind::MachineLost => {
                self.cloud.strike(&id, Misfortune::Vanish, self.now);
                self.look_at_instances();
            }
            FaultKind::BlackHole => machine.black_hole = true,
            FaultKind::Liar | FaultKind::FalseResults => {
                machine.lies.extend(lies);
                self.answer_polls(&id);
            }
            FaultKind::Flood => machine.floods = true,
            FaultKind::AddressChange => {
                self.cloud.strike(&id, Misfortune::ChangeAddress, self.now);
            }
            _ => {}
        }
    }

    /// Claims of containers that were never placed on a machine.
    fn lies_of(&mut self, id: &InstanceId, ended: bool) -> Vec<(ContainerUuid, Attempt, bool)> {
        let Some(machine) = self.machines.get(id) else {
            return Vec::new();
        };
        // Where nobody records where containers are, nobody can tell who lies of one that is wanted.
        let bare = self.shape == ControllerShape::Bare;
        let ended = ended && !bare;
        let never_here = |uuid: &&ContainerUuid| {
            let placed_on = self
                .controller
                .get(**uuid)
                .and_then(|record| record.container.placed_on.as_ref());
            !machine.placed.contains(*uuid) && placed_on != Some(id)
        };
        let known: Vec<(ContainerUuid, Attempt)> = self
            .controller
            .open()
            .iter()
            .filter(never_here)
            .filter_map(|uuid| Some((*uuid, self.controller.get(*uuid)?.container.attempt())))
            .filter(|_| !bare)
            .collect();
        let mut lies = Vec::new();
        for (uuid, attempt) in known {
            if self.random.percent(30) {
                let attempt = Attempt(attempt.0.max(1));
                lies.push((uuid, attempt, ended));
            }
        }
        // Nobody could tell, either, which of two lies that have the same.
        let own = match bare {
            true => self.outcome.faults.values().sum::<u64>() * 50,
            false => 0,
        };
        for n in own..own + self.random.below(50) {
            if let Ok(uuid) = format!("zzzzz-dz642-liar{n:011}").parse() {
                lies.push((uuid, Attempt(u32::from(!bare)), ended));
            }
        }
        lies
    }

    fn supervisor_dies(&mut self, id: &InstanceId, leaves: bool) {
        let wall = self.time_on(id);
        let left = leaves.then(|| self.left_behind());
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let supervised = machine.runner.supervised();
        let nth = self.random.index(supervised.len());
        let Some((uuid, attempt)) = supervised.get(nth).copied() else {
            return;
        };
        let ended = machine.runner.supervisor_dies(uuid, attempt, left, wall);
        let next = machine.runner.ends_at(uuid, attempt);
        if ended {
            self.process_over(id, uuid, attempt, ExitCause::SupervisorLost);
        }
        if let Some(at) = next.filter(|at| *at < Instant::FAR_FUTURE) {
            self.schedule_at(at, Event::ProcessDue(id.clone(), uuid, attempt));
        }
        self.answer_polls(id);
    }

    /// What holds the lock of a dead supervisor: its process, a helper, or both; a helper may hold
    /// it for ever.
    fn left_behind(&mut self) -> Left {
        let soon = self.now + self.random.seconds(1, 600);
        let helper = match self.random.below(3) {
            0 => Instant::FAR_FUTURE,
            _ => soon + self.random.seconds(0, 900),
        };
        match self.random.below(3) {
            0 => Left {
                process: Some(soon),
                helper: None,
            },
            1 => Left {
                process: Some(soon),
                helper: Some(helper),
            },
            _ => Left {
                process: None,
                helper: Some(helper),
            },
        }
    }

    fn reboot(&mut self, id: &InstanceId) {
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let processes = machine.runner.processes();
        machine.runner.reboot();
        machine.stalled.clear();
        machine.behind.clear();
        machine.stop_switch();
        let (polls, stuck) = (
            std::mem::take(&mut machine.polls),
            std::mem::take(&mut machine.stuck),
        );
        // Commands that it had accepted are gone, too; whoever sent them hears nothing.
        drop(stuck);
        for poll in &polls {
            self.lose_poll(id, poll);
        }
        for (uuid, attempt) in processes {
            self.process_over(id, uuid, attempt, ExitCause::SupervisorLost);
        }
    }
}
