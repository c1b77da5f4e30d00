//! What is looked at again and again.

use std::time::Duration;

use longshore_fakecloud::FakeInstance;
use longshore_types::{ByteSize, ContainerState, ContainerUuid, InstanceId, Instant, Resources};

use super::{Event, World};
use crate::Rule;
use crate::machine::Machine;
use crate::scenario::ControllerShape;

/// From one look by the clock to the next.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// With the faults ended, every container has to end within this, beside the time that they need:
/// see [`Rule::NotEnded`].
const MENDING: Duration = Duration::from_secs(2 * 3_600);
/// With every container ended, each instance has to be gone after the time for which it may be
/// idle and this: see [`Rule::NotGivenBack`].
const GIVING_BACK: Duration = Duration::from_secs(1_800);
/// With everything over, the dispatcher has this long to learn that, whatever it does meanwhile.
const LEARNING: Duration = Duration::from_secs(1_800);
/// An instance may be idle for so much longer than it is to be.
const IDLE_SLACK: Duration = Duration::from_secs(120);

impl World {
    pub(super) fn check_core(&mut self) {
        let wrong = self.core.as_ref().and_then(|c| c.check_invariants().err());
        if let Some(wrong) = wrong {
            self.witness.find(Rule::OwnCheck, &[], wrong);
        }
    }

    /// Looks at everything by the clock.
    pub(super) fn look(&mut self) {
        self.schedule(LOOK_PERIOD, Event::Look);
        if self.faultless {
            self.check_idle();
        }
        self.check_calls();
        self.check_unattended();
        self.check_first();
        if self.quiet {
            self.check_end();
        }
    }

    /// When everything must have ended.
    pub(super) fn set_end(&mut self) {
        let runtimes = self.jobs.iter().map(|job| job.runtime);
        let longest = runtimes.clone().max().unwrap_or_default();
        let all: Duration = runtimes.sum();
        let last = self.jobs.iter().map(|job| job.at).max().unwrap_or_default();
        let from = self.now.max(Instant::ZERO + last);
        self.end = from + MENDING + longest * 4 + all;
    }

    /// A dispatcher begins. Where there was none when the faults ended, that was the last of them.
    pub(super) fn end_last_fault(&mut self) {
        if self.quiet && !std::mem::replace(&mut self.served_in_calm, true) {
            self.ended_at = None;
            self.set_end();
            self.begin_calm();
        }
    }

    /// Another dispatcher is done with a container: there may be more to do again.
    pub(super) fn note_given_back(&mut self, uuid: ContainerUuid) {
        if self.quiet && self.controller.open().contains(&uuid) {
            self.ended_at = None;
            self.set_end();
        }
    }

    /// Notes when nothing is left to happen.
    pub(super) fn note_end(&mut self) {
        let ended = self.quiet && self.to_come == 0 && self.controller.open().is_empty();
        if !ended || !self.machines.is_empty() {
            self.over_since = None;
        } else if self.over_since.is_none() {
            self.over_since = Some(self.now);
        }
    }

    /// Whether nothing is left to happen, and the dispatcher has had the time to learn that.
    pub(super) fn is_done(&self) -> bool {
        let learned = |since| self.now.since(since) >= LEARNING;
        self.over_since.is_some_and(learned)
    }

    fn check_end(&mut self) {
        // One that is dead when the faults end may be so for longer than all of the bounds.
        if self.dispatchers == 1 && self.core.is_none() {
            return;
        }
        let left = self.controller.open_here();
        if self.to_come == 0 && left.is_none() {
            let ended_at = *self.ended_at.get_or_insert(self.now);
            self.check_given_back(ended_at);
            return;
        }
        if self.now <= self.end {
            return;
        }
        if let Some(uuid) = left {
            let mut about = vec![uuid.to_string()];
            let record = self.controller.get(uuid);
            let placed = record.and_then(|record| record.container.placed_on.clone());
            about.extend(placed.map(|instance| instance.to_string()));
            let reason = self.reason(uuid);
            self.witness
                .find(Rule::NotEnded, &about, format!("{uuid}: {reason}"));
        }
    }

    /// One that was gone and has come back has as long as the others had.
    fn check_given_back(&mut self, ended_at: Instant) {
        let most = self.config.pool.timeout_idle + GIVING_BACK;
        let late = |machine: &&Machine| self.now.since(machine.born.max(ended_at)) > most;
        let kept = self.machines.values().find(late);
        if let Some(id) = kept.map(|machine| machine.id.clone()) {
            let runs = self.witness.running_on(&id);
            let what = format!("{id}, on which {} containers run", runs.len());
            self.witness
                .find(Rule::NotGivenBack, &[id.to_string()], what);
        }
    }

