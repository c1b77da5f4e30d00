//! Worlds in which one race happens again and again, that is seldom met elsewhere.

use std::time::Duration;

use longshore_cloud::Scope;
use longshore_fakecloud::{CallKind, Latency, Quota, Spread};
use longshore_types::{Market, Preemptible};

use crate::random::Random;
use crate::{Arrivals, ControllerShape, FaultKind, Job, Scenario};

/// How long small containers keep coming.
const STREAM: Duration = Duration::from_secs(3 * 3_600);
/// About how long half of those run.
const STREAM_RUNTIME: Duration = Duration::from_secs(360);
/// How many large ones come among them.
const STREAM_LARGE: usize = 3;

impl Scenario {
    /// Makes a world for one race, of three seeds in four.
    pub(crate) fn aim(&mut self, random: &mut Random) {
        match random.below(20) {
            0..2 => self.answer_creates_late(),
            2..4 => self.doubt_starts(),
            4 => self.restart_among_the_unwell(),
            5 => self.leave_alone(),
            6..8 => self.lose_news(random),
            10 => self.start_astray(random),
            8..10 => self.answer_out_of_order(random),
            11 => self.repeat_starts(random),
            12 => self.stream(random),
            13 => self.take_away(random),
            14 => self.share(),
            _ => {}
        }
    }

    /// Dispatchers are away for hours, while their machines, most of them rented, have work, results
    /// or nothing.
    fn leave_alone(&mut self) {
        self.faults.set(FaultKind::Away, 4_000);
        self.cloud.capabilities.rented = !self.seed.is_multiple_of(4);
    }

    /// Listings show instances, and they boot and get work, before the replies of their creates.
    fn answer_creates_late(&mut self) {
        let after = Spread::uniform(Duration::from_secs(1), Duration::from_secs(100));
        let latency = Latency::new(Duration::from_secs(1), after);
        self.cloud.latencies.insert(CallKind::Create, latency);
        self.config.pool.sync_interval = Duration::from_secs(10);
    }

    /// Starts arrive late, or without an answer, and what they started is not wanted any more.
    fn doubt_starts(&mut self) {
        for (kind, rate) in [
            (FaultKind::AnswerLost, 100_000),
            (FaultKind::CommandLate, 100_000),
            (FaultKind::HoldBack, 60_000),
            (FaultKind::Wavers, 60_000),
            (FaultKind::Cancel, 30_000),
        ] {
            self.faults.set(kind, rate);
        }
    }

    /// The controller tells of changes, and that is lost while older answers are on their way; seldom
    /// is the queue read again for another reason.
    fn lose_news(&mut self, random: &mut Random) {
        self.controller = ControllerShape::Embedded;
        self.dispatchers = 1;
        self.config.queue.pushes = true;
        self.arrivals = Arrivals::Steady {
            containers: 20 + random.index(21),
            runtime: random.seconds(10, 60),
        };
        for (kind, rate) in [
            (FaultKind::NewsLost, 150_000),
            (FaultKind::QueueSlow, 300_000),
            (FaultKind::QueueCallLost, 2_000),
            (FaultKind::QueueReplyLost, 2_000),
            (FaultKind::Crash, 200),
        ] {
            self.faults.set(kind, rate);
        }
    }

    /// Machines on which much happens are slow, and what they answer arrives in another order than
    /// it was asked for.
    fn answer_out_of_order(&mut self, random: &mut Random) {
        self.crowd(random);
        for (kind, rate) in [
            (FaultKind::Slow, 80_000),
            (FaultKind::AnswerLost, 60_000),
            (FaultKind::CommandLate, 60_000),
            (FaultKind::OldReport, 200_000),
        ] {
            self.faults.set(kind, rate);
        }
    }

    /// Starts stand still on machines on which much happens, their repetitions wait behind them, and
    /// reports from before are long on their way.
    fn repeat_starts(&mut self, random: &mut Random) {
        self.crowd(random);
        // Longer than a start stands still, so that the machine goes on meanwhile.
        self.config.pool.timeout_term = Duration::from_secs(700);
        for (kind, rate) in [
            (FaultKind::DiskStall, 150_000),
            (FaultKind::StartWaits, 900_000),
            (FaultKind::OldReport, 400_000),
        ] {
            self.faults.set(kind, rate);
        }
    }

