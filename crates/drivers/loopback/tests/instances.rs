//! What an instance set promises, on this machine.
#![allow(
    clippy::unwrap_used,
    reason = "only tests are here, though not in functions marked as such"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use longshore_cloud::Driver as _;
use longshore_cloud::{ErrorKind, InstanceState, Scope, Tags};
use longshore_driver_loopback::LoopbackDriver;
use longshore_types::HostKeyVerdict;
use support::{connect, context, create, key, log_in, open, problem, request};

fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_repeated_create_makes_nothing_new_and_there_is_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(&folder.path().join("a/b"), 2).await;
    let first = create(&*set, "one").await;
    assert_eq!(first.state, InstanceState::Running);
    assert_eq!(first.tags, request("one").tags);
    assert_eq!(create(&*set, "one").await, first);
    let second = create(&*set, "two").await;
    assert_ne!(first.id, second.id);
    let error = set.create(&context(), &request("three")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::QuotaExceeded(Scope::Everything));
    assert_eq!(create(&*set, "two").await.id, second.id);
    assert_eq!(set.list(&context(), &Tags::new()).await.unwrap().len(), 2);

    let destroyed = set.destroy(&context(), &[first.id]).await;
    assert!(destroyed[0].1.is_ok());
    create(&*set, "three").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creates_at_the_same_time_do_not_exceed_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let set: std::sync::Arc<dyn longshore_cloud::InstanceSet> = open(folder.path(), 3).await.into();
    let calls: Vec<_> = (0..24)
        .map(|i| {
            let set = std::sync::Arc::clone(&set);
            tokio::spawn(async move {
                let request = request(&format!("token-{}", i % 8));
                set.create(&context(), &request).await
            })
        })
        .collect();
    let mut made = std::collections::BTreeSet::new();
    let mut refused = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(instance) => drop(made.insert(instance.id)),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::QuotaExceeded(Scope::Everything));
                refused += 1;
            }
        }
    }
    assert_eq!((made.len(), refused), (3, 15));
    assert_eq!(set.list(&context(), &Tags::new()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn everything_is_listed_again_with_its_tags_and_its_host_key() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 2).await;
    let first = create(&*set, "one").await;
    let second = create(&*set, "two").await;
    let changes = [
        (first.id.clone(), tags(&[("a", "1"), ("b", "2")])),
        ("loopback-0000000000000000".into(), tags(&[("a", "1")])),
    ];
    let results = set.set_tags(&context(), &changes).await;
    assert!(results[0].1.is_ok());
    assert_eq!(results[1].1.as_ref().unwrap_err().kind, ErrorKind::NotFound);
    let more = [(first.id.clone(), tags(&[("b", "3")]))];
    assert!(set.set_tags(&context(), &more).await[0].1.is_ok());
    let key_before = connect(&first).await.host_key;
    let listed = set.list(&context(), &Tags::new()).await.unwrap();
    drop(set);

    let set = open(folder.path(), 2).await;
    let again = set.list(&context(), &Tags::new()).await.unwrap();
    let mut expected = tags(&[("a", "1"), ("b", "3")]);
    expected.extend(request("one").tags);
    let found = again.iter().find(|i| i.id == first.id).unwrap();
    assert_eq!(found.tags, expected);
    let by_tag = set.list(&context(), &tags(&[("a", "1")])).await.unwrap();
    assert_eq!(by_tag, std::slice::from_ref(found));

    // The same key at another address; and the driver tells the keys apart.
    let shown = connect(found).await.host_key;
    assert_eq!(shown, key_before);
    let verdict = set.verify_host_key(&context(), &first.id, &shown).await;
    assert_eq!(verdict.unwrap(), HostKeyVerdict::Match);
    let verdict = set.verify_host_key(&context(), &second.id, &shown).await;
    assert_eq!(verdict.unwrap(), HostKeyVerdict::Mismatch);
    assert!(
        set.verify_host_key(&context(), &"x".into(), &shown)
            .await
            .is_err()
    );
    assert_eq!(again.len(), 2);
    for (old, new) in listed.iter().zip(&again) {
        assert_eq!((&old.id, old.launched_at), (&new.id, new.launched_at));
    }

    // Repeated after the restart, the create is still the same one.
    assert_eq!(create(&*set, "two").await.id, second.id);
}

