//! C: the job itself.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_runner_api::StartDocument;
use longshore_runner_api::command::OutputStream;
use longshore_types::{AppliedLimits, ExitCause, Means};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid, getpid, getppid, setsid};

use crate::cgroup::Cgroup;
use crate::gate::Gate;
use crate::rlimit::Rlimits;
use crate::spool::Entry;
use crate::system::{fork, fork_into, own_mounts};

pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Descriptors below this number are the job's own business.
const LOWEST_LOCK_DESCRIPTOR: i32 = 700;
/// The exit code of a job whose files cannot be used: that of a command that cannot be executed.
const CANNOT_USE: i32 = 126;
/// The longest text about a failed start, in bytes.
const MAX_ERROR: usize = 300;

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    /// By what means it is limited.
    pub(crate) limits: AppliedLimits,
}

/// Where a job is to run.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Held by the job, too.
    pub(crate) lock: &'a File,
    pub(crate) cgroup: Option<&'a Cgroup>,
    /// What the groups limit.
    pub(crate) limits: AppliedLimits,
    /// Whether what it mounts is to end with it. Not what an engine's client mounts, which has to be
    /// there for the next one.
    pub(crate) own_mounts: bool,
}

/// Starts the job of an attempt, up to a process that waits at the gate, and then lets it run; the
/// error is how it ended, since it could not begin.
pub(crate) fn spawn(
    entry: &Entry,
    document: &StartDocument,
    frame: &Frame<'_>,
    gate: Gate,
) -> Result<Spawned, ExitCause> {
    let mut command = command(entry, document)?;
    start(&mut command, document, frame, Some(gate)).map_err(|error| {
        let program = document.command.first().map_or("", String::as_str);
        cannot_run(program, &error)
    })
}

/// Starts a client of a container engine as the job of an attempt, in none of its groups.
pub(crate) fn spawn_client(
    entry: &Entry,
    document: &StartDocument,
    mut command: Command,
    is_start: bool,
    lock: &File,
) -> Result<Pid, ExitCause> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.current_dir("/");
    if is_start {
        command.stdin(standard_input(document)?);
        command.stdout(output(entry, OutputStream::Stdout)?);
        command.stderr(output(entry, OutputStream::Stderr)?);
    } else {
        let errors =
            File::create(entry.engine_errors()).map_err(|error| ExitCause::NotStarted {
                error: format!("cannot write the engine's errors: {error}"),
            })?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
    }
    let frame = Frame {
        lock,
        cgroup: None,
        limits: AppliedLimits::all(Means::Engine),
        own_mounts: false,
    };
    let started = start(&mut command, document, &frame, None);
    started
        .map(|spawned| spawned.pid)
        .map_err(|error| cannot_run_client(&program, &error))
}

/// That this machine has no such engine.
pub(crate) fn no_engine(program: &str) -> ExitCause {
    cannot_run_client(program, &std::io::Error::from_raw_os_error(libc::ENOENT))
}

fn cannot_run_client(program: &str, error: &std::io::Error) -> ExitCause {
    match cannot_run(program, error) {
        ExitCause::CannotRun { code, error } => ExitCause::CannotRun {
            code,
            error: format!("{error} on this machine, so that it can run no containers"),
        },
        other => other,
    }
}

/// Whether the job or the machine is to blame for it that a program cannot be executed.
fn cannot_run(program: &str, error: &std::io::Error) -> ExitCause {
    let (code, what) = match error.raw_os_error() {
        Some(libc::ENOENT) if program.contains('/') => (127, "no such file"),
        Some(libc::ENOENT) => (127, "no such command"),
        Some(libc::ENOTDIR) => (127, "a part of its path is not a directory"),
        Some(libc::ENAMETOOLONG) => (127, "its name is too long"),
        Some(libc::EACCES) => (126, "it is not executable, or permission is denied"),
        Some(libc::ENOEXEC) => (126, "it is not a program for this machine"),
        Some(libc::E2BIG) => (126, "its arguments and variables are too long"),
        Some(libc::ECANCELED) => return no_leave(),
        _ => {
            let error = shortened(&format!("cannot run {program}"), &error.to_string());
            return ExitCause::NotStarted { error };
        }
    };
    let error = shortened(&format!("cannot run {program}"), what);
    ExitCause::CannotRun { code, error }
}

/// How a job ended that may not run; nobody is left to be told, where all is in order.
pub(crate) fn no_leave() -> ExitCause {
    ExitCause::NotStarted {
        error: "its supervisor did not let it run".into(),
    }
}

