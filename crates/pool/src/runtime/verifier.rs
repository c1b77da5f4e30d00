//! Host keys as the provider knows them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{CallContext, InstanceSet};
use longshore_exec::HostKeyVerifier;
use longshore_types::{HostKey, HostKeyVerdict, InstanceId};

use super::shell::request_id;

/// The longest that the provider may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks an instance set about host keys. One that fails, or takes longer than ten seconds, cannot
/// tell.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/stub.rs"));
/// use longshore_exec::HostKeyVerifier;
/// use longshore_pool::runtime::CloudHostKeys;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let verifier = CloudHostKeys::new(Arc::new(Stub::default()));
/// let key = HostKey { algorithm: "ssh-ed25519".into(), blob: vec![] };
/// assert_eq!(verifier.verify(&"i-1".into(), &key).await, HostKeyVerdict::Unsupported);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CloudHostKeys {
    instance_set: Arc<dyn InstanceSet>,
}

impl CloudHostKeys {
    /// Asks this instance set.
    pub fn new(instance_set: Arc<dyn InstanceSet>) -> Self {
        Self { instance_set }
    }
}

#[async_trait]
impl HostKeyVerifier for CloudHostKeys {
    /// A provider that does not answer cannot tell: the host is identified in another way, or
    /// refused.
    async fn verify(&self, instance: &InstanceId, key: &HostKey) -> HostKeyVerdict {
        let context = CallContext::new(TIMEOUT, request_id());
        let answer = self.instance_set.verify_host_key(&context, instance, key);
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                tracing::warn!(%instance, %error, "the host key could not be checked");
                HostKeyVerdict::Unsupported
            }
            Err(_) => {
                let error = "no answer in time";
                tracing::warn!(%instance, error, "the host key could not be checked");
                HostKeyVerdict::Unsupported
            }
        }
    }
}
