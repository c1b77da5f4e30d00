//! Batches of jobs: submitting, watching and cancelling them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_runner_api::StartDocument;
use longshore_types::{ByteSize, ContainerUuid, MAX_PRIORITY, ResourceRequest, Timestamp};
use rusqlite::{OptionalExtension, named_params};

use crate::error::sqlite;
use crate::row::{Record, to_json};
use crate::store::change;
use crate::transition::Verdict;
use crate::writer::Tx;
use crate::{Store, SubmitError};

/// The most jobs in one batch.
pub const MAX_BATCH_JOBS: usize = 250_000;
/// The longest name of a job in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// About what a job takes in the store beside its texts, in bytes: indices, numbers, how it ends.
const ROW_BYTES: usize = 1024;

/// The number of a batch; later ones are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A batch to be submitted.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// What it is found by again: the path of its file.
    pub key: String,
    /// A digest of the file's content.
    pub content_hash: String,
    /// Its name, for people.
    pub name: String,
    /// Whether somebody follows it to its end: only then is it found by its key after that.
    pub followed: bool,
    /// The jobs, 1 to [`MAX_BATCH_JOBS`], names unique. Of equal priority the first goes first.
    pub jobs: Vec<NewJob>,
}

/// A job of a batch, which becomes one container.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its name, 1 to 1024 bytes.
    pub name: String,
    /// What it runs.
    pub document: StartDocument,
    /// What it asks of its machine.
    pub request: ResourceRequest,
    /// 1 to [`MAX_PRIORITY`]; higher goes first.
    pub priority: i64,
    /// How often it is run again after its machine was lost. Exit codes are never retried.
    pub retries: u32,
    /// Whether all of its output is kept, instead of the end of it.
    pub keep_output: bool,
    /// Whether it mostly waits for other containers.
    pub supervisor: bool,
}

impl NewJob {
    /// A job with everything else at its default: priority 500, 3 retries.
    pub fn new(name: impl Into<String>, document: StartDocument, request: ResourceRequest) -> Self {
        Self {
            name: name.into(),
            document,
            request,
            priority: 500,
            retries: 3,
            keep_output: false,
            supervisor: false,
        }
    }
}

/// A job as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    uuid: ContainerUuid,
    pub(crate) name: String,
    request: String,
    document: Vec<u8>,
    pub(crate) priority: i64,
    retries: u32,
    keep_output: bool,
    supervisor: bool,
}

impl Prepared {
    /// About how much it takes in the store, in bytes.
    pub(crate) fn stored_bytes(&self) -> usize {
        ROW_BYTES + self.name.len() + self.request.len() + self.document.len()
    }
}

impl Store {
    /// Stores a batch, all of it or nothing.
    ///
    /// One of which an unfinished batch with the same key is there is refused, so repeating a
    /// submission of which nobody knows the outcome runs nothing twice.
    pub async fn submit_batch(&self, batch: NewBatch) -> Result<BatchId, SubmitError> {
        if self.is_closed() {
            return Err(SubmitError::Closed);
        }
        let (cluster, room) = (self.settings.cluster.clone(), self.room());
        let NewBatch {
            key,
            content_hash,
            name,
            followed,
            jobs,
        } = batch;
        let jobs = tokio::task::spawn_blocking(move || prepare(jobs, &cluster))
            .await
            .map_err(|error| {
                let what = "the batch could not be checked";
                // Nothing was handed to the store yet.
                QueueError::caused(QueueErrorKind::Overloaded, what, error)
            })??;
        let stored = self
            .writer
            .write(self.settings.request_timeout, move |tx| {
                if let Some(id) = unfinished(tx, &key)? {
                    return Ok(Err(id));
                }
                room.check(tx, jobs.iter().map(Prepared::stored_bytes).sum())?;
                let batch = Inserted {
                    key: &key,
                    content_hash: &content_hash,
                    name: &name,
                    followed,
                };
                insert(tx, &batch, &jobs).map(Ok)
            })
            .await?;
        stored.map_err(|id| SubmitError::Unfinished { id })
    }

