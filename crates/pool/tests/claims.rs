//! What workers claim to have that was not placed there: the table of `docs/states.md`, and the
//! sequences of events that break weaker rules.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::*;
use longshore_pool::*;
use longshore_types::*;

/// What is known of the container beside the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elsewhere {
    /// Nobody else has it.
    Nobody,
    /// This process started this attempt of it on another worker.
    Placed(u32),
    /// Another worker of an earlier process has this attempt, and was believed.
    Found(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Believed,
    Asked,
    Contested,
    Refused,
}

use Came::*;
use Elsewhere::*;

/// The attempt that is claimed.
const CLAIMED: u32 = 2;

/// The table, row by row.
fn expected(inherited: bool, asks: bool, elsewhere: Elsewhere, ended: bool) -> Came {
    match (inherited, asks, elsewhere, ended) {
        (false, ..) => Refused,
        (true, true, ..) => Asked,
        (true, false, Nobody, _) => Believed,
        (true, false, Placed(3) | Found(3), true) => Believed,
        (true, false, Placed(3), false) => Contested,
        (true, false, Placed(_), _) => Refused,
        (true, false, Found(_), _) => Contested,
    }
}

fn asking(asks: bool) -> Config {
    let mut config = config();
    config.asks_about_claims = asks;
    config
}

fn claim(ended: bool) -> ContainerReport {
    let make = if ended { finished } else { running };
    make(1, CLAIMED)
}

/// A worker of an earlier process that shows nothing.
fn inherit(rig: &mut Rig, id: &str) {
    rig.adopted(id);
    rig.boot(id, vec![]);
}

fn believe(rig: &mut Rig, id: &str, attempt: u32, answer: ClaimAnswer) {
    rig.core
        .answer_claim(uuid(1), Attempt(attempt), &id.into(), answer, rig.now);
    rig.drain();
}

fn rig(inherited: bool, asks: bool, elsewhere: Elsewhere) -> Rig {
    let mut rig = Rig::ready(asking(asks));
    match elsewhere {
        Nobody => {}
        Placed(attempt) => {
            rig.idle("b");
            rig.start("b", 1, attempt).unwrap();
            rig.answer(is_start, Outcome::Started(StartOutcome::Started));
        }
        Found(attempt) => {
            inherit(&mut rig, "b");
            rig.report("b", vec![running(1, attempt)]);
            if asks {
                believe(&mut rig, "b", attempt, ClaimAnswer::Possible);
            }
        }
    }
    if inherited {
        inherit(&mut rig, "a");
    } else {
        rig.idle("a");
    }
    rig.events.clear();
    rig
}

fn came(rig: &Rig) -> Came {
    let held = rig.phase("a", 1).is_some();
    let drained = rig.behavior("a") == IdleBehavior::Drain;
    let kept = rig.state("a") != WorkerState::Shutdown;
    match (held, drained, kept) {
        (true, false, true) => Believed,
        (false, false, true) => Asked,
        (false, true, true) => Contested,
        (false, true, false) => Refused,
        odd => panic!("{odd:?}"),
    }
}

const ELSEWHERE: [Elsewhere; 7] = [
    Nobody,
    Placed(1),
    Placed(2),
    Placed(3),
    Found(1),
    Found(2),
    Found(3),
];

#[test]
fn every_claim_in_every_state() {
    for inherited in [false, true] {
        for asks in [false, true] {
            for elsewhere in ELSEWHERE {
                for ended in [false, true] {
                    let case = (inherited, asks, elsewhere, ended);
                    let mut rig = rig(inherited, asks, elsewhere);
                    rig.report("a", vec![claim(ended)]);
                    assert_eq!(
                        came(&rig),
                        expected(inherited, asks, elsewhere, ended),
                        "{case:?}"
                    );
                    check_the_others(&rig, elsewhere, case);
                }
            }
        }
    }
}

/// Whatever is claimed, the other side is left alone.
fn check_the_others(rig: &Rig, elsewhere: Elsewhere, case: (bool, bool, Elsewhere, bool)) {
    let believed_end = came(rig) == Believed && case.3;
    assert_eq!(rig.ended(1).len(), usize::from(believed_end), "{case:?}");
    assert!(rig.find(is_kill).is_none(), "{case:?}");
    let doubted = matches!(came(rig), Contested | Refused);
    assert_eq!(rig.alarms(), usize::from(doubted), "{case:?}");
    if elsewhere != Nobody {
        assert_eq!(rig.phase("b", 1), Some(HeldPhase::Running), "{case:?}");
        assert_eq!(rig.behavior("b"), IdleBehavior::Run, "{case:?}");
    }
    let asked = rig.has_event(|event| matches!(event, Event::Claimed { .. }));
    assert_eq!(asked, came(rig) == Asked, "{case:?}");
    assert_eq!(rig.core.claims_of(uuid(1)).count(), usize::from(asked));
    assert_eq!(
        rig.core.is_claimed(uuid(1)),
        elsewhere != Nobody || !doubted
    );
}

