//! What a report says about containers, and what it proves.
//!
//! That a container runs or has ended is true once it was said, whenever the report began. That
//! it is missing counts only if nothing was done with it since the report began.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_types::{
    Attempt, ContainerReport, ContainerUuid, ExitCause, InstanceId, Instant, ReportedState,
    RunnerReport, Timestamp,
};

use crate::core::Core;
use crate::event::Event;
use crate::timers::{ContainerTimer, Timer};
use crate::worker::{Held, Seq, Stage, Worker};

/// How long reports must lack a container that ran before it is taken as lost; at least two lack
/// it then. Two that follow each other at once may be wrong for one and the same reason.
pub(crate) const ABSENCE: Duration = Duration::from_secs(1);

impl Core {
    pub(crate) fn take_report(
        &mut self,
        id: &InstanceId,
        report: RunnerReport,
        began: Seq,
        began_at: Instant,
    ) {
        let now = self.now;
        let recovery = self.config.timeout_term;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.probed_at = worker.probed_at.max(Some(began_at));
        if worker.adopted {
            worker.recovery_ends.get_or_insert(now + recovery);
        }
        worker.numbers |= report.containers.iter().any(|c| c.attempt != Attempt(0));
        if self.black_holes.is_empty() && is_as_known(worker, &report) {
            self.answered_as_known(id);
            return;
        }
        let named: BTreeSet<ContainerUuid> = report.containers.iter().map(|c| c.uuid).collect();
        self.drop_claims_but(id, |uuid| named.contains(&uuid));
        let mut shown = BTreeSet::new();
        for container in report.containers {
            if self.take_container(id, &container, began) {
                shown.insert(container.uuid);
            }
        }
        self.take_absences(id, &shown, began);
        if let Some(why) = report.broken {
            self.drain(id, &format!("the runner says that it is broken: {why}"));
        }
        self.settle(id);
    }

    /// Takes one entry of a report; whether it shows what we hold.
    fn take_container(&mut self, id: &InstanceId, shown: &ContainerReport, began: Seq) -> bool {
        let Some(worker) = self.workers.get(id) else {
            return false;
        };
        let Some(held) = worker.held.get(&shown.uuid) else {
            let old = worker
                .removed
                .get(&shown.uuid)
                .is_some_and(|(attempt, removed)| shown.attempt <= *attempt && began < *removed);
            if !old {
                self.take_claim(id, shown);
            }
            return false;
        };
        // It was found not to be there before it was to be killed there.
        let lie = worker.claims.get(&shown.uuid);
        if lie.is_some_and(|claimed| claimed.is_false(shown.attempt)) {
            return false;
        }
        // A runner that does not number attempts speaks of ours unless an earlier one was there when
        // it was asked.
        let earlier = worker.removed.get(&shown.uuid);
        let earlier = earlier.is_some_and(|(_, removed)| began < *removed);
        let unnumbered = shown.attempt == Attempt(0) && !earlier;
        if held.ended_before(began) && !matches!(shown.state, ReportedState::Finished(_)) {
            if shown.attempt == Attempt(0) && worker.numbers {
                // Its runner could not tell which attempt it is. It may be ours.
                return true;
            }
            if unnumbered && held.is_told() {
                // It has ended, so this is another one: a start that was on its way until now.
                self.remove_held(id, shown.uuid);
                self.take_claim(id, shown);
                return true;
            }
            if shown.attempt == held.attempt && held.was_taken_as_lost() {
                // It was not lost. But it may run elsewhere by now.
                self.remove_held(id, shown.uuid);
                self.take_claim(id, shown);
                return true;
            }
        }
        if shown.attempt == held.attempt || unnumbered {
            self.show(id, shown, began);
            return true;
        }
        // Ours is not there, unless the answer is older than what we did.
        if shown.attempt < held.attempt || began < held.acted {
            return false;
        }
        if self.take_absence(id, shown.uuid, began) {
            self.take_claim(id, shown);
        }
        false
    }

