//! How a cloud behaves when nothing goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_cloud::{Capabilities, Scope};
use longshore_types::{Instant, Price, Timestamp};

use crate::{CallKind, Chance, FaultPlan, Spread};

/// How long a call takes: until it acts, and from then until its reply arrives.
///
/// ```
/// use std::time::Duration;
/// use longshore_fakecloud::{Latency, Spread};
/// let slow = Latency::new(Duration::from_secs(1), Duration::from_secs(2));
/// assert_eq!(slow.after, Spread::Constant(Duration::from_secs(2)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// From the call until it acts.
    pub before: Spread,
    /// From there until the reply arrives; for listings once for each page.
    pub after: Spread,
}

impl Latency {
    /// No time at all.
    pub const ZERO: Self = Self {
        before: Spread::ZERO,
        after: Spread::ZERO,
    };

    /// So long until it acts, so long until the reply.
    pub fn new(before: impl Into<Spread>, after: impl Into<Spread>) -> Self {
        Self {
            before: before.into(),
            after: after.into(),
        }
    }
}

/// A token bucket for one kind of call: each call takes a token, a call that finds none is
/// refused with [`ErrorKind::RateLimited`].
///
/// ```
/// use std::time::Duration;
/// use longshore_fakecloud::RateLimit;
/// let creates = RateLimit::new(1_000, 2).silent();
/// assert_eq!(creates.interval, Duration::from_millis(500));
/// let tags = RateLimit::every(10, Duration::from_secs(3)).per_id();
/// assert!(tags.per_id && tags.says_when);
/// ```
///
/// [`ErrorKind::RateLimited`]: longshore_cloud::ErrorKind::RateLimited
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// The most tokens there are; so many at the beginning. 0 refuses every call.
    pub burst: u32,
    /// The time in which one token comes back; zero means no limit.
    pub interval: Duration,
    /// Whether a refusal says when to come back.
    pub says_when: bool,
    /// Whether a batch takes a token for each id, and is refused for those ids that find none.
    pub per_id: bool,
}

impl RateLimit {
    /// A bucket of `burst` tokens that gets `per_second` new ones a second; 0 a second means one
    /// in a million seconds.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let interval = match per_second {
            0 => Duration::from_secs(1_000_000),
            n => Duration::from_secs(1) / n,
        };
        Self::every(burst, interval)
    }

    /// A bucket of `burst` tokens that gets one every `interval`.
    pub fn every(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            says_when: true,
            per_id: false,
        }
    }

    /// Refusals do not say when to come back.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.says_when = false;
        self
    }

    /// A batch takes a token for each id.
    #[must_use]
    pub fn per_id(mut self) -> Self {
        self.per_id = true;
        self
    }
}

/// How much of something the account may have at a time. An instance counts until it is gone.
///
/// ```
/// use longshore_cloud::Scope;
/// use longshore_fakecloud::Quota;
/// use longshore_types::Market;
/// let few = Quota::instances(Scope::Everything, 20);
/// let standard = Scope::QuotaGroup("standard".into(), Market::OnDemand);
/// assert_eq!(Quota::vcpus(standard, 64).vcpus, Some(64));
/// # assert_eq!(few.instances, Some(20));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// What it counts.
    pub scope: Scope,
    /// The most instances.
    pub instances: Option<u64>,
    /// The most virtual CPUs.
    pub vcpus: Option<u64>,
}

impl Quota {
    /// At most so many instances.
    pub fn instances(scope: Scope, most: u64) -> Self {
        Self {
            scope,
            instances: Some(most),
            vcpus: None,
        }
    }

    /// At most so many virtual CPUs.
    pub fn vcpus(scope: Scope, most: u64) -> Self {
        Self {
            scope,
            instances: None,
            vcpus: Some(most),
        }
    }
}

/// A time in which the provider has no more of something.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::Scope;
/// use longshore_fakecloud::CapacityHole;
/// use longshore_types::Instant;
/// let noon = Instant::ZERO + Duration::from_secs(12 * 3600);
/// let hole = CapacityHole::new(Scope::Type("large".into()), Instant::ZERO, noon);
/// assert_eq!(hole.end, noon);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapacityHole {
    /// Of what. Where there are several zones, a zone's hole only means that instances are made
    /// in the others.
    pub scope: Scope,
    /// The first moment of the hole.
    pub begin: Instant,
    /// The first moment after it.
    pub end: Instant,
}

