//! The relay between a TCP connection and libssh2.
//!
//! libssh2 reads and writes one end of a socket pair; this reads and writes the other end and the
//! TCP connection. What libssh2 is given at a time is limited, because its calls go on for as long
//! as there is something to read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::error::SshError;
use crate::stats::{Counters, add};

/// The most bytes that are read from TCP, or that wait for TCP, at a time.
const TURN: usize = 64 * 1024;
/// The most bytes that libssh2 is given at a time. Each may make it answer; all answers to this
/// many bytes fit into the socket pair, so that libssh2 never has a packet half sent.
const FEED: usize = 8 * 1024;
/// What the socket pair should hold; the system allows less.
const PAIR_BUFFER: usize = 1024 * 1024;

/// One connection's bytes.
#[derive(Debug)]
pub(crate) struct Link {
    tcp: TcpStream,
    /// Our end of the pair; `None` after [`Link::sever`].
    pair: Option<UnixStream>,
    /// Received and not yet given to libssh2.
    incoming: Vec<u8>,
    incoming_start: usize,
    /// Taken from libssh2 and not yet sent.
    outgoing: Vec<u8>,
    outgoing_start: usize,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    counters: Arc<Counters>,
}

impl Link {
    /// Returns the link and the socket for libssh2.
    pub(crate) fn new(
        tcp: TcpStream,
        counters: Arc<Counters>,
    ) -> Result<(Self, UnixStream), SshError> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        setsockopt(&theirs, sockopt::SndBuf, &PAIR_BUFFER).map_err(std::io::Error::from)?;
        let link = Self {
            tcp,
            pair: Some(ours),
            incoming: Vec::new(),
            incoming_start: 0,
            outgoing: Vec::new(),
            outgoing_start: 0,
            received: 0,
            sent: 0,
            counters,
        };
        Ok((link, theirs))
    }

    /// Sends what waits, and waits until bytes came over TCP, or until there is room again for
    /// more to be sent. The answer says how many came.
    ///
    /// Whoever calls this has let libssh2 read everything before.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SshError>> {
        let was_full = !self.has_room();
        self.poll_send(cx)?;
        if self.incoming.is_empty()
            && let Poll::Ready(count) = self.poll_receive(cx)?
        {
            return Poll::Ready(Ok(count));
        }
        match was_full && self.has_room() {
            true => Poll::Ready(Ok(0)),
            false => Poll::Pending,
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SshError>> {
        let mut space = [std::mem::MaybeUninit::uninit(); TURN];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(SshError::Closed));
        }
        self.received += bytes.len() as u64;
        add(&self.counters.bytes_received, bytes.len());
        self.incoming.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Sends what waits, as far as that is possible at once.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), SshError> {
        while self.outgoing_start < self.outgoing.len() {
            let rest = &self.outgoing[self.outgoing_start..];
            let Poll::Ready(result) = Pin::new(&mut self.tcp).poll_write(cx, rest) else {
                break;
            };
            let count = result?;
            self.outgoing_start += count;
            self.sent += count as u64;
            add(&self.counters.bytes_sent, count);
        }
        if self.outgoing_start == self.outgoing.len() {
            recycle(&mut self.outgoing);
            self.outgoing_start = 0;
        }
        Ok(())
    }

    /// Gives libssh2 the next few received bytes; the answer says whether there were any.
    pub(crate) fn feed(&mut self) -> Result<bool, SshError> {
        let rest = &self.incoming[self.incoming_start..];
        let Some(mut pair) = self.pair.as_ref() else {
            return Ok(false);
        };
        if rest.is_empty() {
            return Ok(false);
        }
        match pair.write(&rest[..rest.len().min(FEED)]) {
            Ok(count) => self.incoming_start += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if self.incoming_start == self.incoming.len() {
            recycle(&mut self.incoming);
            self.incoming_start = 0;
        }
        Ok(true)
    }

    /// Takes what libssh2 wants to send.
    pub(crate) fn drain(&mut self) -> Result<(), SshError> {
        let Some(mut pair) = self.pair.as_ref() else {
            return Ok(());
        };
        let mut chunk = [0; 16 * 1024];
        loop {
            match pair.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.outgoing.extend_from_slice(&chunk[..count]);
                    if count < chunk.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether more may be handed to libssh2 for sending.
    pub(crate) fn has_room(&self) -> bool {
        self.outgoing.len() - self.outgoing_start < TURN
    }

    /// Whether received bytes wait for libssh2.
    pub(crate) fn has_incoming(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Forgets what could not be sent, because nobody will receive it.
    pub(crate) fn discard(&mut self) {
        self.outgoing = Vec::new();
        self.outgoing_start = 0;
    }

    /// Sends what waits if that is possible at once.
    pub(crate) fn flush_now(&mut self) {
        // A failure is that of a connection that is being closed anyway.
        if self
            .tcp
            .try_write(&self.outgoing[self.outgoing_start..])
            .is_ok()
        {
            self.discard();
        }
    }

    /// Takes libssh2's socket away: from now on its calls fail instead of blocking.
    pub(crate) fn sever(&mut self) {
        self.pair = None;
    }
}

/// Empties a buffer, and gives its memory back unless it is small.
fn recycle(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > 4096 {
        *buffer = Vec::new();
    }
}
