//! What the directory says about every container, at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use longshore_runner_api::report::{MAX_CONTAINERS, MAX_REPORT_BYTES, format};
use longshore_types::{
    Attempt, ContainerReport, ContainerUuid, Exit, ExitCause, ReportedState, RunnerReport,
};

use crate::complain;
use crate::directory::RunDirectory;
use crate::lock::{self, Holder, Lock};
use crate::remains::Remains;
use crate::spool::{Entry, newest_entry};
use crate::supervisor::REMOVE_PATIENCE;

/// How long ending what a dead supervisor left behind may take.
const REMAINS_PATIENCE: Duration = Duration::from_millis(500);
/// How long a reaper may take to notice that its supervisor is dead and to end everything.
const REAPER_PATIENCE: Duration = Duration::from_millis(50);
/// How long a report may wait for the directory lock, which it needs only to tidy up.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// Reads everything. Its only effects are that lock files which nobody holds, and directories of
/// no attempt, are deleted, and that what dead supervisors left in their control groups is ended.
pub(crate) fn scan(directory: &RunDirectory) -> Result<RunnerReport> {
    let mut survey = Survey::new();
    survey.look(directory, Look::All)?;
    Ok(survey.report())
}

/// What a look is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    All,
    /// The flag that the machine is broken.
    Flag,
    Container(ContainerUuid),
}

/// What was found about everything, kept from one look to the next, so that a look costs as much
/// as what may have changed and not as much as there is.
#[derive(Debug)]
pub(crate) struct Survey {
    containers: BTreeMap<ContainerUuid, ContainerReport>,
    broken: Option<String>,
    /// For how long a container engine may be asked to remove what a dead supervisor has left; none
    /// if it may not be asked.
    engines: Option<Duration>,
    /// Containers that an engine has still to remove.
    left: BTreeSet<ContainerUuid>,
}

impl Survey {
    /// One that asks engines itself, until one does not answer.
    pub(crate) fn new() -> Self {
        Self {
            containers: BTreeMap::new(),
            broken: None,
            engines: Some(REMAINS_PATIENCE),
            left: BTreeSet::new(),
        }
    }

    /// One that never does: what an engine has still to remove is [left](Self::left_after) to others.
    pub(crate) fn without_engines() -> Self {
        Self {
            engines: None,
            ..Self::new()
        }
    }

    /// One of those that an engine has still to remove; if there are more, another than the last.
    pub(crate) fn left_after(&self, last: Option<ContainerUuid>) -> Option<ContainerUuid> {
        let later = |uuid: &&ContainerUuid| last.is_none_or(|last| **uuid > last);
        let next = self.left.iter().find(later).or(self.left.first());
        next.copied()
    }

    /// Looks anew, with the effects of [`scan`].
    pub(crate) fn look(&mut self, directory: &RunDirectory, at: Look) -> Result<()> {
        match at {
            Look::All => self.look_at_all(directory)?,
            Look::Flag => self.broken = directory.broken(),
            Look::Container(uuid) => self.look_at(directory, uuid),
        }
        Ok(())
    }

    /// What was found of a container.
    pub(crate) fn found(&self, uuid: ContainerUuid) -> Option<&ContainerReport> {
        self.containers.get(&uuid)
    }

    /// All that was found.
    pub(crate) fn report(&self) -> RunnerReport {
        let mut report = RunnerReport {
            containers: self.containers.values().cloned().collect(),
            broken: self.broken.clone(),
            digest: String::new(),
        };
        shorten(&mut report);
        report.digest = digest(&format(&report));
        report
    }

    fn look_at_all(&mut self, directory: &RunDirectory) -> Result<()> {
        let spooled = uuids(&directory.spool(), "")?;
        let locked = uuids(&directory.locks(), ".lock")?;
        self.containers.clear();
        self.left.clear();
        for uuid in spooled.union(&locked) {
            self.note(directory, *uuid);
        }
        delete_unheld(directory, &locked);
        let unknown = spooled
            .iter()
            .filter(|uuid| !self.containers.contains_key(uuid));
        remove_empty(directory, unknown);
        self.broken = directory.broken();
        Ok(())
    }

    fn look_at(&mut self, directory: &RunDirectory, uuid: ContainerUuid) {
        self.note(directory, uuid);
        delete_unheld(directory, &BTreeSet::from([uuid]));
    }

