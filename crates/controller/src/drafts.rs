//! Removing requests that were never committed.

use std::time::{Duration, SystemTime};

use longshore_queue::QueueError;
use longshore_types::Timestamp;

use crate::Store;
use crate::error::sqlite;

/// The most that are kept.
const MOST: i64 = 10_000;
/// The most that are removed in one transaction, and at once for their age alone.
const CHUNK: usize = 200;

/// Which of them are removed, by one number.
#[derive(Clone, Copy, Debug)]
enum Which {
    /// Those that were changed last before this moment.
    Before(Timestamp),
    /// Those that are older than this many.
    Beyond(i64),
}

impl Store {
    /// Removes those that nobody has changed for `max_age`, and those beyond the newest 10,000.
    pub(crate) async fn prune_drafts(&self, max_age: Duration) -> Result<(), QueueError> {
        self.remove_drafts(Which::Before(before(max_age))).await?;
        while self.remove_drafts(Which::Beyond(MOST)).await? == CHUNK {}
        Ok(())
    }

    /// Removes some of the oldest that nobody has changed for a while. Returns how many.
    pub(crate) async fn remove_some_drafts(&self, min_age: Duration) -> Result<usize, QueueError> {
        self.remove_drafts(Which::Before(before(min_age))).await
    }

    /// Removes the oldest of some, at most a chunk. Returns how many.
    async fn remove_drafts(&self, which: Which) -> Result<usize, QueueError> {
        let (condition, number) = match which {
            Which::Before(at) => ("modified_at < ?1", at.0),
            Which::Beyond(count) => (
                "id <= (SELECT id FROM requests WHERE container IS NULL \
                 ORDER BY id DESC LIMIT 1 OFFSET ?1)",
                count,
            ),
        };
        let sql = format!(
            "DELETE FROM requests WHERE id IN (SELECT id FROM requests \
             WHERE container IS NULL AND {condition} ORDER BY id LIMIT {CHUNK})"
        );
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                let deleted = tx
                    .connection
                    .prepare_cached(&sql)
                    .and_then(|mut statement| statement.execute([number]));
                deleted.map_err(|e| sqlite("requests could not be removed", e))
            })
            .await
    }
}

/// The moment that was so long ago.
fn before(age: Duration) -> Timestamp {
    let now = Timestamp::from_system(SystemTime::now());
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(age))
}
