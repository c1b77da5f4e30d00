//! The output of containers as files: `logs/UUID/stdout` and `logs/UUID/stderr`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use longshore_exec::{OutputSink, OutputStore};
use longshore_queue::QueueErrorKind;
use longshore_types::{Attempt, ContainerUuid};
use rusqlite::OptionalExtension;

use crate::Store;
use crate::error::sqlite;
use crate::row::not_found;

const STREAMS: [&str; 2] = ["stdout", "stderr"];

impl Store {
    /// Where an output stream (`stdout` or `stderr`) of a container is kept once it ended.
    pub fn output_path(&self, uuid: ContainerUuid, stream: &str) -> PathBuf {
        self.output_directory(uuid).join(stream)
    }

    fn output_directory(&self, uuid: ContainerUuid) -> PathBuf {
        self.directory.join("logs").join(uuid.as_str())
    }
}

#[async_trait]
impl OutputStore for Store {
    async fn wanted(&self, uuid: ContainerUuid) -> io::Result<Option<u64>> {
        let everything: bool = self
            .read(self.settings.request_timeout, move |connection| {
                connection
                    .prepare_cached("SELECT keep_output FROM containers WHERE uuid = ?1")
                    .and_then(|mut statement| {
                        statement
                            .query_row([uuid.as_str()], |row| row.get(0))
                            .optional()
                    })
                    .map_err(|e| sqlite("a container could not be read", e))?
                    .ok_or_else(|| not_found(uuid))
            })
            .await
            .map_err(|error| match error.kind {
                QueueErrorKind::NotFound => io::Error::new(io::ErrorKind::NotFound, error),
                _ => io::Error::other(error),
            })?;
        Ok((!everything).then_some(self.settings.kept_output_bytes))
    }

    async fn begin(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        stream: &'static str,
        skipped: u64,
    ) -> io::Result<Box<dyn OutputSink>> {
        if !STREAMS.contains(&stream) {
            let what = format!("there is no output stream {stream:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let directory = self.output_directory(uuid);
        let sink = blocking(move || FileSink::create(&directory, attempt, stream, skipped)).await?;
        Ok(Box::new(sink))
    }
}

/// A stream that is being written under another name until it is complete.
#[derive(Debug)]
struct FileSink {
    directory: PathBuf,
    unfinished: PathBuf,
    finished: PathBuf,
    /// None while it is lent to a blocking thread, after an error, and once finished.
    file: Option<File>,
}

impl FileSink {
    fn create(
        directory: &Path,
        attempt: Attempt,
        stream: &'static str,
        skipped: u64,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        remove_leftovers(directory, stream)?;
        let unfinished = directory.join(format!(".{stream}.{attempt}.part"));
        let mut sink = Self {
            directory: directory.to_owned(),
            finished: directory.join(stream),
            file: Some(File::create(&unfinished)?),
            unfinished,
        };
        if skipped > 0
            && let Some(file) = &mut sink.file
        {
            writeln!(
                file,
                "[longshore: {skipped} bytes before this were dropped]"
            )?;
        }
        Ok(sink)
    }

    fn take_file(&mut self) -> io::Result<File> {
        let gone = || io::Error::other("this stream is finished, or failed before");
        self.file.take().ok_or_else(gone)
    }
}

#[async_trait]
impl OutputSink for FileSink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.take_file()?;
        let bytes = bytes.to_vec();
        let file = blocking(move || file.write_all(&bytes).map(|()| file)).await?;
        self.file = Some(file);
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        let file = self.take_file()?;
        let (from, to) = (self.unfinished.clone(), self.finished.clone());
        let directory = self.directory.clone();
        blocking(move || {
            file.sync_all()?;
            fs::rename(from, to)?;
            File::open(directory)?.sync_all()
        })
        .await
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        // There is none any more if it was finished; a newer attempt may have removed it, too.
        if let Err(error) = fs::remove_file(&self.unfinished)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.unfinished.display(), %error, "cannot be removed");
        }
    }
}

/// Removes what earlier, unfinished transfers of this stream left.
fn remove_leftovers(directory: &Path, stream: &str) -> io::Result<()> {
    let prefix = format!(".{stream}.");
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.starts_with(&prefix) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
