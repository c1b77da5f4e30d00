//! What must hold at every moment: looked at for what a step has touched, and for everything now and
//! then.

use longshore_fakecloud::FakeInstance;
use longshore_types::{InstanceId, Resources};

use super::World;
use crate::Rule;

/// Everything is looked at after so many steps, in a world of up to 250 machines and containers.
const STEPS: u64 = 1_000;
/// In a larger one after so many steps for each thing that is walked over, so that it is not slow
/// for it. The dispatcher's own check of its state is made as often.
const STEPS_EACH: u64 = 4;

impl World {
    /// After each step: what it touched; everything now and then.
    pub(super) fn check_step(&mut self) {
        self.outcome.events += 1;
        for id in self.witness.take_touched() {
            self.check_machine(&id);
        }
        if self.outcome.events >= self.whole_due {
            self.check_whole();
            self.check_core();
            let things = self.machines.len() + self.controller.open().len();
            let things = u64::try_from(things).unwrap_or(u64::MAX);
            let pause = things.saturating_mul(STEPS_EACH).max(STEPS);
            self.whole_due = self.outcome.events.saturating_add(pause);
        }
    }

    /// Looks at every machine, container and limit.
    pub(super) fn check_whole(&mut self) {
        let ids: Vec<InstanceId> = self.machines.keys().cloned().collect();
        let mut processes = 0;
        for id in &ids {
            processes += self.check_machine(id);
        }
        let seen = self.witness.running_count();
        if processes != seen {
            let what = format!("{processes} processes run, and {seen} were seen to start");
            self.witness.find(Rule::RunsTwice, &[], what);
        }
        let counted = ids.iter().filter(|id| self.is_counted(id)).count();
        if counted != self.counted.len() {
            let what = format!(
                "{counted} instances, of {} that were seen",
                self.counted.len()
            );
            self.witness.find(Rule::TooManyInstances, &[], what);
        }
        self.check_instances();
        self.check_creates();
        self.check_others();
        self.check_none_lost();
    }

    /// Looks at one machine, on which each process must be the only one of its container, of an
    /// attempt that counts, and have room; gives how many there are.
    fn check_machine(&mut self, id: &InstanceId) -> usize {
        let Some(machine) = self.machines.get(id) else {
            return 0;
        };
        let (processes, capacity) = (machine.runner.processes(), machine.capacity);
        let unforeseen = machine.unforeseen.clone();
        let mut used = Resources::NONE;
        for (uuid, attempt) in &processes {
            if !unforeseen.contains(&(*uuid, *attempt)) {
                used = used.saturating_add(self.needs(*uuid));
            }
            if let Some((rule, what)) = self.witness.objection(*uuid, *attempt, id) {
                let about = [uuid.to_string(), id.to_string()];
                self.witness.find(rule, &about, what);
            }
            let record = self.controller.get(*uuid);
            if let Some(state) = record.map(|r| r.container.state).filter(|s| s.is_final()) {
                let about = [uuid.to_string(), id.to_string()];
                let what = format!("{uuid} is {state} and its attempt {attempt} runs on {id}");
                self.witness.find(Rule::FalseResult, &about, what);
            }
        }
        if let Some(lacking) = used.lacking_in(&capacity) {
            let what = format!(
                "{} containers on {id} use {} of {}",
                processes.len(),
                used.describe(lacking),
                capacity.describe(lacking)
            );
            self.witness
                .find(Rule::Overcommitted, &[id.to_string()], what);
        }
        processes.len()
    }

    /// The instances of others are as they were.
    fn check_others(&mut self) {
        let harmed = |id: &&InstanceId| {
            let instance = self.cloud.instance(id);
            !instance.is_some_and(|i: &FakeInstance| i.is_live() && i.destroyed.is_none())
        };
        let harmed: Vec<InstanceId> = self.witness.others.iter().filter(harmed).cloned().collect();
        for id in harmed {
            let what = format!("{id} is not as it was");
            self.witness
                .find(Rule::OthersTouched, &[id.to_string()], what);
        }
    }

    /// Each container that was submitted is open, has ended, or was deleted by its owner.
    fn check_none_lost(&mut self) {
        let known = self.controller.count();
        let deleted = self.outcome.deleted;
        if known + deleted != self.outcome.containers {
            let submitted = self.outcome.containers;
            let what = format!("{submitted} were submitted, {deleted} deleted, {known} are known");
            self.witness.find(Rule::NotEnded, &[], what);
        }
    }
}
