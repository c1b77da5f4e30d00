//! Reading the queue.

use std::ops::Bound;
use std::time::Duration;

use longshore_queue::{Change, QueueErrorKind, Refresh};
use longshore_types::{ContainerUuid, Instant};

use super::{Asked, Core};
use crate::{Notice, QueueAction, QueueFailure};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The most strangers that are asked for at once; then it is the others' turn.
const MAX_STRANGERS: usize = 1_000;

/// When the queue is read next, and how complete what was read is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refreshing {
    in_flight: bool,
    watching: bool,
    wanted: bool,
    not_before: Instant,
    /// The same for changes.
    watch_not_before: Instant,
    /// The same for strangers, which keep nothing else from being read.
    strangers_not_before: Instant,
    failures: u32,
    /// How often in a row strangers were left after a complete answer.
    stranger_rounds: u32,
    /// The last stranger that was asked for: it goes on after that one.
    last_stranger: Option<ContainerUuid>,
    complete_as_of: Option<Instant>,
}

impl Refreshing {
    /// The moment as of which everything that the controller has is known; none before the first
    /// complete answer.
    pub(super) fn complete_as_of(self) -> Option<Instant> {
        self.complete_as_of
    }

    /// Something has to be read again.
    pub(super) fn ask(&mut self) {
        self.wanted = true;
    }

    fn handle_failure(&mut self, now: Instant) {
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(8));
        self.failures += 1;
        let until = now + pause.min(LONGEST_PAUSE);
        self.not_before = self.not_before.max(until);
        self.watch_not_before = self.watch_not_before.max(until);
    }
}

impl Core {
    /// When the queue is read next, if it is only time that is waited for.
    pub(super) fn next_read_at(&self) -> Option<Instant> {
        let state = &self.refreshing;
        let refresh = self.wants_refresh().then(|| self.refresh_at());
        let watch = self.wants_watch().then_some(state.watch_not_before);
        refresh.into_iter().chain(watch).min()
    }

    fn wants_refresh(&self) -> bool {
        let wanted = self.wants_all() || !self.strangers.is_empty();
        !self.refreshing.in_flight && wanted
    }

    /// Whether the queue has to be read for more than strangers.
    fn wants_all(&self) -> bool {
        let state = &self.refreshing;
        state.complete_as_of.is_none() || state.wanted || !self.config.queue.pushes
    }

    /// When a refresh that is wanted may begin.
    fn refresh_at(&self) -> Instant {
        let state = &self.refreshing;
        if self.wants_all() {
            state.not_before
        } else {
            state.not_before.max(state.strangers_not_before)
        }
    }

    /// The strangers that are asked for now: those after the last one that was, and then the others.
    fn next_strangers(&mut self, now: Instant) -> Vec<ContainerUuid> {
        let state = &mut self.refreshing;
        if state.strangers_not_before > now {
            return Vec::new();
        }
        let after = |last: &ContainerUuid| (Bound::Excluded(*last), Bound::Unbounded);
        let later = state
            .last_stranger
            .iter()
            .flat_map(|last| self.strangers.range(after(last)));
        let mut next: Vec<ContainerUuid> = later
            .chain(&self.strangers)
            .copied()
            .take(MAX_STRANGERS)
            .collect();
        state.last_stranger = next.last().copied();
        next.sort_unstable();
        next.dedup();
        next
    }

    fn wants_watch(&self) -> bool {
        let state = &self.refreshing;
        self.config.queue.pushes && !state.watching && state.complete_as_of.is_some()
    }

    /// Begins the requests that keep the cache up to date.
    pub(super) fn read_queue(&mut self, now: Instant) {
        if self.wants_refresh() && self.refresh_at() <= now {
            self.refreshing.in_flight = true;
            self.refreshing.wanted = false;
            let mut known = self.cache.known();
            known.extend(self.next_strangers(now));
            known.sort_unstable();
            known.dedup();
            let asked = Asked::Refresh { started_at: now };
            self.request(
                self.config.request_timeout,
                QueueAction::Refresh(known),
                asked,
            );
        }
        if self.wants_watch() && self.refreshing.watch_not_before <= now {
            self.refreshing.watching = true;
            let asked = Asked::Watch;
            self.request(self.config.watch_timeout, QueueAction::Watch, asked);
        }
    }

    pub(super) fn handle_refreshed(
        &mut self,
        started_at: Instant,
        result: Result<Refresh, QueueFailure>,
        now: Instant,
    ) {
        self.refreshing.in_flight = false;
        match result {
            Ok(refresh) => {
                self.cache.handle_refresh(&refresh, started_at, now);
                for uuid in &refresh.removed {
                    if let Some(entry) = self.cache.get(*uuid) {
                        // A call was made since. One that is under way will say what is so.
                        self.refreshing.wanted |= !entry.call_in_flight;
                        continue;
                    }
                    self.judge_claims_as_of(*uuid, Some(started_at), now);
                    self.scheduler.confirm_absent(*uuid, started_at, now);
                    self.progress.drop_all(*uuid);
                }
                for container in &refresh.containers {
                    // Also of those that the cache did not take, since it knows something newer.
                    let known = self.cache.get(container.uuid).is_some();
                    if known && self.strangers.remove(&container.uuid) {
                        self.grant_claimed(container.uuid, now);
                        self.judge_claims(container.uuid, now);
                    }
                }
                let state = &mut self.refreshing;
                state.failures = 0;
                state.complete_as_of = state.complete_as_of.max(Some(started_at));
                if !self.config.queue.pushes {
                    // A slow controller is asked no faster than it answers.
                    let pause = self.config.poll_interval.max(now.since(started_at));
                    state.not_before = now + pause;
                }
                self.look_at_strangers(now);
            }
            Err(failure) => {
                // Whatever it was wanted for is not known yet.
                self.refreshing.ask();
                self.handle_unreadable(failure, now);
            }
        }
    }

