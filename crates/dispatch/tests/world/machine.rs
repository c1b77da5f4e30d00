//! A machine with a runner, and the witness of what runs on it.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_pool::{EffectAction, KillOutcome, Outcome, StartOutcome};
use longshore_types::{
    Attempt, ContainerReport, ContainerUuid, Exit, ExitCause, Instant, ReportedState, RunnerReport,
};

/// A container on a machine.
#[derive(Clone, Debug)]
pub(crate) struct Supervised {
    pub(crate) attempt: Attempt,
    pub(crate) state: Supervision,
}

#[derive(Clone, Debug)]
pub(crate) enum Supervision {
    /// Its process ends by itself at this moment.
    Running {
        ends_at: Instant,
    },
    /// It was asked to end, and does at this moment.
    Ending {
        ends_at: Instant,
    },
    Finished(ExitCause),
}

#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) deployed: bool,
    pub(crate) containers: BTreeMap<ContainerUuid, Supervised>,
    /// The newest attempt that was ever started or refused in advance.
    pub(crate) marks: BTreeMap<ContainerUuid, Attempt>,
}

impl Machine {
    pub(crate) fn runs(&self, uuid: ContainerUuid) -> bool {
        self.containers
            .get(&uuid)
            .is_some_and(|c| !matches!(c.state, Supervision::Finished(_)))
    }

    pub(crate) fn start(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        duration: Duration,
        now: Instant,
    ) -> StartOutcome {
        if self.marks.get(&uuid).is_some_and(|mark| *mark >= attempt) {
            return StartOutcome::KnownAttempt;
        }
        if self.containers.contains_key(&uuid) {
            return StartOutcome::NotStarted {
                error: "an older attempt is here".into(),
            };
        }
        self.marks.insert(uuid, attempt);
        let state = Supervision::Running {
            ends_at: now + duration,
        };
        self.containers.insert(uuid, Supervised { attempt, state });
        StartOutcome::Started
    }

    /// An attempt that was not started never will be; what was goes on.
    pub(crate) fn withdraw(&mut self, uuid: ContainerUuid, attempt: Attempt) -> KillOutcome {
        let mark = self.marks.entry(uuid).or_insert(attempt);
        *mark = (*mark).max(attempt);
        match self.containers.get(&uuid) {
            Some(container) if container.attempt == attempt => match container.state {
                Supervision::Running { .. } | Supervision::Ending { .. } => KillOutcome::StillRuns,
                Supervision::Finished(_) => KillOutcome::Gone,
            },
            _ => KillOutcome::Gone,
        }
    }

    pub(crate) fn kill(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        now: Instant,
    ) -> KillOutcome {
        let mark = self.marks.entry(uuid).or_insert(attempt);
        *mark = (*mark).max(attempt);
        match self.containers.get_mut(&uuid) {
            Some(container) if container.attempt == attempt => match container.state {
                Supervision::Running { ends_at } => {
                    // Takes longer to end than the command waits.
                    let ends_at = ends_at.min(now + Duration::from_secs(3));
                    container.state = Supervision::Ending { ends_at };
                    KillOutcome::StillRuns
                }
                Supervision::Ending { .. } => KillOutcome::StillRuns,
                Supervision::Finished(_) => KillOutcome::Gone,
            },
            _ => KillOutcome::Gone,
        }
    }

    pub(crate) fn acknowledge(&mut self, acks: &[(ContainerUuid, Attempt)]) {
        for (uuid, attempt) in acks {
            let done = |c: &Supervised| {
                c.attempt == *attempt && matches!(c.state, Supervision::Finished(_))
            };
            if self.containers.get(uuid).is_some_and(done) {
                self.containers.remove(uuid);
            }
        }
    }

    pub(crate) fn report(&self) -> RunnerReport {
        let containers: Vec<ContainerReport> = self
            .containers
            .iter()
            .map(|(uuid, container)| ContainerReport {
                uuid: *uuid,
                attempt: container.attempt,
                state: match &container.state {
                    Supervision::Finished(cause) => {
                        let mut exit = Exit::unseen(cause.clone());
                        exit.stdout_bytes = 10;
                        ReportedState::Finished(exit)
                    }
                    _ => ReportedState::Running { started_at: None },
                },
            })
            .collect();
        let digest = format!("{containers:?}");
        RunnerReport {
            containers,
            broken: None,
            digest,
        }
    }

    pub(crate) fn next_end(&self) -> Option<Instant> {
        let end = |c: &Supervised| match c.state {
            Supervision::Running { ends_at } | Supervision::Ending { ends_at } => Some(ends_at),
            Supervision::Finished(_) => None,
        };
        self.containers.values().filter_map(end).min()
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        for container in self.containers.values_mut() {
            let cause = match container.state {
                Supervision::Running { ends_at } if ends_at <= now => ExitCause::Exited { code: 0 },
                Supervision::Ending { ends_at } if ends_at <= now => ExitCause::Killed,
                _ => continue,
            };
            container.state = Supervision::Finished(cause);
        }
    }
}

/// What a shell says when no answer came.
pub(crate) fn unknown_outcome(action: &EffectAction) -> Outcome {
    action.lost("no answer in time")
}
