//! Container engines, by their command lines: what `podman` and `docker` are told, and what is
//! made of their answers.
//!
//! The name of a container is made of the UUID and the attempt, and is noted in the spool before
//! the container is made. So whoever finds an entry without a result finds the container, too, and
//! nobody takes it for gone before the engine has said that it is: the same engine, asked by the
//! same client, for both are noted, too.

mod client;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use longshore_runner_api::{Engine as Kind, Network, StartDocument};
use longshore_types::ExitCause;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use client::Client;

use crate::spool::Entry;

/// The longest answer of an engine that is read.
const MAX_ANSWER: u64 = 16 << 10;
/// How long an engine may take to say how a container ended.
const INSPECT_PATIENCE: Duration = Duration::from_secs(20);
/// How long an engine may take to pass a signal on.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client that was killed is waited for.
const END_PATIENCE: Duration = Duration::from_millis(200);
/// The longest value of a variable that is written into a file, in bytes; Docker's client reads lines
/// of 64 KiB there.
const MAX_FILE_VALUE: usize = 32 << 10;

/// A container of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Engine {
    program: Program,
    name: String,
    /// The control group that the container is put into, from the root of every hierarchy.
    parent: Option<String>,
    /// Whom to ask about it; none before it was looked for, and in what earlier versions noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<Client>,
}

