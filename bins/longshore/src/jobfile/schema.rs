//! The keys of a job file and the types of their values.
//!
//! Everything is looked at, so that all problems are found at once; what is wrong becomes
//! [`Field::Bad`], which later steps leave alone.

use std::collections::BTreeSet;

use longshore_runner_api::{Engine, MIN_OUTPUT_LIMIT, Network};
use longshore_types::{ByteSize, MAX_PRIORITY, Preemptible, parse_duration};

use crate::text::excerpt;
use crate::yaml::problem::{Position, Problems};
use crate::yaml::tree::{Entry, Node, Scalar, Value};
use crate::yaml::value::{
    Field, Text, boolean, list, mapping, nearest, number, size, text, text_field, texts,
};

/// How often a container may be tried again.
const MAX_RETRIES: u64 = 1000;
/// The most processes that Linux has on a machine.
const MAX_PROCESSES: u64 = 4 << 20;
/// Less memory than this is a forgotten unit.
const MIN_RAM: ByteSize = ByteSize::mib(1);

const FILE_KEYS: &[&str] = &["name", "defaults", "jobs"];
pub(crate) const JOB_KEYS: &[&str] = &[
    "name",
    "command",
    "env",
    "cwd",
    "stdin",
    "resources",
    "priority",
    "time_limit",
    "process_limit",
    "output_limit",
    "retries",
    "keep_output",
    "for_each",
    "engine",
    "image",
    "mounts",
    "network",
    "preemptible",
];
const RESOURCE_KEYS: &[&str] = &["vcpus", "ram", "scratch"];
/// Keys that the format has and this version does not support.
const LATER_KEYS: &[&str] = &["outputs", "gpus"];
const ENGINES: &[&str] = &["process", "podman", "docker"];
const LATER_ENGINES: &[&str] = &["singularity"];
const NETWORKS: &[&str] = &["none", "host"];

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command<'n> {
    /// For `sh -c`.
    Shell(Text<'n>),
    /// Program and arguments.
    Words(Vec<Text<'n>>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum ForEach<'n> {
    Items(Vec<Text<'n>>),
    Glob(Text<'n>),
}

/// What is said about a job, or about all jobs under `defaults`.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings<'n> {
    pub(super) name: Field<Text<'n>>,
    pub(super) command: Field<Command<'n>>,
    pub(super) env: Vec<(Text<'n>, Text<'n>)>,
    pub(super) cwd: Field<Text<'n>>,
    pub(super) stdin: Field<Text<'n>>,
    pub(super) vcpus: Field<u32>,
    pub(super) ram: Field<ByteSize>,
    pub(super) scratch: Field<ByteSize>,
    pub(super) priority: Field<i64>,
    pub(super) time_limit_ms: Field<u64>,
    pub(super) process_limit: Field<u32>,
    pub(super) output_limit: Field<ByteSize>,
    pub(super) retries: Field<u32>,
    pub(super) keep_output: Field<bool>,
    pub(super) preemptible: Field<Preemptible>,
    pub(super) for_each: Field<ForEach<'n>>,
    pub(super) engine: Field<Engine>,
    pub(super) image: Field<Text<'n>>,
    pub(super) mounts: Field<Vec<Text<'n>>>,
    pub(super) network: Field<Network>,
}

impl<'n> Settings<'n> {
    /// These, completed by `defaults`; variables are merged one by one.
    pub(super) fn or(mut self, defaults: &Self) -> Self {
        let own: BTreeSet<&str> = self.env.iter().map(|(key, _)| key.text).collect();
        let others = defaults
            .env
            .iter()
            .filter(|(key, _)| !own.contains(key.text));
        let mut env: Vec<_> = others.copied().collect();
        env.append(&mut self.env);
        Self {
            name: self.name,
            command: self.command.or(&defaults.command),
            env,
            cwd: self.cwd.or(&defaults.cwd),
            stdin: self.stdin.or(&defaults.stdin),
            vcpus: self.vcpus.or(&defaults.vcpus),
            ram: self.ram.or(&defaults.ram),
            scratch: self.scratch.or(&defaults.scratch),
            priority: self.priority.or(&defaults.priority),
            time_limit_ms: self.time_limit_ms.or(&defaults.time_limit_ms),
            process_limit: self.process_limit.or(&defaults.process_limit),
            output_limit: self.output_limit.or(&defaults.output_limit),
            retries: self.retries.or(&defaults.retries),
            keep_output: self.keep_output.or(&defaults.keep_output),
            preemptible: self.preemptible.or(&defaults.preemptible),
            for_each: self.for_each,
            engine: self.engine.or(&defaults.engine),
            image: self.image.or(&defaults.image),
            mounts: self.mounts.or(&defaults.mounts),
            network: self.network.or(&defaults.network),
        }
    }
}

impl Settings<'_> {
    /// How many texts each job has of these.
    pub(super) fn texts(&self) -> usize {
        let words = match self.command.good() {
            Some(Command::Words(words)) => words.len(),
            Some(Command::Shell(_)) | None => 1,
        };
        words + 2 * self.env.len() + self.mounts.good().map_or(0, Vec::len)
    }
}

/// A job file as it was written.
#[derive(Debug, Default)]
pub(super) struct Document<'n> {
    pub(super) name: Field<Text<'n>>,
    pub(super) defaults: Settings<'n>,
    pub(super) jobs: Vec<(Position, Settings<'n>)>,
}

/// Reads the whole file.
pub(super) fn read<'n>(root: &'n Node<'_>, problems: &mut Problems) -> Document<'n> {
    let mut document = Document::default();
    let Some(entries) = mapping(root, "a mapping with the key \"jobs\"", problems) else {
        return document;
    };
    let mut has_jobs = false;
    for Entry { key, at, value } in entries {
        match &**key {
            "name" => document.name = Field::new(text(value, "a text", problems), value.at),
            "defaults" => document.defaults = settings(value, true, problems),
            "jobs" => {
                has_jobs = true;
                document.jobs = jobs(value, problems);
            }
            key if JOB_KEYS.contains(&key) => problems.add(
                *at,
                format!("{key:?} belongs to a job; put it under \"defaults\" to set it for all"),
            ),
            key => {
                let meant = unknown(key, *at, FILE_KEYS, problems);
                has_jobs |= meant == Some("jobs");
            }
        }
    }
    if !has_jobs {
        problems.add(
            root.at,
            "there is no key \"jobs\"; it holds the list of jobs",
        );
    }
    document
}

fn jobs<'n>(node: &'n Node<'_>, problems: &mut Problems) -> Vec<(Position, Settings<'n>)> {
    let Some(items) = list(node, "a list of jobs", problems) else {
        return Vec::new();
    };
    if items.is_empty() {
        problems.add(node.at, "\"jobs\" is empty; describe at least one job");
    }
    let read = |item: &'n Node<'_>| (item.at, settings(item, false, problems));
    items.iter().map(read).collect()
}

fn settings<'n>(node: &'n Node<'_>, is_default: bool, problems: &mut Problems) -> Settings<'n> {
    let mut s = Settings::default();
    let expected = "a mapping with keys like \"name\" and \"command\"";
    let Some(entries) = mapping(node, expected, problems) else {
        // Nothing is missing in something that could not be read at all.
        s.name = Field::Bad;
        s.command = Field::Bad;
        return s;
    };
    for entry in entries {
        let Entry { key, at, value } = entry;
        match &**key {
            key @ ("name" | "for_each") if is_default => {
                problems.add(
                    *at,
                    format!("{key:?} cannot be a default; give it to each job"),
                );
            }
            "name" => s.name = text_field(value, problems),
            "command" => s.command = Field::new(command(value, problems), value.at),
            "env" => s.env = env(value, problems),
            "cwd" => s.cwd = text_field(value, problems),
            "stdin" => s.stdin = text_field(value, problems),
            "resources" => resources(value, &mut s, problems),
            "priority" => {
                let range = 1..=MAX_PRIORITY.unsigned_abs();
                s.priority = number(value, range, problems);
            }
            "time_limit" => s.time_limit_ms = time_limit(value, problems),
            "process_limit" => s.process_limit = number(value, 1..=MAX_PROCESSES, problems),
            "output_limit" => s.output_limit = output_limit(value, problems),
            "retries" => s.retries = number(value, 0..=MAX_RETRIES, problems),
            "keep_output" => s.keep_output = boolean(value, problems),
            "for_each" => s.for_each = Field::new(for_each(value, problems), value.at),
            "engine" => s.engine = Field::new(engine(value, problems), value.at),
            "image" => s.image = text_field(value, problems),
            "mounts" => s.mounts = Field::new(mounts(value, problems), value.at),
            "network" => s.network = Field::new(network(value, problems), value.at),
            "preemptible" => s.preemptible = preemptible(value, problems),
            key if RESOURCE_KEYS.contains(&key) => {
                problems.add(*at, format!("{key:?} belongs under \"resources\""));
            }
            // That it is missing need not be said, too.
            key => match unknown(key, *at, JOB_KEYS, problems) {
                Some("name") if s.name == Field::Absent => s.name = Field::Bad,
                Some("command") if s.command == Field::Absent => s.command = Field::Bad,
                _ => {}
            },
        }
    }
    s
}

/// What is wrong with so much RAM, if anything.
pub(crate) fn too_little_ram(ram: ByteSize) -> Option<String> {
    let message = || format!("{ram} of RAM is less than {MIN_RAM}; write a unit, like 512MiB");
    (ram < MIN_RAM).then(message)
}

fn resources(node: &Node<'_>, s: &mut Settings<'_>, problems: &mut Problems) {
    let expected = "a mapping with the keys \"vcpus\", \"ram\" and \"scratch\"";
    for Entry { key, at, value } in mapping(node, expected, problems).unwrap_or_default() {
        match &**key {
            "vcpus" => s.vcpus = number(value, 1..=u64::from(u32::MAX), problems),
            "ram" => {
                s.ram = size(value, problems);
                if let Some(message) = s.ram.good().and_then(|ram| too_little_ram(*ram)) {
                    problems.add(value.at, message);
                }
            }
            "scratch" => s.scratch = size(value, problems),
            key => {
                unknown(key, *at, RESOURCE_KEYS, problems);
            }
        }
    }
}

fn command<'n>(node: &'n Node<'_>, problems: &mut Problems) -> Option<Command<'n>> {
    let expected = "a text for the shell, or a list of a program and its arguments";
    if let Value::List(items) = node.value() {
        return texts(items, "a text", problems).map(Command::Words);
    }
    text(node, expected, problems).map(Command::Shell)
}

fn for_each<'n>(node: &'n Node<'_>, problems: &mut Problems) -> Option<ForEach<'n>> {
    let expected = "a list of texts, or a pattern of file names";
    if let Value::List(items) = node.value() {
        if items.is_empty() {
            problems.add(node.at, "\"for_each\" is an empty list, so it makes no job");
            return None;
        }
        return texts(items, "a text", problems).map(ForEach::Items);
    }
    text(node, expected, problems).map(ForEach::Glob)
}

fn env<'n>(node: &'n Node<'_>, problems: &mut Problems) -> Vec<(Text<'n>, Text<'n>)> {
    let expected = "a mapping from names of variables to texts";
    let mut variables = Vec::new();
    for Entry { key, at, value } in mapping(node, expected, problems).unwrap_or_default() {
        if key.is_empty() || key.contains(['=', '\0']) {
            let key = excerpt(key);
            problems.add(*at, format!("{key:?} cannot be the name of a variable"));
        }
        if let Some(value) = text(value, "a text", problems) {
            variables.push((Text { text: key, at: *at }, value));
        }
    }
    variables
}

