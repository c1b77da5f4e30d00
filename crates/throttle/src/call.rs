//! The calls of an instance set as values, so that a layer treats all of them in one place.

use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, CloudError, CreateRequest, ErrorKind, Instance, InstanceResults, InstanceSet,
    Interruption, Operation, PricePoint, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId};

use crate::refused::Refused;

/// Makes an error; a batch takes one for each of its ids.
pub(crate) type MakeError<'a> = &'a (dyn Fn() -> CloudError + Sync);

/// The result of a batch.
pub(crate) type Results = InstanceResults;

/// One call with its arguments.
#[async_trait]
pub(crate) trait Call: Send + Sync + Sized {
    type Answer: Answer;

    fn operation(&self) -> Operation;

    /// Sends it to the inner instance set.
    async fn send(&self, context: &CallContext) -> Self::Answer;

    /// The answer of a call that failed as a whole.
    fn failed(&self, error: MakeError<'_>) -> Self::Answer;

    /// How many ids it names; 1 for a call that is no batch.
    fn size(&self) -> usize {
        1
    }

    /// What is left to do of a call of which some, or all, was refused for the rate.
    fn refused_part(&self, answer: &Self::Answer) -> Option<Self>;
}

/// What a call answers.
pub(crate) trait Answer: Send {
    fn errors(&self) -> Vec<&CloudError>;

    /// Puts the results of a part that was sent again in the place of the earlier ones.
    fn amend(&mut self, later: Self);
}

impl<T: Send> Answer for Result<T, CloudError> {
    fn errors(&self) -> Vec<&CloudError> {
        self.as_ref().err().into_iter().collect()
    }

    fn amend(&mut self, later: Self) {
        *self = later;
    }
}

impl Answer for Results {
    fn errors(&self) -> Vec<&CloudError> {
        self.iter()
            .filter_map(|(_, done)| done.as_ref().err())
            .collect()
    }

    fn amend(&mut self, later: Self) {
        self.retain(|(id, done)| !is_rate_limited(done) || !later.iter().any(|(l, _)| l == id));
        self.extend(later);
    }
}

/// Whether the provider refused it for its rate, and not a layer of ours.
fn is_rate_limited<T>(done: &Result<T, CloudError>) -> bool {
    done.as_ref().is_err_and(|error| {
        matches!(error.kind, ErrorKind::RateLimited { .. }) && !Refused::is_cause_of(error)
    })
}

/// The ids that the provider refused for its rate, none if that is nothing.
fn refused_ids(results: &Results) -> Option<Vec<&InstanceId>> {
    let refused: Vec<&InstanceId> = results
        .iter()
        .filter(|(_, done)| is_rate_limited(done))
        .map(|(id, _)| id)
        .collect();
    (!refused.is_empty()).then_some(refused)
}

/// The extension is not there, although it was: an inner instance set broke its promise.
fn no_extension<T>(what: &'static str) -> Result<T, CloudError> {
    let words = format!("there is no {what}");
    Err(CloudError::new(
        Operation::Other,
        "layer",
        ErrorKind::Unsupported,
        words,
    ))
}

#[derive(Debug)]
pub(crate) struct Create<'a, S> {
    pub(crate) inner: &'a S,
    pub(crate) request: &'a CreateRequest,
}

#[async_trait]
impl<S: InstanceSet> Call for Create<'_, S> {
    type Answer = Result<Instance, CloudError>;

    fn operation(&self) -> Operation {
        Operation::Create
    }

    async fn send(&self, context: &CallContext) -> Self::Answer {
        self.inner.create(context, self.request).await
    }

    fn failed(&self, error: MakeError<'_>) -> Self::Answer {
        Err(error())
    }

    fn refused_part(&self, answer: &Self::Answer) -> Option<Self> {
        is_rate_limited(answer).then_some(Self { ..*self })
    }
}

#[derive(Debug)]
pub(crate) struct List<'a, S> {
    pub(crate) inner: &'a S,
    pub(crate) tags: &'a Tags,
}

#[async_trait]
impl<S: InstanceSet> Call for List<'_, S> {
    type Answer = Result<Vec<Instance>, CloudError>;

    fn operation(&self) -> Operation {
        Operation::List
    }

    async fn send(&self, context: &CallContext) -> Self::Answer {
        self.inner.list(context, self.tags).await
    }

    fn failed(&self, error: MakeError<'_>) -> Self::Answer {
        Err(error())
    }

    fn refused_part(&self, answer: &Self::Answer) -> Option<Self> {
        is_rate_limited(answer).then_some(Self { ..*self })
    }
}

#[derive(Debug)]
pub(crate) struct Destroy<'a, S> {
    pub(crate) inner: &'a S,
    pub(crate) ids: std::borrow::Cow<'a, [InstanceId]>,
}

