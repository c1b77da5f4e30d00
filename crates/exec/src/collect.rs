//! Running a command to its end and keeping a bounded part of what it says.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Command, ExecError, Executor, ExitStatus, Output, Target};

/// A command that ended, with the beginning of what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// The beginning of standard output.
    pub stdout: Vec<u8>,
    /// The beginning of standard error.
    pub stderr: Vec<u8>,
    /// Whether there was more of either than was kept.
    pub truncated: bool,
    /// How it ended; `None` if the host did not say, which is not success.
    pub status: Option<ExitStatus>,
}

impl Collected {
    /// Whether it surely ended with exit code 0.
    pub fn succeeded(&self) -> bool {
        self.status.as_ref().is_some_and(ExitStatus::is_success)
    }
}

/// Conveniences for every [`Executor`].
#[async_trait]
pub trait ExecutorExt: Executor {
    /// Runs a command with `stdin` to its end and keeps the first `limit` bytes of each stream.
    ///
    /// All of `stdin` is written before output is read: a command that answers much before it has
    /// read everything (`cat`, with megabytes) stalls until the timeout. Use [`Executor::open`]
    /// for such.
    async fn exec(
        &self,
        target: &Target,
        command: &Command,
        stdin: &[u8],
        timeout: Duration,
        limit: usize,
    ) -> Result<Collected, ExecError> {
        let mut process = self.open(target, command, timeout).await?;
        if !stdin.is_empty() {
            process.write_stdin(stdin).await?;
        }
        process.close_stdin().await?;
        let mut collected = Collected::default();
        while let Some(output) = process.output().await? {
            let (kept, chunk) = match output {
                Output::Stdout(chunk) => (&mut collected.stdout, chunk),
                Output::Stderr(chunk) => (&mut collected.stderr, chunk),
            };
            let room = limit.saturating_sub(kept.len()).min(chunk.len());
            kept.extend_from_slice(&chunk[..room]);
            collected.truncated |= room < chunk.len();
        }
        collected.status = process.wait().await?;
        Ok(collected)
    }
}

impl<E: Executor + ?Sized> ExecutorExt for E {}
