//! The control groups of the containers of one instance, where its runner could make any.
//!
//! A runner notes the path of an attempt's group in the attempt's `state`, which has one JSON
//! document a line. A container could change that, so only groups that are named as the runner
//! names them are believed to be its groups.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

const HIERARCHIES: &str = "/sys/fs/cgroup";
const STATE: &str = "state";
/// How much of a state is read, in bytes.
const MAX_STATE: u64 = 64 << 10;
const PREFIX: &str = "longshore-run.";

/// The lines of a state that matter here: one group, as earlier runners wrote it, or several.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Note {
    Cgroup(PathBuf),
    Cgroups(Vec<PathBuf>),
}

/// The groups of all containers of the runner that keeps its files in `run`.
pub(crate) fn of_runner(run: &Path) -> Vec<PathBuf> {
    let containers = below(&run.join("spool"));
    let attempts = containers.iter().flat_map(|container| below(container));
    attempts
        .flat_map(|attempt| noted(&attempt.join(STATE)))
        .filter(|group| is_container(group))
        .collect()
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn noted(state: &Path) -> Vec<PathBuf> {
    let mut bytes = Vec::new();
    let is_file = fs::symlink_metadata(state).is_ok_and(|state| state.is_file());
    let read = is_file.then(|| File::open(state)?.take(MAX_STATE).read_to_end(&mut bytes));
    if !matches!(read, Some(Ok(_))) {
        return Vec::new();
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice::<Note>(line).ok())
        .flat_map(|note| match note {
            Note::Cgroup(group) => vec![group],
            Note::Cgroups(groups) => groups,
        })
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
            fs::write(entry.join(STATE), format!("{note}\n")).unwrap();
            assert_eq!(of_runner(folder.path()), Vec::<PathBuf>::new());
        }
    }

    #[test]
    fn what_the_runner_notes_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join(STATE);
        assert_eq!(noted(&state), Vec::<PathBuf>::new());
        let text = "{\"cgroup\":\"/a\"}\n{\"started\":12}\nnonsense\n{\"cgroups\":[\"/b\",\"/c\"]}\n{\"cgr";
        fs::write(&state, text).unwrap();
        let found = [Path::new("/a"), Path::new("/b"), Path::new("/c")];
        assert_eq!(noted(&state), found);
    }
}
