//! Bringing output home, in bounded pieces.

use std::io;
use std::time::Duration;

use longshore_exec::{ExecError, ExitStatus, Output, OutputSink, Phase, Process};
use longshore_runner_api::command::OutputStream;
use longshore_runner_api::{MAX_WINDOW_LINE, OutputWindow};
use longshore_types::{Attempt, ContainerUuid, Written};
use tokio::task::coop::consume_budget;

use super::shell::{Shell, describe, host_failure};
use crate::effect::{Host, HostFailure};

/// The longest that one piece of output may take to come, or to be kept.
const PIECE: Duration = Duration::from_secs(60);

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
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let limit = limit.saturating_add(MAX_WINDOW_LINE);
        let asked = self.sudo(host, &line, &[], timeout, limit);
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
        let wanted = match in_time(outputs.wanted(uuid)).await {
            // Nobody has a record of it, so that nobody will ask for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            wanted => wanted.map_err(not_kept)?,
        };
        let last = wanted.filter(|wanted| *wanted < written.kept());
        let skipped = last.map_or(0, |last| written.start_of_last(last));
        let begun = outputs.begin(uuid, attempt, stream.as_str(), skipped);
        let mut sink = in_time(begun).await.map_err(not_kept)?;
        let line = self.protocol.output(uuid, attempt, stream, last);
        // A line in the place of what was left out is shorter than that.
        let room = written.bytes.saturating_sub(skipped);
        self.copy(host, &line, sink.as_mut(), room, timeout).await?;
        in_time(sink.finish()).await.map_err(not_kept)
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
        // That a connection broke says nothing of whether the instance can give it.
        let failed = |error: ExecError| HostFailure {
            unreachable: true,
            ..host_failure(&error)
        };
        let line = self.as_runner(host, line);
        let opened = self.open(&self.target(host), &line, timeout).await;
        let mut process = opened.map_err(failed)?;
        process.close_stdin().await.map_err(failed)?;
        while let Some(output) = next_piece(process.as_mut()).await.map_err(failed)? {
            // An executor that always has more must not keep its thread for itself.
            consume_budget().await;
            let Output::Stdout(chunk) = output else {
                continue;
            };
            let take = usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len());
            room -= take as u64;
            if take > 0 {
                in_time(sink.write(&chunk[..take]))
                    .await
                    .map_err(not_kept)?;
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

/// The next piece, unless none comes for so long that there will be none.
async fn next_piece(process: &mut dyn Process) -> Result<Option<Output>, ExecError> {
    let next = tokio::time::timeout(PIECE, process.output()).await;
    next.unwrap_or_else(|_| {
        let error = format!("nothing came for {} s", PIECE.as_secs());
        Err(ExecError::may_have_run(Phase::Command, error))
    })
}

/// What is kept on our side is kept in time, or the fault is ours.
async fn in_time<T>(kept: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let kept = tokio::time::timeout(PIECE, kept).await;
    kept.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn not_kept(error: io::Error) -> HostFailure {
    HostFailure {
        unreachable: false,
        ours: true,
        error: format!("the output could not be kept: {error}"),
    }
}
