//! Several dispatchers of one installation, of which one is to act.
//!
//! The one that has the lock, or had it last, is the world's own; those that have lost it and may
//! not know yet stand aside, and take its place for as long as something happens to them.

use std::time::Duration;

use longshore_dispatch::{Core, HOLD_BACK, Leadership, LockNews, Standing, TRUST};
use longshore_types::Instant;

use super::{Event, Sleep, World};
use crate::story::About;
use crate::{FaultKind, Rule};

/// From one question to the lock service to the next.
const WATCH_PERIOD: Duration = Duration::from_secs(2);
/// So many questions in a hundred get no answer.
const UNANSWERED_PERCENT: u32 = 20;
/// After this long without a question the service ends a session.
const SESSION: Duration = Duration::from_secs(8);

/// Nobody has the lock.
const NOBODY: u32 = 0;

/// How a dispatcher is with the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lead {
    leadership: Leadership,
    got_at: Instant,
    lost_at: Option<Instant>,
    /// Whether it was stopped after it had asked whether it may act, and before it did.
    unstoppable: bool,
}

impl Lead {
    pub(super) fn has_lock(self) -> bool {
        self.lost_at.is_none()
    }
}

/// A dispatcher that has lost the lock.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) life: u32,
    core: Option<Core>,
    sleep: Option<Sleep>,
    creates_open: usize,
    lead: Option<Lead>,
}

impl World {
    /// One of the standbys gets the lock.
    pub(super) fn get_lock(&mut self) {
        let mut leadership = Leadership::default();
        let session = u64::from(self.life);
        leadership.handle_lock(LockNews::Held { session }, self.now, self.now);
        self.lead = Some(Lead {
            leadership,
            got_at: self.now,
            lost_at: None,
            unstoppable: false,
        });
        self.schedule(WATCH_PERIOD, Event::WatchLock(self.life));
    }

    /// The lock service ends the session of whoever has the lock, who does not know it yet.
    pub(super) fn end_session(&mut self, fault: bool) {
        let Some(mut lead) = self.lead.take() else {
            return;
        };
        if fault {
            self.fault(FaultKind::LockLost, About::default());
        }
        lead.lost_at = Some(self.now);
        if self.core.is_some() {
            self.aside.push(Aside {
                life: self.life,
                core: self.core.take(),
                sleep: self.sleep.take(),
                creates_open: std::mem::take(&mut self.creates_open),
                lead: Some(lead),
            });
            self.life = NOBODY;
        }
        let after = self.random.millis(0, 5_000);
        self.schedule(after, Event::Restart);
    }

    /// A dispatcher that sleeps does not keep its session.
    pub(super) fn neglect_session(&mut self, life: u32) {
        let asleep = |sleep: &Sleep| self.now.since(sleep.since) >= SESSION;
        if life == self.life && self.sleep.as_ref().is_some_and(asleep) {
            self.end_session(false);
        }
    }

    /// When the session of one that falls asleep ends.
    pub(super) fn schedule_neglect(&mut self) {
        if self.lead.is_some() {
            self.schedule(SESSION, Event::Neglect(self.life));
        }
    }

    /// A dispatcher asks the lock service, which may not answer.
    pub(super) fn watch_lock(&mut self, life: u32) {
        self.as_if(life, |world| {
            if world.life != life || world.lead.is_none() {
                return;
            }
            world.schedule(WATCH_PERIOD, Event::WatchLock(life));
            let calm = world.quiet || world.faultless;
            let answers = calm || !world.random.percent(UNANSWERED_PERCENT);
            let now = world.now;
            if let Some(lead) = &mut world.lead
                && world.sleep.is_none()
                && answers
            {
                let news = match lead.lost_at {
                    None => LockNews::Held {
                        session: u64::from(life),
                    },
                    Some(_) => LockNews::Lost,
                };
                lead.leadership.handle_lock(news, now, now);
            }
        });
    }

