//! Sizes in bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes.
///
/// Reads plain numbers and numbers with a unit: `K`, `KB`, `M` … `E` are powers of 1000, `Ki`,
/// `KiB`, `Mi` … `EiB` powers of 1024. Case matters only in the `i`. Prints with the largest
/// binary unit that keeps it exact, or with one decimal.
///
/// ```
/// use longshore_types::ByteSize;
/// assert_eq!("1.5GiB".parse::<ByteSize>().unwrap(), ByteSize::mib(1536));
/// assert_eq!(ByteSize::mib(1536).to_string(), "1536 MiB");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A text that is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a size: expected a number of bytes, or a number with a unit like 512MiB or 2G"
)]
pub struct ParseByteSizeError(String);

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl ByteSize {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `n` times 1024² bytes, saturating.
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// `n` times 1024³ bytes, saturating.
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, ParseByteSizeError> {
        let error = || ParseByteSizeError(text.chars().take(64).collect());
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..split], trimmed[split..].trim());
        let scale = unit_scale(unit).ok_or_else(error)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
            return Err(error());
        }
        let whole: u128 = whole.parse().map_err(|_| error())?;
        let mut bytes = whole.checked_mul(scale).ok_or_else(error)?;
        if !fraction.is_empty() {
            let parts: u128 = fraction.parse().map_err(|_| error())?;
            bytes +=
                parts * scale / 10u128.pow(u32::try_from(fraction.len()).map_err(|_| error())?);
        }
        u64::try_from(bytes).map(Self).map_err(|_| error())
    }
}

/// The number of bytes in one of `unit`, none if there is no such unit.
fn unit_scale(unit: &str) -> Option<u128> {
    let mut letters = unit.chars();
    let Some(first) = letters.next() else {
        return Some(1);
    };
    if matches!(unit, "B" | "b") {
        return Some(1);
    }
    let power = 1 + "KMGTPE".find(first.to_ascii_uppercase())?;
    let power = u32::try_from(power).ok()?;
    match letters.as_str() {
        "" | "B" | "b" => Some(1000u128.pow(power)),
        "i" | "iB" | "ib" => Some(1024u128.pow(power)),
        _ => None,
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = 0;
        while unit + 1 < UNITS.len() && self.0 >= 1 << (10 * (unit + 1)) {
            unit += 1;
        }
        let exact = |unit: usize| self.0.is_multiple_of(1 << (10 * unit));
        if exact(unit) {
            write!(f, "{} {}", self.0 >> (10 * unit), UNITS[unit])
        } else if unit > 0 && exact(unit - 1) {
            write!(f, "{} {}", self.0 >> (10 * (unit - 1)), UNITS[unit - 1])
        } else {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a display value with one decimal"
            )]
            let value = self.0 as f64 / (1u64 << (10 * unit)) as f64;
            write!(f, "{value:.1} {}", UNITS[unit])
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a text like \"512MiB\"")
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_documented_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("1K", 1_000),
            ("1KB", 1_000),
            ("1Ki", 1_024),
            ("1 KiB", 1_024),
            ("2M", 2_000_000),
            ("550MiB", 550 << 20),
            ("0.5Gi", 1 << 29),
            ("1E", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for bad in [
            "", "-1", "1X", "1KiBs", "x", ".5G", "1.2.3M", "100E", "1e3", "GiB",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prints_short_and_true() {
        assert_eq!(ByteSize(0).to_string(), "0 B");
        assert_eq!(ByteSize(1 << 30).to_string(), "1 GiB");
        assert_eq!(ByteSize(1_500_000).to_string(), "1.4 MiB");
        assert_eq!(ByteSize(u64::MAX).to_string(), "16.0 EiB");
    }

    #[test]
    fn json_takes_numbers_and_texts() {
        assert_eq!(
            serde_json::from_str::<ByteSize>("1024").unwrap(),
            ByteSize(1024)
        );
        assert_eq!(
            serde_json::from_str::<ByteSize>("\"1KiB\"").unwrap(),
            ByteSize(1024)
        );
        assert!(serde_json::from_str::<ByteSize>("-1").is_err());
    }
}
