//! How many jobs a second.

use super::Amount;
use super::figures::{Rate, Report, ratio};
use super::floors::Floors;
use super::session::{Session, job};

/// Jobs of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    vcpus: u32,
    rate: Rate,
    commits: u64,
    jobs: u32,
}

/// Runs `true` over and over: one for each processor at a time, and as many at a time as the
/// dispatcher likes.
pub(super) async fn measure(
    session: &mut Session,
    floors: &Floors,
    amount: Amount,
    report: &Report,
) -> anyhow::Result<()> {
    let mut floors = floors.clone();
    let kind = |vcpus| Kind {
        vcpus,
        ..Kind::default()
    };
    let (mut per_processor, mut unlimited) = (kind(1), kind(0));
    for _ in 0..amount.batches {
        floors.rates(amount.jobs).await?;
        per_processor.run(session, amount.jobs).await?;
        unlimited.run(session, amount.jobs).await?;
    }
    report.note("processes a second from this process, one and two at a time");
    report.figure("floor_fork_exec_rate", floors.fork_rate.per_second(), "/s");
    let floor = floors.fork_rate_two.per_second();
    report.figure("floor_fork_exec_rate_two", floor, "/s");
    report.note("jobs that run `true`, each with a vCPU of its own or with none");
    per_processor.tell(report, "jobs_one_per_vcpu", floor);
    unlimited.tell(report, "jobs_unlimited", floor);
    Ok(())
}

impl Kind {
    async fn run(&mut self, session: &mut Session, count: u32) -> anyhow::Result<()> {
        session.idle().await?;
        let jobs = (0..count).map(|n| job(format!("true-{n}"), &["true"], self.vcpus));
        let commits = session.commits();
        let batch = session.submit(jobs.collect()).await?;
        let status = session.finish(batch).await?;
        // By the controller's clock: looking at it is less exact.
        let finished = status.finished_at.unwrap_or(status.created_at);
        self.rate.add(count, finished.since(status.created_at));
        self.commits += session.commits() - commits;
        self.jobs += count;
        Ok(())
    }

    fn tell(&self, report: &Report, name: &str, floor: f64) {
        let rate = self.rate.per_second();
        report.target(&format!("{name}_rate"), rate, "/s", ">= 500");
        let of_floor = ratio(rate, floor);
        let target = ">= 0.6";
        report.target(&format!("{name}_rate/fork"), of_floor, "ratio", target);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let commits = ratio(self.commits as f64, f64::from(self.jobs));
        report.figure(&format!("{name}_commits"), commits, "count/job");
    }
}
