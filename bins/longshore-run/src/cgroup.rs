//! The control groups of a job, where they can be made: they hold it to its limits, and are an
//! additional net under the subreapers.
//!
//! Where the unified hierarchy has the controllers, one group there does everything. Else there is
//! a group in each hierarchy of version 1 that limits something, and one in the unified hierarchy,
//! which ends a whole group with one write. The entry in the spool says where the groups are before
//! they are made, so that whoever finds the entry finds them.

mod limit;
mod place;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use longshore_runner_api::StartDocument;
use longshore_types::{AppliedLimits, Means};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::engine::Engine;
use crate::spool::Entry;
use crate::system::Process;
pub(crate) use limit::{LEAST_RAM, MemoryWatch, Shortage};
use place::Home;
pub(crate) use place::know;

/// The groups of an attempt.
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// One in each hierarchy that is used; the first is the best for ending everything.
    groups: Vec<PathBuf>,
    /// Those that a container engine makes beside them, in all other hierarchies.
    others: Vec<PathBuf>,
}

/// The groups of a job that is about to be started.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) cgroup: Cgroup,
    /// What the groups limit.
    pub(crate) limits: AppliedLimits,
    /// Tells whether the memory was used up.
    pub(crate) memory: Option<MemoryWatch>,
}

/// Where the groups of an attempt are to be made.
#[derive(Debug)]
pub(crate) struct Plan {
    home: Home,
    supervisor: u32,
    paths: Vec<PathBuf>,
    others: Vec<PathBuf>,
}

impl Plan {
    /// The plan for an attempt with the supervisor of this process id; none if its engine takes no
    /// groups.
    pub(crate) fn of(entry: &Entry, document: &StartDocument, supervisor: u32) -> Option<Self> {
        Self::with(entry, document, supervisor, place::known_places)
    }

