//! The dispatcher in a world where things go wrong: nothing is lost, nothing runs twice at once,
//! nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "explain/mod.rs"]
mod explain;
mod world;

use std::time::Duration;

use longshore_dispatch::Config;
use longshore_queue::Capabilities;
use longshore_types::{Attempt, ByteSize, ContainerState, InstanceType, Price};
use world::controller::Controller;
use world::{Faults, World};

/// How many seeds each test tries, unless `LONGSHORE_SEEDS` says how many.
const SEEDS: u64 = 60;
const HOUR: Duration = Duration::from_secs(3600);

#[expect(
    clippy::disallowed_methods,
    reason = "a longer run is asked for by hand"
)]
fn seeds() -> u64 {
    std::env::var("LONGSHORE_SEEDS").map_or(SEEDS, |text| text.parse().unwrap())
}

fn config() -> Config {
    let price = Price::from_units(0.1).unwrap();
    let small = InstanceType::new("small", 2, ByteSize::gib(4), price);
    let mut pool = longshore_pool::Config::new("zzzzz", vec![small.clone()]);
    pool.capabilities.idempotent_create = true;
    pool.capabilities.tags_at_birth = true;
    pool.max_instances = 6;
    let mut scheduler = longshore_scheduler::Config::new(vec![small]);
    scheduler.reserve_extra_ram = ByteSize::ZERO;
    scheduler.keep_buffers_per_vcpu = 0;
    let queue = Capabilities {
        pushes: true,
        takes_reports: true,
    };
    Config::new(pool, scheduler, queue)
}

/// Runs 20 containers to their end and winds down, for many seeds.
fn survives(faults: Faults, during: Duration) -> Vec<World> {
    let mut worlds = Vec::new();
    for seed in 0..seeds() {
        let controller = Controller::with_containers(20, 1);
        let mut world = World::new(config(), faults, seed, controller);
        let mut go = || {
            let begun = world.now;
            world.run_until(during * 2, |w| {
                w.controller.all_final() || w.now.since(begun) > during
            })?;
            // The faults end; what they left has to be mended within a bounded time.
            world.faults = Faults::default();
            world.run_until(3 * HOUR, |w| w.controller.all_final())?;
            world.core.wind_down(world.now);
            world.run_until(HOUR, |w| w.core.is_wound_down())
        };
        if let Err(error) = go() {
            panic!("seed {seed}: {error}");
        }
        assert!(
            world.cloud.is_empty(),
            "seed {seed}: {}",
            world.cloud.describe()
        );
        for container in world.controller.containers.values() {
            assert_eq!(container.state, ContainerState::Complete, "seed {seed}");
            assert!(
                world
                    .cloud
                    .started
                    .contains(&(container.uuid, container.attempt()))
            );
        }
        worlds.push(world);
    }
    worlds
}

#[test]
fn runs_a_batch_and_gives_every_instance_back() {
    for world in survives(Faults::default(), HOUR) {
        assert_eq!(
            world.cloud.started.len(),
            20,
            "each container is started once"
        );
        assert!(
            world
                .controller
                .containers
                .values()
                .all(|c| c.lock_count == 1)
        );
        assert!(
            world.effects < 3000,
            "{} effects for 20 containers",
            world.effects
        );
    }
}

#[test]
fn lost_requests_and_replies_lose_nothing() {
    let faults = Faults {
        reply_lost: 30_000,
        request_lost: 30_000,
        ..Faults::default()
    };
    survives(faults, HOUR);
}

#[test]
fn crashes_of_the_dispatcher_lose_nothing() {
    let faults = Faults {
        crash: 10_000,
        ..Faults::default()
    };
    let worlds = survives(faults, HOUR);
    let crashes: u32 = worlds.iter().map(|world| world.crashes).sum();
    assert!(crashes > 300, "only {crashes} crashes");
    for world in worlds {
        for container in world.controller.containers.values() {
            let starts = world.cloud.starts_of(container.uuid);
            let story = world.story_of(container.uuid);
            assert_eq!(
                starts, 1,
                "a crash of the dispatcher made it run again:
{story}"
            );
        }
    }
}

#[test]
fn lost_instances_and_supervisors_cost_only_their_attempts() {
    let faults = Faults {
        instance_lost: 2_000,
        supervisor_lost: 5_000,
        ..Faults::default()
    };
    let worlds = survives(faults, HOUR);
    assert!(
        worlds
            .iter()
            .any(|world| !world.controller.retries.is_empty())
    );
}

#[test]
fn everything_at_once() {
    let faults = Faults {
        reply_lost: 20_000,
        request_lost: 20_000,
        crash: 5_000,
        instance_lost: 1_000,
        supervisor_lost: 3_000,
    };
    survives(faults, HOUR);
}

