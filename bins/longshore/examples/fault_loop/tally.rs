//! What was done, and what it hit.

use std::collections::BTreeMap;

use crate::common::eye::Stage;
use crate::common::say;
use crate::plan::Kind;

/// What all rounds have seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    rows: BTreeMap<Kind, Row>,
}

#[derive(Debug, Default)]
struct Row {
    times: usize,
    hits: BTreeMap<Stage, usize>,
}

impl Tally {
    /// Something was done when so many containers were in these states where it was done.
    pub(crate) fn note(&mut self, kind: Kind, hits: &BTreeMap<Stage, usize>) {
        let row = self.rows.entry(kind).or_default();
        row.times += 1;
        for (&stage, count) in hits {
            *row.hits.entry(stage).or_default() += count;
        }
    }

    pub(crate) fn times(&self, kind: Kind) -> usize {
        self.rows.get(&kind).map_or(0, |row| row.times)
    }

    pub(crate) fn all(&self) -> usize {
        self.rows.values().map(|row| row.times).sum()
    }

    /// A line for each kind, with the containers that it hit, by state.
    pub(crate) fn tell(&self) {
        let heads = Stage::ALL.map(|stage| format!("{stage:>26}"));
        say(&format!("{:<25}{:>6}{}", "", "times", heads.concat()));
        for kind in Kind::ALL {
            let row = self.rows.get(&kind);
            let hits = Stage::ALL.map(|stage| {
                let count = row.and_then(|row| row.hits.get(&stage));
                format!("{:>26}", count.copied().unwrap_or(0))
            });
            say(&format!(
                "{kind:<25}{:>6}{}",
                self.times(kind),
                hits.concat()
            ));
        }
    }
}
