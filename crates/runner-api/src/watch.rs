//! The watch stream: many requests and their answers over one long-lived channel.
//!
//! `P --watch` says hello and then answers requests until its standard input ends. What it does is
//! what the short-lived [commands](crate::command) do, with the same meaning; it costs no login
//! shell and no process of its own, and a report comes the moment at which something changes.
//!
//! Both sides speak lines of JSON. A request has a number of the dispatcher's choice, which its
//! answer repeats; answers come in any order.
//!
//! | the dispatcher says | the runner |
//! |---|---|
//! | `{"type":"start","id":1,"uuid":U,"attempt":N,"bytes":B}` and `B` bytes | starts what these bytes, a [`StartDocument`](crate::StartDocument), say; answers `done` |
//! | `{"type":"kill","id":2,"uuid":U,"attempt":N,"signal":S}` | as `--kill`; answers `done` |
//! | `{"type":"report","id":3,"known":D,"wait_ms":W,"acks":"U:N,…"}` | as `--report`: answers with a report as soon as its digest is not `D`, at the latest after `W` milliseconds |
//! | `{"type":"ping","id":4}` | answers `done` |
//!
//! | the runner says | means |
//! |---|---|
//! | `{"type":"hello","protocol":1,"runner_version":V,"boot_id":B}` | the first line |
//! | `{"type":"done","id":1,"code":C,"said":T}` | the request has ended with the exit code of its command, and said `T` |
//! | `{"type":"report","version":1,"id":3}` … `{"type":"end",…}` | the lines of a [report], with nothing between them |
//! | `{"type":"heartbeat"}` | it is there; said every [`HEARTBEAT`] |
//!
//! # Versions
//!
//! A line of a type that the reader does not know is ignored by a dispatcher, and answered by a
//! runner with `done` and [`EXIT_USAGE`](crate::command::EXIT_USAGE); fields that it does not know
//! are ignored by both. `bytes` in any request says how many bytes follow its line, so that a
//! runner can skip what it does not understand. A runner without the stream exits with
//! [`EXIT_USAGE`](crate::command::EXIT_USAGE) and says no hello: it is spoken to by commands.
//!
//! # What is lost
//!
//! A report is always whole: there is no sequence to lose step with, and nothing to bring in step
//! again. When the stream breaks, a start or kill that was not answered may have been carried out.
//!
//! ```
//! use longshore_runner_api::watch::{Answers, Ask, FromRunner, Request, Requests};
//!
//! let request = Request { id: 7, ask: Ask::Ping };
//! let mut requests = Requests::default();
//! requests.push(request.line().as_bytes());
//! assert_eq!(requests.next()?, Some((request, Vec::new())));
//!
//! let answer = FromRunner::Done { id: 7, code: 0, said: String::new() };
//! let mut answers = Answers::default();
//! answers.push(answer.line().as_bytes());
//! assert_eq!(answers.next()?, Some(answer));
//! # Ok::<(), longshore_runner_api::watch::StreamError>(())
//! ```

use std::time::Duration;

use longshore_types::{Attempt, ContainerUuid, RunnerReport};
use serde::{Deserialize, Serialize};

use crate::MAX_DOCUMENT_BYTES;
use crate::report::{self, MAX_LINE, MAX_REPORT_BYTES, ReportError};

/// The version of the stream that this crate speaks.
pub const WATCH_PROTOCOL: u32 = 1;
/// How often a runner says that it is there.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream on which the runner was silent for so long is given up.
pub const RUNNER_SILENCE: Duration = Duration::from_secs(45);
/// How often a dispatcher says something at least.
pub const PING_INTERVAL: Duration = Duration::from_secs(60);
/// A runner ends a stream on which the dispatcher was silent for so long.
pub const DISPATCHER_SILENCE: Duration = Duration::from_secs(180);
/// The most requests on one stream that have no answer yet.
pub const MAX_UNANSWERED: usize = 256;
/// The longest line of a request, in bytes: [`MAX_ACKS`](crate::command::MAX_ACKS) fit.
pub const MAX_REQUEST_LINE: usize = 16 << 10;

