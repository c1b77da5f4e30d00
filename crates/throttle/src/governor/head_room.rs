//! What is believed to be left of a bucket.

use std::fmt;
use std::time::Duration;

use longshore_types::format_duration;

/// What a governor believes about one bucket of the provider.
///
/// ```
/// use longshore_throttle::governor::Core;
/// use longshore_types::Instant;
/// let room = Core::new().head_room(Instant::ZERO);
/// assert_eq!((room.tokens, room.rate, room.until_full()), (None, None, None));
/// assert_eq!(room.to_string(), "no limit seen");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HeadRoom {
    /// Tokens left; none as long as nothing was refused.
    pub tokens: Option<f64>,
    /// Tokens per second; none until it is learned.
    pub rate: Option<f64>,
    /// Tokens in a full bucket; none until it is learned.
    pub size: Option<f64>,
    /// How long the provider asked to be left alone.
    pub held: Duration,
    /// Tokens taken so far.
    pub passed: u64,
    /// Calls, or ids of batches, that were refused so far.
    pub refused: u64,
}

impl HeadRoom {
    pub(crate) fn new(
        tokens: Option<f64>,
        rate: Option<f64>,
        size: Option<f64>,
        held: Duration,
        [passed, refused]: [u64; 2],
    ) -> Self {
        Self {
            tokens,
            rate,
            size,
            held,
            passed,
            refused,
        }
    }

    /// How long until the bucket is full if nothing is sent; none while that is not known.
    pub fn until_full(&self) -> Option<Duration> {
        let missing = (self.size? - self.tokens?).max(0.0);
        Duration::try_from_secs_f64(missing / self.rate?).ok()
    }
}

impl fmt::Display for HeadRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tokens) = self.tokens else {
            return f.write_str("no limit seen");
        };
        match (self.rate, self.size) {
            (Some(rate), Some(size)) => write!(f, "{tokens:.0} of {size:.0} + {rate:.2}/s")?,
            _ => f.write_str("learning")?,
        }
        match self.until_full() {
            Some(full) if !full.is_zero() => write!(f, ", full in {}", format_duration(full)),
            _ => Ok(()),
        }
    }
}
