//! Performing one effect.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{CallContext, CloudError, InstanceSet, Outcome as CloudOutcome};
use longshore_exec::{
    Collected, Command, ExecError, Executor, HostKeyVerifier, Identity, Output, OutputStore, Phase,
    Process, Target,
};
use longshore_types::ContainerUuid;
use tokio::task::coop::consume_budget;

use super::deploy::RunnerBinary;
use super::protocol::RunnerProtocol;
use super::streams::Streams;
use super::verifier::CloudHostKeys;
use crate::effect::{CloudFailure, Effect, EffectAction, Host, HostFailure, Outcome};

/// The most bytes of each stream that are kept of a command whose output is for people.
pub(super) const MAX_ANSWER: usize = 64 * 1024;
/// The most bytes that are read of a command whose output is for people.
const MAX_READ: usize = 16 << 20;
/// The most characters of what a command printed that go into an error.
const MAX_TAIL: usize = 300;

/// Performs effects with an instance set and an executor.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/stub.rs"));
/// use longshore_pool::runtime::Shell;
/// use longshore_pool::{Config, Core, Outcome};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (cloud, hosts) = (Arc::new(Stub::default()), Arc::new(Hosts::default()));
/// let mut shell = Shell::new(cloud, hosts, Arc::new(Plain));
/// shell.sudo = false;
/// let mut core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
/// let listing = core.poll_effect().unwrap();
/// assert_eq!(shell.perform(&listing).await, Outcome::Listed(Ok(vec![])));
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Shell {
    /// Where instances come from.
    pub instance_set: Arc<dyn InstanceSet>,
    /// Runs commands on them.
    pub executor: Arc<dyn Executor>,
    /// The language of the runner there.
    pub protocol: Arc<dyn RunnerProtocol>,
    /// Where the output of containers goes; none means that it is not kept.
    pub outputs: Option<Arc<dyn OutputStore>>,
    /// The runner that is put on instances; none means that they have one.
    pub runner: Option<RunnerBinary>,
    /// Exits with 0 on an instance that has booted; empty means `true`.
    pub boot_probe_command: String,
    /// Absolute path of the file on an instance that holds its secret; empty means that no host
    /// is asked for one.
    pub secret_path: String,
    /// Whether users other than root put `sudo` before the runner's commands. Without it the
    /// runner runs as the user who logs in.
    pub sudo: bool,
    /// Who knows the host keys of instances; none means that any host is believed.
    pub host_keys: Option<Arc<dyn HostKeyVerifier>>,
    /// Whether a [watch stream](longshore_runner_api::watch) is opened to runners that offer one.
    pub watch_streams: bool,
    pub(super) streams: Streams,
}

impl Shell {
    /// A shell that keeps no output, puts no runner on instances, and asks the instance set for
    /// host keys; the fields are there to change that.
    pub fn new(
        instance_set: Arc<dyn InstanceSet>,
        executor: Arc<dyn Executor>,
        protocol: Arc<dyn RunnerProtocol>,
    ) -> Self {
        let host_keys = Arc::new(CloudHostKeys::new(instance_set.clone()));
        Self {
            instance_set,
            executor,
            protocol,
            outputs: None,
            runner: None,
            boot_probe_command: String::new(),
            secret_path: "/var/run/arvados-instance-secret".into(),
            sudo: true,
            host_keys: Some(host_keys),
            watch_streams: true,
            streams: Streams::default(),
        }
    }

    /// The line that runs a single command as whom the runner runs, in place of the shell.
    pub(super) fn as_runner(&self, host: &Host, line: &str) -> String {
        let prefix = if self.sudo && host.user != "root" {
            "sudo "
        } else {
            ""
        };
        format!("exec {prefix}{line}")
    }

    /// Does what an effect says. Ends within [`Effect::timeout`], with
    /// [`EffectAction::lost`] if need be.
    pub async fn perform(&self, effect: &Effect) -> Outcome {
        let act = self.act(&effect.action, effect.timeout);
        match tokio::time::timeout(effect.timeout, act).await {
            Ok(outcome) => outcome,
            Err(_) => effect.action.lost("no answer in time"),
        }
    }

