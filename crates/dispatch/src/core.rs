//! The composition.

mod act;
mod claims;
mod explain;
mod figures;
mod mirror;
mod refresh;
mod show;
mod tell;

pub use figures::Figures;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use longshore_pool::{EffectId, Event, Outcome, Refusal};
use longshore_queue::{Cache, Call, QueueErrorKind};
use longshore_scheduler::{Action, Limits};
use longshore_types::{
    Attempt, ContainerState, ContainerUuid, Deadline, IdleBehavior, InstanceId, Instant, TypeName,
    WorkerState, WorkerView,
};
use refresh::Refreshing;

use crate::boots::Boots;
use crate::limit::ContainerLimit;
use crate::progress::Progress;
use crate::view::{Snapshot, WaitingEntry};
use crate::{Answer, Config, Effect, Notice, QueueAction, QueueReply, QueueRequest, RequestId};

/// The most notices that wait to be taken.
const MAX_NOTICES: usize = 10_000;
/// The most waiting entries in a snapshot.
const MAX_WAITING: usize = 200;

/// Pool, scheduler and the queue's cache, composed. See the crate documentation for how it is
/// driven.
#[derive(Debug)]
pub struct Core {
    config: Config,
    pool: longshore_pool::Core,
    scheduler: longshore_scheduler::Core,
    cache: Cache,
    refreshing: Refreshing,
    limit: ContainerLimit,
    progress: Progress,
    boots: Boots,
    /// Requests to the controller that have not been answered.
    requests: BTreeMap<RequestId, Asked>,
    next_request: u64,
    /// Start documents of locked containers, until they are started.
    documents: BTreeMap<ContainerUuid, Arc<[u8]>>,
    /// The attempts that this process locked or placed: no earlier one can have sent their start.
    locked_here: BTreeMap<ContainerUuid, Attempt>,
    /// Starts that wait for their document.
    awaiting_document: BTreeMap<ContainerUuid, Action>,
    /// Containers that have to be asked for by UUID: workers claim them and the cache does not
    /// know them, or a call about them has failed.
    strangers: BTreeSet<ContainerUuid>,
    /// The newest attempt of each entry that may have been started when it came into the cache.
    inherited: BTreeMap<ContainerUuid, Attempt>,
    /// When each entry came into the cache.
    first_seen: BTreeMap<ContainerUuid, Instant>,
    /// What was last on each worker, and when.
    last_busy: BTreeMap<InstanceId, (ContainerUuid, Instant)>,
    limits: Option<Limits>,
    gate_changed: bool,
    create_blocked: BTreeMap<TypeName, String>,
    quota_blocked: BTreeSet<TypeName>,
    effects: VecDeque<Effect>,
    notices: VecDeque<Notice>,
    changed: bool,
    dropped_notices: u64,
    ending: Ending,
}

/// What a request to the controller was about.
#[derive(Clone, Debug)]
enum Asked {
    Refresh {
        started_at: Instant,
    },
    Watch,
    /// A call that the scheduler wants.
    Action(ContainerUuid, Call, Action),
    /// A call that tells of progress.
    Progress(ContainerUuid, Call),
    Document(ContainerUuid),
}

impl Asked {
    fn changes_something(&self) -> bool {
        matches!(self, Self::Action(..) | Self::Progress(..))
    }
}

/// How far a dispatcher is with ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Not asked to.
    No,
    /// Nothing new is begun; instances are given back as soon as nothing is left on them.
    WindingDown,
    /// Nothing new is begun; only what is under way is awaited.
    Stopping,
}

