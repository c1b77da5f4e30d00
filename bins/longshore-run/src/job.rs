//! C: the job itself.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use longshore_runner_api::StartDocument;
use longshore_runner_api::command::OutputStream;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, getpid, getppid, setsid};

use crate::cgroup::Cgroup;
use crate::spool::Entry;
use crate::system::reset_signals;

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
) -> Result<Child, String> {
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

    let door = cgroup.and_then(|cgroup| cgroup.door().ok());
    let lock = lock.as_fd().as_raw_fd();
    let parent = getpid();
    let prepare = move || prepare(parent, lock, door.as_ref());
    #[expect(
        unsafe_code,
        reason = "the parent has one thread, so its fork may do anything; `lock` stays open, \
                  because this function's caller borrows it until the child has called exec"
    )]
    unsafe {
        command.pre_exec(prepare);
    }
    command.spawn().map_err(|error| {
        let mut text = format!("cannot run {program}: {error}");
        while text.len() > MAX_ERROR {
            text.pop();
        }
        text
    })
}

/// What the new process does between fork and exec.
fn prepare(parent: Pid, lock: i32, door: Option<&File>) -> std::io::Result<()> {
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
    #[expect(
        unsafe_code,
        reason = "the caller keeps the descriptor open until after exec"
    )]
    let lock = unsafe { BorrowedFd::borrow_raw(lock) };
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
