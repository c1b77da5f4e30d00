//! Properties of plans: they do not depend on the order of news, and they are fixed points.
//!
//! `LONGSHORE_CASES` sets how many cases each property runs. What failed once is kept beside this
//! file and runs first.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_scheduler::{Action, Core, Input, Limits, plan};
use longshore_types::*;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use support::any::any_input;
use support::*;

enum News {
    Entry(QueueEntry),
    Worker(WorkerView),
    Pending(PendingView),
    Limits(Limits),
}

fn reasons(core: &Core, input: &Input) -> BTreeMap<ContainerUuid, Reason> {
    let reason = |e: &QueueEntry| {
        let uuid = e.container.uuid;
        (
            uuid,
            core.reason(uuid, input.now).expect("one for each entry"),
        )
    };
    input.entries.iter().map(reason).collect()
}

fn cases(usual: u32) -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(beside)),
        ..ProptestConfig::with_cases(how_many(usual))
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn the_order_of_news_does_not_matter(input in any_input(), order in prop::collection::vec(any::<Index>(), 32)) {
        let expected = plan(&input);
        prop_assert_eq!(expected.reasons.len(), input.entries.len());
        let mut news: Vec<News> = input.entries.iter().cloned().map(News::Entry).collect();
        news.extend(input.workers.iter().cloned().map(News::Worker));
        news.extend(input.pendings.iter().cloned().map(News::Pending));
        news.push(News::Limits(input.limits.clone()));
        let mut core = Core::new(input.config.clone());
        // An older record of each, which the newer one has to replace without a trace.
        for entry in &input.entries {
            let mut older = entry.clone();
            older.container.priority += 7;
            older.container.request = request(2);
            core.upsert_entry(older, input.now);
        }
        for index in order {
            if news.is_empty() {
                break;
            }
            match news.swap_remove(index.index(news.len())) {
                News::Entry(entry) => core.upsert_entry(entry, input.now),
                News::Worker(view) => core.upsert_worker(view, input.now),
                News::Pending(view) => core.upsert_pending(view, input.now),
                News::Limits(limits) => core.set_limits(limits, input.now),
            }
        }
        prop_assert!(news.is_empty());
        let actions = drain(&mut core, input.now);
        prop_assert_eq!(&actions, &expected.actions);
        prop_assert_eq!(reasons(&core, &input), expected.reasons);
    }

    #[test]
    fn planning_again_while_all_is_in_flight_gives_nothing(input in any_input()) {
        let mut core = Core::new(input.config.clone());
        core.set_limits(input.limits.clone(), input.now);
        for entry in &input.entries {
            core.upsert_entry(entry.clone(), input.now);
        }
        for worker in &input.workers {
            core.upsert_worker(worker.clone(), input.now);
        }
        let actions = drain(&mut core, input.now);
        // Each object gets one thing at a time.
        let mut calls = BTreeMap::new();
        for action in &actions {
            if let (Some(uuid), false) = (action.uuid(), matches!(action, Action::Kill { .. } | Action::Acknowledge { .. })) {
                *calls.entry(uuid).or_insert(0) += 1;
                prop_assert_eq!(calls[&uuid], 1, "{:?}", actions);
            }
        }
        // A new look at the same limits, at a new time, changes nothing.
        core.set_limits(Limits { accept_new: false, ..input.limits.clone() }, input.now);
        core.set_limits(input.limits.clone(), input.now);
        prop_assert_eq!(drain(&mut core, input.now), vec![]);
        for action in &actions {
            if let Some(uuid) = action.uuid()
                && let Some(entry) = input.entries.iter().find(|e| e.container.uuid == uuid)
            {
                let mut calling = entry.clone();
                calling.call_in_flight = true;
                core.upsert_entry(calling, input.now);
            }
        }
        prop_assert_eq!(drain(&mut core, input.now), vec![]);
    }
}

