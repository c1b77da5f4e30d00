//! tokio around the core: a pool that runs, and the parts that it is made of.
//!
//! [`Pool`] is all of it: give it instance types, an
//! [`InstanceSet`](longshore_cloud::InstanceSet) and an [`Executor`](longshore_exec::Executor),
//! and it creates, watches and destroys instances and runs payloads on them. What a payload is,
//! is up to you: the start document is bytes that your runner reads, and a [`RunnerProtocol`] says
//! which commands start it, kill it, and report on it.
//!
//! # A whole program
//!
//! First a service that runs payloads; then a cloud, its hosts and a runner in memory for it. The
//! service is all that an embedder with a real driver, `longshore-ssh` and `longshore-run` needs.
//!
//! ```
//! use longshore_pool::runtime::{Ending, Pool, Run};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let small = InstanceType::new("small", 2, ByteSize::gib(4), Price::from_units(0.05)?);
//!     let (cloud, hosts) = (Arc::new(Stub::default()), Arc::new(Hosts::default()));
//!     let pool = Pool::builder("my-service", vec![small], cloud, hosts)
//!         .protocol(Arc::new(Plain))
//!         .configure(|config| {
//!             config.max_instances = 4;
//!             // Only since the runner below cannot wait for a change: it is asked so often.
//!             // The default, 10 s, is right for one that can, as `longshore-run` does.
//!             config.probe_interval = Duration::from_millis(20);
//!         })
//!         .start()
//!         .await?;
//!
//!     // The simplest use: a worker is created, the payload runs there, its result comes back.
//!     let exit = pool.run(Run::new("small", *b"five!")).await?;
//!     assert_eq!(exit.cause, ExitCause::Exited { code: 5 });
//!
//!     // Or step by step.
//!     let instance = pool.ready(&"small".into(), Duration::from_secs(60)).await?;
//!     pool.set_idle_behavior(&instance, IdleBehavior::Hold).await?;
//!     println!("{} is kept", instance);
//!     pool.set_idle_behavior(&instance, IdleBehavior::Run).await?;
//!
//!     // Nothing stays that costs money.
//!     let left = pool.shutdown(Ending::Destroy, Duration::from_secs(60)).await;
//!     assert!(left.is_clean(), "{left}");
//!     Ok(())
//! }
//!
//! // From here on: what stands in for a driver, for SSH, and for a runner.
//!
#![doc = include_str!("../../doc/stub.rs")]
//! ```
//!
//! # What a pool does by itself
//!
//! - It lists the instances of its set ID when it starts and takes them over, with what runs
//!   there. It stores nothing: whatever is lost (a reply, or the whole process) is learned again
//!   from the listing, the tags and the runners.
//! - It probes workers ([`Config::probe_interval`](crate::Config)), shuts them down when they are
//!   idle for long, do not boot or fall silent, and destroys what is to go until it is gone.
//! - It holds off creating what the provider refused; [`Refusal`](crate::Refusal),
//!   [`NotReady`] and the [`Snapshot`](crate::Snapshot) say what, for how long and why.
//! - It acknowledges results once they were told, unless
//!   [`PoolBuilder::auto_acknowledge`] says that you do.
//!
//! A runner that gives no digest in its reports, or cannot wait for a change, is asked every
//! `probe_interval`: that is how late an end is noticed. `longshore-run` waits, and an end is
//! noticed within milliseconds.
//!
//! # What happens on a bad day
//!
//! | what | does |
//! |---|---|
//! | a driver panics | its call fails, and counts as one of which nobody knows what it did |
//! | a driver blocks its thread | the call is given up at its deadline; after eight of a kind there is an alarm, and further ones are refused until one returns: see [`Isolated`] |
//! | a driver lists nonsense | instances without our tag are ignored; ids that are empty, longer than 1,024 bytes or have control characters raise an alarm; an address or user that is none is an error of its worker |
//! | a driver gives one id twice | what runs on the worker that has it is kept, and there is an alarm |
//! | an executor panics, or never returns | its effect has an unknown outcome, at its deadline at the latest |
//! | a host prints without end | a report is refused beyond 2 MiB, every other command beyond 16 MiB |
//! | a [`RunnerProtocol`] panics | the effect fails, with the text of the panic as the worker's error |
//! | somebody says a megabyte | 1,024 characters of it are kept, as one line |
//! | nobody reads the events | the oldest are dropped, and the reader is told how many |
//! | the process was asleep, or the clock jumped | time-outs begin anew |
//! | any future is dropped | what was asked for is not done, or done without anybody waiting for it |
//!
//! # Metrics
//!
//! [`PoolBuilder::metrics`] registers, with the names of Arvados' dispatcher where
//! `prometheus-client` can spell them: the gauges
//! `arvados_dispatchcloud_instances_total{category,instance_type}`, `_instances_price{category}`,
//! `_vcpus_total{category}`, `_memory_bytes_total{category}`, `_probe_age_seconds_max`,
//! `_probe_age_seconds_median` and `_at_quota`; and
//! `longshore_pool_workers{state}`, `_hold_offs`, `_pending_creates` and
//! `_effects_in_flight{kind}`; the counters `longshore_pool_boot_outcomes_total{outcome}` and
//! `_instances_disappeared_total{state}`, and
//! `longshore_pool_provider_failures_total{operation,kind}` (`create`, `list`, `destroy`, `tags` or `console`;
//! the kind of [`ErrorKind`](longshore_cloud::ErrorKind)); the histograms `longshore_pool_time_to_ssh_seconds`,
//! `_time_to_ready_seconds`, `_time_from_shutdown_request_to_disappearance_seconds` and
//! `_probe_duration_seconds{outcome}`. Once the pool has ended its gauges are gone, and its
//! counters, but for that of failures.
//!
//! # Logs
//!
//! A pool logs through `tracing`; without a subscriber of yours nothing is shown.
//!
//! | level | what |
//! |---|---|
//! | error | each [`Event::Alarm`](crate::Event::Alarm); an effect that panicked; a fault of the pool |
//! | warn | each provider call that failed, with `operation`, `instance` or `instance_type`, and `error`; a host key that the provider could not check; that the process was asleep |
//! | debug | every other [`Event`](crate::Event) |
//!
//! # Several pools
//!
//! There is no global state. Several pools may live in one process, each with an instance set ID
//! of its own.
//!
//! # A loop of your own
//!
//! Whoever composes the [`Core`](crate::Core) with something else (as `longshore-dispatch` does
//! with a scheduler) uses the parts: [`Shell::perform`] does what one [`Effect`](crate::Effect)
//! says and gives the outcome, [`Performer`] runs many at a time, [`Clock`] and [`SleepWatch`]
//! give the time:
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

mod builder;
mod clock;
mod collect;
mod deploy;
mod event_loop;
mod events;
mod failures;
mod isolated;
mod metrics;
mod performer;
mod pool;
mod protocol;
mod run;
mod runner;
mod shell;
mod shutdown;
mod streams;
mod verifier;
mod waiting;

pub use builder::PoolBuilder;
pub use clock::{Clock, SleepWatch};
pub use deploy::RunnerBinary;
pub use events::{Events, PoolEvent};
pub use isolated::{Isolated, Stuck};
pub use performer::{Perform, Performer};
pub use pool::{Pool, PoolError};
pub use protocol::{LongshoreRun, RunnerProtocol};
pub use run::{NotReady, Obstacle, Run, RunError};
pub use shell::{Shell, random_seed, random_uuid};
pub use shutdown::{Ending, Shutdown};
pub use verifier::CloudHostKeys;
