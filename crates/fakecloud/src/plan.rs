//! Random faults over time.

use crate::Chance;

/// Random faults: how likely each is.
///
/// ```
/// use longshore_fakecloud::{Chance, FaultPlan, Settings};
/// let mut plan = FaultPlan::none();
/// plan.lose_reply = Chance::percent(10);
/// let settings = Settings::default().with_plan(plan);
/// # let _ = (settings, FaultPlan::mild(), FaultPlan::wild());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultPlan {
    /// A call is lost before it acts.
    pub lose_request: Chance,
    /// A call acts and its reply is lost.
    pub lose_reply: Chance,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// What a decent provider does on an ordinary day.
    pub fn mild() -> Self {
        Self {
            lose_request: Chance::per_million(1_000),
            lose_reply: Chance::per_million(1_000),
        }
    }

    /// A day on which everything goes wrong.
    pub fn wild() -> Self {
        Self {
            lose_request: Chance::percent(3),
            lose_reply: Chance::percent(5),
        }
    }
}