/// Both parts, the first one cut if it is too long.
fn shortened(what: &str, why: &str) -> String {
    let mut what = what.to_owned();
    if what.len() + why.len() > MAX_ERROR {
        while what.len() + why.len() > MAX_ERROR && what.pop().is_some() {}
        what.push('…');
    }
    format!("{what}: {why}")
}

fn command(entry: &Entry, document: &StartDocument) -> Result<Command, ExitCause> {
    let program = document.command.first().map_or("", String::as_str);
    let mut command = Command::new(program);
    command.args(document.command.iter().skip(1));
    set_environment(&mut command, entry, document);
    command.current_dir(working_directory(entry, document)?);
    command.stdin(standard_input(document)?);
    command.stdout(output(entry, OutputStream::Stdout)?);
    command.stderr(output(entry, OutputStream::Stderr)?);
    Ok(command)
}

/// What the new process says before it runs the command: the number of a group that it could not
/// enter.
const NOT_ENTERED: u8 = b'G';
/// What it says if it cannot run the command: the number of the error, in four bytes.
const NOT_RUN: u8 = b'E';

/// Forks and runs the command in the child, with a gate as soon as it may; returns when it runs or
/// cannot.
fn start(
    command: &mut Command,
    document: &StartDocument,
    frame: &Frame<'_>,
    gate: Option<Gate>,
) -> std::io::Result<Spawned> {
    let (mut read, mut write) = std::io::pipe()?;
    let parent = getpid();
    let mut limits = frame.limits;
    let rlimits = Rlimits::in_place_of_groups(document, &mut limits);
    let (forked, doors) = fork_member(frame.cgroup)?;
    match forked {
        ForkResult::Child => {
            enter(doors, &mut write);
            let error = match prepare(parent, frame, &rlimits) {
                Ok(()) if gate.is_none_or(|mut gate| gate.wait()) => command.exec(),
                Ok(()) => std::io::Error::from_raw_os_error(libc::ECANCELED),
                Err(error) => error,
            };
            let number = error.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes();
            let _ = write.write_all(&[&[NOT_RUN][..], &number].concat());
            std::process::exit(1)
        }
        ForkResult::Parent { child } => {
            drop(write);
            // Its end comes with exec, which closes the other side.
            let mut said = Vec::new();
            read.read_to_end(&mut said)?;
            let mut said = said.into_iter();
            while let Some(kind) = said.next() {
                if kind == NOT_RUN {
                    let mut number = [0; 4];
                    number
                        .iter_mut()
                        .zip(said)
                        .for_each(|(to, from)| *to = from);
                    let number = i32::from_ne_bytes(number);
                    return Err(std::io::Error::from_raw_os_error(number));
                }
                let group = said.next().map(usize::from);
                if let (Some(cgroup), Some(group)) = (frame.cgroup, group) {
                    cgroup.forget(group, &mut limits);
                }
            }
            Ok(Spawned { pid: child, limits })
        }
    }
}

/// The files by which a process enters its groups, with their numbers.
type Doors = Vec<(usize, std::io::Result<File>)>;

/// Forks a member of one group, which has still to enter the others.
fn fork_member(cgroup: Option<&Cgroup>) -> nix::Result<(ForkResult, Doors)> {
    let mut doors: Doors = cgroup
        .map(Cgroup::doors)
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .collect();
    if let Some((group, directory)) = cgroup.and_then(Cgroup::birthplace)
        && let Ok(forked) = fork_into(directory.as_fd())
    {
        doors.retain(|(door, _)| *door != group);
        return Ok((forked, doors));
    }
    Ok((fork()?, doors))
}

/// Enters the groups, and says which ones this was not possible for: there the job runs without
/// the group's limit, and the subreapers have to do without the group.
fn enter(doors: Doors, said: &mut impl Write) {
    for (group, door) in doors {
        if door.and_then(|mut door| door.write_all(b"0")).is_err() {
            let group = u8::try_from(group).unwrap_or(u8::MAX);
            let _ = said.write_all(&[NOT_ENTERED, group]);
        }
    }
}

