//! When a create is refused, for how long, and what ends that.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::time::Duration;

use common::*;
use longshore_cloud::{ErrorKind, Instance, InstanceState, Scope};
use longshore_pool::*;
use longshore_types::*;

fn refused(rig: &Rig, name: &str) -> Option<Refusal> {
    rig.core.create_refusal(&name.into(), rig.now)
}

fn is_held_off(rig: &Rig, name: &str) -> bool {
    matches!(refused(rig, name), Some(Refusal::HeldOff { .. }))
}

fn is_trial(rig: &Rig, name: &str) -> bool {
    matches!(refused(rig, name), Some(Refusal::Trial { .. }))
}

fn refuse(rig: &mut Rig, kind: ErrorKind) {
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    rig.answer(is_create, Outcome::Created(Err(failure(kind, false))));
}

/// How long creates of a type are held off from now.
fn remaining(rig: &Rig, name: &str) -> u64 {
    match refused(rig, name) {
        Some(Refusal::HeldOff { remaining, .. }) => remaining.as_secs(),
        other => panic!("not held off: {other:?}"),
    }
}

fn price(units: f64) -> Price {
    Price::from_units(units).unwrap()
}

#[test]
fn no_more_is_spent_in_an_hour_than_the_ceiling() {
    let mut config = config();
    config.types[0].price = price(1.0);
    config.types[1].price = price(4.0);
    config.max_price_per_hour = Some(price(5.0));
    let mut rig = Rig::ready(config);
    rig.idle("a");
    // A create that is under way costs as much as what it makes.
    rig.core.create(&"small".into(), rig.now).unwrap();
    let Some(refusal) = refused(&rig, "big") else {
        panic!("a third one would cost 6 in all")
    };
    let expected = Refusal::PriceCeiling {
        type_name: "big".into(),
        price: price(4.0),
        spent: price(2.0),
        ceiling: price(5.0),
    };
    assert_eq!(refusal, expected);
    assert!(refusal.is_quota(), "giving one back would help");
    for figure in ["4.000000", "2.000000", "5.000000"] {
        assert!(refusal.to_string().contains(figure), "{refusal}");
    }
    assert_eq!(rig.core.create(&"big".into(), rig.now), Err(expected));
    assert_eq!(refused(&rig, "small"), None);
    rig.drain();
    rig.changed.clear();
    let gone = failure(ErrorKind::Denied, false);
    rig.answer(is_create, Outcome::Created(Err(gone)));
    assert_eq!(refused(&rig, "big"), None, "exactly the ceiling is allowed");
    assert!(rig.changed.contains(&Changed::CreateGate));
}

#[test]
fn an_instance_costs_until_it_is_gone() {
    let mut config = config();
    config.types[0].price = price(1.0);
    config.max_price_per_hour = Some(price(1.5));
    let mut rig = Rig::ready(config);
    rig.idle("a");
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::PriceCeiling { .. })
    ));
    rig.answer(is_destroy, Outcome::Destroyed(vec![("a".into(), Ok(()))]));
    rig.cloud.clear();
    rig.wait(seconds(130));
    assert_eq!(refused(&rig, "small"), None);
}

#[test]
fn machines_of_a_type_that_is_not_configured_any_more_are_not_free() {
    let mut config = config();
    config.types[0].price = price(1.0);
    config.types[1].price = price(2.0);
    config.max_price_per_hour = Some(price(2.5));
    let mut rig = Rig::ready(config);
    assert_eq!(refused(&rig, "small"), None);
    rig.cloud.push(listed("a", "removed", "secret", "run"));
    rig.wait(seconds(61));
    let spent = price(2.0);
    assert!(
        matches!(refused(&rig, "small"), Some(Refusal::PriceCeiling { spent: s, .. }) if s == spent),
        "it counts like the dearest"
    );
}

#[test]
fn without_a_time_from_the_provider_a_rate_limit_pauses_1_s_growing_to_60() {
    let mut rig = Rig::ready(config());
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        refuse(&mut rig, ErrorKind::RateLimited { retry_after: None });
        assert_eq!(remaining(&rig, "big"), pause);
        rig.changed.clear();
        rig.wait(seconds(pause));
        assert_eq!(refused(&rig, "big"), None);
        assert!(rig.changed.contains(&Changed::CreateGate), "it wakes");
    }
}

