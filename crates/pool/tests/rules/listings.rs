//! When an instance that a listing misses is gone.

use std::sync::Arc;

use longshore_cloud::{ErrorKind, Instance, InstanceState};
use longshore_pool::*;
use longshore_types::*;

use crate::common::*;

#[test]
fn one_listing_that_misses_an_instance_proves_nothing() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.idle("b");
    rig.idle("c");
    rig.run("a", 1);
    rig.wait(seconds(61));
    let missing = rig.cloud.remove(0);
    rig.wait(seconds(61));
    assert!(rig.view("a").is_some());
    rig.cloud.push(missing);
    rig.wait(seconds(61));
    rig.cloud.pop();
    rig.wait(seconds(61));
    assert!(
        rig.view("a").is_some(),
        "a sighting between two misses begins the count anew"
    );
    rig.wait(seconds(70));
    assert!(rig.view("a").is_none());
    assert_eq!(rig.ended(1), [ExitCause::InstanceLost]);
    // Should it turn up again, it is not trusted.
    rig.cloud.push(listed("a", "small", "x", "run"));
    rig.wait(seconds(70));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
}

/// A listing that takes a minute looks at its end, when an instance is not shown for a while; the
/// next one looks at once. What began a minute apart was seen in the same second.
#[test]
fn listings_are_apart_from_the_answer_of_one_to_the_beginning_of_the_next() {
    let mut rig = Rig::ready(config());
    for id in ["a", "b", "c"] {
        rig.idle(id);
    }
    rig.run("a", 1);
    rig.wait(seconds(60));
    rig.later(seconds(60));
    assert!(rig.find(is_list).is_some());
    rig.later(seconds(61));
    rig.cloud.remove(0);
    rig.answer_list();
    rig.wait(SECOND);
    assert!(rig.view("a").is_some(), "not shown for a second");
    rig.wait(seconds(58));
    assert!(rig.view("a").is_some());
    rig.wait(SECOND);
    assert!(rig.view("a").is_none(), "not shown for a minute");
}

#[test]
fn that_another_call_found_no_instance_is_as_old_as_the_call() {
    let mut rig = Rig::ready(config());
    for id in ["a", "b", "c"] {
        rig.idle(id);
    }
    rig.run("a", 1);
    let hold = IdleBehavior::Hold;
    rig.core
        .set_idle_behavior(&"a".into(), hold, rig.now)
        .unwrap();
    rig.drain();
    rig.later(seconds(60));
    rig.cloud.remove(0);
    rig.answer_list();
    rig.later(seconds(61));
    let not_found = failure(ErrorKind::NotFound, false);
    rig.answer(
        |action| matches!(action, EffectAction::SetTags(..)),
        Outcome::TagsSet(Err(not_found)),
    );
    assert!(rig.view("a").is_some());
    rig.wait(SECOND);
    assert!(rig.view("a").is_none(), "the listing that began by now");
}

#[test]
fn a_worker_that_answers_outlives_any_listing() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.cloud.clear();
    for _ in 0..20 {
        rig.report("a", vec![running(1, 1)]);
        // The next listing begins after this answer, and is one miss; the next answer undoes it.
        rig.wait(seconds(50));
    }
    assert_eq!(rig.state("a"), WorkerState::Running);
}

#[test]
fn a_listing_that_misses_most_workers_marks_none() {
    let mut rig = Rig::ready(config());
    for id in ["a", "b", "c"] {
        rig.idle(id);
        rig.core
            .set_idle_behavior(&id.into(), IdleBehavior::Hold, rig.now)
            .unwrap();
    }
    rig.cloud.truncate(1);
    rig.wait(seconds(600));
    assert_eq!(rig.core.workers().count(), 3);
    assert_eq!(rig.alarms(), 1);
}

/// A listing misses most; the process sleeps for an hour; two more such listings. They were not
/// missed for an hour, but for seconds.
#[test]
fn a_sleep_does_not_make_a_doubtful_listing_believed() {
    let mut config = config();
    config.capabilities.consistent_listing = true;
    let mut rig = Rig::ready(config);
    for id in ["a", "b", "c"] {
        rig.idle(id);
        rig.core
            .set_idle_behavior(&id.into(), IdleBehavior::Hold, rig.now)
            .unwrap();
    }
    rig.cloud.truncate(1);
    rig.wait(seconds(61));
    assert_eq!(rig.alarms(), 1);
    rig.now = rig.now + seconds(3600);
    rig.core.handle_sleep(seconds(3600), rig.now);
    rig.wait(seconds(300));
    assert_eq!(rig.core.workers().count(), 3);
    rig.wait(seconds(500));
    assert_eq!(rig.core.workers().count(), 1, "in the end they are gone");
}

