//! The same seed gives the same events, in two processes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use longshore_sim::{FaultKind, Rule, Scenario, run_watched};

/// What tells a process of this test which seed it is to play, and where it is to write.
const SEED: &str = "LONGSHORE_EVENTS_OF";
const FILE: &str = "LONGSHORE_EVENTS_TO";

/// A process of its own: this program again, which plays one seed.
fn events_of(seed: &str, number: u32) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("events.{seed}.{number}"));
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "one_process", "--ignored"])
        .env(SEED, seed)
        .env(FILE, &file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::read_to_string(file).unwrap()
}

#[test]
#[ignore = "the other test runs it, in processes of its own"]
#[expect(
    clippy::disallowed_methods,
    reason = "it is told what to do by its parent"
)]
fn one_process() {
    let Ok(seed) = env::var(SEED) else { return };
    let mut scenario = Scenario::wild(seed.parse().unwrap());
    // So that nothing ends it early.
    use FaultKind::{CutOff, FalseResults, Flood, Liar};
    for kind in [CutOff, FalseResults, Flood, Liar] {
        scenario.faults.set(kind, 0);
    }
    scenario.tolerated = vec![Rule::RetryWasted];
    let mut text = String::new();
    let outcome = run_watched(&scenario, &mut |line| {
        let _ = writeln!(text, "{line}");
    });
    let _ = writeln!(text, "{outcome}");
    fs::write(env::var(FILE).unwrap(), text).unwrap();
}

#[test]
fn two_processes_see_the_same_events() {
    for seed in ["11", "12"] {
        let first = events_of(seed, 1);
        assert!(first.lines().count() > 300);
        assert!(first == events_of(seed, 2), "seed {seed} differs");
    }
    assert!(events_of("11", 3) != events_of("12", 3));
}
