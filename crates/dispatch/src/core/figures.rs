//! What a dispatcher can be measured by at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_pool::Tally;
use longshore_scheduler::type_choice::eligible;
use longshore_types::{
    ContainerState, ContainerUuid, Instant, ResourceRequest, TypeName, WorkerState,
};

use super::Core;

/// How many different requests of containers are told apart by their types.
const MAX_REQUESTS: usize = 64;

/// Numbers for metrics, taken when somebody asks.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// Whether creates are held off for lack of quota.
    pub at_quota: bool,
    /// Kinds of creates that are held off, whatever the reason.
    pub hold_offs: usize,
    /// Creates whose instance is not known.
    pub pending_creates: usize,
    /// The limit on containers that run at once, if the controller ever had too much to do.
    pub max_containers: Option<u32>,
    /// How long ago it said so last.
    pub since_overload: Option<Duration>,
    /// How long the container that has waited longest is in the queue's cache.
    pub longest_wait: Duration,
    /// How many containers wait.
    pub waiting: usize,
    /// How long ago ready workers last said what runs there, in ascending order.
    pub probe_ages: Vec<Duration>,
    /// How many containers of the queue there are in each state, by the type that is preferred for
    /// them; of rare requests in a queue of very different ones, without a type.
    pub entries: BTreeMap<(ContainerState, Option<TypeName>), u64>,
    /// What has happened to instances so often.
    pub tally: Tally,
}

impl Core {
    /// What there is to measure. It looks at every container and worker.
    pub fn figures(&self, now: Instant) -> Figures {
        let pool = self.pool.snapshot(now);
        let ready = |state| matches!(state, WorkerState::Idle | WorkerState::Running);
        let probed = pool.workers.iter().filter(|worker| ready(worker.state));
        let mut probe_ages: Vec<Duration> = probed
            .filter_map(|worker| Some(now.since(worker.probed_at?)))
            .collect();
        probe_ages.sort_unstable();
        let waiting = || self.scheduler.waiting();
        let first_seen = waiting().filter_map(|uuid| self.first_seen.get(&uuid));
        let oldest = first_seen.min().copied().unwrap_or(now);
        Figures {
            at_quota: pool.hold_offs.iter().any(|hold| hold.is_quota),
            hold_offs: pool.hold_offs.len(),
            pending_creates: pool.pendings.len(),
            max_containers: self.limit.current(),
            since_overload: self.limit.overloaded_at().map(|at| now.since(at)),
            longest_wait: now.since(oldest),
            waiting: waiting().count(),
            probe_ages,
            entries: self.count_entries(),
            tally: pool.tally,
        }
    }

    /// When a container came into the queue's cache; none if it is not there.
    pub fn first_seen(&self, uuid: ContainerUuid) -> Option<Instant> {
        self.first_seen.get(&uuid).copied()
    }

    fn count_entries(&self) -> BTreeMap<(ContainerState, Option<TypeName>), u64> {
        let mut counts = BTreeMap::new();
        // Most containers ask for what the one before asked for.
        let mut known: Vec<(ResourceRequest, Option<TypeName>)> = Vec::new();
        for container in self.cache.containers() {
            let request = &container.request;
            let found = known.iter().position(|(other, _)| other == request);
            let name = match found {
                Some(at) => known.get(at).and_then(|(_, name)| name.clone()),
                None if known.len() < MAX_REQUESTS => {
                    let types = eligible(request, &self.config.scheduler).unwrap_or_default();
                    let name = types.first().map(|first| first.name.clone());
                    known.push((request.clone(), name.clone()));
                    name
                }
                None => None,
            };
            *counts.entry((container.state, name)).or_default() += 1;
        }
        counts
    }
}
