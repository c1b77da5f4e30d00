//! The world and the dispatcher in it, on one virtual clock.

mod checks;
mod dispatcher;
mod hosts;
mod kinds;
mod leading;
mod line;
mod misfortune;
mod operator;
mod processes;
mod provider;
mod queue;
mod silence;
mod summary;
mod unattended;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_dispatch::{Config, Core, Effect, QueueReply, RequestId};
use longshore_fakecloud::{CallId, Cloud, RuleId};
use longshore_pool::{EffectId, Outcome as PoolOutcome};
use longshore_types::{
    Attempt, Container, ContainerState, ContainerUuid, InstanceId, Instant, ResourceRequest,
    Resources, Timestamp,
};

pub(crate) use unattended::Switch;

use crate::controller::Controller;
use crate::machine::Machine;
use crate::random::Random;
use crate::runner::Runner;
use crate::scenario::{ControllerShape, Job, Scenario};
use crate::story::{About, Happening, Story};
use crate::witness::Witness;
use crate::{FaultKind, Faults, Outcome, Progress, Rule, Violation};

/// The most lines of the story of a violation.
const STORY_LINES: usize = 120;
/// The most that happens in the cloud between two looks at it.
const CLOUD_EVENTS_MAX: usize = 1_000_000;
/// The first priority after somebody wants a container again.
const WANTED: i64 = 500;

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// A container is submitted.
    Submit(usize),
    /// A command reaches its machine, or a request the controller.
    Arrive(Box<Arrival>),
    /// The dispatcher hears what came of an effect of its pool.
    Outcome(u32, EffectId, Box<PoolOutcome>, About),
    /// The dispatcher hears from the controller.
    Reply(u32, RequestId, Box<QueueReply>),
    /// The process of an attempt ends, unless that has changed.
    ProcessDue(InstanceId, ContainerUuid, Attempt),
    /// Reports that wait on a machine may be due.
    PollDue(InstanceId),
    /// The watcher of the queue gets its empty answer.
    WatchDue,
    /// A machine carries out what it has accepted.
    Recover(InstanceId),
    /// Something goes wrong.
    Misfortune(FaultKind),
    /// The dispatcher dies, as part of a row of deaths.
    Die,
    /// A dispatcher is started.
    Restart,
    /// A dispatcher's machine wakes.
    Wake(u32),
    /// A dispatcher asks whether it has the lock.
    WatchLock(u32),
    /// The lock service has not heard of a dispatcher for as long as it keeps a session.
    Neglect(u32),
    /// The dead-man switch of a machine looks whether it is time.
    SwitchDue(InstanceId),
    /// A start that stood still goes on.
    Unstall(Box<Arrival>),
    /// The provider is as usual again.
    Ends(FaultKind),
    /// An operator lets an instance run again.
    Release(InstanceId),
    /// Somebody holds a container back.
    HoldBack(ContainerUuid),
    /// The provider stops refusing something.
    Lift(RuleId),
    /// Somebody wants a container after all.
    WantAgain(ContainerUuid),
    /// Another installation's dispatcher is done with an attempt: it has run it, or not.
    OtherEnds(ContainerUuid, Attempt, bool),
    /// The controller reads the further pages of an answer.
    Pages(Box<Pages>),
    /// Everything is looked at.
    Look,
    /// The faults end.
    Quiet,
}

/// What was asked, on its way.
#[derive(Debug)]
struct Arrival {
    effect: Effect,
    waiting: Waiting,
}

/// Who waits for the answer to what is on its way.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    life: u32,
    /// When whoever asked gives up.
    deadline: Instant,
    /// Whether the answer arrives.
    answered: bool,
    /// How long the answer is on its way, beside the usual.
    back: Duration,
}

/// An answer of which the first pages were read.
#[derive(Debug)]
struct Pages {
    life: u32,
    id: RequestId,
    known: Vec<ContainerUuid>,
    first: Vec<Container>,
    deadline: Instant,
    /// How long the answer is on its way, beside the usual.
    back: Duration,
}

/// Who waits for an outcome.
#[derive(Debug)]
struct Asker {
    life: u32,
    id: EffectId,
    about: About,
}

/// A dispatcher whose machine sleeps.
#[derive(Debug)]
struct Sleep {
    since: Instant,
    /// What it will hear when it wakes.
    inbox: Vec<Event>,
}

