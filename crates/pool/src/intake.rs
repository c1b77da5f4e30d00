//! What is taken from outside: instances as a driver gives them, and outcomes, each cut to what
//! can be used and kept.

use std::time::Duration;

use longshore_cloud::{ErrorKind, Instance, Scope};
use longshore_types::{Cut, Exit, ExitCause, ReportedState, RunnerReport};

use crate::config::Config;
use crate::console::MAX_CONSOLE;
use crate::effect::{CloudFailure, HostFailure, KillOutcome, Outcome, StartOutcome};
use crate::text::cut;

/// The longest id of an instance, in bytes.
pub(crate) const MAX_ID: usize = 1024;
/// The longest value of one of our tags, in bytes.
const MAX_TAG: usize = 256;
/// The longest address, in bytes: a name of 253, brackets, a colon, and a port.
const MAX_ADDRESS: usize = 300;
/// The longest name of a user, in bytes.
const MAX_USER: usize = 64;
/// The longest digest of a report that is kept, in bytes.
const MAX_DIGEST: usize = 1024;
/// The most containers in one report.
const MAX_CONTAINERS: usize = longshore_runner_api::report::MAX_CONTAINERS;
/// The most bytes that a stream may have had: what a controller can keep as a number.
const MAX_WRITTEN: u64 = i64::MAX.unsigned_abs();
/// The longest that a provider may tell us to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Whether an id can be used: not empty, one line, of a sensible length.
pub(crate) fn is_usable_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && !id.chars().any(char::is_control)
}

/// Cuts an instance to what is used of it; what was wrong with it, if anything was.
///
/// Only our own tags are kept, and of these no absurd values. A secret that is dropped makes the
/// host unidentifiable, which is the safe side.
pub(crate) fn tidy(instance: &mut Instance, config: &Config) -> Option<String> {
    let keys = &config.tag_keys;
    let kept = [&keys.instance_type, &keys.idle_behavior, &keys.secret];
    instance
        .tags
        .retain(|key, value| kept.contains(&key) && value.len() <= MAX_TAG);
    let mut problem = None;
    if let Some(address) = instance.address.take() {
        if is_address(&address) {
            instance.address = Some(with_port(address, config.ssh_port));
        } else {
            let shown: String = address.chars().take(80).collect();
            problem = Some(format!("the provider gives {shown:?} as its address"));
        }
    }
    if let Some(user) = instance.remote_user.take_if(|user| !is_user(user)) {
        let shown: String = user.chars().take(80).collect();
        problem = Some(format!("the provider gives {shown:?} as the user"));
    }
    problem
}

/// Whether a text can be a host, or host and port, and can never be anything else to a program or
/// a shell that is given it.
fn is_address(text: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b".:-_[]%".contains(&b);
    !text.is_empty()
        && text.len() <= MAX_ADDRESS
        && !text.starts_with('-')
        && text.bytes().all(safe)
}

/// Whether a text can be the name of a user.
pub(crate) fn is_user(text: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"._-@+".contains(&b);
    !text.is_empty() && text.len() <= MAX_USER && !text.starts_with('-') && text.bytes().all(safe)
}

/// An address with a port; the usual one is left out.
fn with_port(address: String, port: u16) -> String {
    let colons = address.matches(':').count();
    let has_port = if address.starts_with('[') {
        !address.ends_with(']')
    } else {
        colons == 1
    };
    match (
        has_port || port == 22,
        colons > 1 && !address.starts_with('['),
    ) {
        (true, _) => address,
        (false, true) => format!("[{address}]:{port}"),
        (false, false) => format!("{address}:{port}"),
    }
}

impl CloudFailure {
    fn bound(&mut self) {
        cut(&mut self.error);
        match &mut self.kind {
            ErrorKind::RateLimited {
                retry_after: Some(pause),
            } => *pause = (*pause).min(MAX_RETRY_AFTER),
            ErrorKind::QuotaExceeded(scope) | ErrorKind::NoCapacity(scope) => match scope {
                Scope::QuotaGroup(name, _) | Scope::Zone(name) => cut(name),
                Scope::Everything | Scope::Type(_) | Scope::Market(_) => {}
            },
            _ => {}
        }
    }
}

impl Outcome {
    /// Cuts every text, and refuses what is too much to be taken.
    pub(crate) fn bound(mut self) -> Self {
        match &mut self {
            Self::Created(Err(failure))
            | Self::Listed(Err(failure))
            | Self::Console(Err(failure))
            | Self::TagsSet(Err(failure)) => failure.bound(),
            Self::Console(Ok(printed)) => {
                let surplus = printed.len().saturating_sub(MAX_CONSOLE);
                drop(printed.drain(..surplus));
            }
            Self::Destroyed(results) => {
                for failure in results
                    .iter_mut()
                    .filter_map(|(_, result)| result.as_mut().err())
                {
                    failure.bound();
                }
            }
            Self::Booted(Err(failure))
            | Self::Deployed(Err(failure))
            | Self::Collected(Err(failure))
            | Self::Reported(Err(failure)) => cut(&mut failure.error),
            Self::Started(StartOutcome::NotStarted { error } | StartOutcome::Unknown { error })
            | Self::Killed(KillOutcome::Unknown { error }) => cut(error),
            Self::Reported(Ok(report)) => {
                if let Err(error) = bound_report(report) {
                    return Self::Reported(Err(HostFailure::answered(error)));
                }
            }
            _ => {}
        }
        self
    }
}

