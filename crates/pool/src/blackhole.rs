//! Workers on which nothing comes to run, and types of which every new worker is like that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_types::{ContainerUuid, InstanceId, Instant, TypeName};

use crate::core::Core;

/// Failures in a row after which a worker gets no more to do.
const MAX_FAILURES: usize = 3;
/// Workers of one type that end like that within [`WINDOW`] before no more of it are created.
const MAX_WORKERS: usize = 3;
const WINDOW: Duration = Duration::from_secs(600);

/// What did not come to run on a worker since something last did.
#[derive(Debug, Default)]
pub(crate) struct Duds {
    starts: usize,
    /// Containers whose runner ended before they ran. One of them that fails again and again is
    /// itself at fault.
    containers: BTreeSet<ContainerUuid>,
}

impl Duds {
    pub(crate) fn count(&self) -> usize {
        self.starts + self.containers.len()
    }
}

/// The workers on which nothing came to run, by type.
#[derive(Debug, Default)]
pub(crate) struct BlackHoles(BTreeMap<TypeName, Recent>);

impl BlackHoles {
    /// Whether none is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Default)]
struct Recent {
    /// When each came to be known as one, at most [`MAX_WORKERS`] of them.
    at: VecDeque<Instant>,
    /// The serial number of the newest of these workers.
    newest: u64,
}

impl Core {
    /// Takes note that a start failed on a worker.
    pub(crate) fn count_failed_start(&mut self, id: &InstanceId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.duds.starts += 1;
            self.look_for_black_hole(id);
        }
    }

    /// Takes note that the runner of a container ended before the container ran.
    pub(crate) fn count_early_end(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        if let Some(worker) = self.workers.get_mut(id)
            && worker.duds.containers.insert(uuid)
        {
            self.look_for_black_hole(id);
        }
    }

    /// Takes note that a container ran on a worker.
    pub(crate) fn came_to_run(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.duds = Duds::default();
        // An older worker says nothing of what is created now.
        if let Some(name) = &worker.type_name
            && let Some(recent) = self.black_holes.0.get(name)
            && recent.newest < worker.serial
        {
            let name = name.clone();
            self.black_holes.0.remove(&name);
            self.black_holes_ended(&name);
        }
    }

    fn look_for_black_hole(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if worker.duds.count() < MAX_FAILURES {
            return;
        }
        worker.duds = Duds::default();
        let (type_name, serial) = (worker.type_name.clone(), worker.serial);
        let error = worker.last_error.clone().unwrap_or_default();
        self.alarm(format!("nothing can be started on instance {id}: {error}"));
        self.drain(
            id,
            &format!("{MAX_FAILURES} starts in a row failed: {error}"),
        );
        if let Some(name) = type_name {
            self.count_black_hole(&name, serial, &error);
        }
    }

    fn count_black_hole(&mut self, name: &TypeName, serial: u64, error: &str) {
        let now = self.now;
        let recent = self.black_holes.0.entry(name.clone()).or_default();
        recent.newest = recent.newest.max(serial);
        recent.at.push_back(now);
        recent.at.retain(|at| now.since(*at) <= WINDOW);
        if recent.at.len() >= MAX_WORKERS {
            recent.at.pop_front();
            self.hold_off_black_holes(name, error);
        } else {
            self.prolong_black_holes(name, error);
        }
    }
}
