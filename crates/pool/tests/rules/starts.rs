//! What a start that was lost, late, refused or repeated says of where a container is.

use longshore_pool::*;
use longshore_types::*;

use crate::common::*;
use crate::end_and_forget;

#[test]
fn a_start_whose_exit_status_was_lost_binds_the_container_to_that_instance() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.idle("b");
    rig.start("a", 1, 1).unwrap();
    rig.answer(is_start, unknown_start());
    // A list that lacks it proves nothing: the command may still be on its way.
    rig.report("a", vec![]);
    rig.report("a", vec![]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Starting));
    let refusal = rig.start("b", 1, 2).unwrap_err();
    assert!(matches!(refusal, Refusal::MayRunOn { .. }), "{refusal}");
    // It is tried again there, the same attempt.
    rig.wait(seconds(2));
    let again = rig.take(is_start);
    assert!(
        matches!(&again.action, EffectAction::Start { host, attempt: Attempt(1), .. } if host.instance == "a".into())
    );
    rig.outcome(&again, unknown_start());
    // Seeing it settles it.
    rig.report("a", vec![running(1, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    rig.wait(seconds(200));
    assert!(rig.find(is_start).is_none());
    assert_eq!(rig.behavior("a"), IdleBehavior::Run);
}

#[test]
fn a_failure_of_the_second_try_says_nothing_of_the_first() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.start("a", 1, 1).unwrap();
    rig.answer(is_start, unknown_start());
    rig.wait(seconds(2));
    rig.answer(
        is_start,
        Outcome::Started(StartOutcome::NotStarted {
            error: "no route".into(),
        }),
    );
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Starting));
    assert!(!rig.has_event(|event| matches!(event, Event::NotStarted { .. })));
}

#[test]
fn a_start_that_is_settled_late_is_not_given_up_any_more() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 2);
    rig.start("a", 1, 1).unwrap();
    rig.answer(is_start, unknown_start());
    rig.wait(seconds(121));
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
    while rig.find(is_start).is_none() {
        rig.wait(seconds(1));
    }
    rig.answer(is_start, Outcome::Started(StartOutcome::Started));
    rig.report("a", vec![running(1, 1), finished(2, 1)]);
    rig.core
        .acknowledge(uuid(2), Attempt(1), &"a".into(), rig.now);
    rig.wait(seconds(1));
    rig.report("a", vec![running(1, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    assert_eq!(rig.state("a"), WorkerState::Running);
}

#[test]
fn a_refusal_says_nothing_of_the_same_start_by_an_earlier_process() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.idle("b");
    rig.start("a", 1, 1).unwrap();
    rig.core
        .sent_before(uuid(1), Attempt(1), &"a".into(), rig.now);
    let refused = StartOutcome::NotStarted {
        error: "no route".into(),
    };
    rig.answer(is_start, Outcome::Started(refused));
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Starting));
    assert!(!rig.has_event(|event| matches!(event, Event::NotStarted { .. })));
    assert!(rig.start("b", 1, 2).is_err());
    rig.report("a", vec![running(1, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
}

#[test]
fn a_start_that_stays_unsettled_ends_with_the_instance() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.start("a", 1, 1).unwrap();
    rig.pass(seconds(125), |action| is_start(action).then(unknown_start));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    rig.idle("b");
    assert!(matches!(
        rig.start("b", 1, 2),
        Err(Refusal::MayRunOn { .. })
    ));
    rig.cloud.retain(|instance| instance.id != "a".into());
    rig.pass(seconds(200), gone);
    assert!(rig.view("a").is_none());
    assert_eq!(rig.ended(1), [ExitCause::InstanceLost]);
    rig.idle("c");
    rig.start("c", 1, 2).unwrap();
}

#[test]
fn a_report_that_began_before_the_start_may_show_it_and_that_counts() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    assert!(rig.find(is_long).is_some());
    rig.start("a", 1, 1).unwrap();
    rig.report("a", vec![running(1, 1)]);
    assert!(rig.has_event(|event| matches!(event, Event::Running { .. })));
    rig.report("a", vec![finished(1, 1)]);
    assert!(matches!(rig.phase("a", 1), Some(HeldPhase::Ended(_))));
    assert_eq!(rig.ended(1), [ExitCause::Exited { code: 0 }]);
    // The reply of the start is late, and says nothing new.
    rig.answer(is_start, unknown_start());
    assert!(matches!(rig.phase("a", 1), Some(HeldPhase::Ended(_))));
    assert_eq!(
        rig.events
            .iter()
            .filter(|e| matches!(e, Event::Running { .. }))
            .count(),
        1
    );
}

