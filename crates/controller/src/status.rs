//! What became of batches and their jobs.

use std::path::PathBuf;

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::{ContainerState, ContainerUuid, Exit, InstanceId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::sqlite;
use crate::row::read_life;
use crate::transition::exit_code;
use crate::{BatchId, Store};

/// The shortest end of a UUID that means a job, in bytes.
pub const SHORTEST_END: usize = 4;

/// A batch and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStatus {
    /// Its number.
    pub id: BatchId,
    /// The path of its file.
    pub key: String,
    /// The digest of that file's content.
    pub content_hash: String,
    /// Its name.
    pub name: String,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When the last of its jobs ended.
    pub finished_at: Option<Timestamp>,
    /// Whether it was cancelled before it was finished.
    pub cancelled: bool,
    /// How many of its jobs are in which state, those included that were removed since.
    pub counts: JobCounts,
    /// This is how it was at this revision, or later; see [`Store::watch_batch`].
    pub revision: u64,
}

impl BatchStatus {
    /// Whether none of its jobs will change any more.
    pub fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }

    /// Whether it is finished and every job exited with code 0.
    pub fn is_success(&self) -> bool {
        let bad = self.counts.failed + self.counts.cancelled;
        self.is_finished() && bad == 0
    }
}

/// How many jobs are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobCounts {
    /// Waiting.
    pub queued: u64,
    /// Taken, not started.
    pub locked: u64,
    /// Running.
    pub running: u64,
    /// Ended with exit code 0.
    pub succeeded: u64,
    /// Ended with another exit code, or by a signal.
    pub failed: u64,
    /// Stopped, or could not be run.
    pub cancelled: u64,
}

/// A job and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStatus {
    /// Its place in the store; of two jobs the one that was submitted later has the larger one.
    pub place: u64,
    /// The container that it became.
    pub uuid: ContainerUuid,
    /// The batch that it belongs to.
    pub batch: BatchId,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Its priority.
    pub priority: i64,
    /// Whether somebody asked for it to be cancelled.
    pub cancel_requested: bool,
    /// How its latest attempt ended.
    pub exit: Option<Exit>,
    /// Why it was cancelled, or why the last attempt has to be repeated.
    pub error: Option<String>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its process was started, on the clock of its machine.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How often it was locked.
    pub attempts: u32,
    /// How often it will be run again if its machine is lost.
    pub retries_left: u32,
    /// Where its latest attempt is, or was.
    pub placed_on: Option<InstanceId>,
    /// Where its standard output is kept once it ended.
    pub stdout: PathBuf,
    /// Where its standard error is kept once it ended.
    pub stderr: PathBuf,
    /// The version of this record; larger is newer.
    pub revision: u64,
}

impl JobStatus {
    /// The exit code as a shell gives it: 128 and the number for signals; none if it has not
    /// ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        self.exit.as_ref().and_then(exit_code)
    }

    /// Whether it ended with exit code 0.
    pub fn is_success(&self) -> bool {
        self.state == ContainerState::Complete && self.exit_code() == Some(0)
    }
}

impl Store {
    /// The latest batch with a key that is unfinished, or that somebody follows; abandoned ones
    /// excepted.
    pub async fn find_batch(&self, key: &str) -> Result<Option<BatchStatus>, QueueError> {
        let key = key.to_owned();
        self.read(self.settings.request_timeout, move |connection| {
            let id: Option<u64> = connection
                .prepare_cached(
                    "SELECT id FROM batches WHERE key = ?1 AND NOT abandoned \
                     AND (followed OR (open_jobs > 0 AND NOT cancelled)) \
                     ORDER BY id DESC LIMIT 1",
                )
                .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
                .map_err(failed)?;
            id.map(|id| batch_status(connection, BatchId(id)))
                .transpose()
        })
        .await
    }

    /// The batches of which jobs are unfinished, the first hundred, oldest first; cancelled and
    /// abandoned ones excepted.
    pub async fn unfinished_batches(&self) -> Result<Vec<BatchStatus>, QueueError> {
        self.read(self.settings.request_timeout, move |connection| {
            let ids = || -> rusqlite::Result<Vec<u64>> {
                let mut statement = connection.prepare_cached(
                    "SELECT id FROM batches WHERE open_jobs > 0 AND NOT cancelled \
                     AND NOT abandoned ORDER BY id LIMIT 100",
                )?;
                statement.query_map([], |row| row.get(0))?.collect()
            };
            let ids = ids().map_err(failed)?.into_iter();
            ids.map(|id| batch_status(connection, BatchId(id)))
                .collect()
        })
        .await
    }

