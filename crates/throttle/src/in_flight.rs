//! Calls under way at the same time.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use longshore_cloud::{CallContext, CloudError, ErrorKind, Operation};
use tokio::sync::Semaphore;

use crate::budget::Budget;
use crate::call::Call;
use crate::kind::PerKind;
use crate::layer::layer;
use crate::refused::Refused;

/// How long after its timeout a call is given up that does not end by itself.
const GRACE: Duration = Duration::from_secs(1);

/// The most calls of each kind that are under way at the same time; 0 means no limit.
///
/// ```
/// use longshore_cloud::Operation;
/// use longshore_throttle::InFlightLimits;
/// let limits = InFlightLimits::all(20).with(Operation::Create, 5).with_waiting(1000);
/// assert_eq!(limits.of(Operation::Create), 5);
/// assert_eq!(limits.of(Operation::List), 20);
/// assert_eq!(InFlightLimits::default(), InFlightLimits::all(0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlightLimits {
    calls: PerKind<usize>,
    waiting: usize,
}

impl InFlightLimits {
    /// The same limit for each kind of call.
    pub fn all(calls: usize) -> Self {
        Self {
            calls: PerKind::from_fn(|_| calls),
            waiting: 10_000,
        }
    }

    /// With another limit for one kind.
    #[must_use]
    pub fn with(mut self, operation: Operation, calls: usize) -> Self {
        *self.calls.of_mut(operation) = calls;
        self
    }

    /// With another bound on the calls of each kind that wait; at first 10,000.
    #[must_use]
    pub fn with_waiting(mut self, calls: usize) -> Self {
        self.waiting = calls;
        self
    }

    /// The limit of one kind.
    pub fn of(&self, operation: Operation) -> usize {
        *self.calls.of(operation)
    }
}

impl Default for InFlightLimits {
    /// No limit.
    fn default() -> Self {
        Self::all(0)
    }
}

/// Lets so many calls of each kind be under way at the same time; the others wait in order.
///
/// A call that waits until only a tenth of its timeout, or 5 s, is left, or finds too many waiting, was
/// not sent and ends with [`RateLimited`](longshore_cloud::ErrorKind::RateLimited) and [`Refused`]. A call that goes
/// on for a second more than its timeout is given up as
/// [`TimedOut`](longshore_cloud::ErrorKind::TimedOut), so that a driver that hangs does not take
/// all the places. A place is free again when its call ends, is dropped, or panics.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::{InFlight, InFlightLimits};
/// # block_on(async {
/// let set = InFlight::new(Stub::default(), InFlightLimits::all(0).with(Operation::Create, 20));
/// assert_eq!(set.to_string(), "InFlight(create 20, Stub)");
/// set.create(&CallContext::example(), &CreateRequest::example()).await.unwrap();
/// # });
/// ```
#[derive(Debug)]
pub struct InFlight<S> {
    inner: S,
    limits: InFlightLimits,
    places: PerKind<Option<Places>>,
}

#[derive(Debug)]
struct Places {
    free: Semaphore,
    waiting: AtomicUsize,
}

impl<S> InFlight<S> {
    /// A layer around `inner`.
    pub fn new(inner: S, limits: InFlightLimits) -> Self {
        let places = PerKind::from_fn(|kind| {
            let calls = limits
                .of(crate::kind::ALL[kind])
                .min(Semaphore::MAX_PERMITS);
            (calls > 0).then(|| Places {
                free: Semaphore::new(calls),
                waiting: AtomicUsize::new(0),
            })
        });
        Self {
            inner,
            limits,
            places,
        }
    }

    async fn pass<C: Call>(&self, context: &CallContext, call: C) -> C::Answer {
        let operation = call.operation();
        let Some(places) = self.places.of(operation) else {
            return call.send(context).await;
        };
        let budget = Budget::start(context);
        let refused = |refused: Refused| {
            call.failed(&|| refused.error(operation, "in-flight", Some(Duration::from_secs(1))))
        };
        let permit = match places.wait(self.limits.waiting, &budget).await {
            Ok(permit) => permit,
            Err(reason) => return refused(reason),
        };
        let Some(rest) = budget.rest() else {
            return refused(Refused::NotInTime);
        };
        let longest = rest.timeout.saturating_add(GRACE);
        let answer = tokio::time::timeout(longest, call.send(&rest)).await;
        drop(permit);
        answer.unwrap_or_else(|_| call.failed(&|| given_up(operation)))
    }
}

fn given_up(operation: Operation) -> CloudError {
    let words = "it did not end within its timeout and was given up";
    CloudError::new(operation, "in-flight", ErrorKind::TimedOut, words)
}

impl Places {
    async fn wait(
        &self,
        most_waiting: usize,
        budget: &Budget<'_>,
    ) -> Result<tokio::sync::SemaphorePermit<'_>, Refused> {
        if let Ok(permit) = self.free.try_acquire() {
            return Ok(permit);
        }
        let waiting = Waiting::enter(&self.waiting, most_waiting).ok_or(Refused::TooManyWaiting)?;
        let permit = tokio::time::timeout(budget.patience(), self.free.acquire()).await;
        drop(waiting);
        // The semaphore is never closed.
        permit.ok().and_then(Result::ok).ok_or(Refused::NotInTime)
    }
}

/// One that waits; counted until dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(crate) fn enter(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let counted = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            (waiting < most).then_some(waiting + 1)
        });
        counted.is_ok().then_some(Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

layer!(InFlight);

impl<S: fmt::Display> fmt::Display for InFlight<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlight(")?;
        let mut limited = false;
        for (operation, calls) in self.limits.calls.iter().filter(|(_, calls)| **calls > 0) {
            write!(f, "{operation} {calls}, ")?;
            limited = true;
        }
        if !limited {
            f.write_str("no limit, ")?;
        }
        write!(f, "{})", self.inner)
    }
}
