//! Killing containers: TERM, again and again, until the runner says that nothing is left.

use longshore_types::{Attempt, ContainerUuid, InstanceId, Instant, WorkerState};

use crate::claim::Claimed;
use crate::core::{Core, FlightAction, WorkerFlight};
use crate::effect::{EffectAction, KillOutcome, Outcome};
use crate::refusal::Refusal;
use crate::text::one_line;
use crate::timers::{ContainerTimer, Timer};
use crate::worker::{Held, Kill, Stage};

const TERM: u8 = 15;
/// Ends nothing, and leaves a mark where nothing was started.
const NONE: u8 = 0;

impl Core {
    /// Asks a container on a worker to end. Cannot be taken back; asking again changes nothing.
    ///
    /// TERM is sent at once, and again every [`Config::timeout_signal`](crate::Config) until the
    /// runner says that nothing of it is left. After [`Config::timeout_term`](crate::Config)
    /// there is an alarm, and no further signal: the worker gets nothing more to do, and its
    /// instance is destroyed once nothing but such containers is on it (unless it is held).
    /// KILL is never sent.
    ///
    /// It is settled by [`Event::Ended`](crate::Event::Ended) or
    /// [`Event::NeverRan`](crate::Event::NeverRan). Where the instance goes first, for this or for
    /// another reason, that is an end with [`ExitCause::Killed`](longshore_types::ExitCause).
    pub fn kill(
        &mut self,
        uuid: ContainerUuid,
        instance: &InstanceId,
        reason: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.advance(now);
        self.allowed(instance)?;
        let timeout = self.config.timeout_term;
        let held = self
            .workers
            .get_mut(instance)
            .and_then(|w| w.held.get_mut(&uuid));
        let instance = instance.clone();
        let Some(held) = held else {
            return Err(Refusal::NotHeld { uuid, instance });
        };
        if !held.may_run() {
            return Err(Refusal::AlreadyEnded { uuid, instance });
        }
        if held.is_to_end() {
            return Ok(());
        }
        let in_flight = held.kill.as_ref().is_some_and(|kill| kill.in_flight);
        // What it was given up for before is another matter.
        held.given_up = false;
        held.kill = Some(Kill {
            only_unstarted: false,
            in_flight,
            sent_settled: false,
            gone: None,
            reason: one_line(reason),
        });
        let timer = Timer::Container(instance.clone(), uuid, ContainerTimer::GiveUp);
        self.timers.set(timer, self.now + timeout);
        self.send_kill(&instance, uuid);
        self.settle(&instance);
        Ok(())
    }

    /// Like [`Core::kill`], for an attempt that the runner has not shown: one that an earlier
    /// process may have sent there. The runner remembers not to start it.
    pub fn kill_attempt(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
        reason: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.advance(now);
        self.hold_unseen(uuid, attempt, instance)?;
        self.kill(uuid, instance, reason, now)
    }

    /// Sees to it that an attempt which the runner has not shown, and which an earlier process may
    /// have sent there, is never started there. If it was started meanwhile it goes on.
    ///
    /// Settled by [`Event::NeverRan`](crate::Event::NeverRan), or by
    /// [`Event::Running`](crate::Event::Running) and what follows it. What it needs is kept free
    /// until then: all of the worker. Given up after [`Config::timeout_term`](crate::Config), as a
    /// kill is.
    ///
    /// ```
    /// # use longshore_pool::{Config, Core, Refusal};
    /// # use longshore_types::{Attempt, Instant};
    /// # let mut core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
    /// # let uuid = "zzzzz-dz642-0123456789abcde".parse()?;
    /// let refused = core.withdraw(uuid, Attempt(1), &"i-1".into(), "no room", Instant::ZERO);
    /// assert!(matches!(refused, Err(Refusal::UnknownInstance { .. })));
    /// # Ok::<(), longshore_types::ParseUuidError>(())
    /// ```
    pub fn withdraw(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
        reason: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.advance(now);
        let timeout = self.config.timeout_term;
        let worker = self.workers.get(instance);
        if worker.is_some_and(|worker| worker.held.contains_key(&uuid)) {
            let instance = instance.clone();
            return Err(Refusal::HeldHere { uuid, instance });
        }
        let held = self.hold_unseen(uuid, attempt, instance)?;
        held.kill = Some(Kill {
            only_unstarted: true,
            in_flight: false,
            sent_settled: false,
            gone: None,
            reason: one_line(reason),
        });
        let timer = Timer::Container(instance.clone(), uuid, ContainerTimer::GiveUp);
        self.timers.set(timer, self.now + timeout);
        self.send_kill(instance, uuid);
        self.settle(instance);
        Ok(())
    }

    /// An attempt that may be on a worker, although its runner has not shown it.
    fn hold_unseen(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
    ) -> Result<&mut Held, Refusal> {
        self.allowed(instance)?;
        let seq = self.next_seq();
        let id = instance.clone();
        let Some(worker) = self.workers.get(instance) else {
            return Err(Refusal::UnknownInstance { instance: id });
        };
        if worker.state == WorkerState::Shutdown {
            return Err(Refusal::ShuttingDown { instance: id });
        }
        if worker.address.is_none() {
            return Err(Refusal::NoAddress { instance: id });
        }
        if worker.claims.get(&uuid).is_some_and(Claimed::may_be_so) {
            self.drop_claim(instance, uuid);
        }
        self.places.entry(uuid).or_default().insert(id.clone());
        let worker = self.workers.get_mut(instance);
        let worker = worker.ok_or(Refusal::UnknownInstance { instance: id })?;
        let entry = worker.held.entry(uuid);
        Ok(entry.or_insert_with(|| Held::new(attempt, Stage::Known, seq)))
    }

