//! Callers that wait for workers: who gets which, and what is created for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use longshore_types::{
    Attempt, ContainerUuid, Exit, IdleBehavior, InstanceId, Resources, TypeName, WorkerState,
    WorkerView,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::run::{NotReady, Obstacle, RunError};
use crate::core::Core;
use crate::event::Event;
use crate::refusal::Refusal;
use crate::start::StartRequest;

/// The most callers that wait at a time.
const MAX_WAITERS: usize = 10_000;
/// Workers are given to those that wait at most so often,
const PAUSE: Duration = Duration::from_millis(2);
/// and that takes at most this part of the time.
const SHARE: u32 = 5;
/// A wait that nobody will see the end of.
const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A caller that waits for a worker.
pub(super) struct Waiter {
    type_name: TypeName,
    /// What it needs; none for a worker with nothing on it.
    resources: Option<Resources>,
    since: Instant,
    deadline: Instant,
    want: Want,
    obstacle: Option<Obstacle>,
}

/// What it wants of the worker.
pub(super) enum Want {
    Ready(oneshot::Sender<Result<InstanceId, NotReady>>),
    Run {
        uuid: ContainerUuid,
        attempt: Attempt,
        /// Whether somebody else may have given the name before.
        is_named: bool,
        document: Arc<[u8]>,
        reply: RunReply,
    },
}

type RunReply = oneshot::Sender<Result<Exit, RunError>>;

impl Waiter {
    pub(super) fn new(
        type_name: TypeName,
        resources: Option<Resources>,
        timeout: Duration,
        want: Want,
    ) -> Self {
        let since = Instant::now();
        Self {
            type_name,
            resources,
            since,
            deadline: since + timeout.min(FOR_EVER),
            want,
            obstacle: None,
        }
    }

    fn is_gone(&self) -> bool {
        match &self.want {
            Want::Ready(reply) => reply.is_closed(),
            Want::Run { reply, .. } => reply.is_closed(),
        }
    }

    fn is_named(&self) -> bool {
        matches!(self.want, Want::Run { is_named: true, .. })
    }

    fn fail(self, error: NotReady) {
        // Whoever waited may have gone.
        match self.want {
            Want::Ready(reply) => drop(reply.send(Err(error))),
            Want::Run { reply, .. } => drop(reply.send(Err(error.into()))),
        }
    }

    fn time_out(self, core: &Core) {
        let not_listed = || Obstacle::NotListed {
            error: core.listing_error().map(str::to_owned),
        };
        let why = match &self.obstacle {
            Some(obstacle) if core.is_listed() => obstacle.clone(),
            _ => not_listed(),
        };
        let error = NotReady::TimedOut {
            type_name: self.type_name.clone(),
            waited: self.since.elapsed(),
            why: Box::new(why),
        };
        self.fail(error);
    }
}

/// Everybody who waits, first come first served.
#[derive(Default)]
pub(super) struct Waiting {
    next: u64,
    queue: BTreeMap<u64, Waiter>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Whom to tell the end of what was started.
    runs: BTreeMap<(ContainerUuid, Attempt), RunReply>,
    wanted: bool,
    /// When workers may be given away again.
    serve_from: Option<Instant>,
}

impl Waiting {
    pub(super) fn add(&mut self, mut waiter: Waiter, core: &Core) {
        self.wanted = true;
        if let Err(error) = self.is_possible(&waiter, core) {
            waiter.fail(error);
            return;
        }
        self.next += 1;
        // However short its time is, what there is for it is looked at once.
        waiter.deadline = waiter.deadline.max(self.serve_at());
        self.deadlines.insert((waiter.deadline, self.next));
        self.queue.insert(self.next, waiter);
    }

