//! The control groups of the containers of one instance, where its runner could make any.
//!
//! The runner notes their paths. A container could change that, so only groups that are named as
//! the runner names them are believed to be its groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::notes::{self, Note};

const HIERARCHIES: &str = "/sys/fs/cgroup";
const PREFIX: &str = "longshore-run.";
/// How long a group may need to become empty once no process is seen in it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The groups of all containers of the runner that keeps its files in `run`.
pub(crate) fn of_runner(run: &Path) -> Vec<PathBuf> {
    let attempts = notes::attempts(run).into_iter();
    let notes = attempts.flat_map(|attempt| notes::of(&attempt.directory));
    notes
        .flat_map(|note| match note {
            Note::Cgroup(group) => vec![group],
            Note::Cgroups(groups) => groups,
            Note::Engine(_) | Note::EngineRemoved | Note::Finished(_) => Vec::new(),
        })
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

/// The processes in these groups and in those that an engine made below them.
pub(crate) fn members(groups: &[PathBuf]) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for group in groups {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        found.extend(members(&below(group)));
    }
    found
}

/// Removes groups in which nothing runs any more. A process may be in its group for a moment
/// after it was seen dead; what cannot be removed then takes up nothing but a name.
pub(crate) fn remove(groups: &[PathBuf]) {
    let since = Instant::now();
    let mut left: Vec<&PathBuf> = groups.iter().collect();
    loop {
        left.retain(|group| !is_removed(group));
        if left.is_empty() || since.elapsed() >= PATIENCE {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_removed(group: &Path) -> bool {
    below(group).iter().all(|group| is_removed(group))
        && match fs::remove_dir(group) {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_not_the_runner_s_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("spool/container/1");
        fs::create_dir_all(&entry).unwrap();
        let elsewhere = folder.path().join("longshore-run.x");
        fs::create_dir(&elsewhere).unwrap();
        for target in [
            Path::new(HIERARCHIES),
            Path::new("/sys/fs/cgroup/longshore-run.x/.."),
            &elsewhere,
        ] {
            let note = serde_json::json!({ "cgroups": [target] });
            fs::write(entry.join("state"), format!("{note}\n")).unwrap();
            assert_eq!(of_runner(folder.path()), Vec::<PathBuf>::new());
        }
    }
}
