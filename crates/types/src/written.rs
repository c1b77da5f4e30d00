//! How much a container wrote to an output stream, and what of it is there.

use serde::{Deserialize, Serialize};

/// The middle of an output stream that grew beyond its limit: these bytes were left out. Places
/// are counted from the beginning of what the container wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "it is two places")]
pub struct Cut {
    /// The first byte that is missing.
    pub from: u64,
    /// The first one after it that is there again.
    pub to: u64,
}

impl Cut {
    /// How many bytes are missing; 0 where the places make no sense.
    ///
    /// ```
    /// # use longshore_types::Cut;
    /// assert_eq!(Cut { from: 10, to: 15 }.bytes(), 5);
    /// assert_eq!(Cut { from: 15, to: 10 }.bytes(), 0);
    /// ```
    pub fn bytes(self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// What was written to an output stream.
///
/// ```
/// use longshore_types::{Cut, Written};
/// let written = Written { bytes: 100, cut: Some(Cut { from: 20, to: 70 }) };
/// assert_eq!(written.kept(), 50);
/// assert_eq!(written.start_of_last(30), 70);
/// // The last 40 that are there are 30 after the cut and 10 before it.
/// assert_eq!(written.start_of_last(40), 10);
/// assert_eq!(written.start_of_last(1_000), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Written {
    /// How many bytes, those that were left out included.
    pub bytes: u64,
    /// What was left out.
    pub cut: Option<Cut>,
}

impl Written {
    /// How many bytes of it are there.
    pub fn kept(self) -> u64 {
        self.bytes
            .saturating_sub(self.cut.map_or(0, |cut| cut.bytes()))
    }

    /// Where the last so many bytes of what is there begin.
    pub fn start_of_last(self, last: u64) -> u64 {
        let start = self.bytes.saturating_sub(last);
        match self.cut {
            Some(cut) if start < cut.to => start.saturating_sub(cut.bytes()).min(cut.from),
            _ => start,
        }
    }
}
