//! A token bucket.

use std::time::Duration;

use longshore_types::Instant;

const PICOS_PER_NANO: u128 = 1_000;

/// Lets so many calls through per second, and a burst of them after a quiet time. Pure.
///
/// In any span of `t` seconds at most `burst + rate * t` tokens are taken. The arithmetic is in
/// whole picoseconds and exact, apart from the time for one token, which is rounded up: at most
/// one part in a thousand at a billion per second. A clock that goes back counts as one that stands still.
///
/// Source: the generic cell rate algorithm as virtual scheduling (ITU-T I.371, annex A): the
/// moment at which the bucket will be full again is all the state there is.
///
/// ```
/// use std::time::Duration;
/// use longshore_throttle::TokenBucket;
/// use longshore_types::Instant;
///
/// let mut bucket = TokenBucket::new(2.0, 3).unwrap();
/// let now = Instant::ZERO;
/// assert_eq!(bucket.tokens(now), 3);
/// assert!(bucket.take(now) && bucket.take(now) && bucket.take(now) && !bucket.take(now));
/// assert_eq!(bucket.ready_at(), now + Duration::from_millis(500));
/// assert_eq!(bucket.interval(), Duration::from_millis(500));
/// assert!(TokenBucket::new(0.0, 3).is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Picoseconds for one token.
    interval: u128,
    /// Picoseconds from empty to full.
    depth: u128,
    /// When it will be full again.
    full_at: u128,
    /// The latest moment seen.
    latest: u128,
}

impl TokenBucket {
    /// A full bucket that gets `per_second` tokens a second and holds `burst` of them, at least 1.
    ///
    /// None where `per_second` is not a rate: zero, negative, infinite or not a number. A rate
    /// of less than one token in 584 years counts as that.
    pub fn new(per_second: f64, burst: u32) -> Option<Self> {
        if !(per_second.is_finite() && per_second > 0.0) {
            return None;
        }
        let most = u128::from(u64::MAX) * PICOS_PER_NANO;
        // A float becomes an integer saturating.
        let interval = ((1e12 / per_second).ceil() as u128).clamp(1, most);
        Some(Self {
            interval,
            depth: interval * u128::from(burst.max(1)),
            full_at: 0,
            latest: 0,
        })
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.latest = self.latest.max(picos(now));
        let full_at = self.full_at.max(self.latest) + self.interval;
        let there = full_at <= self.latest + self.depth;
        if there {
            self.full_at = full_at;
        }
        there
    }

    /// When the next token is there; a moment in the past if one is.
    pub fn ready_at(&self) -> Instant {
        let picos = (self.full_at + self.interval).saturating_sub(self.depth);
        let nanos = picos.div_ceil(PICOS_PER_NANO);
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many tokens are there.
    pub fn tokens(&self, now: Instant) -> u32 {
        let now = self.latest.max(picos(now));
        let missing = self.full_at.saturating_sub(now);
        let tokens = self.depth.saturating_sub(missing) / self.interval;
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// The time for one token, rounded up to nanoseconds.
    pub fn interval(&self) -> Duration {
        let nanos = self.interval.div_ceil(PICOS_PER_NANO);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn picos(at: Instant) -> u128 {
    u128::from(at.as_nanos()) * PICOS_PER_NANO
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate() -> impl Strategy<Value = f64> {
        prop_oneof![
            0.001..10.0,
            1.0..1e6,
            Just(f64::MIN_POSITIVE),
            Just(f64::MAX),
            any::<f64>()
        ]
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_burst_and_rate(
            rate in 0.01f64..50.0,
            burst in 1u32..20,
            steps in prop::collection::vec(0u64..200_000_000, 1..60),
        ) {
            let mut bucket = TokenBucket::new(rate, burst).unwrap();
            let (mut now, mut taken) = (0u64, Vec::new());
            for step in steps {
                now += step;
                while bucket.take(Instant::from_nanos(now)) {
                    taken.push(now);
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (j, to) in taken.iter().enumerate().skip(i) {
                    let seconds = (to - from) as f64 / 1e9;
                    let most = f64::from(burst) + rate * seconds + 1e-6;
                    prop_assert!((j - i + 1) as f64 <= most, "{} in {seconds} s", j - i + 1);
                }
            }
        }

        #[test]
        fn a_token_is_there_exactly_when_promised(
            rate in rate(),
            burst in any::<u32>(),
            steps in prop::collection::vec(any::<u64>(), 1..50),
        ) {
            let Some(mut bucket) = TokenBucket::new(rate, burst) else { return Ok(()) };
            for step in steps {
                let now = Instant::from_nanos(step);
                let ready = bucket.ready_at();
                let seen = now.max(Instant::from_nanos((bucket.latest / PICOS_PER_NANO) as u64));
                prop_assert_eq!(bucket.tokens(now) > 0, ready <= seen || bucket.clone().take(now));
                prop_assert_eq!(bucket.take(now), ready <= seen);
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = TokenBucket::new(1.0, 1).unwrap();
        let late = Instant::from_nanos(5_000_000_000);
        assert!(bucket.take(late));
        assert!(!bucket.take(Instant::ZERO) && !bucket.take(late));
        assert!(bucket.take(late + Duration::from_secs(1)));
    }

    #[test]
    fn what_is_no_rate_is_no_bucket() {
        for rate in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(TokenBucket::new(rate, 1).is_none(), "{rate}");
        }
    }
}
