//! What one part learns, told to the others.

use longshore_pool::Changed;
use longshore_queue::Delta;
use longshore_scheduler::Limits;
use longshore_scheduler::type_choice::need;
use longshore_types::{Container, ContainerState, ContainerUuid, InstanceId, Instant, WorkerView};

use super::claims::newest_started;
use super::{Core, Ending};
use crate::Notice;

impl Core {
    /// Tells what changed in the pool, until nothing does: what happened may change it again.
    pub(super) fn mirror_pool(&mut self, now: Instant) {
        loop {
            self.mirror_pool_changes(now);
            let Some(event) = self.pool.poll_event() else {
                return;
            };
            self.handle_event(&event, now);
            self.notice(Notice::Happened(event));
        }
    }

    fn mirror_pool_changes(&mut self, now: Instant) {
        while let Some(changed) = self.pool.poll_changed() {
            self.changed = true;
            match changed {
                Changed::Worker(id) => match self.pool.worker(&id) {
                    Some(view) => self.mirror_worker(view, now),
                    None => {
                        self.boots.forget(&id);
                        self.scheduler.remove_worker(&id, now);
                        self.last_busy.remove(&id);
                        self.notice(Notice::WorkerGone(id));
                    }
                },
                Changed::Answered(id) => self.mirror_answer(&id, now),
                Changed::Pending(id) => match self.pool.pending(id) {
                    Some(view) => self.scheduler.upsert_pending(view, now),
                    None => self.scheduler.remove_pending(id, now),
                },
                Changed::CreateGate => self.gate_changed = true,
                Changed::Evidence => {}
            }
        }
    }

    /// A worker has what it had.
    fn mirror_answer(&mut self, id: &InstanceId, now: Instant) {
        if let Some(view) = self.pool.worker(id) {
            self.note_busy(&view, now);
            self.scheduler.upsert_worker(view, now);
        }
    }

    fn note_busy(&mut self, view: &WorkerView, now: Instant) {
        if let Some(held) = view.containers.last() {
            self.last_busy
                .insert(view.instance.clone(), (held.uuid, now));
        }
    }

    fn mirror_worker(&mut self, view: WorkerView, now: Instant) {
        self.note_busy(&view, now);
        for held in &view.containers {
            match self.cache.get(held.uuid) {
                Some(entry) if held.phase.may_run() => {
                    let needs = need(&entry.container.request, &self.config.scheduler);
                    if held.granted != needs {
                        self.pool.grant(held.uuid, &view.instance, needs, now);
                    }
                }
                Some(_) => {}
                None => {
                    self.strangers.insert(held.uuid);
                }
            }
        }
        self.boots.note(&view, now);
        self.scheduler.upsert_worker(view, now);
    }

    pub(super) fn mirror_cache(&mut self, now: Instant) {
        while let Some(delta) = self.cache.poll_delta() {
            self.changed = true;
            match delta {
                Delta::Upsert(entry) => {
                    let uuid = entry.container.uuid;
                    self.first_seen.entry(uuid).or_insert(now);
                    let place = recorded_place(&entry.container);
                    self.pool.set_recorded_place(uuid, place, now);
                    let started = newest_started(&entry.container);
                    self.inherited.entry(uuid).or_insert(started);
                    if self.judge_claims(uuid, now) {
                        // Before anybody concludes from the record that nothing is there.
                        self.mirror_pool(now);
                    }
                    if self.strangers.remove(&uuid) {
                        self.grant_claimed(uuid, now);
                    }
                    self.progress.handle_free(uuid, now);
                    self.scheduler.upsert_entry(entry, now);
                }
                Delta::Remove(uuid) => {
                    self.pool.set_recorded_place(uuid, None, now);
                    self.documents.remove(&uuid);
                    self.locked_here.remove(&uuid);
                    self.inherited.remove(&uuid);
                    self.first_seen.remove(&uuid);
                    self.scheduler.remove_entry(uuid, now);
                    // What a worker still has, or has said, of it is dropped once it was asked for again.
                    if self.pool.is_claimed(uuid) || self.progress.has_news(uuid) {
                        self.strangers.insert(uuid);
                    }
                }
            }
        }
        if self.refreshing.complete_as_of().is_some() {
            self.pool.set_records_read(true, now);
        }
    }

    /// A container that a worker claimed before it was known has become known.
    pub(super) fn grant_claimed(&mut self, uuid: ContainerUuid, now: Instant) {
        let Some(entry) = self.cache.get(uuid) else {
            return;
        };
        let needs = need(&entry.container.request, &self.config.scheduler);
        let claimants: Vec<InstanceId> = self
            .pool
            .holders(uuid)
            .filter(|(_, held)| held.phase.may_run())
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in claimants {
            self.pool.grant(uuid, &instance, needs, now);
        }
    }

    pub(super) fn mirror_limits(&mut self, now: Instant) {
        if std::mem::take(&mut self.gate_changed) {
            self.look_at_create_gate(now);
        }
        let max_containers = self.limit.current();
        let absence_is_evidence = self.pool.absence_is_evidence();
        let accept_new = self.ending == Ending::No && self.is_ready();
        let same = |known: &Limits| {
            known.max_containers == max_containers
                && known.absence_is_evidence == absence_is_evidence
                && known.accept_new == accept_new
                && known.create_blocked == self.create_blocked
                && known.quota_blocked == self.quota_blocked
        };
        if self.limits.as_ref().is_some_and(same) {
            return;
        }
        let limits = Limits {
            create_blocked: self.create_blocked.clone(),
            quota_blocked: self.quota_blocked.clone(),
            max_containers,
            absence_is_evidence,
            accept_new,
        };
        self.changed = true;
        self.limits = Some(limits.clone());
        self.scheduler.set_limits(limits, now);
    }

    /// Reads anew which creates would be refused, whenever the pool says that this has changed.
    fn look_at_create_gate(&mut self, now: Instant) {
        self.create_blocked.clear();
        self.quota_blocked.clear();
        for instance_type in &self.config.pool.types {
            let name = &instance_type.name;
            let Some(refusal) = self.pool.create_refusal(name, now) else {
                continue;
            };
            if refusal.is_quota() {
                self.quota_blocked.insert(name.clone());
            }
            self.create_blocked.insert(name.clone(), refusal.cause());
        }
    }
}

/// Where a container may run as its record says.
fn recorded_place(container: &Container) -> Option<&InstanceId> {
    let taken = matches!(
        container.state,
        ContainerState::Locked | ContainerState::Running
    );
    container.placed_on.as_ref().filter(|_| taken)
}