    fn note(&mut self, directory: &RunDirectory, uuid: ContainerUuid) {
        let found = state(directory, uuid, self.engines).unwrap_or_else(|error| {
            // Reported as what does least harm: that it may run.
            complain(&format!("{uuid}: {error:#}"));
            Some(ContainerReport {
                uuid,
                attempt: lock::content_attempt(&directory.lock_file(uuid)).unwrap_or(Attempt(0)),
                state: ReportedState::Running { started_at: None },
            })
        });
        self.left.remove(&uuid);
        if found.as_ref().is_some_and(is_stale) && is_left_to_an_engine(directory, uuid) {
            self.left.insert(uuid);
            // What one of them does not do at once the others would not either.
            self.engines = None;
        }
        match found {
            Some(found) => self.containers.insert(uuid, found),
            None => self.containers.remove(&uuid),
        };
    }
}

fn is_stale(found: &ContainerReport) -> bool {
    found.state == ReportedState::Stale
}

fn is_left_to_an_engine(directory: &RunDirectory, uuid: ContainerUuid) -> bool {
    let newest = newest_entry(directory, uuid).ok().flatten();
    let remains = newest.as_ref().and_then(Remains::of);
    remains.is_some_and(|remains| remains.has_engine())
}

/// Ends what a dead supervisor has left of a container, for as long as its engine takes; the exit
/// code is 0 if nothing is left.
pub(crate) fn end_left(directory: &RunDirectory, uuid: ContainerUuid) -> Result<u8> {
    let found = state(directory, uuid, Some(REMOVE_PATIENCE))?;
    Ok(u8::from(found.as_ref().is_some_and(is_stale)))
}

/// The UUIDs among the names in a directory, without their suffix.
fn uuids(path: &Path, suffix: &str) -> Result<BTreeSet<ContainerUuid>> {
    let wrong = || format!("cannot read {}", path.display());
    let mut found = BTreeSet::new();
    for name in std::fs::read_dir(path).with_context(wrong)? {
        let name = name.with_context(wrong)?.file_name();
        let uuid = name.to_str().and_then(|name| name.strip_suffix(suffix));
        found.extend(uuid.and_then(|uuid| uuid.parse::<ContainerUuid>().ok()));
    }
    Ok(found)
}

/// What there is to say about a container; nothing if it has vanished meanwhile.
///
/// The order of the steps matters, for starts, ends and acknowledgements go on meanwhile. A lock
/// is taken before its entry is made, and a result is written before its lock is released: so an
/// entry that was seen before its lock was found free, and has no result after that, never will.
fn state(
    directory: &RunDirectory,
    uuid: ContainerUuid,
    engines: Option<Duration>,
) -> Result<Option<ContainerReport>> {
    let path = directory.lock_file(uuid);
    for _ in 0..10 {
        let before = newest_entry(directory, uuid)?;
        let holder = lock::holder(&path)?;
        let entry = match holder {
            Holder::Nobody => before,
            // A start may have made a newer entry since.
            Holder::Supervisor(_) | Holder::Other => newest_entry(directory, uuid)?,
        };
        let Some(entry) = entry else {
            if holder == Holder::Nobody {
                return Ok(None);
            }
            match start_under_way(directory, uuid)? {
                Some(report) => return Ok(Some(report)),
                None => continue,
            }
        };
        let state = match holder {
            Holder::Nobody => match entry.state().result {
                Some(exit) => ReportedState::Finished(exit),
                None => lost(&entry, engines),
            },
            Holder::Supervisor(_) => running(&entry),
            Holder::Other => match entry.state().result {
                Some(exit) => ReportedState::Finished(exit),
                None if lock::content_attempt(&path) == Some(entry.attempt) => {
                    match left_behind(&entry, &path, engines)? {
                        Some(state) => state,
                        None => continue,
                    }
                }
                None => running(&entry),
            },
        };
        // It may have been acknowledged, or taken back, while it was looked at.
        if entry.exists() {
            let (uuid, attempt) = (entry.uuid, entry.attempt);
            return Ok(Some(ContainerReport {
                uuid,
                attempt,
                state,
            }));
        }
    }
    bail!("it changes all the time")
}

fn running(entry: &Entry) -> ReportedState {
    let started_at = entry.state().started_at;
    ReportedState::Running { started_at }
}

/// A lock is held without an entry: for a moment that is normal, under the directory lock never.
fn start_under_way(
    directory: &RunDirectory,
    uuid: ContainerUuid,
) -> Result<Option<ContainerReport>> {
    let path = directory.lock_file(uuid);
    let guard = directory.lock(LOCK_PATIENCE).ok();
    let held = lock::holder(&path)? != Holder::Nobody;
    if guard.is_some() && (!held || newest_entry(directory, uuid)?.is_some()) {
        return Ok(None);
    }
    Ok(Some(ContainerReport {
        uuid,
        attempt: lock::content_attempt(&path).unwrap_or(Attempt(0)),
        state: ReportedState::Running { started_at: None },
    }))
}

