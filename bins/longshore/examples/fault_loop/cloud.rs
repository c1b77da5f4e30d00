//! The machines as an instance set.

use std::fmt;

use anyhow::Error;
use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, CreateRequest, ErrorKind, Extensions, Instance,
    InstanceResults, InstanceSet, InstanceState, Operation, Scope, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType, Timestamp};
use russh::keys::PublicKey;

use crate::network;
use crate::yard::{Condition, Full, Machine, Yard};

/// Hosts in network namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Cloud(pub(crate) Yard);

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespaces({})", self.0.folder().display())
    }
}

/// The one place that maps errors to kinds.
fn classify(operation: Operation, error: &Error) -> CloudError {
    let kind = match error.downcast_ref() {
        Some(Full) => ErrorKind::QuotaExceeded(Scope::Everything),
        None => ErrorKind::Other,
    };
    CloudError::new(operation, "namespaces", kind, format!("{error:#}"))
}

fn describe(machine: &Machine) -> Instance {
    let state = match machine.condition {
        Condition::Running => InstanceState::Running,
        Condition::Gone => InstanceState::Gone,
    };
    let (id, provider_type) = (machine.id.as_str(), machine.provider_type.as_str());
    let mut instance = Instance::new(id, provider_type, state, machine.tags.clone());
    instance.address = Some(network::address(machine.slot));
    instance.launched_at = Some(Timestamp(machine.launched_ms));
    instance
}

impl Cloud {
    /// Does what blocks where that disturbs nobody.
    async fn ask<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Yard) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, CloudError> {
        let yard = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&yard)).await;
        done.map_err(Error::from)
            .flatten()
            .map_err(|error| classify(operation, &error))
    }
}

#[async_trait]
impl InstanceSet for Cloud {
    async fn create(
        &self,
        _: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        let request = request.clone();
        let made = self.ask(Operation::Create, move |yard| yard.make(&request));
        Ok(describe(&made.await?))
    }

    async fn list(&self, _: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        let machines = self.ask(Operation::List, Yard::machines).await?;
        let mut instances: Vec<Instance> = machines.iter().map(describe).collect();
        instances.retain(|instance| instance.has_tags(tags));
        Ok(instances)
    }

    async fn destroy(&self, _: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        let mut results = Vec::new();
        for id in ids {
            let name = id.to_string();
            let done = self.ask(Operation::Destroy, move |yard| yard.destroy(&name));
            results.push((id.clone(), done.await));
        }
        results
    }

    async fn set_tags(&self, _: &CallContext, changes: &[(InstanceId, Tags)]) -> InstanceResults {
        let mut results = Vec::new();
        for (id, tags) in changes {
            let (name, tags) = (id.to_string(), tags.clone());
            let done = self.ask(Operation::SetTags, move |yard| yard.tag(&name, &tags));
            results.push((id.clone(), done.await));
        }
        results
    }

    async fn verify_host_key(
        &self,
        _: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        let (name, key) = (id.to_string(), key.clone());
        let is_its_own = self.ask(Operation::VerifyHostKey, move |yard| {
            let known = PublicKey::from_openssh(&yard.host_key(&name)?)?;
            Ok(known.to_bytes()? == key.blob)
        });
        Ok(match is_its_own.await? {
            true => HostKeyVerdict::Match,
            false => HostKeyVerdict::Mismatch,
        })
    }

    fn quota_group(&self, _: &InstanceType) -> Option<String> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
            .with_idempotent_create()
            .with_tags_at_birth()
            .with_consistent_listing()
            .with_host_keys()
    }

    fn extensions(&self) -> Extensions<'_> {
        Extensions::default()
    }

    async fn stop(&self) {}
}
