//! What an attempt may have left running when its supervisor died.

use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::engine::Engine;
use crate::spool::Entry;

/// How long an engine is given at least to remove a container.
const ENGINE_PATIENCE: Duration = Duration::from_secs(3);

/// Control groups and an engine's container, of which at least one may be there.
#[derive(Debug)]
pub(crate) struct Remains {
    cgroup: Option<Cgroup>,
    engine: Option<Engine>,
}

impl Remains {
    /// What an attempt may have left; none if there is nothing to look for.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let (cgroup, engine) = (Cgroup::of(entry), Engine::left_by(entry));
        (cgroup.is_some() || engine.is_some()).then_some(Self { cgroup, engine })
    }

    /// Ends and removes it; `false` if something of it may still be there after `patience`.
    pub(crate) fn end(&self, patience: Duration) -> bool {
        // The container first: its engine would take it amiss if its group were gone.
        let removed = self
            .engine
            .as_ref()
            .is_none_or(|engine| engine.remove(patience.max(ENGINE_PATIENCE)));
        let ended = self
            .cgroup
            .as_ref()
            .is_none_or(|cgroup| cgroup.end(patience));
        removed && ended
    }
}
