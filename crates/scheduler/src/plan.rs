//! Everything at once, for those who keep no scheduler.

use std::collections::BTreeMap;

use longshore_types::{ContainerUuid, Instant, PendingView, QueueEntry, Reason, WorkerView};

use crate::{Action, Config, Core, Limits};

/// Everything that a scheduler is told. Of several records of one container, or views of one
/// worker, the last counts.
///
/// The crate's documentation has an example.
///
/// ```
/// use longshore_scheduler::{Config, Input, Limits, plan};
/// use longshore_types::Instant;
/// let input = Input {
///     config: Config::new(vec![]),
///     limits: Limits::default(),
///     entries: vec![],
///     workers: vec![],
///     pendings: vec![],
///     now: Instant::ZERO,
/// };
/// assert!(plan(&input).actions.is_empty());
/// ```
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "what a caller leaves out would be planned wrongly"
)]
pub struct Input {
    /// The settings.
    pub config: Config,
    /// What limits it now.
    pub limits: Limits,
    /// The queue.
    pub entries: Vec<QueueEntry>,
    /// The workers.
    pub workers: Vec<WorkerView>,
    /// The instances that were asked for.
    pub pendings: Vec<PendingView>,
    /// The present.
    pub now: Instant,
}

/// What is to be done, and why the rest waits.
///
/// No example: [`plan()`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// One reason for each entry.
    pub reasons: BTreeMap<ContainerUuid, Reason>,
}

/// What a scheduler that knows nothing but `input` wants done.
///
/// No example: the crate's documentation begins with one.
pub fn plan(input: &Input) -> Plan {
    let mut core = Core::new(input.config.clone());
    core.set_limits(input.limits.clone(), input.now);
    for entry in &input.entries {
        core.upsert_entry(entry.clone(), input.now);
    }
    for worker in &input.workers {
        core.upsert_worker(worker.clone(), input.now);
    }
    for pending in &input.pendings {
        core.upsert_pending(pending.clone(), input.now);
    }
    let actions = std::iter::from_fn(|| core.poll_action(input.now)).collect();
    let reasons = input
        .entries
        .iter()
        .filter_map(|e| {
            let uuid = e.container.uuid;
            Some((uuid, core.reason(uuid, input.now)?))
        })
        .collect();
    Plan { actions, reasons }
}
