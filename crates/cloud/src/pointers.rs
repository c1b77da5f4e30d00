//! Instance sets behind pointers.

use std::sync::Arc;

use async_trait::async_trait;
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};

use crate::{
    CallContext, Capabilities, CloudError, CreateRequest, Extensions, Instance, InstanceResults,
    InstanceSet, Tags,
};

/// A pointer to an instance set is one, so that layers can wrap whatever a driver gives.
macro_rules! forward {
    ($pointer:ident) => {
        #[async_trait]
        impl<S: InstanceSet + ?Sized> InstanceSet for $pointer<S> {
            async fn create(
                &self,
                context: &CallContext,
                request: &CreateRequest,
            ) -> Result<Instance, CloudError> {
                (**self).create(context, request).await
            }

            async fn list(
                &self,
                context: &CallContext,
                tags: &Tags,
            ) -> Result<Vec<Instance>, CloudError> {
                (**self).list(context, tags).await
            }

            async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> InstanceResults {
                (**self).destroy(context, ids).await
            }

            async fn set_tags(
                &self,
                context: &CallContext,
                changes: &[(InstanceId, Tags)],
            ) -> InstanceResults {
                (**self).set_tags(context, changes).await
            }

            async fn verify_host_key(
                &self,
                context: &CallContext,
                id: &InstanceId,
                key: &HostKey,
            ) -> Result<HostKeyVerdict, CloudError> {
                (**self).verify_host_key(context, id, key).await
            }

            fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
                (**self).quota_group(instance_type)
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn extensions(&self) -> Extensions<'_> {
                (**self).extensions()
            }

            async fn stop(&self) {
                (**self).stop().await;
            }
        }
    };
}

forward!(Arc);
forward!(Box);