    fn is_possible(&self, waiter: &Waiter, core: &Core) -> Result<(), NotReady> {
        if self.queue.len() >= MAX_WAITERS {
            let limit = MAX_WAITERS;
            return Err(NotReady::TooMany { limit });
        }
        let type_name = waiter.type_name.clone();
        let Some(instance_type) = core.types.get(&type_name) else {
            return Err(Refusal::UnknownType { type_name }.into());
        };
        let needed = waiter.resources.unwrap_or(Resources::NONE);
        match needed.lacking_in(&instance_type.resources()) {
            Some(lacking) => Err(NotReady::NeverFits { type_name, lacking }),
            None => Ok(()),
        }
    }

    /// Something has changed that may help somebody.
    pub(super) fn look(&mut self) {
        self.wanted |= !self.queue.is_empty();
    }

    /// When [`Waiting::serve`] is to be called next.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let due = self.deadlines.first().map(|(at, _)| *at);
        let serve = self.wanted.then(|| self.serve_at());
        due.into_iter().chain(serve).min()
    }

    fn serve_at(&self) -> Instant {
        self.serve_from.unwrap_or_else(Instant::now)
    }

    /// Gives workers to those that wait, has created what is missing, and lets go of those whose
    /// time is over.
    pub(super) fn serve(&mut self, core: &mut Core, now: longshore_types::Instant) {
        if self.wanted && self.serve_at() <= Instant::now() {
            self.wanted = false;
            let began = Instant::now();
            let mut stock = Stock::take(core);
            for (id, mut waiter) in std::mem::take(&mut self.queue) {
                if waiter.is_gone() {
                    self.deadlines.remove(&(waiter.deadline, id));
                    continue;
                }
                match stock.find(&waiter, core, now) {
                    Ok(instance) => {
                        let deadline = waiter.deadline;
                        if let Some(waiter) = self.give(waiter, instance, &mut stock, core, now) {
                            self.queue.insert(id, waiter);
                        } else {
                            self.deadlines.remove(&(deadline, id));
                        }
                    }
                    Err(obstacle) => {
                        waiter.obstacle = Some(obstacle);
                        self.queue.insert(id, waiter);
                    }
                }
            }
            let pause = PAUSE.max(began.elapsed() * SHARE);
            self.serve_from = Some(Instant::now() + pause);
        }
        self.let_go(core);
    }

    fn let_go(&mut self, core: &Core) {
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if deadline > Instant::now() {
                return;
            }
            self.deadlines.pop_first();
            if let Some(waiter) = self.queue.remove(&id) {
                waiter.time_out(core);
            }
        }
    }

    /// Gives a worker to a waiter; the waiter, if the worker turns out not to be one for it.
    fn give(
        &mut self,
        waiter: Waiter,
        instance: InstanceId,
        stock: &mut Stock,
        core: &mut Core,
        now: longshore_types::Instant,
    ) -> Option<Waiter> {
        let needed = stock.needed(&waiter, core);
        let obstacle = waiter.obstacle;
        let (uuid, attempt, is_named, document, reply) = match waiter.want {
            Want::Ready(reply) => {
                let _ = reply.send(Ok(instance));
                return None;
            }
            Want::Run {
                uuid,
                attempt,
                is_named,
                document,
                reply,
            } => (uuid, attempt, is_named, document, reply),
        };
        let request = StartRequest {
            instance,
            uuid,
            attempt,
            resources: needed,
            document: document.clone(),
        };
        match core.start(request, now) {
            Ok(()) => {
                self.runs.insert((uuid, attempt), reply);
                None
            }
            Err(refusal @ (Refusal::HeldHere { .. } | Refusal::MayRunOn { .. })) => {
                let _ = reply.send(Err(RunError::Refused(refusal)));
                None
            }
            Err(_) => Some(Waiter {
                want: Want::Run {
                    uuid,
                    attempt,
                    is_named,
                    document,
                    reply,
                },
                obstacle,
                ..waiter
            }),
        }
    }

    /// Tells whoever waits for it that something has come to its end.
    pub(super) fn on_event(&mut self, event: &Event) {
        let (uuid, attempt, result) = match event {
            Event::Ended {
                uuid,
                attempt,
                exit,
                ..
            } => (uuid, attempt, Ok(exit.clone())),
            Event::NotStarted {
                uuid,
                attempt,
                error,
                spent,
                ..
            } => {
                let (error, spent) = (error.clone(), *spent);
                (uuid, attempt, Err(RunError::NotStarted { error, spent }))
            }
            Event::NeverRan { uuid, attempt, .. } => (uuid, attempt, Err(RunError::NeverRan)),
            Event::Running { .. }
            | Event::CreateFailed { .. }
            | Event::Claimed { .. }
            | Event::Alarm { .. } => return,
        };
        if let Some(reply) = self.runs.remove(&(*uuid, *attempt)) {
            let _ = reply.send(result);
        }
    }

    /// Nobody will get anything any more.
    pub(super) fn end(&mut self) {
        self.deadlines.clear();
        for waiter in std::mem::take(&mut self.queue).into_values() {
            waiter.fail(NotReady::Ended);
        }
    }
}

