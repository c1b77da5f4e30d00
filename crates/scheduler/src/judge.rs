//! The rules about one container, apart from where there is room for it.
//!
//! The question behind each of them: where could a process of it be?

use longshore_types::{
    Attempt, ContainerState, ExitCause, InstanceId, Instant, Reason, WorkerState, WorkerView,
};

use crate::action::Action;
use crate::case::{Call, Case, Claim, ClaimPhase, Origin, Record, Standing};
use crate::gone::Gone;
use crate::shape::Eligible;
use crate::workers::{Worker, Workers};
use crate::{Config, Limits};

/// What the rules look at beside the container itself.
pub(crate) struct World<'a> {
    pub(crate) config: &'a Config,
    pub(crate) limits: &'a Limits,
    pub(crate) workers: &'a Workers,
    pub(crate) gone: &'a Gone,
    /// The types that satisfy the container, or why there is none.
    pub(crate) eligible: Result<&'a Eligible, &'a str>,
    pub(crate) now: Instant,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) standing: Standing,
    pub(crate) wants: Vec<Action>,
    pub(crate) watch: Option<InstanceId>,
    /// Whether no place is left where a process of the latest attempt could be.
    pub(crate) cleared: bool,
    /// Where room is kept: it can be started there and nowhere else, or may start there unasked.
    pub(crate) room: Option<InstanceId>,
}

impl Verdict {
    fn new(standing: Standing) -> Self {
        Self {
            standing,
            wants: Vec::new(),
            watch: None,
            cleared: false,
            room: None,
        }
    }

    fn settled(reason: Reason) -> Self {
        Self::new(Standing::Settled(Box::new(reason)))
    }

    fn wanting(mut self, action: Action) -> Self {
        self.wants.push(action);
        self
    }

    fn with_room_on(mut self, instance: &InstanceId) -> Self {
        self.room = Some(instance.clone());
        self
    }

    fn watching(mut self, instance: &InstanceId) -> Self {
        self.watch = Some(instance.clone());
        self
    }
}

/// Where a process of the latest attempt could be.
enum Place<'a> {
    /// Nowhere: it was never started.
    Nowhere,
    /// There or nowhere.
    On(&'a InstanceId),
    /// On any worker that has not said otherwise.
    Anywhere,
}

pub(crate) fn verdict(case: &Case, world: &World<'_>) -> Verdict {
    let Some(entry) = &case.entry else {
        return orphan(case);
    };
    if case.entry_busy() {
        return busy(case, entry, world);
    }
    let mut verdict = at_rest(case, entry, world);
    clean_up(case, entry, &mut verdict);
    verdict
}

pub(crate) fn is_ours(entry: &Record) -> bool {
    let taken = matches!(
        entry.state,
        ContainerState::Locked | ContainerState::Running
    );
    !taken || entry.locked_by_us
}

/// What holds while no call about it is under way.
fn at_rest(case: &Case, entry: &Record, world: &World<'_>) -> Verdict {
    if !is_ours(entry) {
        return Verdict::settled(Reason::MayRunOn {
            instance: None,
            unblock: "another dispatcher has locked it, and has to run it or give it back".into(),
        });
    }
    match entry.state {
        ContainerState::Complete | ContainerState::Cancelled => ended(case),
        ContainerState::Queued => queued(case, entry, world),
        ContainerState::Locked | ContainerState::Running => taken(case, entry, world),
    }
}

/// It is not to run any more; what still does is ended, and then it is forgotten.
fn ended(case: &Case) -> Verdict {
    if let Some(stopping) = stopping(case) {
        return stopping;
    }
    let verdict = Verdict::settled(Reason::NotWaiting);
    if case.ties.claims.is_empty() {
        verdict.wanting(Action::Forget { uuid: case.uuid })
    } else {
        verdict
    }
}

/// What still runs of one that is not to run.
fn stopping(case: &Case) -> Option<Verdict> {
    let instance = case.claim_that_may_run()?.instance.clone();
    Some(Verdict::settled(Reason::Stopping { instance }))
}

/// A claim without an entry: ended once the controller surely does not know the container.
fn orphan(case: &Case) -> Verdict {
    let mut verdict = Verdict::new(Standing::Absent);
    for claim in &case.ties.claims {
        let known_absent = case
            .ties
            .absent_as_of
            .is_some_and(|as_of| as_of > claim.first_seen);
        if known_absent {
            verdict
                .wants
                .extend(end_claim(case, claim, "it is not in the queue"));
        }
    }
    verdict
}