/// A request to the controller for changes that waits for one.
#[derive(Debug)]
struct Watcher {
    life: u32,
    id: RequestId,
    until: Instant,
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    now: Instant,
    random: Random,
    seed: u64,
    dice: BTreeMap<FaultKind, Random>,
    tolerated: Vec<Rule>,
    faults: Faults,
    /// After what the dispatcher dies as often as not.
    dies_after: Option<String>,
    /// Whether the scenario has any faults at all.
    faultless: bool,
    quiet: bool,
    /// Whether there was a dispatcher since then.
    served_in_calm: bool,
    /// When everything must have ended.
    end: Instant,
    /// When every container was seen to have ended, after the faults.
    ended_at: Option<Instant>,
    /// Who is first in line, and since when.
    first: line::First,
    /// When the last fault had ended, and there was a dispatcher.
    calm_since: Option<Instant>,
    /// The longest that a container runs.
    longest: Duration,
    /// Since when everything has.
    over_since: Option<Instant>,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    config: Config,
    core: Option<Core>,
    life: u32,
    sleep: Option<Sleep>,
    cloud: Cloud,
    calls: BTreeMap<CallId, (u32, EffectId, About)>,
    /// Which life of the dispatcher sent each create.
    tokens: BTreeMap<String, u32>,
    /// Instances that the limit on instances may not have known of.
    excused: BTreeSet<InstanceId>,
    /// The other ones that are pending or running.
    counted: BTreeSet<InstanceId>,
    creates_open: usize,
    /// How many dispatchers there are, of which one is to act.
    dispatchers: usize,
    lead: Option<leading::Lead>,
    /// Those that have lost the lock and may not know it yet.
    aside: Vec<leading::Aside>,
    machines: BTreeMap<InstanceId, Machine>,
    controller: Controller,
    shape: ControllerShape,
    /// Until when the controller refuses, or does not answer.
    storm_until: Instant,
    outage_until: Instant,
    /// Until when whatever the controller tells by itself is lost.
    news_lost_until: Instant,
    watcher: Option<Watcher>,
    /// Whether [`Event::WatchDue`] is to come.
    watch_is_due: bool,
    witness: Witness,
    story: Story,
    jobs: Vec<Job>,
    /// Their places in that list, in the order of their submission.
    arrivals: Vec<usize>,
    /// Containers that have yet to be submitted.
    to_come: usize,
    epoch: Timestamp,
    outcome: Outcome,
    /// After how many steps everything is looked at again.
    whole_due: u64,
    /// Effects at one moment.
    busy_moment: (Instant, u64),
    short_listing_at: Option<Instant>,
    /// What the provider does wrong until it is told otherwise.
    standing: Vec<RuleId>,
    /// How the cloud is when nothing is wrong.
    usual: longshore_fakecloud::Settings,
    /// How far the dispatcher's wall clock is off, in milliseconds.
    clock: i64,
    /// Until when the dispatcher's own network is down.
    cut_until: Instant,
    /// Outages that the dispatcher noticed, since it began: a listing that was asked for at the
    /// first moment failed, and the last moment is their end.
    cuts: Vec<(Instant, Instant)>,
    /// When the last listing was asked for.
    list_asked_at: Instant,
    /// The life whose hearing is noted: the last that began to act.
    hearer: u32,
    /// What containers have lost with machines that may be taken away.
    losses: kinds::Losses,
    /// What stays on the disks of instances that may come back.
    disks: BTreeMap<InstanceId, Runner>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut random = Random::new(scenario.seed);
        let mut config = scenario.config.clone();
        let mut cloud = scenario.cloud.clone();
        cloud.events_max = CLOUD_EVENTS_MAX;
        config.pool.capabilities = cloud.capabilities.clone();
        let is_bare = scenario.controller == ControllerShape::Bare;
        config.queue.takes_reports = !is_bare;
        config.queue.pushes &= !scenario.controller.is_outside();
        let epoch = cloud.epoch;
        let largest = config.pool.types.iter().map(|t| t.vcpus).max().unwrap_or(1);
        let jobs = scenario.arrivals.jobs(scenario.busy, largest, &mut random);
        let mut arrivals: Vec<usize> = (0..jobs.len()).collect();
        arrivals.sort_by_key(|index| jobs[*index].at);
        let controller = Controller::new(config.scheduler.max_dispatch_attempts, is_bare);
        let now = Instant::ZERO;
        let mut world = Self {
            now,
            seed: scenario.seed,
            dice: BTreeMap::new(),
            tolerated: scenario.tolerated.clone(),
            faults: scenario.faults.clone(),
            dies_after: scenario.dies_after.clone(),
            faultless: scenario.faults.is_empty(),
            quiet: false,
            served_in_calm: false,
            end: Instant::FAR_FUTURE,
            ended_at: None,
            first: line::First::default(),
            calm_since: None,
            longest: jobs.iter().map(|job| job.runtime).max().unwrap_or_default(),
            over_since: None,
            events: BTreeMap::new(),
            sequence: 0,
            core: None,
            life: 0,
            sleep: None,
            cloud: Cloud::new(cloud.clone(), random.next()),
            calls: BTreeMap::new(),
            tokens: BTreeMap::new(),
            excused: BTreeSet::new(),
            counted: BTreeSet::new(),
            creates_open: 0,
            dispatchers: scenario.dispatchers,
            lead: None,
            aside: Vec::new(),
            machines: BTreeMap::new(),
            controller,
            shape: scenario.controller,
            storm_until: now,
            outage_until: now,
            news_lost_until: now,
            watcher: None,
            watch_is_due: false,
            witness: Witness::default(),
            story: Story::new(),
            to_come: jobs.len(),
            arrivals,
            jobs,
            epoch,
            outcome: Outcome::default(),
            whole_due: 0,
            busy_moment: (now, 0),
            short_listing_at: None,
            standing: Vec::new(),
            usual: cloud.clone(),
            clock: 0,
            cut_until: now,
            cuts: Vec::new(),
            list_asked_at: now,
            hearer: 0,
            losses: kinds::Losses::default(),
            disks: BTreeMap::new(),
            config,
            random,
        };
        world.plant_others(scenario.others);
        world.schedule_arrival();
        world.begin_misfortunes();
        world.schedule(scenario.busy, Event::Quiet);
        world.schedule(Duration::from_secs(60), Event::Look);
        world.restart();
        world
    }

    /// One thing happens; false once all is done or a promise is broken.
    pub(crate) fn advance(&mut self) -> bool {
        let more = self.step();
        self.take_findings();
        self.note_end();
        more && self.outcome.violations.is_empty() && !self.is_done()
    }

    /// How many things were told so far.
    pub(crate) fn told(&self) -> u64 {
        self.story.count
    }

    /// What was told since so many things had been, a line each.
    pub(crate) fn lines_since(&self, told: u64) -> impl Iterator<Item = String> {
        self.story.since(told)
    }

    pub(crate) fn progress(&self) -> Progress {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Progress {
            elapsed: self.now.since(Instant::ZERO),
            containers: count(self.jobs.len()),
            ended: count(self.jobs.len() - self.to_come - self.controller.open().len()),
            instances: count(self.machines.len()),
        }
    }

    /// One thing happens; false if nothing will.
    fn step(&mut self) -> bool {
        let next_event = self.events.first_key_value().map(|((at, _), _)| *at);
        let next_call = self.cloud.poll_timeout();
        let timer = match (&self.core, &self.sleep) {
            (Some(core), None) => core.poll_timeout().map(|deadline| deadline.at),
            _ => None,
        };
        let Some(next) = [next_event, next_call, timer].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        if next_call.is_some_and(|at| at <= self.now) {
            self.cloud.handle_timeout(self.now);
            self.look_at_instances();
        } else if next_event.is_some_and(|at| at <= self.now) {
            if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        } else if let Some(core) = &mut self.core {
            core.handle_timeout(self.now);
        }
        self.take_replies();
        self.lead();
        self.take_effects();
        self.take_effects_aside();
        self.wake_watcher();
        self.note_first();
        self.check_step();
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submit(index) => self.submit(index),
            Event::Arrive(arrival) => self.arrive(*arrival),
            event @ (Event::Outcome(..) | Event::Reply(..)) => self.hear(event),
            Event::ProcessDue(instance, uuid, attempt) => {
                self.process_due(&instance, uuid, attempt);
            }
            Event::PollDue(instance) => self.answer_polls(&instance),
            Event::WatchDue => self.watch_due(),
            Event::Recover(instance) => self.recover(&instance),
            Event::Misfortune(kind) => self.befall(kind),
            Event::Die => self.die(),
            Event::Restart => self.restart(),
            Event::Wake(life) => self.as_if(life, |world| {
                if world.life == life {
                    world.wake();
                }
            }),
            Event::WatchLock(life) => self.watch_lock(life),
            Event::Neglect(life) => self.neglect_session(life),
            Event::SwitchDue(instance) => self.switch_due(&instance),
            Event::Unstall(arrival) => self.unstall(&arrival),
            Event::Ends(kind) => self.end_of(kind),
            Event::Release(instance) => self.release(instance),
            Event::HoldBack(uuid) => {
                self.controller.set_priority(uuid, 0, self.now);
                self.take_transitions();
            }
            Event::Lift(rule) => {
                self.cloud.lift(rule);
            }
            Event::WantAgain(uuid) => {
                self.controller.set_priority(uuid, WANTED, self.now);
                self.take_transitions();
            }
            Event::OtherEnds(uuid, attempt, ran) => {
                self.controller.end_by_other(uuid, attempt, ran);
                self.take_transitions();
                self.note_given_back(uuid);
            }
            Event::Pages(pages) => self.read_pages(*pages),
            Event::Look => self.look(),
            Event::Quiet => self.fall_quiet(),
        }
    }

    /// Schedules the next container that is submitted; one at a time, since there may be many.
    fn schedule_arrival(&mut self) {
        let nth = self.jobs.len() - self.to_come;
        if let Some(&index) = self.arrivals.get(nth)
            && let Some(job) = self.jobs.get(index)
        {
            self.schedule_at(Instant::ZERO + job.at, Event::Submit(index));
        }
    }

    fn submit(&mut self, index: usize) {
        let Some(job) = self.jobs.get(index).cloned() else {
            return;
        };
        self.to_come -= 1;
        self.schedule_arrival();
        let Ok(uuid) = uuid_of(index).parse::<ContainerUuid>() else {
            return;
        };
        let request = ResourceRequest {
            vcpus: job.vcpus,
            ram: job.ram,
            scratch: job.scratch,
            preemptible: job.preemptible,
            ..ResourceRequest::default()
        };
        self.controller.submit(Container {
            uuid,
            state: ContainerState::Queued,
            priority: job.priority,
            created_at: self.wall_time(),
            request,
            supervisor: job.supervisor,
            lock_count: 0,
            given_back: None,
            locked_by_us: false,
            placed_on: None,
            revision: 0,
        });
        self.witness.submitted(uuid, self.now);
        self.outcome.containers += 1;
        self.tell(Happening::Record {
            uuid,
            attempt: Attempt(0),
            from: None,
            to: ContainerState::Queued,
            placed_on: None,
        });
    }

    fn job(&self, uuid: ContainerUuid) -> Option<&Job> {
        let digits = uuid.as_str().rsplit('-').next()?;
        self.jobs.get(digits.parse::<usize>().ok()?)
    }

    fn needs(&self, uuid: ContainerUuid) -> Resources {
        self.job(uuid).map_or(Resources::NONE, |job| Resources {
            vcpus: job.vcpus,
            ram: job.ram,
            scratch: job.scratch,
            ..Resources::NONE
        })
    }

    fn take_transitions(&mut self) {
        for change in std::mem::take(&mut self.controller.transitions) {
            self.note_cause(&change);
            self.witness.transition(&change, self.now);
            self.tell(Happening::Record {
                uuid: change.uuid,
                attempt: change.attempt,
                from: Some(change.from),
                to: change.to,
                placed_on: change.placed_on,
            });
        }
    }

    /// Promises that were found broken, with their stories.
    fn take_findings(&mut self) {
        while let Some(finding) = self.witness.take() {
            if self.tolerated.contains(&finding.rule) {
                *self.outcome.tolerated.entry(finding.rule).or_default() += 1;
                continue;
            }
            let story = self.story.about(&finding.about, STORY_LINES);
            self.outcome.violations.push(Violation {
                rule: finding.rule,
                at: self.now,
                what: finding.what,
                story,
                about: finding.about,
            });
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now + after, event);
    }

    fn schedule_at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn tell(&mut self, happening: Happening) {
        self.story.tell(self.now, happening);
    }

    fn fault(&mut self, kind: FaultKind, about: About) {
        *self.outcome.faults.entry(kind).or_default() += 1;
        self.tell(Happening::Fault(kind, about));
    }

    /// Whether a fault that happens to calls happens to this one.
    fn strikes(&mut self, kind: FaultKind) -> bool {
        let rate = if self.quiet {
            0
        } else {
            self.faults.rate(kind)
        };
        // Without a chance nothing is drawn.
        rate > 0 && self.dice(kind).chance(rate)
    }

    /// Each kind of fault has its own chance, so that leaving one out does not move the others.
    fn dice(&mut self, kind: FaultKind) -> &mut Random {
        let seed = self.seed;
        self.dice.entry(kind).or_insert_with(|| {
            let salt = FaultKind::ALL.iter().position(|other| *other == kind);
            let salt = u64::try_from(salt.unwrap_or_default()).unwrap_or_default();
            Random::new(seed ^ (salt + 1).wrapping_mul(0xd134_2543_de82_ef95))
        })
    }

    /// What the dispatcher's clock shows.
    fn wall_time(&self) -> Timestamp {
        self.time_with(self.clock)
    }

    /// What the clock of a machine shows.
    fn time_on(&self, id: &InstanceId) -> Timestamp {
        self.time_with(self.machines.get(id).map_or(0, |machine| machine.clock))
    }

    fn time_with(&self, off: i64) -> Timestamp {
        let millis = i64::try_from(self.now.as_nanos() / 1_000_000).unwrap_or(i64::MAX);
        Timestamp(self.epoch.0.saturating_add(millis).saturating_add(off))
    }
}

fn uuid_of(index: usize) -> String {
    format!("zzzzz-dz642-{index:015}")
}
