//! The watch stream: what the commands do, over one channel.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod common;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use longshore_runner_api::StartDocument;
use longshore_runner_api::command::{EXIT_KNOWN_ATTEMPT, EXIT_USAGE};
use longshore_runner_api::report::format_acks;
use longshore_runner_api::watch::{Answers, Ask, FromRunner, Request};
use longshore_types::{Attempt, ContainerUuid, ExitCause, ReportedState, RunnerReport};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A dispatcher's end of a stream.
struct Stream {
    runner: Child,
    answers: Answers,
    next: u64,
}

impl Stream {
    fn open(fixture: &Fixture) -> Self {
        Self::open_with(fixture, &[])
    }

    fn open_with(fixture: &Fixture, more: &[&str]) -> Self {
        let mut command = fixture.command(&[&["--watch"], more].concat());
        let runner = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stream = Self {
            runner,
            answers: Answers::default(),
            next: 0,
        };
        let hello = stream.hear();
        assert!(
            matches!(hello, FromRunner::Hello { protocol: 1, .. }),
            "{hello:?}"
        );
        stream
    }

    fn say(&mut self, text: &[u8]) {
        self.runner.stdin.as_mut().unwrap().write_all(text).unwrap();
    }

    /// Asks, and returns the number of the request.
    fn ask(&mut self, ask: Ask, bytes: &[u8]) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut text = Request { id, ask }.line().into_bytes();
        text.extend_from_slice(bytes);
        self.say(&text);
        id
    }

    fn start(&mut self, uuid: ContainerUuid, attempt: u32, document: &StartDocument) -> u64 {
        let document = document.to_json().unwrap();
        let (attempt, bytes) = (Attempt(attempt), document.len());
        let ask = Ask::Start {
            uuid,
            attempt,
            bytes,
        };
        self.ask(ask, &document)
    }

    fn ask_report(&mut self, known: &str, acks: &[(ContainerUuid, Attempt)]) -> u64 {
        let ask = Ask::Report {
            known: known.into(),
            wait_ms: 60_000,
            acks: format_acks(acks),
        };
        self.ask(ask, &[])
    }

    /// What it says next; bounded.
    fn hear(&mut self) -> FromRunner {
        loop {
            if let Some(message) = self.answers.next().unwrap() {
                return message;
            }
            let output = self.runner.stdout.as_mut().unwrap();
            let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(BOUND).unwrap();
            assert_ne!(poll(&mut ready, patience).unwrap(), 0, "it says nothing");
            let mut buffer = [0; 4096];
            let count = output.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the stream has ended");
            self.answers.push(&buffer[..count]);
        }
    }

    fn done(&mut self, id: u64) -> (u32, String) {
        match self.hear() {
            FromRunner::Done { id: of, code, said } if of == id => (code, said),
            other => panic!("not the end of {id}: {other:?}"),
        }
    }

    fn reported(&mut self, id: u64) -> RunnerReport {
        match self.hear() {
            FromRunner::Report { id: of, report } if of == id => report,
            other => panic!("not the report {id}: {other:?}"),
        }
    }

    /// Ends the input, and waits for the end of the runner.
    fn close(mut self) -> Option<i32> {
        drop(self.runner.stdin.take());
        eventually("the end of the stream", || self.runner.try_wait().unwrap()).code()
    }
}

