//! From an address to a session on which commands may run.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;

use longshore_exec::{
    ExecError, ExitStatus, HostKeyVerdict, HostKeyVerifier, Identity, Output, Phase, Process as _,
    Target,
};
use longshore_types::HostKey;
use ssh2::Session;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connection::{Connection, Gate, serve};
use crate::dial::dial;
use crate::engine::Engine;
use crate::error::{Fault, SshError};
use crate::executor::Shared;
use crate::job::Start;
use crate::link::Link;
use crate::pipe::Pipe;
use crate::process::{NotStarted, SshProcess};
use crate::raw;
use crate::wrap::{quote, wrap};

/// Connects, agrees on keys, identifies the host, and logs in.
pub(crate) async fn establish(
    connection: &Connection,
    shared: &Shared,
    target: &Target,
) -> Result<Engine, Fault> {
    let settings = &shared.settings;
    // The semaphore is never closed; without a permit there would only be no limit.
    let _permit = shared.connecting.acquire().await.ok();
    let tcp = match timeout(settings.connect, dial(&target.address, settings)).await {
        Ok(tcp) => tcp.map_err(|error| Fault::early(Phase::Connect, error))?,
        Err(_) => return Err(Fault::early(Phase::Connect, SshError::Deadline)),
    };
    let mut shake = Shake::new(connection, shared, tcp)?;
    shake.agree_on_keys().await?;
    let key = shake.host_key()?;
    let secret = match &target.identity {
        Identity::Unchecked => None,
        Identity::Checked {
            verifier,
            secret,
            secret_path,
        } => {
            connection.set_phase(Phase::HostIdentity);
            match shake
                .judge(&key, verifier.as_ref(), secret.is_some())
                .await?
            {
                Trust::Full => None,
                Trust::BySecret => secret.as_ref().map(|secret| (secret, secret_path)),
            }
        }
    };
    shake.log_in(&target.user).await?;
    let deadline = shake.deadline;
    let Shake { session, link, .. } = shake;
    let counters = Arc::clone(&shared.counters);
    let mut engine = Engine::new(session, link, Arc::clone(settings), counters);
    if let Some((secret, path)) = secret {
        connection.set_phase(Phase::HostIdentity);
        if !has_secret(&mut engine, connection, secret, path, deadline).await? {
            return Err(refuse(&key, "it does not have the instance's secret"));
        }
        shared.verdicts().remember(&connection.instance, key, true);
    }
    Ok(engine)
}

/// How a host key was judged, if it was not refused.
enum Trust {
    Full,
    BySecret,
}

/// A session that is not ready for commands.
struct Shake<'a> {
    // The session comes first: it must go before its link.
    session: Session,
    link: Link,
    deadline: Instant,
    connection: &'a Connection,
    shared: &'a Shared,
}

impl<'a> Shake<'a> {
    fn new(
        connection: &'a Connection,
        shared: &'a Shared,
        tcp: tokio::net::TcpStream,
    ) -> Result<Self, Fault> {
        let early = |error| Fault::early(Phase::Banner, error);
        connection.set_phase(Phase::Banner);
        let (link, socket) = Link::new(tcp, Arc::clone(&shared.counters)).map_err(early)?;
        let mut session = Session::new().map_err(|error| early(SshError::protocol(&error)))?;
        session.set_blocking(false);
        session.set_tcp_stream(socket);
        Ok(Self {
            session,
            link,
            deadline: Instant::now() + shared.settings.handshake,
            connection,
            shared,
        })
    }

    async fn agree_on_keys(&mut self) -> Result<(), Fault> {
        let mut session = self.session.clone();
        let settings = Arc::clone(&self.shared.settings);
        let mut due = Instant::now() + settings.banner;
        let seen = self.session.clone();
        let mut phase = Phase::Banner;
        self.drive(
            || session.handshake(),
            || {
                let banner = seen.banner_bytes();
                if phase == Phase::Banner && banner.is_some_and(|b| b.starts_with(b"SSH-")) {
                    phase = Phase::KeyExchange;
                    due = Instant::now() + settings.key_exchange;
                }
                (phase, due)
            },
        )
        .await
    }

    async fn log_in(&mut self, user: &str) -> Result<(), Fault> {
        let due = Instant::now() + self.shared.settings.authentication;
        let session = self.session.clone();
        let key = self.shared.key.clone();
        self.drive(
            || session.userauth_pubkey_memory(user, None, key.text(), None),
            || (Phase::Authentication, due),
        )
        .await
    }