/// A container of which its engine has not said that it is gone.
#[derive(Debug)]
pub(crate) enum NotRemoved {
    /// Nobody could be asked, and so nothing is known of it.
    NoClient(String),
    /// The engine has not done it, or not in time.
    Refused,
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
            client: None,
        })
    }

    /// Looks for the engine's client, which is the one that is asked from then on; `false` if there
    /// is none, so that there can be no container either.
    pub(crate) fn find_client(&mut self) -> bool {
        self.client = Client::find(self.program());
        self.client.is_some()
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
    ///
    /// The values of variables are written into the entry; an error means that this failed.
    pub(crate) fn create(
        &self,
        entry: &Entry,
        document: &StartDocument,
    ) -> std::io::Result<Command> {
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
        let mut variables = document.env.clone();
        variables.insert("LONGSHORE_CONTAINER_UUID".into(), entry.uuid.to_string());
        variables.insert("LONGSHORE_ATTEMPT".into(), entry.attempt.to_string());
        // Neither in the client's own environment, which they could change the ways of, nor as
        // arguments, which everybody on the machine can read.
        let mut file = String::new();
        for (name, value) in variables {
            match is_plain(&name, &value) {
                true => file.push_str(&format!("{name}={value}\n")),
                false => {
                    command.args(["--env", &format!("{name}={value}")]);
                }
            }
        }
        entry.write_engine_variables(&file)?;
        command.arg("--env-file").arg(entry.engine_variables());
        if let Some(cwd) = &document.cwd {
            command.args(["--workdir", cwd]);
        }
        if document.stdin.is_some() {
            command.arg("--interactive");
        }
        command.arg(document.image.as_deref().unwrap_or_default());
        command.args(&document.command);
        Ok(command)
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

    /// Asks the container to end, which its client then sees; `true` if the engine has done so.
    ///
    /// Podman's client passes signals on. Docker's does so only in older versions: one that takes
    /// TERM for itself leaves the container without having asked it.
    pub(crate) fn ask_to_end(&self) -> bool {
        if self.program != Program::Docker {
            return false;
        }
        let mut command = self.command();
        command.args(["kill", "--signal", "TERM", &self.name]);
        run(&mut command, ASK_PATIENCE).is_ok_and(|answer| answer.success)
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

    /// Ends the container and removes it; an error means that it may still be there.
    pub(crate) fn remove(&self, patience: Duration) -> Result<(), NotRemoved> {
        let mut command = self.command();
        let client = command.get_program().to_owned();
        command.args(["rm", "--force", "--volumes"]);
        if self.program == Program::Podman {
            command.args(["--time", "0"]);
        }
        command.arg(&self.name);
        match run(&mut command, patience) {
            Ok(answer) => {
                let said = answer.stderr.to_lowercase();
                let is_gone = answer.success || said.contains("no such container");
                is_gone.then_some(()).ok_or(NotRemoved::Refused)
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(NotRemoved::Refused),
            // The engine's processes go on without its client's program.
            Err(error) => Err(NotRemoved::NoClient(format!(
                "cannot run {} ({error}), and so cannot learn whether the container {} is gone: \
                 it counts as running until {} is there again and says that it is",
                client.display(),
                self.name,
                client.display(),
            ))),
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

    /// That a container was not made in time.
    pub(crate) fn too_slow(&self, patience: Duration) -> ExitCause {
        let (program, minutes) = (self.program(), patience.as_secs() / 60);
        let error = format!("{program} did not make the container within {minutes} minutes");
        ExitCause::NotStarted { error }
    }

    /// Why a container that was made did not run.
    pub(crate) fn not_run(&self, ended: &Ended, command: &str, errors: &Path) -> ExitCause {
        let why = match ended.error.as_str() {
            "" => last_line(errors),
            error => error.to_owned(),
        };
        match cannot_run(&why) {
            Some((code, what)) => ExitCause::CannotRun {
                code,
                error: format!("cannot run {command:.200}: {what}"),
            },
            None => {
                let program = self.program();
                let why = without_container(&why);
                let error = format!("{program} could not start the container: {why}");
                ExitCause::NotStarted { error }
            }
        }
    }

    fn command(&self) -> Command {
        let noted = self.client.as_ref();
        let mut command = match noted.filter(|client| client.is_believed(self.program())) {
            Some(client) => client.command(),
            None => client::command_by_name(self.program()),
        };
        if self.parent.is_some() {
            // What the group is called depends on it.
            command.arg("--cgroup-manager=cgroupfs");
        }
        command
    }
}

/// Whether every version of the engines reads a line of a file as this variable: some take several
/// lines for a value that begins with a quote.
fn is_plain(name: &str, value: &str) -> bool {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.chars().all(in_name)
        && value.len() <= MAX_FILE_VALUE
        && !value.contains(['\n', '\r'])
        && !value.starts_with(['"', '\'', '`', ' ', '\t'])
}

/// What podman complains of, without its own name of the container, which is that of nothing here.
fn without_container(why: &str) -> &str {
    let why = why.strip_prefix("Error: ").unwrap_or(why);
    let named = why.strip_prefix("unable to start container ");
    named
        .and_then(|rest| rest.split_once(": "))
        .map_or(why, |(_, rest)| rest)
}

/// What is wrong with a command or its directory in its image, if that is what an OCI runtime
/// complains of: the exit code of a shell, and what it is.
fn cannot_run(why: &str) -> Option<(i32, &'static str)> {
    let why = why.to_lowercase();
    let says = |part: &str| why.contains(part);
    let of_directory = says("workdir") || says("chdir to cwd");
    // Runtimes say of whatever they are refused that permission was denied.
    let of_command = says("exec: ") || says("executable");
    let missing = says("not found") || says("no such file or directory");
    if of_directory {
        Some((126, "the image has no such working directory"))
    } else if of_command && missing {
        Some((127, "the image has no such command"))
    } else if of_command && says("permission denied") {
        Some((126, "it is not executable in the image"))
    } else {
        None
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
    // A client's few lines fit into the pipes, so that it need not be read before its end.
    let success = match await_end(&mut child, patience) {
        Ok(Some(status)) => status.success(),
        other => {
            end_client(&mut child);
            let late = std::io::ErrorKind::TimedOut;
            return Err(other.err().unwrap_or_else(|| late.into()));
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

/// Ends a client and what it has started, and waits for that a little: where the kernel does not let
/// it go its parent learns of its end later.
fn end_client(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = await_end(child, END_PATIENCE);
}

/// How a client ended; none if it has not within `patience`.
fn await_end(child: &mut Child, patience: Duration) -> std::io::Result<Option<ExitStatus>> {
    let since = Instant::now();
    loop {
        match child.try_wait()? {
            None if since.elapsed() < patience => std::thread::sleep(Duration::from_millis(2)),
            ended => return Ok(ended),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_own_name_of_a_container_is_left_out() {
        let named = r#"Error: unable to start container "d5d1159aec": no more room: 9"#;
        assert_eq!(without_container(named), "no more room: 9");
        assert_eq!(without_container("Error: no more room"), "no more room");
        assert_eq!(without_container("no more room: 9"), "no more room: 9");
    }

    #[test]
    fn only_a_complaint_about_the_command_is_one() {
        let code = |why| cannot_run(why).map(|(code, _)| code);
        for (why, expected) in [
            (
                r#"runc create failed: unable to start container process: exec: "nosuch": executable file not found in $PATH: OCI runtime attempted to invoke a command that was not found"#,
                Some(127),
            ),
            (
                r#"runc create failed: unable to start container process: exec: "/no/such": stat /no/such: no such file or directory"#,
                Some(127),
            ),
            (
                "crun: executable file `nosuch` not found in $PATH: No such file or directory",
                Some(127),
            ),
            (
                r#"runc create failed: unable to start container process: exec: "/etc/passwd": permission denied: OCI permission denied"#,
                Some(126),
            ),
            ("crun: open executable: Permission denied", Some(126)),
            (
                r#"Error: workdir "/nosuch" does not exist on container d5d1159aec"#,
                Some(126),
            ),
            (
                r#"runc create failed: unable to start container process: chdir to cwd ("/nosuch") set in config.json failed: no such file or directory"#,
                Some(126),
            ),
            (
                "runc create failed: unable to start container process: error during container init: error setting rlimit type 7: operation not permitted: OCI permission denied",
                None,
            ),
            (
                r#"runc create failed: unable to start container process: error mounting "/gone" to rootfs: no such file or directory"#,
                None,
            ),
        ] {
            assert_eq!(code(why), expected, "{why}");
        }
    }
}
