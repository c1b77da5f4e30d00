//! Making a scenario that breaks a promise smaller.

use std::time::Duration;

use crate::{FaultKind, Outcome, Rule, Scenario, run};

/// The shortest time that a scenario is shortened to.
const BUSY_MIN: Duration = Duration::from_secs(60);

/// A smaller scenario that breaks the same promise, and its outcome; none if this one breaks none.
///
/// Kinds of faults are left out, containers are taken away and the time is cut, as long as the
/// same rule is broken; at most `runs_max` simulations are made.
///
/// ```
/// use longshore_sim::{Faults, Scenario, shrink};
/// let mut scenario = Scenario::wild(1);
/// scenario.faults = Faults::none();
/// assert!(shrink(&scenario, 10).is_none());
/// ```
pub fn shrink(scenario: &Scenario, runs_max: usize) -> Option<(Scenario, Outcome)> {
    let outcome = run(scenario);
    let rule = outcome.violations.first()?.rule;
    let mut shrinking = Shrinking {
        best: scenario.clone(),
        outcome,
        rule,
        runs_left: runs_max,
    };
    while shrinking.runs_left > 0 && shrinking.round() {}
    Some((shrinking.best, shrinking.outcome))
}

struct Shrinking {
    best: Scenario,
    outcome: Outcome,
    rule: Rule,
    runs_left: usize,
}

impl Shrinking {
    /// Tries everything once; whether anything could be left out.
    fn round(&mut self) -> bool {
        let mut better = false;
        let half = self.best.busy / 2;
        if half >= BUSY_MIN {
            better |= self.attempt(|scenario| scenario.busy = half);
        }
        let containers = self.best.arrivals.len();
        for fewer in [containers / 4, containers / 2, containers.saturating_sub(1)] {
            if fewer > 0 && fewer < self.best.arrivals.len() {
                better |= self.attempt(|s| s.arrivals = s.arrivals.cut(fewer));
            }
        }
        let kinds: Vec<FaultKind> = self.best.faults.kinds().collect();
        for half in kinds.chunks(kinds.len().div_ceil(2).max(1)) {
            better |= self.attempt(|s| half.iter().for_each(|kind| s.faults.set(*kind, 0)));
        }
        for kind in self.best.faults.kinds().collect::<Vec<_>>() {
            better |= self.attempt(|scenario| scenario.faults.set(kind, 0));
        }
        better
    }

    fn attempt(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let Some(left) = self.runs_left.checked_sub(1) else {
            return false;
        };
        self.runs_left = left;
        let mut smaller = self.best.clone();
        change(&mut smaller);
        let outcome = run(&smaller);
        let same = outcome
            .violations
            .first()
            .is_some_and(|v| v.rule == self.rule);
        if same {
            self.best = smaller;
            self.outcome = outcome;
        }
        same
    }
}
