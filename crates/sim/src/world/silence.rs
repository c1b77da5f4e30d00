//! What the dispatcher has heard from machines, and whether it gives one up too early.
//!
//! Kept from what the dispatcher is told, by the rule as it is stated: a worker is silent once
//! nothing was heard of it for `timeout_probe` while the dispatcher was awake and its own network
//! worked, at least three probes failed, a probe interval apart, and one of them set out after the
//! last outage of that network. An outage counts that a failed listing told of, from the moment
//! when that listing was asked for. And a start of which nobody knows what came of it binds its
//! container to the worker for `timeout_term`, our own outages left out.

use std::time::Duration;

use longshore_cloud::InstanceState;
use longshore_fakecloud::FakeInstance;
use longshore_pool::{
    Effect as PoolEffect, EffectAction, EffectId, KillOutcome, Outcome as PoolOutcome, StartOutcome,
};
use longshore_types::{Attempt, ContainerState, ContainerUuid, InstanceId, Instant, ReportedState};

use super::World;
use crate::Rule;
use crate::machine::{Doubt, Heard, Machine};
use crate::story::About;

/// Failed probes before a worker may be called silent.
const FAILS_MIN: u32 = 3;

impl World {
    /// A new dispatcher has heard nothing.
    pub(super) fn hear_anew(&mut self) {
        self.hearer = self.life;
        self.cuts.clear();
        for machine in self.machines.values_mut() {
            machine.heard = Heard::new(self.now);
        }
    }

    /// The dispatcher's machine slept: what was silent meanwhile was not.
    pub(super) fn silence_begins_anew(&mut self) {
        if self.life != self.hearer {
            return;
        }
        for machine in self.machines.values_mut() {
            machine.heard.at = self.now;
            machine.heard.fails = 0;
            machine.heard.failed_at = None;
            for doubt in machine.heard.doubts.values_mut() {
                doubt.since = self.now;
            }
        }
    }

    /// Takes note of what the dispatcher asks.
    pub(super) fn note_asked(&mut self, effect: &PoolEffect) {
        if self.life != self.hearer {
            return;
        }
        match &effect.action {
            EffectAction::List(_) => self.list_asked_at = self.now,
            EffectAction::Boot(host)
            | EffectAction::Deploy(host, _)
            | EffectAction::Report(host, _) => {
                if let Some(machine) = self.machines.get_mut(&host.instance) {
                    machine.heard.asked.insert(effect.id, self.now);
                }
            }
            EffectAction::Start {
                host,
                uuid,
                attempt,
                ..
            } => {
                if let Some(machine) = self.machines.get_mut(&host.instance) {
                    machine.heard.start_asked(*uuid, *attempt, self.now);
                }
            }
            _ => {}
        }
    }

    /// Outages that are not over end now.
    pub(super) fn end_cuts(&mut self) {
        for (_, until) in &mut self.cuts {
            *until = self.now.min(*until);
        }
    }

