//! A view of an instance set in which only some instances exist.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, ConsoleOutput, CreateRequest, ErrorKind, Extensions,
    Instance, InstanceSet, Interruption, InterruptionNotices, Operation, PriceHistory, PricePoint,
    Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};

use crate::budget::Budget;
use crate::call::Results;
use crate::default_tags::write_tags;
use crate::known::{Known, Owner};
use crate::layer::through;

/// Only instances that have all of some tags exist for whoever is outside of this layer.
///
/// - What is made gets the tags. A request that gives one of them another value is refused with
///   [`InvalidRequest`](ErrorKind::InvalidRequest), and so is a change that would.
/// - A listing shows only instances with the tags, also when the driver ignores what it is asked.
/// - A foreign instance is never touched: destroying, tagging, and asking about it is refused with
///   [`Denied`](ErrorKind::Denied). Which instances are ours is known from what was made and listed;
///   for an id that is not known everything is listed once, within the call's timeout.
/// - An id that is nowhere: destroying it is success, all else is [`NotFound`](ErrorKind::NotFound).
///   Neither reaches the driver, so that an instance of others that a slow listing does not show yet
///   is safe. One of ours is always known: it was made or listed here. Only an id from elsewhere, of
///   another process or a file, may be of one of ours that is not listed yet; success then says
///   nothing, so destroy it again when a listing shows it, and take nothing for gone by an answer.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::Filter;
/// # block_on(async {
/// let driver = Stub::default().with_instance("i-9", &[("set", "theirs")]);
/// let set = Filter::new(driver, [("set".to_owned(), "ours".to_owned())].into());
/// assert_eq!(set.to_string(), "Filter(set=ours, Stub)");
/// let context = CallContext::example();
/// assert!(set.list(&context, &Tags::new()).await.unwrap().is_empty());
/// let error = set.destroy(&context, &["i-9".into()]).await.remove(0).1.unwrap_err();
/// assert_eq!(error.kind, ErrorKind::Denied);
/// # });
/// ```
#[derive(Debug)]
pub struct Filter<S> {
    inner: S,
    tags: Tags,
    known: Mutex<Known>,
}

/// What was found out about the ids of one call.
enum Found {
    Ours,
    Foreign,
    Nowhere,
    /// Nothing, because listing failed.
    Failed(&'static str, ErrorKind, String),
}

impl<S> Filter<S> {
    /// A layer around `inner`.
    pub fn new(inner: S, tags: Tags) -> Self {
        Self {
            inner,
            tags,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `tags` give another value to a tag that ours must have.
    fn contradicts(&self, tags: &Tags) -> bool {
        let differs = |(name, value)| tags.get(name).is_some_and(|other: &String| other != value);
        self.tags.iter().any(differs)
    }

    fn learn(&self, instances: &[Instance]) {
        let mut known = self.known();
        for instance in instances {
            let ours = instance.has_tags(&self.tags);
            known.learn(
                &instance.id,
                if ours { Owner::Ours } else { Owner::Foreign },
            );
        }
    }

    fn contradiction(&self, operation: Operation) -> CloudError {
        let words = "it gives another value to a tag that marks the instances of this set";
        CloudError::new(operation, "filter", ErrorKind::InvalidRequest, words)
    }

    /// The error for an id that is not ours.
    fn refusal(&self, operation: Operation, id: &InstanceId, found: &Found) -> CloudError {
        match found {
            Found::Failed(provider, kind, why) => {
                let words = format!("could not find out whether {id} is ours, not sent: {why}");
                CloudError::new(operation, provider, kind.clone(), words).never_sent()
            }
            Found::Nowhere => {
                let words = format!("there is no instance {id} in this set");
                CloudError::new(operation, "filter", ErrorKind::NotFound, words)
            }
            Found::Ours | Found::Foreign => {
                let words = format!("instance {id} does not belong to this set, not touched");
                CloudError::new(operation, "filter", ErrorKind::Denied, words)
            }
        }
    }
}

impl<S: InstanceSet> Filter<S> {
    /// What each id is; lists everything if one is not known.
    async fn find(&self, budget: &Budget<'_>, ids: &[InstanceId]) -> BTreeMap<InstanceId, Found> {
        let all_known = {
            let known = self.known();
            ids.iter().all(|id| known.owner(id).is_some())
        };
        let listed = if all_known {
            Ok(())
        } else {
            self.look_up(budget).await
        };
        let known = self.known();
        let found = |id: &InstanceId| match (known.owner(id), &listed) {
            (Some(owner), _) if owner.is_ours() => Found::Ours,
            (Some(_), _) => Found::Foreign,
            (None, Ok(())) => Found::Nowhere,
            (None, Err(error)) => Found::Failed(error.provider, error.kind.clone(), error.chain()),
        };
        ids.iter().map(|id| (id.clone(), found(id))).collect()
    }

    async fn look_up(&self, budget: &Budget<'_>) -> Result<(), CloudError> {
        let context = budget.rest().ok_or_else(|| no_time(Operation::List))?;
        let instances = self.inner.list(&context, &Tags::new()).await?;
        self.learn(&instances);
        Ok(())
    }

    /// The context for a call about one instance, if that is ours.
    async fn admit(
        &self,
        context: &CallContext,
        operation: Operation,
        id: &InstanceId,
    ) -> Result<CallContext, CloudError> {
        let budget = Budget::start(context);
        let found = self.find(&budget, std::slice::from_ref(id)).await;
        match found.get(id) {
            Some(Found::Ours) => budget.rest().ok_or_else(|| no_time(operation)),
            Some(found) => Err(self.refusal(operation, id, found)),
            None => Err(self.refusal(operation, id, &Found::Nowhere)),
        }
    }
}

fn no_time(operation: Operation) -> CloudError {
    crate::refused::Refused::NotInTime.error(operation, "filter", None)
}

#[async_trait]
impl<S: InstanceSet> InstanceSet for Filter<S> {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        if self.contradicts(&request.tags) {
            return Err(self.contradiction(Operation::Create));
        }
        let mut request = request.clone();
        request.tags.extend(self.tags.clone());
        let made = self.inner.create(context, &request).await?;
        self.known().learn(&made.id, Owner::Born);
        Ok(made)
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        if self.contradicts(tags) {
            return Ok(Vec::new());
        }
        let mut wanted = tags.clone();
        wanted.extend(self.tags.clone());
        let mut instances = self.inner.list(context, &wanted).await?;
        self.learn(&instances);
        instances.retain(|instance| instance.has_tags(&wanted));
        Ok(instances)
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> Results {
        let budget = Budget::start(context);
        let found = self.find(&budget, ids).await;
        let (mut ours, mut results) = (Vec::new(), Vec::new());
        for id in ids {
            match found.get(id) {
                Some(Found::Ours) => ours.push(id.clone()),
                Some(Found::Nowhere) | None => results.push((id.clone(), Ok(()))),
                Some(found) => {
                    let error = self.refusal(Operation::Destroy, id, found);
                    results.push((id.clone(), Err(error)));
                }
            }
        }
        match budget.rest() {
            _ if ours.is_empty() && !ids.is_empty() => {}
            Some(rest) => results.extend(self.inner.destroy(&rest, &ours).await),
            None => {
                let late = ours
                    .into_iter()
                    .map(|id| (id, Err(no_time(Operation::Destroy))));
                results.extend(late);
            }
        }
        results
    }

    async fn set_tags(&self, context: &CallContext, changes: &[(InstanceId, Tags)]) -> Results {
        let budget = Budget::start(context);
        let ids: Vec<InstanceId> = changes.iter().map(|(id, _)| id.clone()).collect();
        let found = self.find(&budget, &ids).await;
        let (mut ours, mut results) = (Vec::new(), Vec::new());
        for (id, tags) in changes {
            let error = match found.get(id) {
                Some(Found::Ours) if self.contradicts(tags) => {
                    self.contradiction(Operation::SetTags)
                }
                Some(Found::Ours) => {
                    ours.push((id.clone(), tags.clone()));
                    continue;
                }
                Some(found) => self.refusal(Operation::SetTags, id, found),
                None => self.refusal(Operation::SetTags, id, &Found::Nowhere),
            };
            results.push((id.clone(), Err(error)));
        }
        match budget.rest() {
            _ if ours.is_empty() && !changes.is_empty() => {}
            Some(rest) => results.extend(self.inner.set_tags(&rest, &ours).await),
            None => {
                let late = ours
                    .into_iter()
                    .map(|(id, _)| (id, Err(no_time(Operation::SetTags))));
                results.extend(late);
            }
        }
        results
    }

    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        let rest = self.admit(context, Operation::VerifyHostKey, id).await?;
        self.inner.verify_host_key(&rest, id, key).await
    }

    fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
        self.inner.quota_group(instance_type)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn extensions(&self) -> Extensions<'_> {
        through(self.inner.extensions(), self)
    }

