//! Submitting, watching and cancelling batches.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{LONG, batch, ended, lock, open, run_through, running, submit, uuids};
use longshore_controller::{NewBatch, SubmitError};
use longshore_queue::{Call, Queue, QueueErrorKind};
use longshore_runner_api::StartDocument;
use longshore_types::{Attempt, ContainerState, ContainerUuid, ExitCause};

const EXIT_0: ExitCause = ExitCause::Exited { code: 0 };

#[tokio::test]
async fn a_batch_is_stored_in_its_order_and_found_by_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert!(store.find_batch("a").await.unwrap().is_none());
    let id = submit(&store, "a", 50).await;
    let found = store.find_batch("a").await.unwrap().unwrap();
    assert_eq!((found.id, found.counts.queued), (id, 50));
    assert_eq!(found.content_hash, "hash");
    assert!(!found.is_finished());
    let jobs = store.job_status(id).await.unwrap();
    let names: Vec<_> = jobs.iter().map(|job| job.name.clone()).collect();
    assert_eq!(
        names,
        (0..50).map(|n| format!("job {n}")).collect::<Vec<_>>()
    );
    // The order of a dispatcher: by the moment, then by uuid.
    assert!(jobs.is_sorted_by_key(|job| (job.created_at, job.uuid)));
}

#[tokio::test]
async fn a_batch_counts_its_jobs_and_finishes_with_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 4).await;
    let all = uuids(&store, id).await;
    run_through(&store, all[0], EXIT_0).await;
    run_through(&store, all[1], ExitCause::Signaled { signal: 9 }).await;
    lock(&store, all[2]).await.unwrap();
    let status = store.batch_status(id).await.unwrap();
    let counts = status.counts;
    assert_eq!(
        (
            counts.queued,
            counts.locked,
            counts.running,
            counts.succeeded,
            counts.failed
        ),
        (1, 1, 0, 1, 1)
    );
    assert!(!status.is_finished());
    running(&store, all[2], 1).await.unwrap();
    ended(&store, all[2], 1, EXIT_0).await.unwrap();
    run_through(&store, all[3], ExitCause::TimeLimit).await;
    let status = store.batch_status(id).await.unwrap();
    assert!(status.is_finished() && !status.is_success());
    assert_eq!((status.counts.succeeded, status.counts.cancelled), (2, 1));
    let jobs = store.job_status(id).await.unwrap();
    assert_eq!(jobs[1].exit_code(), Some(137));
    assert!(jobs[0].is_success() && !jobs[1].is_success());
    assert_eq!(jobs[3].error.as_deref(), Some("time limit reached"));
    assert_eq!(jobs[0].placed_on, Some("i-1".into()));
}

#[tokio::test]
async fn a_finished_batch_makes_way_for_another_and_an_unfinished_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 1).await;
    let again = store.submit_batch(batch("a", 1)).await.unwrap_err();
    assert!(matches!(again, SubmitError::Unfinished { id: found } if found == id));
    let uuid = uuids(&store, id).await[0];
    run_through(&store, uuid, EXIT_0).await;
    let next = submit(&store, "a", 1).await;
    assert!(next > id);
    assert_eq!(store.find_batch("a").await.unwrap().unwrap().id, next);
}

#[tokio::test]
async fn batches_with_open_jobs_are_listed_until_they_end_or_are_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (a, b) = (submit(&store, "a", 1).await, submit(&store, "b", 1).await);
    let c = submit(&store, "c", 1).await;
    let unfinished = || async {
        let batches = store.unfinished_batches().await.unwrap();
        batches.iter().map(|batch| batch.id).collect::<Vec<_>>()
    };
    assert_eq!(unfinished().await, [a, b, c]);
    run_through(&store, uuids(&store, a).await[0], EXIT_0).await;
    lock(&store, uuids(&store, b).await[0]).await.unwrap();
    assert_eq!(unfinished().await, [b, c]);
    store.cancel_batch(b).await.unwrap();
    assert_eq!(unfinished().await, [c]);
}

