//! Saving what a store holds whose file was removed from its directory, or replaced, while open.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_queue::{QueueError, QueueErrorKind};
use rusqlite::Connection;

use crate::Store;
use crate::error::sqlite;

const UNSAVED: &str = "the store could not be saved";

impl Store {
    /// Where its file is.
    pub fn path(&self) -> PathBuf {
        self.directory.join("store.sqlite")
    }

    /// Writes all that was recorded into a new file, and gives back where that is: in the place
    /// of the store's own file, where nothing is, else beside it (`saved.sqlite`).
    ///
    /// For the end of a process whose store has lost its file: what is recorded afterwards is not
    /// in the new one.
    pub async fn save(&self) -> Result<PathBuf, QueueError> {
        let (path, saved) = (self.path(), self.directory.join("saved.sqlite"));
        self.dispatcher_reader
            .read(Duration::MAX, move |connection| {
                make_room(&saved).map_err(failed)?;
                copy(connection, &saved).map_err(|e| sqlite(UNSAVED, e))?;
                put_back(&saved, &path).map_err(failed)
            })
            .await
    }
}

/// What an earlier save left is gone, and the directory is there.
fn make_room(saved: &Path) -> io::Result<()> {
    if let Some(directory) = saved.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
    }
    match fs::remove_file(saved) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy(connection: &Connection, to: &Path) -> rusqlite::Result<()> {
    // Another file is written, not this one.
    connection.pragma_update(None, "query_only", false)?;
    let copied = connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]);
    connection.pragma_update(None, "query_only", true)?;
    copied.map(|_| ())
}

/// Puts a whole file to a path unless something is there, and says where it is then.
fn put_back(saved: &Path, path: &Path) -> io::Result<PathBuf> {
    File::open(saved)?.sync_all()?;
    // They belong to the file that is gone, and would be taken for parts of whichever is there.
    for part in ["store.sqlite-wal", "store.sqlite-shm"] {
        match fs::remove_file(path.with_file_name(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // Unlike a rename this replaces nothing.
    match fs::hard_link(saved, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(saved.to_owned()),
        linked => linked?,
    }
    fs::remove_file(saved)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(path.to_owned())
}

fn failed(source: io::Error) -> QueueError {
    QueueError::caused(QueueErrorKind::Unavailable, UNSAVED, source)
}
