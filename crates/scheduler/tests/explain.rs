//! Explanations: what they say of types, instances, remedies and the past.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_scheduler::{Core, Limits};
use longshore_types::*;
use proptest::prelude::*;
use support::any::any_input;
use support::*;

fn at_quota(cause: &str) -> Limits {
    let mut limits = Limits::default();
    for t in config().types {
        limits.create_blocked.insert(t.name.clone(), cause.into());
        limits.quota_blocked.insert(t.name);
    }
    limits
}

fn explain(core: &Core, n: u32, seconds: u64) -> Explanation {
    core.explain(uuid(n), at(seconds)).unwrap()
}

/// The types with what was found of each, in few words.
fn types(why: &Explanation) -> Vec<String> {
    let said = |t: &TypeConsidered| format!("{} {}", t.name, t.verdict);
    why.types.iter().map(said).collect()
}

fn instances(why: &Explanation) -> Vec<String> {
    let said = |group: &InstancesConsidered| {
        let name = group.type_name.as_ref().map_or("-", TypeName::as_str);
        let ids: Vec<&str> = group.examples.iter().map(InstanceId::as_str).collect();
        format!(
            "{} {name} {}: {}",
            group.count,
            ids.join("+"),
            group.verdict
        )
    };
    why.instances.iter().map(said).collect()
}

#[test]
fn types_and_instances_are_told_with_what_is_wrong_with_each() {
    let mut core = Core::new(config());
    let mut limits = at_quota("the quota is reached");
    limits.create_blocked.remove(&TypeName::from("medium"));
    core.set_limits(limits, at(0));
    let held = with(queued(1), |c| c.request = request(2));
    core.upsert_entry(held, at(0));
    core.upsert_entry(running(2, "full"), at(0));
    core.upsert_worker(
        holding(idle("full", "small"), 2, 1, HeldPhase::Running),
        at(0),
    );
    core.upsert_worker(idle("large", "large"), at(0));
    for (id, behavior) in [("hold", IdleBehavior::Hold), ("drain", IdleBehavior::Drain)] {
        let mut view = idle(id, "small");
        view.idle_behavior = behavior;
        core.upsert_worker(view, at(0));
    }
    drain(&mut core, at(0));
    let why = explain(&core, 1, 0);
    assert_eq!((why.position, why.in_line), (Some(1), 1));
    assert_eq!(
        types(&why),
        [
            "small fits, but no further one is created: the quota is reached",
            "medium would fit, but is 33 % dearer than MaximumPriceFactor allows",
            "large would fit, but is 167 % dearer than MaximumPriceFactor allows",
        ]
    );
    assert_eq!(
        instances(&why),
        [
            "1 small full: has not enough vCPUs left",
            "1 small hold: on hold, takes nothing new",
            "1 small drain: drained, takes nothing new",
            "1 large large: being destroyed",
        ]
    );
    assert_eq!(
        why.unblock,
        [
            "wait until something ends on the instance that could run it",
            "let hold take containers again, which is on hold",
            "a new small instance is not created: the quota is reached",
            "raise MaximumPriceFactor: medium would fit, and is 33 % dearer than it allows",
        ]
    );
    let short = "waiting for room on an instance of type small; hold is on hold; no further one is \
                 created: the quota is reached";
    assert_eq!(why.sentence(), format!("1st of 1 in line: {short}"));
    assert_eq!(core.reason(uuid(1), at(0)).unwrap().to_string(), short);
    // What could not be created either is no way out.
    core.set_limits(at_quota("the quota is reached"), at(0));
    drain(&mut core, at(0));
    let ways = explain(&core, 1, 0).unblock;
    assert!(
        !ways.iter().any(|way| way.contains("MaximumPriceFactor")),
        "{ways:?}"
    );
}

#[test]
fn an_instance_on_hold_is_named_as_long_as_it_is() {
    let mut core = Core::new(config());
    core.set_limits(at_quota("the quota is reached"), at(0));
    core.upsert_worker(idle("i-1", "small"), at(0));
    let first = with(queued(1), |c| c.request = request(2));
    core.upsert_entry(first, at(0));
    let said = |core: &Core| core.reason(uuid(1), at(0)).unwrap().to_string();
    let set = |core: &mut Core, behavior, state| {
        let mut view = idle("i-1", "small");
        (view.idle_behavior, view.state) = (behavior, state);
        core.upsert_worker(view, at(0));
        drain(core, at(0));
        said(core).contains("; i-1 is on hold; no further one")
    };
    use IdleBehavior::{Drain, Hold};
    assert!(set(&mut core, Hold, WorkerState::Idle));
    assert!(!set(&mut core, Drain, WorkerState::Idle));
    assert!(set(&mut core, Hold, WorkerState::Idle));
    assert!(!set(&mut core, Hold, WorkerState::Shutdown));
    assert!(set(&mut core, Hold, WorkerState::Idle));
    // What changes meanwhile makes no second spell.
    assert!(!set(&mut core, Drain, WorkerState::Idle));
    assert_eq!(explain(&core, 1, 60).history.len(), 1);
    core.remove_worker(&"i-1".into(), at(0));
    drain(&mut core, at(0));
    assert!(!said(&core).contains("hold"), "{}", said(&core));
}

