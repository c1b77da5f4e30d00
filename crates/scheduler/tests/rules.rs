//! The rules about single containers: where could a process of it be, and what follows.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use longshore_scheduler::{Action, Config, Core, Limits};
use longshore_types::*;
use support::*;

struct Scene {
    config: Config,
    limits: Limits,
    entries: Vec<QueueEntry>,
    workers: Vec<WorkerView>,
}

fn scene() -> Scene {
    Scene {
        config: config(),
        limits: Limits::default(),
        entries: Vec::new(),
        workers: Vec::new(),
    }
}

impl Scene {
    fn entry(mut self, entry: QueueEntry) -> Self {
        self.entries.push(entry);
        self
    }

    fn worker(mut self, view: WorkerView) -> Self {
        self.workers.push(view);
        self
    }

    fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    fn arvados(mut self) -> Self {
        self.config = arvados();
        self
    }

    fn core(&self) -> Core {
        let mut core = Core::new(self.config.clone());
        core.set_limits(self.limits.clone(), at(1));
        for entry in &self.entries {
            core.upsert_entry(entry.clone(), at(1));
        }
        for worker in &self.workers {
            core.upsert_worker(worker.clone(), at(1));
        }
        core
    }

    /// The actions and the reason of container 1.
    #[track_caller]
    fn gives(&self, actions: &[&str], reason: &str) -> Core {
        let mut core = self.core();
        assert_eq!(briefs(&mut core, at(1)), actions);
        let said = core.reason(uuid(1), at(1)).map(|r| r.to_string());
        assert!(
            said.as_ref()
                .map_or(reason == "absent", |said| if reason.is_empty() {
                    said.is_empty()
                } else {
                    said.contains(reason)
                }),
            "{said:?} should say {reason:?}"
        );
        core
    }
}

fn stopped_taking(mut view: WorkerView) -> WorkerView {
    view.idle_behavior = IdleBehavior::Hold;
    view
}

const QUIET: &[&str] = &[];

#[test]
fn the_way_of_a_container_with_placements_recorded() {
    let mut core = scene().entry(queued(1)).worker(idle("a", "small")).core();
    assert_eq!(briefs(&mut core, at(1)), ["lock 1 a"]);
    let mut calling = queued(1);
    calling.call_in_flight = true;
    core.upsert_entry(calling, at(1));
    assert_eq!(briefs(&mut core, at(1)), QUIET);
    core.upsert_entry(locked(1), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["place 1 a"]);
    core.upsert_entry(placed(1, "a"), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["start 1#1 a"]);
    assert_eq!(
        core.reason(uuid(1), at(1)),
        Some(Reason::Starting {
            instance: "a".into()
        })
    );
    core.upsert_worker(
        holding(idle("a", "small"), 1, 1, HeldPhase::Starting),
        at(1),
    );
    assert_eq!(briefs(&mut core, at(1)), QUIET);
    core.upsert_entry(running(1, "a"), at(2));
    let over = holding(
        idle("a", "small"),
        1,
        1,
        ended(ExitCause::Exited { code: 0 }),
    );
    core.upsert_worker(probed(over, 3), at(3));
    assert_eq!(briefs(&mut core, at(3)), QUIET);
    core.upsert_entry(in_state(1, ContainerState::Complete), at(4));
    assert_eq!(briefs(&mut core, at(4)), ["acknowledge 1#1 a"]);
    core.upsert_worker(probed(idle("a", "small"), 5), at(5));
    assert_eq!(briefs(&mut core, at(5)), ["forget 1"]);
    core.remove_entry(uuid(1), at(6));
    assert_eq!(briefs(&mut core, at(6)), QUIET);
    assert_eq!(core.reason(uuid(1), at(6)), None);
}

#[test]
fn without_recorded_placements_a_lock_of_ours_is_started_at_once() {
    let scene = scene().arvados().entry(queued(1));
    let mut core = scene.worker(idle("a", "small")).core();
    assert_eq!(briefs(&mut core, at(1)), ["lock 1 a"]);
    core.upsert_entry(locked(1), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["start 1#1 a"]);
}

