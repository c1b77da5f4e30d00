//! Lists of containers and of requests: which, in which order, and which part of them.
//!
//! What is asked for is put to the database as far as it knows the attributes; of the rest the
//! rows are read one after the other.

use std::time::Instant;

use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter, types};
use serde_json::{Map, Value};

use crate::error::sqlite;
use crate::{ContainerRequest, JobStatus, Store, request, status};

/// How many rows are read before others may read.
const PAGE: usize = 500;
/// The most words for which a condition each is put to the database.
const MAX_WORDS: usize = 5;
/// With about how many bytes a part of a list ends.
pub(crate) const MAX_PART_BYTES: usize = 32 << 20;

/// What can be listed.
#[derive(Debug)]
pub(crate) struct Table {
    from: &'static str,
    /// A number that grows from row to row.
    id: &'static str,
    columns: &'static [Column],
}

/// An attribute that the database knows.
#[derive(Debug)]
struct Column {
    name: &'static str,
    sql: &'static str,
    kind: Kind,
    /// Words, and a condition for what is equal to each that needs no look at the rows.
    words: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Time,
}

impl Column {
    const fn new(name: &'static str, kind: Kind, sql: &'static str) -> Self {
        Self {
            name,
            sql,
            kind,
            words: &[],
        }
    }

    const fn with_words(self, words: &'static [(&'static str, &'static str)]) -> Self {
        Self { words, ..self }
    }
}

pub(crate) static CONTAINERS: Table = Table {
    from: "containers c",
    id: "c.id",
    columns: &[
        Column::new("uuid", Kind::Text, "c.uuid"),
        Column::new("name", Kind::Text, "c.name"),
        Column::new(
            "state",
            Kind::Text,
            "CASE c.state WHEN 0 THEN 'Queued' WHEN 1 THEN 'Locked' WHEN 2 THEN 'Running' \
             WHEN 3 THEN 'Complete' ELSE 'Cancelled' END",
        )
        .with_words(&[
            ("Queued", "c.state = 0"),
            ("Locked", "c.state = 1"),
            ("Running", "c.state = 2"),
            ("Complete", "c.state = 3"),
            ("Cancelled", "c.state = 4"),
        ]),
        Column::new("priority", Kind::Number, "c.priority"),
        Column::new(
            "exit_code",
            Kind::Number,
            "CASE c.state WHEN 3 THEN c.exit_code END",
        ),
        Column::new("created_at", Kind::Time, "c.created_at"),
        Column::new("started_at", Kind::Time, "c.started_at"),
        Column::new("finished_at", Kind::Time, "c.finished_at"),
        Column::new(
            "modified_at",
            Kind::Time,
            "coalesce(c.finished_at, c.started_at, c.created_at)",
        ),
    ],
};

pub(crate) static REQUESTS: Table = Table {
    from: "requests r LEFT JOIN containers c ON c.id = r.container",
    id: "r.id",
    columns: &[
        Column::new("uuid", Kind::Text, "r.uuid"),
        Column::new("container_uuid", Kind::Text, "c.uuid"),
        Column::new(
            "name",
            Kind::Text,
            "coalesce(json_extract(r.attributes, '$.name'), '')",
        ),
        Column::new(
            "state",
            Kind::Text,
            "CASE WHEN c.uuid IS NULL THEN 'Uncommitted' WHEN c.state < 3 THEN 'Committed' \
             ELSE 'Final' END",
        )
        .with_words(&[
            ("Uncommitted", "r.container IS NULL"),
            ("Committed", "c.state < 3"),
            ("Final", "c.state >= 3"),
        ]),
        Column::new(
            "priority",
            Kind::Number,
            "CAST(coalesce(json_extract(r.attributes, '$.priority'), 500) AS INTEGER)",
        ),
        Column::new("created_at", Kind::Time, "r.created_at"),
        Column::new("modified_at", Kind::Time, "r.modified_at"),
    ],
};

/// Which rows, and in which order: of those that are alike the newest first.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    table: &'static Table,
    conditions: Vec<String>,
    /// What the placeholders of the conditions stand for.
    operands: Vec<types::Value>,
    order: Vec<String>,
}

/// A part of a list.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) rows: Vec<Value>,
    /// How many there are in all, if that was asked for.
    pub(crate) available: Option<usize>,
}

