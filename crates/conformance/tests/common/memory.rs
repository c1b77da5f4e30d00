//! A small instance set in memory that keeps every promise, in several shapes.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, ConsoleOutput, CreateRequest, ErrorKind, Extensions,
    Instance, InstanceResults, InstanceSet, InstanceState, Interruption, InterruptionNotices,
    Operation, PriceHistory, PricePoint, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType, Price, Timestamp};
use tokio::time::{Instant, sleep, timeout};

/// How an instance set in memory behaves.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) capabilities: Capabilities,
    pub(crate) extensions: bool,
    /// How long a call takes.
    pub(crate) latency: Duration,
    /// How long listings lag.
    pub(crate) lag: Duration,
    /// How long after its birth an instance gets its tags.
    pub(crate) tags_after: Duration,
    /// How long an instance is dying.
    pub(crate) dying: Duration,
}

impl Shape {
    pub(crate) fn full() -> Self {
        Self {
            capabilities: Capabilities::new()
                .with_idempotent_create()
                .with_tags_at_birth()
                .with_consistent_listing()
                .with_host_keys()
                .with_destroy_batch(50)
                .with_tag_batch(20),
            extensions: true,
            latency: Duration::from_millis(20),
            lag: Duration::ZERO,
            tags_after: Duration::ZERO,
            dying: Duration::from_secs(30),
        }
    }

    /// Nothing is promised, and everything takes its time.
    pub(crate) fn bare() -> Self {
        Self {
            capabilities: Capabilities::new(),
            extensions: false,
            latency: Duration::from_millis(300),
            lag: Duration::from_secs(15),
            tags_after: Duration::from_secs(5),
            dying: Duration::from_secs(120),
        }
    }
}

#[derive(Clone, Debug)]
struct Machine {
    id: InstanceId,
    token: String,
    provider_type: String,
    born: Instant,
    /// The tags that it had from when on.
    tags: Vec<(Instant, Tags)>,
    destroyed: Option<Instant>,
}

/// An instance set; clones show the same instances.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    shape: Shape,
    machines: Arc<Mutex<Vec<Machine>>>,
}

pub(crate) fn nobodys_key() -> HostKey {
    key("nobody")
}

/// The host key of an instance.
pub(crate) fn key(id: &str) -> HostKey {
    HostKey {
        algorithm: "ssh-ed25519".into(),
        blob: id.as_bytes().to_vec(),
    }
}

impl Memory {
    pub(crate) fn new(shape: Shape) -> Self {
        let machines = Arc::default();
        Self { shape, machines }
    }

    /// The ids of those that were not destroyed.
    pub(crate) fn alive(&self) -> Vec<InstanceId> {
        let machines = self.machines.lock().unwrap();
        let alive = machines.iter().filter(|m| m.destroyed.is_none());
        alive.map(|m| m.id.clone()).collect()
    }

    /// How many were ever made.
    pub(crate) fn births(&self) -> usize {
        self.machines.lock().unwrap().len()
    }

    /// How many there were at once at most, from birth until they were destroyed.
    pub(crate) fn peak(&self) -> usize {
        let machines = self.machines.lock().unwrap();
        let alive_at = |at: Instant| {
            let born = machines.iter().filter(|m| m.born <= at);
            born.filter(|m| m.destroyed.is_none_or(|end| end > at))
                .count()
        };
        machines.iter().map(|m| alive_at(m.born)).max().unwrap_or(0)
    }

    /// Does something in the middle of a call's latency, unless its time is over before.
    async fn call<T>(
        &self,
        context: &CallContext,
        operation: Operation,
        act: impl FnOnce(&mut Vec<Machine>) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        bounded(context, operation, async {
            sleep(self.shape.latency / 2).await;
            let done = act(&mut self.machines.lock().unwrap());
            sleep(self.shape.latency / 2).await;
            done
        })
        .await
    }

    /// What a listing shows of a machine now.
    fn show(&self, machine: &Machine) -> Option<Instance> {
        let now = Instant::now().checked_sub(self.shape.lag)?;
        if machine.born > now {
            return None;
        }
        let known = machine.tags.iter().rev().find(|(at, _)| *at <= now);
        let tags = known.map(|(_, tags)| tags.clone()).unwrap_or_default();
        let state = match machine.destroyed {
            Some(at) if at + self.shape.dying <= now => return None,
            Some(at) if at <= now => InstanceState::Stopping,
            _ => InstanceState::Running,
        };
        let (id, kind) = (machine.id.clone(), machine.provider_type.clone());
        Some(Instance::new(id, kind, state, tags))
    }
}

async fn bounded<T>(
    context: &CallContext,
    operation: Operation,
    call: impl Future<Output = Result<T, CloudError>>,
) -> Result<T, CloudError> {
    match timeout(context.timeout, call).await {
        Ok(done) => done,
        Err(elapsed) => Err(CloudError::new(
            operation,
            "memory",
            ErrorKind::TimedOut,
            elapsed,
        )),
    }
}

/// What the provider says when it refuses.
pub(crate) fn refusal(operation: Operation, kind: ErrorKind, words: &str) -> CloudError {
    CloudError::new(operation, "memory", kind, words)
}

