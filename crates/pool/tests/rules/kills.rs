//! Kills, withdrawals, and what can be neither ended nor forgotten.

use longshore_pool::*;
use longshore_types::*;

use crate::common::*;
use crate::end_and_forget;

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
fn an_instance_on_hold_with_what_cannot_be_ended_goes_once_it_is_to_run_again() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let set = |rig: &mut Rig, behavior| {
        let done = rig.core.set_idle_behavior(&"a".into(), behavior, rig.now);
        done.unwrap();
        rig.drain();
    };
    set(&mut rig, IdleBehavior::Hold);
    rig.kill("a", 1);
    rig.pass(seconds(300), |action| {
        let kills = matches!(action, EffectAction::Kill { .. });
        kills.then_some(Outcome::Killed(KillOutcome::StillRuns))
    });
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::GivenUp));
    assert_eq!(rig.behavior("a"), IdleBehavior::Hold);
    set(&mut rig, IdleBehavior::Run);
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
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
