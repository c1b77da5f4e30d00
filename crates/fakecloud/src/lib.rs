//! An in-memory cloud with injectable faults, on a given clock.

mod builder;
mod call;
mod clock;
mod cloud;
mod fake;
mod fault;
mod instance;
mod plan;
mod random;
mod settings;
#[cfg(feature = "tokio")]
mod tokio_clock;

pub use call::{Call, CallId, CallKind, Reply};
pub use clock::{Clock, ManualClock};
pub use cloud::Cloud;
pub use fake::FakeCloud;
pub use fault::{Fault, HeldCall, HeldId, Match, Misfortune, Rule, RuleId};
pub use instance::FakeInstance;
pub use plan::FaultPlan;
pub use random::{Chance, Spread};
pub use settings::{CapacityHole, Latency, Quota, RateLimit, Settings};
#[cfg(feature = "tokio")]
pub use tokio_clock::TokioClock;