/// The supervisor died without a result and something still holds its lock: what is in its control
/// group is ended, and the reaper given a moment to end the rest. `None` if that changed something,
/// or if the supervisor was only about to begin when it was looked for.
fn left_behind(
    entry: &Entry,
    lock_file: &Path,
    engines: Option<Duration>,
) -> Result<Option<ReportedState>> {
    // A supervisor marks the lock before it writes the content that was read just now. So if it is
    // not seen from here on, it is dead.
    if lock::holder(lock_file)? != Holder::Other {
        return Ok(None);
    }
    end_remains(entry, engines);
    let since = Instant::now();
    while lock::holder(lock_file)? == Holder::Other {
        if since.elapsed() >= REAPER_PATIENCE {
            return Ok(Some(ReportedState::Stale));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
}

/// The supervisor died without a result, and nothing holds its lock.
fn lost(entry: &Entry, engines: Option<Duration>) -> ReportedState {
    if !end_remains(entry, engines) {
        return ReportedState::Stale;
    }
    let mut exit = Exit::unseen(ExitCause::SupervisorLost);
    exit.started_at = entry.state().started_at;
    entry.note_written(&mut exit, entry.output_limit());
    ReportedState::Finished(exit)
}

/// Ends what a dead supervisor has left, if an engine may be asked for as long as it needs one; says
/// whether nothing of it is left.
fn end_remains(entry: &Entry, engines: Option<Duration>) -> bool {
    let Some(remains) = Remains::of(entry) else {
        return true;
    };
    match engines {
        None if remains.has_engine() => false,
        patience => remains.end(patience.unwrap_or(REMAINS_PATIENCE)),
    }
}

/// Deletes the lock files that nobody holds, unless a start is busy.
fn delete_unheld(directory: &RunDirectory, locked: &BTreeSet<ContainerUuid>) {
    let unheld = |path: &Path| path.exists() && matches!(lock::holder(path), Ok(Holder::Nobody));
    let paths: Vec<_> = locked
        .iter()
        .map(|uuid| directory.lock_file(*uuid))
        .filter(|path| unheld(path))
        .collect();
    if paths.is_empty() {
        return;
    }
    let Ok(_guard) = directory.lock(LOCK_PATIENCE) else {
        return;
    };
    for path in paths {
        if path.exists()
            && let Ok(Some(lock)) = Lock::take(&path)
        {
            lock.delete();
        }
    }
}

/// Removes the directories of containers that have no attempt, which starts leave that are killed
/// in the middle; unless a start is busy.
fn remove_empty<'a>(directory: &RunDirectory, uuids: impl Iterator<Item = &'a ContainerUuid>) {
    let mut uuids = uuids.peekable();
    if uuids.peek().is_none() {
        return;
    }
    let Ok(_guard) = directory.lock(LOCK_PATIENCE) else {
        return;
    };
    for uuid in uuids {
        // Fails, rightly, where there is an attempt by now.
        let _ = std::fs::remove_dir(directory.spool().join(uuid.as_str()));
    }
}

/// Keeps a report within the limits of the grammar. What runs goes first; results that do not fit
/// are reported when others were acknowledged.
fn shorten(report: &mut RunnerReport) {
    let finished =
        |container: &ContainerReport| matches!(container.state, ReportedState::Finished(_));
    report.containers.sort_by_key(|c| (finished(c), c.uuid));
    report.containers.truncate(MAX_CONTAINERS);
    // The digest is still to come.
    while format(report).len() + 100 > MAX_REPORT_BYTES {
        let fewer = report.containers.len() * 9 / 10;
        report.containers.truncate(fewer);
    }
}

/// FNV-1a of 128 bits: no defence against forgery, which would only deceive the forger.
fn digest(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_fnv() {
        assert_eq!(digest(""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(digest("a"), "d228cb696f1a8caf78912b704e4a8964");
    }

    #[test]
    fn a_report_of_too_many_keeps_what_runs() {
        let container = |i: usize, state| ContainerReport {
            uuid: format!("zzzzz-dz642-{i:015}").parse().unwrap(),
            attempt: Attempt(1),
            state,
        };
        let error = "\"".repeat(1024);
        let exit = Exit::unseen(ExitCause::NotStarted { error });
        let mut containers: Vec<_> = (0..5000)
            .map(|i| container(i, ReportedState::Finished(exit.clone())))
            .collect();
        containers.push(container(5000, ReportedState::Stale));
        let mut report = RunnerReport {
            containers,
            ..RunnerReport::default()
        };
        shorten(&mut report);
        report.digest = digest("");
        assert!(format(&report).len() <= MAX_REPORT_BYTES);
        assert!(report.containers.len() > 900);
        assert_eq!(report.containers[0].state, ReportedState::Stale);
        longshore_runner_api::report::parse(format(&report).as_bytes()).unwrap();
    }
}
