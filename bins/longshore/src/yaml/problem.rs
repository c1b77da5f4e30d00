//! What is wrong with a job file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::text::clean;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
}

/// One thing that is wrong with a job file, with what to do about it.
///
/// Prints as `path:line:column: message`, safe for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named by the user.
    pub path: PathBuf,
    /// Where in the file; none if it is about the file as a whole.
    pub at: Option<Position>,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", clean(&self.path.to_string_lossy()))?;
        if let Some(Position { line, column }) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", clean(&self.message))
    }
}

impl std::error::Error for Problem {}

/// Collects problems; each only once, and no more than anybody would read.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    seen: BTreeSet<(Option<Position>, String)>,
    left_out: usize,
}

impl Problems {
    /// How many are kept.
    pub(crate) const MAX: usize = 50;

    /// Notes a problem at a place.
    pub(crate) fn add(&mut self, at: Position, message: impl Into<String>) {
        self.note(Some(at), message.into());
    }

    /// Notes a problem of the whole file.
    pub(crate) fn add_general(&mut self, message: impl Into<String>) {
        self.note(None, message.into());
    }

    fn note(&mut self, at: Option<Position>, message: String) {
        let problem = (at, message);
        if self.seen.len() < Self::MAX {
            self.seen.insert(problem);
        } else if !self.seen.contains(&problem) {
            self.left_out += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// All of them in the order of the file.
    pub(crate) fn into_list(self, path: &Path) -> Vec<Problem> {
        let problem = |(at, message)| Problem {
            path: path.to_owned(),
            at,
            message,
        };
        let more = (self.left_out > 0).then(|| {
            let message = format!("{} more problems are not shown", self.left_out);
            problem((None, message))
        });
        self.seen.into_iter().map(problem).chain(more).collect()
    }
}
