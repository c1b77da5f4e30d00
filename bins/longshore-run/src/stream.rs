//! `--watch`: answers the requests of one dispatcher until its standard input ends.
//!
//! It holds nothing that matters: what it starts are supervisors like those that a command starts,
//! and everything else is read from the directory. Any number of streams may be open beside each
//! other and beside commands. It has one thread; whatever may take time is done by a child, made
//! with a fork and with nothing of the stream's but the way back for what it has to say.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, stdin};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use longshore_runner_api::command::{EXIT_USAGE, MAX_WAIT};
use longshore_runner_api::report::{MAX_TEXT, parse_acks};
use longshore_runner_api::watch::{Ask, FromRunner, HEARTBEAT, Request, Requests, WATCH_PROTOCOL};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout};

use crate::acknowledge::acknowledge;
use crate::directory::RunDirectory;
use crate::report::Looks;
use crate::scan::scan;
use crate::system::{close_inherited, fork};
use crate::watch::Watch;
use crate::{complain, guard, kill, say, start};

/// The most children at once; further requests wait.
const MAX_CHILDREN: usize = 64;
/// The most requests for a report that wait for news; beyond that the oldest is answered at once.
const MAX_REPORTS: usize = 8;
/// The exit code of a command that a signal has ended is this and the signal's number, as a shell
/// says it.
const SIGNALLED: i32 = 128;

/// Answers until there is nobody to answer to, which is so when nothing came for `silence`.
pub(crate) fn serve(directory: &RunDirectory, silence: Duration) -> Result<u8> {
    let mut stream = Stream::new(directory, silence);
    stream.say(&FromRunner::Hello {
        protocol: WATCH_PROTOCOL,
        runner_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: boot_id(),
    })?;
    while stream.turn()? {}
    Ok(0)
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

struct Stream<'a> {
    directory: &'a RunDirectory,
    watch: Watch,
    requests: Requests,
    children: Vec<Child>,
    reports: Vec<Asked>,
    looks: Looks,
    beat_at: Instant,
    heard_at: Instant,
    silence: Duration,
}

/// A request that a child carries out.
struct Child {
    id: u64,
    process: Pid,
    way_back: PipeReader,
    said: Vec<u8>,
}

/// A request for a report that waits for news.
struct Asked {
    id: u64,
    known: String,
    end: Instant,
}

impl<'a> Stream<'a> {
    fn new(directory: &'a RunDirectory, silence: Duration) -> Self {
        let now = Instant::now();
        Self {
            directory,
            watch: Watch::new(directory),
            requests: Requests::default(),
            children: Vec::new(),
            reports: Vec::new(),
            looks: Looks::default(),
            beat_at: now + HEARTBEAT,
            heard_at: now,
            silence,
        }
    }

    /// Waits for something to do, and does it; whether the stream goes on.
    fn turn(&mut self) -> Result<bool> {
        let input = stdin();
        let mut sources: Vec<BorrowedFd<'_>> = Vec::new();
        sources.extend(self.children.iter().map(|child| child.way_back.as_fd()));
        let may_ask = self.children.len() < MAX_CHILDREN;
        if may_ask {
            sources.push(input.as_fd());
        }
        let ready = self.watch.poll(self.patience(), &sources);
        if ready.nobody_listens {
            return Ok(false);
        }
        let now = Instant::now();
        if ready.changed {
            self.looks.after_change(now);
        }
        let asked = may_ask && ready.others.last().copied().unwrap_or(false);
        for (i, ready) in ready.others.iter().enumerate().rev() {
            if *ready && i < self.children.len() {
                self.hear_child(i)?;
            }
        }
        if asked && !self.read()? {
            return Ok(false);
        }
        if self.looks.take_due(now) || self.reports.iter().any(|asked| asked.end <= now) {
            self.report(now)?;
        }
        if self.beat_at <= now {
            self.say(&FromRunner::Heartbeat)?;
        }
        if now.duration_since(self.heard_at) >= self.silence {
            bail!("nothing came from the dispatcher for {:?}", self.silence);
        }
        Ok(true)
    }

    /// Until when nothing has to be done unless something happens.
    fn patience(&self) -> Duration {
        let mut next = self.beat_at.min(self.heard_at + self.silence);
        if !self.reports.is_empty() {
            let ends = self.reports.iter().map(|asked| asked.end);
            next = ends.chain(self.looks.next()).fold(next, Instant::min);
        }
        next.saturating_duration_since(Instant::now())
    }

    fn say(&mut self, message: &FromRunner) -> Result<()> {
        say(&message.line())?;
        self.beat_at = Instant::now() + HEARTBEAT;
        Ok(())
    }

