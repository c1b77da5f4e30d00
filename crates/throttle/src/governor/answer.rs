//! What goes into a core, and what comes out.

use std::time::Duration;

use longshore_types::Instant;

/// Whether a call goes now.
///
/// ```
/// use longshore_throttle::governor::{Core, Permission};
/// use longshore_types::Instant;
/// let permission = Core::new().handle_request(1, Instant::ZERO);
/// assert!(matches!(permission, Permission::Go(_)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a caller that misses one must not compile"
)]
pub enum Permission {
    /// It goes; its permit comes back with its answer.
    Go(Permit),
    /// It asks again at this moment.
    At(Instant),
}

/// A call that went, until its answer is there.
///
/// No example: it is only handed from [`Core::handle_request`](super::Core::handle_request) to
/// [`Core::handle_answer`](super::Core::handle_answer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    pub(super) sent: Instant,
}

/// What came of a call.
///
/// ```
/// use std::time::Duration;
/// use longshore_throttle::governor::Answer;
/// let answer = Answer::refused(2).after(Duration::from_secs(3)).with_passed(5);
/// assert_eq!((answer.passed, answer.refused), (5, 2));
/// assert_eq!(Answer::passed(1).retry_after, None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// How many tokens it took: 1, or the number of ids that were not refused.
    pub passed: u32,
    /// How many were refused for the rate.
    pub refused: u32,
    /// When the provider wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Nothing was refused for its rate.
    pub fn passed(passed: u32) -> Self {
        Self {
            passed,
            refused: 0,
            retry_after: None,
        }
    }

    /// So much was refused.
    pub fn refused(refused: u32) -> Self {
        Self {
            passed: 0,
            refused,
            retry_after: None,
        }
    }

    /// With so much that passed.
    #[must_use]
    pub fn with_passed(mut self, passed: u32) -> Self {
        self.passed = passed;
        self
    }

    /// With the provider's time.
    #[must_use]
    pub fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}
