//! `longshore bench dispatch --stub`: what the dispatcher itself takes.
//!
//! A controller that is a table in memory, and instances of which nothing is real but their SSH
//! server, in a process of its own: no disk, no process of a job.

mod instances;
mod queue;
mod runner;
mod server;

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use longshore_cloud::{Instance, InstanceState};
use longshore_dispatch::Snapshot;
use longshore_dispatch::runtime::{Dispatcher, Parts};
use longshore_pool::runtime::{LongshoreRun, Shell, random_seed};
use longshore_queue::Queue as _;
use longshore_ssh::{PrivateKey, SshExecutor};
use longshore_types::{
    ByteSize, Container, ContainerUuid, InstanceType, Price, ResourceRequest, WorkerState,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::figures::{Rate, Report, Samples};
use super::{introduce, load, usage};
use crate::cli::BenchDispatchArgs;
use crate::ending::Ending;
use crate::provider::{Provider, ours, tag_keys};
use crate::run::runtime;
use crate::state::{fresh_key, key_text};
use instances::Listed;
use queue::MemoryQueue;
use runner::Pretence;
use server::{Said, monotonic};

/// The longest time in which all instances must be ready, or a container be done.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a container runs whose end is measured: long enough for its start to be over and done.
const TURN: Duration = Duration::from_millis(20);
/// The type of the one instance on which single containers run.
const SOLO: &str = "solo";
const SOLO_VCPUS: u32 = 4;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Amount {
    instances: u32,
    containers: u32,
    samples: u32,
    idle: Duration,
}

impl Amount {
    fn of(args: &BenchDispatchArgs) -> Self {
        let (instances, containers, samples, idle) = if args.short {
            (10, 50, 5, Duration::from_millis(500))
        } else {
            (1000, 5000, 200, Duration::from_secs(20))
        };
        Self {
            instances: args.instances.unwrap_or(instances),
            containers: args.jobs.unwrap_or(containers),
            samples: args.samples.unwrap_or(samples),
            idle,
        }
    }
}

/// Measures. Nothing is kept anywhere.
pub(super) fn dispatch(args: &BenchDispatchArgs) -> anyhow::Result<Ending> {
    let amount = Amount::of(args);
    runtime()?.block_on(async {
        let report = Report::default();
        introduce(&report);
        let before = usage::resident_kib()?;
        let mut session = Session::start(amount.instances, !args.by_command).await?;
        session.measure(amount, before, &report).await?;
        load(&report, "at the end");
        session.stop().await;
        Ok(Ending::Succeeded)
    })
}

/// The far side, in the process that [`dispatch`] starts.
pub(super) fn instances() -> anyhow::Result<Ending> {
    runtime()?.block_on(server::serve())?;
    Ok(Ending::Succeeded)
}

/// A dispatcher and what it dispatches to.
struct Session {
    dispatcher: Dispatcher,
    queue: Arc<MemoryQueue>,
    said: mpsc::UnboundedReceiver<Said>,
    /// It ends when this is closed, and is killed should that not be enough.
    far_side: (Child, ChildStdin),
    submitted: u32,
}

impl Session {
    async fn start(count: u32, watch_streams: bool) -> anyhow::Result<Self> {
        let (private_key, public_key) = key_text(&fresh_key()?)?;
        let (far_side, port, said) = far_side(&public_key).await?;
        let types = types()?;
        let instances = (0..count).map(|n| instance(n, port));
        let listed = Listed(Mutex::new(instances.collect()));
        let Provider {
            instance_set,
            mut pool,
            ssh,
            ..
        } = Provider::new(Box::new(listed), types, String::from("/"));
        let key = PrivateKey::parse(&private_key).context("the key cannot be used")?;
        let executor = SshExecutor::new(key, ssh);
        let path = String::from("/longshore-run");
        let protocol = Arc::new(LongshoreRun { path });
        let mut shell = Shell::new(instance_set, Arc::new(executor), protocol);
        shell.host_keys = None;
        shell.secret_path = String::new();
        shell.watch_streams = watch_streams;
        pool.secret_path = String::new();
        pool.max_instances = 0;
        pool.timeout_idle = Duration::from_secs(24 * 3600);
        pool.validate()?;
        let queue = Arc::new(MemoryQueue::default());
        let capabilities = queue.capabilities();
        let mut scheduler = longshore_scheduler::Config::new(pool.types.clone());
        scheduler.reserve_extra_ram = ByteSize::ZERO;
        let config = longshore_dispatch::Config::new(pool, scheduler, capabilities);
        let parts = Parts {
            shell: Arc::new(shell),
            queue: queue.clone(),
            observer: None,
        };
        let seed = random_seed().context("no random numbers can be had")?;
        Ok(Self {
            dispatcher: Dispatcher::start(config, parts, seed),
            queue,
            said,
            far_side,
            submitted: 0,
        })
    }

    async fn measure(
        &mut self,
        amount: Amount,
        rss_before: f64,
        report: &Report,
    ) -> anyhow::Result<()> {
        let count = f64::from(amount.instances);
        let start = monotonic()?;
        self.idle(amount.instances).await?;
        let adopted = monotonic()?.saturating_sub(start);
        report.note("from the start of the dispatcher until all instances are known to be idle");
        let target = "<= 2 for 1000";
        report.target("stub_adoption", adopted.as_secs_f64(), "s", target);
        let each = (usage::resident_kib()? - rss_before) / count;
        report.note("all memory of the dispatcher, divided by the instances");
        report.target("stub_memory_per_worker", each, "KiB", "<= 64 for 5000");
        let idle = usage::idle_cpu_percent(amount.idle).await?;
        report.target("stub_cpu_idle", idle, "%", "<= 0.3 for 1000");

        let starts = self.starts(amount.samples).await?;
        report.note("from the call that submits until the instance has read what to start");
        report.target("stub_submit_to_start_p50", starts.p50_ms(), "ms", "<= 0.7");
        report.target("stub_submit_to_start_p99", starts.p99_ms(), "ms", "<= 3");
        let turns = self.turns(amount.samples).await?;
        report.note("from an end on an instance until the next start has come there");
        report.target("stub_exit_to_reuse_p50", turns.p50_ms(), "ms", "<= 0.7");
        report.figure("stub_exit_to_reuse_p99", turns.p99_ms(), "ms");

        let mut rate = Rate::default();
        let start = monotonic()?;
        let quiet = Pretence {
            told: false,
            runs_for: Duration::ZERO,
        };
        self.submit(amount.containers, 1, quiet)?;
        self.finish().await?;
        rate.add(amount.containers, monotonic()?.saturating_sub(start));
        let per_second = rate.per_second();
        let target = ">= 10000 by stream, 5000 by command";
        report.target("stub_containers_rate", per_second, "/s", target);
        report.figure("stub_rss_peak", usage::peak_resident_kib()? / 1024.0, "MiB");
        Ok(())
    }

    /// One container at a time, on one of the instances.
    async fn starts(&mut self, count: u32) -> anyhow::Result<Samples> {
        let mut samples = Samples::default();
        for _ in 0..count {
            let told = Pretence {
                told: true,
                runs_for: Duration::ZERO,
            };
            let start = monotonic()?;
            self.submit(1, SOLO_VCPUS, told)?;
            let Said::Begun(begun) = self.said().await? else {
                anyhow::bail!("a container has ended that has not begun");
            };
            samples.push(begun.saturating_sub(start));
            self.said().await?;
            self.finish().await?;
            self.idle(0).await?;
        }
        Ok(samples)
    }

    /// Containers that wait for each other.
    async fn turns(&mut self, count: u32) -> anyhow::Result<Samples> {
        let mut samples = Samples::default();
        let told = Pretence {
            told: true,
            runs_for: TURN,
        };
        self.submit(count + 1, SOLO_VCPUS, told)?;
        let mut ended = None;
        for _ in 0..2 * (count + 1) {
            match (self.said().await?, ended.take()) {
                (Said::Ended(time), None) => ended = Some(time),
                (Said::Begun(time), Some(ended)) => samples.push(time.saturating_sub(ended)),
                (Said::Begun(_), None) => {}
                (Said::Ended(_), Some(_)) => anyhow::bail!("two containers ran at once"),
            }
        }
        self.finish().await?;
        Ok(samples)
    }

    fn submit(&mut self, count: u32, vcpus: u32, pretence: Pretence) -> anyhow::Result<()> {
        let document: Arc<[u8]> = pretence.document().to_json()?.into();
        let mut containers = Vec::new();
        for n in self.submitted..self.submitted + count {
            let uuid: ContainerUuid = format!("zzzzz-dz642-{n:015}").parse()?;
            let request = ResourceRequest {
                vcpus,
                ..ResourceRequest::default()
            };
            containers.push((Container::queued(uuid, request), document.clone()));
        }
        self.submitted += count;
        self.queue.submit(containers);
        Ok(())
    }

    async fn said(&mut self) -> anyhow::Result<Said> {
        let said = timeout(PATIENCE, self.said.recv()).await;
        said.context("a container does not begin, or not end")?
            .context("the far side has ended by itself")
    }

    /// Waits until the controller knows of the end of everything.
    async fn finish(&self) -> anyhow::Result<()> {
        let submitted = self.submitted;
        let mut finished = self.queue.finished();
        let waiting = finished.wait_for(|count| *count == submitted);
        match timeout(PATIENCE, waiting).await {
            Ok(ended) => ended.map(|_| ()).context("the controller has gone"),
            Err(_) => {
                let ended = *self.queue.finished().borrow();
                let snapshots = self.dispatcher.snapshots();
                let reason = snapshots
                    .borrow()
                    .waiting
                    .first()
                    .map(|entry| entry.reason.to_string());
                anyhow::bail!(
                    "only {ended} of {submitted} containers end; the first waits: {reason:?}"
                )
            }
        }
    }

    /// Waits until at least so many instances are there, and all idle.
    async fn idle(&self, count: u32) -> anyhow::Result<()> {
        let count = usize::try_from(count)?;
        let idle = |snapshot: &Snapshot| {
            let workers = &snapshot.workers;
            let idle = |w: &longshore_types::WorkerView| {
                w.state == WorkerState::Idle && w.containers.is_empty()
            };
            workers.len() >= count && workers.iter().all(idle)
        };
        let mut snapshots = self.dispatcher.snapshots();
        timeout(PATIENCE, snapshots.wait_for(|snapshot| idle(snapshot)))
            .await
            .context("not all instances become idle")?
            .context("the dispatcher has ended by itself")?;
        Ok(())
    }

    async fn stop(self) {
        self.dispatcher.stop(Duration::from_secs(1)).await;
        let (mut child, stdin) = self.far_side;
        drop(stdin);
        // If it does not end by itself, dropping it kills it.
        let _ = timeout(Duration::from_secs(5), child.wait()).await;
    }
}

type FarSide = ((Child, ChildStdin), u16, mpsc::UnboundedReceiver<Said>);

/// Starts the process of the instances.
async fn far_side(public_key: &str) -> anyhow::Result<FarSide> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program)
        .args(["bench", "stub-instances"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the process of the instances")?;
    let mut stdin = child.stdin.take().context("it has no standard input")?;
    stdin
        .write_all(format!("{public_key}\n").as_bytes())
        .await?;
    let stdout = child.stdout.take().context("it has no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let port = lines.next_line().await?.context("it has ended at once")?;
    let port = port.parse().context("it does not say where it listens")?;
    let (sender, said) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(said) = Said::parse(&line)
                && sender.send(said).is_err()
            {
                return;
            }
        }
    });
    Ok(((child, stdin), port, said))
}

fn types() -> anyhow::Result<Vec<InstanceType>> {
    let price = Price::from_units(0.1)?;
    let many = InstanceType::new("many", 1, ByteSize::gib(4), price);
    let price = Price::from_units(1.0)?;
    let solo = InstanceType::new(SOLO, SOLO_VCPUS, ByteSize::gib(4), price);
    Ok(vec![many, solo])
}

/// The first is larger than the others.
fn instance(n: u32, port: u16) -> Instance {
    let instance_type = if n == 0 { SOLO } else { "many" };
    let keys = tag_keys();
    let mut tags = ours();
    tags.insert(keys.instance_type, instance_type.into());
    tags.insert(keys.idle_behavior, "run".into());
    tags.insert(keys.secret, format!("secret of {n}"));
    let id = format!("stub-{n:05}");
    let mut instance = Instance::new(id, instance_type, InstanceState::Running, tags);
    instance.address = Some(format!("127.0.0.1:{port}"));
    instance
}
