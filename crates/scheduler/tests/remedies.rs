//! Each reason names what would unblock the entry: that is done, and the entry moves.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use longshore_scheduler::{Core, Input};
use longshore_types::*;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::any::any_input;
use support::*;

/// Does what the reason of an entry names, if it is for anybody outside to do.
fn apply(
    core: &mut Core,
    input: &Input,
    entry: &QueueEntry,
    reason: &Reason,
    now: Instant,
) -> bool {
    let mut record = entry.clone();
    let mut limits = input.limits.clone();
    match reason {
        Reason::PriorityZero => {
            record.container.priority = 500;
            core.upsert_entry(record, now);
        }
        Reason::NoRoom { types, .. } => {
            for (n, name) in types.iter().enumerate() {
                for m in 0..input.entries.len() {
                    core.upsert_worker(idle(&format!("more{n}-{m}"), name.as_str()), now);
                }
            }
            // What is bound to one instance waits for that one.
            if let Some(instance) = &entry.container.placed_on {
                core.remove_worker(instance, now);
            }
        }
        Reason::ContainerLimit { .. } | Reason::SupervisorLimit { .. } => {
            limits.max_containers = None;
            limits.create_blocked.clear();
            limits.quota_blocked.clear();
            core.set_limits(limits, now);
        }
        Reason::NotAccepting => {
            limits.accept_new = true;
            core.set_limits(limits, now);
        }
        Reason::MayRunOn {
            instance: Some(instance),
            ..
        }
        | Reason::Stopping { instance } => core.remove_worker(instance, now),
        Reason::MayRunOn {
            instance: None,
            unblock,
        } if unblock.contains("another dispatcher") => {
            record.container.locked_by_us = true;
            core.upsert_entry(record, now);
        }
        Reason::MayRunOn { instance: None, .. } => {
            limits.absence_is_evidence = true;
            core.set_limits(limits, now);
            for worker in &input.workers {
                core.upsert_worker(probed(worker.clone(), 1_000), now);
            }
            drain(core, now);
            record.as_of = now + Duration::from_secs(1);
            core.upsert_entry(record, now);
        }
        Reason::WaitingForBoot {
            type_name,
            instance,
            ..
        } => {
            let id = instance.as_ref().map_or("new", |id| id.as_str());
            core.upsert_worker(idle(id, type_name.as_str()), now);
            for m in 0..input.entries.len() {
                core.upsert_worker(idle(&format!("new{m}"), type_name.as_str()), now);
            }
        }
        Reason::Unsatisfiable { .. } => {
            record.container.request = request(1);
            core.upsert_entry(record, now);
        }
        // Only time: this is long after it.
        Reason::Pausing { .. } => {}
        // The controller, or what was just begun, has to answer; or nothing waits.
        Reason::CallInFlight
        | Reason::Starting { .. }
        | Reason::Ready { .. }
        | Reason::NotWaiting => return false,
    }
    true
}

/// A core that was told all of it, and has asked for all that it wants. Of what it begins, a part
/// fails at once.
fn core_of(input: &Input, failing: bool) -> Core {
    let now = input.now;
    let mut core = Core::new(input.config.clone());
    core.set_limits(input.limits.clone(), now);
    for entry in &input.entries {
        core.upsert_entry(entry.clone(), now);
    }
    for worker in &input.workers {
        core.upsert_worker(worker.clone(), now);
    }
    for pending in &input.pendings {
        core.upsert_pending(pending.clone(), now);
    }
    let actions = drain(&mut core, now);
    if failing {
        for action in actions.iter().filter(|action| action.uuid().is_some()) {
            core.action_failed(action, "refused", now);
        }
        drain(&mut core, now);
    }
    core
}

/// Does what the reason of each entry names and wants it to move. Returns the reasons met.
fn every_entry_moves(input: &Input, failing: bool) -> Result<BTreeSet<String>, TestCaseError> {
    let mut met = BTreeSet::new();
    for entry in &input.entries {
        let uuid = entry.container.uuid;
        let mut core = core_of(input, failing);
        let before = core.reason(uuid, input.now).unwrap();
        let kind = serde_json::to_value(&before).unwrap();
        met.insert(kind["reason"].as_str().unwrap().to_owned());
        let later = input.now + Duration::from_secs(10);
        if apply(&mut core, input, entry, &before, later) {
            let actions = drain(&mut core, later);
            let acted = actions.iter().any(|action| action.uuid() == Some(uuid));
            let after = core.reason(uuid, later).unwrap();
            prop_assert!(acted || after != before, "{} waits on: {:?}", uuid, before);
        }
    }
    Ok(met)
}

#[test]
fn what_a_reason_names_makes_the_entry_move() {
    let met = RefCell::new(BTreeSet::new());
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(how_many(600))
    });
    let tried = runner.run(&(any_input(), any::<bool>()), |(input, failing)| {
        met.borrow_mut().extend(every_entry_moves(&input, failing)?);
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
    // All but `ready`, which is true only until the actions are drained.
    let all = [
        "call_in_flight",
        "container_limit",
        "may_run_on",
        "no_room",
        "not_accepting",
        "not_waiting",
        "pausing",
        "priority_zero",
        "starting",
        "stopping",
        "supervisor_limit",
        "unsatisfiable",
        "waiting_for_boot",
    ];
    let met = met.into_inner();
    let missing: Vec<&str> = all
        .into_iter()
        .filter(|kind| !met.contains(*kind))
        .collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
    assert_eq!(
        met.len(),
        all.len(),
        "a reason that the list does not have: {met:?}"
    );
}
