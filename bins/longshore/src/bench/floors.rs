//! What the machine takes by itself for the parts of which dispatching is made.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use longshore_exec::ExecutorExt as _;

use super::figures::{Rate, Report, Samples};
use super::session::Session;

/// As many bytes are overwritten at a time as a page of the store has.
const PAGE: [u8; 4096] = [0x5a; 4096];
const SSH_TIMEOUT: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Floors {
    pub(super) fsync: Samples,
    pub(super) fork: Samples,
    pub(super) ssh: Samples,
    pub(super) fork_rate: Rate,
    pub(super) fork_rate_two: Rate,
}

impl Floors {
    /// Takes `count` more samples of a sync, a process and an SSH command.
    pub(super) async fn sample(&mut self, session: &Session, count: u32) -> anyhow::Result<()> {
        let path = session.folder().join("fsync");
        let mut floors = std::mem::take(self);
        *self = tokio::task::spawn_blocking(move || {
            sync_some(&path, count, &mut floors.fsync).context("cannot sync a file")?;
            for _ in 0..count {
                let begun = Instant::now();
                fork_and_exec()?;
                floors.fork.push(begun.elapsed());
            }
            anyhow::Ok(floors)
        })
        .await
        .context("measuring failed")??;
        let command = longshore_exec::Command::new("true");
        for _ in 0..count {
            let begun = Instant::now();
            let (executor, target) = (session.executor(), session.target());
            let done = executor.exec(target, &command, &[], SSH_TIMEOUT, 1024);
            anyhow::ensure!(done.await?.succeeded(), "true failed over SSH");
            self.ssh.push(begun.elapsed());
        }
        Ok(())
    }

    /// Measures how many processes a second can be had, one after the other and two at a time.
    pub(super) async fn rates(&mut self, count: u32) -> anyhow::Result<()> {
        let run = move |count: u32| (0..count).try_for_each(|_| fork_and_exec());
        let begun = Instant::now();
        let one = tokio::task::spawn_blocking(move || run(count));
        one.await.context("measuring failed")??;
        self.fork_rate.add(count, begun.elapsed());

        let half = count.div_ceil(2);
        let begun = Instant::now();
        let first = tokio::task::spawn_blocking(move || run(half));
        let second = tokio::task::spawn_blocking(move || run(half));
        first.await.context("measuring failed")??;
        second.await.context("measuring failed")??;
        self.fork_rate_two.add(2 * half, begun.elapsed());
        Ok(())
    }

    pub(super) fn tell(&self, report: &Report) {
        report
            .note("floors: overwriting a page and fsync; fork and exec of `true` until it ended;");
        report.note("`true` over an SSH connection that is open, until its exit status is known");
        report.figure("floor_fsync_p50", self.fsync.p50_ms(), "ms");
        report.figure("floor_fsync_p99", self.fsync.p99_ms(), "ms");
        report.figure("floor_fork_exec_p50", self.fork.p50_ms(), "ms");
        report.figure("floor_fork_exec_p99", self.fork.p99_ms(), "ms");
        report.figure("floor_ssh_command_p50", self.ssh.p50_ms(), "ms");
        report.figure("floor_ssh_command_p99", self.ssh.p99_ms(), "ms");
    }
}

fn sync_some(path: &Path, count: u32, samples: &mut Samples) -> std::io::Result<()> {
    let file = File::create(path)?;
    file.write_all_at(&PAGE, 0)?;
    file.sync_all()?;
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all_at(&PAGE, 0)?;
        file.sync_all()?;
        samples.push(begun.elapsed());
    }
    Ok(())
}

fn fork_and_exec() -> anyhow::Result<()> {
    let status = Command::new("true").status().context("cannot run true")?;
    anyhow::ensure!(status.success(), "true failed");
    Ok(())
}
