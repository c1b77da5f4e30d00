//! Removing what ended long ago.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::{Exit, Timestamp};
use rusqlite::Connection;

use crate::Store;
use crate::error::sqlite;
use crate::writer::Tx;

/// The most containers that are removed in one transaction, so that others wait a moment at most.
const CHUNK: usize = 200;
/// The most that are removed at once for their age alone, so that a clock which is wrong costs
/// little before somebody sees it.
const MOST_FOR_AGE: usize = 200;

/// How much of what ended is kept.
///
/// In any case what belongs to an unfinished batch, what ended less than `min_age` ago, and until
/// `max_age` what belongs to a batch that somebody follows: until that one has given the batch up
/// ([`Store::abandon_batch`]) nobody is known to have seen its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "settings, all of them")]
pub struct Retention {
    /// How many containers.
    pub max_finished: u64,
    /// For how long after the end of its batch a container is kept at least, by the clock of this
    /// machine.
    pub min_age: Duration,
    /// For how long after the end of its batch at most. At most 200 are removed at once for their
    /// age alone; a caller whose clock may be wrong says [`Duration::MAX`].
    pub max_age: Duration,
    /// With how much output, in bytes.
    pub max_output_bytes: u64,
}

/// A container that is not kept.
#[derive(Clone, Debug)]
struct Old {
    id: i64,
    uuid: String,
}

impl Store {
    /// Removes the containers of finished batches that are beyond what is kept, the oldest first,
    /// with their output, and the batches of which nothing is left; and more of them while the store
    /// has grown to eight tenths of [`crate::Settings::max_store_bytes`]. Returns how many containers
    /// that were. Of requests that were never committed it removes those that nobody has changed for
    /// `max_age`, and those beyond the newest 10,000.
    ///
    /// Of containers the newest are kept, and of older ones those whose output still fits: one with
    /// more than that goes for itself. What cannot be removed is logged and left for the next time.
    ///
    /// # Errors
    ///
    /// What was removed before an error stays removed.
    pub async fn prune(&self, retention: &Retention) -> Result<usize, QueueError> {
        let mut removed = 0;
        for chunk in self.old(*retention).await?.chunks(CHUNK) {
            removed += self.remove(chunk).await?;
        }
        if self.is_crowded().await? {
            removed += self.make_room(*retention).await?;
        }
        self.prune_drafts(retention.max_age).await?;
        Ok(removed)
    }

    /// Removes what ended, the oldest first, and then what was never committed, until there is room
    /// in the store.
    async fn make_room(&self, retention: Retention) -> Result<usize, QueueError> {
        let nothing = Retention {
            max_finished: 0,
            ..retention
        };
        let mut jobs = 0;
        for chunk in self.old(nothing).await?.chunks(CHUNK) {
            jobs += self.remove(chunk).await?;
            if !self.is_crowded().await? {
                break;
            }
        }
        while self.is_crowded().await? && self.remove_some_drafts(retention.min_age).await? > 0 {}
        tracing::warn!(
            jobs,
            "the store is nearly as large as it may be; removed so many jobs that ended"
        );
        Ok(jobs)
    }

    /// What is beyond the bounds, the oldest first.
    async fn old(&self, retention: Retention) -> Result<Vec<Old>, QueueError> {
        let kept = self.settings.kept_output_bytes;
        let now = Timestamp::from_system(SystemTime::now());
        self.read(self.settings.request_timeout, move |connection| {
            find_old(connection, &retention, kept, now)
                .map_err(|e| sqlite("what ended could not be read", e))
        })
        .await
    }

    /// Removes containers with their output, as far as they can be. Returns how many that were.
    async fn remove(&self, old: &[Old]) -> Result<usize, QueueError> {
        let ids = self.remove_outputs(old).await?;
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                remove_all(tx, &ids)
            })
            .await
    }

    /// Removes the output of containers, and says which of them are without output now.
    ///
    /// Before the records: what is left after a crash is found again by its record.
    async fn remove_outputs(&self, old: &[Old]) -> Result<Vec<i64>, QueueError> {
        let logs = self.directory.join("logs");
        let folders = old.iter().map(|old| (old.id, logs.join(&old.uuid)));
        let folders: Vec<(i64, PathBuf)> = folders.collect();
        let removing = tokio::task::spawn_blocking(move || {
            let gone = folders.iter().filter(|(_, folder)| is_removed(folder));
            gone.map(|(id, _)| *id).collect()
        });
        removing.await.map_err(|error| {
            let what = "removing the output of what ended was broken off";
            QueueError::caused(QueueErrorKind::Unknown, what, error)
        })
    }
}