#[test]
fn a_locked_container_found_after_a_restart_waits_for_whom_it_could_be_on() {
    let held = stopped_taking(probed(idle("b", "small"), 0));
    let mut silent = held.clone();
    silent.probed_at = None;
    silent.state = WorkerState::Unknown;
    let other = booting("c", "large");
    let scene = scene()
        .arvados()
        .limits(|l| l.absence_is_evidence = true)
        .entry(locked(1))
        .worker(probed(idle("a", "small"), 1))
        .worker(other)
        .worker(silent);
    let mut core = scene.gives(QUIET, "an earlier attempt may still run on b");
    // The remedy that the reason names: it answers. A large one is not eligible and does not count.
    core.upsert_worker(probed(held, 2), at(2));
    assert_eq!(briefs(&mut core, at(2)), ["start 1#1 a"]);
}

#[test]
fn absence_from_the_list_is_no_evidence_by_itself() {
    let start = || {
        scene()
            .arvados()
            .entry(locked(1))
            .worker(probed(idle("a", "small"), 1))
    };
    start().gives(QUIET, "may still run on an instance that has not answered");
    start()
        .limits(|l| l.absence_is_evidence = true)
        .gives(&["start 1#1 a"], "starting on a");
}

#[test]
fn arvados_running_without_a_process_is_lost_once_the_queue_is_newer() {
    let mut core = scene()
        .arvados()
        .limits(|l| l.absence_is_evidence = true)
        .entry(running(1, "x"))
        .worker(probed(idle("a", "small"), 1))
        .gives(QUIET, "");
    let mut newer = running(1, "x");
    newer.as_of = at(2);
    core.upsert_entry(newer, at(3));
    assert_eq!(
        briefs(&mut core, at(3)),
        ["lost 1#1: its supervisor was lost"]
    );
}

#[test]
fn arvados_running_after_every_place_was_ruled_out_is_looked_for_again() {
    // An earlier process has locked it; every instance that it could be on says that it is not.
    let mut core = scene()
        .arvados()
        .limits(|l| (l.absence_is_evidence, l.accept_new) = (true, false))
        .entry(locked(1))
        .worker(probed(idle("a", "small"), 2))
        .core();
    assert_eq!(briefs(&mut core, at(3)), QUIET);
    // A start that was late gets there nevertheless.
    let mut begun = with(locked(1), |c| c.state = ContainerState::Running);
    begun.as_of = at(4);
    core.upsert_entry(begun.clone(), at(4));
    assert_eq!(briefs(&mut core, at(4)), QUIET);
    let said = core.reason(uuid(1), at(4)).unwrap().to_string();
    assert!(said.contains("may still run on a"), "{said}");
    // It is not there when asked again, and has not ended since: then it is lost.
    core.upsert_worker(probed(idle("a", "small"), 5), at(5));
    assert_eq!(briefs(&mut core, at(5)), QUIET);
    begun.as_of = at(6);
    core.upsert_entry(begun, at(6));
    assert_eq!(
        briefs(&mut core, at(6)),
        ["lost 1#1: its supervisor was lost"]
    );
}

#[test]
fn arvados_running_where_an_earlier_start_went_astray_is_there_and_not_lost() {
    let entry = queued(1);
    let mut core = scene()
        .arvados()
        .entry(entry)
        .worker(idle("b", "small"))
        .core();
    assert_eq!(briefs(&mut core, at(1)), ["lock 1 b"]);
    core.upsert_entry(locked(1), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["start 1#1 b"]);
    core.upsert_worker(holding(idle("b", "small"), 1, 1, HeldPhase::Running), at(2));
    core.upsert_worker(holding(idle("a", "small"), 1, 0, HeldPhase::Running), at(2));
    // The controller lets one runner run it, and this is not the one.
    core.upsert_worker(probed(idle("b", "small"), 3), at(3));
    let mut begun = with(locked(1), |c| c.state = ContainerState::Running);
    for seconds in [4, 5, 6] {
        begun.as_of = at(seconds);
        core.upsert_entry(begun.clone(), at(seconds));
        assert_eq!(briefs(&mut core, at(seconds)), QUIET);
    }
    for id in ["a", "b"] {
        core.upsert_worker(probed(idle(id, "small"), 7), at(7));
    }
    assert_eq!(briefs(&mut core, at(7)), QUIET);
    begun.as_of = at(8);
    core.upsert_entry(begun, at(8));
    let lost = briefs(&mut core, at(8));
    assert_eq!(lost, ["lost 1#1: its supervisor was lost"]);
}

