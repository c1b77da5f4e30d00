//! Which settings make sense.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use longshore_runner_api::command::MAX_WAIT;
use longshore_types::{InstanceType, format_duration};

use crate::config::Config;
use crate::intake::is_user;

/// The longest duration of a setting: a year.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);
/// The shortest one, where zero has no meaning of its own.
const MIN_DURATION: Duration = Duration::from_millis(1);
/// The longest name, in bytes.
const MAX_NAME: usize = 256;
/// What drivers are promised of the values of tags, in characters.
const MAX_TAG_VALUE: usize = 256;
/// The most instance types.
const MAX_TYPES: usize = 10_000;

/// One setting that cannot be used.
///
/// ```
/// use longshore_pool::InvalidSetting;
/// let wrong = InvalidSetting::new("max_instances", "is larger than the account allows");
/// assert_eq!(wrong.to_string(), "max_instances: is larger than the account allows");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidSetting {
    /// The field of [`Config`](crate::Config), or the part of a pool, that is wrong.
    pub field: String,
    /// What is wrong with it, one line.
    pub problem: String,
}

impl InvalidSetting {
    /// A problem with a field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Everything that is wrong with settings, at once; never empty.
///
/// ```
/// use std::time::Duration;
/// use longshore_pool::Config;
///
/// let mut config = Config::new("", vec![]);
/// config.probe_interval = Duration::ZERO;
/// let wrong = config.validate().unwrap_err();
/// let fields: Vec<&str> = wrong.settings().iter().map(|s| s.field.as_str()).collect();
/// assert_eq!(fields, ["types", "instance_set_id", "probe_interval"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidSettings(Vec<InvalidSetting>);

impl InvalidSettings {
    /// These problems, at least one.
    #[cfg(feature = "runtime")]
    pub(crate) fn new(problems: Vec<InvalidSetting>) -> Self {
        Self(problems)
    }

    /// An error if there is anything wrong.
    pub(crate) fn check(problems: Vec<InvalidSetting>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }

    /// Each of them.
    pub fn settings(&self) -> &[InvalidSetting] {
        &self.0
    }
}

impl Config {
    /// Says everything that is wrong with the settings at once.
    ///
    /// [`Core::new`](crate::Core::new) takes whatever it is given and does not panic, but a pool
    /// with settings that are refused here does not do what anybody wants. A zero means "no limit"
    /// for `max_instances`, `max_creates_in_flight` and `max_probes_per_second`, "reports are
    /// asked for, not waited for" for `report_wait`, "at once" for `consistency_grace` and
    /// `create_grace`, and "never" for `timeout_unattended`; every other duration is 1 ms to 366 days.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        InvalidSettings::check(self.problems())
    }

    pub(crate) fn problems(&self) -> Vec<InvalidSetting> {
        let mut problems = Vec::new();
        check_types(&self.types, &mut problems);
        self.check_names(&mut problems);
        self.check_limits(&mut problems);
        self.check_durations(&mut problems);
        problems
    }

    fn check_names(&self, problems: &mut Vec<InvalidSetting>) {
        let mut wrong = |field: &str, problem: &str| {
            problems.push(InvalidSetting::new(field, problem));
        };
        if let Some(problem) = name_problem(&self.instance_set_id) {
            wrong("instance_set_id", problem);
        }
        let keys = &self.tag_keys;
        let names = [
            &keys.set_id,
            &keys.instance_type,
            &keys.idle_behavior,
            &keys.secret,
        ];
        if let Some(problem) = names.iter().find_map(|name| name_problem(name)) {
            wrong("tag_keys", problem);
        } else if BTreeSet::from(names).len() < names.len() {
            wrong("tag_keys", "names the same tag twice");
        }
        let path = &self.secret_path;
        if !path.is_empty() && (!path.starts_with('/') || has_control(path)) {
            wrong("secret_path", "is neither empty nor an absolute path");
        }
        if !is_user(&self.remote_user) {
            wrong("remote_user", "is not the name of a user");
        }
        let key = self.public_key.as_deref();
        if key.is_some_and(|key| !key.contains(' ') || has_control(key.trim_end())) {
            wrong("public_key", "is not a key in OpenSSH's one-line form");
        }
        for (key, value) in &self.resource_tags {
            if let Some(problem) = name_problem(key) {
                wrong("resource_tags", &format!("has a name that {problem}"));
            } else if value.chars().count() > MAX_TAG_VALUE {
                wrong(
                    "resource_tags",
                    &format!("has a value of more than {MAX_TAG_VALUE} characters, for {key}"),
                );
            }
        }
        if self.init_command.contains('\0') {
            wrong("init_command", "has a zero byte in it");
        }
    }

    fn check_limits(&self, problems: &mut Vec<InvalidSetting>) {
        if self.max_probes_in_flight == 0 {
            problems.push(InvalidSetting::new(
                "max_probes_in_flight",
                "is 0, with which nothing would ever be probed; 1000 is usual",
            ));
        }
        if self.ssh_port == 0 {
            problems.push(InvalidSetting::new("ssh_port", "is 0; 22 is usual"));
        }
    }

