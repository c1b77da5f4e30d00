//! Reports: waiting for news, acknowledgements, and lock files that are not as they should be.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod common;

use common::*;
use longshore_runner_api::StartReply;
use longshore_types::{Attempt, ExitCause, ReportedState};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Has a report wait for news, makes them once it waits, and says how long they took to arrive.
fn news(fixture: &Fixture, make: impl FnOnce()) -> Duration {
    let known = fixture.report().digest;
    let arguments = ["--report", "--wait-ms", "60000", "--known", &known];
    let mut waiting = fixture.command(&arguments).spawn().unwrap();
    let pid = i32::try_from(waiting.id()).unwrap();
    eventually("the report to wait", || {
        assert!(waiting.try_wait().unwrap().is_none(), "it did not wait");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        (watches(pid) && stat.contains(") S ")).then_some(())
    });
    let since = Instant::now();
    make();
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success());
    let report = longshore_runner_api::report::parse(&output.stdout).unwrap();
    assert_ne!(report.digest, known);
    since.elapsed()
}

fn watches(pid: i32) -> bool {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter();
    open.flatten().flatten().any(|fd| {
        fd.path()
            .read_link()
            .is_ok_and(|target| target.ends_with("anon_inode:inotify"))
    })
}

/// The fastest of some, because the machine may be busy with other things.
fn fastest(mut time: impl FnMut() -> Duration) -> Duration {
    (0..5).map(|_| time()).min().unwrap()
}

