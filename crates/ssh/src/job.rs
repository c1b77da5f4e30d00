//! One command on one channel.

use std::io::{self, ErrorKind, Read, Write as _};
use std::sync::Arc;

use longshore_exec::{ExitStatus, Output};
use ssh2::Channel;
use tokio::time::Instant;

use crate::engine::WINDOW;
use crate::error::{Fault, SshError};
use crate::link::Link;
use crate::pipe::{Pipe, Stage};
use crate::raw;
use crate::wrap::{Scanner, Wrapped};

/// libssh2 asks for more window in the middle of a read when there is less than this and what is
/// wanted. If that blocks, the read looks as if there was nothing. So it must not come to that.
const LEAST_WINDOW: usize = WINDOW as usize / 4 * 3;
/// The most bytes of input in one packet.
const INPUT_PACKET: usize = 32 * 1024;

/// A command that waits for a channel.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) wrapped: Wrapped,
    pub(crate) pipe: Arc<Pipe>,
    /// Whether it has no limit of time.
    pub(crate) is_endless: bool,
}

/// A command that has a channel.
pub(crate) struct Job {
    pub(crate) channel: Channel,
    pub(crate) pipe: Arc<Pipe>,
    pub(crate) is_endless: bool,
    line: String,
    scanner: Scanner,
    /// Since when the server owes an answer to the request to run the command.
    asking: Option<Instant>,
    /// Bytes of window that the server is being granted; repeated until it does not block.
    widening: Option<u64>,
    input: Vec<u8>,
    input_start: usize,
    input_ended: bool,
}

/// What one round with a job came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// Nothing can be done until something changes.
    Idle,
    /// Something was done, and perhaps more can be.
    Progress,
    /// The channel can be closed.
    Done,
}

/// A libssh2 call that would block is not an error but `None`.
fn unless_blocked<T>(result: Result<T, ssh2::Error>) -> Result<Option<T>, SshError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if raw::would_block(&error) => Ok(None),
        Err(error) => Err(SshError::protocol(&error)),
    }
}

