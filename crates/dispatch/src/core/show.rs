//! What is shown to whoever asks.

use std::collections::BTreeSet;

use longshore_scheduler::type_choice::eligible;
use longshore_types::{ContainerUuid, Instant, QueueEntry};

use super::Core;
use crate::{EntryView, InstanceEntry, Place};

/// The most entries of the queue that are shown at once.
const MAX_ENTRIES: usize = 10_000;

impl Core {
    /// The entry of a container; none if the queue has none.
    pub fn entry(&self, uuid: ContainerUuid, now: Instant) -> Option<EntryView> {
        let entry = self.cache.get(uuid)?;
        Some(self.show(entry, self.scheduler.position(uuid), now))
    }

    /// The entries of the queue that have not ended, at most 10,000: first those that are locked
    /// or run on an instance, then those that wait, the first in line first, then the others.
    pub fn entries(&self, now: Instant) -> Vec<EntryView> {
        let workers = self.pool.workers();
        let held: BTreeSet<ContainerUuid> = workers
            .flat_map(|worker| worker.containers.into_iter().map(|held| held.uuid))
            .collect();
        let begun = held.iter().filter_map(|&uuid| self.cache.get(uuid));
        let begun = begun
            .filter(|entry| !entry.container.state.is_final())
            .map(|entry| self.show(entry, None, now));
        let waiting = self.scheduler.waiting().zip(1..);
        let waiting =
            waiting
                .filter(|(uuid, _)| !held.contains(uuid))
                .filter_map(|(uuid, position)| {
                    Some(self.show(self.cache.get(uuid)?, Some(position), now))
                });
        let mut entries: Vec<EntryView> = begun.chain(waiting).take(MAX_ENTRIES).collect();
        let shown: BTreeSet<ContainerUuid> = entries.iter().map(|e| e.container.uuid).collect();
        // Nobody has said anything of these since a restart, or they are not to run for now.
        let others = self
            .cache
            .containers()
            .filter(|container| !container.state.is_final() && !shown.contains(&container.uuid));
        let others = others.take(MAX_ENTRIES - entries.len());
        let others = others.filter_map(|container| self.cache.get(container.uuid));
        entries.extend(others.map(|entry| self.show(entry, None, now)));
        entries
    }

    /// Every instance, by id.
    pub fn instances(&self) -> Vec<InstanceEntry> {
        let show = |worker: longshore_types::WorkerView| InstanceEntry {
            address: self.pool.host(&worker.instance).map(|host| host.address),
            last_busy: self.last_busy.get(&worker.instance).copied(),
            worker,
        };
        self.pool.workers().map(show).collect()
    }

    /// Where the latest attempt of a container that has a process, or a result that was not
    /// acknowledged, is.
    pub fn place(&self, uuid: ContainerUuid) -> Option<Place> {
        let (instance, held) = self
            .pool
            .holders(uuid)
            .max_by_key(|(_, held)| held.attempt)?;
        Some(Place {
            host: self.pool.host(instance)?,
            attempt: held.attempt,
        })
    }

    fn show(&self, entry: QueueEntry, position: Option<usize>, now: Instant) -> EntryView {
        let container = entry.container;
        let types = eligible(&container.request, &self.config.scheduler).unwrap_or_default();
        EntryView {
            types: types.into_iter().map(|t| t.name.clone()).collect(),
            first_seen: self.first_seen.get(&container.uuid).copied().unwrap_or(now),
            position,
            in_line: self.scheduler.line_length(),
            reason: self.scheduler.reason(container.uuid, now),
            container,
        }
    }
}
