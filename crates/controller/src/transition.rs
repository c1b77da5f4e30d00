//! What each call does to a container (pure).

use longshore_queue::Call;
use longshore_types::{Attempt, ContainerState, Exit, ExitCause, InstanceId, Timestamp};

/// The part of a container that changes in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) state: ContainerState,
    pub(crate) priority: i64,
    pub(crate) lock_count: u32,
    /// How often in a row it was given back before its process was started, and not held back.
    pub(crate) given_back: u32,
    pub(crate) placed_on: Option<InstanceId>,
    /// How often it is still put back after its machine was lost.
    pub(crate) retries_left: u32,
    /// Somebody wants it never to run again; its priority is 0 then.
    pub(crate) cancel_requested: bool,
    /// How its latest attempt ended.
    pub(crate) exit: Option<Exit>,
    pub(crate) error: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Changed,
    /// It had been applied before, or no longer matters.
    AsItIs,
}

/// Why a call is not allowed, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

/// What was done on behalf of the user, as the error text of the container.
pub(crate) const CANCELLED_ON_REQUEST: &str = "cancelled on request";

impl Life {
    /// Applies a call of a dispatcher.
    ///
    /// Repeating a call that was applied gives [`Verdict::AsItIs`], so that a lost reply can be
    /// asked for again.
    pub(crate) fn apply(
        &mut self,
        call: &Call,
        now: Timestamp,
        max_dispatch_attempts: u32,
    ) -> Result<Verdict, Refusal> {
        match call {
            Call::Lock { attempt, planned } => self.lock(*attempt, planned.as_ref()),
            Call::Place { attempt, instance } => self.place(*attempt, instance),
            Call::Unlock { attempt, placed_on } => {
                self.unlock(*attempt, placed_on.as_ref(), now, max_dispatch_attempts)
            }
            Call::Cancel {
                attempt,
                placed_on,
                error,
            } => self.cancel(*attempt, placed_on.as_ref(), error, now),
            Call::Running {
                attempt,
                started_at,
            } => self.running(*attempt, started_at.unwrap_or(now)),
            Call::Ended { attempt, exit } => self.ended(*attempt, exit, now),
        }
    }

    /// What a user's wish to cancel does: at once where nothing can run, else the dispatcher sees
    /// that the priority is 0.
    pub(crate) fn request_cancel(&mut self, now: Timestamp) -> Verdict {
        match self.state {
            ContainerState::Queued => {
                self.cancel_requested = true;
                self.priority = 0;
                self.finish(
                    ContainerState::Cancelled,
                    Some(CANCELLED_ON_REQUEST.into()),
                    now,
                );
                Verdict::Changed
            }
            ContainerState::Locked | ContainerState::Running if !self.cancel_requested => {
                self.cancel_requested = true;
                self.priority = 0;
                Verdict::Changed
            }
            _ => Verdict::AsItIs,
        }
    }

    /// Changes the priority; 0 holds it back, and stops it if it runs.
    pub(crate) fn set_priority(&mut self, priority: i64) -> Result<Verdict, Refusal> {
        if self.state.is_final() {
            return Err(Refusal(format!("it is {}", self.state)));
        }
        if self.cancel_requested {
            return Err(Refusal("it is being cancelled".into()));
        }
        let before = std::mem::replace(&mut self.priority, priority);
        Ok(if before == priority {
            Verdict::AsItIs
        } else {
            Verdict::Changed
        })
    }

    fn lock(&mut self, attempt: Attempt, planned: Option<&InstanceId>) -> Result<Verdict, Refusal> {
        if self.state == ContainerState::Locked
            && attempt.0 == self.lock_count
            && self.placed_on.as_ref() == planned
        {
            return Ok(Verdict::AsItIs);
        }
        if self.state == ContainerState::Queued && self.priority < 1 {
            return Err(Refusal(format!("its priority is {}", self.priority)));
        }
        if attempt.0 != self.lock_count.saturating_add(1) {
            return Err(Refusal(format!(
                "attempt {attempt} does not follow {}, its latest",
                self.lock_count
            )));
        }
        self.enter(ContainerState::Locked)?;
        self.lock_count += 1;
        self.placed_on = planned.cloned();
        Ok(Verdict::Changed)
    }

