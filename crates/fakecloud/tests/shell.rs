//! The handle: dropped futures, stop, clocks, many callers at once.

mod common;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::{Lab, SECOND, context, request};
use longshore_cloud::{CallContext, ErrorKind, InstanceSet, Outcome, Tags};
use longshore_fakecloud::{
    CallKind, Clock, FakeCloud, Fault, Latency, ManualClock, Rule, Settings, Spread, TokioClock,
};
use longshore_types::Instant;

#[tokio::test(start_paused = true)]
async fn a_dropped_future_may_still_act() {
    let slow = Latency::new(SECOND * 5, SECOND * 5);
    let settings = Settings::instant().with_latency_of(CallKind::Create, slow);
    let cloud = FakeCloud::tokio(settings, 1);
    let (context, wanted) = (context(), request("a"));
    let create = cloud.create(&context, &wanted);
    let given_up = tokio::time::timeout(SECOND, create).await;
    assert!(given_up.is_err());
    assert!(cloud.instances().is_empty());
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(cloud.instances().len(), 1);
    let counts = cloud.counts(CallKind::Create);
    assert_eq!((counts.begun, counts.acted), (1, 1));
    assert_eq!((counts.ended, counts.cancelled), (0, 1));
}

#[test]
fn a_future_that_is_never_polled_does_nothing() {
    let lab = Lab::instant();
    let (context, wanted) = (context(), request("a"));
    drop(lab.cloud.create(&context, &wanted));
    assert_eq!(lab.cloud.counts(CallKind::Create).begun, 0);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_a_handle_and_its_clones_but_not_the_cloud() {
    let slow = Latency::new(SECOND, SECOND);
    let cloud = FakeCloud::tokio(Settings::instant().with_latency(slow), 1);
    let other = cloud.clone();
    let begun = tokio::spawn(async move { other.create(&context(), &request("a")).await });
    while cloud.counts(CallKind::Create).begun == 0 {
        tokio::task::yield_now().await;
    }
    cloud.stop().await;
    assert!(begun.await.unwrap().is_ok(), "what had begun ends");
    let id = cloud.instances()[0].id.clone();
    for stopped in [&cloud, &cloud.clone()] {
        let error = stopped.create(&context(), &request("b")).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotDone, "it was never sent");
        assert_eq!((error.kind, error.provider), (ErrorKind::Other, "fake"));
        let results = stopped.destroy(&context(), std::slice::from_ref(&id)).await;
        assert!(results[0].1.is_err());
    }
    let again = cloud.reopen();
    assert_eq!(again.list(&context(), &Tags::new()).await.unwrap().len(), 1);
    assert!(cloud.list(&context(), &Tags::new()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_within_its_timeout_on_paused_time() {
    let tail = Spread::long_tailed(SECOND * 5, 200);
    let settings = Settings::instant().with_latency(Latency::new(tail, tail));
    let cloud = Arc::new(FakeCloud::tokio(settings, 1));
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..1_000_u64 {
        let cloud = Arc::clone(&cloud);
        calls.spawn(async move {
            let timeout = SECOND * u32::try_from(i % 20).unwrap();
            let context = CallContext::new(timeout, "test");
            let begun = tokio::time::Instant::now();
            let result = cloud.create(&context, &request(&i.to_string())).await;
            let grain = Duration::from_millis(1);
            assert!(begun.elapsed() <= timeout + grain, "{:?}", begun.elapsed());
            result
                .map_err(|error| assert_eq!(error.outcome(), Outcome::Unknown))
                .is_ok()
        });
    }
    let ended = calls.join_all().await;
    let made = ended.iter().filter(|made| **made).count();
    assert!((100..900).contains(&made), "{made}");
    tokio::time::sleep(SECOND * 1_000_000).await;
    assert_eq!(
        cloud.instances().len(),
        1_000,
        "all of them acted in the end"
    );
}

#[test]
fn callers_on_threads_of_their_own_are_woken() {
    let cloud = FakeCloud::manual(Settings::instant(), 1).0;
    cloud.inject(Rule::new(CallKind::List, Fault::HoldReply));
    let forever = CallContext::new(Duration::MAX, "test");
    std::thread::scope(|scope| {
        let listing = scope.spawn(|| {
            // A clock that nobody else moves: only the release can end the call in time.
            let still = ManualClock::new();
            still.run(cloud.list(&forever, &Tags::new())).unwrap().len()
        });
        let held = loop {
            if let Some(held) = cloud.held().pop() {
                break held;
            }
            std::thread::yield_now();
        };
        assert!(cloud.release(held.id));
        assert_eq!(listing.join().unwrap(), 0);
    });
    assert_eq!(cloud.now(), Instant::ZERO);
}

#[tokio::test(start_paused = true)]
async fn tokios_clock_sleeps_as_long_as_it_is_told() {
    let clock = TokioClock::start();
    for nanos in [1, 999_999, 1_000_000, 1_000_001, 5_000_000_000] {
        let until = clock.now() + Duration::from_nanos(nanos);
        clock.sleep_until(until).await;
        assert!(clock.now() >= until);
        assert!(clock.now().since(until) <= Duration::from_millis(2));
    }
    let never = clock.sleep_until(Instant::FAR_FUTURE);
    let week = SECOND * 7 * 86_400;
    assert!(tokio::time::timeout(week, never).await.is_err());
}

#[test]
fn a_manual_clock_wakes_in_order_and_forgets_who_left() {
    let clock = ManualClock::new();
    let at = |seconds| Instant::ZERO + SECOND * seconds;
    clock.run(async {
        let first = clock.sleep_until(at(1));
        let mut second = clock.sleep_until(at(5));
        let poll = std::future::poll_fn(|context| {
            let _ = second.as_mut().poll(context);
            std::task::Poll::Ready(())
        });
        poll.await;
        assert_eq!(clock.next_waking(), Some(at(5)));
        first.await;
        assert_eq!(clock.now(), at(1));
    });
    assert_eq!(clock.next_waking(), None);
    clock.advance_to(at(3));
    clock.advance_to(at(2));
    assert_eq!(clock.now(), at(3));
    clock.advance(Duration::MAX);
    assert_eq!(clock.now(), Instant::FAR_FUTURE);
    clock.run(clock.sleep_until(Instant::FAR_FUTURE));
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A waker that owns a future which waits for the same cloud, as some executors' wakers do.
struct Owner(#[expect(dead_code, reason = "held, to be dropped with it")] Mutex<Boxed>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn wakers_that_own_futures_are_dropped_without_a_lock() {
    let (cloud, clock) = FakeCloud::manual(Settings::default(), 1);
    let list = || -> Boxed {
        let cloud = cloud.clone();
        Box::pin(async move {
            let _ = cloud.list(&context(), &Tags::new()).await;
        })
    };
    let owner = |future: Boxed| Waker::from(Arc::new(Owner(Mutex::new(future))));
    let poll = |future: &mut Boxed, waker: &Waker| {
        assert!(Future::poll(future.as_mut(), &mut Context::from_waker(waker)).is_pending());
    };
    let begun = || {
        let mut inner = list();
        poll(&mut inner, Waker::noop());
        inner
    };
    let mut outer = list();
    // Each poll replaces the waker of the one before; the last one goes with the future.
    poll(&mut outer, &owner(begun()));
    poll(&mut outer, &owner(begun()));
    drop(outer);
    assert_eq!(cloud.counts(CallKind::List).cancelled, 3);
    assert_eq!(clock.next_waking(), None);
}