    async fn stop(&self) {
        self.inner.stop().await;
    }
}

fn unsupported<T>() -> Result<T, CloudError> {
    let words = "the inner instance set has no such extension";
    Err(CloudError::new(
        Operation::Other,
        "filter",
        ErrorKind::Unsupported,
        words,
    ))
}

#[async_trait]
impl<S: InstanceSet> PriceHistory for Filter<S> {
    async fn price_history(
        &self,
        context: &CallContext,
        id: &InstanceId,
        span: Duration,
    ) -> Result<Vec<PricePoint>, CloudError> {
        let rest = self.admit(context, Operation::Other, id).await?;
        match self.inner.extensions().price_history {
            Some(prices) => prices.price_history(&rest, id, span).await,
            None => unsupported(),
        }
    }
}

#[async_trait]
impl<S: InstanceSet> ConsoleOutput for Filter<S> {
    async fn console_output(
        &self,
        context: &CallContext,
        id: &InstanceId,
        limit: usize,
    ) -> Result<Vec<u8>, CloudError> {
        let rest = self.admit(context, Operation::Other, id).await?;
        match self.inner.extensions().console_output {
            Some(console) => console.console_output(&rest, id, limit).await,
            None => unsupported(),
        }
    }
}

#[async_trait]
impl<S: InstanceSet> InterruptionNotices for Filter<S> {
    async fn interruptions(&self, context: &CallContext) -> Result<Vec<Interruption>, CloudError> {
        let Some(notices) = self.inner.extensions().interruption_notices else {
            return unsupported();
        };
        let budget = Budget::start(context);
        let mut all = notices.interruptions(context).await?;
        let ids: Vec<InstanceId> = all.iter().map(|notice| notice.id.clone()).collect();
        let found = self.find(&budget, &ids).await;
        let failed = found
            .iter()
            .find(|(_, found)| matches!(found, Found::Failed(..)));
        if let Some((id, found)) = failed {
            return Err(self.refusal(Operation::Other, id, found));
        }
        all.retain(|notice| matches!(found.get(&notice.id), Some(Found::Ours)));
        Ok(all)
    }
}

impl<S: fmt::Display> fmt::Display for Filter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter(")?;
        write_tags(f, &self.tags)?;
        write!(f, "{})", self.inner)
    }
}
