//! The rules about room: order, packing, creates, limits, reservation, giving back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use longshore_scheduler::{Action, Config, Core, Limits, Packing};
use longshore_types::*;
use support::*;

fn core(entries: &[QueueEntry], workers: &[WorkerView]) -> Core {
    let mut core = Core::new(config());
    for entry in entries {
        core.upsert_entry(entry.clone(), at(1));
    }
    for worker in workers {
        core.upsert_worker(worker.clone(), at(1));
    }
    core
}

fn sized(entry: QueueEntry, vcpus: u32) -> QueueEntry {
    with(entry, |c| c.request = request(vcpus))
}

/// No instance of any type can be created, for want of quota.
fn at_quota() -> Limits {
    let mut limits = Limits::default();
    for t in config().types {
        limits
            .create_blocked
            .insert(t.name.clone(), "quota reached".into());
        limits.quota_blocked.insert(t.name);
    }
    limits
}

fn said(core: &Core, n: u32) -> String {
    core.reason(uuid(n), at(1)).unwrap().to_string()
}

#[test]
fn order_is_locked_first_then_priority_age_and_uuid() {
    let mut entries = vec![
        with(queued(1), |c| c.created_at = Timestamp(9)),
        with(queued(2), |c| c.created_at = Timestamp(9)),
        with(queued(3), |c| c.created_at = Timestamp(8)),
        with(queued(4), |c| c.priority = 501),
        with(locked(5), |c| c.priority = 1),
        with(locked(6), |c| c.priority = 2),
    ];
    for _ in 0..entries.len() {
        entries.rotate_left(1);
        let mut core = core(&entries, &[]);
        core.set_limits(at_quota(), at(1));
        drain(&mut core, at(1));
        let order: Vec<ContainerUuid> = core.waiting().collect();
        assert_eq!(order, [6, 5, 4, 3, 1, 2].map(uuid));
        assert_eq!(core.position(uuid(6)), Some(1));
        assert_eq!(core.position(uuid(2)), Some(6));
    }
}

#[test]
fn ready_before_booting_then_fuller_then_cheaper() {
    let table: Vec<(Vec<WorkerView>, &str)> = vec![
        (vec![booting("a", "small"), idle("b", "small")], "lock 1 b"),
        (
            vec![
                idle("a", "small"),
                holding(idle("b", "small"), 9, 1, HeldPhase::Running),
            ],
            "lock 1 b",
        ),
        (vec![idle("a", "medium"), idle("b", "small")], "lock 1 b"),
        (
            vec![
                idle("a", "small"),
                holding(idle("b", "medium"), 9, 1, HeldPhase::Running),
            ],
            "lock 1 b",
        ),
        (vec![idle("b", "small"), idle("a", "small")], "lock 1 a"),
        (vec![booting("b", "small")], "lock 1"),
    ];
    for (workers, expected) in table {
        let mut config = config();
        config.maximum_price_factor = 2.0;
        let mut core = Core::new(config);
        core.upsert_entry(running(9, "b"), at(1));
        core.upsert_entry(queued(1), at(1));
        for worker in &workers {
            core.upsert_worker(worker.clone(), at(1));
        }
        assert_eq!(briefs(&mut core, at(1)), [expected], "{workers:?}");
    }
}

#[test]
fn hold_drain_shutdown_full_and_dear_instances_get_nothing() {
    let changed = |change: &dyn Fn(&mut WorkerView)| {
        let mut view = idle("a", "small");
        change(&mut view);
        view
    };
    for view in [
        changed(&|v| v.idle_behavior = IdleBehavior::Hold),
        changed(&|v| v.idle_behavior = IdleBehavior::Drain),
        changed(&|v| v.state = WorkerState::Shutdown),
        changed(&|v| v.granted = v.capacity),
        changed(&|v| v.type_name = None),
        changed(&|v| v.type_name = Some("no longer".into())),
        idle("a", "large"),
    ] {
        let mut core = core(&[queued(1)], std::slice::from_ref(&view));
        assert_eq!(briefs(&mut core, at(1)), ["create small"], "{view:?}");
    }
}