/// What can be given away in one round.
struct Stock {
    /// Workers that take something, by type: what is left of each, and whether it has nothing on it.
    ready: BTreeMap<TypeName, Vec<Room>>,
    /// Instances on their way.
    coming: BTreeMap<TypeName, Vec<Room>>,
    /// Why none of a type can be created.
    refused: BTreeMap<TypeName, Refusal>,
    /// What nothing ready, or nothing on its way, was found for: nor will it be for as much again.
    too_much: BTreeMap<(TypeName, bool), Vec<Option<Resources>>>,
    last_errors: BTreeMap<TypeName, String>,
    /// Creates of which nobody knows what came of them, with the last error, by type.
    doubts: BTreeMap<TypeName, String>,
    /// An instance that was found and was not asked yet what runs there.
    unasked: Option<InstanceId>,
}

struct Room {
    instance: Option<InstanceId>,
    left: Resources,
    empty: bool,
    /// Nobody knows whether there is such an instance.
    in_doubt: bool,
}

impl Stock {
    fn take(core: &Core) -> Self {
        let mut stock = Self {
            ready: BTreeMap::new(),
            coming: BTreeMap::new(),
            refused: BTreeMap::new(),
            too_much: BTreeMap::new(),
            last_errors: BTreeMap::new(),
            doubts: BTreeMap::new(),
            unasked: core.unasked().cloned(),
        };
        for (instance, worker) in &core.workers {
            stock.add_worker(worker.view(instance), worker.address.is_some());
        }
        for pending in core.pendings.values() {
            let instance_type = &pending.request.instance_type;
            let type_name = instance_type.name.clone();
            let in_doubt = !pending.error.is_empty();
            if in_doubt {
                let error = pending.error.clone();
                stock.doubts.insert(type_name.clone(), error);
            }
            let room = Room {
                instance: None,
                left: instance_type.resources(),
                empty: true,
                in_doubt,
            };
            stock.coming.entry(type_name).or_default().push(room);
        }
        stock
    }

    fn add_worker(&mut self, worker: WorkerView, has_address: bool) {
        let Some(type_name) = worker.type_name.clone() else {
            return;
        };
        if worker.idle_behavior != IdleBehavior::Run {
            return;
        }
        let room = Room {
            left: worker.spare(),
            empty: worker.containers.iter().all(|held| !held.phase.may_run()),
            instance: Some(worker.instance.clone()),
            in_doubt: false,
        };
        let coming = match worker.state {
            WorkerState::Idle | WorkerState::Running => {
                self.ready.entry(type_name).or_default().push(room);
                return;
            }
            WorkerState::Booting => true,
            // One that was found and does not answer is not to be relied on.
            WorkerState::Unknown => worker.last_error.is_none(),
            WorkerState::Shutdown => false,
        };
        if let Some(error) = worker.last_error {
            self.last_errors.insert(type_name.clone(), error);
        } else if !has_address {
            let error = format!("the provider has given {} no address yet", worker.instance);
            self.last_errors.entry(type_name.clone()).or_insert(error);
        }
        if coming {
            self.coming.entry(type_name).or_default().push(room);
        }
    }

