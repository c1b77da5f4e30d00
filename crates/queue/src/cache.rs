//! The cache of the controller's answers.
//!
//! Pure: which record is newer is decided by its revision where the controller numbers them, and
//! else by the time at which it was asked for: what may be older than this dispatcher's own last
//! write of the container is dropped.
//!
//! What was dropped from the cache is remembered for a while, so that an answer which was under
//! way at that time does not bring it back.

use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{Container, ContainerState, ContainerUuid, Instant, QueueEntry};

use crate::gone::Gone;
use crate::{Change, Refresh};

/// A call about this container is under way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a call about {0} is under way already")]
pub struct Busy(pub ContainerUuid);

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "an entry is there or it is not")]
#[expect(clippy::large_enum_variant, reason = "nearly all are upserts")]
pub enum Delta {
    /// It is new, or may differ from what was polled before.
    Upsert(QueueEntry),
    /// It is gone.
    Remove(ContainerUuid),
}

#[derive(Clone, Debug)]
struct Cached {
    container: Container,
    as_of: Instant,
    last_write: Option<Instant>,
}

/// A mutating call that has not been answered.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    began: Instant,
    /// The controller said meanwhile that the container does not exist any more.
    removed: bool,
}

/// The containers that this dispatcher knows of.
///
/// # Driving it
///
/// 1. Before each mutating [`crate::Call`] ask [`Cache::begin_call`]; after it, whatever came of
///    it, tell [`Cache::finish_call`].
/// 2. Give every answer of [`crate::Queue::refresh`] to [`Cache::handle_refresh`] with the moment
///    at which it was asked for, and every change to [`Cache::handle_change`].
/// 3. After each of these, and after [`Cache::forget`], take [`Cache::poll_delta`] until it is
///    empty: whoever applies all deltas has the same entries.
///
/// ```
/// use longshore_queue::{Cache, Change, Delta};
/// use longshore_types::{Container, ContainerState, Instant, ResourceRequest, Timestamp};
///
/// let uuid = "local-dz642-000000000000000".parse()?;
/// let container = Container {
///     uuid,
///     state: ContainerState::Queued,
///     priority: 500,
///     created_at: Timestamp(0),
///     request: ResourceRequest::default(),
///     supervisor: false,
///     lock_count: 0,
///     given_back: None,
///     locked_by_us: false,
///     placed_on: None,
///     revision: 1,
/// };
/// let mut cache = Cache::new();
/// cache.handle_change(&Change::Updated(Box::new(container)), Instant::ZERO);
/// assert!(matches!(cache.poll_delta(), Some(Delta::Upsert(entry)) if entry.container.uuid == uuid));
/// assert!(cache.poll_delta().is_none());
/// cache.begin_call(uuid, Instant::ZERO)?;
/// assert!(cache.begin_call(uuid, Instant::ZERO).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cache {
    entries: BTreeMap<ContainerUuid, Cached>,
    calls: BTreeMap<ContainerUuid, InFlight>,
    gone: Gone,
    changed: BTreeSet<ContainerUuid>,
}

impl Cache {
    /// A cache that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a container.
    pub fn get(&self, uuid: ContainerUuid) -> Option<QueueEntry> {
        let cached = self.entries.get(&uuid)?;
        Some(self.entry(uuid, cached))
    }

    /// Every entry, ordered by uuid.
    pub fn iter(&self) -> impl Iterator<Item = QueueEntry> {
        self.entries
            .iter()
            .map(|(&uuid, cached)| self.entry(uuid, cached))
    }

