//! The state directory: everything that must survive the program.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longshore_types::ByteSize;
use nix::sys::statvfs::statvfs;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;

/// The runner, a store, and something for logs and the first output.
const NEEDED_SPACE: ByteSize = ByteSize::mib(32);

/// How long a lock that another process holds is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// The state directory, held by this process alone.
///
/// ```text
/// lock              held while the program runs; holds its process id
/// controller/       the embedded controller: its store, and output of containers
/// loopback/         the loopback driver's instances
/// id_ed25519        the key that logs in to instances
/// runner/           where the runner is put on loopback instances
/// ```
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process holds it.
    #[error(
        "the state directory {} is in use by process {pid}; wait until that has ended, \
         or choose another one with --state-dir", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as that is known.
        pid: String,
    },
    /// The disk that it is on is full, or nearly so.
    #[error(
        "the disk of the state directory {} is full: {left} are left, {needed} are needed; \
         make space, or choose another one with --state-dir", path.display()
    )]
    Full {
        /// The directory.
        path: PathBuf,
        /// How much may still be written.
        left: ByteSize,
        /// How much has to be there to begin.
        needed: ByteSize,
    },
    /// It cannot be made, read or written.
    #[error("the state directory {} cannot be used: {what}; \
             mend that, or choose another one with --state-dir", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl StateError {
    /// The directory cannot be used since `what` failed.
    pub(crate) fn unusable(path: &Path, what: impl Into<String>, source: io::Error) -> Self {
        let (path, what) = (path.to_owned(), what.into());
        Self::Unusable { path, what, source }
    }

    /// Whether it is only for want of space.
    pub fn is_full(&self) -> bool {
        match self {
            Self::InUse { .. } => false,
            Self::Full { .. } => true,
            Self::Unusable { source, .. } => is_full(source),
        }
    }
}

/// Whether the user can do something about it by making space.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl StateDirectory {
    /// Makes the directory if need be (mode 0700) and takes it for this process.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let unusable = |what: &'static str| {
            let path = path.to_owned();
            move |source| StateError::unusable(&path, what, source)
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable("making it"))?;
        let path = path.canonicalize().map_err(unusable("finding it"))?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(unusable("opening its lock file"))?;
        match lock_soon(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message.
                let _ = (&lock).take(20).read_to_string(&mut pid);
                return Err(StateError::InUse {
                    path,
                    pid: pid.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unusable("locking it")(source)),
        }
        // The parts have locks of their own, which such a process gives up in any order.
        for part in ["controller/store.lock", "loopback/lock"] {
            if let Ok(held) = File::open(path.join(part)) {
                // Still held: whoever opens that part says so.
                let _ = lock_soon(&held);
            }
        }
        let note_pid = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        note_pid(&mut lock).map_err(unusable("writing to it"))?;
        Ok(Self { path, _lock: lock })
    }

    /// An error if there is not enough space to begin anything.
    pub fn check_space(&self) -> Result<(), StateError> {
        let left = self.space()?;
        if left < NEEDED_SPACE {
            let (path, needed) = (self.path.clone(), NEEDED_SPACE);
            return Err(StateError::Full { path, left, needed });
        }
        Ok(())
    }

    /// How much may still be written to its disk.
    pub fn space(&self) -> Result<ByteSize, StateError> {
        let found = statvfs(&self.path).map_err(|error| {
            StateError::unusable(&self.path, "measuring its disk", error.into())
        })?;
        Ok(ByteSize(
            found
                .blocks_available()
                .saturating_mul(found.fragment_size()),
        ))
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The embedded controller's own directory.
    pub fn controller(&self) -> PathBuf {
        self.path.join("controller")
    }

    /// The loopback driver's own directory.
    pub fn loopback(&self) -> PathBuf {
        self.path.join("loopback")
    }

    /// Where the runner is put on loopback instances.
    pub fn runner(&self) -> PathBuf {
        self.path.join("runner")
    }

    /// The key that logs in to instances, made at first use (mode 0600): the private key in
    /// OpenSSH's form and the public key in its one-line form.
    pub fn ssh_key(&self) -> Result<(String, String), StateError> {
        let path = self.path.join("id_ed25519");
        let unusable = |what: &'static str| {
            let path = self.path.clone();
            move |source| StateError::unusable(&path, what, source)
        };
        let key = match fs::read_to_string(&path) {
            Ok(text) => PrivateKey::from_openssh(text)
                .map_err(io::Error::other)
                .map_err(unusable(
                    "reading id_ed25519; remove that file to have a new key made",
                ))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_key(&path).map_err(unusable("making id_ed25519"))?
            }
            Err(error) => return Err(unusable("reading id_ed25519")(error)),
        };
        key_text(&key).map_err(unusable("writing its key down"))
    }
}

/// A key that nobody has.
pub(crate) fn fresh_key() -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// A key and its public key as OpenSSH writes them.
pub(crate) fn key_text(key: &PrivateKey) -> io::Result<(String, String)> {
    let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let public = key.public_key().to_openssh().map_err(io::Error::other)?;
    Ok((private.to_string(), public))
}

/// Locks a file, waiting a moment: a process that was killed just now may still be on its way out.
fn lock_soon(file: &File) -> Result<(), TryLockError> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(LOCK_LOOK);
            }
            result => return result,
        }
    }
}

/// Makes a key whose file is either complete or not there.
fn make_key(path: &Path) -> io::Result<PrivateKey> {
    let key = fresh_key()?;
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn is_held_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let held = StateDirectory::open(&path).unwrap();
        let error = StateDirectory::open(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        StateDirectory::open(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_a_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = StateDirectory::open(&path).unwrap_err().to_string();
            assert!(error.contains("--state-dir"), "{error}");
        }
    }

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(folder.path()).unwrap();
        let first = state.ssh_key().unwrap();
        assert_eq!(state.ssh_key().unwrap(), first);
        assert!(first.1.starts_with("ssh-ed25519 "));
        let mode = fs::metadata(folder.path().join("id_ed25519"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.path().join("id_ed25519"), "nonsense").unwrap();
        assert!(
            state
                .ssh_key()
                .unwrap_err()
                .to_string()
                .contains("remove that file")
        );
    }
}