#[test]
fn a_container_is_started_watched_and_acknowledged() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let mut stream = Stream::open(&fixture);
    let news = stream.ask_report("", &[]);
    let empty = stream.reported(news);
    assert_eq!(empty.containers, []);

    // Waits until there is something else to say.
    let news = stream.ask_report(&empty.digest, &[]);
    let go = fixture.path("go");
    let script = format!("until [ -e {} ]; do sleep 0.01; done; exit 7", go.display());
    let start = stream.start(uuid, 1, &shell(&script));
    let mut answers = [stream.hear(), stream.hear()];
    answers.sort_by_key(|answer| matches!(answer, FromRunner::Report { .. }));
    let [done, FromRunner::Report { id, report }] = answers else {
        panic!("{answers:?}");
    };
    assert_eq!(id, news);
    assert!(matches!(done, FromRunner::Done { id, code: 0, .. } if id == start));
    let running = |report: &RunnerReport| {
        assert_eq!(report.containers.len(), 1);
        matches!(report.containers[0].state, ReportedState::Running { .. })
    };
    assert!(running(&report));

    std::fs::write(&go, "").unwrap();
    let mut report = report;
    while running(&report) {
        let news = stream.ask_report(&report.digest, &[]);
        report = stream.reported(news);
    }
    let ReportedState::Finished(exit) = &report.containers[0].state else {
        panic!("{report:?}");
    };
    assert_eq!(exit.cause, ExitCause::Exited { code: 7 });

    let old_mark = fixture.root().join("mark/aaaaa-dz642-000000000000000");
    std::os::unix::fs::symlink("1", &old_mark).unwrap();
    let touched = Command::new("touch")
        .args(["--no-dereference", "--date", "8 days ago"])
        .arg(&old_mark)
        .status();
    assert!(touched.unwrap().success());
    let news = stream.ask_report(&report.digest, &[(uuid, Attempt(1))]);
    assert_eq!(stream.reported(news).containers, []);
    eventually("the end of an old mark", || {
        old_mark.symlink_metadata().is_err().then_some(())
    });
    assert_eq!(stream.close(), Some(0));
    fixture.assert_clean(&[uuid]);
}

#[test]
fn what_it_refuses_it_refuses_as_the_commands_do() {
    let fixture = Fixture::new();
    let (one, other) = (uuid(), uuid());
    let mut stream = Stream::open(&fixture);
    // Killed before it came: never started.
    let (attempt, signal) = (Attempt(1), 15);
    let kill = Ask::Kill {
        uuid: one,
        attempt,
        signal,
    };
    let kill = stream.ask(kill, &[]);
    assert_eq!(stream.done(kill).0, 0);
    let start = stream.start(one, 1, &shell("exit 0"));
    let (code, said) = stream.done(start);
    assert_eq!(code, EXIT_KNOWN_ATTEMPT, "{said}");
    assert!(said.contains("not newer"), "{said}");

    let (attempt, bytes) = (Attempt(1), 8);
    let nonsense = Ask::Start {
        uuid: other,
        attempt,
        bytes,
    };
    let nonsense = stream.ask(nonsense, b"nonsense");
    let (code, said) = stream.done(nonsense);
    assert_eq!(code, 1, "{said}");
    assert!(!said.is_empty());

    stream.say(b"{\"type\":\"sing\",\"id\":99,\"bytes\":3}\nla\n");
    assert_eq!(stream.done(99).0, EXIT_USAGE);
    let ping = stream.ask(Ask::Ping, &[]);
    assert_eq!(stream.done(ping), (0, String::new()));
    assert_eq!(fixture.report().containers, []);
    assert_eq!(stream.close(), Some(0));
    fixture.assert_clean(&[one, other]);
}

