//! A pool among drivers, executors and protocols that break, block and lie. Real threads and a
//! real clock, where the one thing that must not happen is that everything stands still.
#![cfg(feature = "runtime")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod embed;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use embed::*;
use longshore_cloud::{
    CallContext, CreateRequest, ErrorKind, InstanceSet, Operation, Outcome, Tags,
};
use longshore_pool::runtime::*;
use longshore_pool::{Event, Refusal};
use longshore_types::*;

const SHORT: Duration = Duration::from_millis(200);

/// Waits for an alarm.
async fn alarm(events: &mut Events, wanted: &str) {
    let heard = async {
        while let Some(event) = events.next().await {
            if let PoolEvent::Happened(Event::Alarm { text }) = event
                && text.contains(wanted)
            {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(seconds(60), heard).await.unwrap());
}

#[tokio::test]
async fn whatever_a_driver_panics_in_is_one_failed_call() {
    let world = World::new();
    let pool = world
        .isolated("set")
        // Longer than it takes to see that state, which ends with it.
        .configure(|config| config.create_grace = seconds(5))
        .start()
        .await
        .unwrap();
    let small = TypeName::new("small");
    world.cloud.set_only(Fault::Panic, Some("create"));
    pool.create(&small).await.unwrap();
    until(&pool, |s| s.pendings.len() == 1 && s.effects_in_flight == 0).await;
    world.cloud.set(Fault::None);
    let kept = pool.ready(&small, seconds(60)).await.unwrap();
    let instance = {
        pool.set_idle_behavior(&kept, IdleBehavior::Hold)
            .await
            .unwrap();
        pool.ready(&small, seconds(60)).await.unwrap()
    };
    world.cloud.set_only(Fault::Panic, Some("set_tags"));
    pool.set_idle_behavior(&instance, IdleBehavior::Hold)
        .await
        .unwrap();
    let broke = |s: &longshore_pool::Snapshot, id: &InstanceId| {
        let worker = s.workers.iter().find(|w| w.instance == *id);
        let error = worker.and_then(|w| w.last_error.clone());
        error.is_some_and(|error| error.contains("the driver broke"))
    };
    until(&pool, |s| broke(s, &instance)).await;
    world.cloud.set_only(Fault::Panic, Some("destroy"));
    pool.shut_down(&kept, "test").await.unwrap();
    until(&pool, |s| broke(s, &kept)).await;
    // A verifier that breaks cannot tell; the host is identified in another way.
    world.cloud.set_only(Fault::Panic, Some("verify_host_key"));
    world.hosts.set(HostFault::AsksForKey);
    let exit = pool.run(Run::new("big", *b"exit 2")).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Exited { code: 2 });
    let verdicts = world.hosts.verdicts();
    assert!(verdicts.iter().all(|v| *v == HostKeyVerdict::Unsupported));
    world.cloud.set_only(Fault::Panic, Some("list"));
    let left = pool.shutdown(Ending::Keep, seconds(10)).await;
    assert!(left.error.is_none(), "{left:?}");
}

/// Everything on one thread: a driver that blocked it would stop the clock of this test.
#[tokio::test]
async fn a_driver_that_blocks_costs_its_own_thread_is_told_of_and_recovers() {
    let world = World::new();
    let pool = world
        .isolated("set")
        .configure(|config| {
            config.cloud_call_timeout = SHORT;
            config.max_instances = 0;
            config.create_grace = Duration::from_secs(600);
            config.sync_interval = Duration::from_secs(1);
        })
        .start()
        .await
        .unwrap();
    let mut events = pool.events();
    let worker = pool.ready(&"big".into(), seconds(60)).await.unwrap();
    world.cloud.set_only(Fault::Block, Some("create"));
    for _ in 0..8 {
        pool.create(&"small".into()).await.unwrap();
    }
    alarm(&mut events, "8 provider calls (create) do not return").await;
    // Refused at once, surely not done, and said so.
    pool.create(&"small".into()).await.unwrap();
    let refused = loop {
        match pool.create(&"small".into()).await {
            Err(PoolError::Refused(refusal)) => break refusal,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let Refusal::HeldOff { cause, .. } = &refused else {
        panic!("{refused}")
    };
    assert!(cause.contains("8 calls before it do not return"), "{cause}");
    // Everything else goes on.
    let exit = pool.run(Run::new("big", *b"exit 0")).await.unwrap();
    assert!(exit.cause.is_success());
    pool.shut_down(&worker, "test").await.unwrap();
    until(&pool, |s| s.workers.iter().all(|w| w.instance != worker)).await;
    // They return; what they made is found by its secret, and new ones are made.
    world.cloud.set(Fault::None);
    until(&pool, |s| s.pendings.is_empty() && s.workers.len() == 8).await;
    // What the refusals hold off ends by time, and only so.
    while pool.create(&"big".into()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(&pool, |s| s.workers.len() == 9).await;
    pool.shutdown(Ending::Destroy, seconds(60)).await;
    assert_eq!(world.cloud.len(), 0);
}

#[tokio::test]
async fn an_isolated_call_may_block_hang_or_panic() {
    let world = World::new();
    let isolated = Isolated::new(world.cloud.clone());
    let context = CallContext::example();
    let tags = Tags::new();
    let list = || isolated.list(&context, &tags);

    world.cloud.set(Fault::Panic);
    let error = list().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Other, "nobody knows what it did");
    assert!(
        error
            .chain()
            .contains("the driver panicked: the driver broke")
    );
    let ids = ["a".into(), "b".into()];
    let results = isolated.destroy(&context, &ids).await;
    assert!(results.len() == 2 && results.iter().all(|(_, r)| r.is_err()));

    // Waiting for ever costs nothing once it is given up.
    world.cloud.set(Fault::Hang);
    for _ in 0..20 {
        assert!(tokio::time::timeout(SHORT / 20, list()).await.is_err());
        let began = tokio::time::Instant::now();
        while !isolated.stuck().is_empty() {
            assert!(began.elapsed() < seconds(30), "{:?}", isolated.stuck());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    // Blocking costs a thread each, so many and no more, and only of that kind.
    world.cloud.set_only(Fault::Block, Some("list"));
    for _ in 0..8 {
        assert!(tokio::time::timeout(SHORT / 4, list()).await.is_err());
    }
    let error = list().await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::RateLimited { .. }));
    let stuck = isolated.stuck();
    assert_eq!(stuck[0].operation, Operation::List);
    assert_eq!(stuck[0].calls, 8);
    let request = CreateRequest::example();
    isolated.create(&context, &request).await.unwrap();
    world.cloud.set(Fault::None);
    let began = tokio::time::Instant::now();
    while list().await.is_err() {
        assert!(began.elapsed() < seconds(30), "it does not recover");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(isolated.stuck().is_empty());
}

/// Whoever asks without a deadline of its own must not wait for ever.
#[tokio::test]
async fn an_isolated_call_ends_at_its_deadline() {
    let world = World::new();
    let isolated = Isolated::new(world.cloud.clone());
    let context = CallContext::new(SHORT, "test");
    world.cloud.set(Fault::Block);
    let tags = Tags::new();
    let listed = isolated.list(&context, &tags);
    let error = tokio::time::timeout(seconds(30), listed).await;
    assert_eq!(error.unwrap().unwrap_err().kind, ErrorKind::TimedOut);
    let destroyed = isolated.destroy(&context, &["a".into()]).await;
    assert!(matches!(&destroyed[..], [(_, Err(error))] if error.kind == ErrorKind::TimedOut));
    world.cloud.set(Fault::None);
}

#[tokio::test]
async fn an_isolated_call_that_finds_no_place_is_known_not_to_have_been_made() {
    let world = World::new();
    let isolated = Isolated::new(world.cloud.clone());
    world.cloud.set(Fault::Hang);
    let create = |timeout| {
        let isolated = isolated.clone();
        async move {
            let context = CallContext::new(timeout, "test");
            isolated.create(&context, &CreateRequest::example()).await
        }
    };
    let polled = Arc::new(AtomicUsize::new(0));
    let held: Vec<_> = (0..64)
        .map(|_| {
            let (call, polled) = (create(seconds(600)), Arc::clone(&polled));
            tokio::spawn(async move {
                // It has its place before anything else runs.
                polled.fetch_add(1, Ordering::Relaxed);
                call.await
            })
        })
        .collect();
    while polled.load(Ordering::Relaxed) < 64 {
        tokio::task::yield_now().await;
    }
    let error = create(SHORT).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotDone, "{error:?}");
    // One that was made and has no answer is another matter.
    held[0].abort();
    let error = create(seconds(3)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_instance_set_that_cannot_say_what_it_can_do_is_refused() {
    for (fault, expected) in [
        (Fault::PanicWhenAsked, "the driver broke"),
        (Fault::BlockWhenAsked, "no answer within 10s"),
    ] {
        let world = World::new();
        world.cloud.set(fault);
        let wrong = world.isolated("set").start().await.unwrap_err();
        assert_eq!(wrong.settings()[0].field, "instance_set");
        assert!(wrong.to_string().contains(expected), "{wrong}");
        world.cloud.set(Fault::None);
    }
}

/// The host under test is as bad as it can be; the other one must not feel it.
async fn beside_a_bad_host(fault: HostFault, expected: &str) {
    let world = World::new();
    let pool = world
        .isolated("set")
        .configure(|config| config.command_timeout = SHORT)
        .start()
        .await
        .unwrap();
    let bad = pool.ready(&"small".into(), seconds(60)).await.unwrap();
    world.hosts.set_only(fault, Some(bad.clone()));
    until(&pool, |s| {
        let worker = s.workers.iter().find(|w| w.instance == bad);
        let error = worker.and_then(|w| w.last_error.as_deref());
        error.is_some_and(|error| error.contains(expected))
    })
    .await;
    let exit = pool.run(Run::new("big", *b"exit 0")).await.unwrap();
    assert!(exit.cause.is_success());
    // One that is well again is used again.
    world.hosts.set(HostFault::None);
    let exit = pool.run(Run::new("small", *b"exit 1")).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Exited { code: 1 });
    assert_eq!(world.cloud.creates(), 2);
    pool.shutdown(Ending::Keep, seconds(5)).await;
}

#[tokio::test]
async fn a_host_that_does_not_answer_harms_nobody_else() {
    beside_a_bad_host(HostFault::Hangs, "no answer in time").await;
}

#[tokio::test]
async fn an_executor_that_panics_harms_nobody_else() {
    beside_a_bad_host(HostFault::Panics, "it panicked: the executor broke").await;
}

#[tokio::test]
async fn a_host_that_prints_without_end_harms_nobody_else() {
    beside_a_bad_host(HostFault::Chatters, "the report is longer than").await;
}

#[tokio::test]
async fn a_protocol_that_panics_is_an_error_of_the_workers_it_is_asked_about() {
    let world = World::new();
    let pool = world.isolated("set").start().await.unwrap();
    world.hosts.set(HostFault::ProtocolPanics);
    pool.create(&"small".into()).await.unwrap();
    until(&pool, |s| {
        let errors = s.workers.iter().filter_map(|w| w.last_error.as_deref());
        errors
            .into_iter()
            .any(|e| e.contains("it panicked: the protocol broke"))
    })
    .await;
    world.hosts.set(HostFault::None);
    let exit = pool.run(Run::new("small", *b"exit 0")).await.unwrap();
    assert!(exit.cause.is_success());
    // A start whose command could not even be built may, for all anybody knows, have been sent.
    world.hosts.set(HostFault::ProtocolPanics);
    let uuid = random_uuid().unwrap();
    let run = {
        let (pool, run) = (
            pool.clone(),
            Run::new("small", *b"exit 4").attempt(uuid, Attempt(1)),
        );
        tokio::spawn(async move { pool.run(run).await })
    };
    until(&pool, |s| {
        s.workers.iter().any(|w| !w.containers.is_empty())
    })
    .await;
    world.hosts.set(HostFault::None);
    let exit = run.await.unwrap().unwrap();
    assert_eq!(exit.cause, ExitCause::Exited { code: 4 });
}
