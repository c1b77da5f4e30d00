//! When a machine that no dispatcher looks after powers itself off.

use std::time::Duration;

use longshore_runner_api::command::GuardOptions;

use crate::config::Config;

/// So many commands in a row may fail to arrive without a machine being off for it.
const CONTACTS: u32 = 4;
/// So much longer than without a machine stays on with results that no dispatcher has fetched.
const PATIENCE_WITH_RESULTS: u32 = 6;
/// The longest time that a runner takes.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// How many workers there may be where nobody says.
const MANY: usize = 10_000;

impl Config {
    /// What the runner on each instance is told of the dead-man switch, if there is one: instances
    /// must be rented, and [`Config::timeout_unattended`] not zero.
    ///
    /// Every command for the runner counts as a sign of life, so the reports that are asked for
    /// anyway keep an instance on. The time is that setting, or if that is longer four times what
    /// may lie between two reports; a container that runs, or may run, keeps an instance on for
    /// however long it takes, results that were not fetched keep it on for six times as long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use longshore_cloud::{Capabilities, CreateRequest};
    /// use longshore_pool::Config;
    /// let mut config = Config::new("my-service", vec![CreateRequest::example().instance_type]);
    /// assert_eq!(config.guard(), None);
    /// config.capabilities = Capabilities::new().with_rented();
    /// let guard = config.guard().unwrap();
    /// assert_eq!(guard.after, Duration::from_secs(3_600));
    /// assert_eq!(guard.after_with_results, Duration::from_secs(6 * 3_600));
    /// ```
    pub fn guard(&self) -> Option<GuardOptions> {
        if !self.capabilities.rented || self.timeout_unattended.is_zero() {
            return None;
        }
        let least = self.between_contacts().saturating_mul(CONTACTS);
        let after = whole_seconds(self.timeout_unattended.max(least)).min(LONGEST);
        Some(GuardOptions {
            after,
            after_with_results: after.saturating_mul(PATIENCE_WITH_RESULTS).min(LONGEST),
            power_off: None,
        })
    }

    /// The longest that lies between two reports of a worker that answers.
    fn between_contacts(&self) -> Duration {
        let pause = match self.max_probes_per_second {
            0 => self.probe_interval,
            cap => {
                let workers = match self.max_instances {
                    0 => MANY,
                    most => most,
                };
                let workers = u32::try_from(workers).unwrap_or(u32::MAX);
                let turn = Duration::from_secs(1).saturating_mul(workers) / cap;
                self.probe_interval.max(turn)
            }
        };
        pause
            .saturating_add(self.report_wait)
            .saturating_add(self.command_timeout)
    }
}

fn whole_seconds(time: Duration) -> Duration {
    let up = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(time.as_secs().saturating_add(up))
}

#[cfg(test)]
mod tests {
    use longshore_cloud::{Capabilities, CreateRequest};

    use super::*;

    fn rented() -> Config {
        let mut config = Config::new("set", vec![CreateRequest::example().instance_type]);
        config.capabilities = Capabilities::new().with_rented();
        config
    }

    fn after(config: &Config) -> Option<u64> {
        config.guard().map(|guard| guard.after.as_secs())
    }

    #[test]
    fn only_rented_machines_are_ever_powered_off() {
        let mut config = rented();
        assert_eq!(after(&config), Some(3_600));
        config.timeout_unattended = Duration::ZERO;
        assert_eq!(after(&config), None);
        config.timeout_unattended = Duration::from_secs(7_200);
        config.capabilities.rented = false;
        assert_eq!(after(&config), None);
    }

    #[test]
    fn it_is_longer_than_reports_may_be_apart() {
        let mut config = rented();
        config.timeout_unattended = Duration::from_millis(1);
        config.report_wait = Duration::from_secs(10);
        // Ten seconds of waiting, ten of pause, thirty for the command.
        assert_eq!(after(&config), Some(200));
        config.probe_interval = Duration::from_millis(10_100);
        assert_eq!(after(&config), Some(201));
        // 64 workers, one of them a second.
        config.max_probes_per_second = 1;
        assert_eq!(after(&config), Some(4 * (64 + 40)));
        config.max_instances = 0;
        assert_eq!(after(&config), Some(4 * (10_000 + 40)));
        config.timeout_unattended = Duration::MAX;
        assert_eq!(config.guard().unwrap().after_with_results, LONGEST);
    }
}
