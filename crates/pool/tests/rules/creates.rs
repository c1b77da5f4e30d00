//! Creates whose outcome is unknown, and two machines of one create.

use longshore_cloud::ErrorKind;
use longshore_pool::*;
use longshore_types::*;

use crate::common::*;

#[test]
fn a_create_whose_outcome_is_unknown_is_repeated_with_the_same_token() {
    let mut rig = Rig::ready(config());
    let pending = rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let first = rig.take(is_create);
    rig.outcome(
        &first,
        Outcome::Created(Err(failure(ErrorKind::TimedOut, true))),
    );
    assert!(rig.core.pending(pending.id).is_some());
    rig.wait(seconds(2));
    let second = rig.take(is_create);
    assert_eq!(first.action, second.action);
    // Too many requests says nothing of the first one.
    let limited = ErrorKind::RateLimited {
        retry_after: Some(seconds(9)),
    };
    rig.outcome(&second, Outcome::Created(Err(failure(limited, false))));
    assert!(rig.core.pending(pending.id).is_some());
    rig.wait(seconds(8));
    assert!(rig.find(is_create).is_none());
    rig.wait(seconds(2));
    let third = rig.take(is_create);
    assert_eq!(first.action, third.action);
    // A refusal does not either; the listing has to tell.
    rig.outcome(
        &third,
        Outcome::Created(Err(failure(ErrorKind::Denied, false))),
    );
    assert!(rig.core.pending(pending.id).is_some());
    assert!(!rig.has_event(|event| matches!(event, Event::CreateFailed { .. })));
    rig.wait(seconds(130));
    assert!(rig.core.pending(pending.id).is_none());
    assert!(rig.has_event(|event| matches!(event, Event::CreateFailed { .. })));
}

#[test]
fn a_create_is_not_repeated_while_as_many_as_are_allowed_are_under_way() {
    let mut config = config();
    config.max_creates_in_flight = 1;
    let mut rig = Rig::ready(config);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let lost = || Outcome::Created(Err(failure(ErrorKind::TimedOut, true)));
    let first = rig.take(is_create);
    rig.outcome(&first, lost());
    // Another one goes while that one waits to be repeated.
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let other = rig.take(is_create);
    assert_ne!(first.action, other.action);
    rig.wait(seconds(5));
    assert!(rig.find(is_create).is_none());
    rig.outcome(&other, lost());
    rig.wait(seconds(2));
    assert_eq!(rig.take(is_create).action, first.action);
}

#[test]
fn without_idempotent_creates_the_listing_tells_and_it_counts_meanwhile() {
    let mut config = config();
    config.capabilities.idempotent_create = false;
    config.max_instances = 1;
    let mut rig = Rig::ready(config);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let effect = rig.take(is_create);
    rig.outcome(
        &effect,
        Outcome::Created(Err(failure(ErrorKind::TimedOut, true))),
    );
    rig.wait(seconds(60));
    assert!(rig.find(is_create).is_none(), "it is not repeated");
    assert!(matches!(
        rig.core.create(&"small".into(), rig.now),
        Err(Refusal::MaxInstances { .. })
    ));
    let EffectAction::Create(request) = &effect.action else {
        unreachable!()
    };
    let mut late = listed("late", "small", "", "run");
    late.tags.extend(request.tags.clone());
    rig.cloud.push(late);
    rig.wait(seconds(60));
    assert_eq!(rig.state("late"), WorkerState::Booting);
    assert_eq!(rig.core.pendings().count(), 0);
    assert!(!rig.has_event(|event| matches!(event, Event::CreateFailed { .. })));
}

#[test]
fn what_the_driver_can_have_is_a_limit_that_nobody_can_raise() {
    let mut config = config();
    config.capabilities.max_instances = 2;
    config.max_instances = 3;
    let mut rig = Rig::ready(config.clone());
    let refusal = |rig: &Rig| rig.core.create_refusal(&"small".into(), rig.now);
    for _ in 0..2 {
        assert_eq!(refusal(&rig), None);
        rig.core.create(&"small".into(), rig.now).unwrap();
    }
    let refused = refusal(&rig).unwrap();
    assert_eq!(refused, Refusal::DriverLimit { limit: 2 });
    assert!(refused.is_quota(), "another instance less would help");
    assert_eq!(
        refused.to_string(),
        "the driver can have only 2 instances at once"
    );
    // Who allows less is told of his own limit.
    config.max_instances = 1;
    let mut rig = Rig::ready(config);
    rig.core.create(&"small".into(), rig.now).unwrap();
    assert_eq!(refusal(&rig), Some(Refusal::MaxInstances { limit: 1 }));
}

