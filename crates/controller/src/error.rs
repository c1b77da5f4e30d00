//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_runner_api::DocumentError;
use rusqlite::ErrorCode;

use crate::BatchId;

/// A store cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its directory cannot be made or written to.
    #[error("the state directory {} cannot be written to", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// It was written by a newer version of this program.
    #[error(
        "{} has schema version {found}, this program knows versions up to {known}: \
         it was written by a newer version; use that one, or another state directory",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// It is damaged, or another kind of file.
    #[error(
        "{} is damaged or not a store of this program; move it away to begin a new one",
        path.display()
    )]
    NotAStore {
        /// Which file.
        path: PathBuf,
        /// What was found out, if the database engine said so.
        source: Option<rusqlite::Error>,
    },
    /// There is no room for it.
    #[error("there is no space left for {}", path.display())]
    NoSpace {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// Anything else.
    #[error("{} cannot be opened", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A setting is out of its range.
    #[error("the setting {name} is out of its range")]
    Setting {
        /// Which.
        name: &'static str,
    },
    /// The thread that writes cannot be started.
    #[error("the thread that writes the store cannot be started")]
    Thread(#[source] io::Error),
}

impl OpenError {
    pub(crate) fn from_sqlite(path: PathBuf, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::NotAStore {
                path,
                source: Some(source),
            },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            Some(ErrorCode::DiskFull) => Self::NoSpace { path, source },
            _ => Self::Unusable { path, source },
        }
    }
}

/// A batch was not taken. Nothing of it was stored, unless the cause says that nobody knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// There are no jobs in it, or too many.
    #[error("a batch has 1 to {max} jobs, this one has {found}", max = crate::MAX_BATCH_JOBS)]
    JobCount {
        /// How many.
        found: usize,
    },
    /// Something is wrong with one job.
    #[error("job {name:?}: {why}")]
    Job {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The start document of a job is not valid.
    #[error("job {name:?} cannot be run as it is")]
    Document {
        /// Its name.
        name: String,
        /// What is wrong.
        source: DocumentError,
    },
    /// There is an unfinished batch with the same key.
    #[error("batch {id} of the same file is not finished")]
    Unfinished {
        /// Which.
        id: BatchId,
    },
    /// The store takes nothing new: see [`crate::Store::close`]. Nothing of it was stored.
    #[error("{closed}", closed = CLOSED)]
    Closed,
    /// The store failed.
    #[error("the batch could not be stored")]
    Store(#[from] QueueError),
}

const CLOSED: &str = "the process that holds the store is ending and takes nothing new; try again \
                      when it has ended";

/// The error of a request that comes too late.
pub(crate) fn closed() -> QueueError {
    QueueError::new(QueueErrorKind::Unavailable, CLOSED)
}

/// The error of whatever finds no room.
pub(crate) fn disk_full(what: &str) -> QueueError {
    let what = format!("{what}: its disk is full; make space and try again");
    QueueError::new(QueueErrorKind::Unavailable, what)
}

/// The error of a failed statement or commit.
pub(crate) fn sqlite(what: &'static str, source: rusqlite::Error) -> QueueError {
    // Of these it is certain that the transaction was not committed. After a failed sync it is
    // not: what was written may be there after a crash.
    let kind = match source.sqlite_error_code() {
        // What an operator can do something about is said in words.
        Some(ErrorCode::DiskFull) => return disk_full(what),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let what = format!("{what}: another process has locked it; try again");
            return QueueError::new(QueueErrorKind::Unavailable, what);
        }
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory
            | ErrorCode::CannotOpen
            | ErrorCode::TooBig,
        ) => QueueErrorKind::Unavailable,
        _ => QueueErrorKind::Unknown,
    };
    QueueError::caused(kind, what, source)
}
