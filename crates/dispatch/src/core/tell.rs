//! Telling the controller what became of attempts.

use longshore_queue::{Cache, Call, QueueErrorKind, Reply};
use longshore_types::{ContainerUuid, Instant};

use super::{Asked, Core};
use crate::{Notice, QueueAction, QueueFailure};

impl Core {
    /// Begins every call that is due and whose container has no other call under way.
    ///
    /// News of a container that the cache does not know wait until it does: a call would make
    /// the answer that brings its record look older than what is known.
    pub(super) fn tell_controller(&mut self, now: Instant) {
        let free = |cache: &Cache, uuid| cache.get(uuid).is_some_and(|e| !e.call_in_flight);
        while let Some((uuid, call)) = self.progress.poll(now, |uuid| free(&self.cache, uuid)) {
            if self.cache.begin_call(uuid, now).is_err() {
                // Its end makes the news due again.
                continue;
            }
            let asked = Asked::Progress(uuid, call.clone());
            self.request(
                self.config.request_timeout,
                QueueAction::Call(uuid, call),
                asked,
            );
        }
    }

    pub(super) fn handle_told(
        &mut self,
        uuid: ContainerUuid,
        call: Call,
        result: Result<Reply, QueueFailure>,
        now: Instant,
    ) {
        match result {
            Ok(reply) => {
                self.cache.finish_call(uuid, Some(reply.container), now);
                if let Some((attempt, instance)) = self.progress.handle_success(uuid, &call) {
                    self.documents.remove(&uuid);
                    self.locked_here.remove(&uuid);
                    self.pool.acknowledge(uuid, attempt, &instance, now);
                }
                self.notice(Notice::Told(uuid, call));
            }
            Err(failure) => {
                self.cache.finish_call(uuid, None, now);
                self.handle_overload(failure.kind, now);
                self.handle_not_told(uuid, &call, &failure, now);
                self.notice(Notice::NotTold {
                    uuid,
                    call,
                    error: failure.error,
                });
            }
        }
        self.progress.handle_free(uuid, now);
    }

    /// Tells it again later, unless nobody will ever want to know. Once the record was read again
    /// the scheduler says whether the result is still needed.
    fn handle_not_told(
        &mut self,
        uuid: ContainerUuid,
        call: &Call,
        failure: &QueueFailure,
        now: Instant,
    ) {
        self.reread_after(failure, uuid);
        let nobody_asks = failure.kind == QueueErrorKind::NotFound;
        match call {
            Call::Ended { .. } if nobody_asks => {
                if let Some((attempt, instance)) = self.progress.handle_success(uuid, call) {
                    self.pool.acknowledge(uuid, attempt, &instance, now);
                }
            }
            Call::Running { attempt, .. } if nobody_asks => self.progress.drop_news(uuid, *attempt),
            _ => self.progress.handle_failure(uuid, now),
        }
    }
}
