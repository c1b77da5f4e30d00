//! An attempt runs at most once, and one that may have run is always listed.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod common;

use common::*;
use longshore_runner_api::{MAX_DOCUMENT_BYTES, StartDocument};
use longshore_types::{Attempt, ContainerUuid, ExitCause, ReportedState};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A job that appends a line to a file when it starts.
fn witness(path: &Path, then: &str) -> StartDocument {
    shell(&format!("echo start $$ >> {}; {then}", path.display()))
}

fn starts(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn the_same_attempt_from_eight_processes_runs_once() {
    let fixture = Fixture::new();
    for _ in 0..5 {
        let uuid = uuid();
        let file = fixture.path(uuid.as_str());
        let document = witness(&file, "sleep 0.05").to_json().unwrap();
        let codes: Vec<_> = std::thread::scope(|scope| {
            let start = || fixture.start_bytes(uuid, 1, &document).status.code();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let count = |code| codes.iter().filter(|c| **c == Some(code)).count();
        assert_eq!((count(0), count(3)), (1, 7), "{codes:?}");
        assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 0 });
        assert_eq!(starts(&file), 1);
        fixture.assert_clean(&[uuid]);
    }
}

#[test]
fn an_attempt_that_was_killed_before_it_came_is_refused() {
    let fixture = Fixture::new();
    let uuid = uuid();
    assert_eq!(fixture.kill(15, uuid, 2), Some(0));
    for attempt in [1, 2] {
        let output = fixture.try_start(uuid, attempt, &shell("exit 0"));
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_eq!(output.stderr.iter().filter(|b| **b == b'\n').count(), 1);
        assert!(output.stdout.is_empty());
    }
    assert!(fixture.report().containers.is_empty());
    // It may be withdrawn without a signal, too.
    assert_eq!(fixture.kill(0, uuid, 3), Some(0));
    let output = fixture.try_start(uuid, 3, &shell("exit 0"));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    fixture.start(uuid, 4, &shell("exit 0"));
    assert_eq!(fixture.cause(uuid, 4), ExitCause::Exited { code: 0 });
    fixture.assert_clean(&[uuid]);
}

#[test]
fn starts_and_kills_at_the_same_time_leave_nothing_running() {
    let fixture = Fixture::new();
    let mut seen = std::collections::BTreeMap::<_, usize>::new();
    for i in 0..60 {
        let killed = start_and_kill(&fixture, Duration::ZERO, Duration::from_micros(i * 100));
        *seen.entry(killed).or_default() += 1;
    }
    // Where one command takes much longer than the other, one was always first.
    for ahead in twofold(Duration::from_millis(10)) {
        for (killed, start, kill) in [
            (true, Duration::ZERO, ahead),
            (false, ahead, Duration::ZERO),
        ] {
            if !seen.contains_key(&killed) {
                *seen
                    .entry(start_and_kill(&fixture, start, kill))
                    .or_default() += 1;
            }
        }
    }
    eprintln!("started and killed, or refused: {seen:?}");
    assert_eq!(seen.len(), 2, "{seen:?}");
}

/// This, and twice as much each time, as far as two seconds.
fn twofold(first: Duration) -> impl Iterator<Item = Duration> {
    let twice = |delay: &Duration| Some(*delay * 2);
    std::iter::successors(Some(first), twice).take_while(|delay| *delay <= Duration::from_secs(2))
}

/// Whether an attempt was started that is killed beside its start.
fn start_and_kill(fixture: &Fixture, start_after: Duration, kill_after: Duration) -> bool {
    let uuid = uuid();
    let file = fixture.path(uuid.as_str());
    let document = witness(&file, "exec sleep 1000").to_json().unwrap();
    let start = std::thread::scope(|scope| {
        let start = scope.spawn(|| {
            spin(start_after);
            fixture.start_bytes(uuid, 1, &document).status.code()
        });
        spin(kill_after);
        // As a dispatcher does: a start may take longer than a kill waits for there to be a supervisor.
        eventually("the end on request", || {
            (fixture.kill(15, uuid, 1) == Some(0)).then_some(())
        });
        start.join().unwrap()
    });
    let started = match start {
        Some(0) => true,
        Some(3) => false,
        other => panic!("{other:?}"),
    };
    match started {
        true => assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed),
        false => assert_eq!(starts(&file), 0),
    }
    fixture.assert_clean(&[uuid]);
    started
}

