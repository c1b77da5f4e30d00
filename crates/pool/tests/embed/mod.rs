//! A cloud and hosts in memory that do what they are told, good and bad.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of it"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::*;
use longshore_exec::{
    Collected, Command, ExecError, Executor, ExitStatus, HostKey, HostKeyVerdict, Output, Process,
    Target,
};
use longshore_pool::runtime::{Pool, PoolBuilder, RunnerProtocol};
use longshore_pool::{KillOutcome, Snapshot, StartOutcome};
use longshore_runner_api::command::{OutputStream, ReportOptions};
use longshore_types::*;

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub struct World {
    pub cloud: Arc<Cloud>,
    pub hosts: Arc<Hosts>,
}

impl World {
    pub fn new() -> Self {
        let cloud = Arc::new(Cloud::default());
        cloud.consistent(true);
        let hosts = Arc::new(Hosts::default());
        Self { cloud, hosts }
    }

    pub fn types(&self) -> Vec<InstanceType> {
        let price = Price::from_units(0.5).unwrap();
        vec![
            InstanceType::new("small", 4, ByteSize::gib(1), price),
            InstanceType::new("big", 16, ByteSize::gib(4), price),
        ]
    }

    /// A pool for a paused clock: provider calls on the runtime's own thread.
    pub fn builder(&self) -> PoolBuilder {
        self.builder_of("set")
    }

    pub fn builder_of(&self, instance_set_id: &str) -> PoolBuilder {
        self.isolated(instance_set_id).inline_provider_calls()
    }

    /// A pool as it is by default.
    pub fn isolated(&self, instance_set_id: &str) -> PoolBuilder {
        let (cloud, hosts) = (self.cloud.clone(), self.hosts.clone());
        Pool::builder(instance_set_id, self.types(), cloud, hosts.clone())
            .protocol(Arc::new(Language(hosts)))
            .configure(|config| config.probe_interval = Duration::from_millis(20))
    }

    pub async fn pool(&self) -> Pool {
        self.builder().start().await.unwrap()
    }
}

/// Waits until a snapshot is as it should be.
pub async fn until(pool: &Pool, wanted: impl Fn(&Snapshot) -> bool) {
    let mut snapshots = pool.snapshots();
    let waits = snapshots.wait_for(|snapshot| wanted(snapshot));
    let waited = tokio::time::timeout(seconds(600), waits).await;
    if waited.is_err() {
        panic!("it did not come to that: {:#?}", pool.snapshot());
    }
    waited.unwrap().unwrap();
}

/// Polls a future so often, letting everybody else go on in between, and drops it.
pub async fn drop_after<T>(polls: usize, future: impl Future<Output = T>) {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if future.as_mut().poll(&mut context).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// What the provider does with calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Says no to creates.
    Refuse,
    Panic,
    /// Also the questions at the start.
    PanicWhenAsked,
    /// Waits for ever without blocking.
    Hang,
    /// Blocks its thread until there is another fault, or none.
    Block,
    /// Blocks the questions at the start only.
    BlockWhenAsked,
}

#[derive(Default)]
pub struct Cloud {
    table: Mutex<Vec<Instance>>,
    fault: Mutex<Fault>,
    /// The call that the fault is about; none for all.
    only: Mutex<Option<&'static str>>,
    blocked: Condvar,
    consistent: Mutex<bool>,
    creates: AtomicUsize,
    calls: AtomicUsize,
}

impl Cloud {
    pub fn set(&self, fault: Fault) {
        self.set_only(fault, None);
    }

    pub fn set_only(&self, fault: Fault, only: Option<&'static str>) {
        *self.only.lock().unwrap() = only;
        *self.fault.lock().unwrap() = fault;
        self.blocked.notify_all();
    }

    pub fn consistent(&self, consistent: bool) {
        *self.consistent.lock().unwrap() = consistent;
    }

    pub fn creates(&self) -> usize {
        self.creates.load(Ordering::SeqCst)
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn len(&self) -> usize {
        self.table.lock().unwrap().len()
    }

    async fn call(&self, name: &'static str) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let about = self.only.lock().unwrap().is_none_or(|only| only == name);
        if !about {
            return;
        }
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Panic | Fault::PanicWhenAsked => panic!("the driver broke"),
            Fault::Hang => std::future::pending().await,
            Fault::Block => self.block(Fault::Block),
            Fault::None | Fault::Refuse | Fault::BlockWhenAsked => {}
        }
    }

    fn block(&self, while_it_is: Fault) {
        let fault = self.fault.lock().unwrap();
        let stuck = |fault: &mut Fault| *fault == while_it_is;
        drop(self.blocked.wait_while(fault, stuck).unwrap());
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cloud")
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cloud")
    }
}

