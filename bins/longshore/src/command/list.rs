//! `longshore list`, and how jobs are shown.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use longshore_types::{Timestamp, format_duration};
use serde::Deserialize as _;
use serde_json::Value;

use super::print;
use crate::cli::ListArgs;
use crate::ending::Ending;
use crate::run::{Interrupts, runtime};
use crate::service::Client;
use crate::service::client::encode;
use crate::service::follower::Follower;
use crate::service::view::{JobView, ListView};
use crate::tell;
use crate::text::{brief, clean, fit, width};

/// How often a list that is watched is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The widest name in columns.
const MAX_NAME: usize = 32;
/// How many jobs are asked for, and held, at once.
const PAGE: u32 = 1000;

/// Lists jobs.
pub fn list(args: &ListArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        if !args.watch {
            let mut printer = Printer::new(args);
            let mut parts = Parts::new(&client, args);
            while let Some(part) = parts.next().await? {
                printer.add(&part, parts.is_at_end)?;
            }
            return printer.end(parts.has_more());
        }
        let service = Follower::new(state_dir, client, true);
        let mut interrupts = Interrupts::listen()?;
        let mut before = None;
        loop {
            let all = service.ask(async |client| {
                let mut parts = Parts::new(client, args);
                Ok((parts.all().await?, parts.has_more()))
            });
            let (items, has_more) = tokio::select! {
                all = all => all?,
                () = interrupts.next() => return Ok(Ending::Interrupted),
            };
            if before.as_ref() != Some(&items) {
                if io::stdout().is_terminal() && !args.json {
                    print("\x1b[H\x1b[2J")?;
                }
                let mut printer = Printer::new(args);
                printer.add(&items, true)?;
                printer.end(has_more)?;
                before = Some(items);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = interrupts.next() => return Ok(Ending::Interrupted),
            }
        }
    })
}

/// A list as it is asked for, part by part: however long it is, neither side holds more of it. And
/// a reader that pauses keeps nobody waiting.
struct Parts<'a> {
    client: &'a Client,
    question: String,
    /// How many jobs are still wanted.
    wanted: u32,
    /// Where the next part begins; none for the first one.
    before: Option<u64>,
    is_at_end: bool,
}

impl<'a> Parts<'a> {
    fn new(client: &'a Client, args: &ListArgs) -> Self {
        Self {
            client,
            question: question(args),
            wanted: args.limit,
            before: None,
            is_at_end: false,
        }
    }

    /// Whether there are more than were wanted.
    fn has_more(&self) -> bool {
        self.before.is_some()
    }

    /// All parts.
    async fn all(&mut self) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        while let Some(part) = self.next().await? {
            items.extend(part);
        }
        Ok(items)
    }

    /// The next part, which may be empty; none after the last one.
    async fn next(&mut self) -> anyhow::Result<Option<Vec<Value>>> {
        if self.is_at_end {
            return Ok(None);
        }
        let mut path = format!("{}&limit={}", self.question, self.wanted.min(PAGE));
        if let Some(place) = self.before {
            let _ = write!(path, "&before={place}");
        }
        let ListView { mut items, next } = self.client.get::<ListView<Value>>(&path).await?;
        items.truncate(self.wanted as usize);
        self.wanted -= u32::try_from(items.len()).unwrap_or(self.wanted);
        self.before = next;
        self.is_at_end = next.is_none() || self.wanted == 0;
        Ok(Some(items))
    }
}

fn question(args: &ListArgs) -> String {
    let ended = matches!(args.status.as_deref(), Some("ok" | "failed" | "cancelled"));
    let all = args.all || ended || args.batch.is_some();
    let mut path = format!("/longshore/v1/jobs?all={all}");
    if let Some(batch) = args.batch {
        let _ = write!(path, "&batch={batch}");
    }
    if let Some(status) = &args.status {
        let _ = write!(path, "&status={status}");
    }
    if let Some(name) = &args.name {
        let _ = write!(path, "&name={}", encode(name));
    }
    path
}

/// Prints a list part by part.
struct Printer<'a> {
    args: &'a ListArgs,
    printed: usize,
    array: JsonArray,
    /// How wide names are, once it is known.
    name_width: Option<usize>,
}

impl<'a> Printer<'a> {
    fn new(args: &'a ListArgs) -> Self {
        Self {
            args,
            printed: 0,
            array: JsonArray::default(),
            name_width: None,
        }
    }

    fn add(&mut self, items: &[Value], is_last: bool) -> anyhow::Result<()> {
        self.printed += items.len();
        if self.args.json {
            return print(&self.array.add(items)?);
        }
        let jobs = items.iter().map(JobView::deserialize);
        let jobs: Vec<JobView> = jobs.collect::<Result<_, _>>()?;
        if jobs.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        let width = *self.name_width.get_or_insert_with(|| {
            // Of what follows the names are not known.
            let width = if is_last { widest(&jobs) } else { MAX_NAME };
            text = heading(width);
            width
        });
        text.push_str(&lines(&jobs, width, now()));
        print(&text)
    }

    fn end(self, has_more: bool) -> anyhow::Result<Ending> {
        let args = self.args;
        if args.json {
            print(self.array.end())?;
        } else if self.printed == 0 {
            tell!(
                "{}",
                if args.all || args.batch.is_some() || args.status.is_some() {
                    "no such jobs"
                } else {
                    "no jobs wait or run; --all shows those that ended"
                }
            );
        } else if has_more {
            tell!("the newest {} only; --limit N shows more", args.limit);
        }
        Ok(Ending::Succeeded)
    }
}

