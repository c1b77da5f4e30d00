//! Asking a service for long, also the one that is started after it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Mutex;

use super::client::{Client, ClientError, ServiceKind};
use crate::tell;

/// How often it is looked for the next service.
const LOOK: Duration = Duration::from_millis(200);

/// A client of those who may follow something, and go on at the service that is started next.
#[derive(Debug)]
pub(crate) struct Follower {
    state_dir: PathBuf,
    client: Mutex<Client>,
    /// Whether it waits for the next one.
    waits: bool,
}

impl Follower {
    pub(crate) fn new(state_dir: &Path, client: Client, waits: bool) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            client: Mutex::new(client),
            waits,
        }
    }

    /// Asks, and if it waits and nobody answers any more the next service as soon as there is one.
    /// What is asked for must change nothing.
    pub(crate) async fn ask<T>(
        &self,
        ask: impl AsyncFn(&Client) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        loop {
            let client = self.client.lock().await.clone();
            match ask(&client).await {
                Err(error) if self.waits && is_gone(&error) && is_service(&client) => {
                    self.find_next(&client).await;
                }
                answer => return answer,
            }
        }
    }

    async fn find_next(&self, gone: &Client) {
        let mut client = self.client.lock().await;
        // Somebody else may have waited for it.
        if client.pid() == gone.pid() {
            tell_of_waiting();
            *client = next_service(&self.state_dir).await;
        }
    }
}

/// Whether another is likely to come after it, as none does after a `run`.
fn is_service(client: &Client) -> bool {
    client.kind() == ServiceKind::Serve
}

/// Whether an error says that nobody answers.
pub(crate) fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<ClientError>();
    error.is_some_and(ClientError::is_gone)
}

pub(crate) fn tell_of_waiting() {
    tell!(
        "the service does not answer; its jobs are kept: waiting until it is started again (Ctrl-C \
         ends the waiting, not the jobs)"
    );
}

/// Waits until a service answers.
pub(crate) async fn next_service(state_dir: &Path) -> Client {
    loop {
        if let Some(client) = Client::find(state_dir).await {
            return client;
        }
        tokio::time::sleep(LOOK).await;
    }
}
