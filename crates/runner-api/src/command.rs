//! Command lines for `longshore-run`, quoted for a POSIX shell.
//!
//! | line | does | exit code |
//! |---|---|---|
//! | `P --detach --stdin-config --attempt N UUID` | starts a container from the [`StartDocument`](crate::StartDocument) on standard input, prints a [`StartReply`](crate::StartReply) | [`EXIT_OK`], [`EXIT_KNOWN_ATTEMPT`], else not started |
//! | `P --kill SIGNAL --attempt N UUID` | signals the supervisor, waits up to 1 s | [`EXIT_OK`] if it is gone, 1 if not |
//! | `P --report …` | prints a [report](crate::report) | [`EXIT_OK`] |
//! | `P --watch` | answers the requests of a [watch stream](crate::watch) until its standard input ends | [`EXIT_OK`] |
//! | `P --guard SECONDS …` | keeps a guard on the machine, which powers it off when it is left alone | [`EXIT_OK`] |
//! | `P --output STREAM --attempt N UUID` | prints what the container wrote | [`EXIT_OK`] |
//! | `P --output STREAM --from N --length N --attempt N UUID` | prints a part of what it has written until now | [`EXIT_OK`] |
//!
//! `--kill` of an attempt that the runner has never seen leaves a mark, so that a start of it that
//! arrives later is refused. Signal 0 does only that: what has been started goes on.

use std::fmt::Write as _;
use std::time::Duration;

use longshore_types::{Attempt, ContainerUuid};

use crate::report::format_acks;

/// The command did what it was asked to.
pub const EXIT_OK: u32 = 0;
/// A start was refused because this attempt, or a newer one, was started or killed before.
/// Nothing was started; the report says what became of it.
pub const EXIT_KNOWN_ATTEMPT: u32 = 3;
/// The arguments were wrong.
pub const EXIT_USAGE: u32 = 2;

/// The most acknowledgements in one report command.
pub const MAX_ACKS: usize = 100;
/// The longest time that a report command may wait for a change.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// The environment variable that says where on an instance the runner keeps its files.
pub const DIRECTORY_VARIABLE: &str = "LONGSHORE_RUN_DIR";
/// Where the runner keeps its files unless [`DIRECTORY_VARIABLE`] says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/longshore-run";

/// One of a container's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a process has these two output streams"
)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The name, in command lines and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What a report command is to do beside reporting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportOptions {
    /// Results that were received and may be removed; at most [`MAX_ACKS`].
    pub acks: Vec<(ContainerUuid, Attempt)>,
    /// Wait up to this long (at most [`MAX_WAIT`]) while the digest of the report equals
    /// [`ReportOptions::known`].
    pub wait: Duration,
    /// The digest of the report that the caller has.
    pub known: String,
}

/// `text` as one word for a POSIX shell.
///
/// ```
/// use longshore_runner_api::command::quote;
/// assert_eq!(quote("it's"), r"'it'\''s'");
/// ```
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The line that starts an attempt of a container.
pub fn start(runner: &str, uuid: ContainerUuid, attempt: Attempt) -> String {
    format!(
        "{} --detach --stdin-config --attempt {attempt} {uuid}",
        quote(runner)
    )
}

/// The line that sends `signal` to an attempt of a container.
pub fn kill(runner: &str, uuid: ContainerUuid, attempt: Attempt, signal: u8) -> String {
    format!(
        "{} --kill {signal} --attempt {attempt} {uuid}",
        quote(runner)
    )
}

/// The line that asks for a report.
pub fn report(runner: &str, options: &ReportOptions) -> String {
    let mut line = format!("{} --report", quote(runner));
    if !options.wait.is_zero() {
        let wait = options.wait.min(MAX_WAIT).as_millis();
        let _ = write!(line, " --wait-ms {wait} --known {}", quote(&options.known));
    }
    if !options.acks.is_empty() {
        let _ = write!(line, " --ack {}", format_acks(&options.acks));
    }
    line
}

/// The line that opens a [watch stream](crate::watch).
///
/// ```
/// assert_eq!(longshore_runner_api::command::watch("/r"), "'/r' --watch");
/// ```
pub fn watch(runner: &str) -> String {
    format!("{} --watch", quote(runner))
}

