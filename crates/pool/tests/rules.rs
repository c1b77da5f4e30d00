//! Each rule of the pool that is there because a sequence of events breaks any weaker one, as that
//! sequence.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::*;
use longshore_cloud::{ErrorKind, InstanceState, Scope};
use longshore_pool::*;
use longshore_types::*;

// Starts.

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
    rig.report("a", vec![running(1, 1)]);
    rig.report("a", vec![]);
    assert!(
        rig.find(on("a", is_short)).is_some(),
        "the next one must not wait"
    );
    rig.report("a", vec![]);
    assert_eq!(rig.ended(1), [ExitCause::SupervisorLost]);
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

// Kills.

#[test]
fn gone_counts_only_once_the_start_is_settled() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.start("a", 1, 1).unwrap();
    rig.kill("a", 1);
    // The kill overtook the start: nothing is there yet, but it may come.
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    rig.report("a", vec![]);
    rig.report("a", vec![]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    rig.answer(is_start, Outcome::Started(StartOutcome::Started));
    rig.report("a", vec![running(1, 1)]);
    // Settled: another signal is sent at once, and its answer counts.
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    rig.answer(is_short, report(vec![finished(1, 1)]));
    assert_eq!(rig.ended(1).len(), 1);
}

#[test]
fn an_unknown_start_that_is_killed_is_settled_by_trying_again() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.start("a", 1, 1).unwrap();
    rig.answer(is_start, unknown_start());
    rig.kill("a", 1);
    rig.wait(seconds(4));
    assert!(
        rig.find(is_start).is_none(),
        "what is to be killed is not started again"
    );
    // The runner left a mark; now trying again does no harm and tells.
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    rig.answer(is_start, Outcome::Started(StartOutcome::KnownAttempt));
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    while rig.find(is_short).is_some() {
        rig.answer(is_short, report(vec![]));
    }
    assert!(rig.has_event(|event| matches!(event, Event::NeverRan { .. })));
    assert!(rig.phase("a", 1).is_none());
    assert_eq!(rig.behavior("a"), IdleBehavior::Run);
}

#[test]
fn a_lost_exit_status_of_a_kill_is_not_an_end() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![running(1, 1)]);
    rig.kill("a", 1);
    rig.answer(
        is_kill,
        Outcome::Killed(KillOutcome::Unknown {
            error: "lost".into(),
        }),
    );
    rig.report("a", vec![running(1, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    rig.wait(seconds(6));
    let again = rig.take(is_kill);
    assert!(matches!(
        again.action,
        EffectAction::Kill { signal: 15, .. }
    ));
}

#[test]
fn a_report_that_began_before_the_kill_does_not_settle_it() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let old = rig.take(is_long);
    rig.kill("a", 1);
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    rig.outcome(&old, report(vec![]));
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    rig.answer(is_short, report(vec![finished(1, 1)]));
    assert_eq!(rig.ended(1).len(), 1);
}

#[test]
fn a_kill_is_given_up_and_never_sends_anything_but_term() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.kill("a", 1);
    let mut signals = Vec::new();
    rig.pass(seconds(119), |action| match action {
        EffectAction::Kill { signal, .. } => {
            signals.push(*signal);
            Some(Outcome::Killed(KillOutcome::StillRuns))
        }
        _ => None,
    });
    // `pass` looks at each effect twice.
    assert!(
        signals.len() / 2 >= 20 && signals.iter().all(|signal| *signal == 15),
        "{signals:?}"
    );
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    let error = rig.view("a").unwrap().last_error.unwrap();
    assert_eq!(error, format!("a kill of {}: it still runs", uuid(1)));
    rig.wait(seconds(2));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert_eq!(rig.alarms(), 1);
    rig.cloud.clear();
    rig.pass(seconds(200), gone);
    assert_eq!(rig.ended(1), [ExitCause::Killed]);
}

