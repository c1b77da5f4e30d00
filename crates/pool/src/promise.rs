//! Workers that are promised to a container whose start is on its way: they are not idle.

use std::collections::BTreeMap;

use longshore_types::{ContainerUuid, InstanceId, Instant};

use crate::core::Core;
use crate::timers::{Timer, WorkerTimer};

/// For whom a worker is kept from being given back as idle, until when.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    until: BTreeMap<ContainerUuid, Instant>,
    /// Whether its time as an idle worker is over, and only the promises keep it.
    overdue: bool,
}

impl Promises {
    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }
}

impl Core {
    /// Keeps a worker from being given back as idle until `until`, since a container is to be
    /// started there as soon as its lock is taken. Ends with the start, or with
    /// [`Core::break_promise`]. Ignored where the worker is not known.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use longshore_pool::{Config, Core};
    /// # use longshore_types::Instant;
    /// # let now = Instant::ZERO;
    /// # let mut core = Core::new(Config::new("set", vec![]), [0; 32], now);
    /// # let uuid = "zzzzz-dz642-0123456789abcde".parse()?;
    /// core.promise(&"i-1".into(), uuid, now + Duration::from_secs(30), now);
    /// core.break_promise(&"i-1".into(), uuid, now);
    /// # Ok::<(), longshore_types::ParseUuidError>(())
    /// ```
    pub fn promise(
        &mut self,
        instance: &InstanceId,
        uuid: ContainerUuid,
        until: Instant,
        now: Instant,
    ) {
        self.advance(now);
        let now = self.now;
        if let Some(worker) = self.workers.get_mut(instance) {
            // On one that is never idle nobody else looks for those that were not kept.
            worker.promises.until.retain(|_, until| *until > now);
            worker.promises.until.insert(uuid, until);
        }
    }

    /// The container will not be started there after all.
    pub fn break_promise(&mut self, instance: &InstanceId, uuid: ContainerUuid, now: Instant) {
        self.advance(now);
        let Some(worker) = self.workers.get_mut(instance) else {
            return;
        };
        worker.promises.until.remove(&uuid);
        if worker.promises.overdue && worker.promises.until.is_empty() {
            worker.promises.overdue = false;
            let timer = Timer::Worker(instance.clone(), WorkerTimer::Idle);
            self.timers.set_by(timer, self.now);
        }
    }

    /// Whether a worker that was idle for long is promised to somebody; if so, it is looked at again
    /// when the promise ends.
    pub(crate) fn is_promised(&mut self, id: &InstanceId) -> bool {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(id) else {
            return false;
        };
        let promises = &mut worker.promises;
        promises.until.retain(|_, until| *until > now);
        let until = promises.until.values().max().copied();
        promises.overdue = until.is_some();
        if let Some(until) = until {
            let timer = Timer::Worker(id.clone(), WorkerTimer::Idle);
            self.timers.set(timer, until);
        }
        until.is_some()
    }
}

impl Promises {
    /// A container is being started.
    pub(crate) fn keep(&mut self, uuid: ContainerUuid) {
        self.until.remove(&uuid);
        self.overdue = false;
    }
}
