//! The far side: a process of its own, whose SSH server is that of every pretended instance. Each
//! connection leads to a runner of its own.

use std::collections::HashMap;
use std::io::{self, BufRead as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use longshore_runner_api::StartReply;
use longshore_runner_api::command::{EXIT_OK, EXIT_USAGE};
use longshore_runner_api::report::{format, parse_acks};
use longshore_runner_api::watch::{Ask, FromRunner, HEARTBEAT, Request, Requests, WATCH_PROTOCOL};
use longshore_types::{Attempt, ContainerUuid};
use nix::time::{ClockId, clock_gettime};
use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey, run_stream,
};
use russh::{Channel, ChannelId, Error};
use tokio::net::{TcpListener, TcpStream};

use super::runner::{Pretence, Runner};
use crate::state::fresh_key;

/// Where [`Said`] is told, and the port before it.
const SAID_BEGUN: &str = "begun";
const SAID_ENDED: &str = "ended";

/// What is told of a container of which that is wanted; when, on the machine's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Begun(Duration),
    Ended(Duration),
}

impl Said {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (what, nanos) = line.split_once(' ')?;
        let time = Duration::from_nanos(nanos.parse().ok()?);
        match what {
            SAID_BEGUN => Some(Self::Begun(time)),
            SAID_ENDED => Some(Self::Ended(time)),
            _ => None,
        }
    }

    fn tell(self) {
        let (what, time) = match self {
            Self::Begun(time) => (SAID_BEGUN, time),
            Self::Ended(time) => (SAID_ENDED, time),
        };
        // Whoever measures may have gone away; then this process ends, too.
        let _ = writeln!(io::stdout(), "{what} {}", time.as_nanos());
    }
}

/// The clock that all processes of the machine share.
pub(super) fn monotonic() -> anyhow::Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
    Ok(time.context("cannot read the monotonic clock")?.into())
}

/// Reads from standard input, a line, who may log in; prints the port, and then what is
/// [`Said`]. Ends with its standard input.
pub(super) async fn serve() -> anyhow::Result<()> {
    let mut login = String::new();
    io::stdin().lock().read_line(&mut login)?;
    let login = PublicKey::from_openssh(login.trim()).context("the key cannot be read")?;
    let host_key = fresh_key().context("no random numbers can be had")?;
    let config = Arc::new(Config {
        keys: vec![host_key],
        nodelay: true,
        auth_rejection_time: Duration::ZERO,
        inactivity_timeout: None,
        ..Config::default()
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    let login = Arc::new(login);
    let accepting = async {
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(connection(stream, config.clone(), login.clone()));
        }
    };
    let (mut rest, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    tokio::select! {
        ended = accepting => ended,
        read = tokio::io::copy(&mut rest, &mut nowhere) => read.map(|_| ()).map_err(Into::into),
    }
}

async fn connection(stream: TcpStream, config: Arc<Config>, login: Arc<PublicKey>) {
    let client = Client {
        login,
        host: Host::default(),
        channels: HashMap::new(),
    };
    if stream.set_nodelay(true).is_ok()
        && let Ok(session) = run_stream(config, stream, client).await
    {
        // However it ends: the client may be killed.
        let _ = session.await;
    }
}

/// A command that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Command {
    channel: ChannelId,
    /// What its trailer begins with.
    nonce: String,
}

/// Who waits for a report.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asker {
    Command(Command),
    Stream(ChannelId, u64),
}

/// What is to be sent.
#[derive(Debug)]
enum Output {
    Line(ChannelId, String),
    End(Command, String, u32),
}

/// What a connection leads to.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<Runner<Asker>>>);

impl Host {
    fn runner(&self) -> MutexGuard<'_, Runner<Asker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What those hear for whom there is news.
    fn news(&self) -> Vec<Output> {
        let mut runner = self.runner();
        let informed = runner.informed();
        informed
            .into_iter()
            .map(|asker| told(&runner, asker))
            .collect()
    }

