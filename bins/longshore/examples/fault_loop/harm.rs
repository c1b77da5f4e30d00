//! Doing things to hosts, and undoing them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::host::SSHD_DOWN;
use crate::network::set_cable;
use crate::plan::{Kind, Planned};
use crate::processes::{servers, signal};
use crate::yard::{Condition, Machine, SLOTS, Yard};

/// A host is left alone for so long after something was done to it.
const REST: Duration = Duration::from_secs(12);
/// At most so many are silent at a time, beside a cut of all: were it most of them, the dispatcher
/// would take it for an outage of its own, and put up with everything.
const MOST_SILENT: usize = SLOTS / 2;
/// Whoever is silent for longer may be given up.
pub(crate) const BEARABLE: Duration = Duration::from_secs(60);

/// A time in which a host could not answer.
#[derive(Clone, Debug)]
struct Silence {
    kind: Kind,
    machine: String,
    /// How many containers were there when it began.
    hits: usize,
    began: Instant,
    /// None: for good.
    ends: Option<Instant>,
    healed: bool,
}

/// What was done to hosts.
#[derive(Debug)]
pub(crate) struct Harm {
    yard: Yard,
    silences: Vec<Silence>,
    /// Cables that are cut.
    cut: BTreeSet<usize>,
}

impl Harm {
    pub(crate) fn new(yard: Yard) -> Self {
        Self {
            yard,
            silences: Vec::new(),
            cut: BTreeSet::new(),
        }
    }

    /// The hosts to which something may be done now.
    pub(crate) fn targets(&self, kind: Kind, now: Instant) -> Result<Vec<Machine>> {
        let mut machines = self.yard.machines()?;
        machines.retain(|machine| machine.condition == Condition::Running);
        let silent = |machine: &&Machine| {
            let mut own = self.silences.iter().filter(|s| s.machine == machine.id);
            own.any(|silence| !silence.healed && silence.kind != Kind::CutAll)
        };
        let all_silent = machines.iter().filter(silent).count() >= MOST_SILENT;
        if all_silent && !matches!(kind, Kind::CutAll | Kind::PowerOff) {
            return Ok(Vec::new());
        }
        if kind != Kind::CutAll {
            machines.retain(|machine| !servers(&self.yard.directory(&machine.id)).is_empty());
            machines.retain(|machine| {
                let mut own = self.silences.iter().filter(|s| s.machine == machine.id);
                own.all(|silence| silence.ends.is_some_and(|ends| ends + REST < now))
            });
        }
        Ok(machines)
    }

    /// Does it.
    pub(crate) fn begin(&mut self, planned: Planned, targets: &[(Machine, usize)]) -> Result<()> {
        let kind = planned.kind;
        let began = Instant::now();
        let ends = (!kind.is_for_good()).then(|| began + planned.lasts);
        for (machine, hits) in targets {
            let directory = self.yard.directory(&machine.id);
            self.silences.push(Silence {
                kind,
                machine: machine.id.clone(),
                hits: *hits,
                began,
                ends,
                healed: false,
            });
            match kind {
                Kind::Stop => signal(&servers(&directory), Signal::SIGSTOP),
                Kind::Kill | Kind::KillForGood => {
                    fs::write(directory.join(SSHD_DOWN), "")?;
                    signal(&servers(&directory), Signal::SIGKILL);
                }
                Kind::PowerOff => self.yard.power_off(&machine.id, true)?,
                Kind::PowerOffUnnoticed => self.yard.power_off(&machine.id, false)?,
                Kind::Cut | Kind::CutAll | Kind::PauseDispatcher | Kind::KillDispatcher => {}
            }
        }
        self.set_cables()
    }

    /// Undoes what was to last until now; how much is left to be undone.
    pub(crate) fn heal(&mut self) -> Result<usize> {
        let now = Instant::now();
        let due = |s: &&mut Silence| !s.healed && s.ends.is_some_and(|ends| ends <= now);
        for silence in self.silences.iter_mut().filter(due) {
            silence.healed = true;
            let directory = self.yard.directory(&silence.machine);
            match silence.kind {
                Kind::Stop => signal(&servers(&directory), Signal::SIGCONT),
                Kind::Kill => {
                    // It may have been destroyed meanwhile.
                    let _ = fs::remove_file(directory.join(SSHD_DOWN));
                }
                _ => {}
            }
            // What it took to undo this counts.
            silence.ends = Some(Instant::now());
        }
        self.set_cables()?;
        let left = |s: &&Silence| !s.healed && s.ends.is_some();
        Ok(self.silences.iter().filter(left).count())
    }

    fn set_cables(&mut self) -> Result<()> {
        let cuts = |s: &&Silence| !s.healed && matches!(s.kind, Kind::Cut | Kind::CutAll);
        let cut: BTreeSet<&str> = self
            .silences
            .iter()
            .filter(cuts)
            .map(|s| s.machine.as_str())
            .collect();
        if cut.is_empty() && self.cut.is_empty() {
            return Ok(());
        }
        let machines = self.yard.machines()?.into_iter();
        let wanted: BTreeSet<usize> = machines
            .filter(|m| m.condition == Condition::Running && cut.contains(m.id.as_str()))
            .map(|m| m.slot)
            .collect();
        for &slot in wanted.difference(&self.cut) {
            set_cable(slot, false);
        }
        for &slot in self.cut.difference(&wanted) {
            set_cable(slot, true);
        }
        self.cut = wanted;
        Ok(())
    }

    /// How many containers were on hosts that went silent and were not given up for that.
    pub(crate) fn borne(&self) -> usize {
        let given_up = self.given_up();
        let borne = |s: &&Silence| !given_up.contains(&s.machine);
        self.silences.iter().filter(borne).map(|s| s.hits).sum()
    }

    /// The hosts that were silent for good, or for longer than has to be borne: times with little
    /// rest between them count as one.
    pub(crate) fn given_up(&self) -> BTreeSet<String> {
        let mut times: BTreeMap<&str, Vec<(Instant, Option<Instant>)>> = BTreeMap::new();
        for silence in &self.silences {
            let own = times.entry(&silence.machine).or_default();
            own.push((silence.began, silence.ends));
        }
        let unbearable = times.into_iter().filter(|(_, times)| is_unbearable(times));
        unbearable.map(|(machine, _)| machine.to_owned()).collect()
    }
}

/// Whether somebody was silent for too long.
fn is_unbearable(times: &[(Instant, Option<Instant>)]) -> bool {
    let mut times = times.to_vec();
    times.sort();
    let mut whole: Option<(Instant, Instant)> = None;
    for (began, ends) in times {
        let Some(ends) = ends else { return true };
        let (first, last) = match whole {
            Some((first, last)) if began < last + REST => (first, last.max(ends)),
            _ => (began, ends),
        };
        // Undoing takes a moment.
        if last - first > BEARABLE + Duration::from_secs(1) {
            return true;
        }
        whole = Some((first, last));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_borne() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let time = |from, to| (at(from), Some(at(to)));
        assert!(!is_unbearable(&[time(0, 60)]));
        assert!(is_unbearable(&[time(0, 62)]));
        assert!(is_unbearable(&[(at(0), None)]));
        assert!(!is_unbearable(&[time(0, 40), time(53, 100)]));
        assert!(is_unbearable(&[time(50, 100), time(0, 40)]), "little rest");
        assert!(!is_unbearable(&[time(0, 60), time(10, 20)]), "within");
    }
}
