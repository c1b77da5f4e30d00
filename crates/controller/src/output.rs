//! The output of containers as files: `logs/UUID/stdout` and `logs/UUID/stderr`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use longshore_exec::{OutputSink, OutputStore};
use longshore_queue::QueueErrorKind;
use longshore_types::{Attempt, ContainerUuid};
use rusqlite::{Connection, OptionalExtension};

use crate::Store;
use crate::error::sqlite;
use crate::row::not_found;
use crate::store::Reader;

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
            .dispatcher_reader
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
        let newest = Newest {
            reader: self.dispatcher_reader.clone(),
            timeout: self.settings.request_timeout,
            uuid,
        };
        let sink = FileSink::create(directory, newest, attempt, stream, skipped);
        Ok(Box::new(blocking(move || sink).await?))
    }
}

/// Says which attempt of a container is the newest.
#[derive(Clone, Debug)]
struct Newest {
    reader: Reader,
    timeout: Duration,
    uuid: ContainerUuid,
}

impl Newest {
    /// None if there is no such container any more.
    async fn attempt(&self) -> io::Result<Option<Attempt>> {
        let uuid = self.uuid;
        let read = move |connection: &Connection| {
            connection
                .prepare_cached("SELECT lock_count FROM containers WHERE uuid = ?1")
                .and_then(|mut statement| {
                    let row = statement.query_row([uuid.as_str()], |row| row.get(0));
                    row.optional()
                })
                .map_err(|e| sqlite("a container could not be read", e))
        };
        let newest = self.reader.read(self.timeout, read).await;
        newest
            .map(|count: Option<u32>| count.map(Attempt))
            .map_err(io::Error::other)
    }
}

/// A stream that is being written under another name until it is complete.
#[derive(Debug)]
struct FileSink {
    directory: PathBuf,
    newest: Newest,
    attempt: Attempt,
    unfinished: PathBuf,
    finished: PathBuf,
    /// None while it is lent to a blocking thread, after an error, and once finished.
    file: Option<File>,
}

impl FileSink {
    fn create(
        directory: PathBuf,
        newest: Newest,
        attempt: Attempt,
        stream: &'static str,
        skipped: u64,
    ) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        if let Some(parent) = directory.parent() {
            File::open(parent)?.sync_all()?;
        }
        remove_leftovers(&directory, attempt, stream)?;
        let unfinished = directory.join(format!(".{stream}.{attempt}.part"));
        let mut sink = Self {
            finished: directory.join(stream),
            directory,
            newest,
            attempt,
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
        if self.newest.attempt().await? > Some(self.attempt) {
            // A machine that was away for long brings what a newer attempt has replaced.
            return Ok(());
        }
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

/// Removes what earlier, unfinished transfers of this stream left, of no newer attempt.
fn remove_leftovers(directory: &Path, attempt: Attempt, stream: &str) -> io::Result<()> {
    let prefix = format!(".{stream}.");
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let of = name.strip_prefix(&prefix).map(|rest| {
            let number = rest.strip_suffix(".part").unwrap_or(rest);
            number.parse().unwrap_or(0)
        });
        if of.is_some_and(|of: u32| of <= attempt.0) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[tokio::test]
    async fn output_is_brought_home_while_clients_read() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Settings::default()).unwrap();
        let store = std::sync::Arc::new(store);
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let reading = store.clone();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let client = tokio::spawn(async move {
            let read = move |_: &Connection| {
                let _ = (begun.send(()), wait.recv());
                Ok(())
            };
            reading.read(Duration::MAX, read).await
        });
        has_begun.await.unwrap();
        let uuid: ContainerUuid = "local-dz642-000000000000000".parse().unwrap();
        let wanted = store.wanted(uuid).await.unwrap_err();
        assert_eq!(wanted.kind(), io::ErrorKind::NotFound, "{wanted}");
        let mut sink = store.begin(uuid, Attempt(1), "stdout", 0).await.unwrap();
        sink.write(b"said").await.unwrap();
        sink.finish().await.unwrap();
        assert!(store.output_path(uuid, "stdout").exists());
        drop(done);
        client.await.unwrap().unwrap();
    }
}
