//! Limits of single processes, where control groups cannot be had: less than what was asked for,
//! and reported as such.

use longshore_runner_api::StartDocument;
use longshore_types::{AppliedLimits, Means};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::geteuid;

/// What a new process sets for itself and its children.
#[derive(Debug, Default)]
pub(crate) struct Rlimits {
    /// Bytes of private, writable memory of each process. Not the address space, of which some
    /// languages reserve far more than they use.
    data: Option<u64>,
    /// Processes and threads of the user on this machine.
    processes: Option<u64>,
}

impl Rlimits {
    /// In place of what `limits` says that nothing limits; notes what is limited now.
    pub(crate) fn in_place_of_groups(document: &StartDocument, limits: &mut AppliedLimits) -> Self {
        let mut rlimits = Self::default();
        if let Some(ram) = document.ram
            && limits.ram == Means::Nothing
        {
            rlimits.data = Some(ram.max(crate::cgroup::LEAST_RAM).0);
            limits.ram = Means::Rlimit;
        }
        // The kernel does not count the processes of root.
        if limits.processes == Means::Nothing && !geteuid().is_root() {
            let there = processes_of_user().saturating_add(u64::from(document.process_limit));
            rlimits.processes = Some(there);
            limits.processes = Means::Rlimit;
        }
        rlimits
    }

    /// To be called between fork and exec.
    pub(crate) fn set(&self) -> nix::Result<()> {
        let set = |resource, limit: Option<u64>| match limit {
            Some(limit) => {
                let (_, hard) = nix::sys::resource::getrlimit(resource)?;
                let limit = limit.min(hard);
                setrlimit(resource, limit, limit)
            }
            None => Ok(()),
        };
        set(Resource::RLIMIT_DATA, self.data)?;
        set(Resource::RLIMIT_NPROC, self.processes)
    }
}

/// How many threads this user has: what is there already is not the job's.
fn processes_of_user() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let me = geteuid().as_raw();
    let names = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let threads = names
        .filter(|name| {
            name.file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .filter(|name| name.metadata().is_ok_and(|process| process.uid() == me))
        .filter_map(|name| std::fs::read_dir(name.path().join("task")).ok())
        .map(Iterator::count);
    threads.sum::<usize>() as u64
}