impl Core {
    /// A dispatcher that knows nothing yet. `seed` is random and secret: instance secrets are
    /// made from it.
    pub fn new(mut config: Config, seed: [u8; 32], now: Instant) -> Self {
        // Where the records say where attempts were placed, they decide what is claimed.
        let records_placement = config.queue.takes_reports;
        config.scheduler.records_placement = records_placement;
        config.pool.asks_about_claims = records_placement;
        let mut core = Self {
            pool: longshore_pool::Core::new(config.pool.clone(), seed, now),
            scheduler: longshore_scheduler::Core::new(config.scheduler.clone()),
            cache: Cache::new(),
            refreshing: Refreshing::default(),
            limit: ContainerLimit::default(),
            progress: Progress::default(),
            boots: Boots::default(),
            requests: BTreeMap::new(),
            next_request: 0,
            documents: BTreeMap::new(),
            locked_here: BTreeMap::new(),
            awaiting_document: BTreeMap::new(),
            strangers: BTreeSet::new(),
            inherited: BTreeMap::new(),
            first_seen: BTreeMap::new(),
            last_busy: BTreeMap::new(),
            limits: None,
            gate_changed: true,
            create_blocked: BTreeMap::new(),
            quota_blocked: BTreeSet::new(),
            effects: VecDeque::new(),
            notices: VecDeque::new(),
            changed: true,
            dropped_notices: 0,
            ending: Ending::No,
            config,
        };
        core.pool.set_records_read(false, now);
        core.settle(now);
        core
    }

    /// What came of some effects, in the order in which it was heard. Together they cost little
    /// more than the last of them would alone: what follows is decided once, from all of them.
    pub fn handle_answers(&mut self, answers: impl IntoIterator<Item = Answer>, now: Instant) {
        for answer in answers {
            match answer {
                Answer::Pool(id, outcome) => self.pool.handle_outcome(id, outcome, now),
                Answer::Queue(id, reply) => self.take_reply(id, reply, now),
            }
        }
        self.settle(now);
    }

    /// What came of an effect of the pool.
    pub fn handle_pool_outcome(&mut self, id: EffectId, outcome: Outcome, now: Instant) {
        self.handle_answers([Answer::Pool(id, outcome)], now);
    }

    /// The controller's answer to a request. Answers to requests that are not known are ignored.
    pub fn handle_reply(&mut self, id: RequestId, reply: QueueReply, now: Instant) {
        self.handle_answers([Answer::Queue(id, reply)], now);
    }

    fn take_reply(&mut self, id: RequestId, reply: QueueReply, now: Instant) {
        let Some(asked) = self.requests.remove(&id) else {
            return;
        };
        match (asked, reply) {
            (Asked::Refresh { started_at }, QueueReply::Refreshed(result)) => {
                self.handle_refreshed(started_at, result, now);
            }
            (Asked::Watch, QueueReply::Changed(result)) => self.handle_changed(result, now),
            (Asked::Action(uuid, call, action), QueueReply::Called(result)) => {
                self.handle_acted(uuid, call, action, result, now);
            }
            (Asked::Progress(uuid, call), QueueReply::Called(result)) => {
                self.handle_told(uuid, call, result, now);
            }
            (Asked::Document(uuid), QueueReply::Document(result)) => {
                self.handle_document(uuid, result, now);
            }
            // A shell that answers something else has not answered: as if it had failed.
            (asked, _) => self.handle_wrong_reply(asked, now),
        }
    }

