//! Answering connections.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

/// The most headers, and the most bytes of them, in one request.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 64 << 10;
/// How many clients may be connected that were not accepted yet. The kernel resets connections of
/// those beyond it, where a thousand come in one moment.
const BACKLOG: u32 = 4096;
/// The pause after an accept that failed, for lack of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "settings, all of them")]
pub struct Limits {
    /// How many connections are answered at once; further ones wait to be accepted.
    pub connections: usize,
    /// How long a client may take for the handshake, for the head of a request, and between two
    /// requests.
    pub header: Duration,
    /// How long a client may neither read nor write while it is its turn.
    pub io: Duration,
    /// How long the end waits for requests that are being answered.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            header: Duration::from_secs(15),
            io: Duration::from_secs(90),
            grace: Duration::from_secs(5),
        }
    }
}

/// Where connections come from.
#[non_exhaustive]
pub enum Listener {
    /// TCP, with TLS where there is an acceptor.
    Tcp(TcpListener, Option<TlsAcceptor>),
    /// A Unix socket.
    Unix(UnixListener),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(listener, tls) => {
                let tls = tls.is_some();
                write!(f, "Tcp({:?}, tls: {tls})", listener.local_addr())
            }
            Self::Unix(listener) => write!(f, "Unix({:?})", listener.local_addr()),
        }
    }
}

impl Listener {
    /// Listens on an address.
    pub async fn tcp(address: SocketAddr, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self::Tcp(socket.listen(BACKLOG)?, tls))
    }

    /// Listens on a Unix socket, which must not be there; only its owner can connect.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::Unix(listener))
    }

    /// The address of a TCP listener, with the port that it got.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(match tls {
                    Some(tls) => Accepted::Tls(Box::new(tls.accept(stream))),
                    None => Accepted::Plain(Box::new(stream)),
                })
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted::Plain(Box::new(stream)))
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

enum Accepted {
    Plain(Box<dyn Stream>),
    Tls(Box<tokio_rustls::Accept<tokio::net::TcpStream>>),
}

/// Answers connections until `stopping` is true, or its sender gone; then waits
/// [`Limits::grace`] for what is being answered.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = accepted => match accepted {
                Ok(accepted) => {
                    let (router, stopping) = (router.clone(), stopping.clone());
                    connections.spawn(async move {
                        answer(accepted, router, limits, stopping).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.grace, rest).await.is_err() {
        tracing::warn!("requests were broken off at the end");
    }
}

async fn answer(
    accepted: Accepted,
    router: Router,
    limits: Limits,
    stopping: watch::Receiver<bool>,
) {
    let stream: Box<dyn Stream> = match accepted {
        Accepted::Plain(stream) => stream,
        Accepted::Tls(handshake) => match timeout(limits.header, handshake).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS connection came about"),
            Err(_) => return tracing::debug!("a client was too slow with its TLS handshake"),
        },
    };
    if let Err(error) = converse(stream, router, limits, stopping).await {
        // A client that goes away, is too slow or speaks no HTTP is its own affair.
        tracing::debug!(%error, "a connection ended");
    }
}

async fn converse(
    stream: Box<dyn Stream>,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_read_timeout(Some(limits.io));
    stream.set_write_timeout(Some(limits.io));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router),
        );
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Waits until it is to end.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // That its sender is gone means the same.
    let _ = stopping.wait_for(|stop| *stop).await;
}
