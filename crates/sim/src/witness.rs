//! The witness: its own record of what ran where from when to when, told by the models of
//! machines and controller, never by the dispatcher; and the judgement of it.

mod locks;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_types::{
    Attempt, ContainerState, ContainerUuid, Exit, ExitCause, InstanceId, Instant, Resources,
};

use crate::Rule;
use crate::controller::{Record, Transition};
use locks::Locks;

/// A promise that was found broken, not yet told as a story.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    pub(crate) what: String,
    pub(crate) about: Vec<String>,
}

/// A process as it was seen.
#[derive(Clone, Debug)]
struct Process {
    instance: InstanceId,
    /// How often that had gone when it began.
    gone: u32,
    ended: Option<ExitCause>,
}

#[derive(Debug, Default)]
pub(crate) struct Witness {
    processes: BTreeMap<(ContainerUuid, Attempt), Process>,
    running: BTreeMap<ContainerUuid, (Attempt, InstanceId)>,
    /// What really runs on each instance.
    on: BTreeMap<InstanceId, BTreeMap<ContainerUuid, Resources>>,
    /// When the latest attempt was locked.
    locked_at: BTreeMap<ContainerUuid, Instant>,
    locks: Locks,
    /// Attempts whose output has come home. They write to one stream.
    brought_home: BTreeSet<(ContainerUuid, Attempt)>,
    /// The newest attempt of which the controller was told that nothing is left.
    closed: BTreeMap<ContainerUuid, Attempt>,
    submitted: BTreeMap<ContainerUuid, Instant>,
    /// How often each instance has gone; one may come back.
    gone: BTreeMap<InstanceId, u32>,
    pub(crate) waits: Vec<Duration>,
    pub(crate) others: BTreeSet<InstanceId>,
    findings: Vec<Finding>,
    /// Instances on which something began or ended, or is said to have, in this step.
    touched: BTreeSet<InstanceId>,
}

impl Witness {
    /// The next promise that was found broken.
    pub(crate) fn take(&mut self) -> Option<Finding> {
        self.findings.pop()
    }

    pub(crate) fn find(&mut self, rule: Rule, about: &[String], what: impl Into<String>) {
        self.findings.push(Finding {
            rule,
            what: what.into(),
            about: about.to_vec(),
        });
    }

    pub(crate) fn submitted(&mut self, uuid: ContainerUuid, now: Instant) {
        self.submitted.insert(uuid, now);
    }

    /// A process begins on an instance that has `capacity`.
    pub(crate) fn process_started(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
        needs: Resources,
        capacity: Resources,
        now: Instant,
    ) {
        let about = [uuid.to_string(), instance.to_string()];
        if let Some((other, elsewhere)) = self.running.get(&uuid) {
            let what = format!(
                "{uuid} attempt {attempt} starts on {instance} while attempt {other} runs on {elsewhere}"
            );
            let about = [uuid.to_string(), elsewhere.to_string()];
            self.find(Rule::RunsTwice, &about, what);
        }
        if let Some(earlier) = self.processes.get(&(uuid, attempt)) {
            let what = format!(
                "{uuid} attempt {attempt} starts on {instance}, and did on {}",
                earlier.instance
            );
            self.find(Rule::StartedTwice, &about, what);
        }
        if self
            .closed
            .get(&uuid)
            .is_some_and(|closed| *closed >= attempt)
        {
            let what = format!("{uuid} attempt {attempt} starts on {instance}");
            self.find(Rule::StartedAfterEnd, &about, what);
        }
        self.locks.cause(uuid, attempt);
        if let Some(submitted) = self.submitted.remove(&uuid) {
            self.waits.push(now.since(submitted));
        }
        let process = Process {
            instance: instance.clone(),
            gone: self.times_gone(instance),
            ended: None,
        };
        self.processes.insert((uuid, attempt), process);
        self.touched.insert(instance.clone());
        self.running.insert(uuid, (attempt, instance.clone()));
        let here = self.on.entry(instance.clone()).or_default();
        here.insert(uuid, needs);
        let used: Resources = here.values().copied().sum();
        if let Some(lacking) = used.lacking_in(&capacity) {
            let what = format!(
                "{} containers on {instance} use {} of {}",
                here.len(),
                used.describe(lacking),
                capacity.describe(lacking)
            );
            self.find(Rule::Overcommitted, &about, what);
        }
    }

