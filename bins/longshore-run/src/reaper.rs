//! B: the parent of the job, and the ending of everything that a job leaves behind.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use longshore_runner_api::StartDocument;
use longshore_runner_api::command::OutputStream;
use longshore_types::{AppliedLimits, ExitCause, Means, Timestamp};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, MemoryWatch, Shortage};
use crate::engine::Engine;
use crate::gate::Gate;
use crate::job::{self, Frame, Spawned};
use crate::lock::Lock;
use crate::spool::Entry;
use crate::supervisor::{Claim, REMOVE_PATIENCE};
use crate::system::{now, wait_any};

/// How long an engine may take to fetch an image and to make a container.
const CREATE_PATIENCE: Duration = Duration::from_secs(3600);

/// A asks B to send TERM to the job.
pub(crate) const ASK_TO_END: u8 = b'T';
/// A asks B to end everything now.
pub(crate) const END_NOW: u8 = b'K';

/// What B tells A, a JSON line each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Started {
        at: Timestamp,
        limits: AppliedLimits,
    },
    NotStarted {
        cause: ExitCause,
    },
    Ended {
        how: How,
        at: Timestamp,
        /// Whose memory was used up, if a process was ended for that.
        shortage: Option<Shortage>,
    },
    /// The container of the job is gone, says its engine.
    Removed,
    /// Its engine does not say how the job ended.
    Unseen,
    /// No process is left of the job; its groups still are.
    NoneRuns,
    /// Nothing is left of the job, and B goes.
    AllEnded,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    Exited(i32),
    Signaled(i32),
}

struct Reaper<'a> {
    entry: &'a Entry,
    document: &'a StartDocument,
    lock: &'a Lock,
    socket: UnixStream,
    signals: &'a SignalFd,
    cgroup: Option<Cgroup>,
    memory: Option<MemoryWatch>,
    limits: AppliedLimits,
    engine: Option<(Engine, Stage)>,
    /// The job, or the engine's client for it, until it has been waited for; so its id, and its
    /// group's, cannot be reused.
    job: Option<Pid>,
    /// The mounts of the job, held so that the kernel takes them apart when the result is recorded, and
    /// nobody waits for that.
    mounts: Option<File>,
    /// Whether the job was asked to end.
    asked: bool,
}

/// What an engine's client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Fetching the image and making the container, which is given up then.
    Creating {
        until: Instant,
    },
    Running,
}

impl Stage {
    /// How long it may still go on.
    fn time_left(self, now: Instant) -> Option<Duration> {
        match self {
            Self::Creating { until } => Some(until.saturating_duration_since(now)),
            Self::Running => None,
        }
    }
}

/// Makes the job ready, runs it as soon as it may to its end, and ends what it leaves behind. To be
/// called in B, as a subreaper.
pub(crate) fn run(claim: &Claim, socket: UnixStream, signals: &SignalFd, gate: Gate) {
    let (entry, document, lock) = (&claim.entry, &claim.document, &claim.lock);
    let mut engine = Engine::of_document(entry, document);
    let plan = claim.groups.as_ref();
    let made = plan.and_then(|plan| plan.make(entry, document));
    let (cgroup, memory, mut limits) = match made {
        Some(made) => (Some(made.cgroup), made.memory, made.limits),
        None => (None, None, AppliedLimits::all(Means::Nothing)),
    };
    if let Some(engine) = &mut engine {
        // A group that does not limit RAM is none for an engine, which can do that itself.
        let name = cgroup.as_ref().and_then(Cgroup::name);
        engine.put_into(name.filter(|_| document.ram.is_none() || limits.ram.is_whole()));
        if engine.enforces_limits() {
            limits = AppliedLimits::all(Means::Engine);
        }
    }
    let mut reaper = Reaper {
        entry,
        document,
        lock,
        socket,
        signals,
        cgroup,
        memory,
        limits,
        engine: engine.map(|engine| {
            let until = Instant::now() + CREATE_PATIENCE;
            (engine, Stage::Creating { until })
        }),
        job: None,
        mounts: None,
        asked: false,
    };
    let mut orphaned = false;
    match reaper.begin(gate) {
        Ok(()) => orphaned = reaper.watch(),
        Err(cause) => reaper.tell(&Message::NotStarted { cause }),
    }
    let all_ended = reaper.end_all();
    if orphaned {
        // Nobody else will, and its deletion is what those who watch it see.
        lock.delete();
    } else if all_ended {
        reaper.tell(&Message::AllEnded);
    }
}

