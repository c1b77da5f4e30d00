//! Ending everything that runs on an instance.
//!
//! An instance has no kernel of its own, so what belongs to it has to be told from everything else
//! that the same user runs. A process belongs to the instance if
//!
//! - it has the instance's `LONGSHORE_RUN_DIR` in its environment, as every command that came
//!   through the SSH server and every supervisor that such a command left behind, or
//! - it holds a lock file of the instance's runner, or has a file of the instance open for writing
//!   (where the output of containers goes), or
//! - it is in the control group of one of the instance's containers, or
//! - its parent, or the leader of its process group or session, belongs to the instance.
//!
//! The process that a lock file *names* is not believed: whoever can write the file could name any
//! process. The process that has the file open is found anyway.
//!
//! This process and those above it are never ended, whatever they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longshore_runner_api::command::DIRECTORY_VARIABLE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engines::{self, NotRemoved};
use crate::groups;

/// The shortest and the longest pause between two looks at the process table.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// How long the processes of an instance are looked for and killed before its end counts as
/// failed; it can be tried again.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(60);
/// How many survivors an error names.
const MAX_NAMED: usize = 8;

/// Processes could not be ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    #[error("the process table cannot be read")]
    Table(#[from] io::Error),
    #[error("processes are still there: {0:?}")]
    Survivors(Vec<i32>),
    #[error(transparent)]
    Container(#[from] NotRemoved),
}

/// What there is to know of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    group: i32,
    session: i32,
    /// In ticks since the machine was started; tells a process from a later one of the same id.
    started: u64,
    /// Dead, and waits to be reaped.
    zombie: bool,
}

type Table = BTreeMap<i32, Process>;