    /// Those that are still strangers are asked for again, after a pause that grows as long as
    /// there are any. Those that no worker claims any more, and of which there are no news, are none.
    fn look_at_strangers(&mut self, now: Instant) {
        let strangers = std::mem::take(&mut self.strangers);
        self.strangers = strangers
            .into_iter()
            .filter(|uuid| self.pool.is_claimed(*uuid) || self.progress.has_news(*uuid))
            .collect();
        let state = &mut self.refreshing;
        if self.strangers.is_empty() {
            state.stranger_rounds = 0;
            return;
        }
        if state.strangers_not_before > now {
            // They were not asked for this time.
            return;
        }
        let pause = FIRST_PAUSE * 2u32.saturating_pow(state.stranger_rounds.min(8));
        state.stranger_rounds += 1;
        state.strangers_not_before = now + pause.min(LONGEST_PAUSE);
    }

    pub(super) fn handle_changed(
        &mut self,
        result: Result<Vec<Change>, QueueFailure>,
        now: Instant,
    ) {
        self.refreshing.watching = false;
        match result {
            Ok(changes) => {
                for change in &changes {
                    self.cache.handle_change(change, now);
                }
            }
            Err(failure) => {
                // Changes may have been lost with the answer.
                self.refreshing.ask();
                self.handle_unreadable(failure, now);
            }
        }
    }

    /// An answer of a kind that was not asked for counts as no answer.
    pub(super) fn handle_wrong_reply(&mut self, asked: Asked, now: Instant) {
        let failure = QueueFailure {
            kind: QueueErrorKind::Unknown,
            error: "the shell answered something else than it was asked".into(),
        };
        match asked {
            Asked::Refresh { started_at } => {
                self.handle_refreshed(started_at, Err(failure), now);
            }
            Asked::Watch => self.handle_changed(Err(failure), now),
            Asked::Action(uuid, call, action) => {
                self.handle_acted(uuid, call, action, Err(failure), now);
            }
            Asked::Progress(uuid, call) => self.handle_told(uuid, call, Err(failure), now),
            Asked::Document(uuid) => self.handle_document(uuid, Err(failure), now),
        }
    }

    fn handle_unreadable(&mut self, failure: QueueFailure, now: Instant) {
        self.refreshing.handle_failure(now);
        self.handle_overload(failure.kind, now);
        self.notice(Notice::QueueUnreadable {
            error: failure.error,
        });
    }
}

#[cfg(test)]
mod tests {
    use longshore_queue::Capabilities;
    use longshore_types::{Attempt, Exit, ExitCause};

    use super::*;
    use crate::{Config, Effect, QueueReply, RequestId};

    /// A controller that pushes, and that a test stands in for.
    struct Controller {
        core: Core,
        now: Instant,
    }

    impl Controller {
        fn new() -> Self {
            Self::that(true)
        }

        fn that(pushes: bool) -> Self {
            let pool = longshore_pool::Config::new("zzzzz", Vec::new());
            let scheduler = longshore_scheduler::Config::new(Vec::new());
            let queue = Capabilities {
                pushes,
                takes_reports: true,
            };
            let now = Instant::ZERO;
            let core = Core::new(Config::new(pool, scheduler, queue), [0; 32], now);
            Self { core, now }
        }

        /// What it is asked next, after any pause.
        fn next(&mut self) -> (RequestId, QueueAction) {
            for _ in 0..1_000 {
                while let Some(effect) = self.core.poll_effect() {
                    if let Effect::Queue(request) = effect {
                        return (request.id, request.action);
                    }
                }
                let due = self.core.poll_timeout().unwrap();
                self.now = self.now.max(due.at);
                self.core.handle_timeout(self.now);
            }
            panic!("it asks nothing more");
        }

        fn refresh(&mut self, answer: Result<Refresh, QueueFailure>) {
            let (id, action) = self.next();
            assert!(matches!(action, QueueAction::Refresh(_)), "{action:?}");
            self.core
                .handle_reply(id, QueueReply::Refreshed(answer), self.now);
        }

        fn watch(&mut self) -> RequestId {
            let (id, action) = self.next();
            assert_eq!(action, QueueAction::Watch);
            id
        }
    }

    fn uuid(n: usize) -> ContainerUuid {
        format!("zzzzz-dz642-{n:015}").parse().unwrap()
    }

