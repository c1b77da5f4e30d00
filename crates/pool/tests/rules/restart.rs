//! What is taken over from an earlier process.

use longshore_pool::*;
use longshore_types::*;

use crate::common::*;

#[test]
fn after_a_restart_results_are_told_again_and_what_runs_is_adopted() {
    let mut rig = Rig::new(config());
    rig.adopted("a");
    rig.boot("a", vec![finished(1, 1), running(2, 5)]);
    assert_eq!(rig.ended(1).len(), 1);
    assert_eq!(rig.phase("a", 2), Some(HeldPhase::Running));
    assert_eq!(rig.state("a"), WorkerState::Running);
    assert_eq!(rig.alarms(), 0);
    let view = rig.view("a").unwrap();
    assert_eq!(
        view.granted, view.capacity,
        "what it was granted is not known"
    );
    rig.core.grant(uuid(2), &"a".into(), cpus(1), rig.now);
    assert_eq!(rig.view("a").unwrap().granted, cpus(1));
}

#[test]
fn a_failed_boot_probe_never_ends_what_runs_on_an_adopted_worker() {
    let mut rig = Rig::new(config());
    rig.adopted("a");
    rig.pass(seconds(3000), |action| match action {
        EffectAction::Boot(_) => Some(Outcome::Booted(Err(badly()))),
        EffectAction::Deploy(..) => Some(Outcome::Deployed(Ok(()))),
        EffectAction::Report(..) => Some(report(vec![running(1, 1)])),
        _ => None,
    });
    assert_eq!(rig.state("a"), WorkerState::Unknown);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
}

#[test]
fn an_adopted_worker_on_which_nothing_runs_and_that_does_not_boot_goes() {
    let mut rig = Rig::new(config());
    rig.adopted("a");
    rig.pass(seconds(590), |action| {
        is_boot(action).then(|| Outcome::Booted(Err(unreachable())))
    });
    assert_eq!(rig.state("a"), WorkerState::Unknown);
    rig.pass(seconds(60), |action| {
        is_boot(action).then(|| Outcome::Booted(Err(unreachable())))
    });
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
}

#[test]
fn an_adopted_worker_keeps_its_behavior_and_one_of_no_type_drains() {
    let mut rig = Rig::new(config());
    rig.cloud = vec![
        listed("held", "small", "s1", "hold"),
        listed("lost", "removed", "s2", "run"),
        listed("lost-held", "removed", "s3", "hold"),
    ];
    rig.answer_list();
    assert_eq!(rig.behavior("held"), IdleBehavior::Hold);
    assert_eq!(rig.behavior("lost"), IdleBehavior::Drain);
    assert_eq!(rig.behavior("lost-held"), IdleBehavior::Hold);
    let retag = rig.take(is_tags);
    assert!(matches!(retag.action, EffectAction::SetTags(id, _) if id == "lost".into()));
    rig.boot("lost", vec![]);
    assert_eq!(rig.state("lost"), WorkerState::Shutdown);
}

#[test]
fn instances_without_our_tag_are_never_touched() {
    let mut rig = Rig::new(config());
    let mut other = listed("theirs", "small", "s", "run");
    other
        .tags
        .insert("ArvadosInstanceSetID".into(), "other".into());
    rig.cloud.push(other);
    rig.answer_list();
    rig.wait(seconds(1000));
    assert!(rig.view("theirs").is_none());
    assert!(rig.effects.is_empty());
}

#[test]
fn stale_may_still_run_and_drains_the_worker_after_a_while() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![stale(1, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Stale));
    assert_eq!(rig.behavior("a"), IdleBehavior::Run);
    rig.wait(seconds(6));
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
    // Nobody will learn how it ends, and what holds its lock may do so for ever.
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    rig.idle("b");
    assert!(matches!(
        rig.start("b", 1, 2),
        Err(Refusal::MayRunOn { .. })
    ));
}

#[test]
fn a_stale_lock_does_not_take_the_worker_from_what_else_runs_there() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.run("a", 2);
    rig.report("a", vec![stale(1, 1), running(2, 1)]);
    rig.wait(seconds(6));
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
    assert_eq!(rig.state("a"), WorkerState::Running);
    // A supervisor that answers again is one that will tell the end.
    rig.report("a", vec![running(1, 1), running(2, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    rig.report("a", vec![running(1, 1), finished(2, 1)]);
    assert_eq!(rig.state("a"), WorkerState::Running);
}

#[test]
fn a_broken_worker_drains() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let broken = RunnerReport {
        containers: vec![running(1, 1)],
        broken: Some("disk".into()),
        digest: "d".into(),
    };
    rig.answer(is_report, Outcome::Reported(Ok(broken)));
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
    assert_eq!(rig.state("a"), WorkerState::Running);
}