    /// Many short containers on few machines, of runners that number attempts.
    fn crowd(&mut self, random: &mut Random) {
        if self.controller == ControllerShape::Bare {
            self.controller = ControllerShape::Outside;
        }
        self.arrivals = Arrivals::Steady {
            containers: 60 + random.index(41),
            runtime: random.seconds(10, 30),
        };
        self.config.pool.max_instances = 3;
    }

    /// Starts stand still at a controller that keeps states only, and that often does not let their
    /// repetitions run; the containers are tried elsewhere.
    fn start_astray(&mut self, random: &mut Random) {
        self.controller = ControllerShape::Bare;
        self.arrivals = Arrivals::Steady {
            containers: 30 + random.index(31),
            runtime: random.seconds(10, 300),
        };
        for (kind, rate) in [
            (FaultKind::DiskStall, 300_000),
            (FaultKind::StartRefused, 0),
            (FaultKind::QueueStorm, 30_000),
            (FaultKind::HoldBack, 30_000),
        ] {
            self.faults.set(kind, rate);
        }
    }

    /// For hours, most of them without faults, more small containers than there is room for, and now
    /// and then one that needs an instance for itself: room for it comes about only if it is kept
    /// free.
    fn stream(&mut self, random: &mut Random) {
        let room = 2 + random.below(3);
        let others = u64::try_from(self.others).unwrap_or_default();
        self.cloud.quotas = vec![Quota::instances(Scope::Everything, room + others)];
        // Those of one kind share a small instance by two, those of the other a large one.
        let vcpus = if random.percent(50) { 1 } else { 3 };
        let of_two_thirds = STREAM_RUNTIME.as_secs() * 2 / 3;
        let period = STREAM_RUNTIME / 2 / u32::try_from(room).unwrap_or(1);
        let count = STREAM.as_secs() / period.as_secs();
        let small = (0..count).map(|_| {
            let at = random.between(Duration::ZERO, STREAM);
            let runtime = random.seconds(of_two_thirds, STREAM_RUNTIME.as_secs() * 2);
            let mut job = Job::new(at, runtime);
            job.vcpus = vcpus;
            job
        });
        let mut jobs: Vec<Job> = small.collect();
        for _ in 0..STREAM_LARGE {
            let at = random.between(Duration::ZERO, STREAM / 2);
            let mut job = Job::new(at, random.seconds(60, STREAM_RUNTIME.as_secs()));
            job.vcpus = 8;
            job.priority = 600;
            jobs.push(job);
        }
        self.arrivals = Arrivals::Trace(jobs);
    }

    /// Most containers prefer preemptible machines, of which there are few for ever, or which are
    /// taken away again and again.
    fn take_away(&mut self, random: &mut Random) {
        if self.controller == ControllerShape::Bare {
            // There, what has run is not run again.
            self.controller = ControllerShape::Outside;
        }
        if self.config.pool.types.iter().all(|t| !t.preemptible) {
            self.add_preemptible_types();
        }
        let few = random.percent(50).then(|| random.below(2));
        let is_none = few == Some(0);
        if let Some(few) = few {
            let market = Scope::Market(Market::Preemptible);
            self.cloud.quotas.push(Quota::instances(market, few));
        }
        self.arrivals = Arrivals::Burst {
            containers: 30 + random.index(31),
            runtime: random.seconds(120, 400),
        };
        self.arrivals = Arrivals::drawn(self);
        if let Arrivals::Trace(jobs) = &mut self.arrivals {
            for job in jobs {
                job.preemptible = match random.below(100) {
                    0..15 if !is_none => Preemptible::Only,
                    85.. if !is_none => Preemptible::Never,
                    _ => Preemptible::Prefer,
                };
            }
        }
        for (kind, rate) in [
            (FaultKind::Interrupted, 60_000),
            (FaultKind::NoCapacity, 12_000),
            // Whoever starts anew counts anew.
            (FaultKind::Crash, 100),
            (FaultKind::CrashLoop, 0),
            (FaultKind::Away, 0),
        ] {
            self.faults.set(kind, rate);
        }
    }

    /// A dispatcher of another installation has many of the containers, some of them for hours.
    fn share(&mut self) {
        if self.controller == ControllerShape::Embedded {
            self.controller = ControllerShape::Outside;
        }
        self.faults.set(FaultKind::OtherLocks, 40_000);
        self.faults.set(FaultKind::OtherRuns, 40_000);
    }

    /// Dispatchers die, and their heirs find machines with work that do not feel well.
    fn restart_among_the_unwell(&mut self) {
        self.faults.set(FaultKind::Crash, 3_000);
        self.faults.set(FaultKind::BootProbeFails, 60_000);
    }
}
