//! Randomness from a seed: the same seed draws the same numbers.

use std::time::Duration;

/// How likely something is, in millionths.
///
/// ```
/// use longshore_fakecloud::Chance;
/// assert_eq!(Chance::percent(5), Chance::per_million(50_000));
/// assert_eq!(Chance::percent(100), Chance::ALWAYS);
/// assert_eq!(Chance::default(), Chance::NEVER);
/// assert_eq!(Chance::percent(2).millionths(), 20_000);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chance(u32);

impl Chance {
    /// It never happens.
    pub const NEVER: Self = Self(0);
    /// It always happens.
    pub const ALWAYS: Self = Self(1_000_000);

    /// So many in a million; more than a million is always.
    pub const fn per_million(n: u32) -> Self {
        Self(if n > 1_000_000 { 1_000_000 } else { n })
    }

    /// So many in a hundred; more than a hundred is always.
    pub const fn percent(n: u32) -> Self {
        Self::per_million(n.saturating_mul(10_000))
    }

    /// How many in a million.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// How long something takes: a distribution of durations.
///
/// ```
/// use std::time::Duration;
/// use longshore_fakecloud::Spread;
/// let at_once = Spread::ZERO;
/// let boot = Spread::long_tailed(Duration::from_secs(40), 50);
/// let latency = Spread::uniform(Duration::from_millis(20), Duration::from_millis(80));
/// assert_eq!(at_once, Spread::from(Duration::ZERO));
/// # let _ = (boot, latency);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spread {
    /// Always the same.
    Constant(Duration),
    /// Each value from the first to the second (both included, in any order) equally often.
    Uniform(Duration, Duration),
    /// Like a log-normal distribution: half are shorter than the median, few are much longer.
    LongTailed {
        /// The median.
        median: Duration,
        /// One standard deviation multiplies or divides by 2^(this/100): with 100, one value in
        /// six is longer than twice the median and one in forty longer than four times.
        deviation_percent: u32,
    },
}

impl Spread {
    /// No time at all.
    pub const ZERO: Self = Self::Constant(Duration::ZERO);

    /// Each value between the two equally often.
    pub const fn uniform(least: Duration, most: Duration) -> Self {
        Self::Uniform(least, most)
    }

    /// Half are shorter than the median; see [`Spread::LongTailed`].
    pub const fn long_tailed(median: Duration, deviation_percent: u32) -> Self {
        Self::LongTailed {
            median,
            deviation_percent,
        }
    }
}

impl From<Duration> for Spread {
    fn from(duration: Duration) -> Self {
        Self::Constant(duration)
    }
}

/// A SplitMix64 generator (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(n);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// What is impossible or certain draws nothing.
    pub(crate) fn happens(&mut self, chance: Chance) -> bool {
        match chance {
            Chance::NEVER => false,
            Chance::ALWAYS => true,
            Chance(n) => self.below(1_000_000) < u64::from(n),
        }
    }

    /// A duration; durations of more than 584 years count as that.
    pub(crate) fn duration(&mut self, spread: &Spread) -> Duration {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        match *spread {
            Spread::Constant(duration) => duration,
            Spread::Uniform(a, b) => {
                let (least, most) = (nanos(a.min(b)), nanos(a.max(b)));
                let width = (most - least).saturating_add(1);
                Duration::from_nanos(least.saturating_add(self.below(width)))
            }
            Spread::LongTailed {
                median,
                deviation_percent,
            } => {
                let exponent = self.normal() * i64::from(deviation_percent.min(1_000)) / 100;
                Duration::from_nanos(times_two_to_the(nanos(median), exponent))
            }
        }
    }

    /// Nearly normal, with a standard deviation of 1, in 65,536ths: the sum of twelve uniform
    /// numbers.
    fn normal(&mut self) -> i64 {
        let mut sum = 0;
        for _ in 0..3 {
            let bits = self.next();
            for i in 0..4 {
                sum += i64::try_from(bits >> (16 * i) & 0xffff).unwrap_or(0);
            }
        }
        sum - 6 * 65_536
    }
}

/// A one-to-one scramble of 64 bits.
pub(crate) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `value` times 2^(`exponent` / 65,536), within 0.3 %, saturating; the fraction by the parabola
/// through 2^0, 2^½ and 2^1.
fn times_two_to_the(value: u64, exponent: i64) -> u64 {
    let whole = exponent.div_euclid(65_536).clamp(-63, 63);
    let fraction = u128::try_from(exponent.rem_euclid(65_536)).unwrap_or(0);
    let slope = 43_021 + ((fraction * 22_515) >> 16);
    let mantissa = 65_536 + ((fraction * slope) >> 16);
    let scaled = (u128::from(value) * mantissa) >> 16;
    let shifted = match u32::try_from(whole) {
        Ok(left) => scaled.checked_shl(left).filter(|s| s >> left == scaled),
        Err(_) => scaled.checked_shr(u32::try_from(-whole).unwrap_or(0)),
    };
    shifted
        .and_then(|s| u64::try_from(s).ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tails_have_the_median_and_deviation_that_were_asked_for() {
        let mut random = Random::new(1);
        let spread = Spread::long_tailed(Duration::from_secs(40), 100);
        let mut drawn: Vec<u64> = (0..20_000)
            .map(|_| random.duration(&spread).as_secs())
            .collect();
        drawn.sort_unstable();
        assert!((39..=41).contains(&drawn[10_000]), "{}", drawn[10_000]);
        let above = |n| drawn.iter().filter(|&&d| d >= n).count();
        assert!((2_900..=3_500).contains(&above(80)), "{}", above(80));
        assert!((350..=600).contains(&above(160)), "{}", above(160));
    }

    #[test]
    fn powers_of_two_are_right_and_saturate() {
        assert_eq!(times_two_to_the(1_000, 0), 1_000);
        assert_eq!(times_two_to_the(1_000, 65_536), 2_000);
        assert_eq!(times_two_to_the(1_000, -65_536), 500);
        let root = times_two_to_the(1_000_000, 32_768);
        assert!((1_413_000..=1_415_500).contains(&root), "{root}");
        assert_eq!(times_two_to_the(u64::MAX, 65_536), u64::MAX);
        assert_eq!(times_two_to_the(u64::MAX, i64::MAX), u64::MAX);
        assert_eq!(times_two_to_the(1, i64::MIN), 0);
        assert_eq!(times_two_to_the(0, i64::MAX), 0);
    }

    #[test]
    fn absurd_spreads_and_chances_are_drawn_too() {
        let mut random = Random::new(2);
        for spread in [
            Spread::Uniform(Duration::MAX, Duration::ZERO),
            Spread::Constant(Duration::MAX),
            Spread::long_tailed(Duration::MAX, u32::MAX),
        ] {
            for _ in 0..1_000 {
                random.duration(&spread);
            }
        }
        let two = Spread::uniform(Duration::from_nanos(3), Duration::from_nanos(2));
        let drawn: std::collections::BTreeSet<_> =
            (0..100).map(|_| random.duration(&two).as_nanos()).collect();
        assert_eq!(drawn, [2, 3].into());
        let hits = (0..100_000)
            .filter(|_| random.happens(Chance::percent(20)))
            .count();
        assert!((19_400..=20_600).contains(&hits), "{hits}");
        assert_eq!(Chance::percent(u32::MAX), Chance::ALWAYS);
    }
}