/// What the open descriptors of a process are.
fn descriptors(pid: impl std::fmt::Display) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter();
    let links = entries
        .flatten()
        .flatten()
        .filter_map(|entry| entry.path().read_link().ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_end_of_a_stream_ends_nothing_that_it_has_started() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let mut stream = Stream::open(&fixture);
    let news = stream.ask_report("", &[]);
    stream.reported(news);
    let start = stream.start(uuid, 1, &shell("exec sleep 1000"));
    assert_eq!(stream.done(start).0, 0);
    let runner = i32::try_from(stream.runner.id()).unwrap();
    signal(runner, libc::SIGKILL).unwrap();
    stream.close();
    let report = fixture.report();
    assert!(matches!(
        report.containers[0].state,
        ReportedState::Running { .. }
    ));
    // Nothing of the stream's was inherited: neither its watches nor the way back. What a start
    // has pipes for, it may still be about to close.
    eventually("all pipes and watches to be closed", || {
        let mut descriptors = fixture.processes().into_iter().flat_map(descriptors);
        let of_stream = |what: &String| what.contains("inotify") || what.starts_with("pipe:");
        (!descriptors.any(|what| of_stream(&what))).then_some(())
    });

    // Another one finds it, and ends it.
    let mut stream = Stream::open(&fixture);
    let (attempt, mut signal) = (Attempt(1), 9);
    eventually("the end on request", || {
        let kill = Ask::Kill {
            uuid,
            attempt,
            signal,
        };
        let kill = stream.ask(kill, &[]);
        // Asked to end it is once; what has to be written to disk then may take its time.
        signal = 0;
        (stream.done(kill).0 == 0).then_some(())
    });
    assert_eq!(stream.close(), Some(0));
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn what_it_has_started_leaves_nothing_behind_when_it_has_ended() {
    let fixture = Fixture::new();
    let uuids = [uuid(), uuid(), uuid()];
    let mut stream = Stream::open(&fixture);
    for uuid in uuids {
        let start = stream.start(uuid, 1, &shell("exit 0"));
        assert_eq!(stream.done(start).0, 0);
    }
    let finished = |report: &RunnerReport| {
        let states = report.containers.iter().map(|found| &found.state);
        states
            .filter(|state| matches!(state, ReportedState::Finished(_)))
            .count()
    };
    let mut report = RunnerReport::default();
    while finished(&report) < uuids.len() {
        let news = stream.ask_report(&report.digest, &[]);
        report = stream.reported(news);
    }
    // Supervisors are children of the stream: it has to wait for them.
    let runner = i32::try_from(stream.runner.id()).unwrap();
    eventually("all children to be waited for", || {
        let ping = stream.ask(Ask::Ping, &[]);
        stream.done(ping);
        // What is left waits to become one itself.
        (children(runner) == spares(runner)).then_some(())
    });
    assert_eq!(stream.close(), Some(0));
    fixture.assert_clean(&uuids);
}

#[test]
fn nonsense_ends_it_with_an_error() {
    let fixture = Fixture::new();
    let mut stream = Stream::open(&fixture);
    stream.say(b"sing me a song\n");
    assert_eq!(stream.close(), Some(1));
    fixture.assert_clean(&[]);
}

#[test]
fn what_is_asked_is_a_sign_of_life() {
    let fixture = Fixture::new();
    let off = fixture.path("off");
    let mut gaps = Gaps::new();
    let command = format!("echo off >> '{}'", off.display());
    let guard = ["--guard", "2", "--guard-results", "2", "--power-off"];
    let output = fixture.run(&[&guard[..], &[&command]].concat());
    assert!(output.status.success(), "{output:?}");

    let mut stream = Stream::open(&fixture);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(5) {
        gaps.contact(|| {
            let ping = stream.ask(Ask::Ping, &[]);
            stream.done(ping);
        });
        std::thread::sleep(Duration::from_millis(100));
    }
    // On a machine that stood still for so long it would have been right.
    assert!(!off.exists() || gaps.longest() > Duration::from_millis(1900));
    // An open stream alone is none: it may be half open.
    eventually("the power-off", || off.exists().then_some(()));
    assert_eq!(stream.close(), Some(0));
    std::fs::remove_file(fixture.root().join("guard/settings")).unwrap();
    fixture.assert_clean(&[]);
}

#[test]
fn it_ends_when_the_dispatcher_is_silent_and_what_runs_goes_on() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let silence = Duration::from_secs(4);
    let mut stream = Stream::open_with(&fixture, &["--silence", "4"]);
    let go = fixture.path("go");
    let script = format!("until [ -e '{}' ]; do sleep 0.01; done", go.display());
    let start = stream.start(uuid, 1, &shell(&script));
    assert_eq!(stream.done(start).0, 0);
    // Every request puts the end off.
    let since = Instant::now();
    let mut asked = since;
    while since.elapsed() < silence / 2 {
        asked = Instant::now();
        let ping = stream.ask(Ask::Ping, &[]);
        stream.done(ping);
    }
    // Its input stays open, as that of a connection does whose other side is gone.
    let status = eventually("the end", || stream.runner.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(asked.elapsed() >= silence, "{:?}", asked.elapsed());

    // The next one finds everything.
    let mut stream = Stream::open(&fixture);
    let report = stream.ask_report("", &[]);
    let running = stream.reported(report);
    assert!(
        matches!(running.containers[0].state, ReportedState::Running { .. }),
        "{running:?}"
    );
    std::fs::write(&go, "").unwrap();
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 0 });
    assert_eq!(stream.close(), Some(0));
    fixture.assert_clean(&[uuid]);
}

/// The processes of a stream that wait to become supervisors: they have no container's name.
fn spares(runner: i32) -> Vec<i32> {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
    let mut spares = children(runner);
    spares.retain(|pid| alive(*pid) && name(pid).is_ok_and(|name| name.trim() == "longshore-run"));
    spares
}

