//! Bringing output home, in bounded pieces.

use std::time::Duration;

use longshore_exec::{Command, ExitStatus, Output, OutputSink, OutputStore};
use longshore_runner_api::command::OutputStream;
use longshore_types::{Attempt, ContainerUuid};
use tokio::task::coop::consume_budget;

use super::shell::{Shell, host_failure};
use crate::effect::{Host, HostFailure};

impl Shell {
    /// Brings home what an attempt wrote: `bytes` to standard output and standard error.
    pub(super) async fn collect(
        &self,
        host: &Host,
        uuid: ContainerUuid,
        attempt: Attempt,
        bytes: [u64; 2],
        timeout: Duration,
    ) -> Result<(), HostFailure> {
        let Some(outputs) = &self.outputs else {
            return Ok(());
        };
        let ours = |error: std::io::Error| {
            HostFailure::answered(format!("the output could not be kept: {error}"))
        };
        let wanted = outputs.wanted(uuid).await.map_err(ours)?;
        for (stream, total) in OutputStream::ALL.into_iter().zip(bytes) {
            if total == 0 {
                continue;
            }
            let last = wanted.filter(|wanted| *wanted < total);
            let skipped = last.map_or(0, |last| total - last);
            let mut sink = begin(outputs.as_ref(), uuid, attempt, stream, skipped)
                .await
                .map_err(ours)?;
            let line = self.protocol.output(uuid, attempt, stream, last);
            let room = total - skipped;
            self.copy(host, &line, sink.as_mut(), room, timeout).await?;
            sink.finish().await.map_err(ours)?;
        }
        Ok(())
    }

    /// Copies at most `room` bytes of what a command prints.
    async fn copy(
        &self,
        host: &Host,
        line: &str,
        sink: &mut dyn OutputSink,
        mut room: u64,
        timeout: Duration,
    ) -> Result<(), HostFailure> {
        let failed = |error: longshore_exec::ExecError| host_failure(&error);
        let command = Command::new(self.as_runner(host, line));
        let target = self.target(host);
        let opened = self.executor.open(&target, &command, timeout).await;
        let mut process = opened.map_err(failed)?;
        process.close_stdin().await.map_err(failed)?;
        while let Some(output) = process.output().await.map_err(failed)? {
            // An executor that always has more must not keep its thread for itself.
            consume_budget().await;
            let Output::Stdout(chunk) = output else {
                continue;
            };
            let take = usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len());
            room -= take as u64;
            if take > 0 {
                sink.write(&chunk[..take]).await.map_err(|error| {
                    HostFailure::answered(format!("the output could not be kept: {error}"))
                })?;
            }
        }
        match process.wait().await.map_err(failed)? {
            Some(ExitStatus::Code(0)) => Ok(()),
            status => {
                let how = status.map_or("no exit status".to_owned(), |status| status.to_string());
                let error = format!("the runner did not give the output: {how}");
                Err(HostFailure::answered(error))
            }
        }
    }
}

async fn begin(
    outputs: &dyn OutputStore,
    uuid: ContainerUuid,
    attempt: Attempt,
    stream: OutputStream,
    skipped: u64,
) -> std::io::Result<Box<dyn OutputSink>> {
    outputs.begin(uuid, attempt, stream.as_str(), skipped).await
}