    /// How far a batch has come.
    pub async fn batch_status(&self, id: BatchId) -> Result<BatchStatus, QueueError> {
        self.read(self.settings.request_timeout, move |connection| {
            batch_status(connection, id)
        })
        .await
    }

    /// The jobs of a batch, in the order in which they were submitted; none if there is no such
    /// batch. A damaged record is logged and left out.
    pub async fn job_status(&self, id: BatchId) -> Result<Vec<JobStatus>, QueueError> {
        let part = self.job_status_after(id, 0, crate::MAX_BATCH_JOBS).await?;
        Ok(part.jobs)
    }

    /// A part of them: the first `limit` of those after a place in the store, 0 for the first ones.
    pub async fn job_status_after(
        &self,
        id: BatchId,
        place: u64,
        limit: usize,
    ) -> Result<JobPart, QueueError> {
        let page = Page {
            condition: "batch = ?1 AND id > ?3",
            order: "id",
            value: number(id.0),
            from: place,
            limit,
        };
        self.jobs(page).await
    }

    /// One job; none if there is no such container.
    pub async fn job(&self, uuid: ContainerUuid) -> Result<Option<JobStatus>, QueueError> {
        let id = self
            .read(self.settings.request_timeout, move |connection| {
                connection
                    .prepare_cached("SELECT id FROM containers WHERE uuid = ?1")
                    .and_then(|mut statement| {
                        statement
                            .query_row([uuid.as_str()], |row| row.get::<_, u64>(0))
                            .optional()
                    })
                    .map_err(failed)
            })
            .await?;
        let Some(id) = id else { return Ok(None) };
        let page = Page {
            condition: "id = ?1 AND id >= ?3",
            order: "id",
            value: number(id),
            from: 0,
            limit: 1,
        };
        Ok(self.jobs(page).await?.jobs.pop())
    }

    /// The newest jobs that `wanted` describes, newest first.
    pub async fn list_jobs(&self, wanted: &JobFilter) -> Result<JobPart, QueueError> {
        let condition = match (wanted.states, wanted.batch.is_some()) {
            (JobStates::All, true) => "batch = ?1 AND id < ?3",
            (JobStates::All, false) => "id > ?1 AND id < ?3",
            (JobStates::Unfinished, true) => "state < 3 AND batch = ?1 AND id < ?3",
            (JobStates::Unfinished, false) => "state < 3 AND id > ?1 AND id < ?3",
        };
        let page = Page {
            condition,
            order: "id DESC",
            value: number(wanted.batch.map_or(0, |batch| batch.0)),
            from: wanted.before.unwrap_or(u64::MAX),
            limit: wanted.limit,
        };
        self.jobs(page).await
    }

    /// The newest jobs that a user may mean by a text: those of this name first, then those whose
    /// UUID ends with it, if it has [`SHORTEST_END`] bytes at least.
    pub async fn find_jobs(&self, text: &str, limit: usize) -> Result<Vec<JobStatus>, QueueError> {
        let condition = match text.len() {
            0..SHORTEST_END => "name = ?1 AND id > ?3",
            _ => "(name = ?1 OR substr(uuid, -length(?1)) = ?1) AND id > ?3",
        };
        let page = Page {
            condition,
            order: "name = ?1 DESC, id DESC",
            value: Value::Text(text.to_owned()),
            from: 0,
            limit,
        };
        Ok(self.jobs(page).await?.jobs)
    }

    async fn jobs(&self, page: Page) -> Result<JobPart, QueueError> {
        let read = move |connection: &Connection| read_page(connection, page).map_err(failed);
        let (found, next) = self.read(self.settings.request_timeout, read).await?;
        let mut jobs: Vec<JobStatus> = found.into_iter().filter_map(readable).collect();
        for job in &mut jobs {
            job.stdout = self.output_path(job.uuid, "stdout");
            job.stderr = self.output_path(job.uuid, "stderr");
        }
        Ok(JobPart { jobs, next })
    }
}

/// A part of a list of jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobPart {
    /// The jobs.
    pub jobs: Vec<JobStatus>,
    /// From which place on the list goes on; none if this was the end of it.
    pub next: Option<u64>,
}

/// Which jobs [`Store::list_jobs`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a question, all of it")]
pub struct JobFilter {
    /// In which states.
    pub states: JobStates,
    /// Only those of this batch.
    pub batch: Option<BatchId>,
    /// Only those that are older than the one at this place.
    pub before: Option<u64>,
    /// At most so many are looked at.
    pub limit: usize,
}