#[test]
fn arvados_running_after_its_end_was_seen_is_looked_for_there_again() {
    // Of two starts of one attempt the second was taken for the one that counts, and has ended.
    let mut core = scene()
        .arvados()
        .entry(queued(1))
        .worker(idle("a", "small"))
        .core();
    assert_eq!(briefs(&mut core, at(1)), ["lock 1 a"]);
    core.upsert_entry(locked(1), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["start 1#1 a"]);
    core.upsert_worker(holding(idle("a", "small"), 1, 1, HeldPhase::Running), at(2));
    assert_eq!(briefs(&mut core, at(2)), QUIET);
    core.upsert_worker(probed(idle("a", "small"), 3), at(3));
    assert_eq!(briefs(&mut core, at(3)), QUIET);
    // The first one gets there, and nobody has asked since.
    let mut begun = with(locked(1), |c| c.state = ContainerState::Running);
    for seconds in [4, 5, 6] {
        begun.as_of = at(seconds);
        core.upsert_entry(begun.clone(), at(seconds));
        assert_eq!(briefs(&mut core, at(seconds)), QUIET);
    }
    core.upsert_worker(probed(idle("a", "small"), 7), at(7));
    assert_eq!(briefs(&mut core, at(7)), QUIET);
    begun.as_of = at(8);
    core.upsert_entry(begun, at(8));
    let lost = briefs(&mut core, at(8));
    assert_eq!(lost, ["lost 1#1: its supervisor was lost"]);
}

#[test]
fn arvados_locked_whose_process_ended_is_lost_once_the_queue_is_newer() {
    let mut core = scene()
        .arvados()
        .entry(locked(1))
        .worker(holding(idle("a", "small"), 1, 0, HeldPhase::Running))
        .gives(QUIET, "");
    core.upsert_worker(probed(idle("a", "small"), 4), at(4));
    assert_eq!(briefs(&mut core, at(4)), QUIET);
    let mut newer = locked(1);
    newer.as_of = at(5);
    core.upsert_entry(newer, at(6));
    assert_eq!(
        briefs(&mut core, at(6)),
        ["lost 1#1: its supervisor was lost"]
    );
}

#[test]
fn running_where_it_was_placed() {
    let start = || scene().entry(running(1, "a"));
    let known_there = holding(idle("a", "small"), 1, 1, HeldPhase::Running);
    start().worker(known_there).gives(QUIET, "");
    start()
        .worker(probed(idle("a", "small"), 1))
        .gives(&["lost 1#1: its supervisor was lost"], "");
    // Asked no later than the record was read: proves nothing.
    start()
        .worker(probed(idle("a", "small"), 0))
        .gives(QUIET, "");
    start()
        .worker(booting("a", "small"))
        .gives(QUIET, "may still run on a");
    start().gives(QUIET, "may still run on a");
    start()
        .limits(|l| l.absence_is_evidence = true)
        .gives(&["lost 1#1: its instance was lost"], "");
    let over = holding(idle("a", "small"), 1, 1, ended(ExitCause::TimeLimit));
    start().worker(probed(over, 5)).gives(QUIET, "");
}

#[test]
fn removing_the_worker_that_may_run_it_loses_it() {
    for entry in [running(1, "a"), placed(1, "a")] {
        let held = holding(idle("a", "small"), 1, 1, HeldPhase::Running);
        let mut core = scene().entry(entry).worker(held).core();
        assert_eq!(briefs(&mut core, at(1)), QUIET);
        core.remove_worker(&"a".into(), at(2));
        assert_eq!(
            briefs(&mut core, at(2)),
            ["lost 1#1: its instance was lost"]
        );
    }
}

#[test]
fn locked_where_it_was_placed() {
    let start = || scene().entry(placed(1, "a")).worker(idle("b", "small"));
    start().gives(QUIET, "may still run on a");
    start()
        .worker(booting("a", "small"))
        .gives(QUIET, "may still run on a");
    start()
        .worker(idle("a", "small"))
        .gives(&["start 1#1 a"], "starting on a");
    start().limits(|l| l.absence_is_evidence = true).gives(
        &["lost 1#1: its instance was lost"],
        "waiting for the controller",
    );
    let stale = holding(idle("a", "small"), 1, 1, HeldPhase::Stale);
    start().worker(stale).gives(QUIET, "may still run on a");
    let over = holding(idle("a", "small"), 1, 1, ended(ExitCause::Killed));
    start().worker(over).gives(QUIET, "");
    let gone = WorkerView {
        state: WorkerState::Shutdown,
        ..idle("a", "small")
    };
    start().worker(gone).gives(QUIET, "may still run on a");
}

