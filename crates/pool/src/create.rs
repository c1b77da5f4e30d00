//! Creating instances, whatever becomes of the reply.

use std::time::Duration;

use longshore_cloud::{CreateRequest, ErrorKind, Instance, InstanceState};
use longshore_types::{
    IdleBehavior, InstanceId, InstanceType, Instant, PendingView, TypeName, WorkerState,
};

use crate::core::{Core, FlightAction};
use crate::effect::{CloudFailure, EffectAction, EffectId, Outcome};
use crate::event::{Changed, Event};
use crate::holdoff::growing;
use crate::intake::{is_usable_id, tidy};
use crate::refusal::Refusal;
use crate::secret::init_script;
use crate::text::one_line;
use crate::timers::Timer;
use crate::worker::Seq;

const REPEAT_PAUSE: (u64, u64) = (1, 60);
/// A create that has to be repeated looks again after this while as many are under way as may be.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Listings of something that may appear in them at any moment are this far apart.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// A create whose instance is not known.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request: CreateRequest,
    pub(crate) secret: String,
    pub(crate) in_flight: bool,
    /// How often its outcome was unknown.
    unknown: u32,
    /// When its outcome first was unknown.
    unknown_since: Option<Instant>,
    /// When its outcome last was: an instance may appear for a while after that.
    last_unknown: Instant,
    /// When the time to look for it was over.
    last_look: Option<Seq>,
    /// The request is not repeated any more; only listings may show what it made.
    looking: bool,
    /// Why the last try did not show its instance.
    pub(crate) error: String,
}

impl Core {
    /// Asks for an instance of a configured type.
    pub fn create(&mut self, type_name: &TypeName, now: Instant) -> Result<PendingView, Refusal> {
        self.advance(now);
        if let Some(refusal) = self.create_refusal(type_name, self.now) {
            return Err(refusal);
        }
        let Some(instance_type) = self.types.get(type_name).cloned() else {
            let type_name = type_name.clone();
            return Err(Refusal::UnknownType { type_name });
        };
        self.pending_ids += 1;
        let id = self.pending_ids;
        let secret = self.secrets.draw();
        let request = self.create_request(instance_type, &secret);
        self.pending_secrets.insert(secret.clone(), id);
        let pending = Pending {
            request,
            secret,
            in_flight: false,
            unknown: 0,
            unknown_since: None,
            last_unknown: Instant::ZERO,
            last_look: None,
            looking: false,
            error: String::new(),
        };
        let view = pending.view(id);
        self.pendings.insert(id, pending);
        self.books.change(type_name, |count| count.pending += 1);
        self.send_create(id);
        self.changed(Changed::Pending(id));
        self.changed(Changed::CreateGate);
        Ok(view)
    }

    fn create_request(&mut self, instance_type: InstanceType, secret: &str) -> CreateRequest {
        let keys = self.config.tag_keys.clone();
        let mut tags = self.config.resource_tags.clone();
        tags.extend(self.ours.clone());
        tags.insert(keys.instance_type, instance_type.name.to_string());
        tags.insert(keys.idle_behavior, IdleBehavior::Run.to_string());
        tags.insert(keys.secret, secret.to_owned());
        let mut request = CreateRequest::new(instance_type, self.secrets.draw());
        request.image.clone_from(&self.config.image);
        request.tags = tags;
        request.init_script = init_script(&self.config, secret);
        request.public_key.clone_from(&self.config.public_key);
        request.address_kind = self.config.address_kind;
        request
    }

    fn send_create(&mut self, id: u64) {
        let timeout = self.config.cloud_call_timeout;
        let Some(pending) = self.pendings.get_mut(&id) else {
            return;
        };
        if pending.in_flight {
            return;
        }
        let request = Box::new(pending.request.clone());
        let about = FlightAction::Create(id, Box::new(request.instance_type.clone()));
        if let Some((effect, _)) = self.send(timeout, EffectAction::Create(request), about) {
            self.creates_in_flight.insert(effect);
            if let Some(pending) = self.pendings.get_mut(&id) {
                pending.in_flight = true;
            }
        }
    }