#[tokio::test]
async fn a_batch_with_a_bad_job_is_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut bad = Vec::new();
    bad.push(batch("a", 0));
    let mut twice = batch("a", 3);
    twice.jobs[2].name = "job 0".into();
    bad.push(twice);
    for priority in [0, 1001, -1] {
        let mut batch = batch("a", 3);
        batch.jobs[2].priority = priority;
        bad.push(batch);
    }
    let mut nothing = batch("a", 3);
    nothing.jobs[2].document = StartDocument::new(Vec::new());
    bad.push(nothing);
    for batch in bad {
        store.submit_batch(batch).await.unwrap_err();
    }
    assert!(store.find_batch("a").await.unwrap().is_none());
    assert!(
        store
            .refresh(&[], LONG)
            .await
            .unwrap()
            .containers
            .is_empty()
    );
}

#[tokio::test]
async fn cancelling_a_batch_ends_what_waits_and_marks_what_runs() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 4).await;
    let all = uuids(&store, id).await;
    run_through(&store, all[0], EXIT_0).await;
    lock(&store, all[1]).await.unwrap();
    lock(&store, all[2]).await.unwrap();
    running(&store, all[2], 1).await.unwrap();
    assert_eq!(store.cancel_batch(id).await.unwrap(), 3);
    assert_eq!(store.cancel_batch(id).await.unwrap(), 0);
    let jobs = store.job_status(id).await.unwrap();
    let states: Vec<_> = jobs.iter().map(|job| (job.state, job.priority)).collect();
    use ContainerState::{Cancelled, Complete, Locked, Running};
    assert_eq!(
        states,
        [(Complete, 500), (Locked, 0), (Running, 0), (Cancelled, 0)]
    );
    // The dispatcher acts on it.
    let unlock = Call::Unlock {
        attempt: Attempt(1),
        placed_on: Some("i-1".into()),
    };
    store.call(all[1], &unlock, LONG).await.unwrap();
    ended(&store, all[2], 1, ExitCause::Killed).await.unwrap();
    let status = store.batch_status(id).await.unwrap();
    assert!(status.is_finished() && status.cancelled);
    assert_eq!((status.counts.succeeded, status.counts.cancelled), (1, 3));
}

#[tokio::test]
async fn an_abandoned_batch_is_found_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 2).await;
    let all = uuids(&store, id).await;
    lock(&store, all[0]).await.unwrap();
    store.abandon_batch(id).await.unwrap();
    assert!(store.find_batch("a").await.unwrap().is_none());
    let next = submit(&store, "a", 1).await;
    assert_eq!(store.find_batch("a").await.unwrap().unwrap().id, next);
    assert!(!store.batch_status(id).await.unwrap().is_finished());
    let unknown = store.abandon_batch(longshore_controller::BatchId(99)).await;
    assert_eq!(unknown.unwrap_err().kind, QueueErrorKind::NotFound);
}

#[tokio::test]
async fn one_container_is_cancelled_or_held_and_raised() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 2).await;
    let all = uuids(&store, id).await;
    store.cancel(all[0]).await.unwrap();
    store.cancel(all[0]).await.unwrap();
    store.set_priority(all[1], 0).await.unwrap();
    assert_eq!(
        lock(&store, all[1]).await.unwrap_err().kind,
        QueueErrorKind::Refused
    );
    store.set_priority(all[1], 7).await.unwrap();
    assert_eq!(lock(&store, all[1]).await.unwrap().container.priority, 7);
    // Stopped because it was held, raised before that took effect.
    store.set_priority(all[1], 0).await.unwrap();
    store.set_priority(all[1], 8).await.unwrap();
    let back = ended(&store, all[1], 1, ExitCause::Killed).await.unwrap();
    assert_eq!(back.container.state, ContainerState::Queued);
    let jobs = store.job_status(id).await.unwrap();
    assert_eq!((jobs[1].retries_left, jobs[1].attempts), (3, 1));
    assert!(store.set_priority(all[1], 1001).await.is_err());
    assert!(store.set_priority(all[0], 1).await.is_err());
}

#[tokio::test]
async fn watching_a_batch_misses_nothing_and_ignores_others() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()));
    let mine = submit(&store, "mine", 1).await;
    let other = submit(&store, "other", 1).await;
    let uuid = uuids(&store, mine).await[0];
    let since = store.batch_status(mine).await.unwrap().revision;
    let nothing = store
        .watch_batch(mine, since, Duration::from_millis(20))
        .await;
    assert_eq!(nothing.unwrap(), since);
    // Changed before anybody watches.
    lock(&store, uuid).await.unwrap();
    let locked = store.watch_batch(mine, since, LONG).await.unwrap();
    assert!(locked > since);
    let watching = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.watch_batch(mine, locked, LONG).await }
    });
    run_through(&store, uuids(&store, other).await[0], EXIT_0).await;
    let quiet = store
        .watch_batch(mine, locked, Duration::from_millis(20))
        .await;
    assert_eq!(quiet.unwrap(), locked);
    assert!(!watching.is_finished());
    running(&store, uuid, 1).await.unwrap();
    assert!(watching.await.unwrap().unwrap() > locked);
}

