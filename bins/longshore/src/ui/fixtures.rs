//! Rows for tests.

use longshore_types::{ContainerState, Exit, ExitCause, Timestamp};

use super::JobRow;

fn row(name: &str, state: ContainerState) -> JobRow {
    JobRow {
        name: name.into(),
        state,
        reason: None,
        attempts: 0,
        cancel_requested: false,
        exit: None,
        error: None,
        started_at: None,
        finished_at: None,
        stdout: None,
        stderr: None,
    }
}

pub(super) fn waiting(name: &str, reason: &str) -> JobRow {
    let mut row = row(name, ContainerState::Queued);
    row.reason = Some(reason.into());
    row
}

pub(super) fn running(name: &str, started_at: i64) -> JobRow {
    let mut row = row(name, ContainerState::Running);
    row.started_at = Some(Timestamp(started_at));
    row.attempts = 1;
    row
}

pub(super) fn ended(name: &str, cause: ExitCause, millis: i64) -> JobRow {
    let mut row = row(name, ContainerState::Complete);
    row.attempts = 1;
    row.exit = Some(Exit {
        started_at: Some(Timestamp(1_000)),
        finished_at: Some(Timestamp(1_000 + millis)),
        ..Exit::unseen(cause)
    });
    row.stdout = Some(format!("/logs/{name}/stdout").into());
    row.stderr = Some(format!("/logs/{name}/stderr").into());
    row
}

pub(super) fn cancelled(name: &str, error: Option<&str>) -> JobRow {
    let mut row = row(name, ContainerState::Cancelled);
    row.cancel_requested = error.is_none();
    row.error = error.map(str::to_owned);
    row
}
