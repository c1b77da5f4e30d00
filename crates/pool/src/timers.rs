//! What is due when: an ordered set of named timers, each armed at most once.

use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{ContainerUuid, Deadline, InstanceId, Instant};

use crate::holdoff::HoldKey;

/// What a moment is waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    List,
    Turn,
    Pending(u64),
    HoldOff(HoldKey),
    Worker(InstanceId, WorkerTimer),
    Container(InstanceId, ContainerUuid, ContainerTimer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkerTimer {
    Probe,
    Ack,
    Boot,
    Silent,
    Idle,
    Destroy,
    Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ContainerTimer {
    Start,
    Settle,
    Signal,
    GiveUp,
    Stale,
    Collect,
}

impl WorkerTimer {
    pub(crate) const ALL: [Self; 7] = [
        Self::Probe,
        Self::Ack,
        Self::Boot,
        Self::Silent,
        Self::Idle,
        Self::Destroy,
        Self::Tags,
    ];
}

impl ContainerTimer {
    pub(crate) const ALL: [Self; 6] = [
        Self::Start,
        Self::Settle,
        Self::Signal,
        Self::GiveUp,
        Self::Stale,
        Self::Collect,
    ];
}

impl Timer {
    fn why(&self) -> &'static str {
        match self {
            Self::List => "list instances",
            Self::Turn => "probe the next worker in line",
            Self::Pending(_) => "look after a pending create",
            Self::HoldOff(_) => "end a hold-off",
            Self::Worker(_, WorkerTimer::Probe) => "probe a worker",
            Self::Worker(_, WorkerTimer::Ack) => "acknowledge results",
            Self::Worker(_, WorkerTimer::Boot) => "give up a boot",
            Self::Worker(_, WorkerTimer::Silent) => "give up a silent worker",
            Self::Worker(_, WorkerTimer::Idle) => "shut down an idle worker",
            Self::Worker(_, WorkerTimer::Destroy) => "destroy an instance again",
            Self::Worker(_, WorkerTimer::Tags) => "set tags again",
            Self::Container(_, _, ContainerTimer::Start) => "start a container again",
            Self::Container(_, _, ContainerTimer::Settle) => "give up an unsettled start",
            Self::Container(_, _, ContainerTimer::Signal) => "signal a container again",
            Self::Container(_, _, ContainerTimer::GiveUp) => "give up a kill",
            Self::Container(_, _, ContainerTimer::Stale) => "give up a stale lock",
            Self::Container(_, _, ContainerTimer::Collect) => "collect output again",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
    armed: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Arms a timer, in place of what it was armed for before.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(before) = self.armed.insert(timer.clone(), at) {
            self.due.remove(&(before, timer.clone()));
        }
        self.due.insert((at, timer));
    }

    /// Arms a timer unless it is due earlier already.
    pub(crate) fn set_by(&mut self, timer: Timer, at: Instant) {
        if self.armed.get(&timer).is_none_or(|&armed| armed > at) {
            self.set(timer, at);
        }
    }

    /// Arms a timer unless it is armed already.
    pub(crate) fn set_once(&mut self, timer: Timer, at: Instant) {
        if !self.armed.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(crate) fn clear(&mut self, timer: &Timer) {
        if let Some(at) = self.armed.remove(timer) {
            self.due.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn clear_all(&mut self) {
        self.due.clear();
        self.armed.clear();
    }

    pub(crate) fn clear_worker(&mut self, id: &InstanceId) {
        for timer in WorkerTimer::ALL {
            self.clear(&Timer::Worker(id.clone(), timer));
        }
    }

    pub(crate) fn clear_container(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        for timer in ContainerTimer::ALL {
            self.clear(&Timer::Container(id.clone(), uuid, timer));
        }
    }

    /// Takes out everything that is due, the earliest first. The far future never comes, so that a
    /// clock that jumps there leaves nothing that is due again and again.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Timer> {
        let mut timers = Vec::new();
        let due = |at: Instant| at <= now && at < Instant::FAR_FUTURE;
        while self.due.first().is_some_and(|(at, _)| due(*at)) {
            if let Some((_, timer)) = self.due.pop_first() {
                self.armed.remove(&timer);
                timers.push(timer);
            }
        }
        timers
    }

    pub(crate) fn next(&self) -> Option<Deadline> {
        let first = self.due.first();
        let first = first.filter(|(at, _)| *at < Instant::FAR_FUTURE);
        first.map(|(at, timer)| Deadline {
            at: *at,
            why: timer.why(),
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Timer> {
        self.armed.keys()
    }

    /// Whether both indexes say the same.
    pub(crate) fn is_consistent(&self) -> bool {
        self.due.len() == self.armed.len()
            && self
                .due
                .iter()
                .all(|(at, timer)| self.armed.get(timer) == Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_armed_once_and_fires_once() {
        let mut timers = Timers::default();
        let at = Instant::from_nanos;
        timers.set(Timer::List, at(5));
        timers.set(Timer::List, at(9));
        timers.set_by(Timer::List, at(12));
        timers.set(Timer::Pending(1), at(7));
        assert_eq!(timers.next().unwrap().at, at(7));
        assert!(timers.is_consistent());
        assert_eq!(timers.take_due(at(8)), [Timer::Pending(1)]);
        timers.set_by(Timer::List, at(8));
        assert_eq!(timers.take_due(at(8)), [Timer::List]);
        assert!(timers.next().is_none());
    }
}