    pub(crate) fn process_ended(&mut self, uuid: ContainerUuid, attempt: Attempt, how: &ExitCause) {
        if let Some(process) = self.processes.get_mut(&(uuid, attempt)) {
            process.ended = Some(how.clone());
            self.touched.insert(process.instance.clone());
            if let Some(here) = self.on.get_mut(&process.instance) {
                here.remove(&uuid);
                if here.is_empty() {
                    self.on.remove(&process.instance);
                }
            }
        }
        if self
            .running
            .get(&uuid)
            .is_some_and(|(other, _)| *other == attempt)
        {
            self.running.remove(&uuid);
        }
    }

    pub(crate) fn instance_gone(&mut self, instance: &InstanceId) {
        *self.gone.entry(instance.clone()).or_default() += 1;
    }

    fn times_gone(&self, instance: &InstanceId) -> u32 {
        self.gone.get(instance).copied().unwrap_or(0)
    }

    /// The instances on which something began or ended, or is said to have, since this was last
    /// asked.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.touched)
    }

    /// How many containers run.
    pub(crate) fn running_count(&self) -> usize {
        self.running.len()
    }

    /// What is wrong with it that a process runs on an instance, if anything.
    pub(crate) fn objection(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
    ) -> Option<(Rule, String)> {
        let here = || format!("{uuid} attempt {attempt} runs on {instance}");
        match self.running.get(&uuid) {
            Some((other, elsewhere)) if (*other, elsewhere) != (attempt, instance) => {
                let what = format!("{}, and attempt {other} on {elsewhere}", here());
                return Some((Rule::RunsTwice, what));
            }
            None => {
                return Some((
                    Rule::RunsTwice,
                    format!("{}, and was not seen to start", here()),
                ));
            }
            Some(_) => {}
        }
        let closed = self.closed.get(&uuid)?;
        (*closed >= attempt).then(|| {
            let what = format!("{}, and attempt {closed} was told to be over", here());
            (Rule::FalseResult, what)
        })
    }

    /// Whether an attempt runs on an instance.
    pub(crate) fn runs_on(&self, uuid: ContainerUuid, attempt: Attempt, on: &InstanceId) -> bool {
        let running = self.running.get(&uuid);
        running.is_some_and(|(a, instance)| *a == attempt && instance == on)
    }

    /// How many processes were ever started.
    pub(crate) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// How many containers were submitted of which no process was ever started.
    pub(crate) fn never_started(&self) -> usize {
        self.submitted.len()
    }

    /// Whether something really runs on an instance.
    pub(crate) fn is_busy(&self, instance: &InstanceId) -> bool {
        self.on.contains_key(instance)
    }

    /// What runs on an instance.
    pub(crate) fn running_on(&self, instance: &InstanceId) -> Vec<ContainerUuid> {
        let here = self.on.get(instance);
        here.map_or_else(Vec::new, |here| here.keys().copied().collect())
    }

    /// The controller's record of a container went from state to state.
    pub(crate) fn transition(&mut self, change: &Transition, now: Instant) {
        use ContainerState::{Locked, Running};
        let (uuid, attempt) = (change.uuid, change.attempt);
        if change.to == Locked && change.from != Locked {
            self.locked_at.insert(uuid, now);
            match change.by_others {
                true => self.locks.cause(uuid, attempt),
                false => self.judge_lock(uuid, attempt, now),
            }
        }
        let held = |state| matches!(state, Locked | Running);
        if !held(change.from) || held(change.to) {
            return;
        }
        self.closed.insert(uuid, attempt);
        if let Some((running, on)) = self.running.get(&uuid) {
            self.touched.insert(on.clone());
            let what = format!(
                "{uuid} becomes {} while its attempt {running} runs on {on}",
                change.to
            );
            let about = [uuid.to_string(), on.to_string()];
            self.find(Rule::FalseResult, &about, what);
        }
    }

    /// There is a cause to lock a container again after this attempt.
    pub(crate) fn had_cause(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        self.locks.cause(uuid, attempt);
    }

    /// Whether the latest attempt of a container was locked at that time.
    pub(crate) fn was_locked_at(&self, uuid: ContainerUuid, at: Instant) -> bool {
        self.locked_at
            .get(&uuid)
            .is_some_and(|locked| *locked <= at)
    }

    /// A dispatcher locks a container: wrong where it has done so twice within an hour for nothing.
    fn judge_lock(&mut self, uuid: ContainerUuid, attempt: Attempt, now: Instant) {
        if self.locks.count(uuid, attempt, now) {
            let what = format!("{uuid}, three times within {:?}", locks::SPAN);
            self.find(Rule::LockChurn, &[uuid.to_string()], what);
        }
    }

    /// The output of an attempt has reached the dispatcher, and is kept.
    pub(crate) fn brought_home(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        self.brought_home.insert((uuid, attempt));
    }

    /// The controller takes the end of the latest attempt of a container.
    pub(crate) fn end_told(&mut self, uuid: ContainerUuid, attempt: Attempt, exit: &Exit) {
        let home = exit.stdout_bytes == 0 || self.brought_home.contains(&(uuid, attempt));
        if !home && !exit.stdout_lost {
            let what = format!(
                "{uuid} attempt {attempt}, which wrote {} bytes",
                exit.stdout_bytes
            );
            self.find(Rule::OutputMissing, &[uuid.to_string()], what);
        }
        let process = self.processes.get(&(uuid, attempt));
        // It may be told late, when its machine is there again.
        let went = process.is_some_and(|process| self.times_gone(&process.instance) > process.gone);
        let seen = process.map(|process| &process.ended);
        let so = match (&exit.cause, seen) {
            (ExitCause::Exited { .. }, Some(Some(how))) => *how == exit.cause,
            // One that was to be killed, and whose machine had to go for it or went anyhow.
            (ExitCause::Killed, Some(Some(how))) => *how == ExitCause::Killed || went,
            (ExitCause::NotStarted { .. }, None) => true,
            // A process whose supervisor was lost, or whose result was lost with its machine.
            (ExitCause::SupervisorLost | ExitCause::InstanceLost, Some(Some(how))) => {
                matches!(how, ExitCause::SupervisorLost | ExitCause::InstanceLost) || went
            }
            // A machine that was lost before the start arrived.
            (ExitCause::Killed | ExitCause::InstanceLost, None) => true,
            _ => false,
        };
        if exit.cause == ExitCause::SupervisorLost && seen.is_none() {
            let what = format!("{uuid} attempt {attempt} is said to have lost its supervisor");
            self.find(Rule::RetryWasted, &[uuid.to_string()], what);
        } else if !so {
            let what = format!(
                "{uuid} attempt {attempt} is said to have ended ({}), and {}",
                exit.cause,
                match seen {
                    None => "never ran".to_owned(),
                    Some(None) => "runs".to_owned(),
                    Some(Some(how)) => format!("ended otherwise ({how})"),
                }
            );
            self.find(Rule::FalseResult, &[uuid.to_string()], what);
        }
    }

    /// The controller is told that an attempt never ran.
    pub(crate) fn given_back(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        if let Some(process) = self.processes.get(&(uuid, attempt)) {
            let on = process.instance.to_string();
            let what = format!("{uuid} attempt {attempt}, which ran on {on}");
            self.find(Rule::RanUntold, &[uuid.to_string(), on], what);
        }
    }

    /// A process is asked to end.
    pub(crate) fn killed(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
        record: Option<&Record>,
    ) {
        let runs = self.running.get(&uuid).is_some_and(|(a, _)| *a == attempt);
        if runs && self.is_wanted(uuid, attempt, record) {
            let about = [uuid.to_string(), instance.to_string()];
            let what = format!("{uuid} attempt {attempt} on {instance}");
            self.find(Rule::KilledWrongly, &about, what);
        }
    }

    /// Whether the owner of a container and the controller count on an attempt, and did ever
    /// since it was locked.
    pub(crate) fn is_wanted(
        &self,
        uuid: ContainerUuid,
        attempt: Attempt,
        record: Option<&Record>,
    ) -> bool {
        let Some(record) = record else { return false };
        let container = &record.container;
        let held = matches!(
            container.state,
            ContainerState::Locked | ContainerState::Running
        );
        let locked = self.locked_at.get(&uuid).copied();
        held && container.attempt() == attempt
            && container.priority >= 1
            && !record.cancel_requested
            && record.unwanted_at.is_none_or(|at| Some(at) < locked)
    }

    /// The attempt of a container that runs, if one does.
    pub(crate) fn running_attempt(&self, uuid: ContainerUuid) -> Option<Attempt> {
        self.running.get(&uuid).map(|(attempt, _)| *attempt)
    }

    /// Something is done to an instance.
    pub(crate) fn touched(&mut self, instance: &InstanceId, how: &str) {
        if self.others.contains(instance) {
            let what = format!("{how} of {instance}");
            self.find(Rule::OthersTouched, &[instance.to_string()], what);
        }
    }
}