#[test]
fn a_waiting_report_hears_of_an_end_at_once() {
    let fixture = Fixture::new();
    let took = fastest(|| {
        let uuid = uuid();
        let pid = fixture.path(uuid.as_str());
        fixture.start(
            uuid,
            1,
            &shell(&format!("echo $$ > {}; exec sleep 1000", pid.display())),
        );
        let pid = pid_of(&pid);
        eventually("the start", || {
            fixture
                .report()
                .containers
                .iter()
                .all(started)
                .then_some(())
        });
        let took = news(&fixture, || signal(pid, libc::SIGKILL).unwrap());
        let cause = fixture.cause(uuid, 1);
        assert_eq!(cause, ExitCause::Signaled { signal: 9 });
        fixture.report_with(&["--ack", &format!("{uuid}:1")]);
        took
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    eprintln!("exit to report: {took:?}");
}

fn started(container: &longshore_types::ContainerReport) -> bool {
    container.state != ReportedState::Running { started_at: None }
}

#[test]
fn a_waiting_report_hears_of_a_lost_supervisor_at_once() {
    let fixture = Fixture::new();
    for both in [false, true] {
        let took = fastest(|| {
            let uuid = uuid();
            let supervisor = fixture.start(uuid, 1, &shell("exec sleep 1000"));
            let reaper = reaper_of(supervisor);
            eventually("the start", || {
                fixture
                    .report()
                    .containers
                    .iter()
                    .all(started)
                    .then_some(())
            });
            let took = news(&fixture, || {
                if both {
                    signal(reaper, libc::SIGKILL).unwrap();
                }
                signal(supervisor, libc::SIGKILL).unwrap();
            });
            assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
            fixture.report_with(&["--ack", &format!("{uuid}:1")]);
            took
        });
        assert!(took < Duration::from_secs(2), "{took:?}");
        eprintln!("supervisor lost to report (both {both}): {took:?}");
    }
}

#[test]
fn a_waiting_report_hears_of_starts_acknowledgements_and_the_flag() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let far = Duration::from_secs(20);
    let start = || {
        fixture.start(uuid, 1, &shell("true"));
    };
    assert!(news(&fixture, start) < far);
    fixture.finished(uuid, 1);
    let ack = format!("{uuid}:1");
    assert!(news(&fixture, || drop(fixture.report_with(&["--ack", &ack]))) < far);
    let flag = fixture.root().join("broken");
    assert!(news(&fixture, || std::fs::write(&flag, "no disk\n").unwrap()) < far);
    assert_eq!(fixture.report().broken.as_deref(), Some("no disk"));
    assert_eq!(fixture.run(&["--list"]).stdout, b"broken\n");
    assert!(news(&fixture, || std::fs::remove_file(&flag).unwrap()) < far);
    assert_eq!(fixture.report().broken, None);
}

#[test]
fn a_report_waits_as_long_as_it_may_and_only_for_news() {
    let fixture = Fixture::new();
    let known = fixture.report().digest;
    let since = Instant::now();
    let same = fixture.report_with(&["--wait-ms", "300", "--known", &known]);
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!(same.digest, known);
    let since = Instant::now();
    fixture.report_with(&["--wait-ms", "60000", "--known", "other"]);
    fixture.report_with(&["--wait-ms", "60000"]);
    assert!(since.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_report_that_nobody_waits_for_ends() {
    let fixture = Fixture::new();
    let known = fixture.report().digest;
    let arguments = ["--report", "--wait-ms", "60000", "--known", &known];
    let mut waiting = fixture
        .command(&arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(waiting.stdout.take());
    let since = Instant::now();
    eventually("the end", || waiting.try_wait().unwrap());
    assert!(since.elapsed() < Duration::from_secs(25));
    fixture.assert_clean(&[]);
}

#[test]
fn a_report_does_not_wait_for_the_directory_lock() {
    let fixture = Fixture::new();
    let uuid = uuid();
    fixture.start(uuid, 1, &shell("sleep 1000"));
    let stale = fixture.lock_file(self::uuid());
    std::fs::write(&stale, "").unwrap();
    let lock = fixture.root().join("lock/directory");
    let held = hold(&lock);
    let since = Instant::now();
    assert_eq!(fixture.report().containers.len(), 1);
    assert!(since.elapsed() < Duration::from_secs(5));
    assert!(stale.exists(), "not to be removed without the lock");
    held.release(&lock);
    fixture.report();
    assert!(!stale.exists());
    fixture.end(9, uuid, 1);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn marks_are_bounded_but_none_goes_while_a_start_could_be_on_its_way() {
    const OLD: usize = 60;
    let fixture = Fixture::new();
    fixture.report();
    let mark = |i: usize| fixture.root().join(format!("mark/aaaaa-dz642-{i:015}"));
    let make = |i: usize| std::os::unix::fs::symlink("1", mark(i)).unwrap();
    let make_older = |path: &Path, date: &str| {
        let touched = Command::new("touch")
            .args(["--no-dereference", "--date", date])
            .arg(path)
            .status();
        assert!(touched.unwrap().success());
    };
    let make_old = |range: Range<usize>| {
        for i in range {
            make(i);
            make_older(&mark(i), "2 hours ago");
        }
    };
    make_old(0..OLD);
    (OLD..OLD + 10_000).for_each(make);
    let left = |range: Range<usize>| {
        let there = |i: &usize| mark(*i).symlink_metadata().is_ok();
        range.filter(there).count()
    };
    let acknowledge_one = || {
        let uuid = uuid();
        fixture.start(uuid, 1, &shell("exit 0"));
        fixture.finished(uuid, 1);
        fixture.report_with(&["--ack", &format!("{uuid}:1")]);
        uuid
    };
    let last = acknowledge_one();
    assert_eq!((left(0..OLD), left(OLD..OLD + 10_000)), (0, 10_000));

    // Looking costs as much as there are, so that not every acknowledgement does it.
    make_old(0..OLD);
    acknowledge_one();
    assert_eq!(left(0..OLD), OLD);
    make_older(&fixture.root().join("swept"), "9 minutes ago");
    acknowledge_one();
    assert_eq!(left(0..OLD), OLD);
    make_older(&fixture.root().join("swept"), "11 minutes ago");
    acknowledge_one();
    assert_eq!((left(0..OLD), left(OLD..OLD + 10_000)), (0, 10_000));
    let refused = fixture.try_start(last, 1, &shell("exit 0"));
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
}

#[test]
fn only_the_attempt_that_is_named_is_acknowledged_and_only_once_it_has_ended() {
    let fixture = Fixture::new();
    let (ended, runs) = (uuid(), uuid());
    fixture.start(ended, 2, &shell("exit 1"));
    fixture.start(runs, 2, &shell("sleep 1000"));
    fixture.finished(ended, 2);
    let acks = format!("{ended}:1,{ended}:3,{runs}:2,{runs}:1,{}:1", uuid());
    let report = fixture.report_with(&["--ack", &acks]);
    assert_eq!(report.containers.len(), 2, "{report:?}");
    assert_eq!(fixture.stdout(runs, 2), "");
    // What was not there to be acknowledged leaves no mark.
    let newer = fixture.try_start(ended, 3, &shell("exit 0"));
    assert!(newer.status.success(), "{newer:?}");
    fixture.finished(ended, 3);
    fixture.end(9, runs, 2);
    let acks = format!("{ended}:2,{ended}:3,{runs}:2");
    let report = fixture.report_with(&["--ack", &acks]);
    assert!(report.containers.is_empty(), "{report:?}");
    fixture.assert_clean(&[ended, runs]);
}

#[test]
fn a_lock_file_of_any_content_counts_while_it_is_held() {
    let fixture = Fixture::new();
    fixture.report();
    let other = uuid();
    let complete = StartReply {
        uuid: other,
        pid: 1,
        attempt: Attempt(9),
    };
    let complete = serde_json::to_string(&complete).unwrap() + "\n";
    let contents: [&[u8]; 5] = [
        b"",
        b"{\"UUID\":\"zz",
        b"\xff\0garbage\n",
        complete.as_bytes(),
        &[b'x'; 100_000],
    ];
    for content in contents {
        let uuid = uuid();
        let path = fixture.lock_file(uuid);
        std::fs::write(&path, content).unwrap();
        let held = hold(&path);
        let reported = fixture.reported(uuid).unwrap();
        let running = ReportedState::Running { started_at: None };
        assert_eq!(reported.state, running);
        assert!(path.exists());
        let refused = fixture.try_start(uuid, 1, &shell("exit 0"));
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), content, "not its to change");
        held.release(&path);
        assert_eq!(fixture.reported(uuid), None);
        assert!(!path.exists(), "nobody holds it");
        fixture.assert_clean(&[uuid]);
    }
}

#[test]
fn an_unheld_lock_file_does_not_hinder_a_start() {
    let fixture = Fixture::new();
    fixture.report();
    let uuid = uuid();
    std::fs::write(fixture.lock_file(uuid), "garbage").unwrap();
    fixture.start(uuid, 1, &shell("exit 0"));
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 0 });
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_lock_file_that_cannot_be_read_counts_as_running() {
    let fixture = Fixture::new();
    fixture.report();
    let uuid = uuid();
    let path = fixture.lock_file(uuid);
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    let output = fixture.run(&["--report"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(uuid.as_str()));
    let reported = fixture.reported(uuid).unwrap();
    assert!(matches!(reported.state, ReportedState::Running { .. }));
    std::fs::remove_file(&path).unwrap();
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_process_that_was_only_written_down_is_never_signalled() {
    let fixture = Fixture::new();
    let uuid = uuid();
    // An attempt that really ran, so that there is an entry.
    fixture.start(uuid, 1, &shell("sleep 1000"));
    let supervisor = fixture.start(self::uuid(), 1, &shell("sleep 1000"));
    fixture.end(9, uuid, 1);
    cut_result(&fixture.entry(uuid, 1));
    // The lock file of a dead supervisor whose number belongs to another process now.
    let reused = StartReply {
        uuid,
        pid: supervisor.try_into().unwrap(),
        attempt: Attempt(1),
    };
    let path = fixture.lock_file(uuid);
    std::fs::write(&path, serde_json::to_string(&reused).unwrap() + "\n").unwrap();
    let held = hold(&path);
    assert_eq!(fixture.reported(uuid).unwrap().state, ReportedState::Stale);
    for signal in [15, 9] {
        assert_eq!(fixture.kill(signal, uuid, 1), Some(1));
    }
    held.release(&path);
    assert_eq!(fixture.kill(9, uuid, 1), Some(0));
    assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
    assert!(alive(supervisor));
    let others = fixture.report().containers;
    let running =
        |c: &&longshore_types::ContainerReport| matches!(c.state, ReportedState::Running { .. });
    let other = others.iter().find(running).expect("the other still runs");
    fixture.end(9, other.uuid, 1);
    fixture.assert_clean(&[uuid, other.uuid]);
}

/// Removes the last byte of what is noted about an attempt.
fn cut_result(entry: &Path) {
    let state = entry.join("state");
    let text = std::fs::read(&state).unwrap();
    std::fs::write(&state, &text[..text.len() - 1]).unwrap();
}

#[test]
fn a_result_that_was_cut_off_is_none() {
    let fixture = Fixture::new();
    let uuid = uuid();
    fixture.start(uuid, 1, &shell("exit 0"));
    fixture.finished(uuid, 1);
    cut_result(&fixture.entry(uuid, 1));
    let exit = fixture.finished(uuid, 1);
    assert_eq!(exit.cause, ExitCause::SupervisorLost);
    assert!(exit.started_at.is_some());
}

#[test]
fn what_a_start_that_was_killed_has_left_is_removed() {
    let fixture = Fixture::new();
    fixture.report();
    let (empty, used) = (uuid(), uuid());
    let left = fixture.entry(empty, 1);
    let left = left.parent().unwrap();
    std::fs::create_dir(left).unwrap();
    fixture.start(used, 1, &shell("exit 0"));
    fixture.finished(used, 1);
    assert!(!left.exists());
    assert!(fixture.entry(used, 1).exists());
    fixture.assert_clean(&[empty, used]);
}

#[test]
fn what_cannot_be_removed_is_not_tried_all_the_time() {
    if !own_mounts("what cannot be removed") {
        return;
    }
    let fixture = Fixture::new();
    fixture.report();
    let grave = fixture.root().join(format!("trash/{}.1", uuid()));
    let mounted = grave.join("work/mounted");
    std::fs::create_dir_all(&mounted).unwrap();
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
    nix::mount::mount(Some("none"), &mounted, Some("tmpfs"), flags, none).unwrap();
    let age = || {
        let mut touch = Command::new("touch");
        let touched = touch.args(["--date", "2 minutes ago"]).arg(&grave);
        assert!(touched.status().unwrap().success());
    };
    let complains = || {
        let uuid = uuid();
        fixture.start(uuid, 1, &shell("exit 0"));
        fixture.finished(uuid, 1);
        let output = fixture.run(&["--report", "--ack", &format!("{uuid}:1")]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).contains("cannot remove")
    };
    for _ in 0..2 {
        age();
        assert!(complains());
        assert!(!complains());
    }
    nix::mount::umount(&mounted).unwrap();
    age();
    assert!(!complains());
    assert!(!grave.exists());
    fixture.assert_clean(&[]);
}

#[test]
fn a_result_of_a_cause_that_only_newer_versions_know_is_one() {
    let fixture = Fixture::new();
    let uuid = uuid();
    fixture.start(uuid, 1, &shell("echo some"));
    let exit = fixture.finished(uuid, 1);
    let state = fixture.entry(uuid, 1).join("state");
    let text = std::fs::read_to_string(&state).unwrap();
    let newer = text.replace(
        r#""cause":"exited","code":0"#,
        r#""cause":"quota","disk":[1]"#,
    );
    assert_ne!(text, newer);
    std::fs::write(&state, newer).unwrap();
    let read = fixture.finished(uuid, 1);
    // Of one that was lost nobody knows when it ended.
    assert_eq!(
        (read.cause, read.finished_at),
        (ExitCause::SupervisorLost, exit.finished_at)
    );
    fixture.assert_clean(&[uuid]);
}