    fn place(&mut self, attempt: Attempt, instance: &InstanceId) -> Result<Verdict, Refusal> {
        self.check_current(attempt)?;
        if self.state != ContainerState::Locked {
            return Err(Refusal(format!("it is {}, not Locked", self.state)));
        }
        match &self.placed_on {
            Some(before) if before == instance => Ok(Verdict::AsItIs),
            // Its process may be there: whoever looks for it must go on finding that.
            Some(before) => Err(Refusal(format!(
                "attempt {attempt} was placed on {before}, not on {instance}"
            ))),
            None => {
                self.placed_on = Some(instance.clone());
                Ok(Verdict::Changed)
            }
        }
    }

    fn unlock(
        &mut self,
        attempt: Attempt,
        placed_on: Option<&InstanceId>,
        now: Timestamp,
        max_attempts: u32,
    ) -> Result<Verdict, Refusal> {
        // It was given back before, or the later attempt would not be there.
        if (1..self.lock_count).contains(&attempt.0) {
            return Ok(Verdict::AsItIs);
        }
        self.check_current(attempt)?;
        match self.state {
            ContainerState::Queued => return Ok(Verdict::AsItIs),
            ContainerState::Cancelled
                if self.cancel_requested || self.given_back >= max_attempts =>
            {
                return Ok(Verdict::AsItIs);
            }
            ContainerState::Locked => {}
            other => return Err(Refusal(format!("it is {other}, not Locked"))),
        }
        self.check_place(placed_on)?;
        if self.cancel_requested {
            self.finish(
                ContainerState::Cancelled,
                Some(CANCELLED_ON_REQUEST.into()),
                now,
            );
            return Ok(Verdict::Changed);
        }
        // What its user holds back is given back for no fault of its own.
        let counts = self.priority > 0;
        self.given_back = self.given_back.saturating_add(u32::from(counts));
        if counts && self.given_back >= max_attempts {
            let error = format!(
                "given up: {} times in a row it was given back before its process was started",
                self.given_back
            );
            self.finish(ContainerState::Cancelled, Some(error), now);
        } else {
            self.requeue();
        }
        Ok(Verdict::Changed)
    }

    fn cancel(
        &mut self,
        attempt: Attempt,
        placed_on: Option<&InstanceId>,
        error: &str,
        now: Timestamp,
    ) -> Result<Verdict, Refusal> {
        if self.state == ContainerState::Cancelled {
            return Ok(Verdict::AsItIs);
        }
        if attempt.0 != self.lock_count {
            self.check_current(attempt)?;
        }
        self.check_place(placed_on)?;
        if !self.state.can_become(ContainerState::Cancelled) {
            return Err(Refusal(format!("it is {}", self.state)));
        }
        self.finish(ContainerState::Cancelled, Some(error.to_owned()), now);
        Ok(Verdict::Changed)
    }

    fn running(&mut self, attempt: Attempt, started_at: Timestamp) -> Result<Verdict, Refusal> {
        self.check_current(attempt)?;
        if self.state == ContainerState::Running {
            return Ok(Verdict::AsItIs);
        }
        self.enter(ContainerState::Running)?;
        self.given_back = 0;
        self.started_at = Some(started_at);
        Ok(Verdict::Changed)
    }

    fn ended(&mut self, attempt: Attempt, exit: &Exit, now: Timestamp) -> Result<Verdict, Refusal> {
        if attempt.0 == 0 || attempt.0 > self.lock_count {
            self.check_current(attempt)?;
        }
        let current = attempt.0 == self.lock_count;
        if !current || !matches!(self.state, ContainerState::Locked | ContainerState::Running) {
            return Ok(Verdict::AsItIs);
        }
        // The report of its start may have been lost.
        if self.state == ContainerState::Locked {
            self.enter(ContainerState::Running)?;
        }
        self.given_back = 0;
        self.started_at = exit.started_at.or(self.started_at);
        self.exit = Some(exit.clone());
        // A machine's clock may be off: what ended in the future would be kept until then.
        let at = exit.finished_at.unwrap_or(now).min(now);
        self.decide(attempt, &exit.cause, at);
        Ok(Verdict::Changed)
    }

