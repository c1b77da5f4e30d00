//! What is kept of a worker and of the containers on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{Instance, Tags};
use longshore_runner_api::command::OutputStream;
use longshore_types::{
    Attempt, ContainerUuid, Exit, ExitCause, HeldContainer, HeldPhase, IdleBehavior, InstanceId,
    Instant, Resources, Timestamp, TypeName, WorkerState,
};

use crate::blackhole::Duds;
use crate::claim::Claimed;
use crate::console::Console;
use crate::effect::{EffectId, Host};
use crate::promise::Promises;

/// A moment in the order of inputs and effects: unlike times, no two are equal.
pub(crate) type Seq = u64;

/// What a round of probing does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Boot,
    Deploy,
    Report,
}

#[derive(Debug)]
pub(crate) struct Worker {
    /// Tells workers apart that had the same instance id one after the other.
    pub(crate) serial: u64,
    pub(crate) type_name: Option<TypeName>,
    pub(crate) capacity: Resources,
    pub(crate) state: WorkerState,
    pub(crate) behavior: IdleBehavior,
    pub(crate) secret: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) user: String,
    pub(crate) launched_at: Option<Timestamp>,
    /// Whether it was found in a listing, not created by this process.
    pub(crate) adopted: bool,
    /// Claims for containers that we did not place count as recovery until then.
    pub(crate) recovery_ends: Option<Instant>,
    pub(crate) last_error: Option<String>,
    pub(crate) console: Console,

    pub(crate) held: BTreeMap<ContainerUuid, Held>,
    /// What it says to have and was not taken up.
    pub(crate) claims: BTreeMap<ContainerUuid, Claimed>,
    /// Whether it has claimed what cannot be.
    pub(crate) suspect: bool,
    /// Whether its runner has shown that it numbers attempts.
    pub(crate) numbers: bool,
    /// Whether it was told of that it has the secret of another one.
    pub(crate) is_twin: bool,
    /// Entries that were removed: what a report that began before that says of them is old.
    pub(crate) removed: BTreeMap<ContainerUuid, (Attempt, Seq)>,
    /// Containers of which an earlier start may yet arrive, where runners do not number attempts:
    /// nobody knows what became of it.
    pub(crate) late: BTreeSet<ContainerUuid>,
    pub(crate) duds: Duds,
    pub(crate) promises: Promises,

    pub(crate) step: Step,
    pub(crate) boot_ok: bool,
    pub(crate) deployed: bool,
    /// The probe under way, and the sequence number at which it began.
    pub(crate) probe: Option<(EffectId, Seq)>,
    /// The extra report under way beside a long one.
    pub(crate) short: Option<(EffectId, Seq)>,
    /// Whether another extra report is wanted when that one ends.
    pub(crate) short_again: bool,
    /// Whether it waits for a probe slot.
    pub(crate) queued: bool,
    pub(crate) digest: String,
    /// The digest that was known when the last regular report was asked for.
    pub(crate) digest_asked_with: String,
    pub(crate) probed_at: Option<Instant>,
    /// When the last probe that has ended was asked for, or the worker came.
    pub(crate) asked: Seq,
    /// Failed probes in a row, at least a probe interval apart.
    pub(crate) fails: u32,
    pub(crate) failed_at: Option<Instant>,
    /// Reports that followed each other at once, since `burst_began`.
    pub(crate) burst: u32,
    pub(crate) burst_began: Instant,
    /// What the clock of silence showed when it last answered, or when counting began anew.
    pub(crate) heard: Duration,
    /// When the worker came.
    pub(crate) came_at: Instant,
    /// What the clock of silence showed then, or when counting began anew.
    pub(crate) added: Duration,

    /// The last positive evidence that it exists.
    pub(crate) seen: Seq,
    /// Whether a listing has shown it.
    pub(crate) listed: bool,
    /// When the first listing that misses it was answered.
    pub(crate) missed_at: Option<Instant>,
    /// When a destroy was first accepted.
    pub(crate) destroy_accepted: Option<(Seq, Instant)>,
    pub(crate) destroy_sent_at: Option<Instant>,
    /// Whether the last destroy had no answer in time.
    pub(crate) destroy_unanswered: bool,

    pub(crate) tags_in_flight: bool,
    pub(crate) tags_tries: u32,
    /// When tags were last written, or began to be.
    pub(crate) tags_seq: Seq,
    pub(crate) tags: Tags,
    pub(crate) right: Option<Right>,
}

/// An instance as it was listed, as one of ours, when there was nothing to do about it: so that what a
/// listing shares with the one before it need not be read again.
#[derive(Clone, Debug)]
pub(crate) struct Right {
    pub(crate) shown: Arc<Instance>,
    /// The tags that it was known to have.
    pub(crate) kept: Tags,
    pub(crate) behavior: IdleBehavior,
}

impl Worker {
    pub(crate) fn host(&self, id: &InstanceId) -> Option<Host> {
        Some(Host {
            instance: id.clone(),
            address: self.address.clone()?,
            user: self.user.clone(),
            secret: self.secret.clone(),
        })
    }

