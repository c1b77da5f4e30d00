//! Starting containers, and what binds one to an instance.

use std::sync::Arc;

use longshore_types::{
    Attempt, ContainerUuid, IdleBehavior, InstanceId, Instant, Resources, WorkerState,
};

use crate::core::{Core, FlightAction, WorkerFlight};
use crate::effect::{EffectAction, Outcome, StartOutcome};
use crate::event::Event;
use crate::holdoff::growing;
use crate::refusal::Refusal;
use crate::timers::{ContainerTimer, Timer};
use crate::worker::{Held, Sending, Stage};

const RETRY_PAUSE: (u64, u64) = (1, 30);
/// The most containers of one worker of which it is remembered that a start may yet arrive there.
const MAX_LATE: usize = 4096;

/// What to start, and where.
///
/// ```
/// use longshore_pool::{Config, Core, Refusal, StartRequest};
/// use longshore_types::{Attempt, Instant, Resources};
/// let mut core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
/// let request = StartRequest {
///     instance: "i-1".into(),
///     uuid: "zzzzz-dz642-0123456789abcde".parse()?,
///     attempt: Attempt(1),
///     resources: Resources::NONE,
///     document: b"what to run".to_vec().into(),
/// };
/// let refused = core.start(request, Instant::ZERO).unwrap_err();
/// assert!(matches!(refused, Refusal::UnknownInstance { .. }));
/// # Ok::<(), longshore_types::ParseUuidError>(())
/// ```
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by callers; a new field must not be forgotten"
)]
pub struct StartRequest {
    /// Where.
    pub instance: InstanceId,
    /// The container.
    pub uuid: ContainerUuid,
    /// The attempt, larger than every earlier one of this container.
    pub attempt: Attempt,
    /// What it is granted of the worker.
    pub resources: Resources,
    /// What to run: opaque to the pool.
    pub document: Arc<[u8]>,
}

impl Core {
    /// Starts an attempt of a container. It counts as starting, and as being there and nowhere
    /// else, from this moment until [`Event::NotStarted`], [`Event::NeverRan`] or
    /// [`Event::Ended`].
    pub fn start(&mut self, request: StartRequest, now: Instant) -> Result<(), Refusal> {
        self.advance(now);
        let StartRequest {
            instance,
            uuid,
            attempt,
            resources,
            document,
        } = request;
        self.allowed(&instance)?;
        self.has_room(&instance, resources)?;
        if let Some(elsewhere) = self.may_run_on(uuid).filter(|other| *other != instance) {
            return Err(Refusal::MayRunOn {
                uuid,
                instance: elsewhere,
            });
        }
        let seq = self.next_seq();
        let Some(worker) = self.workers.get(&instance) else {
            return Err(Refusal::UnknownInstance { instance });
        };
        if worker.held.contains_key(&uuid) {
            return Err(Refusal::HeldHere { uuid, instance });
        }
        // What it claimed of it before says nothing any more, nor does a report from that time.
        if worker.claims.contains_key(&uuid) {
            self.drop_claim(&instance, uuid);
            self.note_removed(&instance, uuid, attempt);
        }
        let mut held = Held::new(attempt, Stage::Starting(Sending::default()), seq);
        held.granted = Some(resources);
        held.found = false;
        held.document = Some(document);
        if let Some(worker) = self.workers.get_mut(&instance) {
            worker.held.insert(uuid, held);
            worker.promises.keep(uuid);
        }
        self.places
            .entry(uuid)
            .or_default()
            .insert(instance.clone());
        self.send_start(&instance, uuid);
        self.settle(&instance);
        // Now that something runs there, a report may wait for its end.
        self.probe(&instance);
        Ok(())
    }

    /// Says that an earlier process may have sent this very start, so that a refusal settles
    /// nothing: to be called right after [`Core::start`]. Ignored where nothing is starting.
    ///
    /// ```
    /// # use longshore_pool::{Config, Core};
    /// # use longshore_types::{Attempt, Instant};
    /// # let mut core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
    /// # let uuid = "zzzzz-dz642-0123456789abcde".parse()?;
    /// core.sent_before(uuid, Attempt(1), &"i-1".into(), Instant::ZERO);
    /// # Ok::<(), longshore_types::ParseUuidError>(())
    /// ```
    pub fn sent_before(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
        now: Instant,
    ) {
        self.advance(now);
        let held = self
            .workers
            .get_mut(instance)
            .and_then(|worker| worker.held.get_mut(&uuid))
            .filter(|held| held.attempt == attempt);
        if let Some(Stage::Starting(sending)) = held.map(|held| &mut held.stage) {
            let why = "an earlier process may have sent it";
            sending.unknown.get_or_insert_with(|| why.into());
        }
    }

    fn has_room(&self, instance: &InstanceId, resources: Resources) -> Result<(), Refusal> {
        let id = instance.clone();
        let Some(worker) = self.workers.get(instance) else {
            return Err(Refusal::UnknownInstance { instance: id });
        };
        let state = worker.state;
        if !matches!(state, WorkerState::Idle | WorkerState::Running) {
            return Err(Refusal::NotReady {
                instance: id,
                state,
            });
        }
        let behavior = worker.behavior;
        if behavior != IdleBehavior::Run {
            return Err(Refusal::NotTaking {
                instance: id,
                behavior,
            });
        }
        if worker.address.is_none() {
            return Err(Refusal::NoAddress { instance: id });
        }
        let spare = worker.capacity.saturating_sub(worker.granted());
        match resources.lacking_in(&spare) {
            Some(lacking) => Err(Refusal::NoRoom {
                instance: id,
                lacking,
            }),
            None => Ok(()),
        }
    }

