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

    /// The context for the inner call; none if there is no time for one any more.
    pub(crate) fn rest(&self) -> Option<CallContext> {
        let mut context = self.context.clone();
        context.timeout = self.left();
        (!context.timeout.is_zero()).then_some(context)
    }
}