#[test]
fn a_listing_that_began_before_the_create_reply_marks_nothing() {
    let mut config = config();
    config.capabilities.consistent_listing = true;
    config.capabilities.tags_at_birth = true;
    let mut rig = Rig::new(config);
    rig.booting("a");
    rig.cloud.clear();
    rig.answer_list();
    // The next one counts, and is the first.
    rig.wait(SECOND);
    assert!(rig.view("a").is_some());
    rig.wait(SECOND);
    assert!(rig.view("a").is_none());
}

#[test]
fn destroyed_means_accepted_and_two_listings_that_begin_after() {
    let mut config = config();
    config.consistency_grace = seconds(10);
    let mut rig = Rig::ready(config);
    rig.booting("a");
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    // Missing before the destroy was accepted proves nothing.
    rig.cloud.clear();
    rig.wait(seconds(130));
    assert!(rig.view("a").is_some());
    let destroy = rig.take(is_destroy);
    rig.outcome(&destroy, Outcome::Destroyed(vec![]));
    rig.wait(seconds(11));
    let again = rig.take(is_destroy);
    rig.outcome(&again, gone(&again.action).unwrap());
    assert!(rig.view("a").is_some());
    rig.wait(seconds(12));
    assert!(rig.view("a").is_some(), "one listing is not enough");
    rig.wait(seconds(12));
    assert!(rig.view("a").is_none());
}

#[test]
fn what_no_listing_has_shown_yet_may_turn_up_after_it_was_destroyed() {
    let mut rig = Rig::ready(config());
    rig.booting("a");
    let instance = rig.cloud.pop().unwrap();
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    // Nobody there knows of it yet, which counts as done.
    rig.answer(
        is_destroy,
        gone(&EffectAction::Destroy(vec!["a".into()])).unwrap(),
    );
    rig.wait(seconds(50));
    assert!(rig.view("a").is_some());
    rig.cloud.push(instance);
    rig.wait(seconds(61));
    assert!(rig.find(is_destroy).is_some(), "it is destroyed again");
}

#[test]
fn a_destroy_is_repeated_while_the_instance_is_listed() {
    let mut rig = Rig::ready(config());
    rig.booting("a");
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    let mut destroys = 0;
    rig.pass(seconds(300), |action| {
        is_destroy(action).then(|| {
            destroys += 1;
            gone(action).unwrap()
        })
    });
    assert!((4..100).contains(&(destroys / 2)), "{destroys}");
    rig.cloud[0].state = InstanceState::Gone;
    rig.wait(seconds(61));
    assert!(rig.view("a").is_none());
}

/// Destroys are refused, by a provider that does not let us, and somebody removes the machine.
#[test]
fn what_may_not_be_destroyed_and_is_not_there_any_more_is_gone() {
    let denied = |action: &EffectAction| match action {
        EffectAction::Destroy(ids) => {
            let refused = |id: &InstanceId| (id.clone(), Err(failure(ErrorKind::Denied, false)));
            Some(Outcome::Destroyed(ids.iter().map(refused).collect()))
        }
        _ => None,
    };
    let mut rig = Rig::ready(config());
    for (n, id) in ["a", "b", "c"].into_iter().enumerate() {
        rig.idle(id);
        rig.run(id, n + 1);
    }
    rig.wait(seconds(61));
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    rig.pass(seconds(300), denied);
    assert!(rig.view("a").is_some(), "it is listed");
    rig.cloud.retain(|instance| instance.id != "a".into());
    rig.pass(seconds(30), denied);
    assert!(rig.view("a").is_some(), "one listing is not enough");
    rig.pass(seconds(270), denied);
    assert!(rig.view("a").is_none());
    assert_eq!(rig.ended(1), [ExitCause::InstanceLost]);
}

