//! `--detach`: starts an attempt.

use std::io::{PipeReader, PipeWriter, Read, stdin};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use longshore_runner_api::command::{EXIT_KNOWN_ATTEMPT, EXIT_OK};
use longshore_runner_api::{MAX_DOCUMENT_BYTES, StartDocument, StartReply};
use longshore_types::{Attempt, ContainerUuid};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::ForkResult;

use crate::ahead::Ahead;
use crate::cgroup::Plan;
use crate::directory::RunDirectory;
use crate::lock::{self, Holder, Lock};
use crate::remains::Remains;
use crate::spool::{self, Entry};
use crate::supervisor::{self, Claim, READY};
use crate::system::fork;
use crate::{complain, say};

/// How long the start document may take to arrive.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long the directory lock may take.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long ending what an older attempt left behind may take.
const REMAINS_PATIENCE: Duration = Duration::from_millis(500);

enum Claimed {
    Ours(Lock),
    Known(Attempt),
}

/// Starts an attempt from the document on standard input; the exit code, or why not.
pub(crate) fn start(directory: &RunDirectory, uuid: ContainerUuid, attempt: Attempt) -> Result<u8> {
    let bytes = read_bounded(DOCUMENT_PATIENCE).context("cannot read the start document")?;
    let Some(claim) = claim_document(directory, uuid, attempt, &bytes, &mut Ahead::default())?
    else {
        return Ok(known_attempt());
    };
    let reply = launch(&claim).inspect_err(|error| give_up(directory, &claim, error))?;
    let mut line = serde_json::to_string(&reply)?;
    line.push('\n');
    // It runs. If nobody reads the answer, the report says so all the same.
    let _ = say(&line);
    Ok(u8::try_from(EXIT_OK).unwrap_or(0))
}

/// Becomes the supervisor of an attempt; says so on standard error with [`READY`]. The exit code,
/// after the attempt or when there is nothing to supervise.
///
/// The same as [`start`] in a process that may stay, and may have made something ahead.
pub(crate) fn supervise(
    directory: &RunDirectory,
    uuid: ContainerUuid,
    attempt: Attempt,
    bytes: &[u8],
    mut ahead: Ahead,
) -> Result<u8> {
    let Some(claim) = claim_document(directory, uuid, attempt, bytes, &mut ahead)? else {
        return Ok(known_attempt());
    };
    let ready = std::io::stderr().as_fd().try_clone_to_owned();
    let ready = ready
        .context("cannot keep standard error")
        .map(PipeWriter::from);
    match ready.and_then(|ready| supervisor::set_up(&claim, ready, ahead.reaper)) {
        Ok(supervision) => supervision.run(),
        Err(error) => {
            give_up(directory, &claim, &error);
            return Err(error);
        }
    }
    Ok(0)
}

/// Takes the lock and makes the entry for what a document says; none for an attempt that is known.
fn claim_document(
    directory: &RunDirectory,
    uuid: ContainerUuid,
    attempt: Attempt,
    bytes: &[u8],
    ahead: &mut Ahead,
) -> Result<Option<Claim>> {
    let document = StartDocument::from_json(bytes)?;
    let entry = directory.entry(uuid, attempt);
    let groups = Plan::of(&entry, &document, std::process::id());
    match claim(directory, &entry, groups.as_ref(), ahead) {
        Ok(Claimed::Ours(lock)) => Ok(Some(Claim {
            entry,
            lock,
            document,
            groups,
        })),
        Ok(Claimed::Known(newest)) => {
            complain(&format!(
                "attempt {attempt} of {uuid} is not newer than {newest}, the last one that was \
                 started or killed here; nothing was started"
            ));
            Ok(None)
        }
        Err(error) => {
            directory.note_broken(&error);
            Err(error)
        }
    }
}

fn known_attempt() -> u8 {
    u8::try_from(EXIT_KNOWN_ATTEMPT).unwrap_or(u8::MAX)
}

/// Takes back a claim of which nothing was started.
fn give_up(directory: &RunDirectory, claim: &Claim, error: &anyhow::Error) {
    directory.note_broken(error);
    claim.entry.discard();
    claim.lock.delete();
}

