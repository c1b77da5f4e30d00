//! What the benchmarks look at: a queue and idle workers, one for each container or fewer.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::time::Duration;

use longshore_scheduler::{Config, Core, Limits};
use longshore_types::*;

pub(crate) const NOW: Instant = Instant::ZERO;

/// Everything that a core is told.
#[derive(Clone)]
pub(crate) struct Queue {
    entries: Vec<QueueEntry>,
    workers: Vec<WorkerView>,
}

impl Queue {
    pub(crate) fn new(queued: u32, workers: u32) -> Self {
        Self {
            entries: (0..queued).map(entry).collect(),
            workers: (0..workers).map(worker).collect(),
        }
    }

    /// A core that was told all of it.
    pub(crate) fn fill(self) -> Core {
        let mut core = if self.entries.len() > self.workers.len() {
            at_quota()
        } else {
            Core::new(Config::new(vec![small()]))
        };
        for entry in self.entries {
            core.upsert_entry(entry, NOW);
        }
        for worker in self.workers {
            core.upsert_worker(worker, NOW);
        }
        core
    }
}

/// A core that can create nothing.
pub(crate) fn at_quota() -> Core {
    let mut core = Core::new(Config::new(vec![small()]));
    let mut limits = Limits::default();
    limits
        .create_blocked
        .insert("small".into(), "the quota is reached".into());
    limits.quota_blocked.insert("small".into());
    core.set_limits(limits, NOW);
    core
}

/// How many actions it wants.
pub(crate) fn drain(core: &mut Core) -> u32 {
    let mut actions = 0;
    while core.poll_action(NOW).is_some() {
        actions += 1;
    }
    actions
}

pub(crate) fn clock<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    #[expect(clippy::disallowed_methods, reason = "it measures time")]
    let start = std::time::Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn small() -> InstanceType {
    let mut small = InstanceType::new("small", 2, ByteSize::gib(4), Price::default());
    small.included_scratch = ByteSize::gib(50);
    small
}

pub(crate) fn entry(n: u32) -> QueueEntry {
    let uuid = format!("zzzzz-dz642-{n:015}");
    QueueEntry {
        container: Container {
            #[expect(clippy::unwrap_used, reason = "made of the right characters")]
            uuid: uuid.parse().unwrap(),
            state: ContainerState::Queued,
            priority: i64::from(n % 100) + 1,
            created_at: Timestamp(i64::from(n)),
            request: ResourceRequest {
                vcpus: 2,
                ram: ByteSize::gib(1),
                ..ResourceRequest::default()
            },
            supervisor: false,
            lock_count: 0,
            locked_by_us: false,
            placed_on: None,
            revision: 0,
        },
        as_of: NOW,
        call_in_flight: false,
    }
}

/// The same once its lock was taken. Those with the largest numbers of each hundred come first.
pub(crate) fn locked(n: u32) -> QueueEntry {
    let mut entry = entry(n);
    entry.container.state = ContainerState::Locked;
    entry.container.locked_by_us = true;
    entry.container.lock_count = 1;
    entry
}

fn worker(n: u32) -> WorkerView {
    WorkerView {
        instance: format!("i-{n:08}").as_str().into(),
        type_name: Some("small".into()),
        state: WorkerState::Idle,
        idle_behavior: IdleBehavior::Run,
        capacity: small().resources(),
        granted: Resources::NONE,
        containers: Vec::new(),
        probed_at: Some(NOW),
        last_error: None,
    }
}
