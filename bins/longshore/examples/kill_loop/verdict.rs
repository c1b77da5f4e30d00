//! What must hold when a batch has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::common::checker::check;
use crate::common::eye::Row;
use crate::common::forgeries::inject_double;
use crate::common::left::{cgroups, children, left_behind, transfers};
use crate::common::output;
use crate::common::witness;
use crate::round::Round;

/// At most so many wrongs are told.
const MAX_TOLD: usize = 40;

/// Everything that is wrong after a round; empty if nothing is.
pub(crate) fn judge(round: &Round, inject: bool) -> Result<Vec<String>> {
    let sight = round.eye().look_at_copy()?;
    let mut wrongs = Vec::new();
    if sight.batches != 1 {
        wrongs.push(format!("{} batches were submitted, not one", sight.batches));
    }
    judge_witness(round, &sight.rows, inject, &mut wrongs)?;
    judge_jobs(round, &sight.rows, &mut wrongs);
    judge_log(&round.state, &mut wrongs);
    let uuids: BTreeSet<&str> = sight.rows.iter().map(|row| row.uuid.as_str()).collect();
    wrongs.extend(left_behind(|| left(round, &uuids)));
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
    // Nothing here is a reason to run anything again.
    let given_up = BTreeSet::new();
    let mut records = witness::read(&path)?;
    if inject {
        inject_double(&mut records);
        fs::remove_file(&path)?;
        for record in &mut records {
            witness::append(&path, record)?;
        }
        records = witness::read(&path)?;
    }
    let violations = check(&records, &expected, &given_up);
    wrongs.extend(violations.iter().map(|violation| {
        let text = violation.to_string();
        let name = names.iter().find(|(uuid, _)| text.contains(**uuid));
        format!("witness: {text} ({})", name.map_or("?", |(_, name)| name))
    }));
    // The same records with a double in them must not pass.
    let mut forged = records.clone();
    if inject_double(&mut forged) && check(&forged, &expected, &given_up) == violations {
        wrongs.push("the checker overlooks a double in this round's records".to_owned());
    }
    Ok(())
}

fn judge_jobs(round: &Round, rows: &[Row], wrongs: &mut Vec<String>) {
    let expected = round.plan.expected.iter();
    let expected = expected.map(|(name, expected)| (name.as_str(), expected));
    output::judge_jobs(&round.state, rows, expected, &BTreeSet::new(), wrongs);
    for row in rows.iter().filter(|row| row.lock_count != 1) {
        let (name, uuid, times) = (&row.name, &row.uuid, row.lock_count);
        wrongs.push(format!("{name} ({uuid}): was locked {times} times"));
    }
    for (name, file) in &round.plan.files {
        if fs::metadata(file).map_or(0, |file| file.len()) == 0 {
            wrongs.push(format!("{name}: has not written {}", file.display()));
        }
    }
}

fn judge_log(state: &Path, wrongs: &mut Vec<String>) {
    let text = fs::read_to_string(state.join("longshore.log")).unwrap_or_default();
    let bad =
        |line: &&str| line.contains("ERROR") || line.contains("bug:") || line.contains("panicked");
    wrongs.extend(text.lines().filter(bad).map(|line| format!("log: {line}")));
}

fn left(round: &Round, uuids: &BTreeSet<&str>) -> Vec<String> {
    let mut left = processes(&round.folder);
    left.extend(sockets(&round.folder));
    left.extend(instances(&round.state));
    left.extend(transfers(&round.state));
    left.extend(cgroups(uuids));
    left
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

/// Directories of instances, with locks of containers.
fn instances(state: &Path) -> Vec<String> {
    let mut left = children(&state.join("loopback"));
    left.retain(|path| path.file_name().is_none_or(|name| name != "lock"));
    left.iter().map(|path| path.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_is_left_is_found_by_what_its_environment_names() {
        let folder = tempfile::tempdir().unwrap();
        assert!(processes(folder.path()).is_empty());
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo up; read -r _"])
            .env("X", folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Before it runs, its environment is not there to be read.
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut String::new()).unwrap();
        let found = processes(folder.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            found.iter().any(|line| line.contains("echo up")),
            "{found:?}"
        );
        assert!(processes(folder.path()).is_empty());
    }
}
