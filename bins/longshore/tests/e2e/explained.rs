//! What `longshore explain` says of a service whose provider has its moods: real instances, real
//! jobs, and the command as a user calls it.

use std::collections::BTreeMap;
use std::fmt;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser as _;
use longshore::cli::{Cli, Command};
use longshore::provider::Provider;
use longshore::service::serve::serve_until;
use longshore::state::StateDirectory;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, CreateRequest, Driver as _, ErrorKind, Extensions,
    Instance, InstanceResults, InstanceSet, Operation, Scope, Tags,
};
use longshore_driver_loopback::LoopbackDriver;
use longshore_types::{
    ByteSize, HostKey, HostKeyVerdict, InstanceId, InstanceType, Price, TypeName,
};
use tokio::sync::{oneshot, watch};

use super::service::clean;
use super::world::{World, wait_for, wait_long};

/// What the provider does at the moment.
#[derive(Clone, Debug, Default)]
struct Mood {
    /// How a create of a type is refused.
    refusals: BTreeMap<String, ErrorKind>,
    /// Whether listings are not answered.
    silent: bool,
    /// Whether nobody is told where instances can be reached.
    hides_addresses: bool,
}

/// Instances on this machine, made by a provider that has moods.
#[derive(Debug)]
struct Moody {
    inner: Box<dyn InstanceSet>,
    mood: watch::Receiver<Mood>,
}

impl Moody {
    fn show(&self, mut instance: Instance) -> Instance {
        if self.mood.borrow().hides_addresses {
            instance.address = None;
        }
        instance
    }
}

impl fmt::Display for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Moody({})", self.inner)
    }
}

#[async_trait]
impl InstanceSet for Moody {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        let name = &request.instance_type.name;
        let refusal = self.mood.borrow().refusals.get(name.as_str()).cloned();
        if let Some(kind) = refusal {
            let words = format!("no {name} today");
            return Err(CloudError::new(Operation::Create, "moody", kind, words));
        }
        let made = self.inner.create(context, request).await?;
        Ok(self.show(made))
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        let mut mood = self.mood.clone();
        // The other side ends with the test.
        let _ = mood.wait_for(|mood| !mood.silent).await;
        let listed = self.inner.list(context, tags).await?;
        Ok(listed.into_iter().map(|i| self.show(i)).collect())
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        self.inner.destroy(context, ids).await
    }

    async fn set_tags(
        &self,
        context: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults {
        self.inner.set_tags(context, changes).await
    }

    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        self.inner.verify_host_key(context, id, key).await
    }

    fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
        self.inner.quota_group(instance_type)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn extensions(&self) -> Extensions<'_> {
        self.inner.extensions()
    }

    async fn stop(&self) {
        self.inner.stop().await;
    }
}

/// Types of which there may be several instances on any machine.
fn types() -> Vec<InstanceType> {
    let of = |(name, vcpus, price)| {
        let price = Price::from_units(price).unwrap();
        InstanceType::new(name, vcpus, ByteSize::gib(1), price)
    };
    [("small", 1, 0.1), ("large", 2, 0.168)].map(of).to_vec()
}

