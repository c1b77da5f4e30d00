//! `--kill`: asks a supervisor to end its job.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use longshore_types::{Attempt, ContainerUuid};
use nix::unistd::Pid;

use crate::complain;
use crate::directory::RunDirectory;
use crate::lock::{self, Holder};
use crate::remains::Remains;
use crate::spool::{self, Entry};
use crate::supervisor::{ASK_SIGNAL, NOW_SIGNAL};
use crate::system::{Process, sync_directory};

const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long it is waited for the end.
const PATIENCE: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(2);

/// Signals the supervisor of an attempt, or of the newest one, and waits for its end; exit code 0
/// if it has ended, 1 if not. Signal 0 ends nothing: what was started goes on, and an attempt that
/// was not never will be.
pub(crate) fn kill(
    directory: &RunDirectory,
    uuid: ContainerUuid,
    attempt: Option<Attempt>,
    signal: u8,
) -> Result<u8> {
    let Some(entry) = find(directory, uuid, attempt)? else {
        complain(&format!("nothing of {uuid} runs under that attempt"));
        return Ok(0);
    };
    let since = Instant::now();
    let mut signalled = signal == 0;
    loop {
        if has_ended(directory, &entry)? {
            return Ok(0);
        }
        if !signalled {
            signalled = send(directory, &entry, signal)?;
        }
        if since.elapsed() >= PATIENCE {
            return Ok(1);
        }
        std::thread::sleep(PERIOD);
    }
}

/// The entry that is meant. If that attempt has not been started yet it never will be.
fn find(
    directory: &RunDirectory,
    uuid: ContainerUuid,
    attempt: Option<Attempt>,
) -> Result<Option<Entry>> {
    let guard = directory.lock(LOCK_PATIENCE)?;
    let newest = spool::newest_entry(directory, uuid)?;
    let Some(attempt) = attempt else {
        return Ok(newest);
    };
    if let Some(newest) = newest
        && newest.attempt >= attempt
    {
        // An older attempt has ended, or the newer one could not have been started.
        return Ok(Some(newest).filter(|newest| newest.attempt == attempt));
    }
    spool::set_mark(directory, uuid, attempt, &guard)?;
    drop(guard);
    sync_directory(&directory.marks()).context("cannot write the mark to disk")?;
    Ok(None)
}

/// Whether nothing of the attempt runs any more.
fn has_ended(directory: &RunDirectory, entry: &Entry) -> Result<bool> {
    let path = directory.lock_file(entry.uuid);
    let holder = lock::holder(&path)?;
    let orphaned = match holder {
        Holder::Nobody => true,
        Holder::Supervisor(_) => false,
        // A supervisor that begins marks its lock before it writes into it: what it has written
        // and is not marked yet has come from one before it, which is dead.
        Holder::Other => {
            lock::content_attempt(&path) == Some(entry.attempt)
                && lock::holder(&path)? == Holder::Other
        }
    };
    // What a dead supervisor left behind needs no asking.
    if orphaned && let Some(remains) = Remains::of(entry) {
        return Ok(remains.end(Duration::ZERO) && lock::holder(&path)? == Holder::Nobody);
    }
    if holder == Holder::Nobody {
        return Ok(true);
    }
    // The lock may be a newer attempt's by now.
    let newest = spool::newest_entry(directory, entry.uuid)?;
    Ok(newest.is_none_or(|newest| newest.attempt > entry.attempt))
}

/// Signals the supervisor; `false` if there is none, or none yet.
fn send(directory: &RunDirectory, entry: &Entry, signal: u8) -> Result<bool> {
    let path = directory.lock_file(entry.uuid);
    let Some(pid) = supervisor(&path)?.filter(|pid| pid.as_raw() > 0) else {
        return Ok(false);
    };
    let Ok(process) = Process::open(pid) else {
        return Ok(false);
    };
    // If it still is the holder, then it was when it was opened and while the entries were read:
    // it is this process, and it is the supervisor of this attempt.
    let newest = spool::newest_entry(directory, entry.uuid)?;
    let meant = newest.is_some_and(|newest| newest.attempt == entry.attempt);
    if !meant || supervisor(&path)? != Some(pid) {
        return Ok(false);
    }
    let signal = if i32::from(signal) == libc::SIGKILL {
        NOW_SIGNAL
    } else {
        ASK_SIGNAL
    };
    process
        .signal(signal)
        .with_context(|| format!("cannot signal process {pid}"))?;
    Ok(true)
}

fn supervisor(path: &std::path::Path) -> Result<Option<Pid>> {
    Ok(match lock::holder(path)? {
        Holder::Supervisor(pid) => Some(pid),
        Holder::Nobody | Holder::Other => None,
    })
}