    /// Cancels what is left of a batch: what waits, at once; what is locked or runs, as soon as
    /// the dispatcher has stopped it. Returns how many jobs this concerned.
    pub async fn cancel_batch(&self, id: BatchId) -> Result<usize, QueueError> {
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                cancel_batch(tx, id, false)
            })
            .await
    }

    /// Cancels what is left of a batch, as [`Store::cancel_batch`], and lets [`Store::find_batch`]
    /// find it no more, so that another with the same key can begin.
    pub async fn abandon_batch(&self, id: BatchId) -> Result<usize, QueueError> {
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                cancel_batch(tx, id, true)
            })
            .await
    }

    /// Cancels one container: at once if it waits, else as soon as the dispatcher has stopped it.
    /// Nothing happens to a final one.
    pub async fn cancel(&self, uuid: ContainerUuid) -> Result<(), QueueError> {
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                let now = tx.now;
                change(tx, uuid, |record| Ok(record.life.request_cancel(now)))
            })
            .await
    }

    /// Changes the priority of a container, 0 to [`MAX_PRIORITY`]: 0 holds it back, and stops it
    /// if it runs; raised again before it was stopped, it is queued anew.
    pub async fn set_priority(&self, uuid: ContainerUuid, priority: i64) -> Result<(), QueueError> {
        if !(0..=MAX_PRIORITY).contains(&priority) {
            let what = format!("the priority {priority} is not between 0 and {MAX_PRIORITY}");
            return Err(QueueError::new(QueueErrorKind::Refused, what));
        }
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                change(tx, uuid, |record| record.life.set_priority(priority))
            })
            .await
    }

    /// Waits until anything of a batch has changed after the revision `since`, at most until the
    /// timeout, and returns the revision up to which the caller should then look again; it is
    /// `since` if nothing changed.
    ///
    /// Begin with the revision of a [`crate::BatchStatus`], or with 0. No change is missed.
    pub async fn watch_batch(
        &self,
        id: BatchId,
        since: u64,
        timeout: Duration,
    ) -> Result<u64, QueueError> {
        let mut committed = self.writer.committed();
        let wait = async {
            let mut seen = since;
            loop {
                let latest = *committed.borrow_and_update();
                if latest > seen && self.changed_since(id, seen).await? {
                    return Ok(latest);
                }
                seen = latest.max(seen);
                if committed.changed().await.is_err() {
                    let what = "the store has stopped";
                    return Err(QueueError::new(QueueErrorKind::Unknown, what));
                }
            }
        };
        tokio::time::timeout(timeout, wait)
            .await
            .unwrap_or(Ok(since))
    }

    async fn changed_since(&self, id: BatchId, since: u64) -> Result<bool, QueueError> {
        self.read(Duration::MAX, move |connection| {
            connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM containers WHERE revision > ?1 AND batch = ?2)",
                )
                .and_then(|mut statement| statement.query_row((since, id.0), |row| row.get(0)))
                .map_err(|e| sqlite("a batch could not be read", e))
        })
        .await
    }
}

/// Checks the jobs and gives them UUIDs, which are in their order.
pub(crate) fn prepare(jobs: Vec<NewJob>, cluster: &str) -> Result<Vec<Prepared>, SubmitError> {
    if jobs.is_empty() || jobs.len() > MAX_BATCH_JOBS {
        return Err(SubmitError::JobCount { found: jobs.len() });
    }
    let uuids = ordered_uuids(jobs.len(), cluster)?;
    let mut names = BTreeSet::new();
    for job in &jobs {
        let problem = if job.name.is_empty() || job.name.len() > MAX_NAME_BYTES {
            format!("a name has 1 to {MAX_NAME_BYTES} bytes")
        } else if !names.insert(job.name.as_str()) {
            "another job has the same name".to_owned()
        } else if !(1..=MAX_PRIORITY).contains(&job.priority) {
            format!(
                "the priority {} is not between 1 and {MAX_PRIORITY}",
                job.priority
            )
        } else {
            continue;
        };
        return Err(SubmitError::Job {
            name: job.name.chars().take(100).collect(),
            why: problem,
        });
    }
    jobs.into_iter()
        .zip(uuids)
        .map(|(job, uuid)| prepare_job(job, uuid))
        .collect()
}

fn prepare_job(mut job: NewJob, uuid: ContainerUuid) -> Result<Prepared, SubmitError> {
    limit(&mut job);
    let document = job.document.to_json().map_err(|source| {
        let name = job.name.clone();
        SubmitError::Document { name, source }
    })?;
    Ok(Prepared {
        uuid,
        name: job.name,
        request: to_json(&job.request)?,
        document,
        priority: job.priority,
        retries: job.retries,
        keep_output: job.keep_output,
        supervisor: job.supervisor,
    })
}

/// What a job asks of its machine is what it gets, unless its document says otherwise.
fn limit(job: &mut NewJob) {
    let (document, request) = (&mut job.document, &job.request);
    document.ram = document
        .ram
        .or(Some(request.ram).filter(|ram| *ram > ByteSize::ZERO));
    document.vcpus = document.vcpus.or(Some(request.vcpus).filter(|n| *n > 0));
}

