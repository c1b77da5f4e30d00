//! The one thread that writes, with group commit.
//!
//! Requests that arrive while a transaction is being committed go into the next one together: one
//! sync for all of them. Each has a savepoint of its own, so one that fails takes nothing else
//! with it, and none is answered before the commit.
//!
//! There are two lines. What the dispatcher asks goes first, however many clients wait in theirs;
//! and these are taken in groups that keep the next request of the dispatcher waiting for a moment
//! only.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::Timestamp;
use rusqlite::Connection;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::sqlite;
use crate::row::Record;
use crate::schema;

/// The most requests of the dispatcher in one transaction, so that the first of them is not kept
/// waiting.
const MAX_GROUP: usize = 256;
/// The most requests of clients in one.
pub(crate) const MAX_CLIENTS: usize = 32;

/// Counts of what was written since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that were carried out or refused.
    pub requests: u64,
    /// Transactions that were committed; each is synced to the disk once.
    pub commits: u64,
}

/// What a request may use while it is being carried out.
#[derive(Debug)]
pub(crate) struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) now: Timestamp,
    revision: &'a mut u64,
}

impl Tx<'_> {
    /// A revision that no record has yet.
    pub(crate) fn next_revision(&mut self) -> u64 {
        *self.revision += 1;
        *self.revision
    }

    /// Carries out a part so that its failure, which is the inner error, leaves nothing behind. The
    /// outer error means that the whole transaction is lost.
    pub(crate) fn apart<T>(
        &mut self,
        part: impl FnOnce(&mut Self) -> Result<T, QueueError>,
    ) -> Result<Result<T, QueueError>, QueueError> {
        statement(self.connection, "SAVEPOINT part")?;
        let outcome = part(self);
        // The database engine gives up the whole transaction after some errors.
        if self.connection.is_autocommit() {
            let lost =
                || QueueError::new(QueueErrorKind::Unavailable, "the transaction was given up");
            return Err(outcome.err().unwrap_or_else(lost));
        }
        if outcome.is_err() {
            statement(self.connection, "ROLLBACK TO part")?;
        }
        statement(self.connection, "RELEASE part")?;
        Ok(outcome)
    }

    /// Writes a container that was changed. One that is final was not before: nothing changes it
    /// then.
    pub(crate) fn save(&mut self, record: &mut Record) -> Result<(), QueueError> {
        record.revision = self.next_revision();
        record.save(self.connection)?;
        if record.life.state.is_final() {
            self.connection
                .prepare_cached(
                    "UPDATE batches SET open_jobs = open_jobs - 1, \
                     finished_at = CASE open_jobs WHEN 1 THEN ?2 ELSE finished_at END \
                     WHERE id = ?1",
                )
                .and_then(|mut statement| statement.execute((record.batch, self.now.0)))
                .map_err(|e| sqlite("a batch could not be written", e))?;
        }
        Ok(())
    }
}

/// The way to the thread that writes. Dropping it lets what is waiting be written, then closes.
#[derive(Debug)]
pub(crate) struct Writer {
    lines: Option<Lines<mpsc::Sender<Box<dyn Work>>>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    committed: watch::Sender<u64>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Dispatcher,
    Clients,
}

/// An end of both lines.
#[derive(Debug)]
struct Lines<T> {
    dispatcher: T,
    clients: T,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    commits: AtomicU64,
    /// Whether the last transaction could not be committed.
    failed: AtomicBool,
}

