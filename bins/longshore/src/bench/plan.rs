//! `longshore bench plan`: what a pass of the scheduler costs, and what it keeps of each container.

use std::time::Duration;

use anyhow::Context as _;
use longshore_dispatch::{Effect, QueueAction, QueueReply};
use longshore_queue::{Cache, Capabilities, Change, Refresh};
use longshore_scheduler::{Config, Core, Limits};
use longshore_types::{
    ByteSize, Container, ContainerState, ContainerUuid, InstanceType, Instant, PendingView, Price,
    QueueEntry, ResourceRequest, Timestamp, WorkerView,
};

use super::figures::{Report, Samples};
use super::{introduce, load, usage};
use crate::cli::BenchPlanArgs;
use crate::ending::Ending;

const NOW: Instant = Instant::ZERO;

/// A queue and workers, and what is wanted of them in milliseconds: to tell it all to a fresh core
/// and drain that; to drain it after one change.
struct Size {
    queued: u32,
    workers: u32,
    runs: u32,
    fill: &'static str,
    change: &'static str,
}

const SIZES: [Size; 4] = [
    Size {
        queued: 1_000,
        workers: 1_000,
        runs: 25,
        fill: "<= 0.5",
        change: "<= 0.05",
    },
    Size {
        queued: 5_000,
        workers: 10_000,
        runs: 9,
        fill: "<= 10",
        change: "<= 0.2",
    },
    Size {
        queued: 10_000,
        workers: 10_000,
        runs: 9,
        fill: "<= 12",
        change: "<= 0.2",
    },
    Size {
        queued: 100_000,
        workers: 10_000,
        runs: 5,
        fill: "<= 150",
        change: "<= 1",
    },
];

/// Measures, and prints a line for each figure.
pub fn plan(args: &BenchPlanArgs) -> anyhow::Result<Ending> {
    let report = Report::default();
    introduce(&report);
    report.note("times are those of the processor");
    let type_of_all = small()?;
    measure_memory(args.short, &type_of_all, &report)?;
    for size in &SIZES {
        let runs = if args.short { 1 } else { size.runs };
        measure(size, runs, &type_of_all, &report)?;
    }
    measure_boots(if args.short { 1 } else { 9 }, &type_of_all, &report)?;
    load(&report, "at the end");
    Ok(Ending::Succeeded)
}

/// What one instance costs that has booted, while as many others boot for containers that wait.
fn measure_boots(runs: u32, small: &InstanceType, report: &Report) -> anyhow::Result<()> {
    const COUNT: u32 = 10_000;
    let mut changes = Samples::default();
    for _ in 0..runs {
        let mut core = core(small, false);
        let asked_for = |n: u32| PendingView {
            id: n.into(),
            type_name: small.name.clone(),
            capacity: small.resources(),
        };
        for n in 0..COUNT {
            core.upsert_entry(entry(n)?, NOW);
            core.upsert_pending(asked_for(n), NOW);
        }
        expect(drain(&mut core), COUNT)?;
        for n in 0..COUNT {
            core.upsert_entry(locked(entry(n)?), NOW);
        }
        expect(drain(&mut core), 0)?;
        let worker = WorkerView::idle("i-00000000", small, NOW);
        let (actions, time) = clock(|| {
            core.upsert_worker(worker, NOW);
            core.remove_pending(0, NOW);
            drain(&mut core)
        })?;
        expect(actions, 1)?;
        changes.push(time);
    }
    let name = format!("plan_boot_{COUNT}_waiting_p50");
    report.target(&name, changes.p50_ms(), "ms", "<= 0.2");
    Ok(())
}

fn locked(mut entry: QueueEntry) -> QueueEntry {
    entry.container.state = ContainerState::Locked;
    entry.container.locked_by_us = true;
    entry.container.lock_count = 1;
    entry
}

fn measure(size: &Size, runs: u32, small: &InstanceType, report: &Report) -> anyhow::Result<()> {
    let entries: Vec<QueueEntry> = (0..size.queued).map(entry).collect::<Result<_, _>>()?;
    let workers: Vec<WorkerView> = (0..size.workers)
        .map(|n| WorkerView::idle(format!("i-{n:08}").as_str(), small, NOW))
        .collect();
    let (mut fills, mut changes) = (Samples::default(), Samples::default());
    for _ in 0..runs {
        let news = (entries.clone(), workers.clone());
        let mut core = core(small, size.queued > size.workers);
        let (actions, time) = clock(|| {
            for entry in news.0 {
                core.upsert_entry(entry, NOW);
            }
            for worker in news.1 {
                core.upsert_worker(worker, NOW);
            }
            drain(&mut core)
        })?;
        expect(actions, size.queued.min(size.workers))?;
        fills.push(time);
        // The lock of the first in line was taken, so that it is started.
        let first = locked(entries[99].clone());
        let (actions, time) = clock(|| {
            core.upsert_entry(first, NOW);
            drain(&mut core)
        })?;
        expect(actions, 1)?;
        changes.push(time);
    }
    let name = format!("{}x{}", size.queued, size.workers);
    let (fill, change) = (fills.p50_ms(), changes.p50_ms());
    report.target(&format!("plan_fill_{name}_p50"), fill, "ms", size.fill);
    report.target(
        &format!("plan_change_{name}_p50"),
        change,
        "ms",
        size.change,
    );
    Ok(())
}

