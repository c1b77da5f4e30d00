//! What the user sees of a batch: progress while it runs, a summary at its end.
//!
//! Everything is drawn from [`JobRow`]s by pure functions; names and messages from outside are
//! made harmless on the way.

mod live;
mod plain;
mod row;
mod summary;

#[cfg(test)]
mod fixtures;

use std::io::{self, IsTerminal as _};

use longshore_types::Timestamp;

use crate::tell;
pub use live::Live;
pub use plain::Plain;
pub use row::{Counts, JobRow, Verdict};
pub use summary::{SummaryOptions, last_lines, summary};

/// Shows how a batch goes on.
///
/// 1. [`Progress::begin`] once for each job file.
/// 2. [`Progress::update`] whenever something has changed, and at least once a second; more than
///    ten times a second is wasted. The rows are all jobs, always in the same order.
/// 3. [`Progress::note`] for anything worth a line at any time.
/// 4. [`Progress::end`] before anything else is printed.
pub trait Progress: Send {
    /// A job file with so many jobs begins.
    fn begin(&mut self, batch: &str, jobs: usize, now: Timestamp);
    /// This is how things are.
    fn update(&mut self, rows: &[JobRow], now: Timestamp);
    /// Shows a line of text that stays.
    fn note(&mut self, text: &str);
    /// Leaves the terminal as it was.
    fn end(&mut self);
}

/// Shows nothing but notes, on standard error.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&mut self, _batch: &str, _jobs: usize, _now: Timestamp) {}
    fn update(&mut self, _rows: &[JobRow], _now: Timestamp) {}
    fn note(&mut self, text: &str) {
        tell!("{}", crate::text::clean(text));
    }
    fn end(&mut self) {}
}

/// A live table if standard output is a terminal that can show one, else plain lines.
pub fn progress(quiet: bool) -> Box<dyn Progress> {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if quiet {
        Box::new(Quiet)
    } else if io::stdout().is_terminal() && !dumb {
        Box::new(Live::new())
    } else {
        Box::new(Plain::new(io::stdout()))
    }
}