impl CapacityHole {
    /// No capacity from `begin` until just before `end`.
    pub fn new(scope: Scope, begin: Instant, end: Instant) -> Self {
        Self { scope, begin, end }
    }
}

/// How a cloud behaves when nothing goes wrong.
///
/// The default is a decent provider: everything in [`Capabilities`], calls of some 50 ms, machines
/// with an address after some 5 s and booted after some 30 s. [`Settings::instant`] takes no time
/// for anything.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::{Capabilities, Scope};
/// use longshore_fakecloud::*;
/// let settings = Settings::default()
///     .with_name("moon")
///     .with_capabilities(Capabilities::new().with_tags_at_birth())
///     .with_latency(Latency::new(Duration::from_millis(1), Duration::from_millis(1)))
///     .with_latency_of(CallKind::Create, Latency::new(Duration::from_secs(3), Duration::ZERO))
///     .with_rate(CallKind::Create, RateLimit::new(100, 2))
///     .with_quota(Quota::instances(Scope::Everything, 1_000))
///     .with_zone("a")
///     .with_zone("b");
/// assert_eq!(settings.zones.len(), 2);
/// ```
///
/// Everything else that can be set:
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::Scope;
/// use longshore_fakecloud::*;
/// use longshore_types::{Instant, Price};
/// let second = Duration::from_secs(1);
/// let spot = Price::from_units(0.03).unwrap();
/// let settings = Settings::instant()
///     .with_address_delay(second * 5)
///     .with_boot(Spread::long_tailed(second * 30, 50))
///     .with_never_boots(Chance::percent(1))
///     .with_tag_delay(second)
///     .with_stopping(second * 20)
///     .with_gone(second * 60)
///     .with_listing_lag(Spread::uniform(Duration::ZERO, second * 5))
///     .with_page_size(500)
///     .with_quota_group("m5.large", "standard")
///     .with_hole(CapacityHole::new(Scope::Zone("a".into()), Instant::ZERO, Instant::FAR_FUTURE))
///     .with_price("m5.large", Instant::ZERO, spot)
///     .with_provider_type("m5.large")
///     .with_image("debian-12")
///     .with_denied(CallKind::SetTags)
///     .without_extension(CallKind::Console)
///     .with_remote_user("admin")
///     .with_plan(FaultPlan::mild());
/// assert_eq!(settings.page_size, 500);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The name in errors, identifiers and logs.
    pub name: &'static str,
    /// What the cloud declares, and really does: without
    /// [`idempotent_create`](Capabilities::idempotent_create) a repeated token makes another
    /// instance, without [`tags_at_birth`](Capabilities::tags_at_birth) tags come after
    /// [`tag_delay`](Self::tag_delay), without
    /// [`consistent_listing`](Capabilities::consistent_listing) listings lag by
    /// [`listing_lag`](Self::listing_lag), and bigger batches are invalid requests.
    pub capabilities: Capabilities,
    /// How long calls take.
    pub latency: Latency,
    /// How long some kinds of calls take instead.
    pub latencies: BTreeMap<CallKind, Latency>,
    /// From birth until the address is known and the instance counts as running.
    pub address_delay: Spread,
    /// From birth until it has booted; not before the address is known.
    pub boot: Spread,
    /// How many instances never boot.
    pub never_boots: Chance,
    /// From birth until the tags show, if they do not at birth.
    pub tag_delay: Spread,
    /// How long an instance is being destroyed.
    pub stopping: Spread,
    /// How long a destroyed instance is still listed, as gone.
    pub gone: Spread,
    /// How old what a listing shows is, unless listings are consistent.
    pub listing_lag: Spread,
    /// Instances on one page of a listing; 0 means that all fit on one.
    pub page_size: usize,
    /// Limits of the account.
    pub quotas: Vec<Quota>,
    /// Provider types and the quota groups that they count against.
    pub quota_groups: BTreeMap<String, String>,
    /// Times without capacity.
    pub holes: Vec<CapacityHole>,
    /// Zones that instances are spread over; none means that there are none.
    pub zones: Vec<String>,
    /// Limits of the rate of calls.
    pub rates: BTreeMap<CallKind, RateLimit>,
    /// What preemptible instances cost from a moment on, by provider type, oldest first; those
    /// that are not here cost what their type says.
    pub prices: BTreeMap<String, Vec<(Instant, Price)>>,
    /// The provider types that exist; empty means all.
    pub provider_types: BTreeSet<String>,
    /// The images that exist; empty means all.
    pub images: BTreeSet<String>,
    /// Calls that the credentials do not allow.
    pub denied: BTreeSet<CallKind>,
    /// The extensions that there are: of [`CallKind::Console`], [`CallKind::Prices`] and
    /// [`CallKind::Interruptions`].
    pub extensions: BTreeSet<CallKind>,
    /// The user to log in as, if the provider says: of the instances that are made from now on.
    pub remote_user: Option<String>,
    /// The most tags of an instance.
    pub tags_max: usize,
    /// The longest name of a tag, in bytes.
    pub tag_key_bytes_max: usize,
    /// The longest value of a tag, in bytes.
    pub tag_value_bytes_max: usize,
    /// The longest init script, in bytes.
    pub script_bytes_max: usize,
    /// The most instances at a time, whatever the quotas say; it bounds the memory that the cloud
    /// needs.
    pub instances_max: usize,
    /// The most instances that are remembered after they vanished; the oldest are forgotten, and
    /// their tokens with them.
    pub past_max: usize,
    /// The most calls that are open at a time; more are refused as rate-limited.
    pub calls_max: usize,
    /// The most events that wait for [`Cloud::poll_event`]; the oldest are dropped.
    ///
    /// [`Cloud::poll_event`]: crate::Cloud::poll_event
    pub events_max: usize,
    /// The wall-clock time at [`Instant::ZERO`].
    pub epoch: Timestamp,
    /// Random faults.
    pub plan: FaultPlan,
}

