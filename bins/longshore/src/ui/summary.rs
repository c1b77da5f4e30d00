//! What is left to read when a batch has ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use longshore_types::{Timestamp, format_duration};

use super::row::{Counts, JobRow, Verdict};
use crate::text::{clean, fit, width};

/// How many failed jobs are shown with the end of what they said.
const MAX_QUOTED: usize = 20;
/// How many lines are quoted of each.
const QUOTED_LINES: usize = 10;
/// How much of a file is read for that, in bytes.
const QUOTED_BYTES: u64 = 4096;
/// The widest name, and the widest quoted line, in columns.
const MAX_NAME: usize = 48;
const MAX_QUOTED_LINE: usize = 200;

/// What the summary needs beside the jobs.
pub struct SummaryOptions<'a> {
    /// What the job file calls itself.
    pub batch: &'a str,
    /// How long all of it took.
    pub elapsed: Duration,
    /// The end of a file as lines; see [`last_lines`].
    pub last_lines: &'a dyn Fn(&Path) -> Vec<String>,
}

impl std::fmt::Debug for SummaryOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SummaryOptions")
            .field("batch", &self.batch)
            .field("elapsed", &self.elapsed)
            .finish_non_exhaustive()
    }
}

/// The whole summary: every job with how it ended, how long it ran and where its output is;
/// failed ones first, with the last lines of their standard error; totals at the end.
pub fn summary(rows: &[JobRow], options: &SummaryOptions<'_>) -> String {
    let mut order: Vec<&JobRow> = rows.iter().collect();
    order.sort_by_key(|row| row.verdict());
    let names = rows
        .iter()
        .map(|row| width(&fit(&clean(&row.name), MAX_NAME)));
    let name_width = names.max().unwrap_or(0);
    let mut text = String::new();
    for (i, row) in order.into_iter().enumerate() {
        push_row(&mut text, row, name_width);
        if row.verdict() == Verdict::Failed && i < MAX_QUOTED {
            push_quotation(&mut text, row, options);
        }
    }
    push_limits(&mut text, rows);
    let (batch, elapsed) = (clean(options.batch), format_duration(options.elapsed));
    let counts = Counts::of(rows);
    let all = jobs(counts.total());
    let _ = writeln!(text, "{batch}: {all}, {} in {elapsed}", counts.describe());
    text
}

/// Says which jobs were limited less than they asked to be, once for each way.
fn push_limits(text: &mut String, rows: &[JobRow]) {
    let mut ways: BTreeMap<String, usize> = BTreeMap::new();
    let limits = rows.iter().filter_map(|row| row.exit.as_ref()?.limits);
    for limits in limits.filter(|limits| !limits.are_whole()) {
        *ways.entry(limits.to_string()).or_default() += 1;
    }
    for (way, count) in ways {
        let jobs = jobs(count);
        let _ = writeln!(
            text,
            "note: limits of {jobs} were enforced only in part: {way}"
        );
    }
}

/// "1 job", "2 jobs".
pub(super) fn jobs(count: usize) -> String {
    match count {
        1 => "1 job".into(),
        n => format!("{n} jobs"),
    }
}

