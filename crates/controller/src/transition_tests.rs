use longshore_types::ContainerState::{Cancelled, Complete, Locked, Queued, Running};
use proptest::prelude::*;

use super::*;

const MAX_ATTEMPTS: u32 = 10;
const NOW: Timestamp = Timestamp(1000);

fn life(state: ContainerState) -> Life {
    Life {
        state,
        priority: 500,
        lock_count: 2,
        given_back: 1,
        placed_on: matches!(state, Locked | Running).then(|| "i-1".into()),
        retries_left: 1,
        cancel_requested: false,
        exit: None,
        error: None,
        started_at: None,
        finished_at: None,
    }
}

/// The states of the table's rows.
fn rows() -> Vec<(&'static str, Life)> {
    let with = |state, change: fn(&mut Life)| {
        let mut life = life(state);
        change(&mut life);
        life
    };
    vec![
        ("queued", life(Queued)),
        ("new", with(Queued, |life| life.lock_count = 0)),
        ("held", with(Queued, |life| life.priority = 0)),
        ("locked", life(Locked)),
        ("unplaced", with(Locked, |life| life.placed_on = None)),
        (
            "lastlock",
            with(Locked, |life| life.given_back = MAX_ATTEMPTS - 1),
        ),
        ("lockcanc", with(Locked, cancelled_on_request)),
        ("running", life(Running)),
        ("runheld", with(Running, |life| life.priority = 0)),
        ("runcanc", with(Running, cancelled_on_request)),
        ("runlast", with(Running, |life| life.retries_left = 0)),
        ("complete", life(Complete)),
        ("cancelled", life(Cancelled)),
    ]
}

fn cancelled_on_request(life: &mut Life) {
    life.cancel_requested = true;
    life.priority = 0;
}

fn call(name: &str, life: &Life) -> Call {
    let lock = |attempt, planned: Option<&str>| Call::Lock {
        attempt: Attempt(attempt),
        planned: planned.map(InstanceId::from),
    };
    let place = |attempt, instance: &str| Call::Place {
        attempt: Attempt(attempt),
        instance: instance.into(),
    };
    let unlock = |attempt, placed_on: Option<&str>| Call::Unlock {
        attempt: Attempt(attempt),
        placed_on: placed_on.map(InstanceId::from),
    };
    let cancel = |attempt, placed_on| Call::Cancel {
        attempt: Attempt(attempt),
        placed_on,
        error: "because".into(),
    };
    let placed_on = life.placed_on.clone();
    let ended = |attempt, cause| Call::Ended {
        attempt: Attempt(attempt),
        exit: Exit::unseen(cause),
    };
    let running = |attempt| Call::Running {
        attempt: Attempt(attempt),
        started_at: None,
    };
    let now = life.lock_count;
    match name {
        "lock" => lock(now + 1, None),
        "lock-on" => lock(now + 1, Some("i-1")),
        "lock-old" => lock(now, None),
        "relock" => lock(now, Some("i-1")),
        "place" => place(now, "i-2"),
        "replace" => place(now, "i-1"),
        "plac-old" => place(now.saturating_sub(1), "i-1"),
        "unlock" => unlock(now, Some("i-1")),
        "unl-none" => unlock(now, None),
        "unl-old" => unlock(now.saturating_sub(1), Some("i-1")),
        "unl-new" => unlock(now + 1, None),
        "cancel" => cancel(now, placed_on),
        "canc-els" => cancel(now, Some("i-2".into())),
        "canc-old" => cancel(now.saturating_sub(1), placed_on),
        "run" => running(now),
        "run-old" => running(now.saturating_sub(1)),
        "run-new" => running(now + 1),
        "exited" => ended(now, ExitCause::Exited { code: 3 }),
        "signal" => ended(now, ExitCause::Signaled { signal: 9 }),
        "limit" => ended(now, ExitCause::TimeLimit),
        "killed" => ended(now, ExitCause::Killed),
        "notrun" => ended(
            now,
            ExitCause::NotStarted {
                error: "no such file".into(),
            },
        ),
        "suplost" => ended(now, ExitCause::SupervisorLost),
        "inslost" => ended(now, ExitCause::InstanceLost),
        "end-old" => ended(now.saturating_sub(1), ExitCause::Exited { code: 0 }),
        "end-new" => ended(now + 1, ExitCause::Exited { code: 0 }),
        "end-0" => ended(0, ExitCause::Exited { code: 0 }),
        other => panic!("{other}"),
    }
}

