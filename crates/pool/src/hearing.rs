//! The clock of silence: for how long workers were listened to while our own side worked.
//!
//! Silence is held against a worker only while this clock runs. It stands still while the fault
//! may be ours, but not without end, so that workers that really are gone do not stay for ever.

use std::time::Duration;

use longshore_types::Instant;

use crate::worker::Seq;

/// What those that are silent together are given up in: this part of all workers, rounded up, in
/// each such part of `timeout_probe`.
pub(crate) const LOTS: u32 = 10;

/// What speaks for a fault of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Instances cannot be listed. Nothing could be destroyed, or be known to be gone, either.
    Listing,
    /// Most workers fail, others answer.
    Most,
    /// All workers fail.
    All,
}

/// The settings that the clock goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long a silent worker is put up with. Without a doubt for so long, the next one is new.
    pub(crate) probe: Duration,
    /// The longest that failures of most workers are doubted while others answer.
    pub(crate) most: Duration,
    /// The same while nobody answers.
    pub(crate) all: Duration,
    /// How long it takes at most to hear again from a worker once that is possible.
    pub(crate) settle: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Hearing {
    /// What the clock shows.
    listened: Duration,
    /// The last input or effect while nobody was given up because the fault might be ours.
    stood_at: Seq,
    /// How long it stood still while others answered, since the last long calm.
    most: Duration,
    /// The same while nobody answered.
    all: Duration,
    /// How long it has stood still now, or did the last time.
    stood: Duration,
    /// How long there has been no doubt.
    calm: Duration,
    /// Whether this doubt was told of.
    told: bool,
    lot: Option<Lot>,
}

/// Some of those that are silent together.
#[derive(Clone, Copy, Debug)]
struct Lot {
    began: Instant,
    size: usize,
    left: usize,
}

impl Hearing {
    /// What the clock shows.
    pub(crate) fn listened(&self) -> Duration {
        self.listened
    }

    /// Time has passed during which nothing changed.
    pub(crate) fn pass(&mut self, span: Duration, doubt: Option<Doubt>, patience: Patience) {
        let Some(doubt) = doubt else {
            self.calm += span;
            self.listened += span;
            self.told = false;
            if self.calm >= patience.probe {
                (self.most, self.all) = (Duration::ZERO, Duration::ZERO);
            }
            return;
        };
        if span.is_zero() {
            return;
        }
        if !self.calm.is_zero() {
            (self.calm, self.stood) = (Duration::ZERO, Duration::ZERO);
        }
        let stands = self.left(doubt, patience).min(span);
        match doubt {
            Doubt::Listing => {}
            Doubt::Most => self.most += stands,
            Doubt::All => self.all += stands,
        }
        self.stood += stands;
        self.listened += span.saturating_sub(stands);
    }

    /// The clock should have stood still since it showed this, which is known only now.
    pub(crate) fn turn_back(&mut self, shown: Duration) {
        let counted = self.listened.saturating_sub(shown);
        self.listened -= counted;
        if !self.calm.is_zero() {
            (self.calm, self.stood) = (Duration::ZERO, Duration::ZERO);
        }
        self.stood += counted;
    }

    /// At this point in the order of inputs and effects the clock stands still.
    pub(crate) fn stands_at(&mut self, seq: Seq) {
        self.stood_at = seq;
    }

    /// Whether what was asked for then was asked for after the clock last stood still.
    pub(crate) fn went_on_before(&self, asked: Seq) -> bool {
        asked > self.stood_at
    }

    /// How much longer the clock may stand still.
    fn left(&self, doubt: Doubt, patience: Patience) -> Duration {
        match doubt {
            Doubt::Listing => Duration::MAX,
            Doubt::Most => patience.most.saturating_sub(self.most),
            Doubt::All => patience.all.saturating_sub(self.all),
        }
    }

    /// Whether nobody may be given up now: the fault may be ours, or was a moment ago.
    pub(crate) fn excuses(&self, doubt: Option<Doubt>, patience: Patience) -> bool {
        match doubt {
            Some(doubt) => !self.left(doubt, patience).is_zero(),
            None => self.calm < self.stood.min(patience.settle),
        }
    }

