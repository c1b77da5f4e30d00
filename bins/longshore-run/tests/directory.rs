//! The directory: who may own it, and what happens when its disk is full.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod common;

use common::*;
use longshore_types::{ExitCause, ReportedState};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn refused(fixture: &Fixture, part: &str) {
    let output = fixture.run(&["--report"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(part), "{text}");
    let output = fixture.try_start(uuid(), 1, &shell("exit 0"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn it_is_made_for_its_owner_alone() {
    let fixture = Fixture::new();
    assert!(fixture.run(&["--report"]).status.success());
    assert_eq!(fixture.root().metadata().unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn one_that_others_can_write_is_refused() {
    for mode in [0o777, 0o770, 0o702, 0o1777] {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.root()).unwrap();
        set_mode(&fixture.root(), mode);
        refused(&fixture, "can be written by others");
    }
}

#[test]
fn one_that_others_could_exchange_is_refused() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.root()).unwrap();
    set_mode(&fixture.root(), 0o700);
    let parent = fixture.path("");
    set_mode(&parent, 0o777);
    refused(&fixture, "not sticky");
    set_mode(&parent, 0o1777);
    assert!(fixture.run(&["--report"]).status.success());
}

#[test]
fn one_that_belongs_to_another_is_refused() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.root()).unwrap();
    if let Err(error) = std::os::unix::fs::chown(fixture.root(), Some(12345), None) {
        eprintln!("NOT TESTED with another owner, which needs root: {error}");
        return;
    }
    refused(&fixture, "belongs to user 12345");
}

#[test]
fn one_that_is_none_is_refused() {
    let fixture = Fixture::new();
    std::fs::write(fixture.root(), "").unwrap();
    refused(&fixture, "not a directory");
}

/// A small disk of its own at the place of the runner's directory.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, options: &str) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let options = format!("mode=0700,{options}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "longshore-run-test"])
            .arg(&path)
            .status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        eprintln!("NOT TESTED with a full disk, which needs root");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_start_on_a_full_disk_fails_and_leaves_nothing() {
    let fixture = Fixture::new();
    // Room for the directories, and for less than an entry.
    let Some(_disk) = Disk::mount(fixture.root(), "nr_inodes=12") else {
        return;
    };
    // Makes all that is made once.
    assert_eq!(fixture.kill(0, uuid(), 1), Some(0));
    let filler = |i: usize| fixture.root().join(format!("filler{i}"));
    let fillers = (0..)
        .take_while(|i| std::fs::write(filler(*i), "").is_ok())
        .count();
    assert!(fillers > 0);
    for free in 0..3_usize {
        for i in 0..free {
            std::fs::remove_file(filler(i)).unwrap();
        }
        let uuid = uuid();
        let output = fixture.try_start(uuid, 1, &shell("exit 0"));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("No space left"), "{text}");
        let report = fixture.report();
        assert!(report.containers.is_empty(), "{report:?}");
        if free > 0 {
            let why = report.broken.expect("the flag");
            assert!(why.contains("No space left"), "{why}");
            std::fs::remove_file(fixture.root().join("broken")).unwrap();
        }
        fixture.assert_clean(&[uuid]);
        for i in 0..free {
            std::fs::write(filler(i), "").unwrap();
        }
    }
}

#[test]
fn a_result_waits_for_room_on_the_disk() {
    let fixture = Fixture::new();
    let Some(_disk) = Disk::mount(fixture.root(), "size=512k") else {
        return;
    };
    let uuid = uuid();
    let full = fixture.path("full");
    // The block that the state has would have room for the result.
    let script = format!(
        "until grep -q started ../state; do sleep 0.01; done; rm ../state; cat /dev/zero > filler 2>/dev/null; echo 1 > {}; exit 4",
        full.display()
    );
    fixture.start(uuid, 1, &shell(&script));
    line_of(&full);
    let reaped = || fixture.processes().len() == 1;
    eventually("the supervisor to be alone", || reaped().then_some(()));
    let state = fixture.reported(uuid).unwrap().state;
    assert!(matches!(state, ReportedState::Running { .. }), "{state:?}");
    std::fs::remove_file(fixture.entry(uuid, 1).join("work/filler")).unwrap();
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 4 });
    fixture.assert_clean(&[uuid]);
}
