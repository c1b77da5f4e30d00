//! Hearing from jobs: they write a letter into a FIFO, and it is noted when it came.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::stat::Mode;
use tokio::sync::mpsc;

/// What jobs write when they begin.
pub(super) const BEGUN: u8 = b's';
/// What jobs write when they end.
pub(super) const ENDED: u8 = b'e';
/// Ends the thread that reads.
const QUIT: u8 = b'q';
/// The longest time in which a job must be heard of.
const PATIENCE: Duration = Duration::from_secs(60);

/// A FIFO that jobs write to.
#[derive(Debug)]
pub(super) struct Fifo {
    path: PathBuf,
    file: File,
    heard: mpsc::UnboundedReceiver<(u8, Instant)>,
    thread: Option<JoinHandle<()>>,
}

impl Fifo {
    /// Makes it. A thread of its own reads it, so that nothing else delays the time stamp.
    pub(super) fn make(path: &Path) -> anyhow::Result<Self> {
        nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).context("cannot make a FIFO")?;
        // Open for both, so that neither a job that opens it nor reading it ever waits for the
        // other side to be there.
        let open = || OpenOptions::new().read(true).write(true).open(path);
        let file = open().context("cannot open a FIFO")?;
        let mut reader = open().context("cannot open a FIFO")?;
        let (sender, heard) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("bench fifo".into())
            .spawn(move || listen(&mut reader, &sender))
            .context("cannot start a thread")?;
        Ok(Self {
            path: path.to_owned(),
            file,
            heard,
            thread: Some(thread),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// When the next letter came, which has to be `expected`.
    pub(super) async fn next(&mut self, expected: u8) -> anyhow::Result<Instant> {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv());
        let heard = heard.await.context("a job was not heard of for a minute")?;
        let (letter, at) = heard.context("the FIFO cannot be read any more")?;
        anyhow::ensure!(
            letter == expected,
            "a job wrote {:?} where {:?} was expected",
            char::from(letter),
            char::from(expected)
        );
        Ok(at)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        if self.file.write_all(&[QUIT]).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads the FIFO had panicked");
        }
    }
}

fn listen(reader: &mut File, sender: &mpsc::UnboundedSender<(u8, Instant)>) {
    let mut buffer = [0; 256];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let now = Instant::now();
        for &letter in buffer[..read].iter().filter(|byte| **byte != b'\n') {
            if letter == QUIT || sender.send((letter, now)).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn letters_are_heard_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut fifo = Fifo::make(&folder.path().join("fifo")).unwrap();
        let before = Instant::now();
        std::fs::write(fifo.path(), "s\n").unwrap();
        std::fs::write(fifo.path(), "e\n").unwrap();
        let begun = fifo.next(BEGUN).await.unwrap();
        let ended = fifo.next(ENDED).await.unwrap();
        assert!(before <= begun && begun <= ended);
        std::fs::write(fifo.path(), "e\n").unwrap();
        let error = fifo.next(BEGUN).await.unwrap_err().to_string();
        assert!(error.contains("'e'"), "{error}");
    }
}
