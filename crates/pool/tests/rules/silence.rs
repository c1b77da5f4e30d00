//! Workers that do not answer, and when the fault is ours.

use longshore_cloud::ErrorKind;
use longshore_pool::*;
use longshore_types::*;

use crate::common::*;

#[test]
fn a_worker_is_silent_after_a_time_and_three_failures() {
    let mut config = config();
    config.timeout_probe = seconds(15);
    let mut rig = Rig::ready(config);
    rig.idle("a");
    rig.run("a", 1);
    rig.idle("b");
    rig.idle("c");
    rig.core
        .set_idle_behavior(&"b".into(), IdleBehavior::Hold, rig.now)
        .unwrap();
    rig.core
        .set_idle_behavior(&"c".into(), IdleBehavior::Hold, rig.now)
        .unwrap();
    let mut fails = 0;
    let fail_a = |fails: &mut i32, action: &EffectAction| {
        if !is_report(action) {
            return None;
        }
        if on("a", is_report)(action) {
            *fails += 1;
            return Some(Outcome::Reported(Err(unreachable())));
        }
        None
    };
    rig.pass(seconds(20), |action| fail_a(&mut fails, action));
    assert_eq!(rig.state("a"), WorkerState::Running, "{fails} failures");
    rig.pass(seconds(30), |action| fail_a(&mut fails, action));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
}

#[test]
fn when_most_workers_fail_at_once_the_fault_is_ours() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.idle("b");
    rig.run("a", 1);
    rig.run("b", 2);
    rig.pass(seconds(3000), |action| {
        is_report(action).then(|| Outcome::Reported(Err(unreachable())))
    });
    assert_eq!(rig.state("a"), WorkerState::Running);
    assert_eq!(rig.state("b"), WorkerState::Running);
    assert_eq!(rig.alarms(), 1);
}

#[test]
fn while_listing_fails_nobody_is_condemned() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.pass(seconds(3000), |action| match action {
        EffectAction::Report(..) => Some(Outcome::Reported(Err(unreachable()))),
        EffectAction::List(_) => Some(Outcome::Listed(Err(failure(ErrorKind::Other, true)))),
        _ => None,
    });
    assert_eq!(rig.state("a"), WorkerState::Running);
}

#[test]
fn a_sleep_does_not_count() {
    let mut rig = Rig::ready(config());
    rig.booting("a");
    rig.idle("b");
    rig.run("b", 1);
    rig.wait(seconds(30));
    // An hour passes in one step.
    rig.now = rig.now + seconds(3600);
    rig.core.handle_sleep(seconds(3600), rig.now);
    rig.core.handle_timeout(rig.now);
    rig.drain();
    assert_eq!(rig.state("a"), WorkerState::Booting);
    assert_eq!(rig.state("b"), WorkerState::Running);
}

#[test]
fn an_adopted_worker_that_runs_something_and_falls_silent_does_not_stay_for_ever() {
    let mut rig = Rig::new(config());
    rig.adopted("a");
    let degraded = |containers: Option<Vec<ContainerReport>>| {
        move |action: &EffectAction| match action {
            EffectAction::Boot(_) if containers.is_none() => {
                Some(Outcome::Booted(Err(unreachable())))
            }
            EffectAction::Boot(_) => Some(Outcome::Booted(Err(badly()))),
            EffectAction::Deploy(..) => Some(Outcome::Deployed(Ok(()))),
            EffectAction::Report(..) => containers.clone().map(report),
            _ => None,
        }
    };
    rig.pass(seconds(700), degraded(Some(vec![running(1, 1)])));
    assert_eq!(rig.state("a"), WorkerState::Unknown);
    rig.pass(seconds(590), degraded(None));
    assert_eq!(rig.state("a"), WorkerState::Unknown);
    rig.pass(seconds(60), degraded(None));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
}
