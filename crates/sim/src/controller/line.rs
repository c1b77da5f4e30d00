//! Who waits, in the order in which they are to be served.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{ContainerState, ContainerUuid, Timestamp};

use super::Record;

/// By priority, then age, then UUID: the smallest is served first.
type Key = (Reverse<i64>, Timestamp, ContainerUuid);

/// The containers that are Queued and wanted, but for supervisors, of which only a part is let run
/// whatever room there is.
#[derive(Debug, Default)]
pub(super) struct Line {
    order: BTreeSet<Key>,
    keys: BTreeMap<ContainerUuid, Key>,
}

impl Line {
    /// A record is as it is now, or gone.
    pub(super) fn note(&mut self, uuid: ContainerUuid, record: Option<&Record>) {
        if let Some(key) = self.keys.remove(&uuid) {
            self.order.remove(&key);
        }
        let waits = |record: &&Record| {
            let container = &record.container;
            let wanted = container.priority >= 1 && !record.cancel_requested;
            container.state == ContainerState::Queued && wanted && !container.supervisor
        };
        if let Some(record) = record.filter(waits) {
            let container = &record.container;
            let key = (Reverse(container.priority), container.created_at, uuid);
            self.order.insert(key);
            self.keys.insert(uuid, key);
        }
    }

    /// Who is first.
    pub(super) fn first(&self) -> Option<ContainerUuid> {
        self.order.first().map(|(_, _, uuid)| *uuid)
    }
}
