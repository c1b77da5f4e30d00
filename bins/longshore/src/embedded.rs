//! Everything in one process: the embedded controller, a provider's driver, pool and scheduler.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use longshore_cloud::{CallContext, Instance, InstanceSet};
use longshore_controller::{Settings, Store};
use longshore_dispatch::runtime::{Dispatcher, Parts};
use longshore_pool::runtime::{LongshoreRun, RunnerBinary, Shell, random_seed};
use longshore_queue::Queue as _;
use longshore_ssh::{PrivateKey, SshExecutor};
use longshore_throttle::Metrics;
use longshore_types::{ByteSize, InstanceId, InstanceType};

use crate::provider::{Provider, ours};
use crate::runner;
use crate::service::{Jobs, Local};
use crate::state::StateDirectory;

/// How long a call to the driver may take when the program asks it itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for destroying: longer than the loopback driver looks for processes that resist.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(90);
/// How long ending waits for what is under way.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A whole installation in this process.
#[derive(Debug)]
pub struct Embedded {
    store: Arc<Store>,
    dispatcher: Dispatcher,
    /// How the scheduler chooses, and from which instance types.
    choice: Arc<longshore_scheduler::Config>,
    instance_set: Arc<dyn InstanceSet>,
    driver_metrics: Metrics,
}

/// An installation of which nothing acts yet: only its store is open.
#[derive(Debug)]
pub(crate) struct Prepared {
    store: Arc<Store>,
    config: longshore_dispatch::Config,
    parts: Parts,
    seed: [u8; 32],
    choice: Arc<longshore_scheduler::Config>,
    instance_set: Arc<dyn InstanceSet>,
    driver_metrics: Metrics,
}

impl Prepared {
    /// Opens the store, and checks everything that can be wrong.
    pub(crate) fn new(state: &StateDirectory, provider: Provider) -> anyhow::Result<Self> {
        let store = Arc::new(Store::open(&state.controller(), Settings::default())?);
        let Provider {
            instance_set,
            driver_metrics,
            mut pool,
            ssh,
            watch_streams,
            observer,
            runner_directory,
        } = provider;
        let (private_key, public_key) = state.ssh_key()?;
        let executor = SshExecutor::new(
            PrivateKey::parse(&private_key).context("the key id_ed25519 cannot be used")?,
            ssh,
        );
        let binary = RunnerBinary {
            content: Arc::from(runner::CONTENT),
            md5: runner::md5_hex().to_owned(),
            directory: runner_directory,
        };
        let protocol = Arc::new(LongshoreRun {
            path: binary.path(),
        });
        let mut shell = Shell::new(instance_set.clone(), Arc::new(executor), protocol);
        shell.runner = Some(binary);
        // This machine is used by whoever runs the program, as nobody else.
        shell.sudo = false;
        shell.watch_streams = watch_streams;
        shell.outputs = Some(store.clone());
        shell.secret_path.clone_from(&pool.secret_path);

        pool.public_key = Some(public_key);
        pool.validate()?;
        let mut scheduler = longshore_scheduler::Config::new(pool.types.clone());
        // A machine is as large as it is measured; nothing of ours runs beside a container that
        // would have to be reserved for each.
        scheduler.reserve_extra_ram = ByteSize::ZERO;
        scheduler.keep_buffers_per_vcpu = 0;
        let choice = Arc::new(scheduler.clone());
        let config = longshore_dispatch::Config::new(pool, scheduler, store.capabilities());
        let parts = Parts {
            shell: Arc::new(shell),
            queue: store.clone(),
            observer,
        };
        Ok(Self {
            store,
            config,
            parts,
            seed: random_seed().context("no random numbers can be had")?,
            choice,
            instance_set,
            driver_metrics,
        })
    }