    async fn act(&self, action: &EffectAction, timeout: Duration) -> Outcome {
        // What a driver answers at its very end is to be heard.
        let context = CallContext::new(timeout - margin(timeout), request_id());
        match action {
            EffectAction::Create(request) => {
                let made = self.instance_set.create(&context, request).await;
                Outcome::Created(made.map(Box::new).map_err(|error| cloud_failure(&error)))
            }
            EffectAction::List(tags) => {
                let listed = self.instance_set.list(&context, tags).await;
                match listed {
                    Ok(instances) => Outcome::listed(instances),
                    Err(error) => Outcome::Listed(Err(cloud_failure(&error))),
                }
            }
            EffectAction::Destroy(ids) => {
                let results = self.instance_set.destroy(&context, ids).await;
                let results = results.into_iter();
                Outcome::Destroyed(
                    results
                        .map(|(id, result)| (id, result.map_err(|error| cloud_failure(&error))))
                        .collect(),
                )
            }
            EffectAction::SetTags(id, tags) => {
                let change = [(id.clone(), tags.clone())];
                let results = self.instance_set.set_tags(&context, &change).await;
                match results.into_iter().find(|(other, _)| other == id) {
                    Some((_, result)) => {
                        Outcome::TagsSet(result.map_err(|error| cloud_failure(&error)))
                    }
                    None => action.lost("the driver gave no result"),
                }
            }
            EffectAction::Console(instance, limit) => {
                let powers = self.instance_set.extensions();
                match powers.console_output {
                    None => Outcome::Console(Ok(Vec::new())),
                    Some(console) => {
                        let printed = console.console_output(&context, instance, *limit).await;
                        Outcome::Console(printed.map_err(|error| cloud_failure(&error)))
                    }
                }
            }
            EffectAction::Disconnect(instance) => {
                self.streams.forget(instance);
                self.executor.disconnect(instance).await;
                Outcome::Disconnected
            }
            EffectAction::Boot(host) => Outcome::Booted(self.boot(host, timeout).await),
            EffectAction::Deploy(host, guard) => {
                let deployed = self.prepare(host, guard.as_ref(), timeout).await;
                Outcome::Deployed(deployed)
            }
            EffectAction::Report(host, options) => {
                Outcome::Reported(self.report(host, options, timeout).await)
            }
            EffectAction::Start {
                host,
                uuid,
                attempt,
                document,
            } => {
                let what = (*uuid, *attempt);
                Outcome::Started(self.start(host, what, document, timeout).await)
            }
            EffectAction::Kill {
                host,
                uuid,
                attempt,
                signal,
            } => {
                let what = (*uuid, *attempt);
                Outcome::Killed(self.kill(host, what, *signal, timeout).await)
            }
            EffectAction::Collect {
                host,
                uuid,
                attempt,
                stream,
                written,
            } => {
                let what = (*uuid, *attempt, *stream);
                Outcome::Collected(self.collect(host, what, *written, timeout).await)
            }
        }
    }

    async fn boot(&self, host: &Host, timeout: Duration) -> Result<(), HostFailure> {
        let line = match self.boot_probe_command.as_str() {
            "" => "true",
            line => line,
        };
        let answer = self.run(host, line, &[], timeout, MAX_ANSWER).await;
        let answer = answer.map_err(|error| host_failure(&error))?;
        if answer.succeeded() {
            return Ok(());
        }
        let error = format!("boot probe: {}", describe(&answer));
        Err(HostFailure::answered(error))
    }

    /// Runs a command as root.
    pub(super) async fn sudo(
        &self,
        host: &Host,
        line: &str,
        stdin: &[u8],
        timeout: Duration,
        limit: usize,
    ) -> Result<Collected, ExecError> {
        let line = self.as_runner(host, line);
        self.run(host, &line, stdin, timeout, limit).await
    }