fn not_there(operation: Operation) -> CloudError {
    refusal(operation, ErrorKind::NotFound, "NoSuchMachine")
}

#[async_trait]
impl InstanceSet for Memory {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        let (idempotent, tags_after) = (
            self.shape.capabilities.idempotent_create,
            self.shape.tags_after,
        );
        self.call(context, Operation::Create, |machines| {
            if request.instance_type.provider_type != "s1" || request.image != "image" {
                let (op, kind) = (Operation::Create, ErrorKind::InvalidRequest);
                return Err(refusal(op, kind, "NoSuchTypeOrImage"));
            }
            let made = machines.iter().find(|m| m.token == request.token);
            let machine = match made.filter(|_| idempotent) {
                Some(made) => made.clone(),
                None => {
                    let now = Instant::now();
                    let machine = Machine {
                        id: format!("m-{}", machines.len()).into(),
                        token: request.token.clone(),
                        provider_type: request.instance_type.provider_type.clone(),
                        born: now,
                        tags: vec![(now + tags_after, request.tags.clone())],
                        destroyed: None,
                    };
                    machines.push(machine.clone());
                    machine
                }
            };
            Ok(Instance::new(
                machine.id,
                machine.provider_type,
                InstanceState::Pending,
                request.tags.clone(),
            ))
        })
        .await
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.call(context, Operation::List, |machines| {
            let shown = machines.iter().filter_map(|m| self.show(m));
            Ok(shown.filter(|instance| instance.has_tags(tags)).collect())
        })
        .await
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        let done = self.call(context, Operation::Destroy, |machines| {
            for machine in machines.iter_mut().filter(|m| ids.contains(&m.id)) {
                machine.destroyed.get_or_insert(Instant::now());
            }
            Ok(())
        });
        let failed = done.await.is_err();
        let answer = |id: &InstanceId| match failed {
            false => (id.clone(), Ok(())),
            true => {
                let error = refusal(Operation::Destroy, ErrorKind::TimedOut, "no answer");
                (id.clone(), Err(error))
            }
        };
        ids.iter().map(answer).collect()
    }

    async fn set_tags(
        &self,
        context: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults {
        let done = self.call(context, Operation::SetTags, |machines| {
            let mut answers = Vec::new();
            for (id, tags) in changes {
                let machine = machines.iter_mut().find(|m| m.id == *id);
                let answer = match machine {
                    None => Err(not_there(Operation::SetTags)),
                    Some(machine) => {
                        let mut all = machine.tags.last().unwrap().1.clone();
                        all.extend(tags.clone());
                        machine.tags.push((Instant::now(), all));
                        Ok(())
                    }
                };
                answers.push((id.clone(), answer));
            }
            Ok(answers)
        });
        let late = |(id, _): &(InstanceId, Tags)| {
            let error = refusal(Operation::SetTags, ErrorKind::TimedOut, "no answer");
            (id.clone(), Err(error))
        };
        match done.await {
            Ok(answers) => answers,
            Err(_) => changes.iter().map(late).collect(),
        }
    }

    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        asked: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        let known = self.shape.capabilities.host_keys;
        self.call(context, Operation::VerifyHostKey, |machines| {
            if !known {
                return Ok(HostKeyVerdict::Unsupported);
            }
            match machines.iter().find(|m| m.id == *id) {
                None => Err(not_there(Operation::VerifyHostKey)),
                Some(machine) if key(machine.id.as_str()) == *asked => Ok(HostKeyVerdict::Match),
                Some(_) => Ok(HostKeyVerdict::Mismatch),
            }
        })
        .await
    }

    fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
        instance_type.provider_type.get(..1).map(str::to_owned)
    }

    fn capabilities(&self) -> Capabilities {
        self.shape.capabilities.clone()
    }

    fn extensions(&self) -> Extensions<'_> {
        let mut extensions = Extensions::default();
        if self.shape.extensions {
            extensions.price_history = Some(self);
            extensions.console_output = Some(self);
            extensions.interruption_notices = Some(self);
        }
        extensions
    }

    async fn stop(&self) {}
}

#[async_trait]
impl PriceHistory for Memory {
    async fn price_history(
        &self,
        _: &CallContext,
        _: &InstanceId,
        _: Duration,
    ) -> Result<Vec<PricePoint>, CloudError> {
        let point = |hour: i64| PricePoint::new(Timestamp(hour * 3_600_000), Price::default());
        Ok((0..3).map(point).collect())
    }
}

#[async_trait]
impl ConsoleOutput for Memory {
    async fn console_output(
        &self,
        _: &CallContext,
        _: &InstanceId,
        limit: usize,
    ) -> Result<Vec<u8>, CloudError> {
        let text = b"the machine boots\nand greets\n";
        Ok(text[text.len().saturating_sub(limit)..].to_vec())
    }
}

#[async_trait]
impl InterruptionNotices for Memory {
    async fn interruptions(&self, _: &CallContext) -> Result<Vec<Interruption>, CloudError> {
        let alive = self.alive().into_iter().take(1);
        Ok(alive.map(|id| Interruption::new(id, None)).collect())
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory(test)")
    }
}
