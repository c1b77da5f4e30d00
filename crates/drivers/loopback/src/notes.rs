//! What the runner of an instance notes about its attempts: `spool/UUID/ATTEMPT/state` has one
//! JSON document a line. A container could change its own, so nothing in it is believed that
//! could concern anybody else.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::engines::Engine;

const STATE: &str = "state";
/// How much of a state is read, in bytes.
const MAX_STATE: u64 = 64 << 10;

/// The lines of a state that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    /// A control group, as earlier runners wrote it.
    Cgroup(PathBuf),
    Cgroups(Vec<PathBuf>),
    /// A container of an engine, before it is made.
    Engine(Engine),
    /// Its engine has said that it is gone.
    EngineRemoved,
    /// A result; a container of an engine is gone then.
    Finished(IgnoredAny),
}

/// An attempt of which something is kept.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The UUID, as a file's name.
    pub(crate) container: String,
    pub(crate) number: String,
    pub(crate) directory: PathBuf,
}

/// The attempts of the runner that keeps its files in `run`.
pub(crate) fn attempts(run: &Path) -> Vec<Attempt> {
    let containers = below(&run.join("spool"));
    let attempts = containers.iter().flat_map(|(container, directory)| {
        let attempts = below(directory).into_iter();
        attempts.map(|(number, directory)| Attempt {
            container: container.clone(),
            number,
            directory,
        })
    });
    attempts.collect()
}

/// What is noted in the directory of an attempt.
pub(crate) fn of(attempt: &Path) -> Vec<Note> {
    let state = attempt.join(STATE);
    let mut bytes = Vec::new();
    let is_file = fs::symlink_metadata(&state).is_ok_and(|state| state.is_file());
    let read = is_file.then(|| File::open(state)?.take(MAX_STATE).read_to_end(&mut bytes));
    if !matches!(read, Some(Ok(_))) {
        return Vec::new();
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// Names and paths of what is in a directory.
fn below(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runner_notes_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert!(of(folder.path()).is_empty());
        let text = concat!(
            "{\"cgroup\":\"/a\"}\n{\"started\":12}\nnonsense\n{\"cgroups\":[\"/b\",\"/c\"]}\n",
            "{\"engine\":{\"program\":\"podman\",\"name\":\"n\",\"parent\":null}}\n",
            "\"engine_removed\"\n",
            "{\"finished\":{\"cause\":\"killed\"}}\n{\"cgr",
        );
        fs::write(folder.path().join(STATE), text).unwrap();
        let notes = of(folder.path());
        assert!(
            matches!(
                &notes[..],
                [
                    Note::Cgroup(_),
                    Note::Cgroups(_),
                    Note::Engine(_),
                    Note::EngineRemoved,
                    Note::Finished(_)
                ]
            ),
            "{notes:?}"
        );
    }
}
