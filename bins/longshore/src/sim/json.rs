//! Figures for programs. The fields are documented in docs/simulator.md and only ever added to.

use std::time::Duration;

use longshore_sim::{Outcome, Scenario, Violation};
use longshore_types::Instant;
use serde_json::{Map, Value, json};

use super::setup::Setup;
use super::table::{Side, calls, faults};

/// The version of the object's form.
const FORMAT: u32 = 1;

/// What was simulated.
pub(super) fn settings(setup: &Setup, scenario: &Scenario) -> Map<String, Value> {
    object(json!({
        "format": FORMAT,
        "seed": scenario.seed,
        "arrivals": setup.arrivals(),
        "fault_level": setup.faults(),
    }))
}

/// What came of it.
pub(super) fn outcome(o: &Outcome) -> Map<String, Value> {
    object(json!({
        "simulated_seconds": seconds(o.elapsed),
        "containers": {
            "submitted": o.containers,
            "complete": o.complete,
            "cancelled": o.cancelled,
            "deleted": o.deleted,
            "never_started": o.never_started,
        },
        "unsatisfiable": o.unsatisfiable,
        "processes": o.processes,
        "complete_per_hour": rounded(o.per_hour),
        "wait_seconds": {
            "p50": seconds(o.waits.p50),
            "mean": seconds(o.waits.mean),
            "p95": seconds(o.waits.p95),
            "max": seconds(o.waits.max),
        },
        "instances": o.instances,
        "instance_hours": hours(o.instance_time),
        "idle_hours": hours(o.idle_time),
        "boot_hours": hours(o.boot_time),
        "cost": rounded(o.cost),
        "idle_cost": rounded(o.idle_cost),
        "calls": {
            "provider": calls(o, Side::Provider),
            "controller": calls(o, Side::Controller),
            "machine": calls(o, Side::Machine),
        },
        "faults": faults(&o.faults),
        "dispatcher_restarts": o.lives.saturating_sub(1),
        "violations": o.violations.iter().map(violation).collect::<Vec<_>>(),
        "events": o.events,
        "digest": format!("{:016x}", o.digest),
    }))
}

/// A broken promise and its story.
pub(super) fn violation(violation: &Violation) -> Value {
    json!({
        "rule": violation.rule.to_string(),
        "at_seconds": seconds(violation.at.since(Instant::ZERO)),
        "what": violation.what,
        "about": violation.about,
        "story": violation.story,
    })
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

pub(super) fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64())
}

fn hours(time: Duration) -> f64 {
    rounded(time.as_secs_f64() / 3600.0)
}

/// To a millionth.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}
