//! Speaking to a runner: over its watch stream where there is one, by a command otherwise.

use std::time::Duration;

use longshore_exec::{Collected, ExecError, ExitStatus, Phase};
use longshore_runner_api::command::ReportOptions;
use longshore_runner_api::report::{MAX_REPORT_BYTES, format_acks};
use longshore_runner_api::watch::{Ask, FromRunner};
use longshore_types::{Attempt, ContainerUuid, RunnerReport};
use tokio::task::coop::consume_budget;

use super::shell::{MAX_ANSWER, Shell, describe, host_failure, keep};
use super::streams::{MAX_DOCUMENT, NoAnswer};
use crate::effect::{Host, HostFailure, KillOutcome, StartOutcome};

/// What is said of a request whose watch stream broke before it was answered.
const STREAM_BROKE: &str = "the watch stream broke before the runner answered";
/// What is said of an answer that does not fit its request.
const NO_ANSWER: &str = "the runner answered something else";

impl Shell {
    pub(super) async fn start(
        &self,
        host: &Host,
        (uuid, attempt): (ContainerUuid, Attempt),
        document: &[u8],
        timeout: Duration,
    ) -> StartOutcome {
        let (line, bytes) = (self.protocol.start(uuid, attempt), document.len());
        let ask = Ask::Start {
            uuid,
            attempt,
            bytes,
        };
        match self.tell(host, ask, &line, document, timeout).await {
            Ok(answer) => self.protocol.started(&answer),
            Err(error) => start_failure(&error),
        }
    }

    pub(super) async fn kill(
        &self,
        host: &Host,
        (uuid, attempt): (ContainerUuid, Attempt),
        signal: u8,
        timeout: Duration,
    ) -> KillOutcome {
        let line = self.protocol.kill(uuid, attempt, signal);
        let ask = Ask::Kill {
            uuid,
            attempt,
            signal,
        };
        match self.tell(host, ask, &line, &[], timeout).await {
            Ok(answer) => self.protocol.killed(&answer),
            Err(error) => KillOutcome::Unknown {
                error: error.chain(),
            },
        }
    }

    /// Has the runner do something: `ask` over the watch stream, if there is one, else `line`.
    async fn tell(
        &self,
        host: &Host,
        ask: Ask,
        line: &str,
        stdin: &[u8],
        timeout: Duration,
    ) -> Result<Collected, ExecError> {
        let stream = self.streams.get(&self.target(host));
        if let Some(stream) = stream.filter(|_| stdin.len() <= MAX_DOCUMENT) {
            match stream.ask(ask, stdin.to_vec()).await {
                Ok(answer) => return collected(answer),
                Err(NoAnswer::Unknown) => return Err(unanswered(STREAM_BROKE)),
                Err(NoAnswer::NotSent) => {}
            }
        }
        self.sudo(host, line, stdin, timeout, MAX_ANSWER).await
    }

    /// Asks for a report over the watch stream, which is opened if there is none, or by a command.
    pub(super) async fn report(
        &self,
        host: &Host,
        options: &ReportOptions,
        timeout: Duration,
    ) -> Result<RunnerReport, HostFailure> {
        let failed = |error: ExecError| host_failure(&error);
        let watch = self.protocol.watch().filter(|_| self.watch_streams);
        if let Some(line) = watch {
            let (target, line) = (self.target(host), self.as_runner(host, &line));
            let executor = &*self.executor;
            let opened = self.streams.open(executor, &target, line, timeout).await;
            if let Some(stream) = opened.map_err(failed)? {
                let ask = Ask::Report {
                    known: options.known.clone(),
                    wait_ms: u64::try_from(options.wait.as_millis()).unwrap_or(u64::MAX),
                    acks: format_acks(&options.acks),
                };
                match stream.ask(ask, Vec::new()).await {
                    Ok(FromRunner::Report { report, .. }) => return Ok(report),
                    Ok(answer) => {
                        let answer = collected(answer).map_err(failed)?;
                        return Err(HostFailure::answered(describe(&answer)));
                    }
                    // It had to give way, and asking once more does no harm.
                    Err(NoAnswer::Unknown) if self.streams.is_alone(&target.instance) => {}
                    Err(NoAnswer::Unknown) => return Err(failed(unanswered(STREAM_BROKE))),
                    Err(NoAnswer::NotSent) => {}
                }
            }
        }
        self.report_by_command(host, options, timeout).await
    }

    /// Asks for a report, and takes it as soon as all of it is there: how long the command then
    /// takes to end does not matter (a kernel may need 20 ms to take its watches down).
    async fn report_by_command(
        &self,
        host: &Host,
        options: &ReportOptions,
        timeout: Duration,
    ) -> Result<RunnerReport, HostFailure> {
        let failed = |error: ExecError| host_failure(&error);
        let mut options = options.clone();
        if self.streams.is_alone(&host.instance) {
            // While it waited nothing else could be done there.
            options.wait = Duration::ZERO;
        }
        let line = self.as_runner(host, &self.protocol.report(&options));
        let opened = self.open(&self.target(host), &line, timeout).await;
        let mut process = opened.map_err(failed)?;
        process.close_stdin().await.map_err(failed)?;
        let mut answer = Collected::default();
        while let Some(output) = process.output().await.map_err(failed)? {
            keep(&mut answer, output, MAX_REPORT_BYTES);
            if answer.truncated {
                let error = format!("the report is longer than {MAX_REPORT_BYTES} bytes");
                return Err(HostFailure::answered(error));
            }
            if let Some(report) = self.protocol.complete_report(&answer.stdout) {
                return Ok(report);
            }
            consume_budget().await;
        }
        answer.status = process.wait().await.map_err(failed)?;
        self.protocol
            .reported(&answer)
            .map_err(HostFailure::answered)
    }
}

/// The answer on a watch stream as that of a command.
fn collected(answer: FromRunner) -> Result<Collected, ExecError> {
    let FromRunner::Done { code, said, .. } = answer else {
        return Err(unanswered(NO_ANSWER));
    };
    let mut collected = Collected::default();
    collected.stderr = said.into_bytes();
    collected.status = Some(ExitStatus::Code(code));
    Ok(collected)
}

/// What was asked over a watch stream may have been done.
fn unanswered(why: &'static str) -> ExecError {
    ExecError::may_have_run(Phase::Command, why)
}

fn start_failure(error: &ExecError) -> StartOutcome {
    let text = error.chain();
    if error.may_have_run {
        StartOutcome::Unknown { error: text }
    } else {
        StartOutcome::NotStarted { error: text }
    }
}