#[test]
fn a_spare_supervisor_goes_with_the_stream_and_its_death_hinders_nobody() {
    let fixture = Fixture::new();
    let uuids = [uuid(), uuid(), uuid()];
    let mut stream = Stream::open(&fixture);
    let runner = i32::try_from(stream.runner.id()).unwrap();
    let spare = || eventually("a spare supervisor", || spares(runner).first().copied());

    let killed = spare();
    let reaper = |spare| eventually("its reaper", || children(spare).first().copied());
    let its_reaper = reaper(killed);
    signal(killed, libc::SIGKILL).unwrap();
    for pid in [killed, its_reaper] {
        eventually("its death", || (!alive(pid)).then_some(()));
    }
    let start = stream.start(uuids[0], 1, &shell("exit 0"));
    assert_eq!(stream.done(start).0, 0);
    assert_eq!(fixture.cause(uuids[0], 1), ExitCause::Exited { code: 0 });
    // What it has made ahead goes with an acknowledgement.
    let blank = fixture.root().join(format!("blank/{killed}"));
    assert!(blank.is_dir());
    stream.ask_report("", &[(uuids[0], Attempt(1))]);
    stream.hear();
    eventually("the end of a blank", || (!blank.exists()).then_some(()));

    // The next one becomes the supervisor of what is started next.
    let used = spare();
    let start = stream.start(uuids[1], 1, &shell("sleep 1000"));
    assert_eq!(stream.done(start).0, 0);
    let name = std::fs::read_to_string(format!("/proc/{used}/comm")).unwrap();
    assert!(uuids[1].as_str().ends_with(name.trim()), "{name}");
    // One without its reaper makes another.
    let its_reaper = reaper(spare());
    signal(its_reaper, libc::SIGKILL).unwrap();
    eventually("its death", || (!alive(its_reaper)).then_some(()));
    fixture.end(9, uuids[1], 1);
    let start = stream.start(uuids[1], 2, &shell("exit 3"));
    assert_eq!(stream.done(start).0, 0);
    assert_eq!(fixture.cause(uuids[1], 2), ExitCause::Exited { code: 3 });
    // Beside the entries of older attempts, too.
    let used = spare();
    let start = stream.start(uuids[1], 3, &shell("sleep 1000"));
    assert_eq!(stream.done(start).0, 0);
    // What is too long for it another process gets.
    let mut long = shell("exit 0");
    long.env.insert("LONG".into(), "x".repeat(100 << 10));
    spare();
    let start = stream.start(uuids[2], 1, &long);
    assert_eq!(stream.done(start).0, 0);
    assert_eq!(fixture.cause(uuids[2], 1), ExitCause::Exited { code: 0 });

    let last = spare();
    assert_eq!(stream.close(), Some(0));
    eventually("its end", || (!alive(last)).then_some(()));
    assert!(alive(used), "a supervisor does not go with the stream");
    fixture.end(9, uuids[1], 3);
    fixture.assert_clean(&uuids);
}

#[test]
fn what_a_spare_supervisor_runs_outlives_neither_it_nor_its_reaper() {
    let fixture = Fixture::new();
    let mut stream = Stream::open(&fixture);
    let runner = i32::try_from(stream.runner.id()).unwrap();
    let pid = fixture.path("pid");
    let script = format!("trap '' TERM; echo $$ > {}; sleep 1000; :", pid.display());
    let victims: [fn(i32) -> i32; 2] = [|supervisor| supervisor, reaper_of];
    let uuids = victims.map(|victim| {
        let uuid = uuid();
        let supervisor = eventually("a spare supervisor", || {
            let ready = |spare: &i32| !children(*spare).is_empty();
            spares(runner).first().copied().filter(ready)
        });
        let start = stream.start(uuid, 1, &shell(&script));
        assert_eq!(stream.done(start).0, 0);
        let job = pid_of(&pid);
        signal(victim(supervisor), libc::SIGKILL).unwrap();
        assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
        assert!(!alive(job), "it has outlived {supervisor}");
        std::fs::remove_file(&pid).unwrap();
        uuid
    });
    assert_eq!(stream.close(), Some(0));
    fixture.assert_clean(&uuids);
}

