//! `longshore instance`: looking after machines.

use std::fmt::Write as _;
use std::path::Path;

use axum::http::Method;
use serde_json::Value;

use super::{print, print_json};
use crate::cli::InstanceCommand;
use crate::ending::{Ending, UsageError};
use crate::run::runtime;
use crate::service::Client;
use crate::service::client::encode;
use crate::tell;
use crate::text::clean;

const INSTANCES: &str = "/arvados/v1/dispatch/instances";

/// Lists machines, or changes what is done with them.
pub fn instance(command: &InstanceCommand, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        match command {
            InstanceCommand::List { json } => list(&client, *json).await,
            InstanceCommand::Hold(args) => {
                each(&client, "hold", "is on hold", &args.instances, "").await
            }
            InstanceCommand::Drain(args) => {
                let said = "gets no more jobs, and is given back when nothing runs there";
                each(&client, "drain", said, &args.instances, "").await
            }
            InstanceCommand::Run(args) => {
                each(&client, "run", "is used as usual", &args.instances, "").await
            }
            InstanceCommand::Kill(args) => {
                let reason = format!("&reason={}", encode(&args.reason));
                each(
                    &client,
                    "kill",
                    "is being given back",
                    &args.instances,
                    &reason,
                )
                .await
            }
        }
    })
}

async fn list(client: &Client, json: bool) -> anyhow::Result<Ending> {
    let reply = client.manage(Method::GET, INSTANCES).await?;
    let items = reply["items"].as_array().cloned().unwrap_or_default();
    if json {
        return print_json(&Value::Array(items));
    }
    if items.is_empty() {
        tell!("no instances; one is made when a job needs it");
        return Ok(Ending::Succeeded);
    }
    let mut text = format!(
        "{:25}  {:21}  {:9}  {:8}  TYPE       RUNNING\n",
        "INSTANCE", "ADDRESS", "STATE", "BEHAVIOR"
    );
    for item in &items {
        let field = |name: &str| match item[name].as_str() {
            Some("") | None => "-".to_owned(),
            Some(text) => clean(text),
        };
        let running = item["running_container_uuids"]
            .as_array()
            .map_or(0, Vec::len);
        let _ = writeln!(
            text,
            "{:25}  {:21}  {:9}  {:8}  {:9}  {running}",
            field("instance"),
            field("address"),
            field("worker_state"),
            field("idle_behavior"),
            field("arvados_instance_type"),
        );
    }
    print(&text)?;
    Ok(Ending::Succeeded)
}

async fn each(
    client: &Client,
    verb: &str,
    said: &str,
    instances: &[String],
    more: &str,
) -> anyhow::Result<Ending> {
    let mut ending = Ok(Ending::Succeeded);
    for id in instances {
        let path = format!("{INSTANCES}/{verb}?instance_id={}{more}", encode(id));
        match client.manage(Method::POST, &path).await {
            Ok(_) => tell!("{} {said}", clean(id)),
            Err(error) if error.is_not_there() => {
                let message = format!(
                    "there is no instance {}; `longshore instance list` shows them",
                    clean(id)
                );
                // The others are seen to all the same.
                if let Err(before) = std::mem::replace(&mut ending, Err(UsageError::new(message))) {
                    tell!("{before}");
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ending?)
}
