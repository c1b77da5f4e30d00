//! Jobs of the controller in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longshore_controller::http::ReadOutput;
use longshore_controller::{
    BatchId, JobFilter, JobPart, JobStates, JobStatus, NewBatch, NewJob, Store, SubmitError, Window,
};
use longshore_dispatch::Snapshot;
use longshore_dispatch::http::{CheckController, KillContainer, KillError};
use longshore_dispatch::runtime::{Handle, OutputError};
use longshore_queue::{QueueError, QueueErrorKind};
use longshore_runner_api::StartDocument;
use longshore_runner_api::command::OutputStream;
use longshore_scheduler::type_choice::{Unsatisfiable, eligible};
use longshore_types::{
    ByteSize, Container, ContainerUuid, Explanation, InstanceType, Reason, ResourceRequest,
    error_chain,
};
use tokio::sync::Semaphore;

use super::view::{BatchView, JobView, NewBatchView, NewJobView, OutputView};

/// How many jobs are read, and held, at once for a list, and the most in a part of one.
pub(super) const PAGE: usize = 1000;
/// How many jobs are looked at for a part of a list.
const MAX_LOOKED_AT: usize = 10_000;
/// How often the output of a running job is looked for more while somebody waits for it.
const LOOK: Duration = Duration::from_millis(200);
/// The longest that a host may take for a part of an output.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How many such reads are under way at once.
const MAX_READS: usize = 8;
/// How long the store may take to show that it can be written.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a start document may take to be read.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The controller and the dispatcher of this process.
#[derive(Clone, Debug)]
pub struct Local {
    store: Arc<Store>,
    dispatcher: Handle,
    /// How the scheduler chooses instance types.
    choice: Arc<longshore_scheduler::Config>,
    reads: Arc<Semaphore>,
}

impl Local {
    /// Those of an installation.
    pub fn new(
        store: Arc<Store>,
        dispatcher: Handle,
        choice: Arc<longshore_scheduler::Config>,
    ) -> Self {
        Self {
            store,
            dispatcher,
            choice,
            reads: Arc::new(Semaphore::new(MAX_READS)),
        }
    }

    pub(super) async fn find_batch(&self, key: &str) -> Result<Option<BatchView>, QueueError> {
        Ok(self.store.find_batch(key).await?.map(BatchView::from))
    }

    pub(super) async fn unfinished_batches(&self) -> Result<Vec<BatchView>, QueueError> {
        let batches = self.store.unfinished_batches().await?.into_iter();
        Ok(batches.map(BatchView::from).collect())
    }

    /// The instance types that there are.
    pub(super) fn instance_types(&self) -> &[InstanceType] {
        &self.choice.types
    }

    pub(super) async fn submit(&self, batch: NewBatchView) -> Result<u64, SubmitError> {
        self.check_sizes(&batch.jobs)?;
        let batch = NewBatch {
            key: batch.key,
            content_hash: batch.content_hash,
            name: batch.name,
            followed: batch.followed,
            jobs: batch.jobs.into_iter().map(new_job).collect(),
        };
        self.store.submit_batch(batch).await.map(|id| id.0)
    }

    /// What fits no instance type would wait for ever, and what needs nothing would be put beside
    /// anything, without a limit.
    fn check_sizes(&self, jobs: &[NewJobView]) -> Result<(), SubmitError> {
        // Most jobs ask for the same as the one before.
        let mut fits: Option<&ResourceRequest> = None;
        for job in jobs {
            if fits == Some(&job.request) {
                continue;
            }
            let name = || job.name.chars().take(100).collect();
            if job.request.vcpus == 0 || job.request.ram == ByteSize::ZERO {
                let why = "it asks for no vCPU or no RAM; ask for 1 at least of each".to_owned();
                return Err(SubmitError::Job { name: name(), why });
            }
            let why = match eligible(&job.request, &self.choice) {
                Ok(_) => {
                    fits = Some(&job.request);
                    continue;
                }
                Err(Unsatisfiable::NoneFits { nearest }) => {
                    format!("no instance type has what it needs: {nearest}; ask for less")
                }
                Err(error) => error.to_string(),
            };
            return Err(SubmitError::Job { name: name(), why });
        }
        Ok(())
    }

