//! The children that carry out what a watch stream is asked for.

use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::time::Duration;

use anyhow::{Context, Result};
use longshore_types::ContainerUuid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout};

use crate::directory::RunDirectory;
use crate::supervisor::READY;
use crate::system::{close_inherited, fork, wait_for};
use crate::{complain, guard};

/// A request that a child carries out.
pub(super) struct Child {
    pub(super) id: u64,
    pub(super) process: Pid,
    pub(super) way_back: PipeReader,
    pub(super) said: Vec<u8>,
    pub(super) task: Task,
}

/// What a child does.
pub(super) enum Task {
    /// Becomes the supervisor of a container.
    Start(ContainerUuid),
    Kill,
    /// Ends what a dead supervisor has left, with a container engine; nobody has asked for that.
    EndLeft(ContainerUuid),
    /// Removes what is acknowledged. The request is not answered by that, but has to wait for it.
    Acknowledge {
        acknowledged: Vec<ContainerUuid>,
        known: Known,
    },
    /// Looks for what is old; nobody has asked for that.
    Sweep,
}

/// The digest of what is known to whoever asks for a report, and how long to wait for another.
pub(super) type Known = (String, Duration);

impl Child {
    pub(super) fn new(id: u64, (process, way_back): (Pid, PipeReader), task: Task) -> Self {
        Self {
            id,
            process,
            way_back,
            said: Vec::new(),
            task,
        }
    }

    /// What it is about to start, unless it has become its supervisor.
    pub(super) fn starts(&self) -> Option<ContainerUuid> {
        match self.task {
            Task::Start(uuid) if !self.is_ready() => Some(uuid),
            _ => None,
        }
    }

    /// Whether it has said that it is a supervisor: on a line of its own, after what it complained of.
    pub(super) fn is_ready(&self) -> bool {
        let complaint = self.said.strip_suffix(READY);
        complaint.is_some_and(|before| before.last().is_none_or(|b| *b == b'\n'))
    }

    pub(super) fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.said).trim().to_owned()
    }

    /// Says what it has complained of, where nobody else is told.
    pub(super) fn pass_on_complaint(&self) {
        let said = self.complaint();
        complain(said.trim_start_matches("longshore-run: "));
    }
}

/// Tells the guard, if there is one, that a dispatcher is there; in a process of its own, because
/// that may start the guard, whose parent must not be one that ends its children or stays.
pub(super) fn contact(directory: &RunDirectory) {
    if !guard::is_wanted(directory) {
        return;
    }
    let told = child(|| {
        guard::contact(directory);
        Ok(0)
    });
    if let Ok((process, _)) = told {
        let _ = wait_for(process);
    }
}

/// Forks a child that does something and exits with its code; what it complains of comes back.
pub(super) fn child(act: impl FnOnce() -> Result<u8>) -> Result<(Pid, PipeReader)> {
    child_reading(None, act)
}

/// The same with something on its standard input.
pub(super) fn child_reading(
    input: Option<PipeReader>,
    act: impl FnOnce() -> Result<u8>,
) -> Result<(Pid, PipeReader)> {
    let (read, write) = std::io::pipe().context("cannot make a pipe")?;
    match fork().context("cannot fork")? {
        ForkResult::Parent { child } => Ok((child, read)),
        ForkResult::Child => {
            let code = match leave(&write, input).and_then(|()| act()) {
                Ok(code) => code,
                Err(error) => {
                    complain(&format!("{error:#}"));
                    1
                }
            };
            std::process::exit(i32::from(code))
        }
    }
}

/// Keeps nothing of the stream's: a supervisor is about to inherit all that is left.
fn leave(way_back: &PipeWriter, input: Option<PipeReader>) -> Result<()> {
    dup2_stderr(way_back)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    match &input {
        Some(input) => dup2_stdin(input)?,
        None => dup2_stdin(&null)?,
    }
    dup2_stdout(&null)?;
    close_inherited();
    // They are closed already.
    std::mem::forget((null, input));
    Ok(())
}
