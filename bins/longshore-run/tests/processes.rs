//! Nothing of a container outlives it, whatever it does and whoever dies.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod common;

use common::*;
use longshore_types::{ContainerUuid, ExitCause, ReportedState};
use nix::poll::{PollFd, PollFlags, poll};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// Leaves a child, a daemon of a session of its own that ignores requests to end, and its child.
fn brood(names: &Path) -> String {
    let name = |n: &str| format!("{}.{n}", names.display());
    format!(
        "sleep 1000 & echo $! > {}; \
         (setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000 </dev/null >/dev/null 2>&1 & \
         echo $! > {}; echo $$ > {}; wait' </dev/null >/dev/null 2>&1 &); ",
        name("child"),
        name("grandchild"),
        name("daemon"),
    )
}

struct Brood(Vec<i32>);

impl Brood {
    fn of(names: &Path) -> Self {
        let pids =
            ["child", "grandchild", "daemon"].map(|part| pid_of(&names.with_extension(part)));
        Self(pids.to_vec())
    }

    fn assert_gone(&self) {
        for pid in &self.0 {
            assert!(!alive(*pid), "{pid} survives");
        }
    }
}

#[test]
fn what_a_job_leaves_behind_is_ended_before_its_result_is_told() {
    left_behind(&Fixture::new());
    left_behind(&Fixture::ungrouped());
}

fn left_behind(fixture: &Fixture) {
    let uuid = uuid();
    let names = fixture.path("names");
    let wait = format!(
        "until [ -s {0}.daemon ]; do sleep 0.01; done; exit 3",
        names.display()
    );
    fixture.start(uuid, 1, &shell(&(brood(&names) + &wait)));
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 3 });
    Brood::of(&names).assert_gone();
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_request_to_end_reaches_daemons_after_the_job() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let names = fixture.path("names");
    fixture.start(uuid, 1, &shell(&(brood(&names) + "wait")));
    let brood = Brood::of(&names);
    fixture.end(15, uuid, 1);
    brood.assert_gone();
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_job_that_forks_without_end_is_ended() {
    forks_without_end(&Fixture::new());
    forks_without_end(&Fixture::ungrouped());
}

fn forks_without_end(fixture: &Fixture) {
    let uuid = uuid();
    let mut document = shell("f() { (sleep 0.01; f) & }; trap '' TERM; f; f; f; wait; sleep 1000");
    document.kill_grace_ms = 50;
    fixture.start(uuid, 1, &document);
    fixture.kill(15, uuid, 1);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    fixture.assert_clean(&[uuid]);
}

/// Runs a job with a brood, has `end` end parts of its supervision, and expects the result.
fn supervision_lost(end: impl Fn(&Fixture, ContainerUuid, i32, i32)) {
    for fixture in [Fixture::new(), Fixture::ungrouped()] {
        supervision_lost_in(&fixture, &end);
    }
}

fn supervision_lost_in(fixture: &Fixture, end: impl Fn(&Fixture, ContainerUuid, i32, i32)) {
    let uuid = uuid();
    let names = fixture.path("names");
    let supervisor = fixture.start(uuid, 1, &shell(&(brood(&names) + "wait; sleep 1000")));
    let brood = Brood::of(&names);
    // What runs may not have been noted yet.
    fixture.await_start(uuid);
    end(fixture, uuid, supervisor, reaper_of(supervisor));
    let exit = fixture.finished(uuid, 1);
    assert_eq!(exit.cause, ExitCause::SupervisorLost);
    assert!(exit.started_at.is_some());
    brood.assert_gone();
    let again = fixture.try_start(uuid, 1, &shell("exit 0"));
    assert_eq!(again.status.code(), Some(3), "{again:?}");
    fixture.assert_clean(&[uuid]);
    let report = fixture.report_with(&["--ack", &format!("{uuid}:1")]);
    assert!(report.containers.is_empty(), "{report:?}");
    fixture.assert_clean(&[uuid]);
}

#[test]
fn nothing_survives_the_death_of_the_supervisor() {
    supervision_lost(|_, _, supervisor, _| signal(supervisor, libc::SIGKILL).unwrap());
}

#[test]
fn nothing_survives_the_death_of_the_reaper() {
    supervision_lost(|_, _, _, reaper| signal(reaper, libc::SIGKILL).unwrap());
}

