//! The cache's rules, one by one.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use longshore_queue::{Busy, Cache, Change, Delta, Refresh};
use longshore_types::{
    Container, ContainerState, ContainerUuid, Instant, ResourceRequest, Timestamp,
};

fn uuid(n: usize) -> ContainerUuid {
    format!("local-dz642-{n:015}").parse().unwrap()
}

fn at(n: u64) -> Instant {
    Instant::from_nanos(n)
}

fn record(n: usize, state: ContainerState, revision: u64) -> Container {
    Container {
        uuid: uuid(n),
        state,
        priority: 500,
        created_at: Timestamp(0),
        request: ResourceRequest::default(),
        supervisor: false,
        lock_count: 0,
        given_back: None,
        locked_by_us: false,
        placed_on: None,
        revision,
    }
}

fn listing(containers: Vec<Container>) -> Refresh {
    Refresh {
        containers,
        removed: Vec::new(),
    }
}

fn removal(n: usize) -> Refresh {
    Refresh {
        containers: Vec::new(),
        removed: vec![uuid(n)],
    }
}

fn pushed(record: Container) -> Change {
    Change::Updated(Box::new(record))
}

fn state(cache: &Cache, n: usize) -> Option<ContainerState> {
    cache.get(uuid(n)).map(|entry| entry.container.state)
}

use ContainerState::{Cancelled, Locked, Queued, Running};

#[test]
fn absence_alone_removes_nothing() {
    let mut cache = Cache::new();
    cache.handle_refresh(&listing(vec![record(1, Queued, 1)]), at(1), at(2));
    cache.handle_refresh(&listing(vec![]), at(3), at(4));
    assert_eq!(cache.known(), [uuid(1)]);
    assert_eq!(cache.get(uuid(1)).unwrap().as_of, at(1));
}

#[test]
fn one_call_at_a_time() {
    let mut cache = Cache::new();
    cache.begin_call(uuid(1), at(1)).unwrap();
    assert_eq!(cache.begin_call(uuid(1), at(2)), Err(Busy(uuid(1))));
    cache.begin_call(uuid(2), at(2)).unwrap();
    cache.finish_call(uuid(1), None, at(3));
    cache.begin_call(uuid(1), at(4)).unwrap();
    assert!(cache.is_empty());
}

