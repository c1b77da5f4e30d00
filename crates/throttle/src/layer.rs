//! What all layers that treat every call alike have in common.

/// Implements the traits of an instance set for a layer with a field `inner` and a method
/// `pass(&self, &CallContext, impl Call)`, through which every call goes.
macro_rules! layer {
    ($layer:ident) => {
        #[async_trait::async_trait]
        impl<S: longshore_cloud::InstanceSet> longshore_cloud::InstanceSet for $layer<S> {
            async fn create(
                &self,
                context: &longshore_cloud::CallContext,
                request: &longshore_cloud::CreateRequest,
            ) -> Result<longshore_cloud::Instance, longshore_cloud::CloudError> {
                let inner = &self.inner;
                self.pass(context, $crate::call::Create { inner, request })
                    .await
            }

            async fn list(
                &self,
                context: &longshore_cloud::CallContext,
                tags: &longshore_cloud::Tags,
            ) -> Result<Vec<longshore_cloud::Instance>, longshore_cloud::CloudError> {
                let inner = &self.inner;
                self.pass(context, $crate::call::List { inner, tags }).await
            }

            async fn destroy(
                &self,
                context: &longshore_cloud::CallContext,
                ids: &[longshore_types::InstanceId],
            ) -> $crate::call::Results {
                let (inner, ids) = (&self.inner, ids.into());
                self.pass(context, $crate::call::Destroy { inner, ids })
                    .await
            }

            async fn set_tags(
                &self,
                context: &longshore_cloud::CallContext,
                changes: &[(longshore_types::InstanceId, longshore_cloud::Tags)],
            ) -> $crate::call::Results {
                let (inner, changes) = (&self.inner, changes.into());
                self.pass(context, $crate::call::SetTags { inner, changes })
                    .await
            }

            async fn verify_host_key(
                &self,
                context: &longshore_cloud::CallContext,
                id: &longshore_types::InstanceId,
                key: &longshore_types::HostKey,
            ) -> Result<longshore_types::HostKeyVerdict, longshore_cloud::CloudError> {
                let inner = &self.inner;
                self.pass(context, $crate::call::VerifyHostKey { inner, id, key })
                    .await
            }

            fn quota_group(&self, instance_type: &longshore_types::InstanceType) -> Option<String> {
                self.inner.quota_group(instance_type)
            }

            fn capabilities(&self) -> longshore_cloud::Capabilities {
                self.inner.capabilities()
            }

            fn extensions(&self) -> longshore_cloud::Extensions<'_> {
                $crate::layer::through(self.inner.extensions(), self)
            }

            async fn stop(&self) {
                self.inner.stop().await;
            }
        }

        #[async_trait::async_trait]
        impl<S: longshore_cloud::InstanceSet> longshore_cloud::PriceHistory for $layer<S> {
            async fn price_history(
                &self,
                context: &longshore_cloud::CallContext,
                id: &longshore_types::InstanceId,
                span: std::time::Duration,
            ) -> Result<Vec<longshore_cloud::PricePoint>, longshore_cloud::CloudError> {
                let inner = &self.inner;
                self.pass(context, $crate::call::Prices { inner, id, span })
                    .await
            }
        }

        #[async_trait::async_trait]
        impl<S: longshore_cloud::InstanceSet> longshore_cloud::ConsoleOutput for $layer<S> {
            async fn console_output(
                &self,
                context: &longshore_cloud::CallContext,
                id: &longshore_types::InstanceId,
                limit: usize,
            ) -> Result<Vec<u8>, longshore_cloud::CloudError> {
                let inner = &self.inner;
                self.pass(context, $crate::call::Console { inner, id, limit })
                    .await
            }
        }

        #[async_trait::async_trait]
        impl<S: longshore_cloud::InstanceSet> longshore_cloud::InterruptionNotices for $layer<S> {
            async fn interruptions(
                &self,
                context: &longshore_cloud::CallContext,
            ) -> Result<Vec<longshore_cloud::Interruption>, longshore_cloud::CloudError> {
                let inner = &self.inner;
                self.pass(context, $crate::call::Notices { inner }).await
            }
        }
    };
}

pub(crate) use layer;
use longshore_cloud::{ConsoleOutput, Extensions, InterruptionNotices, PriceHistory};

/// The powers of the inner instance set, each through the layer. One that is newer than this
/// crate is handed on as it is.
pub(crate) fn through<'a, L>(mut inner: Extensions<'a>, layer: &'a L) -> Extensions<'a>
where
    L: PriceHistory + ConsoleOutput + InterruptionNotices,
{
    if let Some(power) = &mut inner.price_history {
        *power = layer;
    }
    if let Some(power) = &mut inner.console_output {
        *power = layer;
    }
    if let Some(power) = &mut inner.interruption_notices {
        *power = layer;
    }
    inner
}
