//! Machines that no dispatcher looks after: the runner's dead-man switch, and whether machines are
//! on and off when they should be.
//!
//! What the switch does is a model of the runner: whoever is told of it powers its machine off
//! once no command has come for so long and nothing runs. Whether that is right is judged by what
//! the machine was really asked, and the setting, not by what the dispatcher made of it.

use std::time::Duration;

use longshore_fakecloud::{FakeInstance, Misfortune};
use longshore_runner_api::command::GuardOptions;
use longshore_types::{InstanceId, Instant};

use super::{Event, World};
use crate::Rule;
use crate::machine::Machine;
use crate::scenario::ControllerShape;
use crate::story::Happening;

/// From one look of a switch to the next while something runs.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// A machine may be on for so much longer than it should be.
const SLACK: Duration = Duration::from_secs(300);
/// So much longer than without a machine may be on with results that nobody fetched.
const WITH_RESULTS: u32 = 6;

/// A dead-man switch that watches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    after: Duration,
    with_results: Duration,
    /// When it was last busy, or a command came.
    since: Instant,
    /// When it looks next; none while its process is gone.
    due: Option<Instant>,
}

impl World {
    /// The runner is told of a dead-man switch.
    pub(super) fn set_switch(&mut self, id: &InstanceId, options: Option<&GuardOptions>) {
        let (now, rented) = (self.now, self.config.pool.capabilities.rented);
        let (Some(options), Some(machine)) = (options, self.machines.get_mut(id)) else {
            return;
        };
        if machine.runner.forgets {
            // It has no such switch.
            return;
        }
        let due = machine.switch.and_then(|switch| switch.due);
        machine.switch = Some(Switch {
            after: options.after,
            with_results: options.after_with_results,
            since: now,
            due,
        });
        if !rented {
            let what = format!("{id}, which nobody rents, is told to power itself off");
            self.witness
                .find(Rule::PoweredOffEarly, &[id.to_string()], what);
        }
    }

    /// A command of a dispatcher has reached the runner on a machine.
    pub(super) fn contact(&mut self, id: &InstanceId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id).filter(|m| m.deployed) else {
            return;
        };
        machine.contact = Some(now);
        let Some(switch) = &mut machine.switch else {
            return;
        };
        switch.since = now;
        if switch.due.is_none() {
            let at = now + switch.after;
            switch.due = Some(at);
            self.schedule_at(at, Event::SwitchDue(id.clone()));
        }
    }

    /// A dead-man switch looks whether it is time.
    pub(super) fn switch_due(&mut self, id: &InstanceId) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let busy = machine.runner.has_unfinished();
        let has_results = !machine.runner.results().is_empty();
        // One that was replaced, or whose process has gone, has no say.
        let Some(switch) = machine.switch.as_mut().filter(|s| s.due == Some(now)) else {
            return;
        };
        if busy {
            switch.since = now;
        }
        let wait = match has_results {
            true => switch.with_results,
            false => switch.after,
        };
        let at = switch.since + wait;
        if at <= now {
            self.power_off(id);
            return;
        }
        // Results may be fetched meanwhile, and then there is less to wait for.
        let next = if busy {
            now + LOOK_PERIOD
        } else {
            at.min(now + switch.after)
        };
        switch.due = Some(next);
        self.schedule_at(next, Event::SwitchDue(id.clone()));
    }

    fn power_off(&mut self, id: &InstanceId) {
        self.judge_power_off(id);
        self.tell(Happening::Instance(id.clone(), "powers itself off"));
        self.outcome.powered_off += 1;
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        machine.is_off = true;
        machine.troubled = true;
        machine.switch = None;
        machine.stalled.clear();
        machine.behind.clear();
        // Commands that it had accepted are gone, too; whoever sent them hears nothing.
        machine.stuck.clear();
        let polls = std::mem::take(&mut machine.polls);
        for poll in &polls {
            self.lose_poll(id, poll);
        }
        self.cloud.strike(id, Misfortune::PowerOff, self.now);
        self.look_at_instances();
    }

    /// Wrong unless nobody asked the machine for as long as the setting says, and nothing runs.
    fn judge_power_off(&mut self, id: &InstanceId) {
        let most = self.config.pool.timeout_unattended;
        let Some(contact) = self.machines.get(id).and_then(|machine| machine.contact) else {
            return;
        };
        let alone = self.now.since(contact);
        let runs = self.witness.running_on(id).len();
        if alone < most || most.is_zero() || runs > 0 {
            let what = format!("{id}, {alone:?} after a command, with {runs} containers");
            self.witness
                .find(Rule::PoweredOffEarly, &[id.to_string()], what);
        }
    }

    /// A rented machine that was left alone has to be off by itself.
    pub(super) fn check_unattended(&mut self) {
        let most = self.config.pool.timeout_unattended;
        let switches = self.shape != ControllerShape::Bare;
        if !switches || !self.config.pool.capabilities.rented || most.is_zero() {
            return;
        }
        let left_on = |machine: &&Machine| {
            let instance = self.cloud.instance(&machine.id);
            let patience = match machine.runner.results().is_empty() {
                true => most,
                false => most * WITH_RESULTS,
            };
            let alone = machine
                .contact
                .map(|at| self.now.since(at.max(machine.busy_until)));
            !machine.is_off
                && !machine.runner.has_unfinished()
                && alone.is_some_and(|alone| alone > patience + SLACK)
                && instance.is_some_and(FakeInstance::is_live)
        };
        let left_on = self.machines.values().find(left_on);
        if let Some(id) = left_on.map(|machine| machine.id.clone()) {
            let what = format!("{id}, which no command has reached for {most:?} and more");
            self.witness.find(Rule::LeftOn, &[id.to_string()], what);
        }
        for machine in self.machines.values_mut() {
            if machine.runner.has_unfinished() {
                machine.busy_until = self.now;
            }
        }
    }
}

impl Machine {
    /// It starts anew: the process of its dead-man switch is gone until the next command comes.
    pub(crate) fn stop_switch(&mut self) {
        self.contact = None;
        if let Some(switch) = &mut self.switch {
            switch.due = None;
        }
    }
}