fn push_row(text: &mut String, row: &JobRow, name_width: usize) {
    let verdict = row.verdict();
    let name = fit(&clean(&row.name), MAX_NAME);
    let pad = " ".repeat(name_width.saturating_sub(width(&name)));
    // Only of what has ended; for a job that has not, the summary does not know the time.
    let duration = row
        .state
        .is_final()
        .then(|| row.duration(Timestamp(0)))
        .flatten();
    let duration = duration.map(format_duration).unwrap_or_else(|| "-".into());
    let mut outcome = match verdict {
        Verdict::Running | Verdict::Waiting => "not finished".to_owned(),
        _ => row.outcome(),
    };
    if row.attempts > 1 {
        let _ = write!(outcome, " (attempt {})", row.attempts);
    }
    let word = verdict.word();
    let mut output = files(row);
    if let Some(lost) = row.lost_output() {
        let gap = if output.is_empty() { "" } else { "  " };
        let _ = write!(output, "{gap}({lost})");
    }
    let line = format!("{word:<9}  {name}{pad}  {outcome:<11}  {duration:>7}  {output}");
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Where the output is, as short as the shell allows.
fn files(row: &JobRow) -> String {
    let both = row.stdout.as_deref().zip(row.stderr.as_deref());
    if let Some((stdout, stderr)) = both
        && let Some(directory) = stdout.parent()
        && stderr.parent() == Some(directory)
        && let (Some(a), Some(b)) = (stdout.file_name(), stderr.file_name())
    {
        let (a, b) = (a.to_string_lossy(), b.to_string_lossy());
        return clean(&format!("{}/{{{a},{b}}}", directory.display()));
    }
    let paths = [row.stdout.as_deref(), row.stderr.as_deref()];
    let paths: Vec<String> = paths
        .into_iter()
        .flatten()
        .map(|path| clean(&path.to_string_lossy()))
        .collect();
    paths.join("  ")
}

fn push_quotation(text: &mut String, row: &JobRow, options: &SummaryOptions<'_>) {
    let lines = row
        .stderr
        .as_deref()
        .map(options.last_lines)
        .unwrap_or_default();
    let skip = lines.len().saturating_sub(QUOTED_LINES);
    for line in &lines[skip..] {
        let line = fit(&clean(line), MAX_QUOTED_LINE);
        let _ = writeln!(text, "{}", format!("           | {line}").trim_end());
    }
}

/// The last lines of a file, at most ten and 4 KiB; none if it cannot be read.
pub fn last_lines(path: &Path) -> Vec<String> {
    let read = || -> std::io::Result<(bool, Vec<u8>)> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let skip = length.saturating_sub(QUOTED_BYTES);
        file.seek(SeekFrom::Start(skip))?;
        let mut bytes = Vec::new();
        file.take(QUOTED_BYTES).read_to_end(&mut bytes)?;
        Ok((skip > 0, bytes))
    };
    let Ok((cut, bytes)) = read() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    // The first line of a part is seldom whole; keep it only if it is all there is.
    let first = usize::from(cut && lines.len() > 1);
    let first = first.max(lines.len().saturating_sub(QUOTED_LINES));
    lines[first..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use longshore_types::{AppliedLimits, ExitCause, Means};

    use super::super::fixtures::{cancelled, ended, running, waiting};
    use super::*;

    #[test]
    fn every_job_is_accounted_for() {
        let mut retried = ended("again", ExitCause::Exited { code: 0 }, 65_000);
        retried.attempts = 2;
        let mut apart = ended("漢字", ExitCause::Exited { code: 0 }, 9);
        apart.stderr = Some("/elsewhere/err\x07".into());
        let mut half = ended("half", ExitCause::Exited { code: 0 }, 9);
        half.stderr = None;
        half.exit.as_mut().unwrap().stderr_lost = true;
        let rows = [
            ended("good", ExitCause::Exited { code: 0 }, 1_500),
            retried,
            apart,
            half,
            running("still", 0),
            waiting("never", "x"),
            cancelled("stopped", None),
            ended("evil\x1b]0;t\x07", ExitCause::Exited { code: 2 }, 20),
            cancelled("lost", Some("its instance was lost\n3 times")),
        ];
        let quote = |path: &Path| match path.to_str() {
            Some("/logs/evil\x1b]0;t\x07/stderr") => vec!["one".into(), "t\two\x1b[0m".into()],
            other => panic!("{other:?}"),
        };
        let options = SummaryOptions {
            batch: "survey",
            elapsed: Duration::from_secs(70),
            last_lines: &quote,
        };
        assert_eq!(
            summary(&rows, &options),
            r"FAILED     evil\u{1b}]0;t\u{7}  exit code 2     20ms  /logs/evil\u{1b}]0;t\u{7}/{stdout,stderr}
           | one
           | t\two\u{1b}[0m
FAILED     lost                 its instance was lost\n3 times        -
cancelled  stopped              not run            -
running    still                not finished        -
waiting    never                not finished        -
ok         good                 exit code 0     1.5s  /logs/good/{stdout,stderr}
ok         again                exit code 0 (attempt 2)     1m5s  /logs/again/{stdout,stderr}
ok         漢字                 exit code 0      9ms  /logs/漢字/stdout  /elsewhere/err\u{7}
ok         half                 exit code 0      9ms  /logs/half/stdout  (output lost: stderr)
survey: 9 jobs, 2 failed, 1 cancelled, 1 running, 1 waiting, 4 succeeded in 1m10s
"
        );
    }

    #[test]
    fn limits_that_hold_only_in_part_are_told_once() {
        let with = |limits| {
            let mut row = ended("a", ExitCause::Exited { code: 0 }, 1);
            row.exit.as_mut().unwrap().limits = limits;
            row
        };
        let part = AppliedLimits::all(Means::Rlimit);
        let whole = AppliedLimits::all(Means::CgroupV2);
        let rows = [Some(part), Some(whole), None, Some(part)].map(with);
        let options = SummaryOptions {
            batch: "b",
            elapsed: Duration::from_secs(1),
            last_lines: &|_| Vec::new(),
        };
        let text = summary(&rows, &options);
        let notes: Vec<_> = text.lines().filter(|l| l.starts_with("note")).collect();
        assert_eq!(
            notes,
            ["note: limits of 2 jobs were enforced only in part: rlimit"]
        );
    }

    #[test]
    fn the_end_of_a_file_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stderr");
        assert!(last_lines(&path).is_empty());
        std::fs::write(&path, b"a\n\xff\nc").unwrap();
        assert_eq!(last_lines(&path), ["a", "\u{fffd}", "c"]);
        std::fs::write(&path, "line\n".repeat(100_000)).unwrap();
        assert_eq!(last_lines(&path), ["line"; 10]);
        std::fs::write(&path, "x".repeat(100_000)).unwrap();
        assert_eq!(last_lines(&path).concat().len(), 4096);
    }
}
