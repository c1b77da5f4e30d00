//! Powers that some instance sets have.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use longshore_types::{InstanceId, Price, Timestamp};

use crate::{CallContext, CloudError};

/// The optional powers of an instance set; those that it has not are none.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Extensions<'a> {
    /// What preemptible instances cost over time.
    pub price_history: Option<&'a dyn PriceHistory>,
    /// What instances print while they boot.
    pub console_output: Option<&'a dyn ConsoleOutput>,
    /// Which instances the provider is about to take away.
    pub interruption_notices: Option<&'a dyn InterruptionNotices>,
}

impl fmt::Debug for Extensions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions")
            .field("price_history", &self.price_history.is_some())
            .field("console_output", &self.console_output.is_some())
            .field("interruption_notices", &self.interruption_notices.is_some())
            .finish()
    }
}

/// A price that held from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PricePoint {
    /// From when.
    pub start: Timestamp,
    /// Price per hour.
    pub price: Price,
}

impl PricePoint {
    /// A price per hour from a moment on.
    pub fn new(start: Timestamp, price: Price) -> Self {
        Self { start, price }
    }
}

/// Knows what preemptible instances cost over time.
#[async_trait]
pub trait PriceHistory: Send + Sync {
    /// The prices of an instance during the last `span`, oldest first.
    async fn price_history(
        &self,
        context: &CallContext,
        id: &InstanceId,
        span: Duration,
    ) -> Result<Vec<PricePoint>, CloudError>;
}

/// Knows what instances print while they boot.
#[async_trait]
pub trait ConsoleOutput: Send + Sync {
    /// The last `limit` bytes that an instance printed on its console.
    async fn console_output(
        &self,
        context: &CallContext,
        id: &InstanceId,
        limit: usize,
    ) -> Result<Vec<u8>, CloudError>;
}

/// An instance that the provider is about to take away.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interruption {
    /// Which.
    pub id: InstanceId,
    /// How long it still has, if the provider says.
    pub remaining: Option<Duration>,
}

impl Interruption {
    /// An instance that is about to go, and how long it still has if the provider says.
    pub fn new(id: impl Into<InstanceId>, remaining: Option<Duration>) -> Self {
        Self {
            id: id.into(),
            remaining,
        }
    }
}

/// Knows which instances the provider is about to take away.
#[async_trait]
pub trait InterruptionNotices: Send + Sync {
    /// Every instance that is about to be taken away.
    async fn interruptions(&self, context: &CallContext) -> Result<Vec<Interruption>, CloudError>;
}
