//! A disk without space, for real: needs the right to mount a file system in a namespace of its
//! own, so it is only run when asked for: `cargo test -p longshore-controller --test full_disk --
//! --ignored`.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{LONG, batch, lock, open, run_through, submit, uuids};
use longshore_controller::SubmitError;
use longshore_queue::{Queue, QueueErrorKind};
use longshore_types::ExitCause;

const DIRECTORY: &str = "LONGSHORE_TEST_FULL_DIRECTORY";

#[tokio::main]
async fn fill(directory: &Path) {
    let store = open(directory);
    let id = submit(&store, "small", 20).await;
    let all = uuids(&store, id).await;
    lock(&store, all[0]).await.unwrap();
    // Nearly everything that is left.
    let ballast = directory.join("ballast");
    let mut size = 8 << 20;
    while size > 16 << 10 && fs::write(&ballast, vec![1; size]).is_err() {
        size -= 16 << 10;
    }
    let error = store.submit_batch(batch("large", 2000)).await.unwrap_err();
    assert!(
        matches!(&error, SubmitError::Store(e) if e.kind == QueueErrorKind::Unavailable),
        "{error:?}"
    );
    let mut failed = 0;
    for &uuid in &all[1..] {
        if let Err(error) = lock(&store, uuid).await {
            assert_eq!(error.kind, QueueErrorKind::Unavailable, "{error:?}");
            failed += 1;
        }
    }
    eprintln!("calls_refused_on_the_full_disk {failed} n");
    // There is space again: the same store goes on with everything that it had acknowledged.
    fs::remove_file(&ballast).unwrap();
    let locked = store.batch_status(id).await.unwrap().counts.locked;
    assert_eq!(locked, 20 - failed);
    assert_eq!(store.refresh(&[], LONG).await.unwrap().containers.len(), 20);
    let large = submit(&store, "large", 2000).await;
    let first = uuids(&store, large).await[0];
    run_through(&store, first, ExitCause::Exited { code: 0 }).await;
}

#[test]
#[ignore = "needs the right to mount a file system"]
fn a_full_disk_loses_nothing_and_is_got_over() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return fill(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-ec"])
        .arg("mount -t tmpfs -o size=8m none \"$0\"; exec \"$@\"")
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_full_disk_loses_nothing_and_is_got_over",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory.path())
        .status()
        .unwrap();
    assert!(status.success());
}