#[test]
fn what_was_removed_stays_so_until_a_later_answer() {
    let mut cache = Cache::new();
    cache.handle_refresh(&listing(vec![record(1, Queued, 0)]), at(1), at(2));
    cache.handle_refresh(&removal(1), at(5), at(6));
    assert!(cache.is_empty());
    cache.handle_refresh(&listing(vec![record(1, Queued, 0)]), at(4), at(7));
    assert!(cache.is_empty());
    cache.handle_refresh(&listing(vec![record(1, Queued, 0)]), at(8), at(9));
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_removal_counts_only_if_nothing_was_written_since() {
    let mut cache = Cache::new();
    cache.handle_refresh(&listing(vec![record(1, Queued, 1)]), at(1), at(2));
    cache.begin_call(uuid(1), at(4)).unwrap();
    cache.handle_refresh(&removal(1), at(3), at(5));
    assert_eq!(state(&cache, 1), Some(Queued));
    cache.finish_call(uuid(1), Some(record(1, Locked, 2)), at(6));
    cache.handle_refresh(&removal(1), at(5), at(7));
    assert_eq!(state(&cache, 1), Some(Locked));
    cache.handle_refresh(&removal(1), at(7), at(8));
    assert_eq!(state(&cache, 1), None);
}

#[test]
fn a_pushed_removal_during_a_call_outlives_its_reply() {
    let mut cache = Cache::new();
    cache.handle_change(&pushed(record(1, Queued, 1)), at(1));
    cache.begin_call(uuid(1), at(2)).unwrap();
    cache.handle_change(&Change::Removed(uuid(1)), at(3));
    assert!(cache.get(uuid(1)).is_some_and(|entry| entry.call_in_flight));
    cache.finish_call(uuid(1), Some(record(1, Locked, 2)), at(4));
    assert!(cache.is_empty());
}

#[test]
fn pushed_records_are_ordered_by_revision_even_during_a_call() {
    let mut cache = Cache::new();
    cache.handle_change(&pushed(record(1, Queued, 5)), at(1));
    cache.handle_change(&pushed(record(1, Cancelled, 4)), at(2));
    assert_eq!(state(&cache, 1), Some(Queued));
    cache.begin_call(uuid(1), at(3)).unwrap();
    cache.handle_change(&pushed(record(1, Running, 7)), at(4));
    assert_eq!(state(&cache, 1), Some(Running));
    cache.finish_call(uuid(1), Some(record(1, Locked, 6)), at(5));
    assert_eq!(state(&cache, 1), Some(Running));
}

#[test]
fn a_pushed_record_without_revision_waits_for_the_call() {
    let mut cache = Cache::new();
    cache.handle_change(&pushed(record(1, Queued, 0)), at(1));
    cache.begin_call(uuid(1), at(2)).unwrap();
    cache.handle_change(&pushed(record(1, Running, 0)), at(3));
    assert_eq!(state(&cache, 1), Some(Queued));
}

#[test]
fn what_was_forgotten_is_not_brought_back_by_the_change_it_was_forgotten_for() {
    let mut cache = Cache::new();
    cache.handle_change(&pushed(record(1, Running, 1)), at(1));
    cache.forget(uuid(1));
    assert_eq!(cache.len(), 1);
    cache.handle_change(&pushed(record(1, Cancelled, 2)), at(2));
    cache.forget(uuid(1));
    assert!(cache.is_empty());
    for revision in [1, 2] {
        cache.handle_change(&pushed(record(1, Cancelled, revision)), at(3));
        assert!(cache.is_empty());
    }
    cache.handle_change(&pushed(record(1, Queued, 3)), at(4));
    assert_eq!(state(&cache, 1), Some(Queued));
}

#[test]
fn deltas_are_coalesced() {
    let mut cache = Cache::new();
    cache.handle_change(&pushed(record(1, Queued, 1)), at(1));
    cache.handle_change(&pushed(record(1, Locked, 2)), at(2));
    cache.handle_change(&pushed(record(2, Queued, 3)), at(2));
    cache.handle_change(&Change::Removed(uuid(2)), at(3));
    assert!(
        matches!(cache.poll_delta(), Some(Delta::Upsert(entry)) if entry.container.revision == 2)
    );
    assert_eq!(cache.poll_delta(), Some(Delta::Remove(uuid(2))));
    assert_eq!(cache.poll_delta(), None);
}

#[test]
fn without_revisions_what_was_asked_for_earlier_counts_less() {
    let mut cache = Cache::new();
    cache.handle_refresh(&listing(vec![record(1, Running, 0)]), at(3), at(4));
    cache.handle_refresh(&listing(vec![record(1, Queued, 0)]), at(2), at(5));
    assert_eq!(state(&cache, 1), Some(Running));
    assert_eq!(cache.get(uuid(1)).unwrap().as_of, at(3));
}

#[test]
fn an_answer_with_a_larger_revision_is_taken_whatever_was_written_since() {
    let mut cache = Cache::new();
    cache.handle_refresh(&listing(vec![record(1, Queued, 1)]), at(1), at(2));
    cache.begin_call(uuid(1), at(3)).unwrap();
    cache.handle_refresh(&listing(vec![record(1, Locked, 2)]), at(2), at(4));
    assert_eq!(state(&cache, 1), Some(Locked), "during a call");
    // Asked for at the moment at which a call ended of which nobody knows what it did.
    cache.finish_call(uuid(1), None, at(5));
    cache.handle_refresh(&listing(vec![record(1, Running, 3)]), at(5), at(6));
    assert_eq!(state(&cache, 1), Some(Running), "right after a call");
    cache.handle_refresh(&listing(vec![record(1, Locked, 2)]), at(7), at(8));
    assert_eq!(state(&cache, 1), Some(Running), "older");
}
