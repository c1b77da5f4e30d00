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
        (
            "lastlock",
            with(Locked, |life| life.lock_count = MAX_ATTEMPTS),
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

fn call(name: &str, lock_count: u32) -> Call {
    let ended = |attempt, cause| Call::Ended {
        attempt: Attempt(attempt),
        exit: Exit::unseen(cause),
    };
    let running = |attempt| Call::Running {
        attempt: Attempt(attempt),
        started_at: None,
    };
    let now = lock_count;
    match name {
        "lock" => Call::Lock { planned: None },
        "relock" => Call::Lock {
            planned: Some("i-1".into()),
        },
        "place" => Call::Place {
            instance: "i-2".into(),
        },
        "replace" => Call::Place {
            instance: "i-1".into(),
        },
        "unlock" => Call::Unlock,
        "cancel" => Call::Cancel {
            error: "because".into(),
        },
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

/// What each call makes of each state: the first letter of the new state (X for Cancelled),
/// `=` for "as it is", `-` for "refused".
const TABLE: &str = "
            queued new held locked lastlock lockcanc running runheld runcanc runlast complete cancelled
    lock    L      L   -    -      -        -        -       -       -       -       -        -
    relock  L      L   -    =      =        =        -       -       -       -       -        -
    place   -      -   -    L      L        L        -       -       -       -       -        -
    replace -      -   -    =      =        =        -       -       -       -       -        -
    unlock  =      -   =    Q      X        X        -       -       -       -       -        -
    cancel  X      X   X    X      X        X        X       X       X       X       -        =
    run     -      -   -    R      R        R        =       =       =       =       -        -
    run-old -      -   -    -      -        -        -       -       -       -       -        -
    run-new -      -   -    -      -        -        -       -       -       -       -        -
    exited  =      -   =    C      C        C        C       C       C       C       =        =
    signal  =      -   =    C      C        C        C       C       C       C       =        =
    limit   =      -   =    X      X        X        X       X       X       X       =        =
    killed  =      -   =    Q      Q        X        Q       X       X       Q       =        =
    notrun  =      -   =    X      X        X        X       X       X       X       =        =
    suplost =      -   =    Q      Q        X        Q       Q       X       X       =        =
    inslost =      -   =    Q      Q        X        Q       Q       X       X       =        =
    end-old =      -   =    =      =        =        =       =       =       =       =        =
    end-new -      -   -    -      -        -        -       -       -       -       -        -
    end-0   -      -   -    -      -        -        -       -       -       -       -        -
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
            let outcome = after.apply(&call(name, before.lock_count), NOW, MAX_ATTEMPTS);
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
    assert_eq!(cells, 19 * 12);
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
    life.apply(&call("relock", 2), NOW, MAX_ATTEMPTS).unwrap();
    assert_eq!(
        (life.lock_count, life.placed_on.clone()),
        (3, Some("i-1".into()))
    );
    life.apply(&call("place", 3), NOW, MAX_ATTEMPTS).unwrap();
    assert_eq!(life.placed_on, Some("i-2".into()));
    life.apply(&Call::Unlock, NOW, MAX_ATTEMPTS).unwrap();
    assert_eq!((life.lock_count, life.placed_on), (3, None));
}

#[test]
fn a_used_up_unlock_says_why() {
    let mut life = life(Locked);
    life.lock_count = MAX_ATTEMPTS;
    life.apply(&Call::Unlock, NOW, MAX_ATTEMPTS).unwrap();
    let error = life.error.clone().unwrap();
    assert!(error.contains("10 attempts"), "{error}");
    // The reply was lost.
    assert_eq!(
        life.apply(&Call::Unlock, NOW, MAX_ATTEMPTS),
        Ok(Verdict::AsItIs)
    );
}

#[test]
fn losses_use_up_retries_and_kills_do_not() {
    let mut life = life(Running);
    life.apply(&call("killed", 2), NOW, MAX_ATTEMPTS).unwrap();
    assert_eq!((life.state, life.retries_left), (Queued, 1));
    for (left, state) in [(0, Queued), (0, Cancelled)] {
        life.apply(&call("lock", 0), NOW, MAX_ATTEMPTS).unwrap();
        let attempt = life.lock_count;
        life.apply(&call("inslost", attempt), NOW, MAX_ATTEMPTS)
            .unwrap();
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
        "killed", "inslost", "inslost", "suplost", "end-old", "end-new", "request", "hold",
        "raise",
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
                name => life.apply(&call(name, before.lock_count), NOW, MAX_ATTEMPTS),
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