    /// The controller.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Starts the dispatcher; what an earlier process left is taken up again. Must be called
    /// within a tokio runtime.
    pub(crate) fn start(self) -> Embedded {
        Embedded {
            store: self.store,
            dispatcher: Dispatcher::start(self.config, self.parts, self.seed),
            choice: self.choice,
            instance_set: self.instance_set,
            driver_metrics: self.driver_metrics,
        }
    }
}

impl Embedded {
    /// The controller.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Its jobs.
    pub fn jobs(&self) -> Jobs {
        Jobs::Here(self.local())
    }

    pub(crate) fn local(&self) -> Local {
        let choice = self.choice.clone();
        Local::new(self.store.clone(), self.dispatcher.handle(), choice)
    }

    /// The instance types that it has.
    pub fn types(&self) -> &[InstanceType] {
        &self.choice.types
    }

    /// Which calls the driver was given.
    pub(crate) fn driver_metrics(&self) -> &Metrics {
        &self.driver_metrics
    }

    /// The dispatcher.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// Takes no more jobs, gives every instance back once nothing is left on it, and returns when
    /// all are gone.
    pub async fn wind_down(&self) -> anyhow::Result<()> {
        self.store.close();
        self.dispatcher.wind_down().await?;
        let mut snapshots = self.dispatcher.snapshots();
        snapshots
            .wait_for(|snapshot| snapshot.wound_down)
            .await
            .context("the dispatcher has ended by itself")?;
        Ok(())
    }

    /// Returns when the dispatcher has ended by itself, which it never should.
    pub(crate) async fn failed(&self) -> anyhow::Error {
        self.dispatcher.ended().await;
        anyhow::anyhow!(
            "the dispatcher has ended by itself, which is a bug; what runs goes on, and \
             longshore.log in the state directory says more"
        )
    }

    /// The instances that the driver lists.
    pub async fn instances(&self) -> anyhow::Result<Vec<InstanceId>> {
        list_ids(&*self.instance_set).await
    }

    /// Where the instances that the driver lists answer SSH, as far as that is known.
    pub async fn addresses(&self) -> anyhow::Result<Vec<(InstanceId, String)>> {
        let instances = list(&*self.instance_set).await?;
        let with_address = |i: Instance| i.address.map(|address| (i.id, address));
        Ok(instances.into_iter().filter_map(with_address).collect())
    }

    /// Ends without ending what runs on instances.
    pub async fn stop(self) {
        let stopped = self.dispatcher.stop(STOP_GRACE).await;
        for line in &stopped.abandoned {
            tracing::warn!(effect = line, "abandoned");
        }
        if let Some(error) = &stopped.error {
            tracing::error!(error, "bug: the dispatcher's state was wrong");
        }
        self.instance_set.stop().await;
    }
}

/// Destroys every instance that a provider has, whatever runs there.
pub async fn destroy_all(provider: Provider) -> anyhow::Result<Vec<InstanceId>> {
    let instance_set = provider.instance_set;
    let ids = list_ids(&*instance_set).await?;
    let destroying = CallContext::new(DESTROY_TIMEOUT, "req-longshore-program");
    for (id, result) in instance_set.destroy(&destroying, &ids).await {
        result.with_context(|| format!("cannot destroy {id}"))?;
    }
    let left = list_ids(&*instance_set).await?;
    anyhow::ensure!(
        left.is_empty(),
        "still there after they were destroyed: {left:?}"
    );
    instance_set.stop().await;
    Ok(ids)
}

async fn list_ids(instance_set: &dyn InstanceSet) -> anyhow::Result<Vec<InstanceId>> {
    let instances = list(instance_set).await?;
    Ok(instances.into_iter().map(|instance| instance.id).collect())
}

async fn list(instance_set: &dyn InstanceSet) -> anyhow::Result<Vec<Instance>> {
    Ok(instance_set.list(&context(), &ours()).await?)
}

fn context() -> CallContext {
    CallContext::new(CALL_TIMEOUT, "req-longshore-program")
}