    /// Says what was granted to a container that was found on a worker; until then it counts as
    /// all of the worker. Ignored where it does not apply.
    pub fn grant(
        &mut self,
        uuid: ContainerUuid,
        instance: &InstanceId,
        resources: Resources,
        now: Instant,
    ) {
        self.advance(now);
        let held = self
            .workers
            .get_mut(instance)
            .and_then(|w| w.held.get_mut(&uuid));
        if let Some(held) = held
            && held.granted.is_none()
        {
            held.granted = Some(resources);
            self.settle(instance);
        }
    }

    /// Sends a start, or sends it again, as long as it is not settled.
    pub(crate) fn send_start(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        let timeout = self.config.command_timeout;
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let Some(held) = worker.held.get(&uuid) else {
            return;
        };
        let Stage::Starting(sending) = &held.stage else {
            return;
        };
        // What is to be killed is sent again only once the runner was told not to start it: the
        // answer then settles it.
        let unwanted = held.kill.is_some() && !sending.gone;
        let down = worker.state == WorkerState::Shutdown;
        if sending.in_flight || unwanted || down {
            return;
        }
        let (Some(host), Some(document)) = (worker.host(id), held.document.clone()) else {
            return;
        };
        let attempt = held.attempt;
        let about = FlightAction::OnWorker(id.clone(), worker.serial, WorkerFlight::Start(uuid));
        let action = EffectAction::Start {
            host,
            uuid,
            attempt,
            document,
        };
        let sent = self.send(timeout, action, about);
        if let Some((_, began)) = sent
            && let Some(held) = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid))
            && let Stage::Starting(sending) = &mut held.stage
        {
            held.acted = began;
            sending.in_flight = true;
            sending.tries += 1;
        }
    }

    pub(crate) fn on_started(&mut self, id: &InstanceId, uuid: ContainerUuid, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Started(outcome) => outcome,
            _ => StartOutcome::Unknown {
                error: "the outcome was lost".into(),
            },
        };
        let seq = self.next_seq();
        let Some(held) = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid)) else {
            return;
        };
        held.acted = seq;
        let Stage::Starting(sending) = &mut held.stage else {
            // A report was faster, and is right.
            return;
        };
        sending.in_flight = false;
        match outcome {
            StartOutcome::Started => {
                held.stage = Stage::Running;
                held.document = None;
                held.given_up &= held.kill.is_some();
                self.start_settled(id, uuid);
                self.tell_running(id, uuid, None);
            }
            StartOutcome::KnownAttempt => {
                held.stage = Stage::Known;
                held.document = None;
                held.given_up &= held.kill.is_some();
                self.start_settled(id, uuid);
                self.want_report(id);
            }
            StartOutcome::NotStarted { error } if sending.unknown.is_none() => {
                self.start_failed(id, uuid, error);
            }
            // That this try did nothing says nothing of the earlier one that may have.
            StartOutcome::NotStarted { error } | StartOutcome::Unknown { error } => {
                self.start_unknown(id, uuid, error);
            }
        }
        self.settle(id);
    }

    fn start_unknown(&mut self, id: &InstanceId, uuid: ContainerUuid, error: String) {
        self.set_error(id, &error);
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let down = worker.state == WorkerState::Shutdown;
        let Some(held) = worker.held.get_mut(&uuid) else {
            return;
        };
        let Stage::Starting(sending) = &mut held.stage else {
            return;
        };
        sending.unknown.get_or_insert(error);
        if worker.late.len() < MAX_LATE {
            worker.late.insert(uuid);
        }
        let retry = self.now + growing(RETRY_PAUSE, sending.tries.saturating_sub(1));
        let settle = self.now + self.config.timeout_term;
        if down || self.stopping {
            return;
        }
        self.timers.set(
            Timer::Container(id.clone(), uuid, ContainerTimer::Start),
            retry,
        );
        if !held.given_up {
            let timer = Timer::Container(id.clone(), uuid, ContainerTimer::Settle);
            self.timers.set_once(timer, settle);
        }
        self.want_report(id);
    }

    fn start_failed(&mut self, id: &InstanceId, uuid: ContainerUuid, error: String) {
        self.set_error(id, &error);
        let Some(held) = self.workers.get(id).and_then(|w| w.held.get(&uuid)) else {
            return;
        };
        let (attempt, killed) = (held.attempt, held.kill.is_some());
        let instance = id.clone();
        self.remove_held(id, uuid);
        if killed {
            self.event(Event::NeverRan {
                uuid,
                attempt,
                instance,
            });
        } else {
            self.event(Event::NotStarted {
                uuid,
                attempt,
                instance,
                error,
                spent: false,
            });
            self.count_failed_start(id);
        }
    }

    /// The start of a container is not in doubt any more.
    pub(crate) fn start_settled(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        for timer in [ContainerTimer::Start, ContainerTimer::Settle] {
            self.timers
                .clear(&Timer::Container(id.clone(), uuid, timer));
        }
        // Only what a kill says from now on counts.
        self.send_kill(id, uuid);
    }

    pub(crate) fn on_settle_due(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        let held = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid));
        // What is to be ended is given up by its own time.
        let open = |held: &&mut Held| !held.start_is_settled() && held.kill.is_none();
        if held.filter(open).is_none() || self.excuses(id, uuid, ContainerTimer::Settle) {
            return;
        }
        self.give_up(id, uuid);
        self.alarm(format!(
            "nobody knows whether container {uuid} was started on instance {id}"
        ));
        self.drain(
            id,
            &format!("nobody knows whether container {uuid} was started"),
        );
    }
}
