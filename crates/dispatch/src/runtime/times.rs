//! How long things took, as the old exposition had it: quantiles of the last ten minutes, and sum
//! and number of all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_pool::{Effect, EffectAction, EffectId, Event, Outcome};
use longshore_scheduler::Action;
use longshore_types::ContainerUuid;
use tokio::time::Instant;

use crate::{Figures, Notice};

/// How long an observation counts for the quantiles.
const AGE: Duration = Duration::from_secs(600);
/// How many are kept for them.
const MAX_KEPT: usize = 1_000;
/// Which quantiles are told.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// Observations of how long something takes.
#[derive(Debug, Default)]
pub(super) struct Times {
    last: VecDeque<(Instant, Duration)>,
    sum: f64,
    count: u64,
}

/// What is told of them.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Each quantile, and its value in seconds; none where there were no observations lately.
    pub quantiles: Vec<(f64, f64)>,
    /// Of all observations, in seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

/// What there is to measure of a dispatcher that runs.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Measured {
    /// What is so at this moment, and what was counted.
    pub figures: Figures,
    /// From a container's being seen in the queue to its process.
    pub starts: Summary,
    /// How long it took a worker to say what runs there, where nothing was waited for.
    pub probes: Summary,
    /// The same of those that failed.
    pub failed_probes: Summary,
}

/// Measures how long things take.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// Containers whose start was decided and that do not run yet.
    starting: BTreeSet<ContainerUuid>,
    /// Probes that are under way.
    probing: BTreeMap<EffectId, Instant>,
    starts: Times,
    probes: Times,
    failed_probes: Times,
}

impl Recorder {
    pub(super) fn on_effect(&mut self, effect: &Effect) {
        if let EffectAction::Report(_, options) = &effect.action
            && options.wait.is_zero()
        {
            self.probing.insert(effect.id, Instant::now());
        }
    }

    pub(super) fn on_outcome(&mut self, id: EffectId, outcome: &Outcome) {
        if let Some(began) = self.probing.remove(&id) {
            let times = match outcome {
                Outcome::Reported(Ok(_)) => &mut self.probes,
                _ => &mut self.failed_probes,
            };
            times.observe(began.elapsed());
        }
    }

    /// `since` says for how long a container has been seen.
    pub(super) fn on_notice(
        &mut self,
        notice: &Notice,
        since: impl Fn(ContainerUuid) -> Option<Duration>,
    ) {
        match notice {
            Notice::Decided(Action::Start { uuid, .. }) => {
                self.starting.insert(*uuid);
            }
            Notice::Happened(
                Event::Ended { uuid, .. }
                | Event::NotStarted { uuid, .. }
                | Event::NeverRan { uuid, .. },
            ) => {
                self.starting.remove(uuid);
            }
            Notice::Happened(Event::Running { uuid, .. }) => {
                if self.starting.remove(uuid)
                    && let Some(time) = since(*uuid)
                {
                    self.starts.observe(time);
                }
            }
            _ => {}
        }
    }

    pub(super) fn measured(&self, figures: Figures) -> Measured {
        Measured {
            figures,
            starts: self.starts.summary(),
            probes: self.probes.summary(),
            failed_probes: self.failed_probes.summary(),
        }
    }
}

impl Times {
    pub(super) fn observe(&mut self, time: Duration) {
        if self.last.len() == MAX_KEPT {
            self.last.pop_front();
        }
        self.last.push_back((Instant::now(), time));
        self.sum += time.as_secs_f64();
        self.count += 1;
    }

    pub(super) fn summary(&self) -> Summary {
        let lately = self.last.iter().filter(|(at, _)| at.elapsed() < AGE);
        let mut times: Vec<f64> = lately.map(|(_, time)| time.as_secs_f64()).collect();
        times.sort_unstable_by(f64::total_cmp);
        let value = |quantile: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place in at most a thousand"
            )]
            let place = (quantile * times.len() as f64).ceil() as usize;
            times.get(place.saturating_sub(1)).copied()
        };
        let quantiles = QUANTILES.iter().filter_map(|q| Some((*q, value(*q)?)));
        Summary {
            quantiles: quantiles.collect(),
            sum: self.sum,
            count: self.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quantiles_are_of_late_sums_of_all() {
        let mut times = Times::default();
        assert_eq!(times.summary(), Summary::default());
        for n in 1..=100 {
            times.observe(Duration::from_secs(n));
        }
        let summary = times.summary();
        let expected = [(0.5, 50.0), (0.9, 90.0), (0.95, 95.0), (0.99, 99.0)];
        assert_eq!(summary.quantiles, expected);
        assert_eq!((summary.sum, summary.count), (5050.0, 100));
        tokio::time::advance(AGE).await;
        times.observe(Duration::from_secs(7));
        let summary = times.summary();
        assert_eq!(summary.quantiles, [0.5, 0.9, 0.95, 0.99].map(|q| (q, 7.0)));
        assert_eq!(summary.count, 101);
        for _ in 0..2 * MAX_KEPT {
            times.observe(Duration::ZERO);
        }
        assert_eq!(times.last.len(), MAX_KEPT);
    }
}