impl Writer {
    /// Starts the thread; `lock` is held until it has ended.
    pub(crate) fn start(
        connection: Connection,
        lock: File,
        revision: u64,
        max_waiting: usize,
    ) -> io::Result<Self> {
        let (dispatcher, from_dispatcher) = mpsc::channel(max_waiting);
        let (clients, from_clients) = mpsc::channel(max_waiting);
        let requests = Lines {
            dispatcher: from_dispatcher,
            clients: from_clients,
        };
        let counters = Arc::new(Counters::default());
        let committed = watch::Sender::new(revision);
        let mut state = WriterThread {
            connection,
            revision,
            counters: Arc::clone(&counters),
            committed: committed.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("store writer".into())
            .spawn(move || {
                state.run(requests);
                drop(state);
                // Not only closed: a process that is just being started has a copy for a moment.
                let _ = lock.unlock();
            })?;
        Ok(Self {
            lines: Some(Lines {
                dispatcher,
                clients,
            }),
            thread: Some(thread),
            counters,
            committed,
        })
    }

    /// Says why nothing can be written, if that is so: after a transaction that failed it looks
    /// whether `directory` has room, and tries a transaction that changes nothing.
    pub(crate) async fn check(
        &self,
        directory: &Path,
        timeout: Duration,
    ) -> Result<(), QueueError> {
        if !self.counters.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A page may find room where a job does not.
        let directory = directory.to_owned();
        let looked = tokio::task::spawn_blocking(move || schema::look_for_room(&directory));
        let broken_off = |error| {
            let what = "looking for room was broken off";
            Err(QueueError::caused(QueueErrorKind::Unknown, what, error))
        };
        looked.await.unwrap_or_else(broken_off)?;
        self.write(timeout, |tx| schema::touch(tx.connection)).await
    }

    /// Carries out a request of a client, as [`Writer::write_in`].
    pub(crate) async fn write<T, F>(&self, timeout: Duration, request: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, QueueError> + Send + 'static,
    {
        self.write_in(Line::Clients, timeout, request).await
    }

    /// Carries out a request in a transaction; when this returns successfully it is on the disk.
    ///
    /// The request may be carried out more than once, of which all but one are rolled back. One that
    /// is given up before it was begun, by the timeout or by dropping this, is never carried out.
    pub(crate) async fn write_in<T, F>(
        &self,
        line: Line,
        timeout: Duration,
        request: F,
    ) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, QueueError> + Send + 'static,
    {
        let stopped = || QueueError::new(QueueErrorKind::Unknown, "the store has stopped");
        let mut in_line = false;
        let taken = Arc::new(AtomicBool::new(false));
        let answer = tokio::time::timeout(timeout, async {
            let lines = self.lines.as_ref().ok_or_else(stopped)?;
            let sender = match line {
                Line::Dispatcher => &lines.dispatcher,
                Line::Clients => &lines.clients,
            };
            let place = sender.reserve().await.map_err(|_| stopped())?;
            let (reply, answer) = oneshot::channel();
            place.send(Box::new(Request {
                request,
                value: None,
                reply,
                taken: Arc::clone(&taken),
                is_ours: false,
            }));
            in_line = true;
            self.wake();
            answer.await.map_err(|_| stopped())?
        })
        .await;
        answer.unwrap_or_else(|_| {
            // From here on nobody begins with it, if nobody has.
            let (kind, what) = match (in_line, taken.swap(true, Ordering::SeqCst)) {
                (_, true) => (QueueErrorKind::Unknown, "the store did not answer in time"),
                (true, false) => (
                    QueueErrorKind::Unavailable,
                    "the store did not come to it in time; try again",
                ),
                (false, false) => (
                    QueueErrorKind::Overloaded,
                    "too many requests wait for the store",
                ),
            };
            Err(QueueError::new(kind, what))
        })
    }

    /// Has the thread look at the lines: now, or as soon as it would wait.
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Tells of the largest revision that was committed, whenever it grows.
    pub(crate) fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            requests: self.counters.requests.load(Ordering::Relaxed),
            commits: self.counters.commits.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.lines.take());
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the store had panicked");
        }
    }
}

/// A request, whatever its answer.
trait Work: Send {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
    /// Takes it, before it is carried out; false if it was given up.
    fn begin(&mut self) -> bool;
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), QueueError>;
    /// Answers it; called once, after the commit, or after it failed.
    fn finish(self: Box<Self>, outcome: Result<(), QueueError>);
}

struct Request<T, F> {
    request: F,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, QueueError>>,
    /// Whether it was begun, or given up: whichever came first.
    taken: Arc<AtomicBool>,
    /// It was begun.
    is_ours: bool,
}