/// Runs a saturated installation for an hour: containers of a minute each, and a quota of two
/// instances. Returns the largest lock count.
fn an_hour_at_quota(waiting: usize, flapping: bool) -> u32 {
    let mut core = Core::new(config());
    let mut limits = Limits::default();
    let blocked = |limits: &mut Limits, blocked: bool| {
        limits.create_blocked.clear();
        if blocked {
            for t in config().types {
                limits.create_blocked.insert(t.name, "quota".into());
            }
        }
    };
    blocked(&mut limits, true);
    core.set_limits(limits.clone(), at(0));
    let mut containers: BTreeMap<ContainerUuid, Container> = BTreeMap::new();
    let mut runs: BTreeMap<InstanceId, Option<(ContainerUuid, u64)>> = [("a", None), ("b", None)]
        .map(|(id, r)| (id.into(), r))
        .into();
    let (mut next, mut most, mut done) = (0, 0, 0);
    for second in 0..3600u64 {
        let now = at(second);
        while containers.len() < 2 + waiting {
            next += 1;
            let c = with(queued(next), |c| c.request = request(2)).container;
            containers.insert(c.uuid, c.clone());
            core.upsert_entry(
                QueueEntry {
                    container: c,
                    as_of: now,
                    call_in_flight: false,
                },
                now,
            );
        }
        for (id, run) in &mut runs {
            if let Some((uuid, since)) = run
                && second >= *since + 60
            {
                containers.remove(uuid);
                core.remove_entry(*uuid, now);
                *run = None;
                done += 1;
            }
            let mut view = idle(id.as_str(), "small");
            if let Some((uuid, _)) = run {
                view.granted = view.capacity;
                view.containers.push(HeldContainer {
                    uuid: *uuid,
                    attempt: containers[uuid].attempt(),
                    phase: HeldPhase::Running,
                    granted: view.capacity,
                });
            }
            core.upsert_worker(view, now);
        }
        if flapping {
            // The quota seems to be free for a moment, again and again; every create is refused.
            blocked(&mut limits, second % 90 != 0);
            core.set_limits(limits.clone(), now);
        }
        while let Some(action) = core.poll_action(now) {
            let Some(uuid) = action.uuid() else {
                core.action_failed(&action, "quota", now);
                continue;
            };
            let Some(c) = containers.get_mut(&uuid) else {
                continue;
            };
            match &action {
                Action::Lock { .. } => {
                    c.state = ContainerState::Locked;
                    c.locked_by_us = true;
                    c.lock_count += 1;
                    most = most.max(c.lock_count);
                }
                Action::Place { instance, .. } => c.placed_on = Some(instance.clone()),
                Action::Start { instance, .. } => {
                    let run = runs.get_mut(instance).expect("it exists");
                    assert_eq!(*run, None, "two on one");
                    *run = Some((uuid, second));
                    continue;
                }
                Action::Unlock { .. } => c.state = ContainerState::Queued,
                other => panic!("{other:?}"),
            }
            let container = c.clone();
            core.upsert_entry(
                QueueEntry {
                    container,
                    as_of: now,
                    call_in_flight: false,
                },
                now,
            );
        }
    }
    assert!(done >= 2 * 55, "only {done} were done");
    most
}

#[test]
fn nobody_loses_attempts_while_a_quota_is_reached() {
    for waiting in [1, 2, 3, 20] {
        for flapping in [false, true] {
            let most = an_hour_at_quota(waiting, flapping);
            assert!(most <= 2, "{waiting} waiting: locked {most} times");
        }
    }
}

#[test]
fn the_first_in_line_starts_within_the_stated_bound() {
    // Small ones keep coming and would fill every gap; the head needs the whole instance.
    let mut core = Core::new({
        let mut config = config();
        config.maximum_price_factor = 100.0;
        config
    });
    let mut limits = Limits::default();
    for t in config().types {
        limits.create_blocked.insert(t.name, "quota".into());
    }
    core.set_limits(limits, at(0));
    let head = with(queued(1), |c| {
        c.request = request(4);
        c.priority = 1000;
    });
    core.upsert_entry(head, at(0));
    let mut on: Vec<(u32, u64)> = Vec::new();
    let mut next = 1;
    let one = longshore_scheduler::type_choice::need(&request(1), &config());
    for second in (0..1200).step_by(10) {
        let now = at(second);
        on.retain(|(_, since)| second < since + 120);
        let view = |on: &[(u32, u64)]| {
            let hold = |view, (n, _): &(u32, u64)| holding(view, *n, 0, HeldPhase::Running);
            on.iter().fold(idle("a", "medium"), hold)
        };
        core.upsert_worker(view(&on), now);
        next += 1;
        core.upsert_entry(queued(next), now);
        let actions = drain(&mut core, now);
        for action in actions {
            match action {
                Action::Lock { uuid: u, .. } if u == uuid(1) => {
                    let bound = Duration::from_secs(300 + 120 + 20);
                    assert!(now.since(at(0)) <= bound, "only after {second} s");
                    return;
                }
                Action::Lock { uuid: u, .. } => {
                    let n = u.as_str()[12..].parse().unwrap();
                    assert!(one.fits_in(&view(&on).spare()));
                    on.push((n, second));
                    core.upsert_entry(running(n, "a"), now);
                    core.upsert_worker(view(&on), now);
                }
                Action::Lost { .. } | Action::Forget { .. } | Action::Kill { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("the head never started");
}
