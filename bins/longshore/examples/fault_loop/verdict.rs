//! What must hold when a batch has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::commands::run;
use crate::common::checker::check;
use crate::common::eye::Row;
use crate::common::forgeries::inject_double;
use crate::common::left::{cgroups, left_behind, transfers};
use crate::common::output;
use crate::common::witness::{self, Event};
use crate::network;
use crate::processes;
use crate::round::Round;
use crate::yard::Condition;

/// At most so many wrongs are told.
const MAX_TOLD: usize = 40;

/// What there was before a round.
#[derive(Debug)]
pub(crate) struct Before {
    interfaces: Vec<String>,
    mounts: BTreeSet<String>,
}

impl Before {
    pub(crate) fn look() -> Result<Self> {
        Ok(Self {
            interfaces: network::interfaces()?,
            mounts: mounts()?,
        })
    }
}

/// What a round came to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) wrongs: Vec<String>,
    /// How many jobs ran more than once, and rightly so.
    pub(crate) run_again: usize,
    /// How many machines were rightly given up.
    pub(crate) given_up: usize,
    /// How many containers were on silent hosts that were not given up.
    pub(crate) borne: usize,
}

/// Whether what is left behind is found; what is overlooked is the error.
pub(crate) fn self_test(before: &Before) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut child = Command::new("sleep").arg("987").spawn()?;
    run("ip link add forged type bridge")?;
    run(&format!(
        "mount -t tmpfs forged {}",
        folder.path().display()
    ))?;
    let found = remains(before);
    run(&format!("umount {}", folder.path().display()))?;
    run("ip link del forged")?;
    child.kill()?;
    child.wait()?;
    for wanted in ["sleep", "interface forged", "tmpfs forged"] {
        let is_found = found.iter().any(|what| what.contains(wanted));
        ensure!(
            is_found,
            "{wanted:?}, left behind, is overlooked: {found:?}"
        );
    }
    let found = remains(before);
    ensure!(found.is_empty(), "found where nothing is left: {found:?}");
    Ok(())
}

/// Everything that is wrong after a round, and what had to be borne.
pub(crate) fn judge(round: &Round, before: &Before, inject: bool) -> Result<Verdict> {
    let sight = round.eye().look_at_copy()?;
    let mut verdict = Verdict::default();
    if sight.batches != 1 {
        let submitted = format!("{} batches were submitted, not one", sight.batches);
        verdict.wrongs.push(submitted);
    }
    let bereft = judge_witness(round, &sight.rows, inject, &mut verdict)?;
    let expected = round.jobs.0.iter();
    let expected = expected.map(|(name, expected)| (name.as_str(), expected));
    let wrongs = &mut verdict.wrongs;
    output::judge_jobs(&round.state, &sight.rows, expected, &bereft, wrongs);
    judge_log(round, &mut verdict.wrongs);
    let uuids: BTreeSet<&str> = sight.rows.iter().map(|row| row.uuid.as_str()).collect();
    let left = left_behind(|| left(round, before, &uuids));
    verdict.wrongs.extend(left);
    let wrongs = &mut verdict.wrongs;
    if wrongs.len() > MAX_TOLD {
        let more = wrongs.len() - MAX_TOLD;
        wrongs.truncate(MAX_TOLD);
        wrongs.push(format!("and {more} more"));
    }
    Ok(verdict)
}

/// Returns the containers whose last attempt was on a machine that was rightly given up.
fn judge_witness(
    round: &Round,
    rows: &[Row],
    inject: bool,
    verdict: &mut Verdict,
) -> Result<BTreeSet<String>> {
    let path = round.folder.join("witness");
    let expected: BTreeSet<String> = rows.iter().map(|row| row.uuid.clone()).collect();
    let given_up = round.harm.given_up();
    let mut records = witness::read(&path)?;
    // The same records with a double in them must not pass.
    let mut forged = records.clone();
    let violations = check(&records, &expected, &given_up);
    if inject_double(&mut forged) && check(&forged, &expected, &given_up) == violations {
        let overlooked = "the checker overlooks a double in this round's records";
        verdict.wrongs.push(overlooked.to_owned());
    }
    if inject {
        records = forged;
    }
    let violations = check(&records, &expected, &given_up);
    let told = violations.iter().map(|violation| {
        let text = violation.to_string();
        let row = rows.iter().find(|row| text.contains(&row.uuid));
        format!("witness: {text} ({})", row.map_or("?", |row| &row.name))
    });
    verdict.wrongs.extend(told);
    let starts = records.iter().filter(|r| r.event == Event::Start);
    let mut seen = BTreeSet::new();
    let again: BTreeSet<&str> = starts
        .map(|record| record.uuid.as_str())
        .filter(|&uuid| !seen.insert(uuid))
        .collect();
    verdict.run_again = again.len();
    verdict.given_up = given_up.len();
    verdict.borne = round.harm.borne();
    let starts = records.iter().filter(|r| r.event == Event::Start);
    let last: BTreeMap<&str, &str> = starts.map(|r| (r.uuid.as_str(), r.host.as_str())).collect();
    let bereft = last
        .into_iter()
        .filter(|&(_, host)| given_up.contains(host));
    Ok(bereft.map(|(uuid, _)| uuid.to_owned()).collect())
}

fn judge_log(round: &Round, wrongs: &mut Vec<String>) {
    let text = fs::read_to_string(round.state.join("longshore.log")).unwrap_or_default();
    // Alarms are errors, too; here there is reason for them.
    let bad = |line: &&str| line.contains("bug:") || line.contains("panicked");
    wrongs.extend(text.lines().filter(bad).map(|line| format!("log: {line}")));
}

/// What is left of a round.
fn left(round: &Round, before: &Before, uuids: &BTreeSet<&str>) -> Vec<String> {
    let mut left = remains(before);
    match round.yard.machines() {
        Ok(mut machines) => {
            machines.retain(|machine| machine.condition != Condition::Gone);
            left.extend(machines.iter().map(|m| format!("instance {}", m.id)));
        }
        Err(error) => left.push(format!("instances: {error:#}")),
    }
    left.extend(transfers(&round.state));
    left.extend(cgroups(uuids));
    left
}

/// What the kernel has that it did not have before.
fn remains(before: &Before) -> Vec<String> {
    let mut left: Vec<String> = processes::others()
        .into_iter()
        .map(|pid| format!("process {pid}: {:?}", processes::command_line(pid)))
        .collect();
    let interfaces = network::interfaces().unwrap_or_default();
    let new = interfaces.iter().filter(|i| !before.interfaces.contains(i));
    left.extend(new.map(|interface| format!("interface {interface}")));
    let mounts = mounts().unwrap_or_default();
    let new = mounts.difference(&before.mounts);
    left.extend(new.map(|mount| format!("mount {mount}")));
    left
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().map(str::to_owned).collect())
}
