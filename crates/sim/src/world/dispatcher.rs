//! The dispatcher's process: what it asks, what it hears, its deaths and sleeps.

use std::time::Duration;

use longshore_dispatch::{Answer, Core, Effect, QueueAction, QueueReply};
use longshore_pool::{EffectAction, Outcome as PoolOutcome};
use longshore_types::Instant;

use super::{Event, Sleep, World};
use crate::how::How;
use crate::story::{About, Happening};
use crate::{FaultKind, Rule};

/// The most effects at one moment of the virtual clock.
const BUSY_MOMENT_MAX: u64 = 200_000;

impl World {
    /// A dispatcher begins that knows nothing.
    pub(super) fn restart(&mut self) {
        if self.core.is_some() || self.lead.is_some() {
            return;
        }
        self.outcome.lives += 1;
        self.life = self.outcome.lives;
        if self.dispatchers > 1 {
            self.get_lock();
        } else {
            self.begin();
        }
    }

    /// It begins to act.
    pub(super) fn begin(&mut self) {
        self.hear_anew();
        self.end_last_fault();
        self.excuse_recent(self.now);
        self.controller.subscribe_anew();
        let records = self.controller.records();
        for container in records.map(|record| &record.container) {
            let placed_on = container.placed_on.as_ref();
            if let Some(machine) = placed_on.and_then(|id| self.machines.get_mut(id)) {
                machine.place(container.uuid);
            }
        }
        let seed = self.random.bytes();
        self.core = Some(Core::new(self.config.clone(), seed, self.now));
        self.tell(Happening::Life(self.life));
    }

    /// The dispatcher dies, and is started again after a while.
    pub(super) fn crash(&mut self, down: Duration) {
        if self.core.is_none() {
            return;
        }
        self.end_process();
        self.fault(FaultKind::Crash, About::default());
        let has_lock = self.lead.take().is_none_or(|lead| lead.has_lock());
        if has_lock {
            let overtaken = Duration::from_secs(15);
            let down = match self.dispatchers {
                0 | 1 => down,
                _ => down.min(overtaken),
            };
            self.schedule(down, Event::Restart);
        }
    }

    /// A process ends, and what it waited for with it.
    pub(super) fn end_process(&mut self) {
        self.core = None;
        self.sleep = None;
        self.watcher = None;
        self.creates_open = 0;
        let life = self.life;
        let its_own = |(_, (asker, ..)): &(_, &(u32, _, _))| *asker == life;
        let calls: Vec<_> = self
            .calls
            .iter()
            .filter(its_own)
            .map(|(id, _)| *id)
            .collect();
        for call in calls {
            self.calls.remove(&call);
            self.cloud.cancel(call, self.now);
        }
    }

    /// Whether the dispatcher dies right after it did something.
    fn crashes(&mut self, after: &'static str, kind: &str) -> bool {
        let aimed_at = |what: &String| {
            what.strip_prefix(after)
                .is_some_and(|w| w.trim_start() == kind)
        };
        let aimed = !self.quiet && self.dies_after.as_ref().is_some_and(aimed_at);
        let hit = aimed && self.dice(FaultKind::Crash).percent(50);
        if !hit && !self.strikes(FaultKind::Crash) {
            return false;
        }
        let counted = self.outcome.crashes.entry(format!("{after} {kind}"));
        *counted.or_default() += 1;
        let down = match self.random.below(100) {
            0..60 => self.random.millis(0, 2_000),
            60..85 => self.random.seconds(2, 60),
            85..98 => self.random.seconds(60, 900),
            _ => self.random.seconds(900, 10_800),
        };
        self.crash(down);
        true
    }

    /// The dispatcher's machine sleeps: it neither sees nor does anything.
    pub(super) fn fall_asleep(&mut self, kind: FaultKind, duration: Duration) {
        if self.core.is_none() || self.sleep.is_some() {
            return;
        }
        self.fault(kind, About::default());
        self.sleep = Some(Sleep {
            since: self.now,
            inbox: Vec::new(),
        });
        self.schedule(duration, Event::Wake(self.life));
        self.schedule_neglect();
    }

    pub(super) fn wake(&mut self) {
        let Some(sleep) = self.sleep.take() else {
            return;
        };
        let slept = self.now.since(sleep.since);
        if let Some(core) = &mut self.core
            && slept > Duration::from_secs(30)
        {
            core.handle_sleep(slept, self.now);
            self.silence_begins_anew();
        }
        self.wake_leading(slept);
        if !self.acts_late() {
            self.look_at_standing();
        }
        self.hear_all(sleep.inbox);
        self.take_effects();
        self.finish_late_act();
    }

    /// An answer reaches the dispatcher, if it is the one that asked.
    pub(super) fn hear(&mut self, event: Event) {
        let (Event::Outcome(life, ..) | Event::Reply(life, ..)) = &event else {
            return;
        };
        let life = *life;
        if self.is_aside(life) {
            return self.as_if(life, |world| world.hear(event));
        }
        if life != self.life || self.core.is_none() {
            return;
        }
        if let Some(sleep) = &mut self.sleep {
            sleep.inbox.push(event);
            return;
        }
        self.hear_all(vec![event]);
    }

