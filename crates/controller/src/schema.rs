//! The database file: opening it, and what is in it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use longshore_queue::{QueueError, QueueErrorKind};
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{disk_full, sqlite};
use crate::{OpenError, Settings};

/// The version of the schema that is written; kept in the file as `user_version`.
const SCHEMA_VERSION: i64 = 5;
/// Marks the file as ours: "Long" in ASCII.
const APPLICATION_ID: i64 = 0x4c6f_6e67;
/// How much room there has to be on its disk, in bytes.
const ROOM: usize = 256 << 10;
const UNWRITABLE: &str = "the store could not be written";
/// How long another process is waited for while opening.
const OPEN_BUSY_TIMEOUT: Duration = Duration::from_millis(500);
/// SQLite's page size, its default.
pub(crate) const PAGE_BYTES: u64 = 4096;

// State 0 to 2 are the unfinished ones, in the order of `ContainerState::ALL`. Documents have
// their own table so that a change of state does not rewrite them.
const SCHEMA: &str = "
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER,
    cancelled INTEGER NOT NULL DEFAULT 0,
    abandoned INTEGER NOT NULL DEFAULT 0,
    open_jobs INTEGER NOT NULL
) STRICT;
CREATE INDEX batches_by_key ON batches (key, id);
CREATE TABLE containers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    batch INTEGER NOT NULL REFERENCES batches (id),
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    request TEXT NOT NULL,
    supervisor INTEGER NOT NULL,
    keep_output INTEGER NOT NULL,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    lock_count INTEGER NOT NULL,
    placed_on TEXT,
    retries_left INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL,
    exit TEXT,
    exit_code INTEGER,
    error TEXT,
    started_at INTEGER,
    finished_at INTEGER,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX containers_by_batch ON containers (batch);
CREATE INDEX containers_by_revision ON containers (revision, batch);
CREATE INDEX containers_unfinished ON containers (id) WHERE state < 3;
CREATE TABLE documents (
    container INTEGER PRIMARY KEY REFERENCES containers (id),
    document BLOB NOT NULL
) STRICT;
";

/// What version 2 has beside version 1: requests of clients of the HTTP API, and the container of
/// each that was committed.
const REQUESTS: &str = "
CREATE TABLE requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    container INTEGER,
    attributes TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    modified_at INTEGER NOT NULL
) STRICT;
CREATE INDEX requests_by_container ON requests (container);
";

/// What version 3 has beside version 2: whether somebody follows a batch to its end. Of those from
/// before that is not known, so that none of them is run again for want of a result.
const FOLLOWED: &str = "ALTER TABLE batches ADD COLUMN followed INTEGER NOT NULL DEFAULT 1;";

/// What version 4 has beside version 3: how the jobs of a batch ended that were removed, and how
/// often a container was given back in a row. Until now each lock counted as one of these; what is
/// there begins anew.
const COUNTS: &str = "
ALTER TABLE batches ADD COLUMN removed_succeeded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN removed_failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN removed_cancelled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN given_back INTEGER NOT NULL DEFAULT 0;
";

/// What version 5 has beside version 4: indexes for lists by state and priority. The expression is
/// that by which requests are listed.
const LISTED: &str = "
CREATE INDEX containers_by_state ON containers (state, priority, id) WHERE state < 3;
DROP INDEX requests_by_container;
CREATE INDEX requests_by_priority ON requests (
    container, CAST(coalesce(json_extract(attributes, '$.priority'), 500) AS INTEGER)
);
";

/// The parts of a store that was just opened.
pub(crate) struct Opened {
    pub(crate) writer: Connection,
    pub(crate) reader: Connection,
    /// For the dispatcher alone.
    pub(crate) dispatcher_reader: Connection,
    /// The largest revision in it.
    pub(crate) revision: u64,
    /// Held as long as the store is open.
    pub(crate) lock: File,
}

