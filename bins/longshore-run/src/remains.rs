//! What an attempt may have left running when its supervisor died.

use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::complain;
use crate::engine::{Engine, NotRemoved};
use crate::spool::Entry;

/// How long an engine is given at least to remove a container.
const ENGINE_PATIENCE: Duration = Duration::from_secs(3);

/// Control groups and an engine's container, of which at least one may be there.
#[derive(Debug)]
pub(crate) struct Remains<'a> {
    entry: &'a Entry,
    cgroup: Option<Cgroup>,
    engine: Option<Engine>,
}

impl<'a> Remains<'a> {
    /// What an attempt may have left; none if there is nothing to look for.
    pub(crate) fn of(entry: &'a Entry) -> Option<Self> {
        let (cgroup, engine) = (Cgroup::of(entry), Engine::left_by(entry));
        (cgroup.is_some() || engine.is_some()).then_some(Self {
            entry,
            cgroup,
            engine,
        })
    }

    /// Whether an engine has to be asked, which may take its time.
    pub(crate) fn has_engine(&self) -> bool {
        self.engine.is_some()
    }

    /// Ends and removes it; `false` if something of it may still be there after `patience`. Not to
    /// be called under the directory lock.
    pub(crate) fn end(&self, patience: Duration) -> bool {
        // The container first: its engine would take it amiss if its group were gone.
        // Unless that is remembered the engine is asked again, after a pause.
        let removed = self.engine.as_ref().is_none_or(|engine| {
            match engine.remove(patience.max(ENGINE_PATIENCE)) {
                Ok(()) => self.entry.note_engine_removed(),
                Err(NotRemoved::Refused) => false,
                Err(NotRemoved::NoClient(why)) => {
                    complain(&why);
                    false
                }
            }
        });
        let ended = self
            .cgroup
            .as_ref()
            .is_none_or(|cgroup| cgroup.end(patience));
        removed && ended
    }
}