    /// A worker that is ready for a waiter; else why there is none, having seen to it that one
    /// comes if that is possible.
    fn find(
        &mut self,
        waiter: &Waiter,
        core: &mut Core,
        now: longshore_types::Instant,
    ) -> Result<InstanceId, Obstacle> {
        let type_name = &waiter.type_name;
        let unasked = self.unasked.clone().filter(|_| waiter.is_named());
        if unasked.is_none()
            && (core.is_listed() || !waiter.is_named())
            && let Some(Some(instance)) = self.occupy(waiter, true)
        {
            return Ok(instance);
        }
        if !core.is_listed() {
            let error = core.listing_error().map(str::to_owned);
            return Err(Obstacle::NotListed { error });
        }
        if let Some(instance) = unasked {
            return Err(Obstacle::NotAsked { instance });
        }
        if self.occupy(waiter, false).is_none() {
            if let Some(refusal) = self.refused.get(type_name) {
                return Err(Obstacle::Refused(refusal.clone()));
            }
            let pending = match core.create(type_name, now) {
                Ok(pending) => pending,
                Err(refusal) => {
                    self.refused.insert(type_name.clone(), refusal.clone());
                    return Err(Obstacle::Refused(refusal));
                }
            };
            let needed = waiter.resources.unwrap_or(pending.capacity);
            let room = Room {
                instance: None,
                left: pending.capacity.saturating_sub(needed),
                empty: false,
                in_doubt: false,
            };
            self.coming.entry(type_name.clone()).or_default().push(room);
            self.too_much.remove(&(type_name.clone(), false));
        }
        Err(self.coming(type_name))
    }

    /// What is to be said of a type of which something is on its way.
    fn coming(&self, type_name: &TypeName) -> Obstacle {
        let rooms = self.coming.get(type_name);
        let all_in_doubt = rooms.is_some_and(|rooms| rooms.iter().all(|room| room.in_doubt));
        match self.doubts.get(type_name).cloned() {
            Some(error) if all_in_doubt => Obstacle::InDoubt { error },
            _ => Obstacle::Coming {
                last_error: self.last_errors.get(type_name).cloned(),
            },
        }
    }

    /// Takes room for a waiter on a worker that is ready, or that is on its way.
    fn occupy(&mut self, waiter: &Waiter, ready: bool) -> Option<Option<InstanceId>> {
        let key = (waiter.type_name.clone(), ready);
        let too_much = self.too_much.entry(key).or_default();
        let hopeless = |known: &Option<Resources>| match (known, &waiter.resources) {
            (None, None) => true,
            (Some(known), Some(needed)) => known.fits_in(needed),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if too_much.iter().any(hopeless) {
            return None;
        }
        let rooms = if ready {
            &mut self.ready
        } else {
            &mut self.coming
        };
        let rooms = rooms.get_mut(&waiter.type_name).into_iter().flatten();
        let fits = |room: &&mut Room| match &waiter.resources {
            None => room.empty,
            Some(needed) => needed.fits_in(&room.left),
        };
        let Some(room) = rooms.into_iter().find(fits) else {
            too_much.push(waiter.resources);
            return None;
        };
        let needed = waiter.resources.unwrap_or(room.left);
        room.left = room.left.saturating_sub(needed);
        room.empty = false;
        Some(room.instance.clone())
    }

    /// What a waiter is granted of a worker.
    fn needed(&self, waiter: &Waiter, core: &Core) -> Resources {
        let all = || {
            let instance_type = core.types.get(&waiter.type_name);
            instance_type.map_or(Resources::NONE, |t| t.resources())
        };
        waiter.resources.unwrap_or_else(all)
    }
}
