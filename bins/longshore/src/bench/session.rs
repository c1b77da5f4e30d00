//! The installation that is measured.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use longshore_controller::{BatchId, BatchStatus, NewBatch, NewJob};
use longshore_dispatch::Snapshot;
use longshore_exec::{Identity, Target};
use longshore_runner_api::StartDocument;
use longshore_ssh::{PrivateKey, SshExecutor};
use longshore_types::{ResourceRequest, WorkerState};

use super::fifo::Fifo;
use crate::embedded::{Embedded, Prepared};
use crate::provider::{self, Provider};
use crate::state::StateDirectory;

/// The longest time in which the instance must be ready, or become idle.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest time in which a batch must show some progress.
const BATCH_PATIENCE: Duration = Duration::from_secs(60);
/// How often a batch is looked at: seldom, so that looking costs little.
const LOOK: Duration = Duration::from_millis(50);

/// An installation with its one instance.
#[derive(Debug)]
pub(super) struct Session {
    embedded: Embedded,
    folder: PathBuf,
    executor: SshExecutor,
    target: Option<Target>,
    pub(super) fifo: Fifo,
    /// How many batches there were, to tell them apart.
    batches: u64,
}

impl Session {
    pub(super) async fn start(state: &StateDirectory, watch_streams: bool) -> anyhow::Result<Self> {
        let (key, _) = state.ssh_key()?;
        let key = PrivateKey::parse(&key).context("the key cannot be used")?;
        let fifo = Fifo::make(&state.path().join("fifo"))?;
        let mut provider = Provider::loopback(state).await?;
        provider.watch_streams = watch_streams;
        Ok(Self {
            embedded: Prepared::new(state, provider)?.start(),
            folder: state.path().to_owned(),
            executor: SshExecutor::new(key, longshore_ssh::Settings::default()),
            target: None,
            fifo,
            batches: 0,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs commands on the instance beside the dispatcher, over a connection of its own.
    pub(super) fn executor(&self) -> &SshExecutor {
        &self.executor
    }

    /// The instance.
    ///
    /// # Panics
    /// If it was not warmed up.
    pub(super) fn target(&self) -> &Target {
        self.target.as_ref().expect("warmed up")
    }

    /// Runs one job, so that there is an instance that is ready.
    pub(super) async fn warm_up(&mut self) -> anyhow::Result<()> {
        let batch = self.submit(vec![job("warm-up", &["true"], 0)]).await?;
        self.finish(batch).await?;
        let mut instances = self.embedded.addresses().await?;
        let (instance, address) = instances.pop().context("the instance has no address")?;
        self.target = Some(Target::new(instance, address, "root", Identity::Unchecked));
        self.idle().await
    }

    pub(super) async fn submit(&mut self, jobs: Vec<NewJob>) -> anyhow::Result<BatchId> {
        self.batches += 1;
        let batch = NewBatch {
            key: format!("bench-{}", self.batches),
            content_hash: String::new(),
            name: String::from("bench"),
            followed: true,
            jobs,
        };
        Ok(self.embedded.store().submit_batch(batch).await?)
    }

    /// Waits until a batch has succeeded.
    pub(super) async fn finish(&self, id: BatchId) -> anyhow::Result<BatchStatus> {
        let store = self.embedded.store();
        let mut status = store.batch_status(id).await?;
        let mut changed_at = Instant::now();
        while !status.is_finished() {
            tokio::time::sleep(LOOK).await;
            let now = store.batch_status(id).await?;
            if now.revision > status.revision {
                changed_at = Instant::now();
            }
            anyhow::ensure!(
                changed_at.elapsed() < BATCH_PATIENCE,
                "it is stuck: {now:?}"
            );
            status = now;
        }
        if !status.is_success() {
            let jobs = store.job_status(id).await?;
            let failed = jobs.iter().find(|job| !job.is_success());
            anyhow::bail!("jobs failed: {:?}, the first: {failed:?}", status.counts);
        }
        Ok(status)
    }

    /// Waits until the instance is idle and nothing is left to be done for what ran before.
    pub(super) async fn idle(&self) -> anyhow::Result<()> {
        let idle = |snapshot: &Snapshot| {
            let worker = |w: &longshore_types::WorkerView| {
                w.state == WorkerState::Idle && w.containers.is_empty()
            };
            snapshot.unfinished == 0
                && !snapshot.workers.is_empty()
                && snapshot.workers.iter().all(worker)
        };
        let mut snapshots = self.embedded.dispatcher().snapshots();
        let waiting = snapshots.wait_for(|snapshot| idle(snapshot));
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .context("the instance does not become idle")?
            .context("the dispatcher has ended by itself")?;
        Ok(())
    }

    /// Transactions of the controller since it was started.
    pub(super) fn commits(&self) -> u64 {
        self.embedded.store().stats().commits
    }

    /// An error if the instance was replaced meanwhile: part of what was measured is then
    /// something else.
    pub(super) async fn was_undisturbed(&self) -> anyhow::Result<()> {
        let instances = self.embedded.instances().await?;
        let undisturbed = instances == [self.target().instance.clone()];
        anyhow::ensure!(undisturbed, "the instance was replaced: {instances:?}");
        Ok(())
    }

    pub(super) async fn stop(self) {
        self.embedded.stop().await;
    }
}

/// How many vCPUs a job must ask for to have the machine for itself.
pub(super) fn whole_machine() -> anyhow::Result<u32> {
    Ok(provider::this_machine()?.vcpus)
}

/// A job that asks for nothing but vCPUs.
pub(super) fn job(name: impl Into<String>, command: &[&str], vcpus: u32) -> NewJob {
    let command = command.iter().map(ToString::to_string).collect();
    let request = ResourceRequest {
        vcpus,
        ..ResourceRequest::default()
    };
    NewJob::new(name, StartDocument::new(command), request)
}

/// A job whose shell script writes to `$FIFO`.
pub(super) fn telling_job(
    name: impl Into<String>,
    script: &str,
    vcpus: u32,
    fifo: &Fifo,
) -> anyhow::Result<NewJob> {
    let mut job = job(name, &["sh", "-c", script], vcpus);
    let path = fifo.path().to_str().context("the path is not UTF-8")?;
    job.document.env.insert("FIFO".into(), path.into());
    Ok(job)
}