#[test]
fn a_place_that_takes_nothing_more_is_left_unless_it_was_started_there() {
    let held = stopped_taking(idle("a", "small"));
    let mut core = scene()
        .entry(placed(1, "a"))
        .worker(held.clone())
        .worker(idle("b", "small"))
        .gives(&["withdraw 1#1 a"], "to stop");
    core.upsert_worker(holding(held.clone(), 1, 1, HeldPhase::Starting), at(2));
    assert_eq!(briefs(&mut core, at(2)), QUIET);
    core.upsert_worker(held, at(3));
    assert_eq!(briefs(&mut core, at(3)), ["unlock 1"]);
    core.upsert_entry(with(queued(1), |c| c.lock_count = 1), at(4));
    assert_eq!(briefs(&mut core, at(4)), ["lock 1 b"]);
}

#[test]
fn what_was_started_before_it_was_withdrawn_goes_on_and_can_be_killed() {
    let held = stopped_taking(idle("a", "small"));
    let mut core = scene()
        .entry(placed(1, "a"))
        .worker(held.clone())
        .gives(&["withdraw 1#1 a"], "to stop");
    core.upsert_worker(holding(held.clone(), 1, 1, HeldPhase::Starting), at(2));
    assert_eq!(briefs(&mut core, at(2)), QUIET);
    core.upsert_worker(holding(held.clone(), 1, 1, HeldPhase::Running), at(3));
    assert_eq!(briefs(&mut core, at(3)), QUIET);
    core.upsert_entry(with(placed(1, "a"), |c| c.priority = 0), at(4));
    assert_eq!(briefs(&mut core, at(4)), ["kill 1#1 a"]);
}

#[test]
fn room_is_kept_for_what_is_withdrawn_from_the_wish_on() {
    let boots = probed(booting("a", "medium"), 1);
    scene()
        .entry(placed(1, "a"))
        .entry(with(queued(2), |c| c.request = request(4)))
        .worker(boots)
        .gives(&["withdraw 1#1 a", "create medium"], "to stop");
}

/// Two that an earlier process may have started where only one of them fits.
fn two_for_one_place() -> Scene {
    let whole = |entry| with(entry, |c| c.request = request(2));
    scene()
        .entry(whole(placed(1, "a")))
        .entry(whole(placed(2, "a")))
        .worker(idle("a", "small"))
}

#[test]
fn of_those_that_may_start_unasked_and_do_not_fit_together_one_is_withdrawn_first() {
    let mut core = two_for_one_place().core();
    assert_eq!(briefs(&mut core, at(1)), ["withdraw 2#1 a"]);
    let mut settling = holding(idle("a", "small"), 2, 1, HeldPhase::Starting);
    settling.granted = settling.capacity;
    core.upsert_worker(settling, at(2));
    assert_eq!(briefs(&mut core, at(2)), QUIET);
    // It will never start: now the other one may.
    core.upsert_worker(idle("a", "small"), at(3));
    assert_eq!(briefs(&mut core, at(3)), ["start 1#1 a", "unlock 2"]);
}

#[test]
fn nothing_is_withdrawn_for_one_that_is_at_its_last_attempt() {
    let mut core = two_for_one_place().core();
    core.upsert_entry(
        with(placed(2, "a"), |c| {
            (c.lock_count, c.request) = (10, request(2));
        }),
        at(1),
    );
    assert_eq!(briefs(&mut core, at(1)), ["start 1#1 a"]);
}

#[test]
fn room_is_kept_for_what_may_start_unasked_while_the_controller_is_asked_about_it() {
    let mut asked = with(placed(1, "a"), |c| c.request = request(2));
    asked.call_in_flight = true;
    let mut core = scene()
        .entry(asked)
        .entry(locked(2))
        .worker(idle("a", "small"))
        .core();
    let all = briefs(&mut core, at(1));
    assert!(!all.iter().any(|action| action.ends_with("2 a")), "{all:?}");
}

