//! What a job waits at until it may run.

use std::io::{self, PipeReader, PipeWriter, Read, Write};

/// The job's side. Its end, which comes with that of whoever has the [`Leave`] at the latest, forbids
/// the job for good.
#[derive(Debug)]
pub(crate) struct Gate(PipeReader);

/// The supervisor's side.
#[derive(Debug)]
pub(crate) struct Leave(PipeWriter);

/// A gate, and the only leave to go through.
pub(crate) fn gate() -> io::Result<(Gate, Leave)> {
    let (read, write) = io::pipe()?;
    Ok((Gate(read), Leave(write)))
}

impl Gate {
    /// Waits for leave; `false` if there will be none.
    pub(crate) fn wait(&mut self) -> bool {
        self.0.read_exact(&mut [0]).is_ok()
    }
}

impl Leave {
    /// Lets the job run.
    pub(crate) fn give(mut self) {
        // Where nobody waits any more nobody needs it.
        let _ = self.0.write_all(b"+");
    }
}
