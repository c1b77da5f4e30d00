//! A running pool: what embedders do with it, and what its surroundings do to it.
#![cfg(feature = "runtime")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod embed;

use std::collections::BTreeSet;
use std::time::Duration;

use embed::*;
use longshore_pool::runtime::*;
use longshore_pool::{Event, Refusal, StartRequest};
use longshore_types::*;
use tokio::time::timeout;

/// Waits until so many results were acknowledged, and no more are.
async fn acknowledged(world: &World, count: usize) {
    let acknowledged = async {
        while world.hosts.acknowledged() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(seconds(60), acknowledged).await.unwrap();
    assert_eq!(world.hosts.acknowledged(), count);
}

fn exited(code: i32) -> ExitCause {
    ExitCause::Exited { code }
}

#[tokio::test(start_paused = true)]
async fn a_payload_runs_on_a_worker_that_is_created_for_it_and_kept_for_the_next() {
    let world = World::new();
    let pool = world.pool().await;
    let exit = pool.run(Run::new("small", *b"exit 7")).await.unwrap();
    assert_eq!(exit.cause, exited(7));
    let exit = pool.run(Run::new("small", *b"exit 0")).await.unwrap();
    assert_eq!(exit.cause, exited(0));
    assert_eq!(world.cloud.creates(), 1);
    acknowledged(&world, 2).await;
}

#[tokio::test(start_paused = true)]
async fn many_payloads_share_as_many_workers_as_may_be() {
    let world = World::new();
    let pool = world
        .builder()
        .configure(|config| config.max_instances = 3)
        .start()
        .await
        .unwrap();
    let one = Resources {
        vcpus: 1,
        ..Resources::NONE
    };
    let runs: Vec<_> = (0..40)
        .map(|n| {
            let pool = pool.clone();
            let run = Run::new("small", format!("exit {n}")).resources(one);
            tokio::spawn(async move { pool.run(run).await })
        })
        .collect();
    let mut codes = BTreeSet::new();
    for run in runs {
        if let ExitCause::Exited { code } = run.await.unwrap().unwrap().cause {
            codes.insert(code);
        }
    }
    assert_eq!(codes, (0..40).collect());
    assert!(world.cloud.creates() <= 3);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_at_the_same_time_get_different_workers() {
    let world = World::new();
    let pool = world.pool().await;
    let small = TypeName::new("small");
    let wait = seconds(60);
    let (a, b) = tokio::join!(pool.ready(&small, wait), pool.ready(&small, wait));
    assert_ne!(a.unwrap(), b.unwrap());
    assert_eq!(world.cloud.creates(), 2);
    pool.ready(&small, wait).await.unwrap();
    assert_eq!(world.cloud.creates(), 2, "one of them is still free");
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_vain_says_why() {
    let world = World::new();
    let pool = world.pool().await;
    let wait = seconds(5);
    let error = pool.ready(&"huge".into(), wait).await.unwrap_err();
    assert!(matches!(
        error,
        NotReady::Refused(Refusal::UnknownType { .. })
    ));
    let much = Resources {
        vcpus: 100,
        ..Resources::NONE
    };
    let error = pool.run(Run::new("small", *b"").resources(much)).await;
    assert!(matches!(
        error,
        Err(RunError::NotReady(NotReady::NeverFits { .. }))
    ));

    world.cloud.set(Fault::Refuse);
    let error = pool.ready(&"small".into(), wait).await.unwrap_err();
    let NotReady::TimedOut { why, waited, .. } = &error else {
        panic!("{error}")
    };
    assert!(*waited >= wait);
    assert!(matches!(**why, Obstacle::Refused(Refusal::HeldOff { .. })));
    assert!(error.to_string().contains("no such image"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_answers_and_a_listing_that_fails_are_named() {
    let world = World::new();
    let pool = world.pool().await;
    world.hosts.set(HostFault::Hangs);
    let error = pool.ready(&"small".into(), seconds(100)).await.unwrap_err();
    assert!(error.to_string().contains("on its way"), "{error}");
    assert!(error.to_string().contains("no answer in time"), "{error}");

    let world = World::new();
    world.cloud.set(Fault::Panic);
    let pool = world.pool().await;
    let error = pool.ready(&"small".into(), seconds(5)).await.unwrap_err();
    assert!(error.to_string().contains("could not be listed"), "{error}");
    assert!(error.to_string().contains("the driver broke"), "{error}");
    world.cloud.set(Fault::None);
    pool.ready(&"small".into(), seconds(120)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_says_why_instances_cannot_be_listed_and_when_they_can_again() {
    for at_the_start in [true, false] {
        let world = World::new();
        if at_the_start {
            world.cloud.set_only(Fault::Panic, Some("list"));
        }
        let pool = world.pool().await;
        if !at_the_start {
            until(&pool, |s| s.is_listed).await;
            world.cloud.set_only(Fault::Panic, Some("list"));
        }
        until(&pool, |s| s.listing_error.is_some()).await;
        let error = pool.snapshot().listing_error.clone().unwrap();
        assert!(error.contains("it panicked"), "{error}");
        world.cloud.set(Fault::None);
        until(&pool, |s| s.listing_error.is_none() && s.is_listed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_verbs_do_what_the_core_does() {
    let world = World::new();
    let pool = world.pool().await;
    let mut events = pool.events();
    let pending = pool.create(&"small".into()).await.unwrap();
    assert_eq!(pending.type_name, "small".into());
    let instance = pool.ready(&"small".into(), seconds(60)).await.unwrap();
    let uuid = random_uuid().unwrap();
    let start = |attempt| StartRequest {
        instance: instance.clone(),
        uuid,
        attempt: Attempt(attempt),
        resources: Resources::NONE,
        document: b"wait".to_vec().into(),
    };
    pool.start(start(1)).await.unwrap();
    let refused = pool.start(start(2)).await.unwrap_err();
    assert!(matches!(
        refused,
        PoolError::Refused(Refusal::HeldHere { .. })
    ));
    assert!(pool.give_back(&instance).await.is_err(), "something runs");
    pool.grant(uuid, &instance, Resources::NONE).await.unwrap();
    pool.kill(uuid, &instance, "test").await.unwrap();
    let exit = loop {
        match events.next().await.unwrap() {
            PoolEvent::Happened(Event::Ended { exit, .. }) => break exit,
            PoolEvent::Happened(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(exit.cause, ExitCause::Killed);
    pool.acknowledge(uuid, Attempt(1)).await.unwrap();
    pool.set_idle_behavior(&instance, IdleBehavior::Hold)
        .await
        .unwrap();
    let error = pool.ready(&"small".into(), Duration::ZERO).await;
    assert!(error.is_err());
    pool.shut_down(&instance, "test").await.unwrap();
    until(&pool, |snapshot| {
        snapshot.workers.iter().all(|w| w.instance != instance)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_auto_acknowledge_a_result_stays_until_it_is_acknowledged() {
    let world = World::new();
    let pool = world
        .builder()
        .auto_acknowledge(false)
        .start()
        .await
        .unwrap();
    let uuid = random_uuid().unwrap();
    let run = Run::new("small", *b"exit 3").attempt(uuid, Attempt(5));
    pool.run(run).await.unwrap();
    tokio::time::sleep(seconds(300)).await;
    let snapshot = pool.snapshot();
    let held = &snapshot.workers[0].containers[0];
    assert_eq!((held.uuid, held.attempt), (uuid, Attempt(5)));
    assert_eq!(world.hosts.acknowledged(), 0);
    pool.acknowledge(uuid, Attempt(4)).await.unwrap();
    pool.acknowledge(random_uuid().unwrap(), Attempt(5))
        .await
        .unwrap();
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(world.hosts.acknowledged(), 0, "that was something else");
    pool.acknowledge(uuid, Attempt(5)).await.unwrap();
    until(&pool, |s| s.workers.iter().all(|w| w.containers.is_empty())).await;
    acknowledged(&world, 1).await;
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_wrong_is_said_at_once() {
    let world = World::new();
    world.cloud.set(Fault::PanicWhenAsked);
    let wrong = Pool::builder("", vec![], world.cloud.clone(), world.hosts.clone())
        .event_capacity(0)
        .inline_provider_calls()
        .public_key("two\nlines")
        .runner(RunnerBinary {
            content: b"".to_vec().into(),
            md5: "x".into(),
            directory: "here".into(),
        })
        .configure(|config| config.timeout_idle = Duration::ZERO)
        .start()
        .await
        .unwrap_err();
    let fields: Vec<&str> = wrong.settings().iter().map(|s| s.field.as_str()).collect();
    let expected = [
        "types",
        "instance_set_id",
        "public_key",
        "timeout_idle",
        "event_capacity",
        "runner",
        "runner",
        "runner",
        "instance_set",
    ];
    assert_eq!(fields, expected);
    assert!(wrong.to_string().contains("the driver broke"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_loses_the_oldest_and_holds_nobody_up() {
    let world = World::new();
    let pool = world.builder().event_capacity(4).start().await.unwrap();
    let mut events = pool.events();
    for _ in 0..10 {
        pool.run(Run::new("small", *b"exit 0")).await.unwrap();
    }
    let PoolEvent::Missed(missed) = events.next().await.unwrap() else {
        panic!("nothing was missed")
    };
    assert!(missed >= 10, "{missed}");
    for _ in 0..4 {
        assert!(matches!(events.next().await, Some(PoolEvent::Happened(_))));
    }
    drop(pool);
    while events.next().await.is_some() {}
}

/// A pool takes over what has ended meanwhile, and acknowledges it, before anybody listens.
#[tokio::test(start_paused = true)]
async fn the_first_reader_hears_everything_since_the_start() {
    let world = World::new();
    let silent = world.builder().auto_acknowledge(false);
    let pool = silent.start().await.unwrap();
    let uuid = random_uuid().unwrap();
    let run = Run::new("small", *b"exit 3").attempt(uuid, Attempt(1));
    pool.run(run).await.unwrap();
    pool.shutdown(Ending::Keep, seconds(60)).await;

    let next = world.pool().await;
    acknowledged(&world, 1).await;
    let other = next.clone();
    let mut first = other.events();
    let mut later = next.events();
    let heard = async {
        loop {
            if let Some(PoolEvent::Happened(Event::Ended { uuid, exit, .. })) = first.next().await {
                break (uuid, exit.cause);
            }
        }
    };
    let heard = timeout(seconds(60), heard).await.unwrap();
    assert_eq!(heard, (uuid, exited(3)));
    drop((next, other));
    while let Some(event) = later.next().await {
        let told = matches!(event, PoolEvent::Happened(Event::Ended { .. }));
        assert!(!told, "that was before it asked");
    }
}

#[tokio::test(start_paused = true)]
async fn two_pools_in_one_process_do_not_touch_each_other() {
    let world = World::new();
    let one = world.pool().await;
    let other = world.builder_of("other").start().await.unwrap();
    one.ready(&"small".into(), seconds(60)).await.unwrap();
    other.ready(&"small".into(), seconds(60)).await.unwrap();
    tokio::time::sleep(seconds(120)).await;
    let wait = seconds(600);
    assert!(one.shutdown(Ending::Destroy, wait).await.is_clean());
    other.ready(&"small".into(), seconds(60)).await.unwrap();
    until(&other, |snapshot| snapshot.workers.len() == 1).await;
    assert_eq!(world.cloud.len(), 1);
}

// Ends.

#[tokio::test(start_paused = true)]
async fn to_keep_is_to_leave_everything_for_the_next_pool() {
    let world = World::new();
    let pool = world.pool().await;
    let uuid = random_uuid().unwrap();
    let waits = {
        let (pool, run) = (
            pool.clone(),
            Run::new("small", *b"wait").attempt(uuid, Attempt(1)),
        );
        tokio::spawn(async move { pool.run(run).await })
    };
    until(&pool, |s| {
        s.workers.iter().any(|w| !w.containers.is_empty())
    })
    .await;
    let left = pool.shutdown(Ending::Keep, seconds(60)).await;
    assert_eq!(left.instances.len(), 1);
    assert_eq!(left.running, [(uuid, left.instances[0].clone())]);
    assert!(left.error.is_none() && !left.never_listed && left.abandoned.is_empty());
    assert!(!left.is_clean());
    assert_eq!(waits.await.unwrap(), Err(RunError::Ended));
    assert_eq!(pool.create(&"small".into()).await, Err(PoolError::Ended));
    let error = pool.ready(&"small".into(), seconds(1)).await.unwrap_err();
    assert_eq!(error, NotReady::Ended);
    let mut events = pool.events();
    while events.next().await.is_some() {}
    assert_eq!(pool.events().next().await, None);
    let again = pool.shutdown(Ending::Destroy, seconds(1)).await;
    assert_eq!(again, left, "it ended once");

    let next = world.pool().await;
    let mut events = next.events();
    until(&next, |s| {
        s.workers.iter().any(|w| !w.containers.is_empty())
    })
    .await;
    let instance = next.snapshot().workers[0].instance.clone();
    next.kill(uuid, &instance, "test").await.unwrap();
    loop {
        if let Some(PoolEvent::Happened(Event::Ended { uuid: ended, .. })) = events.next().await {
            assert_eq!(ended, uuid);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn to_destroy_is_to_leave_nothing_whatever_is_held_or_runs() {
    for consistent in [true, false] {
        let world = World::new();
        world.cloud.consistent(consistent);
        let pool = world.pool().await;
        let held = pool.ready(&"small".into(), seconds(60)).await.unwrap();
        pool.set_idle_behavior(&held, IdleBehavior::Hold)
            .await
            .unwrap();
        let waits = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run(Run::new("small", *b"wait")).await })
        };
        until(&pool, |s| {
            s.workers.iter().any(|w| !w.containers.is_empty())
        })
        .await;
        pool.create(&"small".into()).await.unwrap();
        let left = pool.shutdown(Ending::Destroy, seconds(300)).await;
        assert!(left.is_clean(), "{left:?}");
        assert_eq!(world.cloud.len(), 0);
        assert!(
            waits
                .await
                .unwrap()
                .is_ok_and(|exit| exit.cause == ExitCause::InstanceLost)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_destroyed_in_time_is_named() {
    let world = World::new();
    let pool = world.pool().await;
    let instance = pool.ready(&"small".into(), seconds(60)).await.unwrap();
    world.cloud.set(Fault::Hang);
    let pending = pool.create(&"small".into()).await.unwrap();
    let began = tokio::time::Instant::now();
    let left = pool.shutdown(Ending::Destroy, seconds(30)).await;
    assert!(began.elapsed() < seconds(31));
    assert_eq!(left.instances, [instance]);
    assert_eq!(left.pendings, [pending]);
    assert!(left.abandoned.contains(&"create".to_owned()), "{left:?}");
    assert!(left.abandoned.contains(&"destroy".to_owned()), "{left:?}");

    let pool = world.pool().await;
    let left = pool.shutdown(Ending::Destroy, seconds(5)).await;
    assert!(left.never_listed, "there may be others");
}

#[tokio::test(start_paused = true)]
async fn when_the_last_handle_is_dropped_the_pool_ends_and_its_instances_stay() {
    let world = World::new();
    let pool = world.pool().await;
    pool.ready(&"small".into(), seconds(60)).await.unwrap();
    let (other, mut events) = (pool.clone(), pool.events());
    drop(pool);
    other.ready(&"small".into(), seconds(60)).await.unwrap();
    drop(other);
    let ended = async { while events.next().await.is_some() {} };
    timeout(seconds(10), ended).await.unwrap();
    let calls = world.cloud.calls();
    tokio::time::sleep(seconds(600)).await;
    assert_eq!(world.cloud.calls(), calls, "nobody is left");
    assert_eq!(world.cloud.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn futures_may_be_dropped_at_any_await() {
    let world = World::new();
    let pool = world.pool().await;
    for polls in 0..40 {
        let document = format!("exit {polls}");
        drop_after(polls, pool.run(Run::new("small", document))).await;
        drop_after(polls, pool.ready(&"small".into(), seconds(60))).await;
        drop_after(polls, pool.create(&"big".into())).await;
        drop_after(polls, pool.shut_down(&"none".into(), "test")).await;
        drop_after(polls, world.builder_of("never").start()).await;
    }
    let exit = timeout(seconds(300), pool.run(Run::new("small", *b"exit 9")));
    assert_eq!(exit.await.unwrap().unwrap().cause, exited(9));
    drop_after(3, pool.shutdown(Ending::Destroy, seconds(300))).await;
    let left = pool.shutdown(Ending::Destroy, seconds(300)).await;
    assert!(left.is_clean(), "{left:?}");
    assert_eq!(world.cloud.len(), 0);
}

// Metrics.

#[tokio::test(start_paused = true)]
async fn what_a_pool_has_done_can_be_read() {
    let mut registry = prometheus_client::registry::Registry::default();
    let text = |registry: &_| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    };
    let world = World::new();
    let pool = world
        .builder()
        .metrics(&mut registry)
        .start()
        .await
        .unwrap();
    pool.run(Run::new("small", *b"exit 0")).await.unwrap();
    world.cloud.set(Fault::Refuse);
    let _ = pool.create(&"big".into()).await;
    tokio::time::sleep(seconds(1)).await;
    let page = text(&registry);
    for line in [
        "arvados_dispatchcloud_instances_total{category=\"idle\",instance_type=\"small\"} 1",
        "arvados_dispatchcloud_instances_total{category=\"idle\",instance_type=\"big\"} 0",
        "arvados_dispatchcloud_instances_price{category=\"idle\"} 0.5",
        "arvados_dispatchcloud_vcpus_total{category=\"idle\"} 4",
        "arvados_dispatchcloud_memory_bytes_total{category=\"idle\"} 1073741824",
        "longshore_pool_workers{state=\"idle\"} 1",
        "longshore_pool_boot_outcomes_total{outcome=\"success\"} 1",
        "longshore_pool_boot_outcomes_total{outcome=\"failure\"} 0",
        "longshore_pool_hold_offs 1",
        "longshore_pool_pending_creates 0",
        "longshore_pool_effects_in_flight{kind=\"create\"} 0",
        "longshore_pool_time_to_ssh_seconds_count 1",
        "longshore_pool_time_to_ready_seconds_count 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    world.cloud.set(Fault::None);
    pool.shutdown(Ending::Destroy, seconds(300)).await;
    let page = text(&registry);
    assert!(!page.contains("instances_total{"), "it has ended: {page}");
    assert!(page.contains("shutdown_request_to_disappearance_seconds_count 1"));

    // Types that are not configured any more have no series.
    let mut types = world.types();
    types.retain(|t| t.name == "big".into());
    let mut registry = prometheus_client::registry::Registry::default();
    let pool = Pool::builder("other", types, world.cloud.clone(), world.hosts.clone())
        .metrics(&mut registry)
        .inline_provider_calls()
        .start()
        .await
        .unwrap();
    until(&pool, |snapshot| snapshot.is_listed).await;
    let page = text(&registry);
    assert!(page.contains("instance_type=\"big\"") && !page.contains("instance_type=\"small\""));
}

#[tokio::test(start_paused = true)]
async fn a_payload_whose_caller_has_gone_before_there_was_a_worker_is_not_started() {
    let world = World::new();
    world.hosts.set(HostFault::Hangs);
    let pool = world.pool().await;
    let run = pool.run(Run::new("small", *b"wait"));
    assert!(timeout(seconds(20), run).await.is_err());
    world.hosts.set(HostFault::None);
    until(&pool, |s| s.counts.get(&WorkerState::Idle) == Some(&1)).await;
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(pool.snapshot().counts[&WorkerState::Idle], 1);
}

/// create; twenty minutes in which the process does not run; then the end of the boot time-out and
/// the news of the sleep come together, in any order.
#[tokio::test(start_paused = true)]
async fn what_fell_due_while_the_process_stood_still_is_not_held_against_anybody() {
    for _ in 0..20 {
        let world = World::new();
        let pool = world.pool().await;
        world.hosts.set(HostFault::Hangs);
        pool.create(&"small".into()).await.unwrap();
        until(&pool, |s| s.workers.len() == 1).await;
        tokio::time::advance(seconds(1200)).await;
        tokio::time::sleep(seconds(2)).await;
        let states: Vec<_> = pool.snapshot().workers.iter().map(|w| w.state).collect();
        assert_eq!(states, [WorkerState::Booting]);
    }
}

/// An earlier pool creates an instance and is gone; the first listing does not show it yet; all is
/// to be destroyed.
#[tokio::test(start_paused = true)]
async fn to_destroy_waits_for_what_the_first_listing_may_not_have_shown() {
    let world = World::new();
    world.cloud.consistent(false);
    let pool = world.pool().await;
    until(&pool, |s| s.is_listed).await;
    let earlier = world.pool().await;
    earlier.ready(&"small".into(), seconds(60)).await.unwrap();
    earlier.shutdown(Ending::Keep, seconds(5)).await;
    let left = pool.shutdown(Ending::Destroy, seconds(300)).await;
    assert!(left.is_clean(), "{left}");
    assert_eq!(world.cloud.len(), 0);

    let hasty = world.pool().await;
    until(&hasty, |s| s.is_listed).await;
    let left = hasty.shutdown(Ending::Destroy, seconds(5)).await;
    assert!(!left.is_clean(), "it cannot know that");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_to_wait_gets_what_is_there() {
    let world = World::new();
    let pool = world.pool().await;
    let small = TypeName::new("small");
    let instance = pool.ready(&small, seconds(60)).await.unwrap();
    for _ in 0..5 {
        let ready = pool.ready(&small, Duration::ZERO).await;
        assert_eq!(ready, Ok(instance.clone()));
    }
    let error = pool.ready(&"big".into(), Duration::ZERO).await.unwrap_err();
    let NotReady::TimedOut { why, .. } = &error else {
        panic!("{error}")
    };
    assert!(matches!(**why, Obstacle::Coming { .. }), "{why}");
}

/// A pool starts a payload and dies. The next one has a ready worker before the old one has said
/// what runs on it, and is asked for the same payload.
#[tokio::test(start_paused = true)]
async fn a_name_that_an_earlier_pool_may_have_started_is_not_started_beside_it() {
    let world = World::new();
    let pool = world.pool().await;
    let uuid = random_uuid().unwrap();
    let run = |n| Run::new("small", *b"wait").attempt(uuid, Attempt(n));
    let waits = {
        let (pool, run) = (pool.clone(), run(1));
        tokio::spawn(async move { pool.run(run).await })
    };
    until(&pool, |s| {
        s.workers.iter().any(|w| !w.containers.is_empty())
    })
    .await;
    let old = pool.snapshot().workers[0].instance.clone();
    pool.shutdown(Ending::Keep, seconds(60)).await;
    assert_eq!(waits.await.unwrap(), Err(RunError::Ended));

    world.hosts.set_only(HostFault::Hangs, Some(old.clone()));
    let next = world.pool().await;
    let new = next.ready(&"small".into(), seconds(60)).await.unwrap();
    assert_ne!(new, old);
    // What nobody has named before has nothing to wait for.
    let exit = next.run(Run::new("small", *b"exit 0")).await.unwrap();
    assert!(exit.cause.is_success());
    let waited = timeout(seconds(600), next.run(run(2).timeout(seconds(30)))).await;
    let error = waited.unwrap().unwrap_err();
    let RunError::NotReady(NotReady::TimedOut { why, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(**why, Obstacle::NotAsked { instance: old });

    world.hosts.set(HostFault::None);
    let error = next.run(run(2)).await.unwrap_err();
    assert!(
        matches!(
            error,
            RunError::Refused(Refusal::MayRunOn { .. } | Refusal::HeldHere { .. })
        ),
        "{error}"
    );
    assert!(!error.surely_did_not_run(), "what runs may be it");
}

/// Keeps warnings as lines.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(
            &mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                line.push_str(&format!("{field}={value:?} "));
            },
        );
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn provider_calls_that_fail_are_logged_and_counted() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let world = World::new();
    let mut registry = prometheus_client::registry::Registry::default();
    let builder = world.builder().metrics(&mut registry);
    let pool = builder.start().await.unwrap();
    let instance = pool.ready(&"small".into(), seconds(60)).await.unwrap();
    world.cloud.set(Fault::Refuse);
    pool.create(&"big".into()).await.unwrap();
    until(&pool, |s| s.pendings.is_empty()).await;
    world.cloud.set_only(Fault::Panic, Some("destroy"));
    pool.shut_down(&instance, "test").await.unwrap();
    let failed = |w: &WorkerView| {
        w.last_error
            .as_ref()
            .is_some_and(|e| e.contains("panicked"))
    };
    until(&pool, |s| s.workers.iter().any(failed)).await;
    let lines = log.0.lock().unwrap().clone();
    let logged = |parts: &[&str]| {
        lines
            .iter()
            .any(|l| parts.iter().all(|part| l.contains(part)))
    };
    assert!(
        logged(&["operation=\"create\"", "instance_type=big", "no such image"]),
        "{lines:?}"
    );
    let id = format!("instance=\"{instance}\"");
    assert!(logged(&["operation=\"destroy\"", &id]), "{lines:?}");
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    let name = "longshore_pool_provider_failures_total";
    let refused = format!("{name}{{operation=\"create\",kind=\"invalid_request\"}} 1\n");
    assert!(page.contains(&refused), "{page}");
    assert!(
        page.contains(&format!("{name}{{operation=\"destroy\",")),
        "{page}"
    );
}
