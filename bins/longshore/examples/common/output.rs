//! What a job must come to, and whether it did.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::eye::Row;
use super::witness::greeting;

/// How much of a stream is kept where not all of it is asked for.
const KEPT_BYTES: usize = 1 << 20;

/// What a job must come to.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) exit_code: i64,
    /// What follows the wrapper's greeting on both streams, where that is known.
    pub(crate) output: Option<[String; 2]>,
    /// Whether all of the output is kept.
    pub(crate) whole: bool,
}

/// Each job that must be in the store, with its row there; what is not as it must be.
///
/// Of the containers in `bereft` a stream may be missing if the store says so: their machine was
/// lost before all of the output was home. What is there must be whole.
pub(crate) fn judge_jobs<'r>(
    state: &Path,
    rows: &'r [Row],
    expected: impl ExactSizeIterator<Item = (&'r str, &'r Expected)>,
    bereft: &BTreeSet<String>,
    wrongs: &mut Vec<String>,
) {
    let by_name: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.name.as_str(), row)).collect();
    if rows.len() != expected.len() {
        let (is, should) = (rows.len(), expected.len());
        wrongs.push(format!("the store has {is} jobs, not {should}"));
    }
    for (name, expected) in expected {
        match by_name.get(name) {
            Some(row) => {
                judge_end(row, expected, wrongs);
                judge_output(state, row, expected, bereft.contains(&row.uuid), wrongs);
            }
            None => wrongs.push(format!("{name}: is not in the store")),
        }
    }
}

fn judge_end(row: &Row, expected: &Expected, wrongs: &mut Vec<String>) {
    let (name, uuid, state, error) = (&row.name, &row.uuid, row.state, &row.error);
    if state != 3 || row.exit_code != Some(expected.exit_code) || error.is_some() {
        let code = row.exit_code;
        wrongs.push(format!(
            "{name} ({uuid}): state {state}, exit code {code:?}, {error:?}"
        ));
    }
}

fn judge_output(
    state: &Path,
    row: &Row,
    expected: &Expected,
    may_miss: bool,
    wrongs: &mut Vec<String>,
) {
    let folder = state.join("controller/logs").join(&row.uuid);
    for (n, stream) in ["stdout", "stderr"].into_iter().enumerate() {
        let path = folder.join(stream);
        let is_told = row.lost.get(n).is_some_and(|lost| *lost);
        if may_miss && is_told && !path.exists() {
            continue;
        }
        let kept = fs::read_to_string(path).unwrap_or_default();
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
