//! Opening a store, and what stands in its way.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{LONG, open, submit};
use longshore_controller::{OpenError, Settings, Store};
use longshore_queue::Queue;

fn fails(directory: &Path) -> OpenError {
    Store::open(directory, Settings::default()).unwrap_err()
}

#[test]
fn a_store_can_be_opened_again_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("a/b");
    for _ in 0..3 {
        drop(open(&inside));
    }
    let mode = fs::metadata(&inside).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_store_is_open_only_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let error = fails(directory.path());
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().ends_with("is in use by another process"));
    drop(first);
    open(directory.path());
}

#[test]
fn a_file_that_another_program_writes_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let other = rusqlite::Connection::open(directory.path().join("store.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = fails(directory.path());
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let content = vec![0xa5; 10_000];
    fs::write(&path, &content).unwrap();
    let error = fails(directory.path());
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    let content = fs::read(&path).unwrap();
    let error = fails(directory.path());
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let path = directory.path().join("store.sqlite");
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let content = fs::read(&path).unwrap();
    let error = fails(directory.path());
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 99,
                known: 5,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("written by a newer version"));
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[tokio::test]
async fn damage_within_is_an_error_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    submit(&store, "a", 1000).await;
    drop(store);
    let path = directory.path().join("store.sqlite");
    let sound = fs::read(&path).unwrap();
    for page in 1..sound.len() / 4096 {
        let mut damaged = sound.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xff);
        fs::write(&path, &damaged).unwrap();
        match Store::open(directory.path(), Settings::default()) {
            Err(error) => assert!(matches!(error, OpenError::NotAStore { .. }), "{error}"),
            Ok(store) => match store.refresh(&[], LONG).await {
                Ok(refresh) => assert!(refresh.containers.len() <= 1000),
                Err(error) => assert_eq!(error.to_string(), "containers could not be read"),
            },
        }
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.join("below"), "/proc/longshore".into()] {
        let error = fails(&path);
        assert!(matches!(error, OpenError::Directory { .. }), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
    fs::create_dir_all(directory.path().join("store.sqlite")).unwrap();
    let error = fails(directory.path());
    assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
}

#[test]
fn a_file_that_has_no_room_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_store_bytes: 4096,
        ..Settings::default()
    };
    let error = Store::open(directory.path(), settings).unwrap_err();
    assert!(matches!(error, OpenError::NoSpace { .. }), "{error}");
    // Nothing half-made is left behind.
    open(directory.path());
}

#[test]
fn bad_settings_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (name, settings) in [
        (
            "cluster",
            Settings {
                cluster: "no".into(),
                ..Settings::default()
            },
        ),
        (
            "max_dispatch_attempts",
            Settings {
                max_dispatch_attempts: 0,
                ..Settings::default()
            },
        ),
        (
            "max_waiting_requests",
            Settings {
                max_waiting_requests: 0,
                ..Settings::default()
            },
        ),
    ] {
        let error = Store::open(directory.path(), settings).unwrap_err();
        assert!(matches!(error, OpenError::Setting { name: found } if found == name));
    }
}
