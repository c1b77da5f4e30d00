//! What the benchmarks look at: a queue and idle workers, one for each container or fewer.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::ops::Range;
use std::time::Duration;

use longshore_scheduler::{Action, Config, Core, Limits};
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
            given_back: None,
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

/// As many containers, locked, as instances are asked for: what one of them costs on each step of
/// its way, while all the others are where they were.
pub(crate) struct Boots {
    core: Core,
    count: u32,
}

type Step = fn(&mut Core, u32);

impl Boots {
    pub(crate) fn new(count: u32) -> Self {
        let mut core = Core::new(Config::new(vec![small()]));
        for n in 0..count {
            core.upsert_entry(entry(n), NOW);
        }
        assert_eq!(drain(&mut core), count);
        Self { core, count }
    }

    /// Medians of `some` of each step: the provider takes an order, lists the instance, it is ready.
    pub(crate) fn measure(&mut self, some: u32) -> [(&'static str, Duration); 3] {
        let steps: [Step; 3] = [ordered, listed, ready];
        let named = ["ordered", "listed", "ready"];
        std::array::from_fn(|at| {
            let (name, step) = (named[at], steps[at]);
            // Half of the others are as far already.
            let measured = (self.count - some) / 2..(self.count + some) / 2;
            self.go(0..measured.start, step);
            let mut times: Vec<Duration> =
                measured.clone().map(|n| self.go(n..n + 1, step)).collect();
            self.go(measured.end..self.count, step);
            times.sort_unstable();
            (name, times[times.len() / 2])
        })
    }

    /// Some are told of at once, and each lock that is asked for is had.
    fn go(&mut self, some: Range<u32>, step: Step) -> Duration {
        let work = || {
            some.for_each(|n| step(&mut self.core, n));
            std::iter::from_fn(|| self.core.poll_action(NOW)).collect::<Vec<Action>>()
        };
        let (actions, time) = clock(work);
        for action in actions {
            if let Action::Lock { uuid, .. } = action {
                let n = uuid.to_string()[12..].parse();
                #[expect(clippy::unwrap_used, reason = "made of a number")]
                self.core.upsert_entry(locked(n.unwrap()), NOW);
            }
        }
        time
    }
}

fn ordered(core: &mut Core, n: u32) {
    let view = PendingView {
        id: n.into(),
        type_name: small().name,
        capacity: small().resources(),
    };
    core.upsert_pending(view, NOW);
}

fn listed(core: &mut Core, n: u32) {
    let mut view = worker(n);
    view.state = WorkerState::Booting;
    view.probed_at = None;
    core.upsert_worker(view, NOW);
    core.remove_pending(n.into(), NOW);
}

fn ready(core: &mut Core, n: u32) {
    core.upsert_worker(worker(n), NOW);
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