#[test]
fn an_attempt_of_an_earlier_process_can_be_killed_unseen() {
    let mut rig = Rig::ready(config());
    rig.adopted("a");
    rig.boot("a", vec![]);
    rig.core
        .kill_attempt(uuid(1), Attempt(3), &"a".into(), "test", rig.now)
        .unwrap();
    rig.drain();
    let kill = rig.take(is_kill);
    // A report before the mark is there decides nothing.
    rig.report("a", vec![]);
    rig.report("a", vec![]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    rig.outcome(&kill, Outcome::Killed(KillOutcome::Gone));
    rig.answer(is_short, report(vec![]));
    assert!(rig.has_event(|event| matches!(
        event,
        Event::NeverRan {
            attempt: Attempt(3),
            ..
        }
    )));
    assert!(rig.phase("a", 1).is_none());
}

/// An adopted worker with an attempt that is being withdrawn, and the command that does it.
fn withdrawing() -> (Rig, Effect) {
    let mut rig = Rig::ready(config());
    rig.adopted("a");
    rig.boot("a", vec![]);
    rig.core
        .withdraw(uuid(1), Attempt(3), &"a".into(), "test", rig.now)
        .unwrap();
    rig.drain();
    let command = rig.take(is_kill);
    assert!(matches!(
        command.action,
        EffectAction::Kill { signal: 0, .. }
    ));
    (rig, command)
}

#[test]
fn an_attempt_that_was_not_started_is_withdrawn_once_a_later_report_lacks_it() {
    let (mut rig, command) = withdrawing();
    rig.report("a", vec![]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Starting));
    assert!(rig.start("a", 2, 1).is_err(), "it may need all of the room");
    rig.outcome(&command, Outcome::Killed(KillOutcome::Gone));
    rig.answer(is_short, report(vec![]));
    assert!(rig.has_event(|event| matches!(event, Event::NeverRan { .. })));
    rig.start("a", 2, 1).unwrap();
}

#[test]
fn what_could_not_be_withdrawn_in_time_is_once_its_worker_answers_again() {
    let mut rig = Rig::ready(config());
    rig.adopted("a");
    rig.boot("a", vec![running(2, 1)]);
    rig.core
        .withdraw(uuid(1), Attempt(3), &"a".into(), "test", rig.now)
        .unwrap();
    rig.drain();
    let answer = |rig: &mut Rig, span, kill: fn() -> Outcome| {
        rig.pass(span, |action| match action {
            EffectAction::Kill { .. } => Some(kill()),
            EffectAction::Report(..) => Some(report(vec![running(2, 1)])),
            EffectAction::Deploy(..) => Some(Outcome::Deployed(Ok(()))),
            _ => None,
        });
    };
    answer(&mut rig, seconds(180), unknown_kill);
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain, "it was given up");
    answer(&mut rig, seconds(180), || {
        Outcome::Killed(KillOutcome::Gone)
    });
    assert!(rig.has_event(|event| matches!(event, Event::NeverRan { .. })));
    assert!(rig.phase("a", 1).is_none());
}

#[test]
fn an_attempt_that_started_before_it_was_withdrawn_goes_on() {
    let (mut rig, command) = withdrawing();
    rig.outcome(&command, Outcome::Killed(KillOutcome::StillRuns));
    rig.answer(is_short, report(vec![running(1, 3)]));
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    rig.pass(seconds(300), |action| {
        assert!(!is_kill(action), "{action:?}");
        None
    });
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
}