fn claim(
    directory: &RunDirectory,
    entry: &Entry,
    groups: Option<&Plan>,
    ahead: &mut Ahead,
) -> Result<Claimed> {
    let (uuid, attempt) = (entry.uuid, entry.attempt);
    // Before the lock is taken, since an engine takes its time.
    let over = end_older(directory, uuid)?;
    let directory_lock = directory.lock(LOCK_PATIENCE)?;
    if let Some(newest) = spool::newest(directory, uuid)?
        && newest >= attempt
    {
        return Ok(Claimed::Known(newest));
    }
    let path = directory.lock_file(uuid);
    let Some(lock) = ahead.take_lock(&path)? else {
        bail!("an older attempt of {uuid} still runs; attempt {attempt} was not started");
    };
    if let Some(older) = spool::newest_entry(directory, uuid)?
        && Some(older.attempt) != over
        && Remains::of(&older).is_some()
    {
        return Err(still_runs(&older));
    }
    let made = lock
        .clear()
        .context("cannot empty the lock file")
        .and_then(|()| entry.create(ahead.blank.take(), groups.map(Plan::paths), &directory_lock));
    if let Err(error) = made {
        entry.discard();
        lock.delete();
        return Err(error);
    }
    Ok(Claimed::Ours(lock))
}

/// Ends what a lost supervision of an older attempt may have left, or refuses the newer one; which
/// attempt has left nothing.
fn end_older(directory: &RunDirectory, uuid: ContainerUuid) -> Result<Option<Attempt>> {
    let Some(older) = spool::newest_entry(directory, uuid)? else {
        return Ok(None);
    };
    // An entry that is there, and whose lock nobody holds after that, has no supervisor any more.
    if lock::holder(&directory.lock_file(uuid))? != Holder::Nobody {
        return Ok(None);
    }
    match Remains::of(&older) {
        Some(remains) if !remains.end(REMAINS_PATIENCE) => Err(still_runs(&older)),
        _ => Ok(Some(older.attempt)),
    }
}

fn still_runs(older: &Entry) -> anyhow::Error {
    anyhow!(
        "something of attempt {} of {} still runs",
        older.attempt,
        older.uuid
    )
}

/// Makes the supervisor; an error means that there is none and nothing was started.
fn launch(claim: &Claim) -> Result<StartReply> {
    let (read, write) = std::io::pipe().context("cannot make a pipe")?;
    match fork().context("cannot fork")? {
        ForkResult::Child => {
            drop(read);
            let code = match supervisor::set_up(claim, write, None) {
                Ok(supervision) => {
                    supervision.run();
                    0
                }
                // It was said.
                Err(_) => 1,
            };
            std::process::exit(code)
        }
        ForkResult::Parent { child } => {
            drop(write);
            await_ready(read)?;
            Ok(StartReply {
                uuid: claim.entry.uuid,
                pid: u32::try_from(child.as_raw()).unwrap_or(0),
                attempt: claim.entry.attempt,
            })
        }
    }
}

/// The supervisor says that it is there, or dies: before it said so, it started nothing.
fn await_ready(mut read: PipeReader) -> Result<()> {
    let mut said = Vec::new();
    read.read_to_end(&mut said)
        .context("cannot hear from the supervisor")?;
    if said == READY {
        return Ok(());
    }
    match String::from_utf8_lossy(&said) {
        text if text.is_empty() => bail!("the supervisor was ended while it started"),
        text => bail!("{text}"),
    }
}

/// Standard input up to its end, or to one byte more than a document may have.
fn read_bounded(patience: Duration) -> Result<Vec<u8>> {
    let since = Instant::now();
    let mut input = stdin().lock();
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while bytes.len() <= MAX_DOCUMENT_BYTES {
        let left = patience.saturating_sub(since.elapsed());
        if left.is_zero() {
            bail!("it did not end within {patience:?}");
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let descriptor = stdin();
        let mut ready = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => bytes.extend(buffer.iter().take(n)),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
