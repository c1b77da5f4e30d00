//! A model of `longshore-run`: what its commands do to the files and processes of one machine; and
//! of `crunch-run`, which numbers no attempts, remembers nothing, and keeps no results.
//!
//! Written from the runners' documentation (locks, attempts, marks, spool entries), not from their
//! code, and without the dispatcher's.

use std::collections::BTreeMap;

use longshore_types::{
    Attempt, ContainerReport, ContainerUuid, Exit, ExitCause, Instant, ReportedState, RunnerReport,
    Timestamp,
};

/// What one attempt's process will do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// When it ends by itself.
    pub(crate) ends_at: Instant,
    /// How.
    pub(crate) exit: ExitCause,
    /// How long it goes on after a TERM; none if it ignores that.
    pub(crate) term: Option<std::time::Duration>,
    /// What it writes to standard output.
    pub(crate) output_bytes: u64,
}

/// How long a process goes on that takes no notice of TERM.
const HANGS: std::time::Duration = std::time::Duration::from_secs(3600);

#[derive(Clone, Debug)]
enum State {
    /// Its supervisor holds its lock, and it runs.
    Running(Plan),
    /// Its supervisor is dead, and something holds the lock.
    Stale(Left),
    /// It ended; nothing holds the lock.
    Finished(Exit),
}

/// What a dead supervisor leaves behind: at least one of these holds its lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// When its process ends, if that goes on.
    pub(crate) process: Option<Instant>,
    /// Until when something else holds the lock, if something does.
    pub(crate) helper: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Entry {
    state: State,
    started_at: Timestamp,
}

/// What came of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    Yes,
    /// This attempt or a newer one is known.
    Known,
    /// An older attempt may still run.
    OlderRuns,
}

/// What came of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    /// Nothing of the attempt runs; if it never did, it never will.
    Gone,
    /// It will have ended by then, if not earlier.
    EndsAt(Instant),
    /// It does not end.
    Ignored,
}

/// The files and processes of a runner on one machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runner {
    entries: BTreeMap<ContainerUuid, BTreeMap<Attempt, Entry>>,
    marks: BTreeMap<ContainerUuid, Attempt>,
    /// Whether what a dead supervisor leaves behind is ended with its control group.
    pub(crate) has_cgroups: bool,
    /// Whether it is a `crunch-run`: it knows containers, not attempts, and of these only the ones
    /// whose lock is held.
    pub(crate) forgets: bool,
    digest: Option<String>,
}

impl Runner {
    /// Starts an attempt unless it, or a newer one, is known, or an older one still runs.
    pub(crate) fn start(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        plan: Plan,
        now: Timestamp,
    ) -> Started {
        if !self.forgets && self.newest(uuid).is_some_and(|newest| newest >= attempt) {
            return Started::Known;
        }
        let holds_lock = |entry: &Entry| !matches!(entry.state, State::Finished(_));
        let entries = self.entries.entry(uuid).or_default();
        if entries.values().any(holds_lock) {
            return Started::OlderRuns;
        }
        let entry = Entry {
            state: State::Running(plan),
            started_at: now,
        };
        entries.insert(attempt, entry);
        self.digest = None;
        Started::Yes
    }

    /// A result without a process: the supervisor could not start it.
    pub(crate) fn fail(&mut self, uuid: ContainerUuid, attempt: Attempt, now: Timestamp) {
        if self.forgets {
            return;
        }
        let cause = ExitCause::NotStarted {
            error: "no such command".into(),
        };
        let entry = Entry {
            state: State::Finished(Exit::unseen(cause)),
            started_at: now,
        };
        self.entries.entry(uuid).or_default().insert(attempt, entry);
        self.digest = None;
    }

    /// Whether an attempt would be refused because it, or a newer one, is known.
    pub(crate) fn knows(&self, uuid: ContainerUuid, attempt: Attempt) -> bool {
        self.newest(uuid).is_some_and(|newest| newest >= attempt)
    }

    /// The attempt that a command about one is really about.
    pub(crate) fn meant(&self, uuid: ContainerUuid, attempt: Attempt) -> Attempt {
        match self.forgets {
            true => self.newest(uuid).unwrap_or(attempt),
            false => attempt,
        }
    }

    fn newest(&self, uuid: ContainerUuid) -> Option<Attempt> {
        let entry = self
            .entries
            .get(&uuid)
            .and_then(|entries| entries.keys().next_back())
            .copied();
        entry.max(self.marks.get(&uuid).copied())
    }

