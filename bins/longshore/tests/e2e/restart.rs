//! kill -9 of the program, and what the next one finds.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use super::world::{World, wait_for};

/// `first` ends at once, `long` when it may; both tell about each start.
const JOBS: &str = "
  - {name: first, priority: 1000, command: 'echo first $$ >> $W/witness; echo one'}
  - name: long
    command: |
      echo long $$ >> $W/witness
      until test -e $W/go; do sleep 0.05; done
      echo long $$ >> $W/witness
      echo two
";

/// Runs the file until `first` has ended and `long` runs, and kills it there.
fn killed(world: &World, jobs: &str) {
    world.jobs("batch", jobs);
    let running = world.start(&["run", "batch"]);
    wait_for("the moment", || {
        let ended = running.out().contains("ok        first");
        let began = world.exists("witness") && world.read("witness").contains("long");
        (ended && began).then_some(())
    });
    running.signal(Signal::SIGKILL);
    assert_eq!(running.end().code, None);
    assert!(!world.processes().is_empty(), "the job goes on alone");
}

#[test]
fn what_finished_is_kept_and_what_runs_is_adopted() {
    let world = World::new();
    killed(&world, JOBS);
    let running = world.start(&["run", "batch"]);
    wait_for("the adoption", || {
        running.out().contains("going on").then_some(())
    });
    world.touch("go");
    let said = running.end().expect(0);
    let witness = world.read("witness");
    assert_eq!(witness.lines().count(), 3, "{witness}");
    let pids: BTreeSet<&str> = witness
        .lines()
        .filter(|line| line.starts_with("long"))
        .collect();
    assert_eq!(pids.len(), 1, "another process: {witness}");
    assert_eq!(said.stream("ok", "first", "stdout"), b"one\n");
    assert_eq!(said.stream("ok", "long", "stdout"), b"two\n");
    assert!(!said.line("ok", "long").contains("attempt"), "{}", said.out);
}

#[test]
fn what_ended_while_nobody_watched_is_reported() {
    let world = World::new();
    killed(&world, JOBS);
    world.touch("go");
    wait_for("its end", || {
        (world.read("witness").lines().count() == 3).then_some(())
    });
    let said = world.run(&["run", "batch"]).expect(0);
    assert_eq!(world.read("witness").lines().count(), 3);
    assert_eq!(said.stream("ok", "long", "stdout"), b"two\n");
}

#[test]
fn what_was_killed_again_and_again_goes_on() {
    let world = World::new();
    killed(&world, JOBS);
    for _ in 0..3 {
        let running = world.start(&["run", "batch"]);
        wait_for("the note", || {
            running.out().contains("going on").then_some(())
        });
        running.signal(Signal::SIGKILL);
        running.end();
    }
    world.touch("go");
    world.run(&["run", "batch"]).expect(0);
    assert_eq!(
        world.read("witness").lines().count(),
        3,
        "{}",
        world.read("witness")
    );
}

#[test]
fn a_changed_file_with_an_unfinished_run_is_an_error() {
    let world = World::new();
    killed(&world, JOBS);
    world.jobs("batch", "  - {name: other, command: 'echo other'}\n");
    world
        .run(&["run", "batch"])
        .expect(2)
        .complains(&["batch", "--resume", "--new"]);
    world.run(&["run", "batch", "--resume", "--new"]).expect(2);
    // It has not harmed what runs.
    world.touch("go");
    world.run(&["run", "batch", "--resume"]).expect(0);
    assert_eq!(world.read("witness").lines().count(), 3);
}

#[test]
fn resume_goes_on_with_the_jobs_as_they_were() {
    let world = World::new();
    killed(&world, JOBS);
    world.jobs("batch", "  - {name: other, command: 'touch $W/other'}\n");
    world.touch("go");
    let said = world.run(&["run", "batch", "--resume"]).expect(0);
    assert_eq!(said.stream("ok", "long", "stdout"), b"two\n");
    assert!(!world.exists("other"));
    // That one is finished: the file as it is now.
    world.run(&["run", "batch"]).expect(0);
    assert!(world.exists("other"));
}

#[test]
fn new_gives_the_unfinished_run_up() {
    let world = World::new();
    killed(&world, JOBS);
    world.jobs("batch", "  - {name: other, command: 'echo other'}\n");
    let said = world.run(&["run", "batch", "--new"]).expect(0);
    assert_eq!(said.stream("ok", "other", "stdout"), b"other\n");
    assert!(
        said.out.contains("batch: 1 job, 1 succeeded"),
        "{}",
        said.out
    );
    world.check_nothing_is_left();
    assert_eq!(
        world.read("witness").lines().count(),
        2,
        "the old job was ended"
    );
}

#[test]
fn cleanup_destroys_what_a_killed_run_left() {
    let world = World::new();
    killed(&world, JOBS);
    world
        .run(&["cleanup"])
        .expect(0)
        .complains(&["destroyed 1"]);
    world.check_nothing_is_left();
    // The batch is still there; what was lost is run again.
    world.touch("go");
    world.run(&["run", "batch"]).expect(0);
    let witness = world.read("witness");
    assert_eq!(
        witness
            .lines()
            .filter(|line| line.starts_with("first"))
            .count(),
        1,
        "{witness}"
    );
    assert_eq!(
        witness
            .lines()
            .filter(|line| line.starts_with("long"))
            .count(),
        3,
        "{witness}"
    );
}
