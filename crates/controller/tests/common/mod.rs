//! What the tests of the store have in common.

#![allow(dead_code, reason = "each test file uses another part of it")]

use std::path::Path;
use std::time::Duration;

use longshore_controller::{BatchId, NewBatch, NewJob, Settings, Store};
use longshore_queue::{Call, Queue, QueueError, Reply};
use longshore_runner_api::StartDocument;
use longshore_types::{Attempt, ContainerUuid, Exit, ExitCause, ResourceRequest};

/// Long enough for anything on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn open(directory: &Path) -> Store {
    Store::open(directory, Settings::default()).expect("the store opens")
}

pub(crate) fn job(name: String) -> NewJob {
    let command = vec!["echo".into(), name.clone()];
    NewJob::new(
        name,
        StartDocument::new(command),
        ResourceRequest::default(),
    )
}

pub(crate) fn batch(key: &str, jobs: usize) -> NewBatch {
    NewBatch {
        key: key.into(),
        content_hash: "hash".into(),
        name: format!("batch {key}"),
        followed: true,
        jobs: (0..jobs).map(|n| job(format!("job {n}"))).collect(),
    }
}

pub(crate) async fn submit(store: &Store, key: &str, jobs: usize) -> BatchId {
    let batch = batch(key, jobs);
    store.submit_batch(batch).await.expect("the batch is taken")
}

/// The containers of a batch, in order.
pub(crate) async fn uuids(store: &Store, batch: BatchId) -> Vec<ContainerUuid> {
    let jobs = store.job_status(batch).await.expect("the jobs are read");
    jobs.iter().map(|job| job.uuid).collect()
}

/// Begins the first attempt of a container.
pub(crate) async fn lock(store: &Store, uuid: ContainerUuid) -> Result<Reply, QueueError> {
    lock_for(store, uuid, 1).await
}

/// Begins this attempt of a container.
pub(crate) async fn lock_for(
    store: &Store,
    uuid: ContainerUuid,
    attempt: u32,
) -> Result<Reply, QueueError> {
    let call = Call::Lock {
        attempt: Attempt(attempt),
        planned: Some("i-1".into()),
    };
    store.call(uuid, &call, LONG).await
}

pub(crate) async fn running(
    store: &Store,
    uuid: ContainerUuid,
    attempt: u32,
) -> Result<Reply, QueueError> {
    let call = Call::Running {
        attempt: Attempt(attempt),
        started_at: None,
    };
    store.call(uuid, &call, LONG).await
}

pub(crate) async fn ended(
    store: &Store,
    uuid: ContainerUuid,
    attempt: u32,
    cause: ExitCause,
) -> Result<Reply, QueueError> {
    let call = Call::Ended {
        attempt: Attempt(attempt),
        exit: Exit::unseen(cause),
    };
    store.call(uuid, &call, LONG).await
}

/// Runs a container to its end.
pub(crate) async fn run_through(store: &Store, uuid: ContainerUuid, cause: ExitCause) {
    let attempt = lock(store, uuid)
        .await
        .expect("locked")
        .container
        .lock_count;
    running(store, uuid, attempt).await.expect("running");
    ended(store, uuid, attempt, cause).await.expect("ended");
}