    /// What becomes of it now that an attempt ended.
    fn decide(&mut self, attempt: Attempt, cause: &ExitCause, at: Timestamp) {
        use ContainerState::{Cancelled, Complete};
        match cause {
            ExitCause::Exited { .. }
            | ExitCause::Signaled { .. }
            | ExitCause::OutOfMemory { .. }
            | ExitCause::CannotRun { .. } => {
                self.finish(Complete, None, at);
            }
            ExitCause::Killed if self.priority < 1 => {
                self.finish(Cancelled, Some(CANCELLED_ON_REQUEST.into()), at);
            }
            // The wish to stop it was taken back meanwhile.
            ExitCause::Killed => self.requeue(),
            ExitCause::TimeLimit => self.finish(Cancelled, Some(cause.to_string()), at),
            // What could not be started may well be, on another machine.
            ExitCause::NotStarted { .. } | ExitCause::SupervisorLost | ExitCause::InstanceLost => {
                let error = format!("attempt {attempt}: {cause}");
                if self.cancel_requested {
                    self.finish(Cancelled, Some(CANCELLED_ON_REQUEST.into()), at);
                } else if let Some(left) = self.retries_left.checked_sub(1) {
                    self.retries_left = left;
                    self.requeue();
                    self.error = Some(error);
                } else {
                    self.finish(Cancelled, Some(format!("{error}; no retries are left")), at);
                }
            }
        }
    }

    fn check_current(&self, attempt: Attempt) -> Result<(), Refusal> {
        if attempt.0 == 0 || attempt.0 != self.lock_count {
            return Err(Refusal(format!(
                "attempt {attempt} is not its latest, which is {}",
                self.lock_count
            )));
        }
        Ok(())
    }

    /// Whoever decided something about the latest attempt knew where it is.
    fn check_place(&self, known: Option<&InstanceId>) -> Result<(), Refusal> {
        let name = |place: Option<&InstanceId>| {
            place.map_or_else(|| "nowhere".to_owned(), |id| format!("on {id}"))
        };
        let recorded = self.placed_on.as_ref();
        if recorded == known {
            return Ok(());
        }
        let (recorded, known) = (name(recorded), name(known));
        Err(Refusal(format!("it was placed {recorded}, not {known}")))
    }

    fn enter(&mut self, next: ContainerState) -> Result<(), Refusal> {
        if !self.state.can_become(next) {
            return Err(Refusal(format!(
                "it is {}, it cannot become {next}",
                self.state
            )));
        }
        self.state = next;
        Ok(())
    }

    fn finish(&mut self, state: ContainerState, error: Option<String>, at: Timestamp) {
        debug_assert!(self.state.can_become(state), "{} to {state}", self.state);
        self.state = state;
        self.error = error;
        self.finished_at = Some(at);
        // The start may have been told after the end, and by another clock.
        self.started_at = self.started_at.map(|started| started.min(at));
    }

    fn requeue(&mut self) {
        self.state = ContainerState::Queued;
        self.placed_on = None;
        self.started_at = None;
    }
}

/// The exit code that a shell would give: the code, or 128 and the signal's number.
pub(crate) fn exit_code(exit: &Exit) -> Option<i32> {
    match exit.cause {
        ExitCause::Exited { code } | ExitCause::CannotRun { code, .. } => Some(code),
        ExitCause::Signaled { signal } => Some(signal.saturating_add(128)),
        // The signal that the kernel sends then is KILL.
        ExitCause::OutOfMemory { .. } => Some(128 + 9),
        _ => None,
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
