//! The workplace of one check: its own tags, and a record of what it made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_cloud::{
    Capabilities, CloudError, CreateRequest, ErrorKind, Instance, InstanceResults, InstanceState,
    Operation, Outcome, Tags,
};
use longshore_types::{InstanceId, format_duration};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::{Promise, Subject};

/// Why a check ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    Broken(String),
    NotRun(String),
}

pub(crate) type Step<T> = Result<T, Stop>;

/// A listing without repetitions.
pub(crate) type Listing = BTreeMap<InstanceId, Instance>;

/// The answers of a call about several instances.
pub(crate) type Answers = InstanceResults;

#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) subject: Subject,
    pub(crate) promise: Promise,
    /// What only the instances of this check have.
    pub(crate) tags: Tags,
    /// What existed before the first create; never destroyed.
    before: OnceCell<BTreeSet<InstanceId>>,
    made: Mutex<Made>,
}

/// What a check made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) ids: BTreeSet<InstanceId>,
    pub(crate) creates: usize,
    /// Set when the removal begins: nothing more is made then.
    closed: bool,
    /// How many creates have not ended.
    under_way: usize,
    /// The tokens of creates that ended, or were dropped, without saying what they made; and when.
    doubtful: BTreeMap<String, Instant>,
}

impl Lab {
    pub(crate) fn new(subject: Subject, promise: Promise) -> Self {
        let tags = subject.fresh_tags();
        Self {
            subject,
            promise,
            tags,
            before: OnceCell::new(),
            made: Mutex::default(),
        }
    }

    /// The promise is broken: what was done, what was seen instead of what is promised, and where
    /// to look for the mistake.
    pub(crate) fn broken(&self, did: &str, saw: &str, fix: &str) -> Stop {
        broken(self.promise, did, saw, fix)
    }

    /// A request with a token of its own and the tags of this check.
    pub(crate) fn request(&self) -> CreateRequest {
        let mut request = self.subject.request.clone();
        request.token = self.subject.fresh_token();
        request.tags.extend(self.tags.clone());
        request
    }

    /// Such a request with one more tag.
    pub(crate) fn request_with(&self, key: &str, value: &str) -> CreateRequest {
        let mut request = self.request();
        request.tags.insert(key.into(), value.into());
        request
    }

    /// The tags of this check and one more.
    pub(crate) fn tags_with(&self, key: &str, value: &str) -> Tags {
        let mut tags = self.tags.clone();
        tags.insert(key.into(), value.into());
        tags
    }

    /// An id that no instance has, another one for each number.
    pub(crate) fn unknown_id(&self, number: usize) -> InstanceId {
        (self.subject.unknown_ids)(number)
    }

    /// What the instance set declares.
    pub(crate) async fn capabilities(&self) -> Step<Capabilities> {
        self.ask("capabilities", |set| set.capabilities()).await
    }

    /// Makes an instance, or says what the driver answered.
    pub(crate) async fn try_create(
        &self,
        request: &CreateRequest,
    ) -> Step<Result<Instance, CloudError>> {
        self.try_create_within(request, self.subject.timing.call)
            .await
    }

    /// The same with another timeout.
    pub(crate) async fn try_create_within(
        &self,
        request: &CreateRequest,
        timeout: Duration,
    ) -> Step<Result<Instance, CloudError>> {
        self.remember_what_was_there().await?;
        self.begin_create()?;
        let (request, token) = (request.clone(), &request.token);
        let answer = self
            .call(Operation::Create, timeout, move |set, context| async move {
                set.create(&context, &request).await
            })
            .await;
        let made = match &answer {
            Ok(Ok(instance)) => Some(Some(instance.id.clone())),
            Ok(Err(error)) if error.outcome() == Outcome::NotDone => Some(None),
            _ => None,
        };
        self.end_create(token, made);
        answer
    }

    /// Notes that a create begins.
    pub(crate) fn begin_create(&self) -> Step<()> {
        let mut made = self.made();
        if made.closed {
            return Err(Stop::NotRun("it was dropped before its end".into()));
        }
        made.creates += 1;
        made.under_way += 1;
        Ok(())
    }

