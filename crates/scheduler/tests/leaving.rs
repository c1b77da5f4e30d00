//! Leaving the place of an attempt that was not started there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use longshore_scheduler::Core;
use longshore_types::*;
use support::*;

const QUIET: &[&str] = &[];

/// Container 1 was locked by this core, as attempt `attempt`, to be started on "a".
fn locked_by_this(attempt: u32) -> (Core, QueueEntry) {
    let before = with(queued(1), |c| c.lock_count = attempt - 1);
    let mut core = Core::new(config());
    core.upsert_entry(before, at(1));
    core.upsert_worker(idle("a", "small"), at(1));
    assert_eq!(briefs(&mut core, at(1)), ["lock 1 a"]);
    (core, with(placed(1, "a"), |c| c.lock_count = attempt))
}

fn shut_down() -> WorkerView {
    WorkerView {
        state: WorkerState::Shutdown,
        ..idle("a", "small")
    }
}

fn held() -> WorkerView {
    WorkerView {
        idle_behavior: IdleBehavior::Hold,
        ..idle("a", "small")
    }
}

#[test]
fn a_place_where_no_start_was_sent_is_left_at_once() {
    type Leaving = fn(&mut Core, &mut QueueEntry);
    let ways: [Leaving; 4] = [
        |core, _| core.upsert_worker(shut_down(), at(2)),
        |core, _| core.upsert_worker(held(), at(2)),
        |core, _| core.remove_worker(&"a".into(), at(2)),
        |_, record| record.container.priority = 0,
    ];
    for leave in ways {
        let (mut core, mut record) = locked_by_this(1);
        leave(&mut core, &mut record);
        core.upsert_entry(record, at(2));
        assert_eq!(briefs(&mut core, at(2)), ["unlock 1"]);
    }
    let (mut core, record) = locked_by_this(1);
    core.upsert_worker(shut_down(), at(2));
    core.upsert_worker(idle("b", "small"), at(2));
    core.upsert_entry(record, at(2));
    assert_eq!(briefs(&mut core, at(2)), ["unlock 1"]);
    core.upsert_entry(with(queued(1), |c| c.lock_count = 1), at(3));
    assert_eq!(briefs(&mut core, at(3)), ["lock 1 b"]);
}

#[test]
fn a_place_where_a_start_was_sent_or_may_have_been_is_not_left() {
    // Sent, and nobody knows what became of it.
    let (mut core, record) = locked_by_this(1);
    core.upsert_entry(record.clone(), at(2));
    assert_eq!(briefs(&mut core, at(2)), ["start 1#1 a"]);
    core.upsert_worker(shut_down(), at(3));
    assert_eq!(briefs(&mut core, at(3)), QUIET);
    // Locked by an earlier process.
    let mut core = Core::new(config());
    core.upsert_entry(record, at(3));
    core.upsert_worker(shut_down(), at(3));
    assert_eq!(briefs(&mut core, at(3)), QUIET);
    // Seen there, whoever started it.
    let (mut core, record) = locked_by_this(1);
    core.upsert_worker(holding(idle("a", "small"), 1, 1, HeldPhase::Running), at(2));
    core.upsert_entry(record, at(2));
    assert_eq!(briefs(&mut core, at(2)), QUIET);
    core.upsert_worker(shut_down(), at(3));
    assert_eq!(briefs(&mut core, at(3)), QUIET);
}

#[test]
fn a_start_that_was_surely_refused_leaves_the_place_free_to_be_left() {
    let (mut core, record) = locked_by_this(1);
    core.upsert_entry(record, at(2));
    let start = core.poll_action(at(2)).unwrap();
    assert_eq!(brief(&start), "start 1#1 a");
    core.action_failed(&start, "it is shut down", at(2));
    core.upsert_worker(shut_down(), at(2));
    assert_eq!(briefs(&mut core, at(2)), ["unlock 1"]);
}

#[test]
fn the_last_attempt_waits_for_its_place_to_be_gone() {
    let (mut core, record) = locked_by_this(10);
    core.upsert_worker(shut_down(), at(2));
    core.upsert_entry(record, at(2));
    assert_eq!(briefs(&mut core, at(2)), QUIET);
    core.remove_worker(&"a".into(), at(3));
    assert_eq!(
        briefs(&mut core, at(3)),
        ["lost 1#10: its instance was lost"]
    );
}
