//! The time that a call may take, and a clock for the cores.

use std::time::Duration;

use longshore_cloud::CallContext;
use longshore_types::Instant;

/// A core's clock on tokio's, which tests can pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(tokio::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn now(&self) -> Instant {
        let now = tokio::time::Instant::now();
        Instant::ZERO + now.saturating_duration_since(self.0)
    }
}

/// What a call needs at least of its timeout, as a part of it, and at most. A call that is sent with
/// less is answered too late, so that nobody knows what it did; and a refusal that comes at the very
/// end is not heard by a caller who waits just as long, so that it, too, counts as that.
const LEAST_PART: u32 = 10;
const MOST_NEEDED: Duration = Duration::from_secs(5);

/// What is left of a call's timeout.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    context: &'a CallContext,
    start: tokio::time::Instant,
}

impl<'a> Budget<'a> {
    pub(crate) fn start(context: &'a CallContext) -> Self {
        let start = tokio::time::Instant::now();
        Self { context, start }
    }

    pub(crate) fn left(&self) -> Duration {
        let spent = tokio::time::Instant::now().saturating_duration_since(self.start);
        self.context.timeout.saturating_sub(spent)
    }

    /// How long the call may still wait before it is sent.
    pub(crate) fn patience(&self) -> Duration {
        self.left().saturating_sub(self.needed())
    }

    /// The context for the inner call; none if there is not enough time for one any more.
    pub(crate) fn rest(&self) -> Option<CallContext> {
        let rest = self.any_rest()?;
        (rest.timeout >= self.needed()).then_some(rest)
    }

    /// The context for the inner call, however little time there is; none if there is no more.
    pub(crate) fn any_rest(&self) -> Option<CallContext> {
        let mut context = self.context.clone();
        context.timeout = self.left();
        (!context.timeout.is_zero()).then_some(context)
    }

    fn needed(&self) -> Duration {
        (self.context.timeout / LEAST_PART).min(MOST_NEEDED)
    }
}