    pub(super) fn reason(&self, uuid: ContainerUuid) -> String {
        let Some(core) = &self.core else {
            return "there is no dispatcher".into();
        };
        let snapshot = core.snapshot(self.now);
        let waiting = snapshot.waiting.iter().find(|entry| entry.uuid == uuid);
        let why = waiting.map_or_else(|| "no reason".into(), |entry| entry.reason.to_string());
        let workers: Vec<String> = snapshot
            .workers
            .iter()
            .map(|w| format!("{} {} {}", w.instance, w.state, w.idle_behavior))
            .collect();
        format!("{why}; workers: {}", workers.join(", "))
    }

    /// Without faults, an instance that has booted and runs nothing is given back in time.
    fn check_idle(&mut self) {
        // A listing tells the address of a machine, the next that there is nothing for it to do.
        let slack = IDLE_SLACK.max(self.config.pool.sync_interval * 2);
        let most = self.config.pool.timeout_idle + slack;
        let kept: Vec<InstanceId> = self
            .machines
            .values()
            .filter(|machine| !self.witness.is_busy(&machine.id))
            .filter(|machine| {
                let instance = self.cloud.instance(&machine.id);
                instance.is_some_and(|instance| {
                    let since = instance.booted.map(|at| at.max(machine.idle_since));
                    instance.is_live() && since.is_some_and(|at| self.now.since(at) > most)
                })
            })
            .map(|machine| machine.id.clone())
            .collect();
        for id in kept {
            let what = format!("{id}, longer than {most:?}");
            self.witness
                .find(Rule::IdleTooLong, &[id.to_string()], what);
        }
    }

    /// What is asked for is in proportion to what there is to do.
    fn check_calls(&mut self) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let minutes = self.now.as_nanos() / 60_000_000_000;
        let instances = count(self.outcome.instances) + 1;
        let most = 5_000
            + 400 * count(self.outcome.containers)
            + minutes * (30 * instances.min(count(self.config.pool.max_instances).max(1)) + 60)
            + 200 * u64::from(self.outcome.lives);
        let too_many: Vec<(&str, u64)> = self
            .outcome
            .calls
            .iter()
            .filter(|(_, count)| **count > most)
            .map(|(kind, count)| (*kind, *count))
            .collect();
        for (kind, count) in too_many {
            let what = format!("{count} of {kind} in {minutes} minutes");
            self.witness.find(Rule::Livelock, &[], what);
        }
    }

    /// The dispatcher cancels a container: right only where no type can hold it.
    pub(super) fn judge_cancel(&mut self, uuid: ContainerUuid, error: &str) {
        // What ran and was lost cannot go back into the queue there.
        let state = self.controller.get(uuid).map(|r| r.container.state);
        let ran = state.is_none_or(|state| state.is_final() || state == ContainerState::Running);
        if ran && self.shape == ControllerShape::Bare {
            return;
        }
        if self.is_satisfiable(uuid) {
            let what = format!("{uuid}: {error}");
            self.witness
                .find(Rule::CancelledWrongly, &[uuid.to_string()], what);
        } else if self.outcome.unsatisfiable.is_none() {
            self.outcome.unsatisfiable = Some(error.to_owned());
        }
    }

    /// What the configuration sets aside for a container: what it asks for, the reserve, the
    /// buffers, and of the sum five in a hundred for the machine's kernel.
    pub(super) fn granted(&self, uuid: ContainerUuid) -> Resources {
        const MIB: u64 = 1 << 20;
        let settings = &self.config.scheduler;
        let mut granted = self.needs(uuid);
        let mut ram = granted.ram.0.saturating_add(settings.reserve_extra_ram.0);
        if settings.keep_buffers_per_vcpu > 0 {
            let buffers = u64::from(settings.keep_buffers_per_vcpu) * u64::from(granted.vcpus);
            ram = ram.saturating_add(220 * MIB + buffers.saturating_mul(64 * MIB * 11 / 10));
        }
        granted.ram = ByteSize(ram.saturating_mul(100) / 95);
        granted
    }

    /// The dispatcher destroys instances: wrong where something runs that is wanted, on a machine
    /// that nothing ever went wrong with.
    pub(super) fn judge_destroy(&mut self, ids: &[InstanceId]) {
        for id in ids {
            self.witness.touched(id, "destroy");
            // Nobody can keep one from that which was stopped just before it destroyed an instance.
            if self.acts_late() {
                continue;
            }
            self.judge_giving_up(id);
            let healthy = self.machines.get(id).is_some_and(|m| !m.troubled);
            let live = self.cloud.instance(id).is_some_and(FakeInstance::is_live);
            if !healthy || !live {
                continue;
            }
            for uuid in self.witness.running_on(id) {
                let Some(attempt) = self.witness.running_attempt(uuid) else {
                    continue;
                };
                let record = self.controller.get(uuid);
                if self.witness.is_wanted(uuid, attempt, record) {
                    let about = [uuid.to_string(), id.to_string()];
                    let what = format!("{id} is destroyed, on which {uuid} runs");
                    self.witness.find(Rule::KilledWrongly, &about, what);
                }
            }
        }
    }
}
