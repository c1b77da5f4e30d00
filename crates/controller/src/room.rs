//! Room in the store: what is new is refused while there is still room for how everything ends.

use std::time::Duration;

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::ByteSize;
use rusqlite::Connection;

use crate::Store;
use crate::error::sqlite;
use crate::schema::PAGE_BYTES;
use crate::writer::Tx;

/// What a change of a request may need in any case: a priority, a name.
const SMALL: usize = 4096;

/// How large the database may grow, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) most: u64,
}

impl Room {
    /// Nothing new is taken above this; the rest is for how it ends.
    fn for_new(self) -> u64 {
        self.most / 10 * 9
    }

    /// Above this what ended is removed, however little of it there is.
    fn comfortable(self) -> u64 {
        self.most / 10 * 8
    }

    /// Refuses what is new if there would be no room for it, of which `more` bytes are stored.
    pub(crate) fn check(self, tx: &Tx<'_>, more: usize) -> Result<(), QueueError> {
        match used(tx.connection)?.saturating_add(more as u64) > self.for_new() {
            true => Err(self.full()),
            false => Ok(()),
        }
    }

    /// Refuses a change that stores `more` bytes, unless it is small.
    pub(crate) fn check_change(self, tx: &Tx<'_>, more: usize) -> Result<(), QueueError> {
        match more > SMALL {
            true => self.check(tx, more),
            false => Ok(()),
        }
    }

    fn full(self) -> QueueError {
        let most = ByteSize(self.most);
        let what = format!(
            "the store is nearly as large as it may be ({most}): there is no room for anything new \
             until enough of what ended is removed; what is there can end"
        );
        QueueError::new(QueueErrorKind::Unavailable, what)
    }
}

impl Store {
    pub(crate) fn room(&self) -> Room {
        Room {
            most: self.settings.max_store_bytes,
        }
    }

    /// Says that nothing new is taken, if that is so.
    pub(crate) async fn check_room(&self, timeout: Duration) -> Result<(), QueueError> {
        match self.used(timeout).await? > self.room().for_new() {
            true => Err(self.room().full()),
            false => Ok(()),
        }
    }

    /// Whether some of what ended has to go to make room.
    pub(crate) async fn is_crowded(&self) -> Result<bool, QueueError> {
        let used = self.used(self.settings.request_timeout).await?;
        Ok(used > self.room().comfortable())
    }

    async fn used(&self, timeout: Duration) -> Result<u64, QueueError> {
        self.dispatcher_reader.read(timeout, used).await
    }
}

/// How many bytes of the database hold something.
fn used(connection: &Connection) -> Result<u64, QueueError> {
    let pages: u64 = connection
        .prepare_cached(
            "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count",
        )
        .and_then(|mut statement| statement.query_row((), |row| row.get(0)))
        .map_err(|e| sqlite("the size of the store could not be read", e))?;
    Ok(pages.saturating_mul(PAGE_BYTES))
}