    fn nothing() -> Refresh {
        Refresh {
            containers: Vec::new(),
            removed: Vec::new(),
        }
    }

    fn failure() -> QueueFailure {
        QueueFailure {
            kind: QueueErrorKind::Unknown,
            error: "503".into(),
        }
    }

    #[test]
    fn a_stranger_does_not_keep_changes_from_being_told() {
        let mut controller = Controller::new();
        controller.refresh(Ok(nothing()));
        // Its end is to be told, and nobody has a record of it.
        let stranger = uuid(1);
        let exit = Exit::unseen(ExitCause::InstanceLost);
        let (core, now) = (&mut controller.core, controller.now);
        core.progress
            .ended(stranger, Attempt(1), "i-1".into(), exit, now);
        core.strangers.insert(stranger);
        let mut watch = controller.watch();
        let answer = |controller: &mut Controller, watch| {
            let none = QueueReply::Changed(Ok(Vec::new()));
            controller.core.handle_reply(watch, none, controller.now);
        };
        answer(&mut controller, watch);
        controller.refresh(Ok(nothing()));
        // It is asked for again after a pause; changes are not.
        for _ in 0..8 {
            watch = controller.watch();
            answer(&mut controller, watch);
        }
        assert_eq!(controller.now, now);
    }

    #[test]
    fn an_answer_that_was_asked_for_before_does_not_make_up_for_lost_changes() {
        let mut controller = Controller::new();
        controller.refresh(Ok(nothing()));
        let watch = controller.watch();
        controller.core.refreshing.ask();
        let (asked_before, action) = controller.next();
        assert!(matches!(action, QueueAction::Refresh(_)), "{action:?}");
        let lost = QueueReply::Changed(Err(failure()));
        controller.core.handle_reply(watch, lost, controller.now);
        let answer = QueueReply::Refreshed(Ok(nothing()));
        controller
            .core
            .handle_reply(asked_before, answer, controller.now);
        let next = [controller.next().1, controller.next().1];
        let reads = |action: &QueueAction| matches!(action, QueueAction::Refresh(_));
        assert!(next.iter().any(reads), "{next:?}");
    }

    #[test]
    fn a_stranger_that_stays_does_not_slow_the_polls_and_each_has_its_turn() {
        let mut controller = Controller::that(false);
        controller.refresh(Ok(nothing()));
        let (core, now) = (&mut controller.core, controller.now);
        let many = MAX_STRANGERS + 1;
        for n in 0..many {
            let exit = Exit::unseen(ExitCause::InstanceLost);
            core.progress
                .ended(uuid(n), Attempt(1), "i-1".into(), exit, now);
            core.strangers.insert(uuid(n));
        }
        let mut asked = vec![0; many];
        let begun = controller.now;
        for _ in 0..30 {
            let (id, action) = controller.next();
            let QueueAction::Refresh(known) = action else {
                panic!("{action:?}");
            };
            assert!(known.len() <= MAX_STRANGERS);
            for (n, times) in asked.iter_mut().enumerate() {
                *times += u32::from(known.contains(&uuid(n)));
            }
            let answer = QueueReply::Refreshed(Ok(nothing()));
            controller.core.handle_reply(id, answer, controller.now);
        }
        let polls = controller.core.config.poll_interval * 30;
        assert!(controller.now.since(begun) <= polls, "the polls are slow");
        let (least, most) = (asked.iter().min(), asked.iter().max());
        assert!(least > Some(&5) && most < Some(&20), "{least:?} {most:?}");
    }

    #[test]
    fn one_that_has_too_much_to_do_before_it_was_read_limits_nothing() {
        let overloaded = || QueueFailure {
            kind: QueueErrorKind::Overloaded,
            error: "503".into(),
        };
        let mut controller = Controller::that(false);
        controller.refresh(Err(overloaded()));
        assert_eq!(controller.core.limit.current(), None);
        // What runs elsewhere counts as little as what waits.
        let container = |n: usize, state, locked_by_us| longshore_types::Container {
            uuid: uuid(n),
            state,
            priority: 1,
            created_at: longshore_types::Timestamp(0),
            request: longshore_types::ResourceRequest::default(),
            supervisor: false,
            lock_count: 1,
            given_back: None,
            locked_by_us,
            placed_on: None,
            revision: 1,
        };
        let running = longshore_types::ContainerState::Running;
        let mut containers: Vec<_> = (0..50).map(|n| container(n, running, true)).collect();
        containers.extend((50..60).map(|n| container(n, running, false)));
        let read = Refresh {
            containers,
            removed: Vec::new(),
        };
        controller.refresh(Ok(read));
        assert_eq!(controller.core.running(), 50);
    }

    #[test]
    fn changes_that_were_lost_are_read_even_if_the_first_reading_fails() {
        let mut controller = Controller::new();
        controller.refresh(Ok(nothing()));
        let watch = controller.watch();
        let lost = QueueReply::Changed(Err(failure()));
        controller.core.handle_reply(watch, lost, controller.now);
        controller.refresh(Err(failure()));
        // It watches again meanwhile, and is told of nothing that was lost.
        controller.watch();
        controller.refresh(Ok(nothing()));
    }
}
