//! The one task that owns the core of a [`Pool`](super::Pool).

use std::sync::Arc;
use std::time::Duration;

use longshore_types::WorkerState;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::clock::{Clock, SleepWatch};
use super::failures::Failures;
use super::isolated::{Isolated, Stuck};
use super::metrics::Recorder;
use super::performer::Performer;
use super::shutdown::{Ending, Shutdown};
use super::waiting::{Waiter, Waiting};
use crate::core::Core;
use crate::effect::{EffectId, Outcome};
use crate::event::{Changed, Event};
use crate::view::Snapshot;

/// The shortest time between two snapshots.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);
/// Making snapshots takes at most this part of the time.
const PUBLISH_SHARE: u32 = 10;
/// How often the loop looks whether it was asleep, and whether provider calls are stuck.
const TICK: Duration = Duration::from_secs(5);
/// How often it looks for instances to destroy when it ends with that.
const DESTROY_TICK: Duration = Duration::from_millis(50);
/// How long it waits for what is under way when the last handle was dropped.
const DROP_GRACE: Duration = Duration::from_secs(5);
/// The longest deadline; later ones are this.
const MAX_DEADLINE: Duration = Duration::from_secs(366 * 24 * 3600);

/// A verb, with where its answer goes.
pub(super) type Ask = Box<dyn FnOnce(&mut Core, longshore_types::Instant) + Send>;

/// What a handle asks of the loop.
pub(super) enum Message {
    Ask(Ask),
    Wait(Box<Waiter>),
    End(Ending, Duration),
}

pub(super) struct EventLoop {
    pub(super) core: Core,
    pub(super) clock: Clock,
    pub(super) performer: Performer,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) publisher: watch::Sender<Arc<Snapshot>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) isolated: Option<Isolated>,
    pub(super) auto_acknowledge: bool,
    pub(super) recorder: Option<Recorder>,
    pub(super) failures: Failures,
    pub(super) waiting: Waiting,
    pub(super) sleep_watch: SleepWatch,
    pub(super) stuck: Vec<Stuck>,
    /// Whether something has changed since the last snapshot.
    pub(super) changed: bool,
    pub(super) publish_from: Instant,
}

impl EventLoop {
    /// Runs until it is told to end, and publishes how that went.
    pub(super) async fn run(mut self, ended: watch::Sender<Option<Shutdown>>) {
        let (ending, deadline) = self.work().await;
        let shutdown = self.end(ending, deadline).await;
        if let Some(error) = &shutdown.error {
            tracing::error!(error, "bug: the pool's state was wrong");
        }
        ended.send_replace(Some(shutdown));
    }

