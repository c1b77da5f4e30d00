//! How long it takes until a job starts, and until its place is used again.

use std::time::Instant;

use super::Amount;
use super::fifo::{BEGUN, ENDED};
use super::figures::{Report, Samples, ratio};
use super::floors::Floors;
use super::session::{Session, telling_job, whole_machine};

/// Short, but long enough for the dispatcher to be done with the job's start when it ends.
const REUSE_SCRIPT: &str = "echo s > \"$FIFO\"; sleep 0.02; echo e > \"$FIFO\"";

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    submit_to_start: Samples,
    exit_to_reuse: Samples,
    /// The controller's transactions for all of the single jobs.
    commits: u64,
    singles: u32,
}

/// Measures in rounds, floors and jobs in turn.
pub(super) async fn measure(
    session: &mut Session,
    floors: &mut Floors,
    amount: Amount,
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    // The first command over a connection of its own has to connect.
    Floors::default().sample(session, 1).await?;
    for _ in 0..amount.rounds {
        floors.sample(session, amount.per_round()).await?;
        latencies.starts(session, amount.per_round()).await?;
        latencies.reuses(session, amount.per_round()).await?;
    }
    Ok(latencies)
}

impl Latencies {
    /// One job at a time on the idle instance.
    async fn starts(&mut self, session: &mut Session, count: u32) -> anyhow::Result<()> {
        let commits = session.commits();
        for _ in 0..count {
            let job = telling_job("start", "echo s > \"$FIFO\"", 1, &session.fifo)?;
            session.idle().await?;
            let submitted = Instant::now();
            let batch = session.submit(vec![job]).await?;
            let begun = session.fifo.next(BEGUN).await?;
            self.submit_to_start.push(begun.duration_since(submitted));
            session.finish(batch).await?;
        }
        self.commits += session.commits() - commits;
        self.singles += count;
        session.idle().await
    }

    /// A queue of jobs that each need the whole machine.
    async fn reuses(&mut self, session: &mut Session, count: u32) -> anyhow::Result<()> {
        let vcpus = whole_machine()?;
        let jobs = (0..=count)
            .map(|n| telling_job(format!("turn-{n}"), REUSE_SCRIPT, vcpus, &session.fifo))
            .collect::<Result<_, _>>()?;
        let batch = session.submit(jobs).await?;
        session.fifo.next(BEGUN).await?;
        for _ in 0..count {
            let ended = session.fifo.next(ENDED).await?;
            let begun = session.fifo.next(BEGUN).await?;
            self.exit_to_reuse.push(begun.duration_since(ended));
        }
        session.fifo.next(ENDED).await?;
        session.finish(batch).await?;
        session.idle().await
    }

    pub(super) fn tell(&self, report: &Report, floors: &Floors) {
        let (starts, reuses) = (&self.submit_to_start, &self.exit_to_reuse);
        let floor = floors.fsync.p50_ms() + floors.fork.p50_ms();
        let ssh = floors.ssh.p50_ms();
        report.note("from the call that submits until the shell of the job has written");
        report.target("submit_to_start_p50", starts.p50_ms(), "ms", "<= 3");
        report.target("submit_to_start_p99", starts.p99_ms(), "ms", "<= 15");
        let over = ratio(starts.p50_ms(), floor);
        report.target("submit_to_start_p50/(fsync+fork)", over, "ratio", "<= 2");
        let over = ratio(starts.p50_ms(), ssh);
        report.figure("submit_to_start_p50/ssh_command", over, "ratio");
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let commits = ratio(self.commits as f64, f64::from(self.singles));
        report.figure("commits_per_single_job", commits, "count");
        report.note("from the last act of a job to the first of the next, which contains the");
        report.note("end of one shell and the start of another");
        report.target("exit_to_reuse_p50", reuses.p50_ms(), "ms", "<= 2");
        report.figure("exit_to_reuse_p99", reuses.p99_ms(), "ms");
        let over = ratio(reuses.p50_ms(), floor);
        report.figure("exit_to_reuse_p50/(fsync+fork)", over, "ratio");
        let over = ratio(reuses.p50_ms(), ssh);
        report.figure("exit_to_reuse_p50/ssh_command", over, "ratio");
    }
}
