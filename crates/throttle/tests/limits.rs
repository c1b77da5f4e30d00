//! Rates and calls under way: order, fairness, time, dropped futures, drivers that misbehave.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

include!("support/stub.rs");

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use longshore_throttle::*;
use proptest::prelude::*;

fn context(seconds: u64) -> CallContext {
    CallContext::new(Duration::from_secs(seconds), "")
}

/// A call of one kind by its index, with its error if it has one.
async fn call(set: &dyn InstanceSet, kind: usize, context: &CallContext) -> Option<CloudError> {
    let (id, tags) = (InstanceId::from("i-1"), Tags::new());
    let key = HostKey {
        algorithm: "a".into(),
        blob: Vec::new(),
    };
    match kind {
        0 => set.create(context, &CreateRequest::example()).await.err(),
        1 => set.list(context, &tags).await.err(),
        2 => set.set_tags(context, &[(id, tags)]).await.remove(0).1.err(),
        3 => set.verify_host_key(context, &id, &key).await.err(),
        4 => {
            let notices = set.extensions().interruption_notices.unwrap();
            notices.interruptions(context).await.err()
        }
        _ => set.destroy(context, &[id]).await.remove(0).1.err(),
    }
}

fn spawn(
    set: &Arc<dyn InstanceSet>,
    kind: usize,
    context: CallContext,
) -> tokio::task::JoinHandle<Option<CloudError>> {
    let set = Arc::clone(set);
    tokio::spawn(async move { call(&set, kind, &context).await })
}

/// Lets everything that can run do so, without any time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_destroy_goes_next_past_a_thousand_of_every_other_kind() {
    let driver = Arc::new(Stub::default());
    let set: Arc<dyn InstanceSet> = Arc::new(Rate::new(Arc::clone(&driver), RateLimit::new(5.0)));
    for kind in 0..5 {
        for _ in 0..1000 {
            spawn(&set, kind, context(100_000));
        }
    }
    settle().await;
    assert_eq!(driver.heard().len(), 1);
    let start = tokio::time::Instant::now();
    assert!(spawn(&set, 5, context(60)).await.unwrap().is_none());
    assert!(
        start.elapsed() <= Duration::from_millis(210),
        "{:?}",
        start.elapsed()
    );
    let heard = driver.heard();
    assert!(
        heard.len() <= 3 && heard[1].contains("destroy"),
        "{heard:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_kind_go_in_order_at_the_rate() {
    let driver = Arc::new(Stub::default());
    let limit = RateLimit::new(10.0).with_burst(5);
    let set: Arc<dyn InstanceSet> = Arc::new(Rate::new(Arc::clone(&driver), limit));
    let mut calls = Vec::new();
    for i in 0..105 {
        let set = Arc::clone(&set);
        calls.push(tokio::spawn(async move {
            let context = CallContext::new(Duration::from_secs(60), format!("{i:03}"));
            set.list(&context, &Tags::new()).await.unwrap();
        }));
        tokio::task::yield_now().await;
    }
    let start = tokio::time::Instant::now();
    for call in calls {
        call.await.unwrap();
    }
    let took = start.elapsed().as_secs_f64();
    assert!((9.99..10.2).contains(&took), "{took}");
    assert!(driver.heard().is_sorted());
}

