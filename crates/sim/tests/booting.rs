//! How many machines are made where none boots, and how soon those are used that do.

use std::time::Duration;

use longshore_fakecloud::Spread;
use longshore_sim::{Arrivals, Scenario, Simulation, run};

const MINUTE: Duration = Duration::from_secs(60);

/// In two hours of machines that need 5 min where 30 s are allowed: of each of two types at most
/// the 3 of the first container each and 3 more at the same time, until three have failed; then
/// one after pauses of 1, 2, 4, 8, 16, 30 and 30 min, which is 7 trials, the last after 95 min.
/// That is 13 of a type.
#[test]
fn where_nothing_boots_few_machines_are_made() {
    let mut scenario = Scenario::new(1);
    scenario.arrivals = Arrivals::Burst {
        containers: 3,
        runtime: 2 * MINUTE,
    };
    scenario.config.pool.timeout_booting = MINUTE / 2;
    scenario.cloud = scenario.cloud.with_boot(5 * MINUTE);
    let mut simulation = Simulation::new(&scenario);
    while simulation.progress().elapsed < 120 * MINUTE && simulation.advance() {}
    let outcome = simulation.finish();
    assert!(
        (5..=26).contains(&outcome.instances),
        "{}",
        outcome.instances
    );
}

/// Machines boot in 20 s, their creates tell no address, and listings are regular once a minute.
/// One boot probe of a machine that does not answer yet takes up to 30 s of the wait.
#[test]
fn a_machine_is_used_soon_after_it_has_booted() {
    let mut scenario = Scenario::new(1);
    scenario.arrivals = Arrivals::Burst {
        containers: 100,
        runtime: 2 * MINUTE,
    };
    scenario.cloud = scenario.cloud.with_boot(Spread::from(MINUTE / 3));
    let outcome = run(&scenario);
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    let (waits, lists) = (&outcome.waits, outcome.calls["list"]);
    assert!(waits.p95 < 3 * MINUTE / 4, "{waits:?}, {lists} listings");
    let minutes = outcome.elapsed.as_secs() / 60;
    assert!(lists < 4 * minutes, "{lists} listings in {minutes} min");
}
