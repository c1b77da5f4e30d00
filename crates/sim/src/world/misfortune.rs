//! What goes wrong by the clock, and its end.

use std::time::Duration;

use longshore_cloud::{ErrorKind, Scope};
use longshore_fakecloud::{CallKind, Chance, Fault, FaultPlan, Match, Misfortune, Rule};
use longshore_types::{Attempt, ContainerState, ContainerUuid, ExitCause, InstanceId, Instant};

use super::{Event, World};
use crate::FaultKind;
use crate::scenario::ControllerShape;
use crate::story::{About, Happening};

/// Rates by the clock are so many in this time.
const RATE_SPAN: Duration = Duration::from_secs(1_000 * 3_600);
/// Short listings are at least so far apart: a provider that leaves an instance out again and
/// again says that it is gone.
const SHORT_LISTING_PAUSE: Duration = Duration::from_secs(300);
/// No listing is older than the time that the pool allows for that.
const STALE_MAX: Duration = Duration::from_secs(45);
/// How much later than its caller gives up a call may act.
const LATE_CALL: Duration = Duration::from_secs(130);

impl World {
    /// Sets up what happens to calls, and the first of what happens by the clock.
    pub(super) fn begin_misfortunes(&mut self) {
        for kind in FaultKind::ALL {
            if !kind.is_per_million() {
                self.schedule_misfortune(kind);
            }
        }
        let chance = |kind| Chance::per_million(self.faults.rate(kind));
        let mut plan = FaultPlan::none();
        plan.lose_request = chance(FaultKind::CloudCallLost);
        plan.lose_reply = chance(FaultKind::CloudReplyLost);
        let never_boots = chance(FaultKind::NeverBoots);
        let error = chance(FaultKind::CloudError);
        let settings = self.cloud.settings_mut();
        settings.plan = plan;
        settings.never_boots = never_boots;
        if error != Chance::NEVER {
            let late = Fault::Delay {
                before: LATE_CALL,
                after: Duration::ZERO,
            };
            for fault in [
                Fault::Refuse(ErrorKind::Other),
                Fault::FailAfterActing(ErrorKind::Other),
                Fault::FailSome(Chance::percent(50), ErrorKind::Other),
                late,
            ] {
                let rule = Rule::new(Match::any(), fault).with_probability(error);
                let id = self.cloud.inject(rule);
                self.standing.push(id);
            }
        }
    }

    fn schedule_misfortune(&mut self, kind: FaultKind) {
        let rate = self.faults.rate(kind);
        if rate > 0 {
            let mean = RATE_SPAN / rate;
            let after = self.dice(kind).between(Duration::ZERO, mean * 2);
            self.schedule(after, Event::Misfortune(kind));
        }
    }

    /// A fault by the clock happens, to whomever it hits.
    pub(super) fn befall(&mut self, kind: FaultKind) {
        if self.quiet {
            return;
        }
        self.schedule_misfortune(kind);
        match kind {
            FaultKind::CrashLoop => self.crash_loop(),
            FaultKind::Sleep => {
                let duration = self.random.seconds(5, 1_200);
                self.fall_asleep(duration);
            }
            FaultKind::QueueStorm => {
                self.fault(kind, About::default());
                self.storm_until = self.now + self.random.seconds(10, 120);
            }
            FaultKind::QueueOutage => {
                self.fault(kind, About::default());
                self.outage_until = self.now + self.random.seconds(10, 300);
            }
            FaultKind::Cancel
            | FaultKind::HoldBack
            | FaultKind::Delete
            | FaultKind::Reprioritize => self.owner_acts(kind),
            FaultKind::OtherLocks => self.other_locks(),
            FaultKind::LockLost => self.end_session(true),
            FaultKind::CloudStorm
            | FaultKind::NoCapacity
            | FaultKind::ShortListing
            | FaultKind::StaleListing => self.provider_fails(kind),
            _ => self.machine_fails(kind),
        }
    }

    fn crash_loop(&mut self) {
        self.fault(FaultKind::CrashLoop, About::default());
        for _ in 0..self.random.below(8) + 2 {
            let after = self.random.seconds(1, 60);
            self.schedule(after, Event::Die);
        }
        self.die();
    }

    pub(super) fn die(&mut self) {
        let down = self.random.millis(0, 5_000);
        self.crash(down);
    }

