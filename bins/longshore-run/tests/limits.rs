//! A container gets what it asked for and no more, and its end is told as it was.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod common;

use std::path::Path;
use std::sync::LazyLock;

use common::*;
use longshore_runner_api::StartDocument;
use longshore_types::{AppliedLimits, ByteSize, ExitCause, Means};

/// Whether this user can make control groups that limit RAM here; says so loudly if not.
fn groups_can_limit(what: &str) -> bool {
    // Two tests that try it at the same time would be in each other's way.
    static POSSIBLE: LazyLock<bool> = LazyLock::new(|| {
        let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        let places = [
            (v2.contains("memory"), "/sys/fs/cgroup"),
            (true, "/sys/fs/cgroup/memory"),
        ];
        places.iter().any(|(usable, place)| {
            let probe = Path::new(place).join(format!("longshore-test.{}", uuid()));
            *usable && std::fs::create_dir(&probe).is_ok() && std::fs::remove_dir(&probe).is_ok()
        })
    });
    if !*POSSIBLE {
        eprintln!("NOT TESTED: {what}; this user cannot limit RAM by control groups here");
    }
    *POSSIBLE
}

fn limited(script: &str, ram: ByteSize) -> StartDocument {
    let mut document = shell(script);
    (document.ram, document.vcpus) = (Some(ram), Some(1));
    document
}

/// Uses memory without end.
const HOG: &str = "tail /dev/zero";

#[test]
fn a_job_that_uses_up_its_memory_is_told_so() {
    if !groups_can_limit("a job that uses up its memory") {
        return;
    }
    let fixture = Fixture::new();
    let ram = ByteSize::mib(32);
    let scripts = [
        // The job itself, a part of it, and a part of which the rest takes no notice.
        format!("exec {HOG}"),
        format!("{HOG}; exit 3"),
        format!("{HOG} | cat; exit 0"),
    ];
    for script in scripts {
        let uuid = uuid();
        fixture.start(uuid, 1, &limited(&script, ram));
        let exit = fixture.finished(uuid, 1);
        assert_eq!(
            exit.cause,
            ExitCause::OutOfMemory { limit: ram },
            "{script}"
        );
        assert!(exit.limits.unwrap().are_whole(), "{:?}", exit.limits);
        fixture.assert_clean(&[uuid]);
    }
}

#[test]
fn a_job_that_keeps_to_its_memory_is_left_alone() {
    if !groups_can_limit("a job that keeps to its memory") {
        return;
    }
    let fixture = Fixture::new();
    let uuid = uuid();
    // What it writes passes through the same memory, and gives way.
    let script = "head -c 100000000 /dev/zero > big; kill -9 $$";
    fixture.start(uuid, 1, &limited(script, ByteSize::mib(32)));
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Signaled { signal: 9 });
    fixture.assert_clean(&[uuid]);
}

#[test]
fn the_groups_say_what_was_asked_for() {
    if !groups_can_limit("what the control groups say") {
        return;
    }
    let fixture = Fixture::new();
    let uuid = uuid();
    let mut document = limited("sleep 1000 & wait", ByteSize::mib(64));
    (document.vcpus, document.process_limit) = (Some(3), 77);
    fixture.start(uuid, 1, &document);
    fixture.await_start(uuid);
    let groups = cgroups(uuid);
    let said = |name: &str| -> Vec<String> {
        let texts = groups.iter().map(|group| group.join(name));
        let texts = texts.filter_map(|path| std::fs::read_to_string(path).ok());
        texts.map(|text| text.trim().to_owned()).collect()
    };
    let either = |v1: &str, v2: &str| [said(v1), said(v2)].concat();
    assert_eq!(either("memory.limit_in_bytes", "memory.max"), ["67108864"]);
    assert_eq!(said("pids.max"), ["77"]);
    let cpu = either("cpu.cfs_quota_us", "cpu.max").concat();
    assert!(cpu == "300000" || cpu == "300000 100000", "{cpu}");
    // All of the job is in all of the groups.
    for group in &groups {
        eventually("both processes of it", || {
            let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
            (members.lines().count() == 2).then_some(())
        });
    }
    fixture.kill(9, uuid, 1);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::Killed);
    fixture.assert_clean(&[uuid]);
}

/// Starts processes that stay, counts them, and says how many there were.
const BOMB: &str =
    "n=0; while [ $n -lt 3000 ]; do sleep 1000 & n=$((n+1)); echo $n > \"$COUNT\"; done";