    /// Takes note of what the dispatcher hears.
    pub(super) fn note_heard(&mut self, id: EffectId, outcome: &PoolOutcome, about: &About) {
        if self.life != self.hearer {
            return;
        }
        match outcome {
            PoolOutcome::Listed(Ok(list)) => {
                let goes = |state| matches!(state, InstanceState::Stopping | InstanceState::Gone);
                let there = list.iter().filter(|i| !goes(i.state)).map(|i| &i.id);
                let mut there: Vec<&InstanceId> = there.collect();
                there.sort_unstable();
                // Both are in the order of ids.
                let mut there = there.into_iter().peekable();
                for (id, machine) in &mut self.machines {
                    while there.next_if(|other| *other < id).is_some() {}
                    machine.heard.missed |= there.peek().is_none_or(|other| *other != id);
                }
            }
            PoolOutcome::Listed(Err(_)) => self.note_cut(),
            _ => {}
        }
        let (now, interval) = (self.now, self.config.pool.probe_interval);
        let machine = about.instance.as_ref().map(|id| self.machines.get_mut(id));
        let Some(Machine { heard, runner, .. }) = machine.flatten() else {
            return;
        };
        if let Some(asked_at) = heard.asked.remove(&id) {
            heard.tried_at = heard.tried_at.max(asked_at);
        }
        match (outcome, about.container) {
            (PoolOutcome::Started(outcome), Some((uuid, attempt))) => {
                let meant = runner.meant(uuid, attempt);
                heard.start_answered(uuid, attempt, meant, outcome, now);
            }
            (PoolOutcome::Killed(KillOutcome::Gone), Some((uuid, _))) => {
                heard.doubts.remove(&uuid);
            }
            _ => {}
        }
        match outcome {
            PoolOutcome::Reported(Ok(report)) => {
                heard.at = now;
                heard.fails = 0;
                heard.failed_at = None;
                heard.missed = false;
                for shown in &report.containers {
                    heard.doubts.remove(&shown.uuid);
                    let key = (shown.uuid, runner.meant(shown.uuid, shown.attempt));
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

    /// A listing failed: the network was down when it was asked for, or since.
    fn note_cut(&mut self) {
        let (from, until) = (self.list_asked_at, self.cut_until);
        if until <= from {
            return;
        }
        match self.cuts.last_mut() {
            Some((_, end)) if *end > from => *end = until,
            _ => self.cuts.push((from, until)),
        }
    }

    /// For how long something is silent by now, outages that the dispatcher noticed left out.
    fn silent_since(&self, at: Instant) -> Duration {
        let now = self.now;
        let hidden = |&(from, until): &(Instant, Instant)| until.min(now).since(from.max(at));
        let hidden: Duration = self.cuts.iter().map(hidden).sum();
        now.since(at).saturating_sub(hidden)
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
        let Some(machine) = self.machines.get(id) else {
            return;
        };
        let heard = &machine.heard;
        let silent = self.silent_since(heard.at);
        let over = |(_, until): &(Instant, Instant)| *until <= heard.tried_at;
        let asked = self.cuts.iter().all(over);
        if silent >= self.config.pool.timeout_probe && heard.fails >= FAILS_MIN && asked {
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
            let what = format!(
                "{id}, silent for {silent:?} in which {fails} probes failed, has {uuid}; asked since our own outage: {asked}"
            );
            self.witness.find(Rule::GivenUpEarly, &about, what);
        } else if let Some((uuid, doubted)) = self.doubted_too_shortly(id) {
            let about = [uuid.to_string(), id.to_string()];
            let what = format!(
                "{id} has {uuid}, of which nobody knew for {doubted:?} whether it was started"
            );
            self.witness.find(Rule::GivenUpEarly, &about, what);
        }
    }

    /// What really is on an instance, is wanted, and was in doubt for less than it has to be put up
    /// with, and for how long it was.
    fn doubted_too_shortly(&self, id: &InstanceId) -> Option<(ContainerUuid, Duration)> {
        let machine = self.machines.get(id)?;
        let results = machine.runner.results();
        let runs = self.witness.running_on(id);
        let is_there = |uuid: ContainerUuid| {
            let running = self.witness.running_attempt(uuid);
            let running = running.filter(|_| runs.contains(&uuid));
            let ended = results.iter().filter(|(other, _)| *other == uuid);
            let mut attempts = running
                .into_iter()
                .chain(ended.map(|(_, attempt)| *attempt));
            attempts.any(|attempt| self.counts_on(uuid, attempt))
        };
        let doubts = machine.heard.doubts.iter();
        let mut doubts = doubts.map(|(uuid, doubt)| (*uuid, self.silent_since(doubt.since)));
        doubts.find(|(uuid, doubted)| *doubted < self.config.pool.timeout_term && is_there(*uuid))
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

impl Heard {
    /// A start was asked for.
    fn start_asked(&mut self, uuid: ContainerUuid, attempt: Attempt, now: Instant) {
        let doubt = Doubt {
            attempt,
            since: now,
            lost: false,
        };
        let known = self.doubts.entry(uuid).or_insert(doubt);
        if known.attempt < attempt {
            *known = doubt;
        }
    }

    /// The answer to a start, which the runner took for one of `meant`.
    fn start_answered(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        meant: Attempt,
        outcome: &StartOutcome,
        now: Instant,
    ) {
        let doubt = self.doubts.get_mut(&uuid);
        let Some(doubt) = doubt.filter(|doubt| doubt.attempt == attempt) else {
            return;
        };
        match outcome {
            StartOutcome::Unknown { .. } if !doubt.lost => {
                (doubt.lost, doubt.since) = (true, now);
            }
            StartOutcome::Unknown { .. } => {}
            StartOutcome::NotStarted { .. } if doubt.lost => {}
            StartOutcome::NotStarted { .. } | StartOutcome::KnownAttempt => {
                self.doubts.remove(&uuid);
            }
            StartOutcome::Started => {
                self.doubts.remove(&uuid);
                self.runs.insert((uuid, meant));
            }
        }
    }
}
