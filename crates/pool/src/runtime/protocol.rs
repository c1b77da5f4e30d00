//! What is said to a runner, and what its answers mean.

use std::fmt;

use longshore_exec::{Collected, ExitStatus};
use longshore_runner_api::command::{
    self, EXIT_KNOWN_ATTEMPT, EXIT_OK, GuardOptions, OutputStream, ReportOptions,
};
use longshore_runner_api::{OutputWindow, report};
use longshore_types::{Attempt, ContainerUuid, RunnerReport};

use super::shell::describe;
use crate::effect::{KillOutcome, StartOutcome};

/// An exit code from here on may come from a shell or sudo whose child was ended by a signal.
const FIRST_SIGNAL_CODE: u32 = 128;

/// The language of a runner: builds command lines and reads answers. Pure.
///
/// This is how an embedder has payloads of its own: what a start document is, and what the
/// commands look like, is between the implementation and the runner. What it owes:
///
/// - **A start that arrives twice runs nothing twice**, and neither does one that arrives after a
///   kill of the same attempt. The runner refuses an attempt that is not newer than the newest it
///   knows ([`StartOutcome::KnownAttempt`]).
/// - **A report is complete**: what is not in it does not run, and has no result. A result stays
///   in it until it is acknowledged ([`ReportOptions::acks`]).
/// - **A missing exit status is never success**, nor the proof of a failure.
/// - **A line is one simple command.** `exec ` or `exec sudo ` is put before it: of `a; b` only
///   `a` would run, and without sudo for `b`. Say `sh -c '...'` where it takes more, and quote
///   with [`command::quote`].
///
/// A method that panics fails the effect that it was called for.
///
/// No example: the module's documentation has a whole one.
pub trait RunnerProtocol: fmt::Debug + Send + Sync {
    /// The line that starts an attempt; the start document is its standard input.
    ///
    /// The document may arrive cut off, where the connection breaks while it is sent: what the
    /// command reads then ends as if that were all. The runner has to notice, by a length, a
    /// digest or a last line in the document, and must not run the half of it.
    fn start(&self, uuid: ContainerUuid, attempt: Attempt) -> String;

    /// What the end of that command means. Whatever leaves a doubt is
    /// [`StartOutcome::Unknown`].
    fn started(&self, answer: &Collected) -> StartOutcome;

    /// The line that signals an attempt: all of its processes, or leaves a mark that it must not
    /// be started, where the runner has not seen it.
    ///
    /// `signal` is 15 (TERM), never 9 (KILL). This is asked at once, and again every
    /// [`Config::timeout_signal`](crate::Config) until [`RunnerProtocol::killed`] says that it is
    /// gone. After [`Config::timeout_term`](crate::Config) it is not asked again: the worker gets
    /// nothing more to do, and is destroyed once nothing but such payloads is on it.
    fn kill(&self, uuid: ContainerUuid, attempt: Attempt, signal: u8) -> String;

    /// What the end of that command means. Whatever leaves a doubt is [`KillOutcome::Unknown`].
    fn killed(&self, answer: &Collected) -> KillOutcome;

    /// The line that asks for a report.
    fn report(&self, options: &ReportOptions) -> String;

    /// The report, if `stdout` so far is surely all of it; none if only the end of the command
    /// can show that.
    fn complete_report(&self, stdout: &[u8]) -> Option<RunnerReport>;

    /// The report that the command printed, or why it cannot be believed.
    ///
    /// The easy way: have the runner print the lines that [`longshore_runner_api::report`]
    /// describes, and call [`report::parse`]. Its last line proves that nothing was cut off.
    fn reported(&self, answer: &Collected) -> Result<RunnerReport, String>;

    /// The line that has the runner power its machine off when no dispatcher looks after it any
    /// more, or changes what it was told of that before; none where the runner has no such
    /// switch. Every later command counts as a sign of life.
    ///
    /// No example: the pool calls it, where machines are rented
    /// ([`Config::guard`](crate::Config::guard)).
    fn guard(&self, options: &GuardOptions) -> Option<String> {
        let _ = options;
        None
    }

    /// The line that opens a [watch stream](longshore_runner_api::watch), over which the runner is
    /// asked for reports, and told to start and kill, without a command for each; none where the
    /// runner has none. A runner that then does not say hello is spoken to by commands.
    ///
    /// The answers mean what the commands mean: [`RunnerProtocol::started`] and
    /// [`RunnerProtocol::killed`] are asked, with the code and the text of the answer.
    ///
    /// No example: the pool calls it, and it is like [`RunnerProtocol::output`].
    fn watch(&self) -> Option<String> {
        None
    }