fn apply(life: &mut Life, name: &str) -> Result<Verdict, Refusal> {
    let call = call(name, life);
    life.apply(&call, NOW, MAX_ATTEMPTS)
}

/// What each call makes of each state: the first letter of the new state (X for Cancelled),
/// `=` for "as it is", `-` for "refused".
const TABLE: &str = "
             queued new held locked unplaced lastlock lockcanc running runheld runcanc runlast complete cancelled
    lock     L      L   -    -      -        -        -        -       -       -       -       -        -
    lock-on  L      L   -    -      -        -        -        -       -       -       -       -        -
    lock-old -      -   -    -      =        -        -        -       -       -       -       -        -
    relock   -      -   -    =      -        =        =        -       -       -       -       -        -
    place    -      -   -    -      L        -        -        -       -       -       -       -        -
    replace  -      -   -    =      L        =        =        -       -       -       -       -        -
    plac-old -      -   -    -      -        -        -        -       -       -       -       -        -
    unlock   =      -   =    Q      -        X        X        -       -       -       -       -        -
    unl-none =      -   =    -      Q        -        -        -       -       -       -       -        -
    unl-old  =      -   =    =      =        =        =        =       =       =       =       =        =
    unl-new  -      -   -    -      -        -        -        -       -       -       -       -        -
    cancel   X      X   X    X      X        X        X        X       X       X       X       -        =
    canc-els -      -   -    -      -        -        -        -       -       -       -       -        =
    canc-old -      X   -    -      -        -        -        -       -       -       -       -        =
    run      -      -   -    R      R        R        R        =       =       =       =       -        -
    run-old  -      -   -    -      -        -        -        -       -       -       -       -        -
    run-new  -      -   -    -      -        -        -        -       -       -       -       -        -
    exited   =      -   =    C      C        C        C        C       C       C       C       =        =
    signal   =      -   =    C      C        C        C        C       C       C       C       =        =
    limit    =      -   =    X      X        X        X        X       X       X       X       =        =
    killed   =      -   =    Q      Q        Q        X        Q       X       X       Q       =        =
    notrun   =      -   =    Q      Q        Q        X        Q       Q       X       X       =        =
    suplost  =      -   =    Q      Q        Q        X        Q       Q       X       X       =        =
    inslost  =      -   =    Q      Q        Q        X        Q       Q       X       X       =        =
    end-old  =      -   =    =      =        =        =        =       =       =       =       =        =
    end-new  -      -   -    -      -        -        -        -       -       -       -       -        -
    end-0    -      -   -    -      -        -        -        -       -       -       -       -        -
";

#[test]
fn every_call_in_every_state() {
    let rows = rows();
    let mut lines = TABLE.trim().lines();
    let names: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        names,
        rows.iter().map(|(name, _)| *name).collect::<Vec<_>>()
    );
    let mut cells = 0;
    for line in lines {
        let mut fields = line.split_whitespace();
        let name = fields.next().unwrap();
        for ((row, before), expected) in rows.iter().zip(fields) {
            let mut after = before.clone();
            let outcome = apply(&mut after, name);
            let found = match outcome {
                Err(_) => "-",
                Ok(Verdict::AsItIs) => "=",
                Ok(Verdict::Changed) if after.state == Cancelled => "X",
                Ok(Verdict::Changed) => &after.state.as_str()[..1],
            };
            assert_eq!(found, expected, "{name} of {row}");
            if matches!(expected, "-" | "=") {
                assert_eq!(after, *before, "{name} of {row} changed something");
            } else {
                check_change(before, &after);
            }
            cells += 1;
        }
    }
    assert_eq!(cells, 27 * 13);
}