    fn with(
        entry: &Entry,
        document: &StartDocument,
        supervisor: u32,
        places: impl FnOnce(Home, &[&'static str]) -> Vec<PathBuf>,
    ) -> Option<Self> {
        let home = match Engine::of_document(entry, document) {
            None => Home::Own,
            Some(engine) => engine.takes_groups().then_some(Home::Root)?,
        };
        let name = format!("{}{supervisor}", prefix(entry));
        let places = places(home, &controllers(document));
        let paths: Vec<PathBuf> = places.iter().map(|place| place.join(&name)).collect();
        let others = match home {
            Home::Own => Vec::new(),
            Home::Root => place::mount_points(),
        };
        let others = others.iter().map(|place| place.join(&name));
        let others = others.filter(|path| !paths.contains(path)).collect();
        Some(Self {
            home,
            supervisor,
            paths,
            others,
        })
    }

    /// Where they are to be, all of them.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        [self.paths.as_slice(), &self.others].concat()
    }

    /// Makes the groups, which the entry names already: as many as can be made here.
    pub(crate) fn make(&self, entry: &Entry, document: &StartDocument) -> Option<Made> {
        let made = self.make_here(document);
        let whole = made.cgroup.groups.len() == self.paths.len()
            && (document.ram.is_none() || made.limits.ram.is_whole())
            && (document.vcpus.is_none() || made.limits.vcpus.is_whole());
        if !whole
            && let Some(anew) = Self::with(entry, document, self.supervisor, place::places)
            && anew.paths != self.paths
        {
            // What was known of this machine is not so any more.
            made.cgroup.end(Duration::ZERO);
            entry.note_cgroups(&anew.paths()).ok()?;
            return Some(anew.make_here(document)).filter(|made| !made.cgroup.groups.is_empty());
        }
        Some(made).filter(|made| !made.cgroup.groups.is_empty())
    }

    fn make_here(&self, document: &StartDocument) -> Made {
        let mut made = Made {
            cgroup: Cgroup {
                groups: Vec::new(),
                others: self.others.clone(),
            },
            limits: AppliedLimits::all(Means::Nothing),
            memory: None,
        };
        for path in &self.paths {
            // One that exists is an older one's with the same name, and so empty by now.
            match std::fs::create_dir(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => continue,
                _ => {}
            }
            limit::apply(path, document, &mut made.limits, &mut made.memory);
            if self.home == Home::Own {
                limit::end_together(path);
            }
            made.cgroup.groups.push(path.clone());
        }
        made
    }
}

impl Cgroup {
    /// The groups that an attempt was given, if any is still there.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let prefix = prefix(entry);
        let ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            path.is_absolute()
                && name.is_some_and(|name| name.starts_with(&prefix))
                && path.join("cgroup.procs").exists()
        };
        let groups: Vec<_> = entry.state().cgroups.into_iter().filter(ours).collect();
        let others = Vec::new();
        (!groups.is_empty()).then_some(Self { groups, others })
    }

    /// The group that a child can be born into, if there is one in the unified hierarchy; its
    /// place among the groups comes with it.
    pub(crate) fn birthplace(&self) -> Option<(usize, File)> {
        let unified = |path: &PathBuf| path.join("cgroup.kill").exists();
        let at = self.groups.iter().position(unified)?;
        Some((at, File::open(self.groups.get(at)?).ok()?))
    }

    /// For each group the file that a process writes `0` to in order to become a member.
    pub(crate) fn doors(&self) -> Vec<std::io::Result<File>> {
        let open = |path: &PathBuf| {
            // In version 1 a single thread that moves itself keeps nobody waiting: 0.5 ms in place
            // of 8 ms in which no process of the machine can fork.
            let tasks = path.join("tasks");
            let door = match tasks.exists() {
                true => tasks,
                false => path.join("cgroup.procs"),
            };
            OpenOptions::new().write(true).open(door)
        };
        self.groups.iter().map(open).collect()
    }

    /// Which limits are lost if the process could not become a member of this group.
    pub(crate) fn forget(&self, group: usize, limits: &mut AppliedLimits) {
        if let Some(path) = self.groups.get(group) {
            limit::forget(path, limits);
        }
    }

    /// The name of the groups from the root of every hierarchy; only for those at [`Home::Root`].
    pub(crate) fn name(&self) -> Option<String> {
        let first = self.groups.first()?;
        let name = first.file_name()?.to_str()?;
        let base = first.parent()?.file_name()?.to_str()?;
        Some(match base == place::BASE {
            true => format!("/{base}/{name}"),
            false => format!("/{name}"),
        })
    }

    /// Sends KILL to every member.
    pub(crate) fn kill(&self) {
        for group in &self.groups {
            if std::fs::write(group.join("cgroup.kill"), "1").is_err() {
                kill_each(group);
            }
        }
    }

    /// Ends every member and removes the groups; says whether that was done within `patience`.
    pub(crate) fn end(&self, patience: Duration) -> bool {
        let since = Instant::now();
        loop {
            // All of them, also after one that cannot be removed.
            let all = self.groups.iter().chain(&self.others);
            let left = all.filter(|group| !remove(group)).count();
            if left == 0 {
                return true;
            }
            self.kill();
            if since.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What limits that which a document wants to be limited.
fn controllers(document: &StartDocument) -> Vec<&'static str> {
    let memory = document.ram.map(|_| "memory");
    let processors = document.vcpus.map(|_| "cpu");
    memory
        .into_iter()
        .chain(processors)
        .chain(["pids"])
        .collect()
}

/// Version 1: no new members, where the hierarchy can say that, and one after the other.
fn kill_each(group: &Path) {
    let limit = group.join("pids.max");
    if limit.exists() {
        let _ = std::fs::write(limit, "0");
    }
    for below in below(group) {
        kill_each(&below);
    }
    for pid in members(group) {
        // The process is held first and then looked at, so that no other with its id is hit.
        let Ok(process) = Process::open(pid) else {
            continue;
        };
        if members(group).contains(&pid) {
            let _ = process.signal(Signal::SIGKILL);
        }
    }
}

fn members(group: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 1)
        .map(Pid::from_raw)
        .collect()
}

/// Removes a group and those that a container engine made in it; `false` if something is there.
fn remove(group: &Path) -> bool {
    match std::fs::remove_dir(group) {
        Ok(()) => return true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
        Err(_) => {}
    }
    below(group).iter().all(|below| remove(below)) && std::fs::remove_dir(group).is_ok()
}

fn below(group: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(group).into_iter().flatten().flatten();
    names
        .filter(|name| name.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|name| name.path())
        .collect()
}

fn prefix(entry: &Entry) -> String {
    format!("longshore-run.{}.{}.", entry.uuid, entry.attempt)
}