    async fn work(&mut self) -> (Ending, Duration) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.drain();
            self.waiting.serve(&mut self.core, self.clock.now());
            self.drain();
            self.publish();
            let due = self.core.poll_timeout();
            let wake = self.wake_at();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(Message::Ask(ask)) => ask(&mut self.core, self.clock.now()),
                    Some(Message::Wait(waiter)) => self.waiting.add(*waiter, &self.core),
                    Some(Message::End(ending, deadline)) => return (ending, deadline),
                    None => return (Ending::Keep, DROP_GRACE),
                },
                Some((id, outcome)) = self.performer.next() => self.on_outcome(id, outcome),
                () = self.clock.sleep_until(due) => self.on_due(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                _ = tick.tick() => self.on_tick(),
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let publish = self.changed.then_some(self.publish_from);
        publish.into_iter().chain(self.waiting.wake_at()).min()
    }

    fn on_outcome(&mut self, id: EffectId, outcome: Outcome) {
        self.failures.on_outcome(id, &outcome);
        if let Some(recorder) = &mut self.recorder {
            recorder.on_outcome(id, &outcome);
        }
        self.core.handle_outcome(id, outcome, self.clock.now());
        self.look_whether_stuck();
    }

    /// After a sleep everything is due at once: that it was one must be known first.
    fn on_due(&mut self) {
        self.look_whether_asleep();
        self.core.handle_timeout(self.clock.now());
    }

    fn on_tick(&mut self) {
        self.look_whether_asleep();
        self.look_whether_stuck();
    }

    fn look_whether_asleep(&mut self) {
        if let Some(gap) = self.sleep_watch.tick() {
            tracing::warn!(seconds = gap.as_secs(), "was asleep");
            self.core.handle_sleep(gap, self.clock.now());
        }
    }

    fn look_whether_stuck(&mut self) {
        let Some(isolated) = &self.isolated else {
            return;
        };
        let stuck = isolated.stuck();
        for new in &stuck {
            if self.stuck.iter().all(|old| old.operation != new.operation) {
                self.core.alarm(new.to_string());
            }
        }
        self.stuck = stuck;
    }

    /// Carries out what the core wants, and passes on what it has to tell.
    fn drain(&mut self) {
        while let Some(event) = self.core.poll_event() {
            self.on_event(event);
        }
        while let Some(effect) = self.core.poll_effect() {
            self.failures.on_effect(&effect);
            if let Some(recorder) = &mut self.recorder {
                recorder.on_effect(&effect);
            }
            self.performer.spawn(effect);
        }
        while let Some(changed) = self.core.poll_changed() {
            self.changed = true;
            self.waiting.look();
            if let (Some(recorder), Changed::Worker(id)) = (&mut self.recorder, &changed) {
                recorder.on_worker(id, self.core.state(id));
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match &event {
            Event::Alarm { text } => tracing::error!("{text}"),
            event => tracing::debug!(?event, "happened"),
        }
        self.waiting.on_event(&event);
        if let Event::Ended {
            uuid,
            attempt,
            instance,
            ..
        } = &event
            && self.auto_acknowledge
        {
            let now = self.clock.now();
            self.core.acknowledge(*uuid, *attempt, instance, now);
        }
        // An error means that nobody listens.
        let _ = self.events.send(event);
    }

    fn publish(&mut self) {
        let began = Instant::now();
        if self.changed && self.publish_from <= began {
            self.changed = false;
            let snapshot = self.core.snapshot(self.clock.now());
            self.publisher.send_replace(Arc::new(snapshot));
            let pause = began.elapsed() * PUBLISH_SHARE;
            self.publish_from = Instant::now() + pause.max(PUBLISH_INTERVAL);
        }
    }

    async fn end(&mut self, ending: Ending, deadline: Duration) -> Shutdown {
        let until = Instant::now() + deadline.min(MAX_DEADLINE);
        self.inbox.close();
        // Whoever asked something just now is told that it was not done.
        while self.inbox.try_recv().is_ok() {}
        self.waiting.end();
        if ending == Ending::Destroy {
            self.destroy_all(until).await;
        }
        self.core.stop(self.clock.now());
        self.drain();
        while !self.core.is_settled() {
            match timeout_at(until, self.performer.next()).await {
                Ok(Some((id, outcome))) => self.on_outcome(id, outcome),
                Ok(None) | Err(_) => break,
            }
            self.drain();
        }
        let mut shutdown = Shutdown::of(&self.core, &self.performer);
        shutdown.never_listed |= ending == Ending::Destroy && !self.core.absence_is_evidence();
        shutdown.error = self.core.check_invariants().err();
        self.changed = true;
        self.publish_from = Instant::now();
        self.publish();
        shutdown
    }

    /// Destroys every instance, also those that only now turn up, until none is left.
    async fn destroy_all(&mut self, until: Instant) {
        let mut tick = interval(DESTROY_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.drain();
            self.publish();
            let due = self.core.poll_timeout();
            tokio::select! {
                () = sleep_until(until) => return,
                Some((id, outcome)) = self.performer.next() => self.on_outcome(id, outcome),
                () = self.clock.sleep_until(due) => self.on_due(),
                _ = tick.tick() => {
                    self.on_tick();
                    if self.destroy_what_is_there() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether nothing is there any more, as far as one can know.
    fn destroy_what_is_there(&mut self) -> bool {
        let now = self.clock.now();
        let workers = self.core.states();
        let alive = workers.filter(|(_, state)| *state != WorkerState::Shutdown);
        let alive: Vec<_> = alive.map(|(id, _)| id.clone()).collect();
        for id in alive {
            // It is known, and the core is not stopping: this is not refused.
            let _ = self.core.shut_down(&id, "the pool is shut down", now);
        }
        // Listings may lag behind: one that shows nothing does not prove that an earlier pool left
        // nothing.
        self.core.absence_is_evidence()
            && self.core.states().next().is_none()
            && self.core.pendings().next().is_none()
            && !self.performer.is_creating()
    }
}