fn unless_blocked_io(result: io::Result<usize>) -> Result<Option<usize>, SshError> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Job {
    pub(crate) fn new(start: Start, channel: Channel) -> Self {
        Self {
            channel,
            pipe: start.pipe,
            is_endless: start.is_endless,
            line: start.wrapped.line,
            scanner: Scanner::new(start.wrapped.mark),
            asking: None,
            widening: None,
            input: Vec::new(),
            input_start: 0,
            input_ended: false,
        }
    }

    /// Since when the server owes an answer.
    pub(crate) fn asking(&self) -> Option<Instant> {
        self.asking
    }

    /// Does what can be done. `delivered` counts the bytes of output.
    ///
    /// Errors are those of the whole connection.
    pub(crate) fn round(
        &mut self,
        link: &mut Link,
        delivered: &mut u64,
    ) -> Result<Round, SshError> {
        if self.pipe.is_dropped() {
            return Ok(Round::Done);
        }
        if !self.line.is_empty() {
            let round = self.ask()?;
            if round != Round::Progress {
                return Ok(round);
            }
        }
        self.run(link, delivered)
    }

    /// Asks the server to run the command, and waits for its answer.
    fn ask(&mut self) -> Result<Round, SshError> {
        if self.asking.is_none() {
            if !self.pipe.begin() {
                return Ok(Round::Done);
            }
            self.asking = Some(Instant::now());
        }
        match self.channel.exec(&self.line) {
            Ok(()) => {
                self.line = String::new();
                self.asking = None;
                self.pipe.set_stage(Stage::Running);
                Ok(Round::Progress)
            }
            Err(error) if raw::would_block(&error) => Ok(Round::Idle),
            Err(error) if raw::refused(&error) => {
                self.pipe.fail(Fault::late(SshError::Refused));
                Ok(Round::Done)
            }
            Err(error) => Err(SshError::protocol(&error)),
        }
    }

    fn run(&mut self, link: &mut Link, delivered: &mut u64) -> Result<Round, SshError> {
        let wrote = self.write(link)?;
        let read = self.read(delivered)?;
        if self.has_ended()? {
            return self.end();
        }
        Ok(match wrote || read {
            true => Round::Progress,
            false => Round::Idle,
        })
    }

    /// Sends one packet of input.
    fn write(&mut self, link: &mut Link) -> Result<bool, SshError> {
        if self.input_ended || !link.has_room() {
            return Ok(false);
        }
        if self.input_start == self.input.len() {
            self.input_start = 0;
            self.input = match self.pipe.take_input() {
                Some(input) => input,
                None => {
                    self.input_ended = unless_blocked(self.channel.send_eof())?.is_some();
                    return Ok(self.input_ended);
                }
            };
        }
        let rest = &self.input[self.input_start..];
        if rest.is_empty() {
            return Ok(false);
        }
        // What would block is repeated with the same bytes: they stay until they are accepted.
        let rest = &rest[..rest.len().min(INPUT_PACKET)];
        let count = unless_blocked_io(self.channel.write(rest))?.unwrap_or(0);
        self.input_start += count;
        link.drain()?;
        Ok(count > 0)
    }

    /// Takes the output that libssh2 has, as far as the caller has room for it.
    fn read(&mut self, delivered: &mut u64) -> Result<bool, SshError> {
        let mut any = false;
        loop {
            let available = self.channel.read_window().available as usize;
            let wanted = available.min(self.pipe.room());
            if wanted == 0 || !self.widen(wanted)? {
                return Ok(any);
            }
            let stdout = read_some(&mut self.channel, wanted)?;
            let stderr = match stdout.len() == wanted {
                true => Vec::new(),
                false => read_some(&mut self.channel.stderr(), wanted - stdout.len())?,
            };
            let count = stdout.len() + stderr.len();
            if count == 0 {
                self.pipe.fail(Fault::late(SshError::UnknownStream));
                return Ok(any);
            }
            any = true;
            *delivered += count as u64;
            self.pipe.push(Output::Stdout(stdout));
            let known = self.scanner.status().is_some();
            self.pipe.push(Output::Stderr(self.scanner.push(stderr)));
            if let (false, Some(status)) = (known, self.scanner.status()) {
                self.pipe.set_status(Some(ExitStatus::Code(status)));
            }
        }
    }

    /// Grants the server what is about to be read; the answer says whether it may be read now.
    fn widen(&mut self, wanted: usize) -> Result<bool, SshError> {
        loop {
            let bytes = match self.widening {
                Some(bytes) => bytes,
                None => {
                    let left = self.channel.read_window().remaining as usize;
                    if left >= LEAST_WINDOW + wanted {
                        return Ok(true);
                    }
                    (WINDOW as usize + wanted - left) as u64
                }
            };
            self.widening = Some(bytes);
            if unless_blocked(self.channel.adjust_receive_window(bytes, true))?.is_none() {
                return Ok(false);
            }
            self.widening = None;
        }
    }

    /// Whether the server ended both streams and everything in them was read.
    fn has_ended(&mut self) -> Result<bool, SshError> {
        if self.pipe.lock().fault.is_some() {
            return Ok(true);
        }
        if self.channel.eof() {
            return Ok(true);
        }
        if self.channel.read_window().available > 0 || self.channel.wait_eof().is_err() {
            return Ok(false);
        }
        // The end has come, but libssh2 does not show it while there are packets for the channel:
        // those that are left are empty.
        let mut nothing = [0; 1];
        unless_blocked_io(self.channel.read(&mut nothing))?;
        unless_blocked_io(self.channel.stderr().read(&mut nothing))?;
        Ok(self.channel.eof())
    }

    fn end(&mut self) -> Result<Round, SshError> {
        if self.pipe.lock().fault.is_some() {
            return Ok(Round::Done);
        }
        if self.scanner.status().is_none() {
            // Without a trailer the status may still come, until the server closes the channel.
            if unless_blocked(self.channel.wait_close())?.is_none() {
                return Ok(Round::Idle);
            }
            self.pipe.push(Output::Stderr(self.scanner.finish()));
            self.pipe.set_status(self.status_message());
        }
        self.pipe.end();
        Ok(Round::Done)
    }

    /// What the server said in a message of its own; a code of 0 is what libssh2 says for none.
    fn status_message(&self) -> Option<ExitStatus> {
        let signal = self.channel.exit_signal().ok().and_then(|s| s.exit_signal);
        match (signal, self.channel.exit_status()) {
            (Some(name), _) => Some(ExitStatus::Signal(name)),
            (None, Ok(code)) if code != 0 => Some(ExitStatus::Code(code.cast_unsigned())),
            _ => None,
        }
    }
}

/// Reads at most `wanted` bytes, or none if there are none in this stream.
fn read_some(stream: &mut impl Read, wanted: usize) -> Result<Vec<u8>, SshError> {
    let mut bytes = vec![0; wanted];
    let count = unless_blocked_io(stream.read(&mut bytes))?.unwrap_or(0);
    bytes.truncate(count);
    Ok(bytes)
}
