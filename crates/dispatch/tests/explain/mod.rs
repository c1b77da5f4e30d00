//! Why containers wait, each reason brought about in the world, and read as a newcomer would.
//!
//! `LONGSHORE_SHOW=1 cargo test -p longshore-dispatch --test faults explain -- --nocapture` prints
//! every explanation.

use std::time::Duration;

use longshore_cloud::{ErrorKind, Scope};
use longshore_dispatch::Config;
use longshore_queue::QueueErrorKind;
use longshore_types::{
    ByteSize, Container, ContainerUuid, Explanation, IdleBehavior, InstanceType, Price, Reason,
    WorkerView,
};

use crate::world::cloud::Habits;
use crate::world::controller::Controller;
use crate::world::{Faults, World};
use crate::{HOUR, config};

fn uuid(n: usize) -> ContainerUuid {
    format!("zzzzz-dz642-{n:015}").parse().unwrap()
}

/// A world of `count` containers that run for a day.
fn world(config: Config, count: u64, vcpus: u32) -> World {
    let controller = Controller::with_containers(count, vcpus);
    let mut world = World::new(config, Faults::default(), 1, controller);
    world.cloud.habits.runs_long = true;
    world
}

fn edit(world: &mut World, n: usize, edit: impl FnOnce(&mut Container)) {
    edit(world.controller.containers.get_mut(&uuid(n)).unwrap());
}

/// Goes on until the reason of a container is as wanted, and explains it then.
#[track_caller]
fn explain(world: &mut World, n: usize, wanted: impl Fn(&Reason) -> bool) -> Explanation {
    let is_so = |w: &World| {
        let why = w.core.explain(uuid(n), w.now);
        why.is_some_and(|why| wanted(&why.reason))
    };
    if let Err(error) = world.run_until(2 * HOUR, is_so) {
        let last = world.core.explain(uuid(n), world.now);
        panic!("{last:?}\n{error}");
    }
    let why = world.core.explain(uuid(n), world.now).unwrap();
    show(&why);
    why
}

#[expect(clippy::print_stdout, reason = "it is asked for by hand")]
fn show(why: &Explanation) {
    if std::env::var_os("LONGSHORE_SHOW").is_some() {
        println!("----\n{why}");
    }
}

fn no_room(reason: &Reason) -> bool {
    matches!(reason, Reason::NoRoom { .. })
}

#[track_caller]
fn says(why: &Explanation, wanted: &str) {
    let text = why.to_string();
    assert!(text.contains(wanted), "{wanted:?} is missing in:\n{text}");
}

#[test]
fn no_capacity_names_its_end_and_the_next_type() {
    let mut config = config();
    let price = Price::from_units(0.168).unwrap();
    let large = InstanceType::new("large", 4, ByteSize::gib(8), price);
    for types in [&mut config.pool.types, &mut config.scheduler.types] {
        types.push(large.clone());
    }
    let mut world = world(config, 2, 2);
    let kind = ErrorKind::NoCapacity(Scope::Type("small".into()));
    world.cloud.habits.refuses = Some((kind, "InsufficientInstanceCapacity"));
    let why = explain(&mut world, 1, no_room);
    says(
        &why,
        "then type small is tried again (InsufficientInstanceCapacity)",
    );
    says(&why, "large would fit, and is 12 % dearer than it allows");
    assert_eq!(why.hold_offs.len(), 1);
    assert!(why.hold_offs[0].remaining <= Duration::from_secs(60));
    assert!(!why.hold_offs[0].is_quota);
}

#[test]
fn a_quota_says_whose_it_is() {
    let mut world = world(config(), 5, 2);
    let why = explain(&mut world, 4, no_room);
    says(
        &why,
        "the provider's quota for everything is reached (quota): have it raised",
    );
    assert!(why.hold_offs.iter().any(|hold| hold.is_quota));
}

#[test]
fn max_instances_counts_those_on_their_way_out() {
    let mut config = config();
    config.pool.max_instances = 2;
    let mut world = world(config, 3, 2);
    explain(&mut world, 1, |reason| *reason == Reason::NotWaiting);
    let one = world.core.snapshot(world.now).workers[0].instance.clone();
    let now = world.now;
    world
        .core
        .set_idle_behavior(&one, IdleBehavior::Drain, now)
        .unwrap();
    let why = explain(&mut world, 2, no_room);
    says(
        &why,
        "MaxInstances 2 is reached: raise it, or wait for the one that is on its way out",
    );
    says(&why, "drained, takes nothing new");
}

