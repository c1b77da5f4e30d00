//! Containers as a table: reading a CSV trace.

mod place;
mod value;

use std::collections::BTreeMap;
use std::time::Duration;

use csv::{ReaderBuilder, StringRecord, Trim};
use longshore_types::{ByteSize, MAX_PRIORITY};

use crate::Job;
use place::Lines;
use value::Time;

/// The most containers that a trace, or a pattern, may have.
pub const CONTAINERS_MAX: usize = 1_000_000;
/// The latest that a container may be submitted, and the longest that one may run.
pub const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Columns that a trace has to have.
const COLUMNS: [&str; 6] = ["time", "count", "vcpus", "ram", "duration", "priority"];
/// Columns that it may have.
const MORE_COLUMNS: [&str; 3] = ["scratch", "preemptible", "supervisor"];
/// The most problems that are told.
const PROBLEMS_MAX: usize = 10;
/// The most virtual CPUs of one container.
const VCPUS_MAX: u64 = 10_000;
/// Less memory than this is a forgotten unit.
const RAM_MIN: ByteSize = ByteSize::mib(1);

/// Something that is wrong with a trace, with what to do about it.
///
/// ```
/// use longshore_sim::parse_trace;
/// let table = "time,count,vcpus,ram,duration,priority\n0,1,two,512MiB,5m,500\n";
/// let problem = &parse_trace(table).unwrap_err()[0];
/// assert_eq!((problem.line, problem.column), (2, 5));
/// assert!(problem.to_string().starts_with("line 2, column 5: vcpus: "));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
#[non_exhaustive]
pub struct TraceError {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
    /// One sentence.
    pub message: String,
}

/// Reads a trace: a CSV table whose first line names its columns, each further line some
/// containers that are alike.
///
/// | column | what it says |
/// |---|---|
/// | `time` | when they are submitted: seconds (`90`, `90.5`) or a duration (`1h30m`) from the beginning, or a date and time (`2026-01-31T08:00:00Z`), of which the earliest is the beginning |
/// | `count` | how many, 0 to a million |
/// | `vcpus` | virtual CPUs of each, 1 to 10,000 |
/// | `ram` | memory of each, with a unit (`512MiB`, `2GB`) |
/// | `duration` | how long each runs: `90s`, `5m`, `1h30m`, or a number of seconds |
/// | `priority` | 1 to 1000 |
/// | `scratch` | disk space of each, with a unit; may be missing or empty: none |
/// | `preemptible` | `true` for preemptible machines, `prefer` for those while they are to be had; may be missing or empty: `false` |
/// | `supervisor` | `true` for containers that mostly wait for others; may be missing or empty: `false` |
///
/// The columns may come in any order, and so may the lines: the result is in the order of the
/// times, and of the file where these are equal. Empty lines and lines that begin with `#` are
/// skipped; a byte-order mark, either kind of line end, and quotes around values are understood.
///
/// Errors are the first ten things that are wrong with it, among them more than
/// [`CONTAINERS_MAX`] containers, and times and durations beyond [`TIME_MAX`].
///
/// ```
/// use std::time::Duration;
/// use longshore_sim::{Arrivals, parse_trace};
/// let jobs = parse_trace("\
/// time,count,vcpus,ram,duration,priority
/// ## the nightly run
/// 1h, 2, 4, 8GiB, 10m, 500
/// 0, 1, 1, 512MiB, 90, 900
/// ")?;
/// assert_eq!(jobs[0].runtime, Duration::from_secs(90));
/// assert_eq!(Arrivals::Trace(jobs).len(), 3);
/// # Ok::<(), Vec<longshore_sim::TraceError>>(())
/// ```
pub fn parse_trace(text: &str) -> Result<Vec<Job>, Vec<TraceError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let mut table = Table::new(text);
    let mut record = StringRecord::new();
    // The text is in memory and is UTF-8, so reading it cannot fail.
    while let Ok(true) = reader.read_record(&mut record) {
        let start = record.position().map_or(0, csv::Position::byte);
        table
            .lines
            .go_to(usize::try_from(start).unwrap_or(usize::MAX));
        table.take(&record);
        if table.is_over() {
            break;
        }
    }
    table.into_jobs()
}

