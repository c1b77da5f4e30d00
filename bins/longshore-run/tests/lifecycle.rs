//! One container from its start to its acknowledgement.

mod common;

use common::*;
use longshore_runner_api::StartDocument;
use longshore_types::{ExitCause, ReportedState};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_container_runs_and_its_result_waits_to_be_acknowledged() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let input = fixture.path("input");
    std::fs::write(&input, "some input\n").unwrap();
    let mut document = shell(
        "cat; echo \"$A $LONGSHORE_CONTAINER_UUID $LONGSHORE_ATTEMPT\"; umask; ls | wc -l; \
         pwd; env | sed 's/=.*//' | sort | tr '\\n' ' '; echo bad >&2",
    );
    document.env.insert("A".into(), "b=c".into());
    document
        .env
        .insert("LONGSHORE_ATTEMPT".into(), "forged".into());
    document.stdin = Some(input.to_str().unwrap().into());
    fixture.start(uuid, 7, &document);
    let exit = fixture.finished(uuid, 7);
    assert_eq!(exit.cause, ExitCause::Exited { code: 0 });
    assert!(exit.started_at.unwrap() <= exit.finished_at.unwrap());
    assert_eq!(exit.stderr_bytes, 4);
    let work = fixture.entry(uuid, 7).join("work").canonicalize().unwrap();
    let stdout = fixture.stdout(uuid, 7);
    assert_eq!(exit.stdout_bytes, stdout.len() as u64);
    assert_eq!(
        stdout,
        format!(
            "some input\nb=c {uuid} 7\n0022\n0\n{}\n\
             A HOME LONGSHORE_ATTEMPT LONGSHORE_CONTAINER_UUID PATH PWD ",
            work.display()
        )
    );
    let last = fixture.run(&[
        "--output",
        "stdout",
        "--last",
        "5",
        "--attempt",
        "7",
        uuid.as_str(),
    ]);
    assert_eq!(last.stdout, b" PWD ");

    let report = fixture.report_with(&["--ack", &format!("{uuid}:7")]);
    assert!(report.containers.is_empty(), "{report:?}");
    assert!(!fixture.entry(uuid, 7).exists());
    fixture.assert_clean(&[uuid]);
}

#[test]
fn every_way_to_end_is_told() {
    let fixture = Fixture::new();
    let cases = [
        ("exit 0", ExitCause::Exited { code: 0 }),
        ("exit 7", ExitCause::Exited { code: 7 }),
        ("exit 255", ExitCause::Exited { code: 255 }),
        ("kill -USR1 $$", ExitCause::Signaled { signal: 10 }),
        ("kill -9 $$", ExitCause::Signaled { signal: 9 }),
        ("kill -40 $$", ExitCause::Signaled { signal: 40 }),
        // A terminated job that nobody asked to end was not "killed".
        ("kill $$", ExitCause::Signaled { signal: 15 }),
        ("kill -PIPE $$", ExitCause::Signaled { signal: 13 }),
    ];
    let cases = cases.map(|(script, cause)| (uuid(), script, cause));
    for (uuid, script, _) in &cases {
        fixture.start(*uuid, 1, &shell(script));
    }
    for (uuid, script, cause) in &cases {
        assert_eq!(fixture.cause(*uuid, 1), *cause, "{script}");
    }
    fixture.assert_clean(&cases.map(|(uuid, ..)| uuid));
}

