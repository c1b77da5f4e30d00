//! Reaches an instance that is a directory: commands run there, as processes of this machine.

use std::future::pending;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use longshore_exec::*;
use longshore_types::InstanceId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, timeout_at};

use crate::directories::Directories;

#[derive(Debug)]
pub(crate) struct Local(pub(crate) Directories);

#[derive(Debug)]
struct LocalProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    deadline: Instant,
}

#[async_trait]
impl Executor for Local {
    async fn open(
        &self,
        target: &Target,
        command: &Command,
        timeout: Duration,
    ) -> Result<Box<dyn Process>, ExecError> {
        let now = Instant::now();
        let never = now + Duration::from_secs(30 * 365 * 24 * 3600);
        let deadline = now.checked_add(timeout).unwrap_or(never);
        if !matches!(target.identity, Identity::Unchecked) {
            let error = "a directory cannot prove who it is";
            return Err(ExecError::not_run(Phase::HostIdentity, error));
        }
        let disk = self.0.disk(&target.instance);
        if !disk.is_dir() {
            return Err(ExecError::not_run(Phase::Connect, "there is no such disk"));
        }
        let mut shell = tokio::process::Command::new("sh");
        shell.arg("-c").arg(&command.line).current_dir(disk);
        // A group of its own: it can be ended with all that it started.
        shell.process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let spawned = shell.stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| ExecError::not_run(Phase::Open, error))?;
        Ok(Box::new(LocalProcess {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            deadline,
        }))
    }

    // There are no connections.
    async fn disconnect(&self, _: &InstanceId) {}
}

/// From here on nobody knows what the command did.
fn broke(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ExecError {
    ExecError::may_have_run(Phase::Command, error)
}

fn late<E>(_: E) -> ExecError {
    broke("the time is up")
}

/// One read, or nothing for ever once the stream has ended. Dropping it loses nothing.
async fn read(stream: &mut Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let Some(open) = stream else {
        return pending().await;
    };
    let mut bytes = vec![0; MAX_CHUNK];
    let count = open.read(&mut bytes).await?;
    bytes.truncate(count);
    if count == 0 {
        *stream = None;
    }
    Ok(bytes)
}

#[async_trait]
impl Process for LocalProcess {
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
        let Some(stdin) = &mut self.stdin else {
            return Err(broke("its input is closed"));
        };
        let written = timeout_at(self.deadline, stdin.write_all(bytes)).await;
        match written.map_err(late)? {
            // A command that does not want its input: the rest is dropped.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(broke),
        }
    }

    async fn close_stdin(&mut self) -> Result<(), ExecError> {
        self.stdin = None;
        Ok(())
    }

    async fn output(&mut self) -> Result<Option<Output>, ExecError> {
        while self.stdout.is_some() || self.stderr.is_some() {
            let (stdout, stderr) = (&mut self.stdout, &mut self.stderr);
            let either = async {
                tokio::select! {
                    bytes = read(stdout) => bytes.map(Output::Stdout),
                    bytes = read(stderr) => bytes.map(Output::Stderr),
                }
            };
            let output = timeout_at(self.deadline, either).await.map_err(late)?;
            match output.map_err(broke)? {
                // The end of one of them.
                Output::Stdout(bytes) | Output::Stderr(bytes) if bytes.is_empty() => {}
                output => return Ok(Some(output)),
            }
        }
        Ok(None)
    }

    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        while self.output().await?.is_some() {}
        let ended = timeout_at(self.deadline, self.child.wait()).await;
        let status = ended.map_err(late)?.map_err(broke)?;
        // No code: a signal ended it. That is not success, and not a code.
        let code = status.code().map(i32::cast_unsigned);
        Ok(code.map(ExitStatus::Code))
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        // Until it was waited for, its number is its own.
        if let Some(pid) = self.child.id() {
            let group = format!("-{pid}");
            let mut kill = std::process::Command::new("kill");
            // What fails here had ended before.
            let _ = kill.args(["-KILL", "--", &group]).output();
        }
    }
}
