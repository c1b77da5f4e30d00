//! A provider whose instances are all there from the beginning, at one address.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, CreateRequest, ErrorKind, Extensions, Instance,
    InstanceResults, InstanceSet, Operation, Scope, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};

/// A list of instances. None is ever made.
#[derive(Debug)]
pub(super) struct Listed(pub(super) Mutex<Vec<Instance>>);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stub")
    }
}

impl Listed {
    fn with<T>(&self, look: impl FnOnce(&mut Vec<Instance>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl InstanceSet for Listed {
    async fn create(
        &self,
        _: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        // Idle instances would be given back for others, were it a limit on how many there are.
        let scope = Scope::Type(request.instance_type.name.clone());
        let (create, kind) = (Operation::Create, ErrorKind::NoCapacity(scope));
        let why = "all instances are there already";
        Err(CloudError::new(create, "stub", kind, why))
    }

    async fn list(&self, _: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        Ok(self.with(|all| all.iter().filter(|i| i.has_tags(tags)).cloned().collect()))
    }

    async fn destroy(&self, _: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        self.with(|all| all.retain(|instance| !ids.contains(&instance.id)));
        ids.iter().map(|id| (id.clone(), Ok(()))).collect()
    }

    async fn set_tags(&self, _: &CallContext, changes: &[(InstanceId, Tags)]) -> InstanceResults {
        self.with(|all| {
            for (id, tags) in changes {
                for instance in all.iter_mut().filter(|instance| instance.id == *id) {
                    instance.tags.extend(tags.clone());
                }
            }
        });
        changes.iter().map(|(id, _)| (id.clone(), Ok(()))).collect()
    }

    async fn verify_host_key(
        &self,
        _: &CallContext,
        _: &InstanceId,
        _: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        Ok(HostKeyVerdict::Unsupported)
    }

    fn quota_group(&self, _: &InstanceType) -> Option<String> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
            .with_consistent_listing()
            .with_tags_at_birth()
    }

    fn extensions(&self) -> Extensions<'_> {
        Extensions::default()
    }

    async fn stop(&self) {}
}
