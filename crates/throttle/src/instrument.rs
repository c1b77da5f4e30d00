//! Counts the calls that a driver is really given.

use std::fmt;

use longshore_cloud::{CallContext, Operation};

use crate::call::{Answer, Call};
use crate::layer::layer;
use crate::metrics::{Metrics, outcome};

/// Counts calls and how long they took. Belongs directly around the driver.
///
/// A call that is dropped, or panics, is counted as `dropped`. See [`Metrics`] for an example.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::{Instrument, Metrics};
/// let set = Instrument::new(Stub::default(), Metrics::new());
/// assert_eq!(set.to_string(), "Instrument(Stub)");
/// ```
#[derive(Debug)]
pub struct Instrument<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Instrument<S> {
    /// A layer around `inner` that counts in `metrics`.
    pub fn new(inner: S, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    async fn pass<C: Call>(&self, context: &CallContext, call: C) -> C::Answer {
        let mut watch = Watch::start(&self.metrics, call.operation());
        let answer = call.send(context).await;
        watch.outcome = outcome(&answer.errors());
        answer
    }
}

/// Counts one call when it is dropped.
#[derive(Debug)]
struct Watch<'a> {
    metrics: &'a Metrics,
    operation: Operation,
    start: tokio::time::Instant,
    outcome: &'static str,
}

impl<'a> Watch<'a> {
    fn start(metrics: &'a Metrics, operation: Operation) -> Self {
        metrics.begin(operation);
        Self {
            metrics,
            operation,
            start: tokio::time::Instant::now(),
            outcome: "dropped",
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let took = tokio::time::Instant::now().saturating_duration_since(self.start);
        self.metrics.end(self.operation, self.outcome, took);
    }
}

layer!(Instrument);

impl<S: fmt::Display> fmt::Display for Instrument<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instrument({})", self.inner)
    }
}
