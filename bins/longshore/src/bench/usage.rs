//! What this process itself uses.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

use super::figures::ratio;

/// Memory in use now, in KiB.
pub(super) fn resident_kib() -> anyhow::Result<f64> {
    own_status("VmRSS")
}

/// The most memory that was ever in use, in KiB.
pub(super) fn peak_resident_kib() -> anyhow::Result<f64> {
    own_status("VmHWM")
}

fn own_status(field: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status").context("cannot read own status")?;
    kib(&text, field).with_context(|| format!("the kernel does not tell {field}"))
}

fn kib(status: &str, field: &str) -> Option<f64> {
    let values = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = values.into_iter().find(|(name, _)| *name == field)?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// How much of one processor this process uses while nothing is asked of it, in percent.
pub(super) async fn idle_cpu_percent(duration: Duration) -> anyhow::Result<f64> {
    let (cpu, clock) = (cpu_time()?, Instant::now());
    tokio::time::sleep(duration).await;
    let used = cpu_time()?.saturating_sub(cpu);
    let passed = clock.elapsed();
    Ok(100.0 * ratio(used.as_secs_f64(), passed.as_secs_f64()))
}

/// The time that processors have spent on this process.
pub(super) fn cpu_time() -> anyhow::Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    Ok(time.context("cannot read own processor time")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib(status, "VmRSS"), Some(1024.0));
        assert_eq!(kib(status, "VmSwap"), None);
        assert!(peak_resident_kib().unwrap() >= 1.0);
    }
}
