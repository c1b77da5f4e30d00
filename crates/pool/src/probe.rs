//! Asking workers: whether they have booted, whether the runner is there, and what runs.
//!
//! Where the runner can wait for a change, one report command is always under way on each worker
//! that has booted and nothing else is asked. While it waits, one further report that does not
//! wait may carry acknowledgements, or give an answer that began after something was done.

use std::time::Duration;

use longshore_runner_api::command::{MAX_ACKS, ReportOptions};
use longshore_types::{Attempt, ContainerUuid, InstanceId, Instant, WorkerState};

use crate::core::{Core, FlightAction, WorkerFlight};
use crate::effect::{EffectAction, HostFailure, Outcome};
use crate::report::ABSENCE;
use crate::timers::{Timer, WorkerTimer};
use crate::worker::{Held, Seq, Step, Worker};

/// A worker that boots is asked again after this, unless the probe interval is shorter.
const BOOT_PAUSE: Duration = Duration::from_secs(2);
/// A worker that stopped answering is asked again after this the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Reports that may follow each other at once within [`BURST_SPAN`].
const MAX_BURST: u32 = 5000;
const BURST_SPAN: Duration = Duration::from_secs(10);
/// The pause between reports after that.
const BURST_PAUSE: Duration = Duration::from_millis(100);

impl Core {
    /// Goes on with the round of probing of a worker, if none is under way.
    pub(crate) fn probe(&mut self, id: &InstanceId) {
        if !self.workers.get(id).is_some_and(Worker::may_be_probed) {
            return;
        }
        if self.turns.may_begin(&self.config, self.now, self.waits(id)) {
            self.send_probe(id);
        } else if let Some(worker) = self.workers.get_mut(id) {
            worker.queued = true;
            self.turns.line.push_back(id.clone());
            self.wake_for_turn();
        }
    }

    /// Sends what is next in the round of a worker.
    pub(crate) fn send_probe(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let Some(host) = worker.host(id) else { return };
        let (step, serial) = (worker.step, worker.serial);
        worker.digest_asked_with.clone_from(&worker.digest);
        let mut waits = false;
        let mut timeout = self.config.command_timeout;
        let mut acks = Vec::new();
        let (action, flight) = match step {
            Step::Boot => (EffectAction::Boot(host), WorkerFlight::Boot),
            Step::Deploy => {
                timeout = self.config.transfer_timeout;
                (
                    EffectAction::Deploy(host, self.config.guard()),
                    WorkerFlight::Deploy,
                )
            }
            Step::Report => {
                let options = self.report_options(id);
                acks.clone_from(&options.acks);
                timeout = timeout.saturating_add(options.wait);
                waits = !options.wait.is_zero();
                let flight = WorkerFlight::Report {
                    short: false,
                    waits,
                };
                (EffectAction::Report(host, options), flight)
            }
        };
        let about = FlightAction::OnWorker(id.clone(), serial, flight);
        let sent = self.send(timeout, action, about);
        self.timers
            .clear(&Timer::Worker(id.clone(), WorkerTimer::Probe));
        if let Some((_, began)) = sent {
            self.note_acks(id, &acks, began);
            self.turns.begun(&self.config, self.now, waits);
            if let Some(worker) = self.workers.get_mut(id) {
                worker.probe = sent;
            }
        }
    }

    /// What goes with the next report of the regular round.
    fn report_options(&self, id: &InstanceId) -> ReportOptions {
        let mut options = ReportOptions {
            acks: self.acks(id),
            ..ReportOptions::default()
        };
        if self.waits(id)
            && let Some(worker) = self.workers.get(id)
        {
            options.wait = self.config.wait_for_change();
            options.known = worker.digest.clone();
        }
        options
    }

    /// Whether the next command of the regular round is a report that waits for a change.
    fn waits(&self, id: &InstanceId) -> bool {
        self.may_wait(id)
            && self.workers.get(id).is_some_and(|worker| {
                let doubt = worker.held.values().any(|held| held.absent.is_some());
                worker.step == Step::Report && !doubt
            })
    }