#[test]
fn each_kind_of_error_of_a_type_has_a_pause_that_grows_by_itself() {
    let mut rig = Rig::ready(config());
    for pause in [1, 2, 4] {
        refuse(&mut rig, ErrorKind::Denied);
        assert_eq!(remaining(&rig, "small"), pause);
        assert_eq!(refused(&rig, "big"), None, "it is another type");
        rig.wait(seconds(pause));
    }
    // A bad image has failed for the first time.
    refuse(&mut rig, ErrorKind::InvalidRequest);
    assert_eq!(remaining(&rig, "small"), 1);
    rig.wait(seconds(1));
    for _ in 0..10 {
        refuse(&mut rig, ErrorKind::Denied);
        let pause = remaining(&rig, "small");
        rig.wait(seconds(pause));
    }
    refuse(&mut rig, ErrorKind::Denied);
    assert_eq!(remaining(&rig, "small"), 300, "it grows to 5 min");
    let held = rig.core.snapshot(rig.now).hold_offs;
    assert!(held.iter().any(|hold| hold.cause == "cloud words"));
}

#[test]
fn a_quota_pause_is_1_min_doubling_to_15() {
    let mut rig = Rig::ready(config());
    for pause in [60, 120, 240, 480, 900, 900] {
        refuse(&mut rig, ErrorKind::QuotaExceeded(Scope::Everything));
        assert_eq!(remaining(&rig, "small"), pause);
        rig.wait(seconds(pause));
    }
}

#[test]
fn after_a_success_a_quota_pause_begins_anew() {
    let mut rig = Rig::ready(config());
    for pause in [60, 120, 240] {
        refuse(&mut rig, ErrorKind::QuotaExceeded(Scope::Everything));
        rig.wait(seconds(pause));
    }
    rig.booting("trial");
    refuse(&mut rig, ErrorKind::QuotaExceeded(Scope::Everything));
    assert_eq!(remaining(&rig, "small"), 60);
}

/// A trial after a quota was reached, of which nobody said what came of it.
fn trial_in_doubt(config: Config) -> (Rig, Effect) {
    let mut rig = Rig::ready(config);
    refuse(&mut rig, ErrorKind::QuotaExceeded(Scope::Everything));
    rig.wait(seconds(60));
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let trial = rig.take(is_create);
    assert!(is_trial(&rig, "small"));
    (rig, trial)
}

/// The instance that a create asks for.
fn made(create: &Effect) -> Instance {
    let EffectAction::Create(request) = &create.action else {
        unreachable!()
    };
    Instance::new("a", "s1", InstanceState::Running, request.tags.clone())
}

/// How many creates may be under way at once.
fn allowed(rig: &mut Rig) -> usize {
    let small = "small".into();
    let creates = std::iter::from_fn(|| rig.core.create(&small, rig.now).ok());
    creates.take(10).count()
}

#[test]
fn a_trial_has_succeeded_once_a_listing_shows_what_it_made() {
    let (mut rig, trial) = trial_in_doubt(config());
    rig.outcome(
        &trial,
        Outcome::Created(Err(failure(ErrorKind::Other, true))),
    );
    assert!(is_trial(&rig, "small"), "it may have been made");
    rig.cloud.push(made(&trial));
    rig.wait(seconds(10));
    assert_eq!(rig.state("a"), WorkerState::Booting);
    assert_eq!(allowed(&mut rig), 2);
}

#[test]
fn a_trial_that_a_listing_shows_before_its_answer_arrives_is_one_success() {
    let (mut rig, trial) = trial_in_doubt(config());
    rig.cloud.push(made(&trial));
    rig.wait(seconds(61));
    assert_eq!(rig.state("a"), WorkerState::Booting);
    rig.outcome(&trial, Outcome::Created(Ok(Box::new(made(&trial)))));
    assert_eq!(allowed(&mut rig), 2);
}

