//! An executor for tests: hosts that answer as a function says, without a network or a clock.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_types::InstanceId;

use crate::{Command, ExecError, Executor, ExitStatus, MAX_CHUNK, Output, Process, Target};

/// What a command does, as a [`Scripted`] executor plays it.
///
/// ```
/// use longshore_exec::testing::Answer;
/// use longshore_exec::{ExecError, ExitStatus, Phase};
///
/// // From a text: it says that and ends well.
/// let _ = Answer::from("ready\n");
/// let _ = Answer::new(ExitStatus::Code(3)).stdout("half of it").stderr("disk full\n");
/// // The connection breaks after some output; nobody knows how it ended.
/// let lost = ExecError::may_have_run(Phase::Command, "connection reset");
/// let _ = Answer::silent().stdout("half of it").breaks(lost);
/// // It was not even started.
/// let _ = Answer::refused(ExecError::not_run(Phase::Connect, "connection refused"));
/// ```
#[derive(Debug)]
pub struct Answer {
    opens: Result<(), ExecError>,
    output: VecDeque<Output>,
    breaks: Option<ExecError>,
    status: Option<ExitStatus>,
}

impl Answer {
    /// A command that ends like this.
    pub fn new(status: ExitStatus) -> Self {
        Self {
            status: Some(status),
            ..Self::silent()
        }
    }

    /// A command of which nobody says how it ended.
    pub fn silent() -> Self {
        Self {
            opens: Ok(()),
            output: VecDeque::new(),
            breaks: None,
            status: None,
        }
    }

    /// A command that cannot be started.
    pub fn refused(error: ExecError) -> Self {
        Self {
            opens: Err(error),
            ..Self::silent()
        }
    }

    /// Adds standard output.
    pub fn stdout(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let chunks = bytes.as_ref().chunks(MAX_CHUNK);
        self.output.extend(chunks.map(|c| Output::Stdout(c.into())));
        self
    }

    /// Adds standard error.
    pub fn stderr(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let chunks = bytes.as_ref().chunks(MAX_CHUNK);
        self.output.extend(chunks.map(|c| Output::Stderr(c.into())));
        self
    }

    /// After its output, nothing but this error.
    pub fn breaks(mut self, error: ExecError) -> Self {
        self.breaks = Some(error);
        self
    }
}

impl From<&str> for Answer {
    /// Says that and exits with code 0.
    fn from(text: &str) -> Self {
        Self::new(ExitStatus::Code(0)).stdout(text)
    }
}

/// One thing that was asked of a [`Scripted`] executor.
///
/// No example: the one of [`Scripted`] has some.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// A command was opened.
    Open {
        /// Where.
        instance: InstanceId,
        /// What.
        line: String,
    },
    /// Standard input was closed, or the process dropped before that, after these bytes.
    Input {
        /// Where.
        instance: InstanceId,
        /// What was written.
        bytes: Vec<u8>,
    },
    /// An instance was disconnected.
    Disconnect {
        /// Which.
        instance: InstanceId,
    },
}

type Script = dyn Fn(&Target, &str) -> Answer + Send + Sync;

/// An executor whose hosts answer each command as a function of the target and the line says.
///
/// What it does not play: it has no deadlines, because nothing in it takes time; it checks no
/// identity; each answer is there at once and ends whether or not its input was read. It keeps
/// everything that it was asked, without a bound. All clones share that.
///
/// ```
/// use std::time::Duration;
/// use longshore_exec::testing::{Answer, Call, Scripted};
/// use longshore_exec::{Command, Executor, ExecutorExt, ExitStatus, Identity, Target};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let executor = Scripted::new(|target, line| match (target.address.as_str(), line) {
///     ("10.0.0.1", "uptime") => "up 3 days\n".into(),
///     _ => Answer::new(ExitStatus::Code(127)).stderr("no such command\n"),
/// });
/// let target = Target::new("i-1", "10.0.0.1", "root", Identity::Unchecked);
/// let second = Duration::from_secs(1);
/// let done = executor.exec(&target, &Command::new("uptime"), b"in", second, 100).await?;
/// assert_eq!(done.stdout, b"up 3 days\n");
/// let done = executor.exec(&target, &Command::new("downtime"), &[], second, 100).await?;
/// assert!(!done.succeeded());
/// executor.disconnect(&target.instance).await;
///
/// let calls = executor.calls();
/// let instance = target.instance;
/// assert_eq!(calls[0], Call::Open { instance: instance.clone(), line: "uptime".to_owned() });
/// assert_eq!(calls[1], Call::Input { instance: instance.clone(), bytes: b"in".to_vec() });
/// assert_eq!(calls.last(), Some(&Call::Disconnect { instance }));
/// # Ok::<(), longshore_exec::ExecError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Script>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Scripted {
    /// An executor that asks `script` for each command, when it is opened.
    pub fn new(script: impl Fn(&Target, &str) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            calls: Arc::default(),
        }
    }

    /// Everything that was asked so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        let calls = self.calls.lock();
        calls.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, call: Call) {
        let calls = self.calls.lock();
        calls.unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").finish_non_exhaustive()
    }
}

