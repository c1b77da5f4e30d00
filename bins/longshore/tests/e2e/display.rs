//! What is shown while jobs run, and what running costs.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::world::{World, wait_for};

const SLOW: &str = "  - {name: quick, command: 'true'}\n  - {name: slow, command: 'sleep 1.5'}\n";

#[test]
fn without_a_terminal_there_are_plain_lines() {
    let world = World::new();
    world.jobs("plain", SLOW);
    let said = world.run(&["run", "plain"]).expect(0);
    assert!(
        !said.out.contains('\x1b') && !said.out.contains('\r'),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("\n[1/2] ok        quick ("),
        "{}",
        said.out
    );
    let slow = said.out.split_once("\n[2/2] ok        slow (");
    let (took, _) = slow.and_then(|(_, rest)| rest.split_once('s')).unwrap();
    // By the clock of the machine, which may be a little off; and a busy one takes its time.
    assert!(took.parse::<f64>().unwrap() >= 1.4, "{}", said.out);
}

#[test]
fn with_a_terminal_there_is_a_live_table() {
    let world = World::new();
    world.jobs("live", SLOW);
    let mut command = Command::new("script");
    let line = format!("{} run live", env!("CARGO_BIN_EXE_longshore"));
    command
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm");
    world.prepare(&mut command);
    let said = world.spawn(command).end().expect(0);
    assert!(said.out.contains("\x1b["), "{}", said.out);
    assert!(said.out.contains("] 50%"), "a bar: {}", said.out);
    assert!(said.out.contains("  running   slow"), "a row: {}", said.out);
    assert!(
        said.out.contains("live: 2 jobs, 2 succeeded in "),
        "{}",
        said.out
    );
}

#[test]
fn quiet_shows_only_the_summary() {
    let world = World::new();
    world.jobs("quiet", "  - {name: a, command: 'true'}\n");
    let said = world.run(&["run", "-q", "quiet"]).expect(0);
    assert_eq!(said.out.lines().count(), 2, "{}", said.out);
    assert_eq!(said.err, "");
}

#[test]
fn nobody_has_to_listen() {
    let world = World::new();
    world.jobs("deaf", "  - {name: a, command: 'touch $W/ran'}\n");
    let mut command = world.longshore(&["run", "deaf"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let status = wait_for("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(world.exists("ran"));
}

#[test]
fn nothing_secret_is_logged_or_readable() {
    let world = World::new();
    world.jobs("secret", "  - {name: a, command: 'env; ls -la'}\n");
    let said = world.run(&["run", "secret", "--log", "trace"]).expect(0);
    let key = fs::read_to_string(world.state().join("id_ed25519")).unwrap();
    let mut secrets: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    // The first two lines of the encoding are the same for all keys of one kind but for the
    // public part, which is no secret.
    secrets.retain(|line| line.len() > 20);
    assert!(secrets.len() >= 3, "{key}");
    let printed = said.stream("ok", "a", "stdout");
    let printed = String::from_utf8_lossy(&printed);
    for text in [&world.log(), &said.err, &said.out, &*printed] {
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        assert!(
            secrets.iter().all(|secret| !text.contains(secret)),
            "{text}"
        );
    }
}

#[test]
fn waiting_costs_nearly_nothing() {
    let world = World::new();
    world.jobs(
        "idle",
        "  - {name: a, command: 'touch $W/began; exec sleep 600'}\n",
    );
    let running = world.start(&["run", "idle"]);
    wait_for("the job to begin", || world.exists("began").then_some(()));
    let spent_in = |window| {
        let (before, begun) = (world.processor_time(), Instant::now());
        wait_for("the window", || (begun.elapsed() >= window).then_some(()));
        // What ends outside of it takes what it has spent along.
        world.processor_time().saturating_sub(before)
    };
    // What it does to begin is not what is measured.
    wait_for("it to have begun", || {
        (spent_in(Duration::from_secs(1)) < Duration::from_millis(20)).then_some(())
    });
    let window = Duration::from_secs(5);
    let spent = spent_in(window);
    assert!(spent < window.mul_f64(0.02), "{spent:?} in {window:?}");
    running.signal(Signal::SIGINT);
    running.end().expect(130);
}