    /// Whether this doubt was not told of yet; from now on it was.
    pub(crate) fn tells(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// The process was not running: nothing that was doubted counts any more.
    pub(crate) fn restart(&mut self) {
        *self = Self {
            listened: self.listened,
            stood_at: self.stood_at,
            ..Self::default()
        };
    }

    /// Whether one more of `workers` may be given up now.
    pub(crate) fn takes_one(&mut self, workers: usize, span: Duration, now: Instant) -> bool {
        let size = workers.div_ceil(LOTS as usize).max(1);
        let lot = self.lot.get_or_insert(Lot {
            began: now,
            size,
            left: size,
        });
        let age = now.since(lot.began);
        if age >= span {
            // What is left of many is as urgent as the first of them.
            let size = if age < span * 2 { lot.size } else { size };
            *lot = Lot {
                began: now,
                size,
                left: size,
            };
        }
        let takes = lot.left > 0;
        lot.left = lot.left.saturating_sub(1);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        probe: Duration::from_secs(600),
        most: Duration::from_secs(600),
        all: Duration::from_secs(3_600),
        settle: Duration::from_secs(50),
    };

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    #[test]
    fn the_clock_stands_still_no_longer_than_it_may() {
        for (doubt, most) in [(Doubt::Most, minutes(10)), (Doubt::All, minutes(60))] {
            let mut hearing = Hearing::default();
            hearing.pass(most, Some(doubt), PATIENCE);
            assert_eq!(hearing.listened(), Duration::ZERO);
            assert!(!hearing.excuses(Some(doubt), PATIENCE));
            hearing.pass(minutes(3), Some(doubt), PATIENCE);
            assert_eq!(hearing.listened(), minutes(3));
        }
        let mut hearing = Hearing::default();
        hearing.pass(minutes(10_000), Some(Doubt::Listing), PATIENCE);
        assert_eq!(hearing.listened(), Duration::ZERO);
        assert!(hearing.excuses(Some(Doubt::Listing), PATIENCE));
    }

    #[test]
    fn doubts_with_little_calm_between_them_are_one() {
        let mut hearing = Hearing::default();
        for _ in 0..12 {
            hearing.pass(minutes(5), Some(Doubt::All), PATIENCE);
            hearing.pass(minutes(1), None, PATIENCE);
        }
        assert_eq!(hearing.listened(), minutes(12));
        assert!(!hearing.excuses(Some(Doubt::All), PATIENCE));
        hearing.pass(minutes(10), None, PATIENCE);
        assert!(hearing.excuses(Some(Doubt::All), PATIENCE));
    }

    #[test]
    fn right_after_an_outage_nobody_is_given_up() {
        let mut hearing = Hearing::default();
        hearing.pass(minutes(20), Some(Doubt::All), PATIENCE);
        assert!(hearing.excuses(None, PATIENCE));
        hearing.pass(Duration::from_secs(49), None, PATIENCE);
        assert!(hearing.excuses(None, PATIENCE));
        hearing.pass(Duration::from_secs(1), None, PATIENCE);
        assert!(!hearing.excuses(None, PATIENCE));
    }

    #[test]
    fn what_is_found_out_late_is_made_up_for() {
        let mut hearing = Hearing::default();
        hearing.pass(minutes(5), None, PATIENCE);
        let asked = hearing.listened();
        hearing.pass(minutes(2), None, PATIENCE);
        hearing.turn_back(asked);
        assert_eq!(hearing.listened(), minutes(5));
        hearing.pass(Duration::from_secs(1), None, PATIENCE);
        assert!(
            hearing.excuses(None, PATIENCE),
            "it was an outage of two minutes"
        );
    }

    #[test]
    fn the_last_lot_is_as_large_as_the_first() {
        let (mut hearing, mut now, mut workers) = (Hearing::default(), Instant::ZERO, 95);
        for _ in 0..10 {
            while hearing.takes_one(workers, minutes(1), now) {
                workers = workers.saturating_sub(1);
            }
            now = now + minutes(1);
        }
        assert_eq!(workers, 0);
    }
}
