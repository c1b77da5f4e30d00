//! Nothing outlives an instance.
#![allow(
    clippy::unwrap_used,
    reason = "only tests are here, though not in functions marked as such"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use longshore_cloud::{Instance, InstanceSet, InstanceState, Tags};
use longshore_types::HostKeyVerdict;
use support::{Client, connect, context, create, eventually, open, runs};

const HELPER: &str = "LOOPBACK_TEST_HELPER_DIRECTORY";
const UNPRIVILEGED: &str = "LOOPBACK_TEST_UNPRIVILEGED_DIRECTORY";

/// A process that left the session, the group and the pipes of the command that started it.
async fn daemon(client: &Client) -> u32 {
    let line = "setsid sh -c 'sleep 100; true' </dev/null >/dev/null 2>&1 & echo $!";
    let pid = client.text(line).await.parse().unwrap();
    assert!(runs(pid));
    pid
}

/// A process without any trace but an open lock file, not started through the server.
fn supervisor(directory: &Path, instance: &Instance) -> Child {
    let locks = directory.join(instance.id.as_str()).join("run/lock");
    fs::create_dir_all(&locks).unwrap();
    let line = format!(
        "exec 7> {}/x.lock; echo ready; sleep 100; true",
        locks.display()
    );
    let mut child = Command::new("/bin/sh")
        .args(["-c", &line])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut text).unwrap();
    assert_eq!(text, "ready\n");
    child
}

async fn destroy(set: &dyn InstanceSet, instance: &Instance) {
    let results = set
        .destroy(&context(), std::slice::from_ref(&instance.id))
        .await;
    assert_eq!(results.len(), 1);
    results[0].1.as_ref().unwrap();
}

#[tokio::test]
async fn everything_of_the_instance_ends_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    let set = open(&directory, 2).await;
    let (one, two) = (create(&*set, "one").await, create(&*set, "two").await);
    let (client, other) = (connect(&one).await, connect(&two).await);
    let mut channel = client.start("echo on; exec sleep 100").await;
    let (ours, theirs) = (daemon(&client).await, daemon(&other).await);
    let mut holder = supervisor(&directory, &one);
    let mut bystander = supervisor(&directory, &two);

    destroy(&*set, &one).await;
    assert!(!runs(ours) && !runs(holder.id()));
    assert!(runs(theirs) && runs(bystander.id()));
    while channel.wait().await.is_some() {}
    eventually("the connection is closed", || client.session.is_closed()).await;
    assert!(!directory.join(one.id.as_str()).exists());
    let listed = set.list(&context(), &Tags::new()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(other.text("echo here").await, "here");
    holder.wait().unwrap();

    // Twice, and what never was, is success.
    destroy(&*set, &one).await;
    let unknown = ["loopback-0000000000000000".into(), "../..".into()];
    for (_, result) in set.destroy(&context(), &unknown).await {
        result.unwrap();
    }
    tokio::join!(destroy(&*set, &two), destroy(&*set, &two));
    assert!(!runs(theirs));
    bystander.wait().unwrap();
    let rest: Vec<_> = fs::read_dir(&directory).unwrap().flatten().collect();
    assert_eq!(rest.len(), 1, "{rest:?}");
}

#[tokio::test]
async fn what_was_being_destroyed_is_destroyed_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    let set = open(&directory, 1).await;
    let instance = create(&*set, "one").await;
    let pid = daemon(&connect(&instance).await).await;
    drop(set);
    let file = directory.join(instance.id.as_str()).join("instance.json");
    let text = fs::read_to_string(&file).unwrap();
    let marked = text.replace("\"stopping\": false", "\"stopping\": true");
    assert_ne!(text, marked);
    fs::write(&file, marked).unwrap();

    let set = open(&directory, 1).await;
    let listed = set.list(&context(), &Tags::new()).await.unwrap();
    assert!(
        listed
            .iter()
            .all(|i| i.state == InstanceState::Stopping && i.address.is_none())
    );
    eventually("it is gone", || {
        !directory.join(instance.id.as_str()).exists()
    })
    .await;
    assert!(!runs(pid));
}

