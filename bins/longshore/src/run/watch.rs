//! Watching a batch until it is finished.

use std::time::{Duration, Instant, SystemTime};

use longshore_types::{ByteSize, Timestamp};

use super::Interrupts;
use crate::service::Jobs;
use crate::service::view::{BatchView, JobView};
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
pub(crate) enum Watched {
    /// No job of the batch will change any more.
    Finished { succeeded: bool, summary: String },
    /// The user wants to end it.
    Interrupted,
}

/// A batch that is shown to the user.
#[derive(Debug)]
pub(crate) struct Watch<'s> {
    id: u64,
    /// The directory, if this process holds it.
    state: Option<&'s StateDirectory>,
    begun: Instant,
    announced: bool,
    told_that_full: bool,
}

impl<'s> Watch<'s> {
    /// From now on.
    pub(crate) fn new(id: u64, state: Option<&'s StateDirectory>) -> Self {
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
    pub(crate) async fn follow(
        &mut self,
        store: &Jobs,
        progress: &mut dyn Progress,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<Watched> {
        loop {
            let looked = Instant::now();
            let status = store.batch(self.id).await?;
            let jobs = store.jobs_of(self.id).await?;
            let rows: Vec<JobRow> = jobs.iter().map(JobView::row).collect();
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
        let Some(state) = self.state else { return };
        let full = state.space().is_ok_and(|left| left < LEAST_SPACE);
        if full && !self.told_that_full {
            let path = state.path().display();
            progress.note(&format!(
                "the disk of {path} is full: what ends cannot be recorded; make space there"
            ));
        }
        self.told_that_full = full;
    }
}

fn summarize(status: &BatchView, rows: &[JobRow], watched: Duration) -> String {
    let finished = status.finished_at.unwrap_or_else(now);
    let options = SummaryOptions {
        batch: &status.name,
        // Of a batch that was resumed only this run's share is known to have been spent on it.
        elapsed: finished.since(status.created_at).min(watched),
        last_lines: &last_lines,
    };
    summary(rows, &options)
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
