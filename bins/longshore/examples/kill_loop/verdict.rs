//! What must hold when a batch has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::checker::{check, inject_double};
use crate::eye::{Eye, Row};
use crate::jobs::Expected;
use crate::round::Round;
use crate::witness::{self, greeting};

/// How long what ends may take to be gone, on a machine that has other work.
const GONE_PATIENCE: Duration = Duration::from_secs(30);
/// How much of a stream is kept where not all of it is asked for.
const KEPT_BYTES: usize = 1 << 20;
/// At most so many wrongs are told.
const MAX_TOLD: usize = 40;

/// Everything that is wrong after a round; empty if nothing is.
pub(crate) fn judge(round: &Round, inject: bool) -> Result<Vec<String>> {
    let sight = Eye::new(&round.state).look_at_copy()?;
    let mut wrongs = Vec::new();
    if sight.batches != 1 {
        wrongs.push(format!("{} batches were submitted, not one", sight.batches));
    }
    judge_witness(round, &sight.rows, inject, &mut wrongs)?;
    judge_jobs(round, &sight.rows, &mut wrongs);
    judge_log(&round.state, &mut wrongs);
    let uuids: BTreeSet<&str> = sight.rows.iter().map(|row| row.uuid.as_str()).collect();
    wrongs.extend(left_behind(round, &uuids));
    if wrongs.len() > MAX_TOLD {
        let more = wrongs.len() - MAX_TOLD;
        wrongs.truncate(MAX_TOLD);
        wrongs.push(format!("and {more} more"));
    }
    Ok(wrongs)
}

fn judge_witness(
    round: &Round,
    rows: &[Row],
    inject: bool,
    wrongs: &mut Vec<String>,
) -> Result<()> {
    let path = round.folder.join("witness");
    let expected: BTreeSet<String> = rows.iter().map(|row| row.uuid.clone()).collect();
    let names: BTreeMap<&str, &str> = rows
        .iter()
        .map(|row| (row.uuid.as_str(), row.name.as_str()))
        .collect();
    let mut records = witness::read(&path)?;
    if inject {
        inject_double(&mut records);
        fs::remove_file(&path)?;
        for record in &mut records {
            witness::append(&path, record)?;
        }
        records = witness::read(&path)?;
    }
    let violations = check(&records, &expected);
    wrongs.extend(violations.iter().map(|violation| {
        let text = violation.to_string();
        let name = names.iter().find(|(uuid, _)| text.contains(**uuid));
        format!("witness: {text} ({})", name.map_or("?", |(_, name)| name))
    }));
    // The same records with a double in them must not pass.
    let mut forged = records.clone();
    if inject_double(&mut forged) && check(&forged, &expected) == violations {
        wrongs.push("the checker overlooks a double in this round's records".to_owned());
    }
    Ok(())
}

fn judge_jobs(round: &Round, rows: &[Row], wrongs: &mut Vec<String>) {
    let by_name: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.name.as_str(), row)).collect();
    if rows.len() != round.plan.expected.len() {
        let (is, should) = (rows.len(), round.plan.expected.len());
        wrongs.push(format!("the store has {is} jobs, not {should}"));
    }
    for (name, expected) in &round.plan.expected {
        let Some(row) = by_name.get(name.as_str()) else {
            wrongs.push(format!("{name}: is not in the store"));
            continue;
        };
        let (uuid, state, error) = (&row.uuid, row.state, &row.error);
        if state != 3 || row.exit_code != Some(expected.exit_code) || error.is_some() {
            let code = row.exit_code;
            wrongs.push(format!(
                "{name} ({uuid}): state {state}, exit code {code:?}, {error:?}"
            ));
        }
        if row.lock_count != 1 {
            wrongs.push(format!(
                "{name} ({uuid}): was locked {} times",
                row.lock_count
            ));
        }
        judge_output(&round.state, row, expected, wrongs);
        if let Some(file) = &expected.file
            && fs::metadata(file).map_or(0, |file| file.len()) == 0
        {
            wrongs.push(format!("{name}: has not written {}", file.display()));
        }
    }
}

