//! How often what has happened.

use std::collections::BTreeMap;

use longshore_types::WorkerState;

use crate::core::Core;

/// Counts of what has happened since a core was made, for metrics.
///
/// ```
/// use longshore_pool::{Config, Core};
/// use longshore_types::Instant;
/// let core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
/// assert_eq!(core.tally().boots_succeeded, 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Instances that came to be ready.
    pub boots_succeeded: u64,
    /// Instances that were given up because they did not boot in time.
    pub boots_failed: u64,
    /// Instances that were shut down for another reason before they were ready.
    pub boots_aborted: u64,
    /// Instances that were gone before they were ready.
    pub boots_disappeared: u64,
    /// Instances that are gone, by the state that they were last in.
    pub disappeared: BTreeMap<WorkerState, u64>,
}

impl Tally {
    pub(crate) fn count_disappeared(&mut self, state: WorkerState) {
        *self.disappeared.entry(state).or_default() += 1;
        if matches!(state, WorkerState::Unknown | WorkerState::Booting) {
            self.boots_disappeared += 1;
        }
    }
}

impl Core {
    /// What has happened so often since the core was made.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}