#[test]
fn a_pending_create_and_the_machine_that_a_listing_shows_are_one() {
    // The listing comes before the reply, after it, or began before and comes after.
    for order in 0..3 {
        let mut rig = Rig::ready(config());
        rig.core.create(&"small".into(), rig.now).unwrap();
        rig.drain();
        let effect = rig.take(is_create);
        let EffectAction::Create(request) = &effect.action else {
            unreachable!()
        };
        let mut made = listed("a", "small", "", "run");
        made.tags.extend(request.tags.clone());
        let reply = Outcome::Created(Ok(Box::new(made.clone())));
        rig.now = rig.now + seconds(61);
        match order {
            0 => {
                rig.cloud.push(made);
                rig.wait(SECOND);
                assert_eq!(rig.state("a"), WorkerState::Booting);
                assert_eq!(rig.core.pendings().count(), 0);
                rig.outcome(&effect, reply);
            }
            1 => {
                rig.outcome(&effect, reply);
                rig.cloud.push(made);
                rig.wait(SECOND);
            }
            _ => {
                rig.core.handle_timeout(rig.now);
                rig.drain();
                let list = rig.take(is_list);
                rig.outcome(&effect, reply);
                rig.outcome(&list, Outcome::listed([made]));
            }
        }
        assert_eq!(rig.core.workers().count(), 1);
        assert_eq!(rig.state("a"), WorkerState::Booting);
        assert_eq!(rig.core.pendings().count(), 0);
    }
}

#[test]
fn of_two_machines_with_one_secret_the_one_with_work_stays() {
    for work in ["a", "b"] {
        let mut rig = Rig::new(config());
        rig.cloud = vec![
            listed("a", "small", "same", "run"),
            listed("b", "small", "same", "run"),
        ];
        rig.answer_list();
        rig.boot(
            "b",
            if work == "b" {
                vec![running(1, 1)]
            } else {
                vec![]
            },
        );
        assert_eq!(
            rig.core
                .workers()
                .filter(|w| w.state == WorkerState::Shutdown)
                .count(),
            0
        );
        rig.boot(
            "a",
            if work == "a" {
                vec![running(1, 1)]
            } else {
                vec![]
            },
        );
        assert_eq!(rig.state(work), WorkerState::Running);
        let other = if work == "a" { "b" } else { "a" };
        assert_eq!(rig.state(other), WorkerState::Shutdown);
    }
}

#[test]
fn a_machine_with_the_secret_of_another_is_told_of_once_and_stays_while_it_is_held() {
    let mut rig = Rig::new(config());
    rig.cloud = vec![
        listed("a", "small", "same", "run"),
        listed("b", "small", "same", "hold"),
    ];
    rig.answer_list();
    rig.boot("a", vec![]);
    rig.boot("b", vec![]);
    rig.pass(seconds(300), |action| {
        is_report(action).then(|| report(vec![]))
    });
    assert_eq!(rig.state("b"), WorkerState::Idle);
    assert_eq!(rig.alarms(), 1);
    let run = IdleBehavior::Run;
    rig.core
        .set_idle_behavior(&"b".into(), run, rig.now)
        .unwrap();
    rig.wait(seconds(61));
    assert_eq!(rig.state("b"), WorkerState::Shutdown);
}

#[test]
fn an_id_that_is_used_again_for_a_new_machine_is_a_new_worker() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    rig.cloud.clear();
    rig.booting("a");
    assert_eq!(rig.state("a"), WorkerState::Booting);
    assert_eq!(rig.ended(1), [ExitCause::InstanceLost]);
    rig.wait(seconds(61));
    assert_eq!(rig.state("a"), WorkerState::Booting);
}

#[test]
fn the_secret_and_the_tags_go_with_the_request() {
    let mut config = config();
    config
        .resource_tags
        .insert("ArvadosInstanceSetID".into(), "not ours".into());
    config.init_command = "mount /scratch".into();
    let mut rig = Rig::ready(config);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let effect = rig.take(is_create);
    let EffectAction::Create(request) = effect.action else {
        unreachable!()
    };
    let secret = &request.tags["ArvadosInstanceSecret"];
    assert_eq!(secret.len(), 40);
    assert_ne!(*secret, request.token);
    assert_eq!(request.tags["ArvadosInstanceSetID"], "set");
    assert_eq!(request.tags["ArvadosIdleBehavior"], "run");
    assert!(request.init_script.contains(secret.as_str()));
    assert!(request.init_script.ends_with("\nmount /scratch\n"));
}