#[test]
fn the_last_attempt_is_not_given_up_for_our_convenience() {
    let start = |count, priority| {
        scene()
            .entry(with(placed(1, "a"), |c| {
                c.lock_count = count;
                c.priority = priority;
            }))
            .worker(stopped_taking(idle("a", "small")))
    };
    start(9, 1).gives(&["withdraw 1#9 a"], "to stop");
    start(10, 1).gives(QUIET, "no further attempt is allowed");
    start(10, 0).gives(&["kill 1#10 a"], "to stop");
}

#[test]
fn attempts_whose_machines_were_lost_are_not_tries_where_the_controller_counts_those() {
    let held = || stopped_taking(idle("a", "small"));
    let start = |given_back| {
        let eleventh = with(placed(1, "a"), |c| {
            (c.lock_count, c.given_back) = (11, Some(given_back));
        });
        scene().entry(eleventh).worker(held())
    };
    start(8).gives(&["withdraw 1#11 a"], "to stop");
    start(9).gives(QUIET, "no further attempt is allowed");
}

#[test]
fn a_kill_is_not_taken_back_by_a_higher_priority() {
    let zero = with(placed(1, "a"), |c| c.priority = 0);
    let mut core = scene()
        .entry(zero)
        .worker(idle("a", "small"))
        .gives(&["kill 1#1 a"], "to stop");
    core.upsert_entry(placed(1, "a"), at(2));
    assert_eq!(briefs(&mut core, at(2)), QUIET);
    core.upsert_worker(idle("a", "small"), at(3));
    assert_eq!(briefs(&mut core, at(3)), ["unlock 1"]);
}

#[test]
fn a_start_that_was_surely_refused_is_not_an_attempt_that_was_lost() {
    let start = Action::Start {
        uuid: uuid(1),
        attempt: Attempt(1),
        instance: "a".into(),
        resources: Resources::NONE,
    };
    let refused = |view: WorkerView| {
        let mut core = scene()
            .entry(placed(1, "a"))
            .worker(idle("a", "small"))
            .gives(&["start 1#1 a"], "starting on a");
        let starting = holding(idle("a", "small"), 1, 1, HeldPhase::Starting);
        core.upsert_worker(starting, at(2));
        assert_eq!(briefs(&mut core, at(2)), QUIET);
        core.upsert_worker(probed(view, 3), at(3));
        core.action_failed(&start, "no route", at(3));
        core
    };
    let mut core = refused(idle("a", "small"));
    assert_eq!(briefs(&mut core, at(3)), QUIET);
    assert_eq!(briefs(&mut core, at(10)), ["start 1#1 a"]);
    let mut core = refused(stopped_taking(idle("a", "small")));
    assert_eq!(briefs(&mut core, at(10)), ["withdraw 1#1 a"]);
}

#[test]
fn an_attempt_that_was_seen_and_vanished_is_lost_not_started_again() {
    let mut core = scene()
        .entry(placed(1, "a"))
        .worker(holding(idle("a", "small"), 1, 1, HeldPhase::Running))
        .gives(QUIET, "");
    core.upsert_worker(probed(idle("a", "small"), 5), at(5));
    assert_eq!(
        briefs(&mut core, at(5)),
        ["lost 1#1: its supervisor was lost"]
    );
}

#[test]
fn processes_that_should_not_be_are_killed_and_results_nobody_needs_acknowledged() {
    let at_two = |state| {
        with(in_state(1, state), |c| {
            c.lock_count = 2;
            c.locked_by_us = true;
            c.placed_on = Some("b".into());
        })
    };
    use ContainerState::*;
    for (state, attempt, ends) in [
        (Queued, 1, true),
        (Queued, 2, true),
        (Complete, 2, true),
        (Cancelled, 2, true),
        (Locked, 1, true),
        (Running, 1, true),
        (Locked, 2, false),
        (Running, 2, false),
    ] {
        let claim = |phase| {
            scene()
                .entry(at_two(state))
                .worker(holding(idle("a", "small"), 1, attempt, phase))
                .worker(holding(idle("b", "small"), 9, 1, HeldPhase::Running))
        };
        for phase in [HeldPhase::Starting, HeldPhase::Running, HeldPhase::Stale] {
            let all = briefs(&mut claim(phase).core(), at(1));
            let kill = format!("kill 1#{attempt} a");
            assert_eq!(all.contains(&kill), ends, "{state} #{attempt}: {all:?}");
            // Nobody else pays for a claim.
            assert!(!all.iter().any(|a| a.starts_with("kill 9")));
        }
        for phase in [HeldPhase::Killing, HeldPhase::GivenUp] {
            let all = briefs(&mut claim(phase).core(), at(1));
            assert!(!all.iter().any(|a| a.starts_with("kill")), "{all:?}");
        }
        let all = briefs(&mut claim(ended(ExitCause::Killed)).core(), at(1));
        let thanks = format!("acknowledge 1#{attempt} a");
        assert_eq!(all.contains(&thanks), ends, "{state} #{attempt}: {all:?}");
    }
}