fn check_change(before: &Life, after: &Life) {
    assert_eq!(after.finished_at, after.state.is_final().then_some(NOW));
    assert_eq!(
        after.error.is_some(),
        after.state == Cancelled || retried(before, after)
    );
    let locked = before.state == Queued && after.state == Locked;
    assert_eq!(after.lock_count, before.lock_count + u32::from(locked));
    if after.state == Queued {
        assert_eq!(after.placed_on, None);
    }
}

fn retried(before: &Life, after: &Life) -> bool {
    after.retries_left < before.retries_left
}

#[test]
fn locking_and_placing_record_the_instance() {
    let mut life = life(Queued);
    apply(&mut life, "lock-on").unwrap();
    let placed = |life: &Life| (life.lock_count, life.placed_on.clone());
    assert_eq!(placed(&life), (3, Some("i-1".into())));
    assert!(apply(&mut life, "place").is_err(), "it may run on i-1");
    apply(&mut life, "unlock").unwrap();
    assert_eq!(placed(&life), (3, None));
    apply(&mut life, "lock").unwrap();
    apply(&mut life, "place").unwrap();
    assert_eq!(placed(&life), (4, Some("i-2".into())));
}

#[test]
fn a_used_up_unlock_says_why() {
    let mut life = life(Locked);
    life.given_back = MAX_ATTEMPTS - 1;
    apply(&mut life, "unlock").unwrap();
    let error = life.error.clone().unwrap();
    assert!(error.contains("10 times"), "{error}");
    // The reply was lost.
    assert_eq!(apply(&mut life, "unlock"), Ok(Verdict::AsItIs));
}

#[test]
fn attempts_that_ran_use_up_no_attempts_to_run_it() {
    for end in ["inslost", "notrun", "killed"] {
        let mut life = life(Queued);
        (life.given_back, life.retries_left) = (MAX_ATTEMPTS - 1, 50);
        for _ in 0..2 * MAX_ATTEMPTS {
            apply(&mut life, "lock-on").unwrap();
            apply(&mut life, end).unwrap();
        }
        for given_back in 1..=MAX_ATTEMPTS {
            apply(&mut life, "lock-on").unwrap();
            apply(&mut life, "unlock").unwrap();
            assert_eq!(life.state.is_final(), given_back == MAX_ATTEMPTS, "{end}");
        }
    }
}

#[test]
fn being_held_back_uses_up_nothing() {
    let mut life = life(Queued);
    for _ in 0..2 * MAX_ATTEMPTS {
        apply(&mut life, "lock-on").unwrap();
        life.set_priority(0).unwrap();
        apply(&mut life, "unlock").unwrap();
        life.set_priority(500).unwrap();
    }
    assert_eq!((life.state, life.given_back), (Queued, 1));
}

#[test]
fn losses_use_up_retries_and_kills_do_not() {
    let mut life = life(Running);
    apply(&mut life, "killed").unwrap();
    assert_eq!((life.state, life.retries_left), (Queued, 1));
    for (left, state) in [(0, Queued), (0, Cancelled)] {
        apply(&mut life, "lock").unwrap();
        apply(&mut life, "inslost").unwrap();
        assert_eq!((life.state, life.retries_left), (state, left));
    }
    assert!(life.error.unwrap().contains("no retries are left"));
}

#[test]
fn the_runners_clock_is_believed_for_display() {
    let mut life = life(Locked);
    let mut exit = Exit::unseen(ExitCause::Signaled { signal: 15 });
    exit.started_at = Some(Timestamp(5));
    exit.finished_at = Some(Timestamp(7));
    let attempt = Attempt(2);
    life.apply(
        &Call::Ended {
            attempt,
            exit: exit.clone(),
        },
        NOW,
        MAX_ATTEMPTS,
    )
    .unwrap();
    assert_eq!(life.started_at, Some(Timestamp(5)));
    assert_eq!(life.finished_at, Some(Timestamp(7)));
    assert_eq!(exit_code(&exit), Some(143));
}