    /// An attempt that was never started never will be; whether nothing of it runs.
    pub(crate) fn withdraw(&mut self, uuid: ContainerUuid, attempt: Attempt) -> bool {
        let attempt = self.meant(uuid, attempt);
        let entries = self.entries.get(&uuid);
        let newest = entries.and_then(|entries| entries.keys().next_back().copied());
        if !self.forgets && newest.is_none_or(|newest| newest < attempt) {
            let mark = self.marks.entry(uuid).or_insert(attempt);
            *mark = (*mark).max(attempt);
        }
        let entry = entries.and_then(|entries| entries.get(&attempt));
        entry.is_none_or(|entry| matches!(entry.state, State::Finished(_)))
    }

    /// Sends TERM to an attempt. One that was never started never will be.
    pub(crate) fn kill(&mut self, uuid: ContainerUuid, attempt: Attempt, now: Instant) -> Killed {
        if self.withdraw(uuid, attempt) {
            return Killed::Gone;
        }
        let attempt = self.meant(uuid, attempt);
        let entry = self
            .entries
            .get_mut(&uuid)
            .and_then(|entries| entries.get_mut(&attempt));
        match entry.map(|entry| &mut entry.state) {
            Some(State::Running(plan)) => match plan.term {
                Some(term) => {
                    if now + term < plan.ends_at {
                        plan.ends_at = now + term;
                        plan.exit = ExitCause::Killed;
                    }
                    Killed::EndsAt(plan.ends_at)
                }
                None => {
                    // Longer than any dispatcher waits; but one that has died since, and whose
                    // successor sees a container that is wanted again, must not wait for ever.
                    plan.ends_at = plan.ends_at.max(now + HANGS);
                    plan.term = Some(HANGS);
                    Killed::EndsAt(plan.ends_at)
                }
            },
            Some(State::Stale(_)) => Killed::Ignored,
            Some(State::Finished(_)) | None => Killed::Gone,
        }
    }

    /// Removes results that were received, and remembers their attempts.
    pub(crate) fn acknowledge(&mut self, acks: &[(ContainerUuid, Attempt)]) {
        for (uuid, attempt) in acks {
            let Some(entries) = self.entries.get_mut(uuid) else {
                continue;
            };
            let ended = |entry: &Entry| matches!(entry.state, State::Finished(_));
            if !entries.get(attempt).is_some_and(ended) {
                continue;
            }
            entries.remove(attempt);
            if entries.is_empty() {
                self.entries.remove(uuid);
            }
            let mark = self.marks.entry(*uuid).or_insert(*attempt);
            *mark = (*mark).max(*attempt);
            self.digest = None;
        }
    }

    /// The newest attempt of each container.
    pub(crate) fn report(&mut self) -> RunnerReport {
        let containers = self
            .entries
            .iter()
            .filter_map(|(uuid, entries)| {
                let (attempt, entry) = entries.last_key_value()?;
                let attempt = if self.forgets { Attempt(0) } else { *attempt };
                Some(ContainerReport {
                    uuid: *uuid,
                    attempt,
                    state: entry.reported(),
                })
            })
            .collect();
        RunnerReport {
            containers,
            broken: None,
            digest: self.digest().to_owned(),
        }
    }

    /// Equal digests mean equal reports.
    pub(crate) fn digest(&mut self) -> &str {
        let entries = &self.entries;
        self.digest.get_or_insert_with(|| digest_of(entries))
    }

    /// When the process of an attempt ends, if it runs, or else what holds its lock lets go.
    pub(crate) fn ends_at(&self, uuid: ContainerUuid, attempt: Attempt) -> Option<Instant> {
        match &self.entries.get(&uuid)?.get(&attempt)?.state {
            State::Running(plan) => Some(plan.ends_at),
            State::Stale(left) => left.process.or(left.helper),
            State::Finished(_) => None,
        }
    }

    /// The process of an attempt has ended by itself or by a signal; how. Nothing if it had ended
    /// before, and what held its lock lets go.
    pub(crate) fn process_ended(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        now: Timestamp,
    ) -> Option<ExitCause> {
        let entry = self.entries.get_mut(&uuid)?.get_mut(&attempt)?;
        let lost = ExitCause::SupervisorLost;
        let (cause, bytes) = match &mut entry.state {
            State::Running(plan) => (plan.exit.clone(), plan.output_bytes),
            State::Stale(left) => {
                let ran = left.process.take().is_some();
                if ran && left.helper.is_some() {
                    return Some(lost);
                }
                entry.finish(lost.clone(), 0, now);
                self.end(uuid, attempt);
                return ran.then_some(lost);
            }
            State::Finished(_) => return None,
        };
        entry.finish(cause.clone(), bytes, now);
        self.end(uuid, attempt);
        Some(cause)
    }

