//! The state machine: its state, what goes in, what comes out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use longshore_cloud::Tags;
use longshore_types::{ContainerUuid, Deadline, InstanceId, InstanceType, Instant, TypeName};

use crate::blackhole::BlackHoles;
use crate::books::Books;
use crate::config::Config;
use crate::create::Pending;
use crate::effect::{Effect, EffectAction, EffectId, Outcome};
use crate::event::{Changed, Event};
use crate::hearing::Hearing;
use crate::holdoff::{HoldKey, HoldOff};
use crate::listing::Listing;
use crate::records::Records;
use crate::secret::{Secrets, set_tags};
use crate::tally::Tally;
use crate::text::one_line;
use crate::timers::{ContainerTimer, Timer, Timers, WorkerTimer};
use crate::turns::Turns;
use crate::twins::BySecret;
use crate::worker::{Seq, Worker};

/// The most ids of condemned instances that are remembered.
pub(crate) const MAX_CONDEMNED: usize = 10_000;
/// The most alarms that wait to be polled; further ones are dropped.
const MAX_ALARMS: usize = 1000;

/// The worker-pool state machine. See the crate documentation for how to drive it.
///
/// Everything that it keeps is bounded by what is really there (instances, what runs on them) and
/// by its settings; texts from outside are cut to 1,024 characters and made one line.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::{CreateRequest, Instance, InstanceState};
/// use longshore_pool::*;
/// use longshore_types::*;
///
/// let types = vec![CreateRequest::example().instance_type];
/// let mut now = Instant::ZERO;
/// let mut core = Core::new(Config::new("set", types), [0; 32], now);
/// assert!(core.create_refusal(&"small".into(), now).is_none());
/// let pending = core.create(&"small".into(), now)?;
/// assert_eq!(core.pendings().count(), 1);
/// assert!(core.pending(pending.id).is_some());
///
/// // A cloud, a host and a runner that do what they are told, until nothing is left to do.
/// let (uuid, mut runs) = ("zzzzz-dz642-0123456789abcde".parse().unwrap(), false);
/// let mut go = |core: &mut Core, now| while let Some(effect) = core.poll_effect() {
///     let outcome = match effect.action {
///         EffectAction::Create(request) => {
///             let mut made = Instance::new("i-1", "s1", InstanceState::Running, request.tags);
///             made.address = Some("10.0.0.1".into());
///             Outcome::Created(Ok(Box::new(made)))
///         }
///         EffectAction::Boot(_) => Outcome::Booted(Ok(())),
///         EffectAction::Deploy(..) => Outcome::Deployed(Ok(())),
///         EffectAction::Start { .. } => {
///             runs = true;
///             Outcome::Started(StartOutcome::Started)
///         }
///         EffectAction::Kill { .. } => {
///             runs = false;
///             Outcome::Killed(KillOutcome::Gone)
///         }
///         EffectAction::Report(..) => {
///             let state = ReportedState::Running { started_at: None };
///             let container = ContainerReport { uuid, attempt: Attempt(1), state };
///             let containers = runs.then_some(container).into_iter().collect();
///             Outcome::Reported(Ok(RunnerReport { containers, ..RunnerReport::default() }))
///         }
///         // Not answered in this example; an embedder gives an outcome for each.
///         _ => continue,
///     };
///     core.handle_outcome(effect.id, outcome, now);
/// };
/// go(&mut core, now);
/// let instance = InstanceId::from("i-1");
/// assert_eq!(core.state(&instance), Some(WorkerState::Idle));
/// assert_eq!((core.workers().count(), core.states().count()), (1, 1));
///
/// let (attempt, resources) = (Attempt(1), Resources::NONE);
/// let document = b"what to run".to_vec().into();
/// core.start(StartRequest { instance: instance.clone(), uuid, attempt, resources, document }, now)?;
/// core.grant(uuid, &instance, resources, now);
/// go(&mut core, now);
/// assert!(matches!(core.poll_event(), Some(Event::Running { .. })));
/// assert_eq!((core.holders(uuid).count(), core.processes()), (1, 1));
/// assert!(matches!(core.give_back(&instance, now), Err(Refusal::NotEmpty { .. })));
///
/// core.kill(uuid, &instance, "nobody wants it any more", now)?;
/// core.kill_attempt(uuid, attempt, &instance, "once more is no harm", now)?;
/// go(&mut core, now);
/// assert!(matches!(core.poll_event(), Some(Event::Ended { .. })));
/// core.acknowledge(uuid, attempt, &instance, now);
///
/// core.set_idle_behavior(&instance, IdleBehavior::Hold, now)?;
/// core.handle_sleep(Duration::from_secs(3600), now);
/// now = now + Duration::from_secs(1);
/// while core.poll_timeout().is_some_and(|deadline| deadline.at <= now) {
///     core.handle_timeout(now);
/// }
/// core.shut_down(&instance, "the end", now)?;
/// assert_eq!(core.worker(&instance).unwrap().state, WorkerState::Shutdown);
/// assert!(!core.is_listed() && !core.absence_is_evidence() && core.listing_error().is_none());
/// assert_eq!(core.tally().boots_succeeded, 1);
/// while core.poll_changed().is_some() {}
/// core.check_invariants().unwrap();
/// core.stop(now);
/// assert!(!core.is_settled(), "some effects have no outcome yet");
/// # Ok::<(), Refusal>(())
/// ```
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    /// The tags by which our instances are listed.
    pub(crate) ours: Tags,
    pub(crate) types: BTreeMap<TypeName, InstanceType>,
    pub(crate) now: Instant,
    pub(crate) seq: Seq,
    pub(crate) secrets: Secrets,
    pub(crate) stopping: bool,

    pub(crate) workers: BTreeMap<InstanceId, Worker>,
    pub(crate) serials: u64,
    pub(crate) by_secret: BySecret,
    /// Which workers have an entry for a container.
    pub(crate) places: BTreeMap<ContainerUuid, BTreeSet<InstanceId>>,
    /// Which workers claim a container without that being decided.
    pub(crate) claimants: BTreeMap<ContainerUuid, BTreeSet<InstanceId>>,
    pub(crate) condemned: BTreeSet<InstanceId>,
    pub(crate) condemned_order: VecDeque<InstanceId>,
    pub(crate) destroy_queue: BTreeSet<InstanceId>,

    pub(crate) pendings: BTreeMap<u64, Pending>,
    pub(crate) pending_ids: u64,
    pub(crate) pending_secrets: BTreeMap<String, u64>,
    pub(crate) creates_in_flight: BTreeSet<EffectId>,
    pub(crate) books: Books,
    pub(crate) hold_offs: BTreeMap<HoldKey, HoldOff>,
    pub(crate) boot_failures: BTreeMap<TypeName, u32>,
    pub(crate) black_holes: BlackHoles,

    pub(crate) listing: Listing,
    pub(crate) turns: Turns,
    /// Workers that have answered before or may run something, and whose last probe failed.
    pub(crate) failing: BTreeSet<InstanceId>,
    /// Those whose last probe succeeded.
    pub(crate) answering: BTreeSet<InstanceId>,
    pub(crate) hearing: Hearing,
    pub(crate) records: Records,

    /// Containers that are contested and may run no more where they were.
    pub(crate) freed: BTreeSet<ContainerUuid>,
    pub(crate) tally: Tally,
    pub(crate) timers: Timers,
    pub(crate) in_flight: BTreeMap<EffectId, Flight>,
    effect_ids: u64,
    effects: VecDeque<Effect>,
    events: VecDeque<Event>,
    alarms: usize,
    pub(crate) changes: BTreeSet<Changed>,
}