/// New UUIDs in ascending order: containers of one moment and priority go in that order.
fn ordered_uuids(count: usize, cluster: &str) -> Result<BTreeSet<ContainerUuid>, QueueError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        let what = "no identifier could be made";
        QueueError::caused(QueueErrorKind::Overloaded, what, source)
    };
    let mut uuids = BTreeSet::new();
    while uuids.len() < count {
        let mut random = [0; 15];
        getrandom::fill(&mut random).map_err(|e| failed(Box::new(e)))?;
        let uuid = ContainerUuid::generate(cluster, random).map_err(|e| failed(Box::new(e)))?;
        uuids.insert(uuid);
    }
    Ok(uuids)
}

fn unfinished(tx: &Tx<'_>, key: &str) -> Result<Option<BatchId>, QueueError> {
    tx.connection
        .prepare_cached(
            "SELECT id FROM batches WHERE key = ?1 AND open_jobs > 0 AND NOT cancelled \
             ORDER BY id DESC LIMIT 1",
        )
        .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
        .map(|id| id.map(BatchId))
        .map_err(|e| sqlite("a batch could not be read", e))
}

/// What is stored of a batch beside its jobs.
pub(crate) struct Inserted<'a> {
    pub(crate) key: &'a str,
    pub(crate) content_hash: &'a str,
    pub(crate) name: &'a str,
    pub(crate) followed: bool,
}

pub(crate) fn insert(
    tx: &mut Tx<'_>,
    batch: &Inserted<'_>,
    jobs: &[Prepared],
) -> Result<BatchId, QueueError> {
    let failed = |e| sqlite("the batch could not be written", e);
    let now = tx.now;
    tx.connection
        .prepare_cached(
            "INSERT INTO batches (key, content_hash, name, followed, created_at, open_jobs) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut statement| {
            let Inserted {
                key,
                content_hash,
                name,
                followed,
            } = batch;
            statement.execute((key, content_hash, name, followed, now.0, jobs.len()))
        })
        .map_err(failed)?;
    let batch = tx.connection.last_insert_rowid();
    for job in jobs {
        let revision = tx.next_revision();
        insert_job(tx, batch, job, now, revision).map_err(failed)?;
    }
    Ok(BatchId(u64::try_from(batch).unwrap_or_default()))
}

fn insert_job(
    tx: &Tx<'_>,
    batch: i64,
    job: &Prepared,
    now: Timestamp,
    revision: u64,
) -> rusqlite::Result<()> {
    tx.connection
        .prepare_cached(
            "INSERT INTO containers (uuid, batch, name, created_at, request, supervisor, \
             keep_output, state, priority, lock_count, retries_left, cancel_requested, revision) \
             VALUES (:uuid, :batch, :name, :created_at, :request, :supervisor, :keep_output, 0, \
             :priority, 0, :retries, 0, :revision)",
        )?
        .execute(named_params! {
            ":uuid": job.uuid.as_str(),
            ":batch": batch,
            ":name": job.name,
            ":created_at": now.0,
            ":request": job.request,
            ":supervisor": job.supervisor,
            ":keep_output": job.keep_output,
            ":priority": job.priority,
            ":retries": job.retries,
            ":revision": revision,
        })?;
    tx.connection
        .prepare_cached("INSERT INTO documents (container, document) VALUES (?1, ?2)")?
        .execute((tx.connection.last_insert_rowid(), &job.document))?;
    Ok(())
}

fn cancel_batch(tx: &mut Tx<'_>, id: BatchId, abandon: bool) -> Result<usize, QueueError> {
    let failed = |e| sqlite("the batch could not be written", e);
    let found = tx
        .connection
        .prepare_cached(
            "UPDATE batches SET abandoned = abandoned OR ?2, \
             cancelled = cancelled OR open_jobs > 0 WHERE id = ?1",
        )
        .and_then(|mut statement| statement.execute((id.0, abandon)))
        .map_err(failed)?;
    if found == 0 {
        let what = format!("batch {id} does not exist");
        return Err(QueueError::new(QueueErrorKind::NotFound, what));
    }
    let uuids = tx
        .connection
        .prepare_cached("SELECT uuid FROM containers WHERE batch = ?1 AND state < 3")
        .and_then(|mut statement| {
            let uuids = statement.query_map([id.0], |row| row.get::<_, String>(0))?;
            uuids.collect::<Result<Vec<_>, _>>()
        })
        .map_err(failed)?;
    let mut changed = 0;
    for uuid in uuids.iter().filter_map(|uuid| uuid.parse().ok()) {
        let mut record = match Record::load(tx.connection, uuid) {
            // It never runs either; the others can be cancelled all the same.
            Err(error) if error.kind == QueueErrorKind::BadRecord => {
                tracing::error!(container_uuid = %uuid, %error, "cannot be cancelled");
                continue;
            }
            other => other?,
        };
        if record.life.request_cancel(tx.now) == Verdict::Changed {
            tx.save(&mut record)?;
            changed += 1;
        }
    }
    Ok(changed)
}
