//! `longshore explain`.

use std::path::Path;

use longshore_types::Explanation;
use serde_json::Value;

use super::{find, print, print_json};
use crate::cli::ShowArgs;
use crate::ending::Ending;
use crate::run::runtime;
use crate::service::Client;
use crate::text::clean;

/// Says why a job waits.
pub fn explain(args: &ShowArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        let job = find(&client, &args.job).await?;
        let path = format!("/longshore/v1/jobs/{}/explain", job.uuid);
        let value: Value = client.get(&path).await?;
        if args.json {
            return print_json(&value);
        }
        let why: Explanation = serde_json::from_value(value)?;
        let text = why.to_string();
        let lines = text.lines().map(|line| format!("{}\n", clean(line)));
        print(&format!("Job {}\n", clean(&job.name)))?;
        print(&lines.collect::<String>())?;
        if let Some(error) = &job.error {
            print(&format!("\nWhat went wrong: {}\n", clean(error)))?;
        }
        Ok(Ending::Succeeded)
    })
}