#[tokio::test]
async fn ten_thousand_jobs_go_in_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let batch = batch("a", 10_000);
    let begun = Instant::now();
    let before = store.stats().commits;
    let id = store.submit_batch(batch).await.unwrap();
    eprintln!("submit_10000 {} ms", begun.elapsed().as_millis());
    assert_eq!(store.stats().commits - before, 1);
    assert_eq!(store.job_status(id).await.unwrap().len(), 10_000);
    assert_eq!(store.cancel_batch(id).await.unwrap(), 10_000);
    assert!(store.batch_status(id).await.unwrap().is_finished());
}

#[tokio::test]
async fn a_hundred_thousand_containers_are_refreshed() {
    let resident = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
    };
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    submit(&store, "a", 100_000).await;
    eprintln!("resident_after_submit_100000 {} KiB", resident());
    let begun = Instant::now();
    let refresh = store.refresh(&[], LONG).await.unwrap();
    eprintln!("refresh_100000 {} ms", begun.elapsed().as_millis());
    assert_eq!(refresh.containers.len(), 100_000);
    drop(refresh);
    eprintln!("resident_after_refresh_100000 {} KiB", resident());
}

#[tokio::test]
async fn a_batch_that_nobody_follows_is_found_only_while_it_is_unfinished() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let submitted = |key| NewBatch {
        followed: false,
        ..batch(key, 1)
    };
    let id = store.submit_batch(submitted("a")).await.unwrap();
    assert_eq!(store.find_batch("a").await.unwrap().unwrap().id, id);
    run_through(&store, uuids(&store, id).await[0], EXIT_0).await;
    assert!(store.find_batch("a").await.unwrap().is_none());

    let id = store.submit_batch(submitted("b")).await.unwrap();
    lock(&store, uuids(&store, id).await[0]).await.unwrap();
    store.cancel_batch(id).await.unwrap();
    assert!(store.find_batch("b").await.unwrap().is_none());

    // One that is followed is, so that its end can still be shown.
    let id = submit(&store, "c", 1).await;
    run_through(&store, uuids(&store, id).await[0], EXIT_0).await;
    assert_eq!(store.find_batch("c").await.unwrap().unwrap().id, id);
}

#[tokio::test]
async fn what_a_text_means_is_found_however_many_are_newer() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let old = submit(&store, "old", 1).await;
    let old = uuids(&store, old).await[0];
    let name = store.job(old).await.unwrap().unwrap().name;
    let newer = submit(&store, "newer", 500).await;
    let found = async |text: &str| -> Vec<ContainerUuid> {
        let found = store.find_jobs(text, 2).await.unwrap();
        found.into_iter().map(|job| job.uuid).collect()
    };
    let end = |length: usize| &old.as_str()[old.as_str().len() - length..];
    assert_eq!(found(old.as_str()).await, [old]);
    assert_eq!(found(end(12)).await, [old]);
    assert!(found(end(3)).await.is_empty(), "too short to mean one");
    assert!(found("").await.is_empty());
    assert!(found("%").await.is_empty());
    // Both have a job of this name: the newest first.
    let namesake = uuids(&store, newer).await[0];
    assert_eq!(found(&name).await, [namesake, old]);
}

#[tokio::test]
async fn what_is_closed_takes_nothing_new_and_goes_on_with_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 1).await;
    store.close();
    let error = store.submit_batch(batch("b", 1)).await.unwrap_err();
    assert!(matches!(error, SubmitError::Closed), "{error}");
    assert!(store.find_batch("b").await.unwrap().is_none());
    let job = common::job("late".to_owned());
    let late = store.create_request(serde_json::Map::new(), Some(job), 500);
    assert_eq!(late.await.unwrap_err().kind, QueueErrorKind::Unavailable);
    let uuid = uuids(&store, id).await[0];
    run_through(&store, uuid, EXIT_0).await;
    assert!(store.batch_status(id).await.unwrap().is_success());
}