fn busy(case: &Case, entry: &Record, world: &World<'_>) -> Verdict {
    let container = entry;
    if container.state.is_final() {
        return stopping(case).unwrap_or_else(|| Verdict::settled(Reason::NotWaiting));
    }
    if container.state == ContainerState::Running {
        return Verdict::settled(Reason::NotWaiting);
    }
    if container.state == ContainerState::Queued && container.priority < 1 {
        return Verdict::settled(Reason::PriorityZero);
    }
    let hard = case.booking.as_ref().is_some_and(|b| b.hard);
    let ending = case.calling == Some(Call::End);
    let calling = Verdict::new(Standing::Calling);
    if ending {
        return calling;
    }
    let rest = at_rest(case, entry, world);
    match rest.room {
        // Its start may be on its way there, whatever is asked of the controller.
        Some(instance) => calling.with_room_on(&instance).watching(&instance),
        // It keeps its claim to a place that boots while the controller answers.
        None if rest.standing == Standing::Waiting && !hard => Verdict::new(Standing::Waiting),
        None => calling,
    }
}

/// Ends or acknowledges the claims that are not about what the entry stands for now, whoever has
/// locked it.
fn clean_up(case: &Case, entry: &Record, verdict: &mut Verdict) {
    let why = match entry.state {
        ContainerState::Complete => "it is complete",
        ContainerState::Cancelled => "it was cancelled",
        ContainerState::Queued => "it went back to the queue",
        _ => "a later attempt took its place",
    };
    for claim in case
        .ties
        .claims
        .iter()
        .filter(|c| Case::is_outdated(entry, c))
    {
        verdict.wants.extend(end_claim(case, claim, why));
    }
}

/// The action that ends a claim, none if that is under way.
fn end_claim(case: &Case, claim: &Claim, why: &str) -> Option<Action> {
    let uuid = case.uuid;
    let (attempt, instance) = (claim.attempt, claim.instance.clone());
    match claim.phase {
        ClaimPhase::Ended => Some(Action::Acknowledge {
            uuid,
            attempt,
            instance,
        }),
        ClaimPhase::Dying => None,
        ClaimPhase::Starting | ClaimPhase::Running | ClaimPhase::Stale => Some(Action::Kill {
            only_unstarted: false,
            uuid,
            attempt,
            instance,
            reason: why.to_owned(),
        }),
    }
}

fn queued(case: &Case, entry: &Record, world: &World<'_>) -> Verdict {
    let container = entry;
    if let Some(stopping) = stopping(case) {
        return stopping;
    }
    if container.priority < 1 {
        let verdict = Verdict::settled(Reason::PriorityZero);
        return if case.ties.claims.is_empty() {
            verdict.wanting(Action::Forget { uuid: case.uuid })
        } else {
            verdict
        };
    }
    if let Err(error) = world.eligible {
        let verdict = Verdict::settled(Reason::Unsatisfiable {
            error: error.to_owned(),
        });
        return if world.limits.accept_new && !is_paused(case, world) {
            verdict.wanting(Action::Lock {
                uuid: case.uuid,
                instance: None,
            })
        } else {
            verdict
        };
    }
    startable(case, world)
}

fn is_paused(case: &Case, world: &World<'_>) -> bool {
    case.ties.is_paused(world.now)
}

/// A container that can be started anywhere.
fn startable(case: &Case, world: &World<'_>) -> Verdict {
    if is_paused(case, world) {
        Verdict::new(Standing::Paused)
    } else {
        Verdict::new(Standing::Waiting)
    }
}

/// A container that we have locked, or that runs.
fn taken(case: &Case, entry: &Record, world: &World<'_>) -> Verdict {
    let container = entry;
    let running = container.state == ContainerState::Running;
    let current = || {
        case.ties
            .claims
            .iter()
            .filter(|c| !Case::is_outdated(entry, c))
    };
    let place = place(case, entry, world.config);
    // A start that went astray may have been the one that is let run: its runner knows of no attempts.
    let astray = |c: &&Claim| !world.config.records_placement && c.attempt == Attempt(0);
    let here = |c: &&Claim| match place {
        Place::On(instance) => c.instance == *instance || astray(c),
        Place::Nowhere => astray(c),
        Place::Anywhere => true,
    };
    if let Some(claim) = current().filter(here).find(|c| c.phase.may_run()) {
        return held(case, entry, claim);
    }
    if !running && let Some(old) = case.claim_that_may_run() {
        let instance = old.instance.clone();
        return Verdict::settled(if Case::is_outdated(entry, old) {
            Reason::Stopping { instance }
        } else {
            Reason::MayRunOn {
                instance: Some(instance),
                unblock: "it claims a container that was placed elsewhere, and has to end it or go"
                    .into(),
            }
        });
    }
    // The result is on its way to the controller; where runners speak to it themselves, what the
    // controller says afterwards decides.
    if world.config.records_placement
        && current().filter(here).any(|c| c.phase == ClaimPhase::Ended)
    {
        return Verdict::settled(Reason::NotWaiting);
    }
    match place {
        Place::Nowhere => never_started(case, entry, world),
        Place::On(instance) => placed(case, entry, instance, world),
        Place::Anywhere => anywhere(case, entry, world),
    }
}

