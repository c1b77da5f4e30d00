//! A simulation that its caller moves on, step by step.

use std::time::Duration;

use crate::world::World;
use crate::{Outcome, Scenario};

/// A simulation that its caller moves on, to show how far it is, or to end it early.
///
/// ```
/// use longshore_sim::{Scenario, Simulation, run};
/// let scenario = Scenario::new(1);
/// let mut simulation = Simulation::new(&scenario);
/// let mut lines = 0;
/// while simulation.advance() {
///     simulation.tell(&mut |_| lines += 1);
/// }
/// let progress = simulation.progress();
/// assert_eq!((progress.ended, progress.instances), (50, 0));
/// let outcome = simulation.finish();
/// assert!(lines > 100 && outcome.elapsed <= progress.elapsed);
/// assert_eq!(outcome.digest, run(&scenario).digest);
/// ```
#[derive(Debug)]
pub struct Simulation {
    world: World,
    told: u64,
}

/// How far a simulation is. No example: see [`Simulation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How much time has gone by, in simulated time.
    pub elapsed: Duration,
    /// How many containers there are, those included that are yet to be submitted.
    pub containers: u64,
    /// How many of them have ended.
    pub ended: u64,
    /// How many instances there are now.
    pub instances: u64,
}

impl Simulation {
    /// The moment before the first thing happens.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            world: World::new(scenario),
            told: 0,
        }
    }

    /// One thing happens. False once everything is done or a promise is broken; nothing happens
    /// after that.
    pub fn advance(&mut self) -> bool {
        self.world.advance()
    }

    /// Gives `watch` a line for each thing that happened since this was last called. At most the
    /// last 60,000 are remembered.
    pub fn tell(&mut self, watch: &mut dyn FnMut(&str)) {
        for line in self.world.lines_since(self.told) {
            watch(&line);
        }
        self.told = self.world.told();
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.world.progress()
    }

    /// The figures. What is not over yet counts as far as it is: containers that wait are neither
    /// complete nor cancelled, instances have cost what they cost until now.
    pub fn finish(self) -> Outcome {
        self.world.summarize()
    }
}
