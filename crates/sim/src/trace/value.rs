//! The values of a table.

use std::time::Duration;

use longshore_types::{ByteSize, Preemptible, Timestamp, parse_duration};

use super::TIME_MAX;

/// When containers are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Time {
    /// So long after the beginning.
    After(Duration),
    Date(Timestamp),
}

impl Time {
    /// The time from the beginning, which is that date where there are dates.
    pub(super) fn since(self, begin: Option<Self>) -> Duration {
        match (self, begin) {
            (Self::After(after), _) => after,
            (Self::Date(date), Some(Self::Date(begin))) => date.since(begin),
            (Self::Date(_), _) => Duration::ZERO,
        }
    }
}

pub(super) fn time(text: &str) -> Result<Time, String> {
    if let Some(date) = date(text) {
        return Ok(Time::Date(date));
    }
    match seconds(text) {
        Some(after) if after <= TIME_MAX => Ok(Time::After(after)),
        Some(_) => Err(format!(
            "{} is more than a year from the beginning; write dates like 2026-01-31T08:00:00Z",
            quoted(text)
        )),
        None if text.starts_with('-') => Err(format!(
            "{} is negative; times count from the beginning",
            quoted(text)
        )),
        None => Err(format!(
            "{} is not a time: write seconds (90), a duration (1h30m) or a date (2026-01-31T08:00:00Z)",
            quoted(text)
        )),
    }
}

pub(super) fn runtime(text: &str) -> Result<Duration, String> {
    match seconds(text) {
        Some(runtime) if runtime <= TIME_MAX => Ok(runtime),
        Some(_) => Err(format!("{} is longer than a year", quoted(text))),
        None => Err(format!(
            "{} is not a duration: write 90s, 5m, 1h30m or a number of seconds",
            quoted(text)
        )),
    }
}

/// A duration, or a number of seconds.
fn seconds(text: &str) -> Option<Duration> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !is_number || text.is_empty() {
        return parse_duration(text).ok();
    }
    let too_many = text.len() > 12 && !text.contains('.');
    let seconds = parse_duration(&format!("{text}s")).ok();
    seconds.or(too_many.then_some(Duration::MAX))
}

pub(super) fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok();
    number
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| {
            format!(
                "{} is not a whole number from {least} to {most}",
                quoted(text)
            )
        })
}

pub(super) fn ram(text: &str, least: ByteSize) -> Result<ByteSize, String> {
    let ram = size(text)?;
    if ram < least {
        return Err(format!(
            "{} is less than {least}; write a unit, like 512MiB",
            quoted(text)
        ));
    }
    Ok(ram)
}

/// A size; nothing is none.
pub(super) fn size(text: &str) -> Result<ByteSize, String> {
    if text.is_empty() {
        return Ok(ByteSize::ZERO);
    }
    let size = text.parse();
    size.map_err(|_| format!("{} is not a size: write 512MiB or 2GB", quoted(text)))
}

/// Nothing is false.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        _ => Err(format!("{} is neither true nor false", quoted(text))),
    }
}

/// Nothing is false.
pub(super) fn preemptible(text: &str) -> Result<Preemptible, String> {
    if text.is_empty() {
        return Ok(Preemptible::Never);
    }
    let preemptible = text.to_ascii_lowercase().parse();
    preemptible.map_err(|_| format!("{} is none of true, false and prefer", quoted(text)))
}

fn quoted(text: &str) -> String {
    if text.is_empty() {
        return "nothing".into();
    }
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

/// A date and time as in RFC 3339: `2026-01-31T08:00:00Z`, with a fraction or another offset if
/// need be.
fn date(text: &str) -> Option<Timestamp> {
    let (day, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, offset) = rest.split_at_checked(8)?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let (millis, offset) = fraction(offset)?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let minutes =
        (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset_of(offset)?;
    Some(Timestamp((minutes * 60 + second) * 1_000 + millis))
}

/// Three numbers of so many digits.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut part = |length: usize| {
        let text = parts.next()?;
        let good = text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        good.then(|| text.parse().ok())?
    };
    let numbers = [part(digits[0])?, part(digits[1])?, part(digits[2])?];
    parts.next().is_none().then_some(numbers)
}

/// The milliseconds of a fraction of a second, if there is one, and what follows it.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let (digits, offset) = rest.split_at(end);
    let millis: String = digits.chars().chain("000".chars()).take(3).collect();
    (!digits.is_empty()).then_some((millis.parse().ok()?, offset))
}

/// How many minutes an offset is ahead of UTC.
fn offset_of(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, text) = text.split_at_checked(1)?;
    let sign = match sign {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let [hours, minutes, _] = numbers(&format!("{text}:00"), ':', [2, 2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, by the formula of Howard Hinnant's "chrono-Compatible Low-Level Date
/// Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_that_timestamps_print() {
        for millis in [0, 951_782_400_123, 1_700_000_000_000, 4_107_542_399_999] {
            let text = Timestamp(millis).to_string();
            assert_eq!(date(&text), Some(Timestamp(millis)), "{text}");
        }
        let noon = date("2026-01-31T12:00:00Z");
        assert_eq!(date("2026-01-31 13:30:00+01:30"), noon);
        assert_eq!(date("2026-01-31T07:00:00.000-05:00"), noon);
    }

    #[test]
    fn what_is_no_date_is_none() {
        for bad in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T08:00:00",
            "2026-01-31T08:00:00.Z",
            "2026-01-31",
            "2026-01-31T08:00:00+1:00",
            "aä26-01-31T08:00:00Z",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }
}
