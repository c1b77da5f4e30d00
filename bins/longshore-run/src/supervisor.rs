//! A: the process that holds the lock, keeps the time, and records the result.
//!
//! While it writes the entry to disk, B makes everything ready for the job, up to a process that
//! waits at the [gate] for leave to run the command. So the disk costs no time of its own.

use std::ffi::CString;
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use longshore_runner_api::command::OutputStream;
use longshore_runner_api::{DEFAULT_OUTPUT_LIMIT, Engine as Kind, StartDocument, StartReply};
use longshore_types::{AppliedLimits, ContainerUuid, Exit, ExitCause, Timestamp};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getpid, getsid, setsid,
};

use crate::ahead;
use crate::cgroup::{Cgroup, Plan, Shortage};
use crate::engine::Engine;
use crate::gate;
use crate::lock::{Lock, SupervisorMark};
use crate::output;
use crate::reaper::{self, ASK_TO_END, END_NOW, How, Message};
use crate::spool::Entry;
use crate::system::{fork, now};

/// Asks a supervisor to have the job end.
///
/// Not TERM, which a machine sends to all that runs when it is switched off: a job that ends by
/// that was not killed on request, and its container may be tried again elsewhere.
pub(crate) const ASK_SIGNAL: Signal = Signal::SIGUSR1;
/// Asks a supervisor to end the job at once.
pub(crate) const NOW_SIGNAL: Signal = Signal::SIGUSR2;
/// Somebody ends the supervisor, and the job with it.
const LEAVE_SIGNAL: Signal = Signal::SIGTERM;
/// What the supervisor says when it exists, holds the lock and has said so on disk.
pub(crate) const READY: &[u8] = b"+\n";

/// How often it is looked whether an output stream has grown beyond its limit.
const OUTPUT_PERIOD: Duration = Duration::from_millis(250);

/// How often recording the result is tried; with the pauses about five minutes.
const RECORD_TRIES: u32 = 70;

/// How long an engine may take to remove a container before it is asked again.
pub(crate) const REMOVE_PATIENCE: Duration = Duration::from_secs(30);

/// How long after everything was to be ended the reaper may take before it is ended itself, since it
/// hangs: a file that the job names may be of a file system that does not answer.
const REAPER_PATIENCE: Duration = Duration::from_secs(10);

/// An attempt that is ours to run: its lock is held and its entry is made, if not on disk yet.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) entry: Entry,
    pub(crate) lock: Lock,
    pub(crate) document: StartDocument,
    /// Where its control groups are to be; the entry says so.
    pub(crate) groups: Option<Plan>,
}

struct Supervisor<'a> {
    claim: &'a Claim,
    content: StartReply,
    signals: SignalFd,
    socket: UnixStream,
    reaper: Pid,
    unread: Vec<u8>,
    /// When a job without an engine was allowed to run.
    allowed: Option<Instant>,
    started: Option<Instant>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// Why the job was asked to end, if it was before it ended by itself.
    asked: Option<ExitCause>,
    /// When it is ended for good.
    end_at: Option<Instant>,
    /// When the reaper is ended, too.
    end_reaper_at: Option<Instant>,
    ended: Option<ExitCause>,
    limits: Option<AppliedLimits>,
    /// When the output is looked at again.
    cut_at: Instant,
    /// Whether the engine has said that its container is gone.
    removed: bool,
    /// Whether the reaper has said that no process is left but itself.
    none_runs: bool,
    /// Whether the reaper has said that nothing is left but itself.
    all_ended: bool,
}

/// A process that has become the supervisor of a claim.
#[derive(Debug)]
struct Place {
    content: StartReply,
    signals: SignalFd,
    mark: SupervisorMark,
}

/// The supervisor of a claim whose job may run, or is about to.
pub(crate) struct Supervision<'a> {
    supervisor: Supervisor<'a>,
    _mark: SupervisorMark,
}

/// Makes this process the supervisor, with a reaper that was made ahead or another. `ready` is told
/// [`READY`] and closed, and only then the job may run; or it is told why there will be no
/// supervisor, and nothing of one is left. From then on nothing of the starting process is left but
/// the lock.
pub(crate) fn set_up(
    claim: &Claim,
    ready: PipeWriter,
    ahead: Option<ahead::Reaper>,
) -> Result<Supervision<'_>> {
    let mut ready = Some(ready);
    let set_up = leave_all_behind(claim).and_then(|place| start(claim, place, &mut ready, ahead));
    set_up.inspect_err(|error| {
        if let Some(mut ready) = ready {
            let _ = write!(ready, "{error:#}");
        }
    })
}

