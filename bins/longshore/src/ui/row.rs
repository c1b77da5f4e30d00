//! A job as the user sees it.

use std::path::PathBuf;
use std::time::Duration;

use longshore_types::{ContainerState, Exit, ExitCause, Timestamp};

use crate::text::brief;

/// What is known about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// From the job file; may hold anything.
    pub name: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Why it waits, if it does.
    pub reason: Option<String>,
    /// How many attempts were begun.
    pub attempts: u32,
    /// Whether the user asked for its end.
    pub cancel_requested: bool,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// What went wrong outside of its process, if anything did.
    pub error: Option<String>,
    /// When its last attempt was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Where its standard output is; none if it wrote nothing, or that is lost.
    pub stdout: Option<PathBuf>,
    /// Where its standard error is; none if it wrote nothing, or that is lost.
    pub stderr: Option<PathBuf>,
}

/// What became of a job, as far as it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "each has its word on the screen")]
pub enum Verdict {
    /// It ended badly, or could not be run.
    Failed,
    /// It was stopped on request, or not run for that reason.
    Cancelled,
    /// It is being run.
    Running,
    /// It is not being run yet.
    Waiting,
    /// It exited with code 0.
    Succeeded,
}

impl Verdict {
    /// The word for it, at most nine characters.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "FAILED",
            Self::Cancelled => "cancelled",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "ok",
        }
    }
}

impl JobRow {
    /// What became of it.
    pub fn verdict(&self) -> Verdict {
        let cause = self.exit.as_ref().map(|exit| &exit.cause);
        match (self.state, cause) {
            (ContainerState::Queued | ContainerState::Locked, _) => Verdict::Waiting,
            (ContainerState::Running, _) => Verdict::Running,
            (ContainerState::Complete, Some(cause)) if cause.is_success() => Verdict::Succeeded,
            (
                ContainerState::Cancelled,
                Some(ExitCause::TimeLimit | ExitCause::NotStarted { .. }),
            ) => Verdict::Failed,
            (ContainerState::Cancelled, _) if self.cancel_requested => Verdict::Cancelled,
            (ContainerState::Complete | ContainerState::Cancelled, _) => Verdict::Failed,
        }
    }

    /// How it ended or what went wrong, in one clean line; empty while it runs.
    pub(super) fn outcome(&self) -> String {
        let text = match (&self.error, &self.exit) {
            _ if !self.state.is_final() => return String::new(),
            (_, None) if self.verdict() == Verdict::Cancelled => "not run".into(),
            (_, Some(_)) if self.verdict() == Verdict::Cancelled => "stopped".into(),
            (Some(error), _) => error.clone(),
            (None, Some(exit)) => exit.cause.to_string(),
            (None, None) => "its end was not seen".into(),
        };
        brief(&text)
    }

    /// What it wrote that could not be kept, in words, if it has ended and anything is missing.
    pub(crate) fn lost_output(&self) -> Option<String> {
        let exit = self.exit.as_ref().filter(|_| self.state.is_final());
        let lost = exit.and_then(Exit::lost_output)?;
        Some(format!("output lost: {lost}"))
    }

    /// How long it ran, or has run until now.
    pub fn duration_until(&self, now: Timestamp) -> Option<Duration> {
        self.duration(now)
    }

    /// How long it ran, or has run until now.
    pub(super) fn duration(&self, now: Timestamp) -> Option<Duration> {
        let exit = self.exit.as_ref();
        // The machine's clock for both ends, or ours for both.
        if let Some((start, end)) = exit.and_then(|exit| exit.started_at.zip(exit.finished_at)) {
            return Some(end.since(start));
        }
        let end = if self.state.is_final() {
            self.finished_at
        } else {
            Some(now)
        };
        self.started_at
            .zip(end)
            .map(|(start, end)| end.since(start))
    }
}

/// How many jobs there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Not running yet.
    pub waiting: usize,
    /// Running.
    pub running: usize,
    /// Exited with code 0.
    pub succeeded: usize,
    /// Ended badly.
    pub failed: usize,
    /// Stopped on request.
    pub cancelled: usize,
}

impl Counts {
    /// Counts.
    pub fn of(rows: &[JobRow]) -> Self {
        let mut counts = Self::default();
        for row in rows {
            let kind = match row.verdict() {
                Verdict::Waiting => &mut counts.waiting,
                Verdict::Running => &mut counts.running,
                Verdict::Succeeded => &mut counts.succeeded,
                Verdict::Failed => &mut counts.failed,
                Verdict::Cancelled => &mut counts.cancelled,
            };
            *kind += 1;
        }
        counts
    }

    /// All jobs.
    pub fn total(&self) -> usize {
        self.waiting + self.running + self.ended()
    }

    /// Those that have ended, well or badly.
    pub fn ended(&self) -> usize {
        self.succeeded + self.failed + self.cancelled
    }

    /// Whether every job exited with code 0.
    pub fn all_succeeded(&self) -> bool {
        self.succeeded == self.total()
    }

    /// "3 running, 2 waiting, …", what there is none of left out.
    pub(super) fn describe(&self) -> String {
        let parts = [
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.running, "running"),
            (self.waiting, "waiting"),
            (self.succeeded, "succeeded"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0);
        let parts: Vec<String> = parts.map(|(n, word)| format!("{n} {word}")).collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{cancelled, ended, running, waiting};
    use super::*;

    #[test]
    fn verdicts_follow_state_cause_and_error() {
        let verdict = |row: &JobRow| row.verdict();
        assert_eq!(verdict(&waiting("a", "")), Verdict::Waiting);
        assert_eq!(verdict(&running("a", 0)), Verdict::Running);
        assert_eq!(
            verdict(&ended("a", ExitCause::Exited { code: 0 }, 0)),
            Verdict::Succeeded
        );
        assert_eq!(
            verdict(&ended("a", ExitCause::Exited { code: 1 }, 0)),
            Verdict::Failed
        );
        assert_eq!(
            verdict(&ended("a", ExitCause::TimeLimit, 0)),
            Verdict::Failed
        );
        assert_eq!(verdict(&cancelled("a", None)), Verdict::Cancelled);
        assert_eq!(
            verdict(&cancelled("a", Some("lost 3 times"))),
            Verdict::Failed
        );
        let mut stopped = cancelled("a", None);
        stopped.exit = Some(Exit::unseen(ExitCause::TimeLimit));
        assert_eq!(verdict(&stopped), Verdict::Failed);
        stopped.exit = Some(Exit::unseen(ExitCause::Killed));
        assert_eq!(verdict(&stopped), Verdict::Cancelled);
        stopped.cancel_requested = false;
        assert_eq!(verdict(&stopped), Verdict::Failed);
    }

    #[test]
    fn durations_use_one_clock() {
        let mut row = running("a", 5_000);
        assert_eq!(
            row.duration(Timestamp(6_500)),
            Some(Duration::from_millis(1_500))
        );
        row = ended("a", ExitCause::Killed, 250);
        assert_eq!(
            row.duration(Timestamp(99_999)),
            Some(Duration::from_millis(250))
        );
        assert_eq!(waiting("a", "").duration(Timestamp(1)), None);
    }
}