    /// Every container as it is known, ordered by uuid, without what else an entry has.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.entries.values().map(|cached| &cached.container)
    }

    /// How many entries are of containers that have not ended.
    pub fn unfinished(&self) -> usize {
        let states = self.entries.values().map(|cached| cached.container.state);
        states.filter(|state| !state.is_final()).count()
    }

    /// The containers that there are entries of, ordered: what [`crate::Queue::refresh`] is to be
    /// asked about.
    pub fn known(&self) -> Vec<ContainerUuid> {
        self.entries.keys().copied().collect()
    }

    /// Begins a call that changes a container at the controller; at most one at a time for each.
    ///
    /// A container that there is no entry of may be changed, too.
    pub fn begin_call(&mut self, uuid: ContainerUuid, now: Instant) -> Result<(), Busy> {
        if self.calls.contains_key(&uuid) {
            return Err(Busy(uuid));
        }
        let call = InFlight {
            began: now,
            removed: false,
        };
        self.calls.insert(uuid, call);
        self.mark(uuid);
        Ok(())
    }

    /// Ends the call of a container: with the record from its reply, or with none if it failed or
    /// nobody knows what it did.
    ///
    /// Whatever was asked for before `now` and arrives later is dropped. A call that was not
    /// begun is ignored.
    pub fn finish_call(&mut self, uuid: ContainerUuid, record: Option<Container>, now: Instant) {
        let Some(call) = self.calls.remove(&uuid) else {
            return;
        };
        self.mark(uuid);
        if call.removed {
            self.remove(uuid, now);
        } else if let Some(record) = record.filter(|record| record.uuid == uuid) {
            self.take_newer(record, call.began);
        }
        match self.entries.get_mut(&uuid) {
            Some(cached) => cached.last_write = Some(now),
            None => self.gone.insert(uuid, now, 0),
        }
    }

    /// Takes in the answer to a refresh that was asked for at `started_at`.
    ///
    /// A record with a larger revision than is known is taken. Of the others those of containers
    /// with a call in flight or written since, and those that are older than what is known, are
    /// dropped. That a container is not in the answer means nothing.
    pub fn handle_refresh(&mut self, refresh: &Refresh, started_at: Instant, now: Instant) {
        let as_of = started_at.min(now);
        for record in &refresh.containers {
            if self.may_be_newer(record.uuid, as_of, record.revision) {
                self.take_newer(record.clone(), as_of);
            }
        }
        for &uuid in &refresh.removed {
            if self.entries.contains_key(&uuid) && self.unwritten_since(uuid, as_of) {
                self.remove(uuid, as_of);
            }
        }
    }

    /// Takes in a change that the controller told of.
    ///
    /// A record with a revision is taken unless a newer one is known, even while a call is in
    /// flight; one without is taken unless a call is in flight.
    pub fn handle_change(&mut self, change: &Change, now: Instant) {
        match change {
            Change::Updated(record) => {
                let uuid = record.uuid;
                let numbered = record.revision > 0;
                let stale = self.gone.revision(uuid) >= Some(record.revision);
                if numbered && !stale || !numbered && !self.calls.contains_key(&uuid) {
                    self.take_newer((**record).clone(), now);
                }
            }
            Change::Removed(uuid) => match self.calls.get_mut(uuid) {
                // The reply of that call may come from before the removal.
                Some(call) => call.removed = true,
                None => self.remove(*uuid, now),
            },
        }
    }

    /// Drops the entry of a container that needs nothing any more: a final one, or a queued one
    /// that is not to run. Does nothing with any other, and nothing while a call is in flight.
    pub fn forget(&mut self, uuid: ContainerUuid) {
        let Some(cached) = self.entries.get(&uuid) else {
            return;
        };
        let container = &cached.container;
        let idle = container.state == ContainerState::Queued && container.priority < 1;
        if (container.state.is_final() || idle) && !self.calls.contains_key(&uuid) {
            let at = cached.last_write.unwrap_or(cached.as_of).max(cached.as_of);
            self.remove(uuid, at);
        }
    }

    /// What became of one entry since it was last polled, if anything: at most one delta for each
    /// container, with its newest record.
    pub fn poll_delta(&mut self) -> Option<Delta> {
        let uuid = self.changed.pop_first()?;
        Some(self.get(uuid).map_or(Delta::Remove(uuid), Delta::Upsert))
    }

    /// Walks the whole state and says what is wrong with it, if anything, which is a bug in this
    /// crate; for tests and health checks.
    pub fn check_invariants(&self) -> Result<(), String> {
        for (&uuid, cached) in &self.entries {
            let other = cached.container.uuid;
            if other != uuid {
                return Err(format!("the entry of {uuid} has the record of {other}"));
            }
            if self.gone.revision(uuid).is_some() {
                return Err(format!("{uuid} is there and gone at once"));
            }
        }
        self.gone.check_invariants()
    }

    /// How much is kept of each kind. What was dropped leaves nothing, but what is called
    /// `remembered`, which is bounded.
    ///
    /// ```
    /// let cache = longshore_queue::Cache::new();
    /// assert!(cache.sizes().iter().all(|(_, size)| *size == 0));
    /// ```
    pub fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("entries", self.entries.len()),
            ("calls", self.calls.len()),
            ("changed entries", self.changed.len()),
            ("remembered containers", self.gone.len()),
        ]
    }

    fn entry(&self, uuid: ContainerUuid, cached: &Cached) -> QueueEntry {
        QueueEntry {
            container: cached.container.clone(),
            as_of: cached.as_of,
            call_in_flight: self.calls.contains_key(&uuid),
        }
    }

    /// Notes that an entry differs from what was polled.
    fn mark(&mut self, uuid: ContainerUuid) {
        if self.entries.contains_key(&uuid) {
            self.changed.insert(uuid);
        }
    }

    fn remove(&mut self, uuid: ContainerUuid, at: Instant) {
        let revision = self.entries.remove(&uuid).map(|cached| {
            self.changed.insert(uuid);
            cached.container.revision
        });
        self.gone.insert(uuid, at, revision.unwrap_or(0));
    }

    /// Whether no own write of this container can be newer than what was asked for at `asked_at`.
    fn unwritten_since(&self, uuid: ContainerUuid, asked_at: Instant) -> bool {
        let last_write = self.entries.get(&uuid).and_then(|cached| cached.last_write);
        !self.calls.contains_key(&uuid) && last_write.is_none_or(|at| asked_at > at)
    }

    /// Whether a record that was asked for at `asked_at` can be newer than what is known.
    fn may_be_newer(&self, uuid: ContainerUuid, asked_at: Instant, revision: u64) -> bool {
        let known = self.entries.get(&uuid);
        if known.is_some_and(|cached| revision > cached.container.revision) {
            return true;
        }
        let in_order = match self.entries.get(&uuid) {
            // Without revisions an answer that was asked for earlier may be the older one.
            Some(cached) => revision > 0 || asked_at >= cached.as_of,
            None => self.gone.lets_in(uuid, asked_at, revision),
        };
        in_order && self.unwritten_since(uuid, asked_at)
    }

    /// Takes a record unless one with a larger revision is known.
    fn take_newer(&mut self, record: Container, as_of: Instant) {
        let uuid = record.uuid;
        match self.entries.get_mut(&uuid) {
            Some(cached) if record.revision < cached.container.revision => return,
            Some(cached) => {
                if cached.container == record && as_of <= cached.as_of {
                    return;
                }
                cached.container = record;
                cached.as_of = cached.as_of.max(as_of);
            }
            None => {
                self.gone.remove(uuid);
                let cached = Cached {
                    container: record,
                    as_of,
                    last_write: None,
                };
                self.entries.insert(uuid, cached);
            }
        }
        self.changed.insert(uuid);
    }
}