/// What the new process does between fork and exec.
fn prepare(parent: Pid, frame: &Frame<'_>, rlimits: &Rlimits) -> std::io::Result<()> {
    setsid()?;
    // A net under B: should it and A both be killed, this process is, too.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    // So that whatever survives everything is still seen; not possible below a low limit.
    let _ = fcntl(frame.lock, FcntlArg::F_DUPFD(LOWEST_LOCK_DESCRIPTOR));
    if frame.own_mounts {
        // Not possible for those who cannot mount anything either.
        let _ = own_mounts();
    }
    umask(Mode::from_bits_truncate(0o022));
    rlimits.set()?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

fn output(entry: &Entry, stream: OutputStream) -> Result<File, ExitCause> {
    let file = entry.open_output(stream);
    file.map_err(|error| ExitCause::NotStarted {
        error: format!("cannot open the file for {}: {error}", stream.as_str()),
    })
}

/// A file or directory that the job names cannot be used. Whether that is the job's fault, so that
/// trying again is of no use, or the machine's, the error shows.
pub(crate) fn cannot_use(what: &str, error: &std::io::Error) -> ExitCause {
    let why = match error.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory",
        Some(libc::ENOTDIR) => "not a directory",
        Some(libc::EISDIR) => "it is a directory",
        Some(libc::EACCES | libc::EPERM) => "permission is denied",
        Some(libc::ENAMETOOLONG) => "its name is too long",
        Some(libc::ELOOP) => "its symbolic links lead nowhere",
        Some(libc::ENXIO) => "nobody is at the other end",
        _ => {
            let error = shortened(what, &error.to_string());
            return ExitCause::NotStarted { error };
        }
    };
    ExitCause::CannotRun {
        code: CANNOT_USE,
        error: shortened(what, why),
    }
}

fn set_environment(command: &mut Command, entry: &Entry, document: &StartDocument) {
    let inherited = |name, default: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .unwrap_or_else(|| default.into())
    };
    command
        .env_clear()
        .env("PATH", inherited("PATH", DEFAULT_PATH))
        .env("HOME", inherited("HOME", "/"))
        .envs(&document.env)
        .env("LONGSHORE_CONTAINER_UUID", entry.uuid.as_str())
        .env("LONGSHORE_ATTEMPT", entry.attempt.to_string());
}

fn working_directory(entry: &Entry, document: &StartDocument) -> Result<PathBuf, ExitCause> {
    let Some(path) = &document.cwd else {
        return Ok(entry.work_directory());
    };
    let found = Path::new(path).metadata().and_then(|found| {
        let error = || std::io::Error::from_raw_os_error(libc::ENOTDIR);
        found.is_dir().then_some(()).ok_or_else(error)
    });
    found.map_err(|error| {
        let what = format!("cannot use the working directory {path}");
        cannot_use(&what, &error)
    })?;
    Ok(PathBuf::from(path))
}

fn standard_input(document: &StartDocument) -> Result<Stdio, ExitCause> {
    let Some(path) = &document.stdin else {
        return Ok(Stdio::null());
    };
    open_input(Path::new(path))
        .map(Stdio::from)
        .map_err(|error| cannot_use(&format!("cannot open the standard input {path}"), &error))
}

/// Opens without waiting, as a named pipe without a writer would make us; reading may wait.
fn open_input(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if file.metadata()?.is_dir() {
        return Err(std::io::Error::from_raw_os_error(libc::EISDIR));
    }
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use longshore_types::{Attempt, ByteSize};

    use super::*;
    use crate::directory::RunDirectory;
    use crate::gate::gate;
    use crate::system::wait_for;

    #[test]
    fn a_job_runs_with_leave_and_never_without() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::at(&folder.path().join("run")).unwrap();
        let uuid = "zzzzz-dz642-000000000000001".parse().unwrap();
        let entry = directory.entry(uuid, Attempt(1));
        let lock = directory.lock(std::time::Duration::ZERO).unwrap();
        entry.create(None, None, &lock).unwrap();
        let witness = folder.path().join("witness");
        let mut document =
            StartDocument::new(vec!["touch".into(), witness.to_str().unwrap().into()]);
        document.output_limit = ByteSize::mib(1);
        let lock = File::create(folder.path().join("lock")).unwrap();
        let frame = Frame {
            lock: &lock,
            cgroup: None,
            limits: AppliedLimits::all(Means::Nothing),
            own_mounts: true,
        };

        let (closed, leave) = gate().unwrap();
        drop(leave);
        let refused = spawn(&entry, &document, &frame, closed);
        assert!(
            matches!(refused, Err(ExitCause::NotStarted { .. })),
            "{refused:?}"
        );
        assert!(!witness.exists());

        let (open, leave) = gate().unwrap();
        leave.give();
        let job = spawn(&entry, &document, &frame, open).unwrap();
        assert_eq!(wait_for(job.pid), Ok(0));
        assert!(witness.exists());
    }
}
