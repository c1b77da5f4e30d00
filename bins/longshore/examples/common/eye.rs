//! Looking at a state directory from outside: the store and the runner's spool and lock files.
//!
//! Nothing here may help or disturb the program. The store is opened only while a living process
//! has it in WAL mode, where readers block nobody; after a kill a copy is read, so that recovering
//! the original is left to the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::left::children;

/// A state of a container in which a kill can land.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Locked in the store; the runner knows nothing of it.
    Locked,
    /// Locked in the store, and the runner has an entry or a lock file.
    Starting,
    /// Running in the store, and the runner has no result.
    Running,
    /// The runner has a result that the store does not have.
    Unreported,
    /// The store has the result, and the runner was not told to forget it.
    Unacknowledged,
}

impl Stage {
    /// Every one, in the order of a container's life.
    pub(crate) const ALL: [Self; 5] = [
        Self::Locked,
        Self::Starting,
        Self::Running,
        Self::Unreported,
        Self::Unacknowledged,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Locked => "locked",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unreported => "finished, unreported",
            Self::Unacknowledged => "reported, unacknowledged",
        })
    }
}

/// A container in the store.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) uuid: String,
    pub(crate) name: String,
    pub(crate) state: i64,
    pub(crate) lock_count: u32,
    pub(crate) exit_code: Option<i64>,
    /// Whether its standard output, and its standard error, is said to be lost.
    pub(crate) lost: [bool; 2],
    pub(crate) error: Option<String>,
    #[allow(dead_code, reason = "one of the loops has one machine")]
    pub(crate) placed_on: Option<String>,
}

/// What was seen at one moment, or nearly one: the spool is looked at before the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    pub(crate) rows: Vec<Row>,
    /// Whether the program has closed its batches: it will not go on with them.
    pub(crate) closed: bool,
    pub(crate) batches: usize,
    /// Whether there is a result, by container.
    entries: BTreeMap<String, bool>,
    locks: BTreeSet<String>,
    instances: usize,
}

impl Sight {
    /// Which containers are in which state, by UUID.
    pub(crate) fn stages(&self) -> BTreeMap<Stage, Vec<&str>> {
        self.stages_where(|_| true)
    }

    /// The same for some containers.
    pub(crate) fn stages_where(&self, wanted: impl Fn(&Row) -> bool) -> BTreeMap<Stage, Vec<&str>> {
        let mut stages: BTreeMap<Stage, Vec<&str>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| wanted(row)) {
            let entry = self.entries.get(&row.uuid);
            let known = entry.is_some() || self.locks.contains(&row.uuid);
            let stage = match (row.state, known, entry) {
                (1 | 2, _, Some(true)) => Stage::Unreported,
                (1, false, _) => Stage::Locked,
                (1, true, _) => Stage::Starting,
                (2, _, _) => Stage::Running,
                (3.., _, Some(_)) => Stage::Unacknowledged,
                _ => continue,
            };
            stages.entry(stage).or_default().push(&row.uuid);
        }
        stages
    }

    /// How many containers have ended.
    pub(crate) fn done(&self) -> usize {
        self.rows.iter().filter(|row| row.state >= 3).count()
    }

    /// Whether every container has ended.
    pub(crate) fn all_final(&self) -> bool {
        !self.rows.is_empty() && self.done() == self.rows.len()
    }

    /// How the installation as a whole is.
    pub(crate) fn moment(&self) -> &'static str {
        if self.closed {
            "after the end"
        } else if self.all_final() {
            "while winding down"
        } else if self.rows.is_empty() {
            "before submission"
        } else if self.instances == 0 {
            "while creating"
        } else if self.stages().is_empty() {
            "idle"
        } else {
            "at work"
        }
    }
}

/// Looks at one state directory, and at the runners of the machines.
#[derive(Debug)]
pub(crate) struct Eye {
    state: PathBuf,
    /// Where each machine is kept.
    machines: PathBuf,
    /// Where the runner's files are below that.
    runner: &'static str,
    connection: Option<Connection>,
}

impl Eye {
    pub(crate) fn new(state: &Path, machines: PathBuf, runner: &'static str) -> Self {
        Self {
            state: state.to_owned(),
            machines,
            runner,
            connection: None,
        }
    }

    /// Looks while the program lives.
    pub(crate) fn look(&mut self) -> Sight {
        let mut sight = self.spool();
        let path = self.store();
        if self.connection.is_none() && beside(&path, "-wal").exists() {
            self.connection = open(&path);
        }
        let read = self
            .connection
            .as_ref()
            .map(|connection| read(connection, &mut sight));
        if let Some(Err(_)) = read {
            self.connection = None;
        }
        sight
    }

    /// Lets the store go. Must be called before the program is killed.
    pub(crate) fn close(&mut self) {
        self.connection = None;
    }

    /// Looks when no process has the store open.
    pub(crate) fn look_at_copy(&self) -> anyhow::Result<Sight> {
        let mut sight = self.spool();
        let path = self.store();
        if !path.exists() {
            return Ok(sight);
        }
        let folder = tempfile::tempdir()?;
        let copy = folder.path().join("store.sqlite");
        fs::copy(&path, &copy)?;
        if beside(&path, "-wal").exists() {
            fs::copy(beside(&path, "-wal"), beside(&copy, "-wal"))?;
        }
        let connection = Connection::open(&copy)?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        if tables > 0 {
            read(&connection, &mut sight)?;
        }
        Ok(sight)
    }

    fn store(&self) -> PathBuf {
        self.state.join("controller/store.sqlite")
    }

    fn spool(&self) -> Sight {
        let mut sight = Sight::default();
        for instance in children(&self.machines) {
            if !instance.is_dir() {
                continue;
            }
            sight.instances += 1;
            let runner = instance.join(self.runner);
            for lock in children(&runner.join("lock")) {
                if lock
                    .extension()
                    .is_some_and(|extension| extension == "lock")
                {
                    sight.locks.insert(stem(&lock));
                }
            }
            for container in children(&runner.join("spool")) {
                let finished = children(&container).iter().any(|attempt| {
                    let state = fs::read_to_string(attempt.join("state")).unwrap_or_default();
                    state.lines().any(|line| line.starts_with("{\"finished\""))
                });
                sight.entries.insert(stem(&container), finished);
            }
        }
        sight
    }
}

fn read(connection: &Connection, sight: &mut Sight) -> rusqlite::Result<()> {
    let (batches, open): (usize, usize) = connection.query_row(
        "SELECT count(*), coalesce(sum(abandoned = 0), 0) FROM batches",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut statement = connection.prepare_cached(
        "SELECT uuid, name, state, lock_count, exit_code, error, placed_on, \
         coalesce(json_extract(exit, '$.stdout_lost'), 0), \
         coalesce(json_extract(exit, '$.stderr_lost'), 0) FROM containers ORDER BY id",
    )?;
    let rows = statement.query_map((), |row| {
        Ok(Row {
            uuid: row.get(0)?,
            name: row.get(1)?,
            state: row.get(2)?,
            lock_count: row.get(3)?,
            exit_code: row.get(4)?,
            error: row.get(5)?,
            placed_on: row.get(6)?,
            lost: [row.get(7)?, row.get(8)?],
        })
    })?;
    sight.rows = rows.collect::<rusqlite::Result<_>>()?;
    sight.closed = batches > 0 && open == 0;
    sight.batches = batches;
    Ok(())
}

fn open(path: &Path) -> Option<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).ok()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}
