//! What a client sent and a command has not read yet.
//!
//! The SSH library grants a client more window as soon as data arrives, not when it is consumed,
//! and holds up the whole connection if one channel cannot take its data. A command that does not
//! read would stop all others, and one that waits for its client to read would never go on. So
//! data is taken from the connection at once: a little is kept in memory, the rest in an unnamed
//! file, and a client that sends more than the file may hold loses its command.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many unread bytes of a command's standard input are kept in memory.
pub const STDIN_IN_MEMORY: usize = 1 << 20;
/// How many unread bytes of a command's standard input are kept on disk; a client that is further
/// ahead than that loses its command.
pub const MAX_STDIN_ON_DISK: u64 = 4 << 30;

/// The most bytes that [`Stdin::next`] returns from the file.
const CHUNK: u64 = 64 << 10;

/// The standard input of one command, on its way from the connection to the command.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// Where the file is made.
    directory: PathBuf,
    state: Mutex<State>,
    /// Somebody has changed something for the command.
    changed: Notify,
    /// The channel was closed.
    closing: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Comes before what is in the file.
    memory: VecDeque<Vec<u8>>,
    in_memory: usize,
    file: Option<Arc<File>>,
    /// What is in the file, unread, lies between these two.
    read: u64,
    written: u64,
    /// The client will send no more.
    ended: bool,
    /// The client has closed the channel, or has lost it.
    closed: bool,
    /// The command will read no more.
    abandoned: bool,
    /// The command is over.
    finished: bool,
}

enum Next {
    Bytes(Vec<u8>),
    InFile(Arc<File>, u64, u64),
    End,
    Wait,
}

impl Stdin {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            state: Mutex::default(),
            changed: Notify::new(),
            closing: Notify::new(),
        }
    }

    /// Takes data from the client. Only one caller at a time.
    pub(crate) async fn push(&self, data: &[u8]) -> io::Result<()> {
        let (file, offset) = {
            let mut state = self.state();
            if state.abandoned || state.ended || state.closed {
                return Ok(());
            }
            let file_empty = state.read == state.written;
            if file_empty && state.in_memory + data.len() <= STDIN_IN_MEMORY {
                state.in_memory += data.len();
                state.memory.push_back(data.to_vec());
                self.changed.notify_one();
                return Ok(());
            }
            if state.written - state.read + data.len() as u64 > MAX_STDIN_ON_DISK {
                return Err(io::Error::other("too far ahead of the command"));
            }
            if file_empty {
                (state.read, state.written) = (0, 0);
            }
            let file = match &state.file {
                Some(file) => Arc::clone(file),
                None => Arc::clone(state.file.insert(Arc::new(self.unnamed_file()?))),
            };
            (file, state.written)
        };
        let bytes = data.to_vec();
        let length = bytes.len() as u64;
        tokio::task::spawn_blocking(move || {
            if offset == 0 {
                file.set_len(0)?;
            }
            file.write_all_at(&bytes, offset)
        })
        .await??;
        self.state().written += length;
        self.changed.notify_one();
        Ok(())
    }

    /// The client will send no more.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_one();
    }

    /// The channel is closed: the command is to be ended.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.closing.notify_one();
    }

    /// The command reads no more; what is there and what comes is dropped.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        *state = State {
            abandoned: true,
            closed: state.closed,
            finished: state.finished,
            ..State::default()
        };
    }

    /// The command is over, and its channel closed.
    pub(crate) fn finish(&self) {
        self.state().finished = true;
    }

    /// Whether [`Stdin::finish`] was called.
    pub(crate) fn is_finished(&self) -> bool {
        self.state().finished
    }

    /// Waits for [`Stdin::close`]. Only one waiter at a time.
    pub(crate) async fn closed(&self) {
        while !self.state().closed {
            self.closing.notified().await;
        }
    }

    /// The next piece, none at the end. Only one caller at a time.
    pub(crate) async fn next(&self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let next = self.take();
            match next {
                Next::Bytes(bytes) => return Ok(Some(bytes)),
                Next::End => return Ok(None),
                Next::Wait => self.changed.notified().await,
                Next::InFile(file, offset, length) => {
                    let bytes = tokio::task::spawn_blocking(move || {
                        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                        file.read_exact_at(&mut bytes, offset).map(|()| bytes)
                    })
                    .await??;
                    self.state().read += length;
                    return Ok(Some(bytes));
                }
            }
        }
    }

    fn take(&self) -> Next {
        let mut state = self.state();
        if let Some(bytes) = state.memory.pop_front() {
            state.in_memory -= bytes.len();
            return Next::Bytes(bytes);
        }
        match &state.file {
            Some(file) if state.read < state.written => Next::InFile(
                Arc::clone(file),
                state.read,
                CHUNK.min(state.written - state.read),
            ),
            _ if state.ended => Next::End,
            _ => Next::Wait,
        }
    }

    fn unnamed_file(&self) -> io::Result<File> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!(".stdin-{number}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_out_is_what_went_in_also_through_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let stdin = Stdin::new(folder.path().to_owned());
        let mut sent = Vec::new();
        let mut got = Vec::new();
        for round in 0..4u8 {
            // Three times as much as fits into memory, of which half is read before more comes.
            for piece in 0..96u8 {
                let data = vec![round.wrapping_mul(31).wrapping_add(piece); 32 << 10];
                stdin.push(&data).await.unwrap();
                sent.extend(data);
                assert!(stdin.state().in_memory <= STDIN_IN_MEMORY);
            }
            while got.len() < sent.len() - (usize::from(round % 2) << 20) {
                got.extend(stdin.next().await.unwrap().unwrap());
            }
        }
        stdin.end();
        while let Some(bytes) = stdin.next().await.unwrap() {
            got.extend(bytes);
        }
        assert!(sent == got, "{} sent, {} came out", sent.len(), got.len());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn who_is_too_far_ahead_is_refused_and_who_is_abandoned_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let stdin = Stdin::new(folder.path().to_owned());
        stdin.push(&vec![1; STDIN_IN_MEMORY]).await.unwrap();
        stdin.push(&[2]).await.unwrap();
        stdin.state().written = MAX_STDIN_ON_DISK;
        assert!(stdin.push(&[3]).await.is_err());
        stdin.abandon();
        stdin.push(&[4]).await.unwrap();
        assert_eq!(stdin.state().in_memory, 0);
    }
}
