//! A controller: containers in memory, with the rules of what may follow what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longshore_dispatch::{QueueAction, QueueFailure, QueueReply};
use longshore_queue::{Call, Change, QueueErrorKind, Refresh, Reply};
use longshore_types::{
    ByteSize, Container, ContainerState, ContainerUuid, Exit, ExitCause, ResourceRequest, Timestamp,
};

#[derive(Debug, Default)]
pub(crate) struct Controller {
    pub(crate) containers: BTreeMap<ContainerUuid, Container>,
    pub(crate) exits: BTreeMap<ContainerUuid, Exit>,
    /// How often each was given back to the queue for a lost machine.
    pub(crate) retries: BTreeMap<ContainerUuid, u32>,
    /// Those that somebody wants to end for good.
    cancelled: BTreeSet<ContainerUuid>,
    changed: BTreeSet<ContainerUuid>,
    revision: u64,
    /// Why it locks nothing at present.
    pub(crate) refuses_locks: Option<QueueErrorKind>,
}

impl Controller {
    pub(crate) fn with_containers(count: u64, vcpus: u32) -> Self {
        let mut controller = Self::default();
        for i in 0..count {
            controller.add(i, vcpus);
        }
        controller
    }

    /// Somebody submits a container.
    pub(crate) fn add(&mut self, i: u64, vcpus: u32) {
        let uuid: ContainerUuid = format!("zzzzz-dz642-{i:015}").parse().unwrap();
        let request = ResourceRequest {
            vcpus,
            ram: ByteSize::mib(64),
            ..ResourceRequest::default()
        };
        let mut container = Container::queued(uuid, request);
        container.created_at = Timestamp(i64::try_from(i).unwrap());
        self.containers.insert(uuid, container);
        self.change(uuid, |_| {});
    }

    pub(crate) fn all_final(&self) -> bool {
        self.containers.values().all(|c| c.state.is_final())
    }

    pub(crate) fn cancel(&mut self, uuid: ContainerUuid) {
        self.cancelled.insert(uuid);
        self.change(uuid, |c| {
            c.priority = 0;
            if c.state == ContainerState::Queued {
                c.state = ContainerState::Cancelled;
            }
        });
    }