#[test]
fn a_claim_for_what_is_placed_elsewhere_changes_nothing_there() {
    let liar = holding(idle("a", "small"), 1, 1, HeldPhase::Running);
    let honest = holding(idle("b", "small"), 1, 1, HeldPhase::Running);
    scene()
        .entry(running(1, "b"))
        .worker(liar.clone())
        .worker(honest)
        .gives(QUIET, "");
    scene()
        .entry(placed(1, "b"))
        .worker(liar)
        .worker(idle("b", "small"))
        .gives(QUIET, "may still run on a");
}

#[test]
fn a_process_unknown_to_the_controller_is_killed_only_on_newer_knowledge() {
    let mut core = scene()
        .worker(holding(idle("a", "small"), 1, 1, HeldPhase::Running))
        .gives(QUIET, "absent");
    core.confirm_absent(uuid(1), at(0), at(2));
    assert_eq!(briefs(&mut core, at(2)), QUIET, "older than the claim");
    core.confirm_absent(uuid(1), at(2), at(2));
    assert_eq!(briefs(&mut core, at(2)), ["kill 1#1 a"]);
    let over = holding(idle("a", "small"), 1, 1, ended(ExitCause::Killed));
    core.upsert_worker(over, at(3));
    // The claim is the same as before, so what is known of the queue is newer.
    assert_eq!(briefs(&mut core, at(3)), ["acknowledge 1#1 a"]);
}

#[test]
fn priority_zero() {
    let zero = |entry| with(entry, |c| c.priority = 0);
    let held = holding(idle("a", "small"), 1, 1, HeldPhase::Running);
    scene()
        .entry(zero(queued(1)))
        .gives(&["forget 1"], "raise it");
    scene()
        .entry(zero(locked(1)))
        .gives(&["unlock 1"], "waiting for the controller");
    for entry in [zero(running(1, "a")), zero(placed(1, "a"))] {
        scene()
            .entry(entry)
            .worker(held.clone())
            .gives(&["kill 1#1 a"], "to stop");
    }
    scene()
        .entry(with(queued(1), |c| c.priority = -7))
        .gives(&["forget 1"], "raise it");
}

#[test]
fn final_entries_are_forgotten_once_no_process_is_left() {
    for state in [ContainerState::Complete, ContainerState::Cancelled] {
        scene().entry(in_state(1, state)).gives(&["forget 1"], "");
        let held = holding(idle("a", "small"), 1, 0, HeldPhase::Running);
        scene()
            .entry(in_state(1, state))
            .worker(held)
            .gives(&["kill 1#0 a"], "on a to stop");
    }
}

#[test]
fn what_still_runs_of_a_final_entry_is_told_while_a_call_is_under_way_too() {
    for state in [ContainerState::Complete, ContainerState::Cancelled] {
        let mut entry = in_state(1, state);
        entry.call_in_flight = true;
        let held = holding(idle("a", "small"), 1, 0, HeldPhase::Running);
        scene()
            .entry(entry)
            .worker(held)
            .gives(QUIET, "on a to stop");
    }
}

#[test]
fn nothing_is_done_about_an_entry_with_a_call_in_flight() {
    let held = holding(idle("a", "small"), 1, 1, HeldPhase::Running);
    let entries = ContainerState::ALL.map(|state| {
        with(in_state(1, state), |c| {
            c.locked_by_us = true;
            c.lock_count = 2;
        })
    });
    for mut entry in entries {
        for priority in [0, 5] {
            entry.container.priority = priority;
            entry.call_in_flight = true;
            let scene = scene().entry(entry.clone());
            assert_eq!(briefs(&mut scene.worker(held.clone()).core(), at(1)), QUIET);
        }
    }
}