/// Removes a folder; false if that failed.
fn is_removed(folder: &Path) -> bool {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "the output of what ended cannot be removed");
            false
        }
        _ => true,
    }
}

fn find_old(
    connection: &Connection,
    retention: &Retention,
    kept: u64,
    now: Timestamp,
) -> rusqlite::Result<Vec<Old>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.id, c.uuid, c.keep_output, c.exit, b.finished_at, b.followed AND NOT b.abandoned \
         FROM containers c JOIN batches b ON b.id = c.batch WHERE b.open_jobs = 0 \
         ORDER BY max(c.finished_at, c.created_at) DESC, c.id DESC",
    )?;
    let mut rows = statement.query(())?;
    let (mut count, mut bytes) = (0u64, 0u64);
    let (mut too_many, mut too_old) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let finished_at = row.get::<_, Option<i64>>(4)?.map_or(now, Timestamp);
        let is_old = now.since(finished_at) > retention.max_age;
        let is_unseen = row.get(5)? && !is_old;
        if is_unseen || is_new(finished_at, now, retention.min_age) {
            continue;
        }
        let most = if row.get(2)? { u64::MAX } else { kept };
        let with_this = bytes.saturating_add(output_bytes(row.get(3)?, most));
        let fits = count < retention.max_finished && with_this <= retention.max_output_bytes;
        if fits {
            (count, bytes) = (count + 1, with_this);
        }
        let old = match fits {
            false => &mut too_many,
            true if is_old => &mut too_old,
            true => continue,
        };
        old.push(Old {
            id: row.get(0)?,
            uuid: row.get(1)?,
        });
    }
    // The oldest first.
    let for_age = too_old.into_iter().rev().take(MOST_FOR_AGE);
    Ok(too_many.into_iter().rev().chain(for_age).collect())
}

/// Whether something ended less than `min_age` ago, and not in the future of a clock that was wrong.
fn is_new(finished_at: Timestamp, now: Timestamp, min_age: Duration) -> bool {
    finished_at <= now && now.since(finished_at) < min_age
}

/// How much output is there of a container, at most `most` of each stream. What a machine said of
/// it may be any number; what cannot be read counts as none.
fn output_bytes(exit: Option<String>, most: u64) -> u64 {
    let exit = exit.and_then(|exit| serde_json::from_str::<Exit>(&exit).ok());
    exit.map_or(0, |exit| {
        let [out, err] = [exit.stdout(), exit.stderr()].map(|stream| stream.kept().min(most));
        out.saturating_add(err)
    })
}

/// Removes containers; those that cannot be removed are logged and stay. Returns how many went.
fn remove_all(tx: &mut Tx<'_>, ids: &[i64]) -> Result<usize, QueueError> {
    let mut removed = 0;
    for &id in ids {
        let outcome = tx
            .apart(|tx| remove(tx, id).map_err(|e| sqlite("what ended could not be removed", e)))?;
        match outcome {
            Ok(()) => removed += 1,
            Err(error) => {
                let cause = error.source.as_deref().map(tracing::field::display);
                tracing::warn!(id, %error, cause, "a container that ended stays");
            }
        }
    }
    Ok(removed)
}

fn remove(tx: &Tx<'_>, id: i64) -> rusqlite::Result<()> {
    let batch: i64 = tx
        .connection
        .prepare_cached(
            "UPDATE batches SET \
             removed_succeeded = removed_succeeded + (state = 3 AND exit_code IS 0), \
             removed_failed = removed_failed + (state = 3 AND exit_code IS NOT 0), \
             removed_cancelled = removed_cancelled + (state = 4) \
             FROM containers c WHERE c.id = ?1 AND batches.id = c.batch RETURNING batches.id",
        )?
        .query_row([id], |row| row.get(0))?;
    for sql in [
        "DELETE FROM requests WHERE container = ?1",
        "DELETE FROM documents WHERE container = ?1",
        "DELETE FROM containers WHERE id = ?1",
    ] {
        tx.connection.prepare_cached(sql)?.execute([id])?;
    }
    tx.connection
        .prepare_cached(
            "DELETE FROM batches WHERE id = ?1 \
             AND NOT EXISTS (SELECT 1 FROM containers WHERE batch = ?1)",
        )?
        .execute([batch])?;
    Ok(())
}