#[test]
fn nothing_began_after_its_end() {
    let mut life = life(Running);
    life.started_at = Some(Timestamp(9));
    let mut exit = Exit::unseen(ExitCause::CannotRun {
        code: 127,
        error: "no such command".into(),
    });
    exit.finished_at = Some(Timestamp(7));
    life.ended(Attempt(2), &exit, NOW).unwrap();
    let times = (life.started_at, life.finished_at);
    assert_eq!(times, (Some(Timestamp(7)), Some(Timestamp(7))));
}

#[test]
fn what_the_job_is_to_blame_for_is_complete_and_never_retried() {
    let cannot_run = ExitCause::CannotRun {
        code: 127,
        error: "cannot run x: no such command".into(),
    };
    let limit = longshore_types::ByteSize::mib(64);
    for (cause, code) in [
        (cannot_run, 127),
        (ExitCause::OutOfMemory { limit }, 128 + 9),
    ] {
        let mut life = life(Running);
        life.retries_left = 3;
        let attempt = Attempt(life.lock_count);
        let exit = Exit::unseen(cause);
        let call = Call::Ended { attempt, exit };
        life.apply(&call, NOW, MAX_ATTEMPTS).unwrap();
        assert_eq!((life.state, life.retries_left), (Complete, 3));
        assert_eq!(life.exit.as_ref().and_then(exit_code), Some(code));
    }
}

#[test]
fn a_wish_to_cancel_is_kept() {
    let mut waiting = life(Queued);
    assert_eq!(waiting.request_cancel(NOW), Verdict::Changed);
    assert_eq!(waiting.state, Cancelled);
    assert_eq!(waiting.request_cancel(NOW), Verdict::AsItIs);
    for state in [Locked, Running] {
        let mut life = life(state);
        assert_eq!(life.request_cancel(NOW), Verdict::Changed);
        assert_eq!((life.state, life.priority), (state, 0));
        assert!(life.set_priority(500).is_err());
        assert_eq!(life.request_cancel(NOW), Verdict::AsItIs);
    }
    let mut done = life(Complete);
    assert_eq!(done.request_cancel(NOW), Verdict::AsItIs);
    assert!(done.set_priority(1).is_err());
}

fn any_call() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "lock", "lock", "relock", "place", "unlock", "cancel", "run", "run", "run-old", "exited",
        "killed", "inslost", "notrun", "suplost", "end-old", "end-new", "request", "hold", "raise",
    ])
}

proptest! {
    #[test]
    fn no_sequence_of_calls_breaks_the_rules(
        calls in prop::collection::vec(any_call(), 0..60),
        retries in 0u32..4,
    ) {
        let mut life = life(Queued);
        life.lock_count = 0;
        life.retries_left = retries;
        let mut losses = 0;
        for name in calls {
            let before = life.clone();
            let _ = match name {
                "request" => Ok(life.request_cancel(NOW)),
                "hold" => life.set_priority(0),
                "raise" => life.set_priority(500),
                name => apply(&mut life, name),
            };
            let by_way_of_running = before.state == Locked && Running.can_become(life.state);
            prop_assert!(
                before.state == life.state
                    || before.state.can_become(life.state)
                    || by_way_of_running
            );
            prop_assert!(!before.state.is_final() || life == before);
            prop_assert!(life.lock_count >= before.lock_count);
            prop_assert!(!life.cancel_requested || life.state != Queued, "it would wait for ever");
            prop_assert_eq!(life.state.is_final(), life.finished_at.is_some());
            losses += before.retries_left - life.retries_left;
        }
        prop_assert!(losses <= retries);
    }
}
