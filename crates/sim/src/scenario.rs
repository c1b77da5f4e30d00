//! What is simulated.

use std::time::Duration;

use longshore_cloud::Scope;
use longshore_dispatch::Config;
use longshore_fakecloud::{Quota, Settings, Spread};
use longshore_queue::Capabilities;
use longshore_types::{ByteSize, InstanceType, Preemptible, Price};

use crate::pattern::by_day;
use crate::random::Random;
use crate::{FaultKind, Faults, Rule};

/// One container to run.
///
/// ```
/// use std::time::Duration;
/// use longshore_sim::Job;
/// let mut job = Job::new(Duration::from_secs(30), Duration::from_secs(300));
/// job.vcpus = 4;
/// assert_eq!(job.priority, 500);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// When it is submitted, from the beginning of the simulation.
    pub at: Duration,
    /// How long its process runs.
    pub runtime: Duration,
    /// Virtual CPUs that it asks for.
    pub vcpus: u32,
    /// Memory that it asks for.
    pub ram: ByteSize,
    /// Disk space that it asks for.
    pub scratch: ByteSize,
    /// Its priority, 1 to 1000.
    pub priority: i64,
    /// Whether it runs on preemptible instances.
    pub preemptible: Preemptible,
    /// Whether it mostly waits for other containers, so that only a part of what runs at once may
    /// be like it.
    pub supervisor: bool,
}

impl Job {
    /// A container of 1 vCPU and 256 MiB with the usual priority.
    pub fn new(at: Duration, runtime: Duration) -> Self {
        Self {
            at,
            runtime,
            vcpus: 1,
            ram: ByteSize::mib(256),
            scratch: ByteSize::ZERO,
            priority: 500,
            preemptible: Preemptible::Never,
            supervisor: false,
        }
    }
}

/// Which containers are submitted, and when.
///
/// ```
/// use std::time::Duration;
/// use longshore_sim::{Arrivals, Job};
/// let steady = Arrivals::Steady { containers: 50, runtime: Duration::from_secs(60) };
/// let trace = Arrivals::Trace(vec![Job::new(Duration::ZERO, Duration::from_secs(5))]);
/// assert_eq!(steady.len() + trace.len(), 51);
/// assert!(!steady.is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arrivals {
    /// All at the beginning; runtimes are spread around the given one.
    Burst {
        /// How many.
        containers: usize,
        /// Half of them run for less than this.
        runtime: Duration,
    },
    /// Spread evenly over the time of the simulation.
    Steady {
        /// How many.
        containers: usize,
        /// Half of them run for less than this.
        runtime: Duration,
    },
    /// Spread over the time of the simulation, which begins at midnight: many by day, few at
    /// night.
    Daily {
        /// How many.
        containers: usize,
        /// Half of them run for less than this.
        runtime: Duration,
    },
    /// Exactly these.
    Trace(Vec<Job>),
}

impl Arrivals {
    /// How many containers there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Burst { containers, .. }
            | Self::Steady { containers, .. }
            | Self::Daily { containers, .. } => *containers,
            Self::Trace(jobs) => jobs.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same with at most so many containers.
    pub(crate) fn cut(&self, most: usize) -> Self {
        let mut cut = self.clone();
        match &mut cut {
            Self::Burst { containers, .. }
            | Self::Steady { containers, .. }
            | Self::Daily { containers, .. } => {
                *containers = most.min(*containers);
            }
            Self::Trace(jobs) => jobs.truncate(most),
        }
        cut
    }

    /// Exactly the containers that a simulation of `scenario` has: those of a pattern are drawn
    /// from its seed, its time, and the size of its largest type. For simulating the same
    /// containers under other settings.
    ///
    /// ```
    /// use longshore_sim::{Arrivals, Scenario, run};
    /// let pattern = Scenario::new(1);
    /// let mut trace = pattern.clone();
    /// trace.arrivals = Arrivals::drawn(&pattern);
    /// assert_eq!(run(&trace).containers, run(&pattern).containers);
    /// ```
    pub fn drawn(scenario: &Scenario) -> Self {
        let mut random = Random::new(scenario.seed);
        let types = &scenario.config.pool.types;
        let largest = types.iter().map(|t| t.vcpus).max().unwrap_or(1);
        Self::Trace(scenario.arrivals.jobs(scenario.busy, largest, &mut random))
    }

    /// Each container, those of patterns drawn anew.
    pub(crate) fn jobs(&self, over: Duration, largest: u32, random: &mut Random) -> Vec<Job> {
        match self {
            Self::Trace(jobs) => jobs.clone(),
            Self::Burst {
                containers,
                runtime,
            } => (0..*containers)
                .map(|_| drawn(Duration::ZERO, *runtime, largest, random))
                .collect(),
            Self::Steady {
                containers,
                runtime,
            } => (0..*containers)
                .map(|_| {
                    let at = random.between(Duration::ZERO, over);
                    drawn(at, *runtime, largest, random)
                })
                .collect(),
            Self::Daily {
                containers,
                runtime,
            } => (0..*containers)
                .map(|_| {
                    let at = by_day(over, random);
                    drawn(at, *runtime, largest, random)
                })
                .collect(),
        }
    }
}

