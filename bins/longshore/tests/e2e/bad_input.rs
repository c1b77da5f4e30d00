//! What cannot be run: one clear message each, before anything starts.

use std::fs;
use std::process::Command;

use nix::unistd::Uid;

use super::world::{Said, World, wait_for};

/// Runs a file with this content and expects a refusal with these words.
#[track_caller]
fn refused(content: &[u8], words: &[&str]) -> Said {
    let world = World::new();
    fs::write(world.path("bad.yml"), content).unwrap();
    let said = world.run(&["run", "bad.yml"]).expect(2).complains(words);
    assert_eq!(said.out, "");
    assert!(said.err.starts_with("bad.yml"), "{said:#?}");
    assert_eq!(said.err.lines().count(), 1, "one message: {said:#?}");
    assert!(
        !world.state().join("loopback").exists(),
        "nothing was started"
    );
    said
}

#[test]
fn what_is_no_file() {
    let world = World::new();
    world
        .run(&["run", "missing.yml"])
        .expect(2)
        .complains(&["missing.yml"]);
    fs::create_dir(world.path("folder")).unwrap();
    world
        .run(&["run", "folder"])
        .expect(2)
        .complains(&["folder", "is a directory"]);
    assert!(!world.state().join("loopback").exists());
}

#[test]
fn what_is_no_job_file() {
    refused(b"", &["empty"]);
    refused(b"jobs: [\n", &["bad.yml:"]);
    refused(b"just words", &["bad.yml:1:1"]);
    refused(b"jobs:\n- {name: a, command: \"\xff\xfe\"}\n", &["UTF-8"]);
}

#[test]
fn ten_megabytes_of_nonsense() {
    let mut random = 1_u64;
    let mut byte = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        random.to_be_bytes()[0]
    };
    let bytes: Vec<u8> = std::iter::repeat_with(&mut byte).take(10 << 20).collect();
    let said = refused(&bytes, &[]);
    assert!(said.err.len() < 1000, "{}", said.err);
    assert!(!said.err.contains('\x1b'));
    let said = refused("[{a: b}, ".repeat(1 << 20).as_bytes(), &[]);
    assert!(said.err.len() < 1000, "{}", said.err);
}

#[test]
fn wrong_keys_and_types() {
    refused(
        b"jobs:\n- {name: a, comand: ls}\n- {name: b, command: ls}\n",
        &["bad.yml:2:", "comand", "did you mean \"command\"?"],
    );
    refused(
        b"jobs:\n- {name: a, command: {a: b}}\n",
        &["bad.yml:2:22", "expected a text"],
    );
    refused(
        b"jobs:\n- {name: a, command: ls, priority: soon}\n",
        &["bad.yml:2:36", "from 1 to 1000"],
    );
    refused(b"jobs:\n- {name: a}\n", &["command"]);
    refused(b"jobs: ls\n", &["jobs"]);
    refused(
        b"jobs:\n- {name: a, command: ls}\n- {name: a, command: pwd}\n",
        &["bad.yml:3:", "\"a\"", "line 2"],
    );
}

#[test]
fn more_than_this_machine_has() {
    let room = longshore::provider::this_machine().unwrap().resources();
    refused(
        b"jobs:\n- {name: a, command: ls, resources: {vcpus: 5000}}\n",
        &["5000 vCPUs", &format!("this machine has {}", room.vcpus)],
    );
    refused(
        b"jobs:\n- {name: a, command: ls, resources: {ram: 90TiB}}\n",
        &["RAM", "90", "this machine has"],
    );
}

#[test]
fn all_problems_of_all_files_are_told_at_once() {
    let world = World::new();
    fs::write(
        world.path("a.yml"),
        "jobs:\n- {name: a}\n- {name: b, comand: ls}\n",
    )
    .unwrap();
    fs::write(world.path("b.yml"), "").unwrap();
    let said = world.run(&["run", "a.yml", "b.yml", "c.yml"]).expect(2);
    said.complains(&["a.yml:2:", "a.yml:3:", "b.yml", "c.yml"]);
}

#[test]
fn the_same_file_twice() {
    let world = World::new();
    world.jobs("a", "  - {name: a, command: 'touch $W/ran'}\n");
    world
        .run(&["run", "a", "./a"])
        .expect(2)
        .complains(&["named twice"]);
    assert!(!world.exists("ran"));
}

#[test]
fn the_command_line() {
    let world = World::new();
    world
        .run(&["run", "--quik", "a"])
        .expect(2)
        .complains(&["--quik", "--quiet"]);
    world.run(&["run"]).expect(2).complains(&["FILE"]);
    world
        .run(&["rum", "a"])
        .expect(2)
        .complains(&["rum", "run"]);
    world
        .run(&["run", "--log", "a=loud", "a"])
        .expect(2)
        .complains(&["--log"]);
    assert!(!world.state().join("loopback").exists());
}

#[test]
fn help_says_what_there_is() {
    let world = World::new();
    let said = world.run(&["--help"]).expect(0);
    for word in ["run", "cleanup", "--state-dir", "130"] {
        assert!(said.out.contains(word), "{word} in {}", said.out);
    }
    let said = world.run(&["run", "--help"]).expect(0);
    for word in ["for_each", "time_limit", "--resume", "--new", "keep_output"] {
        assert!(said.out.contains(word), "{word} in {}", said.out);
    }
}

#[test]
fn a_state_directory_that_is_a_file() {
    let world = World::new();
    world.jobs("a", "  - {name: a, command: 'touch $W/ran'}\n");
    world.touch("state");
    let state = world.state();
    let said = world.run(&["run", "a"]).expect(2);
    said.complains(&[state.to_str().unwrap(), "--state-dir"]);
    let below = state.join("below");
    let said = world
        .run(&["run", "a", "--state-dir", below.to_str().unwrap()])
        .expect(2);
    said.complains(&["--state-dir"]);
    assert!(!world.exists("ran"));
}

#[test]
fn a_state_directory_that_belongs_to_somebody_else() {
    let world = World::new();
    world.jobs("a", "  - {name: a, command: 'touch $W/ran'}\n");
    // Nobody may write what belongs to root; whoever else runs this test, not without the right.
    let mut command = if Uid::effective().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(env!("CARGO_BIN_EXE_longshore"));
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_longshore"))
    };
    world.open_to_all();
    fs::create_dir(world.state()).unwrap();
    world.make_read_only("state");
    command.args(["run", "a"]);
    world.prepare(&mut command);
    let said = world.spawn(command).end().expect(2);
    said.complains(&[
        world.state().to_str().unwrap(),
        "ermission denied",
        "--state-dir",
    ]);
    assert!(!world.exists("ran"));
}

#[test]
fn a_state_directory_that_is_in_use() {
    let world = World::new();
    world.jobs(
        "a",
        "  - {name: a, command: 'touch $W/began; until test -e $W/go; do sleep 0.05; done'}\n",
    );
    let running = world.start(&["run", "a"]);
    wait_for("the job to begin", || world.exists("began").then_some(()));
    let pid = format!("process {}", running.pid());
    for command in [&["cleanup"][..], &["serve", "--listen", "off"]] {
        world
            .run(command)
            .expect(2)
            .complains(&["in use", &pid, "--state-dir"]);
    }
    world.touch("go");
    running.end().expect(0);
}
