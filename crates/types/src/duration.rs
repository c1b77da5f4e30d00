//! Durations as configuration files write them.

use std::time::Duration;

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: expected a number with a unit like 10s, 1m30s or 24h")]
pub struct ParseDurationError(String);

const UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Reads a duration: numbers with units (`h`, `m`, `s`, `ms`, `us`, `ns`) in a row, or plain `0`.
///
/// ```
/// use std::time::Duration;
/// use longshore_types::parse_duration;
/// assert_eq!(parse_duration("1m30s").unwrap(), Duration::from_secs(90));
/// assert!(parse_duration("10").is_err());
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let error = || ParseDurationError(text.chars().take(64).collect());
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let split = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(error)?;
        let (number, tail) = rest.split_at(split);
        let (name, scale) = UNITS
            .iter()
            .find(|(name, _)| tail.starts_with(name))
            .ok_or_else(error)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 9 {
            return Err(error());
        }
        let scale = u128::from(*scale);
        nanos += whole.parse::<u64>().map(u128::from).map_err(|_| error())? * scale;
        if !fraction.is_empty() {
            let digits = u32::try_from(fraction.len()).map_err(|_| error())?;
            let parts: u64 = fraction.parse().map_err(|_| error())?;
            nanos += u128::from(parts) * scale / 10u128.pow(digits);
        }
        rest = &tail[name.len()..];
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| error())
}

/// A duration as a person reads it: milliseconds below a second, one decimal below a minute, then
/// whole seconds, minutes and hours.
///
/// ```
/// use std::time::Duration;
/// use longshore_types::format_duration;
/// assert_eq!(format_duration(Duration::from_millis(7)), "7ms");
/// assert_eq!(format_duration(Duration::from_secs(3725)), "1h2m5s");
/// ```
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}.{}s", duration.subsec_millis() / 100),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// A duration as a number of seconds on the wire.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// The same where there may be none.
pub(crate) mod option_seconds {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.serialize_some(&time.as_secs_f64()),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        seconds
            .map(Duration::try_from_secs_f64)
            .transpose()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rows_of_numbers_with_units() {
        for (text, millis) in [
            ("0", 0),
            ("250ms", 250),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("1h1m1s", 3_661_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for bad in [
            "",
            "5",
            "-5s",
            "s",
            "1d",
            "1s1",
            "1..2s",
            "99999999999999999999h",
            "9999999h",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
