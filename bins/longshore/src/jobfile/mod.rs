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
//! Further keys of a job: `env`, `stdin` (a file), `priority` (1 to 1000, default 500), `retries`
//! (after a lost machine, default 3), `keep_output`, `engine` (`process`). Without `cwd` a job
//! runs in a fresh directory.
//!
//! In the texts of a job with `for_each`, `{item}` is the item and `{index}` its number from 1.
//! Items of a pattern are absolute paths, except in the name, where they are as the pattern found
//! them.

mod expand;
mod glob;
mod problem;
mod schema;
mod tree;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use longshore_runner_api::StartDocument;
use longshore_types::{ResourceRequest, Resources};
use sha2::{Digest, Sha256};

pub use problem::{Position, Problem};

use expand::Expander;
use problem::Problems;

/// The most jobs in one file, those of `for_each` counted one by one.
pub const MAX_JOBS: usize = 100_000;
/// The largest file in bytes.
pub const MAX_FILE_BYTES: u64 = 10_000_000;

/// What jobs may ask for.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// What a job may use of each kind of machine there is. With a single one, messages call it
    /// "this machine"; with none, no job is too large.
    pub capacities: Vec<Resources>,
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
    let (real_path, bytes) = read_bytes(path)
        .map_err(|message| problems.add_general(message))
        .ok()?;
    let text = decode(&bytes, problems)?;
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

/// The real path and content of a regular file of reasonable size.
fn read_bytes(path: &Path) -> Result<(PathBuf, Vec<u8>), String> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; check the path".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let real_path = path.canonicalize().map_err(cannot)?;
    if real_path.to_str().is_none() {
        return Err("its full path is not UTF-8; move it elsewhere".into());
    }
    let kind = real_path.metadata().map_err(cannot)?;
    if kind.is_dir() {
        return Err("is a directory; name a job file in it".into());
    }
    if !kind.is_file() {
        return Err("is not a regular file; copy it to one".into());
    }
    let file = File::open(&real_path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("has more than 10 MB, the most that a job file may have; split it".into());
    }
    Ok((real_path, bytes))
}

fn decode<'a>(bytes: &'a [u8], problems: &mut Problems) -> Option<&'a str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let line_start = good.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
            let count = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().count();
            let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let at = Position {
                line: small(1 + good.iter().filter(|&&b| b == b'\n').count()),
                column: small(1 + count(&good[line_start..])),
            };
            problems.add(at, "is not UTF-8 text; save it as UTF-8");
            return None;
        }
    };
    Some(text.strip_prefix('\u{feff}').unwrap_or(text))
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