#[test]
fn an_acknowledged_attempt_is_never_started_again() {
    let fixture = Fixture::new();
    let uuid = uuid();
    fixture.start(uuid, 4, &shell("exit 0"));
    fixture.finished(uuid, 4);
    fixture.report_with(&["--ack", &format!("{uuid}:4")]);
    for attempt in [3, 4] {
        let output = fixture.try_start(uuid, attempt, &shell("exit 0"));
        assert_eq!(output.status.code(), Some(3), "{output:?}");
    }
    assert!(fixture.report().containers.is_empty());
    fixture.start(uuid, 5, &shell("exit 0"));
    fixture.finished(uuid, 5);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_newer_attempt_is_not_started_beside_an_older_one() {
    let fixture = Fixture::new();
    let uuid = uuid();
    fixture.start(uuid, 1, &shell("sleep 1000"));
    let output = fixture.try_start(uuid, 2, &shell("exit 0"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("still runs"));
    assert_eq!(fixture.reported(uuid).unwrap().attempt, Attempt(1));
    fixture.end(9, uuid, 1);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    // It was refused for the moment only; and the older result is not lost for it.
    fixture.start(uuid, 2, &shell("sleep 1000"));
    assert_eq!(fixture.kill(15, uuid, 1), Some(0), "the older one is gone");
    let newer = fixture.reported(uuid).unwrap();
    assert_eq!(newer.attempt, Attempt(2));
    assert!(
        matches!(newer.state, ReportedState::Running { .. }),
        "{newer:?}"
    );
    fixture.end(9, uuid, 2);
    fixture.finished(uuid, 2);
    fixture.report_with(&["--ack", &format!("{uuid}:2")]);
    let older = fixture.reported(uuid).unwrap();
    assert_eq!(older.attempt, Attempt(1));
    assert!(
        matches!(older.state, ReportedState::Finished(_)),
        "{older:?}"
    );
    let report = fixture.report_with(&["--ack", &format!("{uuid}:1")]);
    assert!(report.containers.is_empty());
    let late = fixture.try_start(uuid, 2, &shell("exit 0"));
    assert_eq!(late.status.code(), Some(3), "{late:?}");
    fixture.assert_clean(&[uuid]);
}

#[test]
fn an_unusable_document_leaves_nothing() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let huge = vec![b' '; 2 * MAX_DOCUMENT_BYTES];
    let good = shell("exit 0").to_json().unwrap();
    let cases: [&[u8]; 8] = [
        b"",
        b"{",
        b"null",
        b"\xff\xfe",
        br#"{"version":9,"command":["true"]}"#,
        br#"{"version":1,"command":["true"],"cwd":"relative"}"#,
        &good[..good.len() - 1],
        &huge,
    ];
    for bytes in cases {
        let output = fixture.start_bytes(uuid, 1, bytes);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
    assert!(fixture.report().containers.is_empty());
    assert!(!fixture.entry(uuid, 1).exists() && !fixture.lock_file(uuid).exists());
    fixture.start(uuid, 1, &shell("exit 0"));
    fixture.finished(uuid, 1);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_large_document_is_read_whole() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let mut document = shell("set | wc -c; exit 2");
    for i in 0..15 {
        document.env.insert(format!("V{i}"), "x".repeat(100_000));
    }
    fixture.start(uuid, 1, &document);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Exited { code: 2 });
    assert!(fixture.stdout(uuid, 1).trim().parse::<u64>().unwrap() > 1_500_000);
    fixture.assert_clean(&[uuid]);
}

#[test]
fn wrong_arguments_are_told_apart() {
    let fixture = Fixture::new();
    for arguments in [&["--detach"][..], &[], &["--kill", "x"], &["--nonsense"]] {
        let output = fixture.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    assert!(fixture.run(&["--help"]).status.success());
    assert!(
        fixture
            .run(&["-version"])
            .stdout
            .starts_with(b"longshore-run ")
    );
    assert!(!fixture.root().exists(), "none of them needs the directory");
}

/// Lets so much time pass that the next step falls on another point of what goes on meanwhile.
fn spin(delay: Duration) {
    let since = Instant::now();
    while since.elapsed() < delay {
        std::hint::spin_loop();
    }
}

/// What became of a start command that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Landed {
    Nothing,
    ListedWithoutSupervisor,
    Running,
    TooLate,
}

#[test]
fn a_start_command_that_dies_at_any_point_leaves_nothing_or_what_is_listed() {
    let fixture = Fixture::new();
    // How long a start takes here and now.
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let uuid = uuid();
        let since = Instant::now();
        fixture.start(uuid, 1, &shell("exit 0"));
        longest = longest.max(since.elapsed());
        fixture.finished(uuid, 1);
    }
    let mut landed = std::collections::BTreeMap::<Landed, usize>::new();
    for i in 0..60_u32 {
        let uuid = uuid();
        // All points in turn, spread over the time that a start takes.
        let share = f64::from((i * 37) % 60) / 60.0;
        let delay = longest.mul_f64(share * 1.2);
        let point = killed_start(&fixture, uuid, delay);
        *landed.entry(point).or_default() += 1;
        fixture.assert_clean(&[uuid]);
    }
    // Should the machine have become slower since, none may have been late enough.
    for delay in twofold(longest) {
        if landed.len() < 2 {
            let uuid = uuid();
            *landed
                .entry(killed_start(&fixture, uuid, delay))
                .or_default() += 1;
            fixture.assert_clean(&[uuid]);
        }
    }
    eprintln!("kills landed: {landed:?}");
    assert!(landed.contains_key(&Landed::Nothing), "{landed:?}");
    assert!(landed.len() > 1, "{landed:?}");
}

