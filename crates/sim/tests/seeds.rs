//! The dispatcher keeps its promises in wild worlds.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_fakecloud::CallKind;
use longshore_sim::{
    Arrivals, ControllerShape, FaultKind, Faults, Job, NOT_SURVIVED, Rule, Scenario, run, shrink,
};

/// How many wild seeds are tried, unless `LONGSHORE_SEEDS` says how many.
const SEEDS: u64 = 60;
/// Seeds that once broke a promise, at a controller that records placements: what was started late
/// was killed, or was too much for its machine; machines were kept for earlier attempts of what
/// another dispatcher had.
const ONCE_BROKEN: [u64; 4] = [22_123, 25_755, 2_501, 2_585];

#[expect(
    clippy::disallowed_methods,
    reason = "a longer run is asked for by hand"
)]
fn seeds() -> u64 {
    let text = std::env::var("LONGSHORE_SEEDS");
    text.map_or(SEEDS, |text| text.parse().expect("a number of seeds"))
}

fn wild(seed: u64) -> Scenario {
    let mut scenario = Scenario::wild(seed);
    scenario.leave_out_known();
    scenario
}

#[test]
fn promises_are_kept_in_wild_worlds_where_every_kind_of_fault_happens() {
    let (mut processes, mut met) = (0, BTreeSet::new());
    let once_broken = ONCE_BROKEN.map(|seed| {
        let mut scenario = wild(seed);
        scenario.controller = ControllerShape::Outside;
        scenario
    });
    for scenario in (0..seeds()).map(wild).chain(once_broken) {
        let seed = scenario.seed;
        let outcome = run(&scenario);
        processes += outcome.processes;
        if outcome.violations.is_empty() {
            met.extend(outcome.faults.into_keys());
            continue;
        }
        let (smaller, outcome) = shrink(&scenario, 100).expect("it fails again");
        let faults: Vec<String> = smaller.faults.kinds().map(|k| k.to_string()).collect();
        panic!(
            "seed {seed}, with {} containers in {:?} and {}:\n{}",
            smaller.arrivals.len(),
            smaller.busy,
            faults.join(", "),
            outcome.violations[0]
        );
    }
    assert!(processes > 1_000, "only {processes} processes ran");
    // What happens inside the cloud is not counted there.
    let inside = [
        FaultKind::CloudCallLost,
        FaultKind::CloudReplyLost,
        FaultKind::CloudError,
        FaultKind::NeverBoots,
        FaultKind::CreateIdMissing,
    ];
    let missing: Vec<FaultKind> = FaultKind::ALL
        .into_iter()
        .filter(|kind| !NOT_SURVIVED.contains(kind) && !inside.contains(kind))
        .filter(|kind| !met.contains(kind) && Faults::wild().rate(*kind) > 0)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Everything that the dispatcher can ask for, and hear of.
const ASKED: [&str; 21] = [
    "create",
    "list",
    "destroy",
    "tags",
    "console",
    "boot",
    "deploy",
    "report",
    "start",
    "kill",
    "collect",
    "disconnect",
    "queue refresh",
    "queue watch",
    "queue lock",
    "queue place",
    "queue unlock",
    "queue running",
    "queue ended",
    "queue document",
    "queue cancel",
];
const HEARD: [&str; 16] = [
    "create",
    "list",
    "destroy",
    "tags",
    "console",
    "boot",
    "deploy",
    "report",
    "start",
    "kill",
    "collect",
    "disconnect",
    "queue refresh",
    "queue watch",
    "queue call",
    "queue document",
];
/// So many worlds are tried to hit a kind, most of them for rare kinds.
const WORLDS: u64 = 40;

#[test]
fn promises_are_kept_where_the_dispatcher_dies_after_any_kind_of_effect_and_outcome() {
    let asked = ASKED.map(|kind| format!("asked {kind}"));
    let heard = HEARD.map(|kind| format!("heard {kind}"));
    let mut missed = Vec::new();
    for what in asked.into_iter().chain(heard) {
        let hit = (0..WORLDS).any(|seed| {
            let mut scenario = wild(seed);
            scenario.dies_after = Some(what.clone());
            if what.ends_with("cancel") {
                // Only what no type has room for is cancelled by the dispatcher.
                scenario.arrivals = Arrivals::Trace(vec![huge()]);
            }
            let outcome = run(&scenario);
            if let Some(violation) = outcome.violations.first() {
                panic!("seed {seed}, dying after {what}: {violation}");
            }
            outcome.crashes.contains_key(&what)
        });
        if !hit {
            missed.push(what);
        }
    }
    assert!(missed.is_empty(), "never hit: {missed:?}");
}

/// A container that no type can hold.
fn huge() -> Job {
    let mut job = Job::new(Duration::from_secs(5), Duration::from_secs(60));
    job.vcpus = 1_000;
    job
}

#[test]
fn at_a_quota_wall_nothing_is_locked_again_and_again() {
    for seed in 0..5 {
        let mut scenario = wild(seed);
        scenario.saturate(seed);
        if seed.is_multiple_of(2) {
            scenario.faults = Faults::none();
        }
        let outcome = run(&scenario);
        if let Some(violation) = outcome.violations.first() {
            panic!("seed {seed}: {violation}");
        }
        assert!(
            outcome.waits.max > Duration::from_secs(3_600),
            "seed {seed}"
        );
    }
}

#[test]
fn without_faults_everything_runs_once_and_is_given_back() {
    for seed in 0..10 {
        let mut scenario = Scenario::wild(seed);
        scenario.faults = Faults::none();
        let outcome = run(&scenario);
        if let Some(violation) = outcome.violations.first() {
            panic!("seed {seed}: {violation}");
        }
        assert_eq!(outcome.complete, scenario.arrivals.len(), "seed {seed}");
        assert_eq!(outcome.processes, outcome.complete, "seed {seed}");
        assert!(outcome.cost > 0.0 && outcome.idle_time < outcome.instance_time);
        assert_eq!(outcome.calls["start"], outcome.calls["queue lock"]);
    }
}

#[test]
fn a_broken_promise_is_found_told_and_made_smaller() {
    // An instance is to be given back by the end of the simulation, and cannot be.
    let mut failing = wild(1);
    failing.cloud = failing.cloud.with_denied(CallKind::Destroy);
    failing.tolerated.push(Rule::IdleTooLong);
    // It stands in nobody's way, and what else goes wrong has nothing to do with it.
    failing.cloud.quotas.clear();
    failing.config.pool.max_instances = 0;
    failing.faults = Faults::none();
    failing.faults.set(FaultKind::Reprioritize, 10_000);
    failing.faults.set(FaultKind::OtherLocks, 10_000);
    let (smaller, outcome) = shrink(&failing, 20).expect("it fails");
    let violation = &outcome.violations[0];
    assert_eq!(violation.rule, Rule::NotGivenBack);
    assert!(smaller.faults.is_empty(), "{:?}", smaller.faults);
    assert!(smaller.arrivals.len() < failing.arrivals.len());
    assert!(violation.story.len() > 3);
    let instance = &violation.about[0];
    assert!(violation.story.iter().any(|line| line.contains(instance)));
    assert!(violation.to_string().contains(&violation.what));
}
