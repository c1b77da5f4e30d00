//! The commands that ask the service: what they print is for people, or JSON with `--json`.

mod explain;
mod instance;
mod list;
mod logs;
mod schema;
mod submit;

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use longshore_controller::SHORTEST_END;
use longshore_types::ContainerUuid;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{CancelArgs, ShowArgs};
use crate::ending::{Ending, UsageError};
use crate::run::runtime;
use crate::service::client::encode;
use crate::service::view::JobView;
use crate::service::{Client, ClientError};
use crate::tell;

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
        print(&list::details(&view, &value["document"]))?;
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
            tell!("{} jobs are cancelled, or being ended", reply["jobs"]);
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
                tell!("{name} ({uuid}) has ended already");
                continue;
            }
            let path = format!("/longshore/v1/jobs/{uuid}/cancel");
            let _: Value = client.post(&path, &json!({})).await?;
            let now: JobView = client.get(&format!("/longshore/v1/jobs/{uuid}")).await?;
            let said = match now.state.is_final() {
                true => "is cancelled",
                false => "is being ended",
            };
            tell!("{name} ({uuid}) {said}");
        }
        Ok(Ending::Succeeded)
    })
}

/// How many jobs that a text may mean are looked at.
const MOST_MEANT: usize = 2;

#[derive(Deserialize)]
struct Items {
    items: Vec<JobView>,
}

/// The job that a text means: its UUID, the newest with that name, or the only one whose UUID
/// ends so.
async fn find(client: &Client, text: &str) -> anyhow::Result<JobView> {
    if let Ok(uuid) = text.parse::<ContainerUuid>() {
        let found = client.get(&format!("/longshore/v1/jobs/{uuid}")).await;
        return match found {
            Err(ClientError::Refused { status: 404, .. }) => Err(no_job(text).into()),
            found => Ok(found?),
        };
    }
    let path = format!(
        "/longshore/v1/jobs?limit={MOST_MEANT}&match={}",
        encode(text)
    );
    let found: Items = client.get(&path).await?;
    meant(text, found.items).map_err(Into::into)
}

/// Which of the jobs that a text may mean it means.
fn meant(text: &str, mut found: Vec<JobView>) -> Result<JobView, UsageError> {
    if let Some(named) = found.iter().position(|job| job.name == text) {
        return Ok(found.swap_remove(named));
    }
    match found.len() {
        0 => Err(no_job(text)),
        1 => Ok(found.swap_remove(0)),
        _ => Err(UsageError::new(format!(
            "several jobs have a UUID that ends with {text:?}; write more of it"
        ))),
    }
}

fn no_job(text: &str) -> UsageError {
    let advice = match text.len() {
        0..SHORTEST_END => {
            format!("write a name, a UUID, or {SHORTEST_END} characters at least of the end of one")
        }
        _ => "`longshore list --all` shows all of them".to_owned(),
    };
    UsageError::new(format!("there is no job {text:?}; {advice}"))
}

fn print_json(value: &Value) -> anyhow::Result<Ending> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))?;
    Ok(Ending::Succeeded)
}

/// Prints to standard output. A reader that has gone away does not want it.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the output could not be written"),
    }
}
