//! The dispatcher on a virtual clock, in a world with faults, watched by a witness of its own.
//!
//! [`run`] takes a [`Scenario`], drives the production [`longshore_dispatch::Core`] through it, and
//! gives back an [`Outcome`]: figures, and the promises that were broken, each as a [`Violation`]
//! with the story of the objects that it is about. The same scenario gives the same events, in
//! every process.
//!
//! | part | where it comes from |
//! |---|---|
//! | the dispatcher | [`longshore_dispatch::Core`], as the program runs it |
//! | the cloud | [`longshore_fakecloud::Cloud`] |
//! | machines and their runner | a model, written from the runner's documentation |
//! | the controller | a model, of one in the dispatcher's process that dies with it, or of a service: [`ControllerShape`] |
//! | the witness | told by the models what really runs where; it never asks the dispatcher |
//!
//! ```
//! use longshore_sim::{Scenario, run, shrink};
//! let scenario = Scenario::wild(1);
//! let outcome = run(&scenario);
//! if let Some(violation) = outcome.violations.first() {
//!     println!("{violation}");
//!     println!("{:?}", shrink(&scenario, 100).map(|(smaller, _)| smaller.faults));
//! }
//! ```

mod aimed;
mod controller;
mod faults;
mod how;
mod known;
mod machine;
mod outcome;
mod pattern;
mod random;
mod runner;
mod scenario;
mod shrink;
mod simulation;
mod story;
mod trace;
mod witness;
mod world;

pub use faults::{FaultKind, Faults};
pub use known::{BROKEN, NOT_SURVIVED};
pub use outcome::{Outcome, Rule, Violation, Waits};
pub use pattern::ParseArrivalsError;
pub use scenario::{Arrivals, ControllerShape, Job, Scenario};
pub use shrink::shrink;
pub use simulation::{Progress, Simulation};
pub use trace::{CONTAINERS_MAX, TIME_MAX, TraceError, parse_trace};

/// Simulates a scenario until everything in it is done or a promise is broken.
///
/// ```
/// use longshore_sim::{Arrivals, Job, Scenario, run};
/// use std::time::Duration;
/// let mut scenario = Scenario::new(1);
/// scenario.arrivals = Arrivals::Trace(vec![Job::new(Duration::ZERO, Duration::from_secs(5))]);
/// let outcome = run(&scenario);
/// assert_eq!((outcome.complete, outcome.instances), (1, 1));
/// ```
pub fn run(scenario: &Scenario) -> Outcome {
    let mut simulation = Simulation::new(scenario);
    while simulation.advance() {}
    simulation.finish()
}

/// Like [`run`]; `watch` is given what happens, a line each.
///
/// ```
/// use longshore_sim::{Scenario, run, run_watched};
/// let mut lines = 0;
/// let outcome = run_watched(&Scenario::new(1), &mut |_| lines += 1);
/// assert!(lines > 100);
/// assert_eq!(outcome.digest, run(&Scenario::new(1)).digest);
/// ```
pub fn run_watched(scenario: &Scenario, watch: &mut dyn FnMut(&str)) -> Outcome {
    let mut simulation = Simulation::new(scenario);
    while simulation.advance() {
        simulation.tell(watch);
    }
    simulation.tell(watch);
    simulation.finish()
}