    pub(super) async fn batch(&self, id: u64) -> Result<BatchView, QueueError> {
        Ok(self.store.batch_status(BatchId(id)).await?.into())
    }

    pub(super) async fn watch_batch(
        &self,
        id: u64,
        since: u64,
        timeout: Duration,
    ) -> Result<(), QueueError> {
        self.store.watch_batch(BatchId(id), since, timeout).await?;
        Ok(())
    }

    /// The jobs of a batch, in the order in which they were submitted.
    pub(super) async fn jobs_of(&self, id: u64) -> Result<Vec<JobView>, QueueError> {
        let jobs = self.store.job_status(BatchId(id)).await?;
        Ok(self.reasons().explain(jobs))
    }

    /// A part of them: those after a place in the store, with the reasons of one moment, and where
    /// the next part begins.
    pub(super) async fn jobs_after(
        &self,
        id: u64,
        place: u64,
        reasons: &Reasons,
    ) -> Result<(Vec<JobView>, Option<u64>), QueueError> {
        let part = self.store.job_status_after(BatchId(id), place, PAGE);
        let JobPart { jobs, next, .. } = part.await?;
        Ok((reasons.explain(jobs), next))
    }

    /// A part of the jobs that `wanted` describes and `has` takes, the newest first: [`PAGE`] at
    /// most, and the place in the store from which the list goes on, if it may. It may be empty and
    /// go on, where few jobs are meant.
    pub(super) async fn list(
        &self,
        mut wanted: JobFilter,
        has: impl Fn(&JobView) -> bool,
    ) -> Result<(Vec<JobView>, Option<u64>), QueueError> {
        let (reasons, most) = (self.reasons(), wanted.limit.min(PAGE));
        let (mut found, mut looked_at) = (Vec::new(), 0);
        // Of most lists everything is meant.
        wanted.limit = most;
        while found.len() < most && looked_at < MAX_LOOKED_AT {
            let JobPart { jobs, next, .. } = self.store.list_jobs(&wanted).await?;
            looked_at += jobs.len();
            for job in jobs {
                if found.len() == most {
                    return Ok((found, wanted.before));
                }
                wanted.before = Some(job.place);
                found.extend(Some(reasons.explain_one(job)).filter(&has));
            }
            if next.is_none() {
                return Ok((found, None));
            }
            (wanted.before, wanted.limit) = (next, PAGE);
        }
        Ok((found, wanted.before))
    }

    /// Why jobs wait at this moment.
    pub(super) fn reasons(&self) -> Reasons {
        Reasons::of(self.dispatcher.snapshot())
    }

    pub(super) async fn find(&self, text: &str, limit: usize) -> Result<Vec<JobView>, QueueError> {
        let jobs = self.store.find_jobs(text, limit).await?;
        Ok(self.reasons().explain(jobs))
    }

    pub(super) async fn job(
        &self,
        uuid: ContainerUuid,
    ) -> Result<(JobView, StartDocument), QueueError> {
        let job = self.store.job(uuid).await?.ok_or_else(|| unknown(uuid))?;
        let document = self.store.start_document(uuid, DOCUMENT_TIMEOUT).await?;
        let document = StartDocument::from_json(&document).map_err(|error| {
            let what = "its start document cannot be read";
            QueueError::caused(QueueErrorKind::BadRecord, what, error)
        })?;
        let mut view = self.reasons().explain_one(job);
        if !view.state.is_final()
            && view.reason.is_none()
            && let Ok((Some(entry), _)) = self.dispatcher.entry(uuid).await
        {
            let waits = entry.reason.filter(|reason| *reason != Reason::NotWaiting);
            view.reason = waits.map(|reason| {
                reason.sentence(entry.container.state, entry.position, entry.in_line)
            });
        }
        Ok((view, document))
    }

