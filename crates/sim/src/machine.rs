//! One machine: its runner, how well it can be reached, and who waits for an answer of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_pool::{Effect, EffectId};
use longshore_types::{
    Attempt, ContainerReport, ContainerUuid, Exit, ExitCause, InstanceId, Instant, ReportedState,
    Resources, RunnerReport,
};

use crate::runner::Runner;
use crate::world::Switch;

/// A report that waits for a change.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    pub(crate) life: u32,
    pub(crate) id: EffectId,
    pub(crate) known: String,
    /// When it is answered whether anything changed or not.
    pub(crate) until: Instant,
    /// When whoever waits gives up.
    pub(crate) deadline: Instant,
}

/// A command that was accepted and is carried out later.
#[derive(Clone, Debug)]
pub(crate) struct Stuck {
    pub(crate) life: u32,
    pub(crate) effect: Effect,
    pub(crate) deadline: Instant,
}

/// How well it works at the moment; each until a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Condition {
    pub(crate) slow: Instant,
    pub(crate) hung: Instant,
    pub(crate) unreachable: Instant,
    pub(crate) half_open: Instant,
    /// The runner cannot be put there.
    pub(crate) no_runner: Instant,
    /// The boot probe fails.
    pub(crate) boot_fails: Instant,
}

/// What the dispatcher has heard from a machine, in its present life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// When that was last, or when counting began anew.
    pub(crate) at: Instant,
    /// How often asking it failed since, each so much later than the one before as is waited
    /// between two probes.
    pub(crate) fails: u32,
    pub(crate) failed_at: Option<Instant>,
    /// When the probes that are under way were asked for.
    pub(crate) asked: BTreeMap<EffectId, Instant>,
    /// When the last one that has ended was.
    pub(crate) tried_at: Instant,
    /// Whether a listing has missed it since, or has shown it as going.
    pub(crate) missed: bool,
    /// Whether it was looked at when it was given up.
    pub(crate) judged: bool,
    /// What it was heard to have run.
    pub(crate) runs: BTreeSet<(ContainerUuid, Attempt)>,
    /// Starts that were asked for, of which nobody has said yet what came of them.
    pub(crate) doubts: BTreeMap<ContainerUuid, Doubt>,
}

/// A start that was asked for, of which nobody has said yet what came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    pub(crate) attempt: Attempt,
    /// When that was, or, if an answer was lost, when the first one was missed; or when counting
    /// began anew.
    pub(crate) since: Instant,
    /// Whether an answer was lost, so that no later one says that nothing was started.
    pub(crate) lost: bool,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: InstanceId,
    pub(crate) capacity: Resources,
    pub(crate) runner: Runner,
    /// Whether the runner is there.
    pub(crate) deployed: bool,
    pub(crate) condition: Condition,
    /// Whether anything ever went wrong with it, so that giving it up may be right.
    pub(crate) troubled: bool,
    /// Whether no container can be started there.
    pub(crate) black_hole: bool,
    /// Whether its reports are too long.
    pub(crate) floods: bool,
    /// What it claims falsely.
    pub(crate) lies: Vec<(ContainerUuid, Attempt, bool)>,
    pub(crate) polls: Vec<Poll>,
    pub(crate) stuck: Vec<Stuck>,
    /// Containers that were ever to be started there.
    pub(crate) placed: BTreeSet<ContainerUuid>,
    /// Since when it runs nothing.
    pub(crate) idle_since: Instant,
    pub(crate) born: Instant,
    pub(crate) idle_time: Duration,
    /// How far its clock is off, in milliseconds.
    pub(crate) clock: i64,
    /// Starts that stand still before they take their lock, and when they go on.
    pub(crate) stalled: BTreeMap<(ContainerUuid, Attempt), Instant>,
    /// Starts that wait behind one of these, and when they go on.
    pub(crate) behind: BTreeSet<(ContainerUuid, Attempt, Instant)>,
    /// Those beside which another start of the same attempt was let through.
    pub(crate) overtaken: BTreeSet<(ContainerUuid, Attempt)>,
    pub(crate) heard: Heard,
    /// What began there that nobody can know of who did not send it: a start of a dispatcher that
    /// had died by then, where nobody records placements.
    pub(crate) unforeseen: BTreeSet<(ContainerUuid, Attempt)>,
    /// Its dead-man switch, if it has one.
    pub(crate) switch: Option<Switch>,
    /// When a command of a dispatcher last reached the runner, since the machine was last started.
    pub(crate) contact: Option<Instant>,
    /// When it was last seen to run something, or to have something that may run.
    pub(crate) busy_until: Instant,
    /// Whether it is off.
    pub(crate) is_off: bool,
    /// Whether it will be there again once it is gone.
    pub(crate) comes_back: bool,
}

