//! Containers and requests in the form that clients of Arvados know.

use longshore_runner_api::StartDocument;
use longshore_types::{ContainerState, Timestamp};
use serde_json::{Value, json};

use crate::{ContainerRequest, JobStatus};

/// The attributes of a container.
pub(super) const CONTAINER: &[&str] = &[
    "command",
    "container_image",
    "created_at",
    "cwd",
    "environment",
    "etag",
    "exit_code",
    "finished_at",
    "instance",
    "kind",
    "lock_count",
    "locked_by_uuid",
    "log",
    "modified_at",
    "mounts",
    "name",
    "output",
    "output_path",
    "owner_uuid",
    "priority",
    "progress",
    "runtime_constraints",
    "runtime_status",
    "scheduling_parameters",
    "started_at",
    "state",
    "uuid",
];

/// The attributes of a request.
pub(super) const REQUEST: &[&str] = &[
    "command",
    "container_count",
    "container_image",
    "container_uuid",
    "created_at",
    "cwd",
    "description",
    "environment",
    "etag",
    "expires_at",
    "filters",
    "kind",
    "log_uuid",
    "modified_at",
    "mounts",
    "name",
    "output_name",
    "output_path",
    "output_uuid",
    "owner_uuid",
    "priority",
    "properties",
    "requesting_container_uuid",
    "runtime_constraints",
    "scheduling_parameters",
    "state",
    "use_existing",
    "uuid",
];

fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| at.to_string().into())
}

fn owner(uuid: &str) -> String {
    let cluster = uuid.split('-').next().unwrap_or_default();
    format!("{cluster}-tpzed-000000000000000")
}

/// A container with the document that it is started from.
pub(super) fn container(job: &JobStatus, document: &[u8]) -> Value {
    let document = StartDocument::from_json(document).ok();
    let document = document.unwrap_or_else(|| StartDocument::new(Vec::new()));
    let taken = matches!(job.state, ContainerState::Locked | ContainerState::Running);
    let owner = owner(job.uuid.as_str());
    let exit_code = job
        .exit_code()
        .filter(|_| job.state == ContainerState::Complete);
    let mut status = json!({});
    if let Some(error) = &job.error {
        status["error"] = error.clone().into();
    }
    json!({
        "uuid": job.uuid.as_str(),
        "kind": "arvados#container",
        "etag": job.revision.to_string(),
        "owner_uuid": owner,
        "name": job.name,
        "state": job.state.as_str(),
        "priority": job.priority,
        "command": document.command,
        "environment": document.env,
        "cwd": document.cwd.unwrap_or_else(|| ".".into()),
        "container_image": "",
        "mounts": {},
        "output_path": "",
        "output": null,
        "log": null,
        "progress": null,
        "runtime_constraints": { "vcpus": document.vcpus, "ram": document.ram.map(|ram| ram.0) },
        "scheduling_parameters": { "max_run_time": document.time_limit_ms.unwrap_or(0) / 1000 },
        "runtime_status": status,
        "exit_code": exit_code,
        "lock_count": job.attempts,
        "locked_by_uuid": taken.then(|| owner.replace("-tpzed-", "-gj3su-")),
        "instance": job.placed_on.as_ref().map(ToString::to_string),
        "created_at": job.created_at.to_string(),
        "modified_at": job.finished_at.or(job.started_at).unwrap_or(job.created_at).to_string(),
        "started_at": time(job.started_at),
        "finished_at": time(job.finished_at),
    })
}

/// A request.
pub(super) fn request(request: &ContainerRequest) -> Value {
    let state = match request.container_state {
        Some(state) if state.is_final() => "Final",
        _ if request.container.is_some() => "Committed",
        _ => "Uncommitted",
    };
    let mut shown = json!({
        "name": "", "description": null, "properties": {}, "command": [], "environment": {},
        "cwd": ".", "container_image": "", "mounts": {}, "output_path": "", "output_name": null,
        "runtime_constraints": {}, "scheduling_parameters": {}, "priority": 500,
        "use_existing": false, "filters": null, "expires_at": null,
        "requesting_container_uuid": null, "output_uuid": null, "log_uuid": null,
    });
    if let Some(shown) = shown.as_object_mut() {
        let given = request.attributes.iter();
        // Secrets are never shown.
        let given = given.filter(|(name, _)| *name != "secret_mounts");
        shown.extend(given.map(|(name, value)| (name.clone(), value.clone())));
    }
    shown["uuid"] = request.uuid.clone().into();
    shown["kind"] = "arvados#containerRequest".into();
    shown["etag"] = request.modified_at.0.to_string().into();
    shown["owner_uuid"] = owner(&request.uuid).into();
    shown["state"] = state.into();
    shown["container_uuid"] = request.container.map(|uuid| uuid.to_string()).into();
    shown["container_count"] = u64::from(request.container.is_some()).into();
    shown["created_at"] = request.created_at.to_string().into();
    shown["modified_at"] = request.modified_at.to_string().into();
    shown
}