#[test]
fn a_report_that_began_before_the_answer_of_a_start_does_not_say_that_nothing_was_started() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.start("a", 1, 1).unwrap();
    rig.answer(is_start, unknown_start());
    rig.wait(seconds(2));
    let again = rig.take(is_start);
    // The runner is asked, and looks before the first start takes effect there.
    let old = loop {
        let asked = rig.take(on("a", is_report));
        if asked.id > again.id {
            break asked;
        }
        let lacks = rig.fresh(vec![]);
        rig.outcome(&asked, lacks);
    };
    rig.outcome(&again, Outcome::Started(StartOutcome::KnownAttempt));
    let lacks = rig.fresh(vec![]);
    rig.outcome(&old, lacks);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Starting));
    assert!(!rig.has_event(|event| matches!(event, Event::NotStarted { .. })));
}

#[test]
fn a_runner_that_numbers_no_attempts_speaks_of_ours_where_nothing_else_was() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    let old = rig.take(on("a", is_report));
    rig.start("a", 1, 1).unwrap();
    let shown = rig.fresh(vec![running(1, 0)]);
    rig.outcome(&old, shown);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    // What comes of the start says nothing more, and it is not given up for that.
    rig.answer(is_start, unknown_start());
    rig.wait(seconds(200));
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    assert_eq!(rig.behavior("a"), IdleBehavior::Run);
}

#[test]
fn a_runner_that_numbers_no_attempts_may_speak_of_an_earlier_one() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let old = rig.take(on("a", is_report));
    rig.kill("a", 1);
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    let lacks = rig.fresh(vec![]);
    rig.answer(on("a", is_short), lacks);
    rig.acknowledge("a", 1, 1);
    rig.wait(seconds(1));
    let lacks = rig.fresh(vec![]);
    rig.answer(on("a", is_short), lacks);
    assert_eq!(rig.phase("a", 1), None);
    rig.start("a", 1, 2).unwrap();
    let shown = rig.fresh(vec![running(1, 0)]);
    rig.outcome(&old, shown);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Starting));
}

#[test]
fn a_report_that_began_before_the_start_cannot_say_that_it_is_missing() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    let old = rig.take(is_long);
    rig.run("a", 1);
    let empty = rig.fresh(vec![]);
    rig.outcome(&old, empty);
    rig.answer(is_report, report(vec![running(1, 1)]));
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    assert!(rig.ended(1).is_empty());
}

#[test]
fn one_missing_line_is_not_an_end_but_two_are() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    rig.report("a", vec![]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    rig.wait(SECOND);
    rig.report("a", vec![running(1, 1)]);
    rig.report("a", vec![]);
    assert_eq!(rig.find(on("a", is_report)), None, "there is time between");
    rig.wait(SECOND);
    assert!(
        rig.find(on("a", is_short)).is_some(),
        "the next one must not wait"
    );
    rig.report("a", vec![]);
    assert_eq!(rig.ended(1), [ExitCause::SupervisorLost]);
}