#[test]
fn a_missing_directory_or_input_is_a_result_and_not_a_failed_start() {
    let fixture = Fixture::new();
    let file = fixture.path("file");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    let file = file.to_str().unwrap();
    let gone = fixture.path("gone");
    let gone = gone.to_str().unwrap();
    let with = |change: &dyn Fn(&mut StartDocument)| {
        let mut document = StartDocument::new(vec!["true".into()]);
        change(&mut document);
        document
    };
    let cases = [
        (with(&|d| d.cwd = Some(gone.into())), "working directory"),
        (with(&|d| d.cwd = Some(file.into())), "not a directory"),
        (with(&|d| d.stdin = Some(gone.into())), "standard input"),
        (with(&|d| d.stdin = Some("/".into())), "standard input"),
    ];
    for (document, part) in cases {
        let uuid = uuid();
        fixture.start(uuid, 1, &document);
        match fixture.cause(uuid, 1) {
            ExitCause::CannotRun { code: 126, error } => assert!(error.contains(part), "{error}"),
            other => panic!("{other:?} instead of {part}"),
        }
        fixture.assert_clean(&[uuid]);
    }
}

#[test]
fn standard_input_may_be_a_pipe_without_a_writer() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let pipe = fixture.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut document = shell("exit 4");
    document.stdin = Some(pipe.to_str().unwrap().into());
    fixture.start(uuid, 1, &document);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 4 });
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_job_that_asks_for_a_time_limit_is_ended_at_it() {
    let fixture = Fixture::new();
    // Longer than a start and an end take as a rule, so that one that is early is seen.
    let limit = Duration::from_secs(2);
    let scripts = ["sleep 1000", "trap '' TERM; while :; do sleep 0.01; done"];
    let jobs = scripts.map(|script| {
        let (uuid, since) = (uuid(), Instant::now());
        let mut document = shell(script);
        document.time_limit_ms = Some(2_000);
        document.kill_grace_ms = 200;
        fixture.start(uuid, 1, &document);
        (uuid, since)
    });
    for (uuid, since) in jobs {
        assert_eq!(fixture.cause(uuid, 1), ExitCause::TimeLimit);
        assert!(since.elapsed() >= limit, "{:?}", since.elapsed());
    }
    fixture.assert_clean(&jobs.map(|(uuid, _)| uuid));
}

#[test]
fn a_job_is_ended_on_request() {
    let fixture = Fixture::new();
    let uuid = uuid();
    fixture.start(uuid, 1, &shell("sleep 1000; exit 0"));
    assert_eq!(fixture.kill(0, uuid, 1), Some(1), "it only asks");
    fixture.end(15, uuid, 1);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    assert_eq!(fixture.kill(15, uuid, 1), Some(0), "it is gone already");
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_job_may_say_good_bye_when_it_is_asked_to_end() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let ready = fixture.path("ready");
    let script = format!(
        "trap 'echo bye; exit 0' TERM; echo 1 > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    fixture.start(uuid, 1, &shell(&script));
    line_of(&ready);
    fixture.end(15, uuid, 1);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    assert_eq!(fixture.stdout(uuid, 1), "bye\n");
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_job_that_ignores_the_request_is_ended_after_its_grace() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let ready = fixture.path("ready");
    let mut document = shell(&format!(
        "trap '' TERM; echo 1 > {}; while :; do sleep 0.01; done",
        ready.display()
    ));
    document.kill_grace_ms = 6_000;
    fixture.start(uuid, 1, &document);
    line_of(&ready);
    let since = Instant::now();
    assert_eq!(fixture.kill(15, uuid, 1), Some(1), "it ignores it");
    assert!(since.elapsed() >= Duration::from_secs(1));
    assert_eq!(fixture.kill(15, uuid, 1), Some(1));
    // Asking again, more often than that, does not start the grace anew.
    eventually("the end of the grace", || {
        (fixture.kill(15, uuid, 1) == Some(0)).then_some(())
    });
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    assert!(since.elapsed() >= Duration::from_millis(5_900));
    fixture.assert_clean(&[uuid]);
}

#[test]
fn signal_nine_ends_the_job_at_once_and_the_supervisor_tells() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let mut document = shell("trap '' TERM; while :; do sleep 0.01; done");
    document.kill_grace_ms = 3_600_000;
    fixture.start(uuid, 1, &document);
    fixture.end(9, uuid, 1);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_stopped_job_can_be_asked_to_end() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let pid = fixture.path("pid");
    fixture.start(
        uuid,
        1,
        &shell(&format!("echo $$ > {}; kill -STOP $$", pid.display())),
    );
    let pid = pid_of(&pid);
    eventually("the stop", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") T ").then_some(())
    });
    fixture.end(15, uuid, 1);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn much_output_needs_no_memory() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let (done, go) = (fixture.path("done"), fixture.path("go"));
    let script = format!(
        "head -c 100000000 /dev/zero; echo 1 > {}; until [ -e {} ]; do sleep 0.01; done",
        done.display(),
        go.display()
    );
    let supervisor = fixture.start(uuid, 1, &shell(&script));
    line_of(&done);
    for pid in [supervisor, reaper_of(supervisor)] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 20_000, "{peak}");
    }
    std::fs::write(&go, "").unwrap();
    assert_eq!(fixture.finished(uuid, 1).stdout_bytes, 100_000_000);
    let arguments = ["--output", "stdout", "--attempt", "1", uuid.as_str()];
    assert_eq!(fixture.run(&arguments).stdout.len(), 100_000_000);
    let report = fixture.report_with(&["--ack", &format!("{uuid}:1")]);
    assert!(report.containers.is_empty());
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_job_may_close_its_output_and_delete_its_directory() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let script = "exec >&- 2>&- <&-; rmdir \"$(pwd)\"; cd /; exit 5";
    fixture.start(uuid, 1, &shell(script));
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 5 });
    assert!(!fixture.entry(uuid, 1).join("work").exists());
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_job_that_deletes_its_entry_is_still_reported() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let script = format!("rm -rf {}; exit 6", fixture.entry(uuid, 1).display());
    fixture.start(uuid, 1, &shell(&script));
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 6 });
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_directory_without_permissions_is_removed_with_the_result() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let script = "mkdir -p a/b/c; touch a/b/c/d; chmod 0 a/b/c a/b a; chmod 0 .";
    fixture.start(uuid, 1, &shell(script));
    fixture.finished(uuid, 1);
    let report = fixture.report_with(&["--ack", &format!("{uuid}:1")]);
    assert!(report.containers.is_empty());
    fixture.assert_clean(&[uuid]);
}

