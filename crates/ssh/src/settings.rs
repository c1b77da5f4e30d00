//! Limits and times.

use std::time::Duration;

/// What an [`SshExecutor`](crate::SshExecutor) allows itself and the hosts.
///
/// ```
/// use std::time::Duration;
/// use longshore_ssh::Settings;
/// let mut settings = Settings::default();
/// settings.connect = Duration::from_secs(60);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The port of an address that has none; 22.
    pub port: u16,
    /// How long finding and reaching an address may take; 10 s.
    pub connect: Duration,
    /// How long the server may take to say what it speaks; 10 s.
    pub banner: Duration,
    /// How long agreeing on keys may take; 15 s.
    pub key_exchange: Duration,
    /// How long logging in may take; 15 s.
    pub authentication: Duration,
    /// How long a connection may take from the first packet until commands can run; 30 s.
    pub handshake: Duration,
    /// How long the server may leave a request to open or close a channel, or to start a command,
    /// without an answer before the connection is given up; 30 s.
    pub answer: Duration,
    /// How long sent data may stay unacknowledged before the connection is given up; 30 s.
    pub unacknowledged: Duration,
    /// The silence after which TCP asks whether the other side is still there; 15 s, at least 1 s.
    pub keepalive: Duration,
    /// The most connections that are being opened at a time; 128, at least 1.
    pub connecting: usize,
    /// The most commands at a time on one connection; 8, at least 1. The OpenSSH server allows 10
    /// channels, of which one is opened ahead.
    pub channels: usize,
    /// The most commands that wait for their turn on one connection; 1,024.
    pub queue: usize,
    /// The most bytes that a server may send before it has let us in; 256 KiB.
    pub handshake_bytes: u64,
    /// The most bytes that a server may send on one connection without them becoming output of a
    /// command (libssh2 keeps some kinds of packets for ever); 64 MiB. At half of that an idle
    /// connection is replaced.
    pub unexplained_bytes: u64,
    /// The most host keys whose verdict is remembered; 65,536, at least 1.
    pub verdicts: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 22,
            connect: Duration::from_secs(10),
            banner: Duration::from_secs(10),
            key_exchange: Duration::from_secs(15),
            authentication: Duration::from_secs(15),
            handshake: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            unacknowledged: Duration::from_secs(30),
            keepalive: Duration::from_secs(15),
            connecting: 128,
            channels: 8,
            queue: 1024,
            handshake_bytes: 256 * 1024,
            unexplained_bytes: 64 * 1024 * 1024,
            verdicts: 65_536,
        }
    }
}
