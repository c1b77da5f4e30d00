//! tokio around the core: performing effects, and a clock.
//!
//! [`Shell::perform`] does what one [`Effect`](crate::Effect) says and gives the outcome;
//! [`Performer`] runs many at a time. The loop around them is the embedder's:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use longshore_pool::{Config, Core};
//! # use longshore_pool::runtime::{Clock, Performer, Shell, random_seed};
//! # async fn example(config: Config, shell: Shell) -> std::io::Result<()> {
//! let clock = Clock::new();
//! let mut core = Core::new(config, random_seed()?, clock.now());
//! let mut performer = Performer::new(Arc::new(shell));
//! loop {
//!     while let Some(effect) = core.poll_effect() {
//!         performer.spawn(effect);
//!     }
//!     while let Some(event) = core.poll_event() {
//!         println!("{event:?}");
//!     }
//!     let deadline = core.poll_timeout();
//!     tokio::select! {
//!         Some((id, outcome)) = performer.next() => core.handle_outcome(id, outcome, clock.now()),
//!         () = clock.sleep_until(deadline) => core.handle_timeout(clock.now()),
//!     }
//! }
//! # }
//! ```

mod clock;
mod collect;
mod deploy;
mod performer;
mod protocol;
mod shell;
mod verifier;

pub use clock::{Clock, SleepWatch};
pub use deploy::RunnerBinary;
pub use performer::{Perform, Performer};
pub use protocol::{LongshoreRun, RunnerProtocol};
pub use shell::{Shell, random_seed};
pub use verifier::CloudHostKeys;
