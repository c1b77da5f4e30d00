//! Requests to the controller. Where that is part of the dispatcher's process, what has not been
//! done when it dies is not done; one outside carries out whatever arrives.

use std::time::Duration;

use longshore_dispatch::{Effect, QueueAction, QueueReply, QueueRequest, RequestId};
use longshore_queue::{Call, QueueErrorKind};
use longshore_types::{ContainerState, ContainerUuid, Instant};

use super::{Arrival, Event, Waiting, Watcher, World};
use crate::controller::{Transition, failed, failure};
use crate::scenario::ControllerShape;
use crate::story::About;
use crate::{FaultKind, Rule};

/// The longest that a request to a controller outside is on its way, in seconds: longer than its
/// sender waits.
const LATE_MAX: u64 = 120;
/// It takes at most so long, in milliseconds, until it is known that a connection has broken.
const BREAK_MAX: u64 = 5_000;

impl World {
    /// A request to the controller sets out.
    pub(super) fn ask(&mut self, request: QueueRequest) {
        // It may be recorded at any time from now on, even if whoever asked is dead by then.
        if let QueueAction::Call(uuid, call) = &request.action
            && let Call::Place { instance, .. }
            | Call::Lock {
                planned: Some(instance),
                ..
            } = call
            && let Some(machine) = self.machines.get_mut(instance)
        {
            machine.place(*uuid);
        }
        let deadline = self.now + request.timeout;
        let about = super::dispatcher::about_request(&request.action);
        let mut delay = self.random.millis(0, 5);
        let mut back = Duration::ZERO;
        if self.strikes(FaultKind::QueueSlow) {
            self.fault(FaultKind::QueueSlow, about.clone());
            let slow = match self.shape {
                ControllerShape::Embedded => self.random.seconds(1, 20),
                _ => self.random.seconds(1, LATE_MAX),
            };
            match self.random.percent(50) {
                true => delay = slow,
                false => back = slow,
            }
            // What the controller tells meanwhile fares no better.
            if self.faults.rate(FaultKind::NewsLost) > 0 && self.random.percent(50) {
                self.news_lost_until = self.news_lost_until.max(self.now + slow);
            }
        }
        let mut answered = true;
        if self.strikes(FaultKind::QueueCallLost) {
            self.fault(FaultKind::QueueCallLost, about);
            self.give_up_on(self.life, &request, deadline);
            return;
        }
        if self.strikes(FaultKind::QueueReplyLost) {
            self.fault(FaultKind::QueueReplyLost, about);
            answered = false;
        }
        if self.now + delay + back >= deadline {
            answered = false;
        }
        if !answered {
            self.give_up_on(self.life, &request, deadline);
        }
        let waiting = Waiting {
            life: self.life,
            deadline,
            answered,
            back,
        };
        let arrival = Arrival {
            effect: Effect::Queue(request),
            waiting,
        };
        self.schedule(delay, Event::Arrive(Box::new(arrival)));
    }

    fn give_up_on(&mut self, life: u32, request: &QueueRequest, deadline: Instant) {
        let reply = failed(&request.action, QueueErrorKind::Unknown);
        self.schedule_at(deadline, Event::Reply(life, request.id, Box::new(reply)));
    }

    /// A request arrives at the controller.
    pub(super) fn answer_request(&mut self, waiting: Waiting, request: &QueueRequest) {
        let asker_lives = waiting.life == self.life && self.core.is_some();
        if self.shape == ControllerShape::Embedded && !asker_lives {
            return;
        }
        let cut = self.shape.is_outside() && self.cut_until > self.now;
        if cut || self.outage_until > self.now {
            if waiting.answered {
                self.give_up_on(waiting.life, request, waiting.deadline);
            }
            return;
        }
        if self.storm_until > self.now {
            if waiting.answered {
                let reply = failed(&request.action, QueueErrorKind::Overloaded);
                self.reply(waiting.life, request.id, reply, waiting.back);
            }
            return;
        }
        if matches!(request.action, QueueAction::Watch) {
            // Changes that were not heard of are told again.
            if waiting.answered {
                self.watch(waiting.life, request.id, waiting.deadline);
            }
            return;
        }
        if self.shape.is_outside()
            && let QueueAction::Refresh(known) = &request.action
        {
            self.read_first_pages(waiting, request.id, known.clone());
            return;
        }
        if let QueueAction::Call(uuid, call) = &request.action {
            self.judge_call(*uuid, call);
        }
        if let QueueAction::Call(uuid, Call::Ended { attempt, exit }) = &request.action
            && let Some(record) = self.controller.get(*uuid)
            && record.container.attempt() == *attempt
            && matches!(
                record.container.state,
                ContainerState::Locked | ContainerState::Running
            )
        {
            self.witness.end_told(*uuid, *attempt, exit);
        }
        if let QueueAction::Call(uuid, Call::Unlock { attempt, placed_on }) = &request.action
            && let Some(record) = self.controller.get(*uuid)
            && record.container.state == ContainerState::Locked
            && record.container.attempt() == *attempt
            && record.container.placed_on == *placed_on
        {
            self.witness.given_back(*uuid, *attempt);
        }
        if let QueueAction::Call(uuid, Call::Cancel { error, .. }) = &request.action {
            self.judge_cancel(*uuid, error);
        }
        let reply = self.controller.perform(&request.action);
        self.take_transitions();
        if waiting.answered {
            self.reply(waiting.life, request.id, reply, waiting.back);
        }
    }