#[test]
fn a_trial_that_nobody_answers_makes_room_for_another_after_its_grace() {
    let mut config = config();
    config.capabilities.idempotent_create = false;
    let grace = config.create_grace;
    let (mut rig, trial) = trial_in_doubt(config);
    rig.outcome(
        &trial,
        Outcome::Created(Err(failure(ErrorKind::Other, true))),
    );
    rig.wait(grace - SECOND);
    assert!(is_trial(&rig, "small"), "a listing may still show it");
    rig.wait(seconds(61));
    assert_eq!(allowed(&mut rig), 1);
}

#[test]
fn a_quota_waits_for_instances_that_use_it_up_to_go_and_for_no_others() {
    let mut config = config();
    config.consistency_grace = seconds(10);
    let mut rig = Rig::ready(config);
    rig.idle("a");
    rig.core.create(&"big".into(), rig.now).unwrap();
    rig.drain();
    let scope = Scope::Type("big".into());
    let over = failure(ErrorKind::QuotaExceeded(scope), false);
    rig.answer(is_create, Outcome::Created(Err(over)));
    refuse(&mut rig, ErrorKind::QuotaExceeded(Scope::Everything));
    assert!(is_held_off(&rig, "big") && is_held_off(&rig, "small"));

    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    rig.answer(is_destroy, Outcome::Destroyed(vec![("a".into(), Ok(()))]));
    rig.cloud.clear();
    rig.wait(seconds(30));
    assert_eq!(rig.view("a"), None);
    assert_eq!(refused(&rig, "small"), None, "there is one fewer of all");
    assert!(is_held_off(&rig, "big"), "there are not fewer of its type");
}

#[test]
fn while_a_trial_boots_no_other_instance_of_a_type_that_does_not_boot_is_made() {
    let mut rig = Rig::ready(config());
    for n in 0..3 {
        rig.booting(&format!("i-{n}"));
    }
    rig.pass(seconds(605), |action| match action {
        EffectAction::Boot(_) => Some(Outcome::Booted(Err(badly()))),
        action => gone(action),
    });
    assert!(is_held_off(&rig, "small"));
    let Some(Refusal::HeldOff { cause, .. }) = refused(&rig, "small") else {
        unreachable!()
    };
    assert!(
        cause.contains("exit code 1"),
        "the last boot error: {cause}"
    );
    rig.cloud.clear();
    rig.pass(seconds(56), gone);
    rig.booting("trial");
    assert!(is_trial(&rig, "small"), "the provider has made it, no more");
    rig.changed.clear();
    rig.boot("trial", vec![]);
    assert_eq!(refused(&rig, "small"), None);
    assert!(rig.changed.contains(&Changed::CreateGate));
}

#[test]
fn a_trial_that_is_shut_down_makes_room_for_another() {
    let mut rig = Rig::ready(config());
    for n in 0..3 {
        rig.booting(&format!("i-{n}"));
    }
    rig.pass(seconds(605), |action| match action {
        EffectAction::Boot(_) => Some(Outcome::Booted(Err(badly()))),
        action => gone(action),
    });
    rig.cloud.clear();
    rig.pass(seconds(56), gone);
    rig.booting("trial");
    rig.changed.clear();
    let trial = "trial".into();
    rig.core.shut_down(&trial, "test", rig.now).unwrap();
    rig.drain();
    assert_eq!(refused(&rig, "small"), None);
    assert!(rig.changed.contains(&Changed::CreateGate));
}

/// Makes an instance that does not boot, and waits until the time-out has given it up.
fn fail_boot(rig: &mut Rig, name: &str) {
    rig.booting(name);
    rig.pass(seconds(30), gone);
    assert_eq!(rig.state(name), WorkerState::Shutdown);
}

