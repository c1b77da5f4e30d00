//! The SSH server of one instance.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream as StdStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Config, run_stream};
use russh::{Limits, MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::environment::Environment;
use crate::session::Connection;

/// How many connections an instance has open at once; more are closed when they come.
pub const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to log in.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait when no connection can be accepted, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that listens. Dropping it closes it and all its connections, and waits for the commands
/// that are just being started: after that none starts any more.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What all connections of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The instance's directory.
    pub(crate) directory: PathBuf,
    /// Who may log in.
    pub(crate) login: Option<PublicKey>,
    pub(crate) environment: Environment,
    open: Mutex<Open>,
    /// Whether no command may start any more; held for reading while one is started.
    ended: RwLock<bool>,
}

/// The sockets of the open connections, to be able to close them whatever they are doing.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    sockets: BTreeMap<u64, StdStream>,
    closed: bool,
}

impl Server {
    /// Starts to listen on an ephemeral port of 127.0.0.1.
    pub(crate) async fn start(
        directory: PathBuf,
        host_key: PrivateKey,
        login: Option<PublicKey>,
        environment: Environment,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            directory,
            login,
            environment,
            open: Mutex::default(),
            ended: RwLock::default(),
        });
        let config = Arc::new(config(host_key));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), config));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        let mut open = self.shared.open();
        open.closed = true;
        for socket in std::mem::take(&mut open.sockets).into_values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(open);
        // A task of the SSH library's may still have a command to start.
        let ended = &self.shared.ended;
        *ended.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl Shared {
    /// Starts something that is to end with the instance; an error if that has ended.
    ///
    /// What was started is there when the server's end goes on, and can be found by it.
    pub(crate) fn start<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        match *ended {
            true => Err(io::Error::other("the instance has ended")),
            false => start(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a connection; none if it may not stay.
    fn register(&self, socket: StdStream) -> Option<u64> {
        let mut open = self.open();
        if open.closed || open.sockets.len() >= MAX_CONNECTIONS {
            return None;
        }
        let number = open.next;
        open.next += 1;
        open.sockets.insert(number, socket);
        Some(number)
    }

    fn disconnect(&self, number: u64) {
        if let Some(socket) = self.open().sockets.remove(&number) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn config(host_key: PrivateKey) -> Config {
    Config {
        server_id: SshId::Standard("SSH-2.0-longshore-loopback".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // There is no secret that could be guessed from the time that a refusal takes.
        auth_rejection_time: Duration::ZERO,
        keys: vec![host_key],
        limits: Limits {
            // Nothing can be recorded on loopback that would be worth new keys every hour.
            rekey_time_limit: Duration::from_secs(7 * 24 * 3600),
            ..Limits::default()
        },
        inactivity_timeout: None,
        keepalive_interval: None,
        nodelay: true,
        ..Config::default()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, config: Arc<Config>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&shared), Arc::clone(&config)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection from its first byte to its last.
async fn serve(stream: TcpStream, shared: Arc<Shared>, config: Arc<Config>) {
    let (stream, socket) = match duplicate(stream) {
        Ok(both) => both,
        Err(error) => {
            tracing::warn!(%error, "cannot set up a connection");
            return;
        }
    };
    let Some(number) = shared.register(socket) else {
        tracing::warn!("connection refused: {MAX_CONNECTIONS} are open, or the instance stops");
        return;
    };
    let (logged_in, login) = oneshot::channel();
    let connection = Connection::new(Arc::clone(&shared), logged_in);
    let deadline = tokio::time::Instant::now() + LOGIN_TIMEOUT;
    // The session runs in a task of the library's that only ends when the socket does.
    let starting = tokio::time::timeout_at(deadline, run_stream(config, stream, connection));
    if let Ok(Ok(session)) = starting.await {
        if !matches!(tokio::time::timeout_at(deadline, login).await, Ok(Ok(()))) {
            tracing::debug!("a client did not log in");
            shared.disconnect(number);
        }
        if let Err(error) = session.await {
            tracing::debug!(%error, "connection ended");
        }
    }
    shared.disconnect(number);
}

fn duplicate(stream: TcpStream) -> io::Result<(TcpStream, StdStream)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let socket = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn server(directory: &std::path::Path) -> Server {
        let key = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[1; 32]);
        let environment = Environment::new(directory);
        let starting = Server::start(directory.into(), key.into(), None, environment);
        starting.await.unwrap()
    }

    #[tokio::test]
    async fn no_command_starts_after_the_end_and_none_unnoticed_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path()).await;
        let shared = Arc::clone(&server.shared);
        let line = |name: &str| format!("touch {}/{name}", folder.path().display());
        let mut first = shared
            .start(|| {
                // The end has to wait for this.
                assert!(shared.ended.try_write().is_err());
                crate::command::start(line("first").as_bytes(), &shared.environment)
            })
            .unwrap();
        assert!(first.wait().await.unwrap().success());
        drop(server);
        let late = || crate::command::start(line("late").as_bytes(), &shared.environment);
        shared.start(late).unwrap_err();
        assert!(folder.path().join("first").exists());
        assert!(!folder.path().join("late").exists());
    }
}
