//! The store as a dispatcher's queue.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_queue::{
    Call, Capabilities, Change, Queue, QueueError, QueueErrorKind, Refresh, Reply,
};
use longshore_types::ContainerUuid;
use rusqlite::{Connection, OptionalExtension};

use crate::error::sqlite;
use crate::row::{Record, not_found};
use crate::transition::{Refusal, Verdict};
use crate::writer::{Line, Stats, Tx, Writer};
use crate::{OpenError, Settings, schema};

/// The most records in one answer of [`Queue::changes`], and in one page of a refresh.
const PAGE: usize = 1000;

/// The embedded controller: batches and their containers in a directory of this machine.
///
/// Whatever was answered successfully is on the disk and survives a crash. Cheap to share in an
/// [`Arc`]; dropping it waits until what was asked for is written. See the crate documentation.
pub struct Store {
    pub(crate) directory: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    /// What the dispatcher reads, and what it needs to bring output home, waits for nobody else:
    /// however many clients ask for lists, changes reach it at once.
    pub(crate) dispatcher_reader: Reader,
    /// The dispatcher has been told of every change up to this revision.
    told: Mutex<u64>,
    /// Nothing new is taken.
    closed: AtomicBool,
}

/// A reading connection; who reads waits for those that asked before.
#[derive(Clone, Debug)]
pub(crate) struct Reader(Arc<tokio::sync::Mutex<Connection>>);

impl Reader {
    fn new(connection: Connection) -> Self {
        Self(Arc::new(tokio::sync::Mutex::new(connection)))
    }

