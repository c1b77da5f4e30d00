//! What a container request asks for, as a job.

use std::collections::BTreeMap;

use longshore_runner_api::StartDocument;
use longshore_types::{ByteSize, MAX_PRIORITY, Preemptible, ResourceRequest};
use serde_json::{Map, Value};

use crate::NewJob;

/// Everything that a request may say; some of it is only kept and shown.
const ATTRIBUTES: &[&str] = &[
    "command",
    "container_count_max",
    "container_image",
    "cwd",
    "description",
    "environment",
    "expires_at",
    "filters",
    "mounts",
    "name",
    "output_name",
    "output_path",
    "output_properties",
    "output_storage_classes",
    "output_ttl",
    "owner_uuid",
    "priority",
    "properties",
    "requesting_container_uuid",
    "runtime_constraints",
    "scheduling_parameters",
    "secret_mounts",
    "state",
    "use_existing",
    "uuid",
];
/// The name of a request that has none.
const UNNAMED: &str = "container request";
const DEFAULT_RAM: ByteSize = ByteSize::mib(256);

/// A request, understood.
#[derive(Debug)]
pub(super) struct Wanted {
    /// What runs, once it is committed.
    pub(super) job: Option<NewJob>,
    pub(super) priority: i64,
}

impl Wanted {
    /// The error is what is wrong with it, one line.
    pub(super) fn read(given: &Map<String, Value>) -> Result<Self, String> {
        if let Some(name) = given
            .keys()
            .find(|name| !ATTRIBUTES.contains(&name.as_str()))
        {
            let name: String = name.chars().take(100).collect();
            return Err(format!("a container request has no attribute {name:?}"));
        }
        let priority = given.get("priority").map_or(Ok(500), priority)?;
        let committed = match given.get("state").and_then(Value::as_str) {
            None | Some("Uncommitted") => false,
            Some("Committed") => true,
            Some(_) => return Err("the state is neither Uncommitted nor Committed".into()),
        };
        let job = committed.then(|| job(given)).transpose()?;
        Ok(Self { job, priority })
    }
}

/// A priority: 0 holds back, and stops what runs.
pub(super) fn priority(value: &Value) -> Result<i64, String> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    number
        .filter(|number| (0..=MAX_PRIORITY).contains(number))
        .ok_or_else(|| format!("the priority is no whole number from 0 to {MAX_PRIORITY}"))
}

fn job(given: &Map<String, Value>) -> Result<NewJob, String> {
    let command = strings(given.get("command")).ok_or("the command is no list of texts")?;
    if command.is_empty() {
        return Err("the command is empty".into());
    }
    check_image(given)?;
    check_mounts(given)?;
    let mut document = StartDocument::new(command);
    document.env = environment(given.get("environment"))?;
    document.cwd = match given.get("cwd").and_then(Value::as_str) {
        None | Some("" | ".") => None,
        Some(path) if path.starts_with('/') => Some(path.to_owned()),
        Some(_) => return Err("the cwd is no absolute path".into()),
    };
    let scheduling = object(given, "scheduling_parameters")?;
    let seconds = number(scheduling, "max_run_time", 0)?;
    document.time_limit_ms = Some(seconds.saturating_mul(1000)).filter(|limit| *limit > 0);
    let constraints = object(given, "runtime_constraints")?;
    check_gpus(constraints)?;
    let vcpus = positive(constraints, "vcpus", 1)?;
    let request = ResourceRequest {
        vcpus: u32::try_from(vcpus).map_err(|_| "so many vcpus there are nowhere")?,
        ram: ByteSize(positive(constraints, "ram", DEFAULT_RAM.0)?),
        keep_cache_ram: ByteSize(number(constraints, "keep_cache_ram", 0)?),
        keep_cache_disk: ByteSize(number(constraints, "keep_cache_disk", 0)?),
        scratch: scratch(given)?,
        preemptible: preemptible(scheduling)?,
        ..ResourceRequest::default()
    };
    let name = given
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let name = if name.is_empty() { UNNAMED } else { name };
    Ok(NewJob {
        supervisor: flag(scheduling, "supervisor"),
        ..NewJob::new(name, document, request)
    })
}

fn check_image(given: &Map<String, Value>) -> Result<(), String> {
    match given.get("container_image") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(image)) if image.is_empty() || image == "process" => Ok(()),
        Some(_) => Err(
            "commands run as plain processes here, without an image: leave \
                        container_image empty, or write \"process\""
                .into(),
        ),
    }
}

/// There is no storage here that could be mounted.
fn check_mounts(given: &Map<String, Value>) -> Result<(), String> {
    for name in ["mounts", "secret_mounts"] {
        for (path, mount) in object(given, name)?.into_iter().flatten() {
            let kind = mount["kind"].as_str().unwrap_or_default();
            let stream = path == "stdout" || path == "stderr";
            if !(kind == "tmp" || kind == "file" && stream) {
                let path: String = path.chars().take(100).collect();
                return Err(format!(
                    "nothing can be mounted at {path:?} here but kind \"tmp\""
                ));
            }
        }
    }
    Ok(())
}

