//! The transition table of a worker: every state, and everything that may happen to it.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::*;
use longshore_cloud::InstanceState;
use longshore_pool::*;
use longshore_types::*;

/// A worker as the table knows it: its state, and what is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Unknown,
    UnknownRuns,
    Booting,
    Idle,
    IdleResult,
    Running,
    RunningGivenUp,
    Shutdown,
}

#[derive(Clone, Copy, Debug)]
enum Input {
    ProbesSucceed,
    ProbesSucceedAndShowOne,
    BootTimeout,
    Start,
    Released,
    IdleTimeout,
    Drain,
    Silence,
    ShutDown,
    GiveBack,
    Stopping,
    Gone,
}

use Before::*;
use Input::*;

const FROM: [Before; 8] = [
    Unknown,
    UnknownRuns,
    Booting,
    Idle,
    IdleResult,
    Running,
    RunningGivenUp,
    Shutdown,
];
const INPUT: [Input; 12] = [
    ProbesSucceed,
    ProbesSucceedAndShowOne,
    BootTimeout,
    Start,
    Released,
    IdleTimeout,
    Drain,
    Silence,
    ShutDown,
    GiveBack,
    Stopping,
    Gone,
];

/// What the state is afterwards; none if the worker is gone.
fn expected(from: Before, input: Input, hold: bool) -> Option<WorkerState> {
    use WorkerState as S;
    let stays = match from {
        Unknown | UnknownRuns => S::Unknown,
        Booting => S::Booting,
        Idle | IdleResult => S::Idle,
        Running | RunningGivenUp => S::Running,
        Shutdown => S::Shutdown,
    };
    Some(match (from, input) {
        (_, Gone) => return None,
        (_, ShutDown | Stopping) | (Shutdown, _) => S::Shutdown,
        // It was on hold, and is of no use where it is to run again.
        (RunningGivenUp, _) if !hold => S::Shutdown,
        (Unknown | Booting, ProbesSucceed) => S::Idle,
        (Unknown | UnknownRuns, ProbesSucceedAndShowOne) => S::Running,
        // It shows what nobody placed there, and drains.
        (Booting | Idle, ProbesSucceedAndShowOne) if !hold => S::Shutdown,
        (Booting, ProbesSucceedAndShowOne) => S::Idle,
        // Its container was shown before and still is.
        (UnknownRuns, ProbesSucceed) => S::Running,
        (Unknown | Booting, BootTimeout) if !hold => S::Shutdown,
        (Idle | IdleResult, Start) if !hold => S::Running,
        (Running, Released) => S::Idle,
        (Idle, IdleTimeout) if !hold => S::Shutdown,
        (Idle | Booting, Drain) => S::Shutdown,
        (RunningGivenUp, Drain) => S::Shutdown,
        (Idle, GiveBack) if !hold => S::Shutdown,
        (Idle | IdleResult | Running, Silence) if !hold => S::Shutdown,
        _ => stays,
    })
}

fn prepare(from: Before, hold: bool) -> Rig {
    let mut rig = Rig::new(config());
    match from {
        Unknown | UnknownRuns => rig.adopted("a"),
        _ => {
            rig.answer_list();
            rig.booting("a");
        }
    }
    match from {
        Unknown | Booting => {}
        UnknownRuns => {
            rig.answer(on("a", is_boot), Outcome::Booted(Err(badly())));
            rig.answer(on("a", is_deploy), Outcome::Deployed(Ok(())));
            rig.report("a", vec![running(1, 1)]);
            rig.core.grant(uuid(1), &"a".into(), cpus(1), rig.now);
        }
        _ => rig.boot("a", vec![]),
    }
    // Before it can drain by itself.
    if hold || from == RunningGivenUp {
        rig.core
            .set_idle_behavior(&"a".into(), IdleBehavior::Run, rig.now)
            .unwrap();
    }
    match from {
        IdleResult => {
            rig.run("a", 1);
            rig.report("a", vec![finished(1, 1)]);
        }
        Running => rig.run("a", 1),
        RunningGivenUp => {
            rig.run("a", 1);
            rig.kill("a", 1);
            rig.core
                .set_idle_behavior(&"a".into(), IdleBehavior::Hold, rig.now)
                .unwrap();
            rig.pass(seconds(121), |action| match action {
                EffectAction::Kill { .. } => Some(Outcome::Killed(KillOutcome::StillRuns)),
                EffectAction::SetTags(..) => Some(Outcome::TagsSet(Ok(()))),
                _ => None,
            });
            assert_eq!(rig.phase("a", 1), Some(HeldPhase::GivenUp));
        }
        Shutdown => rig.core.shut_down(&"a".into(), "test", rig.now).unwrap(),
        _ => {}
    }
    if hold && from != Shutdown {
        rig.core
            .set_idle_behavior(&"a".into(), IdleBehavior::Hold, rig.now)
            .unwrap();
    } else if from == RunningGivenUp {
        rig.core
            .set_idle_behavior(&"a".into(), IdleBehavior::Run, rig.now)
            .unwrap();
    }
    rig.drain();
    rig
}