fn drawn(at: Duration, runtime: Duration, largest: u32, random: &mut Random) -> Job {
    let mut job = Job::new(at, random.tailed(runtime));
    job.vcpus = match random.below(10) {
        0..7 => 1,
        7..9 => 2.min(largest),
        _ => largest,
    };
    job.ram = ByteSize::mib(128 * u64::from(job.vcpus) * (1 + random.below(6)));
    job.priority = [500, 500, 500, 1, 900][random.index(5)];
    job
}

/// Where the controller lives.
///
/// ```
/// use longshore_sim::{ControllerShape, Faults, Scenario, run};
/// let mut scenario = Scenario::new(3);
/// scenario.controller = ControllerShape::Outside;
/// let outcome = run(&scenario);
/// assert!(outcome.violations.is_empty() && outcome.complete == 50);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControllerShape {
    /// In the dispatcher's process: what has not been done when that dies is not done.
    #[default]
    Embedded,
    /// A service of its own, which records placements and takes reports. Requests of a dispatcher
    /// that has given them up, or is dead, may still arrive and act; it serves dispatchers of
    /// other installations, too; it is polled, and reads its answers page by page.
    Outside,
    /// A service of its own as an Arvados cluster has it: as [`ControllerShape::Outside`], but it
    /// keeps states only. It records no placements and takes no reports; runners, which number no
    /// attempts and keep no results, tell it themselves that they run and how they end.
    Bare,
}

impl ControllerShape {
    /// Whether it is a service of its own.
    pub(crate) fn is_outside(self) -> bool {
        self != Self::Embedded
    }
}

/// What is simulated: everything that happens follows from it.
///
/// ```
/// use longshore_sim::{Faults, Scenario, run};
/// let mut scenario = Scenario::wild(7);
/// scenario.faults = Faults::none();
/// let outcome = run(&scenario);
/// assert!(outcome.violations.is_empty());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scenario {
    /// Where all chance comes from.
    pub seed: u64,
    /// How long containers are submitted and faults happen. It is then waited until all is done.
    pub busy: Duration,
    /// The containers.
    pub arrivals: Arrivals,
    /// Settings of the dispatcher, the instance types among them. Its capabilities of the cloud
    /// and of the controller are those that `cloud` and `controller` have.
    pub config: Config,
    /// Where the controller lives. One outside pushes nothing.
    pub controller: ControllerShape,
    /// How many dispatchers there are: one acts, the others stand by until its lock is free. More
    /// than one want a controller outside of them.
    pub dispatchers: usize,
    /// How the cloud behaves beside the faults.
    pub cloud: Settings,
    /// What goes wrong.
    pub faults: Faults,
    /// After what the dispatcher dies by [`FaultKind::Crash`] as often as not, beside the deaths by
    /// chance and until the faults end: named as in [`Outcome::crashes`](crate::Outcome::crashes).
    pub dies_after: Option<String>,
    /// How many instances of others are in the same account.
    pub others: usize,
    /// Promises that are known to be broken: they are counted, and end nothing.
    pub tolerated: Vec<Rule>,
}

impl Scenario {
    /// An hour with 50 containers of some minutes, two instance types, and no faults.
    pub fn new(seed: u64) -> Self {
        let price = |units| Price::from_units(units).unwrap_or_default();
        let mut small = InstanceType::new("small", 2, ByteSize::gib(4), price(0.1));
        small.included_scratch = ByteSize::gib(100);
        let mut large = InstanceType::new("large", 8, ByteSize::gib(16), price(0.35));
        large.included_scratch = ByteSize::gib(100);
        Self {
            seed,
            busy: Duration::from_secs(3600),
            arrivals: Arrivals::Steady {
                containers: 50,
                runtime: Duration::from_secs(120),
            },
            config: config(vec![small, large]),
            controller: ControllerShape::Embedded,
            dispatchers: 1,
            cloud: Settings::default().with_boot(quick_boot()),
            faults: Faults::none(),
            dies_after: None,
            others: 2,
            tolerated: Vec::new(),
        }
    }

