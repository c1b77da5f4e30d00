//! Builders shared by the tests.
#![allow(dead_code, reason = "each test crate uses a part of it")]

pub(crate) mod any;

use longshore_scheduler::{Action, Config, Core};
use longshore_types::*;

/// How many cases a property runs: `LONGSHORE_CASES`, else so many.
pub(crate) fn how_many(usual: u32) -> u32 {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test may be told how long to run"
    )]
    let asked = std::env::var("LONGSHORE_CASES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(usual)
}

pub(crate) fn uuid(n: u32) -> ContainerUuid {
    format!("zzzzz-dz642-{n:015}").parse().unwrap()
}

pub(crate) fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

pub(crate) fn instance_type(name: &str, vcpus: u32, price: f64) -> InstanceType {
    let price = Price::from_units(price).unwrap();
    let mut made = InstanceType::new(name, vcpus, ByteSize::gib(4 * u64::from(vcpus)), price);
    made.provider_type = format!("m.{name}");
    made.included_scratch = ByteSize::gib(100);
    made
}

/// Types of 2, 4 and 8 vCPUs; a controller that records placements.
pub(crate) fn config() -> Config {
    let mut config = Config::new(vec![
        instance_type("small", 2, 0.1),
        instance_type("medium", 4, 0.2),
        instance_type("large", 8, 0.4),
    ]);
    config.records_placement = true;
    config
}

pub(crate) fn arvados() -> Config {
    let mut config = config();
    config.records_placement = false;
    config
}

pub(crate) fn request(vcpus: u32) -> ResourceRequest {
    ResourceRequest {
        vcpus,
        ram: ByteSize::gib(1),
        ..ResourceRequest::default()
    }
}

pub(crate) fn queued(n: u32) -> QueueEntry {
    QueueEntry {
        container: Container {
            uuid: uuid(n),
            state: ContainerState::Queued,
            priority: 500,
            created_at: Timestamp(i64::from(n)),
            request: request(1),
            supervisor: false,
            lock_count: 0,
            given_back: None,
            locked_by_us: false,
            placed_on: None,
            revision: 0,
        },
        as_of: at(0),
        call_in_flight: false,
    }
}

pub(crate) fn with(mut entry: QueueEntry, change: impl FnOnce(&mut Container)) -> QueueEntry {
    change(&mut entry.container);
    entry
}

pub(crate) fn locked(n: u32) -> QueueEntry {
    with(queued(n), |c| {
        c.state = ContainerState::Locked;
        c.locked_by_us = true;
        c.lock_count = 1;
    })
}

pub(crate) fn placed(n: u32, instance: &str) -> QueueEntry {
    with(locked(n), |c| c.placed_on = Some(instance.into()))
}

pub(crate) fn running(n: u32, instance: &str) -> QueueEntry {
    with(placed(n, instance), |c| c.state = ContainerState::Running)
}

pub(crate) fn in_state(n: u32, state: ContainerState) -> QueueEntry {
    with(queued(n), |c| c.state = state)
}

pub(crate) fn idle(id: &str, name: &str) -> WorkerView {
    let types = config().types;
    let t = types.iter().find(|t| t.name.as_str() == name).unwrap();
    WorkerView {
        instance: id.into(),
        type_name: Some(t.name.clone()),
        state: WorkerState::Idle,
        idle_behavior: IdleBehavior::Run,
        capacity: t.resources(),
        granted: Resources::NONE,
        containers: Vec::new(),
        probed_at: Some(at(0)),
        last_error: None,
    }
}

pub(crate) fn booting(id: &str, name: &str) -> WorkerView {
    WorkerView {
        state: WorkerState::Booting,
        probed_at: None,
        ..idle(id, name)
    }
}

pub(crate) fn probed(mut view: WorkerView, seconds: u64) -> WorkerView {
    view.probed_at = Some(at(seconds));
    view
}

/// The view with one more container of 1 vCPU.
pub(crate) fn holding(mut view: WorkerView, n: u32, attempt: u32, phase: HeldPhase) -> WorkerView {
    let granted = if phase.may_run() {
        longshore_scheduler::type_choice::need(&request(1), &config())
    } else {
        Resources::NONE
    };
    view.granted = view.granted.saturating_add(granted);
    if view.state == WorkerState::Idle && phase.may_run() {
        view.state = WorkerState::Running;
    }
    view.containers.push(HeldContainer {
        uuid: uuid(n),
        attempt: Attempt(attempt),
        phase,
        granted,
    });
    view.containers.sort_by_key(|c| c.uuid);
    view
}

pub(crate) fn ended(cause: ExitCause) -> HeldPhase {
    HeldPhase::Ended(Box::new(Exit::unseen(cause)))
}

pub(crate) fn pending(id: u64, name: &str) -> PendingView {
    let view = idle("x", name);
    PendingView {
        id,
        type_name: name.into(),
        capacity: view.capacity,
    }
}

pub(crate) fn drain(core: &mut Core, now: Instant) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(action) = core.poll_action(now) {
        core.check_invariants().unwrap();
        actions.push(action);
        assert!(actions.len() < 100_000, "it never ends");
    }
    assert_eq!(core.poll_action(now), None);
    core.check_invariants().unwrap();
    actions
}

/// The kind of an action with its container's number and its instance, for short tables.
pub(crate) fn brief(action: &Action) -> String {
    let n = |uuid: &ContainerUuid| uuid.as_str()[12..].parse::<u32>().unwrap();
    match action {
        Action::Lock { uuid, instance } => match instance {
            Some(instance) => format!("lock {} {instance}", n(uuid)),
            None => format!("lock {}", n(uuid)),
        },
        Action::Place { uuid, instance } => format!("place {} {instance}", n(uuid)),
        Action::Unlock { uuid } => format!("unlock {}", n(uuid)),
        Action::Start {
            uuid,
            attempt,
            instance,
            ..
        } => format!("start {}#{attempt} {instance}", n(uuid)),
        Action::Create { type_name } => format!("create {type_name}"),
        Action::GiveBack { instance } => format!("give back {instance}"),
        Action::Kill {
            only_unstarted,
            uuid,
            attempt,
            instance,
            ..
        } => {
            let what = if *only_unstarted { "withdraw" } else { "kill" };
            format!("{what} {}#{attempt} {instance}", n(uuid))
        }
        Action::Lost {
            uuid,
            attempt,
            cause,
        } => format!("lost {}#{attempt}: {cause}", n(uuid)),
        Action::Forget { uuid } => format!("forget {}", n(uuid)),
        Action::Acknowledge {
            uuid,
            attempt,
            instance,
        } => format!("acknowledge {}#{attempt} {instance}", n(uuid)),
        Action::Cancel { uuid, .. } => format!("cancel {}", n(uuid)),
    }
}

pub(crate) fn briefs(core: &mut Core, now: Instant) -> Vec<String> {
    drain(core, now).iter().map(brief).collect()
}