#[test]
fn that_an_instance_which_did_not_boot_is_gone_does_not_end_the_hold_off() {
    // Its boot probe was never even sent: it has no address.
    let mut config = config();
    config.timeout_booting = seconds(30);
    config.capabilities.consistent_listing = true;
    config.capabilities.tags_at_birth = true;
    let mut rig = Rig::ready(config);
    for n in 0..2 {
        fail_boot(&mut rig, &format!("i-{n}"));
    }
    assert_eq!(refused(&rig, "small"), None, "two may be chance");
    for (n, pause) in [60, 120, 240, 480, 960, 1800, 1800].into_iter().enumerate() {
        fail_boot(&mut rig, &format!("trial-{n}"));
        assert_eq!(remaining(&rig, "small"), pause);
        rig.cloud.clear();
        rig.pass(seconds(pause - 1), gone);
        assert_eq!(rig.core.workers().count(), 0);
        assert_eq!(remaining(&rig, "small"), 1);
        assert_eq!(refused(&rig, "big"), None, "it is another type");
        rig.wait(SECOND);
        assert_eq!(refused(&rig, "small"), None);
    }
    rig.booting("good");
    assert!(is_trial(&rig, "small"));
    rig.boot("good", vec![]);
    assert_eq!(refused(&rig, "small"), None, "a success clears");
    fail_boot(&mut rig, "once");
    assert_eq!(refused(&rig, "small"), None);
}

/// Three instances, one after the other, that are taken from us before they are ready.
fn lose_three(preemptible: bool, mut lose: impl FnMut(&mut Rig, &str)) -> Rig {
    let mut config = config();
    config.types[0].preemptible = preemptible;
    let mut rig = Rig::ready(config);
    for n in 0..3 {
        assert_eq!(refused(&rig, "small"), None);
        let name = format!("i-{n}");
        rig.booting(&name);
        lose(&mut rig, &name);
        assert!(
            rig.view(&name)
                .is_none_or(|w| w.state == WorkerState::Shutdown)
        );
    }
    rig
}

fn list_as(rig: &mut Rig, name: &str, state: InstanceState) {
    let machine = rig.cloud.iter_mut().find(|i| i.id.as_str() == name);
    machine.unwrap().state = state;
    rig.pass(seconds(61), gone);
}

#[test]
fn an_instance_that_goes_before_it_is_ready_has_not_booted() {
    for state in [InstanceState::Stopping, InstanceState::Gone] {
        let rig = lose_three(false, |rig, name| list_as(rig, name, state));
        assert!(is_held_off(&rig, "small"), "{state:?}");
        let rig = lose_three(true, |rig, name| list_as(rig, name, state));
        assert_eq!(refused(&rig, "small"), None, "it may be an interruption");
    }
    let rig = lose_three(false, |rig, _| {
        rig.cloud.clear();
        rig.pass(seconds(125), gone);
    });
    let Some(Refusal::HeldOff { cause, .. }) = refused(&rig, "small") else {
        panic!("vanished, three in a row")
    };
    assert!(cause.contains("disappeared"), "{cause}");
    let rig = lose_three(false, |rig, name| {
        rig.core.shut_down(&name.into(), "test", rig.now).unwrap();
        rig.drain();
    });
    assert_eq!(refused(&rig, "small"), None, "we did that ourselves");
}

/// An instance that does not boot, until it is to be given up.
fn unbootable() -> Rig {
    let mut config = config();
    config.console_output = true;
    let mut rig = Rig::ready(config);
    rig.booting("a");
    rig.pass(seconds(605), |action| {
        is_boot(action).then(|| Outcome::Booted(Err(badly())))
    });
    assert_eq!(rig.state("a"), WorkerState::Booting, "it is asked first");
    rig
}

fn is_console(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Console(..))
}

#[test]
fn what_an_instance_that_does_not_boot_has_printed_is_in_its_error() {
    let mut rig = unbootable();
    let asked = rig.take(is_console);
    assert!(asked.timeout <= seconds(10));
    let printed = [b"x".repeat(5000), b"\nKernel panic:\n no init\n".to_vec()].concat();
    rig.outcome(&asked, Outcome::Console(Ok(printed)));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert!(rig.find(is_destroy).is_some());
    let error = rig.view("a").unwrap().last_error.unwrap();
    assert!(error.contains("exit code 1"), "{error}");
    assert!(error.ends_with("xxx Kernel panic: no init"), "{error}");
    assert!(error.len() < 1000, "{}", error.len());
}

