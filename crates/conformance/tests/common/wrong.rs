//! Instance sets that break one promise each: a wrapper around one that keeps them all.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, ConsoleOutput, CreateRequest, ErrorKind, Extensions,
    Instance, InstanceResults, InstanceSet, InstanceState, Interruption, InterruptionNotices,
    Operation, PriceHistory, PricePoint, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};
use tokio::time::{Instant, sleep};

use super::memory::{Memory, key, refusal};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    PrintsNothing,
    PrintsTwoLines,
    PrintsNotWhatItWraps,
    PanicsWhenPrinted,
    ChangesItsCapabilities,
    CountsQuotaGroups,
    AnswersAboutNothing,
    PanicsOnEmptyBatch,
    HidesExtensions,
    NeverListsPendingOnes,
    TagsComeLater,
    LosesATag,
    GivesEmptyIds,
    GivesOneIdToAll,
    ListsOtherIds,
    EchoesNoType,
    ListsAnotherType,
    IgnoresTokens,
    ComparesTokensByPrefix,
    CutsLongTokens,
    ForgetsTokens,
    MakesASecondBehind,
    ForgetsTokensOnStop,
    LooksUpTokensTooEarly,
    NotesTokensTooLate,
    NeedsAKey,
    NeedsAScript,
    TakesADefaultType,
    RefusesTypesByOther,
    MakesThenRefuses,
    TakesADefaultImage,
    NamesAnotherCall,
    NamesNoProvider,
    RepeatsItsSource,
    HasNoWords,
    TrimsTagValues,
    ShortensTagValues,
    FailsOnNewlines,
    MatchesAnyTag,
    IgnoresFilters,
    MatchesTagPrefixes,
    MatchesInAnyCase,
    MatchesPatterns,
    ListsNothingWithoutTags,
    IgnoresUnknownTagNames,
    ListsOnePage,
    DropsAFullLastPage,
    LagsThoughConsistent,
    ReplacesTags,
    KeepsOldTagValues,
    ForgetsTagsBeyondTen,
    TagsUnknownOnes,
    FailsAllTagsForOne,
    AnswersOneTagChange,
    TagErrorsAreOther,
    TagsOthersToo,
    TakesSmallTagBatches,
    TagsTheLastChunk,
    DestroysNothing,
    ListsTheDeadAsRunning,
    UnknownIsNotFound,
    RefusesToDestroyTwice,
    AnswersTheFirstId,
    AnswersAboutOthers,
    AnswersTooOften,
    OneUnknownFailsAll,
    DestroysSmallBatches,
    DestroysTheLastChunk,
    DestroysOthersToo,
    MatchesEveryKey,
    MatchesNoKey,
    NeverKnowsKeys,
    IgnoresKeyAlgorithms,
    ComparesKeyPrefixes,
    PricesBackwards,
    PrintsTheWholeConsole,
    PrintsTheFirstBytes,
    NoticesOthers,
    IgnoresTimeouts,
    OverrunsTimeouts,
    TimesOutAsOther,
    SaysNothingOnTimeout,
    SharesOneRequest,
    LocksInTwoOrders,
    IsBusy,
    LosesTagsSetAtOnce,
    LeaksALock,
    DestroysOnStop,
    NeverStopsTwice,
    PanicsInCreate,
}

use Fault as F;

#[derive(Debug)]
pub(crate) struct Wrong {
    inner: Memory,
    fault: Fault,
    calls: AtomicUsize,
    tokens: Mutex<BTreeMap<String, Instance>>,
    births: Mutex<BTreeMap<InstanceId, Instant>>,
    overlay: Mutex<BTreeMap<InstanceId, Tags>>,
    destroyed: Mutex<Vec<InstanceId>>,
    last: Mutex<Option<CreateRequest>>,
    first_lock: tokio::sync::Mutex<()>,
    second_lock: tokio::sync::Mutex<()>,
    busy: Mutex<bool>,
}