/// An effect under way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) action: FlightAction,
    /// When it was asked for.
    pub(crate) began: Seq,
    pub(crate) began_at: Instant,
}

/// What an effect under way is about.
#[derive(Debug)]
pub(crate) enum FlightAction {
    Create(u64, Box<InstanceType>),
    List,
    Destroy(Vec<InstanceId>),
    Disconnect,
    OnWorker(InstanceId, u64, WorkerFlight),
}

#[derive(Debug)]
pub(crate) enum WorkerFlight {
    Tags,
    Boot,
    Deploy,
    Report { short: bool, waits: bool },
    Start(ContainerUuid),
    Kill(ContainerUuid),
    Collect(ContainerUuid),
    Console,
}

impl WorkerFlight {
    /// Whether it waits for a change, if it is a probe of the regular round.
    pub(crate) fn takes_turn(&self) -> Option<bool> {
        match self {
            Self::Boot | Self::Deploy => Some(false),
            Self::Report { short, waits } => (!short).then_some(*waits),
            Self::Tags | Self::Start(_) | Self::Kill(_) | Self::Collect(_) | Self::Console => None,
        }
    }
}

impl FlightAction {
    fn waits_for_change(&self) -> bool {
        matches!(
            self,
            Self::OnWorker(_, _, WorkerFlight::Report { waits: true, .. })
        )
    }

