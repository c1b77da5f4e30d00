//! From what the scheduler decides to verbs of the pool and calls to the controller.

use longshore_pool::StartRequest;
use longshore_queue::{Call, QueueErrorKind, Reply};
use longshore_scheduler::Action;
use longshore_scheduler::type_choice::need;
use longshore_types::{
    Attempt, ContainerState, ContainerUuid, Exit, ExitCause, InstanceId, Instant,
};

use super::{Asked, Core};
use crate::{Notice, QueueAction, QueueFailure};

impl Core {
    pub(super) fn act(&mut self, action: Action, now: Instant) {
        let done = match &action {
            Action::Lock { uuid, .. }
            | Action::Place { uuid, .. }
            | Action::Unlock { uuid }
            | Action::Cancel { uuid, .. } => self.change_record(*uuid, &action, now),
            Action::Lost {
                uuid,
                attempt,
                cause,
            } => self.lose(*uuid, *attempt, cause, &action, now),
            Action::Start { uuid, .. } => self.start(*uuid, &action, now),
            Action::Create { type_name } => match self.pool.create(type_name, now) {
                Ok(_) => Ok(()),
                Err(refusal) => Err(refusal.to_string()),
            },
            Action::GiveBack { instance } => self
                .pool
                .give_back(instance, now)
                .map_err(|refusal| refusal.to_string()),
            Action::Kill {
                only_unstarted,
                uuid,
                instance,
                attempt,
                reason,
            } => {
                self.call_off_start(*uuid, *attempt);
                if *only_unstarted {
                    self.pool.withdraw(*uuid, *attempt, instance, reason, now)
                } else {
                    self.pool
                        .kill_attempt(*uuid, *attempt, instance, reason, now)
                }
                .map_err(|refusal| refusal.to_string())
            }
            // What is left to be told of it would have to be told of a stranger.
            Action::Forget { uuid } if self.progress.has_news(*uuid) => {
                Err("its end is being told".into())
            }
            Action::Forget { uuid } => {
                self.forget(*uuid);
                Ok(())
            }
            Action::Acknowledge {
                uuid,
                attempt,
                instance,
            } => {
                self.progress.drop_news(*uuid, *attempt);
                self.pool.acknowledge(*uuid, *attempt, instance, now);
                Ok(())
            }
        };
        match done {
            Ok(()) => self.notice(Notice::Decided(action)),
            Err(error) => self.not_done(action, error, now),
        }
    }

    /// The scheduler's call to the controller ended.
    pub(super) fn handle_acted(
        &mut self,
        uuid: ContainerUuid,
        call: Call,
        action: Action,
        result: Result<Reply, QueueFailure>,
        now: Instant,
    ) {
        match result {
            Ok(reply) => {
                if let Some(document) = reply.document {
                    self.documents.insert(uuid, document);
                }
                if matches!(
                    call,
                    Call::Unlock { .. } | Call::Cancel { .. } | Call::Ended { .. }
                ) {
                    self.documents.remove(&uuid);
                    self.locked_here.remove(&uuid);
                }
                if matches!(call, Call::Lock { .. } | Call::Place { .. }) {
                    self.locked_here.insert(uuid, reply.container.attempt());
                }
                self.cache.finish_call(uuid, Some(reply.container), now);
                self.notice(Notice::Told(uuid, call));
            }
            Err(failure) => {
                self.cache.finish_call(uuid, None, now);
                if let Some(instance) = promised(&call) {
                    self.pool.break_promise(instance, uuid, now);
                }
                self.handle_overload(failure.kind, now);
                self.reread_after(&failure, uuid);
                self.scheduler.action_failed(&action, &failure.error, now);
                self.notice(Notice::NotTold {
                    uuid,
                    call,
                    error: failure.error,
                });
            }
        }
        self.progress.handle_free(uuid, now);
    }

    /// The start document that a start waits for has arrived, or cannot be had.
    pub(super) fn handle_document(
        &mut self,
        uuid: ContainerUuid,
        result: Result<std::sync::Arc<[u8]>, QueueFailure>,
        now: Instant,
    ) {
        let Some(action) = self.awaiting_document.remove(&uuid) else {
            return;
        };
        match result {
            Ok(_) if !self.may_start(&action) => {
                let error = "it is not to be started there any more".to_owned();
                self.not_done(action, error, now);
            }
            Ok(document) => {
                self.documents.insert(uuid, document);
                if let Err(error) = self.start(uuid, &action, now) {
                    self.not_done(action, error, now);
                }
            }
            Err(failure) => {
                self.reread_after(&failure, uuid);
                self.not_done(action, failure.error, now);
            }
        }
    }

    /// A start of an attempt that still waits for its document is not sent any more.
    fn call_off_start(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        let waiting = self.awaiting_document.get(&uuid);
        if let Some(Action::Start { attempt: waits, .. }) = waiting
            && *waits == attempt
        {
            self.awaiting_document.remove(&uuid);
        }
    }

    /// Whether what a start was decided on is still so.
    fn may_start(&self, action: &Action) -> bool {
        let Action::Start {
            uuid,
            attempt,
            instance,
            ..
        } = action
        else {
            return false;
        };
        self.cache.get(*uuid).is_some_and(|entry| {
            let container = entry.container;
            let elsewhere = container
                .placed_on
                .as_ref()
                .is_some_and(|on| on != instance);
            container.state == ContainerState::Locked
                && container.attempt() == *attempt
                && container.priority >= 1
                && !elsewhere
                && !entry.call_in_flight
        })
    }