    /// The line that prints the last `last` bytes of an output stream, or all of it.
    fn output(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        stream: OutputStream,
        last: Option<u64>,
    ) -> String;

    /// The line that prints at most `length` bytes of an output stream from the byte `from` on,
    /// as far as it is written; none where the runner cannot do that, and nobody can follow the
    /// output of what still runs.
    ///
    /// No example: the pool calls it, and it is like [`RunnerProtocol::output`].
    fn output_window(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        stream: OutputStream,
        from: u64,
        length: u64,
    ) -> Option<String> {
        let _ = (uuid, attempt, stream, from, length);
        None
    }

    /// What that line printed when so many bytes (the second) from a byte on (the first) were
    /// asked for; none if it is no answer to that. A runner that leaves nothing out just prints
    /// the bytes.
    ///
    /// No example: the pool calls it, and it is like [`RunnerProtocol::output`].
    fn window(&self, printed: &[u8], (from, length): (u64, u64)) -> Option<OutputWindow> {
        let bytes = printed.to_vec();
        (bytes.len() as u64 <= length).then_some(OutputWindow { from, bytes })
    }
}

/// Speaks to `longshore-run`.
///
/// ```
/// use longshore_pool::runtime::{LongshoreRun, RunnerProtocol};
/// let runner = LongshoreRun { path: "/usr/local/bin/longshore-run".into() };
/// assert!(runner.report(&Default::default()).ends_with("--report"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is nothing but the path")]
pub struct LongshoreRun {
    /// Absolute path of the runner on the instances.
    pub path: String,
}

impl RunnerProtocol for LongshoreRun {
    fn start(&self, uuid: ContainerUuid, attempt: Attempt) -> String {
        command::start(&self.path, uuid, attempt)
    }

    fn started(&self, answer: &Collected) -> StartOutcome {
        let error = describe(answer);
        match answer.status {
            Some(ExitStatus::Code(EXIT_OK)) => StartOutcome::Started,
            Some(ExitStatus::Code(EXIT_KNOWN_ATTEMPT)) => StartOutcome::KnownAttempt,
            Some(ExitStatus::Code(code)) if code < FIRST_SIGNAL_CODE => {
                StartOutcome::NotStarted { error }
            }
            Some(ExitStatus::Code(_) | ExitStatus::Signal(_)) | None => {
                StartOutcome::Unknown { error }
            }
        }
    }

    fn kill(&self, uuid: ContainerUuid, attempt: Attempt, signal: u8) -> String {
        command::kill(&self.path, uuid, attempt, signal)
    }

    fn killed(&self, answer: &Collected) -> KillOutcome {
        match answer.status {
            Some(ExitStatus::Code(EXIT_OK)) => KillOutcome::Gone,
            Some(ExitStatus::Code(1)) => KillOutcome::StillRuns,
            _ => KillOutcome::Unknown {
                error: describe(answer),
            },
        }
    }

    fn report(&self, options: &ReportOptions) -> String {
        command::report(&self.path, options)
    }

    fn complete_report(&self, stdout: &[u8]) -> Option<RunnerReport> {
        // Its last line proves that nothing was cut off.
        let report = stdout.strip_suffix(b"\n")?;
        let last = report.rsplit(|byte| *byte == b'\n').next()?;
        if report::is_last_line(last) {
            report::parse(stdout).ok()
        } else {
            None
        }
    }

    fn reported(&self, answer: &Collected) -> Result<RunnerReport, String> {
        if !answer.succeeded() || answer.truncated {
            return Err(describe(answer));
        }
        report::parse(&answer.stdout).map_err(|error| error.to_string())
    }

    fn guard(&self, options: &GuardOptions) -> Option<String> {
        Some(command::guard(&self.path, options))
    }

    fn watch(&self) -> Option<String> {
        Some(command::watch(&self.path))
    }

    fn output(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        stream: OutputStream,
        last: Option<u64>,
    ) -> String {
        command::output(&self.path, uuid, attempt, stream, last)
    }

    fn output_window(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        stream: OutputStream,
        from: u64,
        length: u64,
    ) -> Option<String> {
        let runner = &self.path;
        Some(command::output_window(
            runner, uuid, attempt, stream, from, length,
        ))
    }

    fn window(&self, printed: &[u8], asked: (u64, u64)) -> Option<OutputWindow> {
        OutputWindow::parse(printed, asked)
    }
}