    /// Repeats `step` until it does not block. `due` says how far it has come and until when it
    /// must have come further.
    async fn drive(
        &mut self,
        mut step: impl FnMut() -> Result<(), ssh2::Error>,
        mut due: impl FnMut() -> (Phase, Instant),
    ) -> Result<(), Fault> {
        loop {
            let result = step();
            let (phase, due) = due();
            let failed = |error| Fault::early(phase, error);
            self.connection.set_phase(phase);
            self.link.drain().map_err(failed)?;
            match result {
                Ok(()) => return Ok(()),
                Err(error) if raw::would_block(&error) => {}
                Err(error) => return Err(failed(SshError::protocol(&error))),
            }
            if self.link.feed().map_err(failed)? {
                continue;
            }
            let turn = poll_fn(|cx| self.link.poll_turn(cx));
            match timeout_at(due.min(self.deadline), turn).await {
                Ok(turn) => turn.map_err(failed)?,
                Err(_) => return Err(failed(SshError::Deadline)),
            };
            if self.link.received > self.shared.settings.handshake_bytes {
                return Err(failed(SshError::TooMuch(self.link.received)));
            }
        }
    }

    fn host_key(&self) -> Result<HostKey, Fault> {
        let key = self.session.host_key().and_then(|(blob, _)| host_key(blob));
        key.ok_or_else(|| Fault::early(Phase::KeyExchange, SshError::Closed))
    }

    /// Asks whether the key is the instance's, unless that is known.
    async fn judge(
        &self,
        key: &HostKey,
        verifier: &dyn HostKeyVerifier,
        has_secret: bool,
    ) -> Result<Trust, Fault> {
        const MISMATCH: &str = "it is not the instance's";
        let instance = &self.connection.instance;
        let known = self.shared.verdicts().trusted(instance, key);
        match known {
            Some(true) => return Ok(Trust::Full),
            Some(false) => return Err(refuse(key, MISMATCH)),
            None => {}
        }
        let verdict = timeout_at(self.deadline, verifier.verify(instance, key))
            .await
            .map_err(|_| Fault::early(Phase::HostIdentity, SshError::Deadline))?;
        match verdict {
            HostKeyVerdict::Match => {
                let mut verdicts = self.shared.verdicts();
                verdicts.remember(instance, key.clone(), true);
                Ok(Trust::Full)
            }
            HostKeyVerdict::Unsupported if has_secret => Ok(Trust::BySecret),
            HostKeyVerdict::Unsupported => Err(refuse(
                key,
                "nobody knows it, and the instance has no secret",
            )),
            HostKeyVerdict::Mismatch => {
                let mut verdicts = self.shared.verdicts();
                verdicts.remember(instance, key.clone(), false);
                Err(refuse(key, MISMATCH))
            }
        }
    }
}

/// A host key from its wire form, which begins with the name of the algorithm.
fn host_key(blob: &[u8]) -> Option<HostKey> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let name = rest.get(..u32::from_be_bytes(*length) as usize)?;
    Some(HostKey {
        algorithm: String::from_utf8(name.to_vec()).ok()?,
        blob: blob.to_vec(),
    })
}

fn refuse(key: &HostKey, reason: &'static str) -> Fault {
    let key = key.to_string();
    Fault::early(Phase::HostIdentity, SshError::Identity { key, reason })
}

/// Whether the file at `path` on the host holds exactly `secret`.
async fn has_secret(
    engine: &mut Engine,
    connection: &Connection,
    secret: &str,
    path: &str,
    deadline: Instant,
) -> Result<bool, Fault> {
    let early = |error| Fault::early(Phase::HostIdentity, error);
    let nonce = crate::executor::nonce().map_err(early)?;
    let wrapped = wrap(&format!("cat {}", quote(path)), nonce)
        .map_err(|reason| early(SshError::Line(reason)))?;
    let pipe = Arc::new(Pipe::new(Arc::clone(&connection.wake)));
    let process = SshProcess::new(Arc::clone(&pipe), deadline);
    let mut starts = VecDeque::from([Start {
        wrapped,
        pipe,
        is_endless: false,
    }]);
    tokio::select! {
        fault = serve(engine, &mut starts, connection, Gate::Shut) => {
            Err(Fault { phase: Some(Phase::HostIdentity), retry: false, ..fault })
        }
        answer = read_secret(process, secret.len()) => match answer {
            Ok(answer) => Ok(answer.as_deref() == Some(secret.as_bytes())),
            Err(error) => Err(early(SshError::Secret(Arc::new(error)))),
        },
    }
}

/// What the command said, if it succeeded and said no more than `limit` bytes.
async fn read_secret(mut process: SshProcess, limit: usize) -> Result<Option<Vec<u8>>, ExecError> {
    process
        .started(|| Phase::Open)
        .await
        .map_err(|(NotStarted::Failed(error) | NotStarted::Retry(error))| error)?;
    process.close_stdin().await?;
    let mut said = Vec::new();
    while let Some(output) = process.output().await? {
        if let Output::Stdout(bytes) = output {
            said.extend_from_slice(&bytes);
        }
        if said.len() > limit {
            return Ok(None);
        }
    }
    let succeeded = process.wait().await? == Some(ExitStatus::Code(0));
    Ok(succeeded.then_some(said))
}
