//! Figures for people.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use longshore_sim::{Outcome, Scenario};
use longshore_types::format_duration;

use super::setup::Setup;
use super::watch::Ended;
use crate::text::clean;

/// Everything that came of a simulation.
pub(super) fn table(setup: &Setup, scenario: &Scenario, outcome: &Outcome, ended: Ended) -> String {
    let mut text = String::new();
    let elapsed = format_duration(outcome.elapsed);
    let (arrivals, faults, seed) = (setup.arrivals(), setup.faults(), scenario.seed);
    let early = match ended {
        Ended::Done => "",
        Ended::Interrupted => ", ended early",
    };
    let _ = writeln!(
        text,
        "simulated {elapsed}{early} (arrivals: {arrivals}; faults: {faults}; seed: {seed})\n"
    );
    for (name, what) in rows(outcome) {
        let _ = writeln!(text, "{name:<17}{what}");
    }
    let _ = writeln!(text, "violations: {}", outcome.violations.len());
    text
}

fn rows(o: &Outcome) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("containers", containers(o)),
        ("throughput", format!("{:.1} complete an hour", o.per_hour)),
        ("waits", waits(o)),
        (
            "instances",
            format!(
                "{} made, {} instance-hours",
                o.instances,
                hours(o.instance_time)
            ),
        ),
        ("cost", amount(o.cost)),
        ("idle waste", idle(o)),
        ("provider calls", list(&calls(o, Side::Provider))),
        ("controller calls", list(&calls(o, Side::Controller))),
        ("machine calls", list(&calls(o, Side::Machine))),
        ("faults met", list(&faults(&o.faults))),
        ("restarts", restarts(o)),
    ];
    if let Some(why) = &o.unsatisfiable {
        rows.insert(
            1,
            (
                "never started",
                format!("{} ({})", o.never_started, clean(why)),
            ),
        );
    }
    rows
}

fn containers(o: &Outcome) -> String {
    let mut parts = vec![
        format!("{} submitted", o.containers),
        format!("{} complete", o.complete),
    ];
    let open = o.containers - o.complete - o.cancelled - o.deleted;
    let others = [
        (o.cancelled, "cancelled"),
        (o.deleted, "deleted"),
        (open, "not ended"),
    ];
    for (count, what) in others {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}

fn waits(o: &Outcome) -> String {
    if o.processes == 0 {
        return "nothing was started".into();
    }
    let of = format_duration;
    let waits = &o.waits;
    format!(
        "p50 {}, mean {}, p95 {}, longest {}",
        of(waits.p50),
        of(waits.mean),
        of(waits.p95),
        of(waits.max)
    )
}

fn idle(o: &Outcome) -> String {
    format!(
        "{} instance-hours ({} %), {} of them booting; they cost {} ({} %)",
        hours(o.idle_time),
        percent(o.idle_time.as_secs_f64(), o.instance_time.as_secs_f64()),
        hours(o.boot_time),
        amount(o.idle_cost),
        percent(o.idle_cost, o.cost)
    )
}

fn restarts(o: &Outcome) -> String {
    match o.lives.saturating_sub(1) {
        0 => "the dispatcher was never restarted".into(),
        1 => "the dispatcher was restarted once".into(),
        n => format!("the dispatcher was restarted {n} times"),
    }
}

pub(super) fn hours(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() / 3600.0)
}

pub(super) fn amount(cost: f64) -> String {
    let decimals = if cost < 10.0 { 4 } else { 2 };
    format!("{cost:.decimals$}")
}

fn percent(part: f64, whole: f64) -> String {
    let share = if whole > 0.0 {
        part / whole * 100.0
    } else {
        0.0
    };
    format!("{share:.0}")
}

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Provider,
    Controller,
    Machine,
}

/// The calls to one side, by kind.
pub(super) fn calls(o: &Outcome, side: Side) -> BTreeMap<String, u64> {
    let side_of = |kind: &str| match kind {
        "create" | "list" | "destroy" | "tags" => Side::Provider,
        kind if kind.starts_with("queue ") => Side::Controller,
        _ => Side::Machine,
    };
    let calls = o.calls.iter().filter(|(kind, _)| side_of(kind) == side);
    let name = |kind: &str| kind.trim_start_matches("queue ").to_owned();
    calls.map(|(kind, count)| (name(kind), *count)).collect()
}

/// Faults by name.
pub(super) fn faults<K: Display>(met: &BTreeMap<K, u64>) -> BTreeMap<String, u64> {
    met.iter().map(|(kind, n)| (kind.to_string(), *n)).collect()
}

pub(super) fn list(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".into();
    }
    let counts = counts.iter().map(|(kind, count)| format!("{kind} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}