    /// Lets nothing more be made; when something may last have been made that nobody told of.
    pub(crate) fn close(&self) -> Option<Instant> {
        let mut made = self.made();
        made.closed = true;
        match made.under_way {
            0 => made.doubtful.values().max().copied(),
            _ => Some(Instant::now()),
        }
    }

    /// Notes what a create made: something, nothing, or nobody knows.
    pub(crate) fn end_create(&self, token: &str, told: Option<Option<InstanceId>>) {
        let mut made = self.made();
        made.under_way -= 1;
        match told {
            Some(id) => made.ids.extend(id.filter(|id| !id.as_str().is_empty())),
            None => drop(made.doubtful.insert(token.to_owned(), Instant::now())),
        }
    }

    /// Finds out what a create made whose reply is not known, by repeating it, if that is allowed.
    pub(crate) async fn resolve(&self, request: &CreateRequest) -> Step<()> {
        let doubtful = self.made().doubtful.contains_key(&request.token);
        if doubtful && self.capabilities().await?.idempotent_create {
            self.create(request).await?;
            self.forget_doubt(request);
        }
        Ok(())
    }

    /// What a create made is known after all.
    pub(crate) fn forget_doubt(&self, request: &CreateRequest) {
        self.made().doubtful.remove(&request.token);
    }

    /// Makes an instance. Waits if the provider has no room or wants fewer calls.
    pub(crate) async fn create(&self, request: &CreateRequest) -> Step<Instance> {
        match self.create_or_hear_why_not(request).await? {
            Ok(instance) => Ok(instance),
            Err(error) => Err(self.refused("created an instance by a plain request", &error)),
        }
    }

