//! Container requests: what clients of the HTTP API ask for, and the container that each became.

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::{ContainerUuid, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::{Map, Value};

use crate::batch::{Inserted, Prepared, insert, prepare};
use crate::error::sqlite;
use crate::row::{Record, not_found};
use crate::store::{change, refused};
use crate::transition::Refusal;
use crate::writer::Tx;
use crate::{NewJob, Store};

/// The attributes of a request as a client gave them.
pub type RequestAttributes = Map<String, Value>;

/// A request, and its container once it was committed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ContainerRequest {
    /// Its UUID: that of a container, with another type in the middle.
    pub uuid: String,
    /// What the client gave.
    pub attributes: RequestAttributes,
    /// What it became.
    pub container: Option<ContainerUuid>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the client changed it last.
    pub modified_at: Timestamp,
}

const COLUMNS: &str = "r.uuid, r.attributes, c.uuid, r.created_at, r.modified_at \
    FROM requests r LEFT JOIN containers c ON c.id = r.container";

impl Store {
    /// Stores a request. With a job it is committed: its container is queued with the priority
    /// given, 0 included.
    pub async fn create_request(
        &self,
        attributes: RequestAttributes,
        job: Option<NewJob>,
        priority: i64,
    ) -> Result<ContainerRequest, QueueError> {
        let prepared = self.prepared(job, priority)?;
        let uuid = self.request_uuid()?;
        let text = Value::Object(attributes).to_string();
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                let container = commit(tx, &uuid, prepared.as_ref())?;
                tx.connection
                    .prepare_cached(
                        "INSERT INTO requests (uuid, container, attributes, created_at, \
                         modified_at) VALUES (?1, ?2, ?3, ?4, ?4)",
                    )
                    .and_then(|mut s| s.execute((&uuid, container, &text, tx.now.0)))
                    .map_err(|e| sqlite("a request could not be written", e))?;
                load(tx.connection, &uuid)
            })
            .await
    }

    /// Gives a request these attributes in place of the ones it had; with a job commits it unless
    /// it was committed; with a priority changes that of its container.
    pub async fn update_request(
        &self,
        uuid: &str,
        attributes: RequestAttributes,
        job: Option<NewJob>,
        priority: Option<i64>,
    ) -> Result<ContainerRequest, QueueError> {
        let prepared = self.prepared(job, priority.unwrap_or(0))?;
        let uuid = uuid.to_owned();
        let text = Value::Object(attributes).to_string();
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                let before = load(tx.connection, &uuid)?;
                let committed = match before.container {
                    None => commit(tx, &uuid, prepared.as_ref())?,
                    Some(container) => {
                        if let Some(priority) = priority {
                            set_priority(tx, container, priority)?;
                        }
                        None
                    }
                };
                tx.connection
                    .prepare_cached(
                        "UPDATE requests SET attributes = ?2, modified_at = ?3, \
                         container = coalesce(container, ?4) WHERE uuid = ?1",
                    )
                    .and_then(|mut s| s.execute((&uuid, &text, tx.now.0, committed)))
                    .map_err(|e| sqlite("a request could not be written", e))?;
                load(tx.connection, &uuid)
            })
            .await
    }

    /// One request.
    pub async fn request(&self, uuid: &str) -> Result<ContainerRequest, QueueError> {
        let uuid = uuid.to_owned();
        self.read(self.settings.request_timeout, move |connection| {
            load(connection, &uuid)
        })
        .await
    }

    /// Goes through the requests, the newest first, until `visit` says that it is enough.
    pub async fn visit_requests(
        &self,
        mut visit: impl FnMut(ContainerRequest) -> bool + Send + 'static,
    ) -> Result<(), QueueError> {
        self.read(self.settings.request_timeout, move |connection| {
            let failed = |e| sqlite("requests could not be read", e);
            let sql = format!("SELECT {COLUMNS} ORDER BY r.id DESC");
            let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
            let mut rows = statement.query(()).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                if !visit(read(row)?) {
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    fn prepared(&self, job: Option<NewJob>, priority: i64) -> Result<Option<Prepared>, QueueError> {
        let Some(job) = job else { return Ok(None) };
        // Priority 0 holds it back, which is not how a batch begins.
        let job = NewJob {
            priority: priority.max(1),
            ..job
        };
        let prepared = prepare(vec![job], &self.settings.cluster).map_err(|error| {
            let why = longshore_types::error_chain(&error);
            QueueError::new(QueueErrorKind::Refused, why)
        })?;
        let mut prepared = prepared.into_iter().next();
        if let Some(prepared) = &mut prepared {
            prepared.priority = priority;
        }
        Ok(prepared)
    }

    fn request_uuid(&self) -> Result<String, QueueError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            let what = "no identifier could be made";
            QueueError::caused(QueueErrorKind::Overloaded, what, error)
        };
        let mut random = [0; 15];
        getrandom::fill(&mut random).map_err(|e| failed(Box::new(e)))?;
        let uuid = ContainerUuid::generate(&self.settings.cluster, random);
        let uuid = uuid.map_err(|e| failed(Box::new(e)))?;
        Ok(uuid.as_str().replacen("-dz642-", "-xvhdp-", 1))
    }
}

/// Makes the container of a request, if there is a job for it, and gives its id.
fn commit(
    tx: &mut Tx<'_>,
    uuid: &str,
    prepared: Option<&Prepared>,
) -> Result<Option<i64>, QueueError> {
    let Some(prepared) = prepared else {
        return Ok(None);
    };
    let jobs = std::slice::from_ref(prepared);
    let batch = Inserted {
        key: uuid,
        content_hash: "",
        name: &prepared.name,
        followed: false,
    };
    let batch = insert(tx, &batch, jobs)?;
    tx.connection
        .prepare_cached("SELECT id FROM containers WHERE batch = ?1")
        .and_then(|mut statement| statement.query_row([batch.0], |row| row.get(0)))
        .map(Some)
        .map_err(|e| sqlite("a container could not be read", e))
}

fn set_priority(
    tx: &mut Tx<'_>,
    container: ContainerUuid,
    priority: i64,
) -> Result<(), QueueError> {
    let record = Record::find(tx.connection, container)?.ok_or_else(|| not_found(container))?;
    if record.life.state.is_final() {
        let refusal = Refusal(format!("it is {}", record.life.state));
        return Err(refused(container, refusal));
    }
    change(tx, container, |record| record.life.set_priority(priority))
}

fn load(connection: &Connection, uuid: &str) -> Result<ContainerRequest, QueueError> {
    let sql = format!("SELECT {COLUMNS} WHERE r.uuid = ?1");
    let found = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([uuid], |row| Ok(read(row))).optional())
        .map_err(|e| sqlite("a request could not be read", e))?;
    found.unwrap_or_else(|| {
        let what = "there is no such container request";
        Err(QueueError::new(QueueErrorKind::NotFound, what))
    })
}

fn read(row: &Row<'_>) -> Result<ContainerRequest, QueueError> {
    let columns = || -> rusqlite::Result<_> {
        let container: Option<String> = row.get(2)?;
        Ok((
            row.get(0)?,
            row.get::<_, String>(1)?,
            container,
            row.get(3)?,
            row.get(4)?,
        ))
    };
    let failed = |e| sqlite("a request could not be read", e);
    let (uuid, attributes, container, created_at, modified_at) = columns().map_err(failed)?;
    let bad = |what: &str| QueueError::new(QueueErrorKind::BadRecord, what);
    Ok(ContainerRequest {
        uuid,
        attributes: serde_json::from_str(&attributes)
            .map_err(|_| bad("the attributes of a request cannot be read"))?,
        container: container
            .map(|uuid| uuid.parse())
            .transpose()
            .map_err(|_| bad("the container of a request cannot be read"))?,
        created_at: Timestamp(created_at),
        modified_at: Timestamp(modified_at),
    })
}
