//! Opening the state directory.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use longshore_cloud::{Driver, InstanceSet, ParameterError, ParameterErrors};
use longshore_types::{InstanceId, error_chain};
use serde_json::Value;

use crate::instance_set::Loopback;
use crate::processes::{self, END_TIMEOUT};
use crate::record::{self, Stored};

/// The largest value of the parameter `instances`.
pub const MAX_INSTANCES: usize = 1000;

/// Holds the directory for one process.
const LOCK: &str = "lock";

/// The driver `loopback`.
///
/// | parameter | meaning |
/// |---|---|
/// | `directory` | the state directory, required; made with mode 0700; used by one process at a time |
/// | `instances` | how many instances there may be at once, 1 to [`MAX_INSTANCES`], default 1 |
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackDriver;

#[async_trait]
impl Driver for LoopbackDriver {
    fn name(&self) -> &'static str {
        "loopback"
    }

    /// Takes the directory, starts a server for each instance that is recorded there, and goes on
    /// with what was being destroyed. What has outlived an instance that is gone is ended first.
    ///
    /// A record that cannot be read, or a directory that another process uses, is an error of the
    /// parameter `directory`.
    async fn open(&self, parameters: &Value) -> Result<Box<dyn InstanceSet>, ParameterErrors> {
        let parameters = Parameters::parse(parameters)?;
        let limit = parameters.instances;
        let opening = tokio::task::spawn_blocking(move || take(&parameters.directory));
        let taken = opening.await.map_err(|error| wrong_directory(&error))?;
        let taken = taken.map_err(|problem| wrong_directory(&problem))?;
        let opened = Loopback::start(taken, limit).await;
        Ok(Box::new(opened.map_err(|error| wrong_directory(&error))?))
    }
}

/// What makes a state directory this process's alone, until it is dropped.
///
/// It is unlocked then, not only closed: a process that is just being started has a copy of it for a
/// moment, and would hold the lock for as long.
#[derive(Debug)]
pub(crate) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // If that is not possible closing it has to do.
        let _ = self.0.unlock();
    }
}

/// A state directory that is this process's alone.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Absolute, without links.
    pub(crate) directory: PathBuf,
    pub(crate) lock: DirectoryLock,
    pub(crate) stored: Vec<Stored>,
}

#[derive(Debug)]
struct Parameters {
    directory: PathBuf,
    instances: usize,
}

impl Parameters {
    fn parse(value: &Value) -> Result<Self, ParameterErrors> {
        let mut errors = Vec::new();
        let mut wrong = |parameter: &str, problem: String| {
            errors.push(ParameterError::new(parameter, problem));
        };
        let nothing = serde_json::Map::new();
        let map = match value {
            Value::Object(map) => map,
            Value::Null => &nothing,
            other => {
                wrong(
                    "DriverParameters",
                    format!("expected an object, found {other}"),
                );
                return Err(ParameterErrors(errors));
            }
        };
        let mut directory = PathBuf::new();
        match map.get("directory") {
            Some(Value::String(text)) if !text.is_empty() => directory = text.into(),
            Some(other) => wrong("directory", format!("expected a path, found {other}")),
            None => wrong("directory", "is required: where to keep the state".into()),
        }
        let mut instances = 1;
        if let Some(given) = map.get("instances") {
            let number = given.as_u64().and_then(|n| usize::try_from(n).ok());
            match number.filter(|n| (1..=MAX_INSTANCES).contains(n)) {
                Some(number) => instances = number,
                None => wrong(
                    "instances",
                    format!("expected a whole number from 1 to {MAX_INSTANCES}, found {given}"),
                ),
            }
        }
        for unknown in map
            .keys()
            .filter(|key| !matches!(key.as_str(), "directory" | "instances"))
        {
            wrong(
                unknown,
                "is not a parameter of this driver; it has directory and instances".into(),
            );
        }
        if errors.is_empty() {
            Ok(Self {
                directory,
                instances,
            })
        } else {
            Err(ParameterErrors(errors))
        }
    }
}

