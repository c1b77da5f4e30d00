//! The runner: a shell script, and what is said to it.

use longshore_exec::{Collected, ExitStatus};
use longshore_pool::runtime::RunnerProtocol;
use longshore_pool::{KillOutcome, StartOutcome};
use longshore_runner_api::command::{OutputStream, ReportOptions, quote};
use longshore_runner_api::report;
use longshore_types::{Attempt, ContainerUuid, RunnerReport};

const SCRIPT: &str = include_str!("runner.sh");

/// The exit codes of the script.
const DONE: u32 = 0;
const KNOWN_ATTEMPT: u32 = 3;
const STILL_RUNS: u32 = 4;
/// From here on a code may tell of a signal that ended a shell on the way.
const FIRST_SIGNAL: u32 = 128;

/// Speaks to `runner.sh`, which goes along with each command: it need not be put anywhere.
#[derive(Debug)]
pub(crate) struct ShellRunner;

/// A script as a start document. The last line tells the runner that it has all of it.
pub(crate) fn document(script: &str) -> Vec<u8> {
    format!("{script}\n# end\n").into_bytes()
}

/// One simple command, since `exec` or `exec sudo` is put before it.
fn line(arguments: &str) -> String {
    format!("sh -c {} runner {arguments}", quote(SCRIPT))
}

fn words(answer: &Collected) -> String {
    format!(
        "{:?}: {}",
        answer.status,
        String::from_utf8_lossy(&answer.stderr)
    )
}

impl RunnerProtocol for ShellRunner {
    fn start(&self, uuid: ContainerUuid, attempt: Attempt) -> String {
        line(&format!("start {uuid} {attempt}"))
    }

    fn started(&self, answer: &Collected) -> StartOutcome {
        let error = words(answer);
        match answer.status {
            Some(ExitStatus::Code(DONE)) => StartOutcome::Started,
            Some(ExitStatus::Code(KNOWN_ATTEMPT)) => StartOutcome::KnownAttempt,
            Some(ExitStatus::Code(code)) if code < FIRST_SIGNAL => {
                StartOutcome::NotStarted { error }
            }
            // The shell was killed, or nobody knows: it may have come to the start.
            _ => StartOutcome::Unknown { error },
        }
    }

    fn kill(&self, uuid: ContainerUuid, attempt: Attempt, signal: u8) -> String {
        line(&format!("kill {signal} {uuid} {attempt}"))
    }

    fn killed(&self, answer: &Collected) -> KillOutcome {
        match answer.status {
            Some(ExitStatus::Code(DONE)) => KillOutcome::Gone,
            Some(ExitStatus::Code(STILL_RUNS)) => KillOutcome::StillRuns,
            _ => KillOutcome::Unknown {
                error: words(answer),
            },
        }
    }

    fn report(&self, options: &ReportOptions) -> String {
        let wait = options.wait.as_millis();
        let mut arguments = format!("report {wait} {}", quote(&options.known));
        for (uuid, attempt) in &options.acks {
            arguments.push_str(&format!(" {uuid}.{attempt}"));
        }
        line(&arguments)
    }

    fn complete_report(&self, stdout: &[u8]) -> Option<RunnerReport> {
        // Only with its last line is a report a report.
        let may_be_whole = stdout.ends_with(b"\"}\n");
        may_be_whole.then(|| report::parse(stdout).ok())?
    }

    fn reported(&self, answer: &Collected) -> Result<RunnerReport, String> {
        if !answer.succeeded() || answer.truncated {
            return Err(words(answer));
        }
        report::parse(&answer.stdout).map_err(|error| error.to_string())
    }

    fn output(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        stream: OutputStream,
        last: Option<u64>,
    ) -> String {
        let last = last.map_or_else(|| "+1".to_owned(), |bytes| bytes.to_string());
        line(&format!(
            "output {} {last} {uuid} {attempt}",
            stream.as_str()
        ))
    }
}
