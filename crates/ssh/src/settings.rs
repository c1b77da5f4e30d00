//! Limits and times.

use std::time::Duration;

use tokio::sync::Semaphore;

/// A time that never comes, for times that cannot be added to the clock: 30 years.
pub(crate) const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// What an [`SshExecutor`](crate::SshExecutor) allows itself and the hosts.
///
/// Every value has a meaning. A time of zero is over as soon as there is something to wait for, and
/// one beyond 30 years counts as 30 years. A number of bytes of zero allows none. What is said to be
/// at least 1 is 1 if it is set to 0.
///
/// ```
/// use std::time::Duration;
/// use longshore_ssh::Settings;
/// let mut settings = Settings::default();
/// settings.connect = Duration::from_secs(60);
/// // Whatever the hosts answer: no more time than that.
/// settings.handshake = Duration::MAX;
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
    /// How long the server may leave a request to open a channel or to start a command without an
    /// answer, or commands without the channels that others have left, before the connection is
    /// given up; 30 s.
    pub answer: Duration,
    /// How long sent data may stay unacknowledged before the connection is given up; 30 s, at
    /// least 1 ms, at most 24 days.
    pub unacknowledged: Duration,
    /// The silence after which TCP asks whether the other side is still there; 15 s, at least 1 s,
    /// at most 9 hours.
    pub keepalive: Duration,
    /// The most connections that are being opened at a time; 128, at least 1.
    pub connecting: usize,
    /// The most commands at a time on one connection; 8, at least 1. The OpenSSH server allows 10
    /// channels, of which one is opened ahead.
    pub channels: usize,
    /// The most commands that wait for their turn on one connection; 1,024, at least 1.
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

impl Settings {
    /// The same, with values that can be reckoned with.
    pub(crate) fn bounded(mut self) -> Self {
        for time in [
            &mut self.connect,
            &mut self.banner,
            &mut self.key_exchange,
            &mut self.authentication,
            &mut self.handshake,
            &mut self.answer,
        ] {
            *time = NEVER.min(*time);
        }
        self.connecting = self.connecting.clamp(1, Semaphore::MAX_PERMITS);
        self.channels = self.channels.clamp(1, u32::MAX as usize);
        self.queue = self.queue.max(1);
        self.verdicts = self.verdicts.max(1);
        self
    }
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