    /// Sends TERM, or sends it again, as long as something may be left.
    pub(crate) fn send_kill(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        let timeout = self.config.command_timeout;
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let Some(held) = worker.held.get(&uuid) else {
            return;
        };
        let Some(kill) = &held.kill else { return };
        let down = worker.state == WorkerState::Shutdown;
        // What runs has had its time. What has never been seen to is settled by any answer.
        let given_up = held.given_up && matches!(held.stage, Stage::Running);
        if !held.may_run() || given_up || kill.gone.is_some() || down || self.stopping {
            return;
        }
        let again = self.now
            + if held.given_up {
                self.config.timeout_term
            } else {
                self.config.timeout_signal
            };
        let timer = Timer::Container(id.clone(), uuid, ContainerTimer::Signal);
        self.timers.set(timer, again);
        if kill.in_flight {
            return;
        }
        let Some(host) = worker.host(id) else { return };
        let attempt = held.attempt;
        let signal = if kill.only_unstarted { NONE } else { TERM };
        let about = FlightAction::OnWorker(id.clone(), worker.serial, WorkerFlight::Kill(uuid));
        let action = EffectAction::Kill {
            host,
            uuid,
            attempt,
            signal,
        };
        if let Some((_, began)) = self.send(timeout, action, about)
            && let Some(held) = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid))
        {
            held.acted = began;
            let settled = held.start_is_settled();
            if let Some(kill) = &mut held.kill {
                kill.in_flight = true;
                kill.sent_settled = settled;
            }
        }
    }

    pub(crate) fn on_killed(&mut self, id: &InstanceId, uuid: ContainerUuid, outcome: Outcome) {
        let gone = matches!(outcome, Outcome::Killed(KillOutcome::Gone));
        let held = self.workers.get(id).and_then(|w| w.held.get(&uuid));
        let withdrawn = held.is_some_and(|held| !held.is_to_end());
        match &outcome {
            Outcome::Killed(KillOutcome::Unknown { error }) => self.set_error(id, error),
            Outcome::Killed(KillOutcome::StillRuns) if !withdrawn => {
                self.set_error(id, &format!("a kill of {uuid}: it still runs"));
            }
            _ => {}
        }
        let seq = self.next_seq();
        let Some(held) = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid)) else {
            return;
        };
        let Some(kill) = &mut held.kill else { return };
        kill.in_flight = false;
        held.acted = seq;
        if !gone {
            // Whatever it is that runs, the report shows it.
            if withdrawn {
                self.want_report(id);
            }
            return;
        }
        match &mut held.stage {
            // It may still be on its way: that is not an end. But from now on the runner refuses
            // it, so that sending it again settles it.
            Stage::Starting(sending) => {
                sending.gone = true;
                if sending.unknown.is_some() {
                    self.send_start(id, uuid);
                }
            }
            // The signal was sent while the start was in doubt, so its answer may be as old.
            Stage::Known | Stage::Running if !kill.sent_settled => self.send_kill(id, uuid),
            Stage::Known | Stage::Running => {
                kill.gone = Some(seq);
                self.timers
                    .clear(&Timer::Container(id.clone(), uuid, ContainerTimer::Signal));
                self.want_report(id);
            }
            Stage::Ended(_) => {}
        }
    }

    pub(crate) fn on_give_up_due(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        let held = self.workers.get(id).and_then(|w| w.held.get(&uuid));
        let Some(held) = held.filter(|held| held.may_run()) else {
            return;
        };
        let why = held.kill.as_ref().map(|kill| kill.reason.clone());
        let why = why.unwrap_or_default();
        if self.excuses(id, uuid, ContainerTimer::GiveUp) {
            return;
        }
        self.give_up(id, uuid);
        self.alarm(format!(
            "container {uuid} on instance {id} was to be ended ({why}) and cannot be"
        ));
        self.drain(id, &format!("container {uuid} cannot be ended"));
    }

    /// What becomes of a container is not waited for any more; what is left on its worker is, and
    /// then the worker goes.
    pub(crate) fn give_up(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        let held = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid));
        if let Some(held) = held {
            held.given_up = true;
        }
    }

    /// Nothing more is sent about a container, because its instance is being destroyed.
    pub(crate) fn stop_acting_on(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        for timer in [
            ContainerTimer::Start,
            ContainerTimer::Settle,
            ContainerTimer::Signal,
            ContainerTimer::GiveUp,
            ContainerTimer::Stale,
        ] {
            self.timers
                .clear(&Timer::Container(id.clone(), uuid, timer));
        }
        let held = self
            .workers
            .get(id)
            .and_then(|worker| worker.held.get(&uuid));
        if held.is_some_and(Held::is_over) {
            self.remove_held(id, uuid);
        }
    }
}
