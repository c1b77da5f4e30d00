//! Describing a pool, and starting it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_cloud::{InstanceSet, TagKeys};
use longshore_exec::{Executor, HostKeyVerifier, OutputStore};
use longshore_types::InstanceType;
use prometheus_client::registry::Registry;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::clock::{Clock, SleepWatch};
use super::deploy::RunnerBinary;
use super::event_loop::EventLoop;
use super::failures::Failures;
use super::isolated::{Isolated, panic_text};
use super::metrics::{Metrics, Recorder};
use super::performer::Performer;
use super::pool::Pool;
use super::protocol::{LongshoreRun, RunnerProtocol};
use super::random_seed;
use super::shell::Shell;
use super::verifier::CloudHostKeys;
use super::waiting::Waiting;
use crate::config::Config;
use crate::core::Core;
use crate::settings::{InvalidSetting, InvalidSettings};

/// The most messages that wait to be read by the pool; further callers wait.
const MAX_MESSAGES: usize = 1000;
/// How many events are kept for slow readers.
const EVENT_CAPACITY: usize = 1024;
/// The most events that may be kept: each is at most a few kilobytes.
const MAX_EVENT_CAPACITY: usize = 1 << 20;
/// How long an instance set may take to say what it can do.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Describes a [`Pool`]; made by [`Pool::builder`]. What is not said has a sensible default:
/// those of [`Config::new`], but for [`Config::tag_keys`], whose names begin with `Longshore` here
/// and with `Arvados` there.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/stub.rs"));
/// # use longshore_pool::runtime::Pool;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
/// # let (cloud, hosts) = (Arc::new(Stub::default()), Arc::new(Hosts::default()));
/// let mut registry = prometheus_client::registry::Registry::default();
/// let pool = Pool::builder("my-service", vec![small], cloud, hosts)
///     .protocol(Arc::new(Plain))
///     .public_key("ssh-ed25519 AAAA")
///     .boot_probe_command("systemctl is-system-running")
///     .sudo(false)
///     .watch_streams(true)
///     .auto_acknowledge(true)
///     .event_capacity(4096)
///     .metrics(&mut registry)
///     .configure(|config| {
///         config.max_instances = 8;
///         config.timeout_idle = Duration::from_secs(300);
///     })
///     .start()
///     .await?;
/// assert!(pool.snapshot().workers.is_empty());
/// # Ok(()) }
/// ```
///
/// Of the other settings: `outputs` takes an [`OutputStore`], `runner` a [`RunnerBinary`],
/// `host_keys` a [`HostKeyVerifier`], `seed` 32 bytes; `trust_any_host` and
/// `inline_provider_calls` are for tests. They have no example of their own.
#[derive(Debug)]
pub struct PoolBuilder {
    config: Config,
    instance_set: Arc<dyn InstanceSet>,
    executor: Arc<dyn Executor>,
    protocol: Option<Arc<dyn RunnerProtocol>>,
    outputs: Option<Arc<dyn OutputStore>>,
    runner: Option<RunnerBinary>,
    boot_probe_command: String,
    sudo: bool,
    watch_streams: bool,
    host_keys: HostKeys,
    seed: Option<[u8; 32]>,
    isolated: bool,
    auto_acknowledge: bool,
    event_capacity: usize,
    metrics: Option<Metrics>,
}

#[derive(Debug)]
enum HostKeys {
    /// The instance set is asked.
    InstanceSet,
    Verifier(Arc<dyn HostKeyVerifier>),
    Anybody,
}

impl PoolBuilder {
    pub(super) fn new(
        instance_set_id: String,
        types: Vec<InstanceType>,
        instance_set: Arc<dyn InstanceSet>,
        executor: Arc<dyn Executor>,
    ) -> Self {
        let mut config = Config::new(instance_set_id, types);
        config.tag_keys = TagKeys::new("Longshore");
        Self {
            config,
            instance_set,
            executor,
            protocol: None,
            outputs: None,
            runner: None,
            boot_probe_command: String::new(),
            sudo: true,
            watch_streams: true,
            host_keys: HostKeys::InstanceSet,
            seed: None,
            isolated: true,
            auto_acknowledge: true,
            event_capacity: EVENT_CAPACITY,
            metrics: None,
        }
    }

    /// The language of the runner on the instances. The default is [`LongshoreRun`], at the path of
    /// [`PoolBuilder::runner`], else `longshore-run` on the path of the user.
    #[must_use]
    pub fn protocol(mut self, protocol: Arc<dyn RunnerProtocol>) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// The runner that is put on instances. Without one they are taken to have it.
    #[must_use]
    pub fn runner(mut self, runner: RunnerBinary) -> Self {
        self.runner = Some(runner);
        self
    }

    /// A command that exits with 0 on an instance that has booted. The default is `true`: that
    /// the executor reaches it is enough.
    #[must_use]
    pub fn boot_probe_command(mut self, line: impl Into<String>) -> Self {
        self.boot_probe_command = line.into();
        self
    }