#[cfg(test)]
mod tests {
    use longshore_types::ByteSize;

    use super::*;

    const NOW: Instant = Instant::ZERO;
    const FIRST: Attempt = Attempt(1);

    fn uuid(n: u32) -> ContainerUuid {
        format!("zzzzz-dz642-{n:015}").parse().unwrap()
    }

    fn half() -> Resources {
        Resources {
            vcpus: 1,
            ram: ByteSize::gib(1),
            ..Resources::NONE
        }
    }

    fn start(witness: &mut Witness, n: u32, attempt: Attempt, on: &str) {
        let capacity = half().saturating_add(half());
        witness.process_started(uuid(n), attempt, &on.into(), half(), capacity, NOW);
    }

    fn found(witness: &mut Witness) -> Vec<Rule> {
        std::iter::from_fn(|| witness.take())
            .map(|finding| finding.rule)
            .collect()
    }

    #[test]
    fn a_double_is_seen() {
        let mut witness = Witness::default();
        start(&mut witness, 1, FIRST, "a");
        assert_eq!(found(&mut witness), []);
        start(&mut witness, 1, Attempt(2), "b");
        assert_eq!(found(&mut witness), [Rule::RunsTwice]);
    }

    #[test]
    fn a_second_start_of_an_attempt_is_seen_even_after_its_end() {
        let mut witness = Witness::default();
        start(&mut witness, 1, FIRST, "a");
        witness.process_ended(uuid(1), FIRST, &ExitCause::Exited { code: 0 });
        start(&mut witness, 1, FIRST, "b");
        assert_eq!(found(&mut witness), [Rule::StartedTwice]);
    }