    /// A call about an attempt that is another installation's; a lock may come too late.
    fn judge_call(&mut self, uuid: ContainerUuid, call: &Call) {
        let Some(record) = self.controller.get(uuid) else {
            return;
        };
        let untaken = matches!(
            call,
            Call::Place { .. } | Call::Running { .. } | Call::Ended { .. }
        );
        if untaken && self.shape == ControllerShape::Bare {
            let what = format!("{call:?} about {uuid}, which the controller does not take");
            let about = [uuid.to_string()];
            return self.witness.find(Rule::FalseResult, &about, what);
        }
        let theirs = record.foreign && record.container.attempt() == call.attempt();
        if theirs && !matches!(call, Call::Lock { .. }) {
            let what = format!("{call:?} about {uuid}, which another dispatcher has locked");
            self.witness
                .find(Rule::OthersTouched, &[uuid.to_string()], what);
        }
    }

    /// What is given back may be locked again for which its owner or its place is to blame. While
    /// nothing goes wrong any more, a place is so only if it is known, and not well.
    pub(super) fn note_cause(&mut self, change: &Transition) {
        use ContainerState::{Locked, Queued};
        if (change.from, change.to) != (Locked, Queued) {
            return;
        }
        let record = self.controller.get(change.uuid);
        let unwanted_at = record.and_then(|record| record.unwanted_at);
        let unwanted = unwanted_at.is_some_and(|at| self.witness.was_locked_at(change.uuid, at));
        let place = change.was_on.as_ref().and_then(|id| self.machines.get(id));
        let unwell = place.map_or(!self.quiet, |machine| machine.troubled);
        if unwanted || unwell {
            self.witness.had_cause(change.uuid, change.attempt);
        }
    }

    fn read_first_pages(&mut self, waiting: Waiting, id: RequestId, known: Vec<ContainerUuid>) {
        if !waiting.answered {
            return;
        }
        let pages = super::Pages {
            life: waiting.life,
            id,
            known,
            first: self.controller.locked_by_us(),
            deadline: waiting.deadline,
            back: waiting.back,
        };
        let between = match self.random.percent(10) && !self.faultless {
            true => self.random.seconds(1, 10),
            false => self.random.millis(1, 100),
        };
        self.schedule(between, Event::Pages(Box::new(pages)));
    }

    /// Later pages show what is true later: a container may be in none of them, or in an older
    /// state than it is.
    pub(super) fn read_pages(&mut self, pages: super::Pages) {
        let id = pages.id;
        if self.outage_until > self.now || self.now + pages.back >= pages.deadline {
            let lost = QueueReply::Refreshed(Err(failure(QueueErrorKind::Unknown)));
            let at = pages.deadline.max(self.now);
            self.schedule_at(at, Event::Reply(pages.life, id, Box::new(lost)));
            return;
        }
        let refresh = self.controller.finish_refresh(pages.first, &pages.known);
        let reply = QueueReply::Refreshed(Ok(refresh));
        self.reply(pages.life, id, reply, pages.back);
    }

    /// An answer sets out, and is on its way for `back` longer than usual.
    fn reply(&mut self, life: u32, id: RequestId, reply: QueueReply, back: Duration) {
        let delay = self.random.millis(0, 5) + back;
        self.schedule(delay, Event::Reply(life, id, Box::new(reply)));
    }

    fn watch(&mut self, life: u32, id: RequestId, until: Instant) {
        self.watcher = Some(Watcher { life, id, until });
        self.schedule_watch();
        self.wake_watcher();
    }

    /// One at a time is enough to wake whoever waits: it is looked further when it is time.
    fn schedule_watch(&mut self) {
        if let Some(watcher) = self.watcher.as_ref().filter(|_| !self.watch_is_due) {
            let until = watcher.until;
            self.watch_is_due = true;
            self.schedule_at(until, Event::WatchDue);
        }
    }

    /// It may be time for an empty answer; that of a later watcher is yet to come.
    pub(super) fn watch_due(&mut self) {
        self.watch_is_due = false;
        if self.watcher.as_ref().is_some_and(|w| w.until > self.now) {
            self.schedule_watch();
        }
    }

    /// Whoever waits for changes hears of them, or that there are none. Changes that were in an
    /// answer that is lost are not told again.
    pub(super) fn wake_watcher(&mut self) {
        let Some(watcher) = &self.watcher else { return };
        let cut = self.shape.is_outside() && self.cut_until > self.now;
        let answers = !cut && self.outage_until <= self.now && self.storm_until <= self.now;
        let due = watcher.until <= self.now;
        let news = answers && self.controller.has_changes();
        if !due && !news {
            return;
        }
        let (life, id) = (watcher.life, watcher.id);
        self.watcher = None;
        let failed = failed(&QueueAction::Watch, QueueErrorKind::Unknown);
        if !answers {
            return self.reply(life, id, failed, Duration::ZERO);
        }
        let reply = self.controller.perform(&QueueAction::Watch);
        let lost = self.strikes(FaultKind::NewsLost) || self.news_lost_until > self.now;
        if news && lost && !self.quiet {
            self.fault(FaultKind::NewsLost, About::default());
            let broken = self.random.millis(0, BREAK_MAX);
            return self.reply(life, id, failed, broken);
        }
        self.reply(life, id, reply, Duration::ZERO);
    }
}
