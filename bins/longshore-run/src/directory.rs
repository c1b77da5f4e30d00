//! The directory of all files: where it is, whether it may be trusted, and its lock.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use longshore_runner_api::command::{DEFAULT_DIRECTORY, DIRECTORY_VARIABLE};
use longshore_runner_api::report::MAX_TEXT;
use longshore_types::{Attempt, ContainerUuid};

use crate::lock;
use crate::spool::Entry;
use crate::system::sync_directory;

/// The directory of all files, found to be ours alone.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    root: PathBuf,
}

/// The directory lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl RunDirectory {
    /// The directory that the environment names, created if it is missing.
    pub(crate) fn open() -> Result<Self> {
        let path = std::env::var_os(DIRECTORY_VARIABLE)
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| DEFAULT_DIRECTORY.into());
        Self::at(Path::new(&path))
    }

    pub(crate) fn at(path: &Path) -> Result<Self> {
        create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let root = path
            .canonicalize()
            .with_context(|| format!("cannot use {}", path.display()))?;
        check(&root)?;
        let directory = Self { root };
        for name in ["lock", "spool", "blank", "mark", "trash"] {
            let path = directory.root.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => sync_directory(&directory.root)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot create {}", path.display()));
                }
            }
        }
        Ok(directory)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn lock_file(&self, uuid: ContainerUuid) -> PathBuf {
        self.root.join("lock").join(format!("{uuid}.lock"))
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Where entries are made ahead.
    pub(crate) fn blanks(&self) -> PathBuf {
        self.root.join("blank")
    }

    pub(crate) fn marks(&self) -> PathBuf {
        self.root.join("mark")
    }

    /// The file that was written when old marks were last looked for.
    pub(crate) fn swept(&self) -> PathBuf {
        self.root.join("swept")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn entry(&self, uuid: ContainerUuid, attempt: Attempt) -> Entry {
        Entry::new(&self.spool(), uuid, attempt)
    }

    /// Takes the directory lock; an error if others hold it for longer than `patience`.
    ///
    /// It covers deciding and marking, never a write to disk or a wait.
    pub(crate) fn lock(&self, patience: Duration) -> Result<DirectoryLock> {
        let path = self.root.join("lock").join("directory");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let since = Instant::now();
        let mut pause = Duration::from_micros(50);
        while !lock::try_take(&file).context("cannot take the directory lock")? {
            if since.elapsed() >= patience {
                bail!("the directory lock was not free for {patience:?}");
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
        Ok(DirectoryLock { _file: file })
    }

    /// Why the machine should get no more work, if somebody has said so.
    pub(crate) fn broken(&self) -> Option<String> {
        let path = self.root.join("broken");
        // A flag that is there but cannot be read is still a flag.
        path.symlink_metadata().ok()?;
        let mut text = Vec::new();
        if let Ok(file) = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
        {
            let _ = file.take(MAX_TEXT as u64).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        Some(match text.trim() {
            "" => "marked as broken".to_owned(),
            why => why.to_owned(),
        })
    }

    /// Says that the machine should get no more work if `error` says that its disk is at its end.
    pub(crate) fn note_broken(&self, error: &anyhow::Error) {
        let cause = error.chain().find_map(|cause| {
            let error = cause.downcast_ref::<std::io::Error>()?.raw_os_error()?;
            [libc::ENOSPC, libc::EIO, libc::EROFS, libc::EDQUOT]
                .contains(&error)
                .then(|| std::io::Error::from_raw_os_error(error))
        });
        if let Some(cause) = cause {
            // On a full disk this may leave an empty file, which is flag enough, or nothing.
            let _ = std::fs::write(self.root.join("broken"), cause.to_string());
        }
    }
}

fn create(path: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.canonicalize()?.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(path)
        }
        other => other,
    }
}

/// Refuses a directory that anybody else could have put files in, or could exchange.
fn check(root: &Path) -> Result<()> {
    let own = root.symlink_metadata()?;
    let me = nix::unistd::geteuid().as_raw();
    if !own.is_dir() {
        bail!("{} is not a directory", root.display());
    }
    if own.uid() != me {
        bail!(
            "{} belongs to user {}, not to {me}",
            root.display(),
            own.uid()
        );
    }
    if own.mode() & 0o022 != 0 {
        bail!(
            "{} can be written by others (mode {:o})",
            root.display(),
            own.mode() & 0o7777
        );
    }
    for parent in root.ancestors().skip(1) {
        let mode = parent.symlink_metadata()?.mode();
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            bail!(
                "{} can be written by everybody and is not sticky",
                parent.display()
            );
        }
    }
    Ok(())
}
