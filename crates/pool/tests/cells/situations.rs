//! Ways to bring a worker into each situation.

use std::time::Duration;

use longshore_cloud::{ErrorKind, Instance, InstanceState};
use longshore_pool::*;
use longshore_types::*;

use crate::common::*;

/// Unknown, booting, idle, running and shutdown ones, in this order.
pub(crate) const SITUATIONS: [&str; 29] = [
    "unknown",
    "unwell-new",
    "unwell",
    "unwell-runs",
    "found",
    "nowhere",
    "booting",
    "deploying",
    "asked",
    "console",
    "idle",
    "untagged",
    "result",
    "acked",
    "collect",
    "uncollected",
    "start",
    "unsettled",
    "known",
    "running",
    "kill",
    "killed",
    "givenup",
    "stale",
    "silent",
    "shutdown",
    "shut-runs",
    "shut-taken",
    "shut-failed",
];

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Times of which no two fall together, and listings that come soon.
fn settings() -> Config {
    let mut config = config();
    config.sync_interval = seconds(3);
    config.consistency_grace = seconds(2);
    config.timeout_idle = millis(53_100);
    config.timeout_booting = millis(607_200);
    config.timeout_probe = millis(601_300);
    config.timeout_term = millis(113_400);
    config.timeout_signal = millis(7_500);
    config.timeout_stale = millis(11_600);
    config
}

pub(crate) fn a() -> InstanceId {
    "a".into()
}

fn with_output(n: usize) -> ContainerReport {
    let mut report = finished(n, 1);
    if let ReportedState::Finished(exit) = &mut report.state {
        exit.stdout_bytes = 1;
    }
    report
}

/// A worker `a` in a situation; beside it a worker `b` that runs container 8, and that is held.
pub(crate) fn prepare(situation: &str, behavior: IdleBehavior) -> Rig {
    let mut settings = settings();
    settings.console_output = situation == "console";
    let mut rig = Rig::new(settings);
    rig.cloud.push(listed("b", "small", "secret of b", "hold"));
    let found = SITUATIONS[..5].contains(&situation);
    if found {
        rig.cloud
            .push(listed("a", "small", "secret of a", behavior.as_str()));
    }
    rig.answer_list();
    rig.boot("b", vec![running(8, 1)]);
    if !found {
        rig.booting("a");
        if situation == "nowhere" {
            // Another one, as the first has an address.
            rig = nowhere();
        } else if !SITUATIONS[5..10].contains(&situation) {
            rig.boot("a", vec![]);
        }
    }
    reach(&mut rig, situation);
    if !found {
        let _ = rig.core.set_idle_behavior(&a(), behavior, rig.now);
        rig.drain();
    }
    rig
}

fn nowhere() -> Rig {
    let mut rig = Rig::new(settings());
    rig.cloud.push(listed("b", "small", "secret of b", "hold"));
    rig.answer_list();
    rig.boot("b", vec![running(8, 1)]);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let effect = rig.take(is_create);
    let EffectAction::Create(request) = &effect.action else {
        unreachable!()
    };
    let instance = Instance::new("a", "s1", InstanceState::Pending, request.tags.clone());
    rig.cloud.push(instance.clone());
    rig.outcome(&effect, Outcome::Created(Ok(Box::new(instance))));
    rig
}

/// Brings worker `a`, which is idle where it has booted, into a situation.
fn reach(rig: &mut Rig, situation: &str) {
    match situation {
        "unwell-new" => rig.answer(on("a", is_boot), Outcome::Booted(Err(badly()))),
        "deploying" => rig.answer(on("a", is_boot), Outcome::Booted(Ok(()))),
        "console" => {
            // The other worker is well.
            let well = rig.fresh(vec![running(8, 1)]);
            rig.wait(seconds(600));
            rig.answer(on("b", is_report), well);
            rig.pass(seconds(10), |action| {
                is_boot(action).then(|| Outcome::Booted(Err(badly())))
            });
        }
        "asked" | "found" => {
            rig.answer(on("a", is_boot), Outcome::Booted(Ok(())));
            rig.answer(on("a", is_deploy), Outcome::Deployed(Ok(())));
        }
        "unwell" | "unwell-runs" => {
            rig.answer(on("a", is_boot), Outcome::Booted(Err(badly())));
            rig.answer(on("a", is_deploy), Outcome::Deployed(Ok(())));
            let runs = situation == "unwell-runs";
            rig.report("a", runs.then(|| running(1, 1)).into_iter().collect());
        }
        "untagged" => {
            let _ = rig
                .core
                .set_idle_behavior(&a(), IdleBehavior::Hold, rig.now);
            rig.drain();
            let refused = failure(ErrorKind::Other, false);
            rig.answer(is_tags, Outcome::TagsSet(Err(refused)));
        }
        "shutdown" | "shut-taken" | "shut-failed" => {
            rig.core.shut_down(&a(), "test", rig.now).unwrap();
            rig.drain();
            let refused = Err(failure(ErrorKind::Other, false));
            let result = if situation == "shut-taken" {
                Ok(())
            } else {
                refused
            };
            if situation != "shutdown" {
                rig.answer(is_destroy, Outcome::Destroyed(vec![(a(), result)]));
            }
        }
        "shut-runs" => {
            rig.run("a", 1);
            rig.core.shut_down(&a(), "test", rig.now).unwrap();
        }
        container => with_container(rig, container),
    }
    rig.drain();
}

/// Brings worker `a`, which is idle, into a situation that a container makes.
fn with_container(rig: &mut Rig, situation: &str) {
    match situation {
        "result" | "acked" | "collect" | "uncollected" => {
            rig.run("a", 1);
            let output = situation.ends_with("collect") || situation == "uncollected";
            let end = if output {
                with_output(1)
            } else {
                finished(1, 1)
            };
            rig.report("a", vec![end]);
            if situation == "acked" {
                rig.acknowledge("a", 1, 1);
            } else if situation == "uncollected" {
                rig.answer(is_collect, Outcome::Collected(Err(unreachable())));
            }
        }
        "start" => rig.start("a", 1, 1).unwrap(),
        "unsettled" => {
            rig.start("a", 1, 1).unwrap();
            rig.answer(is_start, unknown_start());
        }
        "known" => {
            rig.start("a", 1, 1).unwrap();
            rig.answer(is_start, Outcome::Started(StartOutcome::KnownAttempt));
        }
        "running" => rig.run("a", 1),
        "kill" | "killed" | "givenup" => {
            rig.run("a", 1);
            rig.kill("a", 1);
            if situation == "killed" {
                rig.answer(is_kill, Outcome::Killed(KillOutcome::Gone));
            } else if situation == "givenup" {
                let _ = rig
                    .core
                    .set_idle_behavior(&a(), IdleBehavior::Hold, rig.now);
                rig.pass(seconds(114), |action| match action {
                    EffectAction::Kill { .. } => Some(Outcome::Killed(KillOutcome::StillRuns)),
                    action => gone(action),
                });
            }
        }
        "stale" => {
            rig.start("a", 1, 1).unwrap();
            rig.answer(is_start, Outcome::Started(StartOutcome::Started));
            rig.report("a", vec![stale(1, 1)]);
        }
        "silent" => {
            rig.run("a", 1);
            for _ in 0..3 {
                while rig.find(on("a", is_report)).is_none() {
                    rig.wait(seconds(1));
                }
                rig.answer(on("a", is_report), Outcome::Reported(Err(unreachable())));
                rig.wait(seconds(10));
            }
        }
        _ => {}
    }
}
