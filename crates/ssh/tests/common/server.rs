//! An SSH server in this process that runs commands, or misbehaves.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{Shutdown, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use russh::keys::{PrivateKey, decode_secret_key};
use russh::server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session};
use russh::server::{VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Runs commands with `sh -c`.
    Run,
    /// Answers every command at once as if it had been `true`, without running it.
    Instant,
    /// Runs commands, but says nothing of how they ended and cuts the trailer off.
    NoStatus,
    /// Says that every command was ended by SIGKILL.
    Killed,
    /// Sends this many bytes of output for every command.
    Flood(usize),
    /// Lets clients in and never opens a channel.
    NeverOpens,
    /// Opens channels and never answers to a command.
    NeverRuns,
    /// Refuses to run commands.
    RefusesCommands,
    /// Allows this many channels at a time.
    Channels(usize),
    /// Lets nobody in.
    LetsNobodyIn,
}

/// What clients did.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The lines that were asked for, as they came.
    pub(crate) lines: Mutex<Vec<String>>,
    pub(crate) connections: AtomicUsize,
    /// By connection and channel.
    pub(crate) open_channels: Mutex<HashSet<(usize, ChannelId)>>,
    pub(crate) most_channels: AtomicUsize,
}

impl Seen {
    fn opened(&self, channel: (usize, ChannelId)) {
        let mut open = self.open_channels.lock().unwrap();
        open.insert(channel);
        self.most_channels.fetch_max(open.len(), SeqCst);
    }

    fn closed(&self, channel: (usize, ChannelId)) {
        self.open_channels.lock().unwrap().remove(&channel);
    }

    /// How many channels are open.
    pub(crate) fn open_channels(&self) -> usize {
        self.open_channels.lock().unwrap().len()
    }
}

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    accepting: JoinHandle<()>,
    /// A second descriptor of each open connection, by its number.
    sockets: Arc<Mutex<BTreeMap<usize, std::net::TcpStream>>>,
}

