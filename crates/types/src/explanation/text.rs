//! An explanation as text for somebody who has never seen one.

use std::fmt;

use super::{Explanation, InstancesConsidered};
use crate::{Resource, Resources, format_duration};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uuid, state, priority) = (self.uuid, self.state, self.priority);
        writeln!(f, "Container {uuid} ({state}, priority {priority})")?;
        writeln!(f, "{}", self.sentence())?;
        if let Some(estimate) = &self.estimate {
            let (time, basis) = (format_duration(estimate.remaining), &estimate.basis);
            writeln!(f, "Expected in {time}: {basis}")?;
        }
        list(f, "What would unblock it", &self.unblock)?;
        self.write_places(f)?;
        list(f, "Its time so far", &self.spells())
    }
}

impl Explanation {
    fn write_places(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of what runs or is started, nobody asks what else there was.
        if self.position.is_none() {
            return Ok(());
        }
        let more = |count: usize| (count > 0).then(|| format!("and {count} more"));
        let mut types: Vec<String> = self
            .types
            .iter()
            .map(|t| format!("{} ({} per hour): {}", t.name, t.price, t.verdict))
            .collect();
        types.extend(more(self.types_left_out));
        let title = format!("It needs {}. Instance types", amounts(&self.needs));
        list(f, &title, &types)?;
        let mut instances: Vec<String> = self.instances.iter().map(group).collect();
        instances.extend(more(self.instances_left_out));
        list(f, "Instances", &instances)?;
        let holds: Vec<String> = self
            .hold_offs
            .iter()
            .map(|hold| {
                let left = format_duration(hold.remaining);
                format!("{}, for another {left}: {}", hold.what, hold.cause)
            })
            .collect();
        list(f, "Not tried for a while", &holds)
    }

    fn spells(&self) -> Vec<String> {
        let forgotten = (self.history_left_out > 0)
            .then(|| format!("{} older spells are forgotten", self.history_left_out));
        let spells = self.history.iter().map(|spell| {
            let ago = format_duration(spell.ago);
            format!("{spell}, from {ago} ago")
        });
        forgotten.into_iter().chain(spells).collect()
    }
}

fn list(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}:")?;
    lines.iter().try_for_each(|line| writeln!(f, "  - {line}"))
}

fn group(group: &InstancesConsidered) -> String {
    let kind = match &group.type_name {
        Some(name) => name.as_str(),
        None => "(of a type that is not configured)",
    };
    let mut ids: Vec<&str> = group.examples.iter().map(|id| id.as_str()).collect();
    if group.count > ids.len() && !ids.is_empty() {
        ids.push("...");
    }
    let ids = if ids.is_empty() {
        String::new()
    } else {
        format!(" ({})", ids.join(", "))
    };
    format!("{} {kind}{ids}: {}", group.count, group.verdict)
}

fn amounts(needs: &Resources) -> String {
    let kinds = [
        (Resource::Vcpus, u64::from(needs.vcpus)),
        (Resource::Ram, needs.ram.0),
        (Resource::Scratch, needs.scratch.0),
        (Resource::Gpus, u64::from(needs.gpus)),
    ];
    let needed = kinds.into_iter().filter(|(_, amount)| *amount > 0);
    let texts: Vec<String> = needed.map(|(kind, _)| needs.describe(kind)).collect();
    if texts.is_empty() {
        "nothing".into()
    } else {
        texts.join(", ")
    }
}