    /// A moment that was waited for has come; late and needless calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pool.handle_timeout(now);
        if self.limit.is_due(now) {
            self.limit.handle_timeout(self.running(), now);
        }
        self.settle(now);
    }

    /// The shell was asleep for `duration` and could neither see nor do anything.
    pub fn handle_sleep(&mut self, duration: Duration, now: Instant) {
        self.pool.handle_sleep(duration, now);
        self.settle(now);
    }

    /// The next effect to carry out.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        if self.dropped_notices > 0 {
            return Some(Notice::Dropped(std::mem::take(&mut self.dropped_notices)));
        }
        self.notices.pop_front()
    }

    /// Whether anything that a snapshot shows may have changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When [`Core::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let deadline = |at: Option<Instant>, why| at.map(|at| Deadline { at, why });
        [
            self.pool.poll_timeout(),
            self.scheduler.poll_timeout(),
            deadline(self.progress.next_due(), "tell the controller"),
            deadline(self.next_read_at(), "read the queue"),
            deadline(self.limit.grows_at(), "raise the container limit"),
        ]
        .into_iter()
        .fold(None, Deadline::earliest)
    }

    /// Changes what a worker does when it has nothing to do.
    pub fn set_idle_behavior(
        &mut self,
        instance: &InstanceId,
        behavior: IdleBehavior,
        now: Instant,
    ) -> Result<(), Refusal> {
        let done = self.pool.set_idle_behavior(instance, behavior, now);
        self.settle(now);
        done
    }

    /// Destroys an instance, whatever runs there.
    pub fn kill_instance(
        &mut self,
        instance: &InstanceId,
        reason: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        let done = self.pool.shut_down(instance, reason, now);
        self.settle(now);
        done
    }

    /// Begins nothing new and gives every instance back once nothing is left on it.
    /// [`Core::is_wound_down`] says when that is done.
    pub fn wind_down(&mut self, now: Instant) {
        if self.ending == Ending::No {
            self.ending = Ending::WindingDown;
            self.settle(now);
        }
    }

    /// Begins nothing new, so that the shell can end once its effects have ended. What runs keeps
    /// running and is found again by the next dispatcher.
    pub fn stop(&mut self, now: Instant) {
        self.ending = Ending::Stopping;
        self.pool.stop(now);
        self.settle(now);
    }

    /// Whether everything is known to have ended that changes something: when stopping, nothing
    /// else needs to be waited for.
    pub fn is_settled(&self) -> bool {
        self.pool.is_settled() && !self.requests.values().any(Asked::changes_something)
    }

    /// What is under way and changes something, a line each.
    pub fn unsettled(&self) -> Vec<String> {
        let calls = self
            .requests
            .values()
            .filter(|asked| asked.changes_something());
        let mut lines: Vec<String> = calls.map(|asked| format!("{asked:?}")).collect();
        if !self.pool.is_settled() {
            lines.push("commands on instances, or calls to the provider".into());
        }
        lines
    }

    /// Whether it was told to wind down and neither instances nor results are left.
    pub fn is_wound_down(&self) -> bool {
        self.ending == Ending::WindingDown
            && self.is_ready()
            && self.progress.len() == 0
            && self.pool.workers().next().is_none()
            && self.pool.pendings().next().is_none()
    }

    /// Whether the queue has been read and the instances have been listed.
    pub fn is_ready(&self) -> bool {
        self.refreshing.complete_as_of().is_some() && self.pool.is_listed()
    }

    /// Everything that others may see, the waiting entries bounded.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let waiting = self.scheduler.waiting().zip(1..);
        let waiting = waiting.filter_map(|(uuid, position)| {
            Some(WaitingEntry {
                uuid,
                state: self.cache.get(uuid)?.container.state,
                position: Some(position),
                reason: self.scheduler.reason(uuid, now)?,
            })
        });
        Snapshot {
            workers: self.pool.workers().collect(),
            pending: self.pool.pendings().collect(),
            waiting: waiting.take(MAX_WAITING).collect(),
            in_line: self.scheduler.line_length(),
            unfinished: self.cache.unfinished(),
            ready: self.is_ready(),
            wound_down: self.is_wound_down(),
        }
    }

    /// Checks the whole state; an error says what is wrong with it.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.pool.check_invariants()?;
        self.scheduler.check_invariants()?;
        self.cache.check_invariants()?;
        for (uuid, action) in &self.awaiting_document {
            if !matches!(action, Action::Start { uuid: started, .. } if started == uuid) {
                return Err(format!("{uuid} awaits a document for {action:?}"));
            }
        }
        Ok(())
    }

    /// How much is kept of each kind. What has ended leaves nothing, but what is called
    /// `remembered`, which is bounded.
    ///
    /// No example: what there is to be said of it is said by the scheduler's.
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let mut sizes = vec![
            ("requests", self.requests.len()),
            ("documents", self.documents.len()),
            ("locked here", self.locked_here.len()),
            ("awaited documents", self.awaiting_document.len()),
            ("strangers", self.strangers.len()),
            ("inherited attempts", self.inherited.len()),
            ("first seen", self.first_seen.len()),
            ("last busy", self.last_busy.len()),
            ("news of attempts", self.progress.len()),
            ("effects", self.effects.len()),
            ("notices", self.notices.len()),
        ];
        sizes.extend(self.cache.sizes());
        sizes.extend(self.scheduler.sizes());
        sizes.extend(self.pool.sizes());
        sizes
    }

    /// Carries news from part to part until there are none.
    fn settle(&mut self, now: Instant) {
        loop {
            self.mirror_pool(now);
            self.mirror_cache(now);
            self.mirror_limits(now);
            self.tell_controller(now);
            self.read_queue(now);
            self.drain_all(now);
            let Some(action) = self.scheduler.poll_action(now) else {
                break;
            };
            self.act(action, now);
        }
        while let Some(effect) = self.pool.poll_effect() {
            self.effects.push_back(Effect::Pool(effect));
        }
    }

    fn handle_event(&mut self, event: &Event, now: Instant) {
        if let Event::Running { uuid, .. } | Event::Ended { uuid, .. } = event
            && self.cache.get(*uuid).is_none()
        {
            // News of it wait until it is known whether there is a record.
            self.strangers.insert(*uuid);
        }
        match event {
            Event::Running {
                uuid,
                attempt,
                instance,
                started_at,
            } => {
                // It is not started again; another attempt has a document of its own.
                self.documents.remove(uuid);
                if self.config.queue.takes_reports {
                    self.progress
                        .running(*uuid, *attempt, instance.clone(), *started_at, now);
                }
            }
            Event::Ended {
                uuid,
                attempt,
                instance,
                exit,
            } if self.config.queue.takes_reports => {
                self.progress
                    .ended(*uuid, *attempt, instance.clone(), exit.clone(), now);
            }
            Event::NotStarted {
                uuid,
                attempt,
                instance,
                error,
                spent,
            } => {
                self.handle_not_started(*uuid, *attempt, instance, *spent, error, now);
            }
            Event::Claimed { uuid, .. } => {
                self.judge_claims(*uuid, now);
            }
            // Where runners speak to the controller, its record says what this means.
            Event::Ended { .. }
            | Event::NeverRan { .. }
            | Event::CreateFailed { .. }
            | Event::Alarm { .. } => {}
        }
    }

    /// While winding down, every worker drains: the pool destroys it once nothing is left on it.
    fn drain_all(&mut self, now: Instant) {
        if self.ending != Ending::WindingDown {
            return;
        }
        let stays = |view: &WorkerView| {
            view.state != WorkerState::Shutdown && view.idle_behavior != IdleBehavior::Drain
        };
        let staying: Vec<InstanceId> = self
            .pool
            .workers()
            .filter(stays)
            .map(|view| view.instance)
            .collect();
        for instance in staying {
            // Refused only for a worker that has gone meanwhile.
            let _ = self
                .pool
                .set_idle_behavior(&instance, IdleBehavior::Drain, now);
        }
    }

    /// How many containers run: those that workers show, or those that the records name, where
    /// workers have not been asked yet.
    fn running(&self) -> u32 {
        let recorded = self.cache.containers().filter(|container| {
            container.state == ContainerState::Running && container.locked_by_us
        });
        let running = self.pool.processes().max(recorded.count());
        u32::try_from(running).unwrap_or(u32::MAX)
    }

    fn request(&mut self, timeout: Duration, action: QueueAction, asked: Asked) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(id, asked);
        self.effects.push_back(Effect::Queue(QueueRequest {
            id,
            timeout,
            action,
        }));
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() == MAX_NOTICES {
            self.notices.pop_front();
            self.dropped_notices += 1;
        }
        self.notices.push_back(notice);
    }

    fn handle_overload(&mut self, kind: QueueErrorKind, now: Instant) {
        // What runs is not known before the queue was read once, and nothing is begun until then.
        if kind == QueueErrorKind::Overloaded && self.is_ready() {
            self.limit.handle_overload(self.running(), now);
        }
    }
}
