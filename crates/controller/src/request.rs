//! Container requests: what clients of the HTTP API ask for, and the container that each became.

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::{ContainerState, ContainerUuid, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::{Map, Value};

use crate::batch::{Inserted, Prepared, insert, prepare};
use crate::error::{closed, sqlite};
use crate::room::Room;
use crate::row::{Record, not_found, state_from_code};
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
    /// Where that is in its life.
    pub container_state: Option<ContainerState>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the client changed it last.
    pub modified_at: Timestamp,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a change, all of it")]
pub struct RequestChange {
    /// Its attributes, in place of those that it had.
    pub attributes: RequestAttributes,
    /// What it runs: it is committed with this, unless it was before.
    pub job: Option<NewJob>,
    /// The priority of its container, 0 included; none leaves it as it is.
    pub priority: Option<i64>,
}

/// The columns that [`read`] reads, and where they are.
pub(crate) const COLUMNS: &str = "r.uuid, r.attributes, c.uuid, c.state, r.created_at, r.modified_at \
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
        if job.is_some() && self.is_closed() {
            return Err(closed());
        }
        let prepared = prepared(job, priority, &self.settings.cluster)?;
        let uuid = self.request_uuid()?;
        let text = Value::Object(attributes).to_string();
        let room = self.room();
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                room.check(tx, text.len())?;
                let container = commit(tx, &uuid, prepared.as_ref(), room)?;
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

    /// Changes a request as `change` says when it is given the request as it is. Nothing else
    /// changes it in between, so of two changes at the same time each sees the other's, or is seen
    /// by it.
    ///
    /// `change` is called anew if what it said could not be stored together with what others
    /// wanted; its error is the outcome.
    pub async fn update_request(
        &self,
        uuid: &str,
        mut change: impl FnMut(&ContainerRequest) -> Result<RequestChange, QueueError> + Send + 'static,
    ) -> Result<ContainerRequest, QueueError> {
        let cluster = self.settings.cluster.clone();
        let (uuid, takes_nothing_new) = (uuid.to_owned(), self.is_closed());
        let room = self.room();
        self.writer
            .write(self.settings.request_timeout, move |tx| {
                let before = load(tx.connection, &uuid)?;
                let had = Value::Object(before.attributes.clone()).to_string().len();
                let RequestChange {
                    attributes,
                    job,
                    priority,
                } = change(&before)?;
                let text = Value::Object(attributes).to_string();
                room.check_change(tx, text.len().saturating_sub(had))?;
                let committed = match before.container {
                    None if job.is_some() && takes_nothing_new => return Err(closed()),
                    None => {
                        let prepared = prepared(job, priority.unwrap_or(0), &cluster)?;
                        commit(tx, &uuid, prepared.as_ref(), room)?
                    }
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

fn prepared(
    job: Option<NewJob>,
    priority: i64,
    cluster: &str,
) -> Result<Option<Prepared>, QueueError> {
    let Some(job) = job else { return Ok(None) };
    // Priority 0 holds it back, which is not how a batch begins.
    let job = NewJob {
        priority: priority.max(1),
        ..job
    };
    let prepared = prepare(vec![job], cluster).map_err(|error| {
        let why = longshore_types::error_chain(&error);
        QueueError::new(QueueErrorKind::Refused, why)
    })?;
    let mut prepared = prepared.into_iter().next();
    if let Some(prepared) = &mut prepared {
        prepared.priority = priority;
    }
    Ok(prepared)
}

/// Makes the container of a request, if there is a job for it, and gives its id.
fn commit(
    tx: &mut Tx<'_>,
    uuid: &str,
    prepared: Option<&Prepared>,
    room: Room,
) -> Result<Option<i64>, QueueError> {
    let Some(prepared) = prepared else {
        return Ok(None);
    };
    room.check(tx, prepared.stored_bytes())?;
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

pub(crate) fn read(row: &Row<'_>) -> Result<ContainerRequest, QueueError> {
    let columns = || -> rusqlite::Result<_> {
        let container: Option<String> = row.get(2)?;
        Ok((
            row.get(0)?,
            row.get::<_, String>(1)?,
            container,
            row.get::<_, Option<i64>>(3)?,
            row.get(4)?,
            row.get(5)?,
        ))
    };
    let failed = |e| sqlite("a request could not be read", e);
    let (uuid, attributes, container, state, created_at, modified_at) =
        columns().map_err(failed)?;
    let bad = |what: &str| QueueError::new(QueueErrorKind::BadRecord, what);
    Ok(ContainerRequest {
        uuid,
        attributes: serde_json::from_str(&attributes)
            .map_err(|_| bad("the attributes of a request cannot be read"))?,
        container: container
            .map(|uuid| uuid.parse())
            .transpose()
            .map_err(|_| bad("the container of a request cannot be read"))?,
        container_state: state.map(state_from_code).transpose()?,
        created_at: Timestamp(created_at),
        modified_at: Timestamp(modified_at),
    })
}
