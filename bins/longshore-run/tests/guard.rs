//! A machine that nobody looks after is powered off, and no other.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::*;
use longshore_types::ReportedState;

/// A guard whose power-off writes a line.
struct Guarded {
    fixture: Fixture,
    off: PathBuf,
}

impl Guarded {
    fn new(after: u32, with_results: u32) -> Self {
        let fixture = Fixture::new();
        let off = fixture.path("off");
        let guarded = Self { fixture, off };
        guarded.put(after, with_results);
        guarded
    }

    fn put(&self, after: u32, with_results: u32) {
        let command = format!("echo off >> '{}'", self.off.display());
        let (after, results) = (after.to_string(), with_results.to_string());
        let output = self.fixture.run(&[
            "--guard",
            &after,
            "--guard-results",
            &results,
            "--power-off",
            &command,
        ]);
        assert!(output.status.success(), "{output:?}");
    }

    fn guards(&self) -> Vec<i32> {
        let lock = self.fixture.root().join("guard/lock");
        let holds = |pid: &i32| {
            std::fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten()
                .any(|fd| fd.path().read_link().is_ok_and(|target| target == lock))
        };
        let mut pids = self.fixture.processes();
        pids.retain(holds);
        pids
    }

    fn is_off(&self) -> bool {
        self.off.exists()
    }

    /// Takes the guard away.
    fn dismiss(&self) {
        std::fs::remove_file(self.fixture.root().join("guard/settings")).unwrap();
        eventually("the end of the guard", || {
            self.guards().is_empty().then_some(())
        });
    }
}

#[test]
fn a_machine_that_is_left_alone_is_powered_off() {
    let since = Instant::now();
    let guarded = Guarded::new(1, 1);
    eventually("the power-off", || guarded.is_off().then_some(()));
    assert!(since.elapsed() > Duration::from_millis(900));
    // It gets the same time again, should that not have worked.
    eventually("the next try", || {
        let lines = std::fs::read_to_string(&guarded.off).unwrap();
        (lines.lines().count() > 1).then_some(())
    });
    guarded.dismiss();
}

#[test]
fn commands_keep_a_machine_on_and_there_is_one_guard() {
    let mut gaps = Gaps::new();
    let guarded = Guarded::new(2, 2);
    guarded.put(2, 2);
    // Another that is just finding the lock taken may be there for a moment.
    let guard = eventually("a single guard", || match guarded.guards()[..] {
        [guard] => Some(guard),
        _ => None,
    });
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(5) {
        let waits = ["--wait-ms", "200", "--known", "x"];
        gaps.contact(|| drop(guarded.fixture.report_with(&waits)));
        gaps.contact(|| drop(guarded.fixture.run(&["--list"])));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(guarded.guards(), [guard]);
    // On a machine that stood still for so long it would have been right.
    assert!(!guarded.is_off() || gaps.longest() > Duration::from_millis(1900));
    // A guard that was ended is replaced by the next command.
    signal(guard, libc::SIGKILL).unwrap();
    eventually("the next guard", || {
        guarded.fixture.report();
        let guards = guarded.guards();
        (guards.len() == 1 && guards != [guard]).then_some(())
    });
    eventually("the power-off", || guarded.is_off().then_some(()));
    guarded.dismiss();
}

#[test]
fn a_container_keeps_a_machine_on_and_a_result_for_a_while() {
    // It looks every second, and takes note of what it is told then.
    let guarded = Guarded::new(20, 3600);
    let uuid = uuid();
    let go = guarded.fixture.path("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    guarded.fixture.start(uuid, 1, &shell(&script));
    guarded.put(1, 3600);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!guarded.is_off(), "a container runs");
    std::fs::write(&go, "").unwrap();
    guarded.fixture.finished(uuid, 1);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!guarded.is_off(), "a result waits");
    let reported = guarded.fixture.reported(uuid).unwrap();
    assert!(matches!(reported.state, ReportedState::Finished(_)));
    // Not for ever.
    guarded.put(1, 2);
    eventually("the power-off", || guarded.is_off().then_some(()));
    guarded.dismiss();
    guarded.fixture.assert_clean(&[uuid]);
}

#[test]
fn nobody_is_guarded_who_did_not_ask_for_it() {
    let fixture = Fixture::new();
    fixture.report();
    assert!(!fixture.root().join("guard").exists());
    assert!(fixture.processes().is_empty());
    if !nix::unistd::geteuid().is_root() {
        let output = fixture.run(&["--guard", "3600"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    for wrong in ["0", "-1", "x", "99999999999"] {
        assert_eq!(fixture.run(&["--guard", wrong]).status.code(), Some(2));
    }
}
