//! One client's connection, once the SSH library has decoded it.

use std::collections::BTreeMap;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Error, Pty};
use tokio::sync::oneshot;

use crate::command::{self, Client};
use crate::server::Shared;
use crate::stdin::Stdin;

/// How many channels one connection may have open at once; more are refused.
pub const MAX_CHANNELS: usize = 256;

/// What a client may do: log in with the recorded key, and run commands.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    logged_in: Option<oneshot::Sender<()>>,
    channels: BTreeMap<ChannelId, Stage>,
}

/// How far a channel has come.
enum Stage {
    /// Opened; nothing was asked for.
    Opened(ChannelWriteHalf<Msg>),
    /// Runs a command.
    Running(Arc<Stdin>),
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, logged_in: oneshot::Sender<()>) -> Self {
        Self {
            shared,
            logged_in: Some(logged_in),
            channels: BTreeMap::new(),
        }
    }

    fn may_log_in(&self, user: &str, key: &PublicKey) -> Auth {
        let expected = self.shared.login.as_ref();
        let known = expected.is_some_and(|expected| expected.key_data() == key.key_data());
        if known && user == self.shared.environment.user {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    fn running(&self, channel: ChannelId) -> Option<&Arc<Stdin>> {
        match self.channels.get(&channel) {
            Some(Stage::Running(stdin)) => Some(stdin),
            Some(Stage::Opened(_)) | None => None,
        }
    }
}

impl Drop for Connection {
    /// The connection is gone, so every command that it runs is to be ended.
    fn drop(&mut self) {
        for stage in self.channels.values() {
            if let Stage::Running(stdin) = stage {
                stdin.close();
            }
        }
    }
}

impl Handler for Connection {
    type Error = Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        Ok(self.may_log_in(user, offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        Ok(self.may_log_in(user, key.public_key))
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Error> {
        if let Some(logged_in) = self.logged_in.take() {
            let _ = logged_in.send(());
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        // A channel that we closed first is not announced as closed by the client.
        self.channels.retain(|_, stage| match stage {
            Stage::Opened(_) => true,
            Stage::Running(stdin) => !stdin.is_finished(),
        });
        if self.channels.len() >= MAX_CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // What arrives comes through the callbacks below; nobody reads the other half.
        let (_, writer) = channel.split();
        self.channels.insert(writer.id(), Stage::Opened(writer));
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        let channel = match self.channels.remove(&id) {
            Some(Stage::Opened(channel)) => channel,
            Some(running @ Stage::Running(_)) => {
                self.channels.insert(id, running);
                return session.channel_failure(id);
            }
            None => return session.channel_failure(id),
        };
        let stdin = Arc::new(Stdin::new(self.shared.directory.clone()));
        self.channels.insert(id, Stage::Running(Arc::clone(&stdin)));
        session.channel_success(id)?;
        let client = Client {
            channel,
            session: session.handle(),
        };
        let (shared, line) = (Arc::clone(&self.shared), line.to_vec());
        tokio::spawn(async move {
            command::run(line, &shared, client, &stdin).await;
            stdin.finish();
        });
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Error> {
        let Some(stdin) = self.running(id) else {
            return Ok(());
        };
        if let Err(error) = stdin.push(data).await {
            tracing::warn!(%error, "a command is ended, its standard input cannot be kept");
            stdin.close();
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        if let Some(stdin) = self.running(id) {
            stdin.end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        if let Some(Stage::Running(stdin)) = self.channels.remove(&id) {
            stdin.close();
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }
}
