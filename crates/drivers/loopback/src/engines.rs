//! The containers that engines run for one instance: its runner notes them in an attempt's
//! `state` before they are made. Their processes are the engine's, which has to end them.
//!
//! A container could change its state, so only names that the runner would give are believed.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::environment;
use crate::notes::{self, Note};

/// How long an engine is asked to remove a container; who wants its instance gone may ask again.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// How much of what an engine complains about is kept, in bytes.
const MAX_COMPLAINT: u64 = 4096;

/// What is noted of a container.
#[derive(Debug, Deserialize)]
pub(crate) struct Engine {
    program: Program,
    name: String,
    /// The control group that it was put into, if the runner made one.
    parent: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Program {
    Podman,
    Docker,
}

/// A container that its engine does not remove.
#[derive(Debug, thiserror::Error)]
#[error("{program} does not remove the container {name}: {why}")]
pub(crate) struct NotRemoved {
    program: &'static str,
    name: String,
    why: String,
}

/// Ends and removes every container that may be left of the runner that keeps its files in `run`.
pub(crate) fn remove_all(run: &Path) -> Result<(), NotRemoved> {
    for attempt in notes::attempts(run) {
        let notes = notes::of(&attempt.directory);
        let has_result = notes.iter().any(|note| matches!(note, Note::Finished(_)));
        let expected = format!("longshore-{}-{}", attempt.container, attempt.number);
        let engines = notes.into_iter().filter_map(|note| match note {
            Note::Engine(engine) => Some(engine),
            _ => None,
        });
        // A result is only written once the container is gone.
        for engine in engines.filter(|engine| !has_result && engine.name == expected) {
            engine.remove()?;
        }
    }
    Ok(())
}

impl Engine {
    fn remove(&self) -> Result<(), NotRemoved> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let why = match run(&mut self.removal(), left) {
                Ok((true, _)) => return Ok(()),
                Ok((false, said)) if is_gone(&said) => return Ok(()),
                Ok((false, said)) => said.trim().to_owned(),
                // Without the program nothing of it can be.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => error.to_string(),
            };
            // Podman refuses while it notices itself that the processes were ended.
            if Instant::now() >= deadline {
                let (program, name) = (self.program.name(), self.name.clone());
                return Err(NotRemoved { program, name, why });
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn removal(&self) -> Command {
        let mut command = Command::new(self.program.name());
        command
            .env_clear()
            .envs(environment::of_engines())
            .env("PATH", environment::path())
            .env("HOME", environment::current_user().1);
        if self.parent.is_some() {
            // Otherwise it looks for the container's group elsewhere.
            command.arg("--cgroup-manager=cgroupfs");
        }
        command.args(["rm", "--force", "--volumes"]);
        if matches!(self.program, Program::Podman) {
            command.args(["--time", "0"]);
        }
        command.arg(&self.name);
        command
    }
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

fn is_gone(said: &str) -> bool {
    said.to_lowercase().contains("no such container")
}

/// Whether a command succeeded, and what it wrote to standard error; it is ended after `patience`.
fn run(command: &mut Command, patience: Duration) -> io::Result<(bool, String)> {
    let (errors, write) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(write)
        .process_group(0);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + patience;
    // What it has to say fits into the pipe, so that it need not be read before its end.
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            if let Ok(group) = i32::try_from(child.id()) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = Vec::new();
    // Something that it has left running may keep the other end open.
    fcntl(&errors, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let _ = errors.take(MAX_COMPLAINT).read_to_end(&mut said);
    Ok((
        status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}