/// Which part of a list, and whether all of it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) offset: usize,
    pub(crate) limit: usize,
    pub(crate) count: bool,
}

/// Reads the row with a number; none if there is no such row, or none that can be read.
pub(crate) type Load<T> = fn(&Connection, i64) -> Result<Option<T>, QueueError>;

impl Listing {
    /// All rows.
    pub(crate) fn of(table: &'static Table) -> Self {
        Self {
            table,
            conditions: Vec::new(),
            operands: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Only rows of which `attribute` compares so with an operand. False, and no change, where the
    /// database does not know what that means.
    pub(crate) fn narrow(&mut self, attribute: &str, operator: &str, operand: &Value) -> bool {
        let Some(column) = self.table.column(attribute) else {
            return false;
        };
        if let Some(condition) = column.is_word(operator, operand) {
            self.conditions.push(condition);
            return true;
        }
        let sql = column.sql;
        let (condition, operand) = match operator {
            "=" | "<" | "<=" | ">" | ">=" => (format!("{sql} {operator} ?"), column.value(operand)),
            // What is not there is different from everything.
            "!=" => (format!("{sql} IS NOT ?"), column.value(operand)),
            "in" => (among(sql), column.values(operand)),
            "not in" => (
                format!("NOT coalesce({}, 0)", among(sql)),
                column.values(operand),
            ),
            _ => return false,
        };
        let Some(operand) = operand else { return false };
        self.conditions.push(condition);
        self.operands.push(operand);
        true
    }

    /// Only containers that have not ended, which the database finds without looking at others.
    pub(crate) fn only_unfinished(&mut self) {
        self.conditions.push("c.state < 3".into());
    }

    /// Orders by an attribute, after those that were named before. False where the database does
    /// not know it.
    pub(crate) fn order_by(&mut self, attribute: &str, descending: bool) -> bool {
        let Some(column) = self.table.column(attribute) else {
            return false;
        };
        let direction = if descending { "DESC" } else { "ASC" };
        self.order.push(format!("{} {direction}", column.sql));
        true
    }

    fn conditions(&self) -> String {
        if self.conditions.is_empty() {
            return "TRUE".into();
        }
        self.conditions.join(" AND ")
    }

    fn count(&self, connection: &Connection) -> rusqlite::Result<usize> {
        let sql = format!(
            "SELECT count(*) FROM {} WHERE {}",
            self.table.from,
            self.conditions()
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let count: i64 = statement.query_row(params_from_iter(&self.operands), |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn sql_of_ids(&self) -> String {
        let Table { from, id, .. } = self.table;
        let order: String = self.order.iter().map(|part| format!("{part}, ")).collect();
        let conditions = self.conditions();
        format!(
            "SELECT {id} FROM {from} WHERE {conditions} ORDER BY {order}{id} DESC LIMIT ? OFFSET ?"
        )
    }

    /// The numbers of the rows of a window.
    fn ids(&self, connection: &Connection, window: &Window) -> rusqlite::Result<Vec<i64>> {
        let mut statement = connection.prepare_cached(&self.sql_of_ids())?;
        let number = |n: usize| types::Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        let window = [number(window.limit), number(window.offset)];
        let operands = self.operands.iter().chain(&window);
        statement
            .query_map(params_from_iter(operands), |row| row.get(0))?
            .collect()
    }

    /// The numbers of the newest rows before the one with a number.
    fn ids_before(&self, connection: &Connection, before: i64) -> rusqlite::Result<Vec<i64>> {
        let Table { from, id, .. } = self.table;
        let sql = format!(
            "SELECT {id} FROM {from} WHERE {} AND {id} < ? ORDER BY {id} DESC LIMIT {PAGE}",
            self.conditions()
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let before = [types::Value::Integer(before)];
        let operands = self.operands.iter().chain(&before);
        statement
            .query_map(params_from_iter(operands), |row| row.get(0))?
            .collect()
    }
}

impl Table {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Column {
    /// The condition for being equal to a word, or to one of several; none if one is not known.
    fn is_word(&self, operator: &str, operand: &Value) -> Option<String> {
        let word = |value: &Value| {
            let known = self.words.iter().find(|(word, _)| value == word);
            known.map(|(_, condition)| *condition)
        };
        match (operator, operand) {
            ("=", value) => word(value).map(str::to_owned),
            ("in", Value::Array(values)) if !values.is_empty() && values.len() <= MAX_WORDS => {
                let any: Option<Vec<&str>> = values.iter().map(word).collect();
                any.map(|any| format!("({})", any.join(" OR ")))
            }
            _ => None,
        }
    }

    /// An operand as the database has it; none if it is of another kind.
    fn value(&self, operand: &Value) -> Option<types::Value> {
        match self.kind {
            Kind::Text => operand.as_str().map(|text| text.to_owned().into()),
            Kind::Number | Kind::Time => self.number(operand).map(types::Value::Integer),
        }
    }

    /// Operands as a list in JSON; none if one of them is of another kind.
    fn values(&self, operands: &Value) -> Option<types::Value> {
        let operands = operands.as_array()?.iter();
        let list: Option<Vec<Value>> = match self.kind {
            Kind::Text => operands.map(|o| o.is_string().then(|| o.clone())).collect(),
            Kind::Number | Kind::Time => operands.map(|o| Some(self.number(o)?.into())).collect(),
        };
        Some(Value::Array(list?).to_string().into())
    }

    fn number(&self, operand: &Value) -> Option<i64> {
        match (self.kind, operand) {
            (Kind::Number, Value::Number(number)) => number.as_i64(),
            (Kind::Number, Value::String(text)) => text.trim().parse().ok(),
            (Kind::Time, Value::String(text)) => text.parse().ok().map(|at: Timestamp| at.0),
            _ => None,
        }
    }
}

fn among(sql: &str) -> String {
    format!("{sql} IN (SELECT value FROM json_each(?))")
}

impl Store {
    /// A part of a list as it is shown, and how many there are in all, of one moment. The part ends
    /// early, after one row at least, where it has more than [`MAX_PART_BYTES`].
    pub(crate) async fn list<T: 'static>(
        &self,
        listing: Listing,
        window: Window,
        load: Load<T>,
        show: impl Fn(T) -> Value + Send + 'static,
    ) -> Result<Part, QueueError> {
        self.read(self.settings.request_timeout, move |connection| {
            let moment = connection.unchecked_transaction().map_err(failed)?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            for id in listing.ids(&moment, &window).map_err(failed)? {
                let Some(shown) = load(&moment, id)?.map(&show) else {
                    continue;
                };
                bytes += size(&shown);
                rows.push(shown);
                if bytes > MAX_PART_BYTES {
                    break;
                }
            }
            let available = window.count.then(|| listing.count(&moment)).transpose();
            let available = available.map_err(failed)?;
            Ok(Part { rows, available })
        })
        .await
    }

    /// Goes through the newest rows of a list, `most` at most, the newest first, in whatever order
    /// it is, until `visit` says that it is enough, or the time of `bounds` has come, which is an
    /// error. Gives back what `visit` was given.
    ///
    /// Others read between two pages, so that nobody need wait for the whole of it.
    pub(crate) async fn look_through<T: 'static, S: Send + 'static>(
        &self,
        listing: Listing,
        (most, until): (usize, Instant),
        load: Load<T>,
        mut seen: S,
        visit: impl Fn(&mut S, T) -> bool + Clone + Send + 'static,
    ) -> Result<S, QueueError> {
        let (mut before, mut left) = (i64::MAX, most);
        loop {
            let (listing, visit) = (listing.clone(), visit.clone());
            let read = move |connection: &Connection| {
                let mut ids = listing.ids_before(connection, before).map_err(failed)?;
                let last = ids.last().copied().filter(|_| ids.len() == PAGE);
                ids.truncate(left);
                let count = ids.len();
                for id in ids {
                    if Instant::now() >= until {
                        return Err(too_long());
                    }
                    if let Some(row) = load(connection, id)?
                        && !visit(&mut seen, row)
                    {
                        return Ok((seen, None, count));
                    }
                }
                Ok((seen, last, count))
            };
            let (last, count);
            (seen, last, count) = self.read(self.settings.request_timeout, read).await?;
            left -= count;
            match last {
                Some(last) if left > 0 => before = last,
                _ => return Ok(seen),
            }
        }
    }
}

/// About how many bytes a value takes as JSON.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 8,
        Value::Array(values) => values.iter().map(size).sum::<usize>() + 8,
        Value::Object(map) => size_of_map(map),
    }
}

/// The same of an object.
pub(crate) fn size_of_map(map: &Map<String, Value>) -> usize {
    let members = map.iter().map(|(name, value)| name.len() + size(value));
    members.sum::<usize>() + 8
}

/// Nobody should ask for the same again, which would take as long.
fn too_long() -> QueueError {
    let what = "looking for what matches takes too long; ask for less, or by attributes that the \
                database knows";
    QueueError::new(QueueErrorKind::Refused, what)
}

/// A container and its start document.
pub(crate) type Listed = (JobStatus, Vec<u8>);

/// Loads a container. A damaged record is logged and left out.
pub(crate) fn container(connection: &Connection, id: i64) -> Result<Option<Listed>, QueueError> {
    let sql = format!(
        "SELECT {}, document FROM containers JOIN documents ON container = id WHERE id = ?1",
        status::COLUMNS
    );
    let found = load(connection, &sql, id, |row| {
        let document = row.get("document").map_err(failed)?;
        Ok((status::read_job(row)?, document))
    })?;
    Ok(readable(id, found))
}

/// Loads a request. A damaged record is logged and left out.
pub(crate) fn request(
    connection: &Connection,
    id: i64,
) -> Result<Option<ContainerRequest>, QueueError> {
    let sql = format!("SELECT {} WHERE r.id = ?1", request::COLUMNS);
    Ok(readable(id, load(connection, &sql, id, request::read)?))
}

/// The row that a statement finds by its number, if it is there.
fn load<T>(
    connection: &Connection,
    sql: &str,
    id: i64,
    read: impl FnOnce(&Row<'_>) -> T,
) -> Result<Option<T>, QueueError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([id], |row| Ok(read(row))).optional())
        .map_err(failed)
}

fn readable<T>(id: i64, found: Option<Result<T, QueueError>>) -> Option<T> {
    found?
        .inspect_err(|error| tracing::error!(%error, id, "left out of a list"))
        .ok()
}

fn failed(source: rusqlite::Error) -> QueueError {
    sqlite("a list could not be read", source)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Settings, schema};

    /// How the database finds the rows of a list by priority with filters.
    fn plan(table: &'static Table, filters: &[(&str, &str, Value)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let store = schema::open(folder.path(), &Settings::default()).unwrap();
        let mut listing = Listing::of(table);
        if std::ptr::eq(table, &raw const CONTAINERS) {
            listing.only_unfinished();
        }
        for (attribute, operator, operand) in filters {
            assert!(listing.narrow(attribute, operator, operand), "{attribute}");
        }
        assert!(listing.order_by("priority", true));
        let sql = format!("EXPLAIN QUERY PLAN {}", listing.sql_of_ids());
        let mut statement = store.reader.prepare(&sql).unwrap();
        let window = [types::Value::Integer(100), types::Value::Integer(0)];
        let operands = listing.operands.iter().chain(&window);
        let steps = statement
            .query_map(params_from_iter(operands), |row| row.get("detail"))
            .unwrap();
        steps
            .collect::<Result<Vec<String>, _>>()
            .unwrap()
            .join("; ")
    }

    #[test]
    fn what_waits_is_listed_by_an_index() {
        let least = || ("priority", ">=", json!(1));
        let queued = plan(&CONTAINERS, &[("state", "=", json!("Queued")), least()]);
        assert_eq!(
            queued, "SEARCH c USING COVERING INDEX containers_by_state (state=? AND priority>?)",
            "in the order in which they are wanted"
        );
        let both = json!(["Queued", "Locked"]);
        let both = plan(&CONTAINERS, &[("state", "in", both), least()]);
        assert!(both.contains("COVERING INDEX containers_by_state (state=? AND priority>?)"));
        let committed = plan(&REQUESTS, &[("state", "=", json!("Committed")), least()]);
        for part in [
            "COVERING INDEX containers_by_state (state<?)",
            "INDEX requests_by_priority (container=? AND <expr>>?)",
        ] {
            assert!(committed.contains(part), "{committed}");
        }
    }
}
