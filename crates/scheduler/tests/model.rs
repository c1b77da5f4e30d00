//! The scheduler in a small world where everything that can go wrong does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;
mod world;

use proptest::prelude::*;
use support::{arvados, config};
use world::{Step, World};

fn any_step() -> impl Strategy<Value = Step> {
    use longshore_types::IdleBehavior;
    let which = 0usize..50;
    let priority = prop_oneof![4 => 1i64..4, 1 => Just(0)];
    let behavior = prop_oneof![
        3 => Just(IdleBehavior::Run),
        1 => Just(IdleBehavior::Hold),
        1 => Just(IdleBehavior::Drain)
    ];
    prop_oneof![
        6 => (prop_oneof![Just(1u32), Just(2), Just(4), Just(8)], 1i64..4)
            .prop_map(|(vcpus, priority)| Step::Submit { vcpus, priority }),
        2 => (which.clone(), priority)
            .prop_map(|(which, priority)| Step::Priority { which, priority }),
        14 => (which.clone(), prop::bool::weighted(0.85))
            .prop_map(|(which, well)| Step::Settle { which, well }),
        7 => which.clone().prop_map(|which| Step::Boot { which }),
        1 => which.clone().prop_map(|which| Step::BootFails { which }),
        4 => (which.clone(), prop::bool::weighted(0.2))
            .prop_map(|(which, badly)| Step::Exit { which, badly }),
        1 => which.clone().prop_map(|which| Step::Crash { which }),
        8 => which.clone().prop_map(|which| Step::Probe { which }),
        2 => (which, behavior).prop_map(|(which, behavior)| Step::Behave { which, behavior }),
        3 => Just(Step::Refresh),
        2 => (0usize..5).prop_map(|instances| Step::Quota { instances }),
        1 => Just(Step::Restart),
        2 => (1u64..400).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(support::how_many(300)))]

    #[test]
    fn with_placements_recorded(steps in prop::collection::vec(any_step(), 1..150)) {
        let mut world = World::new(config());
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }

    #[test]
    fn without_placements_recorded(steps in prop::collection::vec(any_step(), 1..150)) {
        let mut world = World::new(arvados());
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}

/// Containers come in waves and end; the core is as large after each wave as after the first.
#[test]
fn what_has_ended_takes_no_room() {
    for config in [config(), arvados()] {
        let mut world = World::new(config);
        let mut sizes = Vec::new();
        for _ in 0..100 {
            for _ in 0..20 {
                world.step(&Step::Submit {
                    vcpus: 2,
                    priority: 1,
                });
            }
            world.finish();
            sizes.push(world.sizes());
        }
        assert!(sizes.iter().all(|later| *later == sizes[0]), "{sizes:?}");
    }
}
