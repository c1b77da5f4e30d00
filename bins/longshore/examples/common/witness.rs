//! The witness: what jobs themselves say about when they ran.
//!
//! Every job is wrapped: the wrapper appends a line before and after the job, each by one write
//! to a file opened for append. So the order of lines is the order of events, whatever clocks say.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The first argument that makes this program a wrapper.
pub(crate) const ROLE: &str = "witness";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    Start,
    Stop,
    /// Nothing runs on this host any more, nor will: told by whoever ended the host.
    Off,
}

/// One line of the witness file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) event: Event,
    pub(crate) uuid: String,
    pub(crate) attempt: u32,
    pub(crate) pid: u32,
    pub(crate) host: String,
    pub(crate) boot: String,
    /// For people; the order of lines is what counts.
    pub(crate) time_ms: u64,
    /// What the job inherited beside its three streams.
    #[serde(default)]
    pub(crate) descriptors: Vec<String>,
}

/// What the wrapper says on both streams before the job begins.
pub(crate) fn greeting(uuid: &str, attempt: u32, stream: &str) -> String {
    format!("begin {uuid} attempt {attempt} on {stream}\n")
}

/// Runs `FILE COMMAND...` between two lines of the witness file.
#[expect(clippy::print_stdout, reason = "the job's output is compared later")]
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let [file, program, rest @ ..] = arguments else {
        anyhow::bail!("{ROLE} FILE COMMAND...");
    };
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let uuid = variable("LONGSHORE_CONTAINER_UUID")?;
    let mut record = Record {
        event: Event::Start,
        descriptors: inherited(&uuid),
        uuid,
        attempt: variable("LONGSHORE_ATTEMPT")?.parse()?,
        pid: std::process::id(),
        host: kernel("hostname")?,
        boot: kernel("random/boot_id")?,
        time_ms: 0,
    };
    append(Path::new(file), &mut record)?;
    print!("{}", greeting(&record.uuid, record.attempt, "stdout"));
    eprint!("{}", greeting(&record.uuid, record.attempt, "stderr"));
    std::io::stdout().flush()?;
    let status = Command::new(program).args(rest).status();
    record.event = Event::Stop;
    append(Path::new(file), &mut record)?;
    let status = status.with_context(|| format!("cannot run {program}"))?;
    let signal = || status.signal().map_or(255, |signal| 128 + signal);
    let code = status.code().unwrap_or_else(signal);
    Ok(ExitCode::from(u8::try_from(code)?))
}

/// Reads a witness file; a line that cannot be read is an error.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("bad witness: {line}")))
        .collect()
}

/// Adds one line by a single write.
pub(crate) fn append(path: &Path, record: &mut Record) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    record.time_ms = u64::try_from(now.as_millis())?;
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let written = file.write(&line)?;
    anyhow::ensure!(written == line.len(), "the witness file is full");
    Ok(())
}

fn kernel(name: &str) -> Result<String> {
    let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name))?;
    Ok(text.trim().to_owned())
}

/// Where the open descriptors beyond standard error lead. The lock file of the container is meant
/// to be among them: as long as anything of it runs, it is locked.
fn inherited(uuid: &str) -> Vec<String> {
    let own = format!("/proc/{}/fd", std::process::id());
    let lock = format!("/lock/{uuid}.lock");
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    entries
        .flatten()
        .filter(|entry| {
            let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
            number.is_none_or(|number: u32| number > 2)
        })
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .filter(|target| *target != own && !target.ends_with(&lock))
        .collect()
}
