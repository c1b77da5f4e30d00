//! A session and all its channels.
//!
//! Nothing here waits. [`Engine::turn`] gives libssh2 what was received and then polls every
//! pending operation until none gets any further. One task does this, so no other call comes
//! between one that would block and its repetition.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use longshore_exec::Alone;
use ssh2::{Channel, Session};
use tokio::time::Instant;

use crate::error::{Fault, SshError};
use crate::job::{Job, Round, Start};
use crate::link::Link;
use crate::raw;
use crate::settings::Settings;
use crate::stats::{Counters, add};

/// What a channel lets the server send before it is read; libssh2 would grant 2 MiB.
pub(crate) const WINDOW: u32 = 64 * 1024;
/// The largest packet that the server may send on a channel.
const PACKET: u32 = 32 * 1024;
/// After a command ends, the server may take a moment until it allows another channel in its place.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a channel is asked for, with that pause, while there is no other, or only that of a
/// command without an end.
const REFUSALS: u32 = 10;
/// How long a command waits, while no other runs, for channels that the server leaves half closed.
const STARVED: Duration = Duration::from_secs(2);
/// Bytes that a command may cost besides its input and output.
const COMMAND_BYTES: u64 = 8 * 1024;

/// An established session.
pub(crate) struct Engine {
    // Channels come first: they must go before their session.
    jobs: Vec<Job>,
    /// A channel that was opened ahead.
    spare: Option<Channel>,
    closing: Vec<Closing>,
    session: Session,
    /// Since when the server owes an answer to the request to open a channel.
    opening: Option<Instant>,
    /// The most channels; fewer after the server refused one.
    limit: usize,
    /// How often the server refused one that it may allow soon, and when it is asked again.
    refusals: u32,
    paused_until: Option<Instant>,
    /// Since when a command waits for a channel that the server does not close.
    starved: Option<Instant>,
    /// Whether a channel may be opened before there is a command for it.
    ahead: bool,
    pub(crate) link: Link,
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    delivered: u64,
    commands: u64,
}

/// A channel that is being closed. OpenSSH answers only when the command has ended, so this may take
/// as long as it likes; until then one channel less can be used.
struct Closing {
    channel: Channel,
    sent: bool,
}

impl Closing {
    /// Whether the server has closed it, too. Until then it counts for the server.
    fn is_closed(&mut self) -> Result<bool, ssh2::Error> {
        if !self.sent {
            self.channel.close()?;
            self.sent = true;
        }
        // Closing ends with whatever packet comes next, so it takes more to see the answer.
        self.channel.wait_eof()?;
        self.channel.wait_close()?;
        Ok(true)
    }
}

