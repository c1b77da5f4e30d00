//! What goes wrong with a call, by chance but repeatably. Pure.

use std::time::Duration;

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Unharmed,
    FailsBefore,
    FailsAfter,
    ReplyLost,
}

/// Chances of each, from 0 to 1, in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chances {
    pub(crate) before: f64,
    pub(crate) after: f64,
    pub(crate) lost: f64,
}

/// What happens to call number `number`.
pub(crate) fn fate(seed: u64, number: u64, chances: Chances) -> Fate {
    let mut roll = fraction(mix(seed, number, 1));
    for (chance, fate) in [
        (chances.before, Fate::FailsBefore),
        (chances.after, Fate::FailsAfter),
        (chances.lost, Fate::ReplyLost),
    ] {
        // A chance that is not a number is none.
        if roll < chance {
            return fate;
        }
        roll -= chance.max(0.0);
    }
    Fate::Unharmed
}

/// How long call number `number` is held up.
pub(crate) fn delay(seed: u64, number: u64, longest: Duration) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    let part = u128::from(mix(seed, number, 2)) * u128::from(nanos);
    Duration::from_nanos(u64::try_from(part >> 64).unwrap_or(u64::MAX))
}

/// SplitMix64 (Steele, Lea and Flood, 2014) of three numbers.
fn mix(seed: u64, number: u64, salt: u64) -> u64 {
    let mut z = seed
        .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(salt.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Evenly in [0, 1).
fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_come_true_and_repeat() {
        let chances = Chances {
            before: 0.1,
            after: 0.2,
            lost: 0.05,
        };
        let count = |seed| {
            let fates: Vec<Fate> = (0..20_000).map(|n| fate(seed, n, chances)).collect();
            [Fate::FailsBefore, Fate::FailsAfter, Fate::ReplyLost]
                .map(|fate| fates.iter().filter(|f| **f == fate).count())
        };
        let counts = count(7);
        for (count, expected) in counts.into_iter().zip([2000usize, 4000, 1000]) {
            assert!(count.abs_diff(expected) < 200, "{counts:?}");
        }
        assert_eq!(count(7), counts);
        assert_ne!(count(8), counts);
    }

    #[test]
    fn absurd_chances_are_all_or_nothing() {
        let all = Chances {
            before: f64::INFINITY,
            after: f64::NAN,
            lost: -1.0,
        };
        assert_eq!(fate(1, 1, all), Fate::FailsBefore);
        let none = Chances {
            before: f64::NAN,
            after: -5.0,
            lost: f64::NEG_INFINITY,
        };
        assert_eq!(fate(1, 1, none), Fate::Unharmed);
    }

    #[test]
    fn delays_are_below_the_longest() {
        let longest = Duration::from_secs(1);
        let delays: Vec<Duration> = (0..1000).map(|n| delay(3, n, longest)).collect();
        assert!(delays.iter().all(|d| *d < longest));
        assert!(delays.iter().any(|d| *d > longest / 2));
        assert_eq!(delay(3, 1, Duration::ZERO), Duration::ZERO);
        delay(3, 1, Duration::MAX);
    }
}