impl Supervision<'_> {
    /// Returns when the lock may be released.
    pub(crate) fn run(mut self) {
        self.supervisor.watch();
        self.supervisor.finish();
    }
}

/// Leaves the session and the directory of the starting process behind; may be done again.
pub(crate) fn detach() -> Result<()> {
    if getsid(None)? != getpid() {
        setsid().context("cannot make a session")?;
    }
    chdir("/")?;
    umask(Mode::from_bits_truncate(0o077));
    prctl::set_child_subreaper(true).context("cannot become a subreaper")
}

/// Leaves the standard streams of the starting process behind.
pub(crate) fn leave_standard_streams() -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.context("cannot open /dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

/// Has all signals wait, and gives what tells of those of a supervisor and of a reaper.
pub(crate) fn take_signals() -> Result<SignalFd> {
    SigSet::all().thread_block()?;
    let mut wanted = SigSet::empty();
    wanted.extend([ASK_SIGNAL, NOW_SIGNAL, LEAVE_SIGNAL, Signal::SIGCHLD]);
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(SignalFd::with_flags(&wanted, flags)?)
}

/// Leaves everything of the starting process behind but the lock.
fn leave_all_behind(claim: &Claim) -> Result<Place> {
    detach()?;
    leave_standard_streams()?;
    call_yourself(claim.entry.uuid);
    let signals = take_signals()?;
    let mark = claim.lock.mark_supervisor()?;
    let content = StartReply {
        uuid: claim.entry.uuid,
        pid: std::process::id(),
        attempt: claim.entry.attempt,
    };
    claim
        .lock
        .write(&content)
        .context("cannot write the lock file")?;
    Ok(Place {
        content,
        signals,
        mark,
    })
}

/// Has a reaper make the job ready while the entry is written to disk, and then lets it run.
fn start<'a>(
    claim: &'a Claim,
    place: Place,
    ready: &mut Option<PipeWriter>,
    ahead: Option<ahead::Reaper>,
) -> Result<Supervision<'a>> {
    // If it cannot be noted the output is cut without a mark.
    let limit = claim.document.output_limit;
    if limit != DEFAULT_OUTPUT_LIMIT {
        let _ = claim.entry.note_output_limit(limit);
    }
    let Place {
        content,
        signals,
        mark,
    } = place;
    let (reaper, socket, leave) = match ahead {
        Some(reaper) => reaper.begin(),
        None => {
            let (socket, far) = UnixStream::pair()?;
            let (gate, leave) = gate::gate().context("cannot make a pipe")?;
            match fork().context("cannot fork")? {
                ForkResult::Parent { child } => (child, socket, leave),
                ForkResult::Child => {
                    // Only A may keep these open: their closing is how its end is noticed.
                    drop((socket, leave, mark, ready.take()));
                    if prctl::set_child_subreaper(true).is_ok() {
                        reaper::run(claim, far, &signals, gate);
                    }
                    std::process::exit(0)
                }
            }
        }
    };
    let mut supervisor = Supervisor::new(claim, content, signals, socket, reaper);
    let on_disk = supervisor.socket.set_nonblocking(true);
    let on_disk = on_disk
        .map_err(Into::into)
        .and_then(|()| claim.entry.sync());
    if let Err(error) = on_disk {
        drop(leave);
        supervisor.end_what_is_left();
        return Err(error);
    }
    if let Some(mut ready) = ready.take() {
        let _ = ready.write_all(READY);
    }
    // Not before that: where it was not said, nothing was started.
    leave.give();
    supervisor.allowed = Some(Instant::now()).filter(|_| claim.document.engine == Kind::Process);
    Ok(Supervision {
        supervisor,
        _mark: mark,
    })
}

/// For people who look at what runs: the kernel keeps 15 bytes, which is the container's own part
/// of its UUID.
pub(crate) fn call_yourself(uuid: ContainerUuid) {
    let own = uuid.as_str().rsplit('-').next().unwrap_or_default();
    if let Ok(name) = CString::new(own) {
        let _ = prctl::set_name(&name);
    }
}

