//! The scheduler (pure): deltas in, actions out, reasons on demand.
//!
//! It decides which container is locked, started, killed or given up, and which instances are
//! created or given back. It never acts: it knows no clock, network or thread. To drive it:
//!
//! 1. Tell it what changed: [`Core::upsert_entry`], [`Core::upsert_worker`],
//!    [`Core::set_limits`] and their kin.
//! 2. Drain [`Core::poll_action`] and carry every action out, or begin to. Whatever comes of an
//!    action shows in the next delta about its object: a lock in the entry, a start in the view of
//!    the worker, a create in a pending instance. Until then it is not asked for again. An action
//!    that surely was not carried out is reported to [`Core::action_failed`].
//! 3. Call [`Core::poll_action`] again at [`Core::poll_timeout`]; late or spurious calls are
//!    harmless.
//!
//! ```
//! use longshore_scheduler::{Action, Config, Core};
//! use longshore_types::*;
//!
//! let price = Price::from_units(0.1).unwrap();
//! let small = InstanceType::new("small", 2, ByteSize::gib(4), price);
//! let now = Instant::ZERO;
//! let mut core = Core::new(Config::new(vec![small]));
//! let uuid: ContainerUuid = "zzzzz-dz642-0123456789abcde".parse().unwrap();
//! let container = Container {
//!     uuid,
//!     state: ContainerState::Queued,
//!     priority: 500,
//!     created_at: Timestamp(0),
//!     request: ResourceRequest { vcpus: 1, ram: ByteSize::gib(1), ..Default::default() },
//!     supervisor: false,
//!     lock_count: 0,
//!     locked_by_us: false,
//!     placed_on: None,
//!     revision: 0,
//! };
//! core.upsert_entry(QueueEntry { container, as_of: now, call_in_flight: false }, now);
//! assert_eq!(core.poll_action(now), Some(Action::Create { type_name: "small".into() }));
//! assert_eq!(core.poll_action(now), None);
//! assert_eq!(
//!     core.reason(uuid, now).unwrap().to_string(),
//!     "waiting for a new small instance to be created"
//! );
//! ```

mod action;
mod apply;
mod case;
mod check;
mod config;
mod core;
mod explain;
mod gone;
mod ids;
mod judge;
mod pass;
mod place;
mod plan;
mod reserve;
mod shape;
mod slots;
pub mod type_choice;
mod workers;

pub use crate::action::Action;
pub use crate::config::{Config, Limits};
pub use crate::core::Core;
pub use crate::plan::{Input, Plan, plan};
pub use crate::type_choice::Unsatisfiable;
