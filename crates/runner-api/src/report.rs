//! The lines of a report.
//!
//! `--report` prints JSON objects, one a line of at most [`MAX_LINE`] bytes. A runner of any kind
//! may print them, and its [`parse`]d report be handed to the pool:
//!
//! ```
//! use longshore_runner_api::report::parse;
//! use longshore_types::{ExitCause, ReportedState};
//!
//! let report = parse(br#"{"type":"report","version":1}
//! {"type":"broken","why":"no space left on device"}
//! {"type":"container","uuid":"local-dz642-000000000000001","attempt":1,"state":"running","started_at":1795208257000}
//! {"type":"container","uuid":"local-dz642-000000000000002","attempt":3,"state":"finished","cause":"exited","code":5,"started_at":1795208257000,"finished_at":1795208258000,"stdout_bytes":10,"stderr_bytes":0}
//! {"type":"container","uuid":"local-dz642-000000000000003","attempt":1,"state":"finished","cause":"time_limit","stdout_bytes":0,"stderr_bytes":0}
//! {"type":"container","uuid":"local-dz642-000000000000004","attempt":1,"state":"stale"}
//! {"type":"end","containers":4,"digest":""}
//! "#)?;
//! let ReportedState::Finished(exit) = &report.containers[1].state else { panic!() };
//! assert_eq!((&exit.cause, exit.stdout_bytes), (&ExitCause::Exited { code: 5 }, 10));
//! # Ok::<(), longshore_runner_api::report::ReportError>(())
//! ```
//!
//! | field | is |
//! |---|---|
//! | `state` | `running` (from the moment at which it may run), `stale` (what watches it is gone, and it may still run), `finished` |
//! | `started_at`, `finished_at` | milliseconds since 1970 UTC on the clock of the machine; may be left out |
//! | `cause` | of what is finished: `exited` with `code`, `signaled` with `signal`, `out_of_memory` with `limit`, `cannot_run` with `code` and `error`, `time_limit`, `killed`, `not_started` with `error`, `supervisor_lost`, `instance_lost`; any other is read as `supervisor_lost`, for newer runners |
//! | `stdout_bytes`, `stderr_bytes` | of what is finished: how much it wrote |
//! | `stdout_cut`, `stderr_cut` | of what is finished: from which byte `from` to which byte `to` its output was left out |
//! | `limits` | of what is finished: by what means `ram`, `vcpus` and `processes` were limited: `cgroup_v2`, `cgroup_v1`, `rlimit`, `engine`, `nothing`; may be left out |
//! | `containers` | how many lines of type `container` there were |
//! | `digest` | equal digests mean equal reports; empty from a runner that gives none, which is then asked at every probe |
//!
//! The last line proves that nothing was cut off. Lines of a type that the reader does not know
//! are ignored, so that a newer runner can say more.
//!
//! [`format_list`] writes the stock `--list` grammar of the ancestor's runner, for people and old
//! tools; it has no results in it.

use longshore_types::{Attempt, ContainerReport, ContainerUuid, ReportedState, RunnerReport};
use serde::{Deserialize, Serialize};

use crate::command::MAX_ACKS;

/// The version of the grammar.
pub const REPORT_VERSION: u32 = 1;
/// The longest line in bytes.
pub const MAX_LINE: usize = 4096;
/// The most containers in one report.
pub const MAX_CONTAINERS: usize = 4096;
/// The longest report in bytes that [`parse`] accepts.
pub const MAX_REPORT_BYTES: usize = 2 << 20;
/// The longest free text in a report, in bytes; longer ones are cut.
pub const MAX_TEXT: usize = 1024;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Report {
        version: u32,
        /// Of the request that it answers, on a [watch stream](crate::watch).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
    },
    Broken {
        why: String,
    },
    Container(ContainerReport),
    End {
        containers: usize,
        digest: String,
    },
    #[serde(other)]
    Unknown,
}

/// A report that breaks the grammar; none of it may be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It has more bytes, lines or containers than a report may have.
    #[error("the report is larger than {0}")]
    TooLarge(&'static str),
    /// A line is not one of the grammar's.
    #[error("line {number} of the report is not valid")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What the decoder said.
        source: serde_json::Error,
    },
    /// It does not begin with the line that says its version, or with another version.
    #[error("the report does not begin with version {REPORT_VERSION}")]
    Version,
    /// Its last line is missing or does not match what came before.
    #[error("the report is incomplete")]
    Incomplete,
    /// It names the same container twice.
    #[error("the report names {0} twice")]
    Duplicate(ContainerUuid),
}

