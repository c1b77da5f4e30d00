use std::cmp::Ordering;
use std::time::Duration;

use longshore_sim::{Arrivals, FaultKind, Faults, Job, Outcome, Scenario, run};
use longshore_types::{ByteSize, Preemptible};

use super::keys::{self, Keys};
use super::*;

fn read(text: &str) -> Result<Settings, Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yml");
    std::fs::write(&path, text).unwrap();
    load(&path).map_err(|error| {
        let lines = error.to_string();
        let short = |line: &str| line.split("c.yml").last().unwrap_or_default().to_owned();
        lines.lines().map(short).collect()
    })
}

#[track_caller]
fn refused(text: &str, place: &str, words: &[&str]) {
    let problems = read(text).expect_err("this configuration should not be accepted");
    let first = &problems[0];
    assert!(first.starts_with(place), "{first}");
    for word in words {
        assert!(first.contains(word), "{first}");
    }
}

/// `Containers: {CloudVMs: {KEY: VALUE}}` and the like.
fn nested(path: &[&str], value: &str) -> String {
    path.iter()
        .rev()
        .fold(value.to_owned(), |inner, key| format!("{{{key}: {inner}}}"))
}

const CLOUD_VMS: [&str; 2] = ["Containers", "CloudVMs"];

/// What comes of a scenario under a configuration.
fn simulate(text: &str, scenario: &Scenario) -> Outcome {
    let mut scenario = scenario.clone();
    read(text)
        .unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
        .apply(&mut scenario);
    let outcome = run(&scenario);
    assert!(
        outcome.violations.is_empty(),
        "{text}: {:?}",
        outcome.violations
    );
    outcome
}

fn steady() -> Scenario {
    let mut scenario = Scenario::new(5);
    scenario.arrivals = "steady:60@3m".parse().unwrap();
    scenario
}

fn burst(containers: usize) -> Scenario {
    let mut scenario = Scenario::new(5);
    scenario.busy = Duration::from_secs(60);
    scenario.arrivals = Arrivals::Trace(jobs(containers));
    scenario
}

/// Containers of one vCPU and 1 GiB that run for ten minutes.
fn jobs(count: usize) -> Vec<Job> {
    let mut job = Job::new(Duration::ZERO, Duration::from_secs(600));
    job.ram = ByteSize::gib(1);
    vec![job; count]
}

/// The second comes while the first runs, on a machine that has room for it.
fn a_small_job_beside_a_large_one() -> Scenario {
    let mut large = Job::new(Duration::ZERO, Duration::from_secs(1200));
    large.vcpus = 6;
    let small = Job::new(Duration::from_secs(300), Duration::from_secs(60));
    let mut scenario = Scenario::new(5);
    scenario.busy = Duration::from_secs(600);
    scenario.arrivals = Arrivals::Trace(vec![large, small]);
    scenario
}

fn faulty(kinds: &[FaultKind]) -> Scenario {
    let mut scenario = steady();
    scenario.faults = Faults::none();
    for kind in kinds {
        scenario.faults.set(*kind, 20_000);
    }
    scenario.tolerated = longshore_sim::Rule::ALL.to_vec();
    scenario
}

/// Faults that lead to kills, of processes that take no notice.
fn unkillable(mut scenario: Scenario) -> Scenario {
    scenario.faults.set(FaultKind::Unkillable, 1_000_000);
    scenario
}

fn calls(kind: &'static str) -> impl Fn(&Outcome) -> f64 {
    move |o| {
        let count = o.calls.get(kind).copied().unwrap_or_default();
        f64::from(u32::try_from(count).unwrap())
    }
}

fn wait(o: &Outcome) -> f64 {
    o.waits.mean.as_secs_f64()
}

fn longest_wait(o: &Outcome) -> f64 {
    o.waits.max.as_secs_f64()
}

fn instances(o: &Outcome) -> f64 {
    f64::from(u32::try_from(o.instances).unwrap())
}

