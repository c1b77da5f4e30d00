//! A disk without space, in a mount namespace of its own.

use std::process::Command;

use nix::unistd::Uid;

use super::world::{Said, World};

/// Runs a job with a state directory on a disk of `size`, and lists what is left there.
fn on_a_disk_of(world: &World, size: &str) -> Said {
    std::fs::create_dir(world.state()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !Uid::effective().is_root() {
        command.arg("--map-root-user");
    }
    let script = "mount -t tmpfs -o size=\"$1\" none \"$2\" && { \"$3\" run job; c=$?; \
                  ls \"$2/loopback\" 2>/dev/null; exit $c; }";
    command.args(["--", "sh", "-c", script, "sh", size]);
    command
        .arg(world.state())
        .arg(env!("CARGO_BIN_EXE_longshore"));
    world.prepare(&mut command);
    world.spawn(command).end()
}

#[test]
fn a_full_disk_is_said_before_anything_starts() {
    for size in ["16k", "200k", "3m"] {
        let world = World::new();
        world.jobs("job", "  - {name: a, command: 'touch $W/ran'}\n");
        let said = on_a_disk_of(&world, size).expect(1);
        let said = said.complains(&["is full", "make space", "--state-dir"]);
        assert_eq!(said.out, "", "no instance");
        assert!(!world.exists("ran"));
    }
}

#[test]
fn a_small_disk_is_enough() {
    let world = World::new();
    world.jobs("job", "  - {name: a, command: 'touch $W/ran'}\n");
    on_a_disk_of(&world, "64m").expect(0);
    assert!(world.exists("ran"));
}
