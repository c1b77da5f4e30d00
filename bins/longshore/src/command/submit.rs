//! `longshore submit`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use longshore_runner_api::StartDocument;
use longshore_types::ResourceRequest;
use serde_json::{Value, json};

use super::print_json;
use crate::cli::SubmitArgs;
use crate::ending::{Ending, UsageError};
use crate::run::batches::new_batch;
use crate::run::{load, runtime};
use crate::service::view::{JobView, NewBatchView, NewJobView};
use crate::service::{Client, ClientError, Jobs};
use crate::tell;

/// How often a job of a command is run again after its machine was lost.
const RETRIES: u32 = 3;
/// The status of a refusal because the same is there already.
const CONFLICT: u16 = 409;
/// The status of a refusal because of what was asked for.
const UNPROCESSABLE: u16 = 422;

/// Submits the jobs of a file, or a command.
pub fn submit(args: &SubmitArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        let batch = match &args.file {
            Some(path) => from_file(path, &client).await?,
            None => from_command(args)?,
        };
        let (name, count) = (crate::text::clean(&batch.name), batch.jobs.len());
        let jobs = Jobs::There(client);
        let id = jobs
            .submit(batch)
            .await
            .map_err(|error| explain(error, args))?;
        if args.json {
            let submitted = jobs.jobs_of(id).await?;
            return print_json(&json!({ "batch": id, "jobs": listed(&submitted) }));
        }
        if count == 1
            && let Some(job) = jobs.jobs_of(id).await?.first()
        {
            let uuid = job.uuid;
            tell!("submitted {name} as {uuid}; `longshore logs -f {uuid}` follows it");
        } else {
            tell!(
                "submitted {name}, {count} jobs, as batch {id}; `longshore list --batch {id}` \
                 shows them"
            );
        }
        Ok(Ending::Succeeded)
    })
}

fn listed(jobs: &[JobView]) -> Vec<Value> {
    let one = |job: &JobView| json!({ "uuid": job.uuid, "name": job.name });
    jobs.iter().map(one).collect()
}

async fn from_file(path: &Path, client: &Client) -> anyhow::Result<NewBatchView> {
    // With the line of what is wrong, which the service does not know.
    let types = client.instance_types().await?;
    let mut files = load(&[path.to_owned()], &types)?;
    let mut file = files.pop().context("a file was loaded")?;
    new_batch(&mut file, false)
}

fn from_command(args: &SubmitArgs) -> anyhow::Result<NewBatchView> {
    let program = args.command.first().map_or("", String::as_str);
    let base = program.rsplit('/').next().unwrap_or(program);
    let name = args.name.clone().unwrap_or_else(|| base.to_owned());
    let cwd = std::env::current_dir().context("the current directory cannot be found")?;
    let cwd = cwd
        .to_str()
        .context("the path of the current directory is not UTF-8")?;
    let mut document = StartDocument::new(args.command.clone());
    document.cwd = Some(cwd.to_owned());
    document.env = environment(&args.env)?;
    document.time_limit_ms = args.time_limit;
    let request = ResourceRequest {
        vcpus: args.vcpus,
        ram: args.ram,
        scratch: args.scratch,
        ..ResourceRequest::default()
    };
    let job = NewJobView {
        name: name.clone(),
        document,
        request,
        priority: args.priority,
        retries: RETRIES,
        keep_output: args.keep_output,
    };
    Ok(NewBatchView {
        // No other is ever found by it.
        key: format!("command:{}", longshore_pool::runtime::random_uuid()?),
        content_hash: String::new(),
        name,
        followed: false,
        jobs: vec![job],
    })
}

fn environment(pairs: &[String]) -> Result<BTreeMap<String, String>, UsageError> {
    let mut environment = BTreeMap::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(UsageError::new(format!("--env {pair}: write NAME=VALUE")));
        };
        environment.insert(name.to_owned(), value.to_owned());
    }
    Ok(environment)
}

fn explain(error: anyhow::Error, args: &SubmitArgs) -> anyhow::Error {
    match (error.downcast_ref::<ClientError>(), &args.file) {
        (Some(ClientError::Refused { status, message }), Some(path)) if *status == CONFLICT => {
            let path = path.display();
            UsageError::new(format!(
                "{message}; `longshore run {path}` waits for it, `longshore run --new {path}` \
                 gives it up and starts over"
            ))
            .into()
        }
        (Some(gone), _) if gone.is_gone() => error.context(
            "it is not known whether it was submitted: `longshore list --all` shows it if it was",
        ),
        // Nothing of the kind will ever be taken.
        (Some(ClientError::Refused { status, message }), _) if *status == UNPROCESSABLE => {
            UsageError::new(message.clone()).into()
        }
        _ => error,
    }
}