    /// An attempt has ended: what is kept of it is its result, where results are kept.
    fn end(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        self.digest = None;
        if self.forgets
            && let Some(entries) = self.entries.get_mut(&uuid)
        {
            entries.remove(&attempt);
            if entries.is_empty() {
                self.entries.remove(&uuid);
            }
        }
    }

    /// A process that was to end goes on until then.
    pub(crate) fn go_on(&mut self, uuid: ContainerUuid, attempt: Attempt, until: Instant) {
        let entries = self.entries.get_mut(&uuid);
        let entry = entries.and_then(|entries| entries.get_mut(&attempt));
        if let Some(State::Running(plan)) = entry.map(|entry| &mut entry.state) {
            plan.ends_at = until;
        }
    }

    /// The attempts whose supervisors live.
    pub(crate) fn supervised(&self) -> Vec<(ContainerUuid, Attempt)> {
        self.filter(|entry| matches!(entry.state, State::Running(_)))
    }

    /// The attempts that have a process.
    pub(crate) fn processes(&self) -> Vec<(ContainerUuid, Attempt)> {
        self.filter(|entry| match entry.state {
            State::Running(_) => true,
            State::Stale(left) => left.process.is_some(),
            State::Finished(_) => false,
        })
    }

    fn filter(&self, which: impl Fn(&Entry) -> bool) -> Vec<(ContainerUuid, Attempt)> {
        let all = self.entries.iter();
        all.flat_map(|(uuid, entries)| entries.iter().map(|(attempt, e)| (*uuid, *attempt, e)))
            .filter(|(_, _, entry)| which(entry))
            .map(|(uuid, attempt, _)| (uuid, attempt))
            .collect()
    }

    /// Whether something runs, or may run.
    pub(crate) fn has_unfinished(&self) -> bool {
        let mut entries = self.entries.values().flat_map(BTreeMap::values);
        entries.any(|entry| !matches!(entry.state, State::Finished(_)))
    }

    /// Results that were not acknowledged yet.
    pub(crate) fn results(&self) -> Vec<(ContainerUuid, Attempt)> {
        self.filter(|entry| matches!(entry.state, State::Finished(_)))
    }

    /// A supervisor is killed, and `leaves` something behind, unless its control group ends that;
    /// without a word its process goes on as it would have. True if its process ended with it.
    pub(crate) fn supervisor_dies(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        leaves: Option<Left>,
        now: Timestamp,
    ) -> bool {
        let has_cgroups = self.has_cgroups;
        let entry = self
            .entries
            .get_mut(&uuid)
            .and_then(|entries| entries.get_mut(&attempt));
        let Some(entry) = entry else { return false };
        let State::Running(plan) = &entry.state else {
            return false;
        };
        self.digest = None;
        if has_cgroups {
            entry.finish(ExitCause::SupervisorLost, 0, now);
            self.end(uuid, attempt);
            return true;
        }
        let left = leaves.unwrap_or(Left {
            process: Some(plan.ends_at),
            helper: None,
        });
        entry.state = State::Stale(left);
        left.process.is_none()
    }

    /// The machine starts anew: every process is gone, the files stay.
    pub(crate) fn reboot(&mut self) {
        if self.forgets {
            self.entries.clear();
        }
        for entry in self.entries.values_mut().flat_map(BTreeMap::values_mut) {
            if !matches!(entry.state, State::Finished(_)) {
                let mut exit = Exit::unseen(ExitCause::SupervisorLost);
                exit.started_at = Some(entry.started_at);
                entry.state = State::Finished(exit);
            }
        }
        self.digest = None;
    }
}