/// The text of an array in JSON, as `serde_json` would indent the whole of it.
#[derive(Default)]
struct JsonArray {
    is_begun: bool,
}

impl JsonArray {
    fn add(&mut self, items: &[Value]) -> serde_json::Result<String> {
        let mut text = String::new();
        for item in items {
            text.push_str(if self.is_begun { ",\n  " } else { "[\n  " });
            self.is_begun = true;
            // A text in JSON has no line break of its own.
            text.push_str(&serde_json::to_string_pretty(item)?.replace('\n', "\n  "));
        }
        Ok(text)
    }

    fn end(self) -> &'static str {
        if self.is_begun { "\n]\n" } else { "[]\n" }
    }
}

fn shown_name(job: &JobView) -> String {
    fit(&clean(&job.name), MAX_NAME)
}

fn widest(jobs: &[JobView]) -> usize {
    let widths = jobs.iter().map(|job| width(&shown_name(job)));
    widths.max().unwrap_or(0).max("NAME".len())
}

fn heading(name_width: usize) -> String {
    format!(
        "{:27}  {:name_width$}  BATCH  STATUS     SINCE    DETAIL\n",
        "JOB", "NAME"
    )
}

/// Jobs, a line each.
fn lines(jobs: &[JobView], name_width: usize, now: Timestamp) -> String {
    let mut text = String::new();
    for job in jobs {
        let name = shown_name(job);
        let pad = " ".repeat(name_width.saturating_sub(width(&name)));
        let since = job.finished_at.or(job.started_at).unwrap_or(job.created_at);
        let since = age(now.since(since));
        let line = format!(
            "{}  {name}{pad}  {:<5}  {:<9}  {since:<7}  {}",
            job.uuid,
            job.batch,
            job.verdict,
            detail(job)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// What is worth knowing of a job beside its status.
fn detail(job: &JobView) -> String {
    let error = || job.error.as_deref().map(brief);
    let text = match job.verdict.as_str() {
        "waiting" => job.reason.clone().or_else(error),
        "running" => job
            .instance
            .as_ref()
            .map(|instance| format!("on {instance}")),
        "failed" => {
            error().or_else(|| job.exit.as_ref().map(|exit| brief(&exit.cause.to_string())))
        }
        _ => None,
    };
    let stopping = job.cancel_requested && !job.state.is_final();
    let prefix = if stopping { "being ended; " } else { "" };
    clean(&format!("{prefix}{}", text.unwrap_or_default()))
}

/// Everything about one job, a line each.
pub(super) fn details(job: &JobView, document: &Value) -> String {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let command = document["command"].as_array().map(|words| {
        let words = words.iter().filter_map(Value::as_str);
        words.map(shown).collect::<Vec<_>>().join(" ")
    });
    // An error says the cause again, and more.
    let cause = job.exit.as_ref().map(|exit| exit.cause.to_string());
    let cause = cause.filter(|cause| !job.error.as_ref().is_some_and(|e| e.contains(cause)));
    let ran = job.row().duration_until(now()).map(format_duration);
    let rows: [(&str, Option<String>); 17] = [
        ("job", Some(job.uuid.to_string())),
        ("name", Some(job.name.clone())),
        ("batch", Some(job.batch.to_string())),
        ("status", Some(format!("{} ({})", job.verdict, job.state))),
        ("waits for", job.reason.clone()),
        ("command", command),
        ("directory", document["cwd"].as_str().map(str::to_owned)),
        ("priority", Some(job.priority.to_string())),
        ("attempts", Some(job.attempts.to_string())),
        ("ended by", cause.map(|cause| brief(&cause))),
        ("error", job.error.as_deref().map(brief)),
        ("instance", job.instance.clone()),
        ("submitted", Some(job.created_at.to_string())),
        ("started", time(job.started_at)),
        ("finished", time(job.finished_at)),
        ("ran", ran),
        ("output", Some(output(job))),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<10} {}", clean(&value));
        }
    }
    text
}

fn output(job: &JobView) -> String {
    let row = job.row();
    match (row.stdout, row.stderr) {
        _ if !job.state.is_final() => format!("`longshore logs -f {}` follows it", job.uuid),
        (None, None) => "none".to_owned(),
        (stdout, stderr) => {
            let paths = stdout.into_iter().chain(stderr);
            let paths = paths.map(|path| path.display().to_string());
            paths.collect::<Vec<_>>().join(" ")
        }
    }
}

/// A word of a command as a shell would need it.
fn shown(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    longshore_runner_api::command::quote(word)
}

/// How long ago something was, in one or two units: `8s`, `3m5s`, `2h10m`, `3d4h`.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_array_that_is_printed_in_parts_is_that_of_serde_json() {
        let items = [
            json!({ "name": "two\nlines\r", "exit": { "cause": [1, [], {}] }, "error": null }),
            json!("text"),
            json!({}),
        ];
        for parts in [&[0, 0][..], &[3], &[1, 0, 2], &[0, 1, 1, 1]] {
            let (mut array, mut text, mut rest) = (JsonArray::default(), String::new(), &items[..]);
            for &count in parts {
                let (part, others) = rest.split_at(count);
                text.push_str(&array.add(part).unwrap());
                rest = others;
            }
            text.push_str(array.end());
            let whole = &items[..items.len() - rest.len()];
            let whole = serde_json::to_string_pretty(whole).unwrap();
            assert_eq!(text, format!("{whole}\n"), "{parts:?}");
        }
    }

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m1s"),
            (7_805, "2h10m"),
            (273_600, "3d4h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
