//! Calls per second.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_cloud::{CallContext, Operation};
use tokio::sync::Notify;

use crate::bucket::TokenBucket;
use crate::budget::{Budget, Clock};
use crate::call::Call;
use crate::layer::layer;
use crate::refused::Refused;
use crate::turns::{Step, Ticket, Turns};

/// How many calls per second.
///
/// ```
/// use longshore_throttle::RateLimit;
/// let limit = RateLimit::new(5.0).with_burst(20).with_waiting(100);
/// assert_ne!(limit, RateLimit::new(5.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RateLimit {
    /// Calls per second; what is no rate (zero, negative, infinite, not a number) means no limit.
    pub per_second: f64,
    /// How many calls may go at once after a quiet time; 0 counts as 1. At first 1.
    pub burst: u32,
    /// How many calls of each kind may wait; one more is refused at once. At first 10,000.
    pub waiting: usize,
}

impl RateLimit {
    /// A number of calls per second, without bursts.
    pub fn new(per_second: f64) -> Self {
        Self {
            per_second,
            burst: 1,
            waiting: 10_000,
        }
    }

    /// With another [`RateLimit::burst`].
    #[must_use]
    pub fn with_burst(mut self, calls: u32) -> Self {
        self.burst = calls;
        self
    }

    /// With another [`RateLimit::waiting`].
    #[must_use]
    pub fn with_waiting(mut self, calls: usize) -> Self {
        self.waiting = calls;
        self
    }
}

/// Lets so many calls per second through, destroys first.
///
/// - One token bucket for all calls: never more than `burst + per_second * t` in any `t` seconds.
/// - A destroy goes before everything that waits. Only after 16 destroys in a row one other call
///   goes, so that nothing waits for ever.
/// - The others have shares: creates 4, listings and host keys 2, tags and extensions 1. What a
///   kind does not use is lent to the others. Within a kind the order is kept.
/// - A batch is one call.
/// - Time spent waiting comes off [`CallContext::timeout`]. A call whose turn does not come while a
///   tenth of it, or 5 s, is left, or that finds too many waiting, ends with
///   [`RateLimited`](longshore_cloud::ErrorKind::RateLimited) and [`Refused`], and was not sent. So
///   none is sent that could not be answered in time, and the caller hears of it before its own end.
/// - A call that is dropped leaves its place; its token goes to the next.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::{Rate, RateLimit};
/// # block_on(async {
/// let set = Rate::new(Stub::default(), RateLimit::new(5.0));
/// assert_eq!(set.to_string(), "Rate(5/s, Stub)");
/// set.list(&CallContext::example(), &Tags::new()).await.unwrap();
/// # });
/// ```
#[derive(Debug)]
pub struct Rate<S> {
    inner: S,
    limit: RateLimit,
    gate: Option<Gate>,
}

impl<S> Rate<S> {
    /// A layer around `inner`.
    pub fn new(inner: S, limit: RateLimit) -> Self {
        let bucket = TokenBucket::new(limit.per_second, limit.burst);
        let gate = bucket.map(|bucket| Gate::new(Turns::new(bucket, limit.waiting)));
        Self { inner, limit, gate }
    }

    async fn pass<C: Call>(&self, context: &CallContext, call: C) -> C::Answer {
        let Some(gate) = &self.gate else {
            return call.send(context).await;
        };
        let operation = call.operation();
        let budget = Budget::start(context);
        let refused = match gate.wait(operation, &budget).await {
            Ok(()) => match budget.rest() {
                Some(rest) => return call.send(&rest).await,
                None => Refused::NotInTime,
            },
            Err(refused) => refused,
        };
        let wait = gate.state().turns.wait(operation, gate.clock.now());
        call.failed(&|| refused.error(operation, "rate", Some(wait)))
    }
}

layer!(Rate);

impl<S: fmt::Display> fmt::Display for Rate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gate {
            Some(_) => write!(f, "Rate({}/s, {})", self.limit.per_second, self.inner),
            None => write!(f, "Rate(no limit, {})", self.inner),
        }
    }
}

/// The queues and who sleeps in them.
#[derive(Debug)]
struct Gate {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    turns: Turns,
    bells: BTreeMap<u64, Arc<Notify>>,
}

impl State {
    /// Wakes the call whose turn it is, so that it looks how long to sleep.
    fn ring(&self) {
        let bell = self
            .turns
            .head()
            .and_then(|head| self.bells.get(&head.number));
        if let Some(bell) = bell {
            bell.notify_one();
        }
    }
}

impl Gate {
    fn new(turns: Turns) -> Self {
        let bells = BTreeMap::new();
        Self {
            clock: Clock::start(),
            state: Mutex::new(State { turns, bells }),
        }
    }

    /// Nothing in there panics half-way, so what a panic elsewhere poisoned is still whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a token.
    async fn wait(&self, operation: Operation, budget: &Budget<'_>) -> Result<(), Refused> {
        let place = self.enter(operation).ok_or(Refused::TooManyWaiting)?;
        let end = tokio::time::sleep(budget.patience());
        tokio::pin!(end);
        loop {
            let step = self.state().turns.step(place.ticket, self.clock.now());
            let sleep = match step {
                Step::Go => return Ok(()),
                Step::At(at) => Some(at.since(self.clock.now())),
                Step::Later => None,
            };
            let token = async {
                match sleep {
                    Some(sleep) => tokio::time::sleep(sleep).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = place.bell.notified() => {}
                () = token => {}
                () = &mut end => return Err(Refused::NotInTime),
            }
        }
    }

    fn enter(&self, operation: Operation) -> Option<Place<'_>> {
        let mut state = self.state();
        let ticket = state.turns.enter(operation, self.clock.now())?;
        let bell = Arc::new(Notify::new());
        state.bells.insert(ticket.number, Arc::clone(&bell));
        Some(Place {
            gate: self,
            ticket,
            bell,
        })
    }
}

/// A call's place in its queue; given up when dropped.
#[derive(Debug)]
struct Place<'a> {
    gate: &'a Gate,
    ticket: Ticket,
    bell: Arc<Notify>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.turns.leave(self.ticket);
        state.bells.remove(&self.ticket.number);
        state.ring();
    }
}
