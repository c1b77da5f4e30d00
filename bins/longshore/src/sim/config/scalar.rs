//! Values that only a configuration has.

use std::time::Duration;

use longshore_scheduler::Packing;
use longshore_sim::TIME_MAX;
use longshore_types::parse_duration;

use crate::text::excerpt;
use crate::yaml::problem::Problems;
use crate::yaml::tree::{Node, Scalar, Value};
use crate::yaml::value::{Field, Text, text};

/// Leaves the target as it is where the value is wrong.
pub(super) fn assign<T: Copy>(field: Field<T>, target: &mut T) {
    if let Some(value) = field.good() {
        *target = *value;
    }
}

/// Whether the section `GPU` of a type says that it has any.
pub(super) fn has_gpus(node: &Node<'_>) -> bool {
    let Value::Map(entries) = node.value() else {
        return !node.is_null();
    };
    let count = entries.iter().find(|entry| entry.key == "DeviceCount");
    count.is_some_and(|entry| !matches!(entry.value.value(), Value::Scalar(n) if n.text == "0"))
}

pub(super) fn duration(node: &Node<'_>, problems: &mut Problems) -> Option<Duration> {
    let Text { text, at } = text(node, "a duration like 90s or 1h30m", problems)?;
    match parse_duration(text) {
        Ok(time) if time >= Duration::from_millis(1) && time <= TIME_MAX => Some(time),
        Ok(_) => {
            let found = excerpt(text);
            let message = format!("expected a duration from 1ms to a year, found {found}");
            problems.add(at, message);
            None
        }
        Err(error) => {
            problems.add(at, error.to_string());
            None
        }
    }
}

pub(super) fn decimal(
    node: &Node<'_>,
    least: f64,
    most: f64,
    problems: &mut Problems,
) -> Option<f64> {
    let number = match node.value() {
        Value::Scalar(scalar) => scalar.text.parse::<f64>().ok(),
        _ => None,
    };
    let number = number.filter(|n| (least..=most).contains(n));
    if number.is_none() {
        let found = node.describe();
        let message = format!("expected a number from {least} to {most}, found {found}");
        problems.add(node.at, message);
    }
    number
}

pub(super) fn packing(node: &Node<'_>, problems: &mut Problems) -> Field<Packing> {
    let named = match node.value() {
        Value::Scalar(Scalar { text, .. }) => Packing::from_name(text),
        _ => None,
    };
    if named.is_none() {
        let found = node.describe();
        let message = format!("expected fullest, best-fit or cheapest-share, found {found}");
        problems.add(node.at, message);
    }
    Field::new(named, node.at)
}
