//! A model of a controller: records of containers, and the rules of what may follow what.

mod bare;
mod line;
mod outside;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longshore_dispatch::{QueueAction, QueueFailure, QueueReply};
use longshore_queue::{Call, Change, QueueErrorKind, Refresh, Reply};
use longshore_types::{
    Attempt, Container, ContainerState, ContainerUuid, Exit, ExitCause, InstanceId, Instant,
};

/// A record, and what its owner wants.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) container: Container,
    pub(crate) cancel_requested: bool,
    pub(crate) retries_left: u32,
    /// When it was last unwanted: held back or cancelled.
    pub(crate) unwanted_at: Option<Instant>,
    pub(crate) error: Option<String>,
    /// Whether the lock, if there is one, is that of another installation's dispatcher.
    pub(crate) foreign: bool,
}

/// A change of a record's state.
#[derive(Clone, Debug)]
pub(crate) struct Transition {
    pub(crate) uuid: ContainerUuid,
    pub(crate) attempt: Attempt,
    pub(crate) from: ContainerState,
    pub(crate) to: ContainerState,
    pub(crate) placed_on: Option<InstanceId>,
    /// Where it was placed before.
    pub(crate) was_on: Option<InstanceId>,
    /// Whether another installation's dispatcher made it.
    pub(crate) by_others: bool,
}

/// The most changes in one answer.
const CHANGES_MAX: usize = 1_000;
/// How often a container is put back after its machine was lost.
const RETRIES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Controller {
    records: BTreeMap<ContainerUuid, Record>,
    /// Those that are not final.
    open: BTreeSet<ContainerUuid>,
    line: line::Line,
    changed: BTreeSet<ContainerUuid>,
    removed: BTreeSet<ContainerUuid>,
    revision: u64,
    max_dispatch_attempts: u32,
    /// Whether it keeps states only: no placements, no revisions, and nothing that a dispatcher
    /// reports.
    is_bare: bool,
    /// What changed since this was last taken.
    pub(crate) transitions: Vec<Transition>,
}

impl Controller {
    /// One that cancels what is given back after so many attempts.
    pub(crate) fn new(max_dispatch_attempts: u32, is_bare: bool) -> Self {
        Self {
            is_bare,
            max_dispatch_attempts,
            ..Self::default()
        }
    }

    pub(crate) fn submit(&mut self, container: Container) {
        let uuid = container.uuid;
        let record = Record {
            container,
            cancel_requested: false,
            retries_left: RETRIES,
            unwanted_at: None,
            error: None,
            foreign: false,
        };
        self.records.insert(uuid, record);
        self.open.insert(uuid);
        self.edit(uuid, |_| {});
    }

    pub(crate) fn get(&self, uuid: ContainerUuid) -> Option<&Record> {
        self.records.get(&uuid)
    }

    pub(crate) fn open(&self) -> &BTreeSet<ContainerUuid> {
        &self.open
    }

    /// The first of those that are not final, and that no other dispatcher has locked.
    pub(crate) fn open_here(&self) -> Option<ContainerUuid> {
        let here = |uuid: &&ContainerUuid| !self.is_foreign(**uuid);
        self.open.iter().find(here).copied()
    }

    /// Who waits and is to be served before all others, supervisors left aside.
    pub(crate) fn first_in_line(&self) -> Option<ContainerUuid> {
        self.line.first()
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.removed.is_empty()
    }

    /// A new subscriber reads everything first, so old changes mean nothing to it.
    pub(crate) fn subscribe_anew(&mut self) {
        self.changed.clear();
        self.removed.clear();
    }

    pub(crate) fn request_cancel(&mut self, uuid: ContainerUuid, now: Instant) {
        let Some(record) = self.records.get_mut(&uuid) else {
            return;
        };
        if record.container.state.is_final() {
            return;
        }
        record.cancel_requested = true;
        record.unwanted_at = Some(now);
        record.container.priority = 0;
        let queued = record.container.state == ContainerState::Queued;
        self.edit(uuid, |_| {});
        if queued {
            self.finish(uuid, ContainerState::Cancelled, "cancelled on request");
        }
    }

    pub(crate) fn set_priority(&mut self, uuid: ContainerUuid, priority: i64, now: Instant) {
        let Some(record) = self.records.get_mut(&uuid) else {
            return;
        };
        if record.container.state.is_final() || record.cancel_requested {
            return;
        }
        if priority < 1 || record.container.priority < 1 {
            record.unwanted_at = Some(now);
        }
        record.container.priority = priority;
        self.edit(uuid, |_| {});
    }

