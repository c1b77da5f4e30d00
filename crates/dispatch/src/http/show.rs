//! Entries and instances in the form that clients of Arvados know.

use std::collections::BTreeMap;
use std::time::SystemTime;

use longshore_types::{
    Container, ContainerState, InstanceType, Instant, PendingView, Reason, Timestamp, TypeName,
};
use serde_json::{Value, json};

use crate::{EntryView, InstanceEntry};

type Types = BTreeMap<TypeName, InstanceType>;

/// `{"items": …}`, null when empty.
pub(super) fn list(items: Vec<Value>) -> Value {
    if items.is_empty() {
        json!({ "items": null })
    } else {
        json!({ "items": items })
    }
}

/// An entry of the queue.
pub(super) fn entry(entry: &EntryView, types: &Types, now: Instant) -> Value {
    let request = &entry.container.request;
    let (gpus, vram) = request
        .gpu
        .as_ref()
        .map_or((0, 0), |gpu| (gpu.device_count, gpu.vram.0));
    let types: Vec<Value> = entry
        .types
        .iter()
        .filter_map(|name| Some(instance_type(types.get(name)?)))
        .collect();
    json!({
        "container": container(&entry.container),
        "instance_resources": {
            "VCPUs": request.vcpus, "RAM": request.ram.0, "Scratch": request.scratch.0,
            "GPUs": gpus, "GPUVRAM": vram,
        },
        "instance_types": types,
        "first_seen_at": at(entry.first_seen, now).to_string(),
        "scheduling_status": status(entry),
        "scheduling_reason": entry.reason,
    })
}

/// Every instance and every create that has not ended, sorted by instance, then type.
pub(super) fn instances(
    instances: &[InstanceEntry],
    pending: &[PendingView],
    types: &Types,
    now: Instant,
) -> Value {
    let mut items: Vec<Value> = pending
        .iter()
        .map(|pending| pending_instance(pending, types))
        .collect();
    items.sort_by_key(|item| item["arvados_instance_type"].to_string());
    items.extend(instances.iter().map(|entry| instance(entry, types, now)));
    list(items)
}

fn container(container: &Container) -> Value {
    let request = &container.request;
    json!({
        "uuid": container.uuid.as_str(),
        "etag": "",
        "created_at": container.created_at.to_string(),
        "command": null, "container_image": "", "cwd": "", "environment": null,
        "exit_code": 0, "finished_at": null, "log": "", "mounts": null, "output": "",
        "locked_by_uuid": "",
        "priority": container.priority,
        "runtime_constraints": {
            "vcpus": request.vcpus, "ram": request.ram.0,
            "keep_cache_ram": request.keep_cache_ram.0,
            "keep_cache_disk": request.keep_cache_disk.0,
        },
        "runtime_status": null,
        "scheduling_parameters": {
            "preemptible": request.preemptible, "supervisor": container.supervisor,
        },
        "started_at": null,
        "state": container.state.as_str(),
    })
}

/// A sentence for the user; empty for what runs or has ended.
fn status(entry: &EntryView) -> String {
    if !matches!(
        entry.container.state,
        ContainerState::Queued | ContainerState::Locked
    ) {
        return String::new();
    }
    match &entry.reason {
        None | Some(Reason::NotWaiting) => String::new(),
        Some(reason) => reason.sentence(entry.container.state, entry.position, entry.in_line),
    }
}

fn instance_type(t: &InstanceType) -> Value {
    let gpu = t.gpu.as_ref().map(|gpu| {
        json!({
            "DriverVersion": gpu.driver_version, "HardwareTarget": gpu.hardware_target,
            "DeviceCount": gpu.device_count, "VRAM": gpu.vram.0, "Stack": gpu.stack,
        })
    });
    json!({
        "ProviderType": t.provider_type, "VCPUs": t.vcpus, "RAM": t.ram.0,
        "IncludedScratch": t.included_scratch.0, "AddedScratch": t.added_scratch.0,
        "Price": t.price.units(), "Preemptible": t.preemptible, "GPU": gpu,
    })
}

fn instance(entry: &InstanceEntry, types: &Types, now: Instant) -> Value {
    let worker = &entry.worker;
    let known = worker.type_name.as_ref().and_then(|name| types.get(name));
    let running = worker.containers.iter().filter(|c| c.phase.may_run());
    let running: Vec<&str> = running.map(|held| held.uuid.as_str()).collect();
    let (last, busy) = match entry.last_busy {
        Some((uuid, when)) => (uuid.to_string(), Some(at(when, now).to_string())),
        None => (String::new(), None),
    };
    json!({
        "instance": worker.instance.as_str(),
        "address": entry.address.as_deref().unwrap_or_default(),
        "price": known.map_or(0.0, |t| t.price.units()),
        "arvados_instance_type": worker.type_name.as_ref().map_or("", |name| name.as_str()),
        "provider_instance_type": known.map_or("", |t| t.provider_type.as_str()),
        "last_container_uuid": last,
        "last_busy": busy,
        "running_container_uuids": running,
        "worker_state": worker.state.as_str(),
        "idle_behavior": worker.idle_behavior.as_str(),
        "last_error": worker.last_error,
    })
}

fn pending_instance(pending: &PendingView, types: &Types) -> Value {
    let known = types.get(&pending.type_name);
    json!({
        "instance": "",
        "address": "",
        "price": known.map_or(0.0, |t| t.price.units()),
        "arvados_instance_type": pending.type_name.as_str(),
        "provider_instance_type": known.map_or("", |t| t.provider_type.as_str()),
        "last_container_uuid": "",
        "last_busy": null,
        "running_container_uuids": [],
        "worker_state": "booting",
        "idle_behavior": "run",
        "last_error": null,
    })
}

/// The wall-clock time of a moment of the core's clock, of which `now` is this moment.
#[expect(
    clippy::disallowed_methods,
    reason = "the core knows no wall-clock time; this only shows one"
)]
fn at(moment: Instant, now: Instant) -> Timestamp {
    let passed = now.since(moment);
    let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
    Timestamp(
        Timestamp::from_system(SystemTime::now())
            .0
            .saturating_sub(passed),
    )
}
