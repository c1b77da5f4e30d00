//! The executor: who has which connection.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_exec::{Command, ExecError, Executor, Identity, Phase, Process, Target};
use longshore_types::InstanceId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connection::{Connection, run};
use crate::error::SshError;
use crate::job::Start;
use crate::key::PrivateKey;
use crate::pipe::Pipe;
use crate::process::{NotStarted, SshProcess};
use crate::settings::{NEVER, Settings};
use crate::stats::{Counters, Stats};
use crate::verdicts::Verdicts;
use crate::wrap::{NONCE_BYTES, wrap};

/// How many connections one command is tried on, as long as it was surely not sent.
const ATTEMPTS: usize = 3;
/// The longest name of a user.
const MAX_USER_BYTES: usize = 255;

/// An [`Executor`] over libssh2: one connection per instance, opened on demand and kept until
/// [`Executor::disconnect`]. See the crate documentation.
///
/// It must be used inside a tokio runtime with time and network enabled, which it takes its time
/// from: a jump of the system's clock has no effect. Dropping it closes its connections; their
/// processes fail.
///
/// What its errors say is an [`SshError`] behind
/// [`ExecError::source`](longshore_exec::ExecError::source):
///
/// ```
/// use std::time::Duration;
/// use longshore_exec::{Command, ExecError, Executor, Identity, Phase, Target};
/// use longshore_ssh::{PrivateKey, Settings, SshError, SshExecutor};
///
/// # async fn example(executor: &SshExecutor) {
/// let target = Target::new("i-1", "10.0.0.1", "admin", Identity::Unchecked);
/// let line = Command::new("ec\0ho");
/// let error = executor.open(&target, &line, Duration::from_secs(10)).await.unwrap_err();
/// assert!(!error.may_have_run);
/// assert!(matches!(error.source.downcast_ref(), Some(SshError::Line(_))));
/// executor.disconnect(&target.instance).await;
/// # }
/// ```
#[derive(Debug)]
pub struct SshExecutor {
    shared: Arc<Shared>,
}

/// What the executor shares with the tasks of its connections.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) key: PrivateKey,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counters: Arc<Counters>,
    /// A permit for each connection that may be being opened.
    pub(crate) connecting: Semaphore,
    verdicts: Mutex<Verdicts>,
    connections: Mutex<BTreeMap<InstanceId, Arc<Connection>>>,
}

impl SshExecutor {
    /// An executor that logs in with `key`. Connects to nobody yet.
    ///
    /// ```
    /// # fn example(key: &str) -> Result<(), longshore_ssh::KeyError> {
    /// use longshore_ssh::{PrivateKey, Settings, SshExecutor};
    /// let executor = SshExecutor::new(PrivateKey::parse(key)?, Settings::default());
    /// assert_eq!(executor.stats().connections_made, 0);
    /// # Ok(()) }
    /// ```
    pub fn new(key: PrivateKey, settings: Settings) -> Self {
        let settings = settings.bounded();
        Self {
            shared: Arc::new(Shared {
                key,
                counters: Arc::default(),
                connecting: Semaphore::new(settings.connecting),
                verdicts: Mutex::new(Verdicts::new(settings.verdicts)),
                connections: Mutex::default(),
                settings: Arc::new(settings),
            }),
        }
    }

    /// What it did so far. Cheap. [`Stats`] has an example.
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// The connection for a target; a new one where there is none that fits.
    fn connection(&self, target: &Target) -> Arc<Connection> {
        let checked = matches!(target.identity, Identity::Checked { .. });
        let new = || {
            let limit = self.shared.settings.queue;
            let connection = Arc::new(Connection::new(target, checked, limit));
            let shared = Arc::clone(&self.shared);
            tokio::spawn(run(Arc::clone(&connection), shared, target.clone()));
            connection
        };
        match self.shared.connections().entry(target.instance.clone()) {
            Entry::Vacant(entry) => Arc::clone(entry.insert(new())),
            Entry::Occupied(mut entry) => {
                let old = entry.get();
                let fits = old.address == target.address
                    && old.user == target.user
                    && (old.checked || !checked);
                if fits && old.is_usable() {
                    return Arc::clone(old);
                }
                if !fits {
                    old.stop();
                }
                let connection = new();
                entry.insert(Arc::clone(&connection));
                connection
            }
        }
    }
}

impl Shared {
    pub(crate) fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<Connection>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a connection that has ended, unless there is another one already.
    pub(crate) fn forget(&self, connection: &Arc<Connection>) {
        let mut connections = self.connections();
        let known = connections.get(&connection.instance);
        if known.is_some_and(|known| Arc::ptr_eq(known, connection)) {
            connections.remove(&connection.instance);
        }
    }
}

/// Whether somebody can have this name; the error says why not.
fn check_user(user: &str) -> Result<(), &'static str> {
    if user.is_empty() {
        return Err("it is empty");
    }
    if user.len() > MAX_USER_BYTES {
        return Err("it is longer than 255 bytes");
    }
    match user.contains(char::is_control) {
        true => Err("it has a control character"),
        false => Ok(()),
    }
}

/// Fresh random bytes that mark the end of one command.
pub(crate) fn nonce() -> Result<[u8; NONCE_BYTES], SshError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| SshError::Random(error.to_string()))?;
    Ok(nonce)
}

#[async_trait]
impl Executor for SshExecutor {
    async fn open(
        &self,
        target: &Target,
        command: &Command,
        timeout: Duration,
    ) -> Result<Box<dyn Process>, ExecError> {
        let not_run = |error: SshError| ExecError::not_run(Phase::Open, error);
        check_user(&target.user)
            .map_err(|reason| ExecError::not_run(Phase::Authentication, SshError::User(reason)))?;
        let now = Instant::now();
        let deadline = now.checked_add(timeout);
        let is_endless = deadline.is_none();
        let deadline = deadline.unwrap_or(now + NEVER);
        let wrapped = wrap(&command.line, nonce().map_err(not_run)?)
            .map_err(|reason| not_run(SshError::Line(reason)))?;
        for attempt in 1.. {
            // A command that nobody has time for is not sent.
            if Instant::now() >= deadline {
                return Err(not_run(SshError::Deadline));
            }
            let connection = self.connection(target);
            let pipe = Arc::new(Pipe::new(Arc::clone(&connection.wake)));
            let process = SshProcess::new(Arc::clone(&pipe), deadline);
            let wrapped = wrapped.clone();
            connection.submit(Start {
                wrapped,
                pipe,
                is_endless,
            });
            match process.started(|| connection.phase()).await {
                Ok(()) => return Ok(Box::new(process)),
                Err(NotStarted::Retry(_)) if attempt < ATTEMPTS => {}
                Err(NotStarted::Retry(error) | NotStarted::Failed(error)) => return Err(error),
            }
        }
        Err(not_run(SshError::Closed))
    }

    async fn disconnect(&self, instance: &InstanceId) {
        self.shared.verdicts().forget(instance);
        let connection = self.shared.connections().remove(instance);
        if let Some(connection) = connection {
            connection.stop();
            connection.finished().await;
        }
    }
}

impl Drop for SshExecutor {
    fn drop(&mut self) {
        for connection in self.shared.connections().values() {
            connection.stop();
        }
    }
}
