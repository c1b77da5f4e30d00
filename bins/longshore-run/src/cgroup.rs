//! The control group of a job, where one can be made: an additional net under the subreapers.
//!
//! Preferred is the unified hierarchy, which ends a whole group with one write; else the `pids` or
//! `freezer` hierarchy of version 1. The entry in the spool says where the group is before it is made,
//! so that whoever finds the entry finds the group.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::spool::Entry;
use crate::system::PidFd;

#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group for the processes of an attempt; none if that is not possible here.
    pub(crate) fn create(entry: &Entry) -> Option<Self> {
        let name = format!("{}{}", prefix(entry), std::process::id());
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        parents(&groups).into_iter().find_map(|parent| {
            let path = parent.join(&name);
            let made = entry.note_cgroup(&path).is_ok() && std::fs::create_dir(&path).is_ok();
            made.then_some(Self { path })
        })
    }

    /// The group that an attempt was given, if it is still there.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let path = entry.state().cgroup?;
        let name = path.file_name()?.to_str()?;
        let ours = path.is_absolute() && name.starts_with(&prefix(entry));
        (ours && path.join("cgroup.procs").exists()).then_some(Self { path })
    }

    /// The directory, which a child can be born into where the hierarchy is the unified one.
    pub(crate) fn directory(&self) -> std::io::Result<File> {
        File::open(&self.path)
    }

    /// The file that a process writes `0` to in order to become a member.
    pub(crate) fn door(&self) -> std::io::Result<File> {
        OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.procs"))
    }

    /// Sends KILL to every member.
    pub(crate) fn kill(&self) {
        if std::fs::write(self.path.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Version 1: no new members, where the hierarchy can say that, and one after the other.
        let limit = self.path.join("pids.max");
        if limit.exists() {
            let _ = std::fs::write(limit, "0");
        }
        for pid in self.members() {
            // The process is held first and then looked at, so that no other with its id is hit.
            let Ok(process) = PidFd::open(pid) else {
                continue;
            };
            if self.members().contains(&pid) {
                let _ = process.signal(Signal::SIGKILL);
            }
        }
    }

    /// Ends every member and removes the group; says whether that was done within `patience`.
    pub(crate) fn end(&self, patience: Duration) -> bool {
        let since = Instant::now();
        loop {
            match std::fs::remove_dir(&self.path) {
                Ok(()) => return true,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
                Err(_) => self.kill(),
            }
            if since.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn members(&self) -> Vec<Pid> {
        let text = std::fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid > 1)
            .map(Pid::from_raw)
            .collect()
    }
}

fn prefix(entry: &Entry) -> String {
    format!("longshore-run.{}.{}.", entry.uuid, entry.attempt)
}

/// The groups that this process is in, in the hierarchies that are of use, best first.
fn parents(groups: &str) -> Vec<PathBuf> {
    // The list of mounts is long; nearly everywhere the unified hierarchy is at one of two places.
    let unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .find(|path| Path::new(path).join("cgroup.procs").exists());
    if let Some(unified) = unified {
        let line = format!("0 0 0:0 / {unified} rw - cgroup2 cgroup2 rw");
        let found = parents_from(&line, groups);
        if found.iter().all(|path| path.is_dir()) && !found.is_empty() {
            return found;
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parents_from(&mounts, groups)
}

fn parents_from(mounts: &str, groups: &str) -> Vec<PathBuf> {
    ["", "pids", "freezer"]
        .into_iter()
        .filter_map(|controller| {
            let group = groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let names = fields.next()?;
                names
                    .split(',')
                    .any(|name| name == controller)
                    .then(|| fields.next())?
            })?;
            let (root, mount_point) = mounts.lines().find_map(|line| mounted(line, controller))?;
            let inside = Path::new(group).strip_prefix(root).ok()?;
            let outside = inside
                .components()
                .any(|part| part == std::path::Component::ParentDir);
            (!outside).then(|| Path::new(mount_point).join(inside))
        })
        .collect()
}

/// Root and mount point of a line of mountinfo, if it mounts this controller's hierarchy; the
/// unified one has no name.
fn mounted<'a>(line: &'a str, controller: &str) -> Option<(&'a str, &'a str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let kind = after.next()?;
    let fits = match controller {
        "" => kind == "cgroup2",
        _ => kind == "cgroup" && after.nth(1)?.split(',').any(|name| name == controller),
    };
    let mut before = before.split(' ').skip(3);
    fits.then(|| Some((before.next()?, before.next()?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_are_found() {
        let hybrid = "\
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let groups = "8:pids:/a/b\n5:devices:/\n1:name=systemd:/\n0::/c\n";
        assert_eq!(
            parents_from(hybrid, groups),
            [
                PathBuf::from("/sys/fs/cgroup/unified/c"),
                PathBuf::from("/sys/fs/cgroup/pids/a/b")
            ]
        );
        let unified = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(
            parents_from(unified, "0::/user.slice/x.scope\n"),
            [PathBuf::from("/sys/fs/cgroup/user.slice/x.scope")]
        );
        assert!(parents_from(unified, "0::/../elsewhere\n").is_empty());
        assert!(parents_from("", "").is_empty());
    }
}