    /// A start failed, and nothing runs. Tried again after a pause; but an attempt that is spent
    /// can never run, so the container goes back to the queue for another one.
    pub(super) fn handle_not_started(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
        spent: bool,
        error: &str,
        now: Instant,
    ) {
        let Some(entry) = self.cache.get(uuid) else {
            return;
        };
        let unlock = Action::Unlock { uuid };
        let locked = entry.container.state == ContainerState::Locked
            && entry.container.attempt() == attempt
            && entry
                .container
                .placed_on
                .as_ref()
                .is_none_or(|on| on == instance);
        if spent && locked && self.change_record(uuid, &unlock, now).is_ok() {
            return;
        }
        let start = Action::Start {
            uuid,
            attempt,
            instance: instance.clone(),
            resources: need(&entry.container.request, &self.config.scheduler),
        };
        self.scheduler.action_failed(&start, error, now);
    }

    /// A record that may have changed without us knowing is read again.
    pub(super) fn reread_after(&mut self, failure: &QueueFailure, uuid: ContainerUuid) {
        match failure.kind {
            QueueErrorKind::Refused | QueueErrorKind::NotFound | QueueErrorKind::Unknown => {
                self.strangers.insert(uuid);
                self.refreshing.ask();
            }
            QueueErrorKind::Overloaded
            | QueueErrorKind::Unavailable
            | QueueErrorKind::BadRecord => {}
        }
    }

    /// Asks for a change of a record. The scheduler decided on what the cache knows, so that is
    /// what the record has to be like for the change to be made.
    fn change_record(
        &mut self,
        uuid: ContainerUuid,
        action: &Action,
        now: Instant,
    ) -> Result<(), String> {
        let known = self.cache.get(uuid).map(|entry| entry.container);
        let known = known.ok_or_else(|| "it is not known any more".to_owned())?;
        let (attempt, placed_on) = (known.attempt(), known.placed_on);
        let call = match action.clone() {
            Action::Lock { instance, .. } => Call::Lock {
                attempt: Attempt(attempt.0.saturating_add(1)),
                planned: instance,
            },
            Action::Place { instance, .. } => Call::Place { attempt, instance },
            Action::Cancel { error, .. } => Call::Cancel {
                attempt,
                placed_on,
                error,
            },
            _ => Call::Unlock { attempt, placed_on },
        };
        self.call(uuid, call, action, now)
    }

    fn call(
        &mut self,
        uuid: ContainerUuid,
        call: Call,
        action: &Action,
        now: Instant,
    ) -> Result<(), String> {
        self.cache
            .begin_call(uuid, now)
            .map_err(|busy| busy.to_string())?;
        if let Some(instance) = promised(&call) {
            let until = now + self.config.request_timeout;
            self.pool.promise(instance, uuid, until, now);
        }
        let asked = Asked::Action(uuid, call.clone(), action.clone());
        self.request(
            self.config.request_timeout,
            QueueAction::Call(uuid, call),
            asked,
        );
        Ok(())
    }

    /// An attempt is gone without a result, unless its result is on its way to the controller.
    fn lose(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        cause: &ExitCause,
        action: &Action,
        now: Instant,
    ) -> Result<(), String> {
        if self.progress.has_ended(uuid, attempt) {
            return Ok(());
        }
        if self.config.queue.takes_reports {
            let exit = Exit::unseen(cause.clone());
            return self.call(uuid, Call::Ended { attempt, exit }, action, now);
        }
        // What has run cannot go back into the queue there.
        let record = self.cache.get(uuid).map(|entry| entry.container);
        let ran = record.filter(|record| record.state == ContainerState::Running);
        match ran {
            Some(record) => {
                let (placed_on, error) = (record.placed_on, cause.to_string());
                let cancel = Call::Cancel {
                    attempt,
                    placed_on,
                    error,
                };
                self.call(uuid, cancel, action, now)
            }
            None => self.change_record(uuid, action, now),
        }
    }

    fn start(&mut self, uuid: ContainerUuid, action: &Action, now: Instant) -> Result<(), String> {
        let Action::Start {
            attempt,
            instance,
            resources,
            ..
        } = action
        else {
            return Ok(());
        };
        let Some(document) = self.documents.get(&uuid).cloned() else {
            let asked = self.awaiting_document.insert(uuid, action.clone());
            if asked.is_some() {
                return Ok(());
            }
            let timeout = self.config.request_timeout;
            self.request(timeout, QueueAction::Document(uuid), Asked::Document(uuid));
            return Ok(());
        };
        let request = StartRequest {
            instance: instance.clone(),
            uuid,
            attempt: *attempt,
            resources: *resources,
            document,
        };
        self.pool
            .start(request, now)
            .map_err(|refusal| refusal.to_string())?;
        if self.locked_here.get(&uuid) != Some(attempt) {
            self.pool.sent_before(uuid, *attempt, instance, now);
        }
        Ok(())
    }

    fn forget(&mut self, uuid: ContainerUuid) {
        self.cache.forget(uuid);
        self.documents.remove(&uuid);
        self.locked_here.remove(&uuid);
    }

    fn not_done(&mut self, action: Action, error: String, now: Instant) {
        self.scheduler.action_failed(&action, &error, now);
        self.notice(Notice::NotDone { action, error });
    }
}

/// The instance that a container is started on if this call succeeds.
fn promised(call: &Call) -> Option<&InstanceId> {
    match call {
        Call::Lock { planned, .. } => planned.as_ref(),
        Call::Place { instance, .. } => Some(instance),
        _ => None,
    }
}
