//! The one task that owns the core.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::clock::Clock;
use super::log::log;
use super::perform::{Answer, perform};
use super::{Message, Parts, Stopped};
use crate::{Config, Core, Effect, Snapshot};

/// The shortest time between two snapshots.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);
/// How often the loop looks whether it was asleep.
const TICK: Duration = Duration::from_secs(5);
/// A gap between two looks that is longer than this means that it was.
const ASLEEP: Duration = Duration::from_secs(30);
/// The most answers taken before effects are carried out again.
const BATCH: usize = 256;

pub(super) struct EventLoop {
    core: Core,
    clock: Clock,
    parts: Parts,
    inbox: mpsc::Receiver<Message>,
    publisher: watch::Sender<Arc<Snapshot>>,
    tasks: JoinSet<Answer>,
    last_look: Instant,
    publish_at: Option<Instant>,
    published_at: Instant,
}

impl EventLoop {
    pub(super) fn new(
        config: Config,
        parts: Parts,
        seed: [u8; 32],
        inbox: mpsc::Receiver<Message>,
        publisher: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        let clock = Clock::start();
        let now = Instant::now();
        Self {
            core: Core::new(config, seed, clock.now()),
            clock,
            parts,
            inbox,
            publisher,
            tasks: JoinSet::new(),
            last_look: now,
            publish_at: Some(now),
            published_at: now - PUBLISH_INTERVAL,
        }
    }

    pub(super) async fn run(mut self) -> Stopped {
        loop {
            self.drain();
            self.publish();
            let deadline = self
                .core
                .poll_timeout()
                .map(|deadline| self.clock.timer(deadline.at));
            let look = self.last_look + TICK;
            let wake = deadline
                .unwrap_or(look)
                .min(look)
                .min(self.publish_at.unwrap_or(look));
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(Message::Stop(grace)) => return self.stop(grace).await,
                    Some(message) => self.handle_message(message),
                    // Nobody can ask anything any more: the dispatcher was dropped.
                    None => return self.stop(Duration::ZERO).await,
                },
                Some(answer) = self.tasks.join_next() => {
                    if let Ok(answer) = answer {
                        self.handle_answer(answer);
                    }
                    self.handle_ready_answers();
                }
                () = sleep_until(wake) => {}
            }
            self.look_at_the_time(deadline);
        }
    }

    /// Takes the answers that are there already, so that one drain serves many.
    fn handle_ready_answers(&mut self) {
        for _ in 0..BATCH {
            match self.tasks.try_join_next() {
                Some(Ok(answer)) => self.handle_answer(answer),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    fn handle_answer(&mut self, answer: Answer) {
        let now = self.clock.now();
        match answer {
            Answer::Pool(id, outcome) => self.core.handle_pool_outcome(id, outcome, now),
            Answer::Queue(id, reply) => self.core.handle_reply(id, reply, now),
        }
    }

    fn handle_message(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            // Whoever asked may have gone; what was asked for is done all the same.
            Message::SetIdleBehavior(instance, behavior, reply) => {
                let _ = reply.send(self.core.set_idle_behavior(&instance, behavior, now));
            }
            Message::KillInstance(instance, reason, reply) => {
                let _ = reply.send(self.core.kill_instance(&instance, &reason, now));
            }
            Message::WindDown => self.core.wind_down(now),
            Message::Stop(_) => {}
        }
    }

    /// Fires what is due, and tells the core if the whole process was asleep.
    fn look_at_the_time(&mut self, deadline: Option<Instant>) {
        let now = Instant::now();
        let gap = now - self.last_look;
        if gap > ASLEEP {
            tracing::warn!(seconds = gap.as_secs(), "was asleep");
            self.core.handle_sleep(gap, self.clock.now());
        }
        if gap >= TICK {
            self.last_look = now;
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.core.handle_timeout(self.clock.now());
        }
    }

    /// Carries out what the core wants, and passes on what it has to tell.
    fn drain(&mut self) {
        let mut changed = false;
        while let Some(notice) = self.core.poll_notice() {
            changed = true;
            log(&notice);
            if let Some(observer) = &self.parts.observer {
                (observer.0)(&notice);
            }
        }
        while let Some(effect) = self.core.poll_effect() {
            changed = true;
            self.spawn(effect);
        }
        if changed && self.publish_at.is_none() {
            self.publish_at = Some(self.published_at + PUBLISH_INTERVAL);
        }
    }

    fn spawn(&mut self, effect: Effect) {
        let shell = Arc::clone(&self.parts.shell);
        let queue = Arc::clone(&self.parts.queue);
        self.tasks.spawn(perform(effect, shell, queue));
    }

    fn publish(&mut self) {
        let now = Instant::now();
        if self.publish_at.is_some_and(|at| at <= now) {
            self.publisher
                .send_replace(Arc::new(self.core.snapshot(self.clock.now())));
            self.published_at = now;
            self.publish_at = None;
        }
    }

    /// Waits at most `grace` for what is under way, and says what it abandoned.
    async fn stop(mut self, grace: Duration) -> Stopped {
        let deadline = Instant::now() + grace;
        self.core.stop(self.clock.now());
        loop {
            self.drain();
            if self.core.is_settled() {
                break;
            }
            match timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(Ok(answer))) => self.handle_answer(answer),
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        Stopped {
            abandoned: self.core.unsettled(),
            error: self.core.check_invariants().err(),
        }
    }
}
