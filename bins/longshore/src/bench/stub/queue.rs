//! A controller that is a table in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_queue::{
    Call, Capabilities, Change, Queue, QueueError, QueueErrorKind, Refresh, Reply,
};
use longshore_types::{Container, ContainerState, ContainerUuid};
use tokio::sync::{Notify, watch};

/// The most changes that are told at once.
const MOST_CHANGES: usize = 1000;

/// Tells of what is submitted, and believes what it is told.
#[derive(Debug, Default)]
pub(super) struct MemoryQueue {
    table: Mutex<Table>,
    news: Notify,
    finished: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct Table {
    containers: BTreeMap<ContainerUuid, (Container, Arc<[u8]>)>,
    /// What was submitted and not told of yet.
    untold: Vec<ContainerUuid>,
}

impl MemoryQueue {
    /// Takes containers that are queued.
    pub(super) fn submit(&self, containers: impl IntoIterator<Item = (Container, Arc<[u8]>)>) {
        let mut table = self.lock();
        for (container, document) in containers {
            let uuid = container.uuid;
            table.containers.insert(uuid, (container, document));
            table.untold.push(uuid);
        }
        drop(table);
        self.news.notify_one();
    }

    /// How many have ended since the beginning.
    pub(super) fn finished(&self) -> watch::Receiver<u32> {
        self.finished.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> Vec<Change> {
        let mut table = self.lock();
        let count = table.untold.len().min(MOST_CHANGES);
        let told: Vec<_> = table.untold.drain(..count).collect();
        let records = told.iter().filter_map(|uuid| table.containers.get(uuid));
        let records = records.map(|(record, _)| Change::Updated(Box::new(record.clone())));
        records.collect()
    }
}

/// Changes a record as a call says. It is made for one dispatcher that makes no mistakes.
fn apply(record: &mut Container, call: &Call) -> Result<(), QueueError> {
    let fits = match call {
        Call::Lock { attempt, .. } => {
            record.state == ContainerState::Queued && attempt.0 == record.lock_count + 1
        }
        call => call.attempt() == record.attempt() && !record.state.is_final(),
    };
    if !fits {
        let what = format!("{call:?} does not fit {record:?}");
        return Err(QueueError::new(QueueErrorKind::Refused, what));
    }
    match call {
        Call::Lock { attempt, planned } => {
            record.state = ContainerState::Locked;
            record.lock_count = attempt.0;
            record.locked_by_us = true;
            record.placed_on.clone_from(planned);
        }
        Call::Place { instance, .. } => record.placed_on = Some(instance.clone()),
        Call::Unlock { .. } => {
            record.state = ContainerState::Queued;
            record.locked_by_us = false;
            record.placed_on = None;
        }
        Call::Cancel { .. } => record.state = ContainerState::Cancelled,
        Call::Running { .. } => record.state = ContainerState::Running,
        Call::Ended { .. } => record.state = ContainerState::Complete,
    }
    record.revision += 1;
    Ok(())
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn refresh(&self, known: &[ContainerUuid], _: Duration) -> Result<Refresh, QueueError> {
        let table = self.lock();
        let of_interest = |container: &&Container| {
            !container.state.is_final() || known.binary_search(&container.uuid).is_ok()
        };
        let records = table.containers.values().map(|(record, _)| record);
        Ok(Refresh {
            containers: records.filter(of_interest).cloned().collect(),
            removed: Vec::new(),
        })
    }

    async fn changes(&self, timeout: Duration) -> Result<Vec<Change>, QueueError> {
        let waiting = async {
            loop {
                let told = self.told();
                if !told.is_empty() {
                    return told;
                }
                self.news.notified().await;
            }
        };
        let told = tokio::time::timeout(timeout, waiting).await;
        Ok(told.unwrap_or_default())
    }

    async fn call(
        &self,
        uuid: ContainerUuid,
        call: &Call,
        _: Duration,
    ) -> Result<Reply, QueueError> {
        let mut table = self.lock();
        let found = table.containers.get_mut(&uuid);
        let (record, document) = found.ok_or_else(|| unknown(uuid))?;
        apply(record, call)?;
        let reply = Reply {
            container: record.clone(),
            document: matches!(call, Call::Lock { .. }).then(|| document.clone()),
        };
        if reply.container.state.is_final() {
            self.finished.send_modify(|count| *count += 1);
        }
        Ok(reply)
    }

    async fn document(&self, uuid: ContainerUuid, _: Duration) -> Result<Arc<[u8]>, QueueError> {
        let table = self.lock();
        let found = table.containers.get(&uuid);
        found
            .map(|(_, document)| document.clone())
            .ok_or_else(|| unknown(uuid))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            pushes: true,
            takes_reports: true,
        }
    }
}

fn unknown(uuid: ContainerUuid) -> QueueError {
    QueueError::new(QueueErrorKind::NotFound, format!("there is no {uuid}"))
}
