//! The dispatcher: pool, scheduler and the queue's cache composed.
//!
//! [`Core`] is pure. It is driven in numbered steps, by the event loop in [`runtime`] (feature
//! `runtime`), by a simulator, or by hand:
//!
//! 1. Make it with [`Core::new`], giving the time and a random seed.
//! 2. Take every effect from [`Core::poll_effect`] and carry it out. Each one ends in exactly one
//!    answer: [`Core::handle_pool_outcome`] or [`Core::handle_reply`], or, where several have come
//!    meanwhile, all of them at once: [`Core::handle_answers`].
//! 3. When the moment of [`Core::poll_timeout`] has come, call [`Core::handle_timeout`]. Late or
//!    needless calls do no harm.
//! 4. After each call that gives it something, go on with step 2. Take what it has to tell from
//!    [`Core::poll_notice`].
//!
//! What it composes: the pool tells the scheduler about workers, the cache tells it about queue
//! entries; the scheduler proposes actions; an action becomes a verb of the pool or a call to the
//! controller. What the pool learns of attempts is told to the controller until it confirms, and
//! only then acknowledged to the runner: no result is lost by losing a reply, or this process.

mod boots;
mod config;
mod core;
mod effect;
#[cfg(feature = "http")]
pub mod http;
mod leadership;
mod limit;
mod notice;
mod progress;
#[cfg(feature = "runtime")]
pub mod runtime;
mod view;

pub use config::Config;
pub use core::{Core, Figures};
pub use effect::{Answer, Effect, QueueAction, QueueFailure, QueueReply, QueueRequest, RequestId};
pub use leadership::{HOLD_BACK, Leadership, LockNews, Standing, TRUST};
pub use notice::Notice;
pub use view::{EntryView, InstanceEntry, Place, Snapshot, WaitingEntry};
