//! No command runs on a host that is not the instance.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use common::server::{Behaviour, TestServer};
use common::{executor, generate, own_ip, run, target, try_run};
use longshore_exec::{
    Executor as _, HostKey, HostKeyVerdict, HostKeyVerifier, Identity, Phase, Target,
};
use longshore_types::InstanceId;

/// Says the same of every key, and remembers what it was asked.
#[derive(Debug)]
struct Says(HostKeyVerdict, Mutex<Vec<String>>);

impl Says {
    fn new(verdict: HostKeyVerdict) -> Arc<Self> {
        Arc::new(Self(verdict, Mutex::default()))
    }

    fn asked(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

#[async_trait]
impl HostKeyVerifier for Says {
    async fn verify(&self, instance: &InstanceId, key: &HostKey) -> HostKeyVerdict {
        self.1.lock().unwrap().push(format!("{instance} {key}"));
        self.0
    }
}

/// A secret on the disk of this machine, which is also the server's.
struct Secret(tempfile::TempDir);

impl Secret {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("the 'secret'"), text).unwrap();
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.path().join("the 'secret'").display().to_string()
    }
}

fn checked(
    server: &TestServer,
    verifier: &Arc<Says>,
    secret: Option<&str>,
    secret_path: String,
) -> Target {
    let mut target = target("i", &server.address());
    target.identity = Identity::Checked {
        verifier: Arc::clone(verifier) as _,
        secret: secret.map(str::to_owned),
        secret_path,
    };
    target
}

#[tokio::test]
async fn a_known_key_is_asked_about_once() {
    let key = generate(&["-t", "ed25519"]);
    let server =
        TestServer::start_at(&format!("{}:0", own_ip()), Behaviour::Run, &key.private).await;
    let verifier = Says::new(HostKeyVerdict::Match);
    let target = checked(&server, &verifier, None, String::new());
    let executor = executor();
    for _ in 0..3 {
        assert!(run(&executor, &target, "true").await.succeeded());
        server.cut();
        common::until("closed", || executor.stats().connections_open == 0).await;
    }
    let public: Vec<&str> = key.public.split(' ').take(2).collect();
    assert_eq!(verifier.asked(), [format!("i {}", public.join(" "))]);
    assert_eq!(server.connections(), 3);
    assert_eq!(
        server.lines().len(),
        3,
        "only the commands that were asked for"
    );
    // A new key is asked about.
    let address = server.address();
    server.stop().await;
    let new = generate(&["-t", "ed25519"]).private;
    let server = TestServer::start_at(&address, Behaviour::Run, &new).await;
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(verifier.asked().len(), 2);
    drop(server);
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_nothing_runs() {
    let server = TestServer::start(Behaviour::Run).await;
    let secret = Secret::new("right");
    let verifier = Says::new(HostKeyVerdict::Mismatch);
    // Not even the right secret helps.
    let target = checked(&server, &verifier, Some("right"), secret.path());
    let executor = executor();
    for _ in 0..2 {
        let error = try_run(&executor, &target, "true").await.unwrap_err();
        assert_eq!(
            (error.phase, error.may_have_run),
            (Phase::HostIdentity, false)
        );
        assert!(
            error.chain().contains("ssh-ed25519 AAAA"),
            "{}",
            error.chain()
        );
    }
    assert_eq!(verifier.asked().len(), 1);
    assert_eq!(server.lines(), [""; 0]);
    // Forgetting the instance forgets the verdict.
    executor.disconnect(&target.instance).await;
    assert!(try_run(&executor, &target, "true").await.is_err());
    assert_eq!(verifier.asked().len(), 2);
}

#[tokio::test]
async fn the_secret_decides_where_nobody_knows_the_key() {
    let server = TestServer::start(Behaviour::Run).await;
    let verifier = Says::new(HostKeyVerdict::Unsupported);
    let right = Secret::new("s3cret");
    let executor = executor();
    let target = checked(&server, &verifier, Some("s3cret"), right.path());
    for _ in 0..2 {
        assert!(run(&executor, &target, "true").await.succeeded());
        server.cut();
        common::until("closed", || executor.stats().connections_open == 0).await;
    }
    let lines = server.lines();
    assert_eq!(lines.len(), 3, "the secret is read once: {lines:?}");
    assert!(lines[0].contains("cat "));
    executor.disconnect(&target.instance).await;

    let before = server.lines().len();
    let wrong = ["s3cret\n", "s3cre", "s3cretX", "", "S3CRET"].map(Secret::new);
    let paths = wrong.iter().map(Secret::path);
    let missing = "/nonexistent/secret".to_owned();
    let mut refused = 0;
    for path in paths.chain([missing]) {
        let target = checked(&server, &verifier, Some("s3cret"), path);
        let error = try_run(&executor, &target, "touch never")
            .await
            .unwrap_err();
        assert_eq!(
            (error.phase, error.may_have_run),
            (Phase::HostIdentity, false)
        );
        refused += 1;
    }
    let lines = server.lines().split_off(before);
    assert_eq!(lines.len(), refused);
    assert!(
        lines.iter().all(|line| !line.contains("never")),
        "{lines:?}"
    );

    let target = checked(&server, &verifier, None, right.path());
    let error = try_run(&executor, &target, "true").await.unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::HostIdentity, false)
    );
}

#[tokio::test]
async fn a_secret_without_a_status_proves_nothing() {
    let server = TestServer::start(Behaviour::NoStatus).await;
    let verifier = Says::new(HostKeyVerdict::Unsupported);
    let right = Secret::new("s3cret");
    let target = checked(&server, &verifier, Some("s3cret"), right.path());
    let error = try_run(&executor(), &target, "true").await.unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::HostIdentity, false)
    );
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn a_host_that_was_believed_is_still_checked_when_that_is_asked_for() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    assert!(
        run(&executor, &target("i", &server.address()), "true")
            .await
            .succeeded()
    );
    let verifier = Says::new(HostKeyVerdict::Mismatch);
    let target = checked(&server, &verifier, None, String::new());
    assert!(try_run(&executor, &target, "true").await.is_err());
    assert_eq!(verifier.asked().len(), 1);
    assert_eq!(server.lines().len(), 1);
}
