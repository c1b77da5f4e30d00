//! What can be measured. `longshore bench dispatch`: how fast jobs are started and their places reused on this machine.
//!
//! Everything is as in `longshore run`: the embedded controller with its syncs, the loopback
//! driver, real SSH, real processes. What the machine itself takes for a sync, a process and an
//! SSH command is measured in turn with it, because only the ratio says much on a shared machine.

mod fifo;
mod figures;
mod floors;
mod latency;
mod plan;
mod session;
mod stub;
mod throughput;
mod usage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::cli::BenchDispatchArgs;
use crate::embedded;
use crate::ending::Ending;
use crate::provider::Provider;
use crate::run::{Interrupts, runtime};
use crate::state::StateDirectory;
use crate::{logging, runner};
use figures::Report;
use floors::Floors;
pub use plan::plan;
use session::Session;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Amount {
    jobs: u32,
    samples: u32,
    /// The samples are taken in this many rounds, each of all kinds in turn.
    rounds: u32,
    /// How often the figures of jobs per second are taken.
    batches: u32,
    idle: Duration,
}

impl Amount {
    fn of(args: &BenchDispatchArgs) -> Self {
        let (jobs, samples) = if args.short { (20, 5) } else { (1000, 100) };
        let samples = args.samples.unwrap_or(samples);
        Self {
            jobs: args.jobs.unwrap_or(jobs),
            samples,
            rounds: samples.min(if args.short { 1 } else { 10 }),
            batches: if args.short { 1 } else { 2 },
            idle: if args.short {
                Duration::from_millis(500)
            } else {
                Duration::from_secs(5)
            },
        }
    }

    /// How many samples are taken in one round: all together at least what was asked for.
    fn per_round(&self) -> u32 {
        self.samples.div_ceil(self.rounds)
    }
}

/// The far side of [`dispatch`] with pretended instances.
pub fn stub_instances() -> anyhow::Result<Ending> {
    stub::instances()
}

/// Measures in a fresh directory beside the state directory `beside`, which is not touched, and
/// removes it again.
pub fn dispatch(
    args: &BenchDispatchArgs,
    beside: &Path,
    log: Option<&str>,
) -> anyhow::Result<Ending> {
    if args.stub {
        return stub::dispatch(args);
    }
    let folder = fresh_folder(beside)?;
    logging::start(folder.path(), log)?;
    let state = StateDirectory::open(folder.path())?;
    let ending = runtime()?.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let mut session = Session::start(&state, !args.by_command).await?;
        let ending = tokio::select! {
            measured = measure(&mut session, Amount::of(args)) => {
                measured.map(|()| Ending::Succeeded)
            }
            () = interrupts.next() => Ok(Ending::Interrupted),
        };
        session.stop().await;
        // However it ended: nothing that was started stays.
        embedded::destroy_all(Provider::loopback(&state).await?).await?;
        ending
    })?;
    drop(state);
    let path = folder.path().to_owned();
    folder
        .close()
        .with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(ending)
}

/// A directory for this process alone, on the file system on which `beside` is or would be made.
fn fresh_folder(beside: &Path) -> anyhow::Result<TempDir> {
    let parent = nearest(beside);
    tempfile::Builder::new()
        .prefix(".longshore-bench-")
        .tempdir_in(&parent)
        .with_context(|| {
            let parent = parent.display();
            format!("cannot make a directory in {parent} (name another place with --state-dir)")
        })
}

/// The nearest directory above a path that is there.
fn nearest(path: &Path) -> PathBuf {
    let above = path.ancestors().skip(1).find(|above| above.is_dir());
    above.unwrap_or(Path::new("/")).to_owned()
}

async fn measure(session: &mut Session, amount: Amount) -> anyhow::Result<()> {
    let report = Report::default();
    introduce(&report);
    session.warm_up().await?;
    report.figure("rss_idle", usage::resident_kib()? / 1024.0, "MiB");
    let idle = usage::idle_cpu_percent(amount.idle).await?;
    report.note("the instance's SSH server is part of the process");
    report.target("cpu_idle", idle, "%", "<= 0.3 for 1000 workers");

    let mut floors = Floors::default();
    let latencies = latency::measure(session, &mut floors, amount).await?;
    floors.tell(&report);
    latencies.tell(&report, &floors);
    throughput::measure(session, &floors, amount, &report).await?;

    report.figure("rss_peak", usage::peak_resident_kib()? / 1024.0, "MiB");
    #[expect(clippy::cast_precision_loss, reason = "a few million bytes")]
    let runner_bytes = runner::CONTENT.len() as f64;
    report.target("runner_size", runner_bytes, "bytes", "<= 4194304");
    load(&report, "at the end");
    session.was_undisturbed().await
}

fn introduce(report: &Report) {
    if cfg!(debug_assertions) {
        report.note("this is a debug build: the figures of a release build are other ones");
    }
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    report.note(&format!(
        "{cpus} processors, shared by dispatcher, SSH server, runners and jobs"
    ));
    load(report, "at the start");
}

fn load(report: &Report, when: &str) {
    if let Ok(text) = std::fs::read_to_string("/proc/loadavg") {
        let last_minute = text.split(' ').next().unwrap_or_default();
        report.note(&format!("load average {when}: {last_minute}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(short: bool, samples: Option<u32>) -> Amount {
        Amount::of(&BenchDispatchArgs {
            jobs: None,
            samples,
            short,
            by_command: false,
            stub: false,
            instances: None,
        })
    }

    #[test]
    fn no_sample_is_lost_to_the_rounds() {
        for samples in [1, 2, 9, 10, 11, 105] {
            let amount = amount(false, Some(samples));
            let taken = amount.rounds * amount.per_round();
            assert!((samples..samples + amount.rounds).contains(&taken));
        }
        assert_eq!(amount(true, None).per_round(), 5);
    }

    #[test]
    fn the_folder_is_beside_the_state_directory_and_goes_away() {
        let parent = tempfile::tempdir().unwrap();
        let state = parent.path().join("share/longshore");
        let folder = fresh_folder(&state).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(path.parent(), Some(parent.path()));
        assert!(!state.exists());
        drop(folder);
        assert!(!path.exists());
    }
}
