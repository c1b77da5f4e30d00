//! How fast and how large the simulator is: `cargo run --release --example scale -- WORKERS
//! CONTAINERS HOURS FAULTS`, the last of `none`, `mild` and `wild`; a seed may follow.
//!
//! Containers arrive evenly over the hours and run for so long that about so many instances are in
//! use. It prints a figure per line: name, value, unit.

#![expect(clippy::print_stdout, reason = "that is what an example is for")]
#![expect(
    clippy::disallowed_methods,
    reason = "the time that it takes is asked for"
)]

use std::time::{Duration, Instant};

use longshore_sim::{Arrivals, Faults, Outcome, Scenario, run};

/// Instances that one running container takes, on average: how the drawn sizes fill the two types.
const INSTANCES_PER_CONTAINER: f64 = 0.66;
/// The mean of the drawn runtimes, in medians.
const MEAN_PER_MEDIAN: f64 = 3.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| arguments.get(n).and_then(|text| text.parse::<u32>().ok());
    let workers = number(0).unwrap_or(1_000);
    let containers = number(1).unwrap_or(100_000);
    let hours = number(2).unwrap_or(24);
    let faults = arguments.get(3).map_or("none", String::as_str);
    let mut scenario = steady(workers, containers, hours);
    scenario.faults = match faults {
        "mild" => Faults::mild(),
        "wild" => Faults::wild(),
        _ => Faults::none(),
    };
    scenario.seed = number(4).map_or(1, u64::from);
    let began = Instant::now();
    let outcome = run(&scenario);
    report(&outcome, began.elapsed());
}

/// Work for about so many instances.
fn steady(workers: u32, containers: u32, hours: u32) -> Scenario {
    let mut scenario = Scenario::new(1);
    scenario.busy = Duration::from_secs(3600) * hours;
    let instance_time = scenario.busy.as_secs_f64() * f64::from(workers);
    let mean = instance_time / INSTANCES_PER_CONTAINER / f64::from(containers);
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    scenario.arrivals = Arrivals::Steady {
        containers: count(containers),
        runtime: Duration::from_secs_f64(mean / MEAN_PER_MEDIAN),
    };
    let pool = &mut scenario.config.pool;
    pool.max_instances = count(workers);
    pool.max_creates_in_flight = 100;
    pool.max_probes_in_flight = pool.max_probes_in_flight.max(2 * count(workers));
    scenario.cloud.calls_max = scenario.cloud.calls_max.max(1_000);
    scenario
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people need no more"
)]
fn report(outcome: &Outcome, wall: Duration) {
    let calls: u64 = outcome.calls.values().sum();
    let containers = outcome.containers.max(1) as f64;
    let events = outcome.events as f64;
    let simulated = outcome.elapsed.as_secs_f64();
    println!("{outcome}");
    let used = outcome.instance_time.as_secs_f64() / simulated.max(1.0);
    println!("instances_in_use_mean {used:.1} instances");
    println!("wall {:.2} s", wall.as_secs_f64());
    println!("events_per_second {:.0} 1/s", events / wall.as_secs_f64());
    println!(
        "nanoseconds_per_event {:.0} ns",
        wall.as_secs_f64() * 1e9 / events
    );
    println!("events_per_container {:.2} events", events / containers);
    println!(
        "effects_per_container {:.2} effects",
        calls as f64 / containers
    );
    println!(
        "reports_per_instance_hour {:.1} effects",
        reports_per_hour(outcome)
    );
    println!("cpu {:.2} s", cpu_seconds());
    println!("peak_rss {:.1} MiB", peak_rss_kib() / 1024.0);
    for violation in &outcome.violations {
        println!("{violation}");
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people need no more"
)]
fn reports_per_hour(outcome: &Outcome) -> f64 {
    let reports = outcome.calls.get("report").copied().unwrap_or(0) as f64;
    reports / (outcome.instance_time.as_secs_f64() / 3600.0).max(1.0)
}

/// The largest resident set of this process; 0 where the system does not say.
fn peak_rss_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// The processor time of this process, in user and system; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    ticks
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}
