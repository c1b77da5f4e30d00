//! What ended is kept within bounds, and stores of version 1 are gone on with.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod common;

use std::fs;
use std::time::Duration;

use common::{open, run_through, submit, uuids};
use longshore_controller::{BatchId, JobFilter, JobStates, Retention, Store};
use longshore_types::{ContainerUuid, ExitCause};

const EVERYTHING: Retention = Retention {
    max_finished: u64::MAX,
    max_age: Duration::MAX,
    max_output_bytes: u64::MAX,
};

async fn finished(store: &Store, key: &str, jobs: usize) -> (BatchId, Vec<ContainerUuid>) {
    let batch = submit(store, key, jobs).await;
    let uuids = uuids(store, batch).await;
    for &uuid in &uuids {
        run_through(store, uuid, ExitCause::Exited { code: 0 }).await;
        let path = store.output_path(uuid, "stdout");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "said").unwrap();
    }
    (batch, uuids)
}

async fn left(store: &Store) -> Vec<ContainerUuid> {
    let all = JobFilter {
        states: JobStates::All,
        batch: None,
        limit: 1000,
    };
    let jobs = store.list_jobs(&all).await.unwrap();
    jobs.into_iter().map(|job| job.uuid).rev().collect()
}

#[tokio::test]
async fn the_oldest_beyond_the_bounds_go_with_their_output() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (first, old) = finished(&store, "a", 300).await;
    let (_, new) = finished(&store, "b", 3).await;
    assert_eq!(store.prune(&EVERYTHING).await.unwrap(), 0);
    assert_eq!(left(&store).await.len(), 303);

    let four = Retention {
        max_finished: 4,
        ..EVERYTHING
    };
    assert_eq!(store.prune(&four).await.unwrap(), 299);
    let kept: Vec<_> = old[299..].iter().chain(&new).copied().collect();
    assert_eq!(left(&store).await, kept);
    let has_output = |uuid: &ContainerUuid| store.output_path(*uuid, "stdout").exists();
    assert!(kept.iter().all(has_output));
    assert!(!old[..299].iter().any(has_output));
    assert!(store.batch_status(first).await.is_ok(), "one of it is left");
    assert_eq!(store.prune(&four).await.unwrap(), 0);

    let none = Retention {
        max_finished: 0,
        ..EVERYTHING
    };
    assert_eq!(store.prune(&none).await.unwrap(), 4);
    assert!(store.batch_status(first).await.is_err());
    assert!(left(&store).await.is_empty());
}

#[tokio::test]
async fn nothing_of_an_unfinished_batch_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let batch = submit(&store, "a", 2).await;
    let uuids = uuids(&store, batch).await;
    run_through(&store, uuids[0], ExitCause::Exited { code: 0 }).await;
    let nothing = Retention {
        max_finished: 0,
        max_age: Duration::ZERO,
        max_output_bytes: 0,
    };
    assert_eq!(store.prune(&nothing).await.unwrap(), 0);
    assert_eq!(left(&store).await.len(), 2);
}

#[tokio::test]
async fn a_store_of_version_1_is_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let before = {
        let store = open(directory.path());
        submit(&store, "a", 3).await;
        left(&store).await
    };
    let path = directory.path().join("store.sqlite");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(
        "DROP TABLE requests; ALTER TABLE batches DROP COLUMN followed; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    let store = open(directory.path());
    assert_eq!(left(&store).await, before);
    let made = store
        .create_request(serde_json::Map::new(), None, 500)
        .await;
    assert!(made.unwrap().container.is_none());
}