impl Engine {
    pub(crate) fn new(
        session: Session,
        link: Link,
        settings: Arc<Settings>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            jobs: Vec::new(),
            spare: None,
            closing: Vec::new(),
            session,
            opening: None,
            limit: settings.channels + 1,
            refusals: 0,
            paused_until: None,
            starved: None,
            ahead: true,
            link,
            settings,
            counters,
            delivered: 0,
            commands: 0,
        }
    }

    /// Lets libssh2 do everything that it can do with what was received and what is asked for.
    pub(crate) fn turn(&mut self, starts: &mut VecDeque<Start>) -> Result<(), SshError> {
        let mut fed = self.feed()?;
        loop {
            while self.pass(starts, fed)? {}
            self.link.drain()?;
            // The socket pair may have been full until something was polled.
            if !self.feed()? {
                break;
            }
            fed = true;
        }
        if self.is_alone() {
            for start in starts.drain(..) {
                let fault = Fault::late(SshError::Alone(Alone)).without_retry();
                start.pipe.fail(fault);
            }
        }
        self.note_starvation(starts);
        let unexplained = self.unexplained();
        if unexplained > self.settings.unexplained_bytes {
            return Err(SshError::TooMuch(unexplained));
        }
        Ok(())
    }

    /// Whether there is no command and the server has sent so much that a new connection is better.
    pub(crate) fn is_worn(&self) -> bool {
        self.jobs.is_empty() && self.unexplained() > self.settings.unexplained_bytes / 2
    }

    pub(crate) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// When there is something to be done although nothing came.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.answer_due().into_iter().chain(self.paused_until).min()
    }

    /// Whether the server owes an answer for too long.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.answer_due().is_some_and(|due| due <= now)
    }

    fn answer_due(&self) -> Option<Instant> {
        let asked = self.jobs.iter().filter_map(Job::asking);
        let asked = asked.chain(self.opening).min();
        let answer = asked.map(|asked| asked + self.settings.answer);
        let patience = match self.jobs.is_empty() {
            true => self.settings.answer.min(STARVED),
            false => self.settings.answer,
        };
        let relief = self.starved.map(|starved| starved + patience);
        answer.into_iter().chain(relief).min()
    }

    /// Whether no other command will ever have a channel.
    fn is_alone(&self) -> bool {
        self.limit == 1 && self.has_only_an_endless_job()
    }

    fn has_only_an_endless_job(&self) -> bool {
        let jobs_are = |job: &Job| job.is_endless && !job.pipe.is_dropped();
        self.channels() == 1 && self.jobs.iter().any(jobs_are)
    }

    /// Takes notice of commands that wait although fewer run than may: another connection helps.
    fn note_starvation(&mut self, starts: &VecDeque<Start>) {
        let starved = !starts.is_empty()
            && !self.closing.is_empty()
            && self.spare.is_none()
            && self.opening.is_none()
            && self.jobs.len() < self.settings.channels
            && self.channels() >= self.limit;
        match starved {
            true => self.starved = self.starved.or_else(|| Some(Instant::now())),
            false => self.starved = None,
        }
    }

    /// Fails all commands.
    pub(crate) fn fail(&mut self, fault: &Fault) {
        for job in &self.jobs {
            job.pipe.fail(fault.clone());
        }
    }

    /// Says good-bye, if that is possible at once.
    pub(crate) fn say_goodbye(&mut self) {
        // Nothing depends on it: the server also notices that the connection is closed.
        let _ = self.session.disconnect(None, "", None);
        if self.link.drain().is_ok() {
            self.link.flush_now();
        }
    }

    /// After the connection is gone: reads what libssh2 still has, and fails the commands of which
    /// there is nothing left to read.
    pub(crate) fn turn_lost(&mut self, fault: &Fault) {
        let Self {
            jobs,
            link,
            delivered,
            ..
        } = self;
        jobs.retain_mut(|job| {
            let round = job.round(link, delivered);
            let readable = job.channel.read_window().available > 0;
            let keep = readable && matches!(round, Ok(Round::Idle | Round::Progress));
            if !keep {
                job.pipe.fail(fault.clone());
            }
            keep
        });
        // What libssh2 wants to send goes nowhere.
        let _ = link.drain();
        link.discard();
    }

    fn unexplained(&self) -> u64 {
        let explained = 2 * self.delivered + self.link.sent / 8 + self.commands * COMMAND_BYTES;
        self.link.received.saturating_sub(explained)
    }

    fn channels(&self) -> usize {
        let spare = usize::from(self.spare.is_some());
        let opening = usize::from(self.opening.is_some());
        self.jobs.len() + self.closing.len() + spare + opening
    }

    /// Gives libssh2 what was received, as far as it takes it.
    fn feed(&mut self) -> Result<bool, SshError> {
        let mut fed = false;
        while self.link.feed()? {
            fed = true;
            self.pump()?;
            if self.link.has_incoming() {
                self.link.drain()?;
            }
        }
        Ok(fed)
    }

    /// Lets libssh2 read all that it was given and sort it by channel.
    fn pump(&mut self) -> Result<(), SshError> {
        let jobs = self.jobs.iter_mut().map(|job| &mut job.channel);
        for channel in self.spare.iter_mut().chain(jobs) {
            match channel.wait_eof() {
                // This one has ended, so libssh2 did not read.
                Ok(()) => {}
                Err(error) if raw::would_block(&error) => return Ok(()),
                Err(error) => return Err(SshError::protocol(&error)),
            }
        }
        // Whatever else is pending reads when it is polled.
        Ok(())
    }

    /// Polls every operation once; the answer says whether any got further.
    fn pass(&mut self, starts: &mut VecDeque<Start>, fed: bool) -> Result<bool, SshError> {
        // The request to run a command goes out before the request for the next channel.
        self.start(starts);
        let mut progress = self.rounds()?;
        progress |= self.close()?;
        progress |= self.open(starts, fed)?;
        Ok(progress)
    }

    /// Drives closes to their end: a channel that is dropped before would leak.
    fn close(&mut self) -> Result<bool, SshError> {
        let before = self.closing.len();
        let mut broken = None;
        self.closing
            .retain_mut(|closing| match closing.is_closed() {
                Ok(closed) => !closed,
                Err(error) if raw::would_block(&error) => true,
                Err(error) => {
                    broken = Some(error);
                    true
                }
            });
        match broken {
            Some(error) => Err(SshError::protocol(&error)),
            None => Ok(self.closing.len() < before),
        }
    }

    /// Opens a channel for the next command, also before there is one. Only one at a time: libssh2
    /// cannot do more.
    fn open(&mut self, starts: &mut VecDeque<Start>, fed: bool) -> Result<bool, SshError> {
        if self.opening.is_none() {
            if self.paused_until.is_some_and(|end| Instant::now() < end) {
                return Ok(false);
            }
            self.paused_until = None;
            starts.retain(|start| !start.pipe.is_dropped());
            // Without any channel, opening one is the only way to have libssh2 read.
            let wanted = !starts.is_empty() || self.ahead || (fed && self.channels() == 0);
            if !wanted || self.spare.is_some() || self.channels() >= self.limit {
                return Ok(false);
            }
            self.opening = Some(Instant::now());
        }
        match self.session.channel_open("session", WINDOW, PACKET, None) {
            Ok(channel) => {
                self.opening = None;
                self.refusals = 0;
                self.spare = Some(channel);
                Ok(true)
            }
            Err(error) if raw::would_block(&error) => Ok(false),
            Err(error) if raw::refused(&error) => {
                self.opening = None;
                self.refused(starts).map(|()| true)
            }
            Err(error) => Err(SshError::protocol(&error)),
        }
    }

    /// The server allows no more channels than there are.
    fn refused(&mut self, starts: &mut VecDeque<Start>) -> Result<(), SshError> {
        let channels = self.channels();
        if self.has_only_an_endless_job() && self.refusals < REFUSALS {
            // What was closed before may still count for the server.
            self.refusals += 1;
            self.paused_until = Some(Instant::now() + PAUSE);
        } else if channels > 0 {
            self.limit = channels;
        } else if self.commands == 0 {
            self.ahead = false;
            if let Some(start) = starts.pop_front() {
                let fault = Fault::late(SshError::Refused).without_retry();
                start.pipe.fail(fault);
            }
        } else if self.refusals < REFUSALS {
            self.refusals += 1;
            self.paused_until = Some(Instant::now() + PAUSE);
        } else {
            // What earlier commands left running counts for the server: a new connection helps.
            return Err(SshError::Refused);
        }
        Ok(())
    }

    /// Gives the open channel to the next command.
    fn start(&mut self, starts: &mut VecDeque<Start>) {
        if self.jobs.len() >= self.settings.channels || starts.is_empty() {
            return;
        }
        if let Some(channel) = self.spare.take() {
            match starts.pop_front() {
                Some(start) => {
                    self.commands += 1;
                    add(&self.counters.commands, 1);
                    self.jobs.push(Job::new(start, channel));
                }
                None => self.spare = Some(channel),
            }
        }
    }

    fn rounds(&mut self) -> Result<bool, SshError> {
        let mut progress = false;
        let mut index = 0;
        while let Some(job) = self.jobs.get_mut(index) {
            match job.round(&mut self.link, &mut self.delivered)? {
                Round::Idle => index += 1,
                Round::Progress => {
                    progress = true;
                    index += 1;
                }
                Round::Done => {
                    progress = true;
                    let channel = self.jobs.remove(index).channel;
                    self.closing.push(Closing {
                        channel,
                        sent: false,
                    });
                }
            }
        }
        Ok(progress)
    }
}

impl Drop for Engine {
    /// Without its socket libssh2 gives up every channel at once instead of leaking it.
    fn drop(&mut self) {
        self.link.sever();
        let jobs = self.jobs.drain(..).map(|job| job.channel);
        let closing = self.closing.drain(..).map(|closing| closing.channel);
        for mut channel in jobs.chain(closing).chain(self.spare.take()) {
            // The answer is an error, because the socket is gone.
            let _ = channel.close();
        }
    }
}
