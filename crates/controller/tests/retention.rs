//! What ended is kept within bounds, and stores of older versions are gone on with.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{LONG, batch, lock, open, run_through, submit, uuids};
use longshore_controller::{BatchId, JobFilter, JobStates, NewBatch, Retention, Settings, Store};
use longshore_queue::{Call, Queue};
use longshore_types::{Attempt, ContainerUuid, Exit, ExitCause};
use rusqlite::Connection;
use serde_json::json;

const EVERYTHING: Retention = Retention {
    max_finished: u64::MAX,
    min_age: Duration::ZERO,
    max_age: Duration::MAX,
    max_output_bytes: u64::MAX,
};

const NOTHING: Retention = Retention {
    max_finished: 0,
    ..EVERYTHING
};

/// Makes a batch whose end was seen.
async fn finished(store: &Store, key: &str, jobs: usize) -> (BatchId, Vec<ContainerUuid>) {
    let (batch, uuids) = unseen(store, key, jobs).await;
    store.abandon_batch(batch).await.unwrap();
    (batch, uuids)
}

/// Makes a batch that has ended, and that somebody follows.
async fn unseen(store: &Store, key: &str, jobs: usize) -> (BatchId, Vec<ContainerUuid>) {
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

/// The database, beside the store that has it open.
fn database(directory: &Path) -> Connection {
    let database = Connection::open(directory.join("store.sqlite")).unwrap();
    database.busy_timeout(LONG).unwrap();
    database
}

/// Lets an hour pass for what has ended.
fn an_hour_passes(directory: &Path) {
    let sql = "UPDATE batches SET finished_at = finished_at - 3600000; \
               UPDATE containers SET finished_at = finished_at - 3600000";
    database(directory).execute_batch(sql).unwrap();
}

async fn left(store: &Store) -> Vec<ContainerUuid> {
    let all = JobFilter {
        states: JobStates::All,
        batch: None,
        before: None,
        limit: 1000,
    };
    let jobs = store.list_jobs(&all).await.unwrap().jobs;
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

    assert_eq!(store.prune(&NOTHING).await.unwrap(), 4);
    assert!(store.batch_status(first).await.is_err());
    assert!(left(&store).await.is_empty());
}

#[tokio::test]
async fn for_their_age_alone_they_go_little_by_little() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (_, all) = finished(&store, "a", 300).await;
    let of_today = Retention {
        max_age: Duration::from_secs(1800),
        ..EVERYTHING
    };
    assert_eq!(store.prune(&of_today).await.unwrap(), 0);
    an_hour_passes(directory.path());
    assert_eq!(store.prune(&of_today).await.unwrap(), 200);
    assert_eq!(left(&store).await, all[200..]);
    assert_eq!(store.prune(&of_today).await.unwrap(), 100);
}

#[tokio::test]
async fn nothing_of_an_unfinished_batch_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let batch = submit(&store, "a", 2).await;
    let uuids = uuids(&store, batch).await;
    run_through(&store, uuids[0], ExitCause::Exited { code: 0 }).await;
    an_hour_passes(directory.path());
    let nothing = Retention {
        max_age: Duration::ZERO,
        max_output_bytes: 0,
        ..NOTHING
    };
    assert_eq!(store.prune(&nothing).await.unwrap(), 0);
    assert_eq!(left(&store).await.len(), 2);
}

#[tokio::test]
async fn nothing_goes_whose_end_somebody_still_waits_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (batch, _) = unseen(&store, "a", 3).await;
    let of_today = Retention {
        max_age: Duration::from_secs(1800),
        max_output_bytes: 0,
        ..NOTHING
    };
    assert_eq!(store.prune(&of_today).await.unwrap(), 0);
    assert_eq!(store.find_batch("a").await.unwrap().unwrap().id, batch);
    // Seen, or not asked for in all that time: two batches that are alike otherwise.
    store.abandon_batch(batch).await.unwrap();
    assert_eq!(store.prune(&of_today).await.unwrap(), 3);
    unseen(&store, "b", 3).await;
    an_hour_passes(directory.path());
    assert_eq!(store.prune(&of_today).await.unwrap(), 3);
}

#[tokio::test]
async fn what_ended_just_now_stays_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    finished(&store, "a", 1).await;
    let later = Retention {
        min_age: Duration::from_secs(1800),
        ..NOTHING
    };
    assert_eq!(store.prune(&later).await.unwrap(), 0);
    an_hour_passes(directory.path());
    assert_eq!(store.prune(&later).await.unwrap(), 1);
    // The clock was an hour ahead: nobody waits for an hour.
    finished(&store, "b", 1).await;
    let ahead = "UPDATE batches SET finished_at = finished_at + 3600000";
    database(directory.path()).execute_batch(ahead).unwrap();
    assert_eq!(store.prune(&later).await.unwrap(), 1);
}

