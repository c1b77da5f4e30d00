//! Claims: what a worker says to have that this process did not place there.
//!
//! `docs/states.md` has the table. What a worker says of itself is believed only where it may be
//! so: where an earlier process may have placed the container, and nobody else may run it.

use longshore_types::{
    Attempt, ContainerReport, ContainerUuid, InstanceId, Instant, ReportedState,
};

use crate::core::Core;
use crate::event::Event;
use crate::worker::{Held, Stage};

/// The most containers on one worker, those that are only claimed included.
const MAX_CLAIMS: usize = 4096;

/// A container that a worker says to have; whether that is so is not decided.
///
/// No example: see [`Core::answer_claim`], which decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// The container.
    pub uuid: ContainerUuid,
    /// The attempt; 0 where the runner does not number them.
    pub attempt: Attempt,
    /// Who says so.
    pub instance: InstanceId,
    /// Whether it is said to have ended.
    pub ended: bool,
    /// When it was first said.
    pub since: Instant,
}

/// What somebody who knows where containers were placed says of a claim.
///
/// No example: it is an argument of [`Core::answer_claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever answers claims has these three things to say"
)]
pub enum ClaimAnswer {
    /// It was placed there and nowhere else: whoever else claims it does so falsely.
    Placed,
    /// It may have been placed there: believed unless another worker may run it.
    Possible,
    /// It was never placed there.
    False,
}

/// A claim that is remembered.
#[derive(Debug)]
pub(crate) struct Claimed {
    attempt: Attempt,
    state: ReportedState,
    since: Instant,
    word: Word,
}

/// How far a claim was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Whoever drives the pool was asked.
    Asked,
    /// Another worker may run the container, and nobody knows which of them lies.
    Contested,
    /// It is not so.
    False,
}

/// What the pool knows by itself that bears on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// Whether an earlier process may have placed something on the worker.
    inherited: bool,
    /// Whether somebody knows where containers were placed.
    asks: bool,
    /// Another worker on which the container may run.
    other: Option<Other>,
    /// Whether it is said to have ended.
    ended: bool,
    /// Whether its runner numbers attempts.
    numbered: bool,
    /// Whether it is contested already, and whether that has lasted too long.
    contested: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Other {
    /// Whether this process placed the container there, which therefore is beyond doubt.
    placed: bool,
    /// Whether the claim is about an older attempt than the one there.
    newer: bool,
    /// Whether that is known to have been started.
    runs: bool,
}

/// What is to be done about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Believe,
    Ask,
    Contest,
    Refuse,
}

fn judge(known: Known) -> Judgement {
    match known {
        // What this process did not place there nobody did.
        Known {
            inherited: false, ..
        } => Judgement::Refuse,
        // A start that went astray on its way there may have been faster than the last one: where
        // only one of them is let run, the other ends by itself.
        Known {
            numbered: false,
            asks: false,
            ended: false,
            other: Some(Other {
                placed: true, runs, ..
            }),
            contested,
            ..
        } => match contested {
            Some(true) if runs => Judgement::Refuse,
            _ => Judgement::Contest,
        },
        // Once what it contradicts is gone it may be so after all.
        Known {
            contested: Some(too_long),
            other: Some(other),
            asks,
            ..
        } if asks || other.placed => match too_long {
            true => Judgement::Refuse,
            false => Judgement::Contest,
        },
        Known { asks: true, .. } => Judgement::Ask,
        Known { other: None, .. } => Judgement::Believe,
        // A result that nobody has fetched yet takes nothing from a later attempt.
        Known {
            other: Some(Other { newer: true, .. }),
            ended: true,
            ..
        } => Judgement::Believe,
        Known {
            other:
                Some(Other {
                    placed: true,
                    newer: false,
                    ..
                }),
            ..
        } => Judgement::Refuse,
        Known { other: Some(_), .. } => Judgement::Contest,
    }
}

impl Claimed {
    fn ended(&self) -> bool {
        matches!(self.state, ReportedState::Finished(_))
    }

    /// Whether it may be so, so that its machine is not given back.
    pub(crate) fn may_be_so(&self) -> bool {
        self.word != Word::False
    }

