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
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid, getpid, getppid, setsid};

use crate::cgroup::Cgroup;
use crate::spool::Entry;
use crate::system::{fork, fork_into, reset_signals};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Descriptors below this number are the job's own business.
const LOWEST_LOCK_DESCRIPTOR: i32 = 700;
/// The longest text about a failed start, in bytes.
const MAX_ERROR: usize = 300;

/// Starts the job of an attempt; the error is a text for its user.
pub(crate) fn spawn(
    entry: &Entry,
    document: &StartDocument,
    lock: &File,
    cgroup: Option<&Cgroup>,
) -> Result<Pid, String> {
    let program = document.command.first().map_or("", String::as_str);
    let mut command = Command::new(program);
    command.args(document.command.iter().skip(1));
    set_environment(&mut command, entry, document);
    command.current_dir(working_directory(entry, document)?);
    command.stdin(standard_input(document)?);
    let output = |stream| {
        let file = entry.open_output(stream);
        file.map_err(|error| format!("cannot open the file for {}: {error}", stream.as_str()))
    };
    command.stdout(output(OutputStream::Stdout)?);
    command.stderr(output(OutputStream::Stderr)?);
    start(&mut command, lock, cgroup).map_err(|error| {
        let mut text = format!("cannot run {program}: {error}");
        while text.len() > MAX_ERROR {
            text.pop();
        }
        text
    })
}

/// Forks and runs the command in the child; returns when it runs or cannot.
fn start(command: &mut Command, lock: &File, cgroup: Option<&Cgroup>) -> std::io::Result<Pid> {
    let (mut read, mut write) = std::io::pipe()?;
    let parent = getpid();
    let (forked, door) = fork_member(cgroup)?;
    match forked {
        ForkResult::Child => {
            let error = match prepare(parent, lock, door.as_ref()) {
                Ok(()) => command.exec(),
                Err(error) => error,
            };
            let number = error.raw_os_error().unwrap_or(libc::EINVAL);
            let _ = write.write_all(&number.to_ne_bytes());
            std::process::exit(1)
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut number = [0; 4];
            // Its end comes with exec, which closes the other side.
            if read.read_exact(&mut number).is_err() {
                return Ok(child);
            }
            Err(std::io::Error::from_raw_os_error(i32::from_ne_bytes(
                number,
            )))
        }
    }
}

/// Forks a member of the group, or one that can become it by the file that is given with it.
fn fork_member(cgroup: Option<&Cgroup>) -> nix::Result<(ForkResult, Option<File>)> {
    if let Some(cgroup) = cgroup
        && let Ok(directory) = cgroup.directory()
        && let Ok(forked) = fork_into(directory.as_fd())
    {
        return Ok((forked, None));
    }
    let door = cgroup.and_then(|cgroup| cgroup.door().ok());
    Ok((fork()?, door))
}

/// What the new process does between fork and exec.
fn prepare(parent: Pid, lock: &File, door: Option<&File>) -> std::io::Result<()> {
    setsid()?;
    // A net under B: should it and A both be killed, this process is, too.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    if let Some(mut door) = door {
        // Without the group the subreapers do the same work.
        let _ = door.write_all(b"0");
    }
    // So that whatever survives everything is still seen; not possible below a low limit.
    let _ = fcntl(lock, FcntlArg::F_DUPFD(LOWEST_LOCK_DESCRIPTOR));
    umask(Mode::from_bits_truncate(0o022));
    reset_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
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

fn working_directory(entry: &Entry, document: &StartDocument) -> Result<PathBuf, String> {
    let path = match &document.cwd {
        Some(path) => PathBuf::from(path),
        None => entry.work_directory(),
    };
    let wrong = |why: &dyn std::fmt::Display| {
        format!("cannot use the working directory {}: {why}", path.display())
    };
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err(wrong(&"not a directory")),
        Err(error) => Err(wrong(&error)),
    }
}

fn standard_input(document: &StartDocument) -> Result<Stdio, String> {
    let Some(path) = &document.stdin else {
        return Ok(Stdio::null());
    };
    open_input(Path::new(path))
        .map(Stdio::from)
        .map_err(|error| format!("cannot open the standard input {path}: {error}"))
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