#[test]
fn another_dispatchers_lock_is_left_alone() {
    for state in [ContainerState::Locked, ContainerState::Running] {
        let entry = with(in_state(1, state), |c| c.priority = 0);
        scene()
            .entry(entry)
            .worker(holding(idle("a", "small"), 1, 7, HeldPhase::Running))
            .gives(QUIET, "another dispatcher");
    }
}

#[test]
fn what_is_left_of_an_earlier_attempt_ends_when_another_dispatcher_has_the_container() {
    for state in [ContainerState::Locked, ContainerState::Running] {
        let theirs = with(in_state(1, state), |c| c.lock_count = 2);
        let left = |phase| {
            let worker = holding(idle("a", "small"), 1, 1, phase);
            scene().entry(theirs.clone()).worker(worker)
        };
        left(HeldPhase::Running).gives(&["kill 1#1 a"], "another dispatcher");
        let cause = ExitCause::Exited { code: 0 };
        left(ended(cause)).gives(&["acknowledge 1#1 a"], "another dispatcher");
    }
}

#[test]
fn what_nothing_satisfies_is_locked_and_cancelled_with_the_nearest_types() {
    let huge = |entry| with(entry, |c| c.request = request(99));
    scene()
        .entry(huge(queued(1)))
        .gives(&["lock 1"], "waiting for the controller");
    let mut core = scene().entry(huge(locked(1))).core();
    let Action::Cancel { error, .. } = core.poll_action(at(1)).unwrap() else {
        panic!("it is to be cancelled");
    };
    assert!(
        error.contains("large has 8 vCPUs of 99 vCPUs needed"),
        "{error}"
    );
    // One that may run is not cancelled, whatever the configuration says today.
    scene()
        .entry(huge(running(1, "a")))
        .worker(holding(idle("a", "small"), 1, 1, HeldPhase::Running))
        .gives(QUIET, "");
    scene()
        .entry(huge(placed(1, "a")))
        .gives(QUIET, "may still run on a");
}

#[test]
fn shutting_down_begins_nothing_and_still_ends_things() {
    let start = || {
        scene()
            .limits(|l| l.accept_new = false)
            .worker(idle("a", "small"))
    };
    for entry in [queued(1), locked(1), placed(1, "a")] {
        assert_eq!(briefs(&mut start().entry(entry).core(), at(1)), QUIET);
    }
    start()
        .entry(queued(1))
        .gives(QUIET, "no new containers are started");
    start()
        .entry(with(locked(1), |c| c.priority = 0))
        .gives(&["unlock 1"], "waiting for the controller");
}

#[test]
fn failures_pause_one_container_longer_and_longer() {
    let mut core = scene().entry(queued(1)).worker(idle("a", "small")).core();
    let mut now = at(1);
    for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let actions = drain(&mut core, now);
        assert_eq!(actions.len(), 1, "{actions:?}");
        core.action_failed(&actions[0], "503", now);
        assert_eq!(briefs(&mut core, now), QUIET);
        assert_eq!(
            core.reason(uuid(1), now),
            Some(Reason::Pausing {
                remaining: std::time::Duration::from_secs(pause),
                error: "503".into()
            })
        );
        let due = core.poll_timeout().unwrap().at;
        assert_eq!(due, now + std::time::Duration::from_secs(pause));
        now = due;
    }
}

#[test]
fn what_instances_refuse_does_not_put_off_what_the_controller_is_told() {
    let mut core = scene()
        .entry(placed(1, "a"))
        .worker(idle("a", "small"))
        .limits(|l| l.absence_is_evidence = true)
        .core();
    let mut now = at(1);
    for _ in 0..9 {
        let start = drain(&mut core, now).remove(0);
        assert_eq!(brief(&start), "start 1#1 a");
        core.action_failed(&start, "refused", now);
        assert_eq!(briefs(&mut core, now), QUIET);
        now = core.poll_timeout().unwrap().at;
    }
    // It is started once more, and its instance is lost.
    let start = drain(&mut core, now).remove(0);
    core.action_failed(&start, "refused", now);
    core.upsert_worker(holding(idle("a", "small"), 1, 1, HeldPhase::Running), now);
    drain(&mut core, now);
    core.remove_worker(&"a".into(), now);
    let lost = drain(&mut core, now).remove(0);
    assert_eq!(brief(&lost), "lost 1#1: its instance was lost");
    core.action_failed(&lost, "503", now);
    let again = now + std::time::Duration::from_secs(1);
    assert_eq!(core.poll_timeout().unwrap().at, again);
    assert_eq!(
        briefs(&mut core, again),
        ["lost 1#1: its instance was lost"]
    );
}