    #[test]
    fn too_much_on_one_instance_is_seen() {
        let mut witness = Witness::default();
        start(&mut witness, 1, FIRST, "a");
        start(&mut witness, 2, FIRST, "a");
        assert_eq!(found(&mut witness), []);
        start(&mut witness, 3, FIRST, "a");
        assert_eq!(found(&mut witness), [Rule::Overcommitted]);
    }

    #[test]
    fn results_that_are_not_so_are_seen() {
        let mut witness = Witness::default();
        let exited = |code| Exit::unseen(ExitCause::Exited { code });
        witness.end_told(uuid(1), FIRST, &exited(0));
        assert_eq!(found(&mut witness), [Rule::FalseResult]);
        start(&mut witness, 1, FIRST, "a");
        witness.end_told(uuid(1), FIRST, &exited(0));
        assert_eq!(found(&mut witness), [Rule::FalseResult]);
        witness.process_ended(uuid(1), FIRST, &ExitCause::Exited { code: 7 });
        witness.end_told(uuid(1), FIRST, &exited(0));
        assert_eq!(found(&mut witness), [Rule::FalseResult]);
        witness.end_told(uuid(1), FIRST, &exited(7));
        witness.end_told(uuid(2), FIRST, &Exit::unseen(ExitCause::InstanceLost));
        assert_eq!(found(&mut witness), []);
    }

    #[test]
    fn an_attempt_that_was_given_up_must_neither_run_nor_start() {
        let mut witness = Witness::default();
        let unlocked = Transition {
            uuid: uuid(1),
            attempt: FIRST,
            from: ContainerState::Locked,
            to: ContainerState::Queued,
            placed_on: None,
            was_on: None,
            by_others: false,
        };
        witness.transition(&unlocked, NOW);
        assert_eq!(found(&mut witness), []);
        start(&mut witness, 1, FIRST, "a");
        assert_eq!(found(&mut witness), [Rule::StartedAfterEnd]);
        witness.transition(&unlocked, NOW);
        assert_eq!(found(&mut witness), [Rule::FalseResult]);
    }

    #[test]
    fn a_container_that_is_locked_for_nothing_again_and_again_is_seen() {
        let mut witness = Witness::default();
        let mut lock = |attempt, by_others| {
            let locked = Transition {
                uuid: uuid(1),
                attempt: Attempt(attempt),
                from: ContainerState::Queued,
                to: ContainerState::Locked,
                placed_on: None,
                was_on: None,
                by_others,
            };
            witness.transition(&locked, NOW);
            found(&mut witness)
        };
        assert_eq!(lock(1, true), []);
        assert_eq!(lock(2, false), []);
        assert_eq!(lock(3, false), []);
        assert_eq!(lock(4, true), []);
        assert_eq!(lock(5, false), []);
        assert_eq!(lock(6, false), []);
        assert_eq!(lock(7, false), [Rule::LockChurn]);
    }

    #[test]
    fn the_instances_of_others_are_watched() {
        let mut witness = Witness::default();
        witness.others.insert("theirs".into());
        witness.touched(&"ours".into(), "destroy");
        assert_eq!(found(&mut witness), []);
        witness.touched(&"theirs".into(), "destroy");
        assert_eq!(found(&mut witness), [Rule::OthersTouched]);
    }
}