#[test]
fn an_attempt_that_is_being_withdrawn_can_be_killed() {
    let (mut rig, command) = withdrawing();
    rig.kill("a", 1);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    rig.outcome(&command, Outcome::Killed(KillOutcome::StillRuns));
    rig.report("a", vec![running(1, 3)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    rig.wait(seconds(6));
    let again = rig.take(is_kill);
    assert!(matches!(
        again.action,
        EffectAction::Kill { signal: 15, .. }
    ));
}

// Results.

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

// Restart.

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

// Listings.

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
    let mut rig = Rig::ready(config());
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

// Creates.

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
                rig.outcome(&list, Outcome::Listed(Ok(vec![made])));
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

// Hold-offs.

fn refuse(rig: &mut Rig, kind: ErrorKind) {
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    rig.answer(is_create, Outcome::Created(Err(failure(kind, false))));
}

fn refused(rig: &Rig, name: &str) -> Option<Refusal> {
    rig.core.create_refusal(&name.into(), rig.now)
}

#[test]
fn a_lack_of_capacity_holds_off_exactly_its_scope() {
    let mut config = config();
    let mut spot = instance_type("spot", 4);
    spot.preemptible = true;
    config.types.push(spot);
    config.quota_groups = [("small", "standard"), ("spot", "standard"), ("big", "gpu")]
        .map(|(name, group)| (name.into(), group.to_owned()))
        .into();
    for (scope, held) in [
        (Scope::Everything, vec!["small", "big", "spot"]),
        (Scope::Type("small".into()), vec!["small"]),
        (Scope::Market(Market::OnDemand), vec!["small", "big"]),
        (
            Scope::QuotaGroup("standard".into(), Market::OnDemand),
            vec!["small"],
        ),
        (
            Scope::QuotaGroup("standard".into(), Market::Preemptible),
            vec!["spot"],
        ),
        (Scope::Zone("z".into()), vec!["small"]),
    ] {
        let mut rig = Rig::ready(config.clone());
        refuse(&mut rig, ErrorKind::NoCapacity(scope.clone()));
        for name in ["small", "big", "spot"] {
            assert_eq!(
                refused(&rig, name).is_some(),
                held.contains(&name),
                "{scope} {name}"
            );
        }
        rig.changed.clear();
        rig.wait(seconds(60));
        assert!(refused(&rig, "small").is_none(), "{scope}");
        assert!(rig.changed.contains(&Changed::CreateGate));
    }
}

#[test]
fn a_shorter_hold_off_never_shortens_a_longer_one() {
    let mut rig = Rig::ready(config());
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    for pause in [100, 5] {
        let kind = ErrorKind::RateLimited {
            retry_after: Some(seconds(pause)),
        };
        rig.answer(is_create, Outcome::Created(Err(failure(kind, false))));
    }
    rig.wait(seconds(99));
    assert!(matches!(
        refused(&rig, "big"),
        Some(Refusal::HeldOff { .. })
    ));
    rig.wait(seconds(2));
    assert!(refused(&rig, "big").is_none());
}

#[test]
fn after_a_quota_one_create_tries_and_successes_double_what_may_follow() {
    let mut rig = Rig::ready(config());
    refuse(&mut rig, ErrorKind::QuotaExceeded(Scope::Everything));
    assert!(matches!(
        refused(&rig, "big"),
        Some(Refusal::HeldOff { .. })
    ));
    rig.wait(seconds(61));
    rig.core.create(&"small".into(), rig.now).unwrap();
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::Trial { .. })
    ));
    rig.drain();
    // Still full: the next pause is longer.
    let full = ErrorKind::QuotaExceeded(Scope::Everything);
    rig.answer(is_create, Outcome::Created(Err(failure(full, false))));
    rig.wait(seconds(100));
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::HeldOff { .. })
    ));
    rig.wait(seconds(30));
    rig.booting("a");
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.core.create(&"small".into(), rig.now).unwrap();
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::Trial { .. })
    ));
}

#[test]
fn a_quota_hold_off_ends_when_there_are_fewer_instances_than_after_the_last_create() {
    let mut rig = Rig::ready(config());
    for _ in 0..3 {
        rig.core.create(&"small".into(), rig.now).unwrap();
    }
    rig.drain();
    let full = ErrorKind::QuotaExceeded(Scope::Everything);
    rig.answer(is_create, Outcome::Created(Err(failure(full, false))));
    // Two more that were under way succeed: they are what the quota holds.
    for id in ["a", "b"] {
        let effect = rig.take(is_create);
        let EffectAction::Create(request) = &effect.action else {
            unreachable!()
        };
        let mut made = listed(id, "small", "", "run");
        made.tags.extend(request.tags.clone());
        rig.outcome(&effect, Outcome::Created(Ok(Box::new(made))));
    }
    // 3 creates, one refused: the quota holds two machines. One of them goes.
    assert!(refused(&rig, "small").is_some());
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    rig.answer(is_destroy, Outcome::Destroyed(vec![("a".into(), Ok(()))]));
    rig.cloud = vec![listed("b", "small", "", "run")];
    rig.wait(seconds(12));
    assert!(refused(&rig, "small").is_some());
    rig.wait(seconds(12));
    assert!(rig.view("a").is_none());
    assert!(refused(&rig, "small").is_none(), "before its time is over");
}

