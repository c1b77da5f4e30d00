//! Containers as rows of the database.

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::{
    Container, ContainerState, ContainerUuid, Exit, InstanceId, ResourceRequest, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::de::DeserializeOwned;

use crate::error::sqlite;
use crate::transition::{Life, exit_code};

/// A container with everything that a transition needs.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: i64,
    pub(crate) batch: i64,
    pub(crate) uuid: ContainerUuid,
    pub(crate) created_at: Timestamp,
    pub(crate) request: ResourceRequest,
    pub(crate) supervisor: bool,
    pub(crate) life: Life,
    pub(crate) revision: u64,
}

/// The columns that [`Record::from_row`] reads.
const COLUMNS: &str = "id, batch, uuid, created_at, request, supervisor, state, priority, \
    lock_count, given_back, placed_on, retries_left, cancel_requested, exit, error, started_at, \
    finished_at, revision";

impl Record {
    /// The container with this UUID.
    pub(crate) fn load(connection: &Connection, uuid: ContainerUuid) -> Result<Self, QueueError> {
        Self::find(connection, uuid)?.ok_or_else(|| not_found(uuid))
    }

    /// The container with this UUID, if there is one.
    pub(crate) fn find(
        connection: &Connection,
        uuid: ContainerUuid,
    ) -> Result<Option<Self>, QueueError> {
        let read = || {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE uuid = ?1"))?
                .query_row([uuid.as_str()], |row| Ok(Self::from_row(row)))
                .optional()
        };
        read()
            .map_err(|e| sqlite("a container could not be read", e))?
            .transpose()
            .map_err(|source| bad_record(uuid.as_str(), source))
    }

    /// Containers that satisfy `condition`, at most `limit`, ordered by `order`.
    ///
    /// Those that cannot be read are logged and left out, so that they harm nobody else. The
    /// second part of the answer is the (id, revision) of the last one, readable or not.
    pub(crate) fn page(
        connection: &Connection,
        condition: &'static str,
        after: u64,
        order: &'static str,
        limit: usize,
    ) -> Result<(Vec<Self>, Option<Cursor>), QueueError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM containers WHERE {condition} ORDER BY {order} LIMIT {limit}"
        );
        let read = || -> rusqlite::Result<_> {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([i64::try_from(after).unwrap_or(i64::MAX)])?;
            let (mut records, mut last) = (Vec::new(), None);
            while let Some(row) = rows.next()? {
                last = Some(Cursor {
                    id: row.get("id")?,
                    revision: row.get("revision")?,
                });
                match Self::from_row(row) {
                    Ok(record) => records.push(record),
                    Err(error) => {
                        let id: i64 = row.get("id")?;
                        tracing::error!(id, %error, "the record of a container cannot be read");
                    }
                }
            }
            Ok((records, last))
        };
        read().map_err(|e| sqlite("containers could not be read", e))
    }

    /// Writes the part that changes.
    pub(crate) fn save(&self, connection: &Connection) -> Result<(), QueueError> {
        let life = &self.life;
        let exit = life.exit.as_ref().map(to_json).transpose()?;
        let code = life.exit.as_ref().and_then(exit_code);
        let write = || {
            connection
                .prepare_cached(
                    "UPDATE containers SET state = :state, priority = :priority, \
                     lock_count = :lock_count, given_back = :given_back, placed_on = :placed_on, \
                     retries_left = :retries_left, cancel_requested = :cancel_requested, \
                     exit = :exit, exit_code = :exit_code, error = :error, \
                     started_at = :started_at, finished_at = :finished_at, \
                     revision = :revision WHERE id = :id",
                )?
                .execute(named_params! {
                    ":state": state_code(life.state),
                    ":priority": life.priority,
                    ":lock_count": life.lock_count,
                    ":given_back": life.given_back,
                    ":placed_on": life.placed_on.as_ref().map(InstanceId::as_str),
                    ":retries_left": life.retries_left,
                    ":cancel_requested": life.cancel_requested,
                    ":exit": exit,
                    ":exit_code": code,
                    ":error": life.error,
                    ":started_at": life.started_at.map(|at| at.0),
                    ":finished_at": life.finished_at.map(|at| at.0),
                    ":revision": self.revision,
                    ":id": self.id,
                })
        };
        write().map_err(|e| sqlite("a container could not be written", e))?;
        Ok(())
    }

    /// The record as a dispatcher gets it.
    pub(crate) fn into_container(self) -> Container {
        Container {
            uuid: self.uuid,
            state: self.life.state,
            priority: self.life.priority,
            created_at: self.created_at,
            request: self.request,
            supervisor: self.supervisor,
            lock_count: self.life.lock_count,
            given_back: Some(self.life.given_back),
            locked_by_us: matches!(
                self.life.state,
                ContainerState::Locked | ContainerState::Running
            ),
            placed_on: self.life.placed_on,
            revision: self.revision,
        }
    }

    fn from_row(row: &Row<'_>) -> Result<Self, Unreadable> {
        let uuid: String = row.get("uuid")?;
        Ok(Self {
            id: row.get("id")?,
            batch: row.get("batch")?,
            uuid: uuid.parse().map_err(|e| Unreadable(Box::new(e)))?,
            created_at: Timestamp(row.get("created_at")?),
            request: from_json(&row.get::<_, String>("request")?)?,
            supervisor: row.get("supervisor")?,
            life: read_life(row)?,
            revision: row.get("revision")?,
        })
    }
}

