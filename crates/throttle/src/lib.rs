//! Layers around an instance set: metrics, limits, hold-off, default tags, a filter, faults, and a
//! [`governor`] that learns the limits of the provider.
//!
//! Each layer is an [`InstanceSet`](longshore_cloud::InstanceSet) around another one: it keeps
//! [`CallContext::timeout`](longshore_cloud::CallContext), forwards every call and every
//! extension, holds nothing of a call whose future was dropped, and prints itself around what it
//! wraps. Each is of use alone; [`Stack`] puts them in the right order.
//!
//! ```
//! # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
//! # use stub::*;
//! use longshore_throttle::governor::Learned;
//! use longshore_throttle::{InFlightLimits, Metrics, RateLimit, Stack};
//! use prometheus_client::registry::Registry;
//!
//! # block_on(async {
//! # let driver = Stub::default();
//! let mut registry = Registry::default();
//! let metrics = Metrics::new();
//! metrics.register(&mut registry);
//!
//! let tags = |name: &str, value: &str| Tags::from([(name.to_owned(), value.to_owned())]);
//! let learned = Learned::new();
//! let set = Stack::new(driver)
//!     .instrument(metrics)
//!     .in_flight(InFlightLimits::all(0).with(Operation::Create, 20))
//!     .governor(learned.clone())
//!     .rate(RateLimit::new(5.0).with_burst(10))
//!     .hold_off()
//!     .default_tags(tags("team", "genomics"))
//!     .filter(tags("ExampleInstanceSetID", "set"))
//!     .build();
//! assert_eq!(
//!     set.to_string(),
//!     "Filter(ExampleInstanceSetID=set, DefaultTags(team=genomics, HoldOff(\
//!      Governor(Rate(5/s, InFlight(create 20, Held(Instrument(Stub))))))))",
//! );
//!
//! let context = CallContext::example();
//! let made = set.create(&context, &CreateRequest::example()).await?;
//! assert_eq!(set.list(&context, &Tags::new()).await?.len(), 1);
//! assert!(set.destroy(&context, &[made.id]).await[0].1.is_ok());
//! println!("creates: {}", learned.head_room(Operation::Create));
//! # Ok::<(), CloudError>(()) }).unwrap();
//! ```
//!
//! # What a caller sees of the limits
//!
//! A call that a layer did not send ends with
//! [`RateLimited`](longshore_cloud::ErrorKind::RateLimited), whose outcome is
//! [`NotDone`](longshore_cloud::Outcome::NotDone), and [`Refused`] as its source.
//! [`TimedOut`](longshore_cloud::ErrorKind::TimedOut) always means that it was sent, or may have
//! been. Nothing waits into the last tenth of its timeout, at most 5 s: a caller that waits no longer
//! than that itself hears of the refusal, and what is sent can still be answered.
//!
//! # Time
//!
//! The arithmetic (token bucket, turns, hold-off, governor, dice) is pure; only waiting uses tokio's
//! time, so that a paused clock makes tests exact.

mod bucket;
mod budget;
mod call;
mod chaos;
mod default_tags;
mod dice;
mod filter;
pub mod governor;
mod hold;
mod hold_off;
mod in_flight;
mod instrument;
mod kind;
mod known;
mod layer;
mod metrics;
mod rate;
mod refused;
mod stack;
mod turns;

pub use bucket::TokenBucket;
pub use chaos::{Chaos, Faults};
pub use default_tags::DefaultTags;
pub use filter::Filter;
pub use hold_off::HoldOff;
pub use in_flight::{InFlight, InFlightLimits};
pub use instrument::Instrument;
pub use metrics::Metrics;
pub use rate::{Rate, RateLimit};
pub use refused::Refused;
pub use stack::Stack;
