//! What the dispatcher has heard from machines, and whether it gives one up too early.
//!
//! Kept from what the dispatcher is told, by the rule as it is stated: a worker is silent once
//! nothing was heard of it for `timeout_probe` while the dispatcher was awake and its own network
//! worked, and at least three probes failed, a probe interval apart.

use longshore_cloud::InstanceState;
use longshore_fakecloud::FakeInstance;
use longshore_pool::Outcome as PoolOutcome;
use longshore_types::{Attempt, ContainerState, ContainerUuid, InstanceId, ReportedState};

use super::World;
use crate::Rule;
use crate::machine::Heard;
use crate::story::About;

/// Failed probes before a worker may be called silent.
const FAILS_MIN: u32 = 3;

impl World {
    /// A new dispatcher has heard nothing.
    pub(super) fn hear_anew(&mut self) {
        for machine in self.machines.values_mut() {
            machine.heard = Heard::new(self.now);
        }
    }

    /// The dispatcher's machine slept: what was silent meanwhile was not.
    pub(super) fn silence_begins_anew(&mut self) {
        for machine in self.machines.values_mut() {
            machine.heard.at = self.now;
            machine.heard.fails = 0;
            machine.heard.failed_at = None;
        }
    }

    /// Takes note of what the dispatcher hears.
    pub(super) fn note_heard(&mut self, outcome: &PoolOutcome, about: &About) {
        if let PoolOutcome::Listed(Ok(list)) = outcome {
            let there = |id: &InstanceId| {
                let going = |state| matches!(state, InstanceState::Stopping | InstanceState::Gone);
                list.iter().any(|i| i.id == *id && !going(i.state))
            };
            for machine in self.machines.values_mut() {
                machine.heard.missed |= !there(&machine.id);
            }
        }
        if matches!(outcome, PoolOutcome::Listed(Err(_))) && self.cut_until > self.now {
            self.cut_noticed = true;
        }
        let (now, interval) = (self.now, self.config.pool.probe_interval);
        let machine = about.instance.as_ref().map(|id| self.machines.get_mut(id));
        let Some(heard) = machine.flatten().map(|machine| &mut machine.heard) else {
            return;
        };
        match outcome {
            PoolOutcome::Reported(Ok(report)) => {
                heard.at = now;
                heard.fails = 0;
                heard.failed_at = None;
                heard.missed = false;
                for shown in &report.containers {
                    let key = (shown.uuid, shown.attempt);
                    if matches!(shown.state, ReportedState::Stale) {
                        heard.runs.remove(&key);
                    } else {
                        heard.runs.insert(key);
                    }
                }
            }
            PoolOutcome::Booted(Err(_))
            | PoolOutcome::Deployed(Err(_))
            | PoolOutcome::Reported(Err(_))
                if heard.failed_at.is_none_or(|at| now.since(at) >= interval) =>
            {
                heard.fails += 1;
                heard.failed_at = Some(now);
            }
            _ => {}
        }
    }

    /// The dispatcher destroys an instance: wrong where it knew of wanted work there, and the
    /// instance was not silent for long enough. Looked at once in a life of the dispatcher.
    pub(super) fn judge_giving_up(&mut self, id: &InstanceId) {
        let live = self.cloud.instance(id).is_some_and(FakeInstance::is_live);
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut machine.heard.judged, true) || machine.heard.missed || !live {
            return;
        }
        let heard = &machine.heard;
        let mut since = heard.at;
        if self.cut_noticed && !machine.condition.ails_since(heard.at) {
            since = since.max(self.cut_until);
        }
        let silent = self.now.since(since);
        if silent >= self.config.pool.timeout_probe && heard.fails >= FAILS_MIN {
            return;
        }
        let fails = heard.fails;
        let results = machine.runner.results();
        let known: Vec<_> = heard.runs.iter().copied().collect();
        let work = known.into_iter().find(|(uuid, attempt)| {
            let runs = self.witness.runs_on(*uuid, *attempt, id);
            (runs || results.contains(&(*uuid, *attempt))) && self.counts_on(*uuid, *attempt)
        });
        if let Some((uuid, _)) = work {
            let about = [uuid.to_string(), id.to_string()];
            let what =
                format!("{id}, silent for {silent:?} in which {fails} probes failed, has {uuid}");
            self.witness.find(Rule::GivenUpEarly, &about, what);
        }
    }

    /// Whether an attempt, or its result, is still wanted.
    fn counts_on(&self, uuid: ContainerUuid, attempt: Attempt) -> bool {
        let record = self.controller.get(uuid);
        let open = record.is_some_and(|r| {
            let state = r.container.state;
            matches!(state, ContainerState::Locked | ContainerState::Running)
        });
        open && self.witness.is_wanted(uuid, attempt, record)
    }
}