    fn owner_acts(&mut self, kind: FaultKind) {
        let open = self.controller.open();
        let nth = self.random.index(open.len());
        let Some(uuid) = open.iter().nth(nth).copied() else {
            return;
        };
        self.fault(kind, About::container(uuid, Attempt(0)));
        match kind {
            FaultKind::Cancel => self.controller.request_cancel(uuid, self.now),
            FaultKind::HoldBack => {
                self.controller.set_priority(uuid, 0, self.now);
                let after = self.random.tailed(Duration::from_secs(10));
                self.schedule(after, Event::WantAgain(uuid));
            }
            FaultKind::Reprioritize => {
                let priority = 1 + i64::try_from(self.random.below(1_000)).unwrap_or_default();
                self.controller.set_priority(uuid, priority, self.now);
            }
            _ => {
                self.controller.delete(uuid);
                self.outcome.deleted += 1;
            }
        }
        self.take_transitions();
    }

    /// Another installation's dispatcher takes a container that waits, and some time later has run
    /// it or gives it back.
    fn other_locks(&mut self) {
        if self.shape == ControllerShape::Embedded {
            return;
        }
        let waits = |uuid: &&ContainerUuid| {
            let record = self.controller.get(**uuid);
            record.is_some_and(|r| r.container.state == ContainerState::Queued)
        };
        let waiting: Vec<ContainerUuid> = self
            .controller
            .open()
            .iter()
            .filter(waits)
            .copied()
            .collect();
        let nth = self.random.index(waiting.len());
        let Some(uuid) = waiting.get(nth).copied() else {
            return;
        };
        let Some(attempt) = self.controller.lock_by_other(uuid) else {
            return;
        };
        self.fault(FaultKind::OtherLocks, About::container(uuid, attempt));
        let after = self.random.tailed(Duration::from_secs(60));
        let ran = self.random.percent(50);
        self.schedule(after, Event::OtherEnds(uuid, attempt, ran));
        self.take_transitions();
    }

    fn provider_fails(&mut self, kind: FaultKind) {
        let mut times = None;
        let (on, fault) = match kind {
            FaultKind::CloudStorm => {
                let retry_after = self.random.percent(50).then(|| self.random.seconds(1, 30));
                let refused = ErrorKind::RateLimited { retry_after };
                (Match::any(), Fault::Refuse(refused))
            }
            FaultKind::NoCapacity => {
                let types = &self.config.pool.types;
                let nth = self.random.index(types.len());
                let Some(name) = types.get(nth).map(|t| t.name.clone()) else {
                    return;
                };
                let refused = ErrorKind::NoCapacity(Scope::Type(name.clone()));
                let on = Match::from(CallKind::Create).of_type(name);
                (on, Fault::Refuse(refused))
            }
            _ if self.cloud.settings().capabilities.consistent_listing => return,
            FaultKind::ShortListing => {
                let early = |at: Instant| self.now.since(at) < SHORT_LISTING_PAUSE;
                if self.short_listing_at.is_some_and(early) {
                    return;
                }
                self.short_listing_at = Some(self.now);
                // Whoever is told of fewer instances may make more.
                self.excuse(self.machines.keys().cloned().collect());
                times = Some(1);
                (
                    Match::from(CallKind::List),
                    Fault::OmitSome(Chance::percent(40)),
                )
            }
            _ => {
                times = Some(3);
                (Match::from(CallKind::List), Fault::StaleListing(STALE_MAX))
            }
        };
        self.fault(kind, About::default());
        let mut rule = Rule::new(on, fault);
        rule.times = times;
        let id = self.cloud.inject(rule);
        self.standing.push(id);
        let after = self.random.seconds(10, 300);
        self.schedule(after, Event::Lift(id));
    }

    fn machine_fails(&mut self, kind: FaultKind) {
        let nth = self.random.index(self.machines.len());
        let Some(id) = self.machines.keys().nth(nth).cloned() else {
            return;
        };
        self.fault(kind, About::instance(&id));
        let until = self.now + self.random.tailed(Duration::from_secs(60));
        let longer = self.random.seconds(60, 3_600);
        let lies = self.lies_of(&id, kind == FaultKind::FalseResults);
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        machine.troubled = true;
        match kind {
            FaultKind::Slow => machine.condition.slow = until,
            FaultKind::Hung => {
                machine.condition.hung = until;
                self.schedule_at(until, Event::Recover(id));
            }
            FaultKind::Unreachable => machine.condition.unreachable = until,
            FaultKind::CutOff => machine.condition.unreachable = Instant::FAR_FUTURE,
            FaultKind::HalfOpen => machine.condition.half_open = until,
            FaultKind::RunnerMissing => {
                machine.deployed = false;
                machine.condition.no_runner = self.now + longer;
            }
            FaultKind::SupervisorDies => self.supervisor_dies(&id),
            FaultKind::Reboot => self.reboot(&id),
            FaultKind::MachineLost => {
                self.cloud.strike(&id, Misfortune::Vanish, self.now);
                self.look_at_instances();
            }
            FaultKind::BlackHole => machine.black_hole = true,
            FaultKind::Liar | FaultKind::FalseResults => {
                machine.lies.extend(lies);
                self.answer_polls(&id);
            }
            FaultKind::Flood => machine.floods = true,
            FaultKind::AddressChange => {
                self.cloud.strike(&id, Misfortune::ChangeAddress, self.now);
            }
            _ => {}
        }
    }

