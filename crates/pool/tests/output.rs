//! The output of what has ended: brought home, or said to be lost.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::*;
use longshore_cloud::InstanceState;
use longshore_pool::*;
use longshore_runner_api::command::OutputStream;
use longshore_types::*;

/// Container 1 has ended with code 0 and has written so much.
fn written(stdout_bytes: u64, stderr_bytes: u64) -> ContainerReport {
    let mut entry = finished(1, 1);
    if let ReportedState::Finished(exit) = &mut entry.state {
        (exit.stdout_bytes, exit.stderr_bytes) = (stdout_bytes, stderr_bytes);
    }
    entry
}

/// Each end of container 1 that was told: what is lost of its output.
fn lost(rig: &Rig) -> Vec<Option<&'static str>> {
    let told = rig.events.iter().filter_map(|event| match event {
        Event::Ended { uuid: u, exit, .. } if *u == uuid(1) => {
            assert_eq!(exit.cause, ExitCause::Exited { code: 0 });
            Some(exit.lost_output())
        }
        _ => None,
    });
    told.collect()
}

/// The alarm that tells of lost output.
fn alarm_of_loss(rig: &Rig) -> String {
    let texts = rig.events.iter().filter_map(|event| match event {
        Event::Alarm { text } if text.contains("is lost") => Some(text.clone()),
        _ => None,
    });
    let texts: Vec<String> = texts.collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    texts.concat()
}

fn of_stream(wanted: OutputStream) -> impl Fn(&EffectAction) -> bool {
    move |action| matches!(action, EffectAction::Collect { stream, .. } if *stream == wanted)
}

fn home() -> Outcome {
    Outcome::Collected(Ok(()))
}

/// Container 1 has written to both streams and ended on worker `a`.
fn ended(config: Config) -> Rig {
    let mut rig = Rig::ready(config);
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![written(7, 8)]);
    rig
}

#[test]
fn output_is_brought_home_before_the_end_is_told() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![written(7, 0)]);
    assert!(
        matches!(rig.phase("a", 1), Some(HeldPhase::Ended(_))),
        "its room is free at once"
    );
    assert!(rig.ended(1).is_empty());
    rig.answer(is_collect, Outcome::Collected(Err(badly())));
    rig.wait(seconds(2));
    rig.answer(is_collect, Outcome::Collected(Ok(())));
    assert_eq!(rig.ended(1).len(), 1);
}

#[test]
fn output_that_cannot_be_had_is_given_up_after_five_tries() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![written(0, 7)]);
    let mut tries = 0;
    rig.pass(seconds(300), |action| {
        is_collect(action).then(|| {
            tries += 1;
            Outcome::Collected(Err(badly()))
        })
    });
    assert_eq!(tries / 2, 5);
    assert_eq!(lost(&rig), [Some("stderr")]);
    assert_eq!(rig.alarms(), 1);
}

/// Each collect fails so.
fn failing(failure: &HostFailure) -> impl Fn(&EffectAction) -> Option<Outcome> {
    let failure = failure.clone();
    move |action| is_collect(action).then(|| Outcome::Collected(Err(failure.clone())))
}

#[test]
fn output_that_is_there_still_is_not_given_up_for_a_short_outage() {
    let mut rig = ended(config());
    rig.pass(seconds(550), failing(&unreachable()));
    assert_eq!(lost(&rig), []);
    rig.pass(seconds(120), failing(&unreachable()));
    assert_eq!(lost(&rig), [Some("stdout and stderr")], "not for ever");

    let mut rig = ended(config());
    rig.pass(seconds(550), failing(&unreachable()));
    rig.pass(seconds(120), |action| is_collect(action).then(home));
    assert_eq!(lost(&rig), [None]);
}

#[test]
fn output_that_we_cannot_keep_is_not_given_up_at_all() {
    let not_kept = HostFailure {
        ours: true,
        ..badly()
    };
    let mut rig = ended(config());
    rig.pass(seconds(5 * 3600), failing(&not_kept));
    assert_eq!(lost(&rig), []);
    assert_eq!(rig.alarms(), 1, "the disk is to be seen to");
    // An outage of the host after that has all of its own time.
    rig.pass(seconds(500), failing(&unreachable()));
    assert_eq!(lost(&rig), []);
    rig.pass(seconds(120), |action| is_collect(action).then(home));
    assert_eq!(lost(&rig), [None]);
}

#[test]
fn an_alarm_says_that_we_cannot_keep_it_whichever_try_fails_for_our_sake() {
    let not_kept = HostFailure {
        ours: true,
        ..badly()
    };
    let mut rig = ended(config());
    let mut tries = 0;
    rig.pass(seconds(500), |action| {
        is_collect(action).then(|| {
            tries += 1;
            let ours = tries / 2 != 5;
            Outcome::Collected(Err(HostFailure {
                ours,
                unreachable: !ours,
                ..not_kept.clone()
            }))
        })
    });
    assert_eq!((rig.alarms(), lost(&rig)), (1, vec![]));
}

