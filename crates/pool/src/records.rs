//! What the controller's records say runs on workers, which no worker has to say again.

use std::collections::BTreeMap;

use longshore_types::{ContainerUuid, InstanceId, Instant};

use crate::core::Core;

/// Where containers may run, as recorded.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Whether they were not read yet, and may say anything.
    unread: bool,
    places: BTreeMap<ContainerUuid, InstanceId>,
    on: BTreeMap<InstanceId, usize>,
}

impl Records {
    fn set(&mut self, uuid: ContainerUuid, instance: Option<&InstanceId>) {
        if self.places.get(&uuid) == instance {
            return;
        }
        if let Some(old) = self.places.remove(&uuid)
            && let Some(count) = self.on.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.on.remove(&old);
            }
        }
        if let Some(new) = instance {
            self.places.insert(uuid, new.clone());
            *self.on.entry(new.clone()).or_default() += 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether something may run on an instance for all that is recorded.
    pub(crate) fn may_name(&self, id: &InstanceId) -> bool {
        self.unread || self.on.contains_key(id)
    }

    /// Whether both indexes say the same.
    pub(crate) fn are_consistent(&self) -> bool {
        self.on.values().sum::<usize>() == self.places.len() && !self.on.values().any(|n| *n == 0)
    }
}

impl Core {
    /// Says whether the records of an earlier process were read. They count as read unless this
    /// is called with false, at the beginning.
    ///
    /// Until then any worker that this process did not create may run something, so that none is
    /// shut down only because it did not boot in time; see [`Core::set_recorded_place`].
    pub fn set_records_read(&mut self, read: bool, now: Instant) {
        self.advance(now);
        self.records.unread = !read;
    }

    /// Says on which instance a container may run according to the controller's records, known
    /// here or not; none if it cannot run, or nobody knows where.
    ///
    /// A worker that this process did not create, and of which something is recorded, is not shut
    /// down because it does not boot in time: it is silent, and [`Config::timeout_probe`] and
    /// three failed probes end that. Kept until it is said anew, so say none when a record goes.
    ///
    /// [`Config::timeout_probe`]: crate::Config::timeout_probe
    ///
    /// ```
    /// use longshore_cloud::CreateRequest;
    /// use longshore_pool::{Config, Core};
    /// use longshore_types::Instant;
    ///
    /// let (types, now) = (vec![CreateRequest::example().instance_type], Instant::ZERO);
    /// let mut core = Core::new(Config::new("set", types), [0; 32], now);
    /// core.set_records_read(false, now);
    /// let uuid = "zzzzz-dz642-0123456789abcde".parse().unwrap();
    /// core.set_recorded_place(uuid, Some(&"i-1".into()), now);
    /// core.set_records_read(true, now);
    /// core.set_recorded_place(uuid, None, now);
    /// ```
    pub fn set_recorded_place(
        &mut self,
        uuid: ContainerUuid,
        instance: Option<&InstanceId>,
        now: Instant,
    ) {
        self.advance(now);
        self.records.set(uuid, instance);
    }
}