/// `longshore serve` in this process.
struct Moods {
    mood: watch::Sender<Mood>,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Moods {
    fn start(world: &World, max_instances: usize, mood: Mood) -> Self {
        Self::of(types(), world, max_instances, mood)
    }

    fn of(types: Vec<InstanceType>, world: &World, max_instances: usize, mood: Mood) -> Self {
        let (mood, moods) = watch::channel(mood);
        let (end, ended) = oneshot::channel();
        let path = world.state();
        longshore::state_dir::create(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let cli = Cli::parse_from(["longshore", "serve", "--listen", "127.0.0.1:0"]);
                let Command::Serve(args) = cli.command else {
                    panic!("it is something else than serve");
                };
                let state = StateDirectory::open(&path).unwrap();
                let provider = provider(&state, types, max_instances, moods).await;
                let end = async { ended.await.unwrap_or(()) };
                serve_until(&args, &state, provider, end).await.unwrap();
            });
        });
        let socket = world.state().join("service.sock");
        wait_for("the service", || socket.exists().then_some(()));
        Self { mood, end, thread }
    }

    fn turn(&self, change: impl FnOnce(&mut Mood)) {
        self.mood.send_modify(change);
    }

    fn stop(self) {
        self.end.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

async fn provider(
    state: &StateDirectory,
    types: Vec<InstanceType>,
    max_instances: usize,
    mood: watch::Receiver<Mood>,
) -> Provider {
    let loopback = state.loopback();
    let parameters = serde_json::json!({ "directory": loopback.to_str().unwrap(), "instances": 8 });
    let inner = LoopbackDriver.open(&parameters).await.unwrap();
    let runner = state.path().join("runner");
    let moody = Box::new(Moody { inner, mood });
    let mut provider = Provider::new(moody, types, runner.to_str().unwrap().to_owned());
    provider.pool.max_instances = max_instances;
    provider.pool.sync_interval = Duration::from_millis(200);
    provider
}

fn submit(world: &World, name: &str, vcpus: &str, command: &[&str]) {
    let mut arguments = vec![
        "submit", "--name", name, "--vcpus", vcpus, "--ram", "64MiB", "--",
    ];
    arguments.extend(command);
    world.run(&arguments).expect(0);
}

/// Waits until the command says all of these of a job.
fn explained(world: &World, name: &str, wanted: &[&str]) -> String {
    let mut last = String::new();
    let seen = wait_long(|| {
        last = world.run(&["explain", name]).expect(0).out;
        let said = wanted.iter().all(|words| last.contains(words));
        said.then_some(())
    });
    assert!(
        seen.is_some(),
        "{wanted:?} not in what was said of {name}:\n{last}"
    );
    if std::env::var_os("LONGSHORE_SHOW").is_some() {
        eprintln!("{last}");
    }
    last
}

#[test]
fn what_a_provider_refuses_is_explained() {
    let world = World::new();
    let mut mood = Mood {
        silent: true,
        ..Mood::default()
    };
    let no_capacity = ErrorKind::NoCapacity(Scope::Type(TypeName::from("small")));
    mood.refusals.insert("small".to_owned(), no_capacity);
    let quota = ErrorKind::QuotaExceeded(Scope::Type(TypeName::from("large")));
    mood.refusals.insert("large".to_owned(), quota);
    let service = Moods::start(&world, 8, mood);

    submit(&world, "narrow", "1", &["true"]);
    explained(
        &world,
        "narrow",
        &[
            "1st of 1 in line: no new containers are started at the moment",
            "nothing is begun before the queue and the instances have been read",
        ],
    );
    service.turn(|mood| mood.silent = false);
    explained(
        &world,
        "narrow",
        &[
            "1st of 1 in line: waiting for room on an instance of type small",
            "then type small is tried again (moody: create: no capacity for type small: no small today)",
            "raise MaximumPriceFactor: large would fit, and is 12 % dearer than it allows",
        ],
    );
    submit(&world, "wide", "2", &["true"]);
    explained(
        &world,
        "wide",
        &[
            "2nd of 2 in line: waiting for room on an instance of type large",
            "type large is held off: moody: create: quota exceeded for type large",
        ],
    );
    for name in ["narrow", "wide"] {
        world.run(&["cancel", name]).expect(0);
        explained(&world, name, &["it was cancelled"]);
    }
    service.stop();
    clean(&world);
}

#[test]
fn what_instances_do_is_explained() {
    let world = World::new();
    let hidden = Mood {
        hides_addresses: true,
        ..Mood::default()
    };
    let service = Moods::start(&world, 1, hidden.clone());
    let stubborn = "trap '' TERM; touch began; while :; do sleep 1; done";
    submit(&world, "stubborn", "1", &["sh", "-c", stubborn]);
    explained(&world, "stubborn", &["boot"]);
    service.turn(|mood| mood.hides_addresses = false);
    explained(&world, "stubborn", &["\nit runs\n"]);
    wait_for("its trap", || world.exists("began").then_some(()));
    submit(&world, "next", "1", &["true"]);
    let text = explained(
        &world,
        "next",
        &[
            "has not enough vCPUs left",
            "MaxInstances 1 is reached: raise it",
        ],
    );
    assert!(
        !text.contains("raise MaximumPriceFactor"),
        "a dearer instance could not be created either:\n{text}"
    );
    service.stop();

    // Another process finds the instance in the list, and cannot reach it.
    let service = Moods::start(&world, 1, hidden);
    explained(
        &world,
        "stubborn",
        &[
            "it ran on loopback-",
            "when that was last heard of; that instance has to answer, or to go",
        ],
    );
    service.turn(|mood| mood.hides_addresses = false);
    explained(&world, "stubborn", &["\nit runs\n"]);
    world.run(&["cancel", "stubborn"]).expect(0);
    explained(&world, "stubborn", &["it is being stopped on loopback-"]);
    service.stop();
    clean(&world);
}

#[test]
fn a_job_has_to_fit_what_the_service_has_not_this_machine() {
    let world = World::new();
    let here = longshore::provider::this_machine().unwrap();
    let price = Price::from_units(0.1).unwrap();
    let wide = InstanceType::new("wide", here.vcpus + 2, ByteSize::mib(128), price);
    let narrow = InstanceType::new("narrow", 1, ByteSize::mib(32), price);
    let service = Moods::of(vec![narrow, wide], &world, 1, Mood::default());

    let vcpus = (here.vcpus + 1).to_string();
    submit(&world, "more than here", &vcpus, &["true"]);
    world.run(&["logs", "-f", "more than here"]).expect(0);
    let job = |name: &str, ram: &str| {
        format!(
            "  - {{name: {name}, command: \"true\", resources: {{vcpus: {vcpus}, ram: {ram}}}}}\n"
        )
    };
    world.jobs("fits", &job("fits", "64MiB"));
    world.run(&["run", "--quiet", "fits"]).expect(0);

    // Here would be room for it.
    let command = ["submit", "--ram", "256MiB", "--", "true"];
    let said = world.run(&command).expect(2);
    said.complains(&["wide has 128 MiB RAM of", "ask for less"]);
    world.jobs("deep", &job("deep", "256MiB"));
    for command in ["submit", "run"] {
        let said = world.run(&[command, "deep"]).expect(2);
        said.complains(&["needs 256 MiB RAM, the instance type wide has 12"]);
    }
    let listed = world.run(&["list", "--all", "--json"]).expect(0).out;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    service.stop();
    clean(&world);
}