/// What a dispatcher asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ask {
    /// Start an attempt; its document follows the line.
    Start {
        /// Of which container.
        uuid: ContainerUuid,
        /// Which.
        attempt: Attempt,
        /// The size of the document, at most [`MAX_DOCUMENT_BYTES`].
        bytes: usize,
    },
    /// Signal an attempt.
    Kill {
        /// Of which container.
        uuid: ContainerUuid,
        /// Which.
        attempt: Attempt,
        /// 15 asks it to end, 9 ends it, 0 only keeps it from being started.
        signal: u8,
    },
    /// Report, now or as soon as there is news.
    Report {
        /// The digest of the report that the dispatcher has; empty if it has none.
        #[serde(default)]
        known: String,
        /// How long to wait while the digest is that, in milliseconds, at most
        /// [`MAX_WAIT`](crate::command::MAX_WAIT).
        #[serde(default)]
        wait_ms: u64,
        /// Results that were received, as [`format_acks`](crate::report::format_acks) writes them.
        #[serde(default)]
        acks: String,
    },
    /// Nothing but an answer.
    Ping,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A request and its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "made by both sides")]
pub struct Request {
    /// Repeated by the answer; no other request of the stream that is not answered has it.
    pub id: u64,
    /// What is asked for.
    #[serde(flatten)]
    pub ask: Ask,
}

impl Request {
    /// Its line, without the bytes that follow it.
    pub fn line(&self) -> String {
        line(self)
    }
}

/// What a runner says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FromRunner {
    /// The first line.
    Hello {
        /// [`WATCH_PROTOCOL`] of the runner.
        protocol: u32,
        /// Its version, for people.
        runner_version: String,
        /// Which boot of the machine this is; empty where the machine does not say.
        boot_id: String,
    },
    /// The end of a request.
    Done {
        /// Of which.
        id: u64,
        /// As the exit code of its command.
        code: u32,
        /// What the command would have written to standard error; at most
        /// [`MAX_TEXT`](crate::report::MAX_TEXT) bytes.
        said: String,
    },
    /// The answer to a request for a report.
    Report {
        /// Of which.
        id: u64,
        /// What there is.
        report: RunnerReport,
    },
    /// It is there.
    Heartbeat,
}

/// The lines of which messages of a runner are made.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Hello {
        protocol: u32,
        runner_version: String,
        #[serde(default)]
        boot_id: String,
    },
    Done {
        id: u64,
        code: u32,
        #[serde(default)]
        said: String,
    },
    /// The first line of a report, of which more than the number is read by [`report::parse`].
    Report {
        id: u64,
    },
    Heartbeat,
    #[serde(other)]
    Unknown,
}

impl FromRunner {
    /// Its line or lines. Free texts are cut to [`MAX_TEXT`](crate::report::MAX_TEXT) bytes.
    pub fn line(&self) -> String {
        match self.clone() {
            Self::Hello {
                protocol,
                runner_version,
                boot_id,
            } => line(&Line::Hello {
                protocol,
                runner_version,
                boot_id,
            }),
            Self::Done { id, code, said } => line(&Line::Done {
                id,
                code,
                said: report::cut(&said),
            }),
            Self::Report { id, report } => report::format_numbered(&report, id),
            Self::Heartbeat => line(&Line::Heartbeat),
        }
    }
}

