//! Containers of a real engine, as a user runs them.

use std::path::PathBuf;
use std::process::{Command, Output};

use nix::unistd::Uid;

use super::service::Service;
use super::world::{World, wait_for};

/// A store of images for Podman with one small image in it; none, loudly, where there is no
/// Podman or no root.
fn store() -> Option<PathBuf> {
    let works = Command::new("podman").arg("--version").output();
    if works.is_err() || !Uid::effective().is_root() {
        assert!(
            std::env::var_os("CI").is_none(),
            "there is no podman, or no root"
        );
        eprintln!("NOT TESTED: containers of Podman; that needs podman and root");
        return None;
    }
    let store = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("podman-e2e");
    let script = include_str!("../../../longshore-run/tests/podman-store.sh");
    let made = Command::new("sh")
        .args(["-euc", script, "sh"])
        .arg(&store)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    Some(store)
}

/// A command that finds this store.
fn of_store(store: &std::path::Path, mut command: Command) -> Command {
    command
        .env("CONTAINERS_CONF", store.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", store.join("storage.conf"));
    command
}

#[test]
fn containers_end_with_their_instance() {
    let Some(store) = store() else { return };
    let podman = |arguments: &[&str]| -> Output {
        let mut command = of_store(&store, Command::new("podman"));
        command.args(arguments).output().unwrap()
    };
    let world = World::new();
    let serve = world.longshore(&["serve", "--listen", "127.0.0.1:0"]);
    let service = Service::spawn(&world, of_store(&store, serve));
    world.jobs(
        "engines",
        "
  - name: stubborn
    engine: podman
    image: localhost/longshore-test:1
    mounts: [\"$W:/w:rw\"]
    command: [sh, -c, \"trap : TERM; touch /w/began; while :; do sleep 1; done\"]
",
    );
    let file = world
        .read("engines")
        .replace("$W", world.path("").to_str().unwrap());
    std::fs::write(world.path("engines"), file).unwrap();
    world.run(&["submit", "engines"]).expect(0);
    wait_for("the container", || world.exists("began").then_some(()));
    let uuid = world.run(&["list", "--json"]).expect(0).out;
    let uuid: serde_json::Value = serde_json::from_str(&uuid).unwrap();
    let uuid = uuid[0]["uuid"].as_str().unwrap();
    let filter = format!("name=longshore-{uuid}-");
    let containers = || podman(&["ps", "--all", "--quiet", "--filter", &filter]).stdout;
    assert!(!containers().is_empty(), "it is there");

    // Nobody is left who could end it in an orderly way.
    service.kill();
    let cleanup = world.longshore(&["cleanup"]);
    world.spawn(of_store(&store, cleanup)).end().expect(0);
    assert_eq!(String::from_utf8_lossy(&containers()), "");
    world.check_nothing_is_left();
}
