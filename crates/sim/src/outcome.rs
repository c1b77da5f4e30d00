//! What came of a simulation.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use longshore_types::Instant;

use crate::FaultKind;

/// A promise that the dispatcher has to keep whatever goes wrong.
///
/// ```
/// use longshore_sim::Rule;
/// assert_eq!(Rule::RunsTwice.to_string(), "a container runs twice at once");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// No container runs twice at once.
    RunsTwice,
    /// No attempt is started twice.
    StartedTwice,
    /// Nothing is started after the controller was told that it has ended.
    StartedAfterEnd,
    /// What the controller is told of an end is what happened.
    FalseResult,
    /// An end is told only when its output is home, or as one whose output is lost.
    OutputMissing,
    /// An attempt that never ran is not told as one that was lost: that would cost a retry.
    RetryWasted,
    /// Nothing is killed that its owner wants and the controller counts on.
    KilledWrongly,
    /// A container is cancelled only for a reason.
    CancelledWrongly,
    /// What runs on an instance fits into it.
    Overcommitted,
    /// A container starts on a machine of a type that is large enough for it, that is of a market
    /// which it allows, and that is no dearer than the price factor allows, by the cheapest that
    /// fits in that market.
    WrongMachine,
    /// A container that prefers preemptible machines, and has lost as many of them as it may in one
    /// life of the dispatcher, starts on no further one where another type fits.
    InterruptedAgain,
    /// There are never more instances than allowed.
    TooManyInstances,
    /// There are never more creates under way than allowed.
    TooManyCreates,
    /// The instances of others, and containers that another dispatcher has locked, are never touched.
    OthersTouched,
    /// With the faults ended and all submitted, every container that no other dispatcher has ends
    /// within two hours, the sum of all runtimes, and four times the longest one: the longest pauses
    /// and hold-offs are half an hour, one instance at least can be had, and what was lost with one
    /// runs again.
    NotEnded,
    /// Whoever waits and is to be served before all others, by priority, age and UUID, starts within
    /// twice the sum of `reserve_after`, the longest runtime, `timeout_booting`, and five minutes for
    /// an instance that has to go for another: the first such sum is that of somebody in another
    /// line for whom an instance is kept free already. That is from an hour after the last fault on,
    /// if there were any; supervisors, which may wait for others of their kind, are left aside, and
    /// those come before it that are locked and have lost their place.
    FirstPassedOver,
    /// With the faults ended and every container ended, or had by another dispatcher, each instance
    /// is given back within `timeout_idle` and half an hour, in which those that do not answer are
    /// given up.
    NotGivenBack,
    /// An instance that has nothing to do is given back in time.
    IdleTooLong,
    /// An instance with work is given up only after it was silent for as long as is allowed, was
    /// asked often enough, and no outage of the dispatcher's own network explains it.
    GivenUpEarly,
    /// An attempt that ran is not given back as one that never did.
    RanUntold,
    /// Nothing is asked for without end.
    Livelock,
    /// What is kept is bounded.
    Unbounded,
    /// A dispatcher locks a container for nothing twice within an hour at most: where the attempt
    /// before neither ran, nor was kept from it by its owner, its machine or another dispatcher.
    /// That holds while things go wrong, once the faults have ended, and however long the queue at
    /// a quota wall is. Without faults a container is locked twice altogether, the second time if
    /// its instance was given back for idleness in the very moment of the lock.
    LockChurn,
    /// The dispatcher's own check of its state finds nothing.
    OwnCheck,
    /// A rented machine is never powered off by its dead-man switch while something runs there, or
    /// before no dispatcher has reached it for `timeout_unattended`; one that nobody rents never is.
    PoweredOffEarly,
    /// A rented machine that ran nothing, and that no dispatcher has reached for that time, is off.
    LeftOn,
    /// A dispatcher does nothing within 15 s after it got the lock of its installation, and nothing
    /// more than 10 s after it lost it.
    ActsWithoutLock,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 27] = [
        Self::RunsTwice,
        Self::StartedTwice,
        Self::StartedAfterEnd,
        Self::FalseResult,
        Self::OutputMissing,
        Self::RetryWasted,
        Self::KilledWrongly,
        Self::CancelledWrongly,
        Self::Overcommitted,
        Self::WrongMachine,
        Self::InterruptedAgain,
        Self::TooManyInstances,
        Self::TooManyCreates,
        Self::OthersTouched,
        Self::NotEnded,
        Self::FirstPassedOver,
        Self::NotGivenBack,
        Self::IdleTooLong,
        Self::GivenUpEarly,
        Self::RanUntold,
        Self::Livelock,
        Self::Unbounded,
        Self::LockChurn,
        Self::OwnCheck,
        Self::PoweredOffEarly,
        Self::LeftOn,
        Self::ActsWithoutLock,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RunsTwice => "a container runs twice at once",
            Self::StartedTwice => "an attempt is started twice",
            Self::StartedAfterEnd => "an attempt is started after its end was told",
            Self::FalseResult => "the controller is told something that is not so",
            Self::OutputMissing => "an end is told without its output",
            Self::RetryWasted => "a retry is spent on an attempt that never ran",
            Self::KilledWrongly => "a container is killed that is wanted",
            Self::CancelledWrongly => "a container is cancelled without a reason",
            Self::Overcommitted => "more runs on an instance than fits",
            Self::WrongMachine => "a container starts on a machine that is not for it",
            Self::InterruptedAgain => "a container is interrupted again and again",
            Self::TooManyInstances => "there are more instances than allowed",
            Self::TooManyCreates => "there are more creates under way than allowed",
            Self::OthersTouched => "what is of others is touched",
            Self::NotEnded => "a container does not end",
            Self::FirstPassedOver => "the first in line is passed over",
            Self::NotGivenBack => "an instance is not given back",
            Self::IdleTooLong => "an instance is kept with nothing to do",
            Self::GivenUpEarly => "an instance with work is given up too early",
            Self::RanUntold => "an attempt that ran is given back as one that never did",
            Self::Livelock => "the dispatcher asks without end",
            Self::Unbounded => "what is kept grows",
            Self::LockChurn => "a container is locked again and again",
            Self::OwnCheck => "the dispatcher's state contradicts itself",
            Self::PoweredOffEarly => "a machine is powered off too early",
            Self::LeftOn => "a machine that nobody looks after is left on",
            Self::ActsWithoutLock => "a dispatcher acts that may not",
        })
    }
}