impl Reaper<'_> {
    /// Starts the job, or has its container made, as soon as that may be.
    fn begin(&mut self, mut gate: Gate) -> Result<(), ExitCause> {
        if let Some((engine, _)) = &mut self.engine {
            if !gate.wait() {
                return Err(job::no_leave());
            }
            if !engine.find_client() {
                return Err(job::no_engine(engine.program()));
            }
            let noted = self.entry.note_engine(engine);
            noted.map_err(|error| ExitCause::NotStarted {
                error: format!("cannot note the container of the engine: {error}"),
            })?;
            check_mounts(self.document)?;
            let create = engine.create(self.entry, self.document);
            let create = create.map_err(|error| ExitCause::NotStarted {
                error: format!("cannot write the variables of the container: {error}"),
            })?;
            return self.spawn_client(create, false);
        }
        let frame = Frame {
            lock: self.lock.file(),
            cgroup: self.cgroup.as_ref(),
            limits: self.limits,
            own_mounts: true,
        };
        let Spawned { pid, limits } = job::spawn(self.entry, self.document, &frame, gate)?;
        self.job = Some(pid);
        self.limits = limits;
        self.tell_started();
        self.mounts = File::open(format!("/proc/{pid}/ns/mnt")).ok();
        Ok(())
    }

    fn tell_started(&mut self) {
        let limits = self.limits;
        self.tell(&Message::Started { at: now(), limits });
    }

    fn spawn_client(&mut self, command: Command, is_start: bool) -> Result<(), ExitCause> {
        let (entry, document) = (self.entry, self.document);
        let pid = job::spawn_client(entry, document, command, is_start, self.lock.file())?;
        self.job = Some(pid);
        Ok(())
    }

    /// The engine's client has ended: what follows.
    fn go_on(&mut self, how: How) {
        let Some((engine, stage)) = self.engine.clone() else {
            return self.tell_ended(how, false);
        };
        // Whatever came of it, it has read them.
        let _ = std::fs::remove_file(self.entry.engine_variables());
        let went_on = match stage {
            Stage::Running => return self.tell_container_ended(&engine),
            Stage::Creating { .. } if how == How::Exited(0) && !self.asked => {
                self.engine = Some((engine.clone(), Stage::Running));
                let started = self.spawn_client(engine.start(self.document), true);
                if started.is_ok() {
                    self.tell_started();
                }
                started
            }
            Stage::Creating { .. } if self.time_left() == Some(Duration::ZERO) => {
                Err(engine.too_slow(CREATE_PATIENCE))
            }
            Stage::Creating { .. } => Err(engine.not_created(&self.entry.engine_errors())),
        };
        if let Err(cause) = went_on {
            self.tell(&Message::NotStarted { cause });
        }
    }

    fn tell_container_ended(&mut self, engine: &Engine) {
        // The client may end before the container: its output had no room, or the engine was
        // started anew. What it still does nobody sees, so that it counts as lost.
        let Some(ended) = engine.inspect().filter(|ended| !ended.runs) else {
            return self.tell(&Message::Unseen);
        };
        if !ended.started {
            let command = self.document.command.first().map_or("", String::as_str);
            let errors = self.entry.output(OutputStream::Stderr);
            let cause = engine.not_run(&ended, command, &errors);
            return self.tell(&Message::NotStarted { cause });
        }
        // A shell's way to tell of signals is also that of the engines.
        self.tell_ended(How::Exited(ended.code), ended.out_of_memory);
    }

    fn tell_ended(&mut self, how: How, out_of_memory: bool) {
        // An engine only says that it was; where the limit is its own it takes it for the reason.
        let said = out_of_memory.then_some(match self.memory {
            Some(_) => Shortage::OfMachine,
            None => Shortage::OfJob,
        });
        let seen = self.memory.as_ref().and_then(MemoryWatch::shortage);
        self.tell(&Message::Ended {
            how,
            at: now(),
            shortage: seen.or(said),
        });
    }

    /// How long the engine's client may still go on, if not for ever.
    fn time_left(&self) -> Option<Duration> {
        let (_, stage) = self.engine.as_ref()?;
        stage.time_left(Instant::now())
    }

    /// Returns when everything is to be ended; `true` if the supervisor is gone.
    fn watch(&mut self) -> bool {
        loop {
            let mut ready = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let patience = self.time_left().map_or(PollTimeout::NONE, |left| {
                let left = left + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut ready, patience) {
                Ok(0) if self.time_left() == Some(Duration::ZERO) => return false,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
            let said = ready[0].any().unwrap_or(true);
            if said {
                let mut byte = [0];
                match self.socket.read(&mut byte) {
                    Ok(1) if byte[0] == ASK_TO_END => self.ask_to_end(),
                    Ok(1) => return false,
                    _ => return true,
                }
            }
            drain(self.signals);
            self.reap();
            if self.job.is_none() {
                return false;
            }
        }
    }

    fn ask_to_end(&mut self) {
        self.asked = true;
        if let Some((engine, Stage::Running)) = &self.engine
            && engine.ask_to_end()
        {
            return;
        }
        if let Some(job) = self.job {
            // Its group is its own, unless it has not got as far as making one.
            if killpg(job, Signal::SIGTERM).is_err() {
                let _ = kill(job, Signal::SIGTERM);
            }
            // A stopped process would not see it.
            let _ = killpg(job, Signal::SIGCONT);
        }
    }

    /// Ends the engine's client, which could go on and start the container, and removes that; says
    /// whether there is none any more that may run.
    fn remove_container(&mut self) -> bool {
        let Some((engine, stage)) = self.engine.clone() else {
            return true;
        };
        self.asked = true;
        while let Some(client) = self.job {
            let _ = kill(client, Signal::SIGKILL);
            let mut ready = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ready, 100_u16);
            drain(self.signals);
            self.reap();
        }
        // What nobody has asked to start never runs: an engine that cannot be used, which could not
        // make it, cannot remove it either.
        let never_started = matches!(stage, Stage::Creating { .. });
        let removed = engine.remove(REMOVE_PATIENCE).is_ok() || never_started;
        if removed {
            self.tell(&Message::Removed);
        }
        removed
    }

    /// Says whether nothing is left.
    fn end_all(&mut self) -> bool {
        let removed = self.remove_container();
        let signals = self.signals;
        let cgroup = self.cgroup.take();
        end_all(signals, cgroup.as_ref(), || self.reap());
        if removed {
            self.tell(&Message::NoneRuns);
        }
        cgroup.is_none_or(|cgroup| cgroup.end(Duration::from_secs(1))) && removed
    }

    /// Waits for every child that has ended; says whether there are others.
    fn reap(&mut self) -> bool {
        let job = self.job;
        let mut ended = None;
        let others = reap_with(|pid, how| {
            if Some(pid) == job {
                ended = Some(how);
            }
        });
        if let Some(how) = ended {
            self.job = None;
            self.go_on(how);
        }
        others
    }

    fn tell(&mut self, message: &Message) {
        let mut line = serde_json::to_vec(message).unwrap_or_default();
        line.push(b'\n');
        // If the supervisor is gone the next read says so.
        let _ = self.socket.write_all(&line);
    }
}

