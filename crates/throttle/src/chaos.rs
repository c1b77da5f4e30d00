//! Faults, for people who test their own service.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use longshore_cloud::{CallContext, CloudError, ErrorKind};

use crate::budget::Budget;
use crate::call::Call;
use crate::dice::{Chances, Fate, delay, fate};
use crate::layer::layer;

/// What goes wrong how often; chances are from 0 to 1.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::ErrorKind;
/// use longshore_throttle::Faults;
/// let faults = Faults::new(7)
///     .with_before(0.1, ErrorKind::NotFound)
///     .with_after(0.05)
///     .with_lost(0.01)
///     .with_delay(Duration::from_secs(2));
/// assert_eq!(faults.seed, 7);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// Equal seeds give the n-th call equal faults.
    pub seed: u64,
    /// The chance that a call fails without having acted.
    pub before: f64,
    /// How it fails then.
    pub before_kind: ErrorKind,
    /// The chance that a call acts and then fails with [`ErrorKind::Other`].
    pub after: f64,
    /// The chance that a call acts and its reply is lost: it ends with [`ErrorKind::TimedOut`] when
    /// its timeout is over.
    pub lost: f64,
    /// Each call is held up for some time below this before anything else.
    pub delay: Duration,
}

impl Faults {
    /// No faults at all.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            before: 0.0,
            before_kind: ErrorKind::RateLimited { retry_after: None },
            after: 0.0,
            lost: 0.0,
            delay: Duration::ZERO,
        }
    }

    /// With errors before acting.
    #[must_use]
    pub fn with_before(mut self, chance: f64, kind: ErrorKind) -> Self {
        (self.before, self.before_kind) = (chance, kind);
        self
    }

    /// With errors after acting.
    #[must_use]
    pub fn with_after(mut self, chance: f64) -> Self {
        self.after = chance;
        self
    }

    /// With lost replies.
    #[must_use]
    pub fn with_lost(mut self, chance: f64) -> Self {
        self.lost = chance;
        self
    }

    /// With delays.
    #[must_use]
    pub fn with_delay(mut self, longest: Duration) -> Self {
        self.delay = longest;
        self
    }
}

/// Makes calls fail, lose their replies and take long, by chance but repeatably.
///
/// For tests of whatever is outside of it; never for production. A fault befalls a batch as a
/// whole. Faults that come after acting have the outcome
/// [`Unknown`](longshore_cloud::Outcome::Unknown).
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::{Chaos, Faults};
/// # block_on(async {
/// let set = Chaos::new(Stub::default(), Faults::new(1).with_after(1.0));
/// assert_eq!(set.to_string(), "Chaos(seed 1, Stub)");
/// let error = set.list(&CallContext::example(), &Tags::new()).await.unwrap_err();
/// assert_eq!(error.outcome(), Outcome::Unknown);
/// # });
/// ```
#[derive(Debug)]
pub struct Chaos<S> {
    inner: S,
    faults: Faults,
    calls: AtomicU64,
}

impl<S> Chaos<S> {
    /// A layer around `inner`.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self {
            inner,
            faults,
            calls: AtomicU64::new(0),
        }
    }

    async fn pass<C: Call>(&self, context: &CallContext, call: C) -> C::Answer {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let faults = &self.faults;
        let (before, after, lost) = (faults.before, faults.after, faults.lost);
        let fate = fate(
            faults.seed,
            number,
            Chances {
                before,
                after,
                lost,
            },
        );
        let fail = |kind: ErrorKind, words: &'static str| {
            let operation = call.operation();
            call.failed(&|| CloudError::new(operation, "chaos", kind.clone(), words))
        };
        let budget = Budget::start(context);
        let delay = delay(faults.seed, number, faults.delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay.min(budget.left())).await;
        }
        let Some(rest) = budget.any_rest() else {
            return fail(ErrorKind::TimedOut, "held up on purpose");
        };
        if fate == Fate::FailsBefore {
            return fail(faults.before_kind.clone(), "refused on purpose");
        }
        let answer = call.send(&rest).await;
        match fate {
            Fate::FailsAfter => fail(ErrorKind::Other, "failed on purpose after acting"),
            Fate::ReplyLost => {
                tokio::time::sleep(budget.left()).await;
                fail(ErrorKind::TimedOut, "reply lost on purpose")
            }
            Fate::Unharmed | Fate::FailsBefore => answer,
        }
    }
}

layer!(Chaos);

impl<S: fmt::Display> fmt::Display for Chaos<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chaos(seed {}, {})", self.faults.seed, self.inner)
    }
}
