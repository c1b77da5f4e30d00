//! Output that is kept.

mod common;

use std::fs;
use std::io::ErrorKind;

use common::{LONG, batch, lock, lock_for, open, submit, uuids};
use longshore_exec::OutputStore;
use longshore_queue::{Call, Queue};
use longshore_types::{Attempt, ContainerUuid};

#[tokio::test]
async fn the_end_is_wanted_unless_everything_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut batch = batch("a", 2);
    batch.jobs[1].keep_output = true;
    let id = store.submit_batch(batch).await.unwrap();
    let all = uuids(&store, id).await;
    assert_eq!(store.wanted(all[0]).await.unwrap(), Some(1 << 20));
    assert_eq!(store.wanted(all[1]).await.unwrap(), None);
    let nobody: ContainerUuid = "local-dz642-nobodynobodynob".parse().unwrap();
    let error = store.wanted(nobody).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_stream_appears_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let uuid: ContainerUuid = "local-dz642-000000000000000".parse().unwrap();
    let path = store.output_path(uuid, "stdout");
    let files = || fs::read_dir(path.parent().unwrap()).unwrap().count();

    let mut sink = store.begin(uuid, Attempt(1), "stdout", 0).await.unwrap();
    sink.write(b"hello ").await.unwrap();
    assert!(!path.exists());
    sink.write(b"world").await.unwrap();
    sink.finish().await.unwrap();
    assert!(sink.write(b"more").await.is_err());
    drop(sink);
    assert_eq!(fs::read(&path).unwrap(), b"hello world");

    // Given up half-way: the old one stays, nothing else does.
    let mut sink = store.begin(uuid, Attempt(2), "stdout", 0).await.unwrap();
    sink.write(b"half").await.unwrap();
    drop(sink);
    assert_eq!(
        (fs::read(&path).unwrap().as_slice(), files()),
        (&b"hello world"[..], 1)
    );

    // A crash left something.
    fs::write(path.with_file_name(".stdout.2.part"), "left").unwrap();
    let mut sink = store.begin(uuid, Attempt(3), "stdout", 1234).await.unwrap();
    sink.write(b"end").await.unwrap();
    sink.finish().await.unwrap();
    drop(sink);
    let kept = fs::read_to_string(&path).unwrap();
    assert_eq!(
        kept,
        "[longshore: 1234 bytes before this were dropped]\nend"
    );
    assert_eq!(files(), 1);
}

#[tokio::test]
async fn only_the_two_streams_exist_and_errors_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let uuid: ContainerUuid = "local-dz642-000000000000000".parse().unwrap();
    let error = store
        .begin(uuid, Attempt(1), "../escape", 0)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    fs::write(directory.path().join("logs"), "in the way").unwrap();
    assert!(store.begin(uuid, Attempt(1), "stdout", 0).await.is_err());
}

#[tokio::test]
async fn what_an_older_attempt_wrote_never_takes_the_place_of_a_newer_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = submit(&store, "a", 1).await;
    let uuid = uuids(&store, id).await[0];
    let path = store.output_path(uuid, "stdout");
    lock(&store, uuid).await.unwrap();
    let mut old = store.begin(uuid, Attempt(1), "stdout", 0).await.unwrap();
    old.write(b"one").await.unwrap();
    store
        .call(
            uuid,
            &Call::Unlock {
                attempt: Attempt(1),
                placed_on: Some("i-1".into()),
            },
            LONG,
        )
        .await
        .unwrap();
    lock_for(&store, uuid, 2).await.unwrap();
    let mut new = store.begin(uuid, Attempt(2), "stdout", 0).await.unwrap();
    // One of an older attempt that begins later leaves what the newer one writes alone.
    let mut late = store.begin(uuid, Attempt(1), "stdout", 0).await.unwrap();
    new.write(b"two").await.unwrap();
    new.finish().await.unwrap();
    late.finish().await.unwrap();
    old.finish().await.unwrap();
    drop((old, new, late));
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}
