//! The caller's end of a command.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use longshore_exec::{ExecError, ExitStatus, Output, Phase, Process};
use tokio::time::{Instant, timeout_at};

use crate::error::{Fault, SshError};
use crate::pipe::{Pipe, Stage, State};

/// A command on its way through a connection.
pub(crate) struct SshProcess {
    pipe: Arc<Pipe>,
    deadline: Instant,
}

impl fmt::Debug for SshProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshProcess").finish_non_exhaustive()
    }
}

/// Why a command could not be started.
pub(crate) enum NotStarted {
    /// The connection is gone and the command was surely not sent: try another connection.
    Retry(ExecError),
    Failed(ExecError),
}

impl SshProcess {
    pub(crate) fn new(pipe: Arc<Pipe>, deadline: Instant) -> Self {
        Self { pipe, deadline }
    }

    /// Waits until the server says that the command runs. `phase` says how far the connection is.
    pub(crate) async fn started(&self, phase: impl Fn() -> Phase) -> Result<(), NotStarted> {
        loop {
            {
                let state = self.pipe.lock();
                if let Some(fault) = &state.fault {
                    let error = explain(&state, fault);
                    let retry = fault.retry && state.stage == Stage::Queued;
                    return Err(match retry {
                        true => NotStarted::Retry(error),
                        false => NotStarted::Failed(error),
                    });
                }
                if state.stage == Stage::Running {
                    return Ok(());
                }
            }
            if timeout_at(self.deadline, self.pipe.changed())
                .await
                .is_err()
            {
                let fault = Fault::early(phase(), SshError::Deadline);
                let error = explain(&self.pipe.give_up(), &fault);
                return Err(NotStarted::Failed(error));
            }
        }
    }

    /// Waits for `ready` to say something.
    async fn until<T>(
        &self,
        mut ready: impl FnMut(&mut State) -> Option<Result<T, ExecError>>,
    ) -> Result<T, ExecError> {
        loop {
            if let Some(result) = ready(&mut self.pipe.lock()) {
                return result;
            }
            if timeout_at(self.deadline, self.pipe.changed())
                .await
                .is_err()
            {
                return Err(ExecError::may_have_run(Phase::Command, SshError::Deadline));
            }
        }
    }
}

/// The error of one command when its connection has a fault.
fn explain(state: &State, fault: &Fault) -> ExecError {
    let late = match state.stage {
        Stage::Running => Phase::Command,
        Stage::Queued | Stage::Sent => Phase::Open,
    };
    let phase = fault.phase.unwrap_or(late);
    match state.stage {
        Stage::Queued => ExecError::not_run(phase, fault.source.clone()),
        Stage::Sent | Stage::Running => ExecError::may_have_run(phase, fault.source.clone()),
    }
}

#[async_trait]
impl Process for SshProcess {
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
        let mut rest = bytes;
        let pipe = Arc::clone(&self.pipe);
        self.until(|state| {
            if let Some(fault) = &state.fault {
                return Some(Err(explain(state, fault)));
            }
            if state.input_closed {
                let error = ExecError::may_have_run(Phase::Command, SshError::InputClosed);
                return Some(Err(error));
            }
            if state.ended {
                return Some(Ok(()));
            }
            let taken = state.put_input(rest);
            rest = &rest[taken..];
            if taken > 0 {
                pipe.wake_connection();
            }
            rest.is_empty().then_some(Ok(()))
        })
        .await
    }

    async fn close_stdin(&mut self) -> Result<(), ExecError> {
        let mut state = self.pipe.lock();
        if !state.input_closed {
            state.input_closed = true;
            let over = state.is_over();
            drop(state);
            if !over {
                self.pipe.wake_connection();
            }
        }
        Ok(())
    }

    async fn output(&mut self) -> Result<Option<Output>, ExecError> {
        let pipe = Arc::clone(&self.pipe);
        self.until(|state| {
            if let Some((output, full)) = state.take_output() {
                if full {
                    pipe.wake_connection();
                }
                return Some(Ok(Some(output)));
            }
            if state.ended {
                return Some(Ok(None));
            }
            let fault = state.fault.as_ref()?;
            Some(Err(explain(state, fault)))
        })
        .await
    }

    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        let pipe = Arc::clone(&self.pipe);
        self.until(|state| {
            let mut full = false;
            while let Some((_, was_full)) = state.take_output() {
                full |= was_full;
            }
            if full {
                pipe.wake_connection();
            }
            if let Some(status) = &state.status {
                return Some(Ok(status.clone()));
            }
            let fault = state.fault.as_ref()?;
            Some(Err(explain(state, fault)))
        })
        .await
    }
}

impl Drop for SshProcess {
    fn drop(&mut self) {
        self.pipe.drop_process();
    }
}
