//! New workers: found in a listing, or made by a create of ours.

use std::collections::{BTreeMap, BTreeSet};

use longshore_cloud::{Instance, InstanceState};
use longshore_types::{IdleBehavior, InstanceId, InstanceType, Resources, WorkerState};

use crate::blackhole::Duds;
use crate::console::Console;
use crate::core::Core;
use crate::event::Changed;
use crate::promise::Promises;
use crate::timers::{Timer, WorkerTimer};
use crate::worker::{Step, Worker};

impl Core {
    /// Makes a worker of a tidied instance that this process did not create.
    pub(crate) fn adopt(&mut self, instance: Instance) {
        let id = instance.id.clone();
        let keys = &self.config.tag_keys;
        let type_name = instance.tags.get(&keys.instance_type);
        let known = type_name
            .and_then(|name| self.types.get(&name.as_str().into()))
            .cloned();
        let tag = instance.tags.get(&keys.idle_behavior);
        let mut behavior = tag
            .and_then(|tag| IdleBehavior::from_tag(tag))
            .unwrap_or_default();
        if known.is_none() && behavior == IdleBehavior::Run {
            behavior = IdleBehavior::Drain;
        }
        let secret = instance.tags.get(&keys.secret).cloned();
        let stopping = instance.state == InstanceState::Stopping;
        self.add_worker(
            instance,
            known.as_ref(),
            secret,
            WorkerState::Unknown,
            behavior,
        );
        if self.condemned.contains(&id) {
            self.condemn(&id, "it was given up before");
        } else if stopping {
            self.condemn_taken_away(&id);
        } else {
            self.repair_tags(&id);
        }
    }

    pub(crate) fn add_created(
        &mut self,
        instance: Instance,
        instance_type: &InstanceType,
        secret: Option<String>,
    ) {
        let stopping = instance.state == InstanceState::Stopping;
        let id = instance.id.clone();
        let (state, behavior) = (WorkerState::Booting, IdleBehavior::Run);
        self.add_worker(instance, Some(instance_type), secret, state, behavior);
        if stopping {
            self.condemn_taken_away(&id);
        }
    }

    fn add_worker(
        &mut self,
        instance: Instance,
        instance_type: Option<&InstanceType>,
        secret: Option<String>,
        state: WorkerState,
        behavior: IdleBehavior,
    ) {
        let id = instance.id.clone();
        let has_address = instance.address.is_some();
        self.serials += 1;
        let seen = self.next_seq();
        let worker = Worker {
            serial: self.serials,
            type_name: instance_type.map(|t| t.name.clone()),
            capacity: instance_type.map_or(Resources::NONE, InstanceType::resources),
            state,
            behavior,
            secret: secret.clone(),
            address: instance.address,
            user: instance
                .remote_user
                .unwrap_or_else(|| self.config.remote_user.clone()),
            launched_at: instance.launched_at,
            adopted: state == WorkerState::Unknown,
            recovery_ends: None,
            last_error: None,
            console: Console::default(),
            held: BTreeMap::new(),
            claims: BTreeMap::new(),
            suspect: false,
            numbers: false,
            is_twin: false,
            removed: BTreeMap::new(),
            late: BTreeSet::new(),
            duds: Duds::default(),
            promises: Promises::default(),
            step: Step::Boot,
            boot_ok: false,
            deployed: false,
            probe: None,
            short: None,
            short_again: false,
            queued: false,
            digest: String::new(),
            digest_asked_with: String::new(),
            probed_at: None,
            asked: seen,
            fails: 0,
            failed_at: None,
            burst: 0,
            burst_began: self.now,
            heard: self.hearing.listened(),
            came_at: self.now,
            added: self.hearing.listened(),
            seen,
            // What was not made by this process was found in a listing.
            listed: state == WorkerState::Unknown,
            missed_at: None,
            destroy_accepted: None,
            destroy_sent_at: None,
            destroy_unanswered: false,
            tags_in_flight: false,
            tags_tries: 0,
            tags_seq: 0,
            tags: instance.tags,
            right: None,
        };
        self.books.add(&worker);
        self.workers.insert(id.clone(), worker);
        if let Some(secret) = secret {
            self.by_secret.insert(&secret, &id);
        }
        let boot = self.now + self.config.timeout_booting;
        self.timers
            .set(Timer::Worker(id.clone(), WorkerTimer::Boot), boot);
        self.changed(Changed::CreateGate);
        self.look_at_probe_cap();
        self.worker_changed(&id);
        if has_address {
            self.probe(&id);
        } else {
            self.look_for_new_address();
        }
    }

    /// A worker of an earlier process that has not said yet what runs there.
    #[cfg(feature = "runtime")]
    pub(crate) fn unasked(&self) -> Option<&InstanceId> {
        let unasked = |worker: &Worker| worker.adopted && worker.probed_at.is_none();
        let mut workers = self.workers.iter();
        workers.find_map(|(id, worker)| unasked(worker).then_some(id))
    }

    pub(crate) fn resolve_all_twins(&mut self) {
        let secrets: Vec<String> = self.by_secret.shared().map(str::to_owned).collect();
        for secret in secrets {
            self.resolve_twins(&secret);
        }
    }

    /// Decides about those that have the secret of a worker, if there are others.
    pub(crate) fn resolve_twins_of(&mut self, id: &InstanceId) {
        let worker = self.workers.get(id);
        let secret = worker.and_then(|worker| worker.secret.as_ref());
        if let Some(secret) = secret
            .filter(|secret| self.by_secret.is_shared(secret))
            .cloned()
        {
            self.resolve_twins(&secret);
        }
    }

    /// Of two machines with one secret keeps the one with work, else the older. Nothing is
    /// decided while one of them was not asked yet.
    pub(crate) fn resolve_twins(&mut self, secret: &str) {
        let Some(ids) = self.by_secret.twins(secret) else {
            return;
        };
        let mut twins: Vec<_> = ids
            .iter()
            .filter_map(|id| self.workers.get(id).map(|worker| (id, worker)))
            .filter(|(_, worker)| worker.state != WorkerState::Shutdown)
            .collect();
        let unasked = |worker: &Worker| worker.adopted && worker.probed_at.is_none();
        if twins.len() < 2 || twins.iter().any(|(_, worker)| unasked(worker)) {
            return;
        }
        twins.sort_by_key(|(_, worker)| (worker.is_empty(), worker.launched_at, worker.serial));
        let others = twins.iter().skip(1).map(|(id, _)| (*id).clone());
        for id in others.collect::<Vec<InstanceId>>() {
            self.part_with_twin(&id);
        }
    }

    /// A worker with the secret of another one goes once nothing is on it, unless somebody holds
    /// it. One alarm each is enough.
    fn part_with_twin(&mut self, id: &InstanceId) {
        const WHY: &str = "it has the secret of another instance";
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let told = std::mem::replace(&mut worker.is_twin, true);
        let (empty, behavior) = (worker.is_empty(), worker.behavior);
        if !told {
            self.alarm(format!("instance {id} has the secret of another instance"));
        }
        match behavior {
            IdleBehavior::Hold => {}
            _ if empty => self.condemn(id, WHY),
            IdleBehavior::Run => self.drain(id, WHY),
            IdleBehavior::Drain => {}
        }
    }
}
