//! `--report` and `--list`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use longshore_runner_api::command::ReportOptions;
use longshore_runner_api::report::{format, format_list};

use crate::acknowledge::acknowledge;
use crate::directory::RunDirectory;
use crate::scan::{Look, Survey, scan};
use crate::watch::{Changes, Watch};
use crate::{complain, say};

/// How long after a lock file was closed it is looked whether its lock was released with that: the
/// kernel tells of the closing first, and does the other as soon as it comes to it.
const AFTER_CLOSING: [Duration; 3] = [
    Duration::from_millis(2),
    Duration::from_millis(20),
    Duration::from_millis(200),
];

/// Removes what is acknowledged, waits for news if asked to, and reports.
pub(crate) fn report(directory: &RunDirectory, options: &ReportOptions) -> Result<u8> {
    if let Err(error) = acknowledge(directory, &options.acks) {
        // What was not removed is reported, and will be acknowledged again.
        complain(&format!(
            "cannot remove all that is acknowledged: {error:#}"
        ));
    }
    if options.wait.is_zero() {
        return say(&format(&scan(directory)?));
    }
    let end = Instant::now() + options.wait;
    // Before the first look, so that no change falls between.
    let watch = Watch::new(directory);
    let mut looks = Looks::default();
    let mut survey = Survey::new();
    survey.look(directory, Look::All)?;
    loop {
        let report = survey.report();
        if report.digest != options.known {
            return say(&format(&report));
        }
        let now = Instant::now();
        if now >= end {
            // Whatever the kernel has told of.
            return say(&format(&scan(directory)?));
        }
        let next = looks.next().unwrap_or(end).min(end);
        let ready = watch.poll(next.saturating_duration_since(now), &[]);
        if ready.nobody_listens {
            return Ok(1);
        }
        let now = Instant::now();
        looks.after(&ready.changes, now);
        for at in looks.take_due(now) {
            survey.look(directory, at)?;
        }
    }
}

/// When it is to be looked at what.
#[derive(Debug, Default)]
pub(crate) struct Looks(BTreeMap<Look, Vec<Instant>>);

impl Looks {
    /// Something may have changed, just now.
    pub(crate) fn after(&mut self, changes: &Changes, now: Instant) {
        for (at, change) in changes {
            if change.was_closed {
                let times = AFTER_CLOSING.iter().map(|later| now + *later).collect();
                self.0.insert(*at, times);
            }
            if change.was_changed {
                self.plan(*at, now);
            }
        }
    }

    /// Beside what is planned already.
    pub(crate) fn plan(&mut self, at: Look, time: Instant) {
        self.0.entry(at).or_default().push(time);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().flatten().min().copied()
    }

    /// What it is time to look at; that is planned no more.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Look> {
        let mut due = Vec::new();
        self.0.retain(|at, times| {
            let before = times.len();
            times.retain(|time| *time > now);
            if times.len() < before {
                due.push(*at);
            }
            !times.is_empty()
        });
        due
    }
}

/// Lists what runs in the grammar of the ancestor's runner.
pub(crate) fn list(directory: &RunDirectory) -> Result<u8> {
    say(&format_list(&scan(directory)?))
}
