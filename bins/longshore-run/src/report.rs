//! `--report` and `--list`.

use std::time::{Duration, Instant};

use anyhow::Result;
use longshore_runner_api::command::ReportOptions;
use longshore_runner_api::report::{format, format_list};

use crate::acknowledge::acknowledge;
use crate::directory::RunDirectory;
use crate::scan::scan;
use crate::watch::{Wake, Watch};
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
    let mut looks: Vec<Instant> = Vec::new();
    loop {
        let report = scan(directory)?;
        let now = Instant::now();
        if report.digest != options.known || now >= end {
            return say(&format(&report));
        }
        looks.retain(|look| *look > now);
        let next = looks.iter().min().copied().unwrap_or(end).min(end);
        match watch.wait(next.saturating_duration_since(now)) {
            Wake::Changed => {
                let now = Instant::now();
                looks = SECOND_LOOKS.iter().map(|later| now + *later).collect();
            }
            Wake::TimeOver => {}
            Wake::NobodyListens => return Ok(1),
        }
    }
}

/// Lists what runs in the grammar of the ancestor's runner.
pub(crate) fn list(directory: &RunDirectory) -> Result<u8> {
    say(&format_list(&scan(directory)?))
}