/// Whether a process of the latest attempt could be on any worker.
pub(crate) fn is_anywhere(case: &Case, config: &Config) -> bool {
    case.entry.as_ref().is_some_and(|entry| {
        let taken = matches!(
            entry.state,
            ContainerState::Locked | ContainerState::Running
        );
        taken && matches!(place(case, entry, config), Place::Anywhere)
    })
}

fn place<'a>(case: &'a Case, entry: &'a Record, config: &Config) -> Place<'a> {
    let container = entry;
    if config.records_placement {
        return match container.placed_on.as_deref() {
            Some(instance) => Place::On(instance),
            None if container.state == ContainerState::Locked => Place::Nowhere,
            None => Place::Anywhere,
        };
    }
    match &case.ties.origin {
        Origin::Unknown => Place::Anywhere,
        Origin::Nowhere => Place::Nowhere,
        Origin::On(instance) => Place::On(instance),
    }
}

/// The worker has it.
fn held(case: &Case, entry: &Record, claim: &Claim) -> Verdict {
    let container = entry;
    let instance = claim.instance.clone();
    if container.priority < 1 {
        let verdict = Verdict::settled(Reason::Stopping { instance });
        return match end_claim(case, claim, "its priority is 0") {
            Some(kill) => verdict.wanting(kill),
            None => verdict,
        };
    }
    let running = container.state == ContainerState::Running;
    Verdict::settled(match claim.phase {
        ClaimPhase::Dying => Reason::Stopping { instance },
        ClaimPhase::Stale if !running => Reason::MayRunOn {
            instance: Some(instance),
            unblock: "what holds its lock there has to end, or the instance to go".into(),
        },
        ClaimPhase::Starting if !running => Reason::Starting { instance },
        _ => Reason::NotWaiting,
    })
}

/// Locked, and surely started nowhere.
fn never_started(case: &Case, entry: &Record, world: &World<'_>) -> Verdict {
    let uuid = case.uuid;
    if entry.priority < 1 {
        return Verdict::settled(Reason::PriorityZero).wanting(Action::Unlock { uuid });
    }
    if let Err(error) = world.eligible {
        let error = error.to_owned();
        return Verdict::settled(Reason::Unsatisfiable {
            error: error.clone(),
        })
        .wanting(Action::Cancel { uuid, error });
    }
    startable(case, world)
}

fn lost(case: &Case, entry: &Record, cause: ExitCause) -> Verdict {
    Verdict::new(Standing::Calling).wanting(Action::Lost {
        uuid: case.uuid,
        attempt: entry.attempt(),
        cause,
    })
}

fn may_run_on(instance: &InstanceId, unblock: &str) -> Verdict {
    Verdict::settled(Reason::MayRunOn {
        instance: Some(instance.clone()),
        unblock: unblock.to_owned(),
    })
    .watching(instance)
}

/// It can be on this instance and nowhere else; no process of it is known there.
fn placed(case: &Case, entry: &Record, instance: &InstanceId, world: &World<'_>) -> Verdict {
    let container = entry;
    let worker = world.workers.get(instance);
    if is_idle_lock(case, entry, worker) && (entry.priority < 1 || may_try_again(entry, world)) {
        return Verdict::new(Standing::Calling)
            .wanting(Action::Unlock { uuid: case.uuid })
            .watching(instance);
    }
    let Some(worker) = worker else {
        return if world.gone.contains(instance) || world.limits.absence_is_evidence {
            lost(case, entry, ExitCause::InstanceLost)
        } else {
            may_run_on(
                instance,
                "that instance has to be seen, or to be known to be gone",
            )
        };
    };
    let Some(probed_at) = worker.probed_at else {
        return may_run_on(instance, "that instance has to answer, or to go");
    };
    if container.state == ContainerState::Running {
        return process_gone(case, entry, world, probed_at).watching(instance);
    }
    let kill = case
        .ties
        .kill
        .as_ref()
        .filter(|k| k.instance == *instance && k.attempt == container.attempt());
    match kill {
        Some(kill) if kill.gone => {
            return Verdict::new(Standing::Calling).wanting(Action::Unlock { uuid: case.uuid });
        }
        // A kill cannot be taken back: the runner refuses the attempt from now on.
        Some(kill) => {
            let verdict = Verdict::settled(Reason::Stopping {
                instance: instance.clone(),
            })
            .watching(instance);
            return match kill.only_unstarted {
                true => verdict.with_room_on(instance),
                false => verdict,
            };
        }
        None => {}
    }
    if case.ties.ran {
        // The runner refuses an attempt that it has seen.
        return process_gone(case, entry, world, probed_at).watching(instance);
    }
    let usable = worker.takes_containers();
    if container.priority >= 1 && usable {
        return if is_paused(case, world) {
            Verdict::new(Standing::Paused)
        } else {
            Verdict::new(Standing::Bound)
        }
        .with_room_on(instance)
        .watching(instance);
    }
    if worker.state == WorkerState::Shutdown {
        return may_run_on(instance, "that instance is shut down, and has to be gone");
    }
    let convenience = container.priority >= 1;
    if convenience && !may_try_again(entry, world) {
        return may_run_on(
            instance,
            "that instance has to take containers again, or to go: no further attempt is allowed",
        );
    }
    let verdict = Verdict::settled(Reason::Stopping {
        instance: instance.clone(),
    })
    .watching(instance)
    .wanting(Action::Kill {
        // It may have been started just now, and then it is wanted.
        only_unstarted: convenience,
        uuid: case.uuid,
        attempt: container.attempt(),
        instance: instance.clone(),
        reason: if convenience {
            "the instance takes no containers any more".into()
        } else {
            "its priority is 0".into()
        },
    });
    match convenience {
        // From the wish on, so that nobody is promised that room in the meantime.
        true => verdict.with_room_on(instance),
        false => verdict,
    }
}

