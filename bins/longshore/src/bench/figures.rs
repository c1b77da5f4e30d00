//! Figures: what is made of samples, and how they are printed.

use std::io::{self, Write as _};
use std::time::Duration;

/// Durations that were measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    pub(super) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The smallest sample that is not exceeded by `percent` of them, in milliseconds; 0 of none.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        let sample = sorted.get(rank.saturating_sub(1));
        sample.map_or(0.0, |sample| sample.as_secs_f64() * 1000.0)
    }

    pub(super) fn p50_ms(&self) -> f64 {
        self.percentile_ms(50)
    }

    pub(super) fn p99_ms(&self) -> f64 {
        self.percentile_ms(99)
    }
}

/// How often something was done in how much time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    count: f64,
    seconds: f64,
}

impl Rate {
    pub(super) fn add(&mut self, count: u32, time: Duration) {
        self.count += f64::from(count);
        self.seconds += time.as_secs_f64();
    }

    pub(super) fn per_second(&self) -> f64 {
        ratio(self.count, self.seconds)
    }
}

/// `a / b`; 0 where there is nothing to compare with.
pub(super) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// Prints one line per figure: `name value unit`, sometimes with a comment behind it.
#[derive(Debug, Default)]
pub(super) struct Report {}

impl Report {
    pub(super) fn figure(&self, name: &str, value: f64, unit: &str) {
        print(&format!("{name} {} {unit}", number(value)));
    }

    /// A figure that is meant to be `target`.
    pub(super) fn target(&self, name: &str, value: f64, unit: &str, target: &str) {
        print(&format!(
            "{name} {} {unit}  # target {target}",
            number(value)
        ));
    }

    /// A line that is no figure.
    pub(super) fn note(&self, text: &str) {
        print(&format!("# {text}"));
    }
}

fn print(line: &str) {
    // A reader that has gone away does not want it.
    let _ = writeln!(io::stdout(), "{line}");
}

/// A number to about three significant digits.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ms: impl IntoIterator<Item = u64>) -> Samples {
        Samples(ms.into_iter().map(Duration::from_millis).collect())
    }

    #[test]
    fn percentiles_are_samples() {
        let hundred = samples((1..=100).rev());
        let at = |percent| hundred.percentile_ms(percent).round();
        assert_eq!(
            [at(1), at(50), at(99), at(100)],
            [1.0, 50.0, 99.0, 100.0],
            "nearest rank"
        );
        let three = samples([30, 10, 20]);
        assert_eq!((three.p50_ms(), three.p99_ms()), (20.0, 30.0));
        assert_eq!(samples([7]).percentile_ms(0), 7.0);
        assert_eq!(Samples::default().p50_ms(), 0.0);
    }

    #[test]
    fn rates_add_up() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), 0.0);
        rate.add(10, Duration::from_secs(1));
        rate.add(20, Duration::from_secs(2));
        assert_eq!(rate.per_second(), 10.0);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [2_345_678.4, 123.4, 12.34, 1.234, 0.01234].map(number);
        assert_eq!(texts, ["2345678", "123", "12.3", "1.23", "0.0123"]);
    }
}
