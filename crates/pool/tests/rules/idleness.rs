//! What goes because nothing needs it, and what an idle or stopped pool does.

use longshore_cloud::ErrorKind;
use longshore_pool::*;
use longshore_types::*;

use crate::common::*;

#[test]
fn an_idle_worker_goes_after_its_time_and_a_held_one_never() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.idle("b");
    rig.core
        .set_idle_behavior(&"b".into(), IdleBehavior::Hold, rig.now)
        .unwrap();
    rig.wait(seconds(59));
    assert_eq!(rig.state("a"), WorkerState::Idle);
    rig.wait(seconds(2));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    rig.wait(seconds(10_000));
    assert_eq!(rig.state("b"), WorkerState::Idle);
}

#[test]
fn the_behavior_is_written_to_a_tag_until_that_succeeds() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.core
        .set_idle_behavior(&"a".into(), IdleBehavior::Hold, rig.now)
        .unwrap();
    rig.drain();
    let mut tries = 0;
    rig.pass(seconds(120), |action| {
        is_tags(action).then(|| {
            tries += 1;
            Outcome::TagsSet(Err(failure(ErrorKind::Other, true)))
        })
    });
    assert!((3..12).contains(&(tries / 2)), "{tries}");
    rig.pass(seconds(300), |action| {
        is_tags(action).then_some(Outcome::TagsSet(Ok(())))
    });
    rig.cloud[0]
        .tags
        .insert("ArvadosIdleBehavior".into(), "hold".into());
    rig.wait(seconds(300));
    assert!(rig.find(is_tags).is_none());
    // Somebody changes it: it is written again.
    rig.cloud[0]
        .tags
        .insert("ArvadosIdleBehavior".into(), "run".into());
    rig.wait(seconds(61));
    assert!(rig.find(is_tags).is_some());
}

#[test]
fn after_stop_nothing_begins_and_what_is_under_way_settles() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.core.stop(rig.now);
    rig.drain();
    assert!(rig.core.poll_timeout().is_none());
    assert!(matches!(rig.start("a", 2, 1), Err(Refusal::Stopping)));
    assert!(matches!(
        rig.core.create(&"small".into(), rig.now),
        Err(Refusal::Stopping)
    ));
    assert!(!rig.core.is_settled());
    let refused = failure(ErrorKind::Denied, false);
    rig.answer(is_create, Outcome::Created(Err(refused)));
    assert!(
        rig.core.is_settled(),
        "a report that waits for a change is not waited for"
    );
    rig.report("a", vec![finished(1, 1)]);
    assert_eq!(rig.ended(1).len(), 1, "what is learned is still told");
    assert!(rig.core.is_settled());
    assert!(rig.effects.is_empty());
}

#[test]
fn an_idle_pool_does_next_to_nothing() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.core
        .set_idle_behavior(&"a".into(), IdleBehavior::Hold, rig.now)
        .unwrap();
    rig.cloud[0]
        .tags
        .insert("ArvadosIdleBehavior".into(), "hold".into());
    rig.drain();
    let mut effects = 0;
    for _ in 0..60 {
        rig.wait(seconds(10));
        effects += rig.effects.len();
        assert_eq!(
            rig.effects.iter().filter(|e| is_report(&e.action)).count(),
            1
        );
        rig.effects.retain(|effect| is_report(&effect.action));
        rig.report("a", vec![]);
    }
    assert!(effects <= 140, "{effects}");
}

#[test]
fn a_worker_whose_container_is_being_locked_is_not_idle() {
    let mut config = config();
    config.timeout_idle = seconds(5);
    let mut rig = Rig::ready(config);
    for id in ["kept", "free", "broken", "lapsed"] {
        rig.idle(id);
    }
    let until = rig.now + seconds(30);
    for (id, n) in [("kept", 1), ("broken", 2), ("lapsed", 3)] {
        rig.core.promise(&id.into(), uuid(n), until, rig.now);
    }
    rig.wait(seconds(10));
    let state = |rig: &Rig, id| rig.view(id).map(|view| view.state);
    assert_ne!(state(&rig, "free"), Some(WorkerState::Idle));
    for id in ["kept", "broken", "lapsed"] {
        assert_eq!(state(&rig, id), Some(WorkerState::Idle), "{id}");
    }
    rig.core.break_promise(&"broken".into(), uuid(2), rig.now);
    rig.wait(seconds(1));
    assert_ne!(state(&rig, "broken"), Some(WorkerState::Idle));
    rig.start("kept", 1, 1).unwrap();
    rig.wait(seconds(30));
    assert_eq!(state(&rig, "kept"), Some(WorkerState::Running));
    assert_ne!(state(&rig, "lapsed"), Some(WorkerState::Idle));
}
