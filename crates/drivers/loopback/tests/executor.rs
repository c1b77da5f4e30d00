//! Longshore's own client, which is built on libssh2, against the driver's server.
#![allow(
    clippy::unwrap_used,
    reason = "only tests are here, though not in functions marked as such"
)]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use longshore_cloud::{CallContext, InstanceSet};
use longshore_exec::{
    Command, Executor as _, ExecutorExt as _, ExitStatus, HostKeyVerifier, Identity, Target,
};
use longshore_ssh::{PrivateKey, Settings, SshExecutor};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId};
use russh::keys::ssh_key::LineEnding;
use support::{PATIENCE, create, key, open};

/// Asks the driver.
#[derive(Debug)]
struct Driver(Arc<dyn InstanceSet>);

#[async_trait]
impl HostKeyVerifier for Driver {
    async fn verify(&self, instance: &InstanceId, key: &HostKey) -> HostKeyVerdict {
        let context = CallContext::example();
        self.0
            .verify_host_key(&context, instance, key)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn commands_run_after_the_driver_has_vouched_for_the_host_key() {
    let folder = tempfile::tempdir().unwrap();
    let set: Arc<dyn InstanceSet> = open(folder.path(), 2).await.into();
    let (one, two) = (create(&*set, "one").await, create(&*set, "two").await);
    let text = key(1).to_openssh(LineEnding::LF).unwrap();
    let executor = SshExecutor::new(PrivateKey::parse(&text).unwrap(), Settings::default());
    let identity = Identity::Checked {
        verifier: Arc::new(Driver(set)),
        secret: None,
        secret_path: "/nowhere".into(),
    };
    let (address, user) = (one.address.unwrap(), one.remote_user.unwrap());
    let target = Target::new(one.id, address, user, identity);
    let cat = Command::new("cat; echo err >&2; exit 5");
    let sent = vec![9; 3 << 20];
    let done = executor.exec(&target, &cat, &sent, PATIENCE, sent.len());
    let ok = Command::new("echo $LONGSHORE_RUN_DIR");
    let other = executor.exec(&target, &ok, &[], PATIENCE, 1024);
    let (done, other) = tokio::join!(done, other);
    let (done, other) = (done.unwrap(), other.unwrap());
    assert!(other.succeeded() && other.stdout.ends_with(b"/run\n"));
    assert_eq!(done.status, Some(ExitStatus::Code(5)));
    assert_eq!(
        (done.stdout.len(), done.stderr),
        (3 << 20, b"err\n".to_vec())
    );

    // Another instance's server is not believed to be this one.
    executor.disconnect(&target.instance).await;
    let mut wrong = target;
    wrong.address = two.address.unwrap();
    let refused = executor.exec(&wrong, &ok, &[], PATIENCE, 1024).await;
    assert!(!refused.unwrap_err().may_have_run);
}
