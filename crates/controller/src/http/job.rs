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
    let vcpus = number(constraints, "vcpus", 1)?;
    let request = ResourceRequest {
        vcpus: u32::try_from(vcpus).map_err(|_| "so many vcpus there are nowhere")?,
        ram: ByteSize(number(constraints, "ram", DEFAULT_RAM.0)?),
        keep_cache_ram: ByteSize(number(constraints, "keep_cache_ram", 0)?),
        keep_cache_disk: ByteSize(number(constraints, "keep_cache_disk", 0)?),
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