impl Wrong {
    pub(crate) fn new(fault: Fault, inner: Memory) -> Self {
        Self {
            inner,
            fault,
            calls: AtomicUsize::new(0),
            tokens: Mutex::default(),
            births: Mutex::default(),
            overlay: Mutex::default(),
            destroyed: Mutex::default(),
            last: Mutex::default(),
            first_lock: tokio::sync::Mutex::default(),
            second_lock: tokio::sync::Mutex::default(),
            busy: Mutex::new(false),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// What is done to the request before it is sent.
    fn spoil_request(&self, request: &mut CreateRequest) {
        match self.fault {
            F::LosesATag => {
                request.tags.remove("longshore-conformance-birth");
            }
            F::ForgetsTokens => {
                request.token = format!("t-{}", self.calls.fetch_add(1, Ordering::Relaxed));
            }
            F::ComparesTokensByPrefix => request.token.truncate(28),
            F::CutsLongTokens => request.token.truncate(63),
            F::ForgetsTokensOnStop => {
                let stops = self.calls.load(Ordering::Relaxed);
                request.token = format!("{stops}-{}", request.token);
            }
            F::TakesADefaultType => request.instance_type.provider_type = "s1".into(),
            F::TakesADefaultImage => request.image = "image".into(),
            _ => {}
        }
        self.spoil_tags(&mut request.tags);
    }

    fn spoil_tags(&self, tags: &mut Tags) {
        for value in tags.values_mut() {
            match self.fault {
                F::TrimsTagValues => *value = value.trim().into(),
                F::ShortensTagValues => *value = value.chars().take(255).collect(),
                _ => {}
            }
        }
    }

    fn spoil_error(&self, error: CloudError) -> CloudError {
        let CloudError {
            mut operation,
            mut provider,
            mut kind,
            mut source,
            ..
        } = error;
        match self.fault {
            F::NamesAnotherCall => operation = Operation::Other,
            F::NamesNoProvider => provider = "",
            F::HasNoWords => source = "".into(),
            F::TimesOutAsOther if kind == ErrorKind::TimedOut => kind = ErrorKind::Other,
            F::RepeatsItsSource => source = format!("{provider}: {operation}: {kind}: no").into(),
            _ => {}
        }
        CloudError::new(operation, provider, kind, source)
    }

    /// What is done to a listed instance.
    fn spoil_instance(&self, instance: &mut Instance) {
        match self.fault {
            F::ListsOtherIds => instance.id = instance.id.as_str().to_uppercase().into(),
            F::ListsAnotherType => instance.provider_type = "type s1".into(),
            F::ListsTheDeadAsRunning => instance.state = InstanceState::Running,
            F::TagsComeLater => {
                let born = self.births.lock().unwrap().get(&instance.id).copied();
                let young = |at: Instant| at.elapsed() < Duration::from_millis(700);
                if born.is_none_or(young) {
                    instance.tags.clear();
                }
            }
            _ => {}
        }
        match self.overlay.lock().unwrap().get(&instance.id) {
            Some(tags) if self.is(F::ReplacesTags) => instance.tags = tags.clone(),
            Some(tags) if self.is(F::KeepsOldTagValues) => instance.tags.extend(tags.clone()),
            Some(tags) if self.is(F::ForgetsTagsBeyondTen) && instance.tags.len() > 10 => {
                let newest = |key: &String| !key.contains("-odd-") || tags.contains_key(key);
                instance.tags.retain(|key, _| newest(key));
            }
            _ => {}
        }
    }

    /// Refuses what the fault refuses before anything is done.
    fn refuse(&self, request: &CreateRequest) -> Result<(), CloudError> {
        let unknown = request.instance_type.provider_type != "s1";
        let kind = match self.fault {
            F::NeedsAKey if request.public_key.is_none() => ErrorKind::InvalidRequest,
            F::NeedsAScript if request.init_script.is_empty() => ErrorKind::InvalidRequest,
            F::RefusesTypesByOther if unknown => ErrorKind::Other,
            _ => return Ok(()),
        };
        Err(refusal(Operation::Create, kind, "NotLikeThat"))
    }

    /// Finds what a token made, in the ways that go wrong.
    fn find_token(&self, request: &CreateRequest) -> Option<Instance> {
        let known = self.tokens.lock().unwrap();
        match self.fault {
            F::IgnoresTokens => {
                let mut made = known.values();
                made.find(|instance| instance.tags == request.tags).cloned()
            }
            F::LooksUpTokensTooEarly | F::NotesTokensTooLate | F::MakesASecondBehind => {
                known.get(&request.token).cloned()
            }
            _ => None,
        }
    }

    async fn make(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        let found = self.find_token(request);
        if let (Some(found), false) = (&found, self.is(F::MakesASecondBehind)) {
            return Ok(found.clone());
        }
        let mut wanted = request.clone();
        self.spoil_request(&mut wanted);
        self.refuse(&wanted)?;
        if self.is(F::MakesThenRefuses) && wanted.instance_type.provider_type != "s1" {
            wanted.instance_type.provider_type = "s1".into();
            self.inner.create(context, &wanted).await?;
            let (op, kind) = (Operation::Create, ErrorKind::InvalidRequest);
            return Err(refusal(op, kind, "NoSuchType"));
        }
        if self.is(F::SharesOneRequest) {
            *self.last.lock().unwrap() = Some(wanted.clone());
            sleep(Duration::from_millis(5)).await;
            wanted = self.last.lock().unwrap().clone().unwrap();
        }
        let no_tokens = [
            F::LooksUpTokensTooEarly,
            F::NotesTokensTooLate,
            F::MakesASecondBehind,
        ];
        if no_tokens.contains(&self.fault) {
            wanted.token = format!("t-{}", self.calls.fetch_add(1, Ordering::Relaxed));
        }
        let made = self.inner.create(context, &wanted).await;
        let mut made = found.map_or(made, Ok).map_err(|e| self.spoil_error(e))?;
        self.births
            .lock()
            .unwrap()
            .insert(made.id.clone(), Instant::now());
        made.tags = request.tags.clone();
        let mut tokens = self.tokens.lock().unwrap();
        tokens.insert(request.token.clone(), made.clone());
        match self.fault {
            F::GivesEmptyIds => made.id = "".into(),
            F::GivesOneIdToAll => made.id = "m-0".into(),
            F::EchoesNoType => made.provider_type = String::new(),
            _ => {}
        }
        Ok(made)
    }

    /// The filter that is really used.
    fn spoil_filter(&self, tags: &Tags) -> Tags {
        match self.fault {
            F::IgnoresFilters
            | F::MatchesAnyTag
            | F::MatchesTagPrefixes
            | F::MatchesInAnyCase
            | F::MatchesPatterns => Tags::new(),
            F::IgnoresUnknownTagNames => {
                let known = |key: &str| !key.contains("nobody");
                let kept = tags.iter().filter(|(key, _)| known(key));
                kept.map(|(k, v)| (k.clone(), v.clone())).collect()
            }
            _ => tags.clone(),
        }
    }

    fn spoil_listing(&self, tags: &Tags, listing: &mut Vec<Instance>) {
        match self.fault {
            F::MatchesAnyTag if !tags.is_empty() => {
                listing.retain(|i| tags.iter().any(|(k, v)| i.tags.get(k) == Some(v)));
            }
            F::MatchesTagPrefixes => listing.retain(|instance| {
                let starts = |(k, v): (&String, &String)| {
                    let has = instance.tags.get(k);
                    has.is_some_and(|has| has.starts_with(v.as_str()))
                };
                tags.iter().all(starts)
            }),
            F::MatchesInAnyCase => listing.retain(|instance| {
                let equal = |(k, v): (&String, &String)| {
                    let has = instance.tags.get(k);
                    has.is_some_and(|has| has.eq_ignore_ascii_case(v))
                };
                tags.iter().all(equal)
            }),
            F::MatchesPatterns => listing.retain(|instance| {
                let fits = |(k, v): (&String, &String)| match v.strip_suffix('*') {
                    Some(begin) => instance
                        .tags
                        .get(k)
                        .is_some_and(|has| has.starts_with(begin)),
                    None => instance.tags.get(k) == Some(v),
                };
                tags.iter().all(fits)
            }),
            F::ListsNothingWithoutTags if tags.is_empty() => listing.clear(),
            F::ListsOnePage => listing.truncate(1000),
            F::DropsAFullLastPage if !listing.is_empty() && listing.len().is_multiple_of(100) => {
                listing.truncate(listing.len() - 100);
            }
            F::NeverListsPendingOnes => {
                let births = self.births.lock().unwrap();
                let newest = births.iter().max_by_key(|(_, at)| **at).map(|(id, _)| id);
                listing.retain(|instance| Some(&instance.id) != newest);
            }
            F::LagsThoughConsistent => {
                let births = self.births.lock().unwrap();
                let old = |at: &Instant| at.elapsed() > Duration::from_secs(3);
                listing.retain(|instance| births.get(&instance.id).is_none_or(old));
            }
            _ => {}
        }
    }

    /// Notes that a call begins, where that is a mistake.
    async fn enter(&self, operation: Operation) -> Result<(), CloudError> {
        let tags = operation == Operation::SetTags;
        match self.fault {
            F::LeaksALock if tags => {
                while std::mem::replace(&mut *self.busy.lock().unwrap(), true) {
                    sleep(Duration::from_millis(10)).await;
                }
            }
            F::IsBusy if tags && std::mem::replace(&mut *self.busy.lock().unwrap(), true) => {
                let (kind, words) = (ErrorKind::Other, "AnotherCallIsRunning");
                return Err(refusal(operation, kind, words));
            }
            F::IgnoresTimeouts => sleep(Duration::from_secs(5)).await,
            // As long as a provider takes, and less than a busy machine is forgiven.
            F::OverrunsTimeouts => sleep(Duration::from_millis(200)).await,
            _ => {}
        }
        Ok(())
    }

    fn leave(&self) {
        *self.busy.lock().unwrap() = false;
    }
}

/// Leaves when it is dropped.
struct Leaves<'a>(&'a Wrong);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

type Answers = InstanceResults;

fn ids_of(changes: &[(InstanceId, Tags)]) -> Vec<InstanceId> {
    changes.iter().map(|(id, _)| id.clone()).collect()
}

fn fail_all(ids: &[InstanceId], operation: Operation, kind: &ErrorKind) -> Answers {
    let failed = |id: &InstanceId| {
        let error = refusal(operation, kind.clone(), "TheWholeCallFailed");
        (id.clone(), Err(error))
    };
    ids.iter().map(failed).collect()
}

impl Wrong {
    async fn destroy_wrongly(&self, context: &CallContext, ids: &[InstanceId]) -> Answers {
        let known = self.births.lock().unwrap().clone();
        let unknown = |id: &InstanceId| !known.contains_key(id);
        match self.fault {
            F::PanicsOnEmptyBatch => assert!(!ids.is_empty(), "index out of bounds"),
            F::AnswersAboutNothing if ids.is_empty() => return vec![("m-0".into(), Ok(()))],
            F::DestroysNothing => return ids.iter().map(|id| (id.clone(), Ok(()))).collect(),
            F::OneUnknownFailsAll if ids.len() > 1 && ids.iter().any(unknown) => {
                return fail_all(ids, Operation::Destroy, &ErrorKind::NotFound);
            }
            F::DestroysSmallBatches if ids.len() > 10 => {
                return fail_all(ids, Operation::Destroy, &ErrorKind::InvalidRequest);
            }
            _ => {}
        }
        let before = self.destroyed.lock().unwrap().clone();
        self.destroyed.lock().unwrap().extend(ids.iter().cloned());
        let mut wanted = ids.to_vec();
        if self.is(F::DestroysTheLastChunk) {
            wanted.drain(..ids.len().saturating_sub(10));
        }
        if self.is(F::DestroysOthersToo) && ids.iter().any(|id| !unknown(id)) {
            wanted.extend(self.inner.alive());
        }
        let mut answers = self.inner.destroy(context, &wanted).await;
        if self.is(F::DestroysTheLastChunk) {
            return ids.iter().map(|id| (id.clone(), Ok(()))).collect();
        }
        answers.truncate(ids.len());
        for (id, answer) in &mut answers {
            let refused = match self.fault {
                F::UnknownIsNotFound => unknown(id),
                F::RefusesToDestroyTwice => before.contains(id),
                _ => false,
            };
            if refused {
                let kind = ErrorKind::NotFound;
                *answer = Err(refusal(Operation::Destroy, kind, "NoSuchMachine"));
            }
        }
        let late = answers.iter().any(|(_, answer)| answer.is_err());
        match self.fault {
            F::AnswersTheFirstId => answers.truncate(1),
            F::AnswersAboutOthers if ids.len() > 1 => answers[0].0 = "m-other".into(),
            F::AnswersTooOften if ids.len() == 3 => {
                answers.extend(ids.iter().map(|id| (id.clone(), Ok(()))));
            }
            F::SaysNothingOnTimeout if late => answers.clear(),
            _ => {}
        }
        answers
    }