/// Whether no start of the latest attempt was ever sent, and none will be.
///
/// A start that this core did not send may still be on its way to a place that an earlier process
/// locked it for: that place has to be asked, or to be gone.
fn is_idle_lock(case: &Case, entry: &Record, worker: Option<&WorkerView>) -> bool {
    let locked = entry.state == ContainerState::Locked;
    let unsent = case.ties.own_lock && case.ties.origin == Origin::Nowhere && !case.ties.ran;
    let startable = entry.priority >= 1 && worker.is_some_and(WorkerView::takes_containers);
    locked && unsent && !startable
}

/// Whether an attempt that is given up for our convenience is not the last one.
fn may_try_again(entry: &Record, world: &World<'_>) -> bool {
    entry.tries < world.config.max_dispatch_attempts
}

/// No process is there; decides whether what is known is new enough to say that it is lost.
fn process_gone(case: &Case, entry: &Record, world: &World<'_>, probed_at: Instant) -> Verdict {
    if world.config.records_placement {
        return if probed_at > entry.as_of {
            lost(case, entry, ExitCause::SupervisorLost)
        } else {
            unproven(entry)
        };
    }
    // Somebody may have said that it runs since that worker was asked.
    if probed_at <= case.seen_as_of {
        return unproven(entry);
    }
    // The runner may have told the controller before it ended: the record has to be newer.
    let mut verdict = if case.ties.cleared_at.is_some_and(|at| entry.as_of > at) {
        lost(case, entry, ExitCause::SupervisorLost)
    } else {
        unproven(entry)
    };
    verdict.cleared = true;
    verdict
}

fn unproven(entry: &Record) -> Verdict {
    Verdict::settled(if entry.state == ContainerState::Running {
        Reason::NotWaiting
    } else {
        Reason::MayRunOn {
            instance: None,
            unblock: "its instance and the controller have to be asked once more".into(),
        }
    })
}

/// It could be on any worker that has not answered since.
fn anywhere(case: &Case, entry: &Record, world: &World<'_>) -> Verdict {
    let running = entry.state == ContainerState::Running;
    let suspect = world
        .workers
        .by_probe()
        .take_while(|(probed_at, _)| probed_at.is_none_or(|at| at <= case.seen_as_of))
        .find(|(_, worker)| could_hold(worker, world));
    if let Some((_, worker)) = suspect {
        return may_run_on(&worker.id, "that instance has to answer, or to go");
    }
    if !world.limits.absence_is_evidence {
        return Verdict::settled(Reason::MayRunOn {
            instance: None,
            unblock: "the provider has to list all instances once more".into(),
        });
    }
    let mut verdict = if running || case.ties.ran {
        if case.ties.cleared_at.is_some_and(|at| entry.as_of > at) {
            lost(case, entry, ExitCause::SupervisorLost)
        } else {
            unproven(entry)
        }
    } else {
        never_started(case, entry, world)
    };
    verdict.cleared = true;
    verdict
}

/// Whether a container of these needs could have been started on a worker.
fn could_hold(worker: &Worker, world: &World<'_>) -> bool {
    match (worker.type_index, world.eligible) {
        (Some(index), Ok(eligible)) => eligible.contains(index),
        // What is eligible may have changed since it was started, if its type is not known.
        _ => true,
    }
}