#[test]
fn an_instance_whose_console_nobody_can_read_goes_all_the_same() {
    let mut rig = unbootable();
    rig.answer(
        is_console,
        Outcome::Console(Err(failure(ErrorKind::Other, false))),
    );
    assert_eq!(rig.state("a"), WorkerState::Shutdown);

    // The answer never comes.
    let mut rig = unbootable();
    rig.wait(seconds(11));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert_eq!(
        rig.effects.iter().filter(|e| is_console(&e.action)).count(),
        1
    );

    // It boots while it is asked.
    let mut rig = unbootable();
    let asked = rig.take(is_console);
    rig.wait(seconds(3));
    rig.boot("a", vec![]);
    rig.outcome(&asked, Outcome::Console(Ok(b"login:".to_vec())));
    assert_eq!(rig.state("a"), WorkerState::Idle);
}

/// Three containers whose runner ends before they run.
fn swallow(rig: &mut Rig, id: &str, first: usize) {
    let cause = ExitCause::NotStarted {
        error: "no space left".into(),
    };
    let lost = |n: usize| ContainerReport {
        uuid: uuid(n),
        attempt: Attempt(1),
        state: ReportedState::Finished(Exit::unseen(cause.clone())),
    };
    for n in first..first + 3 {
        rig.start(id, n, 1).unwrap();
        rig.answer(is_start, Outcome::Started(StartOutcome::Started));
        rig.report(id, vec![lost(n)]);
        rig.acknowledge(id, n, 1);
    }
}

#[test]
fn three_different_containers_that_never_run_drain_a_worker_and_one_does_not() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.idle("b");
    let error = "no such image".to_owned();
    let cause = ExitCause::NotStarted { error };
    for attempt in 1..=4 {
        rig.start("a", 1, attempt).unwrap();
        rig.answer(is_start, Outcome::Started(StartOutcome::Started));
        let state = ReportedState::Finished(Exit::unseen(cause.clone()));
        let lost = ContainerReport {
            uuid: uuid(1),
            attempt: Attempt(attempt),
            state,
        };
        rig.report("a", vec![lost]);
        rig.acknowledge("a", 1, attempt);
        rig.report("a", vec![]);
        assert_eq!(rig.phase("a", 1), None);
    }
    assert_eq!(
        rig.behavior("a"),
        IdleBehavior::Run,
        "the container is at fault"
    );
    assert_eq!(rig.alarms(), 0);
    swallow(&mut rig, "b", 10);
    assert_eq!(rig.behavior("b"), IdleBehavior::Drain);
    assert_eq!(rig.alarms(), 1);
}

#[test]
fn supervisors_that_die_before_anything_ran_are_failures_of_the_worker() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    let mut end = |n: usize, cause: ExitCause| {
        rig.run("a", n);
        let mut entry = finished(n, 1);
        entry.state = ReportedState::Finished(Exit::unseen(cause));
        rig.report("a", vec![entry]);
        rig.acknowledge("a", n, 1);
        rig.behavior("a")
    };
    assert_eq!(end(1, ExitCause::SupervisorLost), IdleBehavior::Run);
    assert_eq!(end(2, ExitCause::SupervisorLost), IdleBehavior::Run);
    // That it was told to end before it ran says nothing of the worker.
    assert_eq!(end(3, ExitCause::Killed), IdleBehavior::Run);
    assert_eq!(end(4, ExitCause::SupervisorLost), IdleBehavior::Drain);
}