    /// Starts what a document says, and tells of it.
    fn start(
        &self,
        (uuid, attempt): (ContainerUuid, Attempt),
        document: &[u8],
        handle: Handle,
    ) -> u32 {
        let Some(pretence) = Pretence::of(document) else {
            return EXIT_USAGE;
        };
        let tell = move |said: fn(Duration) -> Said| {
            if let Some(time) = pretence.told.then(monotonic).and_then(Result::ok) {
                said(time).tell();
            }
        };
        tell(Said::Begun);
        self.runner().start(uuid, attempt, pretence);
        if pretence.runs_for.is_zero() {
            tell(Said::Ended);
        } else {
            let host = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(pretence.runs_for).await;
                tell(Said::Ended);
                host.runner().end(uuid, attempt);
                deliver(&handle, host.news()).await;
            });
        }
        EXIT_OK
    }

    /// Has somebody wait for a report.
    fn wait(&self, known: String, wait: Duration, asker: Asker, handle: Handle) {
        self.runner().wait(known, asker.clone());
        let host = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let told = {
                let mut runner = host.runner();
                runner.give_up(&asker).then(|| told(&runner, asker))
            };
            deliver(&handle, told).await;
        });
    }
}

fn told(runner: &Runner<Asker>, asker: Asker) -> Output {
    let report = runner.report();
    match asker {
        Asker::Command(command) => Output::End(command, format(&report), EXIT_OK),
        Asker::Stream(channel, id) => {
            Output::Line(channel, FromRunner::Report { id, report }.line())
        }
    }
}

/// What a channel is used for.
enum Use {
    Opened,
    /// The document of a start arrives.
    Start(Command, ContainerUuid, Attempt, Vec<u8>),
    Stream(Requests),
    /// Nothing more is expected from it.
    Done,
}

/// A connection on the server's side.
struct Client {
    login: Arc<PublicKey>,
    host: Host,
    channels: HashMap<ChannelId, Use>,
}

impl Client {
    /// Carries out what the client asks for over a watch stream.
    fn asked(
        &mut self,
        channel: ChannelId,
        request: Request,
        document: &[u8],
        handle: Handle,
    ) -> Vec<Output> {
        let id = request.id;
        let code = match request.ask {
            Ask::Start { uuid, attempt, .. } => self.host.start((uuid, attempt), document, handle),
            Ask::Report {
                known,
                wait_ms,
                acks,
            } => {
                let acks = parse_acks(&acks).unwrap_or_default();
                self.host.runner().acknowledge(&acks);
                let wait = Duration::from_millis(wait_ms);
                self.host
                    .wait(known, wait, Asker::Stream(channel, id), handle);
                return self.host.news();
            }
            Ask::Kill { .. } | Ask::Ping => EXIT_OK,
            _ => EXIT_USAGE,
        };
        let said = String::new();
        let done = FromRunner::Done { id, code, said };
        let mut outputs = vec![Output::Line(channel, done.line())];
        outputs.extend(self.host.news());
        outputs
    }

    /// Carries out a line that is to be run, or begins to.
    fn run(&mut self, channel: ChannelId, line: &str, handle: Handle) -> Vec<Output> {
        let (words, nonce) = unwrapped(line);
        let command = Command { channel, nonce };
        let after = |option: &str| {
            let at = words.iter().position(|word| word == option)?;
            words.get(at + 1).map(String::as_str)
        };
        let has = |option: &str| words.iter().any(|word| word == option);
        if has("--watch") {
            self.channels
                .insert(channel, Use::Stream(Requests::default()));
            tokio::spawn(beat(channel, handle));
            let hello = FromRunner::Hello {
                protocol: WATCH_PROTOCOL,
                runner_version: String::from("stub"),
                boot_id: String::from("stub"),
            };
            return vec![Output::Line(channel, hello.line())];
        }
        if has("--report") {
            let acks = after("--ack").and_then(parse_acks).unwrap_or_default();
            self.host.runner().acknowledge(&acks);
            let wait = after("--wait-ms").and_then(|text| text.parse().ok());
            let wait = Duration::from_millis(wait.unwrap_or(0));
            let known = after("--known").unwrap_or_default().to_owned();
            let asker = Asker::Command(command);
            self.host.wait(known, wait, asker, handle);
            return self.host.news();
        }
        if has("--detach") {
            let attempt = after("--attempt").and_then(|text| text.parse().ok());
            let uuid = words.last().and_then(|text| text.parse().ok());
            if let (Some(attempt), Some(uuid)) = (attempt, uuid) {
                let start = Use::Start(command, uuid, Attempt(attempt), Vec::new());
                self.channels.insert(channel, start);
                return Vec::new();
            }
            return vec![Output::End(command, String::new(), EXIT_USAGE)];
        }
        // Whether it has booted, say.
        vec![Output::End(command, String::new(), EXIT_OK)]
    }
}