#[tokio::test]
async fn a_failure_counts_though_its_job_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 4).await;
    let uuids = uuids(&store, id).await;
    run_through(&store, uuids[0], ExitCause::Exited { code: 1 }).await;
    run_through(&store, uuids[1], ExitCause::Exited { code: 0 }).await;
    store.cancel(uuids[2]).await.unwrap();
    run_through(&store, uuids[3], ExitCause::Exited { code: 0 }).await;
    store.abandon_batch(id).await.unwrap();
    let one = Retention {
        max_finished: 1,
        ..EVERYTHING
    };
    assert_eq!(store.prune(&one).await.unwrap(), 3);
    let status = store.batch_status(id).await.unwrap();
    let counts = status.counts;
    assert!(status.is_finished() && !status.is_success());
    assert_eq!(
        (counts.succeeded, counts.failed, counts.cancelled),
        (2, 1, 1)
    );
}

/// Runs a container that says how much it has written.
async fn run_writing(store: &Store, uuid: ContainerUuid, stdout_bytes: u64, stderr_bytes: u64) {
    lock(store, uuid).await.unwrap();
    let exit = Exit {
        stdout_bytes,
        stderr_bytes,
        ..Exit::unseen(ExitCause::Exited { code: 0 })
    };
    let attempt = Attempt(1);
    let ended = Call::Ended { attempt, exit };
    store.call(uuid, &ended, LONG).await.unwrap();
}

/// A batch of jobs that keep all of their output, of which the first one is the oldest.
async fn with_output(store: &Store, written: &[(u64, u64)]) -> Vec<ContainerUuid> {
    let mut jobs = batch("a", written.len()).jobs;
    jobs.iter_mut().for_each(|job| job.keep_output = true);
    let new = NewBatch {
        jobs,
        followed: false,
        ..batch("a", 0)
    };
    let id = store.submit_batch(new).await.unwrap();
    let uuids = uuids(store, id).await;
    for (&uuid, &(stdout, stderr)) in uuids.iter().zip(written) {
        run_writing(store, uuid, stdout, stderr).await;
    }
    uuids
}

#[tokio::test]
async fn one_with_too_much_output_goes_for_itself() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let all = with_output(&store, &[(60, 0), (10, 10), (101, 0), (30, 0)]).await;
    let hundred = Retention {
        max_output_bytes: 100,
        ..EVERYTHING
    };
    assert_eq!(store.prune(&hundred).await.unwrap(), 2);
    assert_eq!(left(&store).await, [all[1], all[3]]);
}

#[tokio::test]
async fn no_number_that_a_machine_says_stops_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let half = u64::MAX / 2 + 9;
    let said = [
        (1, 1),
        (u64::MAX, u64::MAX),
        (half, half),
        (half, 0),
        (1, 1),
    ];
    let all = with_output(&store, &said).await;
    let some = Retention {
        max_output_bytes: 1 << 30,
        ..EVERYTHING
    };
    assert_eq!(store.prune(&some).await.unwrap(), 3);
    assert_eq!(left(&store).await, [all[0], all[4]]);
}

#[tokio::test]
async fn what_cannot_be_removed_keeps_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (_, all) = finished(&store, "a", 4).await;
    // A file in the place of a folder cannot be removed as one.
    let folder = directory.path().join("logs").join(all[1].as_str());
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    let refuses = format!(
        "CREATE TRIGGER refuses BEFORE DELETE ON containers WHEN old.uuid = '{}' \
         BEGIN SELECT RAISE(ABORT, 'it stays'); END",
        all[2]
    );
    let database = database(directory.path());
    database.execute_batch(&refuses).unwrap();
    assert_eq!(store.prune(&NOTHING).await.unwrap(), 2);
    assert_eq!(left(&store).await, [all[1], all[2]]);
    store.start_document(all[2], LONG).await.unwrap();
    database.execute_batch("DROP TRIGGER refuses").unwrap();
    fs::remove_file(&folder).unwrap();
    assert_eq!(store.prune(&NOTHING).await.unwrap(), 2);
}