#[test]
fn every_answer_to_every_claim() {
    for elsewhere in ELSEWHERE {
        for ended in [false, true] {
            for answer in [
                ClaimAnswer::Placed,
                ClaimAnswer::Possible,
                ClaimAnswer::False,
            ] {
                let case = (elsewhere, ended, answer);
                let mut rig = rig(true, true, elsewhere);
                rig.report("a", vec![claim(ended)]);
                believe(&mut rig, "a", CLAIMED, answer);
                let found = matches!(elsewhere, Found(_));
                let expected = match (answer, elsewhere) {
                    (ClaimAnswer::False, _) => Refused,
                    (_, Nobody) => Believed,
                    (ClaimAnswer::Placed, Found(_)) => Believed,
                    (_, _) if ended => Believed,
                    (_, _) => Contested,
                };
                assert_eq!(came(&rig), expected, "{case:?}");
                let stays = !(found && answer == ClaimAnswer::Placed);
                if elsewhere != Nobody {
                    assert_eq!(rig.phase("b", 1).is_some(), stays, "{case:?}");
                    let trusted = rig.behavior("b") == IdleBehavior::Run;
                    assert_eq!(trusted, stays, "{case:?}");
                }
                assert!(rig.find(is_kill).is_none(), "{case:?}");
                assert_eq!(rig.core.claims_of(uuid(1)).count(), 0, "{case:?}");
            }
        }
    }
}

#[test]
fn the_true_worker_is_believed_although_the_liar_spoke_first() {
    let mut patient = asking(true);
    patient.timeout_idle = seconds(3600);
    let mut rig = Rig::ready(patient);
    inherit(&mut rig, "liar");
    inherit(&mut rig, "true");
    rig.report("liar", vec![finished(1, 1)]);
    rig.report("true", vec![running(1, 1)]);
    assert_eq!(rig.core.claims_of(uuid(1)).count(), 2);
    believe(&mut rig, "liar", 1, ClaimAnswer::False);
    believe(&mut rig, "true", 1, ClaimAnswer::Placed);
    assert_eq!(rig.state("liar"), WorkerState::Shutdown);
    assert_eq!(rig.phase("true", 1), Some(HeldPhase::Running));
    assert!(rig.ended(1).is_empty());
}

#[test]
fn a_liar_that_was_believed_does_not_count_as_running_any_more() {
    let mut patient = asking(true);
    patient.timeout_idle = seconds(3600);
    let mut rig = Rig::ready(patient);
    inherit(&mut rig, "liar");
    inherit(&mut rig, "true");
    rig.report("liar", vec![running(1, 1), running(2, 1)]);
    believe(&mut rig, "liar", 1, ClaimAnswer::Possible);
    let (liar, now) = ("liar".into(), rig.now);
    let (other, no) = (uuid(2), ClaimAnswer::False);
    rig.core.answer_claim(other, Attempt(1), &liar, no, now);
    rig.drain();
    assert_eq!(rig.state("liar"), WorkerState::Running);
    rig.report("true", vec![running(1, 1)]);
    believe(&mut rig, "true", 1, ClaimAnswer::Placed);
    rig.core.check_invariants().unwrap();
    assert_eq!(rig.state("liar"), WorkerState::Idle);
    assert_eq!(rig.phase("true", 1), Some(HeldPhase::Running));
}

#[test]
fn a_claim_that_is_not_decided_keeps_its_machine_and_one_that_is_dropped_does_not() {
    let mut rig = Rig::ready(asking(true));
    inherit(&mut rig, "a");
    for _ in 0..20 {
        rig.report("a", vec![running(1, 1)]);
        rig.wait(seconds(11));
    }
    assert_eq!(rig.state("a"), WorkerState::Idle);
    assert!(rig.core.give_back(&"a".into(), rig.now).is_err());
    rig.report("a", vec![]);
    assert!(!rig.core.is_claimed(uuid(1)));
    rig.core.give_back(&"a".into(), rig.now).unwrap();
}

