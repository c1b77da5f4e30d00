//! Running a command to its end and keeping a bounded part of what it says.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Command, ExecError, Executor, ExitStatus, Output, Target};

/// A command that ended, with the beginning of what it said.
///
/// ```
/// use longshore_exec::{Collected, ExitStatus};
/// let mut done = Collected::default();
/// // Nobody said how it ended: that is not success.
/// assert!(!done.succeeded());
/// done.status = Some(ExitStatus::Code(0));
/// assert!(done.succeeded());
/// ```
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

/// How many pieces of output are read before others have a turn: a host that always has more must
/// not keep a thread to itself.
const PIECES_A_TURN: u32 = 16;

/// Conveniences for every [`Executor`], `dyn Executor` too.
///
/// ```
/// use std::time::Duration;
/// use longshore_exec::{Command, ExecError, Executor, ExecutorExt, Target};
///
/// async fn host_name(executor: &dyn Executor, target: &Target) -> Result<String, ExecError> {
///     let line = Command::new("hostname");
///     let done = executor.exec(target, &line, &[], Duration::from_secs(10), 256).await?;
///     Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
/// }
/// ```
#[async_trait]
pub trait ExecutorExt: Executor {
    /// Runs a command with `stdin` to its end and keeps the first `limit` bytes of each stream.
    ///
    /// What goes beyond is read and dropped, so that the command is not held up;
    /// [`Collected::truncated`] says so. `timeout` is that of [`Executor::open`].
    ///
    /// All of `stdin` is written before output is read: a command that answers much before it has
    /// read everything (`cat`, with megabytes) stalls until the timeout. Use [`Executor::open`]
    /// for such.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::open`] and of [`Process`](crate::Process). A command that ended is none,
    /// however it ended: ask [`Collected::succeeded`].
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
        for pieces in 1u32.. {
            let Some(output) = process.output().await? else {
                break;
            };
            if pieces % PIECES_A_TURN == 0 {
                yield_now().await;
            }
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

/// Lets others have a turn, and a caller's deadline be seen.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use longshore_types::InstanceId;

    use super::*;
    use crate::{Identity, Process};

    /// A host that always has more to say, at once.
    #[derive(Debug)]
    struct Chatterbox;

    #[async_trait]
    impl Executor for Chatterbox {
        async fn open(
            &self,
            _: &Target,
            _: &Command,
            _: Duration,
        ) -> Result<Box<dyn Process>, ExecError> {
            Ok(Box::new(Self))
        }

        async fn disconnect(&self, _: &InstanceId) {}
    }

    #[async_trait]
    impl Process for Chatterbox {
        async fn write_stdin(&mut self, _: &[u8]) -> Result<(), ExecError> {
            Ok(())
        }

        async fn close_stdin(&mut self) -> Result<(), ExecError> {
            Ok(())
        }

        async fn output(&mut self) -> Result<Option<Output>, ExecError> {
            Ok(Some(Output::Stdout(vec![b'x'; 1024])))
        }

        async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_host_that_always_has_more_does_not_keep_the_thread() {
        let target = Target::new("i-1", "10.0.0.1", "root", Identity::Unchecked);
        let (command, timeout) = (Command::new("yes"), Duration::from_secs(1));
        let talk = Chatterbox.exec(&target, &command, &[], timeout, 4096);
        tokio::select! {
            biased;
            _ = talk => panic!("it never ends"),
            () = std::future::ready(()) => {}
        }
    }
}
