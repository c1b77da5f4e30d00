//! The scheduler (pure): deltas in, actions out, reasons on demand.
//!
//! It decides which container is locked, started, killed or given up, and which instances are
//! created or given back. It never acts: it knows no clock, network or thread. Types, entries and
//! workers are plain data of the crate `longshore-types`.
//!
//! # All at once
//!
//! [`plan()`] takes everything that is known and says what is to be done now and why the rest
//! waits. It keeps nothing, and the same input gives the same plan.
//!
//! ```
//! use longshore_scheduler::{Action, Config, Input, Limits, plan};
//! use longshore_types::*;
//!
//! let small = InstanceType::new("small", 2, ByteSize::gib(4), Price::from_units(0.1)?);
//! let request = ResourceRequest { vcpus: 2, ram: ByteSize::gib(1), ..Default::default() };
//! let first: ContainerUuid = "zzzzz-dz642-000000000000001".parse()?;
//! let second: ContainerUuid = "zzzzz-dz642-000000000000002".parse()?;
//! let now = Instant::ZERO;
//! let entry = |uuid| QueueEntry::new(Container::queued(uuid, request.clone()), now);
//!
//! let mut config = Config::new(vec![small.clone()]);
//! config.keep_buffers_per_vcpu = 0;
//! let mut limits = Limits::default();
//! limits.create_blocked.insert("small".into(), "two are enough".into());
//! let mut idle = WorkerView::idle("i-1", &small, now);
//! idle.capacity.scratch = ByteSize::gib(1);
//! let input = Input {
//!     config,
//!     limits,
//!     entries: vec![entry(first), entry(second)],
//!     workers: vec![idle],
//!     pendings: vec![],
//!     now,
//! };
//! let plan = plan(&input);
//! let lock = Action::Lock { uuid: first, instance: Some("i-1".into()) };
//! assert_eq!(plan.actions, [lock]);
//! assert_eq!(
//!     plan.reasons[&second].to_string(),
//!     "waiting for room on an instance of type small; no further one is created: two are enough"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Step by step
//!
//! A [`Core`] is for those who schedule all the time: it keeps its books between passes, and what
//! a change costs depends on what changed. To drive it:
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
//! use longshore_scheduler::{Action, Config, Core, Limits};
//! use longshore_types::*;
//!
//! let small = InstanceType::new("small", 2, ByteSize::gib(4), Price::from_units(0.1)?);
//! let now = Instant::ZERO;
//! let mut core = Core::new(Config::new(vec![small.clone()]));
//!
//! // Something is queued, and there is no instance.
//! let uuid: ContainerUuid = "zzzzz-dz642-0123456789abcde".parse()?;
//! let request = ResourceRequest { vcpus: 1, ram: ByteSize::gib(1), ..Default::default() };
//! let mut container = Container::queued(uuid, request);
//! core.upsert_entry(QueueEntry::new(container.clone(), now), now);
//! let create = Action::Create { type_name: "small".into() };
//! assert_eq!(core.poll_action(now).as_ref(), Some(&create));
//! assert_eq!(core.poll_action(now), None);
//! let why = core.reason(uuid, now).unwrap();
//! assert_eq!(why.to_string(), "waiting for a new small instance to be created");
//! assert_eq!(core.position(uuid), Some(1));
//! assert_eq!(core.line_length(), 1);
//! assert_eq!(core.waiting().collect::<Vec<_>>(), [uuid]);
//! let why = core.explain(uuid, now).unwrap();
//! assert_eq!(why.types[0].verdict.to_string(), "fits, and more can be created");
//!
//! // The create fails; it is tried again after a pause.
//! core.action_failed(&create, "the provider is out of order", now);
//! assert_eq!(core.poll_action(now), None);
//! let later = core.poll_timeout().unwrap().at;
//! assert_eq!(core.poll_action(later).as_ref(), Some(&create));
//!
//! // It is under way: a place to wait for. Then the instance is there.
//! let capacity = small.resources();
//! core.upsert_pending(PendingView { id: 1, type_name: "small".into(), capacity }, later);
//! let lock = Action::Lock { uuid, instance: None };
//! assert_eq!(core.poll_action(later), Some(lock));
//! core.upsert_worker(WorkerView::idle("i-1", &small, later), later);
//! core.remove_pending(1, later);
//! (container.state, container.locked_by_us) = (ContainerState::Locked, true);
//! container.lock_count = 1;
//! core.upsert_entry(QueueEntry::new(container, later), later);
//! let start = core.poll_action(later).unwrap();
//! assert!(matches!(&start, Action::Start { instance, .. } if instance.as_str() == "i-1"));
//! assert_eq!(start.uuid(), Some(uuid));
//!
//! // Nothing new is begun from here on; the controller and the provider forget it all.
//! let mut limits = Limits::default();
//! limits.accept_new = false;
//! core.set_limits(limits, later);
//! core.remove_worker(&"i-1".into(), later);
//! core.remove_entry(uuid, later);
//! core.confirm_absent(uuid, later, later);
//! assert_eq!(core.poll_action(later), None);
//! core.check_invariants()?;
//! let left = core.sizes().into_iter().find(|(what, size)| *size > 0);
//! assert_eq!(left, Some(("remembered instances", 1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds
//!
//! - Nothing is put on an instance beyond its capacity, and nothing on one that is held, drains or
//!   is shut down.
//! - A process is started only where no other of the same container can be. Missing knowledge
//!   never kills.
//! - The order of news changes nothing, and a plan is a fixed point: while what it wants is under
//!   way, it wants nothing else.
//! - Numbers beyond all bounds have a meaning: sizes saturate, priorities below 1 run nothing,
//!   any other order the line. Nothing that comes in makes it panic.
//!
//! Which types satisfy a container is a pure function, too: [`type_choice::eligible`].

mod action;
mod apply;
mod case;
mod check;
mod coming;
mod config;
mod core;
mod explain;
mod explanation;
mod gone;
mod history;
mod ids;
mod judge;
mod pass;
mod place;
mod plan;
mod reserve;
mod seldom;
mod shape;
mod shelf;
mod slots;
pub mod type_choice;
mod workers;

pub use crate::action::Action;
pub use crate::config::{Config, Limits, Packing};
pub use crate::core::Core;
pub use crate::plan::{Input, Plan, plan};
pub use crate::type_choice::Unsatisfiable;