#[tokio::test]
async fn who_has_not_the_key_or_the_name_stays_outside() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 2).await;
    let instance = create(&*set, "one").await;
    let user = instance.remote_user.clone().unwrap();
    assert!(log_in(&instance, &user, key(1)).await.is_some());
    assert!(log_in(&instance, &user, key(2)).await.is_none());
    assert!(log_in(&instance, "somebody-else", key(1)).await.is_none());

    let mut keyless = request("two");
    keyless.public_key = None;
    let instance = set.create(&context(), &keyless).await.unwrap();
    assert!(log_in(&instance, &user, key(1)).await.is_none());

    let mut bad = request("three");
    bad.public_key = Some("ssh-ed25519 AAAA".into());
    assert!(set.destroy(&context(), &[instance.id]).await[0].1.is_ok());
    let error = set.create(&context(), &bad).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn secrets_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("state");
    let set = open(&directory, 1).await;
    let instance = create(&*set, "one").await;
    let place = directory.join(instance.id.as_str());
    for (path, mode) in [
        (directory.clone(), 0o700),
        (place.clone(), 0o700),
        (place.join("run"), 0o700),
        (place.join("host_key"), 0o600),
        (place.join("instance.json"), 0o600),
    ] {
        let found = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
}

#[tokio::test]
async fn a_directory_is_one_process_s_own() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    create(&*set, "one").await;
    let text = problem(folder.path()).await;
    let me = format!("is used by process {}", std::process::id());
    assert!(text.contains(&me), "{text}");
    set.stop().await;
    assert!(set.list(&context(), &Tags::new()).await.is_err());
    let again = open(folder.path(), 1).await;
    assert_eq!(again.list(&context(), &Tags::new()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn damage_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let instance = create(&*set, "one").await;
    drop(set);
    let place = folder.path().join(instance.id.as_str());
    for file in ["instance.json", "host_key"] {
        let path = place.join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let text = problem(folder.path()).await;
        assert!(text.contains(&path.display().to_string()), "{text}");
        fs::remove_file(&path).unwrap();
        let text = problem(folder.path()).await;
        assert!(text.contains(&path.display().to_string()), "{text}");
        fs::write(&path, whole).unwrap();
    }
    // What was being made when the process ended was never listed, and goes.
    fs::create_dir(folder.path().join(".making-loopback-1")).unwrap();
    let set = open(folder.path(), 1).await;
    assert_eq!(set.list(&context(), &Tags::new()).await.unwrap().len(), 1);
    assert!(!folder.path().join(".making-loopback-1").exists());
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let text = problem(&file.join("state")).await;
    assert!(text.starts_with("directory: cannot use"), "{text}");
    let text = problem("/proc/longshore".as_ref()).await;
    assert!(text.starts_with("directory: cannot use"), "{text}");
    let text = problem(folder.path()).await;
    assert!(text.contains("is not empty"), "{text}");

    let shared = folder.path().join("shared");
    drop(open(&shared, 1).await);
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    let text = problem(&shared).await;
    assert!(text.contains("mode 755"), "{text}");
}

#[tokio::test]
async fn a_create_that_cannot_be_recorded_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("state");
    let set = open(&directory, 1).await;
    // A directory that is gone cannot be written, not even by root.
    let moved = folder.path().join("moved");
    fs::rename(&directory, &moved).unwrap();
    assert!(set.create(&context(), &request("one")).await.is_err());
    assert!(set.list(&context(), &Tags::new()).await.unwrap().is_empty());
    fs::rename(&moved, &directory).unwrap();
    create(&*set, "one").await;
}

#[tokio::test]
async fn all_wrong_parameters_are_named_and_the_set_names_itself() {
    let bad = serde_json::json!({ "instances": "x", "size": 1 });
    let errors = LoopbackDriver.open(&bad).await.unwrap_err();
    assert_eq!(errors.0.len(), 3, "{errors}");
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    let set = open(&directory, 4).await;
    assert_eq!(
        set.to_string(),
        format!("Loopback({}, 4)", directory.display())
    );
    let capable = set.capabilities();
    assert!(capable.idempotent_create && capable.tags_at_birth);
    assert!(capable.consistent_listing && capable.host_keys);
    assert_eq!(capable.max_instances, 4);
}
