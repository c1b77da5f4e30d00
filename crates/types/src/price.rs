//! Prices.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A price per hour in billionths of the currency unit, so that prices compare and add exactly.
///
/// Zero is a price. The wire form is a number in whole currency units.
///
/// ```
/// use longshore_types::Price;
/// assert_eq!(Price::from_units(0.1).unwrap().to_string(), "0.100000");
/// assert!(Price::from_units(f64::NAN).is_err());
///
/// let hourly = Price::from_units(0.1).unwrap();
/// assert_eq!(hourly.times(3).saturating_add(hourly), Price::from_units(0.4).unwrap());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(u64);

/// A number that is no price.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a price: expected a number from 0 to 1000000000")]
pub struct InvalidPrice(f64);

impl Price {
    const MAX_UNITS: f64 = 1e9;

    /// A price of `units` per hour, rounded to a billionth; 0 to 1,000,000,000.
    pub fn from_units(units: f64) -> Result<Self, InvalidPrice> {
        if (0.0..=Self::MAX_UNITS).contains(&units) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range was checked above"
            )]
            Ok(Self((units * 1e9).round() as u64))
        } else {
            Err(InvalidPrice(units))
        }
    }

    /// The price in whole units per hour.
    pub fn units(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a display value")]
        let nanos = self.0 as f64;
        nanos / 1e9
    }

    /// The price of `count` of these, saturating.
    pub fn times(self, count: usize) -> Self {
        Self(self.0.saturating_mul(count as u64))
    }

    /// Both prices together, saturating.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This price times `factor` (at least 1; NaN counts as 1), saturating.
    pub fn scaled(self, factor: f64) -> Self {
        let units = self.units() * factor.max(1.0);
        Self::from_units(units.min(Self::MAX_UNITS))
            .unwrap_or(self)
            .max(self)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.units())
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.units())
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_units(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_prices_are_refused_and_zero_is_not() {
        assert!(Price::from_units(0.0).is_ok());
        for bad in [-0.1, f64::NAN, f64::INFINITY, 1e10] {
            assert!(Price::from_units(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scaling_never_lowers() {
        let price = Price::from_units(0.3).unwrap();
        assert_eq!(price.scaled(0.5), price);
        assert_eq!(price.scaled(f64::NAN), price);
        assert_eq!(price.scaled(1.5), Price::from_units(0.45).unwrap());
        assert!(price.scaled(f64::INFINITY) > price);
    }
}