#[test]
fn what_is_only_claimed_has_the_whole_machine_until_it_is_known_what_it_got() {
    let mut rig = Rig::ready(asking(true));
    inherit(&mut rig, "a");
    let capacity = rig.view("a").unwrap().capacity;
    let granted = |rig: &Rig| rig.view("a").unwrap().granted;
    rig.report("a", vec![claim(true)]);
    assert_eq!(granted(&rig), Resources::NONE);
    rig.report("a", vec![]);
    rig.report("a", vec![claim(false)]);
    assert_eq!(granted(&rig), capacity);
    let refused = rig.start("a", 2, 1);
    assert!(matches!(refused, Err(Refusal::NoRoom { .. })));
    believe(&mut rig, "a", CLAIMED, ClaimAnswer::Possible);
    assert_eq!(granted(&rig), capacity);
    rig.core.grant(uuid(1), &"a".into(), cpus(1), rig.now);
    assert_eq!(granted(&rig), cpus(1));
    rig.start("a", 2, 1).unwrap();
}

#[test]
fn a_refused_claim_does_not_keep_a_machine_but_what_is_ours_there_does() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 2);
    rig.report("a", vec![running(1, 1), running(2, 1)]);
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
    assert_eq!(rig.phase("a", 2), Some(HeldPhase::Running));
    rig.report("a", vec![running(1, 1), finished(2, 1)]);
    assert_eq!(rig.ended(2).len(), 1);
    rig.acknowledge("a", 2, 1);
    rig.report("a", vec![running(1, 1)]);
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert_eq!(rig.alarms(), 1);
}

#[test]
fn what_is_claimed_against_a_start_of_ours_is_given_up_after_a_while() {
    let mut rig = rig(true, false, Placed(3));
    for _ in 0..11 {
        rig.report("a", vec![running(1, 2)]);
        assert_eq!(came(&rig), Contested);
        rig.wait(seconds(11));
    }
    rig.report("a", vec![running(1, 2)]);
    assert_eq!(came(&rig), Refused);
    assert_eq!(rig.phase("b", 1), Some(HeldPhase::Running));
}

#[test]
fn of_two_that_both_claim_it_the_second_is_believed_once_the_first_has_ended() {
    let mut rig = rig(true, false, Found(2));
    for _ in 0..20 {
        rig.report("a", vec![running(1, 2)]);
        rig.wait(seconds(11));
    }
    assert_eq!(came(&rig), Contested, "it may be so");
    rig.report("b", vec![]);
    rig.wait(seconds(1));
    rig.report("b", vec![]);
    assert_eq!(rig.ended(1), [ExitCause::SupervisorLost]);
    rig.report("a", vec![running(1, 2)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
}

#[test]
fn a_kill_of_what_was_refused_does_not_make_its_result_true() {
    let mut rig = Rig::ready(asking(true));
    inherit(&mut rig, "a");
    rig.run("a", 2);
    rig.report("a", vec![finished(1, 1), running(2, 1)]);
    believe(&mut rig, "a", 1, ClaimAnswer::False);
    rig.core
        .kill_attempt(uuid(1), Attempt(1), &"a".into(), "test", rig.now)
        .unwrap();
    rig.drain();
    rig.report("a", vec![finished(1, 1), running(2, 1)]);
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
    rig.answer(is_short, report(vec![finished(1, 1), running(2, 1)]));
    assert!(rig.ended(1).is_empty());
    assert!(rig.has_event(|event| matches!(event, Event::NeverRan { .. })));
}

#[test]
fn another_attempt_than_the_refused_one_is_another_claim() {
    let mut rig = Rig::ready(asking(true));
    inherit(&mut rig, "a");
    rig.run("a", 2);
    rig.report("a", vec![running(1, 1), running(2, 1)]);
    believe(&mut rig, "a", 1, ClaimAnswer::False);
    rig.report("a", vec![running(1, 2), running(2, 1)]);
    let claims: Vec<Claim> = rig.core.claims_of(uuid(1)).collect();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].attempt, Attempt(2));
    // An answer to the old one is late.
    believe(&mut rig, "a", 1, ClaimAnswer::Placed);
    assert!(rig.phase("a", 1).is_none());
}

#[test]
fn a_runner_that_does_not_forget_a_result_gets_nothing_more() {
    let mut rig = Rig::ready(config());
    inherit(&mut rig, "a");
    rig.report("a", vec![finished(1, 1)]);
    rig.acknowledge("a", 1, 1);
    rig.wait(SECOND);
    for _ in 0..2 {
        rig.report("a", vec![finished(1, 1)]);
        rig.report("a", vec![finished(1, 1)]);
        rig.wait(seconds(11));
    }
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    assert_eq!(rig.alarms(), 1);
}