    /// Runs a command as the user that we log in as.
    pub(super) async fn run(
        &self,
        host: &Host,
        line: &str,
        stdin: &[u8],
        timeout: Duration,
        limit: usize,
    ) -> Result<Collected, ExecError> {
        let mut process = self.open(&self.target(host), line, timeout).await?;
        if !stdin.is_empty() {
            process.write_stdin(stdin).await?;
        }
        process.close_stdin().await?;
        let mut collected = Collected::default();
        let mut read = 0;
        while let Some(output) = process.output().await? {
            let size = keep(&mut collected, output, limit);
            read += size;
            if read > MAX_READ {
                let error = format!("it printed more than {MAX_READ} bytes");
                return Err(ExecError::may_have_run(Phase::Command, error));
            }
            consume_budget().await;
        }
        collected.status = process.wait().await?;
        Ok(collected)
    }

    /// Starts a command. Where the host lets one run at a time, and that is our watch stream, this
    /// gives way.
    pub(super) async fn open(
        &self,
        target: &Target,
        line: &str,
        timeout: Duration,
    ) -> Result<Box<dyn Process>, ExecError> {
        let command = Command::new(line);
        match self.executor.open(target, &command, timeout).await {
            Err(error) if error.is_alone() => {
                self.streams.give_way(&target.instance).await;
                self.executor.open(target, &command, timeout).await
            }
            opened => opened,
        }
    }

    pub(super) fn target(&self, host: &Host) -> Target {
        let identity = match &self.host_keys {
            None => Identity::Unchecked,
            Some(verifier) => Identity::Checked {
                verifier: verifier.clone(),
                secret: host.secret.clone().filter(|_| !self.secret_path.is_empty()),
                secret_path: self.secret_path.clone(),
            },
        };
        let instance = host.instance.clone();
        Target::new(instance, &host.address, &host.user, identity)
    }
}

/// Adds a piece of output, of each stream at most `limit` bytes; how large the piece was.
pub(super) fn keep(answer: &mut Collected, output: Output, limit: usize) -> usize {
    let (kept, chunk) = match output {
        Output::Stdout(chunk) => (&mut answer.stdout, chunk),
        Output::Stderr(chunk) => (&mut answer.stderr, chunk),
    };
    let room = limit.saturating_sub(kept.len()).min(chunk.len());
    kept.extend_from_slice(&chunk[..room]);
    answer.truncated |= room < chunk.len();
    chunk.len()
}

/// 32 random bytes from the system, for [`Core::new`](crate::Core::new).
///
/// ```
/// assert_ne!(longshore_pool::runtime::random_seed()?, longshore_pool::runtime::random_seed()?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn random_seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
    Ok(seed)
}

/// A name for a payload that no other has.
///
/// ```
/// let (one, other) = (longshore_pool::runtime::random_uuid()?, longshore_pool::runtime::random_uuid()?);
/// assert_ne!(one, other);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn random_uuid() -> std::io::Result<ContainerUuid> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    ContainerUuid::generate("local", bytes).map_err(std::io::Error::other)
}

/// A name for a call in the logs of both sides; two calls without randomness share one.
pub(super) fn request_id() -> String {
    let mut bytes = [0; 10];
    let _ = getrandom::fill(&mut bytes);
    let mut text = String::from("req-");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn cloud_failure(error: &CloudError) -> CloudFailure {
    CloudFailure {
        kind: error.kind.clone(),
        may_have_acted: error.outcome() == CloudOutcome::Unknown,
        error: error.chain(),
    }
}

/// How much earlier a driver has to answer than the answer is waited for.
fn margin(timeout: Duration) -> Duration {
    (timeout / 10).min(Duration::from_secs(1))
}

pub(super) fn host_failure(error: &ExecError) -> HostFailure {
    HostFailure {
        unreachable: error.phase <= Phase::Authentication,
        ours: false,
        error: error.chain(),
    }
}

/// How a command ended and the end of what it printed, as one line.
pub(super) fn describe(answer: &Collected) -> String {
    let mut text = match &answer.status {
        Some(status) => status.to_string(),
        None => "no exit status".into(),
    };
    let printed = if answer.stderr.is_empty() {
        &answer.stdout
    } else {
        &answer.stderr
    };
    let printed = String::from_utf8_lossy(printed);
    let clean: Vec<char> = printed
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let tail = clean.len().saturating_sub(MAX_TAIL);
    if !clean.is_empty() {
        text.push_str(": ");
        text.extend(&clean[tail..]);
    }
    text
}