/// What a queued container takes, before anything else has left free memory behind that would be
/// used again, and not counted.
fn measure_memory(short: bool, small: &InstanceType, report: &Report) -> anyhow::Result<()> {
    let amounts = if short {
        (10_000, 20_000)
    } else {
        (100_000, 200_000)
    };
    let (scheduler, _schedulers) = each(amounts, |n| scheduler_of(n, small))?;
    report.figure("plan_memory_scheduler", scheduler, "bytes");
    let (cache, _caches) = each(amounts, cache_of)?;
    report.figure("plan_memory_cache", cache, "bytes");
    let both = scheduler + cache;
    report.target("plan_memory_per_queued", both, "bytes", "<= 1024");
    let (dispatcher, _dispatchers) = each(amounts, |n| dispatcher_of(n, small))?;
    report.figure("plan_memory_dispatcher", dispatcher, "bytes");
    Ok(())
}

/// How many bytes one more container takes: the difference of two amounts, divided. What was made
/// is returned, so that nobody else gets its memory.
fn each<T>(
    (few, many): (u32, u32),
    make: impl Fn(u32) -> anyhow::Result<T>,
) -> anyhow::Result<(f64, [T; 2])> {
    let before = usage::resident_kib()?;
    let little = make(few)?;
    let between = usage::resident_kib()?;
    let much = make(many)?;
    let grown = (usage::resident_kib()? - between) - (between - before);
    let bytes = grown.max(0.0) * 1024.0 / f64::from(many - few);
    Ok((bytes, [little, much]))
}

/// A scheduler that has so many containers queued and no room.
fn scheduler_of(queued: u32, small: &InstanceType) -> anyhow::Result<Core> {
    let mut core = core(small, true);
    for n in 0..queued {
        core.upsert_entry(entry(n)?, NOW);
    }
    drain(&mut core);
    Ok(core)
}

/// The queue's cache with so many containers in it.
fn cache_of(queued: u32) -> anyhow::Result<Cache> {
    let mut cache = Cache::new();
    for n in 0..queued {
        let record = Box::new(entry(n)?.container);
        cache.handle_change(&Change::Updated(record), NOW);
    }
    while cache.poll_delta().is_some() {}
    Ok(cache)
}

/// A dispatcher that has read so many queued containers and no instances.
fn dispatcher_of(queued: u32, small: &InstanceType) -> anyhow::Result<longshore_dispatch::Core> {
    let types = vec![small.clone()];
    let pool = longshore_pool::Config::new("bench", types.clone());
    let config = longshore_dispatch::Config::new(pool, Config::new(types), Capabilities::default());
    let mut core = longshore_dispatch::Core::new(config, [0; 32], NOW);
    while let Some(effect) = core.poll_effect() {
        let Effect::Queue(request) = effect else {
            continue;
        };
        if matches!(request.action, QueueAction::Refresh(_)) {
            let records = (0..queued).map(|n| Ok(entry(n)?.container));
            let refresh = Refresh {
                containers: records.collect::<anyhow::Result<_>>()?,
                removed: Vec::new(),
            };
            core.handle_reply(request.id, QueueReply::Refreshed(Ok(refresh)), NOW);
            break;
        }
    }
    anyhow::ensure!(
        core.snapshot(NOW).unfinished == queued as usize,
        "the dispatcher has not taken in what it was told: a bug"
    );
    Ok(core)
}

fn core(small: &InstanceType, at_quota: bool) -> Core {
    let mut core = Core::new(Config::new(vec![small.clone()]));
    if at_quota {
        let mut limits = Limits::default();
        let why = "the quota is reached".to_owned();
        limits.create_blocked.insert(small.name.clone(), why);
        limits.quota_blocked.insert(small.name.clone());
        core.set_limits(limits, NOW);
    }
    core
}

fn small() -> anyhow::Result<InstanceType> {
    let price = Price::from_units(0.1)?;
    let mut small = InstanceType::new("small", 2, ByteSize::gib(4), price);
    small.included_scratch = ByteSize::gib(50);
    Ok(small)
}

fn entry(n: u32) -> anyhow::Result<QueueEntry> {
    let uuid: ContainerUuid = format!("zzzzz-dz642-{n:015}").parse()?;
    let mut request = ResourceRequest::default();
    (request.vcpus, request.ram) = (2, ByteSize::gib(1));
    let mut container = Container::queued(uuid, request);
    container.priority = i64::from(n % 100) + 1;
    container.created_at = Timestamp(i64::from(n));
    Ok(QueueEntry::new(container, NOW))
}

/// How many actions it wants.
fn drain(core: &mut Core) -> u32 {
    let mut actions = 0;
    while core.poll_action(NOW).is_some() {
        actions += 1;
    }
    actions
}

fn expect(actions: u32, expected: u32) -> anyhow::Result<()> {
    (actions == expected)
        .then_some(())
        .with_context(|| format!("the scheduler wanted {actions} actions, not {expected}: a bug"))
}

/// The time that a processor spends on it: whoever else uses the machine matters less to that.
fn clock<T>(work: impl FnOnce() -> T) -> anyhow::Result<(T, Duration)> {
    let start = usage::cpu_time()?;
    let done = work();
    Ok((done, usage::cpu_time()?.saturating_sub(start)))
}