#[test]
fn cancelled_containers_end_wherever_they_are() {
    for seed in 0..seeds() {
        let faults = Faults {
            reply_lost: 20_000,
            crash: 2_000,
            ..Faults::default()
        };
        let controller = Controller::with_containers(20, 1);
        let mut world = World::new(config(), faults, seed, controller);
        let moment = Duration::from_secs(world.random.below(120));
        let mut go = || {
            world.run_until(2 * HOUR, |w| {
                w.controller.all_final() || w.now.since(longshore_types::Instant::ZERO) > moment
            })?;
            let uuids: Vec<_> = world.controller.containers.keys().copied().collect();
            for uuid in uuids {
                world.controller.cancel(uuid);
            }
            world.run_until(HOUR, |w| w.controller.all_final())?;
            world.faults = Faults::default();
            world.core.wind_down(world.now);
            world.run_until(HOUR, |w| w.core.is_wound_down())
        };
        if let Err(error) = go() {
            panic!("seed {seed}: {error}");
        }
        assert!(world.cloud.is_empty(), "seed {seed}");
    }
}

#[test]
fn held_back_and_raised_again_they_run_to_their_end() {
    for seed in 0..seeds() {
        let faults = Faults {
            crash: 10_000,
            ..Faults::default()
        };
        let controller = Controller::with_containers(20, 1);
        let mut world = World::new(config(), faults, seed, controller);
        let uuids: Vec<_> = world.controller.containers.keys().copied().collect();
        let mut go = || {
            for round in 0..10 {
                let now = world.now;
                let pause = Duration::from_secs(world.random.below(20));
                world.run_until(HOUR, |w| {
                    w.controller.all_final() || w.now.since(now) > pause
                })?;
                for uuid in &uuids {
                    let priority = if world.random.below(2) == 0 { 0 } else { 500 };
                    let priority = if round == 9 { 500 } else { priority };
                    world.controller.set_priority(*uuid, priority);
                }
            }
            world.faults = Faults::default();
            world.run_until(3 * HOUR, |w| w.controller.all_final())?;
            world.core.wind_down(world.now);
            world.run_until(HOUR, |w| w.core.is_wound_down())
        };
        if let Err(error) = go() {
            panic!("seed {seed}: {error}");
        }
        let complete = |c: &longshore_types::Container| c.state == ContainerState::Complete;
        let lost = &world.controller.retries;
        assert!(
            lost.is_empty(),
            "seed {seed}: nothing was lost, but {lost:?}"
        );
        assert!(
            world.controller.containers.values().all(complete),
            "seed {seed}"
        );
    }
}

#[test]
fn an_attempt_that_a_runner_refuses_is_followed_by_another() {
    let controller = Controller::with_containers(1, 1);
    let uuid = *controller.containers.keys().next().unwrap();
    let mut world = World::new(config(), Faults::default(), 1, controller);
    world.run_until(HOUR, |w| !w.cloud.is_empty()).unwrap();
    // As after a kill of it that an earlier dispatcher sent and did not live to tell of.
    world.cloud.refuse(uuid, Attempt(1));
    world.run_until(HOUR, |w| w.controller.all_final()).unwrap();
    assert_eq!(world.controller.containers[&uuid].attempt(), Attempt(2));
    assert!(world.controller.retries.is_empty(), "nothing was lost");
    assert_eq!(world.cloud.made, 1, "the instance is not to blame");
}

/// Containers come in waves and end; the dispatcher is as large after each wave as after the first,
/// on instances that stay as well as when all of them go.
#[test]
fn what_has_ended_takes_no_room() {
    for timeout_idle in [Duration::from_secs(60), 1000 * HOUR] {
        let mut config = config();
        config.pool.timeout_idle = timeout_idle;
        let mut world = World::new(config, Faults::default(), 1, Controller::default());
        let mut sizes = Vec::new();
        for wave in 0..10 {
            for n in 0..20 {
                world.controller.add(wave * 20 + n, 1);
            }
            world.run_until(HOUR, |w| w.controller.all_final()).unwrap();
            // What is still under way then has ended a good while later.
            let end = world.now + HOUR;
            world.run_until(2 * HOUR, |w| w.now >= end).unwrap();
            sizes.push(kept_of_containers(&world));
        }
        let first = &sizes[0];
        assert!(sizes.iter().all(|later| later == first), "{sizes:#?}");
        assert!(first.is_empty(), "{first:?}");
    }
}

/// How much of each kind is kept of containers that nobody asks about any more.
fn kept_of_containers(world: &World) -> Vec<(&'static str, usize)> {
    let of_instances = |what: &str| {
        let kinds = [
            "worker",
            "slot",
            "instance",
            "timers",
            "last busy",
            "effects",
            "requests",
        ];
        kinds.iter().any(|kind| what.contains(kind))
    };
    let sizes = world.core.sizes().into_iter();
    let of_containers =
        sizes.filter(|(what, _)| !of_instances(what) || *what == "claims of workers");
    let kept = of_containers.filter(|(what, size)| *size > 0 && *what != "remembered containers");
    kept.collect()
}
