//! Container engines, by their command lines: what `podman` and `docker` are told, and what is
//! made of their answers.
//!
//! The name of a container is made of the UUID and the attempt, and is noted in the spool before
//! the container is made. So whoever finds an entry without a result finds the container, too, and
//! nobody takes it for gone before the engine has said that it is.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longshore_runner_api::{Engine as Kind, Network, StartDocument};
use longshore_types::ExitCause;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};

use crate::spool::Entry;

/// The longest answer of an engine that is read.
const MAX_ANSWER: u64 = 16 << 10;
/// How long an engine may take to say how a container ended.
const INSPECT_PATIENCE: Duration = Duration::from_secs(20);
/// The client reads these itself, or may; they are told to it as arguments.
const CLIENTS_OWN: [&str; 9] = [
    "PATH",
    "HOME",
    "TMP",
    "XDG_",
    "DOCKER_",
    "CONTAINER",
    "PODMAN_",
    "LD_",
    "GO",
];

/// A container of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Engine {
    program: Program,
    name: String,
    /// The control group that the container is put into, from the root of every hierarchy.
    parent: Option<String>,
}

/// What an engine is called on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Program {
    Podman,
    Docker,
}

/// How the container of an attempt ended, as its engine says; if it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// It has not: whoever waited for its end was wrong.
    pub(crate) runs: bool,
    pub(crate) started: bool,
    pub(crate) code: i32,
    pub(crate) out_of_memory: bool,
    error: String,
}

impl Engine {
    /// The container of an attempt; none if it is run without an engine.
    pub(crate) fn of_document(entry: &Entry, document: &StartDocument) -> Option<Self> {
        let program = match document.engine {
            Kind::Podman => Program::Podman,
            Kind::Docker => Program::Docker,
            _ => return None,
        };
        Some(Self {
            program,
            name: format!("longshore-{}-{}", entry.uuid, entry.attempt),
            parent: None,
        })
    }

    /// The container that an attempt may have left: it has one, and no result yet.
    pub(crate) fn left_by(entry: &Entry) -> Option<Self> {
        let state = entry.state();
        let name = format!("longshore-{}-{}", entry.uuid, entry.attempt);
        let engine = state.engine.filter(|engine| engine.name == name)?;
        state.result.is_none().then_some(engine)
    }

    /// Whether its containers can be put into a control group of ours.
    pub(crate) fn takes_groups(&self) -> bool {
        self.program == Program::Podman && nix::unistd::geteuid().is_root()
    }

    /// Has the container put into this group.
    pub(crate) fn put_into(&mut self, group: Option<String>) {
        self.parent = group;
    }

    /// Whether the engine is told the limits, since no group of ours has them.
    pub(crate) fn enforces_limits(&self) -> bool {
        // Without root podman needs the unified hierarchy for that.
        let controllers = || std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
        self.parent.is_none()
            && (self.program == Program::Docker
                || controllers().is_ok_and(|text| text.contains("memory")))
    }