    /// Whether a report of this worker may wait for a change. One that did not answer is asked
    /// without that first: such reports take a turn, so that an outage does not end in a storm.
    fn may_wait(&self, id: &InstanceId) -> bool {
        let Some(worker) = self.workers.get(id) else {
            return false;
        };
        !self.config.wait_for_change().is_zero() && !worker.digest.is_empty() && worker.fails == 0
    }

    /// Results that were told and acknowledged, for the runner to forget.
    fn acks(&self, id: &InstanceId) -> Vec<(ContainerUuid, Attempt)> {
        let held = self.workers.get(id).map(|worker| worker.held.iter());
        held.into_iter()
            .flatten()
            .filter(|(_, held)| Held::is_over(held))
            .map(|(uuid, held)| (*uuid, held.attempt))
            .take(MAX_ACKS)
            .collect()
    }

    /// Asks for a report that begins now and does not wait.
    pub(crate) fn want_report(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if worker.state == WorkerState::Shutdown || !worker.deployed {
            return;
        }
        if worker.short.is_some() {
            worker.short_again = true;
            return;
        }
        let Some(host) = worker.host(id) else { return };
        let serial = worker.serial;
        let acks = self.acks(id);
        let options = ReportOptions {
            acks: acks.clone(),
            ..ReportOptions::default()
        };
        let flight = WorkerFlight::Report {
            short: true,
            waits: false,
        };
        let about = FlightAction::OnWorker(id.clone(), serial, flight);
        let timeout = self.config.command_timeout;
        let sent = self.send(timeout, EffectAction::Report(host, options), about);
        self.timers
            .clear(&Timer::Worker(id.clone(), WorkerTimer::Ack));
        if let Some((_, began)) = sent {
            self.note_acks(id, &acks, began);
        }
        if let Some(worker) = self.workers.get_mut(id) {
            worker.short = sent;
        }
    }

