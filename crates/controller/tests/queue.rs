//! The store as a dispatcher's queue.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{LONG, batch, ended, lock, open, run_through, running, submit, uuids};
use longshore_controller::{Settings, Store};
use longshore_queue::{Call, Change, Queue, QueueErrorKind};
use longshore_runner_api::StartDocument;
use longshore_types::{Attempt, Container, ContainerState, ContainerUuid, ExitCause};

const EXIT_0: ExitCause = ExitCause::Exited { code: 0 };

fn records(changes: Vec<Change>) -> Vec<Container> {
    let record = |change| match change {
        Change::Updated(record) => *record,
        Change::Removed(uuid) => panic!("{uuid} was removed"),
    };
    changes.into_iter().map(record).collect()
}

/// Another connection that holds the file's write lock, so that the store's writer has to wait.
fn hold(directory: &std::path::Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(directory.join("store.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

async fn let_all_tasks_run() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_container_is_run_from_its_lock_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 1).await;
    let uuid = uuids(&store, id).await[0];

    let locked = lock(&store, uuid).await.unwrap();
    assert_eq!(locked.container.state, ContainerState::Locked);
    assert!(locked.container.locked_by_us);
    assert_eq!(locked.container.placed_on, Some("i-1".into()));
    let document = locked.document.unwrap();
    assert_eq!(document, store.document(uuid, LONG).await.unwrap());
    let document = StartDocument::from_json(&document).unwrap();
    assert_eq!(document.command, ["echo", "job 0"]);

    let running = running(&store, uuid, 1).await.unwrap();
    assert!(running.document.is_none());
    assert!(running.container.revision > locked.container.revision);
    let done = ended(&store, uuid, 1, EXIT_0).await.unwrap().container;
    assert_eq!(done.state, ContainerState::Complete);
    assert!(!done.locked_by_us);
    // The reply was lost: the same again.
    let again = ended(&store, uuid, 1, EXIT_0).await.unwrap().container;
    assert_eq!(again, done);
}

#[tokio::test]
async fn refused_and_unknown_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 1).await;
    let uuid = uuids(&store, id).await[0];
    let refused = running(&store, uuid, 1).await.unwrap_err();
    assert_eq!(refused.kind, QueueErrorKind::Refused);
    let nobody: ContainerUuid = "local-dz642-nobodynobodynob".parse().unwrap();
    for error in [
        lock(&store, nobody).await.unwrap_err(),
        store.document(nobody, LONG).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, QueueErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_refresh_has_what_is_unfinished_and_what_became_of_the_known() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    // More than a page.
    let id = submit(&store, "a", 1500).await;
    let all = uuids(&store, id).await;
    run_through(&store, all[0], EXIT_0).await;
    run_through(&store, all[1], EXIT_0).await;
    lock(&store, all[2]).await.unwrap();
    let nobody: ContainerUuid = "local-dz642-nobodynobodynob".parse().unwrap();

    let refresh = store
        .refresh(&[all[0], all[2], nobody, nobody], LONG)
        .await
        .unwrap();
    assert_eq!(refresh.removed, [nobody]);
    assert_eq!(refresh.containers.len(), 1499);
    let found: BTreeMap<_, _> = refresh
        .containers
        .iter()
        .map(|c| (c.uuid, c.state))
        .collect();
    assert_eq!(found.len(), 1499);
    assert_eq!(found[&all[0]], ContainerState::Complete);
    assert!(!found.contains_key(&all[1]));
    assert_eq!(found[&all[2]], ContainerState::Locked);
    assert_eq!(found[&all[3]], ContainerState::Queued);
}

#[tokio::test]
async fn one_damaged_record_harms_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 3).await;
    let all = uuids(&store, id).await;
    rusqlite::Connection::open(directory.path().join("store.sqlite"))
        .unwrap()
        .execute(
            "UPDATE containers SET request = '{' WHERE uuid = ?1",
            [all[1].as_str()],
        )
        .unwrap();
    let refresh = store.refresh(&all, LONG).await.unwrap();
    assert_eq!(refresh.containers.len(), 2);
    assert!(refresh.removed.is_empty());
    assert_eq!(records(store.changes(LONG).await.unwrap()).len(), 2);
    let error = lock(&store, all[1]).await.unwrap_err();
    assert_eq!(error.kind, QueueErrorKind::BadRecord);
    lock(&store, all[2]).await.unwrap();
}

