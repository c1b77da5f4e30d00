//! What several of the tests need.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and a test that fails may panic"
)]

pub(crate) mod server;
pub(crate) mod sshd;

use std::process::Command as Program;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use longshore_exec::{Collected, Command, ExecError, ExecutorExt, Identity, Target};
use longshore_ssh::{PrivateKey, Settings, SshExecutor};

/// More than anything here takes, less than anybody's patience.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

/// An address of this machine that no other test uses, so that a port of it can be bound again.
pub(crate) fn own_ip() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id() * 128 + NEXT.fetch_add(2, Relaxed) + 1;
    let [_, a, b, c] = number.to_be_bytes();
    format!("127.{a}.{b}.{c}")
}

/// A key pair made by ssh-keygen.
#[derive(Clone, Debug)]
pub(crate) struct KeyPair {
    pub(crate) private: String,
    pub(crate) public: String,
}

/// Makes a key pair; `args` as for ssh-keygen.
pub(crate) fn generate(args: &[&str]) -> KeyPair {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let done = Program::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "test", "-f"])
        .arg(&path)
        .args(args)
        .output()
        .expect("install openssh-client");
    assert!(done.status.success(), "{done:?}");
    KeyPair {
        private: std::fs::read_to_string(&path).unwrap(),
        public: std::fs::read_to_string(path.with_extension("pub")).unwrap(),
    }
}

/// The key pair that clients use where it does not matter.
pub(crate) fn client_key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| generate(&["-t", "ed25519"]))
}

pub(crate) fn executor() -> SshExecutor {
    executor_with(Settings::default())
}

pub(crate) fn executor_with(settings: Settings) -> SshExecutor {
    let key = PrivateKey::parse(&client_key().private).unwrap();
    SshExecutor::new(key, settings)
}

pub(crate) fn user() -> String {
    let done = Program::new("id").arg("-un").output().unwrap();
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

pub(crate) fn target(instance: &str, address: &str) -> Target {
    Target::new(instance, address, user(), Identity::Unchecked)
}

/// Runs a line with plenty of time and room.
pub(crate) async fn run(executor: &SshExecutor, target: &Target, line: &str) -> Collected {
    try_run(executor, target, line).await.unwrap()
}

pub(crate) async fn try_run(
    executor: &SshExecutor,
    target: &Target,
    line: &str,
) -> Result<Collected, ExecError> {
    let limit = 64 * 1024 * 1024;
    executor
        .exec(target, &Command::new(line), &[], PLENTY, limit)
        .await
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PLENTY;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
