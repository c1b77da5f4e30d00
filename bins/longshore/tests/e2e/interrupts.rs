//! Ctrl-C and `longshore cleanup`.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::world::{Running, World, wait_for};

/// One job that runs for ever, one that cannot begin before it has ended.
fn endless(world: &World, shell: &str) -> Running {
    let vcpus = longshore::provider::this_machine()
        .unwrap()
        .resources()
        .vcpus;
    world.jobs("endless", &format!("
  - {{name: runs, priority: 1000, resources: {{vcpus: {vcpus}}}, command: '{shell}; touch $W/began; while :; do sleep 1; done'}}
  - {{name: waits, resources: {{vcpus: {vcpus}}}, command: 'touch $W/never'}}
"));
    let running = world.start(&["run", "endless"]);
    wait_for("the job to begin", || world.exists("began").then_some(()));
    running
}

fn interrupted_by(signal: Signal) {
    let world = World::new();
    let running = endless(&world, "sleep 600 & echo begun");
    running.signal(signal);
    let said = running.end().expect(130);
    world.check_nothing_is_left();
    assert!(
        said.line("cancelled", "runs").contains("stopped"),
        "{}",
        said.out
    );
    assert!(
        said.line("cancelled", "waits").contains("not run"),
        "{}",
        said.out
    );
    assert_eq!(said.stream("cancelled", "runs", "stdout"), b"begun\n");
    assert!(
        said.out.contains("endless: 2 jobs, 2 cancelled in "),
        "{}",
        said.out
    );
    let announcements = said.out.lines().filter(|line| *line == "endless: 2 jobs");
    assert_eq!(announcements.count(), 1, "{}", said.out);
    assert!(!world.exists("never"));
}

#[test]
fn ctrl_c_ends_everything() {
    interrupted_by(Signal::SIGINT);
}

#[test]
fn term_ends_everything() {
    interrupted_by(Signal::SIGTERM);
}

#[test]
fn ctrl_c_ends_everything_also_where_nobody_reads_what_is_said() {
    let world = World::new();
    world.jobs(
        "endless",
        "  - {name: runs, command: 'touch $W/began; while :; do sleep 1; done'}\n",
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = world.longshore(&["run", "-q", "endless"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn()
        .unwrap();
    drop(command);
    wait_for("the job to begin", || world.exists("began").then_some(()));
    drop(reader);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let status = wait_for("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    world.check_nothing_is_left();
}

#[test]
fn what_was_cancelled_runs_anew() {
    let world = World::new();
    let running = endless(&world, "true");
    running.signal(Signal::SIGINT);
    running.end().expect(130);
    world.jobs("endless", "  - {name: other, command: 'echo ran'}\n");
    let said = world.run(&["run", "endless"]).expect(0);
    assert_eq!(said.stream("ok", "other", "stdout"), b"ran\n");
}

#[test]
fn a_second_ctrl_c_leaves_the_instance_and_cleanup_destroys_it() {
    let world = World::new();
    let running = endless(&world, "trap \"\" TERM");
    running.signal(Signal::SIGINT);
    wait_for("the first to be heard", || {
        running.out().contains("interrupted").then_some(())
    });
    running.signal(Signal::SIGINT);
    let said = running.end().expect(3);
    let instances = world.instances();
    assert_eq!(instances.len(), 1);
    let said = said.complains(&["left behind", &instances[0], "longshore cleanup"]);
    assert!(!world.processes().is_empty(), "{said:?}");
    world
        .run(&["cleanup"])
        .expect(0)
        .complains(&["destroyed 1", &instances[0]]);
    world.check_nothing_is_left();
    world
        .run(&["cleanup"])
        .expect(0)
        .complains(&["no instances"]);
}

#[test]
fn the_same_command_goes_on_after_a_second_ctrl_c() {
    let world = World::new();
    let running = endless(&world, "trap \"\" TERM");
    running.signal(Signal::SIGINT);
    wait_for("the first to be heard", || {
        running.out().contains("interrupted").then_some(())
    });
    running.signal(Signal::SIGINT);
    running.end().expect(3);
    // Its jobs were cancelled; that goes on, too.
    let said = world.run(&["run", "endless"]).expect(1);
    said.line("cancelled", "runs");
    world.check_nothing_is_left();
}