#[test]
fn what_was_taken_as_lost_and_runs_is_not_ignored() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    rig.report("a", vec![]);
    rig.wait(SECOND);
    rig.report("a", vec![]);
    assert_eq!(rig.ended(1), [ExitCause::SupervisorLost]);
    rig.report("a", vec![running(1, 1)]);
    assert_eq!(rig.alarms(), 1, "it may run elsewhere by now");
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert_eq!(rig.ended(1).len(), 1);
}

#[test]
fn a_runner_that_cannot_tell_the_attempt_takes_nothing_from_a_result() {
    let mut config = config();
    config.collect_output = true;
    let mut rig = Rig::ready(config);
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    let mut written = finished(1, 1);
    if let ReportedState::Finished(exit) = &mut written.state {
        exit.stdout_bytes = 5;
    }
    rig.report("a", vec![written.clone()]);
    // It could not read its own records for a moment.
    rig.report("a", vec![running(1, 0)]);
    rig.report("a", vec![written]);
    rig.answer(is_collect, Outcome::Collected(Ok(())));
    assert_eq!(rig.ended(1), [ExitCause::Exited { code: 0 }]);
    assert_eq!((rig.alarms(), rig.behavior("a")), (0, IdleBehavior::Run));
}

#[test]
fn a_known_attempt_is_decided_by_a_report_that_begins_after() {
    for shown in [true, false] {
        let mut rig = Rig::ready(config());
        rig.idle("a");
        let old = rig.take(is_long);
        rig.start("a", 1, 1).unwrap();
        rig.answer(is_start, Outcome::Started(StartOutcome::KnownAttempt));
        rig.outcome(&old, report(vec![]));
        assert_eq!(rig.phase("a", 1), Some(HeldPhase::Starting));
        let containers = if shown { vec![running(1, 1)] } else { vec![] };
        rig.answer(is_short, report(containers));
        assert_eq!(rig.phase("a", 1), shown.then_some(HeldPhase::Running));
        assert_eq!(
            rig.has_event(|event| matches!(event, Event::NotStarted { .. })),
            !shown
        );
    }
}

#[test]
fn a_start_that_surely_failed_frees_its_place_and_three_drain_the_worker() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    for n in 1..=3 {
        assert_eq!(rig.behavior("a"), IdleBehavior::Run);
        rig.start_with("a", n, 1, cpus(4)).unwrap();
        let error = "no such file".to_owned();
        rig.answer(
            is_start,
            Outcome::Started(StartOutcome::NotStarted { error }),
        );
        assert!(rig.phase("a", n).is_none());
    }
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert_eq!(rig.alarms(), 1);
}

fn fail_to_start(rig: &mut Rig, id: &str, n: usize) {
    rig.start(id, n, 1).unwrap();
    let error = "no such file".to_owned();
    let failed = StartOutcome::NotStarted { error };
    rig.answer(is_start, Outcome::Started(failed));
}

#[test]
fn a_worker_on_which_something_runs_is_no_black_hole() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    for n in 2..=5 {
        fail_to_start(&mut rig, "a", n);
        // Two, since the first of them was asked for before that.
        rig.report("a", vec![running(1, 1)]);
        rig.report("a", vec![running(1, 1)]);
    }
    assert_eq!(rig.behavior("a"), IdleBehavior::Run);
}

#[test]
fn what_runs_on_a_newer_worker_speaks_for_its_type() {
    let mut rig = Rig::ready(config());
    for id in ["a", "b", "c", "newer"] {
        rig.idle(id);
    }
    rig.run("newer", 1);
    rig.report("newer", vec![running(1, 1)]);
    for (n, id) in (10..).step_by(10).zip(["a", "b", "c"]) {
        (n..n + 3).for_each(|n| fail_to_start(&mut rig, id, n));
        rig.report("newer", vec![running(1, 1)]);
    }
    assert_eq!(rig.core.create_refusal(&"small".into(), rig.now), None);
}