    async fn tag_wrongly(&self, context: &CallContext, changes: &[(InstanceId, Tags)]) -> Answers {
        let ids = ids_of(changes);
        let known = self.births.lock().unwrap().clone();
        let unknown = |id: &InstanceId| !known.contains_key(id);
        let newline = |(_, tags): &(InstanceId, Tags)| tags.values().any(|v| v.contains('\n'));
        let at_once =
            |(_, tags): &(InstanceId, Tags)| tags.keys().any(|key| key.contains("at-once"));
        let mut changes = changes.to_vec();
        match self.fault {
            F::FailsOnNewlines if changes.iter().any(newline) => {
                return fail_all(&ids, Operation::SetTags, &ErrorKind::Other);
            }
            F::FailsAllTagsForOne if ids.len() > 1 && ids.iter().any(unknown) => {
                return fail_all(&ids, Operation::SetTags, &ErrorKind::NotFound);
            }
            F::TakesSmallTagBatches if ids.len() > 10 => {
                return fail_all(&ids, Operation::SetTags, &ErrorKind::InvalidRequest);
            }
            F::TagsTheLastChunk => {
                let before = changes.len().saturating_sub(10);
                changes[..before]
                    .iter_mut()
                    .for_each(|(_, tags)| tags.clear());
            }
            F::KeepsOldTagValues => {
                let mut overlay = self.overlay.lock().unwrap();
                for (id, tags) in &changes {
                    let old = overlay.entry(id.clone()).or_default();
                    if tags.contains_key("longshore-conformance-changed") {
                        old.insert("longshore-conformance-changed".into(), "1".into());
                    }
                }
            }
            F::ReplacesTags | F::ForgetsTagsBeyondTen => {
                self.overlay.lock().unwrap().extend(changes.iter().cloned())
            }
            // Of one instance, which is all that it is asked for at once under this name.
            F::LosesTagsSetAtOnce if changes.iter().any(at_once) => {
                if std::mem::replace(&mut *self.busy.lock().unwrap(), true) {
                    changes.iter_mut().for_each(|(_, tags)| tags.clear());
                }
                sleep(Duration::from_millis(10)).await;
            }
            F::TagsOthersToo => {
                let tags = changes.first().map(|(_, tags)| tags.clone());
                let others = self.inner.alive().into_iter();
                changes.extend(others.zip(tags.into_iter().cycle()));
            }
            _ => {}
        }
        for (_, tags) in &mut changes {
            self.spoil_tags(tags);
        }
        let mut answers = self.inner.set_tags(context, &changes).await;
        answers.truncate(ids.len());
        if self.is(F::AnswersOneTagChange) {
            answers.truncate(1);
        }
        for (_, answer) in &mut answers {
            let was = std::mem::replace(answer, Ok(()));
            *answer = match was.map_err(|error| self.spoil_error(error)) {
                Err(_) if self.is(F::TagsUnknownOnes) => Ok(()),
                Err(error) if self.is(F::TagErrorsAreOther) => {
                    let CloudError {
                        provider, source, ..
                    } = error;
                    let operation = Operation::SetTags;
                    Err(CloudError::new(
                        operation,
                        provider,
                        ErrorKind::Other,
                        source,
                    ))
                }
                other => other,
            };
        }
        answers
    }
}

#[async_trait]
impl InstanceSet for Wrong {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        assert!(!self.is(F::PanicsInCreate), "no entry found for key");
        self.enter(Operation::Create).await?;
        if self.is(F::NotesTokensTooLate) {
            let _one_after_the_other = self.first_lock.lock().await;
            self.make(context, request).await
        } else if self.is(F::LocksInTwoOrders) {
            let _first = self.first_lock.lock().await;
            sleep(Duration::from_millis(5)).await;
            let _second = self.second_lock.lock().await;
            self.make(context, request).await
        } else {
            self.make(context, request).await
        }
    }

    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.enter(Operation::List).await?;
        let filter = self.spoil_filter(tags);
        let listed = if self.is(F::LocksInTwoOrders) {
            let _second = self.second_lock.lock().await;
            sleep(Duration::from_millis(5)).await;
            let _first = self.first_lock.lock().await;
            self.inner.list(context, &filter).await
        } else {
            self.inner.list(context, &filter).await
        };
        let mut listing = listed.map_err(|error| self.spoil_error(error))?;
        self.spoil_listing(tags, &mut listing);
        for instance in &mut listing {
            self.spoil_instance(instance);
        }
        Ok(listing)
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> Answers {
        if let Err(error) = self.enter(Operation::Destroy).await {
            return fail_all(ids, Operation::Destroy, &error.kind);
        }
        let answers = self.destroy_wrongly(context, ids).await;
        let spoil = |(id, answer): (_, Result<(), _>)| {
            (id, answer.map_err(|error| self.spoil_error(error)))
        };
        answers.into_iter().map(spoil).collect()
    }