fn digest_of(entries: &BTreeMap<ContainerUuid, BTreeMap<Attempt, Entry>>) -> String {
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |text: &str| {
        for byte in text.bytes() {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (uuid, entries) in entries {
        if let Some((attempt, entry)) = entries.last_key_value() {
            add(uuid.as_str());
            add(&format!("{attempt}{:?}", entry.reported()));
        }
    }
    format!("{sum:016x}")
}

impl Entry {
    fn reported(&self) -> ReportedState {
        match &self.state {
            State::Running(_) => ReportedState::Running {
                started_at: Some(self.started_at),
            },
            State::Stale(_) => ReportedState::Stale,
            State::Finished(exit) => ReportedState::Finished(exit.clone()),
        }
    }

    fn finish(&mut self, cause: ExitCause, stdout_bytes: u64, now: Timestamp) {
        let seen = cause != ExitCause::SupervisorLost;
        self.state = State::Finished(Exit {
            started_at: Some(self.started_at),
            finished_at: seen.then_some(now),
            stdout_bytes,
            ..Exit::unseen(cause)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp(1);

    fn uuid() -> ContainerUuid {
        "zzzzz-dz642-000000000000001".parse().unwrap()
    }

    fn plan() -> Plan {
        Plan {
            ends_at: Instant::ZERO + Duration::from_secs(60),
            exit: ExitCause::Exited { code: 0 },
            term: Some(Duration::from_secs(2)),
            output_bytes: 5,
        }
    }

    fn start(runner: &mut Runner, attempt: u32) -> Started {
        runner.start(uuid(), Attempt(attempt), plan(), NOW)
    }

    #[test]
    fn an_attempt_is_started_once_and_older_ones_never_again() {
        let mut runner = Runner::default();
        assert_eq!(start(&mut runner, 2), Started::Yes);
        assert_eq!(start(&mut runner, 2), Started::Known);
        assert_eq!(start(&mut runner, 1), Started::Known);
        assert_eq!(start(&mut runner, 3), Started::OlderRuns);
        runner.process_ended(uuid(), Attempt(2), NOW).unwrap();
        runner.acknowledge(&[(uuid(), Attempt(2))]);
        assert!(runner.report().containers.is_empty());
        assert_eq!(start(&mut runner, 2), Started::Known);
        assert_eq!(start(&mut runner, 3), Started::Yes);
    }

    #[test]
    fn a_runner_that_forgets_starts_any_attempt_unless_the_lock_is_held() {
        let mut runner = Runner {
            forgets: true,
            ..Runner::default()
        };
        assert_eq!(start(&mut runner, 2), Started::Yes);
        assert_eq!(start(&mut runner, 2), Started::OlderRuns);
        assert_eq!(runner.report().containers[0].attempt, Attempt(0));
        assert_eq!(runner.meant(uuid(), Attempt(7)), Attempt(2));
        runner.process_ended(uuid(), Attempt(2), NOW).unwrap();
        assert!(runner.report().containers.is_empty() && runner.results().is_empty());
        assert_eq!(runner.kill(uuid(), Attempt(2), Instant::ZERO), Killed::Gone);
        assert_eq!(start(&mut runner, 1), Started::Yes);
    }

    #[test]
    fn a_kill_that_comes_first_forbids_the_start() {
        let mut runner = Runner::default();
        assert_eq!(runner.kill(uuid(), Attempt(1), Instant::ZERO), Killed::Gone);
        assert_eq!(start(&mut runner, 1), Started::Known);
        assert!(runner.report().containers.is_empty());
    }

    #[test]
    fn what_runs_is_not_acknowledged_away() {
        let mut runner = Runner::default();
        start(&mut runner, 1);
        let digest = runner.digest().to_owned();
        runner.acknowledge(&[(uuid(), Attempt(1))]);
        assert_eq!(runner.report().containers.len(), 1);
        assert_eq!(runner.digest(), digest);
        let ends = runner.kill(uuid(), Attempt(1), Instant::ZERO);
        assert_eq!(ends, Killed::EndsAt(Instant::ZERO + Duration::from_secs(2)));
        let cause = runner.process_ended(uuid(), Attempt(1), NOW);
        assert_eq!(cause, Some(ExitCause::Killed));
        assert_ne!(runner.digest(), digest);
    }

    #[test]
    fn a_dead_supervisor_leaves_a_stale_lock_where_there_are_no_cgroups() {
        let mut runner = Runner::default();
        start(&mut runner, 1);
        assert!(!runner.supervisor_dies(uuid(), Attempt(1), None, NOW));
        assert_eq!(runner.report().containers[0].state, ReportedState::Stale);
        assert_eq!(start(&mut runner, 2), Started::OlderRuns);
        runner.process_ended(uuid(), Attempt(1), NOW);
        assert!(matches!(
            &runner.report().containers[0].state,
            ReportedState::Finished(exit) if exit.cause == ExitCause::SupervisorLost
        ));
        assert_eq!(start(&mut runner, 2), Started::Yes);
    }

    #[test]
    fn a_lock_may_outlive_the_process() {
        let mut runner = Runner::default();
        start(&mut runner, 1);
        let later = Instant::ZERO + Duration::from_secs(900);
        let left = Left {
            process: Some(Instant::ZERO + Duration::from_secs(60)),
            helper: Some(later),
        };
        assert!(!runner.supervisor_dies(uuid(), Attempt(1), Some(left), NOW));
        let lost = Some(ExitCause::SupervisorLost);
        assert_eq!(runner.process_ended(uuid(), Attempt(1), NOW), lost);
        assert_eq!(runner.report().containers[0].state, ReportedState::Stale);
        assert_eq!(runner.processes(), []);
        assert_eq!(runner.ends_at(uuid(), Attempt(1)), Some(later));
        assert_eq!(runner.process_ended(uuid(), Attempt(1), NOW), None);
        assert_eq!(runner.results(), [(uuid(), Attempt(1))]);
    }
}
