//! What a [spare supervisor](crate::stream) makes before it knows for which container.
//!
//! Making six files and directories and forking twice takes longer than all else that comes before a
//! job. So there is a blank: a lock file, whose lock is held, and an entry; both get their names by
//! being renamed, under the directory lock. And there is a reaper, which shares that lock and reads
//! the order while its supervisor makes the claim. A start without them only takes longer.
//!
//! A blank whose lock nobody holds has no owner any more; [`sweep`] removes it.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use longshore_runner_api::StartDocument;
use longshore_runner_api::watch::{Ask, Requests};
use longshore_types::{Attempt, ContainerUuid};
use nix::sys::prctl;
use nix::sys::signalfd::SignalFd;
use nix::unistd::{ForkResult, Pid};

use crate::cgroup::Plan;
use crate::directory::RunDirectory;
use crate::gate::{self, Gate, Leave};
use crate::lock::Lock;
use crate::supervisor::{self, Claim};
use crate::system::fork;
use crate::{reaper, spool, tree};

/// How long a sweep waits for the directory lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// What there is of it.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    pub(crate) blank: Option<Blank>,
    pub(crate) reaper: Option<Reaper>,
}

/// An entry and a lock that are nobody's yet. What is not used is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Blank {
    /// None if the files have their name.
    path: Option<PathBuf>,
    /// None if it has its name.
    lock: Option<Lock>,
}

/// A reaper that waits, at first for its order. It goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Reaper {
    process: Pid,
    socket: UnixStream,
    order: PipeWriter,
    /// To do what it was ordered to.
    begin: Leave,
    /// For the job.
    leave: Leave,
}

impl Ahead {
    /// As much as can be made. To be called in a process that may become a supervisor.
    pub(crate) fn make(directory: &RunDirectory) -> Self {
        let blank = Blank::make(directory).ok();
        let lock = blank.as_ref().and_then(|blank| blank.lock.as_ref());
        let reaper = lock.and_then(|lock| Reaper::make(directory, lock).ok());
        Self { blank, reaper }
    }

    /// Tells the reaper a part of what it will have to do.
    fn order(&mut self, part: &[u8]) {
        if let Some(reaper) = &mut self.reaper
            && reaper.order.write_all(part).is_err()
        {
            self.reaper = None;
        }
    }

    /// Waits for the order of a start, which the reaper is told, too; none if there will be none.
    pub(crate) fn read_order(&mut self, input: &mut impl Read) -> Result<Option<Order>> {
        read_order(input, |part| self.order(part))
    }

    /// A lock with this name; none if another has it. If it is not the one that was made ahead the
    /// reaper goes, which has only that one.
    pub(crate) fn take_lock(&mut self, path: &Path) -> Result<Option<Lock>> {
        let lock = self.blank.as_mut().and_then(|blank| blank.lock.take());
        match lock.and_then(|lock| lock.named(path)) {
            Some(lock) => Ok(Some(lock)),
            None => {
                self.reaper = None;
                Lock::take(path)
            }
        }
    }
}

impl Blank {
    /// Makes one, of this process.
    fn make(directory: &RunDirectory) -> Result<Self> {
        let path = directory.blanks().join(std::process::id().to_string());
        let Some(lock) = Lock::take(&lock_file(&path))? else {
            bail!("another process makes {}", path.display());
        };
        let blank = Self {
            path: Some(path.clone()),
            lock: Some(lock),
        };
        // Left by a process that had the same number.
        let _ = tree::remove(&path);
        spool::make_blank(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(blank)
    }

    /// Gives its files this name; whether that could be done.
    pub(crate) fn become_entry(mut self, path: &Path) -> bool {
        let renamed = self.path.as_ref().map(|blank| std::fs::rename(blank, path));
        let done = renamed.is_some_and(|renamed| renamed.is_ok());
        if done {
            self.path = None;
        }
        done
    }
}

impl Drop for Blank {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What is left in spite of that is swept.
            let _ = tree::remove(path);
        }
        if let Some(lock) = self.lock.take() {
            lock.delete();
        }
    }
}

impl Reaper {
    fn make(directory: &RunDirectory, lock: &Lock) -> Result<Self> {
        supervisor::detach()?;
        let supervisor = std::process::id();
        let (socket, far) = UnixStream::pair()?;
        let (read, order) = pipe()?;
        let (wait, begin) = gate::gate()?;
        let (gate, leave) = gate::gate()?;
        match fork().context("cannot fork")? {
            ForkResult::Parent { child } => Ok(Self {
                process: child,
                socket,
                order,
                begin,
                leave,
            }),
            ForkResult::Child => {
                // Their closing is how the supervisor's end is noticed.
                drop((socket, order, begin, leave));
                let claim = wait_for_claim(directory, supervisor, lock, read, wait);
                // Without a claim nobody waits for it.
                if let Ok(Some((claim, signals))) = claim {
                    reaper::run(&claim, far, &signals, gate);
                }
                std::process::exit(0)
            }
        }
    }

