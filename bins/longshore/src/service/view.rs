//! Jobs and batches as JSON: what `--json` prints and what goes through the socket.
//!
//! Stable: fields may be added, and none changes its meaning or goes. docs/service.md describes
//! them.

use longshore_controller::{BatchStatus, JobCounts, JobStatus};
use longshore_runner_api::StartDocument;
use longshore_types::{ContainerState, ContainerUuid, Exit, ResourceRequest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ui::{JobRow, Verdict};

/// A batch and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BatchView {
    /// Its number.
    pub id: u64,
    /// What it is found by again: the path of its file.
    pub key: String,
    /// A digest of that file's content.
    pub content_hash: String,
    /// Its name.
    pub name: String,
    /// When it was submitted.
    #[serde(with = "time")]
    pub created_at: Timestamp,
    /// When the last of its jobs ended.
    #[serde(with = "optional_time")]
    pub finished_at: Option<Timestamp>,
    /// Whether it was cancelled before it was finished.
    pub cancelled: bool,
    /// How many of its jobs are in which state.
    pub counts: CountsView,
    /// Grows with every change.
    pub revision: u64,
}

/// How many jobs are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct CountsView {
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

impl BatchView {
    /// Whether none of its jobs will change any more.
    pub fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }

    /// Whether it is finished and every job exited with code 0.
    pub fn is_success(&self) -> bool {
        self.is_finished() && self.counts.failed + self.counts.cancelled == 0
    }
}

impl From<BatchStatus> for BatchView {
    fn from(status: BatchStatus) -> Self {
        Self {
            id: status.id.0,
            key: status.key,
            content_hash: status.content_hash,
            name: status.name,
            created_at: status.created_at,
            finished_at: status.finished_at,
            cancelled: status.cancelled,
            counts: status.counts.into(),
            revision: status.revision,
        }
    }
}

impl From<JobCounts> for CountsView {
    fn from(counts: JobCounts) -> Self {
        Self {
            queued: counts.queued,
            locked: counts.locked,
            running: counts.running,
            succeeded: counts.succeeded,
            failed: counts.failed,
            cancelled: counts.cancelled,
        }
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobView {
    /// The container that it is.
    pub uuid: ContainerUuid,
    /// Its name.
    pub name: String,
    /// The number of its batch.
    pub batch: u64,
    /// `Queued`, `Locked`, `Running`, `Complete` or `Cancelled`.
    pub state: ContainerState,
    /// `waiting`, `running`, `ok`, `failed` or `cancelled`.
    pub verdict: String,
    /// Its priority; 0 holds it back.
    pub priority: i64,
    /// How often it was begun.
    pub attempts: u32,
    /// How often it will be run again if its machine is lost.
    pub retries_left: u32,
    /// Whether somebody asked for its end.
    pub cancel_requested: bool,
    /// Its exit code, 128 and the number for a signal; null if it did not end by itself.
    pub exit_code: Option<i32>,
    /// How its latest attempt ended.
    pub exit: Option<Exit>,
    /// What went wrong outside of its process.
    pub error: Option<String>,
    /// Why it waits.
    pub reason: Option<String>,
    /// When it was submitted.
    #[serde(with = "time")]
    pub created_at: Timestamp,
    /// When its latest attempt was started.
    #[serde(with = "optional_time")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "optional_time")]
    pub finished_at: Option<Timestamp>,
    /// The instance that it is on, or was.
    pub instance: Option<String>,
    /// The file that its standard output is kept in once it ended.
    pub stdout: String,
    /// The file that its standard error is kept in once it ended.
    pub stderr: String,
}

impl JobView {
    /// A job, and why it waits as far as that is known.
    pub fn new(job: JobStatus, reason: Option<String>) -> Self {
        let waits = matches!(job.state, ContainerState::Queued | ContainerState::Locked);
        let exit_code = job
            .exit_code()
            .filter(|_| job.state == ContainerState::Complete);
        let mut view = Self {
            uuid: job.uuid,
            name: job.name,
            batch: job.batch.0,
            state: job.state,
            verdict: String::new(),
            priority: job.priority,
            attempts: job.attempts,
            retries_left: job.retries_left,
            cancel_requested: job.cancel_requested,
            exit_code,
            exit: job.exit,
            error: job.error,
            reason: reason.filter(|_| waits),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            instance: job.placed_on.map(|id| id.to_string()),
            stdout: job.stdout.display().to_string(),
            stderr: job.stderr.display().to_string(),
        };
        view.verdict = match view.row().verdict() {
            Verdict::Failed => "failed",
            Verdict::Cancelled => "cancelled",
            Verdict::Running => "running",
            Verdict::Waiting => "waiting",
            Verdict::Succeeded => "ok",
        }
        .to_owned();
        view
    }

    /// As the user sees it.
    pub fn row(&self) -> JobRow {
        // Only what ended and wrote something has a file.
        let kept = |path: &String, is_kept: fn(&Exit) -> bool| {
            let ended = self.state.is_final() && self.exit.as_ref().is_some_and(is_kept);
            ended.then(|| path.into())
        };
        JobRow {
            name: self.name.clone(),
            state: self.state,
            reason: self.reason.clone(),
            attempts: self.attempts,
            cancel_requested: self.cancel_requested,
            exit: self.exit.clone(),
            error: self.error.clone(),
            started_at: self.started_at,
            finished_at: self.finished_at,
            stdout: kept(&self.stdout, |e| e.stdout_bytes > 0 && !e.stdout_lost),
            stderr: kept(&self.stderr, |e| e.stderr_bytes > 0 && !e.stderr_lost),
        }
    }
}

/// A part of a list of jobs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ListView<T> {
    /// The jobs.
    pub items: Vec<T>,
    /// From where on the list goes on; none if this was the end of it.
    pub next: Option<u64>,
}

/// Jobs to be submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct NewBatchView {
    /// What it is found by again.
    pub key: String,
    /// A digest of its content.
    pub content_hash: String,
    /// Its name, for people.
    pub name: String,
    /// Whether somebody follows it to its end: only then is it found after that.
    pub followed: bool,
    /// The jobs.
    pub jobs: Vec<NewJobView>,
}

/// A job to be submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct NewJobView {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub document: StartDocument,
    /// What it needs of its machine.
    pub request: ResourceRequest,
    /// 1 to 1000.
    pub priority: i64,
    /// How often it is run again after its machine was lost.
    pub retries: u32,
    /// Whether all of its output is kept.
    pub keep_output: bool,
}

/// A part of an output stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputView {
    /// Which attempt wrote it; 0 if none was begun.
    pub attempt: u32,
    /// Where it begins, in bytes from the beginning of what the attempt wrote.
    pub from: u64,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Whether nothing will follow.
    pub complete: bool,
}

mod time {
    use longshore_types::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

mod optional_time {
    use longshore_types::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde wants it so")]
    pub(super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => to.collect_str(at),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let parse = |text: String| text.parse().map_err(serde::de::Error::custom);
        text.map(parse).transpose()
    }
}