#[test]
fn instances_that_do_not_boot_hold_off_their_type() {
    let mut rig = Rig::ready(config());
    for n in 0..3 {
        assert!(refused(&rig, "small").is_none());
        rig.booting(&format!("i-{n}"));
    }
    rig.pass(seconds(640), |action| {
        is_boot(action).then(|| Outcome::Booted(Err(badly())))
    });
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::HeldOff { .. })
    ));
    assert!(refused(&rig, "big").is_none());
}

// Silence.

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

// Idleness and the rest.

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

#[test]
fn what_a_hostile_worker_claims_is_bounded() {
    let mut rig = Rig::ready(config());
    rig.adopted("a");
    rig.boot("a", vec![]);
    for round in 0..6 {
        let claims = (0..2000).map(|n| running(round * 2000 + n, 1)).collect();
        rig.report("a", claims);
    }
    assert!(rig.view("a").unwrap().containers.len() <= 4096);
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
}

#[test]
fn gone_from_a_signal_that_may_have_overtaken_the_start_does_not_count() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.start("a", 1, 1).unwrap();
    rig.kill("a", 1);
    let overtook = rig.take(is_kill);
    rig.answer(is_start, Outcome::Started(StartOutcome::Started));
    rig.outcome(&overtook, Outcome::Killed(KillOutcome::Gone));
    // Nothing is proved: the next signal goes out at once, and its answer counts.
    assert!(rig.find(is_short).is_none());
    rig.report("a", vec![running(1, 1)]);
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    rig.answer(is_short, report(vec![finished(1, 1)]));
    assert_eq!(rig.ended(1).len(), 1);
}

/// An attempt has ended, and the runner has forgotten it.
fn end_and_forget(rig: &mut Rig, attempt: u32) {
    rig.report("a", vec![finished(1, attempt)]);
    rig.acknowledge("a", 1, attempt);
    rig.wait(SECOND);
    rig.answer(is_short, report(vec![]));
    assert!(rig.phase("a", 1).is_none());
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
fn the_answer_to_a_signal_says_nothing_of_a_later_attempt() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.kill("a", 1);
    let first = rig.take(is_kill);
    end_and_forget(&mut rig, 1);
    rig.start("a", 1, 2).unwrap();
    rig.answer(is_start, Outcome::Started(StartOutcome::Started));
    rig.kill("a", 1);
    rig.outcome(&first, Outcome::Killed(KillOutcome::Gone));
    // Nothing is proved that a report would have to confirm; the signal that was sent to it is.
    assert!(rig.find(is_short).is_none());
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Killing));
    rig.answer(is_short, report(vec![]));
    assert_eq!(rig.ended(1).len(), 2);
}

#[test]
fn what_was_given_up_may_end_all_the_same_and_its_result_is_kept() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.run("a", 2);
    rig.kill("a", 1);
    rig.pass(seconds(121), |action| {
        is_kill(action).then_some(Outcome::Killed(KillOutcome::StillRuns))
    });
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::GivenUp));
    assert_eq!(
        rig.state("a"),
        WorkerState::Running,
        "something else runs there"
    );
    rig.report("a", vec![finished(1, 1), running(2, 1)]);
    rig.report("a", vec![finished(1, 1), finished(2, 1)]);
    assert_eq!((rig.ended(1).len(), rig.ended(2).len()), (1, 1));
    assert_eq!(
        rig.state("a"),
        WorkerState::Idle,
        "nobody has the results yet"
    );
    rig.acknowledge("a", 1, 1);
    rig.acknowledge("a", 2, 1);
    rig.wait(SECOND);
    rig.answer(is_short, report(vec![]));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
}

// Promises.

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
