//! A client that does not read costs no memory, nor do commands that have ended. Alone in its file,
//! to be alone in its process.
#![allow(
    clippy::unwrap_used,
    reason = "only tests are here, though not in functions marked as such"
)]

mod support;

use std::fs;
use std::time::Duration;

use longshore_exec::{Command, ExecutorExt as _, ExitStatus, Identity, Target};
use longshore_ssh::{PrivateKey, Settings, SshExecutor};
use russh::keys::ssh_key::LineEnding;
use support::{PATIENCE, connect, create, eventually, key, open};

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    // Not that of `status`, which may be off by what each processor has not yet added up.
    let status = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("Rss:"));
    let kib = line.unwrap().trim().strip_suffix("kB").unwrap();
    kib.trim().parse().unwrap()
}

/// One after the other, for both measure the memory of the process.
#[tokio::test]
async fn memory_is_bounded() {
    commands_that_have_ended_leave_nothing().await;
    output_that_nobody_reads_waits_in_the_command().await;
}

async fn commands_that_have_ended_leave_nothing() {
    const COMMANDS: usize = 4000;
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let one = create(&*set, "one").await;
    let text = key(1).to_openssh(LineEnding::LF).unwrap();
    let executor = SshExecutor::new(PrivateKey::parse(&text).unwrap(), Settings::default());
    let (address, user) = (one.address.unwrap(), one.remote_user.unwrap());
    let target = Target::new(one.id, address, user, Identity::Unchecked);
    let command = Command::new("exit 3");
    let run = async |count| {
        for _ in 0..count {
            let done = executor.exec(&target, &command, &[], PATIENCE, 0).await;
            assert_eq!(done.unwrap().status, Some(ExitStatus::Code(3)));
        }
    };
    run(COMMANDS / 8).await;
    let before = resident();
    run(COMMANDS).await;
    let after = resident();
    // What the SSH library has for an open channel is 1.6 KiB.
    assert!(
        after < before + 1536,
        "{before} KiB before, {after} KiB after"
    );
}

async fn output_that_nobody_reads_waits_in_the_command() {
    const SIZE: usize = 300 << 20;
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let client = connect(&create(&*set, "one").await).await;
    assert_eq!(client.text("echo warm").await, "warm");
    let before = resident();
    let counter = folder.path().join("counter");
    // Says how far it has come, so that the test knows when it is held up.
    let line = format!(
        "i=0; while [ $i -lt 300 ]; do head -c 1048576 /dev/zero; i=$((i+1)); \
         echo $i > {}; done",
        counter.display()
    );
    let mut channel = client.start(&line).await;
    let far = || fs::read_to_string(&counter).is_ok_and(|text| !text.trim().is_empty());
    eventually("it has begun", far).await;

    let (mut received, mut most, mut code) = (0, 0, None);
    while let Some(message) = channel.wait().await {
        match message {
            russh::ChannelMsg::Data { data } => received += data.len(),
            russh::ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
            _ => {}
        }
        if received % (32 << 20) < 32768 {
            most = most.max(resident());
            // That it comes no further than buffers reach can only be watched for a while.
            let printed = || -> u64 {
                let text = fs::read_to_string(&counter).unwrap_or_default();
                text.trim().parse().unwrap_or(0)
            };
            let seen = (received >> 20) as u64;
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(printed() <= seen + 16, "{} printed, {seen} read", printed());
            }
        }
    }
    assert_eq!((received, code), (SIZE, Some(0)));
    assert!(
        most < before + (48 << 10),
        "{before} KiB before, {most} KiB at most"
    );
}