    /// A worker shows what it has of a container that we hold.
    pub(crate) fn show(&mut self, id: &InstanceId, shown: &ContainerReport, began: Seq) {
        match &shown.state {
            ReportedState::Running { started_at } => {
                self.shown_running(id, shown.uuid, *started_at, false, began);
            }
            ReportedState::Stale => self.shown_running(id, shown.uuid, None, true, began),
            ReportedState::Finished(exit) => {
                self.shown_again(id, shown.uuid, began);
                self.end(id, shown.uuid, exit.clone());
            }
        }
    }

    fn shown_running(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        started_at: Option<Timestamp>,
        stale: bool,
        began: Seq,
    ) {
        let seq = self.next_seq();
        let due = self.now + self.config.timeout_stale;
        let Some(held) = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid)) else {
            return;
        };
        let fresh = began > held.acted;
        let (mut settled, mut withdrawn) = (false, false);
        match held.stage {
            Stage::Ended(_) => return,
            Stage::Running => {}
            Stage::Starting(_) | Stage::Known => {
                held.stage = Stage::Running;
                held.document = None;
                held.acted = seq;
                settled = true;
                // It was started before it was withdrawn.
                withdrawn = held.kill.take_if(|kill| kill.only_unstarted).is_some();
                if held.kill.is_none() {
                    held.given_up = false;
                }
            }
        }
        held.absent = None;
        let kill = held.kill.as_mut();
        let not_gone = kill.and_then(|kill| kill.gone.take_if(|gone| began > *gone));
        let timer = Timer::Container(id.clone(), uuid, ContainerTimer::Stale);
        if stale && !held.stale {
            held.stale = true;
            self.timers.set(timer, due);
        } else if !stale && fresh && held.stale {
            held.stale = false;
            held.given_up &= held.kill.is_some();
            self.timers.clear(&timer);
        }
        if withdrawn {
            for timer in [ContainerTimer::Signal, ContainerTimer::GiveUp] {
                self.timers
                    .clear(&Timer::Container(id.clone(), uuid, timer));
            }
        }
        if settled {
            self.start_settled(id, uuid);
        } else if not_gone.is_some() {
            // It is told to end again, but no faster than any other.
            let timer = Timer::Container(id.clone(), uuid, ContainerTimer::Signal);
            let again = self.now + self.config.timeout_signal;
            self.timers.set(timer, again);
        }
        self.tell_running(id, uuid, started_at);
    }

    pub(crate) fn tell_running(
        &mut self,
        id: &InstanceId,
        uuid: ContainerUuid,
        started_at: Option<Timestamp>,
    ) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let Some(held) = worker.held.get_mut(&uuid) else {
            return;
        };
        let (attempt, told) = (held.attempt, held.told_running);
        held.told_running = true;
        held.started_at = held.started_at.or(started_at);
        if started_at.is_some() {
            self.came_to_run(id);
        }
        if !told {
            self.event(Event::Running {
                uuid,
                attempt,
                instance: id.clone(),
                started_at,
            });
        }
    }

    fn take_absences(&mut self, id: &InstanceId, shown: &BTreeSet<ContainerUuid>, began: Seq) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let absent: Vec<ContainerUuid> = worker
            .held
            .keys()
            .filter(|uuid| !shown.contains(uuid))
            .copied()
            .collect();
        for uuid in absent {
            self.take_absence(id, uuid, began);
        }
    }

    /// A report lacks a container that we hold; whether that ended its entry.
    fn take_absence(&mut self, id: &InstanceId, uuid: ContainerUuid, began: Seq) -> bool {
        let now = self.now;
        let Some(held) = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid)) else {
            return false;
        };
        if began < held.acted {
            return false;
        }
        let gone = held
            .kill
            .as_ref()
            .map(|kill| kill.gone.is_some_and(|gone| began > gone));
        let attempt = held.attempt;
        let instance = id.clone();
        match (&held.stage, gone) {
            // It may still be on its way.
            (Stage::Starting(_), _) => false,
            (Stage::Known, Some(false)) => false,
            (Stage::Known, Some(true)) => {
                self.remove_held(id, uuid);
                self.event(Event::NeverRan {
                    uuid,
                    attempt,
                    instance,
                });
                true
            }
            (Stage::Known, None) => {
                self.remove_held(id, uuid);
                let error = "the runner had been told not to start it".into();
                self.event(Event::NotStarted {
                    uuid,
                    attempt,
                    instance,
                    error,
                    spent: true,
                });
                true
            }
            (Stage::Running, Some(true)) if !held.told_running => {
                self.remove_held(id, uuid);
                self.event(Event::NeverRan {
                    uuid,
                    attempt,
                    instance,
                });
                true
            }
            (Stage::Running, _) => {
                let since = *held.absent.get_or_insert(now);
                if now.since(since) >= ABSENCE || gone == Some(true) {
                    let lost = held.unseen(ExitCause::SupervisorLost);
                    self.end(id, uuid, lost);
                }
                false
            }
            (Stage::Ended(ended), _) if ended.acked && ended.told => {
                self.remove_held(id, uuid);
                true
            }
            (Stage::Ended(_), _) => false,
        }
    }

    /// Removes an entry; what reports that began before now say of it is old.
    pub(crate) fn remove_held(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        self.timers.clear_container(id, uuid);
        self.forget_place(uuid, id);
        let worker = self.workers.get_mut(id);
        if let Some(held) = worker.and_then(|worker| worker.held.remove(&uuid)) {
            self.note_removed(id, uuid, held.attempt);
            self.note_freed(uuid);
        }
    }

    /// What reports that began before now say of an attempt on a worker is old.
    pub(crate) fn note_removed(&mut self, id: &InstanceId, uuid: ContainerUuid, attempt: Attempt) {
        let seq = self.next_seq();
        let worker = self.workers.get_mut(id);
        if let Some(worker) = worker.filter(|w| w.probe.is_some() || w.short.is_some()) {
            worker.removed.insert(uuid, (attempt, seq));
        }
    }

    pub(crate) fn forget_place(&mut self, uuid: ContainerUuid, id: &InstanceId) {
        if let Some(places) = self.places.get_mut(&uuid) {
            places.remove(id);
            if places.is_empty() {
                self.places.remove(&uuid);
            }
        }
    }

    /// A worker on which a container may have a process.
    pub(crate) fn may_run_on(&self, uuid: ContainerUuid) -> Option<InstanceId> {
        let may_run = |id: &&InstanceId| {
            let held = self
                .workers
                .get(*id)
                .and_then(|worker| worker.held.get(&uuid));
            held.is_some_and(Held::may_run)
        };
        self.places.get(&uuid)?.iter().find(may_run).cloned()
    }

    pub(crate) fn on_stale_due(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        let held = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid));
        if let Some(held) = held.filter(|held| held.stale && held.may_run()) {
            // Without its supervisor nobody will learn how it ends.
            held.given_up = true;
            self.drain(id, &format!("something holds the lock of container {uuid}"));
        }
    }
}

/// Whether a report shows what a worker is known to run, nothing more and nothing less, so that
/// nothing follows from it but that the worker answers: so it is with nearly all of them.
fn is_as_known(worker: &Worker, report: &RunnerReport) -> bool {
    let is_known = |shown: &ContainerReport| {
        let held = worker.held.get(&shown.uuid);
        held.is_some_and(|held| held.attempt == shown.attempt && runs_as_known(held, &shown.state))
    };
    report.broken.is_none()
        && worker.claims.is_empty()
        && worker.duds.count() == 0
        && report.containers.len() == worker.held.len()
        && report.containers.iter().all(is_known)
}

/// Whether a container is shown as running that is known to, and that is left to.
fn runs_as_known(held: &Held, shown: &ReportedState) -> bool {
    let ReportedState::Running { started_at } = shown else {
        return false;
    };
    matches!(held.stage, Stage::Running)
        && held.told_running
        && (held.started_at.is_some() || started_at.is_none())
        && held.kill.is_none()
        && !held.stale
        && held.absent.is_none()
}