#[test]
fn a_supervisor_that_is_asked_to_leave_ends_its_job_and_nobody_requested_that() {
    // As a machine does that is switched off.
    supervision_lost(|_, _, supervisor, _| signal(supervisor, libc::SIGTERM).unwrap());
}

#[test]
fn an_end_by_what_switches_the_machine_off_is_not_the_jobs_own() {
    let fixture = Fixture::new();
    let (uuid, pid) = (uuid(), fixture.path("pid"));
    // It takes TERM for a reason to end well.
    let script = format!(
        "trap 'exit 0' TERM; echo $$ > {}; while :; do sleep 0.01; done",
        pid.display()
    );
    let supervisor = fixture.start(uuid, 1, &shell(&script));
    let (job, reaper) = (pid_of(&pid), reaper_of(supervisor));
    // All get TERM; the job and its reaper are faster.
    signal(supervisor, libc::SIGSTOP).unwrap();
    signal(job, libc::SIGTERM).unwrap();
    eventually("the end of the reaper", || (!alive(reaper)).then_some(()));
    signal(supervisor, libc::SIGTERM).unwrap();
    signal(supervisor, libc::SIGCONT).unwrap();
    assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
    fixture.assert_clean(&[uuid]);
}

/// Mounts a file system that never answers, for this thread and what it starts; none where that
/// cannot be done. It is there until the file is closed.
fn mount_silence(at: &Path) -> Option<std::fs::File> {
    use nix::mount::{MsFlags, mount};
    let what = "files that do not answer";
    if !own_mounts(what) {
        return None;
    }
    let mut options = std::fs::File::options();
    let Ok(device) = options.read(true).write(true).open("/dev/fuse") else {
        eprintln!("NOT TESTED: {what}; there is no FUSE here");
        return None;
    };
    let number = device.as_raw_fd();
    let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0");
    std::fs::create_dir(at).unwrap();
    let (kind, flags) = (Some("fuse"), MsFlags::empty());
    mount(Some("none"), at, kind, flags, Some(&*options)).unwrap();
    Some(device)
}

#[test]
fn a_job_whose_files_do_not_answer_can_be_ended_and_its_time_is_limited() {
    let fixture = Fixture::new();
    let (killed, late, silent) = (uuid(), uuid(), fixture.path("silent"));
    let Some(device) = mount_silence(&silent) else {
        return;
    };
    let mut document = shell("exit 0");
    document.cwd = Some(silent.to_str().unwrap().into());
    document.kill_grace_ms = 50;
    fixture.start(killed, 1, &document);
    document.time_limit_ms = Some(100);
    document.cwd = None;
    document.command = vec![silent.join("program").to_str().unwrap().into()];
    fixture.start(late, 1, &document);
    fixture.kill(15, killed, 1);
    for (uuid, cause) in [(killed, ExitCause::Killed), (late, ExitCause::TimeLimit)] {
        let exit = fixture.finished(uuid, 1);
        assert_eq!((exit.cause, exit.started_at), (cause, None));
    }
    fixture.assert_clean(&[killed, late]);
    drop(device);
    nix::mount::umount(&silent).unwrap();
}

#[test]
fn nothing_survives_the_death_of_both() {
    supervision_lost(|fixture, uuid, supervisor, reaper| {
        let grouped = !cgroups(uuid).is_empty();
        // Stopped first, so that neither can clean up after the other.
        signal(reaper, libc::SIGSTOP).unwrap();
        signal(supervisor, libc::SIGKILL).unwrap();
        signal(reaper, libc::SIGKILL).unwrap();
        if !grouped {
            // Without a control group what is left is seen, and not ended.
            eventually("the container to be stale", || {
                let state = fixture.reported(uuid)?.state;
                (state == ReportedState::Stale).then_some(())
            });
            for pid in Brood::of(&fixture.path("names")).0 {
                let _ = signal(pid, libc::SIGKILL);
            }
        }
    });
}

