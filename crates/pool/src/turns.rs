//! Whose turn it is to be probed, where not all can be at once.

use std::collections::VecDeque;
use std::time::Duration;

use longshore_types::{InstanceId, Instant};

use crate::config::Config;
use crate::core::Core;
use crate::timers::Timer;

/// The probes under way, and the workers that wait for one.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Probes under way, without reports that wait for a change.
    pub(crate) in_flight: usize,
    /// Workers that wait, the first first.
    pub(crate) line: VecDeque<InstanceId>,
    /// When the next may begin, where their rate is capped.
    next_at: Instant,
    /// Whether the cap makes the period of probing longer than wanted.
    slow: bool,
}

impl Turns {
    /// Whether a probe may begin although others may be in line. One that waits for a change
    /// takes no slot, and so passes those that wait for one.
    pub(crate) fn may_begin(&self, config: &Config, now: Instant, waits: bool) -> bool {
        let capped = config.max_probes_per_second > 0;
        (waits || self.has_slot(config)) && (!capped || self.line.is_empty() && now >= self.next_at)
    }

    pub(crate) fn has_slot(&self, config: &Config) -> bool {
        self.in_flight < config.max_probes_in_flight.max(1)
    }

    pub(crate) fn begun(&mut self, config: &Config, now: Instant, waits: bool) {
        self.in_flight += usize::from(!waits);
        if let Some(gap) = gap(config) {
            self.next_at = self.next_at.max(now) + gap;
        }
    }

    pub(crate) fn ended(&mut self, waited: bool) {
        self.in_flight -= usize::from(!waited);
    }
}

/// From one probe to the next, where their rate is capped.
fn gap(config: &Config) -> Option<Duration> {
    let rate = config.max_probes_per_second;
    (rate > 0).then(|| Duration::from_secs(1) / rate)
}

impl Core {
    pub(crate) fn probe_next_in_line(&mut self) {
        let capped = self.config.max_probes_per_second > 0;
        while self.turns.has_slot(&self.config) && (!capped || self.now >= self.turns.next_at) {
            let Some(id) = self.turns.line.pop_front() else {
                return;
            };
            if let Some(worker) = self.workers.get_mut(&id)
                && std::mem::take(&mut worker.queued)
                && worker.may_be_probed()
            {
                self.send_probe(&id);
            }
        }
        self.wake_for_turn();
    }

    /// Sees to it that the first in line has its turn when the rate allows it.
    pub(crate) fn wake_for_turn(&mut self) {
        if self.config.max_probes_per_second > 0 && !self.stopping && !self.turns.line.is_empty() {
            let at = self.turns.next_at.max(self.now);
            if at > self.now {
                self.timers.set(Timer::Turn, at);
            }
        }
    }

    /// Says so when the cap on the rate of probes makes them rarer than the setting asks for.
    pub(crate) fn look_at_probe_cap(&mut self) {
        let Some(gap) = gap(&self.config) else {
            return;
        };
        let count = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        let (period, interval) = (gap.saturating_mul(count), self.config.probe_interval);
        let slow = period > interval;
        if slow && !self.turns.slow {
            self.alarm(format!(
                "with {count} workers, the cap of {} probes per second makes each wait {period:?} \
                 from probe to probe, not {interval:?}",
                self.config.max_probes_per_second
            ));
        }
        self.turns.slow = slow;
    }
}