#[test]
fn nobody_is_told_to_raise_what_the_driver_cannot_have() {
    let mut config = config();
    config.pool.capabilities.max_instances = 1;
    let mut world = world(config, 2, 2);
    let why = explain(&mut world, 1, no_room);
    says(
        &why,
        "the driver can have only 1 instance at once: wait until one is given back",
    );
    assert!(!why.to_string().contains("raise"), "{why}");
    // Everybody is told the same, however he asks.
    let now = world.now;
    let entry = world.core.entry(uuid(1), now).unwrap();
    let shown = entry.reason.unwrap();
    let shown = shown.sentence(entry.container.state, entry.position, entry.in_line);
    assert_eq!(shown, why.sentence());
    let snapshot = world.core.snapshot(now);
    let mut waiting = snapshot.waiting.iter();
    let waiting = waiting.find(|waiting| waiting.uuid == uuid(1)).unwrap();
    let listed = waiting
        .reason
        .sentence(waiting.state, waiting.position, snapshot.in_line);
    assert_eq!(listed, why.sentence());
}

#[test]
fn what_is_packed_out_says_what_there_is_too_little_of() {
    let mut config = config();
    config.pool.max_instances = 1;
    let mut world = world(config, 2, 1);
    for n in 0..2 {
        edit(&mut world, n, |c| c.request.ram = ByteSize::gib(3));
    }
    let why = explain(&mut world, 1, no_room);
    says(&why, "has not enough RAM left");
    says(
        &why,
        "wait until something ends on the instance that could run it",
    );
}

#[test]
fn priority_zero_says_to_raise_it() {
    let mut world = world(config(), 1, 2);
    explain(&mut world, 0, |reason| *reason == Reason::NotWaiting);
    world.controller.set_priority(uuid(0), 0);
    let stopping = |reason: &Reason| matches!(reason, Reason::Stopping { .. });
    let why = explain(&mut world, 0, stopping);
    says(&why, "it is being stopped on i-1");
    // Once it has ended nobody but the controller knows of it any more.
    let forgotten = |w: &World| w.core.explain(uuid(0), w.now).is_none();
    world.run_until(HOUR, forgotten).unwrap();
    let why = Explanation::of_record(&world.controller.containers[&uuid(0)]).unwrap();
    show(&why);
    says(&why, "not runnable: its priority is 0");
    says(&why, "raise its priority to 1 or more");
}

#[test]
fn a_boot_that_is_waited_for_says_when_others_were_ready() {
    let mut config = config();
    config.pool.max_creates_in_flight = 1;
    let mut world = world(config, 4, 2);
    let created = |reason: &Reason| matches!(reason, Reason::WaitingForBoot { instance: None, .. });
    let why = explain(&mut world, 0, created);
    says(&why, "waiting for a new small instance to be created");
    let booting = |reason: &Reason| {
        matches!(
            reason,
            Reason::WaitingForBoot {
                instance: Some(_),
                ..
            }
        )
    };
    let why = explain(&mut world, 0, booting);
    assert_eq!(why.estimate, None, "nothing is known yet");
    says(&why, "waiting for small instance i-1 to boot");
    // Once three have booted, a new one is waited for with an idea of when.
    explain(&mut world, 2, |reason| *reason == Reason::NotWaiting);
    let workers = world.core.snapshot(world.now).workers;
    let has_it = |view: &WorkerView| view.containers.iter().any(|held| held.uuid == uuid(0));
    let gone = workers.into_iter().find(has_it).unwrap().instance;
    let now = world.now;
    world.core.kill_instance(&gone, "a test", now).unwrap();
    let why = explain(&mut world, 0, booting);
    says(&why, "instances of type small were ready");
    says(&why, "for the boot of i-1");
}