#[test]
fn a_lock_that_was_stale_may_be_held_again() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    rig.report("a", vec![stale(1, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Stale));
    rig.report("a", vec![running(1, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
}

#[test]
fn since_when_it_runs_is_known_from_a_report() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.cloud.clear();
    rig.pass(seconds(200), gone);
    let since = rig.events.iter().find_map(|event| match event {
        Event::Ended { exit, .. } => exit.started_at,
        _ => None,
    });
    assert_eq!(since, Some(Timestamp(1)));
}

#[test]
fn a_worker_whose_runner_is_broken_drains_whatever_runs_there() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    let report = RunnerReport {
        containers: vec![running(1, 1)],
        broken: Some("no space left".into()),
        digest: "broken".into(),
    };
    rig.answer(on("a", is_report), Outcome::Reported(Ok(report)));
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
}

/// The runner says that nothing is left, and then that it runs: it is told to end once more.
#[test]
fn what_runs_after_all_is_told_again_to_end() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    rig.kill("a", 1);
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    rig.report("a", vec![running(1, 1)]);
    rig.report("a", vec![running(1, 1)]);
    rig.wait(seconds(10));
    assert!(rig.find(is_kill).is_some());
}

#[test]
fn a_start_is_refused_where_it_cannot_be_made() {
    let mut rig = Rig::ready(config());
    rig.booting("a");
    assert!(matches!(
        rig.start("a", 1, 1),
        Err(Refusal::NotReady { .. })
    ));
    assert!(matches!(
        rig.start("x", 1, 1),
        Err(Refusal::UnknownInstance { .. })
    ));
    rig.boot("a", vec![]);
    assert!(matches!(
        rig.start_with("a", 1, 1, cpus(5)),
        Err(Refusal::NoRoom { .. })
    ));
    rig.start_with("a", 1, 1, cpus(3)).unwrap();
    assert!(matches!(
        rig.start("a", 1, 1),
        Err(Refusal::HeldHere { .. })
    ));
    assert!(matches!(
        rig.start_with("a", 2, 1, cpus(2)),
        Err(Refusal::NoRoom { .. })
    ));
    rig.core
        .set_idle_behavior(&"a".into(), IdleBehavior::Hold, rig.now)
        .unwrap();
    assert!(matches!(
        rig.start("a", 2, 1),
        Err(Refusal::NotTaking { .. })
    ));
}

#[test]
fn the_answer_to_a_start_says_nothing_of_a_later_attempt() {
    for late in [
        StartOutcome::Started,
        StartOutcome::KnownAttempt,
        StartOutcome::NotStarted {
            error: "an older attempt still runs".into(),
        },
    ] {
        let mut rig = Rig::ready(config());
        rig.idle("a");
        rig.start("a", 1, 1).unwrap();
        let first = rig.take(is_start);
        end_and_forget(&mut rig, 1);
        rig.start("a", 1, 2).unwrap();
        rig.outcome(&first, Outcome::Started(late));
        // It may still be on its way, so that a report which lacks it proves nothing.
        rig.report("a", vec![]);
        rig.report("a", vec![]);
        assert_eq!(rig.phase("a", 1), Some(HeldPhase::Starting));
        rig.answer(is_start, Outcome::Started(StartOutcome::Started));
        assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    }
}

#[test]
fn a_report_of_what_is_known_to_run_says_that_the_worker_answered_and_no_more() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    let before = rig.view("a").unwrap();
    rig.changed.clear();
    rig.later(SECOND);
    // Two, since the first of them was asked for before that.
    rig.report("a", vec![running(1, 1)]);
    rig.report("a", vec![running(1, 1)]);
    let answered = Changed::Answered("a".into());
    assert_eq!(rig.changed.iter().collect::<Vec<_>>(), [&answered]);
    let after = rig.view("a").unwrap();
    assert!(after.probed_at > before.probed_at);
    let same = WorkerView {
        probed_at: before.probed_at,
        ..after
    };
    assert_eq!(same, before);
    rig.report("a", vec![]);
    assert!(rig.changed.contains(&Changed::Worker("a".into())));
}
