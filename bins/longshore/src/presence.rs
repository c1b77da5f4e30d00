//! Whether what a process records is still where the next one looks for it.
//!
//! Files that are open can be removed, moved or replaced. Whoever writes to them does not notice,
//! and what he writes is found by nobody.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_controller::Store;
use longshore_types::error_chain;

use crate::state::{StateDirectory, StateError};
use crate::tell;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What has to stay in its place as long as a process records anything.
#[derive(Debug)]
pub(crate) struct Presence {
    directory: Watched,
    /// Kept open, so that its number is given to no other directory.
    held: File,
    /// Kept open by the store.
    database: Watched,
}

/// A file that has to stay at its path.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// Its device, and its number there.
    identity: (u64, u64),
}

/// What is not in its place any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    path: PathBuf,
    what: Lost,
    /// Whether another one is in its place.
    replaced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Lost {
    /// The state directory, and where it is now, if it is anywhere.
    Directory(Option<PathBuf>),
    /// The file of the store alone.
    Database,
}

impl Presence {
    /// Of a state directory whose store is open.
    pub(crate) fn of(state: &StateDirectory, store: &Store) -> Result<Self, StateError> {
        let note = || -> io::Result<Self> {
            Ok(Self {
                directory: Watched::at(state.path())?,
                held: File::open(state.path())?,
                database: Watched::at(&store.path())?,
            })
        };
        note().map_err(|error| StateError::unusable(state.path(), "looking at it", error))
    }

    /// Returns once one of them is not in its place, a second later at most.
    pub(crate) async fn lost(&self) -> Loss {
        let mut interval = tokio::time::interval(LOOK);
        loop {
            interval.tick().await;
            if let Some(loss) = self.look().await {
                return loss;
            }
        }
    }

    async fn look(&self) -> Option<Loss> {
        let loss = |watched: &Watched, what, replaced| Loss {
            path: watched.path.clone(),
            what,
            replaced,
        };
        if let Some(replaced) = self.directory.lost().await {
            let what = Lost::Directory(self.whereabouts());
            return Some(loss(&self.directory, what, replaced));
        }
        let replaced = self.database.lost().await?;
        Some(loss(&self.database, Lost::Database, replaced))
    }

    /// Where the directory is now.
    fn whereabouts(&self) -> Option<PathBuf> {
        let link = format!("/proc/self/fd/{}", self.held.as_raw_fd());
        let path = std::fs::read_link(link).ok()?;
        // Of what is removed the kernel tells the old path, with a word behind it.
        let found = path.metadata().ok()?;
        (identity(&found) == self.directory.identity).then_some(path)
    }
}

impl Watched {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(&path.metadata()?),
        })
    }

    /// None if it is in its place, or nobody can tell; else whether another one is there.
    async fn lost(&self) -> Option<bool> {
        use io::ErrorKind::{NotADirectory, NotFound};
        match tokio::fs::metadata(&self.path).await {
            Ok(found) if identity(&found) == self.identity => None,
            Ok(_) => Some(true),
            Err(error) => matches!(error.kind(), NotFound | NotADirectory).then_some(false),
        }
    }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

impl Loss {
    /// Takes nothing new from now on, and tells the user why.
    pub(crate) fn begin(&self, store: &Store) {
        store.close();
        tell!("{self}: nothing that is recorded would be found again, so this ends");
    }

    /// Saves what can be saved, and tells the user what to do, once nothing is recorded any more.
    pub(crate) async fn settle(&self, store: &Store) {
        let advice = match &self.what {
            Lost::Directory(Some(_)) => {
                "move it back and start again; jobs that run go on, and are found then".to_owned()
            }
            Lost::Directory(None) => {
                "what was in it is lost; jobs that run go on, and nobody will learn how they end: \
                 `pgrep -af crunch-run~` shows who looks after them"
                    .to_owned()
            }
            Lost::Database => match store.save().await {
                Ok(saved) if saved == self.path => {
                    "what it held was written there anew: start again; jobs that run go on, and \
                     are found then"
                        .to_owned()
                }
                Ok(saved) => format!(
                    "what it held is in {}: move that to its place, or begin anew with what is \
                     there, and start again",
                    saved.display()
                ),
                Err(error) => format!("what it held cannot be saved: {}", error_chain(&error)),
            },
        };
        tracing::error!(%advice, "{self}");
        tell!("{advice}");
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.what {
            Lost::Directory(Some(now)) => {
                write!(
                    f,
                    "the state directory {path} was moved to {}",
                    now.display()
                )?;
            }
            Lost::Directory(None) => write!(f, "the state directory {path} was removed")?,
            Lost::Database => write!(f, "the store {path} was removed")?,
        }
        match self.replaced {
            true => f.write_str(", and another one is in its place"),
            false => Ok(()),
        }
    }
}
