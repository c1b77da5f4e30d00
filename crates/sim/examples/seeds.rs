//! Simulates wild scenarios, seed after seed, and prints which fail, with the story of the first
//! one, made smaller: `cargo run --release --example seeds -- FIRST COUNT`; names of faults
//! and rules (`RunsTwice`) after that are left out. With `--until-broken` the first that fails is
//! enough, and its story is not told.

#![expect(clippy::print_stdout, reason = "that is what an example is for")]

use longshore_sim::{FaultKind, Rule, Scenario, run, shrink};

/// The scenario of a seed, without what is known not to hold yet, some kinds of faults and some
/// rules.
fn scenario(seed: u64, left_out: &[String]) -> Scenario {
    let mut scenario = Scenario::wild(seed);
    for kind in FaultKind::ALL {
        if left_out.contains(&kind.to_string()) {
            scenario.faults.set(kind, 0);
        }
    }
    let mut tolerated = Rule::ALL.to_vec();
    tolerated.retain(|rule| left_out.contains(&format!("{rule:?}")));
    scenario.leave_out_known();
    scenario.tolerated.extend(tolerated);
    scenario
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| arguments.get(n).and_then(|text| text.parse::<u64>().ok());
    let (first, count) = (number(0).unwrap_or(0), number(1).unwrap_or(100));
    let left_out = arguments.get(2..).unwrap_or_default();
    let scenario = |seed| scenario(seed, left_out);
    let until_broken = left_out.iter().any(|word| word == "--until-broken");
    let (mut failing, mut tried) = (Vec::new(), 0);
    for seed in first..first + count {
        tried += 1;
        let outcome = run(&scenario(seed));
        if let Some(violation) = outcome.violations.first() {
            println!("seed {seed}: {}: {}", violation.rule, violation.what);
            failing.push(seed);
            if until_broken {
                break;
            }
        }
    }
    println!("{} of {tried} seeds from {first} on fail", failing.len());
    let Some(seed) = failing.first() else { return };
    if until_broken {
        std::process::exit(1);
    }
    if let Some((smaller, outcome)) = shrink(&scenario(*seed), 100) {
        let kinds: Vec<String> = smaller.faults.kinds().map(|k| k.to_string()).collect();
        println!(
            "seed {seed}: {} containers in {:?}, faults: {}",
            smaller.arrivals.len(),
            smaller.busy,
            kinds.join(", ")
        );
        for violation in outcome.violations {
            println!("{violation}");
        }
    }
    std::process::exit(1);
}