#[test]
fn a_result_that_was_acknowledged_does_not_keep_a_machine() {
    let mut rig = Rig::ready(config());
    inherit(&mut rig, "a");
    rig.report("a", vec![finished(1, 1)]);
    assert!(rig.core.give_back(&"a".into(), rig.now).is_err());
    rig.acknowledge("a", 1, 1);
    rig.core.give_back(&"a".into(), rig.now).unwrap();
}

#[test]
fn a_report_that_names_a_container_twice_is_no_report() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.report("a", vec![finished(1, 1), running(1, 1)]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    assert!(rig.ended(1).is_empty());
    let error = rig.view("a").unwrap().last_error.unwrap();
    assert!(error.contains("twice"), "{error}");
}

#[test]
fn what_is_contested_is_judged_once_its_rival_is_gone_with_its_machine() {
    let mut rig = rig(true, false, Found(2));
    rig.report("a", vec![running(1, 2)]);
    assert_eq!(came(&rig), Contested);
    for instance in &mut rig.cloud {
        if instance.id == "b".into() {
            instance.state = longshore_cloud::InstanceState::Gone;
        }
    }
    rig.wait(seconds(61));
    assert_eq!(rig.ended(1), [ExitCause::InstanceLost]);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
}

#[test]
fn thousands_of_claims_are_one_alarm_and_bounded() {
    for asks in [false, true] {
        let mut rig = Rig::ready(asking(asks));
        rig.idle("own");
        inherit(&mut rig, "old");
        for round in 0..6 {
            let claims = (0..2000).map(|n| running(2000 * round + n, 1));
            let claims: Vec<ContainerReport> = claims.collect();
            if rig.state("own") != WorkerState::Shutdown {
                rig.report("own", claims.clone());
            }
            rig.report("old", claims);
            rig.wait(seconds(1));
        }
        assert_eq!(rig.state("own"), WorkerState::Shutdown);
        let claimed = (0..12_000).filter(|n| rig.core.is_claimed(uuid(*n)));
        assert!(claimed.count() <= 4096);
        assert!(rig.alarms() <= 2, "{}", rig.alarms());
        rig.core.check_invariants().unwrap();
    }
}

/// A start in doubt at a runner that numbers no attempts; the second try is let through, and its
/// process, if there was one, is not there any more.
fn went_astray(rig: &mut Rig, id: &str) {
    rig.start(id, 1, 1).unwrap();
    rig.answer(is_start, unknown_start());
    rig.wait(seconds(2));
    rig.answer(is_start, Outcome::Started(StartOutcome::Started));
    is_missed(rig, id);
}

/// Reports lack a container until that is its end; those that were asked for before say nothing.
fn is_missed(rig: &mut Rig, id: &str) {
    for _ in 0..4 {
        rig.report(id, vec![]);
        rig.wait(seconds(1));
    }
    assert!(matches!(rig.phase(id, 1), Some(HeldPhase::Ended(_))));
}

/// The end that was seen is dealt with.
fn forgotten(rig: &mut Rig, id: &str) {
    rig.acknowledge(id, 1, 1);
    rig.report(id, vec![]);
    assert_eq!(rig.phase(id, 1), None);
}

#[test]
fn a_start_that_went_astray_is_taken_up_when_it_arrives() {
    for forgets in [false, true] {
        let mut rig = Rig::ready(asking(false));
        rig.idle("a");
        went_astray(&mut rig, "a");
        if forgets {
            forgotten(&mut rig, "a");
        }
        rig.report("a", vec![running(1, 0)]);
        assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running), "{forgets}");
        assert_eq!(rig.behavior("a"), IdleBehavior::Run);
        rig.kill("a", 1);
        assert!(rig.find(is_kill).is_some());
    }
}

#[test]
fn what_was_never_sent_there_did_not_go_astray() {
    let mut rig = Rig::ready(asking(false));
    rig.idle("a");
    rig.report("a", vec![running(1, 0)]);
    assert_eq!(rig.phase("a", 1), None);
    assert_eq!(rig.behavior("a"), IdleBehavior::Drain);
}

#[test]
fn a_start_that_went_astray_is_taken_up_once_the_later_one_was_not_let_run() {
    let mut rig = Rig::ready(asking(false));
    rig.idle("a");
    rig.idle("b");
    went_astray(&mut rig, "a");
    forgotten(&mut rig, "a");
    rig.start("b", 1, 2).unwrap();
    rig.report("a", vec![running(1, 0)]);
    assert_eq!(rig.phase("a", 1), None);
    rig.answer(is_start, Outcome::Started(StartOutcome::Started));
    is_missed(&mut rig, "b");
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
}
