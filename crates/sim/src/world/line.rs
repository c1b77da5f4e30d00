//! How long the first in line waits, while its room is there to be had.

use std::time::Duration;

use longshore_types::{ContainerState, ContainerUuid, Instant};

use super::World;
use crate::Rule;

/// After the last fault, what is left of them may be in the way for so long: the longest pauses and
/// hold-offs are half an hour, and so long may it take until a machine is given up.
const MENDING: Duration = Duration::from_secs(3_600);
/// An instance that is of no use is destroyed, and another asked for, within this.
const EXCHANGE: Duration = Duration::from_secs(300);
/// What has its place begins there within this.
const STARTING: Duration = Duration::from_secs(120);

/// Who is first in line, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct First {
    uuid: Option<ContainerUuid>,
    since: Instant,
}

impl World {
    /// After each step: whether somebody else is first.
    pub(super) fn note_first(&mut self) {
        let uuid = self.controller.first_in_line();
        if uuid != self.first.uuid {
            let since = self.now;
            self.first = First { uuid, since };
        }
    }

    /// There is a dispatcher, and nothing goes wrong any more.
    pub(super) fn begin_calm(&mut self) {
        self.calm_since = Some(self.now);
    }

    /// The first in line has its place in time.
    pub(super) fn check_first(&mut self) {
        let (Some(uuid), Some(calm)) = (self.first.uuid, self.calm_from()) else {
            return;
        };
        let since = self.first.since.max(calm);
        let most = self.first_waits_max();
        if self.now.since(since) <= most {
            return;
        }
        if self.somebody_has_lost_a_place() {
            // Whoever is locked comes first, and looks for another.
            self.first.since = self.now;
            return;
        }
        let waited = self.now.since(since);
        let reason = self.reason(uuid);
        let what = format!("{uuid} for {waited:?}, and {most:?} are allowed: {reason}");
        self.witness
            .find(Rule::FirstPassedOver, &[uuid.to_string()], what);
    }

    /// From when on nothing is left of the faults.
    fn calm_from(&self) -> Option<Instant> {
        match self.faultless {
            true => Some(Instant::ZERO),
            false => self.calm_since.map(|at| at + MENDING),
        }
    }

    /// How long the first may wait: see [`Rule::FirstPassedOver`].
    fn first_waits_max(&self) -> Duration {
        let reserve_after = self.config.scheduler.reserve_after;
        let boot = self.config.pool.timeout_booting;
        (reserve_after + self.longest + EXCHANGE + boot) * 2
    }

    /// Whether a container has been locked for some time, and does not run: its place is lost.
    fn somebody_has_lost_a_place(&self) -> bool {
        let before = Instant::ZERO + self.now.since(Instant::ZERO).saturating_sub(STARTING);
        let lost = |uuid: &ContainerUuid| {
            let record = self.controller.get(*uuid);
            let ours = record.filter(|record| !record.foreign);
            ours.is_some_and(|record| record.container.state == ContainerState::Locked)
                && self.witness.was_locked_at(*uuid, before)
                && self.witness.running_attempt(*uuid).is_none()
        };
        self.controller.open().iter().any(lost)
    }
}