    /// Lets it begin.
    pub(crate) fn begin(self) -> (Pid, UnixStream, Leave) {
        self.begin.give();
        (self.process, self.socket, self.leave)
    }
}

/// In the reaper: what it has to do, if there is anything.
fn wait_for_claim(
    directory: &RunDirectory,
    supervisor: u32,
    lock: &Lock,
    mut order: PipeReader,
    mut wait: Gate,
) -> Result<Option<(Claim, SignalFd)>> {
    supervisor::leave_standard_streams()?;
    let signals = supervisor::take_signals()?;
    prctl::set_child_subreaper(true)?;
    let Some((uuid, attempt, document)) = read_order(&mut order, |_| {})? else {
        return Ok(None);
    };
    let document = StartDocument::from_json(&document)?;
    let entry = directory.entry(uuid, attempt);
    let claim = Claim {
        groups: Plan::of(&entry, &document, supervisor),
        lock: lock.shared_as(&directory.lock_file(uuid))?,
        entry,
        document,
    };
    supervisor::call_yourself(uuid);
    Ok(wait.wait().then_some((claim, signals)))
}

/// The line of a start, and the document that follows it.
pub(crate) type Order = (ContainerUuid, Attempt, Vec<u8>);

/// Waits for an order; none if there will be none. `passed` is given all parts as they come.
fn read_order(input: &mut impl Read, mut passed: impl FnMut(&[u8])) -> Result<Option<Order>> {
    let mut requests = Requests::default();
    let mut buffer = [0; 64 << 10];
    loop {
        let count = input.read(&mut buffer).context("cannot read the order")?;
        let part = buffer.get(..count).unwrap_or_default();
        if part.is_empty() {
            return Ok(None);
        }
        passed(part);
        requests.push(part);
        if let Some((request, document)) = requests.next()? {
            let Ask::Start { uuid, attempt, .. } = request.ask else {
                bail!("{request:?} is not an order");
            };
            return Ok(Some((uuid, attempt, document)));
        }
    }
}

fn lock_file(blank: &Path) -> PathBuf {
    blank.with_extension("lock")
}

/// Removes what processes have left that were ended before they could use it.
pub(crate) fn sweep(directory: &RunDirectory) -> Result<()> {
    let path = directory.blanks();
    let names =
        std::fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for name in names.flatten() {
        let blank = name.path().with_extension("");
        // Nobody gives one a name meanwhile, so that one without a lock is nobody's.
        let _guard = directory.lock(LOCK_PATIENCE)?;
        if let Some(lock) = Lock::take(&lock_file(&blank))? {
            let _ = tree::remove(&blank);
            lock.delete();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(directory: &RunDirectory) -> usize {
        std::fs::read_dir(directory.blanks()).unwrap().count()
    }

    #[test]
    fn a_blank_becomes_an_entry_with_its_lock_or_nothing_is_left_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::at(&folder.path().join("run")).unwrap();
        drop(Blank::make(&directory).unwrap());
        assert_eq!(left(&directory), 0);

        let uuid = "zzzzz-dz642-000000000000001".parse().unwrap();
        let entry = directory.entry(uuid, Attempt(1));
        let path = directory.lock_file(uuid);
        let mut ahead = Ahead {
            blank: Some(Blank::make(&directory).unwrap()),
            reaper: None,
        };
        let lock = ahead.take_lock(&path).unwrap().unwrap();
        assert!(Lock::take(&path).unwrap().is_none(), "it is held");
        let guard = directory.lock(LOCK_PATIENCE).unwrap();
        entry.create(ahead.blank.take(), None, &guard).unwrap();
        drop((ahead, guard));
        assert!(entry.work_directory().is_dir());
        assert_eq!(left(&directory), 0);
        lock.delete();
        assert!(!path.exists());
    }

    #[test]
    fn a_name_that_another_lock_has_is_not_taken_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::at(&folder.path().join("run")).unwrap();
        let path = directory.lock_file("zzzzz-dz642-000000000000001".parse().unwrap());
        let first = Lock::take(&path).unwrap().unwrap();
        let with_blank = || Ahead {
            blank: Some(Blank::make(&directory).unwrap()),
            reaper: None,
        };
        assert!(with_blank().take_lock(&path).unwrap().is_none());
        drop(first);
        // The file is there, and nobody holds it.
        assert!(with_blank().take_lock(&path).unwrap().is_some());
        assert_eq!(left(&directory), 0);
    }

    #[test]
    fn what_has_no_owner_any_more_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::at(&folder.path().join("run")).unwrap();
        let blank = Blank::make(&directory).unwrap();
        // As processes leave them that are killed, one of them while it made its claim.
        for name in ["1", "2"] {
            spool::make_blank(&directory.blanks().join(name)).unwrap();
        }
        std::fs::write(directory.blanks().join("1.lock"), "").unwrap();
        assert_eq!(left(&directory), 5);
        sweep(&directory).unwrap();
        assert_eq!(left(&directory), 2, "that which has an owner");
        drop(blank);
        assert_eq!(left(&directory), 0);
    }
}
