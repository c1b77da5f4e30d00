//! The same containers under two configurations.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use longshore_sim::{Arrivals, Outcome, Scenario};
use longshore_types::format_duration;
use serde_json::{Map, Value, json};

use super::args::CompareArgs;
use super::config::{self, Settings};
use super::setup::Setup;
use super::table::{amount, hours};
use super::watch::{Ended, Watcher};
use super::{json, print, print_json, shown, tell};
use crate::ending::Ending;
use crate::text::{fit, width};

/// The widest name of a configuration in the table, in columns.
const NAME_MAX: usize = 24;
/// Less than this is no difference, in percent.
const SAME: f64 = 0.5;

/// One side of the comparison.
#[derive(Debug)]
struct Side {
    name: String,
    outcome: Outcome,
}

pub(super) fn compare(args: &CompareArgs) -> anyhow::Result<Ending> {
    let settings = [config::load(&args.a)?, config::load(&args.b)?];
    let scenarios = scenarios(args, settings)?;
    let mut watcher = Watcher::new(None)?;
    let mut sides = Vec::new();
    for (path, scenario) in [&args.a, &args.b].into_iter().zip(&scenarios) {
        watcher.heading = format!("{}: ", shown(path));
        let (outcome, ended) = watcher.run(scenario)?;
        if ended == Ended::Interrupted {
            // Half a comparison would mislead.
            tell!("ended before both were simulated");
            return Ok(Ending::Interrupted);
        }
        let name = shown(path);
        sides.push(Side { name, outcome });
    }
    let [a, b] = &sides[..] else {
        return Ok(Ending::Succeeded);
    };
    if args.json {
        print_json(object(args, a, b))?;
    } else {
        print(&text(args, a, b))?;
    }
    report_violations(args, &sides)
}

/// Both scenarios, with exactly the same containers.
fn scenarios(args: &CompareArgs, settings: [Settings; 2]) -> anyhow::Result<[Scenario; 2]> {
    let [a, b] = settings.map(|settings| {
        Setup::of(
            Some(&args.arrivals),
            args.hours,
            args.faults,
            Some(settings),
        )
    });
    let (a, b) = (a?, b?);
    let mut notes = a.notes.clone();
    notes.extend(
        b.notes
            .iter()
            .filter(|note| !a.notes.contains(note))
            .cloned(),
    );
    tell(&notes);
    let mut scenarios = [a.scenario(args.seed), b.scenario(args.seed)];
    // A pattern asks for no more than the smaller of the largest types has.
    let largest = |s: &Scenario| s.config.pool.types.iter().map(|t| t.vcpus).max();
    let pattern = if largest(&scenarios[0]) <= largest(&scenarios[1]) {
        &scenarios[0]
    } else {
        &scenarios[1]
    };
    let arrivals = Arrivals::drawn(pattern);
    for scenario in &mut scenarios {
        scenario.arrivals.clone_from(&arrivals);
    }
    Ok(scenarios)
}

fn report_violations(args: &CompareArgs, sides: &[Side]) -> anyhow::Result<Ending> {
    let mut ending = Ending::Succeeded;
    for (side, path) in sides.iter().zip([&args.a, &args.b]) {
        for violation in &side.outcome.violations {
            ending = Ending::Failed;
            if !args.json {
                print(&broken(args, path, &violation.to_string()))?;
            }
        }
    }
    Ok(ending)
}

fn broken(args: &CompareArgs, path: &Path, story: &str) -> String {
    let (path, seed, faults) = (shown(path), args.seed, args.faults.as_str());
    format!(
        "\nA PROMISE IS BROKEN with {path} (--seed {seed} --faults {faults}), \
         so the figures say nothing:\n{story}"
    )
}

/// A line of the table: a name, both values as shown, and as numbers.
struct Row {
    name: &'static str,
    key: &'static str,
    shown: [String; 2],
    values: [f64; 2],
}

fn rows(a: &Outcome, b: &Outcome) -> Vec<Row> {
    let row = |name, key, show: &dyn Fn(&Outcome) -> String, value: &dyn Fn(&Outcome) -> f64| Row {
        name,
        key,
        shown: [show(a), show(b)],
        values: [value(a), value(b)],
    };
    let time = |name, key, of: &dyn Fn(&Outcome) -> Duration| {
        let shown = |o: &Outcome| format_duration(of(o));
        row(name, key, &shown, &|o| json::seconds(of(o)))
    };
    let hour = |name, key, of: &dyn Fn(&Outcome) -> Duration| {
        let shown = |o: &Outcome| hours(of(o));
        row(name, key, &shown, &|o| of(o).as_secs_f64() / 3600.0)
    };
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    vec![
        row("cost", "cost", &|o| amount(o.cost), &|o| o.cost),
        hour("instance-hours", "instance_hours", &|o| o.instance_time),
        hour("idle hours", "idle_hours", &|o| o.idle_time),
        row("idle cost", "idle_cost", &|o| amount(o.idle_cost), &|o| {
            o.idle_cost
        }),
        time("mean wait", "wait_mean_seconds", &|o| o.waits.mean),
        time("p50 wait", "wait_p50_seconds", &|o| o.waits.p50),
        time("p95 wait", "wait_p95_seconds", &|o| o.waits.p95),
        row(
            "complete an hour",
            "complete_per_hour",
            &|o| format!("{:.1}", o.per_hour),
            &|o| o.per_hour,
        ),
        row("complete", "complete", &|o| o.complete.to_string(), &|o| {
            count(o.complete)
        }),
        row(
            "never started",
            "never_started",
            &|o| o.never_started.to_string(),
            &|o| count(o.never_started),
        ),
    ]
}