    /// Claims of containers that were never placed on a machine.
    fn lies_of(&mut self, id: &InstanceId, ended: bool) -> Vec<(ContainerUuid, Attempt, bool)> {
        let Some(machine) = self.machines.get(id) else {
            return Vec::new();
        };
        let never_here = |uuid: &&ContainerUuid| {
            let placed_on = self
                .controller
                .get(**uuid)
                .and_then(|record| record.container.placed_on.as_ref());
            !machine.placed.contains(*uuid) && placed_on != Some(id)
        };
        let known: Vec<(ContainerUuid, Attempt)> = self
            .controller
            .open()
            .iter()
            .filter(never_here)
            .filter_map(|uuid| Some((*uuid, self.controller.get(*uuid)?.container.attempt())))
            .collect();
        let mut lies = Vec::new();
        for (uuid, attempt) in known {
            if self.random.percent(30) {
                let attempt = Attempt(attempt.0.max(1));
                lies.push((uuid, attempt, ended));
            }
        }
        for n in 0..self.random.below(50) {
            if let Ok(uuid) = format!("zzzzz-dz642-liar{n:011}").parse() {
                lies.push((uuid, Attempt(1), ended));
            }
        }
        lies
    }

    fn supervisor_dies(&mut self, id: &InstanceId) {
        let wall = self.wall_time();
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let supervised = machine.runner.supervised();
        let nth = self.random.index(supervised.len());
        let Some((uuid, attempt)) = supervised.get(nth).copied() else {
            return;
        };
        if machine.runner.supervisor_dies(uuid, attempt, wall) {
            self.process_over(id, uuid, attempt, ExitCause::SupervisorLost);
        }
        self.answer_polls(id);
    }

    fn reboot(&mut self, id: &InstanceId) {
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let processes = machine.runner.processes();
        machine.runner.reboot();
        let (polls, stuck) = (
            std::mem::take(&mut machine.polls),
            std::mem::take(&mut machine.stuck),
        );
        // Commands that it had accepted are gone, too; whoever sent them hears nothing.
        drop(stuck);
        for poll in &polls {
            self.lose_poll(id, poll);
        }
        for (uuid, attempt) in processes {
            self.process_over(id, uuid, attempt, ExitCause::SupervisorLost);
        }
    }

    /// The faults end: what they left has to be mended within a bounded time. Machines that are
    /// cut off, lie or swallow containers stay as they are.
    pub(super) fn fall_quiet(&mut self) {
        self.quiet = true;
        self.witness.calm_since = Some(self.now);
        self.tell(Happening::Quiet);
        for rule in std::mem::take(&mut self.standing) {
            self.cloud.lift(rule);
        }
        let settings = self.cloud.settings_mut();
        settings.plan = FaultPlan::none();
        settings.never_boots = Chance::NEVER;
        self.storm_until = self.now;
        self.outage_until = self.now;
        let ids: Vec<InstanceId> = self.machines.keys().cloned().collect();
        for id in ids {
            let Some(machine) = self.machines.get_mut(&id) else {
                continue;
            };
            let condition = &mut machine.condition;
            let cut_off = condition.unreachable == Instant::FAR_FUTURE;
            *condition = crate::machine::Condition::default();
            if cut_off {
                condition.unreachable = Instant::FAR_FUTURE;
            }
            self.recover(&id);
        }
        let open: Vec<ContainerUuid> = self.controller.open().iter().copied().collect();
        for uuid in open {
            let held_back = |r: &crate::controller::Record| r.container.priority < 1;
            if self.controller.get(uuid).is_some_and(held_back) {
                self.controller.set_priority(uuid, super::WANTED, self.now);
            }
        }
        self.take_transitions();
        self.set_end();
    }
}