    /// What it is: see [`EffectAction::kind`].
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Create(..) => "create",
            Self::List => "list",
            Self::Destroy(_) => "destroy",
            Self::Disconnect => "disconnect",
            Self::OnWorker(_, _, flight) => match flight {
                WorkerFlight::Tags => "tags",
                WorkerFlight::Boot => "boot",
                WorkerFlight::Deploy => "deploy",
                WorkerFlight::Report { .. } => "report",
                WorkerFlight::Start(_) => "start",
                WorkerFlight::Kill(_) => "kill",
                WorkerFlight::Collect(_) => "collect",
                WorkerFlight::Console => "console",
            },
        }
    }
}

impl Core {
    /// A pool that knows nothing yet; it lists instances at once.
    ///
    /// `seed` is what the secrets of instances are drawn from: 32 random bytes that nobody else
    /// has, or anything in a test.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let types = config.types.iter().map(|t| (t.name.clone(), t.clone()));
        let mut core = Self {
            types: types.collect(),
            ours: set_tags(&config),
            config,
            now,
            seq: 0,
            secrets: Secrets::new(seed),
            stopping: false,
            workers: BTreeMap::new(),
            serials: 0,
            by_secret: BySecret::default(),
            places: BTreeMap::new(),
            claimants: BTreeMap::new(),
            condemned: BTreeSet::new(),
            condemned_order: VecDeque::new(),
            destroy_queue: BTreeSet::new(),
            pendings: BTreeMap::new(),
            pending_ids: 0,
            pending_secrets: BTreeMap::new(),
            creates_in_flight: BTreeSet::new(),
            books: Books::default(),
            hold_offs: BTreeMap::new(),
            boot_failures: BTreeMap::new(),
            black_holes: BlackHoles::default(),
            listing: Listing::default(),
            turns: Turns::default(),
            failing: BTreeSet::new(),
            answering: BTreeSet::new(),
            hearing: Hearing::default(),
            records: Records::default(),
            freed: BTreeSet::new(),
            tally: Tally::default(),
            timers: Timers::default(),
            in_flight: BTreeMap::new(),
            effect_ids: 0,
            effects: VecDeque::new(),
            events: VecDeque::new(),
            alarms: 0,
            changes: BTreeSet::new(),
        };
        core.list();
        core
    }

    /// Takes what came of an effect. Effects that are not known, or have ended, are ignored.
    pub fn handle_outcome(&mut self, id: EffectId, outcome: Outcome, now: Instant) {
        self.advance(now);
        let Some(flight) = self.in_flight.remove(&id) else {
            return;
        };
        let outcome = outcome.bound();
        let Flight {
            began,
            began_at,
            action,
        } = flight;
        match (action, outcome) {
            (FlightAction::Create(pending, instance_type), outcome) => {
                self.on_created(id, pending, &instance_type, outcome);
            }
            (FlightAction::List, outcome) => self.on_listed(began, began_at, outcome),
            (FlightAction::Destroy(ids), outcome) => self.on_destroyed(ids, outcome),
            (FlightAction::Disconnect, _) => {}
            (FlightAction::OnWorker(instance, serial, flight), outcome) => {
                let turn = flight.takes_turn();
                if let Some(waited) = turn {
                    self.turns.ended(waited);
                }
                let worker = self.workers.get_mut(&instance);
                if let Some(worker) = worker.filter(|worker| worker.serial == serial) {
                    if turn.is_some() {
                        worker.asked = began;
                    }
                    self.on_worker_outcome(&instance, flight, outcome, (began, began_at));
                }
                self.probe_next_in_line();
            }
        }
        self.judge_contests();
    }

    fn on_worker_outcome(
        &mut self,
        id: &InstanceId,
        flight: WorkerFlight,
        outcome: Outcome,
        began: (Seq, Instant),
    ) {
        if let WorkerFlight::Start(uuid) | WorkerFlight::Kill(uuid) | WorkerFlight::Collect(uuid) =
            &flight
        {
            let worker = self.workers.get(id);
            let held = worker.and_then(|worker| worker.held.get(uuid));
            if held.is_some_and(|held| !held.is_meant(began.0)) {
                return;
            }
        }
        match flight {
            WorkerFlight::Tags => self.on_tags_set(id, outcome, began),
            WorkerFlight::Boot => self.on_booted(id, outcome),
            WorkerFlight::Deploy => self.on_deployed(id, outcome),
            WorkerFlight::Report { short, waits } => {
                self.on_reported(id, outcome, began, short, waits);
            }
            WorkerFlight::Start(uuid) => self.on_started(id, uuid, outcome),
            WorkerFlight::Kill(uuid) => self.on_killed(id, uuid, outcome),
            WorkerFlight::Collect(uuid) => self.on_collected(id, uuid, outcome),
            WorkerFlight::Console => self.on_console(id, outcome),
        }
    }

    /// Does what is due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        if self.stopping {
            return;
        }
        for timer in self.timers.take_due(self.now) {
            match timer {
                Timer::List => self.list(),
                Timer::Turn => self.probe_next_in_line(),
                Timer::Pending(id) => self.on_pending_due(id),
                Timer::HoldOff(_) => self.changed(Changed::CreateGate),
                Timer::Worker(id, timer) => self.on_worker_due(&id, timer),
                Timer::Container(id, uuid, timer) => self.on_container_due(&id, uuid, timer),
            }
        }
    }

    fn on_worker_due(&mut self, id: &InstanceId, timer: WorkerTimer) {
        match timer {
            WorkerTimer::Probe => self.probe(id),
            WorkerTimer::Ack => self.want_report(id),
            WorkerTimer::Boot => self.on_boot_due(id),
            WorkerTimer::Silent => self.on_silent_due(id),
            WorkerTimer::Idle => self.on_idle_due(id),
            WorkerTimer::Destroy => self.queue_destroy(id),
            WorkerTimer::Tags => self.set_tags(id),
        }
    }

    fn on_container_due(&mut self, id: &InstanceId, uuid: ContainerUuid, timer: ContainerTimer) {
        match timer {
            ContainerTimer::Start => self.send_start(id, uuid),
            ContainerTimer::Settle => self.on_settle_due(id, uuid),
            ContainerTimer::Signal => self.send_kill(id, uuid),
            ContainerTimer::GiveUp => self.on_give_up_due(id, uuid),
            ContainerTimer::Stale => self.on_stale_due(id, uuid),
            ContainerTimer::Collect => self.collect(id, uuid),
        }
    }

    /// Ends gracefully: from now on nothing is begun and every verb is refused. What runs goes on
    /// running; a new core adopts it.
    ///
    /// Outcomes of what is under way are still taken; see [`Core::is_settled`].
    pub fn stop(&mut self, now: Instant) {
        self.advance(now);
        self.flush_destroys();
        self.stopping = true;
        self.timers.clear_all();
        self.changed(Changed::CreateGate);
    }

    /// Whether no effect is under way or waits to be polled, but for reports that wait for a change:
    /// they may last as long as [`Config::report_wait`], and dropping one changes nothing.
    pub fn is_settled(&self) -> bool {
        let mut in_flight = self.in_flight.values();
        in_flight.all(|flight| flight.action.waits_for_change()) && self.effects.is_empty()
    }

    /// The next thing to do, if there is one.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.flush_destroys();
        self.effects.pop_front()
    }

    /// The next thing that happened, if there is one.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if matches!(event, Some(Event::Alarm { .. })) {
            self.alarms -= 1;
        }
        event
    }

    /// A part of the state that has changed since it was last polled; each is told once however
    /// often it changed.
    pub fn poll_changed(&mut self) -> Option<Changed> {
        self.changes.pop_first()
    }

    /// When [`Core::handle_timeout`] is to be called next, and why.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.next().filter(|_| !self.stopping)
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        self.listen(now);
        self.now = self.now.max(now);
    }

    pub(crate) fn next_seq(&mut self) -> Seq {
        self.seq += 1;
        self.seq
    }

    /// Asks for an effect; none while stopping.
    pub(crate) fn send(
        &mut self,
        timeout: Duration,
        action: EffectAction,
        about: FlightAction,
    ) -> Option<(EffectId, Seq)> {
        if self.stopping {
            return None;
        }
        self.effect_ids += 1;
        let id = EffectId(self.effect_ids);
        let began = self.next_seq();
        let flight = Flight {
            action: about,
            began,
            began_at: self.now,
        };
        self.in_flight.insert(id, flight);
        self.effects.push_back(Effect {
            id,
            timeout,
            action,
        });
        Some((id, began))
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn alarm(&mut self, text: impl Into<String>) {
        if self.alarms < MAX_ALARMS {
            self.alarms += 1;
            let text = one_line(&text.into());
            self.events.push_back(Event::Alarm { text });
        }
    }

    pub(crate) fn changed(&mut self, what: Changed) {
        self.changes.insert(what);
    }

    pub(crate) fn worker_changed(&mut self, id: &InstanceId) {
        self.changed(Changed::Worker(id.clone()));
    }

    pub(crate) fn set_error(&mut self, id: &InstanceId, error: &str) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.last_error = Some(one_line(error));
            self.worker_changed(id);
        }
    }
}