#[test]
fn what_nobody_waits_for_keeps_no_instance_because_we_cannot_keep_it() {
    let not_kept = HostFailure {
        ours: true,
        ..badly()
    };
    let mut rig = ended(config());
    // Nobody has a record of it.
    rig.acknowledge("a", 1, 1);
    rig.core
        .set_idle_behavior(&"a".into(), IdleBehavior::Drain, rig.now)
        .unwrap();
    rig.pass(seconds(600), |action| match action {
        EffectAction::Report(..) => Some(report(vec![])),
        action => failing(&not_kept)(action),
    });
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
}

#[test]
fn a_transfer_has_the_time_that_so_much_may_take_and_one_that_is_cut_off_is_no_answer() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![written(1 << 30, 8)]);
    let stdout = rig.take(of_stream(OutputStream::Stdout));
    assert_eq!(stdout.timeout, seconds(300 + (1 << 30) / (64 << 10)));
    let cut_off = stdout.action.lost("no answer in time");
    rig.outcome(&stdout, cut_off.clone());
    rig.pass(seconds(550), |action| {
        is_collect(action).then(|| cut_off.clone())
    });
    assert_eq!(lost(&rig), []);
    rig.pass(seconds(120), |action| is_collect(action).then(home));
    assert_eq!(lost(&rig), [None]);
}

#[test]
fn what_had_not_come_home_when_its_machine_went_is_said_to_be_lost() {
    let mut rig = ended(config());
    rig.answer(of_stream(OutputStream::Stdout), home());
    let stderr = rig.take(of_stream(OutputStream::Stderr));
    rig.cloud[0].state = InstanceState::Gone;
    rig.wait(seconds(61));
    assert_eq!(lost(&rig), [Some("stderr")], "its exit code is true");
    let alarm = alarm_of_loss(&rig);
    let uuid = uuid(1);
    for named in ["stderr", "attempt 1", "instance a", uuid.as_str()] {
        assert!(alarm.contains(named), "{alarm}");
    }
    assert!(!alarm.contains("stdout"), "{alarm}");
    // That came later than it could be of use.
    rig.outcome(&stderr, Outcome::Collected(Err(unreachable())));
    assert_eq!(lost(&rig).len(), 1);
}

#[test]
fn output_of_a_silent_machine_that_is_given_up_is_said_to_be_lost() {
    let mut rig = ended(config());
    rig.pass(seconds(1200), |action| match action {
        EffectAction::Collect { .. } => None,
        EffectAction::Report(..) => Some(Outcome::Reported(Err(unreachable()))),
        _ => None,
    });
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert!(lost(&rig).is_empty(), "it may come home yet");
    rig.pass(seconds(60), gone);
    rig.cloud.clear();
    rig.pass(seconds(300), gone);
    assert!(rig.view("a").is_none());
    assert_eq!(lost(&rig), [Some("stdout and stderr")]);
    alarm_of_loss(&rig);
}

#[test]
fn a_stream_that_cannot_be_read_does_not_keep_the_other_one_there() {
    let mut rig = ended(config());
    rig.pass(seconds(300), |action| match action {
        EffectAction::Collect {
            stream: OutputStream::Stdout,
            ..
        } => Some(Outcome::Collected(Err(badly()))),
        EffectAction::Collect { .. } => Some(home()),
        _ => None,
    });
    assert_eq!(lost(&rig), [Some("stdout")]);
    alarm_of_loss(&rig);
}

#[test]
fn after_a_restart_between_the_streams_both_are_brought_home_again() {
    let mut rig = Rig::new(config());
    rig.adopted("a");
    rig.boot("a", vec![written(7, 8)]);
    rig.answer(of_stream(OutputStream::Stdout), home());
    assert!(lost(&rig).is_empty());
    rig.answer(of_stream(OutputStream::Stderr), home());
    assert_eq!(lost(&rig), [None]);
    assert_eq!(rig.alarms(), 0);
}

#[test]
fn what_an_earlier_process_told_is_not_said_to_be_lost() {
    let mut rig = Rig::new(config());
    rig.adopted("a");
    rig.boot("a", vec![written(7, 8)]);
    rig.acknowledge("a", 1, 1);
    rig.cloud[0].state = InstanceState::Gone;
    rig.wait(seconds(61));
    assert!(rig.view("a").is_none());
    assert!(lost(&rig).is_empty());
    assert_eq!(rig.alarms(), 1, "only that the instance is gone");
}

#[test]
fn output_that_is_not_brought_home_is_not_lost_and_a_runner_says_nothing_of_it() {
    let mut config = config();
    config.collect_output = false;
    let mut rig = Rig::ready(config);
    rig.idle("a");
    rig.run("a", 1);
    let mut entry = written(7, 8);
    if let ReportedState::Finished(exit) = &mut entry.state {
        exit.stderr_lost = true;
    }
    rig.report("a", vec![entry]);
    assert_eq!(lost(&rig), [None]);
}