#[tokio::test]
async fn changes_are_coalesced_and_come_a_thousand_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert!(store.changes(Duration::ZERO).await.unwrap().is_empty());
    let id = submit(&store, "a", 1500).await;
    let all = uuids(&store, id).await;
    run_through(&store, all[0], EXIT_0).await;
    let first = records(store.changes(LONG).await.unwrap());
    let second = records(store.changes(LONG).await.unwrap());
    assert_eq!((first.len(), second.len()), (1000, 500));
    let told: BTreeMap<_, _> = first
        .iter()
        .chain(&second)
        .map(|c| (c.uuid, c.state))
        .collect();
    assert_eq!(told.len(), 1500);
    assert_eq!(told[&all[0]], ContainerState::Complete);
    assert!(
        store
            .changes(Duration::from_millis(1))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_waiting_dispatcher_is_woken_by_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.changes(LONG).await }
    });
    let_all_tasks_run().await;
    submit(&store, "a", 1).await;
    let changes = tokio::time::timeout(LONG / 2, waiting).await.unwrap();
    assert_eq!(changes.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_told_before_a_restart_comes_with_the_refresh() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    submit(&store, "a", 2).await;
    drop(store);
    let store = open(directory.path());
    assert!(store.changes(Duration::ZERO).await.unwrap().is_empty());
    let refresh = store.refresh(&[], LONG).await.unwrap();
    let last = refresh.containers.iter().map(|c| c.revision).max().unwrap();
    let locked = lock(&store, refresh.containers[0].uuid).await.unwrap();
    assert!(locked.container.revision > last);
    let told = records(store.changes(LONG).await.unwrap());
    assert_eq!(told, [locked.container]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dropped_wait_for_changes_loses_none() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let id = submit(&store, "a", 40).await;
    let all = uuids(&store, id).await;
    let work: Vec<_> = all
        .chunks(10)
        .map(|chunk| {
            let (store, chunk) = (Arc::clone(&store), chunk.to_vec());
            tokio::spawn(async move {
                for uuid in chunk {
                    run_through(&store, uuid, EXIT_0).await;
                }
            })
        })
        .collect();
    let mut mirror: BTreeMap<ContainerUuid, Container> = BTreeMap::new();
    let mut dropped = 0u32;
    let mut patience = Duration::from_micros(1);
    let begun = std::time::Instant::now();
    // Where all was done before any wait was dropped, the next one is: nothing follows.
    while dropped == 0 || mirror.len() < 40 || !mirror.values().all(|c| c.state.is_final()) {
        assert!(begun.elapsed() < LONG, "a change was lost");
        // Dropped at all kinds of moments.
        patience = Duration::from_nanos((patience.as_nanos() as u64 * 31 + 7919) % 3_000_000);
        match tokio::time::timeout(patience, store.changes(LONG)).await {
            Err(_) => dropped += 1,
            Ok(changes) => {
                for record in records(changes.unwrap()) {
                    let before = mirror.insert(record.uuid, record.clone());
                    assert!(before.is_none_or(|before| before.revision < record.revision));
                }
            }
        }
    }
    for task in work {
        task.await.unwrap();
    }
    let refresh = store.refresh(&all, LONG).await.unwrap();
    let truth: BTreeSet<_> = refresh
        .containers
        .iter()
        .map(|c| (c.uuid, c.revision))
        .collect();
    assert_eq!(
        truth,
        mirror.values().map(|c| (c.uuid, c.revision)).collect()
    );
}

#[tokio::test]
async fn requests_that_wait_share_one_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let id = submit(&store, "a", 100).await;
    let all = uuids(&store, id).await;
    let before = store.stats();
    let other = hold(directory.path());
    // Among them some that fail, each alone.
    let calls: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(n, &uuid)| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                if n % 10 == 9 {
                    running(&store, uuid, 1).await
                } else {
                    lock(&store, uuid).await
                }
            })
        })
        .collect();
    let_all_tasks_run().await;
    other.execute_batch("ROLLBACK").unwrap();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().is_err(), n % 10 == 9);
    }
    let after = store.stats();
    assert_eq!(after.requests - before.requests, 100);
    // The writer takes what is there, waits for the lock, and then takes all the rest.
    assert!(after.commits - before.commits <= 2, "{after:?}");
    let jobs = store.job_status(id).await.unwrap();
    let locked = jobs
        .iter()
        .filter(|job| job.state == ContainerState::Locked);
    assert_eq!(locked.count(), 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_callers_that_lock_one_container_differently_one_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let id = submit(&store, "a", 1).await;
    let uuid = uuids(&store, id).await[0];
    let calls: Vec<_> = (0..32)
        .map(|n| {
            let store = Arc::clone(&store);
            let planned = Some(format!("i-{n}").into());
            let attempt = Attempt(1);
            let call = Call::Lock { attempt, planned };
            tokio::spawn(async move { store.call(uuid, &call, LONG).await })
        })
        .collect();
    let mut succeeded = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => succeeded += 1,
            Err(error) => assert_eq!(error.kind, QueueErrorKind::Refused),
        }
    }
    assert_eq!(succeeded, 1);
    assert_eq!(store.job_status(id).await.unwrap()[0].attempts, 1);
}

