//! Job files: what `longshore run` is given.
//!
//! A job file is YAML or JSON. [`load`] reads one whole, reports everything that is wrong with it
//! at once, and gives the jobs it means as start documents and resource requests.
//!
//! ```yaml
//! name: checksums              # default: the name of the file
//! defaults:                    # for all jobs; env and resources are merged key by key
//!   resources: {vcpus: 1, ram: 256MiB, scratch: 0}
//! jobs:
//!   - name: count
//!     command: ls | wc -l      # a text for sh -c
//!     cwd: data                # relative paths start at the job file's directory
//!   - name: hash-{item}
//!     for_each: data/*.txt     # a list, or a pattern of file names: one job for each
//!     command: [sha256sum, "{item}"]
//!     time_limit: 10m
//! ```
//!
//! Further keys of a job: `env`, `stdin` (a file), `priority` (1 to 1000, default 500),
//! `process_limit` (processes and threads at once), `output_limit` (of each stream), `retries` (after
//! a lost machine, default 3), `keep_output`, `engine` (`process`, `podman`, `docker`), with an
//! engine of containers `image`, `mounts` and `network`, and `preemptible` (`true`, `false`, or
//! `prefer`: on preemptible machines while they are to be had). Without `cwd` a job runs in a fresh
//! directory.
//!
//! In the texts of a job with `for_each`, `{item}` is the item and `{index}` its number from 1.
//! Items of a pattern are absolute paths, except in the name, where they are as the pattern found
//! them.

mod expand;
mod glob;
mod schema;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use longshore_runner_api::StartDocument;
use longshore_types::{ByteSize, InstanceType, ResourceRequest, Resources};
use sha2::{Digest, Sha256};

pub use crate::yaml::problem::{Position, Problem};

use crate::yaml::problem::Problems;
use crate::yaml::{file, tree};
use expand::Expander;
#[cfg(test)]
pub(crate) use schema::JOB_KEYS;
pub(crate) use schema::{limit_in_millis, too_little_ram};

/// The most jobs in one file, those of `for_each` counted one by one.
pub const MAX_JOBS: usize = 100_000;
/// The largest file in bytes.
pub const MAX_FILE_BYTES: u64 = 10_000_000;

/// What jobs may ask for.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The kinds of machine there are, of which one must have all that a job asks for. With none,
    /// no job is too large.
    pub machines: Vec<Machine>,
}

/// A kind of machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What messages call it: "this machine", "the instance type large".
    pub name: String,
    /// What a job may use of it.
    pub room: Resources,
}

impl Machine {
    /// The only machine there is.
    pub fn this(room: Resources) -> Self {
        let name = "this machine".into();
        Self { name, room }
    }
}

impl From<&InstanceType> for Machine {
    fn from(instance_type: &InstanceType) -> Self {
        let mut room = instance_type.resources();
        // What the scheduler leaves to the machine's kernel.
        room.ram = ByteSize(room.ram.0 / 100 * 95);
        Self {
            name: format!("the instance type {}", instance_type.name),
            room,
        }
    }
}

/// A job file that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFile {
    /// What it calls itself, or the name of the file without its extension.
    pub name: String,
    /// Its absolute path with links resolved: with the hash, the identity of a batch.
    pub path: PathBuf,
    /// Hexadecimal SHA-256 of the file's bytes and of the file names that its patterns found.
    pub hash: String,
    /// In the order of the file; at least one, at most [`MAX_JOBS`], names unique.
    pub jobs: Vec<Job>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Unique in its file; may hold any character but NUL.
    pub name: String,
    /// What it runs.
    pub document: StartDocument,
    /// What it needs of its machine.
    pub request: ResourceRequest,
    /// 1 to 1000; higher goes first.
    pub priority: i64,
    /// How often it is tried again after its machine was lost.
    pub retries: u32,
    /// Whether all of its output is brought back, not just the end.
    pub keep_output: bool,
}

/// Reads a job file.
///
/// Errors are everything that is wrong with it (the first fifty things), in the order of the
/// file; there is always at least one.
pub fn load(path: &Path, limits: &Limits) -> Result<JobFile, Vec<Problem>> {
    let mut problems = Problems::default();
    let file = load_into(path, limits, &mut problems);
    match file {
        Some(file) if problems.is_empty() => Ok(file),
        _ => Err(problems.into_list(path)),
    }
}

fn load_into(path: &Path, limits: &Limits, problems: &mut Problems) -> Option<JobFile> {
    let (real_path, bytes) = file::read(path, "a job file", MAX_FILE_BYTES)
        .map_err(|message| problems.add_general(message))
        .ok()?;
    let text = file::decode(&bytes, problems)?;
    let root = tree::parse(text, problems);
    if problems.is_empty() && root.as_ref().is_none_or(tree::Node::is_null) {
        problems.add_general("is empty; a job file has a list of \"jobs\"");
        return None;
    }
    let root = root?;
    let document = schema::read(&root, problems);
    let name = match document.name.good() {
        Some(name) => name.text.to_owned(),
        None => {
            let stem = real_path.file_stem().unwrap_or_default();
            stem.to_string_lossy().into_owned()
        }
    };
    let directory = real_path.parent().unwrap_or(Path::new("/"));
    let (jobs, found) = Expander::new(directory, limits, problems).run(document);
    let hash = hash(&bytes, &found);
    Some(JobFile {
        name,
        path: real_path,
        hash,
        jobs,
    })
}

fn hash(bytes: &[u8], found: &[u8; 32]) -> String {
    let digest = Sha256::new_with_prefix(Sha256::digest(bytes))
        .chain_update(found)
        .finalize();
    let mut text = String::with_capacity(64);
    for byte in digest {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
