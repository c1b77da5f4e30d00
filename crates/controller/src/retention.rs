//! Removing what ended long ago.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::Timestamp;
use rusqlite::Connection;

use crate::Store;
use crate::error::sqlite;
use crate::writer::Tx;

/// The most containers that are removed in one transaction, so that others wait a moment at most.
const CHUNK: usize = 200;

/// How much of what ended is kept. What belongs to an unfinished batch is kept in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "settings, all of them")]
pub struct Retention {
    /// How many containers.
    pub max_finished: u64,
    /// For how long.
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
    /// with their output, and the batches of which nothing is left. Returns how many containers
    /// that were.
    ///
    /// # Errors
    ///
    /// What was removed before an error stays removed.
    pub async fn prune(&self, retention: &Retention) -> Result<usize, QueueError> {
        let retention = *retention;
        let kept = self.settings.kept_output_bytes;
        let now = Timestamp::from_system(SystemTime::now());
        let old = self
            .read(self.settings.request_timeout, move |connection| {
                find_old(connection, &retention, kept, now)
                    .map_err(|e| sqlite("what ended could not be read", e))
            })
            .await?;
        for chunk in old.chunks(CHUNK) {
            self.remove_outputs(chunk).await?;
            let ids: Vec<i64> = chunk.iter().map(|old| old.id).collect();
            self.writer
                .write(self.settings.request_timeout, move |tx| {
                    remove(tx, &ids).map_err(|e| sqlite("what ended could not be removed", e))
                })
                .await?;
        }
        Ok(old.len())
    }

    /// Before the records: what is left after a crash is found again by its record.
    async fn remove_outputs(&self, old: &[Old]) -> Result<(), QueueError> {
        let logs = self.directory.join("logs");
        let folders: Vec<PathBuf> = old.iter().map(|old| logs.join(&old.uuid)).collect();
        let removing = tokio::task::spawn_blocking(move || {
            for folder in folders {
                match fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        });
        let removed = removing.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        removed.map_err(|error| {
            let what = "the output of what ended could not be removed";
            QueueError::caused(QueueErrorKind::Unknown, what, error)
        })
    }
}

fn find_old(
    connection: &Connection,
    retention: &Retention,
    kept: u64,
    now: Timestamp,
) -> rusqlite::Result<Vec<Old>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.id, c.uuid, max(c.finished_at, c.created_at) AS ended_at, c.keep_output, \
         coalesce(json_extract(c.exit, '$.stdout_bytes'), 0) \
         - coalesce(json_extract(c.exit, '$.stdout_cut.to') \
         - json_extract(c.exit, '$.stdout_cut.from'), 0), \
         coalesce(json_extract(c.exit, '$.stderr_bytes'), 0) \
         - coalesce(json_extract(c.exit, '$.stderr_cut.to') \
         - json_extract(c.exit, '$.stderr_cut.from'), 0) \
         FROM containers c JOIN batches b ON b.id = c.batch \
         WHERE b.open_jobs = 0 ORDER BY ended_at DESC, c.id DESC",
    )?;
    let mut rows = statement.query(())?;
    let (mut count, mut bytes, mut old) = (0u64, 0u64, Vec::new());
    while let Some(row) = rows.next()? {
        let everything: bool = row.get(3)?;
        let most = if everything { u64::MAX } else { kept };
        count += 1;
        for column in [4, 5] {
            let written = u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0);
            bytes = bytes.saturating_add(written.min(most));
        }
        let finished_at = row.get::<_, Option<i64>>(2)?.map_or(now, Timestamp);
        let stays = count <= retention.max_finished
            && bytes <= retention.max_output_bytes
            && now.since(finished_at) <= retention.max_age;
        if !stays {
            old.push(Old {
                id: row.get(0)?,
                uuid: row.get(1)?,
            });
        }
    }
    // The oldest first.
    old.reverse();
    Ok(old)
}

fn remove(tx: &mut Tx<'_>, ids: &[i64]) -> rusqlite::Result<()> {
    for id in ids {
        let batch: i64 = tx
            .connection
            .prepare_cached("SELECT batch FROM containers WHERE id = ?1")?
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
    }
    Ok(())
}
