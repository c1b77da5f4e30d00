//! Prints what a pass costs: `name value unit`, one figure a line, medians of five runs.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::time::Duration;

use longshore_scheduler::{Config, Core};
use longshore_types::*;

fn main() {
    for size in [1_000, 10_000] {
        let runs: Vec<(Duration, Duration, Duration)> = (0..5).map(|_| measure(size)).collect();
        let median = |of: &dyn Fn(&(Duration, Duration, Duration)) -> Duration| {
            let mut all: Vec<Duration> = runs.iter().map(of).collect();
            all.sort();
            all[all.len() / 2].as_secs_f64() * 1e3
        };
        println!("scheduler.fill.{size}x{size} {:.3} ms", median(&|r| r.0));
        println!(
            "scheduler.fresh_pass.{size}x{size} {:.3} ms",
            median(&|r| r.1)
        );
        println!(
            "scheduler.one_change.{size}x{size} {:.3} ms",
            median(&|r| r.2)
        );
    }
}

/// The time to tell everything to a fresh core; to drain it; and to drain it after one change.
fn measure(size: u32) -> (Duration, Duration, Duration) {
    let now = Instant::ZERO;
    let mut core = Core::new(Config::new(vec![small()]));
    let entries: Vec<QueueEntry> = (0..size).map(entry).collect();
    let workers: Vec<WorkerView> = (0..size).map(worker).collect();
    let clock = std::time::Instant::now();
    for entry in entries {
        core.upsert_entry(entry, now);
    }
    for worker in workers {
        core.upsert_worker(worker, now);
    }
    let filled = clock.elapsed();
    let clock = std::time::Instant::now();
    let actions = std::iter::from_fn(|| core.poll_action(now)).count();
    let fresh = clock.elapsed();
    assert_eq!(actions, usize::try_from(size).unwrap_or(0));
    let clock = std::time::Instant::now();
    let mut locked = entry(0);
    locked.container.state = ContainerState::Locked;
    locked.container.locked_by_us = true;
    locked.container.lock_count = 1;
    core.upsert_entry(locked, now);
    let actions = std::iter::from_fn(|| core.poll_action(now)).count();
    let change = clock.elapsed();
    assert_eq!(actions, 1);
    (filled, fresh, change)
}

fn small() -> InstanceType {
    let mut small = InstanceType::new("small", 2, ByteSize::gib(4), Price::default());
    small.included_scratch = ByteSize::gib(50);
    small
}

fn entry(n: u32) -> QueueEntry {
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
        as_of: Instant::ZERO,
        call_in_flight: false,
    }
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
        probed_at: Some(Instant::ZERO),
        last_error: None,
    }
}
