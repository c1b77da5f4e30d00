//! The lock file of a container.
//!
//! Byte 0 is locked through an open file description, so the lock lives as long as any process
//! that inherited the descriptor; byte 1 is locked by the supervisor's process alone.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use longshore_runner_api::StartReply;
use longshore_types::Attempt;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, RenameFlags, fcntl, renameat2};
use nix::unistd::Pid;

const SHARED_BYTE: libc::off_t = 0;
const SUPERVISOR_BYTE: libc::off_t = 1;
/// The longest content of a lock file that is read.
const MAX_CONTENT: u64 = 1024;

/// A container's lock, held by this process and those that it forks.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
}

/// The supervisor's own mark on a lock; it ends with the process, and when the process closes any
/// descriptor of the lock file.
#[derive(Debug)]
pub(crate) struct SupervisorMark {
    _file: File,
}

/// Who holds a container's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody: nothing of the container runs.
    Nobody,
    /// Its supervisor.
    Supervisor(Pid),
    /// Something else: a start that has not come to a supervisor yet, or what a dead supervisor
    /// left behind.
    Other,
}

impl Lock {
    /// Takes the lock in the file of this name, or says `None` if it is held.
    ///
    /// The file may be deleted and made anew between opening and locking it; what counts is the
    /// file that has the name once the lock is held.
    pub(crate) fn take(path: &Path) -> Result<Option<Self>> {
        for _ in 0..100 {
            let file = open(path)?;
            if !try_take(&file)? {
                return Ok(None);
            }
            if has_name(&file, path)? {
                let path = path.to_owned();
                return Ok(Some(Self { path, file }));
            }
        }
        bail!("{} changes all the time", path.display())
    }

    /// Gives the file another name; none if there is a file of that name.
    pub(crate) fn named(self, path: &Path) -> Option<Self> {
        let (from, to) = (&self.path, path);
        if renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE).is_err() {
            self.delete();
            return None;
        }
        let path = path.to_owned();
        Some(Self { path, ..self })
    }

    /// The same lock, for a process that has inherited it, with the name that it has by now.
    pub(crate) fn shared_as(&self, path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: self.file.try_clone()?,
        })
    }

    /// Says that this process is the supervisor.
    pub(crate) fn mark_supervisor(&self) -> Result<SupervisorMark> {
        let file = open(&self.path)?;
        if !has_name(&self.file, &self.path)? {
            bail!("{} was exchanged", self.path.display());
        }
        fcntl(
            &file,
            FcntlArg::F_SETLK(&byte(libc::F_WRLCK, SUPERVISOR_BYTE)),
        )
        .context("cannot mark the lock file")?;
        Ok(SupervisorMark { _file: file })
    }

    /// Empties the file: its lock is held, by whom is not said yet.
    pub(crate) fn clear(&self) -> std::io::Result<()> {
        self.set_len(0)
    }

    /// Says in the file who holds the lock. Every call wakes those who watch the file.
    pub(crate) fn write(&self, content: &StartReply) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(content)?;
        line.push(b'\n');
        self.file.write_all_at(&line, 0)?;
        self.set_len(line.len() as u64)
    }

    /// A length that the file has already is to file systems a change all the same, which may wait.
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        match self.file.metadata()?.len() == len {
            true => Ok(()),
            false => self.file.set_len(len),
        }
    }

    /// Deletes the file, which only the holder of its lock may do.
    pub(crate) fn delete(&self) {
        // If that fails a report will delete it.
        if has_name(&self.file, &self.path).unwrap_or(false) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Who holds the lock in the file of this name. Takes no lock, so it disturbs nobody.
pub(crate) fn holder(path: &Path) -> Result<Holder> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let conflict = |start| -> Result<Option<libc::pid_t>> {
        let mut lock = byte(libc::F_WRLCK, start);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))
            .with_context(|| format!("cannot ask for the lock of {}", path.display()))?;
        Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock.l_pid))
    };
    if conflict(SHARED_BYTE)?.is_none() {
        return Ok(Holder::Nobody);
    }
    Ok(match conflict(SUPERVISOR_BYTE)? {
        // No number where the supervisor is out of sight, in another namespace: it lives all the same.
        Some(pid) => Holder::Supervisor(Pid::from_raw(pid.max(0))),
        None => Holder::Other,
    })
}

/// Which attempt a lock file says it is held for, unless it is incomplete.
pub(crate) fn content_attempt(path: &Path) -> Option<Attempt> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_CONTENT).read_to_end(&mut bytes).ok()?;
    let line = bytes.strip_suffix(b"\n")?;
    let content: StartReply = serde_json::from_slice(line).ok()?;
    Some(content.attempt)
}

/// Takes the lock of the first byte, or says `false` if another holds it.
pub(crate) fn try_take(file: &File) -> std::io::Result<bool> {
    let lock = byte(libc::F_WRLCK, SHARED_BYTE);
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn has_name(file: &File, path: &Path) -> std::io::Result<bool> {
    let open = file.metadata()?;
    match path.symlink_metadata() {
        Ok(named) => {
            Ok(open.nlink() == 1 && open.ino() == named.ino() && open.dev() == named.dev())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn byte(kind: libc::c_int, start: libc::off_t) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    }
}