#[async_trait]
impl InstanceSet for Cloud {
    async fn create(&self, _: &CallContext, r: &CreateRequest) -> Result<Instance, CloudError> {
        self.call("create").await;
        if *self.fault.lock().unwrap() == Fault::Refuse {
            let kind = ErrorKind::InvalidRequest;
            return Err(CloudError::new(
                Operation::Create,
                "test",
                kind,
                "no such image",
            ));
        }
        let n = self.creates.fetch_add(1, Ordering::SeqCst);
        let id = format!("i-{n}");
        let mut made = Instance::new(id, "test", InstanceState::Running, r.tags.clone());
        made.address = Some(format!("host-{n}.example"));
        self.table.lock().unwrap().push(made.clone());
        Ok(made)
    }

    async fn list(&self, _: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.call("list").await;
        let table = self.table.lock().unwrap();
        Ok(table.iter().filter(|i| i.has_tags(tags)).cloned().collect())
    }

    async fn destroy(&self, _: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        self.call("destroy").await;
        self.table.lock().unwrap().retain(|i| !ids.contains(&i.id));
        ids.iter().map(|id| (id.clone(), Ok(()))).collect()
    }

    async fn set_tags(&self, _: &CallContext, changes: &[(InstanceId, Tags)]) -> InstanceResults {
        self.call("set_tags").await;
        let mut table = self.table.lock().unwrap();
        for (id, tags) in changes {
            for instance in table.iter_mut().filter(|i| i.id == *id) {
                instance.tags.extend(tags.clone());
            }
        }
        changes.iter().map(|(id, _)| (id.clone(), Ok(()))).collect()
    }

    async fn verify_host_key(
        &self,
        _: &CallContext,
        _: &InstanceId,
        _: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        self.call("verify_host_key").await;
        Ok(HostKeyVerdict::Match)
    }

    fn quota_group(&self, _: &InstanceType) -> Option<String> {
        Some("group".into())
    }

    fn capabilities(&self) -> Capabilities {
        if *self.fault.lock().unwrap() == Fault::PanicWhenAsked {
            panic!("the driver broke");
        }
        self.block(Fault::BlockWhenAsked);
        let capabilities = Capabilities::new().with_tags_at_birth();
        if *self.consistent.lock().unwrap() {
            capabilities.with_consistent_listing()
        } else {
            capabilities
        }
    }

    fn extensions(&self) -> Extensions<'_> {
        Extensions::default()
    }

    async fn stop(&self) {}
}

/// What hosts do with commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostFault {
    #[default]
    None,
    Hangs,
    Panics,
    /// Prints for ever, as fast as it is read.
    Chatters,
    /// The language fails, not the host.
    ProtocolPanics,
    /// Asks for the host key before each command.
    AsksForKey,
}

/// Hosts on which payloads are: `exit N` ends at once, everything else waits to be killed.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    /// By host and payload: how it ended, none while it runs.
    payloads: Mutex<BTreeMap<(String, String), Option<String>>>,
    fault: Mutex<HostFault>,
    /// The instance that the fault is about; none for all.
    only: Mutex<Option<InstanceId>>,
    acknowledged: AtomicUsize,
    verdicts: Mutex<Vec<HostKeyVerdict>>,
}

impl Hosts {
    pub fn set(&self, fault: HostFault) {
        self.set_only(fault, None);
    }

    pub fn set_only(&self, fault: HostFault, only: Option<InstanceId>) {
        *self.0.only.lock().unwrap() = only;
        *self.0.fault.lock().unwrap() = fault;
    }

    pub fn acknowledged(&self) -> usize {
        self.0.acknowledged.load(Ordering::SeqCst)
    }

    /// What was said of host keys.
    pub fn verdicts(&self) -> Vec<HostKeyVerdict> {
        self.0.verdicts.lock().unwrap().clone()
    }

    fn fault_of(&self, instance: &InstanceId) -> HostFault {
        let only = self.0.only.lock().unwrap();
        if only.as_ref().is_none_or(|only| only == instance) {
            *self.0.fault.lock().unwrap()
        } else {
            HostFault::None
        }
    }

    /// Carries a command out; what it prints.
    fn carry_out(&self, host: &str, line: &str, stdin: &str) -> String {
        let mut payloads = self.0.payloads.lock().unwrap();
        let line = line.trim_start_matches("exec ").trim_start_matches("sudo ");
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["start", uuid, attempt] => {
                let code = stdin.strip_prefix("exit ");
                let end = code.map(|code| format!("exited {code}"));
                payloads.insert((host.into(), format!("{uuid} {attempt}")), end);
                String::new()
            }
            ["kill", uuid, attempt] => {
                let key = (host.to_owned(), format!("{uuid} {attempt}"));
                if let Some(end @ None) = payloads.get_mut(&key) {
                    *end = Some("killed 0".into());
                }
                String::new()
            }
            ["report", ref acks @ ..] => {
                for ack in acks {
                    let key = (host.to_owned(), ack.replace(':', " "));
                    let removed = usize::from(payloads.remove(&key).is_some());
                    self.0.acknowledged.fetch_add(removed, Ordering::SeqCst);
                }
                let here = payloads.iter().filter(|((on, _), _)| on == host);
                let line = |((_, payload), end): (&(String, String), &Option<String>)| {
                    format!("{payload} {}\n", end.as_deref().unwrap_or("running 0"))
                };
                here.map(line).collect()
            }
            _ => String::new(),
        }
    }
}

