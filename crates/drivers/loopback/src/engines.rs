//! The containers that engines run for one instance: its runner notes them in an attempt's
//! `state` before they are made. Their processes are the engine's, which has to end them.
//!
//! The runner also notes by which program and with which variables the engine was asked. The same
//! is asked here: another engine would truly say that it has no such container. One that nobody can
//! be asked about is not gone.
//!
//! A container could change its state, so only what the runner would note is believed.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
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
    /// Whom to ask; earlier runners did not say.
    client: Option<Client>,
}

/// The client by which the runner had the container made.
#[derive(Debug, Deserialize)]
struct Client {
    path: PathBuf,
    environment: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Program {
    Podman,
    Docker,
}

/// A container that may still be there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRemoved {
    #[error("{program} does not remove the container {name}: {why}")]
    Refused {
        program: &'static str,
        name: String,
        why: String,
    },
    #[error(
        "cannot ask {} whether the container {name} is gone, so that its instance stays; have it \
         there again, or delete {} once the container is surely gone",
        .client.display(),
        .attempt.display()
    )]
    NoClient {
        client: PathBuf,
        name: String,
        attempt: PathBuf,
        source: io::Error,
    },
}

/// Ends and removes every container that may be left of the runner that keeps its files in `run`.
pub(crate) fn remove_all(run: &Path) -> Result<(), NotRemoved> {
    for attempt in notes::attempts(run) {
        let notes = notes::of(&attempt.directory);
        let has_result = notes.iter().any(|note| matches!(note, Note::Finished(_)));
        let expected = format!("longshore-{}-{}", attempt.container, attempt.number);
        // A result is only written once the container is gone.
        for engine in left(notes).filter(|engine| !has_result && engine.name == expected) {
            engine.remove(&attempt.directory)?;
        }
    }
    Ok(())
}

/// What an attempt's notes name and do not say to be removed.
fn left(notes: Vec<Note>) -> impl Iterator<Item = Engine> {
    let mut left = Vec::new();
    for note in notes {
        match note {
            Note::Engine(engine) => left.push(engine),
            Note::EngineRemoved => left.clear(),
            _ => {}
        }
    }
    left.into_iter()
}

impl Engine {
    /// Removes it; `attempt` is the directory in which it is noted.
    fn remove(&self, attempt: &Path) -> Result<(), NotRemoved> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut command = self.removal();
            let why = match run(&mut command, left) {
                Ok((true, _)) => return Ok(()),
                Ok((false, said)) if is_gone(&said) => return Ok(()),
                Ok((false, said)) => said.trim().to_owned(),
                // The engine's processes go on without its client's program.
                Err(source) if cannot_start(&source) => {
                    return Err(NotRemoved::NoClient {
                        client: command.get_program().into(),
                        name: self.name.clone(),
                        attempt: attempt.to_owned(),
                        source,
                    });
                }
                Err(error) => error.to_string(),
            };
            // Podman refuses while it notices itself that the processes were ended.
            if Instant::now() >= deadline {
                let (program, name) = (self.program.name(), self.name.clone());
                return Err(NotRemoved::Refused { program, name, why });
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn removal(&self) -> Command {
        let mut command = self.client();
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

    /// The client that made it; what is found now where none is noted.
    fn client(&self) -> Command {
        let name = self.program.name();
        let mut command;
        match self.client.as_ref().filter(|client| client.is_of(name)) {
            Some(client) => {
                command = Command::new(&client.path);
                command.env_clear();
                let known = ["PATH", "HOME"].into_iter().chain(environment::OF_ENGINES);
                for name in known {
                    if let Some(value) = client.environment.get(name) {
                        command.env(name, value);
                    }
                }
            }
            None => {
                command = Command::new(name);
                command
                    .env_clear()
                    .envs(environment::of_engines())
                    .env("PATH", environment::path())
                    .env("HOME", environment::current_user().1);
            }
        }
        command
    }
}

impl Client {
    /// Whether the runner would have noted it for this program.
    fn is_of(&self, program: &str) -> bool {
        self.path.is_absolute() && self.path.file_name().is_some_and(|name| name == program)
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

/// Whether the program is not there or cannot be executed, which no patience changes.
fn cannot_start(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
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