fn engine(node: &Node<'_>, problems: &mut Problems) -> Option<Engine> {
    let name = text(node, "the name of an engine", problems)?.text;
    match name {
        "process" => return Some(Engine::Process),
        "podman" => return Some(Engine::Podman),
        "docker" => return Some(Engine::Docker),
        later if LATER_ENGINES.contains(&later) => {
            let known = ENGINES.join(", ");
            let message =
                format!("the engine {later:?} is not supported by this version; there are {known}");
            problems.add(node.at, message);
        }
        other => unknown_value("engine", other, node.at, ENGINES, problems),
    }
    None
}

fn network(node: &Node<'_>, problems: &mut Problems) -> Option<Network> {
    let name = text(node, "\"none\" or \"host\"", problems)?.text;
    match name {
        "none" => return Some(Network::None),
        "host" => return Some(Network::Host),
        other => unknown_value("network", other, node.at, NETWORKS, problems),
    }
    None
}

fn mounts<'n>(node: &'n Node<'_>, problems: &mut Problems) -> Option<Vec<Text<'n>>> {
    let items = list(node, "a list of mounts like \"data:/data:ro\"", problems)?;
    texts(items, "a mount like \"data:/data:ro\"", problems)
}

/// Complains about a value, and says which one may be meant.
fn unknown_value(
    what: &str,
    value: &str,
    at: Position,
    known: &[&'static str],
    problems: &mut Problems,
) {
    let advice = match nearest(value, known) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("there are {}", known.join(", ")),
    };
    let shown = excerpt(value);
    problems.add(at, format!("there is no {what} {shown:?}; {advice}"));
}