impl Default for Settings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        let call = Spread::uniform(ms(10), ms(40));
        Self {
            latency: Latency::new(call, call),
            address_delay: Spread::uniform(ms(3_000), ms(7_000)),
            boot: Spread::long_tailed(ms(30_000), 30),
            tag_delay: Spread::uniform(ms(1_000), ms(5_000)),
            stopping: Spread::uniform(ms(5_000), ms(30_000)),
            gone: Spread::Constant(ms(60_000)),
            listing_lag: Spread::uniform(ms(0), ms(5_000)),
            ..Self::instant()
        }
    }
}

impl Settings {
    /// A cloud that takes no time for anything: calls, boots and destruction are done at once.
    pub fn instant() -> Self {
        Self {
            name: "fake",
            capabilities: Capabilities::new()
                .with_idempotent_create()
                .with_tags_at_birth()
                .with_consistent_listing()
                .with_host_keys()
                .with_destroy_batch(1_000)
                .with_tag_batch(1_000),
            latency: Latency::ZERO,
            latencies: BTreeMap::new(),
            address_delay: Spread::ZERO,
            boot: Spread::ZERO,
            never_boots: Chance::NEVER,
            tag_delay: Spread::ZERO,
            stopping: Spread::ZERO,
            gone: Spread::ZERO,
            listing_lag: Spread::ZERO,
            page_size: 1_000,
            quotas: Vec::new(),
            quota_groups: BTreeMap::new(),
            holes: Vec::new(),
            zones: Vec::new(),
            rates: BTreeMap::new(),
            prices: BTreeMap::new(),
            provider_types: BTreeSet::new(),
            images: BTreeSet::new(),
            denied: BTreeSet::new(),
            extensions: [CallKind::Console, CallKind::Prices, CallKind::Interruptions].into(),
            remote_user: None,
            tags_max: 50,
            tag_key_bytes_max: 128,
            tag_value_bytes_max: 256,
            script_bytes_max: 16 << 10,
            instances_max: 200_000,
            past_max: 100_000,
            calls_max: 100_000,
            events_max: 10_000,
            epoch: Timestamp(1_700_000_000_000),
            plan: FaultPlan::none(),
        }
    }

    pub(crate) fn latency_of(&self, kind: CallKind) -> Latency {
        self.latencies.get(&kind).copied().unwrap_or(self.latency)
    }
}
