//! Everything that may happen to a worker.

use longshore_cloud::{ErrorKind, Instance, InstanceState};
use longshore_pool::*;
use longshore_types::*;

use crate::common::*;
use crate::seen;
use crate::situations::a;

/// Each kind of input, with what it may be.
const INPUTS: &str = "\
tags: ok, fail, not-found
boot: ok, fail, unreachable
deploy: ok, fail, unreachable
report: nothing, running, finished, not-started, stale, unplaced, others, broken, fail, unreachable
start: started, known, not-started, unknown
kill: gone, runs, unknown
collect: ok, fail
destroy: ok, fail, no-result
console: printed, fail
disconnect: done
create: other, same-id, fail
list: shown, pending, stopping, gone, missing, missing-twice, no-type, fail
lost: tags, boot, deploy, report, start, kill, collect, console, destroy
ask: start, kill, kill-attempt, shut-down, give-back, run, hold, drain, acknowledge, grant, create
process: asleep, stop
timer: probe a worker, acknowledge results, give up a boot, give up a silent worker, \
shut down an idle worker, destroy an instance again, set tags again, start a container again, \
give up an unsettled start, signal a container again, give up a kill, give up a stale lock, \
collect output again, list instances";

/// Timers that are not about a worker.
const OTHER_TIMERS: [&str; 3] = [
    "look after a pending create",
    "end a hold-off",
    "probe the next worker in line",
];

/// Every input: its kind, a space, and what it is.
pub(crate) fn inputs() -> Vec<String> {
    let mut inputs = Vec::new();
    for line in INPUTS.lines() {
        let (kind, all) = line.split_once(": ").unwrap();
        inputs.extend(all.split(", ").map(|one| format!("{kind} {one}")));
    }
    inputs
}

fn not_started(n: usize) -> ContainerReport {
    let error = "no such image".to_owned();
    let exit = Exit::unseen(ExitCause::NotStarted { error });
    let mut report = running(n, 1);
    report.state = ReportedState::Finished(exit);
    report
}

/// What an effect may end with, by name; none for what is not a name of one.
fn outcome(rig: &mut Rig, name: &str) -> Option<Outcome> {
    let refused = |kind| failure(kind, false);
    let destroyed = |result| Outcome::Destroyed(vec![(a(), result)]);
    let mut shows = |containers| Some(rig.fresh(containers));
    Some(match name {
        "tags ok" => Outcome::TagsSet(Ok(())),
        "tags fail" => Outcome::TagsSet(Err(refused(ErrorKind::Other))),
        "tags not-found" => Outcome::TagsSet(Err(refused(ErrorKind::NotFound))),
        "boot ok" => Outcome::Booted(Ok(())),
        "boot fail" => Outcome::Booted(Err(badly())),
        "boot unreachable" => Outcome::Booted(Err(unreachable())),
        "deploy ok" => Outcome::Deployed(Ok(())),
        "deploy fail" => Outcome::Deployed(Err(badly())),
        "deploy unreachable" => Outcome::Deployed(Err(unreachable())),
        "report nothing" => return shows(vec![]),
        "report running" => return shows(vec![running(1, 1)]),
        "report finished" => return shows(vec![finished(1, 1)]),
        "report not-started" => return shows(vec![not_started(1)]),
        "report stale" => return shows(vec![stale(1, 1)]),
        "report unplaced" => return shows(vec![running(9, 1)]),
        "report others" => return shows(vec![running(8, 1)]),
        "report broken" => Outcome::Reported(Ok(RunnerReport {
            containers: vec![],
            broken: Some("disk full".into()),
            digest: "broken".into(),
        })),
        "report fail" => Outcome::Reported(Err(badly())),
        "report unreachable" => Outcome::Reported(Err(unreachable())),
        "start started" => Outcome::Started(StartOutcome::Started),
        "start known" => Outcome::Started(StartOutcome::KnownAttempt),
        "start not-started" => Outcome::Started(StartOutcome::NotStarted { error: "no".into() }),
        "start unknown" => unknown_start(),
        "kill gone" => Outcome::Killed(KillOutcome::Gone),
        "kill runs" => Outcome::Killed(KillOutcome::StillRuns),
        "kill unknown" => Outcome::Killed(KillOutcome::Unknown {
            error: "lost".into(),
        }),
        "collect ok" => Outcome::Collected(Ok(())),
        "collect fail" => Outcome::Collected(Err(unreachable())),
        "destroy ok" => destroyed(Ok(())),
        "destroy fail" => destroyed(Err(refused(ErrorKind::Other))),
        "destroy no-result" => Outcome::Destroyed(vec![]),
        "console printed" => Outcome::Console(Ok(b"kernel panic".to_vec())),
        "console fail" => Outcome::Console(Err(refused(ErrorKind::Other))),
        "disconnect done" => Outcome::Disconnected,
        _ => return None,
    })
}

/// The effect of a kind that is under way about worker `a`; of two reports the one that began last.
fn under_way(rig: &Rig, kind: &str) -> Option<Effect> {
    let about_a = |action: &EffectAction| match action {
        EffectAction::Destroy(ids) => ids.contains(&a()),
        EffectAction::SetTags(id, _)
        | EffectAction::Console(id, _)
        | EffectAction::Disconnect(id) => *id == a(),
        action => action.host().is_some_and(|host| host.instance == a()),
    };
    let found = rig.effects.iter().rev();
    let mut found = found.filter(|e| e.action.kind() == kind && about_a(&e.action));
    found.next().cloned()
}

