//! The figures of a simulation.

use longshore_types::{ContainerState, Instant};

use super::World;
use crate::outcome::Waits;
use crate::{Outcome, Rule};

/// The most bytes that a dispatcher's state, written out, may have when nothing is left to do.
const STATE_MAX: usize = 16 << 10;
/// And for each container that there was, as long as it remembers them.
const STATE_PER_CONTAINER: usize = 400;

impl World {
    /// The last looks, if all is done, and the figures.
    pub(crate) fn summarize(mut self) -> Outcome {
        if self.outcome.violations.is_empty() && self.is_done() {
            self.check_whole();
            self.check_core();
            self.check_size();
            self.check_locks();
            self.take_findings();
        }
        for (id, mut machine) in std::mem::take(&mut self.machines) {
            if !self.witness.is_busy(&id) {
                machine.idle_time += self.now.since(machine.idle_since);
            }
            self.bill(&machine);
        }
        for record in self.controller.records() {
            match record.container.state {
                ContainerState::Complete => self.outcome.complete += 1,
                ContainerState::Cancelled => self.outcome.cancelled += 1,
                _ => {}
            }
        }
        let mut outcome = self.outcome;
        outcome.elapsed = self.over_since.unwrap_or(self.now).since(Instant::ZERO);
        outcome.processes = self.witness.processes();
        outcome.never_started = self.witness.never_started();
        outcome.waits = Waits::of(self.witness.waits);
        let hours = outcome.elapsed.as_secs_f64() / 3600.0;
        if hours > 0.0 {
            let complete = u32::try_from(outcome.complete).unwrap_or(u32::MAX);
            outcome.per_hour = f64::from(complete) / hours;
        }
        outcome.digest = self.story.digest();
        outcome
    }

    /// What a dispatcher keeps when nothing is left is bounded.
    fn check_size(&mut self) {
        let Some(core) = &self.core else { return };
        let size = format!("{core:?}").len();
        let most = STATE_MAX + STATE_PER_CONTAINER * self.outcome.containers.min(10_000);
        if size > most {
            let what = format!("{size} bytes, written out, and {most} are allowed");
            self.witness.find(Rule::Unbounded, &[], what);
        }
    }

    /// Without faults nothing is locked again and again.
    fn check_locks(&mut self) {
        if !self.faultless {
            return;
        }
        let again: Vec<_> = self
            .controller
            .records()
            .filter(|record| record.container.lock_count > 2)
            .map(|record| (record.container.uuid, record.container.lock_count))
            .collect();
        for (uuid, locks) in again {
            let what = format!("{uuid}, {locks} times");
            self.witness
                .find(Rule::LockChurn, &[uuid.to_string()], what);
        }
    }
}
