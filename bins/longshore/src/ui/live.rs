//! Progress as a table that is redrawn in place.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use longshore_types::{Timestamp, format_duration};

use super::row::{Counts, JobRow, Verdict};
use super::{Progress, summary};
use crate::text::{clean, fit, width};

const MAX_RUNNING: usize = 10;
const MAX_WAITING: usize = 3;
const MAX_FAILED: usize = 3;
/// The widest table that is still easy to read, in columns.
const MAX_COLUMNS: usize = 120;
/// What is assumed of a terminal that does not say how large it is.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// Draws a table on standard output, which must be a terminal.
#[derive(Debug)]
pub struct Live {
    bar: ProgressBar,
    batch: String,
    begun_at: Timestamp,
}

impl Live {
    /// Draws nothing yet.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        // The whole table is one message; the template is ours, so it cannot be wrong.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            batch: String::new(),
            begun_at: Timestamp(0),
        }
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Live {
    fn begin(&mut self, batch: &str, jobs: usize, now: Timestamp) {
        self.batch = clean(batch);
        self.begun_at = now;
        self.bar.reset();
        self.bar
            .println(format!("{}: {}", self.batch, summary::jobs(jobs)));
    }

    fn update(&mut self, rows: &[JobRow], now: Timestamp) {
        let size = terminal_size::terminal_size();
        let size = size.map(|(columns, lines)| (columns.0.into(), lines.0.into()));
        let lines = table(
            &self.batch,
            rows,
            self.begun_at,
            now,
            size.unwrap_or(USUAL_SIZE),
        );
        self.bar.set_message(lines.join("\n"));
        self.bar.tick();
    }

    fn note(&mut self, text: &str) {
        self.bar.println(clean(text));
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Live {
    /// Whatever ended it: the terminal is as it was.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The lines of the table, none wider than `columns`, no more than `height` less two.
fn table(
    batch: &str,
    rows: &[JobRow],
    begun_at: Timestamp,
    now: Timestamp,
    (columns, height): (usize, usize),
) -> Vec<String> {
    let columns = columns.saturating_sub(1).min(MAX_COLUMNS);
    let counts = Counts::of(rows);
    let elapsed = format_duration(now.since(begun_at));
    let mut lines = vec![
        format!("{batch}: {} — {elapsed}", counts.describe()),
        bar(&counts, columns),
    ];
    let of = |verdict| rows.iter().filter(move |row| row.verdict() == verdict);
    for row in of(Verdict::Running).take(MAX_RUNNING) {
        let duration = row.duration(now).map(format_duration).unwrap_or_default();
        lines.push(entry("running", &row.name, &duration, columns));
    }
    lines.extend(more(counts.running, MAX_RUNNING, "running"));
    for row in of(Verdict::Waiting).take(MAX_WAITING) {
        let reason = clean(row.reason.as_deref().unwrap_or_default());
        lines.push(entry("waiting", &row.name, &reason, columns));
    }
    lines.extend(more(counts.waiting, MAX_WAITING, "waiting"));
    for row in of(Verdict::Failed).take(MAX_FAILED) {
        lines.push(entry("FAILED", &row.name, &row.outcome(), columns));
    }
    lines.extend(more(counts.failed, MAX_FAILED, "failed"));
    lines.truncate(height.saturating_sub(2).max(2));
    lines.iter().map(|line| fit(line, columns)).collect()
}

fn more(count: usize, shown: usize, what: &str) -> Option<String> {
    (count > shown).then(|| format!("  and {} more {what}", count - shown))
}

/// `  word  name  text`: the name gets half of the line, the text what is left.
fn entry(word: &str, name: &str, text: &str, columns: usize) -> String {
    let room = columns.saturating_sub(12);
    let name = fit(&clean(name), (room / 2).max(10));
    let pad = (room / 2).min(40).saturating_sub(width(&name));
    format!("  {word:<8}  {name}{}  {text}", " ".repeat(pad))
}

fn bar(counts: &Counts, columns: usize) -> String {
    let (ended, total) = (counts.ended(), counts.total().max(1));
    let cells = columns.saturating_sub(10).clamp(1, 50);
    let full = ended * cells / total;
    let percent = ended * 100 / total;
    format!(
        "[{}{}] {percent}%",
        "#".repeat(full),
        "-".repeat(cells - full)
    )
}

#[cfg(test)]
mod tests {
    use longshore_types::ExitCause;
    use proptest::prelude::*;

    use super::super::fixtures::{ended, running, waiting};
    use super::*;

    #[test]
    fn the_table_shows_what_matters() {
        let mut rows = vec![
            ended("done", ExitCause::Exited { code: 0 }, 100),
            ended("bad", ExitCause::Exited { code: 3 }, 100),
        ];
        rows.extend((0..11).map(|i| running(&format!("r{i}\x1b[2J"), 1_000 * i)));
        rows.extend((0..5).map(|i| waiting(&format!("w{i}"), "waiting for room")));
        let lines = table("survey", &rows, Timestamp(0), Timestamp(90_500), (61, 40));
        assert_eq!(
            lines,
            [
                "survey: 1 failed, 11 running, 5 waiting, 1 succeeded — 1m30s",
                "[#####---------------------------------------------] 11%",
                "  running   r0\\u{1b}[2J               1m30s",
                "  running   r1\\u{1b}[2J               1m29s",
                "  running   r2\\u{1b}[2J               1m28s",
                "  running   r3\\u{1b}[2J               1m27s",
                "  running   r4\\u{1b}[2J               1m26s",
                "  running   r5\\u{1b}[2J               1m25s",
                "  running   r6\\u{1b}[2J               1m24s",
                "  running   r7\\u{1b}[2J               1m23s",
                "  running   r8\\u{1b}[2J               1m22s",
                "  running   r9\\u{1b}[2J               1m21s",
                "  and 1 more running",
                "  waiting   w0                        waiting for room",
                "  waiting   w1                        waiting for room",
                "  waiting   w2                        waiting for room",
                "  and 2 more waiting",
                "  FAILED    bad                       exit code 3",
            ]
        );
        assert_eq!(
            table("survey", &rows, Timestamp(0), Timestamp(0), (61, 7)).len(),
            5
        );
    }

    proptest! {
        #[test]
        fn no_line_is_too_wide(
            name in any::<String>(),
            reason in any::<String>(),
            columns in 0usize..200,
            height in 0usize..60,
        ) {
            let rows = [running(&name, 0), waiting(&name, &reason)];
            let lines = table(&clean(&name), &rows, Timestamp(0), Timestamp(9), (columns, height));
            prop_assert!(lines.len() <= height.saturating_sub(2).max(2));
            for line in lines {
                prop_assert!(width(&line) < columns.max(1), "{line:?}");
                prop_assert_eq!(clean(&line), line);
            }
        }
    }
}
