//! The process that is killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(10);

/// `longshore run`, or another command.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    child: Child,
    log: PathBuf,
}

impl Dispatcher {
    pub(crate) fn start(
        binary: &Path,
        arguments: &[&Path],
        state: &Path,
        log: PathBuf,
    ) -> Result<Self> {
        let output = File::create(&log)?;
        let child = Command::new(binary)
            .args(arguments)
            .arg("--state-dir")
            .arg(state)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        Ok(Self { child, log })
    }

    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end; none if that did not come in time.
    pub(crate) fn wait(&mut self, bound: Duration) -> Result<Option<ExitStatus>> {
        let since = Instant::now();
        loop {
            match self.ended()? {
                None if since.elapsed() < bound => std::thread::sleep(LOOK),
                ended => return Ok(ended),
            }
        }
    }

    /// Stops it in its tracks: until it is thawed, what it has written does not change.
    ///
    /// Returns when it really stands still, or has ended.
    pub(crate) fn freeze(&self) -> Result<()> {
        let pid = self.pid()?;
        kill(pid, Signal::SIGSTOP)?;
        // Does not reap an end: that is for `ended`.
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), flags)?;
        Ok(())
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        Ok(kill(self.pid()?, Signal::SIGCONT)?)
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    /// Sends KILL and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// The end of what it has said.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