/// A broken promise.
///
/// ```
/// use longshore_sim::{Faults, Scenario, run};
/// let mut scenario = Scenario::wild(2);
/// scenario.faults = Faults::none();
/// for violation in run(&scenario).violations {
///     panic!("{violation}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// When.
    pub at: Instant,
    /// What exactly, one line.
    pub what: String,
    /// The last things that happened to the objects it is about, a line each.
    pub story: Vec<String>,
    /// The containers and instances that it is about.
    pub about: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.since(Instant::ZERO).as_secs_f64();
        writeln!(f, "after {seconds:.3} s: {}: {}", self.rule, self.what)?;
        for line in &self.story {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// How long containers waited, from their submission to the first start of a process; those that
/// never started do not count. No example: see [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waits {
    /// All waits together, divided by how many there were.
    pub mean: Duration,
    /// Half of them waited no longer.
    pub p50: Duration,
    /// 95 in a hundred waited no longer.
    pub p95: Duration,
    /// The longest.
    pub max: Duration,
}

impl Waits {
    pub(crate) fn of(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        let at = |percent: usize| {
            let position = (waits.len() * percent).div_ceil(100).max(1) - 1;
            waits.get(position).copied().unwrap_or_default()
        };
        let sum: Duration = waits.iter().sum();
        let count = u32::try_from(waits.len()).unwrap_or(u32::MAX);
        Self {
            mean: sum.checked_div(count).unwrap_or_default(),
            p50: at(50),
            p95: at(95),
            max: at(100),
        }
    }
}

