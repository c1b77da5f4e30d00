//! The same seed gives the same events, in two processes.

use std::process::Command;

fn log_of(seed: &str) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--package", "longshore-sim"])
        .args(["--example", "event_log", "--", seed])
        // So that nothing ends it early.
        .args(["false results", "liar", "cut off", "flood", "RetryWasted"])
        .output()
        .expect("cargo runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    output.stdout
}

#[test]
fn two_processes_see_the_same_events() {
    for seed in ["11", "12"] {
        let first = log_of(seed);
        assert!(first.split(|b| *b == b'\n').count() > 300);
        assert!(first == log_of(seed), "seed {seed} differs");
    }
    assert!(log_of("11") != log_of("12"));
}