/// What has been read of a table.
struct Table<'t> {
    lines: Lines<'t>,
    /// Where each column is, once the first line is read.
    columns: Option<BTreeMap<&'static str, usize>>,
    width: usize,
    rows: Vec<(Time, Job, usize)>,
    containers: usize,
    /// The line of the first time, and whether that was a date.
    first_time: Option<(u32, bool)>,
    problems: Vec<TraceError>,
}

impl<'t> Table<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            lines: Lines::new(text),
            columns: None,
            width: 0,
            rows: Vec::new(),
            containers: 0,
            first_time: None,
            problems: Vec::new(),
        }
    }

    /// Whether nothing further is worth reading.
    fn is_over(&self) -> bool {
        let no_columns = self.columns.is_none() && !self.problems.is_empty();
        no_columns || self.problems.len() >= PROBLEMS_MAX || self.containers > CONTAINERS_MAX
    }

    fn take(&mut self, record: &StringRecord) {
        let first = record.get(0).unwrap_or_default();
        if first.starts_with('#') || (first.is_empty() && record.len() < 2) {
            return;
        }
        if record.iter().any(|value| value.contains(['\n', '\r'])) {
            let message =
                "a quote is opened here and not closed in this line; values need no quotes";
            self.complain(0, message.into());
            return;
        }
        match &self.columns {
            None => self.take_names(record),
            Some(_) if record.len() != self.width => {
                let (here, width) = (record.len(), self.width);
                let message = format!(
                    "this line has {here} values, and the first line names {width} columns"
                );
                self.complain(width.min(here.saturating_sub(1)), message);
            }
            Some(columns) => {
                let columns = columns.clone();
                self.take_row(&Row {
                    record,
                    columns: &columns,
                });
            }
        }
    }

    fn take_names(&mut self, record: &StringRecord) {
        let mut columns = BTreeMap::new();
        for (place, name) in record.iter().enumerate() {
            let known = COLUMNS.iter().chain(&MORE_COLUMNS);
            match known.copied().find(|known| *known == name.to_lowercase()) {
                Some(known) => {
                    if columns.insert(known, place).is_some() {
                        self.complain(place, format!("the column {known} is here twice; keep one"));
                    }
                }
                None => {
                    let known = [&COLUMNS[..], &MORE_COLUMNS[..]].concat().join(", ");
                    let name: String = name.chars().take(60).collect();
                    let message = format!(
                        "the first line names the columns, and there is no column {name:?}; there are {known}"
                    );
                    self.complain(place, message);
                    return;
                }
            }
        }
        let missing: Vec<&str> = COLUMNS
            .into_iter()
            .filter(|name| !columns.contains_key(name))
            .collect();
        if !missing.is_empty() {
            let (missing, all) = (missing.join(", "), COLUMNS.join(","));
            let message =
                format!("the first line names the columns and lacks {missing}; write {all}");
            self.complain(0, message);
        }
        if self.problems.is_empty() {
            self.width = record.len();
            self.columns = Some(columns);
        }
    }

    fn take_row(&mut self, row: &Row<'_>) {
        let known = self.problems.len();
        let time = self.field(row, "time", value::time);
        let count = self.field(row, "count", |text| value::whole(text, 0, 1_000_000));
        let vcpus = self.field(row, "vcpus", |text| value::whole(text, 1, VCPUS_MAX));
        let ram = self.field(row, "ram", |text| value::ram(text, RAM_MIN));
        let runtime = self.field(row, "duration", value::runtime);
        let most = MAX_PRIORITY.unsigned_abs();
        let priority = self.field(row, "priority", |text| value::whole(text, 1, most));
        let scratch = self.field(row, "scratch", value::size);
        let preemptible = self.field(row, "preemptible", value::preemptible);
        let supervisor = self.field(row, "supervisor", value::boolean);
        if let Some(time) = time {
            self.check_kind(row, time);
        }
        let (Some(time), Some(count)) = (time, count) else {
            return;
        };
        if self.problems.len() > known {
            return;
        }
        let mut job = Job::new(Duration::ZERO, runtime.unwrap_or_default());
        job.vcpus = vcpus.and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        job.ram = ram.unwrap_or_default();
        job.scratch = scratch.unwrap_or_default();
        job.priority = priority.and_then(|n| i64::try_from(n).ok()).unwrap_or(1);
        job.preemptible = preemptible.unwrap_or_default();
        job.supervisor = supervisor.unwrap_or_default();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.containers = self.containers.saturating_add(count);
        if self.containers > CONTAINERS_MAX {
            let message = format!(
                "up to here there are more than {CONTAINERS_MAX} containers; split the trace"
            );
            self.complain_of(row, "count", message);
            return;
        }
        self.rows.push((time, job, count));
    }

    /// Reads a value; none if it is wrong, which is told, or if there is no such column.
    fn field<T>(
        &mut self,
        row: &Row<'_>,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = row.get(name)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.complain_of(row, name, format!("{name}: {message}"));
                None
            }
        }
    }

    fn check_kind(&mut self, row: &Row<'_>, time: Time) {
        let is_date = matches!(time, Time::Date(_));
        let line = self.lines.line();
        let (first, was_date) = *self.first_time.get_or_insert((line, is_date));
        if was_date != is_date {
            let [dates, others] = ["dates", "times from the beginning"];
            let (was, is) = if was_date {
                (dates, others)
            } else {
                (others, dates)
            };
            let message =
                format!("time: line {first} begins with {was}, here are {is}; use one kind");
            self.complain_of(row, "time", message);
        }
    }

    fn complain_of(&mut self, row: &Row<'_>, name: &str, message: String) {
        let place = row.columns.get(name).copied().unwrap_or_default();
        self.complain(place, message);
    }

    fn complain(&mut self, place: usize, message: String) {
        if self.problems.len() < PROBLEMS_MAX {
            let (line, column) = (self.lines.line(), self.lines.column_of(place));
            self.problems.push(TraceError {
                line,
                column,
                message,
            });
        }
    }

    fn into_jobs(mut self) -> Result<Vec<Job>, Vec<TraceError>> {
        if self.problems.is_empty() && self.containers == 0 {
            let all = COLUMNS.join(",");
            let message = match self.columns {
                Some(_) => {
                    "there are no containers: no line follows that has a count above 0".into()
                }
                None => format!("is empty; the first line names the columns: {all}"),
            };
            self.complain(0, message);
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let begin = self.rows.iter().map(|(time, ..)| *time).min();
        let mut jobs = Vec::with_capacity(self.containers);
        for (time, mut job, count) in self.rows {
            job.at = time.since(begin.filter(|begin| matches!(begin, Time::Date(_))));
            jobs.extend(std::iter::repeat_n(job, count));
        }
        if jobs.iter().any(|job| job.at > TIME_MAX) {
            let message = "the dates lie more than 366 days apart; split the trace".into();
            return Err(vec![TraceError {
                line: 1,
                column: 1,
                message,
            }]);
        }
        jobs.sort_by_key(|job| job.at);
        Ok(jobs)
    }
}

/// A line with the names of its values.
struct Row<'r> {
    record: &'r StringRecord,
    columns: &'r BTreeMap<&'static str, usize>,
}

impl Row<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let text = self.record.get(*self.columns.get(name)?)?;
        // Quotes that follow a space are part of the value for most readers, and meant by nobody.
        Some(text.trim_matches('"').trim())
    }
}

#[cfg(test)]
mod tests;
