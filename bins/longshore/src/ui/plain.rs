//! Progress as lines, for files, pipes and simple terminals.

use std::io::Write;

use longshore_types::{Timestamp, format_duration};

use super::row::{Counts, JobRow, Verdict};
use super::{Progress, summary};
use crate::text::{clean, excerpt};

/// After so many milliseconds without a line a status line is written.
const STATUS_AFTER_MS: i64 = 10_000;

/// Writes a line for each job that ends, and a status line after ten seconds without one.
///
/// A reader that has gone away is not an error: the jobs go on.
#[derive(Debug)]
pub struct Plain<W> {
    out: W,
    begun_at: Timestamp,
    last_line_at: Timestamp,
    /// For each row, whether its end was written.
    told: Vec<bool>,
    ended: usize,
}

impl<W: Write> Plain<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            begun_at: Timestamp(0),
            last_line_at: Timestamp(0),
            told: Vec::new(),
            ended: 0,
        }
    }

    fn line(&mut self, text: &str) {
        // Nobody listens: then nobody misses it.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }
}

impl<W: Write + Send> Progress for Plain<W> {
    fn begin(&mut self, batch: &str, jobs: usize, now: Timestamp) {
        self.begun_at = now;
        self.last_line_at = now;
        self.told.clear();
        self.ended = 0;
        self.line(&format!("{}: {}", clean(batch), summary::jobs(jobs)));
    }

    fn update(&mut self, rows: &[JobRow], now: Timestamp) {
        self.told.resize(rows.len(), false);
        for (i, row) in rows.iter().enumerate() {
            if !self.told[i] && row.state.is_final() {
                self.told[i] = true;
                self.ended += 1;
                self.line(&end_line(row, self.ended, rows.len(), now));
                self.last_line_at = now;
            }
        }
        if now.0.saturating_sub(self.last_line_at.0) >= STATUS_AFTER_MS {
            self.line(&status_line(rows, self.begun_at, now));
            self.last_line_at = now;
        }
    }

    fn note(&mut self, text: &str) {
        self.line(&clean(text));
    }

    fn end(&mut self) {}
}

fn end_line(row: &JobRow, ended: usize, total: usize, now: Timestamp) -> String {
    let width = total.to_string().len();
    let word = row.verdict().word();
    let name = clean(&row.name);
    let mut line = format!("[{ended:>width$}/{total}] {word:<9} {name}");
    let duration = row.duration(now).map(format_duration);
    let outcome = (row.verdict() != Verdict::Succeeded).then(|| row.outcome());
    let details = outcome.into_iter().chain(duration);
    let details: Vec<String> = details.chain(row.lost_output()).collect();
    if !details.is_empty() {
        line.push_str(&format!(" ({})", details.join(", ")));
    }
    line
}

fn status_line(rows: &[JobRow], begun_at: Timestamp, now: Timestamp) -> String {
    let elapsed = format_duration(now.since(begun_at));
    let mut line = format!("after {elapsed}: {}", Counts::of(rows).describe());
    let waiting = rows.iter().find(|row| row.verdict() == Verdict::Waiting);
    if let Some(row) = waiting
        && let Some(reason) = &row.reason
    {
        let name = clean(&excerpt(&row.name));
        line.push_str(&format!("; {name} waits: {}", clean(reason)));
    }
    line
}

#[cfg(test)]
mod tests {
    use longshore_types::ExitCause;

    use super::super::fixtures::{cancelled, ended, running, waiting};
    use super::*;

    #[test]
    fn each_end_is_a_line_and_silence_has_an_end() {
        let mut plain = Plain::new(Vec::new());
        plain.begin("sur\x1bvey", 3, Timestamp(1_000));
        let mut rows = vec![
            running("a", 1_500),
            running("b\n", 1_500),
            waiting("c", "no room\r"),
        ];
        plain.update(&rows, Timestamp(2_000));
        rows[1] = ended("b\n", ExitCause::Exited { code: 7 }, 1_250);
        plain.update(&rows, Timestamp(3_000));
        plain.update(&rows, Timestamp(12_999));
        plain.update(&rows, Timestamp(13_000));
        plain.update(&rows, Timestamp(14_000));
        plain.note("stop\x07ping");
        rows[0] = ended("a", ExitCause::Exited { code: 0 }, 61_000);
        let exit = rows[0].exit.as_mut().unwrap();
        (exit.stdout_lost, exit.stderr_lost) = (true, true);
        rows[2] = cancelled("c", None);
        plain.update(&rows, Timestamp(15_000));
        plain.end();
        assert_eq!(
            String::from_utf8(plain.out).unwrap(),
            "sur\\u{1b}vey: 3 jobs\n\
             [1/3] FAILED    b\\n (exit code 7, 1.2s)\n\
             after 12.0s: 1 failed, 1 running, 1 waiting; c waits: no room\\r\n\
             stop\\u{7}ping\n\
             [2/3] ok        a (1m1s, output lost: stdout and stderr)\n\
             [3/3] cancelled c (not run)\n"
        );
    }
}
