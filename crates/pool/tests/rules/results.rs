//! Reports: results that are told, kept and acknowledged, and how often a runner is asked.

use longshore_pool::*;
use longshore_types::*;

use crate::common::*;

#[test]
fn a_result_is_told_once_and_kept_until_it_is_acknowledged() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![finished(1, 1)]);
    assert_eq!(rig.view("a").unwrap().granted, Resources::NONE);
    assert_eq!(rig.state("a"), WorkerState::Idle);
    assert!(matches!(
        rig.start("a", 1, 2),
        Err(Refusal::HeldHere { .. })
    ));
    assert!(matches!(
        rig.core.give_back(&"a".into(), rig.now),
        Err(Refusal::NotEmpty { .. })
    ));
    // Not even time and a drain destroy what nobody has yet.
    rig.core
        .set_idle_behavior(&"a".into(), IdleBehavior::Drain, rig.now)
        .unwrap();
    rig.wait(seconds(300));
    assert_eq!(rig.state("a"), WorkerState::Idle);
    rig.acknowledge("a", 1, 1);
    rig.wait(seconds(1));
    let ack = rig.take(is_short);
    let EffectAction::Report(_, options) = &ack.action else {
        unreachable!()
    };
    assert_eq!(options.acks, [(uuid(1), Attempt(1))]);
    rig.outcome(&ack, report(vec![]));
    assert!(rig.phase("a", 1).is_none());
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert_eq!(rig.ended(1).len(), 1);
}

#[test]
fn of_what_vanished_no_more_reports_are_asked_for_than_of_what_ended() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    for _ in 0..3 {
        rig.report("a", vec![]);
        rig.wait(SECOND);
    }
    assert_eq!(rig.ended(1), [ExitCause::SupervisorLost]);
    // The controller does not take the result for a while.
    let next = rig.take(is_long);
    let EffectAction::Report(_, options) = &next.action else {
        unreachable!()
    };
    assert!(!options.wait.is_zero());
}

#[test]
fn an_old_report_does_not_bring_back_what_was_acknowledged() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![finished(1, 1)]);
    let old = rig.take(is_long);
    rig.acknowledge("a", 1, 1);
    rig.wait(SECOND);
    rig.answer(is_short, report(vec![]));
    assert!(rig.phase("a", 1).is_none());
    rig.outcome(&old, report(vec![finished(1, 1)]));
    assert!(rig.phase("a", 1).is_none());
    assert_eq!(rig.ended(1).len(), 1);
}

#[test]
fn an_acknowledgement_that_was_lost_is_sent_again() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![finished(1, 1)]);
    rig.acknowledge("a", 1, 1);
    rig.wait(SECOND);
    rig.answer(is_short, Outcome::Reported(Err(unreachable())));
    rig.wait(seconds(2));
    let again = rig.take(is_short);
    let EffectAction::Report(_, options) = &again.action else {
        panic!("{again:?}")
    };
    assert_eq!(options.acks, [(uuid(1), Attempt(1))]);
    rig.outcome(&again, report(vec![]));
    assert!(rig.phase("a", 1).is_none());
}

#[test]
fn a_runner_that_does_not_wait_is_asked_at_intervals() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let mut reports = 0;
    rig.pass(seconds(100), |action| {
        is_report(action).then(|| {
            reports += 1;
            report(vec![running(1, 1)])
        })
    });
    assert!(reports / 2 <= 13, "{reports}");
    // Nor does one that says something new each time make us spin.
    let mut digest = 0;
    rig.pass(seconds(100), |action| {
        is_report(action).then(|| {
            digest += 1;
            let containers = vec![running(1, 1)];
            Outcome::Reported(Ok(RunnerReport {
                containers,
                broken: None,
                digest: digest.to_string(),
            }))
        })
    });
    assert!(digest / 2 <= 60_000, "{digest}");
}

#[test]
fn a_short_report_does_not_make_the_long_one_look_as_if_nothing_had_changed() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![finished(1, 1)]);
    rig.acknowledge("a", 1, 1);
    rig.wait(SECOND);
    // The acknowledgement changes what the runner has: both commands answer with that.
    rig.answer(is_short, report(vec![]));
    rig.answer(is_long, report(vec![]));
    assert!(
        rig.find(is_long).is_some(),
        "the next one must wait at once"
    );
}

#[test]
fn what_a_hostile_worker_claims_is_bounded() {
    let mut rig = Rig::ready(config());
    rig.adopted("a");
    rig.boot("a", vec![]);
    for round in 0..6 {
        let claims = (0..2000).map(|n| running(round * 2000 + n, 1)).collect();
        rig.report("a", claims);
        rig.wait(SECOND);
    }
    assert!(rig.view("a").unwrap().containers.len() <= 4096);
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
}