/// Where a page ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    pub(crate) id: u64,
    pub(crate) revision: u64,
}

/// A row that does not hold what it should.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Unreadable(Box<dyn std::error::Error + Send + Sync>);

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        Self(Box::new(error))
    }
}

impl From<Unreadable> for QueueError {
    fn from(error: Unreadable) -> Self {
        Self::caused(
            QueueErrorKind::BadRecord,
            "a record cannot be read",
            error.0,
        )
    }
}

/// The columns of [`Life`], which must be among those selected.
pub(crate) fn read_life(row: &Row<'_>) -> Result<Life, Unreadable> {
    let exit: Option<String> = row.get("exit")?;
    Ok(Life {
        state: state_from_code(row.get("state")?)?,
        priority: row.get("priority")?,
        lock_count: row.get("lock_count")?,
        given_back: row.get("given_back")?,
        placed_on: row
            .get::<_, Option<String>>("placed_on")?
            .map(InstanceId::from),
        retries_left: row.get("retries_left")?,
        cancel_requested: row.get("cancel_requested")?,
        exit: exit.as_deref().map(from_json::<Exit>).transpose()?,
        error: row.get("error")?,
        started_at: row.get::<_, Option<i64>>("started_at")?.map(Timestamp),
        finished_at: row.get::<_, Option<i64>>("finished_at")?.map(Timestamp),
    })
}

/// The number that a state has in the database.
pub(crate) fn state_code(state: ContainerState) -> i64 {
    match state {
        ContainerState::Queued => 0,
        ContainerState::Locked => 1,
        ContainerState::Running => 2,
        ContainerState::Complete => 3,
        ContainerState::Cancelled => 4,
    }
}

/// The state that has a number in the database.
pub(crate) fn state_from_code(code: i64) -> Result<ContainerState, Unreadable> {
    ContainerState::ALL
        .into_iter()
        .find(|&state| state_code(state) == code)
        .ok_or_else(|| Unreadable(format!("there is no state {code}").into()))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|e| Unreadable(Box::new(e)))
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, QueueError> {
    serde_json::to_string(value)
        .map_err(|e| QueueError::caused(QueueErrorKind::BadRecord, "a record cannot be written", e))
}

pub(crate) fn not_found(uuid: ContainerUuid) -> QueueError {
    QueueError::new(
        QueueErrorKind::NotFound,
        format!("container {uuid} does not exist"),
    )
}

fn bad_record(uuid: &str, source: Unreadable) -> QueueError {
    QueueError::caused(
        QueueErrorKind::BadRecord,
        format!("the record of container {uuid} cannot be read"),
        source.0,
    )
}