#[test]
fn the_time_of_the_start_is_told_while_it_runs() {
    let fixture = Fixture::new();
    let uuid = uuid();
    fixture.start(uuid, 3, &shell("sleep 1000"));
    let started_at = eventually("the start", || match fixture.reported(uuid)?.state {
        ReportedState::Running { started_at } => started_at,
        other => panic!("{other:?}"),
    });
    let list = fixture.run(&["--list"]);
    assert_eq!(list.stdout, format!("{uuid}\n").as_bytes());
    fixture.end(9, uuid, 3);
    assert_eq!(fixture.finished(uuid, 3).started_at, Some(started_at));
    assert!(fixture.run(&["--list"]).stdout.is_empty());
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_job_ignores_no_signals_that_whoever_started_it_ignores() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let arguments = [
        "--detach",
        "--stdin-config",
        "--attempt",
        "1",
        uuid.as_str(),
    ];
    let mut starter = Command::new("sh")
        .args(["-c", "trap '' HUP INT USR1 CHLD; exec \"$@\"", "sh", RUNNER])
        .args(arguments)
        .env("LONGSHORE_RUN_DIR", fixture.root())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let document = shell("grep -E '^Sig(Blk|Ign)' /proc/self/status");
    let mut stdin = starter.stdin.take().unwrap();
    stdin.write_all(&document.to_json().unwrap()).unwrap();
    drop(stdin);
    assert!(starter.wait().unwrap().success());
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 0 });
    let status = fixture.stdout(uuid, 1);
    let masks = status.lines().map(|line| {
        let (_, mask) = line.split_once(":\t").unwrap();
        // Programs cannot set what the C library keeps for itself.
        u64::from_str_radix(mask, 16).unwrap() & !(0b11 << 31)
    });
    assert!(masks.eq([0, 0]), "{status}");
}
