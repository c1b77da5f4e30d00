//! `longshore list`, and how jobs are shown.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use longshore_types::{Timestamp, format_duration};
use serde::Deserialize;
use serde_json::Value;

use super::{print, print_json};
use crate::cli::ListArgs;
use crate::ending::Ending;
use crate::run::{Interrupts, runtime};
use crate::service::Client;
use crate::service::client::encode;
use crate::service::view::JobView;
use crate::text::{brief, clean, fit, width};

/// How often a list that is watched is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The widest name in columns.
const MAX_NAME: usize = 32;

#[derive(Deserialize)]
struct Items {
    items: Vec<Value>,
}

/// Lists jobs.
pub fn list(args: &ListArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        if !args.watch {
            let items = fetch(&client, args).await?;
            return show(args, &items);
        }
        let mut interrupts = Interrupts::listen()?;
        let mut before = Vec::new();
        loop {
            let items = fetch(&client, args).await?;
            if items != before {
                if io::stdout().is_terminal() && !args.json {
                    print("\x1b[H\x1b[2J");
                }
                show(args, &items)?;
                before = items;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = interrupts.next() => return Ok(Ending::Succeeded),
            }
        }
    })
}

async fn fetch(client: &Client, args: &ListArgs) -> anyhow::Result<Vec<Value>> {
    let ended = matches!(args.status.as_deref(), Some("ok" | "failed" | "cancelled"));
    let all = args.all || ended || args.batch.is_some();
    let mut path = format!("/longshore/v1/jobs?all={all}&limit={}", args.limit);
    if let Some(batch) = args.batch {
        let _ = write!(path, "&batch={batch}");
    }
    if let Some(status) = &args.status {
        let _ = write!(path, "&status={status}");
    }
    if let Some(name) = &args.name {
        let _ = write!(path, "&name={}", encode(name));
    }
    let found: Items = client.get(&path).await?;
    Ok(found.items)
}

fn show(args: &ListArgs, items: &[Value]) -> anyhow::Result<Ending> {
    if args.json {
        return print_json(&Value::Array(items.to_vec()));
    }
    let jobs = items
        .iter()
        .map(|item| serde_json::from_value(item.clone()));
    let jobs: Vec<JobView> = jobs.collect::<Result<_, _>>()?;
    if jobs.is_empty() {
        let more = if args.all || args.batch.is_some() || args.status.is_some() {
            "no such jobs"
        } else {
            "no jobs wait or run; --all shows those that ended"
        };
        eprintln!("{more}");
    } else {
        print(&table(&jobs, now()));
        if jobs.len() == args.limit as usize {
            eprintln!("the newest {} only; --limit N shows more", args.limit);
        }
    }
    Ok(Ending::Succeeded)
}

/// Jobs as lines under a heading.
fn table(jobs: &[JobView], now: Timestamp) -> String {
    let names: Vec<String> = jobs
        .iter()
        .map(|job| fit(&clean(&job.name), MAX_NAME))
        .collect();
    let widest = names
        .iter()
        .map(|name| width(name))
        .max()
        .unwrap_or(0)
        .max(4);
    let mut text = format!(
        "{:27}  NAME{}  BATCH  STATUS     SINCE    DETAIL\n",
        "JOB",
        " ".repeat(widest - 4)
    );
    for (job, name) in jobs.iter().zip(&names) {
        let pad = " ".repeat(widest - width(name));
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
    use super::*;

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
