//! Who runs commands, and in which environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use longshore_runner_api::command::DIRECTORY_VARIABLE;
use nix::unistd::{Uid, User};

/// Where the user's container engine is.
pub(crate) const OF_ENGINES: [&str; 4] = [
    "XDG_RUNTIME_DIR",
    "DOCKER_HOST",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
];
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The current user, and what every command of an instance gets.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// Who may log in, and as whom commands run.
    pub(crate) user: String,
    /// Where commands start.
    pub(crate) home: PathBuf,
    /// All variables that a command has.
    pub(crate) variables: Vec<(&'static str, OsString)>,
}

impl Environment {
    /// The environment of an instance whose runner keeps its files in `run_directory`.
    pub(crate) fn new(run_directory: &Path) -> Self {
        let (user, home) = current_user();
        let mut variables = vec![
            ("PATH", path()),
            ("HOME", home.clone().into()),
            ("USER", user.clone().into()),
            ("SHELL", "/bin/sh".into()),
            (DIRECTORY_VARIABLE, run_directory.into()),
        ];
        variables.extend(of_engines());
        Self {
            user,
            home,
            variables,
        }
    }
}

/// Where programs are looked for.
pub(crate) fn path() -> OsString {
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
    path.unwrap_or_else(|| DEFAULT_PATH.into())
}

/// Those variables by which the user's container engine is found that are set here.
pub(crate) fn of_engines() -> Vec<(&'static str, OsString)> {
    let set = OF_ENGINES.map(|name| Some((name, std::env::var_os(name)?)));
    set.into_iter().flatten().collect()
}

/// Name and home of the current user; a user without an entry goes by number and lives at `/`.
pub(crate) fn current_user() -> (String, PathBuf) {
    let uid = Uid::effective();
    match User::from_uid(uid) {
        Ok(Some(user)) if user.dir.is_dir() => (user.name, user.dir),
        Ok(Some(user)) => (user.name, "/".into()),
        Ok(None) | Err(_) => (uid.to_string(), "/".into()),
    }
}