impl<T, F> Work for Request<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T, QueueError> + Send,
{
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn begin(&mut self) -> bool {
        self.is_ours = self.is_ours || !self.taken.swap(true, Ordering::SeqCst);
        self.is_ours && !self.is_abandoned()
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), QueueError> {
        self.value = None;
        self.value = Some((self.request)(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), QueueError>) {
        let unfinished = || QueueError::new(QueueErrorKind::Unknown, "the store has stopped");
        let Self { value, reply, .. } = *self;
        // Whoever asked may have gone.
        let _ = reply.send(outcome.and_then(|()| value.ok_or_else(unfinished)));
    }
}

struct WriterThread {
    connection: Connection,
    revision: u64,
    counters: Arc<Counters>,
    committed: watch::Sender<u64>,
}

impl WriterThread {
    fn run(&mut self, mut requests: Lines<mpsc::Receiver<Box<dyn Work>>>) {
        loop {
            let mut group = Vec::new();
            let mut is_open = take(&mut requests.dispatcher, MAX_GROUP, &mut group);
            is_open |= take(&mut requests.clients, MAX_CLIENTS, &mut group);
            match (group.is_empty(), is_open) {
                (true, true) => {
                    std::thread::park();
                    continue;
                }
                (true, false) => return,
                (false, _) => {}
            }
            group.retain(|work| !work.is_abandoned());
            self.counters
                .requests
                .fetch_add(group.len() as u64, Ordering::Relaxed);
            self.carry_out(group);
        }
    }

    fn carry_out(&mut self, mut group: Vec<Box<dyn Work>>) {
        match self.commit(&mut group) {
            Ok(outcomes) => {
                for (work, outcome) in group.into_iter().zip(outcomes) {
                    work.finish(outcome);
                }
            }
            // One that asks for too much must not spoil it for the others.
            Err(failure) if group.len() > 1 && !failure.may_have_acted() => {
                for work in group {
                    self.carry_out(vec![work]);
                }
            }
            Err(failure) => {
                self.counters.failed.store(true, Ordering::Relaxed);
                let what = failure.what.clone();
                let kind = failure.kind;
                tracing::error!(error = %chain(&failure), "a transaction failed");
                let mut failure = Some(failure);
                for work in group {
                    let error = failure
                        .take()
                        .unwrap_or_else(|| QueueError::new(kind, &what));
                    work.finish(Err(error));
                }
            }
        }
    }

    /// Carries out the group in one transaction. An error means that all of it failed.
    fn commit(
        &mut self,
        group: &mut [Box<dyn Work>],
    ) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        let connection = &self.connection;
        let outcome = (|| {
            statement(connection, "BEGIN IMMEDIATE")?;
            let mut tx = Tx {
                connection,
                now: Timestamp::from_system(SystemTime::now()),
                revision: &mut self.revision,
            };
            let outcomes = group
                .iter_mut()
                .map(|work| match work.begin() {
                    true => tx.apart(|tx| work.run(tx)),
                    false => Ok(Err(given_up())),
                })
                .collect::<Result<Vec<_>, _>>()?;
            statement(connection, "COMMIT")?;
            Ok(outcomes)
        })();
        if let Ok(outcomes) = &outcome {
            // Where all was refused nothing had to be written.
            if outcomes.iter().any(Result::is_ok) {
                self.counters.failed.store(false, Ordering::Relaxed);
            }
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            self.committed.send_if_modified(|last| {
                let grown = *last < self.revision;
                *last = self.revision;
                grown
            });
        } else if !connection.is_autocommit()
            && let Err(error) = statement(connection, "ROLLBACK")
        {
            tracing::error!(error = %chain(&error), "a transaction could not be rolled back");
        }
        outcome
    }
}

/// Takes what waits in a line, at most so many; false if nothing more will come.
fn take(
    line: &mut mpsc::Receiver<Box<dyn Work>>,
    most: usize,
    group: &mut Vec<Box<dyn Work>>,
) -> bool {
    for _ in 0..most {
        match line.try_recv() {
            Ok(work) => group.push(work),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
    true
}

/// What becomes of a request of which nobody waits for the answer.
fn given_up() -> QueueError {
    QueueError::new(QueueErrorKind::Overloaded, "the request was given up")
}

fn statement(connection: &Connection, sql: &'static str) -> Result<(), QueueError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(()))
        .map(|_| ())
        .map_err(|e| sqlite("the store could not be written", e))
}

/// An error and its cause as one line.
fn chain(error: &QueueError) -> String {
    match &error.source {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