    /// The program's name.
    pub(crate) fn program(&self) -> &'static str {
        match self.program {
            Program::Podman => "podman",
            Program::Docker => "docker",
        }
    }

    /// The command that makes the container, fetching its image if it is not there.
    pub(crate) fn create(&self, entry: &Entry, document: &StartDocument) -> Command {
        let mut command = self.command();
        command.args(["create", "--pull", "missing", "--log-driver", "none"]);
        command.args(["--name", &self.name]);
        let network = match document.network {
            Network::Host => "host",
            _ => "none",
        };
        command.args(["--network", network]);
        if let Some(parent) = &self.parent {
            command.args(["--cgroup-parent", parent]);
        }
        if self.enforces_limits() {
            if let Some(ram) = document.ram {
                let ram = ram.0.to_string();
                command.args(["--memory", &ram, "--memory-swap", &ram]);
            }
            if let Some(vcpus) = document.vcpus {
                command.args(["--cpus", &vcpus.to_string()]);
            }
            command.args(["--pids-limit", &document.process_limit.to_string()]);
        }
        for mount in &document.mounts {
            let access = if mount.writable { "rw" } else { "ro" };
            let volume = format!("{}:{}:{access}", mount.source, mount.target);
            command.args(["--volume", &volume]);
        }
        let own = [
            ("LONGSHORE_CONTAINER_UUID", entry.uuid.to_string()),
            ("LONGSHORE_ATTEMPT", entry.attempt.to_string()),
        ];
        let given = document.env.iter().map(|(k, v)| (k.as_str(), v.clone()));
        for (name, value) in given.chain(own) {
            if CLIENTS_OWN.iter().any(|own| name.starts_with(own)) || name.ends_with('*') {
                command.args(["--env", &format!("{name}={value}")]);
            } else {
                // Not as an argument, which everybody on the machine can read.
                command.args(["--env", name]).env(name, value);
            }
        }
        if let Some(cwd) = &document.cwd {
            command.args(["--workdir", cwd]);
        }
        if document.stdin.is_some() {
            command.arg("--interactive");
        }
        command.arg(document.image.as_deref().unwrap_or_default());
        command.args(&document.command);
        command
    }

    /// The command that runs the container to its end, passing signals, input and output on.
    pub(crate) fn start(&self, document: &StartDocument) -> Command {
        let mut command = self.command();
        command.args(["start", "--attach"]);
        if document.stdin.is_some() {
            command.arg("--interactive");
        }
        command.arg(&self.name);
        command
    }

    /// How the container ended; none if the engine does not say.
    pub(crate) fn inspect(&self) -> Option<Ended> {
        const FORMAT: &str = "{{.State.Running}}\n{{.State.StartedAt}}\n{{.State.ExitCode}}\n\
                              {{.State.OOMKilled}}\n{{.State.Error}}";
        let mut command = self.command();
        command.args(["inspect", "--type", "container", "--format", FORMAT]);
        command.arg(&self.name);
        let answer = run(&mut command, INSPECT_PATIENCE).ok()?;
        answer.success.then(|| ended(&answer.stdout))?
    }

    /// Ends the container and removes it; `true` once the engine says that there is none.
    pub(crate) fn remove(&self, patience: Duration) -> bool {
        let mut command = self.command();
        command.args(["rm", "--force", "--volumes"]);
        if self.program == Program::Podman {
            command.args(["--time", "0"]);
        }
        command.arg(&self.name);
        match run(&mut command, patience) {
            Ok(answer) => {
                let said = answer.stderr.to_lowercase();
                answer.success || said.contains("no such container")
            }
            // Without the program nothing of it can be.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Why a container could not be made, from what the client wrote.
    pub(crate) fn not_created(&self, errors: &Path) -> ExitCause {
        let why = last_line(errors);
        let why = why.strip_prefix("Error: ").unwrap_or(&why);
        let program = self.program();
        let error = match why {
            "" => format!("{program} could not make the container, and does not say why"),
            why => format!("{program} could not make the container: {why}"),
        };
        ExitCause::NotStarted { error }
    }

    /// Why a container that was made did not run.
    pub(crate) fn not_run(&self, ended: &Ended, command: &str, errors: &Path) -> ExitCause {
        let why = match ended.error.as_str() {
            "" => last_line(errors),
            error => error.to_owned(),
        };
        let says = |part: &str| why.to_lowercase().contains(part);
        let cannot = |code, what: &str| ExitCause::CannotRun {
            code,
            error: format!("cannot run {command:.200}: {what}"),
        };
        if says("executable file not found") || says("no such file or directory") {
            cannot(127, "the image has no such command")
        } else if says("permission denied") {
            cannot(126, "it is not executable in the image")
        } else {
            let program = self.program();
            let error = format!("{program} could not start the container: {why}");
            ExitCause::NotStarted { error }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        let inherited = |name: &str, default: &str| -> OsString {
            std::env::var_os(name).unwrap_or_else(|| default.into())
        };
        command
            .env_clear()
            .env("PATH", inherited("PATH", crate::job::DEFAULT_PATH))
            .env("HOME", inherited("HOME", "/"));
        // Where the user's engine is.
        for name in [
            "XDG_RUNTIME_DIR",
            "DOCKER_HOST",
            "CONTAINERS_CONF",
            "CONTAINERS_STORAGE_CONF",
        ] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if self.parent.is_some() {
            // What the group is called depends on it.
            command.arg("--cgroup-manager=cgroupfs");
        }
        command
    }
}

struct Answer {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Runs a client to its end, which is brought about after `patience`.
fn run(command: &mut Command, patience: Duration) -> std::io::Result<Answer> {
    let (mut out, out_write) = std::io::pipe()?;
    let (mut err, err_write) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(out_write))
        .stderr(Stdio::from(err_write));
    // An own group, to be ended with whatever the client starts.
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.spawn()?;
    // Closes our copies of the pipes' ends.
    *command = Command::new("true");
    let since = Instant::now();
    // A client's few lines fit into the pipes, so that it need not be read before its end.
    let success = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if since.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => {
                let _ = child.kill();
                let _ = child.wait();
                let late = std::io::ErrorKind::TimedOut;
                return Err(other.err().unwrap_or_else(|| late.into()));
            }
        }
    };
    let read = |pipe: &mut std::io::PipeReader| {
        let mut bytes = Vec::new();
        // What the client has left running may keep its side open.
        let _ = fcntl(&*pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        let _ = pipe.take(MAX_ANSWER).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Answer {
        success,
        stdout: read(&mut out),
        stderr: read(&mut err),
    })
}

fn ended(answer: &str) -> Option<Ended> {
    let mut lines = answer.lines();
    let runs = lines.next()?.trim() == "true";
    let started_at = lines.next()?;
    Some(Ended {
        runs,
        started: !started_at.starts_with("0001-") && !started_at.is_empty(),
        code: lines.next()?.trim().parse().ok()?,
        out_of_memory: lines.next()?.trim() == "true",
        error: lines.next().unwrap_or_default().trim().to_owned(),
    })
}

/// The last line of a file that has anything in it, if it is not too long.
fn last_line(path: &Path) -> String {
    use std::io::{Seek, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(4096)))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let mut line = text
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default()
        .to_owned();
    while line.len() > 600 {
        line.pop();
    }
    line
}