#[test]
fn containers_share_instances_and_pending_creates() {
    let entries: Vec<QueueEntry> = (1..=5).map(queued).collect();
    let mut core = core(&entries, &[idle("a", "small")]);
    // As many as the RAM of an instance allows share it.
    let actions = briefs(&mut core, at(1));
    let creates = actions.iter().filter(|a| *a == "create small").count();
    let locks = actions.iter().filter(|a| a.starts_with("lock")).count();
    let need = longshore_scheduler::type_choice::need(&request(1), &config());
    let each = usize::try_from(ByteSize::gib(4).0 / need.ram.0)
        .unwrap()
        .min(2);
    assert_eq!((creates, locks), ((5 - each).div_ceil(each), each));
    assert_eq!(
        said(&core, 5),
        "waiting for a new small instance to be created"
    );
    // The create is known: those that have their place there are locked, and wait.
    core.upsert_pending(pending(1, "small"), at(1));
    let locked: Vec<String> = briefs(&mut core, at(1));
    assert_eq!(locked.len(), each);
    assert!(locked.iter().all(|a| a.starts_with("lock")), "{locked:?}");
}

#[test]
fn a_booting_place_is_waited_for_with_the_lock_kept() {
    let mut core = core(&[locked(1)], &[booting("a", "small")]);
    let none: Vec<String> = Vec::new();
    assert_eq!(briefs(&mut core, at(1)), none);
    assert_eq!(said(&core, 1), "waiting for small instance a to boot");
    core.upsert_worker(idle("a", "small"), at(2));
    assert_eq!(briefs(&mut core, at(2)), ["place 1 a"]);
}

#[test]
fn the_next_best_type_is_created_when_the_best_is_held_off() {
    let mut config = config();
    config.maximum_price_factor = 2.0;
    let mut core = Core::new(config);
    core.upsert_entry(queued(1), at(1));
    let mut limits = Limits::default();
    limits
        .create_blocked
        .insert("small".into(), "no capacity".into());
    core.set_limits(limits, at(1));
    assert_eq!(briefs(&mut core, at(1)), ["create medium"]);
}

#[test]
fn the_first_in_line_does_not_block_what_fits() {
    let big = with(sized(queued(1), 8), |c| c.priority = 1000);
    let mut core = core(&[big, queued(2)], &[idle("a", "small")]);
    core.set_limits(at_quota(), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["lock 2 a"]);
    assert_eq!(
        said(&core, 1),
        "waiting for room on an instance of type large; no further one is created: quota reached"
    );
}

#[test]
fn a_limit_on_containers_counts_running_ones_and_says_so() {
    let workers = [
        holding(idle("a", "small"), 9, 1, HeldPhase::Running),
        idle("b", "small"),
        idle("c", "small"),
    ];
    let mut core = core(
        &[running(9, "a"), queued(1), queued(2), queued(3)],
        &workers,
    );
    let limits = Limits {
        max_containers: Some(2),
        ..Limits::default()
    };
    core.set_limits(limits, at(1));
    let actions = briefs(&mut core, at(1));
    assert_eq!(actions.len(), 1, "{actions:?}");
    assert!(actions[0].starts_with("lock 1 "));
    assert_eq!(
        said(&core, 2),
        "the limit of 2 containers at once is reached"
    );
}

#[test]
fn supervisors_take_a_fraction_and_leave_room_for_others() {
    let supervisor = |n| with(queued(n), |c| c.supervisor = true);
    let workers: Vec<WorkerView> = (0..6).map(|i| idle(&format!("w{i}"), "small")).collect();
    let entries: Vec<QueueEntry> = (1..=5)
        .map(supervisor)
        .chain([queued(6), queued(7)])
        .collect();
    let mut core = core(&entries, &workers);
    let mut limits = Limits {
        max_containers: Some(4),
        ..Limits::default()
    };
    core.set_limits(limits.clone(), at(1));
    let locks = |core: &mut Core| {
        let actions = briefs(core, at(1));
        let number = |a: &String| a.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
        actions.iter().map(number).collect::<Vec<_>>()
    };
    assert_eq!(locks(&mut core), [1, 2, 6, 7]);
    assert_eq!(
        said(&core, 3),
        "the limit of 2 supervisors at once is reached"
    );
    // Never below one more than the supervisors that run, so that others can.
    let mut core = Core::new(config());
    for n in 1..=3 {
        core.upsert_entry(
            with(running(n, &format!("w{n}")), |c| c.supervisor = true),
            at(1),
        );
    }
    core.upsert_entry(queued(4), at(1));
    core.upsert_worker(idle("a", "small"), at(1));
    limits.max_containers = Some(1);
    core.set_limits(limits, at(1));
    assert_eq!(locks(&mut core), [4]);
}