/// What came of a simulation.
///
/// ```
/// use longshore_sim::{Scenario, run};
/// let outcome = run(&Scenario::new(1));
/// assert_eq!(outcome.complete + outcome.cancelled, outcome.containers);
/// assert!(outcome.waits.p50 <= outcome.waits.max);
/// assert!(outcome.waits.mean <= outcome.waits.max);
/// assert!(outcome.boot_time <= outcome.idle_time && outcome.idle_cost < outcome.cost);
/// assert_eq!(outcome.never_started, 0);
/// println!("{outcome}");
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// How long it took, in simulated time.
    pub elapsed: Duration,
    /// Containers that were submitted.
    pub containers: usize,
    /// Those whose process ended by itself.
    pub complete: usize,
    /// Those that were cancelled.
    pub cancelled: usize,
    /// Those whose record was deleted.
    pub deleted: usize,
    /// Those of which no process was ever started.
    pub never_started: usize,
    /// Why the first one was cancelled that no instance type can hold, as its owner is told.
    pub unsatisfiable: Option<String>,
    /// Processes that were started.
    pub processes: usize,
    /// Containers that completed in an hour, on average.
    pub per_hour: f64,
    /// How long they waited.
    pub waits: Waits,
    /// Instances that were made.
    pub instances: usize,
    /// How many were powered off by their dead-man switches.
    pub powered_off: usize,
    /// How long they ran, all together.
    pub instance_time: Duration,
    /// How much of that they ran no container; the time that they took to boot is part of it.
    pub idle_time: Duration,
    /// How much of that had passed before they were booted.
    pub boot_time: Duration,
    /// What they cost, in the currency of the prices.
    pub cost: f64,
    /// What the time cost in which they ran no container.
    pub idle_cost: f64,
    /// How often the dispatcher asked for what.
    pub calls: BTreeMap<&'static str, u64>,
    /// How often what went wrong.
    pub faults: BTreeMap<FaultKind, u64>,
    /// How often the dispatcher was started.
    pub lives: u32,
    /// How often it died by [`FaultKind::Crash`] right after it asked for, or heard, what: `asked
    /// start`, `heard queue call`.
    pub crashes: BTreeMap<String, u64>,
    /// Broken promises. A simulation ends at the first.
    pub violations: Vec<Violation>,
    /// How often promises were broken that the scenario tolerates.
    pub tolerated: BTreeMap<Rule, u64>,
    /// How many steps the simulation took.
    pub events: u64,
    /// A digest of all that happened: the same for the same scenario, in every process.
    pub digest: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = |d: Duration| d.as_secs_f64() / 3600.0;
        let seconds = |d: Duration| d.as_secs_f64();
        writeln!(f, "simulated_hours {:.2}", hours(self.elapsed))?;
        writeln!(f, "containers {}", self.containers)?;
        writeln!(f, "complete {}", self.complete)?;
        writeln!(f, "cancelled {}", self.cancelled)?;
        writeln!(f, "deleted {}", self.deleted)?;
        writeln!(f, "processes {}", self.processes)?;
        writeln!(f, "completed_per_hour {:.1}", self.per_hour)?;
        writeln!(f, "never_started {}", self.never_started)?;
        writeln!(f, "wait_mean_seconds {:.3}", seconds(self.waits.mean))?;
        writeln!(f, "wait_p50_seconds {:.3}", seconds(self.waits.p50))?;
        writeln!(f, "wait_p95_seconds {:.3}", seconds(self.waits.p95))?;
        writeln!(f, "wait_max_seconds {:.3}", seconds(self.waits.max))?;
        writeln!(f, "instances {}", self.instances)?;
        writeln!(f, "powered_off {}", self.powered_off)?;
        writeln!(f, "instance_hours {:.2}", hours(self.instance_time))?;
        writeln!(f, "idle_instance_hours {:.2}", hours(self.idle_time))?;
        writeln!(f, "boot_instance_hours {:.2}", hours(self.boot_time))?;
        writeln!(f, "cost {:.4}", self.cost)?;
        writeln!(f, "idle_cost {:.4}", self.idle_cost)?;
        writeln!(f, "dispatcher_starts {}", self.lives)?;
        for (kind, count) in &self.calls {
            writeln!(f, "calls_{} {count}", kind.replace(' ', "_"))?;
        }
        for (kind, count) in &self.faults {
            writeln!(f, "faults_{} {count}", kind.to_string().replace(' ', "_"))?;
        }
        writeln!(f, "events {}", self.events)?;
        writeln!(f, "digest {:016x}", self.digest)?;
        write!(f, "violations {}", self.violations.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_waits() {
        let waits = (1..=100).rev().map(Duration::from_secs).collect();
        let waits = Waits::of(waits);
        assert_eq!(waits.mean, Duration::from_millis(50_500));
        assert_eq!(waits.p50, Duration::from_secs(50));
        assert_eq!(waits.p95, Duration::from_secs(95));
        assert_eq!(waits.max, Duration::from_secs(100));
        assert_eq!(Waits::of(Vec::new()), Waits::default());
    }
}