fn output_limit(node: &Node<'_>, problems: &mut Problems) -> Field<ByteSize> {
    let limit = size(node, problems);
    if limit.good().is_some_and(|limit| *limit < MIN_OUTPUT_LIMIT) {
        let message = format!("an output limit must be at least {MIN_OUTPUT_LIMIT}");
        problems.add(node.at, message);
        return Field::Bad;
    }
    limit
}

fn preemptible(node: &Node<'_>, problems: &mut Problems) -> Field<Preemptible> {
    let value = match node.value() {
        Value::Scalar(Scalar { text, .. }) => text.parse::<Preemptible>().ok(),
        _ => None,
    };
    if value.is_none() {
        let found = node.describe();
        let message = format!("expected true, false or prefer, found {found}");
        problems.add(node.at, message);
    }
    Field::new(value, node.at)
}

fn time_limit(node: &Node<'_>, problems: &mut Problems) -> Field<u64> {
    let Some(Text { text, at }) = text(node, "a duration like 90s or 1h30m", problems) else {
        return Field::Bad;
    };
    let millis = limit_in_millis(text).map_err(|message| problems.add(at, message));
    Field::new(millis.ok(), at)
}

/// A time limit as it is written, in milliseconds, or what is wrong with it.
pub(crate) fn limit_in_millis(text: &str) -> Result<u64, String> {
    let limit = parse_duration(text).map_err(|error| error.to_string())?;
    match u64::try_from(limit.as_millis()) {
        Ok(0) | Err(_) => Err("a time limit must be at least 1ms".into()),
        Ok(millis) => Ok(millis),
    }
}

/// Complains about a key, and says which one may be meant.
fn unknown(
    key: &str,
    at: Position,
    known: &[&'static str],
    problems: &mut Problems,
) -> Option<&'static str> {
    if LATER_KEYS.contains(&key) {
        let message = format!("{key:?} is not supported by this version; remove it");
        problems.add(at, message);
        return None;
    }
    if key == "<<" {
        let message = "merging with \"<<\" is not supported; use \"defaults\"";
        problems.add(at, message);
        return None;
    }
    let shown = excerpt(key);
    let meant = nearest(key, known);
    let advice = match meant {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("known keys are {}", known.join(", ")),
    };
    problems.add(at, format!("unknown key {shown:?}; {advice}"));
    meant
}