impl Heard {
    pub(crate) fn new(at: Instant) -> Self {
        Self {
            at,
            tried_at: at,
            ..Self::default()
        }
    }
}

impl Machine {
    pub(crate) fn new(id: InstanceId, capacity: Resources, born: Instant) -> Self {
        Self {
            id,
            capacity,
            runner: Runner::default(),
            deployed: false,
            condition: Condition::default(),
            troubled: false,
            black_hole: false,
            floods: false,
            lies: Vec::new(),
            polls: Vec::new(),
            stuck: Vec::new(),
            placed: BTreeSet::new(),
            idle_since: born,
            born,
            idle_time: Duration::ZERO,
            clock: 0,
            stalled: BTreeMap::new(),
            behind: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            heard: Heard::new(born),
            unforeseen: BTreeSet::new(),
            switch: None,
            contact: None,
            busy_until: born,
            is_off: false,
            comes_back: false,
        }
    }

    /// A container is to be started there, or is to be recorded there: whatever the machine says
    /// of it from now on, nobody can know that it was never there.
    pub(crate) fn place(&mut self, uuid: ContainerUuid) {
        self.placed.insert(uuid);
        self.lies.retain(|(lie, ..)| *lie != uuid);
    }

    /// Takes from a report what was made up of containers that were placed there while it was on its
    /// way: nobody could know that it is false.
    pub(crate) fn forget_old_lies(&self, report: &mut RunnerReport) {
        let made_up = |state: &ReportedState| *state == lie(true) || *state == lie(false);
        let containers = &mut report.containers;
        containers.retain(|c| !(made_up(&c.state) && self.placed.contains(&c.uuid)));
    }

    pub(crate) fn digest(&mut self) -> Cow<'_, str> {
        digest(&mut self.runner, self.lies.len())
    }

    /// What its runner says, with what it makes up.
    pub(crate) fn report(&mut self) -> RunnerReport {
        let mut report = self.runner.report();
        report.digest = self.digest().into_owned();
        for (uuid, attempt, finished) in &self.lies {
            let state = lie(*finished);
            if report.containers.iter().all(|c| c.uuid != *uuid) {
                report.containers.push(ContainerReport {
                    uuid: *uuid,
                    attempt: *attempt,
                    state,
                });
            }
        }
        report
    }

    /// The reports that wait no longer, because something changed or their time is over.
    pub(crate) fn due_polls(&mut self, now: Instant) -> Vec<Poll> {
        if self.polls.is_empty() {
            return Vec::new();
        }
        let digest = digest(&mut self.runner, self.lies.len());
        let is_due = |poll: &mut Poll| poll.known != *digest || poll.until <= now;
        self.polls.extract_if(.., is_due).collect()
    }
}

/// What is made up of a container: a true report says when it was started.
fn lie(finished: bool) -> ReportedState {
    match finished {
        true => ReportedState::Finished(Exit::unseen(ExitCause::Exited { code: 0 })),
        false => ReportedState::Running { started_at: None },
    }
}

fn digest(runner: &mut Runner, lies: usize) -> Cow<'_, str> {
    let digest = runner.digest();
    match lies {
        0 => digest.into(),
        lies => format!("{digest}-{lies}").into(),
    }
}
