//! Tags that every new instance gets.

use std::fmt;

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, CreateRequest, Extensions, Instance, InstanceSet, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};

use crate::call::Results;

/// Adds tags to every instance that is made, and to nothing else.
///
/// Where the request has a tag of the same name, the request's wins: what an operator adds for
/// accounting cannot change the tags by which Longshore knows its instances.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::DefaultTags;
/// # block_on(async {
/// let extra = [("team", "genomics"), ("ExampleInstanceSetID", "stolen")];
/// let extra: Tags = extra.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
/// let set = DefaultTags::new(Stub::default(), extra);
/// assert_eq!(set.to_string(), "DefaultTags(ExampleInstanceSetID=stolen, team=genomics, Stub)");
/// let made = set.create(&CallContext::example(), &CreateRequest::example()).await.unwrap();
/// assert_eq!(made.tags["team"], "genomics");
/// assert_eq!(made.tags["ExampleInstanceSetID"], "set");
/// # });
/// ```
#[derive(Debug)]
pub struct DefaultTags<S> {
    inner: S,
    tags: Tags,
}

impl<S> DefaultTags<S> {
    /// A layer around `inner`.
    pub fn new(inner: S, tags: Tags) -> Self {
        Self { inner, tags }
    }
}

#[async_trait]
impl<S: InstanceSet> InstanceSet for DefaultTags<S> {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        let mut request = request.clone();
        for (name, value) in &self.tags {
            let tag = request.tags.entry(name.clone());
            tag.or_insert_with(|| value.clone());
        }
        self.inner.create(context, &request).await
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.inner.list(context, tags).await
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> Results {
        self.inner.destroy(context, ids).await
    }

    async fn set_tags(&self, context: &CallContext, changes: &[(InstanceId, Tags)]) -> Results {
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

    /// Those of the inner one as they are: none of them makes an instance.
    fn extensions(&self) -> Extensions<'_> {
        self.inner.extensions()
    }

    async fn stop(&self) {
        self.inner.stop().await;
    }
}

impl<S: fmt::Display> fmt::Display for DefaultTags<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultTags(")?;
        write_tags(f, &self.tags)?;
        write!(f, "{})", self.inner)
    }
}

/// Tags as `name=value, `.
pub(crate) fn write_tags(f: &mut fmt::Formatter<'_>, tags: &Tags) -> fmt::Result {
    tags.iter()
        .try_for_each(|(name, value)| write!(f, "{name}={value}, "))
}
