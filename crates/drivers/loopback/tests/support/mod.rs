//! A driver to try, and a client that is not ours.
#![allow(
    dead_code,
    reason = "each test file is a program of its own and uses a part of this"
)]
#![allow(
    clippy::unwrap_used,
    reason = "only tests are here, though not in functions marked as such"
)]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use longshore_cloud::{CallContext, CreateRequest, Driver, Instance, InstanceSet};
use longshore_driver_loopback::LoopbackDriver;
use longshore_types::HostKey;
use russh::client::{self, Handle};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{
    PrivateKey, PrivateKeyWithHashAlg, PublicKeyBase64 as _, PublicKeyOrCertificate,
};
use russh::{Channel, ChannelMsg};

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn context() -> CallContext {
    CallContext::new(PATIENCE, "req-test")
}

pub(crate) async fn open(directory: &Path, instances: usize) -> Box<dyn InstanceSet> {
    let parameters = serde_json::json!({ "directory": directory, "instances": instances });
    LoopbackDriver.open(&parameters).await.unwrap()
}

/// The problem that opening a directory has.
pub(crate) async fn problem(directory: &Path) -> String {
    let parameters = serde_json::json!({ "directory": directory });
    LoopbackDriver
        .open(&parameters)
        .await
        .unwrap_err()
        .to_string()
}

/// A key pair; another one for each number.
pub(crate) fn key(number: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32]))
}

pub(crate) fn request(token: &str) -> CreateRequest {
    let mut request = CreateRequest::example();
    request.token = token.into();
    request.public_key = Some(key(1).public_key().to_openssh().unwrap());
    request
}

pub(crate) async fn create(set: &dyn InstanceSet, token: &str) -> Instance {
    set.create(&context(), &request(token)).await.unwrap()
}

/// Remembers the host key that it was shown.
pub(crate) struct Seen(Arc<Mutex<Option<HostKey>>>);

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

/// A connection, and the host key that came with it.
pub(crate) struct Client {
    pub(crate) session: Handle<Seen>,
    pub(crate) host_key: HostKey,
}

/// How a command ended and what it said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) code: Option<u32>,
    pub(crate) signal: Option<String>,
}

/// Logs in; none if that was refused.
pub(crate) async fn log_in(instance: &Instance, user: &str, key: PrivateKey) -> Option<Client> {
    let seen = Arc::new(Mutex::new(None));
    let handler = Seen(Arc::clone(&seen));
    let address = instance.address.as_deref().unwrap();
    let config = Arc::new(client::Config {
        nodelay: true,
        ..client::Config::default()
    });
    let mut session = client::connect(config, address, handler).await.unwrap();
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let login = session.authenticate_publickey(user, key).await.unwrap();
    let host_key = seen.lock().unwrap().clone().unwrap();
    login.success().then_some(Client { session, host_key })
}

pub(crate) async fn connect(instance: &Instance) -> Client {
    let user = instance.remote_user.clone().unwrap();
    log_in(instance, &user, key(1)).await.unwrap()
}

impl Client {
    pub(crate) async fn start(&self, line: &str) -> Channel<client::Msg> {
        let channel = self.session.channel_open_session().await.unwrap();
        channel.exec(true, line).await.unwrap();
        channel
    }

    pub(crate) async fn run(&self, line: &str) -> Done {
        let channel = self.start(line).await;
        channel.eof().await.unwrap();
        finish(channel).await
    }

    pub(crate) async fn text(&self, line: &str) -> String {
        let done = self.run(line).await;
        assert_eq!(done.code, Some(0), "{line}: {done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }
}

/// Everything that a command still says.
pub(crate) async fn finish(mut channel: Channel<client::Msg>) -> Done {
    let mut done = Done::default();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => done.stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => done.stderr.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => done.code = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                done.signal = Some(format!("{signal_name:?}"));
            }
            _ => {}
        }
    }
    done
}

/// Whether a process runs (a zombie does not).
pub(crate) fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
        !matches!(state, None | Some(b'Z' | b'X'))
    })
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