    pub(crate) fn on_booted(&mut self, id: &InstanceId, outcome: Outcome) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.probe = None;
        worker.prune_removed();
        let unknown = worker.state == WorkerState::Unknown;
        let deployed = worker.deployed;
        let failure = match outcome {
            Outcome::Booted(Ok(())) => None,
            Outcome::Booted(Err(failure)) => Some(failure),
            _ => Some(HostFailure::mismatched()),
        };
        worker.boot_ok = failure.is_none();
        if let Some(failure) = failure {
            // What runs on a worker that we found must be seen, and may need our runner for that,
            // however unwell the worker feels.
            if failure.unreachable || !unknown {
                self.probe_failed(id, &failure.error);
                return;
            }
            self.set_error(id, &failure.error);
        }
        self.next_step(id, if deployed { Step::Report } else { Step::Deploy });
    }

    pub(crate) fn on_deployed(&mut self, id: &InstanceId, outcome: Outcome) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.probe = None;
        worker.prune_removed();
        match outcome {
            Outcome::Deployed(Ok(())) => {
                worker.deployed = true;
                self.next_step(id, Step::Report);
            }
            Outcome::Deployed(Err(failure)) => self.probe_failed(id, &failure.error),
            _ => self.probe_failed(id, &HostFailure::mismatched().error),
        }
    }

    fn next_step(&mut self, id: &InstanceId, step: Step) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.step = step;
        // A round that has begun goes on without a new turn, unless there is no slot for it.
        if worker.may_be_probed() && self.turns.has_slot(&self.config) {
            self.send_probe(id);
        } else {
            self.probe(id);
        }
    }

    pub(crate) fn on_reported(
        &mut self,
        id: &InstanceId,
        outcome: Outcome,
        (began, began_at): (Seq, Instant),
        short: bool,
        waits: bool,
    ) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let again = short && std::mem::take(&mut worker.short_again);
        if short {
            worker.short = None;
        } else {
            worker.probe = None;
        }
        match outcome {
            Outcome::Reported(Ok(report)) => {
                // Against what the runner was told, not what a short report has brought since.
                let changed = report.digest.is_empty() || report.digest != worker.digest_asked_with;
                worker.digest.clone_from(&report.digest);
                if worker.state != WorkerState::Shutdown {
                    self.take_report(id, report, began, began_at);
                    self.heard(id);
                    self.booted_if_ready(id);
                }
                self.prune_removed(id);
                if !short {
                    self.schedule_report(id, began_at, changed, waits);
                }
            }
            outcome => {
                let failure = match outcome {
                    Outcome::Reported(Err(failure)) => failure,
                    _ => HostFailure::mismatched(),
                };
                self.prune_removed(id);
                self.on_report_failed(id, &failure, short);
            }
        }
        if again {
            self.want_report(id);
        }
    }

    fn prune_removed(&mut self, id: &InstanceId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.prune_removed();
        }
    }

    fn on_report_failed(&mut self, id: &InstanceId, failure: &HostFailure, short: bool) {
        if short {
            // The regular round finds out whether the worker answers at all.
            let at = self.now + FIRST_PAUSE;
            self.timers
                .set_by(Timer::Worker(id.clone(), WorkerTimer::Ack), at);
            self.set_error(id, &failure.error);
            return;
        }
        if let Some(worker) = self.workers.get_mut(id)
            && !failure.unreachable
        {
            // It answered badly: the runner may have been deleted.
            worker.deployed = false;
        }
        self.probe_failed(id, &failure.error);
    }

    fn probe_failed(&mut self, id: &InstanceId, error: &str) {
        self.not_heard(id, error);
        let interval = self.config.probe_interval;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let booting = matches!(worker.state, WorkerState::Unknown | WorkerState::Booting);
        worker.step = match (booting, worker.deployed) {
            (true, _) => Step::Boot,
            (false, true) => Step::Report,
            (false, false) => Step::Deploy,
        };
        let pause = match worker.state {
            WorkerState::Booting => BOOT_PAUSE.min(interval),
            _ if worker.fails <= 1 => FIRST_PAUSE.min(interval),
            _ => interval,
        };
        self.schedule_probe(id, self.now + pause);
    }

    fn booted_if_ready(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let booting = matches!(worker.state, WorkerState::Unknown | WorkerState::Booting);
        if booting && worker.boot_ok && worker.deployed {
            worker.step = Step::Report;
            worker.last_error = None;
            let type_name = worker.type_name.clone();
            self.enter(id, WorkerState::Idle);
            self.timers
                .clear(&Timer::Worker(id.clone(), WorkerTimer::Boot));
            self.tally.boots_succeeded += 1;
            if let Some(name) = type_name {
                self.boot_succeeded(&name);
            }
            self.heard(id);
            self.settle(id);
        }
        self.resolve_twins_of(id);
    }

    /// Decides when the next report of the regular round begins.
    fn schedule_report(&mut self, id: &InstanceId, began_at: Instant, changed: bool, waited: bool) {
        let (now, interval) = (self.now, self.config.probe_interval);
        let may_wait = self.may_wait(id);
        let patient = now.since(began_at) >= self.config.wait_for_change() / 2;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if worker.state == WorkerState::Unknown {
            worker.step = Step::Boot;
        }
        let absent = worker.held.values().filter_map(|held| held.absent).min();
        // A runner that does not wait although it was asked to is asked at intervals.
        let at_once = may_wait && (!waited || changed || patient);
        if worker.state == WorkerState::Unknown || !at_once && absent.is_none() {
            self.schedule_probe(id, (began_at + interval).max(now));
            return;
        }
        if let Some(since) = absent.filter(|since| now.since(*since) < ABSENCE) {
            self.schedule_probe(id, since + ABSENCE);
            return;
        }
        if now.since(worker.burst_began) >= BURST_SPAN {
            worker.burst = 0;
            worker.burst_began = now;
        }
        worker.burst += 1;
        if worker.burst > MAX_BURST {
            self.schedule_probe(id, now + BURST_PAUSE);
        } else {
            self.probe(id);
        }
    }

    fn schedule_probe(&mut self, id: &InstanceId, at: Instant) {
        let shutdown = |w: &Worker| w.state == WorkerState::Shutdown;
        if !self.stopping && !self.workers.get(id).is_none_or(shutdown) {
            self.timers
                .set(Timer::Worker(id.clone(), WorkerTimer::Probe), at);
        }
    }
}