/// States that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "finished or not, or both")]
pub enum JobStates {
    /// All of them.
    All,
    /// Those that are not final.
    Unfinished,
}

/// One question about several jobs.
#[derive(Clone, Debug)]
struct Page {
    condition: &'static str,
    order: &'static str,
    /// What `?1` stands for in the condition.
    value: Value,
    /// What `?3` stands for in it.
    from: u64,
    limit: usize,
}

fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

type Found = (Vec<Result<JobStatus, QueueError>>, Option<u64>);

/// The jobs of a page, readable or not, and where the next one begins.
fn read_page(connection: &Connection, page: Page) -> rusqlite::Result<Found> {
    let Page {
        condition,
        order,
        value,
        from,
        limit,
    } = page;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM containers WHERE {condition} ORDER BY {order} LIMIT ?2"
    ))?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((value, most, number(from)))?;
    let (mut jobs, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        last = Some(row.get("id")?);
        jobs.push(read_job(row));
    }
    let is_full = jobs.len() == limit;
    Ok((jobs, last.filter(|_| is_full)))
}

fn batch_status(connection: &Connection, id: BatchId) -> Result<BatchStatus, QueueError> {
    // One statement sees one state of the store.
    let read = || -> rusqlite::Result<_> {
        connection
            .prepare_cached(
                "SELECT key, content_hash, b.name, b.created_at, b.finished_at, cancelled, \
                 count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), \
                 count(*) FILTER (WHERE state = 2), \
                 removed_succeeded + count(*) FILTER (WHERE state = 3 AND exit_code = 0), \
                 removed_failed + count(*) FILTER (WHERE state = 3 AND exit_code <> 0), \
                 removed_cancelled + count(*) FILTER (WHERE state = 4), \
                 (SELECT coalesce(max(revision), 0) FROM containers) \
                 FROM batches b JOIN containers c ON c.batch = b.id WHERE b.id = ?1 GROUP BY b.id",
            )?
            .query_row([id.0], |row| read_batch(id, row))
            .optional()
    };
    read().map_err(failed)?.ok_or_else(|| {
        let what = format!("batch {id} does not exist");
        QueueError::new(QueueErrorKind::NotFound, what)
    })
}

fn read_batch(id: BatchId, row: &Row<'_>) -> rusqlite::Result<BatchStatus> {
    Ok(BatchStatus {
        id,
        key: row.get(0)?,
        content_hash: row.get(1)?,
        name: row.get(2)?,
        created_at: Timestamp(row.get(3)?),
        finished_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        cancelled: row.get(5)?,
        counts: JobCounts {
            queued: row.get(6)?,
            locked: row.get(7)?,
            running: row.get(8)?,
            succeeded: row.get(9)?,
            failed: row.get(10)?,
            cancelled: row.get(11)?,
        },
        revision: row.get(12)?,
    })
}

/// The columns that [`read_job`] reads.
pub(crate) const COLUMNS: &str = "id, uuid, batch, name, created_at, state, priority, lock_count, \
    given_back, placed_on, retries_left, cancel_requested, exit, error, started_at, finished_at, revision";

pub(crate) fn read_job(row: &Row<'_>) -> Result<JobStatus, QueueError> {
    let columns = || {
        Ok((
            row.get("id")?,
            row.get::<_, String>("uuid")?,
            row.get("batch")?,
            row.get("name")?,
            row.get("created_at")?,
            row.get("revision")?,
        ))
    };
    let (place, uuid, batch, name, created_at, revision) = columns().map_err(failed)?;
    let life = read_life(row)?;
    let unreadable = |e| {
        let what = "the UUID of a container cannot be read";
        QueueError::caused(QueueErrorKind::BadRecord, what, e)
    };
    Ok(JobStatus {
        place,
        uuid: uuid.parse().map_err(unreadable)?,
        batch: BatchId(batch),
        name,
        state: life.state,
        priority: life.priority,
        cancel_requested: life.cancel_requested,
        exit: life.exit,
        error: life.error,
        created_at: Timestamp(created_at),
        started_at: life.started_at,
        finished_at: life.finished_at,
        attempts: life.lock_count,
        retries_left: life.retries_left,
        placed_on: life.placed_on,
        stdout: PathBuf::new(),
        stderr: PathBuf::new(),
        revision,
    })
}

fn readable(job: Result<JobStatus, QueueError>) -> Option<JobStatus> {
    job.inspect_err(|error| tracing::error!(%error, "a job cannot be read"))
        .ok()
}

fn failed(source: rusqlite::Error) -> QueueError {
    sqlite("a batch could not be read", source)
}