    pub(crate) fn delete(&mut self, uuid: ContainerUuid) {
        if self.records.remove(&uuid).is_some() {
            self.open.remove(&uuid);
            self.line.note(uuid, None);
            self.changed.remove(&uuid);
            self.removed.insert(uuid);
        }
    }

    pub(crate) fn perform(&mut self, action: &QueueAction) -> QueueReply {
        match action {
            QueueAction::Refresh(known) => QueueReply::Refreshed(Ok(self.refresh(known))),
            QueueAction::Watch => QueueReply::Changed(Ok(self.take_changes())),
            QueueAction::Call(uuid, call) => QueueReply::Called(self.call(*uuid, call)),
            QueueAction::Document(uuid) => QueueReply::Document(match self.records.get(uuid) {
                Some(_) => Ok(document()),
                None => Err(failure(QueueErrorKind::NotFound)),
            }),
        }
    }

    fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < CHANGES_MAX
            && let Some(uuid) = self.changed.pop_first()
        {
            if let Some(record) = self.records.get(&uuid) {
                changes.push(Change::Updated(Box::new(record.container.clone())));
            }
        }
        while changes.len() < CHANGES_MAX
            && let Some(uuid) = self.removed.pop_first()
        {
            changes.push(Change::Removed(uuid));
        }
        changes
    }

    fn refresh(&self, known: &[ContainerUuid]) -> Refresh {
        let mut wanted = self.open.clone();
        let mut removed = Vec::new();
        for uuid in known {
            if self.records.contains_key(uuid) {
                wanted.insert(*uuid);
            } else {
                removed.push(*uuid);
            }
        }
        let record = |uuid| Some(self.records.get(uuid)?.container.clone());
        let containers = wanted.iter().filter_map(record).collect();
        Refresh {
            containers,
            removed,
        }
    }

    fn call(&mut self, uuid: ContainerUuid, call: &Call) -> Result<Reply, QueueFailure> {
        if self.is_bare {
            return self.call_bare(uuid, call);
        }
        let Some(record) = self.records.get(&uuid) else {
            return Err(failure(QueueErrorKind::NotFound));
        };
        let container = record.container.clone();
        let cancel = record.cancel_requested;
        let refused = || Err(failure(QueueErrorKind::Refused));
        let theirs = record.foreign && call.attempt() >= container.attempt();
        if theirs && !container.state.is_final() {
            return refused();
        }
        match (call, container.state) {
            (Call::Lock { attempt, planned }, ContainerState::Queued)
                if container.priority >= 1 && attempt.0 == container.lock_count + 1 =>
            {
                self.edit(uuid, |c| {
                    c.state = ContainerState::Locked;
                    c.lock_count += 1;
                    c.locked_by_us = true;
                    c.placed_on.clone_from(planned);
                });
            }
            (Call::Lock { attempt, planned }, ContainerState::Locked)
                if container.attempt() == *attempt && container.placed_on == *planned => {}
            (Call::Place { attempt, instance }, ContainerState::Locked)
                if container.attempt() == *attempt
                    && container.placed_on.as_ref().is_none_or(|on| on == instance) =>
            {
                self.edit(uuid, |c| c.placed_on = Some(instance.clone()));
            }
            (Call::Unlock { attempt, .. }, _)
                if attempt.0 > 0 && *attempt < container.attempt() => {}
            (Call::Unlock { attempt, .. }, ContainerState::Queued)
                if attempt.0 > 0 && *attempt == container.attempt() => {}
            (Call::Unlock { attempt, placed_on }, ContainerState::Locked)
                if *attempt != container.attempt() || *placed_on != container.placed_on =>
            {
                return refused();
            }
            (Call::Unlock { .. }, ContainerState::Locked) if cancel => {
                self.finish(uuid, ContainerState::Cancelled, "cancelled on request");
            }
            (Call::Unlock { .. }, ContainerState::Locked)
                if container.lock_count >= self.max_dispatch_attempts =>
            {
                self.finish(uuid, ContainerState::Cancelled, "too many attempts");
            }
            (Call::Unlock { .. }, ContainerState::Locked) => self.requeue(uuid),
            (Call::Cancel { .. }, ContainerState::Cancelled) => {}
            (
                Call::Cancel {
                    attempt,
                    placed_on,
                    error,
                },
                state,
            ) if !state.is_final()
                && *attempt == container.attempt()
                && *placed_on == container.placed_on =>
            {
                self.finish(uuid, ContainerState::Cancelled, error);
            }
            (Call::Running { attempt, .. }, ContainerState::Locked | ContainerState::Running)
                if container.attempt() == *attempt =>
            {
                self.edit(uuid, |c| c.state = ContainerState::Running);
            }
            (Call::Ended { attempt, .. }, _)
                if attempt.0 == 0 || *attempt > container.attempt() =>
            {
                return refused();
            }
            (Call::Ended { attempt, exit }, ContainerState::Locked | ContainerState::Running)
                if container.attempt() == *attempt =>
            {
                self.end(uuid, exit);
            }
            (Call::Ended { .. }, _) => {}
            _ => return refused(),
        }
        let Some(record) = self.records.get(&uuid) else {
            return Err(failure(QueueErrorKind::NotFound));
        };
        let container = record.container.clone();
        Ok(Reply {
            document: told_document(&container),
            container,
        })
    }

    fn end(&mut self, uuid: ContainerUuid, exit: &Exit) {
        let Some(record) = self.records.get_mut(&uuid) else {
            return;
        };
        let wanted = record.container.priority >= 1;
        match &exit.cause {
            ExitCause::Exited { .. }
            | ExitCause::Signaled { .. }
            | ExitCause::OutOfMemory { .. }
            | ExitCause::CannotRun { .. } => {
                self.finish(uuid, ContainerState::Complete, "");
            }
            ExitCause::Killed if wanted => self.requeue(uuid),
            ExitCause::Killed => {
                self.finish(uuid, ContainerState::Cancelled, "cancelled on request");
            }
            ExitCause::TimeLimit => {
                let why = exit.cause.to_string();
                self.finish(uuid, ContainerState::Cancelled, &why);
            }
            ExitCause::NotStarted { .. } | ExitCause::SupervisorLost | ExitCause::InstanceLost => {
                if record.cancel_requested {
                    self.finish(uuid, ContainerState::Cancelled, "cancelled on request");
                } else if let Some(left) = record.retries_left.checked_sub(1) {
                    record.retries_left = left;
                    self.requeue(uuid);
                } else {
                    self.finish(uuid, ContainerState::Cancelled, "no retries are left");
                }
            }
        }
    }

    fn requeue(&mut self, uuid: ContainerUuid) {
        self.set_foreign(uuid, false);
        self.edit(uuid, |c| {
            c.state = ContainerState::Queued;
            c.locked_by_us = false;
            c.placed_on = None;
        });
    }

    fn finish(&mut self, uuid: ContainerUuid, state: ContainerState, error: &str) {
        self.set_foreign(uuid, false);
        self.open.remove(&uuid);
        if let Some(record) = self.records.get_mut(&uuid)
            && !error.is_empty()
        {
            record.error = Some(error.to_owned());
        }
        self.edit(uuid, |c| {
            c.state = state;
            c.locked_by_us = false;
        });
    }

    fn edit(&mut self, uuid: ContainerUuid, edit: impl FnOnce(&mut Container)) {
        let Some(record) = self.records.get_mut(&uuid) else {
            return;
        };
        let by_others = record.foreign;
        let before = record.container.clone();
        edit(&mut record.container);
        self.line.note(uuid, Some(record));
        let after = &mut record.container;
        self.revision += 1;
        after.revision = self.revision;
        self.changed.insert(uuid);
        if before.state != after.state || before.placed_on != after.placed_on {
            self.transitions.push(Transition {
                uuid,
                attempt: after.attempt(),
                from: before.state,
                to: after.state,
                placed_on: after.placed_on.clone(),
                was_on: before.placed_on,
                by_others,
            });
        }
    }
}

fn document() -> Arc<[u8]> {
    Arc::from(*b"{}")
}

/// The document where it comes with the answer; for one attempt in four it has to be asked for.
fn told_document(container: &Container) -> Option<Arc<[u8]>> {
    let digits = container.uuid.as_str().bytes().map(u32::from);
    let number = digits.sum::<u32>().wrapping_add(container.attempt().0);
    (number % 4 != 0).then(document)
}

pub(crate) fn failure(kind: QueueErrorKind) -> QueueFailure {
    QueueFailure {
        kind,
        error: format!("{kind:?}, in the simulation"),
    }
}

/// The answer to a request that failed.
pub(crate) fn failed(action: &QueueAction, kind: QueueErrorKind) -> QueueReply {
    match action {
        QueueAction::Refresh(_) => QueueReply::Refreshed(Err(failure(kind))),
        QueueAction::Watch => QueueReply::Changed(Err(failure(kind))),
        QueueAction::Call(..) => QueueReply::Called(Err(failure(kind))),
        QueueAction::Document(_) => QueueReply::Document(Err(failure(kind))),
    }
}
