//! One connection: what its task and the executor share, and the task.

use std::collections::VecDeque;
use std::future::{poll_fn, ready};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_exec::{Phase, Target};
use longshore_types::InstanceId;
use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::engine::Engine;
use crate::error::{Fault, SshError};
use crate::executor::Shared;
use crate::handshake::establish;
use crate::job::Start;
use crate::stats::add;

/// After this many bytes at a time the task lets others run.
const FAIR: usize = 32 * 1024;
/// How long [`Connection::finished`] waits.
const FINISH: Duration = Duration::from_secs(1);

/// A connection to an instance, being made, open, or gone.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) instance: InstanceId,
    pub(crate) address: String,
    pub(crate) user: String,
    /// Whether the host is identified before commands run.
    pub(crate) checked: bool,
    queue: Mutex<Queue>,
    pub(crate) wake: Arc<Notify>,
    finished: watch::Sender<bool>,
}

#[derive(Debug)]
struct Queue {
    starts: VecDeque<Start>,
    /// Commands that the task took and that have no channel yet.
    waiting: usize,
    limit: usize,
    phase: Phase,
    closed: Option<Fault>,
    stop: bool,
}

/// Whether the commands of the callers may run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    Shut,
}

impl Connection {
    pub(crate) fn new(target: &Target, checked: bool, limit: usize) -> Self {
        Self {
            instance: target.instance.clone(),
            address: target.address.clone(),
            user: target.user.clone(),
            checked,
            queue: Mutex::new(Queue {
                starts: VecDeque::new(),
                waiting: 0,
                limit,
                phase: Phase::Connect,
                closed: None,
                stop: false,
            }),
            wake: Arc::new(Notify::new()),
            finished: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether commands can still be given to it.
    pub(crate) fn is_usable(&self) -> bool {
        let queue = self.lock();
        queue.closed.is_none() && !queue.stop
    }

    /// How far it has come.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    /// Puts a command in line, or fails it.
    pub(crate) fn submit(&self, start: Start) {
        let mut queue = self.lock();
        if let Some(fault) = &queue.closed {
            start.pipe.fail(fault.clone());
            return;
        }
        if queue.starts.len() + queue.waiting >= queue.limit {
            queue.starts.retain(|start| !start.pipe.is_dropped());
        }
        let waiting = queue.starts.len() + queue.waiting;
        if waiting >= queue.limit {
            let fault = Fault::late(SshError::QueueFull(waiting)).without_retry();
            start.pipe.fail(fault);
            return;
        }
        queue.starts.push_back(start);
        drop(queue);
        self.wake.notify_one();
    }

    /// Asks the task to close the connection.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Returns when the task has closed the connection; it does so at once when asked to.
    pub(crate) async fn finished(&self) {
        let mut finished = self.finished.subscribe();
        // If the task is kept from running, the connection is closed later.
        let _ = timeout(FINISH, finished.wait_for(|finished| *finished)).await;
    }

    /// Takes back the wish to be woken, by somebody whose wish is about to be seen to.
    async fn settle(&self) {
        tokio::select! {
            biased;
            () = self.wake.notified() => {}
            () = ready(()) => {}
        }
    }

    async fn stopped(&self) {
        while !self.lock().stop {
            self.wake.notified().await;
        }
    }

    /// Moves new commands to the task; the answer says whether it shall stop.
    fn take(&self, starts: &mut VecDeque<Start>, gate: Gate) -> bool {
        let mut queue = self.lock();
        if gate == Gate::Open {
            starts.append(&mut queue.starts);
            queue.waiting = starts.len();
        }
        queue.stop
    }

    fn set_waiting(&self, waiting: usize) {
        self.lock().waiting = waiting;
    }

    /// Refuses commands from now on, and fails those in line.
    fn close(&self, fault: &Fault) {
        let mut queue = self.lock();
        queue.closed.get_or_insert_with(|| fault.clone());
        for start in queue.starts.drain(..) {
            start.pipe.fail(fault.clone());
        }
    }
}

/// Makes the connection, runs commands on it until it is stopped or breaks, and fails what is left.
pub(crate) async fn run(connection: Arc<Connection>, shared: Arc<Shared>, target: Target) {
    let counters = Arc::clone(&shared.counters);
    let established = tokio::select! {
        // On the heap, so that an idle connection does not keep the room for it.
        result = Box::pin(establish(&connection, &shared, &target)) => result,
        () = connection.stopped() => Err(Fault::late(SshError::Disconnected)),
    };
    match established {
        Ok(mut engine) => {
            add(&counters.connections_made, 1);
            connection.set_phase(Phase::Open);
            let mut starts = VecDeque::new();
            let fault = serve(&mut engine, &mut starts, &connection, Gate::Open).await;
            tracing::debug!(instance = %connection.instance, reason = %fault.source, "connection closed");
            connection.close(&fault);
            for start in starts {
                start.pipe.fail(fault.clone());
            }
            engine.fail(&fault);
            engine.say_goodbye();
            drop(engine);
            add(&counters.connections_ended, 1);
        }
        Err(fault) => {
            tracing::debug!(instance = %connection.instance, reason = %fault.source, "no connection");
            add(&counters.connections_failed, 1);
            connection.close(&fault);
        }
    }
    shared.forget(&connection);
    connection.finished.send_replace(true);
}

/// Runs commands until the connection ends; the answer says why.
///
/// It may be dropped at any await, and called again.
pub(crate) async fn serve(
    engine: &mut Engine,
    starts: &mut VecDeque<Start>,
    connection: &Connection,
    gate: Gate,
) -> Fault {
    let mut timer = pin!(sleep(Duration::ZERO));
    let mut armed: Option<Instant> = None;
    loop {
        connection.settle().await;
        if connection.take(starts, gate) {
            return Fault::late(SshError::Disconnected);
        }
        if let Err(error) = engine.turn(starts) {
            return Fault::late(error);
        }
        if gate == Gate::Open {
            connection.set_waiting(starts.len());
            if engine.is_worn() && starts.is_empty() {
                return Fault::late(SshError::TooMuch(engine.link.received));
            }
        }
        // The timer is only ever moved to an earlier time; one that fires early does no harm.
        if let Some(due) = engine.due()
            && armed.is_none_or(|armed| due < armed)
        {
            timer.as_mut().reset(due);
            armed = Some(due);
        }
        tokio::select! {
            biased;
            () = connection.wake.notified() => {}
            turn = poll_fn(|cx| engine.link.poll_turn(cx)) => match turn {
                Ok(count) if count >= FAIR => yield_now().await,
                Ok(_) => {}
                Err(error) => return lose(engine, starts, connection, error).await,
            },
            () = &mut timer, if armed.is_some() => {
                armed = None;
                if engine.is_overdue(Instant::now()) {
                    return Fault::late(SshError::NoAnswer);
                }
            }
        }
    }
}

/// The other side is gone. What it sent before is still given to the callers.
async fn lose(
    engine: &mut Engine,
    starts: &mut VecDeque<Start>,
    connection: &Connection,
    error: SshError,
) -> Fault {
    let fault = Fault::late(error);
    connection.close(&fault);
    for start in starts.drain(..) {
        start.pipe.fail(fault.clone());
    }
    loop {
        engine.turn_lost(&fault);
        if !engine.has_jobs() || connection.lock().stop {
            return fault;
        }
        connection.wake.notified().await;
    }
}
