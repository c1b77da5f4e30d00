//! The calls of an instance set and its extensions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, ConsoleOutput, CreateRequest, ErrorKind, Extensions,
    Instance, InstanceResults, InstanceSet, Interruption, InterruptionNotices, PriceHistory,
    PricePoint, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};

use super::FakeCloud;
use super::waiting::Waiting;
use crate::{Call, CallKind, Reply};

impl FakeCloud {
    async fn ask(&self, context: &CallContext, call: Call) -> Reply {
        if self.is_stopped() {
            let kind = call.kind();
            return Reply::failed(kind, &call.ids(), || {
                self.failure(kind, "the instance set was stopped")
                    .never_sent()
            });
        }
        Waiting::new(self, call, context.timeout).await
    }

    fn failure(&self, kind: CallKind, words: &str) -> CloudError {
        CloudError::new(kind.operation(), self.shared.name, ErrorKind::Other, words)
    }

    /// What cannot be: the reply to another kind of call.
    fn stray<T>(&self, kind: CallKind) -> Result<T, CloudError> {
        Err(self.failure(kind, "the reply to another call"))
    }
}

#[async_trait]
impl InstanceSet for FakeCloud {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        match self.ask(context, Call::Create(request.clone())).await {
            Reply::Created(result) => result,
            _ => self.stray(CallKind::Create),
        }
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        match self.ask(context, Call::List(tags.clone())).await {
            Reply::Listed(result) => {
                result.map(|listed| listed.into_iter().map(Arc::unwrap_or_clone).collect())
            }
            _ => self.stray(CallKind::List),
        }
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        match self.ask(context, Call::Destroy(ids.to_vec())).await {
            Reply::Destroyed(results) => results,
            _ => Vec::new(),
        }
    }

    async fn set_tags(
        &self,
        context: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults {
        match self.ask(context, Call::SetTags(changes.to_vec())).await {
            Reply::Tagged(results) => results,
            _ => Vec::new(),
        }
    }

    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        let call = Call::VerifyHostKey(id.clone(), key.clone());
        match self.ask(context, call).await {
            Reply::HostKey(result) => result,
            _ => self.stray(CallKind::VerifyHostKey),
        }
    }

    fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
        let groups = &self.shared.quota_groups;
        groups.get(&instance_type.provider_type).cloned()
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities.clone()
    }

    fn extensions(&self) -> Extensions<'_> {
        let has = |kind| self.shared.extensions.contains(&kind);
        let mut extensions = Extensions::default();
        extensions.price_history = has(CallKind::Prices).then_some(self);
        extensions.console_output = has(CallKind::Console).then_some(self);
        extensions.interruption_notices = has(CallKind::Interruptions).then_some(self);
        extensions
    }

    async fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}

#[async_trait]
impl PriceHistory for FakeCloud {
    async fn price_history(
        &self,
        context: &CallContext,
        id: &InstanceId,
        span: Duration,
    ) -> Result<Vec<PricePoint>, CloudError> {
        match self.ask(context, Call::Prices(id.clone(), span)).await {
            Reply::Prices(result) => result,
            _ => self.stray(CallKind::Prices),
        }
    }
}

#[async_trait]
impl ConsoleOutput for FakeCloud {
    async fn console_output(
        &self,
        context: &CallContext,
        id: &InstanceId,
        limit: usize,
    ) -> Result<Vec<u8>, CloudError> {
        match self.ask(context, Call::Console(id.clone(), limit)).await {
            Reply::Console(result) => result,
            _ => self.stray(CallKind::Console),
        }
    }
}

#[async_trait]
impl InterruptionNotices for FakeCloud {
    async fn interruptions(&self, context: &CallContext) -> Result<Vec<Interruption>, CloudError> {
        match self.ask(context, Call::Interruptions).await {
            Reply::Interruptions(result) => result,
            _ => self.stray(CallKind::Interruptions),
        }
    }
}