/// Not a test of its own: the process that the next test kills.
#[tokio::test]
async fn helper() {
    if let Some(directory) = std::env::var_os(HELPER) {
        let set = open(Path::new(&directory), 1).await;
        let instance = create(&*set, "one").await;
        let pid = daemon(&connect(&instance).await).await;
        eprintln!("\nstarted {pid}");
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_killed_process_leaves_instances_that_the_next_one_ends() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper", "--nocapture"])
        .env(HELPER, &directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let pid: u32 = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("started ")?.parse().ok())
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(runs(pid), "a detached process outlives the driver");

    let set = open(&directory, 1).await;
    let listed = set.list(&context(), &Tags::new()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, InstanceState::Running);
    assert_eq!(create(&*set, "one").await, listed[0]);
    let client = connect(&listed[0]).await;
    let context = context();
    let verdict = set.verify_host_key(&context, &listed[0].id, &client.host_key);
    assert_eq!(verdict.await.unwrap(), HostKeyVerdict::Match);
    destroy(&*set, &listed[0]).await;
    assert!(!runs(pid));
}

/// A directory with something in it that its owner may neither list nor change.
fn closed(path: &Path) {
    let inner = path.join("cache/module");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("file"), "x").unwrap();
    for (path, mode) in [(&inner, 0o555), (&path.join("cache"), 0o000)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Not a test of its own: what the next test does as a user whom permissions bind.
#[tokio::test]
async fn unprivileged_helper() {
    let Some(directory) = std::env::var_os(UNPRIVILEGED) else {
        return;
    };
    let directory = Path::new(&directory).join("state");
    let set = open(&directory, 1).await;
    let instance = create(&*set, "one").await;
    closed(&directory.join(instance.id.as_str()).join("run"));
    destroy(&*set, &instance).await;
    let listed = set.list(&context(), &Tags::new()).await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    set.stop().await;

    let left = directory.join(".removing-loopback-0000000000000000");
    closed(&left);
    let set = open(&directory, 1).await;
    assert!(!left.exists());
    create(&*set, "two").await;
}

#[tokio::test]
async fn a_job_that_takes_permissions_away_keeps_no_instance() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "unprivileged_helper", "--nocapture"])
        .env(UNPRIVILEGED, folder.path());
    if nix::unistd::geteuid().is_root() {
        // Root may do everything.
        let nobody = 65534;
        std::os::unix::fs::chown(folder.path(), Some(nobody), Some(nobody)).unwrap();
        command.uid(nobody).gid(nobody);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn what_cannot_be_deleted_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    let set = open(&directory, 1).await;
    let instance = create(&*set, "one").await;
    // As after a removal that came half way.
    let left = directory.join(format!(".removing-{}", instance.id));
    fs::rename(directory.join(instance.id.as_str()), &left).unwrap();
    destroy(&*set, &instance).await;
    assert!(!left.exists());
    let again = create(&*set, "two").await;
    destroy(&*set, &again).await;
    set.stop().await;

    // No directory, so that nobody can remove it as one.
    fs::write(&left, "").unwrap();
    create(&*open(&directory, 1).await, "three").await;
}

#[tokio::test]
async fn what_has_outlived_its_instance_is_ended_and_keeps_nobody_from_opening() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    let set = open(&directory, 2).await;
    let (one, two) = (create(&*set, "one").await, create(&*set, "two").await);
    destroy(&*set, &one).await;
    set.stop().await;
    // A runner that was about to start makes its directory anew.
    let mut late = supervisor(&directory, &one);

    let set = open(&directory, 2).await;
    assert!(!runs(late.id()));
    late.wait().unwrap();
    assert!(!directory.join(one.id.as_str()).exists());
    let listed = set.list(&context(), &Tags::new()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, two.id);
}

/// A client that notes what it is asked and has removed the container.
const CLIENT: &str = "#!/bin/sh\necho \"$1 $DOCKER_HOST $4\" >> \"$HOME/asked\"\n";

#[tokio::test]
async fn a_container_is_asked_for_where_it_was_made_and_never_taken_for_gone() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    let set = open(&directory.join("state"), 1).await;
    let instance = create(&*set, "one").await;
    let uuid = "zzzzz-dz642-000000000000001";
    let place = directory.join("state").join(instance.id.as_str());
    let attempt = place.join(format!("run/spool/{uuid}/1"));
    fs::create_dir_all(&attempt).unwrap();
    // Not in the path of this process, and not there at first.
    let client = directory.join("docker");
    let name = format!("longshore-{uuid}-1");
    let note = serde_json::json!({ "engine": {
        "program": "docker",
        "name": name,
        "parent": null,
        "client": {
            "path": client,
            "environment": { "HOME": directory, "DOCKER_HOST": "unix:///then" },
        },
    } });
    fs::write(attempt.join("state"), format!("{note}\n")).unwrap();

    let ids = std::slice::from_ref(&instance.id);
    let error = set.destroy(&context(), ids).await.remove(0).1.unwrap_err();
    let text = longshore_types::error_chain(&error);
    for part in [client.to_str().unwrap(), &name, attempt.to_str().unwrap()] {
        assert!(text.contains(part), "{text}");
    }
    let listed = set.list(&context(), &Tags::new()).await.unwrap();
    assert_eq!(listed[0].state, InstanceState::Stopping);

    fs::write(&client, CLIENT).unwrap();
    fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).unwrap();
    destroy(&*set, &instance).await;
    let asked = fs::read_to_string(directory.join("asked")).unwrap();
    assert_eq!(asked, format!("rm unix:///then {name}\n"));
    assert!(!place.exists());
}
