//! The instance set: from calls of the interface to calls of the provider.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use longshore_cloud::{
    AddressKind, CallContext, Capabilities, CloudError, ConsoleOutput, CreateRequest, ErrorKind,
    Extensions, Instance, InstanceResults, InstanceSet, InstanceState, Operation, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType, Timestamp};
use tokio::time::{Instant, timeout};

use crate::classify::{cloud_error, quota_group, timed_out};
use crate::{Api, ApiError, Order, Parameters, Server};

/// The most ids in one call: they are sent one after the other, within one timeout.
const BATCH: usize = 20;
/// The most pages of a listing; one with more has no end.
const MAX_PAGES: usize = 10_000;

/// The servers of one project in one region.
///
/// No example: [`AcmeDriver`](crate::AcmeDriver) opens it, and `tests/` uses it.
#[derive(Debug)]
pub struct AcmeSet {
    api: Arc<dyn Api>,
    parameters: Parameters,
}

impl AcmeSet {
    /// An instance set that asks the provider through `api`.
    pub fn new(api: Arc<dyn Api>, parameters: Parameters) -> Self {
        Self { api, parameters }
    }

    fn order(&self, request: &CreateRequest) -> Order {
        let script = &request.init_script;
        Order {
            token: request.token.clone(),
            server_type: request.instance_type.provider_type.clone(),
            image: request.image.clone(),
            disk_gib: self.parameters.disk_gib,
            tags: request.tags.clone(),
            user_data: (!script.is_empty()).then(|| script.clone()),
            ssh_key: request.public_key.clone(),
            public_address: request.address_kind == AddressKind::Public,
            spot: request.instance_type.preemptible,
        }
    }
}

impl fmt::Display for AcmeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acme({})", self.parameters.region)
    }
}

#[async_trait]
impl InstanceSet for AcmeSet {
    /// The provider takes the token, so a request that is repeated after a lost reply finds what
    /// the first one made.
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        let order = self.order(request);
        let about = Some(&request.instance_type);
        let call = self.api.create_server(context, &order);
        let server = ask(Operation::Create, context, about, call).await?;
        describe(Operation::Create, server)
    }

    /// Reads to the last page, or fails; a server that moved between pages counts once.
    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        let deadline = Deadline::start(context);
        let mut found = BTreeMap::new();
        let mut token: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let rest = deadline.rest();
            let call = self.api.list_servers(&rest, tags, token.as_deref());
            let page = ask(Operation::List, &rest, None, call).await?;
            for server in page.servers {
                let instance = describe(Operation::List, server)?;
                found.insert(instance.id.clone(), instance);
            }
            match page.next {
                None => {
                    found.retain(|_, instance| instance.has_tags(tags));
                    return Ok(found.into_values().collect());
                }
                next if next == token => break,
                next => token = next,
            }
        }
        Err(unreadable(Operation::List, "a listing without an end"))
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        let deadline = Deadline::start(context);
        let mut results = Vec::with_capacity(ids.len());
        for (done, id) in ids.iter().enumerate() {
            let rest = deadline.share(ids.len() - done);
            let call = self.api.delete_server(&rest, id.as_str());
            let result = match ask(Operation::Destroy, &rest, None, call).await {
                Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
                result => result,
            };
            results.push((id.clone(), result));
        }
        results
    }

    async fn set_tags(
        &self,
        context: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults {
        let deadline = Deadline::start(context);
        let mut results = Vec::with_capacity(changes.len());
        for (done, (id, tags)) in changes.iter().enumerate() {
            let rest = deadline.share(changes.len() - done);
            let call = self.api.set_tags(&rest, id.as_str(), tags);
            let result = ask(Operation::SetTags, &rest, None, call).await;
            results.push((id.clone(), result));
        }
        results
    }

    /// Acme does not say which key a server has.
    async fn verify_host_key(
        &self,
        _: &CallContext,
        _: &InstanceId,
        _: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        Ok(HostKeyVerdict::Unsupported)
    }

    fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
        quota_group(instance_type)
    }

    /// Only what the provider guarantees: what is claimed here without need loses instances. One
    /// that can have only so many instances, whatever is paid, adds `with_max_instances`.
    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
            .with_idempotent_create()
            .with_tags_at_birth()
            .with_rented()
            .with_destroy_batch(BATCH)
            .with_tag_batch(BATCH)
    }

    fn extensions(&self) -> Extensions<'_> {
        let mut extensions = Extensions::default();
        extensions.console_output = Some(self);
        extensions
    }

    /// There is no background work.
    async fn stop(&self) {}
}