    /// Why a job waits, in full.
    pub(super) async fn explain(&self, uuid: ContainerUuid) -> Result<Explanation, QueueError> {
        // Without a dispatcher the record still says something.
        if let Ok(Some(why)) = self.dispatcher.explain(uuid).await {
            return Ok(why);
        }
        let job = self.store.job(uuid).await?.ok_or_else(|| unknown(uuid))?;
        let mut record = Container::queued(uuid, ResourceRequest::default());
        (record.state, record.priority) = (job.state, job.priority);
        Ok(Explanation::of_record(&record).unwrap_or_else(|| {
            let (state, priority) = (record.state, record.priority);
            let mut why = Explanation::new(uuid, state, priority, Reason::NotAccepting);
            why.unblock = vec!["the dispatcher has to read it: ask again in a moment".into()];
            why
        }))
    }

    pub(super) async fn cancel_batch(&self, id: u64, abandon: bool) -> Result<usize, QueueError> {
        if abandon {
            self.store.abandon_batch(BatchId(id)).await
        } else {
            self.store.cancel_batch(BatchId(id)).await
        }
    }

    pub(super) async fn cancel(&self, uuid: ContainerUuid) -> Result<(), QueueError> {
        self.store.cancel(uuid).await
    }

    /// A part of what a job wrote to a stream. Where there is none yet, it is waited for at most
    /// `wait`.
    pub(super) async fn output(
        &self,
        uuid: ContainerUuid,
        stream: OutputStream,
        (from, length): (u64, u64),
        wait: Duration,
    ) -> Result<OutputView, QueueError> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let part = self.output_now(uuid, stream, (from, length)).await?;
            let now = tokio::time::Instant::now();
            if part.complete || !part.bytes.is_empty() || now >= until {
                return Ok(part);
            }
            tokio::time::sleep_until((now + LOOK).min(until)).await;
        }
    }

    /// What is there now: nothing where an instance does not answer, which may be asked again.
    async fn output_now(
        &self,
        uuid: ContainerUuid,
        stream: OutputStream,
        window: (u64, u64),
    ) -> Result<OutputView, QueueError> {
        let (part, error) = self.output_or_why(uuid, stream, window).await?;
        if let Some(error) = error {
            tracing::debug!(container_uuid = %uuid, %error, "no output");
        }
        Ok(part)
    }

    /// What is there now, and why an instance did not give what it may have.
    async fn output_or_why(
        &self,
        uuid: ContainerUuid,
        stream: OutputStream,
        (from, length): (u64, u64),
    ) -> Result<(OutputView, Option<OutputError>), QueueError> {
        let job = self.store.job(uuid).await?.ok_or_else(|| unknown(uuid))?;
        let mut part = OutputView {
            attempt: job.attempts,
            from,
            ..OutputView::default()
        };
        if job.state.is_final() {
            let exit = job.exit.as_ref();
            let kept = exit.and_then(|exit| match stream {
                OutputStream::Stdout => {
                    (exit.stdout_bytes > 0 && !exit.stdout_lost).then_some(exit.stdout_cut)
                }
                OutputStream::Stderr => {
                    (exit.stderr_bytes > 0 && !exit.stderr_lost).then_some(exit.stderr_cut)
                }
            });
            let Some(cut) = kept else {
                // What an earlier attempt wrote may be there.
                part.complete = true;
                return Ok((part, None));
            };
            let window = (from, length);
            let kept = self.store.read_kept(uuid, stream.as_str(), window, cut);
            let kept = kept.await.map_err(|error| {
                let what = "its output cannot be read";
                QueueError::caused(QueueErrorKind::Unknown, what, error)
            })?;
            part.complete = kept.bytes.is_empty();
            (part.from, part.bytes) = (kept.from, kept.bytes);
            return Ok((part, None));
        }
        // It is never closed.
        let _turn = self.reads.acquire().await.ok();
        let window = (from, length);
        let read = self
            .dispatcher
            .read_output(uuid, stream, window, READ_TIMEOUT)
            .await;
        match read {
            Ok((attempt, window)) => {
                part.attempt = attempt.0;
                (part.from, part.bytes) = (window.from, window.bytes);
            }
            // It waits, or ends at this moment, or has not written anything.
            Err(OutputError::NotThere) => {}
            Err(error) => return Ok((part, Some(error))),
        }
        Ok((part, None))
    }
}

