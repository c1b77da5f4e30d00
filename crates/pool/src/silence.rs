//! Workers that do not answer, and whether that is their fault or ours.

use std::time::Duration;

use longshore_types::{ContainerUuid, IdleBehavior, InstanceId, Instant, WorkerState};

use crate::core::Core;
use crate::hearing::{Doubt, LOTS, Patience};
use crate::timers::{ContainerTimer, Timer, WorkerTimer};
use crate::worker::Worker;

/// Failed probes, each a probe interval apart, before a worker may be called silent.
const MIN_FAILS: u32 = 3;

impl Core {
    /// The process was not running for so long: no time-out counts the gap, all begin anew.
    pub fn handle_sleep(&mut self, _duration: Duration, now: Instant) {
        self.now = self.now.max(now);
        self.hearing.restart();
        let listened = self.hearing.listened();
        let now = self.now;
        let ids: Vec<InstanceId> = self.workers.keys().cloned().collect();
        for id in ids {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            worker.heard = listened;
            worker.added = listened;
            worker.fails = 0;
            worker.failed_at = None;
            worker.missed_at = None;
            self.stop_listening_to(&id);
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
        let listened = self.hearing.listened();
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.seen = seen;
        worker.missed_at = None;
        worker.heard = listened;
        worker.fails = 0;
        worker.failed_at = None;
        let expected = worker.is_expected_to_answer();
        let says = worker.says_something();
        self.failing.remove(id);
        if says && !self.answering.contains(id) {
            self.answering.insert(id.clone());
        }
        if expected && !self.stopping {
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
        if worker.says_something() {
            self.answering.remove(id);
            self.failing.insert(id.clone());
        }
    }

    /// A worker says nothing any more about how well our own side works.
    pub(crate) fn stop_listening_to(&mut self, id: &InstanceId) {
        self.failing.remove(id);
        self.answering.remove(id);
    }

    /// Lets the clock of silence go on to `now`.
    pub(crate) fn listen(&mut self, now: Instant) {
        let (span, doubt, patience) = (now.since(self.now), self.doubt(), self.patience());
        self.hearing.pass(span, doubt, patience);
        if doubt.is_some() && self.hearing.excuses(doubt, patience) {
            self.hearing.stands_at(self.seq);
        }
    }

    /// Our own side has not worked since the clock of silence showed this.
    pub(crate) fn hear_nothing_since(&mut self, shown: Duration) {
        self.hearing.turn_back(shown);
        for worker in self.workers.values_mut() {
            worker.heard = worker.heard.min(shown);
            worker.added = worker.added.min(shown);
        }
    }

    /// Whether a worker was asked, and has answered or not, since our own side last failed. One
    /// without an address cannot be asked.
    fn was_asked(&self, worker: &Worker) -> bool {
        worker.address.is_none() || self.hearing.went_on_before(worker.asked)
    }

    /// Whether so much fails at once that the fault may be ours. Workers that never answered this
    /// process since it created them say nothing about that.
    fn doubt(&self) -> Option<Doubt> {
        if self.listing.is_failing() {
            return Some(Doubt::Listing);
        }
        let (failing, answering) = (self.failing.len(), self.answering.len());
        match answering {
            0 if failing >= 2 => Some(Doubt::All),
            _ if failing >= 2 && failing > answering => Some(Doubt::Most),
            _ => None,
        }
    }

    fn patience(&self) -> Patience {
        let config = &self.config;
        let answer = config
            .command_timeout
            .saturating_add(config.wait_for_change());
        Patience {
            probe: config.timeout_probe,
            most: config.timeout_probe.min(config.timeout_outage),
            all: config.timeout_outage,
            settle: answer.saturating_add(config.probe_interval),
        }
    }

    /// Whether nothing is given up now, since the fault may be ours; alarms once each time.
    pub(crate) fn excused(&mut self) -> bool {
        let doubt = self.doubt();
        let excused = self.hearing.excuses(doubt, self.patience());
        let count = self.failing.len();
        if excused && doubt.is_some() && self.hearing.tells() {
            self.alarm(if doubt == Some(Doubt::Listing) {
                "listing instances fails; no silent worker is given up meanwhile".to_owned()
            } else {
                format!("{count} workers fail at once; none of them is given up for now")
            });
        }
        excused
    }

    /// Whether a container is not given up now since nobody is; it is looked at again after a while.
    pub(crate) fn excuses(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        timer: ContainerTimer,
    ) -> bool {
        let excused = self.excused();
        if excused {
            let timer = Timer::Container(id.clone(), uuid, timer);
            self.timers
                .set(timer, self.now + self.config.probe_interval);
        }
        excused
    }

    /// Whether a worker that was silent for long enough is given up now. Of many that are only
    /// some, so that there is time to find out that it was a mistake.
    fn is_its_turn(&mut self) -> bool {
        if self.excused() {
            return false;
        }
        let workers = self.failing.len() + self.answering.len();
        let span = self.config.timeout_probe / LOTS;
        self.hearing.takes_one(workers, span, self.now)
    }

    /// Whether a worker has not answered while it should have, for as long as is put up with.
    fn is_silent(&self, worker: &Worker) -> bool {
        let silence = self.hearing.listened().saturating_sub(worker.heard);
        silence >= self.config.timeout_probe
            && worker.fails >= MIN_FAILS
            && self.was_asked(worker)
            && worker.behavior != IdleBehavior::Hold
    }

    pub(crate) fn on_silent_due(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        if !worker.is_expected_to_answer() {
            return;
        }
        if self.is_silent(worker) && self.is_its_turn() {
            self.condemn(id, "it does not answer");
        } else {
            self.excused();
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
        let created = !worker.adopted;
        // What may run something is not there to boot, but to be heard of.
        let busy = !worker.is_empty() || !created && self.records.may_name(id);
        let listened = self.hearing.listened();
        let late = listened.saturating_sub(worker.added) >= self.config.timeout_booting
            && worker.behavior != IdleBehavior::Hold
            && self.was_asked(worker);
        let due = late && (!busy || self.is_silent(worker));
        // One that we made and that never answered takes nothing with it.
        let goes = due
            && if created {
                !self.excused()
            } else {
                self.is_its_turn()
            };
        if !goes {
            self.excused();
            self.look_again(id, WorkerTimer::Boot);
        } else if busy {
            self.condemn(id, "it does not answer");
        } else if self.ask_console(id) {
            self.look_again(id, WorkerTimer::Boot);
        } else {
            self.give_up_boot(id);
        }
    }

    fn give_up_boot(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let type_name = worker.boots_as().cloned();
        let error = worker.last_error.clone();
        let error = error.unwrap_or_else(|| "it never answered".into());
        let error = self.with_console(id, &error);
        self.set_error(id, &format!("it did not boot in time: {error}"));
        self.tally.boots_failed += 1;
        self.condemn_counted(id, "it did not boot in time");
        if let Some(name) = type_name {
            self.boot_failed(&name, &error);
        }
    }

    fn look_again(&mut self, id: &InstanceId, timer: WorkerTimer) {
        let at: Instant = self.now + self.config.probe_interval;
        self.timers.set(Timer::Worker(id.clone(), timer), at);
    }
}