    /// Answers that have come meanwhile reach the dispatcher all at once.
    fn hear_all(&mut self, events: Vec<Event>) {
        let (mut answers, mut heard) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Outcome(life, id, mut outcome, about) => {
                    self.forget_old_lies(&mut outcome, &about);
                    let (kind, how) = How::of(&outcome);
                    self.note_heard(id, &outcome, &about);
                    if let (PoolOutcome::Collected(Ok(())), Some((uuid, attempt))) =
                        (&*outcome, about.container)
                    {
                        self.witness.brought_home(uuid, attempt);
                    }
                    self.creates_open -= usize::from(kind == "create").min(self.creates_open);
                    self.tell(Happening::Outcome {
                        life,
                        id: id.0,
                        kind,
                        how,
                        about,
                    });
                    answers.push(Answer::Pool(id, *outcome));
                    heard.push(kind);
                }
                Event::Reply(_, id, reply) => {
                    heard.push(reply_kind(&reply));
                    answers.push(Answer::Queue(id, *reply));
                }
                _ => {}
            }
        }
        let now = self.now;
        if let Some(core) = &mut self.core {
            core.handle_answers(answers, now);
        }
        for kind in heard {
            if self.crashes("heard", kind) {
                return;
            }
        }
    }

    fn forget_old_lies(&self, outcome: &mut PoolOutcome, about: &About) {
        let machine = about.instance.as_ref().and_then(|id| self.machines.get(id));
        if let (PoolOutcome::Reported(Ok(report)), Some(machine)) = (outcome, machine) {
            machine.forget_old_lies(report);
        }
    }

    /// Everything that the dispatcher asks for sets out.
    pub(super) fn take_effects(&mut self) {
        if self.sleep.is_some() {
            return;
        }
        while let Some(notice) = self.core.as_mut().and_then(Core::poll_notice) {
            if matches!(notice, longshore_dispatch::Notice::Happened(_)) {
                self.tell(Happening::Notice(Box::new(notice)));
            }
        }
        while let Some(effect) = self.core.as_mut().and_then(Core::poll_effect) {
            self.count_moment();
            self.judge_act();
            if let Effect::Pool(effect) = &effect {
                self.note_asked(effect);
            }
            let about = about(&effect);
            let (id, kind) = match &effect {
                Effect::Pool(effect) => (effect.id.0, effect.action.kind()),
                Effect::Queue(request) => (request.id.0, queue_kind(&request.action)),
            };
            *self.outcome.calls.entry(kind).or_default() += 1;
            self.tell(Happening::Effect {
                life: self.life,
                id,
                kind,
                about,
            });
            match effect {
                Effect::Pool(effect) if is_call(&effect.action) => self.call(&effect),
                Effect::Pool(effect) => self.command(effect),
                Effect::Queue(request) => self.ask(request),
            }
            if self.crashes("asked", kind) {
                return;
            }
        }
    }

    fn count_moment(&mut self) {
        if self.busy_moment.0 != self.now {
            self.busy_moment = (self.now, 0);
        }
        self.busy_moment.1 += 1;
        if self.busy_moment.1 == BUSY_MOMENT_MAX {
            let what = format!("{BUSY_MOMENT_MAX} effects at one moment");
            self.witness.find(Rule::Livelock, &[], what);
        }
    }

    /// Has the dispatcher hear what came of an effect.
    pub(super) fn answer(&mut self, at: Instant, to: super::Asker, outcome: PoolOutcome) {
        let event = Event::Outcome(to.life, to.id, Box::new(outcome), to.about);
        self.schedule_at(at, event);
    }
}

/// Whether an effect is a call to the provider.
fn is_call(action: &EffectAction) -> bool {
    matches!(
        action,
        EffectAction::Create(_)
            | EffectAction::List(_)
            | EffectAction::Destroy(_)
            | EffectAction::SetTags(..)
            | EffectAction::Console(..)
    )
}

fn reply_kind(reply: &QueueReply) -> &'static str {
    match reply {
        QueueReply::Refreshed(_) => "queue refresh",
        QueueReply::Changed(_) => "queue watch",
        QueueReply::Called(_) => "queue call",
        QueueReply::Document(_) => "queue document",
    }
}

fn queue_kind(action: &QueueAction) -> &'static str {
    match action {
        QueueAction::Refresh(_) => "queue refresh",
        QueueAction::Watch => "queue watch",
        QueueAction::Document(_) => "queue document",
        QueueAction::Call(_, call) => match call {
            longshore_queue::Call::Lock { .. } => "queue lock",
            longshore_queue::Call::Place { .. } => "queue place",
            longshore_queue::Call::Unlock { .. } => "queue unlock",
            longshore_queue::Call::Cancel { .. } => "queue cancel",
            longshore_queue::Call::Running { .. } => "queue running",
            longshore_queue::Call::Ended { .. } => "queue ended",
        },
    }
}

pub(super) fn about(effect: &Effect) -> About {
    match effect {
        Effect::Pool(effect) => about_action(&effect.action),
        Effect::Queue(request) => about_request(&request.action),
    }
}

pub(super) fn about_action(action: &EffectAction) -> About {
    match action {
        EffectAction::Start {
            host,
            uuid,
            attempt,
            ..
        }
        | EffectAction::Kill {
            host,
            uuid,
            attempt,
            ..
        }
        | EffectAction::Collect {
            host,
            uuid,
            attempt,
            ..
        } => About::on(&host.instance, *uuid, *attempt),
        EffectAction::Boot(host)
        | EffectAction::Deploy(host, _)
        | EffectAction::Report(host, _) => About::instance(&host.instance),
        EffectAction::SetTags(id, _)
        | EffectAction::Console(id, _)
        | EffectAction::Disconnect(id) => About::instance(id),
        EffectAction::Destroy(ids) => ids.first().map(About::instance).unwrap_or_default(),
        EffectAction::Create(_) | EffectAction::List(_) => About::default(),
    }
}

pub(super) fn about_request(action: &QueueAction) -> About {
    match action {
        QueueAction::Call(uuid, call) => About::container(*uuid, call.attempt()),
        QueueAction::Document(uuid) => About::container(*uuid, longshore_types::Attempt(0)),
        QueueAction::Refresh(_) | QueueAction::Watch => About::default(),
    }
}