    fn check_durations(&self, problems: &mut Vec<InvalidSetting>) {
        let zero = Duration::ZERO;
        let durations = [
            ("report_wait", self.report_wait, zero, MAX_WAIT),
            (
                "consistency_grace",
                self.consistency_grace,
                zero,
                MAX_DURATION,
            ),
            ("create_grace", self.create_grace, zero, MAX_DURATION),
            (
                "timeout_unattended",
                self.timeout_unattended,
                zero,
                MAX_DURATION,
            ),
        ];
        let positive = [
            ("probe_interval", self.probe_interval),
            ("sync_interval", self.sync_interval),
            ("timeout_idle", self.timeout_idle),
            ("timeout_booting", self.timeout_booting),
            ("timeout_probe", self.timeout_probe),
            ("timeout_outage", self.timeout_outage),
            ("timeout_shutdown", self.timeout_shutdown),
            ("timeout_signal", self.timeout_signal),
            ("timeout_term", self.timeout_term),
            ("timeout_stale", self.timeout_stale),
            ("cloud_call_timeout", self.cloud_call_timeout),
            ("command_timeout", self.command_timeout),
            ("transfer_timeout", self.transfer_timeout),
        ];
        let positive = positive.map(|(field, value)| (field, value, MIN_DURATION, MAX_DURATION));
        for (field, value, least, most) in durations.into_iter().chain(positive) {
            if value < least || value > most {
                let [value, least, most] = [value, least, most].map(format_duration);
                let problem = format!("is {value}; it must be {least} to {most}");
                problems.push(InvalidSetting::new(field, problem));
            }
        }
    }
}

fn check_types(types: &[InstanceType], problems: &mut Vec<InvalidSetting>) {
    let mut wrong = |problem: String| problems.push(InvalidSetting::new("types", problem));
    if types.is_empty() {
        wrong("is empty; at least one instance type is needed".into());
    }
    if types.len() > MAX_TYPES {
        wrong(format!("has more than {MAX_TYPES} instance types"));
        return;
    }
    let mut names = BTreeSet::new();
    for (position, instance_type) in types.iter().enumerate() {
        let name = &instance_type.name;
        if let Some(problem) = name_problem(name.as_str()) {
            wrong(format!(
                "the name of type number {} {problem}",
                position + 1
            ));
        } else if !names.insert(name) {
            wrong(format!("two types are called {name}"));
        } else if instance_type.vcpus == 0 {
            wrong(format!("type {name} has no vCPUs"));
        } else if let Some(problem) = name_problem(&instance_type.provider_type) {
            wrong(format!("the provider's type of {name} {problem}"));
        }
    }
}

fn name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > MAX_NAME {
        Some("is longer than 256 bytes")
    } else if has_control(name) {
        Some("has a control character in it")
    } else {
        None
    }
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use longshore_cloud::CreateRequest;

    use super::*;

    fn good() -> Config {
        Config::new("set", vec![CreateRequest::example().instance_type])
    }

    fn fields(config: &Config) -> Vec<String> {
        let wrong = config.problems();
        wrong.into_iter().map(|setting| setting.field).collect()
    }

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(good().validate(), Ok(()));
    }

    #[test]
    fn each_absurd_setting_is_named() {
        let second = Duration::from_secs(1);
        type Change = fn(&mut Config, Duration);
        let changes: [(&str, Change); 15] = [
            ("types", |c, _| c.types.push(c.types[0].clone())),
            ("types", |c, _| c.types[0].vcpus = 0),
            ("types", |c, _| c.types[0].name = "a\nb".into()),
            ("types", |c, _| c.types[0].provider_type.clear()),
            ("resource_tags", |c, _| {
                c.resource_tags.insert(String::new(), "x".into());
            }),
            ("resource_tags", |c, _| {
                c.resource_tags.insert("note".into(), "x".repeat(257));
            }),
            ("instance_set_id", |c, _| {
                c.instance_set_id = "x".repeat(257)
            }),
            ("tag_keys", |c, _| {
                c.tag_keys.secret = c.tag_keys.set_id.clone()
            }),
            ("secret_path", |c, _| c.secret_path = "secret".into()),
            ("remote_user", |c, _| c.remote_user = "root; reboot".into()),
            ("public_key", |c, _| {
                c.public_key = Some("ssh-rsa A\nssh-rsa B".into())
            }),
            ("max_probes_in_flight", |c, _| c.max_probes_in_flight = 0),
            ("ssh_port", |c, _| c.ssh_port = 0),
            ("report_wait", |c, second| c.report_wait = 61 * second),
            ("timeout_idle", |c, _| c.timeout_idle = Duration::MAX),
        ];
        for (field, change) in changes {
            let mut config = good();
            change(&mut config, second);
            assert_eq!(fields(&config), [field]);
        }
        let mut config = good();
        config.report_wait = Duration::ZERO;
        config.create_grace = Duration::ZERO;
        config.max_instances = 0;
        config.secret_path = String::new();
        assert_eq!(config.validate(), Ok(()));
    }
}