    /// Reads what has come, and takes up what is whole; whether more may come.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 64 << 10];
        let count = match nix::unistd::read(stdin(), &mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => return Ok(true),
            Err(error) => return Err(error).context("cannot read standard input"),
        };
        self.heard_at = Instant::now();
        self.requests.push(buffer.get(..count).unwrap_or_default());
        while let Some((request, bytes)) = self.requests.next()? {
            self.take_up(request, bytes)?;
        }
        Ok(true)
    }

    fn take_up(&mut self, request: Request, document: Vec<u8>) -> Result<()> {
        let (id, directory) = (request.id, self.directory);
        match request.ask {
            Ask::Start { uuid, attempt, .. } => self.delegate(id, || {
                start::start_document(directory, uuid, attempt, &document)
            }),
            Ask::Kill {
                uuid,
                attempt,
                signal,
            } => self.delegate(id, || kill::kill(directory, uuid, Some(attempt), signal)),
            Ask::Report {
                known,
                wait_ms,
                acks,
            } => {
                self.contact();
                self.acknowledge(&acks);
                self.wait_for_news(id, known, wait_ms);
                Ok(())
            }
            Ask::Ping => {
                self.contact();
                self.done(id, 0, String::new())
            }
            _ => self.done(
                id,
                EXIT_USAGE,
                "this runner does not know the request".into(),
            ),
        }
    }

    fn done(&mut self, id: u64, code: u32, said: String) -> Result<()> {
        self.say(&FromRunner::Done { id, code, said })
    }

    /// Has a child do it, whose end is the answer.
    fn delegate(&mut self, id: u64, act: impl FnOnce() -> Result<u8>) -> Result<()> {
        let directory = self.directory;
        match child(|| {
            guard::contact(directory);
            act()
        }) {
            Ok((process, way_back)) => {
                self.children.push(Child {
                    id,
                    process,
                    way_back,
                    said: Vec::new(),
                });
                Ok(())
            }
            Err(error) => self.done(id, 1, format!("{error:#}")),
        }
    }

    /// Takes what a child has to say; at its end the request is answered.
    fn hear_child(&mut self, i: usize) -> Result<()> {
        let Some(child) = self.children.get_mut(i) else {
            return Ok(());
        };
        let mut buffer = [0; MAX_TEXT];
        let count = child.way_back.read(&mut buffer).unwrap_or(0);
        if count > 0 {
            let room = MAX_TEXT.saturating_sub(child.said.len());
            child.said.extend(buffer.iter().take(count.min(room)));
            return Ok(());
        }
        let child = self.children.swap_remove(i);
        let code = match waitpid(child.process, None) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => SIGNALLED + signal as i32,
            // What became of it is not known.
            _ => SIGNALLED,
        };
        let said = String::from_utf8_lossy(&child.said).trim().to_owned();
        self.done(child.id, u32::try_from(code).unwrap_or(1), said)
    }

    fn acknowledge(&self, acks: &str) {
        if acks.is_empty() {
            return;
        }
        let done = match parse_acks(acks) {
            Some(acks) => acknowledge(self.directory, &acks),
            None => Err(anyhow::anyhow!("{acks:.100?} is not valid")),
        };
        if let Err(error) = done {
            // What was not removed is reported, and will be acknowledged again.
            complain(&format!(
                "cannot remove all that is acknowledged: {error:#}"
            ));
        }
    }

    fn wait_for_news(&mut self, id: u64, known: String, wait_ms: u64) {
        let now = Instant::now();
        let wait = Duration::from_millis(wait_ms).min(MAX_WAIT);
        if self.reports.len() >= MAX_REPORTS
            && let Some(oldest) = self.reports.first_mut()
        {
            oldest.end = now;
        }
        let end = now + wait;
        self.reports.push(Asked { id, known, end });
        self.looks.look_at(now);
    }

    /// Looks, and answers every request that what is found is news to, or that has waited enough.
    fn report(&mut self, now: Instant) -> Result<()> {
        if self.reports.is_empty() {
            return Ok(());
        }
        let found = scan(self.directory);
        let mut answers = Vec::new();
        self.reports.retain(|asked| {
            let (id, end) = (asked.id, asked.end);
            match &found {
                Ok(report) if report.digest == asked.known && now < end => return true,
                Ok(report) => answers.push(FromRunner::Report {
                    id,
                    report: report.clone(),
                }),
                Err(error) => answers.push(FromRunner::Done {
                    id,
                    code: 1,
                    said: format!("{error:#}"),
                }),
            }
            false
        });
        answers.iter().try_for_each(|answer| self.say(answer))
    }

    /// Tells the guard, if there is one, that a dispatcher is there.
    fn contact(&self) {
        let directory = self.directory;
        if !guard::is_wanted(directory) {
            return;
        }
        let told = child(|| {
            guard::contact(directory);
            Ok(0)
        });
        if let Ok((process, _)) = told {
            // It writes a line and may fork.
            let _ = waitpid(process, None);
        }
    }
}

/// Forks a child that does something and exits with its code; what it complains of comes back.
fn child(act: impl FnOnce() -> Result<u8>) -> Result<(Pid, PipeReader)> {
    let (read, write) = std::io::pipe().context("cannot make a pipe")?;
    match fork().context("cannot fork")? {
        ForkResult::Parent { child } => Ok((child, read)),
        ForkResult::Child => {
            let code = match leave(&write).and_then(|()| act()) {
                Ok(code) => code,
                Err(error) => {
                    complain(&format!("{error:#}"));
                    1
                }
            };
            std::process::exit(i32::from(code))
        }
    }
}

/// Keeps nothing of the stream's: a supervisor is about to inherit all that is left.
fn leave(way_back: &PipeWriter) -> Result<()> {
    dup2_stderr(way_back)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    close_inherited();
    // It is closed already.
    std::mem::forget(null);
    Ok(())
}