#[async_trait]
impl Executor for Hosts {
    async fn open(
        &self,
        target: &Target,
        command: &Command,
        _: Duration,
    ) -> Result<Box<dyn Process>, ExecError> {
        let fault = self.fault_of(&target.instance);
        match (fault, &target.identity) {
            (HostFault::Hangs, _) => std::future::pending().await,
            (HostFault::Panics, _) => panic!("the executor broke"),
            (HostFault::AsksForKey, longshore_exec::Identity::Checked { verifier, .. }) => {
                let key = HostKey {
                    algorithm: "test".into(),
                    blob: vec![],
                };
                let verdict = verifier.verify(&target.instance, &key).await;
                self.0.verdicts.lock().unwrap().push(verdict);
            }
            _ => {}
        }
        Ok(Box::new(Ran {
            says: String::new(),
            stdin: Vec::new(),
            line: command.line.clone(),
            host: target.instance.to_string(),
            hosts: self.clone(),
            chatters: fault == HostFault::Chatters,
        }))
    }

    async fn disconnect(&self, _: &InstanceId) {}
}

#[derive(Debug)]
struct Ran {
    says: String,
    stdin: Vec<u8>,
    line: String,
    host: String,
    hosts: Hosts,
    chatters: bool,
}

#[async_trait]
impl Process for Ran {
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
        self.stdin.extend_from_slice(bytes);
        Ok(())
    }

    async fn close_stdin(&mut self) -> Result<(), ExecError> {
        let stdin = String::from_utf8_lossy(&self.stdin).into_owned();
        self.says = self.hosts.carry_out(&self.host, &self.line, &stdin);
        Ok(())
    }

    async fn output(&mut self) -> Result<Option<Output>, ExecError> {
        if self.chatters {
            return Ok(Some(Output::Stdout(vec![b'x'; longshore_exec::MAX_CHUNK])));
        }
        let says = std::mem::take(&mut self.says).into_bytes();
        Ok(Some(Output::Stdout(says)).filter(|output| *output != Output::Stdout(vec![])))
    }

    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        Ok(Some(ExitStatus::Code(0)))
    }
}

/// What is said to those hosts.
#[derive(Debug)]
pub struct Language(Arc<Hosts>);

impl Language {
    fn may_fail(&self) {
        let fault = *self.0.0.fault.lock().unwrap();
        assert!(fault != HostFault::ProtocolPanics, "the protocol broke");
    }
}

impl RunnerProtocol for Language {
    fn start(&self, uuid: ContainerUuid, attempt: Attempt) -> String {
        self.may_fail();
        format!("start {uuid} {attempt}")
    }

    fn started(&self, answer: &Collected) -> StartOutcome {
        match answer.succeeded() {
            true => StartOutcome::Started,
            false => StartOutcome::Unknown {
                error: "no exit status".into(),
            },
        }
    }

    fn kill(&self, uuid: ContainerUuid, attempt: Attempt, _: u8) -> String {
        format!("kill {uuid} {attempt}")
    }

    fn killed(&self, _: &Collected) -> KillOutcome {
        KillOutcome::Gone
    }

    fn report(&self, options: &ReportOptions) -> String {
        self.may_fail();
        let acks = options.acks.iter();
        let acks = acks.map(|(uuid, attempt)| format!(" {uuid}:{attempt}"));
        format!("report{}", acks.collect::<String>())
    }

    fn complete_report(&self, _: &[u8]) -> Option<RunnerReport> {
        None
    }

    fn reported(&self, answer: &Collected) -> Result<RunnerReport, String> {
        let text = String::from_utf8_lossy(&answer.stdout);
        let mut report = RunnerReport::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [uuid, attempt, how, code] = words[..] else {
                return Err(format!("{line:?}"));
            };
            let cause = match how {
                "exited" => ExitCause::Exited {
                    code: code.parse().map_err(|_| "code")?,
                },
                _ => ExitCause::Killed,
            };
            let state = match how {
                "running" => ReportedState::Running { started_at: None },
                _ => ReportedState::Finished(Exit::unseen(cause)),
            };
            report.containers.push(ContainerReport {
                uuid: uuid.parse().map_err(|_| "uuid")?,
                attempt: Attempt(attempt.parse().map_err(|_| "attempt")?),
                state,
            });
        }
        Ok(report)
    }

    fn output(&self, _: ContainerUuid, _: Attempt, _: OutputStream, _: Option<u64>) -> String {
        "true".into()
    }
}