/// By how much the second is more than the first, in percent; none if the first is nothing.
fn difference([a, b]: [f64; 2]) -> Option<f64> {
    if a > 0.0 {
        Some((b - a) / a * 100.0)
    } else {
        (b <= 0.0).then_some(0.0)
    }
}

fn text(args: &CompareArgs, a: &Side, b: &Side) -> String {
    let names = [fit(&a.name, NAME_MAX), fit(&b.name, NAME_MAX)];
    let rows = rows(&a.outcome, &b.outcome);
    let wide = |n: usize| {
        let values = rows.iter().map(|row| width(&row.shown[n]));
        values.chain([width(&names[n])]).max().unwrap_or_default()
    };
    let (wide_a, wide_b) = (wide(0), wide(1));
    let mut text = String::new();
    let arrivals = crate::text::clean(&args.arrivals);
    let (faults, seed) = (args.faults.as_str(), args.seed);
    let count = a.outcome.containers;
    let _ = writeln!(
        text,
        "{count} containers (arrivals: {arrivals}; faults: {faults}; seed: {seed})\n"
    );
    let mut line = |name: &str, a: &str, b: &str, change: &str| {
        let pad = |text: &str, to: usize| " ".repeat(to.saturating_sub(width(text)));
        let (pad_a, pad_b) = (pad(a, wide_a), pad(b, wide_b));
        let _ = writeln!(text, "{name:<17}{pad_a}{a}   {pad_b}{b}   {change:>8}");
    };
    line("", &names[0], &names[1], "change");
    for row in &rows {
        let change = match difference(row.values) {
            Some(percent) if percent.abs() < 0.05 => "same".into(),
            Some(percent) => format!("{percent:+.1} %"),
            None => "-".into(),
        };
        line(row.name, &row.shown[0], &row.shown[1], &change);
    }
    let _ = writeln!(text, "\n{}", verdict(a, b));
    text
}

/// One plain sentence.
fn verdict(a: &Side, b: &Side) -> String {
    let cost = [a.outcome.cost, b.outcome.cost];
    let wait = [a, b].map(|side| side.outcome.waits.mean.as_secs_f64());
    let (cheaper, cost_percent) = less(cost);
    let (sooner, wait_percent) = less(wait);
    let names = [a.name.as_str(), b.name.as_str()];
    match (cheaper, sooner) {
        (None, None) => "Both cost the same, and containers wait equally long.".into(),
        (Some(n), None) => format!(
            "{} is {cost_percent:.0} % cheaper, and containers wait equally long.",
            names[n]
        ),
        (None, Some(n)) => format!(
            "Both cost the same, and with {} containers wait {wait_percent:.0} % less.",
            names[n]
        ),
        (Some(n), Some(m)) if n == m => format!(
            "{} is {cost_percent:.0} % cheaper, and containers wait {wait_percent:.0} % less.",
            names[n]
        ),
        (Some(n), Some(m)) => format!(
            "{} is {cost_percent:.0} % cheaper, but with {} containers wait {wait_percent:.0} % less.",
            names[n], names[m]
        ),
    }
}

/// Which of two is less, and by how many percent of the other.
fn less([a, b]: [f64; 2]) -> (Option<usize>, f64) {
    let most = a.max(b);
    let percent = if most > 0.0 {
        (a - b).abs() / most * 100.0
    } else {
        0.0
    };
    let which = (percent >= SAME).then_some(usize::from(b < a));
    (which, percent)
}

fn object(args: &CompareArgs, a: &Side, b: &Side) -> Map<String, Value> {
    let changes: Map<String, Value> = rows(&a.outcome, &b.outcome)
        .iter()
        .map(|row| {
            let change = difference(row.values).map(json::rounded);
            (row.key.to_owned(), change.into())
        })
        .collect();
    let side = |side: &Side| {
        let mut object = json::outcome(&side.outcome);
        object.insert("config".into(), side.name.clone().into());
        object
    };
    json::object(json!({
        "format": 1,
        "seed": args.seed,
        "arrivals": args.arrivals,
        "fault_level": args.faults.as_str(),
        "a": side(a),
        "b": side(b),
        "change_percent": changes,
        "verdict": verdict(a, b),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, cost: f64, wait: u64) -> Side {
        let mut outcome = Outcome::default();
        outcome.cost = cost;
        outcome.waits.mean = Duration::from_secs(wait);
        Side {
            name: name.into(),
            outcome,
        }
    }

    #[test]
    fn one_sentence_says_which_is_better() {
        let said = |a: (f64, u64), b: (f64, u64)| {
            verdict(&side("a.yml", a.0, a.1), &side("b.yml", b.0, b.1))
        };
        let both = "b.yml is 50 % cheaper, and containers wait 75 % less.";
        assert_eq!(said((2.0, 40), (1.0, 10)), both);
        let mixed = "a.yml is 50 % cheaper, but with b.yml containers wait 75 % less.";
        assert_eq!(said((1.0, 40), (2.0, 10)), mixed);
        assert!(said((1.0, 40), (1.001, 40)).starts_with("Both cost the same, and containers"));
        assert!(said((0.0, 0), (0.0, 0)).starts_with("Both cost the same"));
        assert!(said((1.0, 40), (1.0, 20)).contains("with b.yml containers wait 50 % less"));
    }

    #[test]
    fn a_change_from_nothing_has_no_percent() {
        assert_eq!(difference([0.0, 1.0]), None);
        assert_eq!(difference([0.0, 0.0]), Some(0.0));
        assert_eq!(difference([4.0, 3.0]), Some(-25.0));
    }
}