/// When a machine that nobody looks after is powered off.
///
/// A dispatcher says so where it has rented the machine, and only there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    /// After this time without any command of a dispatcher and without a container.
    pub after: Duration,
    /// After this time, if there are results that no dispatcher has acknowledged.
    pub after_with_results: Duration,
    /// What powers it off, for a POSIX shell; none means the usual commands.
    pub power_off: Option<String>,
}

impl Default for GuardOptions {
    /// An hour; six with results; the usual commands.
    fn default() -> Self {
        Self {
            after: Duration::from_secs(3600),
            after_with_results: Duration::from_secs(6 * 3600),
            power_off: None,
        }
    }
}

/// The line that puts a guard on the machine, or changes what an earlier one is to do.
///
/// ```
/// use longshore_runner_api::command::{GuardOptions, guard};
/// let line = guard("/r", &GuardOptions::default());
/// assert_eq!(line, "'/r' --guard 3600 --guard-results 21600");
/// ```
pub fn guard(runner: &str, options: &GuardOptions) -> String {
    let (after, results) = (
        options.after.as_secs(),
        options.after_with_results.as_secs(),
    );
    let mut line = format!(
        "{} --guard {after} --guard-results {results}",
        quote(runner)
    );
    if let Some(power_off) = &options.power_off {
        let _ = write!(line, " --power-off {}", quote(power_off));
    }
    line
}

/// The line that prints the last `last` bytes of an output stream, or all of it. Where its middle
/// was left out, a line in its place says so, and does not count.
pub fn output(
    runner: &str,
    uuid: ContainerUuid,
    attempt: Attempt,
    stream: OutputStream,
    last: Option<u64>,
) -> String {
    let mut line = format!("{} --output {}", quote(runner), stream.as_str());
    if let Some(last) = last {
        let _ = write!(line, " --last {last}");
    }
    let _ = write!(line, " --attempt {attempt} {uuid}");
    line
}

/// Prints at most `length` bytes of what a container has written to one stream, from the byte
/// `from` on, as an [`OutputWindow`](crate::OutputWindow) of at most
/// [`MAX_WINDOW_BYTES`](crate::MAX_WINDOW_BYTES). It begins later where the middle of the stream
/// was left out, never reaches over such a gap, and is empty if so much is not written yet.
pub fn output_window(
    runner: &str,
    uuid: ContainerUuid,
    attempt: Attempt,
    stream: OutputStream,
    from: u64,
    length: u64,
) -> String {
    let (runner, stream) = (quote(runner), stream.as_str());
    format!("{runner} --output {stream} --from {from} --length {length} --attempt {attempt} {uuid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid() -> ContainerUuid {
        "zzzzz-dz642-0123456789abcde".parse().unwrap()
    }

    #[test]
    fn lines_read_as_documented() {
        let n = Attempt(2);
        assert_eq!(
            start("/tmp/r", uuid(), n),
            "'/tmp/r' --detach --stdin-config --attempt 2 zzzzz-dz642-0123456789abcde"
        );
        assert_eq!(
            kill("/tmp/r", uuid(), n, 15),
            "'/tmp/r' --kill 15 --attempt 2 zzzzz-dz642-0123456789abcde"
        );
        assert_eq!(
            output("/tmp/r", uuid(), n, OutputStream::Stdout, Some(9)),
            "'/tmp/r' --output stdout --last 9 --attempt 2 zzzzz-dz642-0123456789abcde"
        );
        assert_eq!(
            output_window("/tmp/r", uuid(), n, OutputStream::Stderr, 7, 9),
            "'/tmp/r' --output stderr --from 7 --length 9 --attempt 2 zzzzz-dz642-0123456789abcde"
        );
        let options = ReportOptions {
            acks: vec![(uuid(), n), (uuid(), Attempt(3))],
            wait: Duration::from_secs(90),
            known: "ab".into(),
        };
        assert_eq!(
            report("/tmp/r", &options),
            "'/tmp/r' --report --wait-ms 60000 --known 'ab' \
             --ack zzzzz-dz642-0123456789abcde:2,zzzzz-dz642-0123456789abcde:3"
        );
        assert_eq!(
            report("/tmp/r", &ReportOptions::default()),
            "'/tmp/r' --report"
        );
    }
}
