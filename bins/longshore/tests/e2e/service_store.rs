//! A service whose store cannot be written for a while, or not be opened at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;
use rusqlite::Connection;
use serde_json::Value;

use super::service::{Service, clean};
use super::world::{World, wait_for};

/// Set in the process that has a mount namespace of its own.
const OWN_MOUNTS: &str = "LONGSHORE_TEST_OWN_MOUNTS";

fn store(world: &World) -> PathBuf {
    world.state().join("controller/store.sqlite")
}

/// What is listed of a job; null if there is none.
fn listed(world: &World, name: &str) -> Value {
    let text = world
        .run(&["list", "--all", "--name", name, "--json"])
        .expect(0)
        .out;
    let found: Value = serde_json::from_str(&text).unwrap();
    found.get(0).cloned().unwrap_or_default()
}

/// Waits until a job that was run once has succeeded.
fn wait_for_success(world: &World, name: &str) {
    let job = wait_for(name, || {
        let job = listed(world, name);
        (job["finished_at"] != Value::Null).then_some(job)
    });
    assert_eq!(
        (&job["verdict"], &job["attempts"]),
        (&"ok".into(), &1.into()),
        "{job}"
    );
}

/// A job that runs until there is `go`, and says nothing.
fn submit_waiting(world: &World) {
    let script = "echo x >> runs; until test -e go; do sleep 0.05; done; touch ended";
    let submit = ["submit", "--name", "waits", "--", "sh", "-c", script];
    world.run(&submit).expect(0);
    wait_for("the job to begin", || world.exists("runs").then_some(()));
    // It begins before that is written.
    wait_for("the record of its begin", || {
        (listed(world, "waits")["state"] == "Running").then_some(())
    });
}

/// What the health check says.
fn health(world: &World, service: &Service) -> String {
    let token = world.read("state/management_token");
    let head = format!(
        "GET /_health/ping HTTP/1.1\r\nAuthorization: Bearer {}",
        token.trim()
    );
    let reply = service.ask(&head, "");
    assert_eq!(reply.status, 200);
    reply.body
}

const HEALTHY: &str = r#"{"health":"OK"}"#;

/// Has a service say on standard error, too, what goes wrong.
const WARNINGS: [&str; 2] = ["--log", "warn"];

/// While nothing can be written, a job ends, and what is asked for is refused with these words;
/// what is there can be read. The health check says it, too.
fn go_through(world: &World, service: &Service, words: &[&str]) {
    assert_eq!(health(world, service), HEALTHY, "it was not tried yet");
    let refused = world.run(&["submit", "--name", "refused", "--", "true"]);
    refused.expect(1).complains(words);
    world.run(&["cancel", "waits"]).expect(1).complains(words);
    assert_eq!(listed(world, "waits")["cancel_requested"], false);
    world.touch("go");
    wait_for("the job to end", || world.exists("ended").then_some(()));
    let refused = "the controller did not take it";
    wait_for("its end to be refused again and again", || {
        // Not in the log, which may be on the disk that is full.
        (service.running.err().matches(refused).count() >= 3).then_some(())
    });
    assert_eq!(listed(world, "waits")["state"], "Running");
    let said = health(world, service);
    assert!(said.contains("ERROR"), "{said}");
    assert!(said.contains(words[0]), "{said}");
}

/// When it can be written again, nothing was lost or run twice, and everything goes on.
fn afterwards(world: &World, service: &Service) {
    wait_for("its health", || {
        (health(world, service) == HEALTHY).then_some(())
    });
    wait_for_success(world, "waits");
    assert_eq!(world.read("runs"), "x\n");
    assert_eq!(listed(world, "refused"), Value::Null);
    world
        .run(&["submit", "--name", "after", "--", "true"])
        .expect(0);
    wait_for_success(world, "after");
}

/// Runs a test again in a mount namespace of its own; `false` in there.
fn in_own_mounts(test: &str) -> bool {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return false;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !Uid::effective().is_root() {
        command.arg("--map-root-user");
    }
    let status = command
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(OWN_MOUNTS, "1")
        .status();
    assert!(status.unwrap().success());
    true
}