    pub(crate) fn on_created(
        &mut self,
        effect: EffectId,
        id: u64,
        instance_type: &InstanceType,
        outcome: Outcome,
    ) {
        self.creates_in_flight.remove(&effect);
        if let Some(pending) = self.pendings.get_mut(&id) {
            pending.in_flight = false;
        }
        match outcome {
            Outcome::Created(Ok(instance)) if is_usable_id(instance.id.as_str()) => {
                self.on_instance_made(id, instance_type, *instance);
            }
            Outcome::Created(Err(failure)) => self.on_create_failed(id, instance_type, failure),
            _ => {
                let failure = CloudFailure {
                    kind: ErrorKind::Other,
                    may_have_acted: true,
                    error: "the provider gave no id that can be used".into(),
                };
                self.on_create_failed(id, instance_type, failure);
            }
        }
        self.create_ended(effect);
    }

    fn on_instance_made(&mut self, id: u64, instance_type: &InstanceType, mut instance: Instance) {
        let problem = tidy(&mut instance, &self.config);
        let Some(pending) = self.remove_pending(id) else {
            // A listing showed its instance before. Another one here is a second machine of the
            // same request; the listing will show it with the same secret.
            let known = self.workers.contains_key(&instance.id);
            if !known {
                self.listing_soon(Duration::ZERO);
            }
            return;
        };
        self.create_succeeded(instance_type);
        let secret = Some(pending.secret);
        // An id that was used before: the provider has given it to a new machine.
        let stale = self.workers.get(&instance.id);
        if stale.is_some_and(|worker| worker.secret != secret) {
            if !self.may_be_replaced(&instance.id) {
                self.on_id_given_twice(&instance.id, instance_type);
                return;
            }
            self.drop_worker(&instance.id, "the provider gave its id to a new instance");
        }
        self.forgive(&instance.id);
        let worker_id = instance.id.clone();
        if !self.workers.contains_key(&worker_id) {
            self.add_created(instance, instance_type, secret);
        }
        if let Some(problem) = problem {
            self.set_error(&worker_id, &problem);
        }
        self.worker_changed(&worker_id);
    }

    /// Whether a new machine may take the id of this worker. Not while something may run on the
    /// old one and nothing but the id speaks against it: a provider that gives an id twice must
    /// not make us call lost what runs.
    pub(crate) fn may_be_replaced(&self, id: &InstanceId) -> bool {
        let worker = self.workers.get(id);
        worker.is_none_or(|w| w.state == WorkerState::Shutdown || !w.may_run_something())
    }

    fn on_id_given_twice(&mut self, id: &InstanceId, instance_type: &InstanceType) {
        let error = format!(
            "the provider gave the id {id} to a new instance, and something runs on the one that has it"
        );
        self.alarm(error.clone());
        self.event(Event::CreateFailed {
            type_name: instance_type.name.clone(),
            error: one_line(&error),
        });
    }

    fn on_create_failed(&mut self, id: u64, instance_type: &InstanceType, failure: CloudFailure) {
        let now = self.now;
        let since = self.pendings.get(&id).and_then(|p| p.unknown_since);
        // A request that nobody answers is not repeated for ever.
        let tired = since.is_some_and(|since| now.since(since) >= self.config.create_grace);
        if !failure.may_have_acted || tired {
            self.hold_off_failed_create(instance_type, &failure);
        }
        let idempotent = self.config.capabilities.idempotent_create;
        let limited = matches!(failure.kind, ErrorKind::RateLimited { .. });
        let grace = self.config.create_grace;
        let Some(pending) = self.pendings.get_mut(&id) else {
            return;
        };
        pending.error = failure.error;
        if failure.may_have_acted {
            pending.unknown += 1;
            pending.unknown_since.get_or_insert(now);
            pending.last_unknown = now;
        }
        if pending.unknown_since.is_none() {
            self.fail_pending(id);
            return;
        }
        // A refusal of a repeated request says nothing of the first one, unless it was about the
        // rate of requests only; then it is simply repeated later.
        pending.looking |= tired || !(idempotent && (failure.may_have_acted || limited));
        let at = if pending.looking {
            now.max(pending.last_unknown + grace)
        } else if let ErrorKind::RateLimited {
            retry_after: Some(pause),
        } = failure.kind
            && !pause.is_zero()
        {
            now + pause
        } else {
            now + growing(REPEAT_PAUSE, pending.unknown.saturating_sub(1))
        };
        self.timers.set(Timer::Pending(id), at);
        self.listing_soon(LOOK_PAUSE);
    }

