//! The log: a file in the state directory, and standard error where asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
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
/// A log of this many bytes is put aside, in the place of the one before it.
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
    let file = LogFile::open(state_dir)
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

/// The file that is written, which another takes the place of once it is large.
struct LogFile {
    directory: PathBuf,
    file: File,
    size: u64,
}

impl LogFile {
    fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        if fs::metadata(&path).is_ok_and(|file| file.len() >= MAX_BYTES) {
            fs::rename(&path, directory.join(OLD_FILE))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            directory: directory.to_owned(),
            file,
            size,
        })
    }
}

impl Write for LogFile {
    /// Takes one line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size >= MAX_BYTES {
            // Where that cannot be done it goes on as it is, and is tried with the next line.
            if let Ok(new) = Self::open(&self.directory) {
                *self = new;
            }
        }
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let size = |name: &str| directory.path().join(name).metadata().map(|m| m.len()).ok();
        let open = || LogFile::open(directory.path()).unwrap();
        open().write_all(b"line\n").unwrap();
        drop(open());
        assert_eq!((size(FILE), size(OLD_FILE)), (Some(5), None));
        let large = File::options().write(true).open(&path).unwrap();
        large.set_len(MAX_BYTES).unwrap();
        drop(open());
        assert_eq!((size(FILE), size(OLD_FILE)), (Some(0), Some(MAX_BYTES)));
    }

    #[test]
    fn a_log_that_grows_large_is_put_aside_while_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let size = |name: &str| directory.path().join(name).metadata().unwrap().len();
        let mut log = LogFile::open(directory.path()).unwrap();
        let line = vec![b'x'; 1_000_000];
        for _ in 0..25 {
            log.write_all(&line).unwrap();
        }
        assert_eq!((size(FILE), size(OLD_FILE)), (5_000_000, MAX_BYTES));
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