#[test]
fn the_past_is_told_with_times_and_what_is_short_is_left_out() {
    let mut core = Core::new(config());
    let entry = with(queued(1), |c| c.request = request(2));
    core.set_limits(at_quota("the quota is reached"), at(0));
    core.upsert_entry(entry.clone(), at(0));
    drain(&mut core, at(0));
    // The quota is free after 3 s, and the provider takes 5 s to make the instance.
    core.set_limits(Limits::default(), at(3));
    drain(&mut core, at(3));
    core.upsert_pending(pending(1, "small"), at(3));
    drain(&mut core, at(3));
    let mut locked = with(locked(1), |c| c.request = request(2));
    locked.call_in_flight = true;
    core.upsert_entry(locked.clone(), at(3));
    drain(&mut core, at(3));
    locked.call_in_flight = false;
    core.upsert_entry(locked.clone(), at(3));
    core.upsert_worker(booting("i-123", "small"), at(8));
    core.remove_pending(1, at(8));
    drain(&mut core, at(8));
    // A pass about something else changes nothing.
    core.upsert_entry(queued(2), at(20));
    drain(&mut core, at(20));
    let told = |core: &Core, seconds| -> Vec<String> {
        let why = explain(core, 1, seconds);
        why.history.iter().map(Spell::to_string).collect()
    };
    let first = [
        "3.0s for room (the quota is reached)",
        "5.0s for a new small instance to be created",
        "40.0s for the boot of i-123",
    ];
    assert_eq!(told(&core, 48), first);
    core.upsert_worker(probed(idle("i-123", "small"), 48), at(48));
    drain(&mut core, at(48));
    locked.container.placed_on = Some("i-123".into());
    core.upsert_entry(locked.clone(), at(48));
    drain(&mut core, at(48));
    locked.container.state = ContainerState::Running;
    core.upsert_entry(locked, at(50));
    let view = holding(idle("i-123", "small"), 1, 1, HeldPhase::Running);
    core.upsert_worker(probed(view, 50), at(50));
    drain(&mut core, at(50));
    let mut expected: Vec<String> = first.map(String::from).into();
    expected.push("2.0s for the start on i-123".into());
    expected.push("10.0s running".into());
    assert_eq!(told(&core, 60), expected);
}

#[test]
fn the_past_is_bounded_and_says_what_it_forgot() {
    let mut core = Core::new(config());
    core.upsert_entry(queued(1), at(0));
    for second in 0..100 {
        let cause = format!("cause {second}");
        core.set_limits(at_quota(&cause), at(second));
        drain(&mut core, at(second));
        let priority = with(queued(1), |c| c.priority = i64::from(second % 2 == 0) * 500);
        core.upsert_entry(priority, at(second));
        drain(&mut core, at(second));
    }
    let why = explain(&core, 1, 100);
    assert!(why.history.len() <= 17, "{}", why.history.len());
    assert!(why.history_left_out > 50, "{}", why.history_left_out);
    let last = why.history.last().unwrap();
    assert_eq!(last.to_string(), "1.0s at priority 0");
}

#[test]
fn ten_thousand_types_and_instances_are_counted_and_not_listed() {
    let mut all = config();
    all.types = (0..10_000u32)
        .map(|n| instance_type(&format!("t{n:05}"), 1 + n % 64, f64::from(n)))
        .collect();
    let mut core = Core::new(all);
    let config = config();
    for n in 0..2_000u32 {
        let mut view = WorkerView::idle(format!("i-{n}"), &config.types[0], at(0));
        view.type_name = Some(format!("t{n:05}").as_str().into());
        core.upsert_worker(view, at(0));
    }
    core.upsert_entry(with(queued(1), |c| c.request = request(500)), at(0));
    core.upsert_entry(with(queued(2), |c| c.request = request(8)), at(0));
    drain(&mut core, at(0));
    for n in [1, 2] {
        let why = explain(&core, n, 0);
        assert!(why.types.len() <= 12 && why.types.len() + why.types_left_out == 10_000);
        let shown: usize = why.instances.iter().map(|group| group.count).sum();
        assert!(why.instances.len() <= 16 && why.instances.iter().all(|g| g.examples.len() <= 3));
        assert!(n == 1 || shown + why.instances_left_out >= 2_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(how_many(600)))]

    #[test]
    fn an_explanation_says_what_the_reason_and_the_line_say(input in any_input()) {
        let mut core = Core::new(input.config.clone());
        core.set_limits(input.limits.clone(), input.now);
        for entry in &input.entries {
            core.upsert_entry(entry.clone(), input.now);
        }
        for worker in &input.workers {
            core.upsert_worker(worker.clone(), input.now);
        }
        for pending in &input.pendings {
            core.upsert_pending(pending.clone(), input.now);
        }
        drain(&mut core, input.now);
        let line: BTreeMap<ContainerUuid, usize> = core.waiting().zip(1..).collect();
        let later = input.now + Duration::from_secs(7);
        for entry in &input.entries {
            let uuid = entry.container.uuid;
            let why = core.explain(uuid, later).unwrap();
            prop_assert_eq!(Some(why.reason.clone()), core.reason(uuid, later));
            prop_assert_eq!(why.position, line.get(&uuid).copied());
            prop_assert_eq!(why.unblock.is_empty(), why.reason == Reason::NotWaiting, "{:?}", why);
            // The present is the last that is told.
            let last = why.history.last();
            prop_assert!(last.is_some_and(|spell| spell.ago == spell.lasted), "{:?}", why);
            let wire = serde_json::to_string(&why).unwrap();
            prop_assert_eq!(serde_json::from_str::<Explanation>(&wire).unwrap(), why);
        }
    }
}
