//! Removing results that the dispatcher has received.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use longshore_types::{Attempt, ContainerUuid};

use crate::directory::{DirectoryLock, RunDirectory};
use crate::lock::{self, Holder};
use crate::remains::Remains;
use crate::spool::{self, Entry};
use crate::system::sync_directory;
use crate::{ahead, complain, tree};

const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How many marks are kept, and for how long; more of them as long as a start of their attempt
/// could still be on its way.
const MAX_MARKS: usize = 10_000;
const MARK_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
const SHORTEST_LIFE: Duration = Duration::from_secs(3600);
/// How long what cannot be deleted is left alone before it is tried again; it may be much.
const TRASH_PAUSE: Duration = Duration::from_secs(60);
/// How often old marks are looked for: that costs as much as there are marks, and there may be those
/// of an hour's jobs.
const SWEEP_PERIOD: Duration = Duration::from_secs(600);

/// Removes the entries of these attempts, if they have ended, and leaves marks in their place.
pub(crate) fn acknowledge(
    directory: &RunDirectory,
    acks: &[(ContainerUuid, Attempt)],
) -> Result<()> {
    if acks.is_empty() {
        return Ok(());
    }
    let mut known = Vec::new();
    for (uuid, attempt) in acks {
        let entry = directory.entry(*uuid, *attempt);
        if entry.exists() {
            // Before the lock is taken, since an engine takes its time.
            let is_over = is_over(directory, &entry)?;
            known.push((entry, is_over));
        }
    }
    let guard = directory.lock(LOCK_PATIENCE)?;
    let mut ended = Vec::new();
    for (entry, is_over) in known {
        if entry.exists() && (is_over || has_ended(directory, &entry)?) {
            spool::set_mark(directory, entry.uuid, entry.attempt, &guard)?;
            ended.push(entry);
        }
    }
    drop(guard);
    if !ended.is_empty() {
        sync_directory(&directory.marks()).context("cannot write the marks to disk")?;
        let guard = directory.lock(LOCK_PATIENCE)?;
        for entry in &ended {
            remove(directory, entry, &guard)?;
        }
        drop(guard);
        for entry in &ended {
            bury(&grave(directory, entry));
        }
    }
    // Whatever an interrupted acknowledgement left is removed, too.
    empty_trash(directory);
    Ok(())
}

/// Whether an attempt has no supervisor any more, which it will never have again, and nothing that
/// one has left; that is ended.
fn is_over(directory: &RunDirectory, entry: &Entry) -> Result<bool> {
    let holder = lock::holder(&directory.lock_file(entry.uuid))?;
    let ended = || Remains::of(entry).is_none_or(|remains| remains.end(Duration::ZERO));
    Ok(holder == Holder::Nobody && ended())
}

/// Whether an attempt has a result, or will never have one: the report's rule.
fn has_ended(directory: &RunDirectory, entry: &Entry) -> Result<bool> {
    let path = directory.lock_file(entry.uuid);
    Ok(match lock::holder(&path)? {
        Holder::Nobody => Remains::of(entry).is_none(),
        Holder::Supervisor(_) => {
            // The attempt that runs is the newest; older ones have ended, with or without result.
            let newest = spool::newest_entry(directory, entry.uuid)?;
            newest.is_some_and(|newest| newest.attempt > entry.attempt)
        }
        Holder::Other => entry.state().result.is_some(),
    })
}

/// Moves an entry away in one step; its files, perhaps many, are deleted without the lock.
fn remove(directory: &RunDirectory, entry: &Entry, _lock: &DirectoryLock) -> Result<()> {
    let grave = grave(directory, entry);
    // Left by an earlier removal that was interrupted.
    let _ = tree::remove(&grave);
    match std::fs::rename(entry.path(), &grave) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", entry.path().display()));
        }
        _ => {}
    }
    if let Some(container) = entry.path().parent() {
        // Fails, rightly, where another attempt has an entry.
        let _ = std::fs::remove_dir(container);
    }
    Ok(())
}

fn grave(directory: &RunDirectory, entry: &Entry) -> PathBuf {
    let name = format!("{}.{}", entry.uuid, entry.attempt);
    directory.trash().join(name)
}

/// Deletes what was moved away. What cannot be deleted is told, and kept for later.
fn bury(grave: &Path) {
    if let Err(error) = tree::remove(grave) {
        complain(&format!("cannot remove {}: {error}", grave.display()));
        // When that was; if it cannot be noted it is only tried more often.
        let now = SystemTime::now();
        let _ = File::open(grave).and_then(|grave| grave.set_modified(now));
    }
}

/// Deletes what others have left, unless that was tried just now.
fn empty_trash(directory: &RunDirectory) {
    let Ok(names) = std::fs::read_dir(directory.trash()) else {
        return;
    };
    for name in names.flatten() {
        let tried = name.metadata().and_then(|grave| grave.modified());
        let since = tried.map(|tried| tried.elapsed().unwrap_or(TRASH_PAUSE));
        if since.is_ok_and(|since| since >= TRASH_PAUSE) {
            bury(&name.path());
        }
    }
}

/// Whether it is time to look for what is old. Whoever is told so has to [do it](sweep): others
/// are told that it is not.
pub(crate) fn take_turn_to_sweep(directory: &RunDirectory) -> bool {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(directory.swept());
    if file.is_ok() {
        return true;
    }
    // One that cannot be read or written is tried again with the next acknowledgement.
    let Ok(file) = File::options().write(true).open(directory.swept()) else {
        return false;
    };
    let last = file.metadata().and_then(|file| file.modified());
    // A time that is still to come is that of a clock that was wrong.
    let is_due = last.is_ok_and(|last| last.elapsed().map_or(true, |since| since >= SWEEP_PERIOD));
    is_due && file.set_modified(SystemTime::now()).is_ok()
}

/// Deletes marks that are too old, or too many, and what was made ahead by processes that are gone.
pub(crate) fn sweep(directory: &RunDirectory) -> Result<()> {
    let marks = sweep_marks(directory);
    ahead::sweep(directory).and(marks)
}

fn sweep_marks(directory: &RunDirectory) -> Result<()> {
    let path = directory.marks();
    let now = SystemTime::now();
    let mut count = 0_usize;
    let mut old: Vec<(Duration, OsString)> = Vec::new();
    for name in std::fs::read_dir(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .flatten()
    {
        count += 1;
        let made = name.metadata().and_then(|mark| mark.modified());
        let age = made.map(|made| now.duration_since(made).unwrap_or_default());
        if let Ok(age) = age
            && age >= SHORTEST_LIFE
        {
            old.push((age, name.file_name()));
        }
    }
    old.sort_by(|(a, _), (b, _)| b.cmp(a));
    let too_many = count.saturating_sub(MAX_MARKS);
    for (i, (age, name)) in old.iter().enumerate() {
        if i >= too_many && *age < MARK_LIFE {
            break;
        }
        // What cannot be deleted is tried again next time.
        let _ = std::fs::remove_file(path.join(name));
    }
    Ok(())
}
