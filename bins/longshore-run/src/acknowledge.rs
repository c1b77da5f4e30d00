//! Removing results that the dispatcher has received.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use longshore_types::{Attempt, ContainerUuid};

use crate::directory::{DirectoryLock, RunDirectory};
use crate::lock::{self, Holder};
use crate::remains::Remains;
use crate::spool::{self, Entry};
use crate::system::sync_directory;

const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How many marks are kept, and for how long; more of them as long as a start of their attempt
/// could still be on its way.
const MAX_MARKS: usize = 10_000;
const MARK_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
const SHORTEST_LIFE: Duration = Duration::from_secs(3600);
/// One acknowledgement in so many looks for old marks.
const SWEEP_SHARE: usize = 64;

/// Removes the entries of these attempts, if they have ended, and leaves marks in their place.
pub(crate) fn acknowledge(
    directory: &RunDirectory,
    acks: &[(ContainerUuid, Attempt)],
) -> Result<()> {
    if acks.is_empty() {
        return Ok(());
    }
    let guard = directory.lock(LOCK_PATIENCE)?;
    let mut ended = Vec::new();
    for (uuid, attempt) in acks {
        let entry = directory.entry(*uuid, *attempt);
        if entry.exists() && has_ended(directory, &entry)? {
            spool::set_mark(directory, *uuid, *attempt, &guard)?;
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
    }
    // Whatever an interrupted acknowledgement left is removed, too.
    empty_trash(directory);
    if ended.iter().any(|entry| is_sweeper(entry.uuid)) {
        sweep_marks(directory)?;
    }
    Ok(())
}

/// Whether an attempt has a result, or will never have one: the report's rule.
fn has_ended(directory: &RunDirectory, entry: &Entry) -> Result<bool> {
    let path = directory.lock_file(entry.uuid);
    Ok(match lock::holder(&path)? {
        Holder::Nobody => match Remains::of(entry) {
            Some(remains) => remains.end(Duration::ZERO),
            None => true,
        },
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
    let grave = directory
        .trash()
        .join(format!("{}.{}", entry.uuid, entry.attempt));
    // Left by an earlier removal that was interrupted.
    let _ = std::fs::remove_dir_all(&grave);
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

fn empty_trash(directory: &RunDirectory) {
    let Ok(names) = std::fs::read_dir(directory.trash()) else {
        return;
    };
    for name in names.flatten() {
        // Another command may be at it, or a job may have left what cannot be removed at once.
        if std::fs::remove_dir_all(name.path()).is_err() {
            open_up(&name.path());
            let _ = std::fs::remove_dir_all(name.path());
        }
    }
}

/// Gives us the right to list and change every directory below; jobs may have taken it away.
fn open_up(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700));
        let below = std::fs::read_dir(&path).into_iter().flatten().flatten();
        left.extend(
            below
                .filter(|name| name.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|name| name.path()),
        );
    }
}

fn is_sweeper(uuid: ContainerUuid) -> bool {
    uuid.as_str().bytes().map(usize::from).sum::<usize>() % SWEEP_SHARE == 0
}

/// Deletes marks that are too old, or too many.
fn sweep_marks(directory: &RunDirectory) -> Result<()> {
    let path = directory.marks();
    let mut marks: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .flatten()
        .filter_map(|name| Some((name.metadata().ok()?.modified().ok()?, name.path())))
        .collect();
    marks.sort();
    let too_many = marks.len().saturating_sub(MAX_MARKS);
    let now = SystemTime::now();
    for (i, (modified, path)) in marks.iter().enumerate() {
        let age = now.duration_since(*modified).unwrap_or_default();
        let life = if i < too_many {
            SHORTEST_LIFE
        } else {
            MARK_LIFE
        };
        if age < life {
            break;
        }
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}