    /// Whether a process of it may be there.
    pub(crate) fn may_run(&self) -> bool {
        self.may_be_so() && !self.ended()
    }

    /// Whether this attempt was found not to be there, whatever its worker says.
    pub(crate) fn is_false(&self, attempt: Attempt) -> bool {
        self.word == Word::False && self.attempt == attempt
    }
}

impl Core {
    /// The claims about a container that are not decided yet: see
    /// [`Config::asks_about_claims`](crate::Config::asks_about_claims).
    pub fn claims_of(&self, uuid: ContainerUuid) -> impl Iterator<Item = Claim> + '_ {
        let claimants = self.claimants.get(&uuid).into_iter().flatten();
        claimants.filter_map(move |id| {
            let claimed = self.workers.get(id)?.claims.get(&uuid)?;
            (claimed.word == Word::Asked).then(|| Claim {
                uuid,
                attempt: claimed.attempt,
                instance: id.clone(),
                ended: claimed.ended(),
                since: claimed.since,
            })
        })
    }

    /// Whether any worker may have a process or a result of a container that was not
    /// acknowledged, or claims to.
    pub fn is_claimed(&self, uuid: ContainerUuid) -> bool {
        let places = self.places.get(&uuid).into_iter().flatten();
        let has = |id: &InstanceId| {
            let held = self.workers.get(id).and_then(|w| w.held.get(&uuid));
            held.is_some_and(|held| !held.is_acked())
        };
        self.claimants.contains_key(&uuid) || places.into_iter().any(has)
    }

    /// Decides a claim. Ignored where it does not apply, or is not claimed any more.
    ///
    /// One that is so counts from now on like a container that was started there. One that is not
    /// is never taken up: the worker gets nothing more to do, there is an alarm, and its instance
    /// is destroyed once nothing else is on it (unless it is held).
    ///
    /// ```
    /// use longshore_cloud::{Instance, InstanceState};
    /// use longshore_pool::{ClaimAnswer, Config, Core, EffectAction, Event, Outcome};
    /// use longshore_types::{
    ///     Attempt, ContainerReport, IdleBehavior, Instant, ReportedState, RunnerReport,
    /// };
    ///
    /// let mut config = Config::new("set", vec![]);
    /// config.asks_about_claims = true;
    /// let now = Instant::ZERO;
    /// let mut core = Core::new(config, [0; 32], now);
    /// let uuid = "zzzzz-dz642-0123456789abcde".parse().unwrap();
    /// // An instance of an earlier process, that says to have a container.
    /// while let Some(effect) = core.poll_effect() {
    ///     let outcome = match effect.action {
    ///         EffectAction::List(tags) => {
    ///             let mut found = Instance::new("i-1", "s1", InstanceState::Running, tags);
    ///             found.address = Some("10.0.0.1".into());
    ///             Outcome::listed([found])
    ///         }
    ///         EffectAction::Boot(_) => Outcome::Booted(Ok(())),
    ///         EffectAction::Deploy(..) => Outcome::Deployed(Ok(())),
    ///         EffectAction::Report(..) => {
    ///             let state = ReportedState::Running { started_at: None };
    ///             let container = ContainerReport { uuid, attempt: Attempt(1), state };
    ///             let containers = vec![container];
    ///             Outcome::Reported(Ok(RunnerReport { containers, ..RunnerReport::default() }))
    ///         }
    ///         _ => continue,
    ///     };
    ///     core.handle_outcome(effect.id, outcome, now);
    /// }
    /// assert!(matches!(core.poll_event(), Some(Event::Claimed { .. })) && core.is_claimed(uuid));
    /// let claim = core.claims_of(uuid).next().unwrap();
    /// assert!(!claim.ended);
    /// let answer = ClaimAnswer::False; // It was placed on another instance.
    /// core.answer_claim(uuid, claim.attempt, &claim.instance, answer, now);
    /// assert!(!core.is_claimed(uuid) && core.claims_of(uuid).next().is_none());
    /// assert_eq!(core.worker(&claim.instance).unwrap().idle_behavior, IdleBehavior::Drain);
    /// ```
    pub fn answer_claim(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
        answer: ClaimAnswer,
        now: Instant,
    ) {
        self.advance(now);
        let claimed = self.workers.get(instance).and_then(|w| w.claims.get(&uuid));
        let asked = |c: &&Claimed| c.word == Word::Asked && c.attempt == attempt;
        let Some(claimed) = claimed.filter(asked) else {
            return;
        };
        let (state, ended) = (claimed.state.clone(), claimed.ended());
        let shown = ContainerReport {
            uuid,
            attempt,
            state,
        };
        if answer == ClaimAnswer::Placed {
            self.contest_others(instance, uuid);
        }
        let other = self.other_that_may_run(uuid, instance);
        match answer {
            ClaimAnswer::False => self.refuse_claim(instance, &shown),
            _ if other.is_some() && !ended => self.contest(instance, &shown),
            _ => self.believe(instance, &shown),
        }
        self.settle(instance);
    }

    /// A worker says that it has a container of which we did not know that.
    pub(crate) fn take_claim(&mut self, id: &InstanceId, shown: &ContainerReport) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let before = worker.claims.get(&shown.uuid);
        let before = before.filter(|claimed| claimed.attempt == shown.attempt);
        if before.is_some_and(|claimed| claimed.word == Word::False) {
            return;
        }
        if before.is_none() && worker.claims.len() + worker.held.len() >= MAX_CLAIMS {
            self.suspect(id, "it claims more containers than it could have");
            return;
        }
        let contested = before
            .filter(|claimed| claimed.word == Word::Contested)
            .map(|claimed| self.now.since(claimed.since) >= self.config.timeout_term);
        let numbered = shown.attempt != Attempt(0);
        let known = Known {
            inherited: worker.adopted || !numbered && worker.late.contains(&shown.uuid),
            numbered,
            asks: self.config.asks_about_claims,
            other: self.other_that_may_run(shown.uuid, id).map(|other| Other {
                placed: !other.1.found,
                newer: numbered && shown.attempt < other.1.attempt,
                runs: matches!(other.1.stage, Stage::Running),
            }),
            ended: matches!(shown.state, ReportedState::Finished(_)),
            contested,
        };
        match judge(known) {
            Judgement::Believe => self.believe_late(id, shown),
            Judgement::Ask => self.ask_about(id, shown),
            Judgement::Contest => self.contest(id, shown),
            Judgement::Refuse => self.refuse_claim(id, shown),
        }
    }

    /// Forgets what a worker does not claim any more.
    pub(crate) fn drop_claims_but(
        &mut self,
        id: &InstanceId,
        kept: impl Fn(ContainerUuid) -> bool,
    ) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let claimed = worker.claims.keys().copied();
        let dropped: Vec<ContainerUuid> = claimed.filter(|uuid| !kept(*uuid)).collect();
        for uuid in dropped {
            self.drop_claim(id, uuid);
        }
    }

    pub(crate) fn drop_claim(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.claims.remove(&uuid);
        }
        if let Some(claimants) = self.claimants.get_mut(&uuid) {
            claimants.remove(id);
            if claimants.is_empty() {
                self.claimants.remove(&uuid);
            }
        }
    }

    fn remember_claim(&mut self, id: &InstanceId, shown: &ContainerReport, word: Word) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let before = worker.claims.get(&shown.uuid);
        let before = before.filter(|claimed| claimed.attempt == shown.attempt);
        let since = before.map_or(now, |claimed| claimed.since);
        self.drop_claim(id, shown.uuid);
        if word != Word::False {
            let claimants = self.claimants.entry(shown.uuid).or_default();
            claimants.insert(id.clone());
        }
        let claimed = Claimed {
            attempt: shown.attempt,
            state: shown.state.clone(),
            since,
            word,
        };
        if let Some(worker) = self.workers.get_mut(id) {
            worker.claims.insert(shown.uuid, claimed);
        }
    }

    fn ask_about(&mut self, id: &InstanceId, shown: &ContainerReport) {
        let before = self.workers.get(id).and_then(|w| w.claims.get(&shown.uuid));
        let asked = before.is_some_and(|c| c.word == Word::Asked && c.attempt == shown.attempt);
        self.remember_claim(id, shown, Word::Asked);
        if !asked {
            self.event(Event::Claimed {
                uuid: shown.uuid,
                attempt: shown.attempt,
                instance: id.clone(),
            });
        }
    }

    fn contest(&mut self, id: &InstanceId, shown: &ContainerReport) {
        self.remember_claim(id, shown, Word::Contested);
        let uuid = shown.uuid;
        if let Some((other, _)) = self.other_that_may_run(uuid, id) {
            let why = format!("it claims container {uuid}, which is on {other}");
            self.suspect(id, &why);
        }
    }

    /// A container may run no more where it was.
    pub(crate) fn note_freed(&mut self, uuid: ContainerUuid) {
        if !self.config.asks_about_claims && self.claimants.contains_key(&uuid) {
            self.freed.insert(uuid);
        }
    }

    /// What was contested may be so once nothing contradicts it.
    pub(crate) fn judge_contests(&mut self) {
        while let Some(uuid) = self.freed.pop_first() {
            let claimants = self.claimants.get(&uuid).into_iter().flatten();
            for id in claimants.cloned().collect::<Vec<InstanceId>>() {
                let claimed = self.workers.get(&id).and_then(|w| w.claims.get(&uuid));
                let contested = claimed.filter(|claimed| claimed.word == Word::Contested);
                let Some(Claimed { attempt, state, .. }) = contested else {
                    continue;
                };
                let shown = ContainerReport {
                    uuid,
                    attempt: *attempt,
                    state: state.clone(),
                };
                self.take_claim(&id, &shown);
                self.settle(&id);
            }
        }
    }

    /// Other workers that only claim to have it, and were believed, are not any more.
    fn contest_others(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        while let Some((other, held)) = self.other_that_may_run(uuid, id)
            && held.found
        {
            let shown = ContainerReport {
                uuid,
                attempt: held.attempt,
                state: ReportedState::Running { started_at: None },
            };
            self.remove_held(&other, uuid);
            self.remember_claim(&other, &shown, Word::Contested);
            let why = format!("it claims container {uuid}, which is on {id}");
            self.suspect(&other, &why);
            self.settle(&other);
        }
    }

    fn refuse_claim(&mut self, id: &InstanceId, shown: &ContainerReport) {
        self.remember_claim(id, shown, Word::False);
        let uuid = shown.uuid;
        let why = format!("it claims container {uuid}, which was not placed there");
        self.suspect(id, &why);
    }

    /// A worker has said what cannot be: it gets nothing more to do. One alarm each is enough.
    pub(crate) fn suspect(&mut self, id: &InstanceId, why: &str) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut worker.suspect, true) {
            self.alarm(format!("instance {id} is not trusted any more: {why}"));
            self.drain(id, why);
        } else if worker.takes_more() {
            self.drain(id, why);
        }
    }

    /// Takes a claim up without anybody having said that it is so; late ones are odd.
    fn believe_late(&mut self, id: &InstanceId, shown: &ContainerReport) {
        let now = self.now;
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let expected = worker.recovery_ends.is_none_or(|ends| now < ends);
        self.believe(id, shown);
        if !expected {
            let uuid = shown.uuid;
            let why = format!("it has container {uuid}, which was not placed there");
            self.suspect(id, &why);
        }
    }

    fn believe(&mut self, id: &InstanceId, shown: &ContainerReport) {
        let uuid = shown.uuid;
        self.drop_claim(id, uuid);
        let seq = self.next_seq();
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let held = Held::new(shown.attempt, Stage::Known, seq);
        worker.held.insert(uuid, held);
        self.places.entry(uuid).or_default().insert(id.clone());
        self.show(id, shown, seq);
    }

    /// Another worker on which a container may run, and what is known of it there.
    fn other_that_may_run(
        &self,
        uuid: ContainerUuid,
        but: &InstanceId,
    ) -> Option<(InstanceId, &Held)> {
        let others = self.places.get(&uuid)?.iter().filter(|id| *id != but);
        let mut held = others.filter_map(|id| Some((id, self.workers.get(id)?.held.get(&uuid)?)));
        let (id, held) = held.find(|(_, held)| held.may_run())?;
        Some((id.clone(), held))
    }
}