    /// Whoever may act begins or goes on, whoever may not ends.
    pub(super) fn lead(&mut self) {
        if self.dispatchers < 2 {
            return;
        }
        self.look_at_standing();
        for life in self.aside.iter().map(|a| a.life).collect::<Vec<u32>>() {
            self.as_if(life, Self::look_at_standing);
        }
        self.aside.retain(|aside| aside.core.is_some());
    }

    pub(super) fn look_at_standing(&mut self) {
        let (now, asleep) = (self.now, self.sleep.is_some());
        let Some(lead) = self.lead.as_mut().filter(|_| !asleep) else {
            return;
        };
        if lead.unstoppable {
            return;
        }
        lead.leadership.handle_timeout(now);
        let in_place = lead.lost_at.is_none();
        match lead.leadership.standing() {
            Standing::Acting if self.core.is_none() => self.begin(),
            Standing::Acting | Standing::HoldingBack { .. } => {}
            Standing::Standby | Standing::Lost => {
                self.lead = None;
                self.end_process();
                if in_place {
                    let after = self.random.seconds(1, 10);
                    self.schedule(after, Event::Restart);
                }
            }
        }
    }

    /// Lets those that stand aside do what they still do.
    pub(super) fn take_effects_aside(&mut self) {
        for life in self.aside.iter().map(|a| a.life).collect::<Vec<u32>>() {
            self.as_if(life, |world| {
                let now = world.now;
                if let Some(core) = world.core.as_mut().filter(|_| world.sleep.is_none())
                    && core
                        .poll_timeout()
                        .is_some_and(|deadline| deadline.at <= now)
                {
                    core.handle_timeout(now);
                }
                world.take_effects();
            });
        }
        self.aside.retain(|aside| aside.core.is_some());
    }

    /// One that wakes may have been stopped between the question whether it may act and the act.
    pub(super) fn wake_leading(&mut self, slept: Duration) {
        let unlucky = self.random.percent(30);
        let now = self.now;
        if let Some(lead) = &mut self.lead {
            lead.leadership.handle_sleep(slept, now);
            lead.unstoppable = unlucky && lead.lost_at.is_some();
        }
    }

    /// What it was stopped in is done.
    pub(super) fn finish_late_act(&mut self) {
        if let Some(lead) = &mut self.lead {
            lead.unstoppable = false;
        }
    }

    /// Whether what the dispatcher does now was decided before it was stopped.
    pub(super) fn acts_late(&self) -> bool {
        self.lead.is_some_and(|lead| lead.unstoppable)
    }

    /// Nothing is done without the lock.
    pub(super) fn judge_act(&mut self) {
        let Some(lead) = self.lead.filter(|lead| !lead.unstoppable) else {
            return;
        };
        let late = lead.lost_at.is_some_and(|at| self.now.since(at) > TRUST);
        let early = self.now.since(lead.got_at) < HOLD_BACK;
        if late || early {
            let (life, got, lost) = (self.life, lead.got_at, lead.lost_at);
            let what =
                format!("dispatcher {life}, which got it at {got:?} and lost it at {lost:?}");
            self.witness.find(Rule::ActsWithoutLock, &[], what);
        }
    }

    /// Whether this dispatcher stands aside.
    pub(super) fn is_aside(&self, life: u32) -> bool {
        self.aside.iter().any(|aside| aside.life == life)
    }

    /// Does something in the place of a dispatcher that stands aside, or of the world's own.
    pub(super) fn as_if(&mut self, life: u32, act: impl FnOnce(&mut Self)) {
        let position = self.aside.iter().position(|aside| aside.life == life);
        self.exchange(position);
        act(self);
        self.exchange(position);
    }

    fn exchange(&mut self, position: Option<usize>) {
        let Some(other) = position.and_then(|position| self.aside.get_mut(position)) else {
            return;
        };
        std::mem::swap(&mut self.life, &mut other.life);
        std::mem::swap(&mut self.core, &mut other.core);
        std::mem::swap(&mut self.sleep, &mut other.sleep);
        std::mem::swap(&mut self.creates_open, &mut other.creates_open);
        std::mem::swap(&mut self.lead, &mut other.lead);
    }
}