    /// Where output goes. Without one none is brought home.
    ///
    /// No example: [`OutputStore`] has one.
    #[must_use]
    pub fn outputs(mut self, outputs: Arc<dyn OutputStore>) -> Self {
        self.outputs = Some(outputs);
        self
    }

    /// Whether users other than root put `sudo` before the runner's commands, as they do unless
    /// told otherwise.
    #[must_use]
    pub fn sudo(mut self, sudo: bool) -> Self {
        self.sudo = sudo;
        self
    }

    /// Whether runners that offer a [watch stream](longshore_runner_api::watch) are spoken to over
    /// it, as they are unless told otherwise. Without it there is a command for each thing that is
    /// asked of them.
    #[must_use]
    pub fn watch_streams(mut self, yes: bool) -> Self {
        self.watch_streams = yes;
        self
    }

    /// Who knows the host keys of instances, in place of the instance set.
    ///
    /// No example: [`HostKeyVerifier`] has one.
    #[must_use]
    pub fn host_keys(mut self, verifier: Arc<dyn HostKeyVerifier>) -> Self {
        self.host_keys = HostKeys::Verifier(verifier);
        self
    }

    /// Any host is believed to be the instance that it is taken for. Only for tests, and for
    /// networks where nobody can come between.
    ///
    /// Instances still write a secret to [`Config::secret_path`] when they first boot, before
    /// [`Config::init_command`]: an empty path stops that.
    #[must_use]
    pub fn trust_any_host(mut self) -> Self {
        self.host_keys = HostKeys::Anybody;
        self
    }

    /// The public key that may log in to new instances, in OpenSSH's one-line form. Without one
    /// the image has to have one.
    #[must_use]
    pub fn public_key(mut self, key: impl Into<String>) -> Self {
        self.config.public_key = Some(key.into());
        self
    }

    /// What the secrets of instances are drawn from: 32 bytes that nobody else has and that were
    /// never used before. The default is the system's random numbers.
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Whether results are acknowledged for you as soon as they were told (the default). Where you
    /// keep them somewhere safe yourself, say no, and call [`Pool::acknowledge`] then: until that
    /// a result is told again by the next pool if this one dies. A worker with a result that is
    /// not acknowledged is never shut down for being idle.
    #[must_use]
    pub fn auto_acknowledge(mut self, yes: bool) -> Self {
        self.auto_acknowledge = yes;
        self
    }

    /// How many events are kept for readers that are slow: 1 to 1,048,576, rounded up to a power
    /// of two. The default is 1024.
    #[must_use]
    pub fn event_capacity(mut self, capacity: usize) -> Self {
        self.event_capacity = capacity;
        self
    }

    /// Registers the pool's metrics; the module's documentation lists them. For several pools in
    /// one registry give each a
    /// [sub-registry with a label](Registry::sub_registry_with_label) of its own.
    #[must_use]
    pub fn metrics(mut self, registry: &mut Registry) -> Self {
        self.metrics = Some(Metrics::register(registry));
        self
    }

    /// Makes provider calls on the runtime's own threads, not on threads of their own
    /// ([`Isolated`]). Only for drivers that surely never block, and for tests on a paused clock.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/stub.rs"));
    /// # use longshore_pool::runtime::Pool;
    /// # fn main() {
    /// # let (cloud, hosts) = (Arc::new(Stub::default()), Arc::new(Hosts::default()));
    /// # let small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
    /// let builder = Pool::builder("tests", vec![small], cloud, hosts)
    ///     // A test that is the same each time it is run.
    ///     .trust_any_host()
    ///     .seed([7; 32])
    ///     .inline_provider_calls();
    /// # drop(builder);
    /// # }
    /// ```
    #[must_use]
    pub fn inline_provider_calls(mut self) -> Self {
        self.isolated = false;
        self
    }

    /// Changes any of the settings. [`Config::capabilities`], [`Config::quota_groups`] and
    /// [`Config::console_output`] are asked of the instance set when the pool starts, whatever they are set to here.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts the pool. Everything that is wrong with the settings is said at once.
    ///
    /// Must be awaited on a tokio runtime with time enabled, on which the pool then runs. Asks the
    /// instance set for its capabilities and quota groups, and waits at most ten seconds for that;
    /// it makes no call to the provider. If this future is dropped, there is no pool.
    pub async fn start(mut self) -> Result<Pool, InvalidSettings> {
        if tokio::runtime::Handle::try_current().is_err() {
            let problem = "start() must be awaited on a tokio runtime";
            let problems = vec![InvalidSetting::new("runtime", problem)];
            return Err(InvalidSettings::new(problems));
        }
        let mut problems = self.config.problems();
        self.check_parts(&mut problems);
        let isolated = Isolated::new(self.instance_set.clone());
        if let Err(error) = self.ask(&isolated).await {
            problems.push(InvalidSetting::new("instance_set", error));
        }
        let seed = match self.seed.map_or_else(random_seed, Ok) {
            Ok(seed) => seed,
            Err(error) => {
                let problem = format!("no random numbers can be had: {error}");
                problems.push(InvalidSetting::new("seed", problem));
                [0; 32]
            }
        };
        if problems.is_empty() {
            Ok(self.spawn(isolated, seed))
        } else {
            Err(InvalidSettings::new(problems))
        }
    }

