//! The commands that ask the service: what they print is for people, or JSON with `--json`.

mod explain;
mod instance;
mod list;
mod logs;
mod schema;
mod submit;

use std::io::{self, Write as _};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{CancelArgs, ShowArgs};
use crate::ending::{Ending, UsageError};
use crate::run::runtime;
use crate::service::Client;
use crate::service::client::encode;
use crate::service::view::JobView;

pub use explain::explain;
pub use instance::instance;
pub use list::list;
pub use logs::logs;
pub use schema::{completions, job_schema, schema};
pub use submit::submit;

/// `longshore show`.
pub fn show(args: &ShowArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        let job = find(&client, &args.job).await?;
        let value: Value = client
            .get(&format!("/longshore/v1/jobs/{}", job.uuid))
            .await?;
        if args.json {
            return print_json(&value);
        }
        let view: JobView = serde_json::from_value(value.clone())?;
        print(&list::details(&view, &value["document"]));
        Ok(Ending::Succeeded)
    })
}

/// `longshore cancel`.
pub fn cancel(args: &CancelArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        if let Some(batch) = args.batch {
            let path = format!("/longshore/v1/batches/{batch}/cancel");
            let reply: Value = client.post(&path, &json!({})).await?;
            eprintln!("{} jobs are cancelled, or being ended", reply["jobs"]);
            return Ok(Ending::Succeeded);
        }
        // All are found before any is ended.
        let mut jobs = Vec::new();
        for job in &args.jobs {
            jobs.push(find(&client, job).await?);
        }
        for job in jobs {
            let (uuid, name) = (job.uuid, crate::text::clean(&job.name));
            if job.state.is_final() {
                eprintln!("{name} ({uuid}) has ended already");
                continue;
            }
            let path = format!("/longshore/v1/jobs/{uuid}/cancel");
            let _: Value = client.post(&path, &json!({})).await?;
            let now: JobView = client.get(&format!("/longshore/v1/jobs/{uuid}")).await?;
            let said = match now.state.is_final() {
                true => "is cancelled",
                false => "is being ended",
            };
            eprintln!("{name} ({uuid}) {said}");
        }
        Ok(Ending::Succeeded)
    })
}

#[derive(Deserialize)]
struct Items {
    items: Vec<JobView>,
}

/// The job that a text means: its UUID, the newest with that name, or the only one whose UUID
/// ends so.
async fn find(client: &Client, text: &str) -> anyhow::Result<JobView> {
    let path = format!(
        "/longshore/v1/jobs?all=true&limit=100000&match={}",
        encode(text)
    );
    let found: Items = client.get(&path).await?;
    let named = found.items.iter().find(|job| job.name == text);
    if let Some(job) = named {
        return Ok(job.clone());
    }
    match &found.items[..] {
        [job] => Ok(job.clone()),
        [] => Err(UsageError::new(format!(
            "there is no job {text:?}; `longshore list --all` shows all of them"
        ))
        .into()),
        several => Err(UsageError::new(format!(
            "{} jobs have a UUID that ends with {text:?}; write more of it",
            several.len()
        ))
        .into()),
    }
}

fn print_json(value: &Value) -> anyhow::Result<Ending> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?));
    Ok(Ending::Succeeded)
}

fn print(text: &str) {
    // A reader that has gone away does not want it.
    let _ = io::stdout().write_all(text.as_bytes());
}
