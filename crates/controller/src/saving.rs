//! Saving what a store holds whose file was removed from its directory, or replaced, while open.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
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
    for part in ["store.sqlite-wal", "store.sqlite-shm"] {
        let part = path.with_file_name(part);
        // Those of the file that is gone would be taken for parts of whichever is there; others are
        // parts of it.
        if is_open_here(&part)? {
            fs::remove_file(part)?;
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

/// Whether this process has the file of this name open.
fn is_open_here(path: &Path) -> io::Result<bool> {
    let wanted = match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let same = |open: fs::Metadata| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino());
    let open = fs::read_dir("/proc/self/fd")?.flatten();
    // Some are closed while this looks.
    Ok(open.filter_map(|fd| fd.path().metadata().ok()).any(same))
}

fn failed(source: io::Error) -> QueueError {
    QueueError::caused(QueueErrorKind::Unavailable, UNSAVED, source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[tokio::test]
    async fn what_belongs_to_the_store_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Settings::default()).unwrap();
        // The files are opened with the first look at them.
        let looked = store.dispatcher_reader.read(Duration::MAX, |connection| {
            let rows = connection.query_row("SELECT count(*) FROM containers", [], |row| {
                row.get::<_, i64>(0)
            });
            rows.map_err(|e| sqlite(UNSAVED, e))
        });
        assert_eq!(looked.await.unwrap(), 0);
        let replace = |name: &str| {
            let other = folder.path().join("other");
            fs::write(&other, name).unwrap();
            fs::rename(&other, folder.path().join(name)).unwrap();
        };
        let names = ["store.sqlite", "store.sqlite-wal"];
        names.iter().copied().for_each(replace);
        let saved = store.save().await.unwrap();
        assert_eq!(saved, folder.path().join("saved.sqlite"));
        for name in names {
            assert_eq!(fs::read(folder.path().join(name)).unwrap(), name.as_bytes());
        }
        assert!(!folder.path().join("store.sqlite-shm").exists(), "its own");
    }
}