fn end(rig: &mut Rig, effect: &Effect, outcome: Outcome) {
    rig.effects.retain(|other| other.id != effect.id);
    rig.outcome(effect, outcome);
}

/// Has something happen; whether it can, and was not refused.
pub(crate) fn apply(rig: &mut Rig, input: &str) -> Result<(), char> {
    let (kind, rest) = input.split_once(' ').unwrap();
    match kind {
        "ask" => ask(rig, rest).map_err(|_| 'x'),
        "list" => {
            list(rig, rest);
            Ok(())
        }
        "create" => {
            create(rig, rest);
            Ok(())
        }
        "process" => {
            match rest {
                "asleep" => rig.core.handle_sleep(seconds(60), rig.now),
                "stop" => rig.core.stop(rig.now),
                _ => unreachable!("{rest}"),
            }
            rig.drain();
            Ok(())
        }
        "timer" => until(rig, rest).ok_or('.'),
        "lost" => {
            let effect = under_way(rig, rest).ok_or('.')?;
            let lost = effect.action.lost("lost");
            end(rig, &effect, lost);
            Ok(())
        }
        kind => {
            let outcome = outcome(rig, input).unwrap_or_else(|| panic!("what is {input}?"));
            let effect = under_way(rig, kind).ok_or('.')?;
            end(rig, &effect, outcome);
            Ok(())
        }
    }
}

fn ask(rig: &mut Rig, what: &str) -> Result<(), Refusal> {
    let (id, now) = (a(), rig.now);
    let done = match what {
        "start" => rig.start("a", 2, 1),
        "kill" => rig.core.kill(uuid(1), &id, "test", now),
        "kill-attempt" => rig.core.kill_attempt(uuid(1), Attempt(1), &id, "test", now),
        "shut-down" => rig.core.shut_down(&id, "test", now),
        "give-back" => rig.core.give_back(&id, now),
        "run" => rig.core.set_idle_behavior(&id, IdleBehavior::Run, now),
        "hold" => rig.core.set_idle_behavior(&id, IdleBehavior::Hold, now),
        "drain" => rig.core.set_idle_behavior(&id, IdleBehavior::Drain, now),
        "create" => rig.core.create(&"small".into(), now).map(drop),
        "acknowledge" => {
            rig.acknowledge("a", 1, 1);
            Ok(())
        }
        "grant" => {
            rig.core.grant(uuid(1), &id, cpus(1), now);
            Ok(())
        }
        _ => unreachable!("{what}"),
    };
    rig.drain();
    done
}

/// A listing that begins now, and what it shows.
fn list(rig: &mut Rig, what: &str) {
    let at = rig.cloud.iter().position(|i| i.id == a()).unwrap();
    match what {
        "shown" => {}
        "pending" => rig.cloud[at].state = InstanceState::Pending,
        "stopping" => rig.cloud[at].state = InstanceState::Stopping,
        "gone" => rig.cloud[at].state = InstanceState::Gone,
        "missing" | "missing-twice" => drop(rig.cloud.remove(at)),
        "no-type" => {
            let tags = &mut rig.cloud[at].tags;
            tags.insert("ArvadosInstanceType".into(), "retired".into());
        }
        "fail" => {}
        _ => unreachable!("{what}"),
    }
    for _ in 0..if what == "missing-twice" { 2 } else { 1 } {
        while rig.find(is_list).is_none() {
            next_timer(rig);
        }
        if what == "fail" {
            let failed = failure(ErrorKind::Other, false);
            rig.answer(is_list, Outcome::Listed(Err(failed)));
        } else {
            rig.answer_list();
        }
    }
}

fn create(rig: &mut Rig, what: &str) {
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let effect = rig.take(is_create);
    let EffectAction::Create(request) = &effect.action else {
        unreachable!()
    };
    let id = if what == "same-id" { "a" } else { "c" };
    let mut made = Instance::new(id, "s1", InstanceState::Running, request.tags.clone());
    made.address = Some(format!("{id}.example:22"));
    let made = match what {
        "fail" => Err(failure(ErrorKind::Denied, false)),
        _ => Ok(Box::new(made)),
    };
    rig.outcome(&effect, Outcome::Created(made));
}

fn next_timer(rig: &mut Rig) -> &'static str {
    let due = rig.core.poll_timeout().unwrap();
    rig.now = rig.now.max(due.at);
    rig.core.handle_timeout(rig.now);
    rig.drain();
    due.why
}

/// Lets time pass until a timer has gone off; none if it does not for long, or not before the
/// situation has ended.
fn until(rig: &mut Rig, why: &str) -> Option<()> {
    let (before, last) = (seen(rig), rig.now + seconds(700));
    loop {
        // The other worker is well.
        let well = rig.fresh(vec![running(8, 1)]);
        rig.answer(on("b", is_long), well);
        let due = rig.core.poll_timeout().map(|due| due.at);
        let due = due.filter(|due| *due <= last)?;
        if due > rig.now + seconds(300) {
            rig.now = rig.now + seconds(300);
            continue;
        }
        let next = next_timer(rig);
        assert!(
            OTHER_TIMERS.contains(&next) || INPUTS.contains(next),
            "the table has no row for the timer {next:?}"
        );
        if next == why {
            return Some(());
        }
        if seen(rig) != before {
            return None;
        }
    }
}