#[test]
fn a_fork_bomb_is_bounded() {
    if groups_can_limit("a fork bomb in control groups") {
        bomb(&Fixture::new(), |limits| limits.processes.is_whole());
    }
    let ungrouped = Fixture::ungrouped();
    bomb(&ungrouped, |limits| limits.processes == Means::Rlimit);
}

fn bomb(fixture: &Fixture, by: impl Fn(AppliedLimits) -> bool) {
    let uuid = uuid();
    let count = fixture.path("count");
    let mut document = shell(BOMB);
    document
        .env
        .insert("COUNT".into(), count.to_str().unwrap().into());
    document.process_limit = 40;
    fixture.start(uuid, 1, &document);
    let exit = fixture.finished(uuid, 1);
    // What a shell says that cannot fork.
    assert!(
        matches!(exit.cause, ExitCause::Exited { code } if code != 0),
        "{exit:?}"
    );
    assert!(by(exit.limits.unwrap()), "{exit:?}");
    // Its shell is one of them; others of this user may have ended meanwhile.
    let started: u32 = line_of(&count).parse().unwrap();
    assert!((20..200).contains(&started), "{started}");
    fixture.assert_clean(&[uuid]);
}

#[test]
fn without_groups_each_process_is_limited_and_that_is_said() {
    let fixture = Fixture::ungrouped();
    let uuid = uuid();
    let script = format!("ulimit -d; {HOG}; echo $?");
    fixture.start(uuid, 1, &limited(&script, ByteSize::mib(32)));
    let exit = fixture.finished(uuid, 1);
    assert_eq!(exit.cause, ExitCause::Exited { code: 0 });
    let expected = AppliedLimits {
        ram: Means::Rlimit,
        vcpus: Means::Nothing,
        processes: Means::Rlimit,
    };
    if exit.limits.unwrap().ram == Means::Rlimit {
        assert_eq!(exit.limits, Some(expected));
        assert_eq!(fixture.stdout(uuid, 1), format!("{}\n1\n", 32 * 1024));
    } else {
        eprintln!("NOT TESTED: limits without control groups; this user can make control groups");
    }
    fixture.assert_clean(&[uuid]);
}

#[test]
fn what_is_not_there_or_cannot_be_executed_ends_as_in_a_shell() {
    let fixture = Fixture::new();
    let file = fixture.path("file");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    let file = file.to_str().unwrap();
    let long = "x".repeat(5000);
    let cases = [
        ("no-such-program", 127, "no such command"),
        ("/no/such/program", 127, "no such file"),
        (&format!("{file}/x"), 127, "not a directory"),
        (file, 126, "not executable"),
        ("/", 126, "not executable"),
        (&long, 127, "too long"),
    ];
    for (program, expected, part) in cases {
        let uuid = uuid();
        fixture.start(uuid, 1, &StartDocument::new(vec![program.into()]));
        match fixture.cause(uuid, 1) {
            ExitCause::CannotRun { code, error } => {
                assert_eq!(code, expected, "{error}");
                assert!(error.contains(part), "{error}");
                assert!(error.starts_with("cannot run "), "{error}");
                assert!(error.len() < 400, "{error}");
            }
            other => panic!("{other:?} instead of {part}"),
        }
        fixture.assert_clean(&[uuid]);
    }
}

#[test]
fn output_without_end_is_cut_in_the_middle_while_it_is_written() {
    let fixture = Fixture::new();
    let uuid = uuid();
    let mut document =
        shell("echo first; yes 'one of very many lines' | head -c 300000000; echo last");
    document.output_limit = ByteSize::mib(2);
    fixture.start(uuid, 1, &document);
    let path = fixture.entry(uuid, 1).join("stdout");
    let exit = fixture.finished(uuid, 1);
    assert_eq!(exit.cause, ExitCause::Exited { code: 0 });
    let used = std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
    assert!(used < 3 << 20, "{used} bytes");
    let text = fixture.stdout(uuid, 1);
    assert_eq!(exit.stdout_bytes, 300_000_011);
    let cut = exit.stdout_cut.unwrap();
    assert_eq!(cut.from, 1 << 20);
    assert!(text.starts_with("first\n") && text.ends_with("last\n"));
    let marks: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("[longshore: "))
        .collect();
    let [mark] = marks[..] else {
        panic!("{marks:?}")
    };
    let (left_out, limit) = (cut.bytes(), "the limit is 2 MiB a stream]");
    let expected = format!("[longshore: {left_out} bytes of output were left out here; {limit}");
    assert_eq!(*mark, expected);
    let marks = mark.len() as u64 + 2;
    assert_eq!(text.len() as u64, exit.stdout().kept() + marks);
    fixture.assert_clean(&[uuid]);
}