#[async_trait]
impl Executor for Scripted {
    async fn open(
        &self,
        target: &Target,
        command: &Command,
        _: Duration,
    ) -> Result<Box<dyn Process>, ExecError> {
        let instance = target.instance.clone();
        let line = command.line.clone();
        self.note(Call::Open { instance, line });
        let mut answer = (self.script)(target, &command.line);
        std::mem::replace(&mut answer.opens, Ok(()))?;
        Ok(Box::new(ScriptedProcess {
            executor: self.clone(),
            instance: target.instance.clone(),
            input: Some(Vec::new()),
            answer,
        }))
    }

    async fn disconnect(&self, instance: &InstanceId) {
        let instance = instance.clone();
        self.note(Call::Disconnect { instance });
    }
}

#[derive(Debug)]
struct ScriptedProcess {
    executor: Scripted,
    instance: InstanceId,
    /// `None` once it was closed.
    input: Option<Vec<u8>>,
    answer: Answer,
}

impl ScriptedProcess {
    fn end_input(&mut self) {
        if let Some(bytes) = self.input.take() {
            let instance = self.instance.clone();
            self.executor.note(Call::Input { instance, bytes });
        }
    }

    /// What the script says must happen after the output; the same each time.
    fn broken(&self) -> Result<(), ExecError> {
        match &self.answer.breaks {
            None => Ok(()),
            Some(error) => Err(ExecError {
                phase: error.phase,
                may_have_run: error.may_have_run,
                source: error.source.to_string().into(),
            }),
        }
    }
}

#[async_trait]
impl Process for ScriptedProcess {
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
        match &mut self.input {
            Some(input) => input.extend_from_slice(bytes),
            None => {
                let closed = "the standard input is closed";
                return Err(ExecError::may_have_run(crate::Phase::Command, closed));
            }
        }
        Ok(())
    }

    async fn close_stdin(&mut self) -> Result<(), ExecError> {
        self.end_input();
        Ok(())
    }

    async fn output(&mut self) -> Result<Option<Output>, ExecError> {
        match self.answer.output.pop_front() {
            Some(output) => Ok(Some(output)),
            None => self.broken().map(|()| None),
        }
    }

    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        self.answer.output.clear();
        self.broken().map(|()| self.answer.status.clone())
    }
}

impl Drop for ScriptedProcess {
    fn drop(&mut self) {
        self.end_input();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExecutorExt as _, Identity, Phase};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn answers_are_played_as_written() {
        let long = vec![b'x'; MAX_CHUNK + 1];
        let output = long.clone();
        let executor = Scripted::new(move |_, line| match line {
            "long" => Answer::silent().stdout(&output).stderr("end"),
            "lost" => Answer::from("half").breaks(ExecError::may_have_run(Phase::Command, "cut")),
            _ => Answer::refused(ExecError::not_run(Phase::Connect, "nobody")),
        });
        let target = Target::new("i", "h", "u", Identity::Unchecked);
        let run = |line| {
            let (executor, target) = (executor.clone(), target.clone());
            async move {
                let line = Command::new(line);
                executor.exec(&target, &line, &[], SECOND, 1 << 20).await
            }
        };
        let done = run("long").await.unwrap();
        assert_eq!((done.stdout, &done.stderr[..]), (long, &b"end"[..]));
        assert_eq!(done.status, None);
        let lost = run("lost").await.unwrap_err();
        assert_eq!((lost.phase, lost.may_have_run), (Phase::Command, true));
        let none = run("none").await.unwrap_err();
        assert_eq!(none.chain(), "connect failed: nobody");

        let lost = Command::new("lost");
        let mut process = executor.open(&target, &lost, SECOND).await.unwrap();
        let half = process.output().await.unwrap();
        assert_eq!(half, Some(Output::Stdout(b"half".to_vec())));
        for _ in 0..2 {
            assert!(process.output().await.is_err());
            assert!(process.wait().await.is_err());
        }
        process.close_stdin().await.unwrap();
        assert!(process.write_stdin(b"late").await.is_err());
    }
}
