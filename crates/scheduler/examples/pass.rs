//! Prints what a scheduler costs: `name value unit`, one figure a line, medians of some runs.
//!
//! `cargo run --release -p longshore-scheduler --example pass`; with `-- QUEUED WORKERS RUNS` one size
//! only, for a profiler.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

#[path = "../benches/scene/mod.rs"]
mod scene;

use scene::{Boots, Queue, clock};

const SIZES: [(u32, u32, u32); 4] = [
    (1_000, 1_000, 25),
    (5_000, 10_000, 7),
    (10_000, 10_000, 7),
    (100_000, 10_000, 5),
];

fn main() {
    let numbers = std::env::args().skip(1).map(|text| text.parse());
    let numbers: Result<Vec<u32>, _> = numbers.collect();
    let one_size = match numbers.as_deref() {
        Ok(&[queued, workers, runs]) => Some((queued, workers, runs.max(1))),
        _ => None,
    };
    for (queued, workers, runs) in one_size.map_or(SIZES.to_vec(), |size| vec![size]) {
        let mut all: Vec<[f64; 3]> = (0..runs).map(|_| measure(queued, workers)).collect();
        for (index, name) in ["fill", "drain", "one_change"].into_iter().enumerate() {
            all.sort_by(|a, b| a[index].total_cmp(&b[index]));
            let median = all[all.len() / 2][index];
            println!("scheduler.{name}.{queued}x{workers} {median:.3} ms");
        }
        all.sort_by(|a, b| (a[0] + a[1]).total_cmp(&(b[0] + b[1])));
        let median = all[all.len() / 2];
        let total = median[0] + median[1];
        println!("scheduler.fill_and_drain.{queued}x{workers} {total:.3} ms");
    }
    if one_size.is_some() {
        return;
    }
    for (step, time) in Boots::new(10_000).measure(50) {
        let time = time.as_secs_f64() * 1e3;
        println!("scheduler.boot_{step}.10000 {time:.3} ms");
    }
    if let (Some(few), Some(many)) = (memory(100_000), memory(200_000)) {
        let each = many.saturating_sub(few) / 100_000;
        println!("scheduler.memory_per_queued {each} bytes");
    }
}

/// The time in milliseconds to tell everything to a fresh core; to drain it; and to drain it
/// after one change.
fn measure(queued: u32, workers: u32) -> [f64; 3] {
    let queue = Queue::new(queued, workers);
    let (mut core, fill) = clock(|| queue.fill());
    let (actions, drain) = clock(|| scene::drain(&mut core));
    assert_eq!(actions, queued.min(workers));
    let (actions, change) = clock(|| {
        core.upsert_entry(scene::locked(99), scene::NOW);
        scene::drain(&mut core)
    });
    assert_eq!(actions, 1);
    [fill, drain, change].map(|time| time.as_secs_f64() * 1e3)
}

/// How many bytes more are resident with a core that has so many containers queued, if the system
/// says.
fn memory(queued: u32) -> Option<usize> {
    let before = resident()?;
    let mut core = scene::at_quota();
    for n in 0..queued {
        core.upsert_entry(scene::entry(n), scene::NOW);
    }
    scene::drain(&mut core);
    Some(resident()?.saturating_sub(before))
}

fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? * 1024)
}