/// Ends every process of the instance whose own directory and runner's directory these are, and
/// looks again until there is none; blocks for at most `timeout` and one look.
pub(crate) fn end_all(instance: &Path, run: &Path, timeout: Duration) -> Result<(), EndError> {
    let deadline = Instant::now() + timeout;
    let traces = Traces::new(instance, run);
    // Groups and sessions outlive their leaders, so ended leaders are remembered.
    let mut ended = BTreeSet::new();
    let mut pause = PAUSES.0;
    loop {
        let groups = groups::of_runner(run);
        let grouped = groups::members(&groups);
        let table = read_table()?;
        let shown = |pid: i32| grouped.contains(&pid) || traces.lead_to(pid);
        let alive = members(&table, &ended, shown);
        if alive.is_empty() {
            // By now nobody makes any more of either.
            engines::remove_all(run)?;
            groups::remove(&groups::of_runner(run));
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(EndError::Survivors(
                alive.into_iter().take(MAX_NAMED).collect(),
            ));
        }
        for pid in alive {
            // Between the look and this the process may have ended and its id gone to another.
            if read_process(pid).map(|p| p.started) == table.get(&pid).map(|p| p.started) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            ended.insert(pid);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Which processes in `table` belong to the instance and are alive.
fn members(
    table: &Table,
    ended: &BTreeSet<i32>,
    has_traces: impl Fn(i32) -> bool,
) -> BTreeSet<i32> {
    let above = ancestry(table, i32::try_from(std::process::id()).unwrap_or(0));
    let mut members: BTreeSet<i32> = table
        .iter()
        .filter(|(pid, process)| !process.zombie && !above.contains(pid) && has_traces(**pid))
        .map(|(&pid, _)| pid)
        .collect();
    loop {
        let known = |pid: i32| members.contains(&pid) || ended.contains(&pid);
        let more: Vec<i32> = table
            .iter()
            .filter(|(pid, _)| !members.contains(pid) && !above.contains(pid))
            .filter(|(_, p)| known(p.parent) || known(p.group) || known(p.session))
            .map(|(&pid, _)| pid)
            .collect();
        if more.is_empty() {
            break;
        }
        members.extend(more);
    }
    members.retain(|pid| table.get(pid).is_some_and(|process| !process.zombie));
    members
}

/// A process and all above it.
fn ancestry(table: &Table, mut pid: i32) -> BTreeSet<i32> {
    let mut above = BTreeSet::from([0, 1]);
    while above.insert(pid) {
        pid = table.get(&pid).map_or(0, |process| process.parent);
    }
    above
}

fn read_table() -> io::Result<Table> {
    let mut table = Table::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has just gone is not there.
        if let Some(process) = read_process(pid) {
            table.insert(pid, process);
        }
    }
    Ok(table)
}

fn read_process(pid: i32) -> Option<Process> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat`; the second field, in parentheses, may hold anything.
fn parse_stat(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse().ok();
    Some(Process {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// What shows that a process belongs to an instance.
struct Traces {
    /// The variable as it stands in an environment.
    variable: Vec<u8>,
    instance: PathBuf,
    locks: PathBuf,
}

impl Traces {
    fn new(instance: &Path, run: &Path) -> Self {
        let mut variable = format!("{DIRECTORY_VARIABLE}=").into_bytes();
        variable.extend_from_slice(run.as_os_str().as_bytes());
        Self {
            variable,
            instance: instance.to_owned(),
            locks: run.join("lock"),
        }
    }

    /// Whether there are any at a process; what may not be looked at is another user's.
    fn lead_to(&self, pid: i32) -> bool {
        self.in_environment(pid) || self.in_files(pid)
    }

    fn in_environment(&self, pid: i32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == self.variable)
    }

    fn in_files(&self, pid: i32) -> bool {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        files.flatten().any(|entry| {
            let Ok(target) = fs::read_link(entry.path()) else {
                return false;
            };
            let target = existing_name(&target);
            target.starts_with(&self.locks)
                || (target.starts_with(&self.instance) && writes(pid, &entry.file_name()))
        })
    }
}

/// The name of an open file without the mark of one that was deleted since.
fn existing_name(target: &Path) -> &Path {
    let bytes = target.as_os_str().as_bytes();
    let name = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Path::new(OsStr::from_bytes(name))
}

/// Whether a process has a file open for writing.
fn writes(pid: i32, descriptor: &OsStr) -> bool {
    let Some(descriptor) = descriptor.to_str() else {
        return false;
    };
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & 0o3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: i32, group: i32, session: i32) -> Process {
        Process {
            parent,
            group,
            session,
            started: 1,
            zombie: false,
        }
    }

    #[test]
    fn the_name_of_a_program_may_hold_anything() {
        let stat = "42 (a) Z 1 (b)) S 7 8 9 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 555 1 1";
        let expected = Process {
            started: 555,
            ..process(7, 8, 9)
        };
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn offspring_groups_and_sessions_belong_and_nobody_else_does() {
        let me = i32::try_from(std::process::id()).unwrap();
        let table = Table::from([
            (1, process(0, 1, 1)),
            (90, process(1, 90, 90)),      // a login shell
            (me, process(90, 90, 90)),     // this process
            (100, process(me, 100, 90)),   // a command, in a group of its own
            (101, process(100, 100, 90)),  // its child
            (102, process(1, 100, 90)),    // its orphaned grandchild
            (103, process(1, 103, 103)),   // a supervisor that detached itself
            (104, process(103, 104, 103)), // its container
            (105, process(1, 105, 103)),   // what the container left behind
            (200, process(90, 200, 90)),   // something else in the same terminal
            (201, process(me, 201, 90)),   // another child of this process
        ]);
        let traces = |pid| matches!(pid, 100 | 103);
        let none = BTreeSet::new();
        let expected = BTreeSet::from([100, 101, 102, 103, 104, 105]);
        assert_eq!(members(&table, &none, traces), expected);

        // Leaders that were ended before still tell what is theirs.
        let mut rest = table.clone();
        rest.retain(|pid, _| !matches!(pid, 100 | 101 | 103 | 104));
        let ended = BTreeSet::from([100, 101, 103, 104]);
        let expected = BTreeSet::from([102, 105]);
        assert_eq!(members(&rest, &ended, |_| false), expected);

        // This process has the variable itself, as when it is run by a container.
        assert_eq!(
            members(&table, &none, |pid| pid <= me
                && pid != 200
                && !(100..=201).contains(&pid)),
            none
        );
    }
}
