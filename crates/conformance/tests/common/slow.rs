//! Instance sets that answer late, or never, or only that they are full.

use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, CreateRequest, ErrorKind, Extensions, Instance,
    InstanceResults, InstanceSet, Operation, Scope, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};

use super::memory::{Memory, Shape, refusal};

type Answers = InstanceResults;

/// What is wrong with it.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Creates act, and their replies are lost.
    LosesReplies,
    /// No call ever ends.
    Hangs,
    /// Calls block their thread until the other end is dropped.
    Blocks(Mutex<Receiver<()>>),
    /// There is never room.
    IsFull,
    /// Each destroy takes so long.
    DestroysSlowly(Duration),
}

#[derive(Debug)]
pub(crate) struct Slow {
    pub(crate) inner: Memory,
    trouble: Trouble,
}

impl Slow {
    pub(crate) fn new(trouble: Trouble, shape: Shape) -> Self {
        let inner = Memory::new(shape);
        Self { inner, trouble }
    }

    async fn enter(&self) {
        match &self.trouble {
            Trouble::Hangs => std::future::pending().await,
            Trouble::Blocks(release) => drop(release.lock().unwrap().recv()),
            _ => {}
        }
    }
}

#[async_trait]
impl InstanceSet for Slow {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        self.enter().await;
        match self.trouble {
            Trouble::IsFull => {
                let kind = ErrorKind::QuotaExceeded(Scope::Everything);
                Err(refusal(Operation::Create, kind, "TooMany"))
            }
            Trouble::LosesReplies => {
                drop(self.inner.create(context, request).await);
                let words = "the connection was closed";
                Err(refusal(Operation::Create, ErrorKind::TimedOut, words))
            }
            _ => self.inner.create(context, request).await,
        }
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.enter().await;
        self.inner.list(context, tags).await
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> Answers {
        self.enter().await;
        if let Trouble::DestroysSlowly(time) = self.trouble {
            tokio::time::sleep(time).await;
        }
        self.inner.destroy(context, ids).await
    }

    async fn set_tags(&self, context: &CallContext, changes: &[(InstanceId, Tags)]) -> Answers {
        self.enter().await;
        self.inner.set_tags(context, changes).await
    }

    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        self.enter().await;
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
        self.enter().await;
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slow({})", self.inner)
    }
}