/// The text of a report. Free texts are cut to [`MAX_TEXT`] bytes.
///
/// ```
/// use longshore_runner_api::report;
/// use longshore_types::RunnerReport;
/// let text = report::format(&RunnerReport { digest: "d".into(), ..RunnerReport::default() });
/// assert_eq!(report::parse(text.as_bytes()).unwrap().digest, "d");
/// ```
pub fn format(report: &RunnerReport) -> String {
    text(report, None)
}

/// The same, as the answer to a request of a [watch stream](crate::watch).
pub(crate) fn format_numbered(report: &RunnerReport, id: u64) -> String {
    text(report, Some(id))
}

fn text(report: &RunnerReport, id: Option<u64>) -> String {
    let mut lines = vec![Line::Report {
        version: REPORT_VERSION,
        id,
    }];
    lines.extend(
        report
            .broken
            .iter()
            .map(|why| Line::Broken { why: cut(why) }),
    );
    lines.extend(
        report
            .containers
            .iter()
            .map(|container| Line::Container(shortened(container))),
    );
    lines.push(Line::End {
        containers: report.containers.len(),
        digest: report.digest.clone(),
    });
    let mut text = String::new();
    for line in &lines {
        // Plain data with text keys; encoding it cannot fail.
        text.push_str(&serde_json::to_string(line).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// Whether a line is the last one of a report.
pub fn is_last_line(line: &[u8]) -> bool {
    line.starts_with(b"{\"type\":\"end\"")
}

/// Reads a report; refuses it whole if anything is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<RunnerReport, ReportError> {
    if bytes.len() > MAX_REPORT_BYTES {
        return Err(ReportError::TooLarge("2 MiB"));
    }
    let mut report = RunnerReport::default();
    let mut seen = std::collections::BTreeSet::new();
    let mut ended = false;
    let mut began = false;
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        if ended {
            return Err(ReportError::Incomplete);
        }
        if line.len() > MAX_LINE {
            return Err(ReportError::TooLarge("4 KiB a line"));
        }
        let line: Line = serde_json::from_slice(line).map_err(|source| ReportError::Line {
            number: i + 1,
            source,
        })?;
        if !began
            && !matches!(
                line,
                Line::Report {
                    version: REPORT_VERSION,
                    ..
                }
            )
        {
            return Err(ReportError::Version);
        }
        began = true;
        match line {
            Line::Report { .. } | Line::Unknown => {}
            Line::Broken { why } => report.broken = Some(cut(&why)),
            Line::Container(container) => {
                if !seen.insert(container.uuid) {
                    return Err(ReportError::Duplicate(container.uuid));
                }
                if report.containers.len() == MAX_CONTAINERS {
                    return Err(ReportError::TooLarge("4096 containers"));
                }
                report.containers.push(shortened(&container));
            }
            Line::End { containers, digest } => {
                if containers != report.containers.len() || digest.len() > MAX_TEXT {
                    return Err(ReportError::Incomplete);
                }
                report.digest = digest;
                ended = true;
            }
        }
    }
    if ended {
        Ok(report)
    } else {
        Err(ReportError::Incomplete)
    }
}

/// The stock `--list` text: `broken`, a UUID, or a UUID and `stale`, a line each.
pub fn format_list(report: &RunnerReport) -> String {
    let mut text = String::new();
    if report.broken.is_some() {
        text.push_str("broken\n");
    }
    for container in &report.containers {
        match container.state {
            ReportedState::Running { .. } => text.push_str(&format!("{}\n", container.uuid)),
            ReportedState::Stale => text.push_str(&format!("{} stale\n", container.uuid)),
            ReportedState::Finished(_) => {}
        }
    }
    text
}

/// `UUID:ATTEMPT,…`, the argument of `--ack`; those beyond [`MAX_ACKS`] are left out.
///
/// ```
/// use longshore_runner_api::report::{format_acks, parse_acks};
/// use longshore_types::Attempt;
/// let acks = [("zzzzz-dz642-0123456789abcde".parse()?, Attempt(2))];
/// assert_eq!(format_acks(&acks), "zzzzz-dz642-0123456789abcde:2");
/// assert_eq!(parse_acks(&format_acks(&acks)).as_deref(), Some(&acks[..]));
/// # Ok::<(), longshore_types::ParseUuidError>(())
/// ```
pub fn format_acks(acks: &[(ContainerUuid, Attempt)]) -> String {
    let acks = acks.iter().take(MAX_ACKS);
    let words: Vec<String> = acks.map(|(uuid, n)| format!("{uuid}:{n}")).collect();
    words.join(",")
}

/// Reads `UUID:ATTEMPT,…`, the argument of `--ack`; none if any part is wrong.
pub fn parse_acks(text: &str) -> Option<Vec<(ContainerUuid, Attempt)>> {
    text.split(',')
        .map(|part| {
            let (uuid, attempt) = part.split_once(':')?;
            Some((uuid.parse().ok()?, Attempt(attempt.parse().ok()?)))
        })
        .collect()
}

fn shortened(container: &ContainerReport) -> ContainerReport {
    use longshore_types::ExitCause;
    let mut container = container.clone();
    if let ReportedState::Finished(exit) = &mut container.state
        && let ExitCause::NotStarted { error } | ExitCause::CannotRun { error, .. } =
            &mut exit.cause
    {
        *error = cut(error);
    }
    container
}

/// At most [`MAX_TEXT`] bytes of a text, control characters replaced by blanks.
pub(crate) fn cut(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(MAX_TEXT).map(clean).collect();
    while short.len() > MAX_TEXT {
        short.pop();
    }
    short
}

#[cfg(test)]
mod tests {
    use longshore_types::{AppliedLimits, ByteSize, Cut, Exit, ExitCause, Means, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn any_report() -> impl Strategy<Value = RunnerReport> {
        let uuid = "[a-z0-9]{15}".prop_map(|tail| {
            format!("zzzzz-dz642-{tail}")
                .parse::<ContainerUuid>()
                .unwrap()
        });
        let time = proptest::option::of(any::<i64>().prop_map(Timestamp));
        let cause = prop_oneof![
            any::<i32>().prop_map(|code| ExitCause::Exited { code }),
            any::<i32>().prop_map(|signal| ExitCause::Signaled { signal }),
            any::<u64>().prop_map(|limit| ExitCause::OutOfMemory {
                limit: ByteSize(limit)
            }),
            (any::<i32>(), "[^\\p{C}]{0,40}")
                .prop_map(|(code, error)| ExitCause::CannotRun { code, error }),
            Just(ExitCause::TimeLimit),
            Just(ExitCause::Killed),
            "[^\\p{C}]{0,40}".prop_map(|error| ExitCause::NotStarted { error }),
            Just(ExitCause::SupervisorLost),
            Just(ExitCause::InstanceLost),
        ];
        let exit = (
            cause,
            time.clone(),
            time.clone(),
            any::<u64>(),
            any::<u64>(),
        )
            .prop_map(
                |(cause, started_at, finished_at, stdout_bytes, stderr_bytes)| Exit {
                    stdout_cut: started_at.map(|_| Cut {
                        from: stderr_bytes,
                        to: 7,
                    }),
                    started_at,
                    finished_at,
                    stdout_bytes,
                    stderr_bytes,
                    limits: started_at.map(|_| AppliedLimits::all(Means::CgroupV1)),
                    ..Exit::unseen(cause)
                },
            );
        let state = prop_oneof![
            time.prop_map(|started_at| ReportedState::Running { started_at }),
            Just(ReportedState::Stale),
            exit.prop_map(ReportedState::Finished),
        ];
        let containers = proptest::collection::btree_map(uuid, (any::<u32>(), state), 0..8);
        (
            containers,
            proptest::option::of("[^\\p{C}]{0,40}"),
            "[0-9a-f]{0,32}",
        )
            .prop_map(|(containers, broken, digest)| RunnerReport {
                containers: containers
                    .into_iter()
                    .map(|(uuid, (attempt, state))| ContainerReport {
                        uuid,
                        attempt: Attempt(attempt),
                        state,
                    })
                    .collect(),
                broken,
                digest,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(report in any_report()) {
            prop_assert_eq!(parse(format(&report).as_bytes()).unwrap(), report);
        }

        #[test]
        fn a_report_that_was_cut_is_refused(report in any_report(), keep in 0.0..1.0f64) {
            let text = format(&report);
            let end = text.trim_end().len();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
            let keep = (keep * end as f64) as usize;
            prop_assert!(parse(&text.as_bytes()[..keep]).is_err());
        }

        #[test]
        fn anything_else_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn hostile_reports_are_refused() {
        let line = |text: &str| format!("{{\"type\":\"report\",\"version\":1}}\n{text}\n");
        let uuid = "zzzzz-dz642-0123456789abcde";
        let stale =
            format!(r#"{{"type":"container","uuid":"{uuid}","attempt":1,"state":"stale"}}"#);
        let end = |n: usize| format!(r#"{{"type":"end","containers":{n},"digest":""}}"#);
        assert!(parse(line(&format!("{stale}\n{}", end(1))).as_bytes()).is_ok());
        for bad in [
            String::new(),
            end(0),
            line(""),
            line(&format!("{stale}\n{}", end(2))),
            line(&format!("{stale}\n{stale}\n{}", end(2))),
            line(&format!("{}\n{stale}", end(0))),
            line(&format!("{}{}", " ".repeat(MAX_LINE), end(0))),
            line(&format!("nonsense\n{}", end(0))),
            format!("{{\"type\":\"report\",\"version\":9}}\n{}\n", end(0)),
            " ".repeat(MAX_REPORT_BYTES + 1),
        ] {
            assert!(
                parse(bad.as_bytes()).is_err(),
                "{}",
                &bad[..bad.len().min(200)]
            );
        }
        let newer = line(&format!(
            "{{\"type\":\"weather\",\"sun\":true}}\n{}",
            end(0)
        ));
        assert!(parse(newer.as_bytes()).is_ok());
    }

    #[test]
    fn a_cause_that_only_newer_runners_know_is_an_end_of_which_no_more_is_known() {
        let exited = r#""cause":"exited","code":5,"#;
        let newer = r#""cause":"quota","quota":{"disk":[1,2]},"code":5,"#;
        let text = |causes: &[&str]| {
            let lines = causes.iter().enumerate().map(|(i, cause)| {
                format!(
                    "{{\"type\":\"container\",\"uuid\":\"zzzzz-dz642-00000000000000{i}\",\"attempt\":1,\
                     \"state\":\"finished\",{cause}\"started_at\":7,\"stdout_bytes\":3,\"stderr_bytes\":0}}\n"
                )
            });
            let lines: String = lines.collect();
            let containers = causes.len();
            format!(
                "{{\"type\":\"report\",\"version\":1}}\n{lines}\
                 {{\"type\":\"end\",\"containers\":{containers},\"digest\":\"\"}}\n"
            )
        };
        let report = parse(text(&[newer, exited]).as_bytes()).unwrap();
        let causes = [ExitCause::SupervisorLost, ExitCause::Exited { code: 5 }];
        for (container, cause) in report.containers.iter().zip(causes) {
            let ReportedState::Finished(exit) = &container.state else {
                panic!("{container:?}");
            };
            assert_eq!(exit.cause, cause);
            assert_eq!(
                (exit.started_at, exit.stdout_bytes),
                (Some(Timestamp(7)), 3)
            );
        }
        for bad in [
            "",
            r#""cause":"exited","code":"x","#,
            r#""cause":"exited","#,
        ] {
            assert!(parse(text(&[bad, exited]).as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_stock_list_names_what_may_run() {
        let container = |tail: &str, state| ContainerReport {
            uuid: format!("zzzzz-dz642-00000000000000{tail}").parse().unwrap(),
            attempt: Attempt(1),
            state,
        };
        let report = RunnerReport {
            containers: vec![
                container("a", ReportedState::Running { started_at: None }),
                container("b", ReportedState::Stale),
                container(
                    "c",
                    ReportedState::Finished(Exit::unseen(ExitCause::Killed)),
                ),
            ],
            broken: Some("x".into()),
            digest: String::new(),
        };
        assert_eq!(
            format_list(&report),
            "broken\nzzzzz-dz642-00000000000000a\nzzzzz-dz642-00000000000000b stale\n"
        );
    }

    #[test]
    fn acknowledgements_are_read_strictly() {
        let uuid = "zzzzz-dz642-0123456789abcde";
        assert_eq!(parse_acks(&format!("{uuid}:1,{uuid}:2")).unwrap().len(), 2);
        for bad in [
            "",
            ",",
            uuid,
            "x:1",
            &format!("{uuid}:1,"),
            &format!("{uuid}:-1"),
        ] {
            assert!(parse_acks(bad).is_none(), "{bad}");
        }
    }
}
