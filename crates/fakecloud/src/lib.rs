//! An in-memory cloud with injectable faults, on a given clock: a test double for whoever uses a
//! [`longshore_cloud::InstanceSet`], and a provider for simulations.
//!
//! It behaves as [`Settings`] say: latency, boot times, quotas, capacity, rate limits, prices, and
//! exactly the [`Capabilities`](longshore_cloud::Capabilities) that it declares. On top of that
//! everything goes wrong that a test asks for by a [`Rule`], or that a [`FaultPlan`] draws: lost
//! requests and replies, stale, short and broken listings, batches that fail in part, instances
//! that never boot, vanish, come back, or lose their tags. Afterwards it is a witness: it knows
//! every [instance](FakeInstance) as it really is, counts calls, errors, hours and cost, and keeps
//! a log of [`Event`]s. The same seed and the same calls give the same bytes.
//!
//! # For embedders: a pool, a layer or a tool against a cloud
//!
//! [`FakeCloud`] is a handle that implements the interface. Here a reply is lost after the
//! instance was made; a repeated request finds it, because the cloud declares idempotent creates:
//!
//! ```
//! use longshore_cloud::{CallContext, CreateRequest, ErrorKind, InstanceSet};
//! use longshore_fakecloud::{CallKind, FakeCloud, Fault, Rule, Settings};
//!
//! let (cloud, clock) = FakeCloud::manual(Settings::default(), 1);
//! cloud.inject(Rule::new(CallKind::Create, Fault::LoseReply).times(1));
//! clock.run(async {
//!     let (context, request) = (CallContext::example(), CreateRequest::example());
//!     let lost = cloud.create(&context, &request).await.unwrap_err();
//!     assert_eq!(lost.kind, ErrorKind::TimedOut);
//!     let made = cloud.create(&context, &request).await.unwrap();
//!     assert_eq!(cloud.instances().len(), 1);
//!     assert!(!cloud.is_booted(&made.id));
//! });
//! clock.advance(std::time::Duration::from_secs(3_600));
//! assert!(cloud.is_booted(&cloud.instances()[0].id));
//! assert_eq!(cloud.counts(CallKind::Create).errors["timed out"], 1);
//! ```
//!
//! [`ManualClock`] needs no runtime: [`ManualClock::run`] moves the time on whenever everything
//! waits. With the feature `tokio` there is `TokioClock`, which follows `tokio::time` and is
//! virtual while that is paused: `FakeCloud::tokio(Settings::default(), 1)`. A test that wants one
//! certain interleaving holds calls before or after they act ([`Fault::HoldRequest`],
//! [`Fault::HoldReply`]) and [releases](FakeCloud::release) them one by one.
//!
//! # For authors of drivers: what a provider does on a bad day
//!
//! A driver is a thin translation between the interface and a provider's API. What the provider
//! may do is here as data, so that the part of the driver that pages, retries and maps errors can
//! be tried against it before the real one shows it:
//!
//! ```
//! use longshore_cloud::{CallContext, CreateRequest, ErrorKind, InstanceSet, Scope, Tags};
//! use longshore_fakecloud::*;
//!
//! let settings = Settings::instant()
//!     .with_page_size(2)
//!     .with_quota(Quota::instances(Scope::Everything, 3))
//!     .with_rate(CallKind::List, RateLimit::new(2, 1));
//! let (cloud, clock) = FakeCloud::manual(settings, 1);
//! clock.run(async {
//!     let context = CallContext::example();
//!     let mut request = CreateRequest::example();
//!     for token in ["a", "b", "c"] {
//!         request.token = token.into();
//!         cloud.create(&context, &request).await?;
//!     }
//!     request.token = "d".into();
//!     let full = cloud.create(&context, &request).await.unwrap_err();
//!     assert_eq!(full.kind, ErrorKind::QuotaExceeded(Scope::Everything));
//!
//!     let broken = cloud.inject(Rule::new(CallKind::List, Fault::FailAfterPages(1)));
//!     assert!(cloud.list(&context, &Tags::new()).await.is_err());
//!     assert!(cloud.lift(broken));
//!     assert_eq!(cloud.list(&context, &Tags::new()).await?.len(), 3);
//!     let hasty = cloud.list(&context, &Tags::new()).await.unwrap_err();
//!     assert!(matches!(hasty.kind, ErrorKind::RateLimited { retry_after: Some(_) }));
//!     Ok::<(), longshore_cloud::CloudError>(())
//! })?;
//! # Ok::<(), longshore_cloud::CloudError>(())
//! ```
//!
//! # For simulators: the core
//!
//! [`Cloud`] is a pure state machine without clock, runtime or lock. To drive it:
//!
//! 1. Begin calls with [`Cloud::handle_call`], which says when it is.
//! 2. After each input take what [`Cloud::poll_reply`] has: exactly one reply for each call, at
//!    its timeout at the latest, unless the call was [cancelled](Cloud::cancel).
//! 3. Ask [`Cloud::poll_timeout`] when to come back, and call [`Cloud::handle_timeout`] then.
//!    Coming early or late does no harm: what was due happens at its own moment.
//!
//! A call acts at one moment and its reply arrives at a later one; a call whose caller has given
//! up acts all the same. Each input costs O(log n) in instances and open calls, except listings,
//! interruptions and [`Cloud::usage`], which look at every instance, and [`Cloud::cancel`], which
//! looks at replies that nobody has taken.
//!
//! ```
//! use std::time::Duration;
//! use longshore_cloud::{CreateRequest, Tags};
//! use longshore_fakecloud::*;
//! use longshore_types::Instant;
//! let (mut cloud, mut now) = (Cloud::new(Settings::default(), 7), Instant::ZERO);
//! let timeout = Duration::from_secs(10);
//! let create = cloud.handle_call(Call::Create(CreateRequest::example()), timeout, now);
//! let forgotten = cloud.handle_call(Call::List(Tags::new()), timeout, now);
//! cloud.cancel(forgotten, now);
//! while let Some(due) = cloud.call_due(create) {
//!     now = due;
//!     cloud.handle_timeout(now);
//! }
//! assert_eq!(cloud.poll_reply().map(|(id, _)| id), Some(create));
//! let id = cloud.instances().next().unwrap().id.clone();
//! assert!(!cloud.is_booted(&id, now) && cloud.host_key(&id).is_some());
//! assert!(cloud.set_address(&id, "127.0.0.2:2202", now) && cloud.print(&id, b"login: "));
//! cloud.settings_mut().never_boots = Chance::ALWAYS;
//! assert_eq!(cloud.settings().never_boots, Chance::ALWAYS);
//! cloud.set_plan(FaultPlan::mild(), now);
//!
//! // The truth, afterwards.
//! let hour = now + Duration::from_secs(3_600);
//! assert!(cloud.strike(&id, Misfortune::Vanish, hour));
//! assert_eq!(cloud.past().count(), 1);
//! assert_eq!(cloud.instance(&id).unwrap().vanished, Some(hour));
//! assert!(cloud.usage(hour)[&"small".into()].time() > Duration::from_secs(3_600));
//! let total = cloud.total_usage(hour);
//! assert_eq!((total.peak, total.live, total.cost_billionths()), (1, 0, 0));
//! assert_eq!(cloud.counts(CallKind::List).cancelled, 1);
//! assert!(cloud.poll_event().is_some() && cloud.events_dropped() == 0);
//! ```

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
mod witness;

pub use call::{Call, CallId, CallKind, Reply};
pub use clock::{Clock, ManualClock};
pub use cloud::Cloud;
pub use fake::FakeCloud;
pub use fault::{Fault, HeldCall, HeldId, Match, Misfortune, Rule, RuleId};
pub use instance::FakeInstance;
pub use plan::{Episode, FaultPlan};
pub use random::{Chance, Spread};
pub use settings::{CapacityHole, Latency, Quota, RateLimit, Settings};
#[cfg(feature = "tokio")]
pub use tokio_clock::TokioClock;
pub use witness::{Counts, Event, Happening, Usage};
