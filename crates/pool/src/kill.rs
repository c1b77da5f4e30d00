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
        if held.kill.is_some() {
            return Ok(());
        }
        held.kill = Some(Kill {
            in_flight: false,
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
        self.allowed(instance)?;
        let seq = self.next_seq();
        let id = instance.clone();
        let Some(worker) = self.workers.get_mut(instance) else {
            return Err(Refusal::UnknownInstance { instance: id });
        };
        if worker.state == WorkerState::Shutdown {
            return Err(Refusal::ShuttingDown { instance: id });
        }
        if worker.address.is_none() {
            return Err(Refusal::NoAddress { instance: id });
        }
        let open = worker.claims.get(&uuid).is_some_and(Claimed::may_be_so);
        let entry = worker.held.entry(uuid);
        entry.or_insert_with(|| Held::new(attempt, Stage::Known, seq));
        self.places.entry(uuid).or_default().insert(id);
        if open {
            self.drop_claim(instance, uuid);
        }
        self.kill(uuid, instance, reason, now)
    }

    /// Sends TERM, or sends it again, as long as something may be left.
    pub(crate) fn send_kill(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        let timeout = self.config.command_timeout;
        let again = self.now + self.config.timeout_signal;
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let Some(held) = worker.held.get(&uuid) else {
            return;
        };
        let Some(kill) = &held.kill else { return };
        let down = worker.state == WorkerState::Shutdown;
        if !held.may_run() || held.given_up || kill.gone.is_some() || down || self.stopping {
            return;
        }
        let timer = Timer::Container(id.clone(), uuid, ContainerTimer::Signal);
        self.timers.set(timer, again);
        if kill.in_flight {
            return;
        }
        let Some(host) = worker.host(id) else { return };
        let attempt = held.attempt;
        let about = FlightAction::OnWorker(id.clone(), worker.serial, WorkerFlight::Kill(uuid));
        let action = EffectAction::Kill {
            host,
            uuid,
            attempt,
            signal: TERM,
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
        match &outcome {
            Outcome::Killed(KillOutcome::Unknown { error }) => self.set_error(id, error),
            Outcome::Killed(KillOutcome::StillRuns) => {
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
        let held = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid));
        let Some(held) = held.filter(|held| held.may_run()) else {
            return;
        };
        held.given_up = true;
        let why = held
            .kill
            .as_ref()
            .map(|kill| kill.reason.clone())
            .unwrap_or_default();
        self.alarm(format!(
            "container {uuid} on instance {id} was to be ended ({why}) and cannot be"
        ));
        self.drain(id, &format!("container {uuid} cannot be ended"));
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