#[test]
fn what_no_control_group_holds_is_stale_while_it_survives_both() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let names = fixture.path("names");
    let supervisor = fixture.start(uuid, 1, &shell(&(brood(&names) + "wait; sleep 1000")));
    let brood = Brood::of(&names);
    let groups = cgroups(uuid);
    let reaper = reaper_of(supervisor);
    // As if no group could have been made.
    let state = fixture.entry(uuid, 1).join("state");
    let text = std::fs::read_to_string(&state).unwrap();
    let others = text.lines().filter(|line| !line.contains("cgroup"));
    std::fs::write(
        &state,
        others.map(|line| format!("{line}\n")).collect::<String>(),
    )
    .unwrap();
    signal(reaper, libc::SIGSTOP).unwrap();
    signal(supervisor, libc::SIGKILL).unwrap();
    signal(reaper, libc::SIGKILL).unwrap();
    eventually("the container to be stale", || {
        let state = fixture.reported(uuid)?.state;
        (state == ReportedState::Stale).then_some(())
    });
    let list = fixture.run(&["--list"]);
    assert_eq!(list.stdout, format!("{uuid} stale\n").as_bytes());
    assert_eq!(
        fixture.kill(15, uuid, 1),
        Some(1),
        "something may still run"
    );
    let newer = fixture.try_start(uuid, 2, &shell("exit 0"));
    assert_eq!(newer.status.code(), Some(1), "{newer:?}");
    for pid in &brood.0 {
        let _ = signal(*pid, libc::SIGKILL);
    }
    assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
    for group in groups {
        eventually("the group to be empty", || std::fs::remove_dir(&group).ok());
    }
    fixture.assert_clean(&[uuid]);
}

#[test]
fn kill_ends_what_a_lost_supervision_left_in_its_control_group() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let names = fixture.path("names");
    let supervisor = fixture.start(uuid, 1, &shell(&(brood(&names) + "wait; sleep 1000")));
    let brood = Brood::of(&names);
    let reaper = reaper_of(supervisor);
    let grouped = !cgroups(uuid).is_empty();
    signal(reaper, libc::SIGSTOP).unwrap();
    signal(supervisor, libc::SIGKILL).unwrap();
    signal(reaper, libc::SIGKILL).unwrap();
    if grouped {
        fixture.end(15, uuid, 1);
    } else {
        eprintln!("no control groups here: ending the survivors ourselves");
        for pid in &brood.0 {
            let _ = signal(*pid, libc::SIGKILL);
        }
    }
    assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
    brood.assert_gone();
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_supervisor_keeps_nothing_open_that_the_start_command_was_given() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let (mut kept, given) = std::io::pipe().unwrap();
    let number = given.as_fd().as_raw_fd();
    // A shell opens it again without close-on-exec, as a careless parent would.
    let script = format!(
        "exec {} --detach --stdin-config --attempt 1 {uuid} 9>/proc/{}/fd/{number}",
        RUNNER,
        std::process::id()
    );
    let mut child = std::process::Command::new("sh")
        .args(["-c", &script])
        .env("LONGSHORE_RUN_DIR", fixture.root())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let document = shell("sleep 1000").to_json().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &document).unwrap();
    // These return only when nobody has the other ends any more.
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    drop(given);
    let mut ready = [PollFd::new(kept.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, 30_000_u16), Ok(1), "it is still open");
    assert_eq!(kept.read(&mut [0]).unwrap(), 0);
    let state = fixture.reported(uuid).unwrap().state;
    assert!(matches!(state, ReportedState::Running { .. }), "{state:?}");
    fixture.end(9, uuid, 1);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn what_a_job_has_mounted_ends_with_it_and_is_not_removed_with_its_files() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT TESTED: what a job mounts; that needs root");
        return;
    }
    let fixture = Fixture::new();
    let (uuid, shared) = (uuid(), fixture.path("shared"));
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("kept"), "").unwrap();
    // It goes on below a directory of the job's, as in one that a job makes a root of.
    let script = format!(
        "mkdir -p root/dev && mount --bind {} root/dev && ls root/dev",
        shared.display()
    );
    fixture.start(uuid, 1, &shell(&script));
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 0 });
    assert_eq!(fixture.stdout(uuid, 1), "kept\n");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(uuid.as_str()), "{mounts}");

    fixture.report_with(&["--ack", &format!("{uuid}:1")]);
    assert!(
        shared.join("kept").exists(),
        "a file that was never a job's"
    );
    assert!(!fixture.entry(uuid, 1).exists());
    fixture.assert_clean(&[uuid]);
}