fn killed_start(fixture: &Fixture, uuid: ContainerUuid, delay: Duration) -> Landed {
    let file = fixture.path(uuid.as_str());
    let document = witness(&file, "sleep 0.02").to_json().unwrap();
    let mut child = fixture.spawn_start(uuid, 1);
    child.stdin.take().unwrap().write_all(&document).unwrap();
    spin(delay);
    let too_late = child.try_wait().unwrap().is_some();
    child.kill().unwrap();
    child.wait().unwrap();

    let Some(container) = fixture.reported(uuid) else {
        // Then it must not come later, and may be started.
        fixture.start(uuid, 1, &witness(&file, "true"));
        fixture.finished(uuid, 1);
        assert_eq!(starts(&file), 1);
        return Landed::Nothing;
    };
    assert_eq!(container.attempt, Attempt(1));
    let again = fixture.try_start(uuid, 1, &witness(&file, "true"));
    assert_eq!(again.status.code(), Some(3), "{again:?}");
    let lost = fixture.cause(uuid, 1) == ExitCause::SupervisorLost;
    assert_eq!(starts(&file), usize::from(!lost));
    match (too_late, lost) {
        (true, false) => Landed::TooLate,
        (false, false) => Landed::Running,
        (_, true) => Landed::ListedWithoutSupervisor,
    }
}

/// Says when it is dropped that it is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A supervisor that is about to begin looks like one that is gone: its lock is held and it has
/// not marked it yet. Whoever looks just then must not end what it then begins. The moment is short:
/// with 4 ms put between the two looks of the scan, 13 of these 150 were ended before it looked again.
#[test]
fn looking_does_not_disturb_what_starts() {
    let fixture = Fixture::new();
    let uuids: Vec<_> = (0..150).map(|_| uuid()).collect();
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        // If this fails, too: the scope waits for all of them.
        let _over = Over(&busy);
        for _ in 0..3 {
            scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    fixture.report();
                }
            });
        }
        let fixture = &fixture;
        for chunk in uuids.chunks(50) {
            scope.spawn(move || {
                for uuid in chunk {
                    fixture.start(*uuid, 1, &shell("true"));
                }
            });
        }
        let causes: Vec<_> = uuids.iter().map(|uuid| fixture.cause(*uuid, 1)).collect();
        let disturbed = causes.iter().filter(|cause| !cause.is_success()).count();
        assert_eq!(disturbed, 0, "{causes:?}");
    });
}