#[test]
fn what_has_no_answer_to_its_destroy_goes_alone_so_that_others_are_destroyed() {
    let mut rig = Rig::ready(config());
    for id in ["a", "b", "c"] {
        rig.booting(id);
        rig.core.shut_down(&id.into(), "test", rig.now).unwrap();
    }
    rig.drain();
    // The first calls are lost, so that all are sent again at the same time.
    while let Some(call) = rig.effects.iter().position(|e| is_destroy(&e.action)) {
        let call = rig.effects.remove(call);
        rig.outcome(&call, call.action.lost("our network is cut"));
    }
    let mut answered = Vec::new();
    // Nothing is ever heard of b, and so of any call that it is in.
    rig.pass(seconds(120), |action| match action {
        EffectAction::Destroy(ids) if ids.contains(&"b".into()) => {
            Some(action.lost("no answer in time"))
        }
        EffectAction::Destroy(ids) => {
            answered.extend(ids.iter().map(ToString::to_string));
            gone(action)
        }
        _ => None,
    });
    answered.sort();
    answered.dedup();
    assert_eq!(answered, ["a", "c"]);
}

#[test]
fn destroys_go_together() {
    let mut config = config();
    config.capabilities.destroy_batch = 2;
    let mut rig = Rig::ready(config);
    for id in ["a", "b", "c"] {
        rig.booting(id);
        rig.core.shut_down(&id.into(), "test", rig.now).unwrap();
    }
    rig.drain();
    rig.effects.clear();
    for id in ["d", "e", "f"] {
        rig.booting(id);
    }
    for id in ["d", "e", "f"] {
        rig.core.shut_down(&id.into(), "test", rig.now).unwrap();
    }
    rig.drain();
    let sizes: Vec<usize> = rig
        .effects
        .iter()
        .filter_map(|effect| match &effect.action {
            EffectAction::Destroy(ids) => Some(ids.len()),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [2, 1]);
}

#[test]
fn absence_is_evidence_after_two_listings_far_enough_apart() {
    let mut rig = Rig::new(config());
    assert!(!rig.core.absence_is_evidence());
    rig.answer_list();
    rig.wait(seconds(59));
    assert!(!rig.core.absence_is_evidence());
    rig.wait(seconds(2));
    assert!(rig.core.absence_is_evidence());
    let mut slow = Rig::new(config());
    slow.later(seconds(61));
    slow.answer_list();
    slow.wait(seconds(59));
    assert!(
        !slow.core.absence_is_evidence(),
        "the first may show what was there when it was answered"
    );
    slow.wait(seconds(2));
    assert!(slow.core.absence_is_evidence());
    let mut consistent = config();
    consistent.capabilities.consistent_listing = true;
    let mut rig = Rig::new(consistent.clone());
    rig.answer_list();
    rig.wait(seconds(59));
    assert!(
        !rig.core.absence_is_evidence(),
        "it may have no tags yet, and be listed as nobody's"
    );
    consistent.capabilities.tags_at_birth = true;
    let mut rig = Rig::new(consistent);
    rig.answer_list();
    rig.wait(seconds(1));
    assert!(rig.core.absence_is_evidence());
}

/// A listing that shares with the one before it what has not changed.
fn share(rig: &mut Rig, shown: &Arc<Instance>) {
    rig.later(seconds(61));
    let listed = Outcome::Listed(Ok(vec![Arc::clone(shown)]));
    rig.answer(is_list, listed);
}

#[test]
fn what_is_listed_as_before_is_looked_at_again_when_it_is_to_be_otherwise() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let shown = Arc::new(rig.cloud[0].clone());
    share(&mut rig, &shown);
    share(&mut rig, &shown);
    assert!(rig.find(is_tags).is_none());
    let hold = IdleBehavior::Hold;
    rig.core
        .set_idle_behavior(&"a".into(), hold, rig.now)
        .unwrap();
    rig.drain();
    rig.answer(is_tags, Outcome::TagsSet(Ok(())));
    // It does not show what was written.
    share(&mut rig, &shown);
    assert!(rig.find(is_tags).is_some());
}

#[test]
fn what_is_listed_as_it_was_a_while_ago_has_changed_since() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let one = Arc::new(rig.cloud[0].clone());
    let mut moved = rig.cloud[0].clone();
    moved.address = Some("elsewhere.example:22".into());
    for shown in [one.clone(), Arc::new(moved), one] {
        share(&mut rig, &shown);
        let host = rig.core.host(&"a".into());
        assert_eq!(host.map(|host| host.address), shown.address);
    }
}

#[test]
fn an_instance_that_is_listed_without_our_tag_is_not_ours() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let shown = Arc::new(rig.cloud[0].clone());
    share(&mut rig, &shown);
    assert!(rig.view("a").is_some());
    let mut other = rig.cloud[0].clone();
    other.tags.remove("ArvadosInstanceSetID");
    let other = Arc::new(other);
    share(&mut rig, &other);
    share(&mut rig, &other);
    assert!(rig.view("a").is_none());
}
