//! `--report` and `--list`.

use std::time::{Duration, Instant};

use anyhow::Result;
use longshore_runner_api::command::ReportOptions;
use longshore_runner_api::report::{format, format_list};

use crate::acknowledge::acknowledge;
use crate::directory::RunDirectory;
use crate::scan::scan;
use crate::watch::Watch;
use crate::{complain, say};

/// After an event it is looked again so much later: the kernel tells of the last closing of a
/// lock file just before it releases the lock.
const SECOND_LOOKS: [Duration; 3] = [
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
    loop {
        let report = scan(directory)?;
        let now = Instant::now();
        if report.digest != options.known || now >= end {
            return say(&format(&report));
        }
        looks.take_due(now);
        let next = looks.next().unwrap_or(end).min(end);
        let ready = watch.poll(next.saturating_duration_since(now), &[]);
        if ready.nobody_listens {
            return Ok(1);
        }
        if ready.changed {
            looks.after_change(Instant::now());
        }
    }
}

/// When it is to be looked again.
#[derive(Debug, Default)]
pub(crate) struct Looks(Vec<Instant>);

impl Looks {
    /// Something may have changed, just now.
    pub(crate) fn after_change(&mut self, now: Instant) {
        self.0 = SECOND_LOOKS.iter().map(|later| now + *later).collect();
        self.look_at(now);
    }

    /// Beside what is planned already.
    pub(crate) fn look_at(&mut self, time: Instant) {
        self.0.push(time);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().min().copied()
    }

    /// Whether it is time for any; those that are due are planned no more.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|look| *look > now);
        self.0.len() < before
    }
}

/// Lists what runs in the grammar of the ancestor's runner.
pub(crate) fn list(directory: &RunDirectory) -> Result<u8> {
    say(&format_list(&scan(directory)?))
}