    async fn set_tags(&self, context: &CallContext, changes: &[(InstanceId, Tags)]) -> Answers {
        if let Err(error) = self.enter(Operation::SetTags).await {
            return fail_all(&ids_of(changes), Operation::SetTags, &error.kind);
        }
        if self.is(F::LeaksALock) {
            let answers = self.tag_wrongly(context, changes).await;
            // Not reached by a call that is dropped.
            self.leave();
            return answers;
        }
        let _leaves = Leaves(self);
        self.tag_wrongly(context, changes).await
    }

    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        asked: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        let truth = self.inner.verify_host_key(context, id, asked).await;
        let own = key(id.as_str());
        let matches = match self.fault {
            F::MatchesEveryKey => return Ok(HostKeyVerdict::Match),
            F::MatchesNoKey => return Ok(HostKeyVerdict::Mismatch),
            F::NeverKnowsKeys => return Ok(HostKeyVerdict::Unsupported),
            F::IgnoresKeyAlgorithms => asked.blob == own.blob,
            F::ComparesKeyPrefixes => {
                asked.algorithm == own.algorithm && asked.blob.starts_with(&own.blob)
            }
            _ => false,
        };
        match truth {
            Ok(HostKeyVerdict::Mismatch) if matches => Ok(HostKeyVerdict::Match),
            other => other.map_err(|error| self.spoil_error(error)),
        }
    }

    fn quota_group(&self, instance_type: &InstanceType) -> Option<String> {
        match self.fault {
            F::CountsQuotaGroups => {
                Some(format!("g{}", self.calls.fetch_add(1, Ordering::Relaxed)))
            }
            _ => self.inner.quota_group(instance_type),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = self.inner.capabilities();
        match self.fault {
            F::ChangesItsCapabilities if !self.births.lock().unwrap().is_empty() => {
                capabilities.with_destroy_batch(7)
            }
            _ => capabilities,
        }
    }

    fn extensions(&self) -> Extensions<'_> {
        let mut extensions = Extensions::default();
        if !self.is(F::HidesExtensions) {
            extensions.price_history = Some(self);
            extensions.console_output = Some(self);
            extensions.interruption_notices = Some(self);
        }
        extensions
    }

    async fn stop(&self) {
        let again = self.calls.fetch_add(1, Ordering::Relaxed) > 0;
        match self.fault {
            F::NeverStopsTwice if again => std::future::pending().await,
            F::DestroysOnStop => {
                let context = CallContext::example();
                self.inner.destroy(&context, &self.inner.alive()).await;
            }
            _ => {}
        }
    }
}