/// The reasons why jobs wait, as far as the dispatcher tells them to everybody, of one moment.
#[derive(Debug)]
pub(super) struct Reasons {
    snapshot: Arc<Snapshot>,
    /// Where in the snapshot a job is.
    places: BTreeMap<ContainerUuid, usize>,
}

impl Reasons {
    fn of(snapshot: Arc<Snapshot>) -> Self {
        let places = snapshot.waiting.iter().enumerate();
        let places = places.map(|(place, entry)| (entry.uuid, place)).collect();
        Self { snapshot, places }
    }

    /// Jobs with the reasons why they wait.
    fn explain(&self, jobs: Vec<JobStatus>) -> Vec<JobView> {
        jobs.into_iter().map(|job| self.explain_one(job)).collect()
    }

    fn explain_one(&self, job: JobStatus) -> JobView {
        // Of what is not to run the dispatcher knows nothing.
        let not_to_run = || (job.priority < 1).then(|| Reason::PriorityZero.to_string());
        let reason = self.reason(job.uuid).or_else(not_to_run);
        JobView::new(job, reason)
    }

    fn reason(&self, uuid: ContainerUuid) -> Option<String> {
        let entry = self.snapshot.waiting.get(*self.places.get(&uuid)?)?;
        let in_line = self.snapshot.in_line;
        let reason = &entry.reason;
        Some(reason.sentence(entry.state, entry.position, in_line))
    }
}

#[async_trait]
impl ReadOutput for Local {
    async fn read(
        &self,
        uuid: ContainerUuid,
        stream: &'static str,
        from: u64,
        length: u64,
    ) -> Result<Window, QueueError> {
        let streams = OutputStream::ALL.into_iter();
        let stream = streams.into_iter().find(|known| known.as_str() == stream);
        let stream = stream
            .ok_or_else(|| QueueError::new(QueueErrorKind::NotFound, "there is no such stream"))?;
        match self.output_or_why(uuid, stream, (from, length)).await? {
            (part, None) => Ok(Window::new(part.from, part.bytes).of_attempt(part.attempt)),
            (_, Some(error)) => {
                let what = "the instance does not give its output";
                Err(QueueError::caused(QueueErrorKind::Unavailable, what, error))
            }
        }
    }
}

#[async_trait]
impl KillContainer for Local {
    async fn kill(&self, uuid: ContainerUuid, reason: &str) -> Result<(), KillError> {
        tracing::info!(container_uuid = %uuid, reason, "killing a container");
        match self.store.cancel(uuid).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind == QueueErrorKind::NotFound => Err(KillError::NotFound),
            Err(error) => Err(KillError::Failed(error_chain(&error))),
        }
    }
}

#[async_trait]
impl CheckController for Local {
    async fn check(&self) -> Result<(), String> {
        let checked = self.store.check(CHECK_TIMEOUT).await;
        checked.map_err(|error| error_chain(&error))
    }
}

/// What a list is asked for, from a place in the store on.
pub(super) fn filter(
    all: bool,
    batch: Option<u64>,
    before: Option<u64>,
    limit: usize,
) -> JobFilter {
    JobFilter {
        states: if all {
            JobStates::All
        } else {
            JobStates::Unfinished
        },
        batch: batch.map(BatchId),
        before,
        limit,
    }
}

fn unknown(uuid: ContainerUuid) -> QueueError {
    let what = format!("there is no job {uuid}");
    QueueError::new(QueueErrorKind::NotFound, what)
}

fn new_job(job: NewJobView) -> NewJob {
    NewJob {
        priority: job.priority,
        retries: job.retries,
        keep_output: job.keep_output,
        ..NewJob::new(job.name, job.document, job.request)
    }
}