/// The words of a line that is wrapped as `longshore-ssh` wraps it, and the nonce of its trailer.
fn unwrapped(line: &str) -> (Vec<String>, String) {
    let (line, trailer) = line.rsplit_once(";s=$?;printf '").unwrap_or((line, ""));
    let line = line.strip_prefix("(eval '").unwrap_or(line);
    let line = line.strip_suffix("')").unwrap_or(line);
    let words = line.split_whitespace();
    let words = words.map(|word| word.replace(['\'', '\\'], "")).collect();
    let nonce = trailer.split(':').next().unwrap_or_default();
    (words, nonce.to_owned())
}

async fn beat(channel: ChannelId, handle: Handle) {
    let line = FromRunner::Heartbeat.line();
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        if handle.data(channel, line.clone()).await.is_err() {
            return;
        }
    }
}

/// Sends from outside of the session. Whoever is not there any more misses it.
async fn deliver(handle: &Handle, outputs: impl IntoIterator<Item = Output>) {
    for output in outputs {
        match output {
            Output::Line(channel, line) => {
                let _ = handle.data(channel, line).await;
            }
            Output::End(command, stdout, code) => {
                let channel = command.channel;
                let _ = handle.data(channel, stdout).await;
                let trailer = format!("{}:{code};", command.nonce);
                let _ = handle.extended_data(channel, 1, trailer).await;
                let _ = handle.exit_status_request(channel, code).await;
                let _ = handle.eof(channel).await;
                let _ = handle.close(channel).await;
            }
        }
    }
}

/// Sends from within the session.
fn send(session: &mut Session, outputs: Vec<Output>) -> Result<(), Error> {
    for output in outputs {
        match output {
            Output::Line(channel, line) => session.data(channel, line)?,
            Output::End(command, stdout, code) => {
                let channel = command.channel;
                session.data(channel, stdout)?;
                let trailer = format!("{}:{code};", command.nonce);
                session.extended_data(channel, 1, trailer)?;
                session.exit_status_request(channel, code)?;
                session.eof(channel)?;
                session.close(channel)?;
            }
        }
    }
    Ok(())
}

impl Handler for Client {
    type Error = Error;

    async fn auth_publickey(&mut self, _: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        let known = key.public_key.key_data() == self.login.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.channels.insert(channel.id(), Use::Opened);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_success(id)?;
        self.channels.insert(id, Use::Done);
        let line = String::from_utf8_lossy(line);
        let outputs = self.run(id, &line, session.handle());
        send(session, outputs)
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        let mut asked = Vec::new();
        match self.channels.get_mut(&id) {
            Some(Use::Start(.., document)) => document.extend_from_slice(data),
            Some(Use::Stream(requests)) => {
                requests.push(data);
                // What cannot be read ends the stream, as a runner would.
                while let Some(request) = requests.next().map_err(io::Error::other)? {
                    asked.push(request);
                }
            }
            Some(Use::Opened | Use::Done) | None => {}
        }
        for (request, document) in asked {
            let outputs = self.asked(id, request, &document, session.handle());
            send(session, outputs)?;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        let Some(Use::Start(command, uuid, attempt, document)) =
            self.channels.insert(id, Use::Done)
        else {
            return Ok(());
        };
        let code = self
            .host
            .start((uuid, attempt), &document, session.handle());
        let reply = StartReply {
            uuid,
            pid: 1,
            attempt,
        };
        let mut reply = serde_json::to_string(&reply).map_err(io::Error::other)?;
        reply.push('\n');
        send(session, vec![Output::End(command, reply, code)])?;
        send(session, self.host.news())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.channels.remove(&id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_are_understood() {
        let line = r#"(eval ' exec '\''/r'\'' --report --wait-ms 7 --known '\''d'\''');s=$?;printf 'abc:%d;' "$s" >&2;exit "$s""#;
        let (words, nonce) = unwrapped(line);
        let expected = ["exec", "/r", "--report", "--wait-ms", "7", "--known", "d"];
        assert_eq!(
            (words.as_slice(), nonce.as_str()),
            (&expected.map(String::from)[..], "abc")
        );
    }

    #[test]
    fn what_is_said_is_understood() {
        let time = Duration::from_nanos(12);
        assert_eq!(Said::parse("begun 12"), Some(Said::Begun(time)));
        assert_eq!(Said::parse("ended 12"), Some(Said::Ended(time)));
        assert_eq!(Said::parse("4022"), None);
    }
}
