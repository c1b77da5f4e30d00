//! No calls for a while after the provider refused one for its rate.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_cloud::{CallContext, CloudError, ErrorKind, Operation};
use longshore_types::Instant;

use crate::budget::Clock;
use crate::call::{Answer, Call};
use crate::hold::Hold;
use crate::kind::PerKind;
use crate::layer::layer;
use crate::refused::Refused;

/// After a rate limit, sends no call of that kind until the provider's time has come.
///
/// If the provider names no time, or zero: `d <- clamp(1.5 d + 1 s, 1 s, 60 s)` for each kind of call, back
/// to nothing at any other answer. Refusals of calls that were under way together are one, and
/// more than an hour is not waited whatever the provider says. Calls that are held off fail at
/// once with [`RateLimited`](longshore_cloud::ErrorKind::RateLimited), [`Refused::HeldOff`] and
/// what is left of the time; they were not sent.
///
/// Only rate limits of the provider count: quota and capacity are the pool's business, and what an
/// inner layer did not let through ([`Refused`]) says nothing about the provider.
///
/// What waits further in when a hold-off begins is sent all the same; a [`Stack`](crate::Stack) holds
/// that, too, by a part of this layer, `Held`, within those where calls wait.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::HoldOff;
/// # block_on(async {
/// let set = HoldOff::new(Stub::refusing(ErrorKind::RateLimited { retry_after: None }));
/// let (context, tags) = (CallContext::example(), Tags::new());
/// for provider in ["stub", "hold-off"] {
///     assert_eq!(set.list(&context, &tags).await.unwrap_err().provider, provider);
/// }
/// # });
/// ```
#[derive(Debug)]
pub struct HoldOff<S> {
    inner: S,
    holds: Holds,
}

impl<S> HoldOff<S> {
    /// A layer around `inner`.
    pub fn new(inner: S) -> Self {
        Self::sharing(inner, Holds::new())
    }

    /// One whose hold-offs a [`Held`] further in knows, too.
    pub(crate) fn sharing(inner: S, holds: Holds) -> Self {
        Self { inner, holds }
    }

    async fn pass<C: Call>(&self, context: &CallContext, call: C) -> C::Answer {
        let operation = call.operation();
        let sent = self.holds.clock.now();
        if let Some(left) = self.holds.left(operation) {
            return held_off(&call, left);
        }
        let answer = call.send(context).await;
        let now = self.holds.clock.now();
        let mut holds = self.holds.all();
        note(holds.of_mut(operation), &answer.errors(), sent, now);
        answer
    }
}

/// The hold-offs of all kinds of calls; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Holds {
    clock: Clock,
    all: Arc<Mutex<PerKind<Hold>>>,
}

impl Holds {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::start(),
            all: Arc::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, PerKind<Hold>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long calls of a kind are still held off.
    fn left(&self, operation: Operation) -> Option<Duration> {
        self.all().of(operation).left(self.clock.now())
    }
}

/// The part of a [`HoldOff`] within the layers where calls wait: one that began to wait before the
/// provider refused another is held off, too, when its turn comes.
#[derive(Debug)]
pub(crate) struct Held<S> {
    inner: S,
    holds: Holds,
}

impl<S> Held<S> {
    pub(crate) fn new(inner: S, holds: Holds) -> Self {
        Self { inner, holds }
    }

    async fn pass<C: Call>(&self, context: &CallContext, call: C) -> C::Answer {
        match self.holds.left(call.operation()) {
            Some(left) => held_off(&call, left),
            None => call.send(context).await,
        }
    }
}

fn held_off<C: Call>(call: &C, left: Duration) -> C::Answer {
    call.failed(&|| Refused::HeldOff.error(call.operation(), "hold-off", Some(left)))
}

fn note(hold: &mut Hold, errors: &[&CloudError], sent: Instant, now: Instant) {
    let (ours, theirs): (Vec<&CloudError>, Vec<&CloudError>) =
        errors.iter().partition(|error| Refused::is_cause_of(error));
    let refusals: Vec<Option<Duration>> = theirs
        .iter()
        .filter_map(|error| match error.kind {
            ErrorKind::RateLimited { retry_after } => Some(retry_after),
            _ => None,
        })
        .collect();
    match refusals.into_iter().max() {
        Some(retry_after) => hold.handle_refusal(sent, retry_after, now),
        None if ours.is_empty() => hold.handle_other(sent),
        None => {}
    }
}

layer!(HoldOff);
layer!(Held);

impl<S: fmt::Display> fmt::Display for HoldOff<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HoldOff({})", self.inner)
    }
}

impl<S: fmt::Display> fmt::Display for Held<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_layer_kept_back_neither_begins_nor_ends_a_hold_off() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let kind = ErrorKind::RateLimited { retry_after: None };
        let theirs = CloudError::new(Operation::List, "test", kind, "slow down");
        let ours = Refused::NotInTime.error(Operation::List, "rate", None);
        let mut hold = Hold::default();
        note(&mut hold, &[&ours], at(1), at(1));
        assert_eq!(hold, Hold::default());
        note(&mut hold, &[&theirs], at(1), at(1));
        let begun = hold.clone();
        note(&mut hold, &[&ours], at(5), at(5));
        assert_eq!(hold, begun);
        note(&mut hold, &[], at(5), at(5));
        assert_eq!(hold, Hold::default());
    }
}
