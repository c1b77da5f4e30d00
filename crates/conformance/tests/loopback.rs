//! The suite over the loopback driver: real sockets, real files, real time.
#![allow(
    clippy::unwrap_used,
    reason = "only tests are here, though not in functions marked as such"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::not_run;
use longshore_cloud::{CreateRequest, Driver as _, Instance, InstanceSet, Tags};
use longshore_conformance::{Promise, Subject, Suite};
use longshore_driver_loopback::LoopbackDriver;
use longshore_types::HostKey;
use russh::client;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKeyBase64 as _, PublicKeyOrCertificate};

async fn open(directory: PathBuf) -> Result<Arc<dyn InstanceSet>, Error> {
    let parameters = serde_json::json!({ "directory": directory, "instances": 4 });
    Ok(Arc::from(LoopbackDriver.open(&parameters).await?))
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn private_key(number: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32]))
}

/// Remembers the host key that it is shown.
struct Seen(Arc<Mutex<Option<HostKey>>>);

impl client::Handler for Seen {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = key {
            *self.0.lock().unwrap() = Some(HostKey {
                algorithm: key.algorithm().to_string(),
                blob: key.public_key_bytes(),
            });
        }
        Ok(true)
    }
}

/// The host key that the server of an instance presents.
async fn scan(instance: Instance) -> Option<HostKey> {
    let seen = Arc::new(Mutex::new(None));
    let handler = Seen(Arc::clone(&seen));
    let config = Arc::new(client::Config::default());
    let mut session = client::connect(config, instance.address?, handler)
        .await
        .ok()?;
    // Whatever it answers, keys were exchanged before.
    drop(session.authenticate_none("nobody").await);
    seen.lock().unwrap().clone()
}

async fn subject(directory: &Path) -> Subject {
    let mut request = CreateRequest::example();
    request.public_key = Some(private_key(1).public_key().to_openssh().unwrap());
    let public = private_key(2).public_key().clone();
    let nobodys = HostKey {
        algorithm: public.algorithm().to_string(),
        blob: public.to_bytes().unwrap(),
    };
    let again = directory.to_owned();
    Subject::new(open(directory.to_owned()).await.unwrap(), request)
        .with_name("Loopback(")
        .with_any_type_accepted()
        .with_any_image_accepted()
        .with_host_keys(scan, nobodys)
        .with_reopen(move || open(again.clone()))
        .with_slack(Duration::from_secs(20))
        .with_poll(Duration::from_millis(20))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_loopback_driver_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject(folder.path()).await;
    let report = Suite::new().run(&subject).await;
    eprintln!("{report}");
    report.assert_kept();
    assert_eq!(
        not_run(&report),
        [
            Promise::ExtensionsAreForwarded,
            Promise::UnknownTypeIsRefused,
            Promise::UnknownImageIsRefused,
            Promise::ListsMoreThanOnePage,
            Promise::PriceHistoryIsSorted,
            Promise::ConsoleOutputKeepsItsLimit,
            Promise::InterruptionsAreOfListedInstances,
        ]
    );
    // Nothing is left on disk but the lock.
    drop(subject);
    let set = open(folder.path().to_owned()).await;
    let context = longshore_cloud::CallContext::example();
    if let Ok(set) = set {
        assert_eq!(set.list(&context, &Tags::new()).await.unwrap(), []);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