impl TestServer {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let key = super::generate(&["-t", "ed25519"]);
        let address = format!("{}:0", super::own_ip());
        Self::start_at(&address, behaviour, &key.private).await
    }

    /// Starts at a given address with a given host key.
    pub(crate) async fn start_at(address: &str, behaviour: Behaviour, host_key: &str) -> Self {
        let key: PrivateKey = decode_secret_key(host_key, None).unwrap();
        let config = Arc::new(Config {
            keys: vec![key],
            nodelay: true,
            auth_rejection_time: std::time::Duration::ZERO,
            inactivity_timeout: None,
            ..Config::default()
        });
        let listener = listen(address.parse().unwrap()).await;
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let sockets = Arc::new(Mutex::new(BTreeMap::new()));
        let accepting = tokio::spawn({
            let (seen, sockets) = (Arc::clone(&seen), Arc::clone(&sockets));
            async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    tcp.set_nodelay(true).unwrap();
                    let number = seen.connections.fetch_add(1, SeqCst);
                    let tcp = tcp.into_std().unwrap();
                    let second = tcp.try_clone().unwrap();
                    sockets.lock().unwrap().insert(number, second);
                    let tcp = tokio::net::TcpStream::from_std(tcp).unwrap();
                    let handler = Client {
                        number,
                        behaviour,
                        seen: Arc::clone(&seen),
                        channels: HashMap::new(),
                        children: Arc::default(),
                    };
                    let config = Arc::clone(&config);
                    let children = Arc::clone(&handler.children);
                    let sockets = Arc::clone(&sockets);
                    tokio::spawn(async move {
                        if let Ok(session) = run_stream(config, tcp, handler).await {
                            let _ = session.await;
                        }
                        children.end();
                        sockets.lock().unwrap().remove(&number);
                    });
                }
            }
        });
        Self {
            address,
            seen,
            accepting,
            sockets,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lines.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    /// Closes the listening socket and cuts every connection.
    pub(crate) async fn stop(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
        // A process that another test is just starting may listen with a copy for a moment.
        super::until("nobody listens any more", || {
            std::net::TcpStream::connect(self.address).is_err()
        })
        .await;
        self.sockets.lock().unwrap().values().for_each(|socket| {
            let _ = socket.shutdown(Shutdown::Both);
        });
    }

    /// Cuts every connection; new ones are accepted.
    pub(crate) fn cut(&self) {
        for socket in self.sockets.lock().unwrap().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Listens. A process that another test is just starting may hold an earlier socket of the same
/// address for a moment: it is a copy of this one until it runs its program.
async fn listen(address: SocketAddr) -> TcpListener {
    let end = tokio::time::Instant::now() + super::PLENTY;
    loop {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        match socket.bind(address).and_then(|()| socket.listen(1024)) {
            Ok(listener) => return listener,
            Err(error) => assert!(tokio::time::Instant::now() < end, "{address}: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

struct Client {
    number: usize,
    behaviour: Behaviour,
    seen: Arc<Seen>,
    channels: HashMap<ChannelId, Channel<Msg>>,
    children: Arc<Children>,
}

/// The commands of one connection, each with whatever it started.
#[derive(Debug, Default)]
struct Children(Mutex<BTreeSet<u32>>);

impl Children {
    /// Ends those that still run.
    fn end(&self) {
        for id in std::mem::take(&mut *self.0.lock().unwrap()) {
            let group = nix::unistd::Pid::from_raw(id.cast_signed());
            // It may have ended just now.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Drop for Children {
    /// Also when the whole runtime goes before the connection does.
    fn drop(&mut self) {
        self.end();
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(match self.behaviour {
            Behaviour::LetsNobodyIn => Auth::reject(),
            _ => Auth::Accept,
        })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.behaviour == Behaviour::NeverOpens {
            std::future::pending::<()>().await;
        }
        let open = self.seen.open_channels();
        if matches!(self.behaviour, Behaviour::Channels(most) if open >= most) {
            reply
                .reject(russh::ChannelOpenFailure::ResourceShortage)
                .await;
            return Ok(());
        }
        self.seen.opened((self.number, channel.id()));
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        self.seen.closed((self.number, channel));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let line = String::from_utf8(line.to_vec()).unwrap();
        self.seen.lines.lock().unwrap().push(line.clone());
        match self.behaviour {
            Behaviour::NeverRuns => return Ok(()),
            Behaviour::RefusesCommands => return session.channel_failure(id),
            Behaviour::Instant => {
                session.channel_success(id)?;
                session.extended_data(id, 1, trailer(&line, 0).into_bytes())?;
                session.exit_status_request(id, 0)?;
                session.eof(id)?;
                self.channels.remove(&id);
                self.seen.closed((self.number, id));
                return session.close(id);
            }
            _ => {}
        }
        session.channel_success(id)?;
        let Some(channel) = self.channels.remove(&id) else {
            return Ok(());
        };
        let (behaviour, handle) = (self.behaviour, session.handle());
        let (seen, number) = (Arc::clone(&self.seen), self.number);
        let children = Arc::clone(&self.children);
        tokio::spawn(async move {
            let (read, write) = channel.split();
            match behaviour {
                Behaviour::Flood(bytes) => flood(&write, bytes).await,
                Behaviour::Killed => killed(&write, handle).await,
                _ => run(&line, read, &write, behaviour, &children).await,
            }
            let _ = write.eof().await;
            seen.closed((number, id));
            let _ = write.close().await;
        });
        Ok(())
    }
}

/// The trailer that the line asks for.
fn trailer(line: &str, status: u32) -> String {
    let nonce = line.split("printf '").last().unwrap();
    format!("{}:{status};", &nonce[..32])
}

async fn flood(write: &ChannelWriteHalf<Msg>, bytes: usize) {
    let mut writer = write.make_writer();
    let chunk = vec![b'x'; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(chunk.len());
        if writer.write_all(&chunk[..count]).await.is_err() {
            return;
        }
        left -= count;
    }
    let _ = writer.flush().await;
}

async fn killed(write: &ChannelWriteHalf<Msg>, handle: Handle) {
    let _ = handle
        .exit_signal_request(write.id(), Sig::KILL, false, String::new(), String::new())
        .await;
}

async fn run(
    line: &str,
    mut read: ChannelReadHalf,
    write: &ChannelWriteHalf<Msg>,
    behaviour: Behaviour,
    children: &Children,
) {
    let line = match behaviour {
        Behaviour::NoStatus => line.split(";s=$?;").next().unwrap(),
        _ => line,
    };
    let mut child = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let id = child.id().unwrap();
    children.0.lock().unwrap().insert(id);
    let mut stdin = child.stdin.take();
    let input = tokio::spawn(async move {
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    // Input that nobody wants is dropped.
                    if let Some(pipe) = &mut stdin
                        && pipe.write_all(&data).await.is_err()
                    {
                        stdin = None;
                    }
                }
                ChannelMsg::Eof => stdin = None,
                _ => {}
            }
        }
    });
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let (mut to_stdout, mut to_stderr) = (write.make_writer(), write.make_writer_ext(Some(1)));
    let _ = tokio::join!(
        tokio::io::copy(&mut stdout, &mut to_stdout),
        tokio::io::copy(&mut stderr, &mut to_stderr),
    );
    let _ = (to_stdout.flush().await, to_stderr.flush().await);
    let status = child.wait().await.unwrap();
    children.0.lock().unwrap().remove(&id);
    if behaviour != Behaviour::NoStatus {
        let code = status.code().unwrap_or(255);
        let _ = write.exit_status(code.cast_unsigned()).await;
    }
    input.abort();
}