    /// What is granted to containers; all of it while it is not known what one of them got, or
    /// whether one runs here that is only claimed.
    pub(crate) fn granted(&self) -> Resources {
        if self.claims.values().any(Claimed::may_run) {
            return self.capacity;
        }
        let mut sum = Resources::NONE;
        for held in self.held.values().filter(|held| held.may_run()) {
            match held.granted {
                Some(granted) => sum = sum.saturating_add(granted),
                None => return self.capacity,
            }
        }
        sum
    }

    /// Forgets removed entries of which no report under way can speak any more.
    pub(crate) fn prune_removed(&mut self) {
        let under_way = self.probe.iter().chain(&self.short);
        let oldest = under_way.map(|(_, began)| *began).min();
        self.removed
            .retain(|_, (_, removed)| oldest.is_some_and(|oldest| oldest < *removed));
    }

    /// The type whose boots fail if this one never comes to be ready: one that we made, and that
    /// nobody has decided to give back.
    pub(crate) fn boots_as(&self) -> Option<&TypeName> {
        let type_name = self.type_name.as_ref();
        type_name.filter(|_| self.state == WorkerState::Booting)
    }

    /// Since when it is known without an address, if it has none and should get one.
    pub(crate) fn unaddressed_since(&self) -> Option<Instant> {
        let boots = matches!(self.state, WorkerState::Unknown | WorkerState::Booting);
        (boots && self.address.is_none()).then_some(self.came_at)
    }

    /// Whether it has answered before, so that silence means something: also one that was found,
    /// and whose boot probe fails, once it has said what it runs.
    pub(crate) fn is_expected_to_answer(&self) -> bool {
        match self.state {
            WorkerState::Idle | WorkerState::Running => true,
            WorkerState::Unknown => self.probed_at.is_some(),
            WorkerState::Booting | WorkerState::Shutdown => false,
        }
    }

    /// Whether the regular round of probing may go on.
    pub(crate) fn may_be_probed(&self) -> bool {
        let idle = self.probe.is_none() && !self.queued;
        idle && self.state != WorkerState::Shutdown && self.address.is_some()
    }

    /// Whether what it answers or not says how well our own side works: one that never answered
    /// this process since it created it says nothing about that, nor does one that is to go.
    pub(crate) fn says_something(&self) -> bool {
        !matches!(self.state, WorkerState::Booting | WorkerState::Shutdown)
    }

    pub(crate) fn may_run_something(&self) -> bool {
        self.held.values().any(Held::may_run)
    }

    /// Whether it is given more containers.
    pub(crate) fn takes_more(&self) -> bool {
        self.behavior == IdleBehavior::Run && self.state != WorkerState::Shutdown
    }

    /// Why it cannot be of use any more, though it may be on hold.
    pub(crate) fn has_to_go(&self) -> Option<String> {
        let given_up = self.held.iter().find(|(_, held)| held.given_up);
        match given_up {
            Some((uuid, _)) => Some(format!("container {uuid} cannot be ended")),
            None => self
                .suspect
                .then(|| "it is not trusted any more".to_owned()),
        }
    }

    /// Whether giving it back would lose nothing: no container, no result that the controller does
    /// not have, no claim that may be so.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.values().all(Held::is_over) && !self.has_open_claims()
    }

    /// Whether only containers are left that cannot be ended.
    pub(crate) fn only_given_up(&self) -> bool {
        let lost = |held: &Held| held.given_up || held.is_over();
        self.held.values().all(lost) && !self.has_open_claims()
    }

    fn has_open_claims(&self) -> bool {
        self.claims.values().any(Claimed::may_be_so)
    }
}

/// A container on a worker.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) attempt: Attempt,
    /// None while it is not known, which counts as the whole worker.
    pub(crate) granted: Option<Resources>,
    /// Whether it was found there, not started by this process, which therefore could not see to
    /// it that there is room.
    pub(crate) found: bool,
    /// Kept until the start is settled, to repeat it.
    pub(crate) document: Option<Arc<[u8]>>,
    pub(crate) stage: Stage,
    pub(crate) kill: Option<Kill>,
    pub(crate) given_up: bool,
    pub(crate) stale: bool,
    /// When it came to be held; what was sent before was about an earlier attempt.
    since: Seq,
    /// When something was last done with it, or learned of it.
    pub(crate) acted: Seq,
    /// Whether [`Event::Running`](crate::Event::Running) was told.
    pub(crate) told_running: bool,
    /// When its process was started, on the clock of its machine, if that is known.
    pub(crate) started_at: Option<Timestamp>,
    /// Since when reports lack it although it should be in them.
    pub(crate) absent: Option<Instant>,
}

