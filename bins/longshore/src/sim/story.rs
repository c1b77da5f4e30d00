//! The story of a broken promise.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use longshore_sim::{Outcome, Scenario, shrink};
use longshore_types::format_duration;

use super::args::SimArgs;
use super::shown;
use crate::tell;

/// How long a scenario is made smaller, about.
const PATIENCE: Duration = Duration::from_secs(10);
const RUNS_MAX: usize = 150;

/// What broke, made as small as it can be in a while, and how to see it again.
pub(super) fn story(scenario: &Scenario, outcome: &Outcome, command: &str) -> String {
    let mut text = String::new();
    let Some(violation) = outcome.violations.first() else {
        return text;
    };
    let _ = writeln!(
        text,
        "\nA PROMISE IS BROKEN: {}: {}\nagain with: {command}",
        violation.rule, violation.what
    );
    tell!("looking for a smaller case (Ctrl-C twice to stop)");
    match shrink(scenario, runs_max(scenario)) {
        Some((smaller, outcome)) => {
            let faults: Vec<String> = smaller.faults.kinds().map(|k| k.to_string()).collect();
            let faults = match faults.is_empty() {
                true => "no faults".into(),
                false => faults.join(", "),
            };
            let _ = writeln!(
                text,
                "\nThe smallest case that was found: {} containers within {}, with {faults}:\n",
                smaller.arrivals.len(),
                format_duration(smaller.busy),
            );
            for violation in outcome.violations {
                let _ = write!(text, "{violation}");
            }
        }
        None => {
            let _ = write!(text, "\n{violation}");
        }
    }
    text
}

/// As many runs as fit into the time.
fn runs_max(scenario: &Scenario) -> usize {
    let begun = Instant::now();
    longshore_sim::run(scenario);
    let one = begun.elapsed().max(Duration::from_millis(1));
    let runs = PATIENCE.as_millis() / one.as_millis().max(1);
    usize::try_from(runs).unwrap_or(RUNS_MAX).min(RUNS_MAX)
}

/// The command that simulates this seed again.
pub(super) fn command(args: &SimArgs, seed: u64) -> String {
    let mut words = vec!["longshore sim".to_owned()];
    if let Some(arrivals) = &args.arrivals {
        words.push(format!("--arrivals {}", quoted(arrivals)));
    }
    if let Some(busy) = args.hours {
        words.push(format!("--hours {}", busy.as_secs_f64() / 3600.0));
    }
    if let Some(workers) = args.workers {
        words.push(format!("--workers {workers}"));
    }
    if let Some(config) = &args.config {
        words.push(format!("--config {}", quoted(&shown(config))));
    }
    words.push(format!("--faults {} --seed {seed}", args.faults.as_str()));
    words.join(" ")
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./:@_-+".contains(c);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