fn wrong_directory(error: &(dyn std::error::Error + 'static)) -> ParameterErrors {
    let problem = ParameterError::new("directory", error_chain(error));
    ParameterErrors(vec![problem])
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error("cannot use {0}")]
    Io(String, #[source] io::Error),
    #[error("{0} is used by {1}")]
    Locked(String, String),
    #[error("{0} is not empty and is no state directory of this driver")]
    Foreign(String),
    #[error("{0} can be used by others (mode {1:o}); make it 0700")]
    Permissions(String, u32),
    #[error("cannot read what is recorded in")]
    Record(#[from] record::RecordError),
}

/// Makes the directory if need be, locks it and reads what is in it.
pub(crate) fn take(directory: &Path) -> Result<Taken, TakeError> {
    let name = directory.display().to_string();
    let io = |error| TakeError::Io(name.clone(), error);
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(directory).map_err(io)?;
    let directory = fs::canonicalize(directory).map_err(io)?;

    let lock_file = directory.join(LOCK);
    if !lock_file.try_exists().map_err(io)? {
        // An existing directory becomes private only if it is surely nobody else's.
        if fs::read_dir(&directory).map_err(io)?.next().is_some() {
            return Err(TakeError::Foreign(name));
        }
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).map_err(io)?;
    }
    let mode = fs::metadata(&directory).map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TakeError::Permissions(name, mode));
    }
    let lock = lock(&lock_file).map_err(|error| match error {
        LockError::Held(holder) => TakeError::Locked(name.clone(), holder),
        LockError::Io(error) => TakeError::Io(lock_file.display().to_string(), error),
    })?;
    let found = record::load_all(&directory)?;
    for id in &found.left {
        end_left(&directory, id);
    }
    Ok(Taken {
        directory,
        lock,
        stored: found.instances,
    })
}

/// Ends what has outlived its instance. If that cannot be done the others are not kept waiting for
/// it: it is told, and tried again when the directory is opened the next time.
fn end_left(directory: &Path, id: &InstanceId) {
    let place = record::instance_directory(directory, id);
    let run = record::run_directory(directory, id);
    tracing::warn!(instance = %id, "something of an instance that is gone is left, and is ended");
    if let Err(error) = processes::end_all(&place, &run, END_TIMEOUT) {
        let error = error_chain(&error);
        tracing::error!(%error, instance = %id, "cannot end what has outlived its instance");
        return;
    }
    match record::retire(directory, id) {
        Ok(path) => record::sweep(&path),
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(%error, instance = %id, "cannot remove what has outlived its instance");
        }
    }
}

#[derive(Debug)]
enum LockError {
    Held(String),
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Locks a file, and writes into it who did.
fn lock(path: &Path) -> Result<DirectoryLock, LockError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {
            let mut lock = DirectoryLock(file);
            lock.0.set_len(0)?;
            lock.0.rewind()?;
            write!(lock.0, "{}", std::process::id())?;
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&mut file).take(20).read_to_string(&mut holder);
            Err(LockError::Held(match holder.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "another process".into(),
            }))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_copy_of_a_lock_does_not_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path).unwrap();
        let copy = held.0.try_clone().unwrap();
        assert!(matches!(lock(&path), Err(LockError::Held(_))));
        drop(held);
        assert!(lock(&path).is_ok());
        drop(copy);
    }

    fn problems(value: &Value) -> Vec<String> {
        let errors = Parameters::parse(value).unwrap_err();
        errors.0.into_iter().map(|e| e.parameter).collect()
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let bad = json!({ "instances": 0, "Directory": "/x", "colour": 1 });
        assert_eq!(
            problems(&bad),
            ["directory", "instances", "Directory", "colour"]
        );
        assert_eq!(problems(&Value::Null), ["directory"]);
        assert_eq!(problems(&json!([1])), ["DriverParameters"]);
        for instances in [json!(-1), json!(1.5), json!("2"), json!(MAX_INSTANCES + 1)] {
            let value = json!({ "directory": "/x", "instances": instances });
            assert_eq!(problems(&value), ["instances"]);
        }
    }

    #[test]
    fn there_is_one_instance_unless_said_otherwise() {
        let parameters = Parameters::parse(&json!({ "directory": "/x" })).unwrap();
        assert_eq!(parameters.instances, 1);
    }
}
