//! How the program ends.

use std::fmt;
use std::process::ExitCode;

use crate::jobfile::Problem;
use crate::service::client::ClientError;
use crate::state::StateError;
use crate::tell;
use crate::text::clean;

/// How a command ended, for its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has its documented exit code")]
pub enum Ending {
    /// All succeeded: 0.
    Succeeded,
    /// Some jobs failed, or a simulation found a broken promise: 1.
    Failed,
    /// Instances are left: 3.
    InstancesLeft,
    /// What is recorded would be found by nobody: the state directory, or the store in it, was
    /// removed, moved or replaced: 4.
    StateLost,
    /// Ctrl-C, and everything was ended: 130.
    Interrupted,
}

impl Ending {
    /// The exit code as a number.
    pub fn code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::InstancesLeft => 3,
            Self::StateLost => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending.code())
    }
}

/// Something that the user has to put right before anything can start; exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl UsageError {
    /// One sentence, with what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<Vec<Problem>> for UsageError {
    /// All problems of a job file, one a line.
    fn from(problems: Vec<Problem>) -> Self {
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        Self(lines.join("\n"))
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Tells the user and the log about an error, and gives the exit code for it.
pub fn tell_error(error: &anyhow::Error) -> u8 {
    let (code, lines) = explain(error);
    tracing::error!("{lines}");
    tell!("{lines}");
    code
}

/// The exit code for an error, and the lines that tell the user about it: a usage error as it
/// is, any other with its causes. A state directory that cannot be used is wrong usage, too, and so is
/// what the service does not have; but a full disk is not.
pub fn explain(error: &anyhow::Error) -> (u8, String) {
    if let Some(usage) = error.downcast_ref::<UsageError>() {
        return (2, usage.to_string());
    }
    let another_would_do = |state: &StateError| !state.is_full();
    let state = error.downcast_ref::<StateError>();
    let client = error.downcast_ref::<ClientError>();
    let is_usage =
        state.is_some_and(another_would_do) || client.is_some_and(ClientError::is_not_there);
    let code = if is_usage { 2 } else { 1 };
    let causes: Vec<String> = error
        .chain()
        .map(|cause| clean(&cause.to_string()))
        .collect();
    (code, format!("longshore: {}", causes.join(": ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let usage = anyhow::Error::new(UsageError::new("a.yml: is empty"));
        assert_eq!(explain(&usage), (2, "a.yml: is empty".into()));
        let deep = Err::<(), _>(std::io::Error::other("disk\x07 full"));
        let error = deep.context("cannot write").unwrap_err();
        let line = "longshore: cannot write: disk\\u{7} full";
        assert_eq!(explain(&error), (1, line.into()));
    }

    #[test]
    fn a_full_disk_is_not_the_users_mistake() {
        let code = |kind: std::io::ErrorKind| {
            let error = StateError::unusable(Path::new("/s"), "making it", kind.into());
            explain(&error.into()).0
        };
        assert_eq!(code(std::io::ErrorKind::PermissionDenied), 2);
        assert_eq!(code(std::io::ErrorKind::StorageFull), 1);
    }

    #[test]
    fn all_problems_are_told() {
        let problem = |message: &str| Problem {
            path: "a.yml".into(),
            at: None,
            message: message.into(),
        };
        let error = UsageError::from(vec![problem("x"), problem("y")]);
        assert_eq!(error.to_string(), "a.yml: x\na.yml: y");
    }
}