#[async_trait]
impl PriceHistory for Wrong {
    async fn price_history(
        &self,
        context: &CallContext,
        id: &InstanceId,
        span: Duration,
    ) -> Result<Vec<PricePoint>, CloudError> {
        let mut points = self.inner.price_history(context, id, span).await?;
        if self.is(F::PricesBackwards) {
            points.reverse();
        }
        Ok(points)
    }
}

#[async_trait]
impl ConsoleOutput for Wrong {
    async fn console_output(
        &self,
        context: &CallContext,
        id: &InstanceId,
        limit: usize,
    ) -> Result<Vec<u8>, CloudError> {
        let whole = self.inner.console_output(context, id, usize::MAX).await?;
        match self.fault {
            F::PrintsTheWholeConsole => Ok(whole),
            F::PrintsTheFirstBytes => Ok(whole.into_iter().take(limit).collect()),
            _ => self.inner.console_output(context, id, limit).await,
        }
    }
}

#[async_trait]
impl InterruptionNotices for Wrong {
    async fn interruptions(&self, context: &CallContext) -> Result<Vec<Interruption>, CloudError> {
        let mut notices = self.inner.interruptions(context).await?;
        if self.is(F::NoticesOthers) {
            notices.push(Interruption::new("somebody-elses", None));
        }
        Ok(notices)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            F::PrintsNothing => Ok(()),
            F::PrintsTwoLines => write!(f, "Wrong\n{}", self.inner),
            F::PrintsNotWhatItWraps => f.write_str("Wrong"),
            F::PanicsWhenPrinted => panic!("a lock is poisoned"),
            _ => write!(f, "Wrong({})", self.inner),
        }
    }
}
