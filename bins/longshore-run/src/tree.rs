//! Removing directories that jobs have written to.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, dev_t, fchmod, fchmodat, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Removes a directory with all that is in it, but never what is mounted there: a job that has
/// mounted shared files, or a part of the machine, has not put them up for removal. What cannot be
/// removed stays, with the directories that lead there; the error is that of the first such thing.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = std::fs::File::open(parent)?;
    let device = fstat(&parent)?.st_dev;
    Ok(remove_at(
        parent.as_fd(),
        &CString::new(name.as_bytes())?,
        device,
    )?)
}

fn remove_at(parent: BorrowedFd<'_>, name: &CStr, device: dev_t) -> nix::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        // The kernel says so only of a directory that nothing is mounted on; else that it is busy.
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
        Err(Errno::ENOTDIR) => return unlinkat(parent, name, UnlinkatFlags::NoRemoveDir),
        Err(Errno::ENOENT) => return Ok(()),
        other => return other,
    }
    let directory = open(parent, name)?;
    let found = fstat(&directory)?;
    if found.st_dev != device {
        return Err(Errno::EXDEV);
    }
    // Jobs may have taken the right to change it away.
    if found.st_mode & 0o700 != 0o700 {
        fchmod(&directory, Mode::S_IRWXU)?;
    }
    empty(&directory, device)?;
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// Removes as much of what is in a directory as can be.
fn empty(directory: &OwnedFd, device: dev_t) -> nix::Result<()> {
    let mut result = Ok(());
    let listed = directory.try_clone().map_err(|_| Errno::EMFILE)?;
    for entry in Dir::from_fd(listed)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let removed = match entry.file_type() {
            Some(Type::Directory) | None => remove_at(directory.as_fd(), name, device),
            Some(_) => unlinkat(directory, name, UnlinkatFlags::NoRemoveDir),
        };
        match removed {
            Err(Errno::ENOENT) => {}
            other => result = result.and(other),
        }
    }
    result
}

/// Opens a directory, also one that a job has forbidden us to list.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = || openat(parent, name, flags, Mode::empty());
    open().or_else(|error| {
        if error != Errno::EACCES {
            return Err(error);
        }
        fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
        open()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::mount::{MsFlags, mount};

    use super::*;
    use crate::system::own_mounts;

    #[test]
    fn everything_is_removed_and_nothing_that_is_only_pointed_to() {
        let folder = tempfile::tempdir().unwrap();
        let (grave, other) = (folder.path().join("grave"), folder.path().join("other"));
        fs::create_dir_all(grave.join("a/b/c")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        fs::write(grave.join("a/file"), "").unwrap();
        symlink(&other, grave.join("a/b/link")).unwrap();
        symlink("nowhere", grave.join("dangling")).unwrap();
        for (path, mode) in [("a/b", 0o500), ("a", 0o000)] {
            fs::set_permissions(grave.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        remove(&grave).unwrap();
        assert!(!grave.exists() && other.join("kept").exists());
        // Another command may have been faster.
        remove(&grave).unwrap();
    }

    #[test]
    fn what_is_mounted_stays_whatever_it_is() {
        // Of this thread alone, and gone with it.
        if let Err(error) = own_mounts() {
            eprintln!("NOT TESTED: removal beside mounts; {error}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (grave, shared) = (folder.path().join("grave"), folder.path().join("shared"));
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("kept"), "").unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
        let (same, file) = (grave.join("a/same"), grave.join("a/file"));
        let other = grave.join("other");
        fs::create_dir_all(&same).unwrap();
        fs::create_dir(&other).unwrap();
        for path in [grave.join("z"), grave.join("a/z"), file.clone()] {
            fs::write(path, "").unwrap();
        }
        let bind = |from: &Path, to: &Path| {
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        };
        bind(&shared, &same);
        bind(&shared.join("kept"), &file);
        let (none, flags) = (None::<&str>, MsFlags::empty());
        mount(Some("none"), &other, Some("tmpfs"), flags, none).unwrap();
        fs::write(other.join("kept"), "").unwrap();

        let error = remove(&grave).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(shared.join("kept").exists() && other.join("kept").exists());
        let mode = shared.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(!grave.join("z").exists() && !grave.join("a/z").exists());

        for path in [&same, &file, &other] {
            nix::mount::umount(path).unwrap();
        }
        remove(&grave).unwrap();
        assert!(!grave.exists() && shared.join("kept").exists());
    }
}