    fn check_parts(&self, problems: &mut Vec<InvalidSetting>) {
        if !(1..=MAX_EVENT_CAPACITY).contains(&self.event_capacity) {
            let problem = format!(
                "is {}; it must be 1 to {MAX_EVENT_CAPACITY}",
                self.event_capacity
            );
            problems.push(InvalidSetting::new("event_capacity", problem));
        }
        if let Some(runner) = &self.runner {
            if runner.content.is_empty() {
                problems.push(InvalidSetting::new(
                    "runner",
                    "there is nothing in its file",
                ));
            }
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if runner.md5.len() != 32 || !runner.md5.bytes().all(hex) {
                let problem = "its MD5 digest is not 32 lower-case hex digits";
                problems.push(InvalidSetting::new("runner", problem));
            }
            if !runner.directory.starts_with('/') || runner.directory.contains(['\n', '\0']) {
                let problem = "its directory is not an absolute path";
                problems.push(InvalidSetting::new("runner", problem));
            }
        }
        if self.boot_probe_command.contains('\0') {
            let problem = "has a zero byte in it";
            problems.push(InvalidSetting::new("boot_probe_command", problem));
        }
    }

    /// Asks the instance set what it can do.
    async fn ask(&mut self, isolated: &Isolated) -> Result<(), String> {
        let types = self.config.types.clone();
        let question = move |set: &dyn InstanceSet| {
            let group = |t: &InstanceType| Some((t.name.clone(), set.quota_group(t)?));
            let groups = types.iter().filter_map(group).collect();
            let console = set.extensions().console_output.is_some();
            (set.capabilities(), groups, console)
        };
        let (capabilities, groups, console) = if self.isolated {
            isolated.ask(QUESTION_TIMEOUT, question).await?
        } else {
            let answer = catch_unwind(AssertUnwindSafe(|| question(&*self.instance_set)));
            answer.map_err(|panic| format!("the driver panicked: {}", panic_text(&*panic)))?
        };
        self.config.capabilities = capabilities;
        self.config.quota_groups = groups;
        // Nobody is there to be asked.
        self.config.asks_about_claims = false;
        self.config.console_output = console;
        Ok(())
    }

    fn spawn(self, isolated: Isolated, seed: [u8; 32]) -> Pool {
        let clock = Clock::new();
        let (messages, inbox) = mpsc::channel(MAX_MESSAGES);
        let (publisher, snapshots) = watch::channel(Arc::default());
        let (events, first) = broadcast::channel(self.event_capacity);
        let (end, ended) = watch::channel(None);
        let instance_set: Arc<dyn InstanceSet> = if self.isolated {
            Arc::new(isolated.clone())
        } else {
            self.instance_set.clone()
        };
        let recorder = self.metrics.as_ref().map(|metrics| {
            metrics.begin(snapshots.clone(), clock, &self.config.types);
            Recorder::new(metrics)
        });
        let failures = Failures::new(self.metrics.clone());
        let pool = Pool {
            messages,
            snapshots,
            events: events.downgrade(),
            first: Arc::new(Mutex::new(Some(first))),
            ended,
        };
        let event_loop = EventLoop {
            core: Core::new(self.config.clone(), seed, clock.now()),
            clock,
            isolated: self.isolated.then_some(isolated),
            auto_acknowledge: self.auto_acknowledge,
            performer: Performer::new(Arc::new(self.shell(instance_set))),
            inbox,
            publisher,
            events,
            recorder,
            failures,
            waiting: Waiting::default(),
            sleep_watch: SleepWatch::new(),
            stuck: Vec::new(),
            changed: true,
            publish_from: Instant::now(),
        };
        tokio::spawn(event_loop.run(end));
        pool
    }

    fn shell(self, instance_set: Arc<dyn InstanceSet>) -> Shell {
        let path = self
            .runner
            .as_ref()
            .map_or_else(|| "longshore-run".to_owned(), RunnerBinary::path);
        let protocol = self
            .protocol
            .unwrap_or_else(|| Arc::new(LongshoreRun { path }));
        let host_keys: Option<Arc<dyn HostKeyVerifier>> = match self.host_keys {
            HostKeys::InstanceSet => Some(Arc::new(CloudHostKeys::new(instance_set.clone()))),
            HostKeys::Verifier(verifier) => Some(verifier),
            HostKeys::Anybody => None,
        };
        let mut shell = Shell::new(instance_set, self.executor, protocol);
        shell.outputs = self.outputs;
        shell.runner = self.runner;
        shell.boot_probe_command = self.boot_probe_command;
        shell.secret_path = self.config.secret_path;
        shell.sudo = self.sudo;
        shell.watch_streams = self.watch_streams;
        shell.host_keys = host_keys;
        shell
    }
}
