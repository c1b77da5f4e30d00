//! Workers that do not answer, and whether that is their fault or ours.

use std::time::Duration;

use longshore_types::{IdleBehavior, InstanceId, Instant, WorkerState};

use crate::core::Core;
use crate::timers::{ContainerTimer, Timer, WorkerTimer};

/// Failed probes, each a probe interval apart, before a worker may be called silent.
const MIN_FAILS: u32 = 3;

impl Core {
    /// The process was not running for so long: no time-out counts the gap, all begin anew.
    pub fn handle_sleep(&mut self, _duration: Duration, now: Instant) {
        self.advance(now);
        let now = self.now;
        let ids: Vec<InstanceId> = self.workers.keys().cloned().collect();
        for id in ids {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            worker.heard_at = now;
            worker.fails = 0;
            worker.failed_at = None;
            worker.missed_at = None;
            self.failing.remove(&id);
        }
        self.restart_timers();
        self.restart_pendings();
        self.listing.restart(now);
    }

    fn restart_timers(&mut self) {
        let again: Vec<(Timer, Duration)> = self
            .timers
            .iter()
            .filter_map(|timer| {
                let config = &self.config;
                let span = match timer {
                    Timer::Worker(_, WorkerTimer::Boot) => config.timeout_booting,
                    Timer::Worker(_, WorkerTimer::Silent) => config.timeout_probe,
                    Timer::Worker(_, WorkerTimer::Idle) => config.timeout_idle,
                    Timer::Container(_, _, ContainerTimer::Settle | ContainerTimer::GiveUp) => {
                        config.timeout_term
                    }
                    Timer::Container(_, _, ContainerTimer::Stale) => config.timeout_stale,
                    _ => return None,
                };
                Some((timer.clone(), span))
            })
            .collect();
        for (timer, span) in again {
            self.timers.set(timer, self.now + span);
        }
    }

    /// Takes note that a worker answered.
    pub(crate) fn heard(&mut self, id: &InstanceId) {
        let seen = self.next_seq();
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.seen = seen;
        worker.missed_at = None;
        worker.heard_at = self.now;
        worker.fails = 0;
        worker.failed_at = None;
        self.failing.remove(id);
        let silent = worker.is_expected_to_answer();
        if self.outage && !self.is_outage() {
            self.outage = false;
        }
        if silent && !self.stopping {
            let at = self.now + self.config.timeout_probe;
            self.timers
                .set(Timer::Worker(id.clone(), WorkerTimer::Silent), at);
        }
    }

    /// Takes note that a worker did not answer.
    pub(crate) fn not_heard(&mut self, id: &InstanceId, error: &str) {
        self.set_error(id, error);
        let (now, interval) = (self.now, self.config.probe_interval);
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if worker.failed_at.is_none_or(|at| now.since(at) >= interval) {
            worker.fails = worker.fails.saturating_add(1);
            worker.failed_at = Some(now);
        }
        if !matches!(worker.state, WorkerState::Booting | WorkerState::Shutdown) {
            self.failing.insert(id.clone());
        }
    }

    /// Whether so much fails at once that the fault must be ours. Workers that never answered
    /// this process since it created them say nothing about that.
    fn is_outage(&self) -> bool {
        if self.listing.is_failing() {
            return true;
        }
        self.failing.len() >= 2 && self.failing.len() * 2 > self.books.expected
    }

    /// Whether nobody may be condemned for silence now; alarms once each time.
    fn excused(&mut self) -> bool {
        let outage = self.is_outage();
        if outage && !self.outage {
            let text = if self.listing.is_failing() {
                "listing instances fails; no silent worker is given up meanwhile".to_owned()
            } else {
                let count = self.failing.len();
                format!("{count} workers fail at once; none of them is given up meanwhile")
            };
            self.alarm(text);
        }
        self.outage = outage;
        outage
    }

    pub(crate) fn on_silent_due(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        if !worker.is_expected_to_answer() {
            return;
        }
        let silent = self.now.since(worker.heard_at) >= self.config.timeout_probe
            && worker.fails >= MIN_FAILS
            && worker.behavior != IdleBehavior::Hold;
        if silent && !self.excused() {
            self.condemn(id, "it does not answer");
        } else {
            self.look_again(id, WorkerTimer::Silent);
        }
    }

    pub(crate) fn on_boot_due(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        if !matches!(worker.state, WorkerState::Unknown | WorkerState::Booting) {
            return;
        }
        let may_go = worker.is_empty() && worker.behavior != IdleBehavior::Hold;
        let type_name = worker.type_name.clone();
        let error = worker.last_error.clone();
        let created = !worker.adopted;
        if !may_go || self.excused() {
            self.look_again(id, WorkerTimer::Boot);
            return;
        }
        let error = error.unwrap_or_else(|| "it never answered".into());
        self.set_error(id, &format!("it did not boot in time: {error}"));
        self.tally.boots_failed += 1;
        self.condemn_counted(id, "it did not boot in time");
        if let Some(name) = type_name.filter(|_| created) {
            self.boot_failed(&name, &error);
        }
    }

    fn look_again(&mut self, id: &InstanceId, timer: WorkerTimer) {
        let at: Instant = self.now + self.config.probe_interval;
        self.timers.set(Timer::Worker(id.clone(), timer), at);
    }
}