#[test]
fn at_quota_supervisors_are_limited_by_what_fits() {
    let supervisor = |n| with(queued(n), |c| c.supervisor = true);
    let workers: Vec<WorkerView> = (0..4).map(|i| idle(&format!("w{i}"), "small")).collect();
    let mut core = core(&(1..=8).map(supervisor).collect::<Vec<_>>(), &workers);
    core.set_limits(at_quota(), at(1));
    let fit = 4
        * (ByteSize::gib(4).0
            / longshore_scheduler::type_choice::need(&request(1), &config())
                .ram
                .0)
            .min(2);
    let locked = briefs(&mut core, at(1)).len();
    assert_eq!(locked as u64, fit / 2);
}

#[test]
fn after_a_while_an_instance_is_kept_free_for_the_first_in_line() {
    let config = {
        let mut config = config();
        config.maximum_price_factor = 100.0;
        config
    };
    let hold = |n| holding(idle("a", "medium"), n, 1, HeldPhase::Running);
    let big = with(sized(queued(1), 4), |c| c.priority = 900);
    let mut core = Core::new(config);
    core.set_limits(at_quota(), at(1));
    core.upsert_entry(big.clone(), at(1));
    core.upsert_entry(running(8, "a"), at(1));
    core.upsert_worker(hold(8), at(1));
    let none: Vec<String> = Vec::new();
    assert_eq!(briefs(&mut core, at(1)), none);
    let due = core.poll_timeout().unwrap();
    assert_eq!(due.at, at(1) + Duration::from_secs(300));
    // Before: small ones pass it by.
    core.upsert_entry(queued(2), at(2));
    assert_eq!(briefs(&mut core, at(2)), ["lock 2 a"]);
    core.remove_entry(uuid(2), at(3));
    assert_eq!(briefs(&mut core, due.at), none);
    // After: nothing new is placed there, and the head starts as soon as it can.
    core.upsert_entry(queued(3), due.at);
    assert_eq!(briefs(&mut core, due.at), none);
    core.upsert_entry(in_state(8, ContainerState::Complete), due.at);
    core.upsert_worker(idle("a", "medium"), due.at);
    assert_eq!(
        briefs(&mut core, due.at),
        ["lock 1 a", "forget 8"]
            .map(String::from)
            .to_vec()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    // The head has left; what was kept for it is for all again.
    core.remove_entry(uuid(1), due.at);
    assert_eq!(briefs(&mut core, due.at), ["lock 3 a"]);
}

#[test]
fn what_the_head_cannot_use_is_emptied_and_given_back() {
    let mut core = core(&[sized(with(queued(1), |c| c.priority = 900), 8)], &[]);
    core.set_limits(at_quota(), at(1));
    core.upsert_entry(running(8, "a"), at(1));
    core.upsert_worker(holding(idle("a", "small"), 8, 1, HeldPhase::Running), at(1));
    let none: Vec<String> = Vec::new();
    assert_eq!(briefs(&mut core, at(1)), none);
    let due = core.poll_timeout().unwrap().at;
    assert_eq!(briefs(&mut core, due), none);
    core.upsert_entry(queued(3), due);
    core.upsert_entry(in_state(8, ContainerState::Complete), due);
    core.upsert_worker(idle("a", "small"), due);
    assert_eq!(briefs(&mut core, due), ["forget 8", "give back a"]);
    core.remove_worker(&"a".into(), due);
    core.set_limits(Limits::default(), due);
    assert_eq!(briefs(&mut core, due)[0], "create large");
}

#[test]
fn only_a_quota_gives_back_and_only_what_nobody_in_line_can_use() {
    let large = sized(queued(1), 8);
    let workers = [idle("a", "small"), idle("b", "small")];
    let none: Vec<String> = Vec::new();
    let mut first = core(std::slice::from_ref(&large), &workers);
    first.set_limits(at_quota(), at(1));
    assert_eq!(briefs(&mut first, at(1)), ["give back a"]);
    // It uses its place in the quota up until it is gone: no other has to go for the same container.
    let state = WorkerState::Shutdown;
    let going = WorkerView {
        state,
        ..idle("a", "small")
    };
    first.upsert_worker(going, at(2));
    assert_eq!(briefs(&mut first, at(2)), none);
    first.remove_worker(&"a".into(), at(3));
    assert_eq!(
        briefs(&mut first, at(3)),
        ["give back b"],
        "it was not enough"
    );
    let mut limits = at_quota();
    limits.quota_blocked.clear();
    let mut second = core(std::slice::from_ref(&large), &workers);
    second.set_limits(limits, at(1));
    assert_eq!(briefs(&mut second, at(1)), none);
    // Somebody in line, held back for another cause, will use them.
    let mut calling = queued(2);
    calling.call_in_flight = true;
    let mut third = core(&[large, calling], &workers);
    third.set_limits(at_quota(), at(1));
    assert_eq!(briefs(&mut third, at(1)), none);
}

#[test]
fn room_promised_to_a_start_under_way_is_not_given_twice() {
    let mut core = core(&[sized(queued(1), 2)], &[idle("a", "small")]);
    assert_eq!(briefs(&mut core, at(1)), ["lock 1 a"]);
    core.upsert_entry(with(sized(queued(2), 2), |c| c.priority = 1000), at(1));
    core.set_limits(at_quota(), at(1));
    assert_eq!(briefs(&mut core, at(1)), Vec::<String>::new());
    core.upsert_entry(sized(placed(1, "a"), 2), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["start 1#1 a"]);
    core.upsert_worker(
        holding(idle("a", "small"), 1, 1, HeldPhase::Starting),
        at(1),
    );
    assert_eq!(briefs(&mut core, at(1)), Vec::<String>::new());
}

#[test]
fn room_is_needed_of_every_kind() {
    let config = config();
    let mut half = idle("a", "medium");
    half.granted.ram = ByteSize::gib(12);
    let mut hungry = queued(1);
    hungry.container.request.ram = ByteSize::gib(10);
    let mut core = Core::new(config);
    core.upsert_entry(hungry, at(1));
    core.upsert_worker(half, at(1));
    assert_eq!(briefs(&mut core, at(1)), ["create medium"]);
}

#[test]
fn what_was_planned_for_an_entry_that_changed_is_not_done() {
    let workers = [idle("a", "small"), idle("b", "small")];
    let mut core = core(&[sized(queued(1), 2), sized(queued(2), 2)], &workers);
    assert_eq!(
        core.poll_action(at(1)).as_ref().map(brief).as_deref(),
        Some("lock 1 a")
    );
    core.upsert_entry(with(sized(queued(2), 2), |c| c.priority = 0), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["forget 2"]);
}

#[test]
fn nothing_is_kept_free_for_one_that_has_its_place() {
    let mut core = core(&[queued(1)], &[]);
    core.set_limits(at_quota(), at(1));
    assert_eq!(briefs(&mut core, at(1)), Vec::<String>::new());
    assert!(core.poll_timeout().is_some());
    core.upsert_worker(idle("a", "small"), at(2));
    assert_eq!(briefs(&mut core, at(2)), ["lock 1 a"]);
    assert_eq!(core.poll_timeout(), None);
}

#[test]
fn a_call_about_what_can_not_be_started_anyway_makes_no_room_for_it() {
    // It may be on the silent one; meanwhile somebody else's call about it is under way.
    let silent = holding(booting("a", "large"), 2, 1, HeldPhase::Running);
    let mut core = Core::new(arvados());
    core.upsert_worker(silent, at(1));
    let mut calling = sized(locked(1), 8);
    calling.call_in_flight = true;
    core.upsert_entry(calling, at(1));
    assert_eq!(briefs(&mut core, at(1)), Vec::<String>::new());
    assert_eq!(core.reason(uuid(1), at(1)), Some(Reason::CallInFlight));
}

#[test]
fn what_nothing_satisfies_does_not_take_the_turn_of_the_first_in_line() {
    let mut core = core(&[queued(1)], &[]);
    core.set_limits(at_quota(), at(1));
    assert_eq!(briefs(&mut core, at(1)), Vec::<String>::new());
    let due = core.poll_timeout().unwrap();
    let huge = with(sized(queued(2), 99), |c| c.priority = 900);
    core.upsert_entry(huge, at(2));
    assert_eq!(briefs(&mut core, at(2)), ["lock 2"]);
    assert_eq!(core.poll_timeout(), Some(due));
}

/// One spot type beside the others.
fn with_spot() -> Config {
    let mut config = config();
    let mut spot = instance_type("spot", 2, 0.03);
    spot.preemptible = true;
    config.types.push(spot);
    config
}

fn preferring(entry: QueueEntry) -> QueueEntry {
    with(entry, |c| {
        c.request = request(2);
        c.request.preemptible = Preemptible::Prefer;
    })
}

#[test]
fn who_prefers_preemptible_machines_falls_back_while_they_are_held_off_and_returns() {
    let mut core = Core::new(with_spot());
    core.upsert_entry(preferring(queued(1)), at(0));
    assert_eq!(briefs(&mut core, at(0)), ["create spot"]);
    let create = Action::Create {
        type_name: "spot".into(),
    };
    core.action_failed(&create, "no capacity", at(0));
    let mut limits = Limits::default();
    let held = limits
        .create_blocked
        .insert("spot".into(), "no capacity".into());
    assert_eq!(held, None);
    core.set_limits(limits, at(0));
    assert_eq!(briefs(&mut core, at(0)), ["create small"]);
    core.upsert_pending(pending(1, "small"), at(0));
    assert_eq!(briefs(&mut core, at(0)), ["lock 1"]);
    // The hold-off is over: the next one returns to them.
    core.set_limits(Limits::default(), at(60));
    core.upsert_entry(preferring(queued(2)), at(60));
    assert_eq!(briefs(&mut core, at(60)), ["create spot"]);
}

#[test]
fn one_that_was_interrupted_too_often_runs_on_what_is_not_taken_away() {
    let spot = with_spot().types.pop().unwrap();
    let small = config().types.remove(0);
    for (taken, then) in [
        (vec![&spot], "create spot"),
        (vec![&spot, &spot], "create small"),
        // What is lost otherwise is no interruption.
        (vec![&spot, &small, &small], "create spot"),
    ] {
        let mut core = Core::new(with_spot());
        let mut attempt = 0;
        for t in &taken {
            attempt += 1;
            let id = format!("i-{attempt}");
            let mut record = preferring(running(1, &id));
            record.container.lock_count = attempt;
            core.upsert_entry(record, at(0));
            let view = WorkerView::idle(id.as_str(), t, at(0));
            core.upsert_worker(holding(view, 1, attempt, HeldPhase::Running), at(0));
            assert_eq!(briefs(&mut core, at(0)), Vec::<String>::new());
            core.remove_worker(&id.as_str().into(), at(5));
            assert!(briefs(&mut core, at(5))[0].starts_with("lost 1#"));
        }
        let mut again = preferring(queued(1));
        again.container.lock_count = attempt;
        core.upsert_entry(again, at(9));
        assert_eq!(briefs(&mut core, at(9)), [then], "{}", taken.len());
        let why = core.explain(uuid(1), at(9)).unwrap();
        assert_eq!(why.types[0].name.as_str(), &then["create ".len()..]);
    }
}

/// The instances that are kept free for somebody else, as a container is told.
fn kept(core: &Core, n: u32, seconds: u64) -> Vec<String> {
    let why = core.explain(uuid(n), at(seconds)).unwrap();
    let reserved = why
        .instances
        .iter()
        .filter_map(|group| match &group.verdict {
            InstanceVerdict::Reserved { container } => Some(format!(
                "{} for {}",
                group.examples[0],
                &container.as_str()[25..]
            )),
            _ => None,
        });
    reserved.collect()
}

#[test]
fn each_scope_has_a_reservation_of_its_own_and_half_of_the_instances_stay_free() {
    for (others, expected) in [(2, vec!["a for 01", "b for 02"]), (1, vec!["a for 01"])] {
        let mut config = config();
        config.maximum_price_factor = 1.0;
        let mut core = Core::new(config);
        core.set_limits(at_quota(), at(0));
        let busy = [
            ("a", "medium", 11),
            ("b", "large", 12),
            ("c", "small", 13),
            ("d", "small", 14),
        ];
        for (id, name, n) in busy.into_iter().take(2 + others) {
            core.upsert_entry(running(n, id), at(0));
            let view = holding(idle(id, name), n, 1, HeldPhase::Running);
            core.upsert_worker(view, at(0));
        }
        // Two lines: those of 4 vCPUs, and those of 8.
        for (n, vcpus) in [(1, 4), (2, 8), (8, 8), (9, 4)] {
            core.upsert_entry(sized(queued(n), vcpus), at(0));
        }
        drain(&mut core, at(0));
        assert_eq!(core.poll_timeout().unwrap().at, at(300));
        let told = |core: &Core, seconds| [kept(core, 9, seconds), kept(core, 8, seconds)].concat();
        drain(&mut core, at(299));
        assert_eq!(told(&core, 299), Vec::<String>::new());
        drain(&mut core, at(300));
        assert_eq!(told(&core, 300), expected, "with {others} others");
        // What ran there ends: the first of both lines have their places.
        for (id, name, n) in busy.into_iter().take(2) {
            core.remove_entry(uuid(n), at(310));
            core.upsert_worker(probed(idle(id, name), 310), at(310));
        }
        assert_eq!(briefs(&mut core, at(310)), ["lock 1 a", "lock 2 b"]);
    }
}

#[test]
fn who_waits_longest_for_one_of_the_few_reservations_is_served_first() {
    let mut config = config();
    config.maximum_price_factor = 1.0;
    let mut core = Core::new(config);
    core.set_limits(at_quota(), at(0));
    // Of three instances one is kept free at most.
    for (id, name, n) in [("a", "medium", 11), ("b", "large", 12), ("c", "small", 13)] {
        core.upsert_entry(running(n, id), at(0));
        let view = holding(idle(id, name), n, 1, HeldPhase::Running);
        core.upsert_worker(view, at(0));
    }
    for (n, vcpus) in [(1, 4), (2, 8), (8, 8), (9, 4)] {
        core.upsert_entry(sized(queued(n), vcpus), at(0));
    }
    drain(&mut core, at(0));
    core.upsert_entry(sized(queued(3), 2), at(285));
    drain(&mut core, at(285));
    drain(&mut core, at(300));
    assert_eq!(kept(&core, 9, 300), ["a for 01"]);
    core.remove_entry(uuid(11), at(580));
    core.upsert_worker(probed(idle("a", "medium"), 580), at(580));
    assert_eq!(briefs(&mut core, at(580)), ["lock 1 a"]);
    core.upsert_entry(sized(placed(1, "a"), 4), at(581));
    assert_eq!(briefs(&mut core, at(581)), ["start 1#1 a"]);
    assert_eq!(core.poll_timeout().unwrap().at, at(585));
    drain(&mut core, at(585));
    assert_eq!(kept(&core, 8, 585), ["b for 02"]);
    assert_eq!(
        core.poll_timeout().unwrap().at,
        at(881),
        "for 9, first since 581"
    );
}

#[test]
fn an_instance_on_hold_is_kept_free_for_nobody() {
    let mut core = Core::new(config());
    core.set_limits(at_quota(), at(0));
    let busy = |id: &str, n| holding(idle(id, "medium"), n, 1, HeldPhase::Running);
    for (id, n) in [("a", 11), ("b", 12)] {
        core.upsert_entry(running(n, id), at(0));
        core.upsert_worker(busy(id, n), at(0));
    }
    for n in [1, 2] {
        core.upsert_entry(sized(queued(n), 4), at(0));
    }
    drain(&mut core, at(0));
    drain(&mut core, at(300));
    assert_eq!(kept(&core, 2, 300), ["a for 01"]);
    for behavior in [IdleBehavior::Hold, IdleBehavior::Drain] {
        let held = WorkerView {
            idle_behavior: behavior,
            ..busy("a", 11)
        };
        core.upsert_worker(held, at(301));
        drain(&mut core, at(301));
        assert_eq!(kept(&core, 2, 301), ["b for 01"], "{behavior:?}");
    }
    core.check_invariants().unwrap();
}

/// Two instances of 4 vCPUs, each with a container of 1; "a" is kept free for container 1.
fn with_reservation() -> Core {
    let mut core = Core::new(config());
    core.set_limits(at_quota(), at(0));
    for (id, n) in [("a", 11), ("b", 12)] {
        core.upsert_entry(running(n, id), at(0));
        let view = holding(idle(id, "medium"), n, 1, HeldPhase::Running);
        core.upsert_worker(view, at(0));
    }
    for n in [1, 2] {
        core.upsert_entry(sized(queued(n), 4), at(0));
    }
    drain(&mut core, at(0));
    drain(&mut core, at(300));
    assert_eq!(kept(&core, 2, 300), ["a for 01"]);
    core
}

/// As at the quota, and no more containers may run than so many.
fn at_quota_and(max_containers: u32) -> Limits {
    let mut limits = at_quota();
    limits.max_containers = Some(max_containers);
    limits
}

#[test]
fn an_instance_stays_reserved_while_the_limit_on_containers_is_reached() {
    let mut core = with_reservation();
    core.set_limits(at_quota_and(2), at(305));
    drain(&mut core, at(305));
    core.set_limits(at_quota(), at(306));
    // One that would have room beside what runs there.
    core.upsert_entry(sized(queued(21), 3), at(306));
    drain(&mut core, at(306));
    assert_eq!(kept(&core, 2, 306), ["a for 01"]);
    core.check_invariants().unwrap();
}

#[test]
fn the_limit_on_containers_does_not_make_the_first_in_line_wait_anew() {
    for (left, reserved) in [(250, 300), (450, 450)] {
        let mut core = Core::new(config());
        core.set_limits(at_quota(), at(0));
        for (id, n) in [("a", 11), ("b", 12)] {
            core.upsert_entry(running(n, id), at(0));
            let view = holding(idle(id, "medium"), n, 1, HeldPhase::Running);
            core.upsert_worker(view, at(0));
        }
        for n in [1, 2] {
            core.upsert_entry(sized(queued(n), 4), at(0));
        }
        drain(&mut core, at(0));
        core.set_limits(at_quota_and(2), at(200));
        drain(&mut core, at(200));
        // Nothing is kept free as long as it is not room that lacks, and nobody is woken for that.
        assert_eq!(core.poll_timeout(), None);
        drain(&mut core, at(left - 1));
        assert_eq!(kept(&core, 2, left - 1), Vec::<String>::new());
        core.set_limits(at_quota(), at(left));
        drain(&mut core, at(left));
        drain(&mut core, at(reserved));
        assert_eq!(kept(&core, 2, reserved), ["a for 01"], "left at {left}");
    }
}

#[test]
fn an_instance_stays_reserved_for_a_head_whose_lock_is_refused() {
    let mut core = with_reservation();
    for n in [21, 22] {
        core.upsert_entry(sized(queued(n), 3), at(305));
    }
    drain(&mut core, at(305));
    core.remove_entry(uuid(11), at(310));
    core.upsert_worker(probed(idle("a", "medium"), 310), at(310));
    let lock = core.poll_action(at(310)).unwrap();
    assert_eq!(brief(&lock), "lock 1 a");
    let others = |actions: Vec<String>| actions.iter().any(|action| action.ends_with(" a"));
    assert!(!others(briefs(&mut core, at(310))));
    core.action_failed(&lock, "the store cannot be written", at(311));
    assert!(!others(briefs(&mut core, at(311))), "small ones take it");
    assert_eq!(briefs(&mut core, at(312)), ["lock 1 a"]);
    assert_eq!(kept(&core, 2, 312), ["a for 01"]);
    // Once it starts there nothing is kept for it any more.
    core.upsert_entry(sized(placed(1, "a"), 4), at(313));
    assert_eq!(briefs(&mut core, at(313)), ["start 1#1 a"]);
    assert_eq!(kept(&core, 2, 313), Vec::<String>::new());
}

#[test]
fn a_head_that_comes_to_nothing_again_and_again_keeps_nothing_from_the_others() {
    let mut core = with_reservation();
    core.remove_entry(uuid(11), at(310));
    core.upsert_worker(probed(idle("a", "medium"), 310), at(310));
    let mut tries = 0;
    let mut next = None;
    for t in 310..900 {
        while let Some(action) = core.poll_action(at(t)) {
            match brief(&action).as_str() {
                "lock 1 a" => {
                    tries += 1;
                    core.action_failed(&action, "it has no start document", at(t));
                }
                "lock 2 a" => next = Some(t),
                _ => {}
            }
        }
    }
    assert_eq!((tries, next), (4, Some(317)), "7 s: pauses of 1, 2 and 4");
    // Another one of its kind that comes after it is the first one for whom something is kept.
    core.upsert_entry(sized(queued(3), 4), at(900));
    drain(&mut core, at(900));
    drain(&mut core, at(1200));
    assert_eq!(kept(&core, 1, 1200), ["a for 03"]);
}

#[test]
fn an_instance_on_its_way_out_is_kept_free_for_nobody() {
    let mut core = with_reservation();
    let leaving = WorkerView {
        state: WorkerState::Shutdown,
        ..holding(idle("a", "medium"), 11, 1, HeldPhase::Running)
    };
    core.upsert_worker(leaving, at(301));
    drain(&mut core, at(301));
    assert_eq!(kept(&core, 2, 301), Vec::<String>::new());
    // It is given time to become another instance.
    assert_eq!(core.poll_timeout().unwrap().at, at(601));
    drain(&mut core, at(601));
    assert_eq!(kept(&core, 2, 601), ["b for 01"]);
}

#[test]
fn what_others_run_is_not_at_our_expense() {
    let mut core = Core::new(config());
    let limits = Limits {
        max_containers: Some(2),
        ..Limits::default()
    };
    core.set_limits(limits, at(0));
    for n in 1..5 {
        let theirs = with(running(n, "elsewhere"), |c| c.locked_by_us = false);
        core.upsert_entry(theirs, at(0));
        core.upsert_entry(with(locked(10 + n), |c| c.locked_by_us = false), at(0));
    }
    core.upsert_worker(idle("a", "small"), at(0));
    core.upsert_entry(queued(21), at(0));
    assert_eq!(briefs(&mut core, at(0)), ["lock 21 a"]);
    core.upsert_entry(queued(22), at(0));
    drain(&mut core, at(0));
    assert_eq!(core.waiting().count(), 2, "ours alone stand in line");
}

#[test]
fn those_that_waited_beside_one_without_room_are_told_when_it_has_room() {
    let mut core = Core::new(config());
    // What it is told of a third is that it takes all there is.
    let mut full = holding(idle("a", "small"), 3, 1, HeldPhase::Running);
    full.granted = full.capacity;
    full.containers[0].granted = full.capacity;
    core.upsert_worker(full, at(0));
    for n in [1, 2] {
        core.upsert_entry(sized(placed(n, "a"), 1), at(0));
    }
    assert_eq!(briefs(&mut core, at(0)), Vec::<String>::new());
    core.upsert_worker(probed(idle("a", "small"), 5), at(5));
    let mut started = briefs(&mut core, at(5));
    started.sort();
    assert_eq!(started, ["start 1#1 a", "start 2#1 a"]);
}

#[test]
fn packing_decides_where_it_goes_and_what_is_created() {
    let filled = |core: &mut Core| {
        // One has two containers and much room, the other has one and just enough.
        core.upsert_entry(running(11, "roomy"), at(0));
        core.upsert_entry(running(12, "roomy"), at(0));
        core.upsert_entry(running(13, "tight"), at(0));
        let roomy = holding(idle("roomy", "large"), 11, 1, HeldPhase::Running);
        core.upsert_worker(holding(roomy, 12, 1, HeldPhase::Running), at(0));
        core.upsert_worker(
            holding(idle("tight", "small"), 13, 1, HeldPhase::Running),
            at(0),
        );
        core.upsert_entry(sized(queued(1), 1), at(0));
    };
    for (packing, expected) in [
        (Packing::Fullest, "lock 1 roomy"),
        (Packing::BestFit, "lock 1 tight"),
        (Packing::CheapestShare, "lock 1 roomy"),
    ] {
        let mut config = config();
        (config.packing, config.maximum_price_factor) = (packing, 100.0);
        let mut core = Core::new(config);
        filled(&mut core);
        assert_eq!(briefs(&mut core, at(0)), [expected], "{packing:?}");
    }
    for (packing, waiting, expected) in [
        (Packing::Fullest, 4, vec!["create small"; 4]),
        (Packing::CheapestShare, 1, vec!["create small"]),
        (Packing::CheapestShare, 3, vec!["create small"; 3]),
        // Four of them share a large one, which costs less than four small ones.
        (Packing::CheapestShare, 4, vec!["create large"]),
    ] {
        let mut config = config();
        (config.packing, config.maximum_price_factor) = (packing, 100.0);
        config.types[2].price = Price::from_units(0.35).unwrap();
        let mut core = Core::new(config);
        for n in 0..waiting {
            core.upsert_entry(sized(queued(n), 2), at(0));
        }
        assert_eq!(briefs(&mut core, at(0)), expected, "{packing:?} {waiting}");
    }
}
