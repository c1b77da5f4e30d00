//! Settings as a chain of calls.

use longshore_cloud::Capabilities;
use longshore_types::{Instant, Price};

use crate::{
    CallKind, CapacityHole, Chance, FaultPlan, Latency, Quota, RateLimit, Settings, Spread,
};

impl Settings {
    /// The name in errors, identifiers and logs.
    #[must_use]
    pub fn with_name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// What the cloud declares and really does.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// How long calls take.
    #[must_use]
    pub fn with_latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// From birth until the address is known.
    #[must_use]
    pub fn with_address_delay(mut self, address_delay: impl Into<Spread>) -> Self {
        self.address_delay = address_delay.into();
        self
    }

    /// From birth until an instance has booted.
    #[must_use]
    pub fn with_boot(mut self, boot: impl Into<Spread>) -> Self {
        self.boot = boot.into();
        self
    }

    /// How many instances never boot.
    #[must_use]
    pub fn with_never_boots(mut self, never_boots: Chance) -> Self {
        self.never_boots = never_boots;
        self
    }

    /// From birth until the tags show; only without [`Capabilities::tags_at_birth`].
    #[must_use]
    pub fn with_tag_delay(mut self, tag_delay: impl Into<Spread>) -> Self {
        self.tag_delay = tag_delay.into();
        self
    }

    /// How long an instance is being destroyed.
    #[must_use]
    pub fn with_stopping(mut self, stopping: impl Into<Spread>) -> Self {
        self.stopping = stopping.into();
        self
    }

    /// How long a destroyed instance is still listed, as gone.
    #[must_use]
    pub fn with_gone(mut self, gone: impl Into<Spread>) -> Self {
        self.gone = gone.into();
        self
    }

    /// How old what a listing shows is; only without [`Capabilities::consistent_listing`].
    #[must_use]
    pub fn with_listing_lag(mut self, listing_lag: impl Into<Spread>) -> Self {
        self.listing_lag = listing_lag.into();
        self
    }

    /// Instances on one page of a listing; 0 means all.
    #[must_use]
    pub fn with_page_size(mut self, page_size: usize) -> Self {
        self.page_size = page_size;
        self
    }

    /// Random faults.
    #[must_use]
    pub fn with_plan(mut self, plan: FaultPlan) -> Self {
        self.plan = plan;
        self
    }

    /// How long one kind of call takes instead of [`Settings::latency`].
    #[must_use]
    pub fn with_latency_of(mut self, kind: CallKind, latency: Latency) -> Self {
        self.latencies.insert(kind, latency);
        self
    }

    /// One more limit of the account.
    #[must_use]
    pub fn with_quota(mut self, quota: Quota) -> Self {
        self.quotas.push(quota);
        self
    }

    /// The quota group that a provider type counts against.
    #[must_use]
    pub fn with_quota_group(
        mut self,
        provider_type: impl Into<String>,
        group: impl Into<String>,
    ) -> Self {
        self.quota_groups.insert(provider_type.into(), group.into());
        self
    }

    /// One more time without capacity.
    #[must_use]
    pub fn with_hole(mut self, hole: CapacityHole) -> Self {
        self.holes.push(hole);
        self
    }

    /// One more zone.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zones.push(zone.into());
        self
    }

    /// The rate limit of one kind of call.
    #[must_use]
    pub fn with_rate(mut self, kind: CallKind, limit: RateLimit) -> Self {
        self.rates.insert(kind, limit);
        self
    }

    /// What preemptible instances of a provider type cost an hour from a moment on.
    #[must_use]
    pub fn with_price(
        mut self,
        provider_type: impl Into<String>,
        from: Instant,
        price: Price,
    ) -> Self {
        let points = self.prices.entry(provider_type.into()).or_default();
        points.push((from, price));
        points.sort_by_key(|(from, _)| *from);
        self
    }

    /// A provider type that exists; all others, unless they are added too, do not.
    #[must_use]
    pub fn with_provider_type(mut self, name: impl Into<String>) -> Self {
        self.provider_types.insert(name.into());
        self
    }

    /// An image that exists; all others, unless they are added too, do not.
    #[must_use]
    pub fn with_image(mut self, name: impl Into<String>) -> Self {
        self.images.insert(name.into());
        self
    }

    /// The credentials do not allow such calls.
    #[must_use]
    pub fn with_denied(mut self, kind: CallKind) -> Self {
        self.denied.insert(kind);
        self
    }

    /// The instance set lacks an extension.
    #[must_use]
    pub fn without_extension(mut self, kind: CallKind) -> Self {
        self.extensions.remove(&kind);
        self
    }

    /// The user to log in as.
    #[must_use]
    pub fn with_remote_user(mut self, user: impl Into<String>) -> Self {
        self.remote_user = Some(user.into());
        self
    }
}