#[async_trait]
impl<S: InstanceSet> Call for Destroy<'_, S> {
    type Answer = Results;

    fn operation(&self) -> Operation {
        Operation::Destroy
    }

    async fn send(&self, context: &CallContext) -> Self::Answer {
        self.inner.destroy(context, &self.ids).await
    }

    fn failed(&self, error: MakeError<'_>) -> Self::Answer {
        self.ids
            .iter()
            .map(|id| (id.clone(), Err(error())))
            .collect()
    }

    fn size(&self) -> usize {
        self.ids.len()
    }

    fn refused_part(&self, answer: &Self::Answer) -> Option<Self> {
        let ids = refused_ids(answer)?.into_iter().cloned().collect();
        Some(Self {
            inner: self.inner,
            ids,
        })
    }
}

#[derive(Debug)]
pub(crate) struct SetTags<'a, S> {
    pub(crate) inner: &'a S,
    pub(crate) changes: std::borrow::Cow<'a, [(InstanceId, Tags)]>,
}

#[async_trait]
impl<S: InstanceSet> Call for SetTags<'_, S> {
    type Answer = Results;

    fn operation(&self) -> Operation {
        Operation::SetTags
    }

    async fn send(&self, context: &CallContext) -> Self::Answer {
        self.inner.set_tags(context, &self.changes).await
    }

    fn failed(&self, error: MakeError<'_>) -> Self::Answer {
        let ids = self.changes.iter().map(|(id, _)| id.clone());
        ids.map(|id| (id, Err(error()))).collect()
    }

    fn size(&self) -> usize {
        self.changes.len()
    }

    fn refused_part(&self, answer: &Self::Answer) -> Option<Self> {
        let refused = refused_ids(answer)?;
        let mut changes = self.changes.to_vec();
        changes.retain(|(id, _)| refused.contains(&id));
        Some(Self {
            inner: self.inner,
            changes: changes.into(),
        })
    }
}

#[derive(Debug)]
pub(crate) struct VerifyHostKey<'a, S> {
    pub(crate) inner: &'a S,
    pub(crate) id: &'a InstanceId,
    pub(crate) key: &'a HostKey,
}

#[async_trait]
impl<S: InstanceSet> Call for VerifyHostKey<'_, S> {
    type Answer = Result<HostKeyVerdict, CloudError>;

    fn operation(&self) -> Operation {
        Operation::VerifyHostKey
    }

    async fn send(&self, context: &CallContext) -> Self::Answer {
        self.inner.verify_host_key(context, self.id, self.key).await
    }

    fn failed(&self, error: MakeError<'_>) -> Self::Answer {
        Err(error())
    }

    fn refused_part(&self, answer: &Self::Answer) -> Option<Self> {
        is_rate_limited(answer).then_some(Self { ..*self })
    }
}

#[derive(Debug)]
pub(crate) struct Prices<'a, S> {
    pub(crate) inner: &'a S,
    pub(crate) id: &'a InstanceId,
    pub(crate) span: Duration,
}

#[async_trait]
impl<S: InstanceSet> Call for Prices<'_, S> {
    type Answer = Result<Vec<PricePoint>, CloudError>;

    fn operation(&self) -> Operation {
        Operation::Other
    }

    async fn send(&self, context: &CallContext) -> Self::Answer {
        match self.inner.extensions().price_history {
            Some(prices) => prices.price_history(context, self.id, self.span).await,
            None => no_extension("price history"),
        }
    }

    fn failed(&self, error: MakeError<'_>) -> Self::Answer {
        Err(error())
    }

    fn refused_part(&self, answer: &Self::Answer) -> Option<Self> {
        is_rate_limited(answer).then_some(Self { ..*self })
    }
}

#[derive(Debug)]
pub(crate) struct Console<'a, S> {
    pub(crate) inner: &'a S,
    pub(crate) id: &'a InstanceId,
    pub(crate) limit: usize,
}

#[async_trait]
impl<S: InstanceSet> Call for Console<'_, S> {
    type Answer = Result<Vec<u8>, CloudError>;

    fn operation(&self) -> Operation {
        Operation::Other
    }

    async fn send(&self, context: &CallContext) -> Self::Answer {
        match self.inner.extensions().console_output {
            Some(console) => console.console_output(context, self.id, self.limit).await,
            None => no_extension("console output"),
        }
    }

    fn failed(&self, error: MakeError<'_>) -> Self::Answer {
        Err(error())
    }

    fn refused_part(&self, answer: &Self::Answer) -> Option<Self> {
        is_rate_limited(answer).then_some(Self { ..*self })
    }
}

#[derive(Debug)]
pub(crate) struct Notices<'a, S> {
    pub(crate) inner: &'a S,
}

#[async_trait]
impl<S: InstanceSet> Call for Notices<'_, S> {
    type Answer = Result<Vec<Interruption>, CloudError>;

    fn operation(&self) -> Operation {
        Operation::Other
    }

    async fn send(&self, context: &CallContext) -> Self::Answer {
        match self.inner.extensions().interruption_notices {
            Some(notices) => notices.interruptions(context).await,
            None => no_extension("notice of interruptions"),
        }
    }

    fn failed(&self, error: MakeError<'_>) -> Self::Answer {
        Err(error())
    }

    fn refused_part(&self, answer: &Self::Answer) -> Option<Self> {
        is_rate_limited(answer).then_some(Self { ..*self })
    }
}
