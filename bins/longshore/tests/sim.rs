//! `longshore sim` as a user runs it: figures, files, exit codes, what cannot be simulated.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn longshore() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    // Neither a home nor a state directory is needed.
    command.arg("sim").env_clear();
    command
}

fn sim(arguments: &[&str]) -> Output {
    longshore().args(arguments).output().expect("it starts")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = sim(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    out(&output)
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let text = succeeds(&[arguments, &["--json"]].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// Refused with exit code 2, nothing on standard output, and these words on one line.
#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) {
    let output = sim(arguments);
    let error = err(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert_eq!(out(&output), "");
    assert!(!error.contains('\x1b'), "{error}");
    let line = error.lines().next().unwrap_or_default();
    for word in words {
        assert!(line.contains(word), "{arguments:?}: {error}");
    }
}

fn example(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/sim");
    root.join(name).to_str().expect("a plain path").to_owned()
}

fn examples(extension: &str) -> Vec<String> {
    let folder = PathBuf::from(example(""));
    let mut files: Vec<String> = fs::read_dir(folder)
        .expect("the folder of examples")
        .map(|entry| entry.expect("an entry").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(extension))
        .collect();
    files.sort();
    files
}

#[test]
fn figures_are_told_to_people() {
    let text = succeeds(&["--faults", "mild", "--seed", "3"]);
    for word in [
        "50 submitted",
        "complete an hour",
        "p50 ",
        "mean ",
        "p95 ",
        "longest ",
        "instance-hours",
        "cost ",
        "idle waste",
        "create ",
        "faults met",
        "restart",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(text.lines().last(), Some("violations: 0"));
}

#[test]
fn two_processes_with_one_seed_write_the_same_events() {
    let folder = tempfile::tempdir().unwrap();
    let write = |seed: &str, name: &str| {
        let path = folder.path().join(name);
        let file = path.to_str().unwrap();
        let figures = succeeds(&["--faults", "wild", "--seed", seed, "--events", file]);
        (fs::read(path).unwrap(), figures)
    };
    let first = write("21", "a");
    assert!(first.0.split(|byte| *byte == b'\n').count() > 500);
    assert!(first == write("21", "b"));
    assert!(first.0 != write("22", "c").0);
}

/// The documented fields: programs rely on them.
const FIELDS: &[&str] = &[
    "arrivals",
    "boot_hours",
    "calls",
    "complete_per_hour",
    "containers",
    "cost",
    "digest",
    "dispatcher_restarts",
    "events",
    "fault_level",
    "faults",
    "format",
    "idle_cost",
    "idle_hours",
    "instance_hours",
    "instances",
    "interrupted",
    "processes",
    "seed",
    "simulated_seconds",
    "unsatisfiable",
    "violations",
    "wait_seconds",
];

#[test]
fn figures_are_told_to_programs() {
    let object = json(&["--arrivals", "burst:20@1m", "--workers", "3"]);
    let fields: Vec<&String> = object.as_object().unwrap().keys().collect();
    assert_eq!(fields, FIELDS);
    assert_eq!(object["containers"]["complete"], 20);
    let waits = &object["wait_seconds"];
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&waits["p50"]) <= number(&waits["p95"]));
    assert!(number(&waits["p95"]) <= number(&waits["max"]));
    assert!(number(&object["idle_cost"]) < number(&object["cost"]));
    let page = include_str!("../../../docs/simulator.md");
    for field in FIELDS {
        assert!(
            page.contains(&format!("`{field}`")),
            "{field} is not documented"
        );
    }
}

#[test]
fn every_example_can_be_simulated_and_compared() {
    let (traces, configs) = (examples(".csv"), examples(".yml"));
    assert!(traces.len() >= 3 && configs.len() >= 2);
    let simulate = |trace: &str, config: &str| {
        let object = json(&["--arrivals", &example(trace), "--config", &example(config)]);
        let containers = &object["containers"];
        let complete = &containers["complete"];
        assert_eq!(complete, &containers["submitted"], "{trace} {config}");
    };
    traces.iter().for_each(|trace| simulate(trace, "now.yml"));
    configs
        .iter()
        .for_each(|config| simulate("burst-and-tail.csv", config));
    let [now, then] = ["now.yml", "then.yml"].map(example);
    let trace = example("burst-and-tail.csv");
    let text = succeeds(&["compare", &now, &then, "--arrivals", &trace]);
    for word in [
        "change",
        "idle cost",
        "p95 wait",
        "complete an hour",
        "never started",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let verdict = text.lines().last().unwrap();
    assert!(
        verdict.contains(".yml is") && verdict.contains("% cheaper"),
        "{verdict}"
    );
    assert!(verdict.contains("containers wait"), "{verdict}");
}

#[test]
fn a_comparison_is_of_the_same_containers() {
    let [now, then] = ["now.yml", "then.yml"].map(example);
    let object = json(&["compare", &now, &then, "--arrivals", "daily:200@10m"]);
    assert_eq!(object["a"]["containers"], object["b"]["containers"]);
    let cost = |side: &str| object[side]["cost"].as_f64().unwrap();
    let change = object["change_percent"]["cost"].as_f64().unwrap();
    assert!((change - (cost("b") - cost("a")) / cost("a") * 100.0).abs() < 0.01);
    assert!(object["verdict"].as_str().unwrap().ends_with('.'));
    let same = json(&["compare", &now, &now, "--arrivals", "steady:20@10m"]);
    assert_eq!(same["a"], same["b"]);
    assert!(
        same["verdict"]
            .as_str()
            .unwrap()
            .starts_with("Both cost the same")
    );
}

#[test]
fn seeds_are_simulated_one_after_the_other() {
    let text = succeeds(&["--faults", "wild", "--seeds", "5", "--seed", "100"]);
    assert!(text.contains("seeds done       5, from 100 on"), "{text}");
    assert!(
        text.contains(" days") && text.contains("faults met"),
        "{text}"
    );
    assert_eq!(text.lines().last(), Some("violations: 0"));
    let object = json(&["--for", "1s"]);
    assert!(object["seeds"].as_u64().unwrap() >= 1, "{object}");
    assert!(object["broken"].is_null());
}

#[test]
fn a_broken_promise_ends_with_its_story_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("never.yml");
    // No machine is ever given enough time to boot.
    let never = "Containers: {CloudVMs: {TimeoutBooting: 30s}}\nSimulation: {BootTime: 5m}\n";
    fs::write(&config, never).unwrap();
    let config = config.to_str().unwrap();
    let arguments = [
        "--arrivals",
        "burst:3@1m",
        "--config",
        config,
        "--seeds",
        "4",
    ];
    let output = sim(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    let command = format!(
        "again with: longshore sim --arrivals burst:3@1m --config {config} --faults none --seed 1"
    );
    for word in [
        "violations: 1",
        "A PROMISE IS BROKEN: a container does not end",
        &command,
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(text.contains("1 containers within"), "made smaller: {text}");
    let object = out(&sim(&[&arguments[..4], &["--json"]].concat()));
    let object: Value = serde_json::from_str(&object).unwrap();
    assert_eq!(object["violations"][0]["rule"], "a container does not end");
}

#[test]
fn ctrl_c_shows_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("events");
    let mut child = longshore()
        .args(["--arrivals", "daily:100000@10m", "--hours", "5000"])
        .args(["--json", "--events"])
        .arg(&events)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The file is there once signals are listened for.
    for _ in 0..3_000 {
        if events.exists() || child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    let object: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(object["interrupted"], true);
}

#[test]
fn what_cannot_be_simulated_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let head = "time,count,vcpus,ram,duration,priority\n";
    refused(
        &["--arrivals", "missing.csv"],
        &["missing.csv", "no such file"],
    );
    refused(&["--arrivals", "steady"], &["like steady:500@5m"]);
    refused(
        &["--arrivals", "bursts:5@1m"],
        &["no such pattern", "daily"],
    );
    refused(
        &["--arrivals", folder.path().to_str().unwrap()],
        &["is a directory", "a trace"],
    );
    refused(
        &["--arrivals", &file("empty.csv", b"")],
        &["empty.csv:1:1", "time,count"],
    );
    refused(
        &["--arrivals", &file("bytes.csv", b"time\xff")],
        &["bytes.csv:1:5", "UTF-8"],
    );
    let bad = format!("{head}0,1,two,1GiB,5m,500\n");
    refused(
        &["--arrivals", &file("bad.csv", bad.as_bytes())],
        &["bad.csv:2:5", "vcpus", "two"],
    );
    let escape = format!("{head}0,1,\x1b[31m,1GiB,5m,500\n");
    refused(
        &["--arrivals", &file("escape.csv", escape.as_bytes())],
        &["escape.csv:2:5"],
    );
    let late = file("late.csv", format!("{head}5h,1,1,1GiB,5m,500\n").as_bytes());
    refused(
        &["--arrivals", &late, "--hours", "2"],
        &["later than --hours"],
    );
    let key = file("key.yml", b"Containers: {CloudVMs: {MaxInstance: 4}}\n");
    refused(
        &["--config", &key],
        &["key.yml:1:25", "did you mean \"MaxInstances\"?"],
    );
    let good = file("good.yml", b"Simulation: {BootTime: 1s}\n");
    refused(
        &["compare", &good, &key, "--arrivals", "burst:1@1s"],
        &["key.yml:1:25"],
    );
    refused(
        &["--events", "/nowhere/at/all"],
        &["--events", "cannot be written"],
    );
    for wrong in [
        &["--hours", "NaN"][..],
        &["--hours", "-1"],
        &["--workers", "0"],
        &["--seed", "-1"],
        &["--faults", "some"],
        &["--for", "0"],
        &["--seeds", "0"],
        &["compare", "a.yml"],
    ] {
        refused(wrong, &["error: "]);
    }
}

#[test]
fn what_is_left_out_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    let rows = "time,count,vcpus,ram,duration,priority\n0,2,1,1GiB,5m,500\n5h,3,1,1GiB,5m,500\n";
    fs::write(&path, rows).unwrap();
    let output = sim(&["--arrivals", path.to_str().unwrap(), "--hours", "1"]);
    assert!(
        err(&output).contains("3 of 5 containers come later"),
        "{}",
        err(&output)
    );
    assert!(
        out(&output).contains("2 submitted, 2 complete"),
        "{}",
        out(&output)
    );
    // No type holds this one.
    fs::write(&path, rows.replace("5h,3,1", "1m,1,99")).unwrap();
    let output = sim(&["--arrivals", path.to_str().unwrap()]);
    assert!(output.status.success());
    let text = out(&output);
    assert!(text.contains("never started    1 ("), "{text}");
    assert!(text.contains("not satisfiable"), "{text}");
}
