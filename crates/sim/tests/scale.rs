//! The work for a container does not grow with the size of the world. What is compared are counts,
//! which do not depend on the speed of a machine.

use std::time::Duration;

use longshore_sim::{Arrivals, Outcome, Scenario, run};

/// Events and effects for each container may grow by so much where everything is so many times
/// larger.
const GROWTH_MAX: f64 = 1.2;

/// Two hours of work for about so many instances.
fn steady(instances: u32, containers: u32) -> Outcome {
    let count = |n: u32| usize::try_from(n).expect("a small number");
    let mut scenario = Scenario::new(1);
    scenario.busy = Duration::from_secs(7_200);
    scenario.arrivals = Arrivals::Steady {
        containers: count(containers),
        // A third of the mean runtime, of containers that take two thirds of an instance each.
        runtime: scenario.busy * instances / containers / 2,
    };
    scenario.config.pool.max_instances = count(instances);
    scenario.config.pool.max_creates_in_flight = 20;
    let outcome = run(&scenario);
    if let Some(violation) = outcome.violations.first() {
        panic!("{violation}");
    }
    assert_eq!(outcome.complete, count(containers));
    outcome
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn per_container(outcome: &Outcome) -> [(&'static str, f64); 2] {
    let effects: u64 = outcome.calls.values().sum();
    let containers = outcome.containers as f64;
    [
        ("events", outcome.events as f64 / containers),
        ("effects", effects as f64 / containers),
    ]
}

#[test]
fn events_and_effects_for_a_container_do_not_grow_with_the_world() {
    let (small, large) = (steady(10, 200), steady(100, 2_000));
    for ((what, before), (_, after)) in per_container(&small).into_iter().zip(per_container(&large))
    {
        assert!(
            after <= before * GROWTH_MAX,
            "{what} for a container: {before:.1}, and {after:.1} in a world ten times as large"
        );
    }
}
