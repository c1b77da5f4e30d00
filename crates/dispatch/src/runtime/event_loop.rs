//! The one task that owns the core.

use std::sync::Arc;
use std::time::Duration;

use longshore_pool::runtime::{Clock, Performer, SleepWatch};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::ask::ask;
use super::log::log;
use super::times::Recorder;
use super::{Message, Parts, Stopped};
use crate::{Answer, Config, Core, Effect, QueueReply, RequestId, Snapshot};

/// The shortest time between two snapshots.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);
/// The most answers that the core is told of at once.
const MAX_ANSWERS: usize = 1_000;
/// How often the loop looks whether it was asleep.
const TICK: Duration = Duration::from_secs(5);
/// How much of the reason that somebody gives is logged, in characters.
const MAX_REASON: usize = 200;

pub(super) struct EventLoop {
    core: Core,
    clock: Clock,
    parts: Parts,
    inbox: mpsc::Receiver<Message>,
    publisher: watch::Sender<Arc<Snapshot>>,
    performer: Performer,
    requests: JoinSet<(RequestId, QueueReply)>,
    sleep_watch: SleepWatch,
    recorder: Recorder,
    /// When the next snapshot is published; none while nothing has changed since the last.
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
        let clock = Clock::new();
        let now = Instant::now();
        Self {
            core: Core::new(config, seed, clock.now()),
            clock,
            performer: Performer::new(parts.shell.clone()),
            parts,
            inbox,
            publisher,
            requests: JoinSet::new(),
            sleep_watch: SleepWatch::new(),
            recorder: Recorder::default(),
            publish_at: Some(now),
            published_at: now,
        }
    }

    pub(super) async fn run(mut self) -> Stopped {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.drain();
            self.publish();
            let timeout = self.core.poll_timeout();
            let publish_at = self.publish_at.unwrap_or_else(Instant::now);
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(Message::Stop(grace)) => return self.stop(grace).await,
                    Some(message) => self.handle_message(message),
                    // Nobody can ask anything any more: the dispatcher was dropped.
                    None => return self.stop(Duration::ZERO).await,
                },
                Some((id, outcome)) = self.performer.next() => {
                    self.hear(Answer::Pool(id, outcome));
                }
                Some(reply) = self.requests.join_next() => {
                    // A request's task does not panic: what it asks runs in one of its own.
                    if let Ok((id, reply)) = reply {
                        self.hear(Answer::Queue(id, reply));
                    }
                }
                () = self.clock.sleep_until(timeout) => {
                    // After a sleep everything is due at once: that it was one must be known first.
                    self.look_whether_asleep();
                    self.core.handle_timeout(self.clock.now());
                }
                () = sleep_until(publish_at), if self.publish_at.is_some() => {}
                _ = tick.tick() => self.look_whether_asleep(),
            }
        }
    }

    /// Tells the core of an answer, and of those that have come with it.
    fn hear(&mut self, first: Answer) {
        let mut answers = vec![first];
        while answers.len() < MAX_ANSWERS
            && let Some(answer) = self.try_answer()
        {
            answers.push(answer);
        }
        for answer in &answers {
            if let Answer::Pool(id, outcome) = answer {
                self.recorder.on_outcome(*id, outcome);
            }
        }
        self.core.handle_answers(answers, self.clock.now());
    }

    fn try_answer(&mut self) -> Option<Answer> {
        if let Some((id, outcome)) = self.performer.try_next() {
            return Some(Answer::Pool(id, outcome));
        }
        let (id, reply) = self.requests.try_join_next()?.ok()?;
        Some(Answer::Queue(id, reply))
    }

    fn handle_message(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            // Whoever asked may have gone; what was asked for is done all the same.
            Message::SetIdleBehavior(instance, behavior, reply) => {
                tracing::info!(%instance, %behavior, "asked to change what it does when idle");
                let _ = reply.send(self.core.set_idle_behavior(&instance, behavior, now));
            }
            Message::KillInstance(instance, reason, reply) => {
                let why: String = reason.chars().take(MAX_REASON).collect();
                tracing::info!(%instance, reason = why, "asked to destroy it, whatever runs there");
                let _ = reply.send(self.core.kill_instance(&instance, &reason, now));
            }
            Message::Explain(uuid, reply) => {
                let _ = reply.send(self.core.explain(uuid, now));
            }
            Message::Entry(uuid, reply) => {
                let _ = reply.send((self.core.entry(uuid, now), now));
            }
            Message::Entries(reply) => {
                let _ = reply.send((self.core.entries(now), now));
            }
            Message::Instances(reply) => {
                let _ = reply.send((self.core.instances(), now));
            }
            Message::Place(uuid, reply) => {
                let _ = reply.send(self.core.place(uuid));
            }
            Message::Measure(reply) => {
                let figures = self.core.figures(now);
                let _ = reply.send(self.recorder.measured(figures));
            }
            Message::WindDown => self.core.wind_down(now),
            Message::Stop(_) => {}
        }
    }

    fn look_whether_asleep(&mut self) {
        if let Some(gap) = self.sleep_watch.tick() {
            tracing::warn!(seconds = gap.as_secs(), "was asleep");
            self.core.handle_sleep(gap, self.clock.now());
        }
    }

    /// Carries out what the core wants, and passes on what it has to tell.
    fn drain(&mut self) {
        while let Some(notice) = self.core.poll_notice() {
            log(&notice);
            let now = self.clock.now();
            let since = |uuid| self.core.first_seen(uuid).map(|at| now.since(at));
            self.recorder.on_notice(&notice, since);
            if let Some(observer) = &self.parts.observer {
                (observer.0)(&notice);
            }
        }
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Pool(effect) => {
                    self.recorder.on_effect(&effect);
                    self.performer.spawn(effect);
                }
                Effect::Queue(request) => {
                    self.requests
                        .spawn(ask(request, Arc::clone(&self.parts.queue)));
                }
            }
        }
        if self.publish_at.is_none() && self.core.take_changed() {
            self.publish_at = Some(self.published_at + PUBLISH_INTERVAL);
        }
    }

    fn publish(&mut self) {
        let now = Instant::now();
        if self.publish_at.is_some_and(|at| at <= now) {
            let snapshot = self.core.snapshot(self.clock.now());
            self.publisher.send_replace(Arc::new(snapshot));
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
            let next = async {
                tokio::select! {
                    Some((id, outcome)) = self.performer.next() => {
                        self.hear(Answer::Pool(id, outcome));
                        true
                    }
                    Some(Ok((id, reply))) = self.requests.join_next() => {
                        self.hear(Answer::Queue(id, reply));
                        true
                    }
                    else => false,
                }
            };
            if !timeout_at(deadline, next).await.unwrap_or(false) {
                break;
            }
        }
        Stopped {
            abandoned: self.core.unsettled(),
            error: self.core.check_invariants().err(),
        }
    }
}
