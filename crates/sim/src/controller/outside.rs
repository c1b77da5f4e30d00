//! What a controller that is not part of the dispatcher has in addition: other installations'
//! dispatchers, and answers that are read page by page.

use std::collections::BTreeSet;

use longshore_queue::Refresh;
use longshore_types::{Attempt, Container, ContainerState, ContainerUuid};

use super::{Controller, Record};

/// So many of those that wait are told, the first by priority and age.
const QUEUE_TOP: usize = 25;

impl Controller {
    /// Another installation's dispatcher locks a container; its attempt.
    pub(crate) fn lock_by_other(&mut self, uuid: ContainerUuid) -> Option<Attempt> {
        let container = &self.records.get(&uuid)?.container;
        if container.state != ContainerState::Queued || container.priority < 1 {
            return None;
        }
        self.set_foreign(uuid, true);
        self.edit(uuid, |c| {
            c.state = ContainerState::Locked;
            c.lock_count += 1;
            c.locked_by_us = false;
        });
        self.get(uuid).map(|record| record.container.attempt())
    }

    /// The other dispatcher runs what it has locked.
    pub(crate) fn run_by_other(&mut self, uuid: ContainerUuid) {
        self.edit(uuid, |c| c.state = ContainerState::Running);
    }

    /// The other dispatcher is done with an attempt: it has run it, or gives it back, or has lost it.
    pub(crate) fn end_by_other(&mut self, uuid: ContainerUuid, attempt: Attempt, ran: bool) {
        let Some(record) = self.records.get(&uuid) else {
            return;
        };
        let state = record.container.state;
        if !record.foreign || record.container.attempt() != attempt {
            return;
        }
        if record.cancel_requested {
            self.finish(uuid, ContainerState::Cancelled, "cancelled on request");
        } else if ran && record.container.priority >= 1 {
            self.edit(uuid, |c| c.state = ContainerState::Running);
            self.finish(uuid, ContainerState::Complete, "");
        } else if attempt.0 >= self.max_dispatch_attempts {
            self.finish(uuid, ContainerState::Cancelled, "too many attempts");
        } else if self.is_bare && state == ContainerState::Running {
            self.finish(uuid, ContainerState::Cancelled, "lost");
        } else {
            self.requeue(uuid);
        }
    }

    /// Whether the lock of a container is another installation's.
    pub(crate) fn is_foreign(&self, uuid: ContainerUuid) -> bool {
        self.get(uuid).is_some_and(|record| record.foreign)
    }

    pub(super) fn set_foreign(&mut self, uuid: ContainerUuid, foreign: bool) {
        if let Some(record) = self.records.get_mut(&uuid) {
            record.foreign = foreign;
        }
    }

    /// The first pages of an answer: what this installation has locked.
    pub(crate) fn locked_by_us(&self) -> Vec<Container> {
        let open = self.open.iter().filter_map(|uuid| self.records.get(uuid));
        let ours = open.filter(|record| record.container.locked_by_us);
        ours.map(|record| self.shown(&record.container)).collect()
    }

    /// The other pages, read later: the top of the queue, and those of the known ones that were in
    /// no page.
    pub(crate) fn finish_refresh(&self, first: Vec<Container>, known: &[ContainerUuid]) -> Refresh {
        let mut refresh = Refresh {
            containers: first,
            removed: Vec::new(),
        };
        let open = self.open.iter().filter_map(|uuid| self.records.get(uuid));
        let mut queue: Vec<&Container> = open
            .map(|record| &record.container)
            .filter(|c| c.state == ContainerState::Queued && c.priority > 0)
            .collect();
        queue.sort_by_key(|c| (-c.priority, c.created_at, c.uuid));
        let top = queue.into_iter().take(QUEUE_TOP).map(|c| self.shown(c));
        refresh.containers.extend(top);
        let seen: BTreeSet<ContainerUuid> = refresh.containers.iter().map(|c| c.uuid).collect();
        for uuid in known.iter().filter(|uuid| !seen.contains(uuid)) {
            match self.records.get(uuid) {
                Some(Record { container, .. }) => refresh.containers.push(self.shown(container)),
                None => refresh.removed.push(*uuid),
            }
        }
        refresh
    }
}
