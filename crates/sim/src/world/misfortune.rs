//! What goes wrong by the clock, and its end.

mod machines;
mod provider;

use std::time::Duration;

use longshore_cloud::ErrorKind;
use longshore_fakecloud::{CallKind, Chance, Fault, FaultPlan, Match, Rule};
use longshore_types::{Attempt, ContainerState, ContainerUuid, InstanceId, Instant};

use super::{Event, World};
use crate::FaultKind;
use crate::story::{About, Happening};

/// Rates by the clock are so many in this time.
const RATE_SPAN: Duration = Duration::from_secs(1_000 * 3_600);
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
                self.stand(Rule::new(Match::any(), fault).with_probability(error));
            }
        }
        let wrong = Chance::per_million(self.faults.rate(FaultKind::CreateIdMissing));
        if wrong != Chance::NEVER {
            self.stand(Rule::new(CallKind::Create, Fault::EmptyId).with_probability(wrong));
        }
    }

    /// Has the provider do something wrong until the faults end.
    fn stand(&mut self, rule: Rule) -> longshore_fakecloud::RuleId {
        let id = self.cloud.inject(rule);
        self.standing.push(id);
        id
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
            FaultKind::Away => {
                self.fault(kind, About::default());
                let down = self.random.seconds(600, 18_000);
                self.crash(down);
            }
            FaultKind::Sleep => {
                let duration = self.random.seconds(5, 1_200);
                self.fall_asleep(kind, duration);
            }
            FaultKind::Stall => {
                let duration = self.random.millis(1, 1_000);
                self.fall_asleep(kind, duration);
            }
            FaultKind::QueueStorm => {
                self.fault(kind, About::default());
                self.storm_until = self.now + self.random.seconds(10, 120);
            }
            FaultKind::QueueOutage => {
                self.fault(kind, About::default());
                self.outage_until = self.now + self.random.seconds(10, 300);
            }
            FaultKind::ClockJump => {
                self.fault(kind, About::default());
                self.clock = self.hours_off();
            }
            FaultKind::OwnNetwork => self.cut_off_ourselves(),
            FaultKind::Cancel
            | FaultKind::HoldBack
            | FaultKind::Wavers
            | FaultKind::Delete
            | FaultKind::Reprioritize => self.owner_acts(kind),
            FaultKind::OtherLocks | FaultKind::OtherRuns => self.other_locks(kind),
            FaultKind::Operator => self.operator_acts(),
            FaultKind::Stopped => self.operator_stops(),
            FaultKind::LockLost => self.end_session(true),
            FaultKind::CloudStorm
            | FaultKind::Denied
            | FaultKind::NoCapacity
            | FaultKind::QuotaLowered
            | FaultKind::ShortListing
            | FaultKind::StaleListing
            | FaultKind::RepeatedIds
            | FaultKind::BrokenPages
            | FaultKind::Lingering
            | FaultKind::SlowBoot
            | FaultKind::Reappears
            | FaultKind::Interrupted
            | FaultKind::TagsChanged
            | FaultKind::TagsLost => self.provider_fails(kind),
            _ => self.machine_fails(kind),
        }
    }

    /// A clock that is off by up to six hours, in milliseconds.
    fn hours_off(&mut self) -> i64 {
        let span = 6 * 3_600_000;
        i64::try_from(self.random.below(2 * span)).unwrap_or(0) - 6 * 3_600_000
    }

    /// Nothing that the dispatcher sends arrives anywhere, and no answer reaches it.
    fn cut_off_ourselves(&mut self) {
        self.fault(FaultKind::OwnNetwork, About::default());
        let span = self.random.seconds(10, 1_200);
        self.cut_until = self.cut_until.max(self.now + span);
        let fault = match self.random.percent(50) {
            true => Fault::LoseRequest,
            false => Fault::Refuse(ErrorKind::Other),
        };
        let rule = self.stand(Rule::new(Match::any(), fault));
        self.schedule_at(self.cut_until, Event::Lift(rule));
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
        // Half of the time it hits one that is about to be started.
        let aimed = self.random.percent(50);
        let locked = |uuid: &&ContainerUuid| {
            let record = self.controller.get(**uuid);
            record.is_some_and(|r| r.container.state == ContainerState::Locked)
        };
        let open = self.controller.open().iter();
        let open: Vec<ContainerUuid> = open.filter(|u| !aimed || locked(u)).copied().collect();
        let nth = self.random.index(open.len());
        let Some(uuid) = open.get(nth).copied() else {
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
            FaultKind::Wavers => {
                let mut after = Duration::ZERO;
                for _ in 0..2 {
                    self.schedule(after, Event::HoldBack(uuid));
                    after += self.random.millis(0, 1_500);
                    self.schedule(after, Event::WantAgain(uuid));
                    after += self.random.millis(0, 1_500);
                }
            }
            _ => {
                self.controller.delete(uuid);
                self.outcome.deleted += 1;
            }
        }
        self.take_transitions();
    }

    /// Another installation's dispatcher takes a container that waits, and some time later has run
    /// it or gives it back; or it runs for long.
    fn other_locks(&mut self, kind: FaultKind) {
        if !self.shape.is_outside() {
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
        self.fault(kind, About::container(uuid, attempt));
        let after = if kind == FaultKind::OtherRuns {
            self.controller.run_by_other(uuid);
            self.random.seconds(600, 18_000)
        } else {
            self.random.tailed(Duration::from_secs(60))
        };
        let ran = self.random.percent(50);
        self.schedule(after, Event::OtherEnds(uuid, attempt, ran));
        self.take_transitions();
    }

    /// The faults end: what they left has to be mended within a bounded time. Machines that are
    /// cut off, lie or swallow containers stay as they are.
    pub(super) fn fall_quiet(&mut self) {
        self.quiet = true;
        self.served_in_calm = self.core.is_some();
        if self.served_in_calm {
            self.begin_calm();
        }
        self.tell(Happening::Quiet);
        for rule in std::mem::take(&mut self.standing) {
            self.cloud.lift(rule);
        }
        let settings = self.cloud.settings_mut();
        settings.plan = FaultPlan::none();
        settings.never_boots = Chance::NEVER;
        for kind in [
            FaultKind::Lingering,
            FaultKind::SlowBoot,
            FaultKind::QuotaLowered,
        ] {
            self.end_of(kind);
        }
        self.done_with_lingering();
        self.cut_until = self.cut_until.min(self.now);
        self.end_cuts();
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