/// A report with too many containers cannot be taken in part: what is not in it would count as
/// not being there. Nor can one that says two things of one container.
fn bound_report(report: &mut RunnerReport) -> Result<(), String> {
    let count = report.containers.len();
    if count > MAX_CONTAINERS {
        return Err(format!("it reports {count} containers, more than it may"));
    }
    let mut named = std::collections::BTreeSet::new();
    if let Some(twice) = report.containers.iter().find(|c| !named.insert(c.uuid)) {
        return Err(format!("it names container {} twice", twice.uuid));
    }
    if report.digest.len() > MAX_DIGEST {
        report.digest = String::new();
    }
    if let Some(why) = &mut report.broken {
        cut(why);
    }
    for container in &mut report.containers {
        let ReportedState::Finished(exit) = &mut container.state else {
            continue;
        };
        // That is for us to say.
        (exit.stdout_lost, exit.stderr_lost) = (false, false);
        bound_written(exit);
        if let ExitCause::NotStarted { error } | ExitCause::CannotRun { error, .. } =
            &mut exit.cause
        {
            cut(error);
        }
    }
    Ok(())
}

/// A job can make its machine say any number: a line that looks like the mark of a cut is enough.
fn bound_written(exit: &mut Exit) {
    let bound = |bytes: &mut u64, cut: &mut Option<Cut>| {
        *bytes = MAX_WRITTEN.min(*bytes);
        *cut = cut.filter(|cut| cut.from <= cut.to && cut.to <= *bytes);
    };
    bound(&mut exit.stdout_bytes, &mut exit.stdout_cut);
    bound(&mut exit.stderr_bytes, &mut exit.stderr_cut);
}

#[cfg(test)]
mod tests {
    use longshore_types::{Attempt, ContainerReport};

    use super::*;

    /// What is taken of an end that a runner reports.
    fn taken(exit: Exit) -> Exit {
        let report = RunnerReport {
            containers: vec![ContainerReport {
                uuid: "local-dz642-000000000000000".parse().unwrap(),
                attempt: Attempt(1),
                state: ReportedState::Finished(exit),
            }],
            ..RunnerReport::default()
        };
        let Outcome::Reported(Ok(mut report)) = Outcome::Reported(Ok(report)).bound() else {
            panic!("the report is not taken");
        };
        match report.containers.remove(0).state {
            ReportedState::Finished(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_number_of_bytes_is_too_large_and_no_cut_beyond_them() {
        let cut = |from, to| Some(Cut { from, to });
        for (bytes, cut, expected) in [
            (7, None, (7, None)),
            (7, cut(2, 7), (7, cut(2, 7))),
            (7, cut(2, 8), (7, None)),
            (7, cut(3, 2), (7, None)),
            (u64::MAX, cut(1, u64::MAX), (MAX_WRITTEN, None)),
            (u64::MAX, cut(1, 9), (MAX_WRITTEN, cut(1, 9))),
        ] {
            let mut exit = Exit::unseen(ExitCause::Killed);
            (exit.stdout_bytes, exit.stdout_cut) = (bytes, cut);
            (exit.stderr_bytes, exit.stderr_cut) = (bytes, cut);
            let exit = taken(exit);
            assert_eq!((exit.stdout_bytes, exit.stdout_cut), expected);
            assert_eq!((exit.stderr_bytes, exit.stderr_cut), expected);
        }
    }

    #[test]
    fn an_address_is_nothing_but_an_address() {
        for good in [
            "10.0.0.1",
            "host.example:2222",
            "[::1]:22",
            "fe80::1%eth0",
            "::1",
        ] {
            assert!(is_address(good), "{good}");
        }
        let long = "a".repeat(MAX_ADDRESS + 1);
        for bad in [
            "",
            "a\nb",
            "$(reboot)",
            "-oProxyCommand=x",
            "a b",
            "a;b",
            "a'b",
            "ü",
            &long,
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn an_unusual_port_is_added_where_none_is_named() {
        for (address, expected) in [
            ("10.0.0.1", "10.0.0.1:2222"),
            ("10.0.0.1:22", "10.0.0.1:22"),
            ("::1", "[::1]:2222"),
            ("[::1]", "[::1]:2222"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(with_port(address.into(), 2222), expected);
        }
        assert_eq!(with_port("a".into(), 22), "a");
    }
}
