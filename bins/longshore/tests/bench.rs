//! The benchmark runs, tells every figure, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

/// Every figure, whatever the machine. Nothing is said about how large they have to be.
const FIGURES: &[&str] = &[
    "rss_idle MiB",
    "cpu_idle %",
    "floor_fsync_p50 ms",
    "floor_fsync_p99 ms",
    "floor_fork_exec_p50 ms",
    "floor_fork_exec_p99 ms",
    "floor_ssh_command_p50 ms",
    "floor_ssh_command_p99 ms",
    "submit_to_start_p50 ms",
    "submit_to_start_p99 ms",
    "submit_to_start_p50/(fsync+fork) ratio",
    "submit_to_start_p50/ssh_command ratio",
    "commits_per_single_job count",
    "exit_to_reuse_p50 ms",
    "exit_to_reuse_p99 ms",
    "exit_to_reuse_p50/(fsync+fork) ratio",
    "exit_to_reuse_p50/ssh_command ratio",
    "floor_fork_exec_rate /s",
    "floor_fork_exec_rate_two /s",
    "jobs_one_per_vcpu_rate /s",
    "jobs_one_per_vcpu_rate/fork ratio",
    "jobs_one_per_vcpu_commits count/job",
    "jobs_unlimited_rate /s",
    "jobs_unlimited_rate/fork ratio",
    "jobs_unlimited_commits count/job",
    "rss_peak MiB",
    "runner_size bytes",
];

/// Those of the dispatcher alone.
const STUB_FIGURES: &[&str] = &[
    "stub_adoption s",
    "stub_memory_per_worker KiB",
    "stub_cpu_idle %",
    "stub_submit_to_start_p50 ms",
    "stub_submit_to_start_p99 ms",
    "stub_exit_to_reuse_p50 ms",
    "stub_exit_to_reuse_p99 ms",
    "stub_containers_rate /s",
    "stub_rss_peak MiB",
];

#[test]
fn every_figure_is_told_and_nothing_is_left() {
    tells(&[], FIGURES);
}

#[test]
fn every_figure_of_the_dispatcher_alone_is_told() {
    tells(&["--stub"], STUB_FIGURES);
    tells(&["--stub", "--by-command"], STUB_FIGURES);
}

/// Whether a rate is one by the controller's clock, which somebody may set.
fn is_by_the_wall_clock(name: &str) -> bool {
    name.starts_with("jobs_") && name.contains("_rate")
}

/// Measures little, and wants these figures and nothing left behind.
fn tells(options: &[&str], figures_expected: &[&str]) {
    let parent = tempfile::tempdir().unwrap();
    let (wall, steady) = (SystemTime::now(), Instant::now());
    let output = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(["bench", "dispatch", "--short", "--jobs", "6", "--samples"])
        .args(["3", "--state-dir"])
        .arg(parent.path().join("state"))
        .args(options)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");

    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let figures: BTreeMap<String, f64> = lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
            let (name, value, unit) = (word(), word(), word());
            (format!("{name} {unit}"), value.parse().unwrap())
        })
        .collect();
    let told: Vec<&String> = figures.keys().collect();
    let mut expected = figures_expected.to_vec();
    expected.sort_unstable();
    assert_eq!(told, expected);
    let passed = wall.elapsed().unwrap_or_default();
    let was_set_back = passed + Duration::from_millis(20) < steady.elapsed();
    for (name, value) in &figures {
        let may_be_none = was_set_back && is_by_the_wall_clock(name);
        assert!(*value > 0.0 || may_be_none, "{name}\n{text}");
    }
    assert_eq!(parent.path().read_dir().unwrap().count(), 0);
}