#[test]
fn failed_creates_pause_their_type_only() {
    let mut core = scene().entry(queued(1)).core();
    core.upsert_entry(with(queued(2), |c| c.request = request(8)), at(1));
    let actions = drain(&mut core, at(1));
    assert_eq!(
        actions.iter().map(brief).collect::<Vec<_>>(),
        ["create small", "create large"]
    );
    core.action_failed(&actions[0], "no such image", at(1));
    assert_eq!(briefs(&mut core, at(1)), QUIET);
    let said = core.reason(uuid(1), at(1)).unwrap().to_string();
    assert!(said.contains("no such image"), "{said}");
    assert_eq!(core.poll_timeout().unwrap().at, at(2));
    assert_eq!(briefs(&mut core, at(2)), ["create small"]);
}

#[test]
fn an_answer_as_old_as_the_record_is_no_answer() {
    scene()
        .arvados()
        .limits(|l| l.absence_is_evidence = true)
        .entry(locked(1))
        .worker(probed(idle("a", "small"), 1))
        .worker(stopped_taking(probed(idle("b", "small"), 0)))
        .gives(QUIET, "an earlier attempt may still run on b");
}

#[test]
fn a_call_that_failed_does_not_keep_what_is_outdated_from_being_ended() {
    let mut core = Core::new(config());
    core.upsert_entry(with(running(1, "a"), |c| c.lock_count = 2), at(0));
    core.upsert_worker(idle("b", "small"), at(0));
    core.remove_worker(&"a".into(), at(0));
    let mut now = 0;
    for failures in 1..9 {
        let lost = core.poll_action(at(now)).unwrap();
        assert_eq!(brief(&lost), "lost 1#2: its instance was lost");
        core.action_failed(&lost, "the disk is full", at(now));
        assert_eq!(briefs(&mut core, at(now)), Vec::<String>::new());
        let Some(Reason::Pausing { error, remaining }) = core.reason(uuid(1), at(now)) else {
            panic!("{:?}", core.reason(uuid(1), at(now)));
        };
        assert_eq!(error, "the disk is full");
        let pause = (1_u64 << (failures - 1)).min(30);
        assert_eq!(remaining.as_secs(), pause, "after {failures} failures");
        now += pause;
    }
    let lost = core.poll_action(at(now)).unwrap();
    core.action_failed(&lost, "the disk is full", at(now));
    let old = holding(idle("b", "small"), 1, 1, HeldPhase::Running);
    core.upsert_worker(old, at(now));
    assert_eq!(briefs(&mut core, at(now)), ["kill 1#1 b"]);
}

/// Where runners number no attempts, a start of an earlier one may be let run as the latest.
#[test]
fn what_runs_though_its_start_was_refused_is_looked_for() {
    for refused_first in [true, false] {
        let mut core = Core::new(arvados());
        let limits = Limits {
            absence_is_evidence: true,
            ..Limits::default()
        };
        core.set_limits(limits, at(0));
        core.upsert_entry(queued(1), at(0));
        core.upsert_worker(idle("a", "small"), at(0));
        assert_eq!(briefs(&mut core, at(0)), ["lock 1 a"]);
        core.upsert_entry(locked(1), at(1));
        let start = core.poll_action(at(1)).unwrap();
        assert_eq!(brief(&start), "start 1#1 a");
        let runs = |core: &mut Core| {
            let seen = QueueEntry {
                as_of: at(2),
                ..with(locked(1), |c| c.state = ContainerState::Running)
            };
            core.upsert_entry(seen, at(2));
        };
        if refused_first {
            core.action_failed(&start, "refused", at(2));
            runs(&mut core);
        } else {
            runs(&mut core);
            core.action_failed(&start, "refused", at(2));
        }
        drain(&mut core, at(2));
        core.remove_worker(&"a".into(), at(3));
        drain(&mut core, at(3));
        let again = QueueEntry {
            as_of: at(4),
            ..with(locked(1), |c| c.state = ContainerState::Running)
        };
        core.upsert_entry(again, at(4));
        assert_eq!(
            briefs(&mut core, at(4)),
            ["lost 1#1: its supervisor was lost"],
            "refused first: {refused_first}"
        );
    }
}
