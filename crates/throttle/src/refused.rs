//! Calls that a layer did not let through.

use std::time::Duration;

use longshore_cloud::{CloudError, ErrorKind, Operation};

/// A layer kept a call back; nothing was sent to the provider.
///
/// It is the source of a [`CloudError`] of the kind [`ErrorKind::RateLimited`], whose outcome is
/// [`NotDone`](longshore_cloud::Outcome::NotDone). Layers further out tell by it that the
/// provider itself refused nothing.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::{InFlight, InFlightLimits, Refused};
/// # block_on(async {
/// let set = InFlight::new(Stub::default(), InFlightLimits::all(1).with_waiting(0));
/// let (context, tags) = (CallContext::example(), Tags::new());
/// let (first, second) = tokio::join!(set.list(&context, &tags), set.list(&context, &tags));
/// assert!(first.is_ok());
/// let error = second.unwrap_err();
/// assert_eq!(error.source.downcast_ref(), Some(&Refused::TooManyWaiting));
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Its turn did not come within its timeout.
    #[error("its turn did not come in time; it was not sent")]
    NotInTime,
    /// As many calls of this kind wait as may wait.
    #[error("too many calls of this kind wait already; it was not sent")]
    TooManyWaiting,
    /// Calls of this kind are held off because the provider refused one.
    #[error("calls of this kind are held off since the provider refused one; it was not sent")]
    HeldOff,
}

impl Refused {
    pub(crate) fn error(
        self,
        operation: Operation,
        layer: &'static str,
        retry_after: Option<Duration>,
    ) -> CloudError {
        CloudError::new(
            operation,
            layer,
            ErrorKind::RateLimited { retry_after },
            self,
        )
    }

    /// Whether an error is one of ours.
    pub(crate) fn is_cause_of(error: &CloudError) -> bool {
        error.source.is::<Self>()
    }
}
