//! The log: a file in the state directory, and standard error where asked for.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context as _;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::ending::UsageError;
use crate::state::StateError;

/// The name of the log in the state directory.
pub const FILE: &str = "longshore.log";
/// The name of the log before it, which grew too large.
pub const OLD_FILE: &str = "longshore.log.1";
/// A log of this many bytes is put aside when the program starts.
pub const MAX_BYTES: u64 = 10_000_000;

/// Starts logging: everything from level info into the file, and what `filter` says to standard
/// error.
pub fn start(state_dir: &Path, filter: Option<&str>) -> anyhow::Result<()> {
    let stderr_filter = filter
        .map(|text| {
            EnvFilter::try_new(text).map_err(|error| {
                UsageError::new(format!("--log: {error}; write a level like info or debug"))
            })
        })
        .transpose()?;
    let file = open(state_dir)
        .map_err(|source| StateError::unusable(state_dir, format!("opening {FILE}"), source))?;
    let to_file = layer()
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .with_filter(LevelFilter::INFO);
    let to_stderr = stderr_filter.map(|filter| layer().with_writer(io::stderr).with_filter(filter));
    tracing_subscriber::registry()
        .with(to_file)
        .with(to_stderr)
        .try_init()
        .context("logging was started before")
}

fn open(state_dir: &Path) -> io::Result<File> {
    let path = state_dir.join(FILE);
    if fs::metadata(&path).is_ok_and(|file| file.len() >= MAX_BYTES) {
        fs::rename(&path, state_dir.join(OLD_FILE))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_large_log_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let size = |name: &str| directory.path().join(name).metadata().map(|m| m.len()).ok();
        writeln!(open(directory.path()).unwrap(), "line").unwrap();
        drop(open(directory.path()).unwrap());
        assert_eq!((size(FILE), size(OLD_FILE)), (Some(5), None));
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MAX_BYTES)
            .unwrap();
        drop(open(directory.path()).unwrap());
        assert_eq!((size(FILE), size(OLD_FILE)), (Some(0), Some(MAX_BYTES)));
    }

    #[test]
    fn a_bad_filter_is_a_usage_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = start(directory.path(), Some("longshore=loud")).unwrap_err();
        assert!(error.is::<UsageError>(), "{error}");
        let nowhere = start(Path::new("/nonexistent"), None).unwrap_err();
        assert!(nowhere.to_string().contains("opening longshore.log"));
    }
}
