//! The end of workers: drained, idle for long, condemned, destroyed, gone.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_cloud::ErrorKind;
use longshore_types::{ExitCause, IdleBehavior, InstanceId, Instant, WorkerState};

use crate::core::{Core, FlightAction, MAX_CONDEMNED};
use crate::effect::{CloudFailure, EffectAction, Outcome};
use crate::event::{Changed, Event};
use crate::refusal::Refusal;
use crate::text::one_line;
use crate::timers::{Timer, WorkerTimer};
use crate::worker::{Stage, Worker};

/// The most ids in one destroy where the driver names no limit.
const MAX_BATCH: usize = 100;
/// After a destroy of a provider with consistent listings was accepted, a listing is due so soon.
const QUICK_LOOK: Duration = Duration::from_secs(1);

impl Core {
    /// Shuts a worker down whatever runs there.
    pub fn shut_down(
        &mut self,
        instance: &InstanceId,
        reason: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.advance(now);
        self.allowed(instance)?;
        self.condemn(instance, reason);
        Ok(())
    }

    /// Shuts a worker down only if it is idle and nothing on it would be lost.
    pub fn give_back(&mut self, instance: &InstanceId, now: Instant) -> Result<(), Refusal> {
        self.advance(now);
        self.allowed(instance)?;
        let Some(worker) = self.workers.get(instance) else {
            let instance = instance.clone();
            return Err(Refusal::UnknownInstance { instance });
        };
        let (instance_id, behavior) = (instance.clone(), worker.behavior);
        if worker.state != WorkerState::Idle || !worker.is_empty() {
            let instance = instance_id;
            return Err(Refusal::NotEmpty { instance });
        }
        if behavior == IdleBehavior::Hold {
            let instance = instance_id;
            return Err(Refusal::NotTaking { instance, behavior });
        }
        self.condemn(instance, "it is not needed");
        Ok(())
    }