/// Plain data with text keys; encoding it cannot fail.
fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// A stream that breaks the grammar: it cannot be read any further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A line, or what belongs to it, is longer than it may be.
    #[error("a line of the watch stream is longer than {0} bytes")]
    TooLong(usize),
    /// A line is not JSON, or lacks a field.
    #[error("a line of the watch stream is not valid")]
    Line(#[source] serde_json::Error),
    /// A report in it is wrong.
    #[error("a report in the watch stream is wrong")]
    Report(#[from] ReportError),
}

/// Reads requests, on the runner's side, from pieces of any size.
#[derive(Debug, Default)]
pub struct Requests {
    lines: Lines,
    /// A request whose bytes are not all there.
    incomplete: Option<(Request, usize)>,
}

impl Requests {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// The next whole request and the bytes that follow its line, if it is all there.
    ///
    /// # Errors
    ///
    /// What is wrong with the stream, of which nothing more can be read then.
    #[expect(clippy::should_implement_trait, reason = "it may have more later")]
    pub fn next(&mut self) -> Result<Option<(Request, Vec<u8>)>, StreamError> {
        #[derive(Deserialize)]
        struct Size {
            #[serde(default)]
            bytes: usize,
        }
        if self.incomplete.is_none() {
            let Some(line) = self.lines.next(MAX_REQUEST_LINE)? else {
                return Ok(None);
            };
            let request: Request = serde_json::from_slice(&line).map_err(StreamError::Line)?;
            let size: Size = serde_json::from_slice(&line).map_err(StreamError::Line)?;
            if size.bytes > MAX_DOCUMENT_BYTES {
                return Err(StreamError::TooLong(MAX_DOCUMENT_BYTES));
            }
            self.incomplete = Some((request, size.bytes));
        }
        let Some((_, size)) = self.incomplete else {
            return Ok(None);
        };
        let Some(bytes) = self.lines.take(size) else {
            return Ok(None);
        };
        Ok(self.incomplete.take().map(|(request, _)| (request, bytes)))
    }
}

/// Reads what a runner says, on the dispatcher's side, from pieces of any size.
#[derive(Debug, Default)]
pub struct Answers {
    lines: Lines,
    /// The lines so far of a report that has not ended, and the request that it answers.
    report: Option<(u64, Vec<u8>)>,
}

impl Answers {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// The next whole message, if there is one. Lines of types that are not known are skipped.
    ///
    /// # Errors
    ///
    /// What is wrong with the stream, of which nothing more can be read then.
    #[expect(clippy::should_implement_trait, reason = "it may have more later")]
    pub fn next(&mut self) -> Result<Option<FromRunner>, StreamError> {
        while let Some(text) = self.lines.next(MAX_LINE)? {
            if let Some((_, report)) = &mut self.report {
                report.extend_from_slice(&text);
                report.push(b'\n');
                if report.len() > MAX_REPORT_BYTES {
                    return Err(StreamError::TooLong(MAX_REPORT_BYTES));
                }
                if !report::is_last_line(&text) {
                    continue;
                }
                let Some((id, text)) = self.report.take() else {
                    continue;
                };
                let report = report::parse(&text)?;
                return Ok(Some(FromRunner::Report { id, report }));
            }
            let message = match serde_json::from_slice(&text).map_err(StreamError::Line)? {
                Line::Hello {
                    protocol,
                    runner_version,
                    boot_id,
                } => FromRunner::Hello {
                    protocol,
                    runner_version: report::cut(&runner_version),
                    boot_id: report::cut(&boot_id),
                },
                Line::Done { id, code, said } => FromRunner::Done {
                    id,
                    code,
                    said: report::cut(&said),
                },
                Line::Heartbeat => FromRunner::Heartbeat,
                Line::Report { id } => {
                    let mut lines = text;
                    lines.push(b'\n');
                    self.report = Some((id, lines));
                    continue;
                }
                Line::Unknown => continue,
            };
            return Ok(Some(message));
        }
        Ok(None)
    }
}

/// Bytes that arrived, cut into lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
    /// How far it is known that there is no end of a line.
    searched: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.searched = self.searched.saturating_sub(self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line without its end; an error if it is longer than `limit`.
    fn next(&mut self, limit: usize) -> Result<Option<Vec<u8>>, StreamError> {
        let from = self.searched.max(self.taken);
        let end = self.bytes[from..].iter().position(|byte| *byte == b'\n');
        let length = end.map_or(self.bytes.len(), |end| from + end) - self.taken;
        if length > limit {
            return Err(StreamError::TooLong(limit));
        }
        if end.is_none() {
            self.searched = self.bytes.len();
            return Ok(None);
        }
        let line = self.bytes[self.taken..self.taken + length].to_vec();
        self.taken += length + 1;
        Ok(Some(line))
    }

    /// The next `count` bytes, if they are there.
    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let bytes = self.bytes.get(self.taken..self.taken + count)?.to_vec();
        self.taken += count;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uuid() -> ContainerUuid {
        "zzzzz-dz642-0123456789abcde".parse().unwrap()
    }

    fn any_request() -> impl Strategy<Value = (Request, Vec<u8>)> {
        let attempt = any::<u32>().prop_map(Attempt);
        let bytes = proptest::collection::vec(any::<u8>(), 0..200);
        let start = (attempt.clone(), bytes).prop_map(|(attempt, document)| {
            let (uuid, bytes) = (uuid(), document.len());
            let ask = Ask::Start {
                uuid,
                attempt,
                bytes,
            };
            (ask, document)
        });
        let kill = (attempt, 0..65u8).prop_map(|(attempt, signal)| {
            let uuid = uuid();
            let ask = Ask::Kill {
                uuid,
                attempt,
                signal,
            };
            (ask, Vec::new())
        });
        let report = ("[0-9a-f]{0,8}", any::<u64>()).prop_map(|(known, wait_ms)| {
            let acks = report::format_acks(&[(uuid(), Attempt(1)), (uuid(), Attempt(2))]);
            let ask = Ask::Report {
                known,
                wait_ms,
                acks,
            };
            (ask, Vec::new())
        });
        let ask = prop_oneof![start, kill, report, Just((Ask::Ping, Vec::new()))];
        (any::<u64>(), ask).prop_map(|(id, (ask, bytes))| (Request { id, ask }, bytes))
    }

    fn any_answer() -> impl Strategy<Value = FromRunner> {
        let text = "[^\\p{C}]{0,40}";
        let report = (any::<u64>(), "[0-9a-f]{0,8}").prop_map(|(id, digest)| {
            let report = RunnerReport {
                digest,
                ..RunnerReport::default()
            };
            FromRunner::Report { id, report }
        });
        prop_oneof![
            (any::<u32>(), text, text).prop_map(|(protocol, runner_version, boot_id)| {
                FromRunner::Hello {
                    protocol,
                    runner_version,
                    boot_id,
                }
            }),
            (any::<u64>(), any::<u32>(), text).prop_map(|(id, code, said)| FromRunner::Done {
                id,
                code,
                said
            }),
            report,
            Just(FromRunner::Heartbeat),
        ]
    }

    proptest! {
        #[test]
        fn requests_arrive_however_they_are_cut(
            requests in proptest::collection::vec(any_request(), 0..6),
            piece in 1..40usize,
        ) {
            let mut text = Vec::new();
            for (request, bytes) in &requests {
                text.extend(request.line().into_bytes());
                text.extend(bytes);
            }
            let (mut reader, mut read) = (Requests::default(), Vec::new());
            for piece in text.chunks(piece) {
                reader.push(piece);
                while let Some(request) = reader.next().unwrap() {
                    read.push(request);
                }
            }
            prop_assert_eq!(read, requests);
        }

        #[test]
        fn answers_arrive_however_they_are_cut(
            answers in proptest::collection::vec(any_answer(), 0..6),
            piece in 1..40usize,
        ) {
            let text: String = answers.iter().map(FromRunner::line).collect();
            let (mut reader, mut read) = (Answers::default(), Vec::new());
            for piece in text.as_bytes().chunks(piece) {
                reader.push(piece);
                while let Some(answer) = reader.next().unwrap() {
                    read.push(answer);
                }
            }
            prop_assert_eq!(read, answers);
        }

        #[test]
        fn anything_else_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (mut requests, mut answers) = (Requests::default(), Answers::default());
            requests.push(&bytes);
            answers.push(&bytes);
            while let Ok(Some(_)) = requests.next() {}
            while let Ok(Some(_)) = answers.next() {}
        }
    }

    #[test]
    fn a_dispatcher_understands_a_newer_runner() {
        let mut reader = Answers::default();
        reader.push(
            br#"{"type":"hello","protocol":2,"runner_version":"9.0","boot_id":"b","colour":"red"}
{"type":"weather","sun":true,"id":4}
{"type":"report","version":1,"id":3,"sequence":12}
{"type":"forecast"}
{"type":"end","containers":0,"digest":"d","more":[1]}
{"type":"done","id":4,"code":0}
"#,
        );
        let hello = reader.next().unwrap();
        assert!(matches!(hello, Some(FromRunner::Hello { protocol: 2, .. })));
        let report = reader.next().unwrap();
        assert!(
            matches!(report, Some(FromRunner::Report { id: 3, report }) if report.digest == "d")
        );
        let done = reader.next().unwrap();
        assert!(matches!(done, Some(FromRunner::Done { id: 4, code: 0, said }) if said.is_empty()));
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn a_runner_skips_what_a_newer_dispatcher_sends() {
        let mut reader = Requests::default();
        reader.push(
            b"{\"type\":\"sing\",\"id\":1,\"bytes\":5}\nla\nla{\"type\":\"ping\",\"id\":2}\n",
        );
        let ask = Ask::Unknown;
        let bytes = b"la\nla".to_vec();
        assert_eq!(
            reader.next().unwrap(),
            Some((Request { id: 1, ask }, bytes))
        );
        let ask = Ask::Ping;
        assert_eq!(
            reader.next().unwrap(),
            Some((Request { id: 2, ask }, Vec::new()))
        );
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_kept() {
        let mut requests = Requests::default();
        requests.push(&vec![b' '; MAX_REQUEST_LINE + 1]);
        assert!(matches!(requests.next(), Err(StreamError::TooLong(_))));
        let mut requests = Requests::default();
        requests.push(b"{\"type\":\"start\",\"id\":1,\"bytes\":99999999}\n");
        assert!(requests.next().is_err());
        let mut answers = Answers::default();
        answers.push(&[b' '; MAX_LINE + 1]);
        assert!(matches!(answers.next(), Err(StreamError::TooLong(_))));
        let mut answers = Answers::default();
        answers.push(b"{\"type\":\"report\",\"version\":1,\"id\":1}\n");
        let unknown = b"{\"type\":\"weather\"}\n".repeat(1000);
        let mut result = answers.next();
        for _ in 0..1000 {
            answers.push(&unknown);
            result = answers.next();
            if result.is_err() {
                break;
            }
        }
        assert!(matches!(result, Err(StreamError::TooLong(_))));
    }
}
