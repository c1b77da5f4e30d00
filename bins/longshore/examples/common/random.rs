//! Random numbers that a seed repeats.

use std::time::Duration;

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From 0 to `end`, which it does not reach.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    /// Up to so many milliseconds.
    pub(crate) fn duration_ms(&mut self, end_ms: u64) -> Duration {
        Duration::from_micros(self.below(end_ms.saturating_mul(1000)))
    }
}
