//! Where the client of an engine is, and by which variables it finds its engine.
//!
//! Both are noted with the container. Whoever asks for it later may have another `PATH` or
//! `DOCKER_HOST`, and another engine would truly say that it has no such container.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

/// All variables that a client gets, and what they are where they are not set.
const VARIABLES: [(&str, Option<&str>); 6] = [
    ("PATH", Some(crate::job::DEFAULT_PATH)),
    ("HOME", Some("/")),
    // Where the user's engine is.
    ("XDG_RUNTIME_DIR", None),
    ("DOCKER_HOST", None),
    ("CONTAINERS_CONF", None),
    ("CONTAINERS_STORAGE_CONF", None),
];

/// A client as it was found when the container was to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    /// Absolute.
    path: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Client {
    /// The first program of this name in `PATH` that can be executed; none if there is none.
    pub(crate) fn find(program: &str) -> Option<Self> {
        let environment: BTreeMap<String, String> = present()
            // One that is no text leads nowhere from the beginning, which the client then says.
            .map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let found = std::env::split_paths(environment.get("PATH")?)
            // Where the others are depends on where one is.
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(program))
            .find(|path| path.is_file() && access(path, AccessFlags::X_OK).is_ok())?;
        Some(Self {
            path: found,
            environment,
        })
    }

    /// Whether this is what [`find`](Self::find) could have found: a job may have changed the note.
    pub(crate) fn is_believed(&self, program: &str) -> bool {
        self.path.is_absolute() && self.path.file_name().is_some_and(|name| name == program)
    }

    /// A command that runs it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env_clear();
        for (name, _) in VARIABLES {
            if let Some(value) = self.environment.get(name) {
                command.env(name, value);
            }
        }
        command
    }
}

/// A command that runs whatever has this name now: earlier versions noted no client.
pub(crate) fn command_by_name(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(present());
    command
}

fn present() -> impl Iterator<Item = (&'static str, OsString)> {
    VARIABLES.into_iter().filter_map(|(name, default)| {
        let value = std::env::var_os(name).or_else(|| default.map(OsString::from))?;
        Some((name, value))
    })
}
