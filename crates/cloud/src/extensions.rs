//! Powers that some instance sets have.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use longshore_types::{InstanceId, Price, Timestamp};

use crate::{CallContext, CloudError};

/// The optional powers of an instance set; those that it has not are none.
///
/// ```
/// use longshore_cloud::Extensions;
/// // What a driver without any of them gives:
/// let extensions = Extensions::default();
/// assert!(extensions.console_output.is_none());
/// ```
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
///
/// ```
/// use longshore_cloud::PricePoint;
/// use longshore_types::{Price, Timestamp};
/// let point = PricePoint::new(Timestamp(0), Price::from_units(0.031).unwrap());
/// assert_eq!(point.price.units(), 0.031);
/// ```
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
///
/// ```
/// use std::time::Duration;
/// use async_trait::async_trait;
/// use longshore_cloud::{CallContext, CloudError, PriceHistory, PricePoint};
/// use longshore_types::{InstanceId, Price, Timestamp};
///
/// /// Prices never change here.
/// struct Constant(Price);
///
/// #[async_trait]
/// impl PriceHistory for Constant {
///     async fn price_history(&self, _: &CallContext, _: &InstanceId, _: Duration)
///         -> Result<Vec<PricePoint>, CloudError> {
///         Ok(vec![PricePoint::new(Timestamp(0), self.0)])
///     }
/// }
/// ```
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
///
/// ```
/// use std::collections::BTreeMap;
/// use async_trait::async_trait;
/// use longshore_cloud::{CallContext, CloudError, ConsoleOutput, ErrorKind, Extensions, Operation};
/// use longshore_types::InstanceId;
///
/// struct Consoles(BTreeMap<InstanceId, Vec<u8>>);
///
/// #[async_trait]
/// impl ConsoleOutput for Consoles {
///     async fn console_output(&self, _: &CallContext, id: &InstanceId, limit: usize)
///         -> Result<Vec<u8>, CloudError> {
///         let unknown = |kind| CloudError::new(Operation::Other, "consoles", kind, "no such instance");
///         let text = self.0.get(id).ok_or_else(|| unknown(ErrorKind::NotFound))?;
///         Ok(text[text.len().saturating_sub(limit)..].to_vec())
///     }
/// }
///
/// impl Consoles {
///     /// What `InstanceSet::extensions` of such a driver gives.
///     fn extensions(&self) -> Extensions<'_> {
///         let mut extensions = Extensions::default();
///         extensions.console_output = Some(self);
///         extensions
///     }
/// }
/// # assert!(Consoles(BTreeMap::new()).extensions().console_output.is_some());
/// ```
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
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::Interruption;
/// let notice = Interruption::new("i-1", Some(Duration::from_secs(120)));
/// assert_eq!(notice.id.as_str(), "i-1");
/// ```
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
///
/// ```
/// use async_trait::async_trait;
/// use longshore_cloud::{CallContext, CloudError, Interruption, InterruptionNotices};
///
/// /// Nothing is ever taken away here.
/// struct Never;
///
/// #[async_trait]
/// impl InterruptionNotices for Never {
///     async fn interruptions(&self, _: &CallContext) -> Result<Vec<Interruption>, CloudError> {
///         Ok(Vec::new())
///     }
/// }
/// ```
#[async_trait]
pub trait InterruptionNotices: Send + Sync {
    /// Every instance that is about to be taken away.
    async fn interruptions(&self, context: &CallContext) -> Result<Vec<Interruption>, CloudError>;
}