#[tokio::test(start_paused = true)]
async fn time_spent_waiting_comes_off_and_what_is_late_was_not_sent() {
    let driver = Arc::new(Stub::default());
    let rate = Rate::new(Arc::clone(&driver), RateLimit::new(0.5));
    let set: Arc<dyn InstanceSet> = Arc::new(rate);
    let calls: Vec<_> = (0..4).map(|_| spawn(&set, 0, context(5))).collect();
    let mut errors = Vec::new();
    for call in calls {
        errors.extend(call.await.unwrap());
    }
    assert_eq!(
        driver
            .timeouts()
            .iter()
            .map(Duration::as_secs)
            .collect::<Vec<_>>(),
        [5, 3, 1]
    );
    let [error] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert_eq!(error.outcome(), Outcome::NotDone);
    assert_eq!(error.source.downcast_ref(), Some(&Refused::NotInTime));
    let ErrorKind::RateLimited {
        retry_after: Some(wait),
    } = error.kind
    else {
        panic!()
    };
    assert!(wait <= Duration::from_secs(2), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_no_longer_than_the_timeout_hears_that_nothing_was_sent() {
    let busy = || Stub::taking(Duration::from_secs(100));
    let refuses = Stub::refusing(ErrorKind::RateLimited {
        retry_after: Some(Duration::from_secs(100)),
    });
    let rate = || RateLimit::new(0.001);
    let sets: [Arc<dyn InstanceSet>; 3] = [
        Arc::new(Rate::new(Stub::default(), rate())),
        Arc::new(InFlight::new(busy(), InFlightLimits::all(1))),
        Arc::new(governor::Governor::new(refuses, governor::Learned::new())),
    ];
    for set in sets {
        let first = spawn(&set, 0, context(1000));
        settle().await;
        // As the pool does: it waits no longer, from before the layer begins to.
        let end = tokio::time::sleep(Duration::from_secs(20));
        let heard = tokio::select! {
            biased;
            () = end => None,
            error = spawn(&set, 0, context(20)) => error.unwrap(),
        };
        let error = heard.expect("it is heard in time");
        assert_eq!(error.outcome(), Outcome::NotDone, "{set}");
        first.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_that_could_not_be_answered_in_time() {
    let driver = Arc::new(Stub::taking(Duration::from_millis(9_990)));
    let set: Arc<dyn InstanceSet> =
        Arc::new(InFlight::new(Arc::clone(&driver), InFlightLimits::all(1)));
    let calls: Vec<_> = (0..2).map(|_| spawn(&set, 0, context(10))).collect();
    let mut errors = Vec::new();
    for call in calls {
        errors.extend(call.await.unwrap());
    }
    assert_eq!(driver.heard().len(), 1);
    let source = errors[0].source.downcast_ref();
    assert_eq!(source, Some(&Refused::NotInTime));
}

#[tokio::test(start_paused = true)]
async fn what_waits_already_when_a_hold_off_begins_is_held_off() {
    let layers: [fn(Stack) -> Stack; 3] = [
        |stack| stack.rate(RateLimit::new(1.0)),
        |stack| stack.in_flight(InFlightLimits::all(1)),
        |stack| {
            stack
                .rate(RateLimit::new(1.0))
                .in_flight(InFlightLimits::all(1))
        },
    ];
    for layer in layers {
        let kind = ErrorKind::RateLimited {
            retry_after: Some(Duration::from_secs(100)),
        };
        let mut driver = Stub::refusing(kind);
        driver.takes = Duration::from_millis(10);
        let driver = Arc::new(driver);
        let set = layer(Stack::new(Arc::clone(&driver))).hold_off().build();
        let calls: Vec<_> = (0..5).map(|_| spawn(&set, 0, context(60))).collect();
        let mut held = 0;
        for call in calls {
            let error = call.await.unwrap().unwrap();
            held += u32::from(error.source.downcast_ref() == Some(&Refused::HeldOff));
        }
        assert_eq!((driver.heard().len(), held), (1, 4), "{set}");
        // Other kinds are not.
        assert!(call(&set, 1, &context(60)).await.unwrap().provider == "stub");
    }
}

#[tokio::test(start_paused = true)]
async fn one_more_than_may_wait_is_refused_at_once() {
    let limit = RateLimit::new(1.0).with_waiting(3);
    let rate: Arc<dyn InstanceSet> = Arc::new(Rate::new(Stub::default(), limit));
    let limits = InFlightLimits::all(1).with_waiting(3);
    let slow = Stub::taking(Duration::from_secs(1));
    let in_flight: Arc<dyn InstanceSet> = Arc::new(InFlight::new(slow, limits));
    for set in [rate, in_flight] {
        let waiting: Vec<_> = (0..4).map(|_| spawn(&set, 1, context(60))).collect();
        settle().await;
        let start = tokio::time::Instant::now();
        let error = call(&set, 1, &context(60)).await.unwrap();
        assert_eq!(error.source.downcast_ref(), Some(&Refused::TooManyWaiting));
        assert_eq!(start.elapsed(), Duration::ZERO);
        for call in waiting {
            assert!(call.await.unwrap().is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_has_its_own_places() {
    let driver = Arc::new(Stub::taking(Duration::from_secs(10)));
    let limits = InFlightLimits::all(1).with(Operation::Create, 2);
    let set: Arc<dyn InstanceSet> = Arc::new(InFlight::new(Arc::clone(&driver), limits));
    for kind in [0, 0, 0, 1, 1, 5, 5] {
        spawn(&set, kind, context(60));
    }
    settle().await;
    let count = |what: &str| driver.heard().iter().filter(|c| c.contains(what)).count();
    assert_eq!(
        (count("create"), count("list"), count("destroy")),
        (2, 1, 1)
    );
    tokio::time::sleep(Duration::from_millis(10_001)).await;
    settle().await;
    assert_eq!(
        (count("create"), count("list"), count("destroy")),
        (3, 2, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_hangs_gives_its_place_back() {
    let driver = Stub::taking(Duration::from_secs(1_000_000));
    let set = InFlight::new(driver, InFlightLimits::all(1));
    for _ in 0..3 {
        let start = tokio::time::Instant::now();
        let error = call(&set, 0, &context(5)).await.unwrap();
        assert_eq!(
            (error.kind.clone(), error.outcome()),
            (ErrorKind::TimedOut, Outcome::Unknown)
        );
        assert!(start.elapsed() < Duration::from_millis(6_100));
    }
}

/// What each limit gives back is seen by what it lets through afterwards.
async fn all_places_are_free(
    set: &Arc<dyn InstanceSet>,
    driver: &Stub,
    kind: usize,
    places: usize,
) {
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let before = driver.heard().len();
    let calls: Vec<_> = (0..places + 5)
        .map(|_| spawn(set, kind, context(3600)))
        .collect();
    settle().await;
    assert_eq!(driver.heard().len() - before, places);
    for call in calls {
        assert!(call.await.unwrap().is_none());
    }
    assert_eq!(driver.heard().len() - before, places + 5);
}

/// Polls calls a few times each, in a chosen order, and drops them.
fn poll_and_drop(set: &Arc<dyn InstanceSet>, plan: &[(usize, usize, usize)]) {
    type Running = Pin<Box<dyn Future<Output = Option<CloudError>> + Send>>;
    let mut running: Vec<(Running, usize)> = Vec::new();
    let mut task = Context::from_waker(Waker::noop());
    for &(kind, polls, other) in plan {
        let set = Arc::clone(set);
        let future = async move { call(&set, kind, &context(30)).await };
        running.push((Box::pin(future), polls));
        let i = other % running.len();
        let (future, left) = &mut running[i];
        if *left == 0 || matches!(future.as_mut().poll(&mut task), Poll::Ready(_)) {
            drop(running.swap_remove(i));
        } else {
            *left -= 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn dropping_a_call_at_any_await_leaves_nothing_behind(
        plan in prop::collection::vec((0usize..6, 0usize..5, 0usize..8), 0..60),
        kind in 0usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let driver = Arc::new(Stub::taking(Duration::from_secs(2)));
            let limits = InFlightLimits::all(2).with_waiting(5);
            let set: Arc<dyn InstanceSet> = Arc::new(InFlight::new(Arc::clone(&driver), limits));
            poll_and_drop(&set, &plan);
            all_places_are_free(&set, &driver, kind, 2).await;

            let driver = Arc::new(Stub::default());
            let limit = RateLimit::new(1.0).with_burst(3).with_waiting(5);
            let set: Arc<dyn InstanceSet> = Arc::new(Rate::new(Arc::clone(&driver), limit));
            poll_and_drop(&set, &plan);
            all_places_are_free(&set, &driver, kind, 3).await;

            let driver = Arc::new(Stub::default());
            let learned = governor::Learned::new();
            let governor = governor::Governor::new(Arc::clone(&driver), learned);
            let set: Arc<dyn InstanceSet> = Arc::new(governor);
            poll_and_drop(&set, &plan);
            for kind in 0..6 {
                assert!(call(&set, kind, &context(3600)).await.is_none());
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_next_one_gives_up_the_one_after_goes_in_its_place() {
    let driver = Arc::new(Stub::default());
    let set: Arc<dyn InstanceSet> = Arc::new(Rate::new(Arc::clone(&driver), RateLimit::new(0.1)));
    let start = tokio::time::Instant::now();
    let calls: Vec<_> = (0..3).map(|_| spawn(&set, 1, context(60))).collect();
    settle().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    calls[1].abort();
    assert!(
        calls
            .into_iter()
            .next_back()
            .unwrap()
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        start.elapsed() < Duration::from_millis(10_010),
        "{:?}",
        start.elapsed()
    );
}

#[derive(Debug)]
struct Panics;

impl std::ops::Deref for Panics {
    type Target = Stub;

    fn deref(&self) -> &Stub {
        panic!("a driver that panics")
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_gives_its_place_back() {
    let metrics = Metrics::new();
    let driver = Arc::new(Stub::default().with_instance("i-1", &[]));
    // Poisons the stub's own lock, so that every later call of it panics.
    let poisoner = Arc::clone(&driver);
    std::thread::spawn(move || {
        let _held = poisoner.instances.lock();
        let _never: &Stub = &Panics;
    })
    .join()
    .unwrap_err();
    let set = Stack::new(driver)
        .instrument(metrics.clone())
        .in_flight(InFlightLimits::all(1))
        .rate(RateLimit::new(100.0))
        .hold_off()
        .build();
    for _ in 0..5 {
        assert!(spawn(&set, 1, context(5)).await.unwrap_err().is_panic());
    }
    assert!(spawn(&set, 3, context(5)).await.unwrap().is_none());
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = r#"longshore_driver_calls_total{operation="List",outcome="dropped"} 5"#;
    assert!(text.contains(line), "{text}");
}

#[tokio::test(start_paused = true)]
async fn absurd_timeouts_and_rates_do_no_harm() {
    for rate in [f64::MIN_POSITIVE, 1e-9, f64::MAX, f64::NAN, -1.0] {
        for timeout in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            let limit = RateLimit::new(rate).with_burst(u32::MAX);
            let set = Stack::new(Stub::default())
                .rate(limit)
                .in_flight(InFlightLimits::all(usize::MAX))
                .chaos(Faults::new(u64::MAX).with_delay(Duration::from_nanos(1)))
                .build();
            let _either = call(&set, 0, &CallContext::new(timeout, "")).await;
        }
    }
}