    pub(crate) async fn read<T, F>(&self, timeout: Duration, read: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    {
        let reader = Arc::clone(&self.0);
        let answer = tokio::time::timeout(timeout, async {
            let connection = reader.lock_owned().await;
            let reading = tokio::task::spawn_blocking(move || read(&connection));
            reading.await.unwrap_or_else(|error| {
                let what = "reading the store was broken off";
                Err(QueueError::caused(QueueErrorKind::Unknown, what, error))
            })
        });
        answer.await.unwrap_or_else(|_| {
            let what = "the store could not be read in time";
            Err(QueueError::new(QueueErrorKind::Unknown, what))
        })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in a directory of its own (`store.sqlite`, `store.lock`, `logs`), making
    /// what is not there.
    ///
    /// Blocks while it reads a few pages, and at most half a second for another process that
    /// reads the file.
    pub fn open(directory: &Path, settings: Settings) -> Result<Self, OpenError> {
        check(&settings)?;
        let opened = schema::open(directory, &settings)?;
        let writer = Writer::start(
            opened.writer,
            opened.lock,
            opened.revision,
            settings.max_waiting_requests,
        )
        .map_err(OpenError::Thread)?;
        Ok(Self {
            directory: directory.to_owned(),
            settings,
            writer,
            reader: Reader::new(opened.reader),
            dispatcher_reader: Reader::new(opened.dispatcher_reader),
            told: Mutex::new(opened.revision),
            closed: AtomicBool::new(false),
        })
    }

    /// Takes nothing new from now on; what is there goes on as before.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// How much was written since it was opened.
    pub fn stats(&self) -> Stats {
        self.writer.stats()
    }

    /// Says why nothing can be written, or nothing new is taken, if that is so. Costs next to nothing
    /// while the last write succeeded.
    pub async fn check(&self, timeout: Duration) -> Result<(), QueueError> {
        self.writer.check(&self.directory, timeout).await?;
        self.check_room(timeout).await
    }

    /// Reads for clients, outside of the async threads.
    pub(crate) async fn read<T, F>(&self, timeout: Duration, read: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    {
        self.reader.read(timeout, read).await
    }

    /// What a container is started from, for clients.
    pub async fn start_document(
        &self,
        uuid: ContainerUuid,
        timeout: Duration,
    ) -> Result<Arc<[u8]>, QueueError> {
        self.read(timeout, move |connection| find_document(connection, uuid))
            .await
    }

    fn told(&self) -> u64 {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_told(&self, revision: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = revision.max(*told);
    }

    /// The changes after `told`, once there are any.
    ///
    /// What was told is only noted together with giving the answer, with no await between: a
    /// caller that drops this future is told again.
    async fn next_changes(&self) -> Result<Vec<Change>, QueueError> {
        let mut committed = self.writer.committed();
        loop {
            let (told, latest) = (self.told(), *committed.borrow_and_update());
            if latest > told {
                let read = move |connection: &Connection| {
                    Record::page(connection, "revision > ?1", told, "revision", PAGE)
                };
                let (records, last) = self.dispatcher_reader.read(Duration::MAX, read).await?;
                // Committed later than `latest` is possible; skipped is nothing.
                self.set_told(last.map_or(latest, |last| last.revision));
                if !records.is_empty() {
                    return Ok(records.into_iter().map(updated).collect());
                }
                continue;
            }
            if committed.changed().await.is_err() {
                return Err(QueueError::new(
                    QueueErrorKind::Unknown,
                    "the store has stopped",
                ));
            }
        }
    }
}

fn updated(record: Record) -> Change {
    Change::Updated(Box::new(record.into_container()))
}

fn check(settings: &Settings) -> Result<(), OpenError> {
    let valid = |name: &'static str, valid: bool| {
        if valid {
            Ok(())
        } else {
            Err(OpenError::Setting { name })
        }
    };
    valid(
        "cluster",
        ContainerUuid::generate(&settings.cluster, [0; 15]).is_ok(),
    )?;
    valid("max_dispatch_attempts", settings.max_dispatch_attempts > 0)?;
    valid(
        "max_waiting_requests",
        (1..=1 << 20).contains(&settings.max_waiting_requests),
    )
}

#[async_trait]
impl Queue for Store {
    async fn refresh(
        &self,
        known: &[ContainerUuid],
        timeout: Duration,
    ) -> Result<Refresh, QueueError> {
        let collect = async {
            let mut refresh = Refresh::default();
            let mut after = 0;
            loop {
                let read = move |connection: &Connection| {
                    Record::page(connection, "state < 3 AND id > ?1", after, "id", PAGE)
                };
                let (records, last) = self.dispatcher_reader.read(Duration::MAX, read).await?;
                let records = records.into_iter().map(Record::into_container);
                refresh.containers.extend(records);
                match last {
                    Some(last) => after = last.id,
                    None => break,
                }
            }
            let seen: BTreeSet<_> = refresh.containers.iter().map(|c| c.uuid).collect();
            let asked = known.iter().filter(|uuid| !seen.contains(uuid));
            let asked: BTreeSet<_> = asked.copied().collect();
            let asked: Vec<_> = asked.into_iter().collect();
            for page in asked.chunks(PAGE) {
                let page = page.to_vec();
                let (found, missing) = self
                    .dispatcher_reader
                    .read(Duration::MAX, move |connection| look_up(connection, &page))
                    .await?;
                refresh.containers.extend(found);
                refresh.removed.extend(missing);
            }
            Ok(refresh)
        };
        tokio::time::timeout(timeout, collect)
            .await
            .unwrap_or_else(|_| {
                let what = "the store could not be read in time";
                Err(QueueError::new(QueueErrorKind::Unknown, what))
            })
    }

    async fn changes(&self, timeout: Duration) -> Result<Vec<Change>, QueueError> {
        tokio::time::timeout(timeout, self.next_changes())
            .await
            .unwrap_or_else(|_| Ok(Vec::new()))
    }

    async fn call(
        &self,
        uuid: ContainerUuid,
        call: &Call,
        timeout: Duration,
    ) -> Result<Reply, QueueError> {
        let call = call.clone();
        let max_attempts = self.settings.max_dispatch_attempts;
        self.writer
            .write_in(Line::Dispatcher, timeout, move |tx| {
                let mut record = Record::load(tx.connection, uuid)?;
                let verdict = record.life.apply(&call, tx.now, max_attempts);
                if verdict.map_err(|refusal| refused(uuid, refusal))? == Verdict::Changed {
                    tx.save(&mut record)?;
                }
                let document = match call {
                    Call::Lock { .. } => Some(document(tx.connection, record.id, uuid)?),
                    _ => None,
                };
                Ok(Reply {
                    container: record.into_container(),
                    document,
                })
            })
            .await
    }

    async fn document(
        &self,
        uuid: ContainerUuid,
        timeout: Duration,
    ) -> Result<Arc<[u8]>, QueueError> {
        let read = move |connection: &Connection| find_document(connection, uuid);
        self.dispatcher_reader.read(timeout, read).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            pushes: true,
            takes_reports: true,
        }
    }
}

type LookedUp = (Vec<longshore_types::Container>, Vec<ContainerUuid>);

/// Containers by their UUID, and those that do not exist.
fn look_up(connection: &Connection, uuids: &[ContainerUuid]) -> Result<LookedUp, QueueError> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for &uuid in uuids {
        match Record::find(connection, uuid) {
            Ok(Some(record)) => found.push(record.into_container()),
            Ok(None) => missing.push(uuid),
            Err(error) if error.kind == QueueErrorKind::BadRecord => {
                tracing::error!(container_uuid = %uuid, %error, "left out of a refresh");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((found, missing))
}

fn find_document(connection: &Connection, uuid: ContainerUuid) -> Result<Arc<[u8]>, QueueError> {
    let record = Record::load(connection, uuid)?;
    document(connection, record.id, uuid)
}

fn document(
    connection: &Connection,
    id: i64,
    uuid: ContainerUuid,
) -> Result<Arc<[u8]>, QueueError> {
    let bytes: Option<Vec<u8>> = connection
        .prepare_cached("SELECT document FROM documents WHERE container = ?1")
        .and_then(|mut statement| statement.query_row([id], |row| row.get(0)).optional())
        .map_err(|e| sqlite("a start document could not be read", e))?;
    let missing = || {
        let what = format!("container {uuid} has no start document");
        QueueError::new(QueueErrorKind::BadRecord, what)
    };
    Ok(bytes.ok_or_else(missing)?.into())
}

pub(crate) fn refused(uuid: ContainerUuid, refusal: Refusal) -> QueueError {
    QueueError::new(
        QueueErrorKind::Refused,
        format!("container {uuid}: {}", refusal.0),
    )
}

/// Changes one container on behalf of a user.
pub(crate) fn change(
    tx: &mut Tx<'_>,
    uuid: ContainerUuid,
    change: impl FnOnce(&mut Record) -> Result<Verdict, Refusal>,
) -> Result<(), QueueError> {
    let mut record = Record::find(tx.connection, uuid)?.ok_or_else(|| not_found(uuid))?;
    if change(&mut record).map_err(|refusal| refused(uuid, refusal))? == Verdict::Changed {
        tx.save(&mut record)?;
    }
    Ok(())
}
