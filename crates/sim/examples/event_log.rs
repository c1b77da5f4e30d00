//! Prints everything that happens in a wild scenario, and its figures: `cargo run --example
//! event_log -- SEED`; names of faults and rules (`RunsTwice`) after it are
//! left out, with `all` every fault.

#![expect(clippy::print_stdout, reason = "that is what an example is for")]

use longshore_sim::{FaultKind, Rule, Scenario, run_watched};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = arguments.first().and_then(|text| text.parse().ok());
    let mut scenario = Scenario::wild(seed.unwrap_or(1));
    let all = arguments.iter().any(|argument| argument == "all");
    for kind in FaultKind::ALL {
        if all || arguments.contains(&kind.to_string()) {
            scenario.faults.set(kind, 0);
        }
    }
    scenario.tolerated = Rule::ALL.to_vec();
    let named = |rule: &Rule| arguments.contains(&format!("{rule:?}"));
    scenario.tolerated.retain(named);
    let outcome = run_watched(&scenario, &mut |line| println!("{line}"));
    println!("{outcome}");
    for violation in outcome.violations {
        println!("{}: {}", violation.rule, violation.what);
    }
}