impl Held {
    pub(crate) fn new(attempt: Attempt, stage: Stage, acted: Seq) -> Self {
        Self {
            attempt,
            granted: None,
            found: true,
            document: None,
            stage,
            kill: None,
            given_up: false,
            stale: false,
            since: acted,
            acted,
            told_running: false,
            started_at: None,
            absent: None,
        }
    }

    pub(crate) fn may_run(&self) -> bool {
        !matches!(self.stage, Stage::Ended(_))
    }

    /// Whether that it has ended was known at a time.
    pub(crate) fn ended_before(&self, at: Seq) -> bool {
        !self.may_run() && self.acted < at
    }

    /// Whether its end was told.
    pub(crate) fn is_told(&self) -> bool {
        matches!(&self.stage, Stage::Ended(ended) if ended.told)
    }

    /// Whether it was taken as lost, since its runner did not speak of it, and that was told.
    pub(crate) fn was_taken_as_lost(&self) -> bool {
        let Stage::Ended(Ended { exit, told, .. }) = &self.stage else {
            return false;
        };
        *told && exit.cause == ExitCause::SupervisorLost && exit.finished_at.is_none()
    }

    /// Whether the controller has its result.
    pub(crate) fn is_acked(&self) -> bool {
        matches!(&self.stage, Stage::Ended(ended) if ended.acked)
    }

    /// Whether it only waits for the runner to forget it.
    pub(crate) fn is_over(&self) -> bool {
        matches!(&self.stage, Stage::Ended(ended) if ended.acked && ended.told)
    }

    /// Whether it was asked to end, whether it was started or not.
    pub(crate) fn is_to_end(&self) -> bool {
        self.kill.as_ref().is_some_and(|kill| !kill.only_unstarted)
    }

    /// Whether an effect that was asked for at `began` was about it.
    pub(crate) fn is_meant(&self, began: Seq) -> bool {
        began > self.since
    }

    /// Whether it is known what became of every start of it that was sent.
    pub(crate) fn start_is_settled(&self) -> bool {
        !matches!(self.stage, Stage::Starting(_))
    }

    /// An end that nobody has seen.
    pub(crate) fn unseen(&self, cause: ExitCause) -> Exit {
        Exit {
            started_at: self.started_at,
            ..Exit::unseen(cause)
        }
    }

    pub(crate) fn phase(&self) -> HeldPhase {
        match &self.stage {
            Stage::Ended(ended) => HeldPhase::Ended(Box::new(ended.exit.clone())),
            _ if self.stale && !self.is_to_end() => HeldPhase::Stale,
            _ if self.given_up => HeldPhase::GivenUp,
            _ if self.is_to_end() => HeldPhase::Killing,
            Stage::Running => HeldPhase::Running,
            Stage::Starting(_) | Stage::Known => HeldPhase::Starting,
        }
    }

    pub(crate) fn view(&self, uuid: ContainerUuid, capacity: Resources) -> HeldContainer {
        let granted = match self.granted {
            _ if !self.may_run() => Resources::NONE,
            Some(granted) => granted,
            None => capacity,
        };
        HeldContainer {
            uuid,
            attempt: self.attempt,
            phase: self.phase(),
            granted,
        }
    }
}

/// How far a container has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// A start was sent and is not settled.
    Starting(Sending),
    /// No start is under way; whether it runs is for the next report to say.
    Known,
    /// It was started.
    Running,
    /// It ended.
    Ended(Ended),
}

/// A start that is not settled.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    pub(crate) in_flight: bool,
    pub(crate) tries: u32,
    /// Whether an earlier try ended without anybody knowing how, and why.
    pub(crate) unknown: Option<String>,
    /// Whether a kill said that it is gone; then trying again settles it.
    pub(crate) gone: bool,
}

/// A kill that was asked for.
#[derive(Debug)]
pub(crate) struct Kill {
    /// Whether it is only to be kept from being started: what was goes on.
    pub(crate) only_unstarted: bool,
    pub(crate) in_flight: bool,
    /// Whether the start was settled when the signal was last sent.
    pub(crate) sent_settled: bool,
    /// When the runner said, after the start was settled, that nothing of it is left.
    pub(crate) gone: Option<Seq>,
    /// Why it was asked for.
    pub(crate) reason: String,
}

/// A result.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// The streams that are to be brought home still, the next one first.
    pub(crate) missing: Vec<OutputStream>,
    /// How often bringing one home failed.
    pub(crate) collects: u32,
    /// How often of these the instance answered that it cannot give it.
    pub(crate) refusals: u32,
    /// Since when bringing them home fails.
    pub(crate) failing_since: Option<Instant>,
    /// Whether it was told that our own side cannot keep it.
    pub(crate) alarmed: bool,
    /// The one that is being brought home.
    pub(crate) collecting: Option<OutputStream>,
    /// Whether [`Event::Ended`](crate::Event::Ended) was told.
    pub(crate) told: bool,
    pub(crate) acked: bool,
    /// When the runner was first told to forget it.
    pub(crate) ack_sent: Option<Seq>,
    /// How often it was shown after that.
    pub(crate) kept: u32,
}
