//! The worker-pool state machine, pure; and with feature `runtime` tokio around it.
//!
//! [`Core`] decides: which instances are created, probed and destroyed, and what became of the
//! containers on them. It has no clock, no IO and no randomness. Whoever drives it:
//!
//! 1. makes it with [`Core::new`], a secret seed and the time;
//! 2. tells it what happened: [`Core::handle_outcome`] when an effect ended,
//!    [`Core::handle_timeout`] when [`Core::poll_timeout`] is due, [`Core::handle_sleep`] when the
//!    process was not running for a while; and asks things of it with verbs like [`Core::create`]
//!    and [`Core::start`], which may refuse;
//! 3. after each of these, drains [`Core::poll_effect`], [`Core::poll_event`] and
//!    [`Core::poll_changed`], and performs the effects;
//! 4. gives exactly one [`Outcome`] back for each [`Effect`], also for those that it could not
//!    perform or whose result is lost ([`EffectAction::lost`] is the honest one then).
//!
//! A late or spurious `handle_timeout` does no harm, and neither does an outcome of an effect that
//! is not known any more.
//!
//! Whoever does not compose the pool with something else lets [`runtime::Pool`] do all this: it
//! is a pool that runs, with a handle, and its module's documentation has a whole program.
//!
//! # What it shows of other crates
//!
//! Signatures name types of `std`; of the contracts `longshore-types`, `longshore-cloud` and
//! `longshore-exec`; [`ReportOptions`](longshore_runner_api::command::ReportOptions) and
//! [`OutputStream`](longshore_runner_api::command::OutputStream) of `longshore-runner-api`; and,
//! with feature `runtime` (on by default), `tokio::sync::watch::Receiver` for snapshots,
//! `prometheus_client::registry::Registry`, and `async_trait` on traits. Without that feature
//! there is neither tokio nor prometheus-client nor randomness in it.
//!
//! Nothing is stored: after a restart the listing, the tags and the runners on the instances tell
//! a new core everything.
//!
//! # What it costs
//!
//! An event (a report, a start, a create that was refused) is handled in time that grows with the
//! logarithm of the number of workers: `tests/scaling.rs` compares 10,000 with 100 and finds at
//! most twice as much. A listing is walked through once. A worker that waits for work takes about
//! 2.9 KB, its tags, timers and the command under way included: `examples/listing.rs` measures
//! that. Reports that wait for a change take no turn, and everything else has
//! [`Config::max_probes_in_flight`] of them, so that each worker is asked as often among 10,000 as
//! among 100 (`tests/probing.rs`).
//!
//! ```
//! use longshore_cloud::{CreateRequest, Instance, InstanceState};
//! use longshore_pool::{Config, Core, EffectAction, Outcome};
//! use longshore_types::{Instant, WorkerState};
//!
//! let small = CreateRequest::example().instance_type;
//! let now = Instant::ZERO;
//! let mut core = Core::new(Config::new("set", vec![small]), [0; 32], now);
//! core.create(&"small".into(), now).unwrap();
//! while let Some(effect) = core.poll_effect() {
//!     if let EffectAction::Create(request) = effect.action {
//!         let mut made = Instance::new("i-1", "s1", InstanceState::Running, request.tags);
//!         made.address = Some("10.0.0.1:22".into());
//!         core.handle_outcome(effect.id, Outcome::Created(Ok(Box::new(made))), now);
//!     }
//! }
//! assert_eq!(core.worker(&"i-1".into()).unwrap().state, WorkerState::Booting);
//! ```

mod adopt;
mod blackhole;
mod books;
mod check;
mod claim;
mod config;
mod console;
mod core;
mod create;
mod destroy;
mod effect;
mod event;
mod finish;
mod guard;
mod hearing;
mod holdoff;
mod intake;
mod kill;
mod listing;
mod probe;
mod promise;
mod records;
mod refusal;
mod report;
#[cfg(feature = "runtime")]
pub mod runtime;
mod secret;
mod settings;
mod silence;
mod start;
mod tags;
mod tally;
mod text;
mod timers;
mod turns;
mod twins;
mod view;
mod worker;

pub use claim::{Claim, ClaimAnswer};
pub use config::Config;
pub use core::Core;
pub use effect::{
    CloudFailure, Effect, EffectAction, EffectId, Host, HostFailure, KillOutcome, Outcome,
    StartOutcome,
};
pub use event::{Changed, Event};
pub use refusal::Refusal;
pub use settings::{InvalidSetting, InvalidSettings};
pub use start::StartRequest;
pub use tally::Tally;
pub use view::{HoldOffView, Snapshot};