/// What temporary file systems are to hold, all together.
fn scratch(given: &Map<String, Value>) -> Result<ByteSize, String> {
    let mut bytes = 0u64;
    for mount in object(given, "mounts")?.into_iter().flat_map(Map::values) {
        bytes = bytes.saturating_add(number(mount.as_object(), "capacity", 0)?);
    }
    Ok(ByteSize(bytes))
}

/// Nothing here gives devices to containers.
fn check_gpus(constraints: Object<'_>) -> Result<(), String> {
    for name in ["cuda", "gpu"] {
        let devices = match constraints.and_then(|constraints| constraints.get(name)) {
            None | Some(Value::Null) => 0,
            Some(Value::Object(gpu)) => number(Some(gpu), "device_count", 0)?,
            Some(_) => return Err(format!("{name} is no object")),
        };
        if devices > 0 {
            return Err(format!("containers get no GPUs here: leave {name} out"));
        }
    }
    Ok(())
}

fn environment(given: Option<&Value>) -> Result<BTreeMap<String, String>, String> {
    let wrong = || "the environment is no object of texts".to_owned();
    match given {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, value)| {
                let value = value.as_str().ok_or_else(wrong)?;
                Ok((name.clone(), value.to_owned()))
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

fn strings(value: Option<&Value>) -> Option<Vec<String>> {
    let words = value?.as_array()?.iter();
    words.map(|word| word.as_str().map(str::to_owned)).collect()
}

type Object<'a> = Option<&'a Map<String, Value>>;

fn object<'a>(given: &'a Map<String, Value>, name: &str) -> Result<Object<'a>, String> {
    match given.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(format!("{name} is no object")),
    }
}

fn number(object: Object<'_>, name: &str, default: u64) -> Result<u64, String> {
    match object.and_then(|object| object.get(name)) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| format!("{name} is no whole number of 0 or more")),
    }
}

fn positive(object: Object<'_>, name: &str, default: u64) -> Result<u64, String> {
    match number(object, name, default)? {
        0 => Err(format!("{name} is no whole number of 1 or more")),
        number => Ok(number),
    }
}

/// `true`, `false`, or, beyond what Arvados has, `"prefer"`.
fn preemptible(scheduling: Object<'_>) -> Result<Preemptible, String> {
    match scheduling.and_then(|object| object.get("preemptible")) {
        None | Some(Value::Null) => Ok(Preemptible::Never),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| "preemptible is none of true, false and \"prefer\"".to_owned()),
    }
}

fn flag(object: Object<'_>, name: &str) -> bool {
    object.is_some_and(|object| object.get(name) == Some(&Value::Bool(true)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(constraints: Value, mounts: Value) -> Result<ResourceRequest, String> {
        let given = json!({ "command": ["true"], "state": "Committed", "mounts": mounts,
                            "runtime_constraints": constraints });
        let wanted = Wanted::read(given.as_object().unwrap())?;
        Ok(wanted.job.unwrap().request)
    }

    #[test]
    fn nothing_is_asked_for_that_would_mean_no_limit() {
        let request = read(json!({ "vcpus": 2, "ram": 1 }), json!({})).unwrap();
        assert_eq!((request.vcpus, request.ram), (2, ByteSize(1)));
        let request = read(json!({ "ram": null }), json!({})).unwrap();
        assert_eq!((request.vcpus, request.ram), (1, DEFAULT_RAM));
        for name in ["vcpus", "ram"] {
            let why = read(json!({ name: 0 }), json!({})).unwrap_err();
            assert_eq!(why, format!("{name} is no whole number of 1 or more"));
        }
    }

    #[test]
    fn temporary_file_systems_need_scratch() {
        let tmp = |capacity| json!({ "kind": "tmp", "capacity": capacity });
        let out = json!({ "kind": "file", "path": "/tmp/out" });
        let mounts = json!({ "/tmp": tmp(5), "/var/spool": tmp(7), "/x": { "kind": "tmp" },
                             "stdout": out });
        let request = read(json!({}), mounts).unwrap();
        assert_eq!(request.scratch, ByteSize(12));
        let much = json!({ "/a": tmp(u64::MAX), "/b": tmp(2) });
        assert_eq!(read(json!({}), much).unwrap().scratch, ByteSize(u64::MAX));
        let wrong = json!({ "/a": { "kind": "tmp", "capacity": "much" } });
        assert!(read(json!({}), wrong).is_err());
    }

    #[test]
    fn gpus_are_refused_and_not_left_out() {
        for name in ["cuda", "gpu"] {
            let with = |devices: u64| {
                read(json!({ name: { "device_count": devices } }), json!({})).map(|_| ())
            };
            assert_eq!(with(0), Ok(()));
            assert!(with(1).unwrap_err().contains("no GPUs"));
            assert!(read(json!({ name: true }), json!({})).is_err());
        }
    }
}
