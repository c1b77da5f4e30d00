//! Bringing output home, in bounded pieces.

use std::time::Duration;

use longshore_exec::{Command, ExecutorExt as _, ExitStatus, Output, OutputSink};
use longshore_runner_api::command::OutputStream;
use longshore_runner_api::{MAX_WINDOW_LINE, OutputWindow};
use longshore_types::{Attempt, ContainerUuid, Written};
use tokio::task::coop::consume_budget;

use super::shell::{Shell, describe, host_failure};
use crate::effect::{Host, HostFailure};

impl Shell {
    /// At most `length` bytes of what an attempt has written to one stream until now, from the
    /// byte `from` on, or later if that was left out: empty if it has not written so much. Of an
    /// attempt that ended there is
    /// nothing any more once its result was acknowledged.
    ///
    /// No example: only a worker that has booted has a host.
    ///
    /// # Errors
    ///
    /// The host cannot be reached, has no such attempt, or has a runner that cannot do it.
    pub async fn read_output(
        &self,
        host: &Host,
        (uuid, attempt, stream): (ContainerUuid, Attempt, OutputStream),
        (from, length): (u64, u64),
        timeout: Duration,
    ) -> Result<OutputWindow, HostFailure> {
        let line = self
            .protocol
            .output_window(uuid, attempt, stream, from, length)
            .ok_or_else(|| HostFailure::answered("its runner tells only of what ended".into()))?;
        let command = Command::new(self.as_runner(host, &line));
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let limit = limit.saturating_add(MAX_WINDOW_LINE);
        let target = self.target(host);
        let asked = self.executor.exec(&target, &command, &[], timeout, limit);
        let answer = tokio::time::timeout(timeout, asked)
            .await
            .map_err(|_| HostFailure::answered("no answer in time".into()))?
            .map_err(|error| host_failure(&error))?;
        if answer.succeeded() {
            let window = self.protocol.window(&answer.stdout, (from, length));
            window.ok_or_else(|| HostFailure::answered("its runner did not answer that".into()))
        } else {
            Err(HostFailure::answered(describe(&answer)))
        }
    }

    /// Brings home what an attempt wrote to one stream.
    pub(super) async fn collect(
        &self,
        host: &Host,
        (uuid, attempt, stream): (ContainerUuid, Attempt, OutputStream),
        written: Written,
        timeout: Duration,
    ) -> Result<(), HostFailure> {
        let Some(outputs) = &self.outputs else {
            return Ok(());
        };
        let ours = |error: std::io::Error| {
            HostFailure::answered(format!("the output could not be kept: {error}"))
        };
        let wanted = outputs.wanted(uuid).await.map_err(ours)?;
        let last = wanted.filter(|wanted| *wanted < written.kept());
        let skipped = last.map_or(0, |last| written.start_of_last(last));
        let begun = outputs.begin(uuid, attempt, stream.as_str(), skipped);
        let mut sink = begun.await.map_err(ours)?;
        let line = self.protocol.output(uuid, attempt, stream, last);
        // A line in the place of what was left out is shorter than that.
        let room = written.bytes.saturating_sub(skipped);
        self.copy(host, &line, sink.as_mut(), room, timeout).await?;
        sink.finish().await.map_err(ours)
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
