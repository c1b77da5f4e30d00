//! The control groups of the containers of one instance, where its runner could make any.
//!
//! A runner leaves a symbolic link to a container's group in the container's spool directory. A
//! container could exchange the link, so only groups that are named as the runner names them are
//! believed to be its groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const HIERARCHIES: &str = "/sys/fs/cgroup";
const LINK: &str = "cgroup";
const PREFIX: &str = "longshore-run.";

/// The groups of all containers of the runner that keeps its files in `run`.
pub(crate) fn of_runner(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(run.join("spool")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path().join(LINK)).ok())
        .filter(|group| is_container(group))
        .collect()
}

fn is_container(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(PREFIX))
        && group
            .canonicalize()
            .is_ok_and(|group| group.starts_with(HIERARCHIES))
}

/// The processes in these groups.
pub(crate) fn members(groups: &[PathBuf]) -> BTreeSet<i32> {
    groups
        .iter()
        .filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok())
        .flat_map(|text| {
            let pids: Vec<i32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
            pids
        })
        .collect()
}

/// Removes groups in which nothing is left; what cannot be removed takes up nothing but a name.
pub(crate) fn remove(groups: &[PathBuf]) {
    for group in groups {
        let _ = fs::remove_dir(group);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn groups_that_are_not_the_runner_s_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("spool/entry");
        fs::create_dir_all(&entry).unwrap();
        let elsewhere = folder.path().join("longshore-run.x");
        fs::create_dir(&elsewhere).unwrap();
        for target in [
            Path::new(HIERARCHIES),
            Path::new("/sys/fs/cgroup/longshore-run.x/.."),
            &elsewhere,
        ] {
            symlink(target, entry.join(LINK)).unwrap();
            assert_eq!(of_runner(folder.path()), Vec::<PathBuf>::new());
            fs::remove_file(entry.join(LINK)).unwrap();
        }
    }
}