    pub(crate) fn set_priority(&mut self, uuid: ContainerUuid, priority: i64) {
        if !self.containers[&uuid].state.is_final() {
            self.change(uuid, |c| c.priority = priority);
        }
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// A new subscriber reads everything first, so old changes mean nothing to it.
    pub(crate) fn subscribe_anew(&mut self) {
        self.changed = self.containers.keys().copied().collect();
    }

    pub(crate) fn perform(&mut self, action: &QueueAction) -> QueueReply {
        match action {
            QueueAction::Refresh(known) => QueueReply::Refreshed(Ok(self.refresh(known))),
            QueueAction::Watch => {
                let changed = std::mem::take(&mut self.changed);
                let record = |uuid| Change::Updated(Box::new(self.containers[uuid].clone()));
                QueueReply::Changed(Ok(changed.iter().map(record).collect()))
            }
            QueueAction::Call(uuid, call) => QueueReply::Called(self.call(*uuid, call)),
            QueueAction::Document(_) => QueueReply::Document(Ok(document())),
        }
    }

    fn refresh(&self, known: &[ContainerUuid]) -> Refresh {
        let wanted = |c: &&Container| !c.state.is_final() || known.contains(&c.uuid);
        Refresh {
            containers: self.containers.values().filter(wanted).cloned().collect(),
            removed: known
                .iter()
                .copied()
                .filter(|uuid| !self.containers.contains_key(uuid))
                .collect(),
        }
    }

    fn call(&mut self, uuid: ContainerUuid, call: &Call) -> Result<Reply, QueueFailure> {
        let Some(container) = self.containers.get(&uuid).cloned() else {
            return Err(failure(QueueErrorKind::NotFound));
        };
        let refused = || Err(failure(QueueErrorKind::Refused));
        let (state, current) = (container.state, container.attempt());
        match call {
            Call::Lock { attempt, planned } => {
                if let Some(kind) = self.refuses_locks {
                    return Err(failure(kind));
                }
                if state != ContainerState::Queued
                    || container.priority < 1
                    || attempt.0 != container.lock_count + 1
                {
                    return refused();
                }
                self.change(uuid, |c| {
                    c.state = ContainerState::Locked;
                    c.lock_count += 1;
                    c.locked_by_us = true;
                    c.placed_on = planned.clone();
                });
            }
            Call::Place { attempt, instance } => {
                let elsewhere = container.placed_on.is_some_and(|on| on != *instance);
                if state != ContainerState::Locked || current != *attempt || elsewhere {
                    return refused();
                }
                self.change(uuid, |c| c.placed_on = Some(instance.clone()));
            }
            Call::Unlock { attempt, placed_on } => {
                let stale = current != *attempt || container.placed_on != *placed_on;
                if state != ContainerState::Locked || stale {
                    return refused();
                }
                self.requeue(uuid);
            }
            Call::Cancel { .. } => {
                if state.is_final() {
                    return refused();
                }
                self.change(uuid, |c| c.state = ContainerState::Cancelled);
            }
            Call::Running { attempt, .. } => {
                if current != *attempt || state == ContainerState::Queued {
                    return refused();
                }
                if state == ContainerState::Locked {
                    self.change(uuid, |c| c.state = ContainerState::Running);
                }
            }
            Call::Ended { attempt, exit } => {
                if current != *attempt
                    || !matches!(state, ContainerState::Locked | ContainerState::Running)
                {
                    // Told before, or of an attempt that is over.
                    return self.reply(uuid);
                }
                self.end(uuid, exit);
            }
        }
        self.reply(uuid)
    }

    fn end(&mut self, uuid: ContainerUuid, exit: &Exit) {
        let lost = exit.cause.is_infrastructure();
        let cancelled = self.cancelled.contains(&uuid);
        if lost && !cancelled {
            *self.retries.entry(uuid).or_default() += 1;
            self.requeue(uuid);
            return;
        }
        if exit.cause == ExitCause::Killed && !cancelled {
            self.requeue(uuid);
            return;
        }
        self.exits.insert(uuid, exit.clone());
        let exited = matches!(exit.cause, ExitCause::Exited { .. });
        self.change(uuid, |c| {
            c.state = if exited {
                ContainerState::Complete
            } else {
                ContainerState::Cancelled
            };
            c.locked_by_us = false;
        });
    }

    fn requeue(&mut self, uuid: ContainerUuid) {
        let state = match self.cancelled.contains(&uuid) {
            true => ContainerState::Cancelled,
            false => ContainerState::Queued,
        };
        self.change(uuid, |c| {
            c.state = state;
            c.locked_by_us = false;
            c.placed_on = None;
        });
    }

    fn reply(&self, uuid: ContainerUuid) -> Result<Reply, QueueFailure> {
        let container = self.containers[&uuid].clone();
        Ok(Reply {
            container,
            document: Some(document()),
        })
    }

    fn change(&mut self, uuid: ContainerUuid, edit: impl FnOnce(&mut Container)) {
        self.revision += 1;
        if let Some(container) = self.containers.get_mut(&uuid) {
            edit(container);
            container.revision = self.revision;
            self.changed.insert(uuid);
        }
    }

    pub(crate) fn describe(&self) -> String {
        let lines: Vec<String> = self
            .containers
            .values()
            .filter(|c| !c.state.is_final())
            .map(|c| {
                format!(
                    "{} {} attempt {} on {:?}",
                    c.uuid, c.state, c.lock_count, c.placed_on
                )
            })
            .collect();
        lines.join("\n")
    }
}

fn document() -> Arc<[u8]> {
    Arc::from(*b"{}")
}

fn failure(kind: QueueErrorKind) -> QueueFailure {
    QueueFailure {
        kind,
        error: "as the test has it".into(),
    }
}

/// What a shell says when no answer came.
pub(crate) fn unknown_reply(action: &QueueAction) -> QueueReply {
    let failure = failure(QueueErrorKind::Unknown);
    match action {
        QueueAction::Refresh(_) => QueueReply::Refreshed(Err(failure)),
        QueueAction::Watch => QueueReply::Changed(Err(failure)),
        QueueAction::Call(..) => QueueReply::Called(Err(failure)),
        QueueAction::Document(_) => QueueReply::Document(Err(failure)),
    }
}