/// Opens the store in a directory, and makes both if they are not there.
pub(crate) fn open(directory: &Path, settings: &Settings) -> Result<Opened, OpenError> {
    let unwritable = |source| OpenError::Directory {
        path: directory.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(unwritable)?;
    let lock = File::create(directory.join("store.lock")).map_err(unwritable)?;
    let path = directory.join("store.sqlite");
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
        Err(TryLockError::Error(source)) => return Err(unwritable(source)),
    }
    open_database(&path, settings, lock)
}

fn open_database(path: &Path, settings: &Settings, lock: File) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::from_sqlite(path.to_owned(), source);
    let mut writer = Connection::open(path).map_err(failed)?;
    writer.busy_timeout(OPEN_BUSY_TIMEOUT).map_err(failed)?;
    // Before anything is changed: is it ours, and can it be understood?
    check_kind(&writer, path)?;
    configure_writer(&writer, settings).map_err(failed)?;
    let transaction = writer
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    let found = check_kind(&transaction, path)?;
    if found == 0 {
        transaction.execute_batch(SCHEMA).map_err(failed)?;
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(failed)?;
    }
    if found < 2 {
        transaction.execute_batch(REQUESTS).map_err(failed)?;
    }
    if found < 3 {
        transaction.execute_batch(FOLLOWED).map_err(failed)?;
    }
    if found < 4 {
        transaction.execute_batch(COUNTS).map_err(failed)?;
    }
    if found < 5 {
        transaction.execute_batch(LISTED).map_err(failed)?;
    }
    if found < SCHEMA_VERSION {
        transaction
            .pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(failed)?;
    }
    let revision = transaction
        .query_row(
            "SELECT coalesce(max(revision), 0) FROM containers",
            (),
            |row| row.get(0),
        )
        .map_err(failed)?;
    transaction.commit().map_err(failed)?;
    let reader = open_reader(path).map_err(failed)?;
    let dispatcher_reader = open_reader(path).map_err(failed)?;
    Ok(Opened {
        writer,
        reader,
        dispatcher_reader,
        revision,
        lock,
    })
}

fn configure_writer(writer: &Connection, settings: &Settings) -> rusqlite::Result<()> {
    writer.pragma_update(None, "journal_mode", "WAL")?;
    // Every commit is synced before it is acknowledged.
    writer.pragma_update(None, "synchronous", "FULL")?;
    writer.pragma_update(None, "foreign_keys", true)?;
    let pages = i64::try_from(settings.max_store_bytes / PAGE_BYTES).unwrap_or(i64::MAX);
    writer.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))?;
    writer.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let reader = Connection::open(path)?;
    reader.busy_timeout(OPEN_BUSY_TIMEOUT)?;
    reader.pragma_update(None, "query_only", true)?;
    reader.set_prepared_statement_cache_capacity(64);
    Ok(reader)
}

/// Writes the file's first page anew, as it is.
pub(crate) fn touch(connection: &Connection) -> Result<(), QueueError> {
    connection
        .pragma_update(None, "user_version", SCHEMA_VERSION)
        .map_err(|e| sqlite(UNWRITABLE, e))
}

/// Writes a file of the size of a small batch, and removes it.
pub(crate) fn look_for_room(directory: &Path) -> Result<(), QueueError> {
    let path = directory.join("room");
    let written = std::fs::write(&path, [1; ROOM]);
    let _ = std::fs::remove_file(&path);
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::StorageFull => disk_full(UNWRITABLE),
        _ => QueueError::caused(QueueErrorKind::Unavailable, UNWRITABLE, error),
    })
}

/// The schema version of a file that is ours, 0 for an empty one.
fn check_kind(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let number = |sql: &str| {
        connection
            .query_row(sql, (), |row| row.get::<_, i64>(0))
            .map_err(|source| OpenError::from_sqlite(path.to_owned(), source))
    };
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    if objects == 0 && application == 0 && version == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID || version < 1 {
        return Err(OpenError::NotAStore {
            path: path.to_owned(),
            source: None,
        });
    }
    if version > SCHEMA_VERSION {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: version,
            known: SCHEMA_VERSION,
        });
    }
    Ok(version)
}
