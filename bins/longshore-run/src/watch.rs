//! Waiting for a change in the directory.

use std::io::stdout;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::directory::RunDirectory;

/// How often it is looked where the kernel has no more watches to give.
const PERIOD: Duration = Duration::from_millis(50);

/// A watch on all that a report is made of.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Option<Inotify>,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Something may have changed.
    Changed,
    /// Nothing has, for as long as was asked.
    TimeOver,
    /// Whoever asked for the report has closed our standard output.
    NobodyListens,
}

impl Watch {
    pub(crate) fn new(directory: &RunDirectory) -> Self {
        let inotify = watch(directory).ok();
        Self { inotify }
    }

    /// Waits for a change, for at most `time`.
    pub(crate) fn wait(&self, time: Duration) -> Wake {
        let out = stdout();
        let limit = match self.inotify {
            Some(_) => time,
            None => time.min(PERIOD),
        };
        let limit = PollTimeout::try_from(limit + Duration::from_micros(999));
        // Of standard output only errors are wanted, and those are always told.
        let mut ready = vec![PollFd::new(out.as_fd(), PollFlags::empty())];
        if let Some(inotify) = &self.inotify {
            ready.push(PollFd::new(inotify.as_fd(), PollFlags::POLLIN));
        }
        let count = poll(&mut ready, limit.unwrap_or(PollTimeout::MAX));
        if ready[0].any().unwrap_or(true) {
            return Wake::NobodyListens;
        }
        match &self.inotify {
            Some(inotify) if count.is_ok_and(|count| count > 0) => {
                // What happened does not matter, nor whether events were lost: all is read anew.
                while inotify.read_events().is_ok() {}
                Wake::Changed
            }
            Some(_) => Wake::TimeOver,
            None => Wake::Changed,
        }
    }
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