    /// Makes an instance, or says why the provider never will. Waits as long as it only has no
    /// room or wants fewer calls.
    pub(crate) async fn create_or_hear_why_not(
        &self,
        request: &CreateRequest,
    ) -> Step<Result<Instance, CloudError>> {
        let until = Instant::now() + self.subject.timing.vanish;
        loop {
            let error = match self.try_create(request).await? {
                Ok(instance) => return Ok(Ok(instance)),
                Err(error) => error,
            };
            let Some(pause) = pause_after(&error.kind) else {
                return Ok(Err(error));
            };
            let pause = pause.max(self.subject.timing.poll);
            if Instant::now() + pause > until {
                return Err(Stop::NotRun(format!(
                    "the provider refused to make an instance for {}: {}",
                    format_duration(self.subject.timing.vanish),
                    error.chain()
                )));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes several, one after the other.
    pub(crate) async fn create_each(&self, requests: &[CreateRequest]) -> Step<Vec<Instance>> {
        let mut made = Vec::new();
        for request in requests {
            made.push(self.create(request).await?);
        }
        Ok(made)
    }

    /// Lists. Waits if the provider wants fewer calls.
    pub(crate) async fn list(&self, tags: &Tags) -> Step<Listing> {
        let timeout = self.subject.timing.call;
        match self.patiently(|| self.try_list(tags, timeout)).await? {
            Ok(listed) => Ok(listed.into_iter().map(|i| (i.id.clone(), i)).collect()),
            Err(error) => Err(self.refused("listed instances", &error)),
        }
    }

    /// Lists once.
    pub(crate) async fn try_list(
        &self,
        tags: &Tags,
        timeout: Duration,
    ) -> Step<Result<Vec<Instance>, CloudError>> {
        let tags = tags.clone();
        self.call(Operation::List, timeout, move |set, context| async move {
            set.list(&context, &tags).await
        })
        .await
    }

    /// Destroys, and gives the answers as they are.
    pub(crate) async fn destroy_within(
        &self,
        ids: &[InstanceId],
        timeout: Duration,
    ) -> Step<Answers> {
        let ids = ids.to_vec();
        self.call(
            Operation::Destroy,
            timeout,
            move |set, context| async move { set.destroy(&context, &ids).await },
        )
        .await
    }

    /// Sets tags, and gives the answers as they are.
    pub(crate) async fn set_tags_within(
        &self,
        changes: &[(InstanceId, Tags)],
        timeout: Duration,
    ) -> Step<Answers> {
        let changes = changes.to_vec();
        self.call(
            Operation::SetTags,
            timeout,
            move |set, context| async move { set.set_tags(&context, &changes).await },
        )
        .await
    }

    /// Destroys one instance that exists.
    pub(crate) async fn destroy_one(&self, id: &InstanceId) -> Step<()> {
        let answers = self.destroy(std::slice::from_ref(id)).await?;
        self.only_answer("destroy", id, answers)
    }

    /// Sets tags of one instance that exists.
    pub(crate) async fn tag_one(&self, id: &InstanceId, tags: &Tags) -> Step<()> {
        let answers = self.set_tags(&[(id.clone(), tags.clone())]).await?;
        self.only_answer("set_tags", id, answers)
    }

    fn only_answer(&self, call: &str, id: &InstanceId, answers: Answers) -> Step<()> {
        let did = format!("{call} of the instance {id}, which this check made");
        match answers.into_iter().find(|(answered, _)| answered == id) {
            Some((_, Ok(()))) => Ok(()),
            Some((_, Err(error))) => Err(self.refused(&did, &error)),
            None => Err(self.broken(
                &did,
                "no answer about that id",
                "give one result for each id of the call",
            )),
        }
    }

    /// That the answers are about the ids of the call: each of them, and no other.
    pub(crate) fn check_ids(&self, did: &str, asked: &[InstanceId], answers: &Answers) -> Step<()> {
        let fix = "give one result for each id of the call, with that id, also if the provider \
                   answers only about some, or fails the call as a whole";
        let has = |id: &InstanceId| answers.iter().any(|(answered, _)| answered == id);
        if let Some(id) = asked.iter().find(|id| !has(id)) {
            let saw = format!("{} answer(s), and none about {id}", answers.len());
            return Err(self.broken(did, &saw, fix));
        }
        if let Some((id, _)) = answers.iter().find(|(id, _)| !asked.contains(id)) {
            let saw = format!("an answer about {id:?}, which was not asked about");
            return Err(self.broken(did, &saw, fix));
        }
        // Of an id that is named twice, one answer and two are both fine.
        if answers.len() > asked.len() {
            let saw = format!("{} answers about {} ids", answers.len(), asked.len());
            return Err(self.broken(did, &saw, fix));
        }
        Ok(())
    }

    /// A call that nothing speaks against failed.
    pub(crate) fn refused(&self, did: &str, error: &CloudError) -> Stop {
        self.broken(
            did,
            &format!("it failed: {}", error.chain()),
            "make the call succeed; if the provider was out of order for a moment, run it again",
        )
    }

    /// Remembers, once, what exists, so that nothing of it is ever destroyed.
    pub(crate) async fn remember_what_was_there(&self) -> Step<()> {
        let all = Tags::new();
        let listing = async { Ok(self.list(&all).await?.into_keys().collect()) };
        self.before.get_or_try_init(|| listing).await.map(drop)
    }

    /// Whether an instance existed before this check.
    pub(crate) fn was_there(&self, id: &InstanceId) -> bool {
        self.before.get().is_some_and(|before| before.contains(id))
    }

    pub(crate) fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn broken(promise: Promise, did: &str, saw: &str, fix: &str) -> Stop {
    let contract = promise.contract();
    Stop::Broken(format!(
        "Done: {did}.\nSeen: {saw}.\nContract: {contract}\nTo fix: {fix}."
    ))
}

/// Whether an instance still costs money for sure.
pub(crate) fn is_alive(instance: &Instance) -> bool {
    matches!(
        instance.state,
        InstanceState::Pending | InstanceState::Running
    )
}

/// How long to wait after a refusal that will pass; none if it will not.
fn pause_after(kind: &ErrorKind) -> Option<Duration> {
    match kind {
        ErrorKind::RateLimited { retry_after } => Some(retry_after.unwrap_or_default()),
        ErrorKind::QuotaExceeded(_) | ErrorKind::NoCapacity(_) => Some(Duration::ZERO),
        _ => None,
    }
}
