// A driver for tests and examples: remembers each call, answers at once or as it is told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
pub(crate) use longshore_cloud::*;
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};

/// What the stub was asked, and the timeout that was given to it.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "each user needs another part of it")]
pub(crate) struct Stub {
    pub(crate) calls: Mutex<Vec<(String, Duration)>>,
    /// Every call fails with this.
    pub(crate) refuse: Option<ErrorKind>,
    /// Every call takes so long.
    pub(crate) takes: Duration,
    pub(crate) instances: Mutex<BTreeMap<InstanceId, Tags>>,
    /// Lists everything, whatever is asked for.
    pub(crate) ignores_filter: bool,
    /// Has no extensions.
    pub(crate) plain: bool,
    pub(crate) stopped: std::sync::atomic::AtomicBool,
}

#[allow(dead_code, reason = "each user needs another part of it")]
impl Stub {
    pub(crate) fn refusing(kind: ErrorKind) -> Self {
        Self { refuse: Some(kind), ..Self::default() }
    }

    pub(crate) fn taking(takes: Duration) -> Self {
        Self { takes, ..Self::default() }
    }

    pub(crate) fn with_instance(self, id: &str, tags: &[(&str, &str)]) -> Self {
        let tags = tags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        self.instances.lock().unwrap().insert(id.into(), tags);
        self
    }

    /// The calls so far, without timeouts.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    /// The timeouts of the calls so far.
    pub(crate) fn timeouts(&self) -> Vec<Duration> {
        self.calls.lock().unwrap().iter().map(|(_, timeout)| *timeout).collect()
    }

    async fn hear(
        &self,
        context: &CallContext,
        operation: Operation,
        call: String,
    ) -> Result<(), CloudError> {
        let call = format!("{} {call}", context.request_id);
        self.calls.lock().unwrap().push((call, context.timeout));
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        } else {
            tokio::task::yield_now().await;
        }
        match &self.refuse {
            Some(kind) => Err(CloudError::new(operation, "stub", kind.clone(), "words")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stub")
    }
}

#[async_trait]
impl InstanceSet for Stub {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        self.hear(context, Operation::Create, format!("create {request:?}")).await?;
        let (id, tags) = (request.token.as_str(), request.tags.clone());
        self.instances.lock().unwrap().insert(id.into(), tags.clone());
        Ok(Instance::new(id, "stub", InstanceState::Running, tags))
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.hear(context, Operation::List, format!("list {tags:?}")).await?;
        let instances = self.instances.lock().unwrap();
        let all = instances.iter().map(|(id, tags)| {
            Instance::new(id.as_str(), "stub", InstanceState::Running, tags.clone())
        });
        Ok(all.filter(|instance| self.ignores_filter || instance.has_tags(tags)).collect())
    }

    async fn destroy(
        &self,
        context: &CallContext,
        ids: &[InstanceId],
    ) -> InstanceResults {
        let heard = self.hear(context, Operation::Destroy, format!("destroy {ids:?}")).await;
        let kind = heard.err().map(|error| error.kind);
        let each = ids.iter().map(|id| match &kind {
            Some(kind) => Err(CloudError::new(Operation::Destroy, "stub", kind.clone(), "words")),
            None => {
                self.instances.lock().unwrap().remove(id);
                Ok(())
            }
        });
        ids.iter().cloned().zip(each).collect()
    }

    async fn set_tags(
        &self,
        context: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults {
        let heard = self.hear(context, Operation::SetTags, format!("set_tags {changes:?}")).await;
        let kind = heard.err().map(|error| error.kind);
        let each = changes.iter().map(|(id, tags)| match &kind {
            Some(kind) => Err(CloudError::new(Operation::SetTags, "stub", kind.clone(), "words")),
            None => {
                let mut instances = self.instances.lock().unwrap();
                instances.entry(id.clone()).or_default().extend(tags.clone());
                Ok(())
            }
        });
        changes.iter().map(|(id, _)| id.clone()).zip(each).collect()
    }

    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        self.hear(context, Operation::VerifyHostKey, format!("verify {id} {key}")).await?;
        Ok(HostKeyVerdict::Match)
    }

    fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
        Some(format!("group of {}", instance_type.name))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with_host_keys().with_destroy_batch(7).with_tag_batch(3)
    }

    fn extensions(&self) -> Extensions<'_> {
        let mut extensions = Extensions::default();
        if !self.plain {
            extensions.price_history = Some(self);
            extensions.console_output = Some(self);
            extensions.interruption_notices = Some(self);
        }
        extensions
    }

    async fn stop(&self) {
        self.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[async_trait]
impl PriceHistory for Stub {
    async fn price_history(
        &self,
        context: &CallContext,
        id: &InstanceId,
        span: Duration,
    ) -> Result<Vec<PricePoint>, CloudError> {
        self.hear(context, Operation::Other, format!("prices {id} {span:?}")).await?;
        Ok(Vec::new())
    }
}

#[async_trait]
impl ConsoleOutput for Stub {
    async fn console_output(
        &self,
        context: &CallContext,
        id: &InstanceId,
        limit: usize,
    ) -> Result<Vec<u8>, CloudError> {
        self.hear(context, Operation::Other, format!("console {id} {limit}")).await?;
        Ok(b"login:".to_vec())
    }
}

#[async_trait]
impl InterruptionNotices for Stub {
    async fn interruptions(&self, context: &CallContext) -> Result<Vec<Interruption>, CloudError> {
        self.hear(context, Operation::Other, "interruptions".to_owned()).await?;
        let instances = self.instances.lock().unwrap();
        Ok(instances.keys().map(|id| Interruption::new(id.as_str(), None)).collect())
    }
}

#[allow(dead_code, reason = "only examples need it")]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}
