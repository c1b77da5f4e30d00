//! Waiting for a change in the directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::stdout;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::directory::RunDirectory;
use crate::scan::Look;

/// How often it is looked where the kernel has no more watches to give.
const PERIOD: Duration = Duration::from_millis(50);

/// A watch on all that a report is made of.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Option<Inotify>,
}

/// What may have changed, and how.
pub(crate) type Changes = BTreeMap<Look, Change>;

/// How something may have changed. At least one of the two is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// A file was made, written or removed.
    pub(crate) was_changed: bool,
    /// A lock file was closed, perhaps by the last one that held its lock. The kernel tells of
    /// that just before it releases the lock.
    pub(crate) was_closed: bool,
}

/// What a wait has come to; nothing of it if the time is up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// What may have changed in the directory.
    pub(crate) changes: Changes,
    /// Whoever asked has closed our standard output.
    pub(crate) nobody_listens: bool,
    /// Which of the others can be read.
    pub(crate) others: Vec<bool>,
}

impl Watch {
    pub(crate) fn new(directory: &RunDirectory) -> Self {
        let inotify = watch(directory).ok();
        Self { inotify }
    }

    /// Waits for a change, or for something to read from one of `others`, for at most `time`.
    pub(crate) fn poll(&self, time: Duration, others: &[BorrowedFd<'_>]) -> Ready {
        let out = stdout();
        let limit = match self.inotify {
            Some(_) => time,
            None => time.min(PERIOD),
        };
        let limit = PollTimeout::try_from(limit + Duration::from_micros(999));
        let mut ready: Vec<PollFd<'_>> = Vec::with_capacity(others.len() + 2);
        ready.extend(others.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
        // Of standard output only errors are wanted, and those are always told.
        ready.push(PollFd::new(out.as_fd(), PollFlags::empty()));
        ready.extend(
            self.inotify
                .iter()
                .map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)),
        );
        let count = poll(&mut ready, limit.unwrap_or(PollTimeout::MAX)).unwrap_or(0);
        if count == 0 {
            let changes = match self.inotify {
                Some(_) => Changes::new(),
                None => everything(),
            };
            return Ready {
                changes,
                ..Ready::default()
            };
        }
        let mut ready = ready.iter().map(|one| one.any().unwrap_or(true));
        let others = ready.by_ref().take(others.len()).collect();
        let nobody_listens = ready.next().unwrap_or(false);
        let changed = ready.next().unwrap_or(true);
        Ready {
            changes: if changed {
                self.changes()
            } else {
                Changes::new()
            },
            nobody_listens,
            others,
        }
    }

    /// What the kernel tells of since it was last asked.
    fn changes(&self) -> Changes {
        let Some(inotify) = &self.inotify else {
            return everything();
        };
        let mut changes = Changes::new();
        loop {
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return changes,
                Err(_) => return everything(),
            };
            for event in events {
                let place = match &event.name {
                    Some(name) => place(name),
                    // Events were lost, or a directory was.
                    None => Some(Look::All),
                };
                let Some(place) = place else { continue };
                let change = changes.entry(place).or_default();
                match event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE) {
                    true => change.was_closed = true,
                    false => change.was_changed = true,
                }
            }
        }
    }
}

fn everything() -> Changes {
    let change = Change {
        was_changed: true,
        was_closed: false,
    };
    Changes::from([(Look::All, change)])
}

/// What a file says something about: `UUID.lock`, `UUID`, `UUID.N` in the trash, or the flag. The
/// others, like the directory lock that everybody takes, say nothing.
fn place(name: &OsStr) -> Option<Look> {
    let name = name.to_str()?;
    if name == "broken" {
        return Some(Look::Flag);
    }
    let uuid = name.split('.').next()?;
    uuid.parse().ok().map(Look::Container)
}

fn watch(directory: &RunDirectory) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let names = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO;
    let contents = names | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
    inotify.add_watch(&directory.locks(), contents)?;
    inotify.add_watch(&directory.spool(), names)?;
    // Acknowledged entries go there, also those beside a newer attempt.
    inotify.add_watch(&directory.trash(), names)?;
    // For the flag that the machine is broken.
    inotify.add_watch(directory.root(), contents)?;
    Ok(inotify)
}