#[async_trait]
impl ConsoleOutput for AcmeSet {
    async fn console_output(
        &self,
        context: &CallContext,
        id: &InstanceId,
        limit: usize,
    ) -> Result<Vec<u8>, CloudError> {
        let call = self.api.console(context, id.as_str());
        let mut text = ask(Operation::Other, context, None, call).await?;
        Ok(text.split_off(text.len().saturating_sub(limit)))
    }
}

/// The end of a call of several requests.
struct Deadline<'a> {
    started: Instant,
    context: &'a CallContext,
}

impl<'a> Deadline<'a> {
    fn start(context: &'a CallContext) -> Self {
        let started = Instant::now();
        Self { started, context }
    }

    /// The context of the next page: what is left of the time, since without it there is no answer.
    fn rest(&self) -> CallContext {
        self.share(1)
    }

    /// The context of the next of so many requests that do not need each other: its part of what is
    /// left of the time, so that one that is not answered leaves the others theirs. What it does not
    /// use they get, too.
    fn share(&self, requests: usize) -> CallContext {
        let left = self.context.timeout.saturating_sub(self.started.elapsed());
        let requests = u32::try_from(requests.max(1)).unwrap_or(u32::MAX);
        CallContext::new(left / requests, self.context.request_id.clone())
    }
}

/// Makes one request, within its timeout even if the client does not keep it. Without time left
/// nothing is sent.
async fn ask<T>(
    operation: Operation,
    context: &CallContext,
    about: Option<&InstanceType>,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, CloudError> {
    if context.timeout.is_zero() {
        return Err(timed_out(operation, "no time was left to send it").never_sent());
    }
    match timeout(context.timeout, call).await {
        Ok(answer) => answer.map_err(|error| cloud_error(operation, error, about)),
        Err(_) => Err(timed_out(operation, "the provider gave no reply in time")),
    }
}

fn describe(operation: Operation, server: Server) -> Result<Instance, CloudError> {
    if server.id.is_empty() {
        return Err(unreadable(operation, "a server without an id"));
    }
    let state = state(&server.status);
    let mut instance = Instance::new(server.id, server.server_type, state, server.tags);
    instance.address = server.address;
    instance.launched_at = server.created_ms.map(Timestamp);
    Ok(instance)
}

/// An unknown word never means gone: what is listed may cost money. A server that has powered itself
/// off is of no more use, and is to be destroyed.
fn state(word: &str) -> InstanceState {
    match word {
        "running" => InstanceState::Running,
        "off" | "deleting" => InstanceState::Stopping,
        "deleted" => InstanceState::Gone,
        _ => InstanceState::Pending,
    }
}

fn unreadable(operation: Operation, words: &str) -> CloudError {
    cloud_error(operation, ApiError::Unreadable(words.into()), None)
}

#[cfg(test)]
mod tests {
    use longshore_cloud::Outcome;

    use super::*;

    fn described(id: &str, status: &str) -> Result<Instance, CloudError> {
        let server = Server {
            id: id.into(),
            server_type: "s1.small".into(),
            status: status.into(),
            address: None,
            tags: Tags::new(),
            created_ms: Some(7),
        };
        describe(Operation::Create, server)
    }

    #[test]
    fn each_word_has_its_state_and_an_unknown_one_is_not_gone() {
        for (word, state) in [
            ("starting", InstanceState::Pending),
            ("running", InstanceState::Running),
            ("off", InstanceState::Stopping),
            ("deleting", InstanceState::Stopping),
            ("deleted", InstanceState::Gone),
            ("something new", InstanceState::Pending),
        ] {
            assert_eq!(described("srv-1", word).unwrap().state, state, "{word}");
        }
    }

    #[test]
    fn a_server_without_an_id_may_exist_all_the_same() {
        let error = described("", "running").unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
}
