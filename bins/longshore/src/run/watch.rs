//! Watching a batch until it is finished.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use longshore_controller::{BatchId, BatchStatus, JobStatus};
use longshore_dispatch::Snapshot;
use longshore_types::{ByteSize, ContainerState, ContainerUuid, Exit, Timestamp};

use super::Interrupts;
use crate::embedded::Embedded;
use crate::state::StateDirectory;
use crate::ui::{JobRow, Progress, SummaryOptions, last_lines, summary};

/// The shortest time between two looks at the jobs, so that looking costs little.
const SHORTEST_LOOK: Duration = Duration::from_millis(200);
/// The longest time between two looks, so that elapsed times move on.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// With less space than this a disk counts as full.
const LEAST_SPACE: ByteSize = ByteSize::mib(1);

/// How watching ended.
#[derive(Debug)]
pub(super) enum Watched {
    /// No job of the batch will change any more.
    Finished { succeeded: bool, summary: String },
    /// The user wants to end it.
    Interrupted,
}

/// A batch that is shown to the user.
#[derive(Debug)]
pub(super) struct Watch<'s> {
    id: BatchId,
    state: &'s StateDirectory,
    begun: Instant,
    announced: bool,
    told_that_full: bool,
}

impl<'s> Watch<'s> {
    /// From now on.
    pub(super) fn new(id: BatchId, state: &'s StateDirectory) -> Self {
        Self {
            id,
            state,
            told_that_full: false,
            begun: Instant::now(),
            announced: false,
        }
    }

    /// Shows how the batch goes on until it is finished, or until the user interrupts; after that
    /// it can be followed again.
    pub(super) async fn follow(
        &mut self,
        embedded: &Embedded,
        progress: &mut dyn Progress,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<Watched> {
        let store = embedded.store();
        loop {
            let looked = Instant::now();
            let status = store.batch_status(self.id).await?;
            let jobs = store.job_status(self.id).await?;
            let rows = rows(&jobs, &embedded.dispatcher().snapshot());
            if !std::mem::replace(&mut self.announced, true) {
                progress.begin(&status.name, rows.len(), now());
            }
            progress.update(&rows, now());
            self.tell_of_a_full_disk(progress);
            if status.is_finished() {
                return Ok(Watched::Finished {
                    succeeded: status.is_success(),
                    summary: summarize(&status, &rows, self.begun.elapsed()),
                });
            }
            // A look at very many jobs takes long; looking takes a tenth of the time at most.
            let pause = SHORTEST_LOOK.max(looked.elapsed() * 9);
            let next = async {
                let quiet = LONGEST_LOOK.saturating_sub(SHORTEST_LOOK);
                tokio::time::sleep(pause).await;
                store.watch_batch(self.id, status.revision, quiet).await
            };
            tokio::select! {
                changed = next => {
                    changed?;
                }
                () = interrupts.next() => return Ok(Watched::Interrupted),
            }
        }
    }
}

impl Watch<'_> {
    /// Says once each time that the disk gets full: until there is space again nothing can end.
    fn tell_of_a_full_disk(&mut self, progress: &mut dyn Progress) {
        let full = self.state.space().is_ok_and(|left| left < LEAST_SPACE);
        if full && !self.told_that_full {
            let path = self.state.path().display();
            progress.note(&format!(
                "the disk of {path} is full: what ends cannot be recorded; make space there"
            ));
        }
        self.told_that_full = full;
    }
}

fn summarize(status: &BatchStatus, rows: &[JobRow], watched: Duration) -> String {
    let finished = status.finished_at.unwrap_or_else(now);
    let options = SummaryOptions {
        batch: &status.name,
        // Of a batch that was resumed only this run's share is known to have been spent on it.
        elapsed: finished.since(status.created_at).min(watched),
        last_lines: &last_lines,
    };
    summary(rows, &options)
}

/// The jobs as the user sees them: what the controller has, and why the dispatcher waits.
fn rows(jobs: &[JobStatus], snapshot: &Snapshot) -> Vec<JobRow> {
    let waiting = snapshot.waiting.iter();
    let reasons: BTreeMap<ContainerUuid, String> = waiting
        .map(|entry| {
            let reason = entry.reason.to_string();
            let text = match entry.position {
                Some(position) => format!("{position} in line: {reason}"),
                None => reason,
            };
            (entry.uuid, text)
        })
        .collect();
    jobs.iter()
        .map(|job| JobRow {
            name: job.name.clone(),
            state: job.state,
            reason: reason(job, &reasons),
            attempts: job.attempts,
            cancel_requested: job.cancel_requested,
            exit: job.exit.clone(),
            error: job.error.clone(),
            started_at: job.started_at,
            finished_at: job.finished_at,
            stdout: kept(job, |exit| exit.stdout_bytes > 0 && !exit.stdout_lost)
                .then(|| job.stdout.clone()),
            stderr: kept(job, |exit| exit.stderr_bytes > 0 && !exit.stderr_lost)
                .then(|| job.stderr.clone()),
        })
        .collect()
}

fn reason(job: &JobStatus, reasons: &BTreeMap<ContainerUuid, String>) -> Option<String> {
    let waits = matches!(job.state, ContainerState::Queued | ContainerState::Locked);
    if waits {
        reasons.get(&job.uuid).cloned()
    } else {
        None
    }
}

/// Whether a stream of a job has anything that was kept, as its exit says.
fn kept(job: &JobStatus, is_kept: impl Fn(&Exit) -> bool) -> bool {
    job.state.is_final() && job.exit.as_ref().is_some_and(is_kept)
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