    /// A short and wild one: 20 to 40 containers within half an hour, every kind of fault, and a
    /// cloud and a controller whose powers, too, are drawn from the seed. Three in
    /// four are made for a race that is seldom met elsewhere: creates that answer late, starts in
    /// doubt that are to be killed, dispatchers that start anew among machines whose boot probes
    /// fail, news of the controller that are lost while older answers are on their way, machines
    /// that answer in another order than they were asked, starts that are repeated while an earlier
    /// try stands still, preemptible machines that are taken away, containers that another dispatcher has for hours; or for waiting: small containers for hours, and large ones among them.
    ///
    /// ```
    /// use longshore_sim::Scenario;
    /// let scenario = Scenario::wild(1);
    /// assert!(!scenario.faults.is_empty() && scenario.arrivals.len() >= 20);
    /// ```
    pub fn wild(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let mut scenario = Self::new(seed);
        scenario.busy = random.seconds(600, 1_800);
        let containers = 20 + random.index(21);
        let runtime = random.seconds(10, 120);
        scenario.arrivals = if random.percent(50) {
            Arrivals::Burst {
                containers,
                runtime,
            }
        } else {
            Arrivals::Steady {
                containers,
                runtime,
            }
        };
        scenario.faults = Faults::wild();
        let capabilities = &mut scenario.cloud.capabilities;
        capabilities.idempotent_create = random.percent(60);
        capabilities.tags_at_birth = random.percent(70);
        capabilities.consistent_listing = random.percent(70);
        if random.percent(50) {
            let quota = Quota::instances(Scope::Everything, 4 + random.below(4));
            scenario.cloud.quotas.push(quota);
        }
        scenario.config.queue.pushes = random.percent(70);
        scenario.config.pool.max_instances = 3 + random.index(6);
        scenario.config.pool.max_creates_in_flight = 1 + random.index(4);
        scenario.config.pool.timeout_probe = Duration::from_secs(180);
        scenario.config.pool.timeout_outage = Duration::from_secs(900);
        scenario.config.pool.timeout_booting = Duration::from_secs(300);
        if random.percent(50) {
            scenario.controller = ControllerShape::Outside;
            scenario.faults.set(FaultKind::QueueSlow, 80_000);
            if Random::new(seed ^ 0xba5e).percent(40) {
                scenario.controller = ControllerShape::Bare;
            }
            if random.percent(40) {
                scenario.dispatchers = 2 + random.index(2);
                scenario.faults.set(FaultKind::Sleep, 8_000);
            }
        }
        if random.percent(10) {
            scenario.saturate(seed);
        }
        if random.percent(40) {
            scenario.prefer_cheap(&mut random);
        }
        let mut more = Random::new(seed ^ 0x50be);
        if more.percent(30) {
            scenario.supervise(&mut more);
        }
        scenario.aim(&mut random);
        scenario.cloud.capabilities.rented |= random.percent(50);
        scenario.config.pool.timeout_unattended = random.seconds(600, 3_600);
        scenario
    }

    /// Far more containers than there is room for, for hours: the provider lets us have two
    /// instances or three.
    ///
    /// ```
    /// use longshore_sim::{Scenario, run};
    /// let mut scenario = Scenario::new(1);
    /// scenario.saturate(1);
    /// let outcome = run(&scenario);
    /// assert!(outcome.violations.is_empty() && outcome.waits.max.as_secs() > 3_600);
    /// ```
    pub fn saturate(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x5a7);
        let room = 2 + random.below(2) + u64::try_from(self.others).unwrap_or_default();
        self.cloud.quotas = vec![Quota::instances(Scope::Everything, room)];
        self.arrivals = Arrivals::Burst {
            containers: 80 + random.index(41),
            runtime: random.seconds(400, 600),
        };
    }

    /// Has some containers mostly wait for others.
    fn supervise(&mut self, random: &mut Random) {
        self.arrivals = Arrivals::drawn(self);
        if let Arrivals::Trace(jobs) = &mut self.arrivals {
            for job in jobs {
                job.supervisor = random.percent(20);
            }
        }
    }

    /// Adds preemptible types, and has some containers run on those, or on those if they can.
    fn prefer_cheap(&mut self, random: &mut Random) {
        self.add_preemptible_types();
        self.arrivals = Arrivals::drawn(self);
        if let Arrivals::Trace(jobs) = &mut self.arrivals {
            for job in jobs {
                job.preemptible = match random.below(100) {
                    0..25 => Preemptible::Only,
                    25..60 => Preemptible::Prefer,
                    _ => Preemptible::Never,
                };
            }
        }
    }

    /// Adds a preemptible type for each that there is, at a third of its price.
    pub(crate) fn add_preemptible_types(&mut self) {
        let mut types = self.config.pool.types.clone();
        for usual in self.config.pool.types.clone() {
            let mut cheap = usual;
            cheap.name = format!("{}.preemptible", cheap.name).into();
            cheap.preemptible = true;
            cheap.price = Price::from_units(cheap.price.units() / 3.0).unwrap_or_default();
            types.push(cheap);
        }
        self.config.scheduler.types.clone_from(&types);
        self.config.pool.types = types;
    }
}

fn config(types: Vec<InstanceType>) -> Config {
    let mut pool = longshore_pool::Config::new("zzzzz", types.clone());
    pool.console_output = true;
    let mut scheduler = longshore_scheduler::Config::new(types);
    scheduler.reserve_extra_ram = ByteSize::ZERO;
    scheduler.keep_buffers_per_vcpu = 0;
    let queue = Capabilities {
        pushes: true,
        takes_reports: true,
    };
    Config::new(pool, scheduler, queue)
}

/// How long instances take to boot where nothing else is said.
fn quick_boot() -> Spread {
    Spread::uniform(Duration::from_secs(10), Duration::from_secs(40))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_containers() {
        let arrivals = Scenario::wild(3).arrivals;
        let draw = || arrivals.jobs(Duration::from_secs(60), 8, &mut Random::new(3));
        assert_eq!(draw(), draw());
        assert_eq!(arrivals.cut(5).len(), 5);
    }
}