fn apply(rig: &mut Rig, from: Before, input: Input) {
    let id: InstanceId = "a".into();
    let mut shown = match from {
        UnknownRuns | Running | RunningGivenUp => vec![running(1, 1)],
        IdleResult => vec![finished(1, 1)],
        _ => vec![],
    };
    let answer = |containers: Vec<ContainerReport>| {
        move |action: &EffectAction| match action {
            EffectAction::Boot(_) => Some(Outcome::Booted(Ok(()))),
            EffectAction::Deploy(..) => Some(Outcome::Deployed(Ok(()))),
            EffectAction::Report(..) => Some(report(containers.clone())),
            _ => None,
        }
    };
    match input {
        ProbesSucceed => {
            if matches!(from, Unknown | Booting) {
                shown.clear();
            }
            rig.pass(seconds(11), answer(shown));
        }
        ProbesSucceedAndShowOne => {
            shown.push(running(5, 1));
            rig.pass(seconds(11), answer(shown));
        }
        BootTimeout if matches!(from, Unknown | UnknownRuns | Booting) => {
            rig.pass(seconds(620), move |action| match action {
                EffectAction::Boot(_) => Some(Outcome::Booted(Err(badly()))),
                EffectAction::Deploy(..) => Some(Outcome::Deployed(Ok(()))),
                EffectAction::Report(..) => Some(report(shown.clone())),
                _ => None,
            });
        }
        BootTimeout => {}
        Start => {
            let _ = rig.start("a", 2, 1);
        }
        Released => {
            if from == Running {
                rig.report("a", vec![finished(1, 1)]);
            }
        }
        IdleTimeout => rig.wait(seconds(61)),
        Drain => {
            let _ = rig
                .core
                .set_idle_behavior(&id, IdleBehavior::Drain, rig.now);
        }
        Silence => {
            if matches!(from, Unknown | UnknownRuns | Booting) {
                return;
            }
            rig.pass(seconds(700), |action| {
                is_report(action).then(|| Outcome::Reported(Err(unreachable())))
            });
        }
        ShutDown => rig.core.shut_down(&id, "test", rig.now).unwrap(),
        GiveBack => {
            let _ = rig.core.give_back(&id, rig.now);
        }
        Stopping | Gone => {
            let state = if let Gone = input {
                InstanceState::Gone
            } else {
                InstanceState::Stopping
            };
            rig.cloud[0].state = state;
            rig.pass(seconds(61), answer(shown));
        }
    }
    rig.drain();
}

#[test]
fn every_state_and_every_input() {
    for hold in [false, true] {
        for from in FROM {
            for input in INPUT {
                // An idle worker that nobody holds would go meanwhile, by another rule.
                let mut rig = prepare(from, hold);
                apply(&mut rig, from, input);
                let state = rig.view("a").map(|view| view.state);
                let expected = expected(from, input, hold);
                assert_eq!(state, expected, "{from:?} on {input:?}, hold: {hold}");
            }
        }
    }
}