/// Docker would make a directory in the place of a source that is missing.
fn check_mounts(document: &StartDocument) -> Result<(), ExitCause> {
    for mount in &document.mounts {
        if let Err(error) = std::fs::metadata(&mount.source) {
            return Err(job::cannot_use(
                &format!("cannot mount {}", mount.source),
                &error,
            ));
        }
    }
    Ok(())
}

/// Waits for every child that has ended; says whether there are others.
pub(crate) fn reap_with(mut ended: impl FnMut(Pid, How)) -> bool {
    loop {
        match wait_any() {
            Ok(Some((pid, status))) if libc::WIFEXITED(status) => {
                ended(pid, How::Exited(libc::WEXITSTATUS(status)));
            }
            Ok(Some((pid, status))) => ended(pid, How::Signaled(libc::WTERMSIG(status))),
            Ok(None) => return true,
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Ends all descendants of this process, which is a subreaper: children first; theirs become ours.
///
/// `reap` waits for those that have ended and says whether there are others.
pub(crate) fn end_all(signals: &SignalFd, cgroup: Option<&Cgroup>, mut reap: impl FnMut() -> bool) {
    let mut pause_ms = 1_u16;
    while reap() {
        if let Some(cgroup) = cgroup {
            cgroup.kill();
        }
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        let mut ready = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut ready, pause_ms).unwrap_or(0) > 0;
        drain(signals);
        // What is left after many rounds waits for a device; ask less often.
        pause_ms = if ended { 1 } else { (pause_ms * 2).min(1_000) };
    }
}

/// Forgets the signals that came; what they mean is asked for elsewhere.
fn drain(signals: &SignalFd) {
    while let Ok(Some(_)) = signals.read_signal() {}
}

/// The children of this process.
fn children() -> Vec<Pid> {
    let me = getpid();
    let list = std::fs::read_to_string(format!("/proc/{me}/task/{me}/children"));
    match list {
        Ok(list) => list
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .map(Pid::from_raw)
            .collect(),
        Err(_) => children_by_search(me),
    }
}

/// For kernels that list no children.
fn children_by_search(me: Pid) -> Vec<Pid> {
    let Ok(names) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    names
        .flatten()
        .filter_map(|name| name.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(me.as_raw()))
        .map(Pid::from_raw)
        .collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have blanks and parentheses in it.
    let (_, after) = stat.rsplit_once(") ")?;
    after.split(' ').nth(1)?.parse().ok()
}