fn mount(arguments: &[&str], path: &Path) {
    let (program, arguments) = arguments.split_first().unwrap();
    let status = Command::new(program).args(arguments).arg(path).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing() {
    if in_own_mounts("service_store::a_disk_that_is_full_for_a_while_loses_nothing") {
        return;
    }
    let world = World::new();
    fs::create_dir(world.state()).unwrap();
    mount(
        &["mount", "-t", "tmpfs", "-o", "size=64m", "none"],
        &world.state(),
    );
    let service = Service::start(&world, &WARNINGS);
    submit_waiting(&world);
    let ballast = world.state().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    go_through(
        &world,
        &service,
        &["its disk is full", "make space", "try again"],
    );
    drop(file);
    fs::remove_file(&ballast).unwrap();
    afterwards(&world, &service);
    service.stop();
    clean(&world);
    // A process that has just ended may not have closed its files yet.
    mount(&["umount", "--lazy"], &world.state());
}

#[test]
fn a_store_that_somebody_locks_for_a_while_loses_nothing() {
    let world = World::new();
    let service = Service::start(&world, &WARNINGS);
    submit_waiting(&world);
    let other = Connection::open(store(&world)).unwrap();
    other.busy_timeout(super::world::PATIENCE).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    go_through(
        &world,
        &service,
        &["another process has locked it", "try again"],
    );
    other.execute_batch("ROLLBACK").unwrap();
    afterwards(&world, &service);
    service.stop();
    clean(&world);
}

#[test]
fn a_store_that_cannot_be_used_is_left_alone() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    submit_waiting(&world);
    service.stop();
    let serve = ["serve", "--listen", "off"];

    let other = Connection::open(store(&world)).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let said = world.run(&serve).expect(1);
    said.complains(&["store.sqlite is in use by another process"]);
    other.execute_batch("ROLLBACK").unwrap();

    let known: i64 = other
        .query_row("PRAGMA user_version", (), |row| row.get(0))
        .unwrap();
    other.pragma_update(None, "user_version", 99).unwrap();
    let said = world.run(&serve).expect(1);
    said.complains(&[
        "store.sqlite has schema version 99",
        "newer version",
        "another state directory",
    ]);
    other.pragma_update(None, "user_version", known).unwrap();
    drop(other);

    // What ran meanwhile has gone on.
    let service = Service::start(&world, &[]);
    world.touch("go");
    wait_for_success(&world, "waits");
    assert_eq!(world.read("runs"), "x\n");
    service.stop();
    clean(&world);
}

/// Waits until a service has ended by itself because what it records would be found by nobody, and
/// has said so with these words.
fn wait_for_its_end(service: Service, words: &[&str]) {
    let always = "nothing that is recorded would be found again";
    let words: Vec<&str> = words.iter().copied().chain([always]).collect();
    service.running.end().expect(4).complains(&words);
}

/// A job that runs and one that waits behind it.
fn submit_two(world: &World) {
    submit_waiting(world);
    let vcpus = longshore::provider::this_machine().unwrap().vcpus;
    let submit = ["submit", "--name", "next", "--vcpus", &vcpus.to_string()];
    let submit: Vec<&str> = submit.into_iter().chain(["--", "true"]).collect();
    world.run(&submit).expect(0);
}

/// A new service finds both, and none of them is run twice.
fn go_on_with_both(world: &World) {
    let service = Service::start(world, &[]);
    world.touch("go");
    wait_for_success(world, "waits");
    wait_for_success(world, "next");
    assert_eq!(world.read("runs"), "x\n");
    service.stop();
    clean(world);
}

#[test]
fn a_store_whose_file_is_removed_is_written_anew_at_the_end() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    submit_two(&world);
    fs::remove_file(store(&world)).unwrap();
    wait_for_its_end(
        service,
        &["the store", "was removed", "was written there anew"],
    );
    go_on_with_both(&world);
}

#[test]
fn a_store_that_is_replaced_is_saved_beside_the_other() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    submit_two(&world);
    let other = world.path("other");
    fs::write(&other, "something else").unwrap();
    fs::rename(&other, store(&world)).unwrap();
    wait_for_its_end(
        service,
        &[
            "another one is in its place",
            "what it held is in",
            "saved.sqlite",
        ],
    );
    assert_eq!(fs::read(store(&world)).unwrap(), b"something else");
    fs::rename(store(&world).with_file_name("saved.sqlite"), store(&world)).unwrap();
    go_on_with_both(&world);
}

#[test]
fn a_state_directory_that_is_moved_away_and_back_loses_nothing() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    submit_two(&world);
    let moved = world.path("moved");
    fs::rename(world.state(), &moved).unwrap();
    // What is there by then is another's.
    fs::create_dir(world.state()).unwrap();
    fs::write(world.state().join("service.sock"), "").unwrap();
    let to = format!("was moved to {}, and another one is", moved.display());
    wait_for_its_end(service, &[&to, "move it back and start again"]);
    let left = fs::read_dir(world.state()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["service.sock"]);
    fs::remove_dir_all(world.state()).unwrap();
    fs::rename(&moved, world.state()).unwrap();
    go_on_with_both(&world);
}

#[test]
fn a_state_directory_that_is_removed_ends_whoever_holds_it() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    fs::remove_dir_all(world.state()).unwrap();
    wait_for_its_end(service, &["was removed", "what was in it is lost"]);
    assert!(!world.state().exists(), "nothing is made there");

    world.jobs("long", "  - {name: long, command: sleep 1000}\n");
    let run = world.start(&["run", "long"]);
    wait_for("the job to begin", || {
        let begun = |(_, line): &(i32, String)| line.contains("sleep 1000");
        let log = world.log();
        (log.contains("container runs") && world.processes().iter().any(begun)).then_some(())
    });
    let moved = world.path("moved");
    fs::rename(world.state(), &moved).unwrap();
    run.end().expect(4).complains(&["was moved to"]);
    fs::rename(&moved, world.state()).unwrap();
    clean(&world);
}