#[tokio::test]
async fn calls_are_bounded_while_the_file_is_held_by_others() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_waiting_requests: 1,
        ..Settings::default()
    };
    let store = Arc::new(Store::open(directory.path(), settings).unwrap());
    let id = submit(&store, "a", 3).await;
    let all = uuids(&store, id).await;
    let other = hold(directory.path());
    let before = store.stats().requests;
    // The first is being carried out, the second is in line, there is no place for a third.
    let first = tokio::spawn({
        let (store, uuid) = (Arc::clone(&store), all[0]);
        async move { lock(&store, uuid).await }
    });
    while store.stats().requests == before {
        tokio::task::yield_now().await;
    }
    let new_lock = Call::Lock {
        attempt: Attempt(1),
        planned: None,
    };
    let second = tokio::spawn({
        let (store, uuid) = (Arc::clone(&store), all[1]);
        let call = new_lock.clone();
        async move { store.call(uuid, &call, Duration::from_millis(100)).await }
    });
    let_all_tasks_run().await;
    let third = store
        .call(all[2], &new_lock, Duration::from_millis(50))
        .await;
    assert_eq!(third.unwrap_err().kind, QueueErrorKind::Overloaded);
    let in_line = second.await.unwrap().unwrap_err();
    assert_eq!(in_line.kind, QueueErrorKind::Unavailable);
    let held = first.await.unwrap().unwrap_err();
    assert_eq!(held.kind, QueueErrorKind::Unavailable);
    // Nothing of all that happened, and the store goes on.
    other.execute_batch("ROLLBACK").unwrap();
    let jobs = store.job_status(id).await.unwrap();
    assert!(jobs.iter().all(|job| job.state == ContainerState::Queued));
    lock(&store, all[0]).await.unwrap();
}

#[tokio::test]
async fn a_full_store_takes_no_batch_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_store_bytes: 1 << 20,
        ..Settings::default()
    };
    let store = Arc::new(Store::open(directory.path(), settings).unwrap());
    let id = submit(&store, "small", 20).await;
    let all = uuids(&store, id).await;
    // Together with the batch that is too large, in one transaction.
    let other = hold(directory.path());
    let calls: Vec<_> = all
        .iter()
        .map(|&uuid| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { lock(&store, uuid).await })
        })
        .collect();
    let large = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.submit_batch(batch("large", 10_000)).await }
    });
    let_all_tasks_run().await;
    other.execute_batch("ROLLBACK").unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let error = large.await.unwrap().unwrap_err();
    assert!(
        matches!(
            &error,
            longshore_controller::SubmitError::Store(error)
                if error.kind == QueueErrorKind::Unavailable
        ),
        "{error:?}"
    );
    assert!(store.find_batch("large").await.unwrap().is_none());
    assert_eq!(store.refresh(&[], LONG).await.unwrap().containers.len(), 20);
    run_through_locked(&store, &all).await;
    assert!(store.batch_status(id).await.unwrap().is_success());
    // There is room again.
    drop(store);
    let store = open(directory.path());
    submit(&store, "large", 10_000).await;
}

async fn run_through_locked(store: &Store, uuids: &[ContainerUuid]) {
    for &uuid in uuids {
        ended(store, uuid, 1, EXIT_0).await.unwrap();
    }
}