#[test]
fn a_machine_that_does_not_answer_is_named_with_its_error() {
    let mut world = world(config(), 1, 2);
    world.cloud.habits.never_boots = true;
    let failing = |reason: &Reason| {
        matches!(
            reason,
            Reason::WaitingForBoot {
                last_error: Some(_),
                ..
            }
        )
    };
    let why = explain(&mut world, 0, failing);
    says(&why, "the last try failed");
    says(&why, "if that lasts, look at what went wrong there last");
    // In the end creates of the type are held off.
    let why = explain(&mut world, 0, no_room);
    says(&why, "instances of it do not boot");
}

#[test]
fn machines_on_which_nothing_starts_are_held_off() {
    let mut world = world(config(), 12, 2);
    world.cloud.habits.starts_nothing = Some("exec format error");
    let why = explain(&mut world, 0, |reason| {
        matches!(reason, Reason::Pausing { .. })
    });
    says(&why, "nothing to do: it is tried again in");
    says(&why, "exec format error");
    let held = |reason: &Reason| {
        matches!(reason, Reason::NoRoom { create_blocked_by, .. }
            if create_blocked_by.contains("nothing can be started"))
    };
    let why = explain(&mut world, 11, held);
    says(
        &why,
        "nothing can be started on instances of it: exec format error",
    );
}

#[test]
fn supervisors_and_the_limit_of_the_controller_say_how_many_run() {
    let mut config = config();
    config.pool.max_instances = 4;
    let mut world = world(config, 4, 1);
    for n in 0..4 {
        edit(&mut world, n, |c| c.supervisor = true);
    }
    world
        .run_until(HOUR, |w| w.cloud.started.len() == 2)
        .unwrap();
    world.controller.refuses_locks = Some(QueueErrorKind::Overloaded);
    let limit = |reason: &Reason| {
        matches!(
            reason,
            Reason::ContainerLimit { .. } | Reason::SupervisorLimit { .. }
        )
    };
    // One is refused; the others come while the controller is spared for it.
    world.controller.add(4, 1);
    explain(&mut world, 4, |reason| {
        matches!(reason, Reason::Pausing { .. })
    });
    world.controller.refuses_locks = None;
    for n in 5..8 {
        world.controller.add(n, 1);
    }
    let why = explain(&mut world, 7, limit);
    says(&why, "at once is reached");
    says(&why, "that run or are being started ends");
    let supervisors = |reason: &Reason| matches!(reason, Reason::SupervisorLimit { .. });
    let why = explain(&mut world, 3, supervisors);
    says(&why, "raise SupervisorFraction");
}

#[test]
fn a_controller_that_cannot_write_limits_nothing() {
    let mut world = world(config(), 4, 1);
    world
        .run_until(HOUR, |w| w.cloud.started.len() == 4)
        .unwrap();
    world.controller.refuses_locks = Some(QueueErrorKind::Unavailable);
    world.controller.add(4, 1);
    let why = explain(&mut world, 4, |reason| {
        matches!(reason, Reason::Pausing { .. })
    });
    says(&why, "as the test has it");
    assert_eq!(world.core.figures(world.now).max_containers, None);
    // As soon as it can be written again everything runs.
    world.controller.refuses_locks = None;
    world
        .run_until(HOUR, |w| w.cloud.started.len() == 5)
        .unwrap();
}

#[test]
fn before_the_instances_are_listed_nothing_is_begun() {
    let mut world = world(config(), 1, 2);
    world.cloud.habits = Habits {
        lists_nothing: true,
        ..Habits::default()
    };
    let why = explain(&mut world, 0, |reason| *reason == Reason::NotAccepting);
    says(
        &why,
        "nothing is begun before the queue and the instances have been read",
    );
}

#[test]
fn what_satisfies_nothing_names_the_nearest_types() {
    let mut world = world(config(), 1, 3);
    let why = explain(&mut world, 0, |_| true);
    says(
        &why,
        "small (0.100000 per hour): has 2 vCPUs of 3 vCPUs needed",
    );
    world.run_until(HOUR, |w| w.controller.all_final()).unwrap();
    let forgotten = |w: &World| w.core.explain(uuid(0), w.now).is_none();
    world.run_until(HOUR, forgotten).unwrap();
    let why = Explanation::of_record(&world.controller.containers[&uuid(0)]).unwrap();
    assert_eq!(why.sentence(), "it was cancelled");
}
