//! Containers in a few words: `steady:COUNT@RUNTIME`.

use std::str::FromStr;
use std::time::Duration;

use longshore_types::parse_duration;

use crate::Arrivals;
use crate::random::Random;
use crate::trace::{CONTAINERS_MAX, TIME_MAX};

/// How busy each hour of a day is: most is asked for in the morning and after noon, little at
/// night.
const HOURS: [u64; 24] = [
    2, 1, 1, 1, 1, 2, 4, 6, 9, 12, 12, 11, 10, 12, 12, 11, 10, 8, 6, 5, 4, 3, 3, 2,
];
const HOURS_MAX: u64 = 12;
/// How often a time of day is drawn before any will do.
const DRAWS_MAX: usize = 1_000;

/// A text that is no pattern of arrivals.
///
/// ```
/// use longshore_sim::Arrivals;
/// let error = "steady:many@5m".parse::<Arrivals>().unwrap_err();
/// assert!(error.to_string().contains("steady:500@5m"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseArrivalsError(String);

impl FromStr for Arrivals {
    type Err = ParseArrivalsError;

    /// Reads `burst:COUNT@RUNTIME`, `steady:COUNT@RUNTIME` or `daily:COUNT@RUNTIME`, such as
    /// `steady:500@5m`: COUNT is 1 to [`CONTAINERS_MAX`], RUNTIME a duration, half of the
    /// containers run for less.
    fn from_str(text: &str) -> Result<Self, ParseArrivalsError> {
        let wrong = |what: String| {
            let shown: String = text.chars().take(60).collect();
            ParseArrivalsError(format!("{shown:?}: {what}"))
        };
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(wrong("a pattern is written like steady:500@5m".into()));
        };
        if !KINDS.contains(&kind) {
            let kinds = KINDS.join(", ");
            return Err(wrong(format!(
                "there is no such pattern; there are {kinds}"
            )));
        }
        let Some((count, runtime)) = rest.split_once('@') else {
            return Err(wrong(format!(
                "write count and runtime, like {kind}:500@5m"
            )));
        };
        let containers = count
            .parse()
            .ok()
            .filter(|n| (1..=CONTAINERS_MAX).contains(n));
        let Some(containers) = containers else {
            return Err(wrong(format!(
                "the count is a whole number from 1 to {CONTAINERS_MAX}, like {kind}:500@5m"
            )));
        };
        let runtime = parse_duration(runtime).ok();
        let in_range = |runtime: &Duration| !runtime.is_zero() && *runtime <= TIME_MAX;
        let Some(runtime) = runtime.filter(in_range) else {
            return Err(wrong(format!(
                "the runtime is a duration of at most a year, like {kind}:{count}@5m"
            )));
        };
        Ok(match kind {
            "burst" => Self::Burst {
                containers,
                runtime,
            },
            "daily" => Self::Daily {
                containers,
                runtime,
            },
            _ => Self::Steady {
                containers,
                runtime,
            },
        })
    }
}

/// The names of the patterns.
const KINDS: [&str; 3] = ["burst", "steady", "daily"];

/// A moment that is more often by day than by night.
pub(crate) fn by_day(over: Duration, random: &mut Random) -> Duration {
    let mut at = random.between(Duration::ZERO, over);
    for _ in 0..DRAWS_MAX {
        let hour = usize::try_from(at.as_secs() / 3_600 % 24).unwrap_or_default();
        if random.below(HOURS_MAX) < HOURS.get(hour).copied().unwrap_or(HOURS_MAX) {
            break;
        }
        at = random.between(Duration::ZERO, over);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read() {
        let (containers, runtime) = (500, Duration::from_secs(90));
        assert_eq!(
            "burst:500@1m30s".parse(),
            Ok(Arrivals::Burst {
                containers,
                runtime
            })
        );
        assert_eq!(
            "steady:500@90s".parse(),
            Ok(Arrivals::Steady {
                containers,
                runtime
            })
        );
        assert_eq!(
            "daily:500@90s".parse(),
            Ok(Arrivals::Daily {
                containers,
                runtime
            })
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_an_example() {
        for (bad, word) in [
            ("week.csv", "like steady:500@5m"),
            ("bursts:5@1m", "there are burst, steady, daily"),
            ("burst:5", "burst:500@5m"),
            ("burst:0@5m", "from 1 to 1000000"),
            ("burst:-1@5m", "whole number"),
            ("burst:1000001@5m", "from 1 to 1000000"),
            ("burst:5@", "burst:5@5m"),
            ("burst:5@0", "duration"),
            ("burst:5@9999h", "at most a year"),
            ("burst:5@NaN", "duration"),
        ] {
            let error = bad.parse::<Arrivals>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn days_are_busier_than_nights() {
        let mut random = Random::new(1);
        let week = Duration::from_secs(7 * 24 * 3_600);
        let mut hours = [0; 24];
        for _ in 0..10_000 {
            let at = by_day(week, &mut random);
            assert!(at <= week);
            hours[usize::try_from(at.as_secs() / 3_600 % 24).unwrap()] += 1;
        }
        assert!(hours[10] > 5 * hours[2], "{hours:?}");
    }
}
