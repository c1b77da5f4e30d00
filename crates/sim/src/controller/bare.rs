//! What an Arvados cluster offers a dispatcher: lock, unlock, and a new state. It records no
//! placements, numbers no revisions, and takes a request as it comes, whatever attempt it was
//! decided on. Runners tell it themselves that they run and how they end.

use longshore_dispatch::QueueFailure;
use longshore_queue::{Call, QueueErrorKind, Reply};
use longshore_types::{Attempt, Container, ContainerState, ContainerUuid, ExitCause};

use super::{Controller, failure, told_document};

impl Controller {
    pub(super) fn call_bare(
        &mut self,
        uuid: ContainerUuid,
        call: &Call,
    ) -> Result<Reply, QueueFailure> {
        let Some(record) = self.get(uuid) else {
            return Err(failure(QueueErrorKind::NotFound));
        };
        let refused = || Err(failure(QueueErrorKind::Refused));
        let (state, cancel) = (record.container.state, record.cancel_requested);
        if record.foreign && !state.is_final() {
            return refused();
        }
        let spent = record.container.lock_count >= self.max_dispatch_attempts;
        match (call, state) {
            (Call::Lock { .. }, ContainerState::Queued) if record.container.priority >= 1 => {
                self.edit(uuid, |c| {
                    c.state = ContainerState::Locked;
                    c.lock_count += 1;
                    c.locked_by_us = true;
                });
            }
            (Call::Unlock { .. }, ContainerState::Locked) if cancel => {
                self.finish(uuid, ContainerState::Cancelled, "cancelled on request");
            }
            (Call::Unlock { .. }, ContainerState::Locked) if spent => {
                self.finish(uuid, ContainerState::Cancelled, "too many attempts");
            }
            (Call::Unlock { .. }, ContainerState::Locked) => self.requeue(uuid),
            (Call::Cancel { error, .. }, state) if !state.is_final() => {
                self.finish(uuid, ContainerState::Cancelled, error);
            }
            _ => return refused(),
        }
        let record = self.get(uuid).map(|record| self.shown(&record.container));
        let container = record.ok_or_else(|| failure(QueueErrorKind::NotFound))?;
        Ok(Reply {
            document: told_document(&container),
            container,
        })
    }

    /// A record as it is told.
    pub(super) fn shown(&self, container: &Container) -> Container {
        let mut shown = container.clone();
        if self.is_bare {
            shown.revision = 0;
        }
        shown
    }

    /// A runner wants to run a container: it may where that is locked, and is then the only one;
    /// its attempt.
    pub(crate) fn runner_begins(&mut self, uuid: ContainerUuid) -> Option<Attempt> {
        let record = self.get(uuid)?;
        if record.foreign || record.container.state != ContainerState::Locked {
            return None;
        }
        let attempt = record.container.attempt();
        self.edit(uuid, |c| c.state = ContainerState::Running);
        Some(attempt)
    }

    /// A runner tells how a container ended; what has run is not put back into the queue.
    pub(crate) fn runner_ends(&mut self, uuid: ContainerUuid, attempt: Attempt, how: &ExitCause) {
        let running = self.get(uuid).is_some_and(|record| {
            let container = &record.container;
            container.state == ContainerState::Running && container.attempt() == attempt
        });
        match how {
            _ if !running => {}
            ExitCause::Exited { .. } => self.finish(uuid, ContainerState::Complete, ""),
            ExitCause::Killed => self.finish(uuid, ContainerState::Cancelled, "killed"),
            _ => {}
        }
    }
}