fn judge_output(state: &Path, row: &Row, expected: &Expected, wrongs: &mut Vec<String>) {
    let folder = state.join("controller/logs").join(&row.uuid);
    for (n, stream) in ["stdout", "stderr"].into_iter().enumerate() {
        let kept = fs::read_to_string(folder.join(stream)).unwrap_or_default();
        let mut full = greeting(&row.uuid, row.lock_count, stream);
        let good = match &expected.output {
            None => kept.starts_with(&full),
            Some(output) => {
                full.push_str(output.get(n).map_or("", String::as_str));
                kept == limited(full.clone(), expected.whole)
            }
        };
        if !good {
            let (name, uuid) = (&row.name, &row.uuid);
            let begin: String = kept.chars().take(100).collect();
            let (is, should) = (kept.len(), full.len());
            wrongs.push(format!(
                "{name} ({uuid}): {stream} has {is} bytes and not what was written, {should}: {begin:?}"
            ));
        }
    }
}

/// What is kept of a text.
fn limited(text: String, whole: bool) -> String {
    match text.len().checked_sub(KEPT_BYTES) {
        None | Some(0) => text,
        Some(_) if whole => text,
        Some(dropped) => format!(
            "[longshore: {dropped} bytes before this were dropped]\n{}",
            text.get(dropped..).unwrap_or_default()
        ),
    }
}

fn judge_log(state: &Path, wrongs: &mut Vec<String>) {
    let text = fs::read_to_string(state.join("longshore.log")).unwrap_or_default();
    let bad =
        |line: &&str| line.contains("ERROR") || line.contains("bug:") || line.contains("panicked");
    wrongs.extend(text.lines().filter(bad).map(|line| format!("log: {line}")));
}

/// What is still there after a while.
fn left_behind(round: &Round, uuids: &BTreeSet<&str>) -> Vec<String> {
    let since = Instant::now();
    loop {
        let mut left = processes(&round.folder);
        left.extend(sockets(&round.folder));
        left.extend(files(&round.state));
        cgroups(Path::new("/sys/fs/cgroup"), uuids, 0, &mut left);
        if left.is_empty() || since.elapsed() >= GONE_PATIENCE {
            return left
                .into_iter()
                .map(|what| format!("left behind: {what}"))
                .collect();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes of ours: their command line, environment or open files name the folder.
fn processes(folder: &Path) -> Vec<String> {
    let needle = folder.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for process in children(Path::new("/proc")) {
        let pid = process
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok());
        let Some(pid) = pid.filter(|&pid| pid != std::process::id()) else {
            continue;
        };
        let text = |name| {
            let bytes = fs::read(process.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = text("cmdline");
        let open = children(&process.join("fd"));
        let open = open.iter().filter_map(|link| fs::read_link(link).ok());
        let open: Vec<PathBuf> = open.filter(|target| target.starts_with(folder)).collect();
        if command.contains(&needle) || text("environ").contains(&needle) || !open.is_empty() {
            found.push(format!("process {pid}: {command}, open files {open:?}"));
        }
    }
    found
}

fn sockets(folder: &Path) -> Vec<String> {
    let needle = folder.to_string_lossy().into_owned();
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains(&needle));
    lines.map(|line| format!("socket {line}")).collect()
}

/// Directories of instances, locks of containers, and unfinished transfers.
fn files(state: &Path) -> Vec<String> {
    let mut left = children(&state.join("loopback"));
    left.retain(|path| path.file_name().is_none_or(|name| name != "lock"));
    for container in children(&state.join("controller/logs")) {
        let names = children(&container).into_iter();
        left.extend(names.filter(|path| {
            path.file_name()
                .is_none_or(|name| name != "stdout" && name != "stderr")
        }));
    }
    left.iter().map(|path| path.display().to_string()).collect()
}

fn cgroups(folder: &Path, uuids: &BTreeSet<&str>, depth: usize, left: &mut Vec<String>) {
    for path in children(folder) {
        if depth > 12 || path.is_symlink() || !path.is_dir() {
            continue;
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if uuids.iter().any(|uuid| name.contains(uuid)) {
            left.push(format!("control group {}", path.display()));
        }
        cgroups(&path, uuids, depth + 1, left);
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_is_left_is_found_by_what_its_environment_names() {
        let folder = tempfile::tempdir().unwrap();
        assert!(processes(folder.path()).is_empty());
        let mut command = Command::new("sleep");
        let mut child = command.arg("60").env("X", folder.path()).spawn().unwrap();
        let found = processes(folder.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            found.iter().any(|line| line.contains("sleep 60")),
            "{found:?}"
        );
        assert!(processes(folder.path()).is_empty());
    }
}
