//! Plain data shared by every part of Longshore: identifiers, time, sizes, instance types,
//! containers, what a runner reports, and the reasons why something waits.
//!
//! Nothing here does anything: no clock, no IO, no randomness. Everything that has a wire form
//! implements serde's traits with the field names of the project's documents.

mod container;
mod duration;
mod error_chain;
mod explanation;
mod host_key;
mod id;
mod instance_type;
mod price;
mod reason;
mod report;
mod resources;
mod size;
mod time;
mod worker;
mod written;

pub use container::{Container, ContainerState, MAX_PRIORITY, QueueEntry};
pub use duration::{ParseDurationError, format_duration, parse_duration};
pub use error_chain::error_chain;
pub use explanation::{
    Estimate, Explanation, HoldOff, InstanceVerdict, InstancesConsidered, Spell, TypeConsidered,
    TypeVerdict,
};
pub use host_key::{HostKey, HostKeyVerdict};
pub use id::{Attempt, ContainerUuid, InstanceId, ParseUuidError, TypeName};
pub use instance_type::{
    Gpu, GpuRequest, GpuStack, InstanceType, Market, ParsePreemptibleError, Preemptible,
    ResourceRequest,
};
pub use price::{InvalidPrice, Price};
pub use reason::Reason;
pub use report::{
    AppliedLimits, ContainerReport, Exit, ExitCause, Means, ReportedState, RunnerReport,
};
pub use resources::{Resource, Resources};
pub use size::{ByteSize, ParseByteSizeError};
pub use time::{Deadline, Instant, ParseTimestampError, Timestamp};
pub use worker::{HeldContainer, HeldPhase, IdleBehavior, PendingView, WorkerState, WorkerView};
pub use written::{Cut, Written};