    /// Sends a create again, as soon as there may be one more under way.
    fn repeat_create(&mut self, id: u64) {
        let limit = self.config.max_creates_in_flight;
        if limit == 0 || self.creates_in_flight.len() < limit {
            self.send_create(id);
        } else {
            self.timers.set(Timer::Pending(id), self.now + FULL_PAUSE);
        }
    }

    pub(crate) fn on_pending_due(&mut self, id: u64) {
        let (listed, seq) = (self.listing.complete_began, self.next_seq());
        let Some(pending) = self.pendings.get_mut(&id) else {
            return;
        };
        if !pending.looking {
            self.repeat_create(id);
            return;
        }
        // The time is over: a last look, with a listing that begins now.
        match pending.last_look {
            Some(since) if listed > since => {
                self.fail_pending(id);
                return;
            }
            Some(_) => {}
            None => pending.last_look = Some(seq),
        }
        self.timers.set(Timer::Pending(id), self.now + LOOK_PAUSE);
        self.listing_soon(Duration::ZERO);
    }

    fn fail_pending(&mut self, id: u64) {
        if let Some(pending) = self.remove_pending(id) {
            self.event(Event::CreateFailed {
                type_name: pending.request.instance_type.name,
                error: pending.error,
            });
        }
    }

    fn remove_pending(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pendings.remove(&id)?;
        self.pending_secrets.remove(&pending.secret);
        let name = &pending.request.instance_type.name;
        self.books.change(name, |count| count.pending -= 1);
        self.timers.clear(&Timer::Pending(id));
        self.changed(Changed::Pending(id));
        self.changed(Changed::CreateGate);
        Some(pending)
    }

    /// Takes a listed instance as what a pending create made, if its secret says so.
    pub(crate) fn match_pending(&mut self, instance: &Instance) -> bool {
        let key = &self.config.tag_keys.secret;
        let secret = instance.tags.get(key);
        let Some(&id) = secret.and_then(|secret| self.pending_secrets.get(secret)) else {
            return false;
        };
        if instance.state == InstanceState::Gone {
            return false;
        }
        let Some(pending) = self.remove_pending(id) else {
            return false;
        };
        self.forgive(&instance.id);
        let instance_type = pending.request.instance_type;
        self.create_succeeded(&instance_type);
        self.add_created(instance.clone(), &instance_type, Some(pending.secret));
        true
    }

    /// An id is not condemned any more: the provider gave it to a new machine.
    fn forgive(&mut self, id: &InstanceId) {
        if self.condemned.remove(id) {
            self.condemned_order.retain(|condemned| condemned != id);
        }
    }

    pub(crate) fn restart_pendings(&mut self) {
        let (now, grace) = (self.now, self.config.create_grace);
        let mut timers = Vec::new();
        for (id, pending) in &mut self.pendings {
            if let Some(since) = &mut pending.unknown_since {
                *since = now;
                pending.last_unknown = now;
                if pending.looking {
                    timers.push(*id);
                }
            }
        }
        for id in timers {
            self.timers.set(Timer::Pending(id), now + grace);
        }
    }
}

impl Pending {
    pub(crate) fn view(&self, id: u64) -> PendingView {
        PendingView {
            id,
            type_name: self.request.instance_type.name.clone(),
            capacity: self.request.instance_type.resources(),
        }
    }
}