    /// Whether anything may be asked of this worker at all.
    pub(crate) fn allowed(&self, instance: &InstanceId) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        if self.workers.contains_key(instance) {
            return Ok(());
        }
        let instance = instance.clone();
        Err(Refusal::UnknownInstance { instance })
    }

    /// Brings a worker's state in line with what is on it: called after every change to it.
    pub(crate) fn settle(&mut self, id: &InstanceId) {
        self.worker_changed(id);
        self.settle_state(id);
    }

    /// The same of one that has answered, and nothing else.
    pub(crate) fn answered_as_known(&mut self, id: &InstanceId) {
        self.changed(Changed::Answered(id.clone()));
        self.settle_state(id);
    }

    fn settle_state(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if matches!(worker.state, WorkerState::Idle | WorkerState::Running) {
            worker.state = if worker.may_run_something() {
                WorkerState::Running
            } else {
                WorkerState::Idle
            };
        }
        let answered = match worker.state {
            WorkerState::Idle | WorkerState::Running => true,
            WorkerState::Unknown => worker.probed_at.is_some(),
            WorkerState::Booting => true,
            WorkerState::Shutdown => return,
        };
        let drains = worker.behavior == IdleBehavior::Drain;
        if drains && answered && (worker.is_empty() || worker.only_given_up()) {
            self.condemn(id, "it was drained");
            return;
        }
        let idle = worker.state == WorkerState::Idle
            && worker.is_empty()
            && worker.behavior == IdleBehavior::Run;
        let timer = Timer::Worker(id.clone(), WorkerTimer::Idle);
        if idle && !self.stopping {
            self.timers
                .set_once(timer, self.now + self.config.timeout_idle);
        } else {
            self.timers.clear(&timer);
        }
    }

    pub(crate) fn on_idle_due(&mut self, id: &InstanceId) {
        let idle = self.workers.get(id).is_some_and(|worker| {
            worker.state == WorkerState::Idle
                && worker.is_empty()
                && worker.behavior == IdleBehavior::Run
        });
        if idle && !self.is_promised(id) {
            self.condemn(id, "it was idle for long");
        }
    }

    /// Has a worker take no further containers and go when it is empty, unless it is held.
    pub(crate) fn drain(&mut self, id: &InstanceId, why: &str) {
        self.set_error(id, why);
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if worker.takes_more() {
            worker.behavior = IdleBehavior::Drain;
            self.repair_tags(id);
        }
        self.settle(id);
    }

    /// From now on the instance is destroyed until it is gone.
    pub(crate) fn condemn(&mut self, id: &InstanceId, why: &str) {
        let state = self.workers.get(id).map(|worker| worker.state);
        if matches!(state, Some(WorkerState::Unknown | WorkerState::Booting)) {
            self.tally.boots_aborted += 1;
        }
        self.condemn_counted(id, why);
    }

    /// The provider ends the instance, or somebody else does.
    pub(crate) fn condemn_taken_away(&mut self, id: &InstanceId) {
        let why = "the provider is taking it away";
        let booting = self.workers.get(id).and_then(Worker::boots_as).cloned();
        self.condemn(id, why);
        if let Some(type_name) = booting {
            self.boot_lost(&type_name, why);
        }
    }

    /// Like [`Core::condemn`], where the boot that did not happen was counted already.
    pub(crate) fn condemn_counted(&mut self, id: &InstanceId, why: &str) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if worker.state == WorkerState::Shutdown {
            return;
        }
        worker.missed_at = None;
        if worker.last_error.is_none() {
            worker.last_error = Some(one_line(&format!("shut down: {why}")));
        }
        let held: Vec<_> = worker.held.keys().copied().collect();
        self.enter(id, WorkerState::Shutdown);
        self.stop_listening_to(id);
        self.timers.clear_worker(id);
        for uuid in held {
            self.stop_acting_on(id, uuid);
        }
        self.remember_condemned(id);
        self.queue_destroy(id);
        self.worker_changed(id);
    }

    fn remember_condemned(&mut self, id: &InstanceId) {
        if self.condemned.insert(id.clone()) {
            self.condemned_order.push_back(id.clone());
        }
        while self.condemned_order.len() > MAX_CONDEMNED {
            if let Some(oldest) = self.condemned_order.pop_front() {
                self.condemned.remove(&oldest);
            }
        }
    }

    pub(crate) fn queue_destroy(&mut self, id: &InstanceId) {
        let shutdown = |w: &Worker| w.state == WorkerState::Shutdown;
        if !self.stopping && self.workers.get(id).is_some_and(shutdown) {
            self.destroy_queue.insert(id.clone());
        }
    }

    /// Sends what is to be destroyed, as few calls as the driver allows.
    pub(crate) fn flush_destroys(&mut self) {
        let limit = match self.config.capabilities.destroy_batch {
            0 => MAX_BATCH,
            limit => limit.min(MAX_BATCH),
        };
        while !self.destroy_queue.is_empty() {
            let batch = self.next_destroys(limit);
            if batch.is_empty() {
                continue;
            }
            let timeout = self.config.cloud_call_timeout;
            let action = EffectAction::Destroy(batch.clone());
            self.send(timeout, action, FlightAction::Destroy(batch));
        }
    }

    /// The next ids that go into one call. One whose destroy had no answer goes alone, so that the
    /// others do not wait for it.
    fn next_destroys(&mut self, limit: usize) -> Vec<InstanceId> {
        let mut batch = Vec::new();
        while batch.len() < limit
            && let Some(id) = self.destroy_queue.pop_first()
        {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            if worker.destroy_unanswered && !batch.is_empty() {
                self.destroy_queue.insert(id);
                break;
            }
            worker.destroy_sent_at = Some(self.now);
            let is_alone = worker.destroy_unanswered;
            batch.push(id);
            if is_alone {
                break;
            }
        }
        batch
    }

    pub(crate) fn on_destroyed(&mut self, ids: Vec<InstanceId>, outcome: Outcome) {
        let results: BTreeMap<InstanceId, _> = match outcome {
            Outcome::Destroyed(results) => results.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        let (seq, now) = (self.next_seq(), self.now);
        let look = if self.config.capabilities.consistent_listing {
            QUICK_LOOK
        } else {
            self.config.timeout_shutdown
        };
        for id in ids {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            if worker.state != WorkerState::Shutdown {
                continue;
            }
            let result = results.get(&id);
            worker.destroy_unanswered = result
                .is_none_or(|result| matches!(result, Err(f) if f.kind == ErrorKind::TimedOut));
            match result {
                Some(Ok(())) => {
                    worker.destroy_accepted.get_or_insert((seq, now));
                    self.listing_soon(look);
                }
                Some(Err(failure)) => self.on_destroy_failed(&id, failure),
                None => {
                    let at = self.now + self.config.timeout_shutdown;
                    self.timers.set(Timer::Worker(id, WorkerTimer::Destroy), at);
                }
            }
        }
    }

    fn on_destroy_failed(&mut self, id: &InstanceId, failure: &CloudFailure) {
        let mut pause = self.config.timeout_shutdown;
        if let ErrorKind::RateLimited {
            retry_after: Some(asked),
        } = failure.kind
        {
            pause = pause.max(asked);
        }
        let at = self.now + pause;
        self.timers
            .set(Timer::Worker(id.clone(), WorkerTimer::Destroy), at);
        self.set_error(id, &failure.error);
    }

    /// The instance does not exist any more, and nothing runs on it.
    pub(crate) fn drop_worker(&mut self, id: &InstanceId, why: &str) {
        self.drop_claims_but(id, |_| false);
        self.tell_all_ended(id, "its instance is gone");
        let Some(worker) = self.workers.remove(id) else {
            return;
        };
        self.books.remove(&worker);
        self.tally.count_disappeared(worker.state);
        self.timers.clear_worker(id);
        self.stop_listening_to(id);
        self.destroy_queue.remove(id);
        if let Some(secret) = &worker.secret {
            self.by_secret.remove(secret, id);
        }
        let expected = worker.state == WorkerState::Shutdown;
        if !expected {
            self.alarm(format!("instance {id} is gone: {why}"));
        }
        if let Some(type_name) = worker.boots_as() {
            self.boot_lost(type_name, why);
        }
        for (uuid, held) in worker.held {
            self.timers.clear_container(id, uuid);
            self.forget_place(uuid, id);
            self.note_freed(uuid);
            let exit = match held.stage {
                Stage::Ended(_) => continue,
                // Nobody wants it again: that its instance had to go for it is not a fault.
                _ if held.kill.is_some() => held.unseen(ExitCause::Killed),
                _ => held.unseen(ExitCause::InstanceLost),
            };
            self.event(Event::Ended {
                uuid,
                attempt: held.attempt,
                instance: id.clone(),
                exit,
            });
        }
        // Should it turn up again, its containers may run elsewhere by then.
        self.remember_condemned(id);
        let timeout = self.config.command_timeout;
        let action = EffectAction::Disconnect(id.clone());
        self.send(timeout, action, FlightAction::Disconnect);
        self.look_at_probe_cap();
        self.instances_fell();
        self.changed(Changed::CreateGate);
        self.worker_changed(id);
    }
}