#[tokio::test]
async fn a_store_that_is_nearly_full_takes_nothing_new_and_lets_everything_end() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_store_bytes: 1 << 20,
        ..Settings::default()
    };
    let store = Store::open(directory.path(), settings).unwrap();
    let large = |n: usize| {
        let mut batch = batch(&n.to_string(), 1);
        batch.followed = false;
        batch.jobs[0].document.command.push("x".repeat(3000));
        batch
    };
    let mut all = Vec::new();
    let refused = loop {
        match store.submit_batch(large(all.len())).await {
            Ok(id) => all.push(uuids(&store, id).await[0]),
            Err(refused) => break longshore_types::error_chain(&refused),
        }
    };
    assert!(refused.contains("no room for anything new"), "{refused}");
    assert!(all.len() > 200, "{}", all.len());
    let attributes = || serde_json::from_value(json!({ "name": "x".repeat(90_000) })).unwrap();
    let asked = store.create_request(attributes(), None, 1).await;
    assert!(
        refused.contains(&asked.unwrap_err().to_string()),
        "{refused}"
    );
    for &uuid in &all {
        run_through(&store, uuid, ExitCause::Exited { code: 0 }).await;
    }
    let removed = store.prune(&EVERYTHING).await.unwrap();
    assert!((1..all.len()).contains(&removed), "{removed}");
    assert_eq!(left(&store).await, all[removed..]);
    store.check(LONG).await.unwrap();
    submit(&store, "more", 1).await;
}

/// The names of the requests that are there, the oldest first.
fn drafts(directory: &Path) -> Vec<String> {
    let database = database(directory);
    let sql = "SELECT json_extract(attributes, '$.name') FROM requests ORDER BY id";
    let mut statement = database.prepare(sql).unwrap();
    let names = statement.query_map((), |row| row.get(0)).unwrap();
    names.map(Result::unwrap).collect()
}

#[tokio::test]
async fn requests_that_nobody_commits_are_not_kept_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let named = |name: &str| {
        let mut attributes = serde_json::Map::new();
        attributes.insert("name".into(), name.into());
        attributes
    };
    store.create_request(named("old"), None, 1).await.unwrap();
    let job = common::job("committed".into());
    let committed = store.create_request(named("committed"), Some(job), 1);
    committed.await.unwrap();
    let an_hour_ago = "UPDATE requests SET modified_at = modified_at - 3600000";
    database(directory.path())
        .execute_batch(an_hour_ago)
        .unwrap();
    store.create_request(named("new"), None, 1).await.unwrap();
    store.prune(&EVERYTHING).await.unwrap();
    assert_eq!(drafts(directory.path()).len(), 3);
    let of_today = Retention {
        max_age: Duration::from_secs(1800),
        ..EVERYTHING
    };
    store.prune(&of_today).await.unwrap();
    assert_eq!(drafts(directory.path()), ["committed", "new"]);
    let many = "INSERT INTO requests (uuid, attributes, created_at, modified_at) \
                WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 10500) \
                SELECT n, '{\"name\": \"many\"}', 1, 1 FROM n";
    database(directory.path()).execute_batch(many).unwrap();
    store.prune(&EVERYTHING).await.unwrap();
    let left = drafts(directory.path());
    assert_eq!((left.len(), left[0].as_str()), (10_001, "committed"));
}

/// What takes a store back to version 4, from there to 3, to 2, and from there to 1.
const BACK: [&str; 4] = [
    "DROP INDEX containers_by_state; DROP INDEX requests_by_priority; \
     CREATE INDEX requests_by_container ON requests (container); PRAGMA user_version = 4;",
    "ALTER TABLE batches DROP COLUMN removed_succeeded; \
     ALTER TABLE batches DROP COLUMN removed_failed; \
     ALTER TABLE batches DROP COLUMN removed_cancelled; \
     ALTER TABLE containers DROP COLUMN given_back; PRAGMA user_version = 3;",
    "ALTER TABLE batches DROP COLUMN followed; PRAGMA user_version = 2;",
    "DROP TABLE requests; PRAGMA user_version = 1;",
];

#[tokio::test]
async fn a_store_of_an_older_version_is_gone_on_with() {
    for steps in 1..=BACK.len() {
        let directory = tempfile::tempdir().unwrap();
        let before = {
            let store = open(directory.path());
            submit(&store, "a", 3).await;
            left(&store).await
        };
        let old = database(directory.path());
        old.execute_batch(&BACK[..steps].concat()).unwrap();
        drop(old);
        let store = open(directory.path());
        assert_eq!(left(&store).await, before);
        let made = store.create_request(serde_json::Map::new(), None, 500);
        assert!(made.await.unwrap().container.is_none());
        for &uuid in &before {
            run_through(&store, uuid, ExitCause::Exited { code: 0 }).await;
        }
        let batch = store.find_batch("a").await.unwrap().unwrap();
        assert!(batch.is_success(), "somebody may wait for it");
    }
}