#[test]
fn three_black_holes_of_a_type_in_ten_minutes_hold_off_creating_it() {
    let mut rig = Rig::ready(config());
    for (n, id) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(refused(&rig, "small"), None);
        rig.idle(id);
        swallow(&mut rig, id, 10 * n);
    }
    let Some(Refusal::HeldOff { cause, .. }) = refused(&rig, "small") else {
        panic!("{:?}", refused(&rig, "small"))
    };
    assert!(cause.contains("no space left"), "{cause}");
    assert_eq!(remaining(&rig, "small"), 60);
    assert_eq!(refused(&rig, "big"), None);
    // The trial is one too: the next pause is longer, at once.
    rig.wait(seconds(60));
    rig.booting("d");
    assert!(is_trial(&rig, "small"));
    rig.boot("d", vec![]);
    swallow(&mut rig, "d", 40);
    assert_eq!(remaining(&rig, "small"), 120);
    // A container runs on a newer one.
    rig.wait(seconds(120));
    rig.idle("e");
    rig.run("e", 50);
    rig.report("e", vec![running(50, 1)]);
    assert_eq!(refused(&rig, "small"), None);
    assert!(rig.core.snapshot(rig.now).hold_offs.is_empty());
}

#[test]
fn black_holes_that_are_far_apart_or_old_workers_that_do_well_say_nothing() {
    let mut rig = Rig::ready(config());
    rig.idle("old");
    rig.run("old", 99);
    for (n, id) in ["a", "b"].into_iter().enumerate() {
        rig.idle(id);
        swallow(&mut rig, id, 10 * n);
    }
    rig.wait(seconds(601));
    rig.idle("c");
    swallow(&mut rig, "c", 20);
    assert_eq!(refused(&rig, "small"), None, "two of them are too long ago");
    for (n, id) in ["d", "e"].into_iter().enumerate() {
        rig.idle(id);
        swallow(&mut rig, id, 30 + 10 * n);
    }
    assert!(is_held_off(&rig, "small"));
    rig.report("old", vec![running(99, 1)]);
    assert!(is_held_off(&rig, "small"), "it is older than the trouble");
}

#[test]
fn an_instance_that_was_given_up_and_turns_up_again_is_destroyed_again() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    let again = rig.cloud[0].clone();
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    rig.answer(is_destroy, Outcome::Destroyed(vec![("a".into(), Ok(()))]));
    rig.cloud.clear();
    rig.wait(seconds(130));
    assert!(rig.view("a").is_none());
    rig.cloud.push(again);
    rig.wait(seconds(61));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert!(rig.find(is_destroy).is_some());
}

#[test]
fn a_create_that_is_repeated_waits_for_its_turn() {
    let mut config = config();
    config.max_creates_in_flight = 1;
    let mut rig = Rig::ready(config);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    rig.answer(
        is_create,
        Outcome::Created(Err(failure(ErrorKind::Other, true))),
    );
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    rig.wait(seconds(10));
    let second = rig.take(is_create);
    assert!(rig.find(is_create).is_none(), "one may be under way");
    rig.outcome(
        &second,
        Outcome::Created(Err(failure(ErrorKind::Denied, false))),
    );
    rig.wait(seconds(1));
    assert!(rig.find(is_create).is_some());
}

#[test]
fn a_create_of_which_nobody_says_what_became_of_it_fails_after_its_grace() {
    let mut config = config();
    config.capabilities.idempotent_create = true;
    let grace = config.create_grace;
    let mut rig = Rig::ready(config);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let unknown = |action: &EffectAction| {
        is_create(action).then(|| Outcome::Created(Err(failure(ErrorKind::Other, true))))
    };
    let failed = |event: &Event| matches!(event, Event::CreateFailed { .. });
    rig.pass(grace, unknown);
    assert!(!rig.has_event(failed));
    assert_eq!(refused(&rig, "small"), None);
    // It is repeated once more, and found held off then. What the last request made is looked for
    // as long as what the first one did; then a last listing shows that nothing was made.
    rig.pass(seconds(60), unknown);
    assert!(!rig.has_event(failed));
    assert_eq!(rig.core.pendings().count(), 1);
    rig.pass(grace, unknown);
    assert!(rig.has_event(failed));
    assert_eq!(rig.core.pendings().count(), 0);
}

#[test]
fn a_provider_that_says_zero_knows_no_better() {
    let mut rig = Rig::ready(config());
    let retry_after = Some(Duration::ZERO);
    refuse(&mut rig, ErrorKind::RateLimited { retry_after });
    assert!(is_held_off(&rig, "small"));
}
