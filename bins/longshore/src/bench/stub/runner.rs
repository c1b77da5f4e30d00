//! A runner that only pretends: what it is asked to start is over when its time is, and no process
//! was there.

use std::time::Duration;

use longshore_runner_api::StartDocument;
use longshore_types::{
    Attempt, ContainerReport, ContainerUuid, Exit, ExitCause, ReportedState, RunnerReport,
};

/// What a pretended container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pretence {
    /// Whether whoever measures is told when it begins and ends.
    pub(super) told: bool,
    /// How long it runs.
    pub(super) runs_for: Duration,
}

impl Pretence {
    /// The document that asks for it.
    pub(super) fn document(self) -> StartDocument {
        let told = if self.told { "told" } else { "untold" };
        let millis = self.runs_for.as_millis().to_string();
        StartDocument::new(vec!["pretend".into(), told.into(), millis])
    }

    /// What a document asks for, if it was made by [`Pretence::document`].
    pub(super) fn of(document: &[u8]) -> Option<Self> {
        let document = StartDocument::from_json(document).ok()?;
        let [_, told, millis] = document.command.as_slice() else {
            return None;
        };
        Some(Self {
            told: told == "told",
            runs_for: Duration::from_millis(millis.parse().ok()?),
        })
    }
}

/// The runner of one instance. `A` says where the answer to a request for a report goes.
#[derive(Debug)]
pub(super) struct Runner<A> {
    containers: Vec<ContainerReport>,
    /// Counts the changes; it is the digest of the report.
    version: u64,
    /// Who waits for another report than the one with this digest.
    waiting: Vec<(String, A)>,
}

impl<A> Default for Runner<A> {
    fn default() -> Self {
        Self {
            containers: Vec::new(),
            version: 0,
            waiting: Vec::new(),
        }
    }
}

impl<A: PartialEq> Runner<A> {
    /// Starts a container. If it runs for no time it is over.
    pub(super) fn start(&mut self, uuid: ContainerUuid, attempt: Attempt, pretence: Pretence) {
        let state = if pretence.runs_for.is_zero() {
            success()
        } else {
            ReportedState::Running { started_at: None }
        };
        self.containers.push(ContainerReport {
            uuid,
            attempt,
            state,
        });
        self.version += 1;
    }

    /// The time of a container is over.
    pub(super) fn end(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        for container in &mut self.containers {
            if (container.uuid, container.attempt) == (uuid, attempt) {
                container.state = success();
                self.version += 1;
            }
        }
    }

    /// These results were received.
    pub(super) fn acknowledge(&mut self, acks: &[(ContainerUuid, Attempt)]) {
        let before = self.containers.len();
        self.containers
            .retain(|container| !acks.contains(&(container.uuid, container.attempt)));
        if self.containers.len() < before {
            self.version += 1;
        }
    }

    /// Somebody wants a report with another digest than this.
    pub(super) fn wait(&mut self, known: String, asker: A) {
        self.waiting.push((known, asker));
    }

    /// Those for whom there is news; they wait no longer.
    pub(super) fn informed(&mut self) -> Vec<A> {
        let digest = self.version.to_string();
        let informed = self.waiting.extract_if(.., |(known, _)| *known != digest);
        informed.map(|(_, asker)| asker).collect()
    }

    /// Somebody waits no longer; false if he did not any more.
    pub(super) fn give_up(&mut self, asker: &A) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(_, other)| other != asker);
        self.waiting.len() < before
    }

    /// What there is to tell.
    pub(super) fn report(&self) -> RunnerReport {
        RunnerReport {
            containers: self.containers.clone(),
            broken: None,
            digest: self.version.to_string(),
        }
    }
}

fn success() -> ReportedState {
    ReportedState::Finished(Exit::unseen(ExitCause::Exited { code: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_hears_of_each_change_once() {
        let uuid: ContainerUuid = "zzzzz-dz642-0123456789abcde".parse().unwrap();
        let mut runner = Runner::default();
        runner.wait(String::new(), "new");
        assert_eq!(runner.informed(), ["new"], "he has no report yet");
        runner.wait(runner.report().digest, "a");
        assert!(runner.informed().is_empty());
        let pretence = Pretence {
            told: true,
            runs_for: Duration::from_millis(5),
        };
        runner.start(uuid, Attempt(1), pretence);
        assert_eq!(runner.informed(), ["a"]);
        runner.wait(runner.report().digest, "b");
        runner.acknowledge(&[(uuid, Attempt(2))]);
        assert!(runner.informed().is_empty(), "that is another attempt");
        runner.end(uuid, Attempt(1));
        assert_eq!(runner.informed(), ["b"]);
        assert_eq!(runner.report().containers[0].state, success());
        runner.wait(runner.report().digest, "c");
        runner.acknowledge(&[(uuid, Attempt(1))]);
        assert_eq!(runner.informed(), ["c"]);
        assert!(runner.report().containers.is_empty());
        runner.wait(runner.report().digest, "d");
        assert!(runner.give_up(&"d") && !runner.give_up(&"d"));
    }

    #[test]
    fn a_document_says_what_is_pretended() {
        for (told, millis) in [(true, 0), (false, 20)] {
            let pretence = Pretence {
                told,
                runs_for: Duration::from_millis(millis),
            };
            let document = pretence.document().to_json().unwrap();
            assert_eq!(Pretence::of(&document), Some(pretence));
        }
        let other = StartDocument::new(vec!["true".into()]).to_json().unwrap();
        assert_eq!(Pretence::of(&other), None);
    }
}
