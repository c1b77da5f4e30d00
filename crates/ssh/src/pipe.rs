//! What a process and the task of its connection share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_exec::{ExitStatus, Output};
use tokio::sync::Notify;

use crate::error::Fault;

/// The most bytes of output that wait for the caller, and of input that wait for the connection.
pub(crate) const CAPACITY: usize = 64 * 1024;

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Surely not sent.
    Queued,
    /// Perhaps sent.
    Sent,
    /// The server says that it runs.
    Running,
}

/// One process, seen from both sides.
#[derive(Debug)]
pub(crate) struct Pipe {
    state: Mutex<State>,
    /// Wakes the process.
    changed: Notify,
    /// Wakes the task of the connection.
    wake: Arc<Notify>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) stage: Stage,
    output: VecDeque<Output>,
    output_bytes: usize,
    /// Everything that the streams carried is in `output` or was taken from it.
    pub(crate) ended: bool,
    /// How the command ended, once that is known; it may be before the streams end.
    pub(crate) status: Option<Option<ExitStatus>>,
    input: Vec<u8>,
    pub(crate) input_closed: bool,
    pub(crate) fault: Option<Fault>,
    /// Nobody is interested any more.
    dropped: bool,
}

impl State {
    /// Takes the next piece of output; the flag says whether the connection waits for the room.
    pub(crate) fn take_output(&mut self) -> Option<(Output, bool)> {
        let output = self.output.pop_front()?;
        let full = self.output_bytes >= CAPACITY;
        self.output_bytes -= length(&output);
        Some((output, full))
    }

    /// Whether the connection has nothing more to do with it.
    pub(crate) fn is_over(&self) -> bool {
        self.ended || self.fault.is_some()
    }

    /// Takes as much of `bytes` as there is room for.
    pub(crate) fn put_input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(CAPACITY - self.input.len());
        self.input.extend_from_slice(&bytes[..taken]);
        taken
    }
}

fn length(output: &Output) -> usize {
    match output {
        Output::Stdout(bytes) | Output::Stderr(bytes) => bytes.len(),
    }
}

/// The side of the process.
impl Pipe {
    pub(crate) fn new(wake: Arc<Notify>) -> Self {
        Self {
            state: Mutex::new(State {
                stage: Stage::Queued,
                output: VecDeque::new(),
                output_bytes: 0,
                ended: false,
                status: None,
                input: Vec::new(),
                input_closed: false,
                fault: None,
                dropped: false,
            }),
            changed: Notify::new(),
            wake,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns after the connection changed something since the last return.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Gives the command up, and says how far it had come. If it was not sent it never will be.
    pub(crate) fn give_up(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.dropped = true;
        state
    }

    pub(crate) fn wake_connection(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn drop_process(&self) {
        let mut state = self.lock();
        state.dropped = true;
        state.output.clear();
        state.input = Vec::new();
        let over = state.is_over();
        drop(state);
        if !over {
            self.wake_connection();
        }
    }
}

/// The side of the connection.
impl Pipe {
    pub(crate) fn is_dropped(&self) -> bool {
        self.lock().dropped
    }

    /// Whether the command is to be sent; from then on it counts as sent, perhaps.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        let wanted = !state.dropped && state.fault.is_none();
        if wanted {
            state.stage = Stage::Sent;
        }
        wanted
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.lock().stage = stage;
        if stage == Stage::Running {
            self.changed.notify_one();
        }
    }

    /// How many bytes of output may be added.
    pub(crate) fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.lock().output_bytes)
    }

    pub(crate) fn push(&self, output: Output) {
        let bytes = length(&output);
        if bytes == 0 {
            return;
        }
        let mut state = self.lock();
        state.output.push_back(output);
        state.output_bytes += bytes;
        drop(state);
        self.changed.notify_one();
    }

    /// Takes all input that waits; `None` once it was closed and there is no more.
    pub(crate) fn take_input(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        if state.input.is_empty() {
            return (!state.input_closed).then(Vec::new);
        }
        let input = std::mem::take(&mut state.input);
        drop(state);
        self.changed.notify_one();
        Some(input)
    }

    pub(crate) fn set_status(&self, status: Option<ExitStatus>) {
        self.lock().status = Some(status);
        self.changed.notify_one();
    }

    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    pub(crate) fn fail(&self, fault: Fault) {
        let mut state = self.lock();
        if !state.ended && state.fault.is_none() {
            state.fault = Some(fault);
        }
        drop(state);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_unsent_is_never_sent() {
        let pipe = || Pipe::new(Arc::new(Notify::new()));
        let given_up = pipe();
        assert_eq!(given_up.give_up().stage, Stage::Queued);
        assert!(!given_up.begin());
        assert_eq!(given_up.lock().stage, Stage::Queued);
        let sent = pipe();
        assert!(sent.begin());
        assert_eq!(sent.give_up().stage, Stage::Sent, "it may run");
    }
}