impl<'a> Supervisor<'a> {
    fn new(
        claim: &'a Claim,
        content: StartReply,
        signals: SignalFd,
        socket: UnixStream,
        reaper: Pid,
    ) -> Self {
        Self {
            claim,
            content,
            signals,
            socket,
            reaper,
            unread: Vec::new(),
            allowed: None,
            started: None,
            started_at: None,
            finished_at: None,
            asked: None,
            end_at: None,
            end_reaper_at: None,
            ended: None,
            limits: None,
            cut_at: Instant::now() + OUTPUT_PERIOD,
            removed: false,
            none_runs: false,
            all_ended: false,
        }
    }

    /// Returns when the reaper has ended, or no other process is left.
    fn watch(&mut self) {
        loop {
            let mut ready = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut ready, self.timeout());
            // First: a machine that is switched off sends TERM to the job, too, whose end by that is
            // not its own.
            self.handle_signals();
            let reaper_closed = self.read_messages();
            self.handle_time();
            if self.none_runs {
                return;
            }
            if !self.reap() || reaper_closed {
                self.handle_signals();
                self.read_messages();
                return;
            }
        }
    }

    fn timeout(&self) -> PollTimeout {
        let cut_at = self.started.map(|_| self.cut_at);
        let next = self.time_limit().into_iter();
        let next = next.chain(self.end_at).chain(self.end_reaper_at);
        next.chain(cut_at).min().map_or(PollTimeout::NONE, |next| {
            let left = next.saturating_duration_since(Instant::now());
            // Rounded up, so that it is not polled in a circle; long ones in several turns.
            let left = left.min(Duration::from_secs(3600)) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        })
    }

    /// When the job has run for too long, unless it was asked to end already. An engine's time to
    /// fetch an image does not count; that in which a job's own files do not answer does.
    fn time_limit(&self) -> Option<Instant> {
        if self.asked.is_some() || self.ended.is_some() {
            return None;
        }
        let limit = Duration::from_millis(self.claim.document.time_limit_ms?);
        self.started.or(self.allowed)?.checked_add(limit)
    }

    fn handle_time(&mut self) {
        let now = Instant::now();
        if self.time_limit().is_some_and(|limit| limit <= now) {
            self.ask_to_end(ExitCause::TimeLimit);
        }
        if self.cut_at <= now {
            self.cut_output();
            self.cut_at = now + OUTPUT_PERIOD;
        }
        if self.end_at.is_some_and(|end| end <= now) {
            self.end_now();
        }
        if self.end_reaper_at.is_some_and(|end| end <= now) {
            // What it leaves is ended here.
            let _ = kill(self.reaper, Signal::SIGKILL);
            self.end_reaper_at = now.checked_add(REAPER_PATIENCE);
        }
    }

    fn end_now(&mut self) {
        self.end_at = None;
        let end = Instant::now().checked_add(REAPER_PATIENCE);
        self.end_reaper_at = self.end_reaper_at.or(end);
        self.send(END_NOW);
    }

    /// Keeps the output within its limit.
    fn cut_output(&self) {
        for stream in OutputStream::ALL {
            // What cannot be cut now is tried again soon.
            let path = self.claim.entry.output(stream);
            let _ = output::cut(&path, self.claim.document.output_limit);
        }
    }

    fn handle_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if number == ASK_SIGNAL as i32 {
                self.ask_to_end(ExitCause::Killed);
            } else if number == LEAVE_SIGNAL as i32 {
                self.ask_to_end(ExitCause::SupervisorLost);
            } else if number == NOW_SIGNAL as i32 {
                self.note_asked(ExitCause::Killed);
                self.end_now();
            }
        }
    }

    fn ask_to_end(&mut self, why: ExitCause) {
        if self.note_asked(why) {
            let grace = Duration::from_millis(self.claim.document.kill_grace_ms);
            self.end_at = Instant::now().checked_add(grace);
            self.send(ASK_TO_END);
        }
    }

    /// Remembers why the job is asked to end; `false` if it was before, or has ended.
    fn note_asked(&mut self, why: ExitCause) -> bool {
        let first = self.asked.is_none() && self.ended.is_none();
        if first {
            self.asked = Some(why);
        }
        first
    }

    fn send(&mut self, command: u8) {
        // A reaper that is gone needs no commands.
        let _ = self.socket.write_all(&[command]);
    }

    /// Reads what the reaper has said; `true` if it has closed the socket.
    fn read_messages(&mut self) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(n) => self.unread.extend(buffer.iter().take(n)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
            while let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                if let Ok(message) = serde_json::from_slice(&line) {
                    self.handle_message(message);
                }
            }
        }
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Started { at, limits } => {
                self.started = Some(Instant::now());
                self.started_at = Some(at);
                self.limits = Some(limits);
                self.claim.entry.note_started(at);
                // Wakes those who wait for news.
                let _ = self.claim.lock.write(&self.content);
            }
            Message::NotStarted { cause } => {
                self.ended = Some(self.asked.take().unwrap_or(cause));
            }
            Message::Removed => self.removed = true,
            Message::NoneRuns => self.none_runs = true,
            Message::AllEnded => self.all_ended = true,
            Message::Unseen => {
                self.ended = Some(self.asked.take().unwrap_or(ExitCause::SupervisorLost))
            }
            Message::Ended { how, at, shortage } => {
                self.finished_at = Some(at);
                self.end_at = None;
                let by_itself = match (shortage, how) {
                    (Some(Shortage::OfJob), _) => ExitCause::OutOfMemory {
                        limit: self.claim.document.ram.unwrap_or_default(),
                    },
                    // Not by anything that it did; another machine may have more.
                    (Some(Shortage::OfMachine), _) => ExitCause::SupervisorLost,
                    (None, How::Exited(code)) => ExitCause::Exited { code },
                    (None, How::Signaled(signal)) => ExitCause::Signaled { signal },
                };
                self.ended = Some(self.asked.take().unwrap_or(by_itself));
            }
        }
    }

    /// Waits for children that have ended; `false` if the reaper is one of them.
    fn reap(&mut self) -> bool {
        let mut alive = true;
        reaper::reap_with(|pid, _| alive &= pid != self.reaper);
        alive
    }

    /// Waits until the engine has removed the container: as long as it may run the lock is held.
    fn end_container(&self) {
        if self.removed {
            return;
        }
        let Some(engine) = Engine::left_by(&self.claim.entry) else {
            return;
        };
        let mut pause = Duration::from_millis(100);
        while engine.remove(REMOVE_PATIENCE).is_err() {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    /// Ends what the reaper has left, if it was ended itself, and records the result, which counts
    /// when the lock is released.
    fn finish(&mut self) {
        if !self.none_runs {
            self.end_what_is_left();
        }
        self.cut_output();
        let lost = || self.asked.clone().unwrap_or(ExitCause::SupervisorLost);
        let entry = &self.claim.entry;
        let limit = self.claim.document.output_limit;
        let cause = self.ended.clone().unwrap_or_else(lost);
        let mut exit = Exit {
            started_at: self.started_at,
            finished_at: self.finished_at.or_else(|| Some(now())),
            limits: self.limits,
            ..Exit::unseen(cause)
        };
        entry.note_written(&mut exit, limit);
        record(entry, &exit);
        if self.none_runs && !self.reaper_is_done() {
            self.end_what_is_left();
        }
        self.claim.lock.delete();
        // The reaper, which has nothing left to do.
        self.end_all(None);
    }

    /// Waits until the reaper has removed the groups; `false` if it does not.
    fn reaper_is_done(&mut self) -> bool {
        let end = Instant::now() + REAPER_PATIENCE;
        loop {
            let closed = self.read_messages();
            let left = end.saturating_duration_since(Instant::now());
            if self.all_ended || closed || left.is_zero() {
                return self.all_ended;
            }
            let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let left = PollTimeout::try_from(left + Duration::from_millis(1));
            let _ = poll(&mut ready, left.unwrap_or(PollTimeout::MAX));
        }
    }

    fn end_what_is_left(&self) {
        self.end_container();
        self.end_all(Cgroup::of(&self.claim.entry).as_ref());
        // Looked for anew: the reaper may have made groups until it was ended.
        if let Some(cgroup) = Cgroup::of(&self.claim.entry) {
            cgroup.end(Duration::from_secs(1));
        }
    }

    fn end_all(&self, cgroup: Option<&Cgroup>) {
        reaper::end_all(&self.signals, cgroup, || reaper::reap_with(|_, _| {}));
    }
}

/// Records the result, again and again if the disk does not take it: until then the lock is held,
/// and the container counts as running; after that, as lost with its supervisor.
fn record(entry: &Entry, exit: &Exit) {
    let mut pause = Duration::from_millis(50);
    for _ in 0..RECORD_TRIES {
        if entry.record(exit).is_ok() {
            return;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