/// A key, two values, the figure that has to be larger or smaller under the second, and where.
struct Effect {
    path: Vec<&'static str>,
    values: [&'static str; 2],
    order: Ordering,
    scenario: Scenario,
    /// What else the configuration says.
    beside: &'static str,
    figure: Box<dyn Fn(&Outcome) -> f64>,
}

fn effect(
    path: &[&'static str],
    values: [&'static str; 2],
    order: Ordering,
    scenario: Scenario,
    figure: impl Fn(&Outcome) -> f64 + 'static,
) -> Effect {
    Effect {
        path: path.to_vec(),
        values,
        order,
        scenario,
        beside: "",
        figure: Box::new(figure),
    }
}

fn cloud_vm(
    key: &'static str,
    values: [&'static str; 2],
    order: Ordering,
    scenario: Scenario,
    figure: impl Fn(&Outcome) -> f64 + 'static,
) -> Effect {
    effect(
        &[CLOUD_VMS[0], CLOUD_VMS[1], key],
        values,
        order,
        scenario,
        figure,
    )
}

fn with(mut effect: Effect, beside: &'static str) -> Effect {
    effect.beside = beside;
    effect
}

/// Many containers, all of which somebody cancels; some of them do not heed it.
fn cancelled() -> Scenario {
    let mut scenario = faulty(&[]);
    scenario.arrivals = Arrivals::Trace(jobs(400));
    scenario.faults.set(FaultKind::Cancel, 2_000_000);
    scenario
}

/// Two supervisors for each other container.
fn supervised() -> Scenario {
    let mut scenario = burst(30);
    if let Arrivals::Trace(jobs) = &mut scenario.arrivals {
        for (n, job) in jobs.iter_mut().enumerate() {
            job.supervisor = n % 3 != 0;
        }
    }
    scenario
}

/// Small containers without end, and a large one that has to wait for room among them.
fn crowded() -> Scenario {
    let mut scenario = Scenario::new(5);
    let mut jobs = Vec::new();
    for n in 0..400 {
        jobs.push(Job::new(
            Duration::from_secs(n * 15),
            Duration::from_secs(200 + 37 * (n % 9)),
        ));
    }
    let mut large = Job::new(Duration::from_secs(300), Duration::from_secs(60));
    (large.vcpus, large.ram) = (8, ByteSize::gib(8));
    jobs.insert(20, large);
    scenario.busy = Duration::from_secs(6_000);
    scenario.arrivals = Arrivals::Trace(jobs);
    scenario
}

fn preemptible() -> Scenario {
    let mut scenario = burst(4);
    if let Arrivals::Trace(jobs) = &mut scenario.arrivals {
        jobs.iter_mut()
            .for_each(|job| job.preemptible = Preemptible::Only);
    }
    scenario
}

fn scratchy() -> Scenario {
    let mut scenario = burst(4);
    if let Arrivals::Trace(jobs) = &mut scenario.arrivals {
        jobs.iter_mut()
            .for_each(|job| job.scratch = ByteSize::gib(10));
    }
    scenario
}

fn of_dispatching() -> Vec<Effect> {
    use Ordering::{Greater, Less};
    let kills = [FaultKind::Cancel, FaultKind::HoldBack];
    vec![
        cloud_vm("MaxInstances", ["2", "20"], Less, burst(40), wait),
        cloud_vm(
            "MaxConcurrentInstanceCreateOps",
            ["1", "20"],
            Less,
            burst(100),
            wait,
        ),
        with(
            cloud_vm(
                "SupervisorFraction",
                ["0.1", "1.0"],
                Less,
                supervised(),
                wait,
            ),
            "InstanceTypes: {large: {VCPUs: 8, RAM: 32GiB, Price: 1}}\n\
             Simulation: {Quota: {Instances: 1}}",
        ),
        cloud_vm("MaxProbesPerSecond", ["4", "1000"], Less, burst(200), wait),
        with(
            cloud_vm(
                "ReserveAfter",
                ["1m", "5h"],
                Greater,
                crowded(),
                longest_wait,
            ),
            "InstanceTypes: {large: {VCPUs: 8, RAM: 32GiB, Price: 1}}\n\
             Simulation: {Quota: {Instances: 1}}",
        ),
        with(
            cloud_vm("PollInterval", ["1s", "2m"], Greater, steady(), wait),
            "Simulation: {ControllerPushes: false}",
        ),
        cloud_vm("SyncInterval", ["20s", "5m"], Less, steady(), calls("list")),
        with(
            cloud_vm(
                "ProbeInterval",
                ["200ms", "60s"],
                Less,
                steady(),
                calls("boot"),
            ),
            "Simulation: {BootTime: 4m}",
        ),
        cloud_vm("TimeoutIdle", ["10s", "30m"], Greater, steady(), |o| {
            o.idle_cost
        }),
        with(
            cloud_vm("TimeoutBooting", ["50s", "10m"], Less, steady(), instances),
            "Simulation: {BootTime: {Min: 10s, Max: 60s}}",
        ),
        cloud_vm(
            "TimeoutProbe",
            ["1m", "2h"],
            Greater,
            faulty(&[FaultKind::CutOff]),
            |o| o.instance_time.as_secs_f64(),
        ),
        cloud_vm(
            "TimeoutShutdown",
            ["2s", "10m"],
            Less,
            steady(),
            calls("destroy"),
        ),
        cloud_vm(
            "TimeoutSignal",
            ["1s", "2m"],
            Less,
            unkillable(faulty(&kills)),
            calls("kill"),
        ),
        cloud_vm(
            "TimeoutTERM",
            ["10s", "1h"],
            Greater,
            unkillable(cancelled()),
            calls("kill"),
        ),
        cloud_vm(
            "TimeoutStaleRunLock",
            ["1s", "2h"],
            Greater,
            faulty(&[FaultKind::SupervisorDies]),
            |o| o.instance_time.as_secs_f64() / instances(o),
        ),
    ]
}

fn of_types() -> Vec<Effect> {
    use Ordering::{Greater, Less};
    let kind = |key| vec!["InstanceTypes", "one", key];
    let of_type = |key, values, order, scenario, figure: fn(&Outcome) -> f64| {
        effect(&kind(key), values, order, scenario, figure)
    };
    let never = |o: &Outcome| f64::from(u32::try_from(o.never_started).unwrap());
    vec![
        of_type("VCPUs", ["2", "8"], Less, burst(16), instances),
        of_type("RAM", ["4GiB", "8GiB"], Less, burst(16), instances),
        of_type("Price", ["0.1", "0.2"], Greater, burst(4), |o| o.cost),
        of_type(
            "IncludedScratch",
            ["5GiB", "20GiB"],
            Less,
            scratchy(),
            never,
        ),
        of_type("AddedScratch", ["5GiB", "20GiB"], Less, scratchy(), never),
        of_type("Preemptible", ["false", "true"], Less, preemptible(), never),
        of_type(
            "GPU",
            ["{DeviceCount: 0}", "{DeviceCount: 1}"],
            Greater,
            burst(4),
            |o| o.cost,
        ),
    ]
}

fn of_containers() -> Vec<Effect> {
    use Ordering::{Greater, Less};
    let of = |key| vec!["Containers", key];
    let simulation = |key| vec!["Simulation", key];
    vec![
        effect(
            &of("ReserveExtraRAM"),
            ["0", "1GiB"],
            Greater,
            burst(40),
            instances,
        ),
        effect(
            &of("LocalKeepBlobBuffersPerVCPU"),
            ["0", "20"],
            Greater,
            burst(40),
            instances,
        ),
        // A large machine that is there may be used.
        effect(
            &of("MaximumPriceFactor"),
            ["1", "9"],
            Less,
            a_small_job_beside_a_large_one(),
            instances,
        ),
        with(
            effect(
                &of("Packing"),
                ["fullest", "cheapest-share"],
                Less,
                burst(40),
                instances,
            ),
            "InstanceTypes: {small: {VCPUs: 1, RAM: 4GiB, Price: 1}, \
             large: {VCPUs: 8, RAM: 32GiB, Price: 1.4}}",
        ),
        effect(
            &simulation("BootTime"),
            ["10s", "3m"],
            Greater,
            steady(),
            wait,
        ),
        effect(
            &simulation("BootTime"),
            ["10s", "{Median: 2m}"],
            Greater,
            steady(),
            wait,
        ),
        effect(
            &simulation("BootTime"),
            ["{Min: 1m, Max: 5m}", "{Min: 1m, Max: 1m}"],
            Less,
            steady(),
            wait,
        ),
        effect(
            &simulation("Quota"),
            ["{Instances: 1}", "{Instances: 20}"],
            Less,
            burst(20),
            wait,
        ),
        effect(
            &simulation("Quota"),
            ["{VCPUs: 2}", "{VCPUs: 40}"],
            Less,
            burst(20),
            wait,
        ),
        effect(
            &simulation("ControllerPushes"),
            ["true", "false"],
            Greater,
            steady(),
            wait,
        ),
    ]
}

/// A file for one value of a key.
fn file(effect: &Effect, value: &str) -> String {
    let beside = effect.beside;
    if effect.path[0] != "InstanceTypes" {
        let (first, rest) = effect.path.split_first().unwrap();
        return format!("{first}: {}\n{beside}\n", nested(rest, value));
    }
    let key = effect.path[2];
    let usual = [("VCPUs", "4"), ("RAM", "16GiB"), ("Price", "0.1")];
    let others = usual.iter().filter(|(other, _)| *other != key);
    let others: String = others.map(|(k, v)| format!("    {k}: {v}\n")).collect();
    let another = match key {
        "GPU" => "  two: {VCPUs: 4, RAM: 16GiB, Price: 5}\n",
        _ => "",
    };
    format!("InstanceTypes:\n{another}  one:\n{others}    {key}: {value}\n")
}

fn assert_effects(effects: Vec<Effect>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for effect in effects {
        let figures = effect
            .values
            .map(|value| (effect.figure)(&simulate(&file(&effect, value), &effect.scenario)));
        if figures[1].partial_cmp(&figures[0]) != Some(effect.order) {
            wrong.push(format!("{}: {figures:?}", effect.path.join(".")));
        }
        seen.push((*effect.path.last().unwrap()).to_owned());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    seen
}

/// The keys at one place that nothing was said about.
fn unseen(keys: Keys, seen: &[String], but: &[&str]) -> Vec<&'static str> {
    let said = |key: &&str| seen.iter().any(|s| s == key) || but.contains(key);
    keys.used.iter().copied().filter(|key| !said(key)).collect()
}

#[test]
fn every_key_of_the_dispatcher_has_an_effect() {
    let seen = assert_effects(of_dispatching());
    assert_eq!(unseen(keys::CLOUD_VMS, &seen, &[]), [""; 0]);
}

#[test]
fn every_other_key_has_an_effect() {
    let mut seen = assert_effects(of_types());
    assert_eq!(unseen(keys::INSTANCE_TYPE, &seen, &[]), [""; 0]);
    seen = assert_effects(of_containers());
    assert_eq!(unseen(keys::CONTAINERS, &seen, &["CloudVMs"]), [""; 0]);
    assert_eq!(unseen(keys::SIMULATION, &seen, &[]), [""; 0]);
}

#[test]
fn a_whole_configuration_is_understood_and_says_what_it_ignores() {
    let settings = read(
        "Clusters:\n  zzzzz:\n    ManagementToken: secret\n    Services: {}\n    \
         InstanceTypes:\n      a: {ProviderType: m5.large, VCPUs: 2, RAM: 8GiB, Price: 0.1}\n      \
         b: {VCPUs: 2, RAM: 8GiB, Price: 1, GPU: {DeviceCount: 1, Stack: cuda}}\n    \
         Containers:\n      CloudVMs: {Driver: ec2, ImageID: ami-1, MaxInstances: 7}\n",
    )
    .unwrap();
    assert_eq!(settings.config.pool.max_instances, 7);
    assert_eq!(settings.config.pool.types.len(), 1);
    let notes = settings.notes.join("\n");
    for word in [
        "Driver",
        "ImageID",
        "ManagementToken",
        "ProviderType",
        "left out: b",
    ] {
        assert!(notes.contains(word), "{notes}");
    }
    assert!(!notes.contains("MaxInstances"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    refused("", ": is empty", &[]);
    refused("just words", ":1:1: expected a mapping", &[]);
    refused(
        "Containers: {CloudVM: {}}",
        ":1:14:",
        &["did you mean \"CloudVMs\"?"],
    );
    refused(
        "Containers: {CloudVMs: {MaxInstance: 4}}",
        ":1:25:",
        &["\"MaxInstances\"?"],
    );
    refused(
        "Containers: {CloudVMs: {timeoutidle: 4s}}",
        ":1:25:",
        &["\"TimeoutIdle\"?"],
    );
    refused("Zebra: 1", ":1:1:", &["known keys are InstanceTypes"]);
    refused(
        "Containers: {CloudVMs: {TimeoutIdle: 5}}",
        ":1:38:",
        &["not a duration"],
    );
    refused(
        "Containers: {CloudVMs: {TimeoutIdle: 0}}",
        ":1:38:",
        &["from 1ms to a year"],
    );
    refused(
        "Containers: {CloudVMs: {MaxInstances: -1}}",
        ":1:39:",
        &["0 to 100000"],
    );
    refused(
        "Containers: {CloudVMs: {SupervisorFraction: NaN}}",
        ":1:45:",
        &["0 to 1"],
    );
    refused(
        "InstanceTypes: {a: {VCPUs: 2, RAM: 1GiB}}",
        ":1:17:",
        &["lacks Price"],
    );
    refused(
        "InstanceTypes: {a: {VCPUs: 0, RAM: 1GiB, Price: 1}}",
        ":1:28:",
        &["1 to 10000"],
    );
    refused(
        "InstanceTypes: {a: {VCPUs: 1, RAM: 1, Price: 1}}",
        ":1:17:",
        &["at least 1MiB"],
    );
    refused(
        "InstanceTypes: {a: {VCPUs: 1, RAM: 1GiB, Price: -1}}",
        ":1:49:",
        &["a number"],
    );
    refused("InstanceTypes: {}", ":1:16:", &["no instance type"]);
    refused(
        "InstanceTypes: [a]",
        ":1:16:",
        &["expected a mapping", "found a list"],
    );
    refused(
        "Simulation: {BootTime: {Min: 2m, Max: 1m}}",
        ":1:24:",
        &["{Min: 20s, Max: 2m}"],
    );
    refused("Simulation: {Quota: {Instances: 0}}", ":1:33:", &["from 1"]);
    refused("Clusters: {a: {}, b: {}}", ":1:11:", &["one cluster"]);
    refused(
        "Clusters: {a: {Clusters: {a: {}}}}",
        ":1:16:",
        &["no key \"Clusters\""],
    );
    let both = read("Containers: {A: 1, B: 2}").unwrap_err();
    assert_eq!(both.len(), 2, "{both:?}");
}