#[test]
fn the_reaper_of_a_spare_supervisor_shares_the_lock_that_counts() {
    let fixture = Fixture::new();
    let (new, left) = (uuid(), uuid());
    // As a supervisor leaves it that could not delete it.
    std::fs::create_dir_all(fixture.root().join("lock")).unwrap();
    std::fs::write(fixture.lock_file(left), "").unwrap();
    let mut stream = Stream::open(&fixture);
    let runner = i32::try_from(stream.runner.id()).unwrap();
    for uuid in [new, left] {
        let supervisor = eventually("a spare supervisor", || spares(runner).first().copied());
        eventually("its reaper", || children(supervisor).first().copied());
        let start = stream.start(uuid, 1, &shell("sleep 1000"));
        assert_eq!(stream.done(start).0, 0);
        let lock = fixture.lock_file(uuid).canonicalize().unwrap();
        let lock = lock.display().to_string();
        let shares = |pid: &i32| descriptors(pid).contains(&lock);
        eventually("a reaper that shares its lock", || {
            children(supervisor).iter().any(shares).then_some(())
        });
        fixture.end(9, uuid, 1);
    }
    assert_eq!(stream.close(), Some(0));
    fixture.assert_clean(&[new, left]);
}

/// Cannot make a container, and says so only when it may.
const SLOW_DOCKER: &str = r#"#!/bin/sh
[ "$1" = create ] || exit 0
until [ -e "$HOME/go" ]; do sleep 0.01; done
exit 1
"#;

#[test]
fn what_takes_long_to_begin_is_told_once_that_is_news() {
    let mut fixture = Fixture::new();
    let home = fixture.have_docker(SLOW_DOCKER);
    let uuid = uuid();
    let mut document = shell("exit 0");
    document.engine = longshore_runner_api::Engine::Docker;
    document.image = Some("busybox".into());

    let mut stream = Stream::open(&fixture);
    let news = stream.ask_report("", &[]);
    let empty = stream.reported(news);
    let news = stream.ask_report(&empty.digest, &[]);
    // It waits before the start comes; what is read together with a start has that in its report.
    let ping = stream.ask(Ask::Ping, &[]);
    assert_eq!(stream.done(ping), (0, String::new()));
    let start = stream.start(uuid, 1, &document);
    assert_eq!(stream.done(start).0, 0);
    let report = stream.reported(news);
    let begins = ReportedState::Running { started_at: None };
    assert_eq!(report.containers[0].state, begins);
    let news = stream.ask_report(&report.digest, &[]);
    std::fs::write(home.join("go"), "").unwrap();
    let mut report = stream.reported(news);
    // Only if that is seen, which it need not be, it has begun before it has ended.
    if let ReportedState::Running { started_at } = report.containers[0].state {
        assert_ne!(started_at, None);
        let news = stream.ask_report(&report.digest, &[]);
        report = stream.reported(news);
    }
    assert!(
        matches!(report.containers[0].state, ReportedState::Finished(_)),
        "{report:?}"
    );
    assert_eq!(stream.close(), Some(0));
    fixture.assert_clean(&[uuid]);
}

/// Notes who has asked it, and removes nothing before it may.
const PATIENT_DOCKER: &str = r#"#!/bin/sh
echo $PPID >> "$HOME/asked"
until [ -e "$HOME/go" ]; do sleep 0.01; done
"#;

#[test]
fn what_an_engine_has_to_remove_is_stale_until_then_and_keeps_nobody_waiting() {
    let mut fixture = Fixture::new();
    let home = fixture.have_docker(PATIENT_DOCKER);
    let uuid = uuid();
    fixture.lose_container(uuid);
    let mut stream = Stream::open(&fixture);
    let news = stream.ask_report("", &[]);
    let report = stream.reported(news);
    assert_eq!(report.containers[0].state, ReportedState::Stale);
    eventually("the engine to be asked", || {
        home.join("asked").exists().then_some(())
    });
    let ping = stream.ask(Ask::Ping, &[]);
    assert_eq!(stream.done(ping), (0, String::new()));
    let news = stream.ask_report(&report.digest, &[]);
    std::fs::write(home.join("go"), "").unwrap();
    let report = stream.reported(news);
    let ReportedState::Finished(exit) = &report.containers[0].state else {
        panic!("{report:?}");
    };
    assert_eq!(exit.cause, ExitCause::SupervisorLost);
    let (asked, own) = (line_of(&home.join("asked")), stream.runner.id());
    let by_itself = asked.lines().any(|pid| pid == own.to_string());
    assert!(!by_itself, "{own} has asked: {asked}");
    assert_eq!(stream.close(), Some(0));
    fixture.assert_clean(&[uuid]);
}
