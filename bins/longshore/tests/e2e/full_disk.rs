//! A disk without space, in a mount namespace of its own.

use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::world::{World, wait_for};

/// The program with a state directory on a disk of `size`.
fn on_a_disk_of(world: &World, size: &str) -> Command {
    std::fs::create_dir(world.state()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !Uid::effective().is_root() {
        command.arg("--map-root-user");
    }
    let script = "mount -t tmpfs -o size=\"$1\" none \"$2\" && exec \"$3\" run job";
    command.args(["--", "sh", "-c", script, "sh", size]);
    command
        .arg(world.state())
        .arg(env!("CARGO_BIN_EXE_longshore"));
    world.prepare(&mut command);
    command
}

#[test]
fn a_full_disk_is_said_before_anything_starts() {
    for size in ["16k", "200k", "3m"] {
        let world = World::new();
        world.jobs("job", "  - {name: a, command: 'touch $W/ran'}\n");
        let said = world.spawn(on_a_disk_of(&world, size)).end().expect(1);
        let said = said.complains(&["is full", "make space", "--state-dir"]);
        assert_eq!(said.out, "", "no instance");
        assert!(!world.exists("ran"));
    }
}

#[test]
fn a_small_disk_is_enough() {
    let world = World::new();
    world.jobs("job", "  - {name: a, command: 'touch $W/ran'}\n");
    world.spawn(on_a_disk_of(&world, "64m")).end().expect(0);
    assert!(world.exists("ran"));
}

#[test]
fn a_disk_that_gets_full_is_said_and_what_is_left_is_named() {
    let world = World::new();
    let job = "  - {name: a, command: 'head -c 200000000 /dev/zero; touch $W/ended'}\n";
    world.jobs("job", job);
    let running = world.spawn(on_a_disk_of(&world, "48m"));
    wait_for("the note", || {
        (running.out().contains("is full") && world.exists("ended")).then_some(())
    });
    running.signal(Signal::SIGINT);
    let said = running.end().expect(3);
    said.complains(&["left behind: loopback-", "longshore cleanup", "full"]);
}
