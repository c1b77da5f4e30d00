//! All layers in the right order.

use std::sync::Arc;

use longshore_cloud::{InstanceSet, Tags};

use crate::governor::{Governor, Learned};
use crate::hold_off::{Held, Holds};
use crate::{
    Chaos, DefaultTags, Faults, Filter, HoldOff, InFlight, InFlightLimits, Instrument, Metrics,
    Rate, RateLimit,
};

/// Puts layers around a driver, in the right order whatever the order of the calls.
///
/// From the inside: driver, [`Chaos`], [`Instrument`], [`InFlight`], [`Rate`], [`Governor`],
/// [`HoldOff`], [`DefaultTags`], [`Filter`]. What was not asked for is not there. What the governor
/// sends again goes through the rate again. What waits in any of them when a hold-off begins is held
/// off, too: a part of that layer, `Held`, is within them, around [`Instrument`]. The crate's documentation has the whole stack.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::governor::Learned;
/// use longshore_throttle::{Faults, InFlightLimits, Metrics, RateLimit, Stack};
/// let ours: Tags = [("set".to_owned(), "a".to_owned())].into();
/// let set = Stack::new(Stub::default())
///     .filter(ours)
///     .default_tags([("team".to_owned(), "b".to_owned())].into())
///     .hold_off()
///     .rate(RateLimit::new(0.5))
///     .governor(Learned::new())
///     .in_flight(InFlightLimits::all(20))
///     .instrument(Metrics::new())
///     .chaos(Faults::new(3));
/// let set: Box<dyn InstanceSet> = set.build_boxed();
/// assert!(set.to_string().starts_with("Filter(set=a, DefaultTags(team=b, HoldOff(Governor(Rate("));
/// ```
#[derive(Debug)]
#[must_use]
pub struct Stack {
    driver: Arc<dyn InstanceSet>,
    chaos: Option<Faults>,
    metrics: Option<Metrics>,
    in_flight: Option<InFlightLimits>,
    learned: Option<Learned>,
    rate: Option<RateLimit>,
    hold_off: bool,
    default_tags: Option<Tags>,
    filter: Option<Tags>,
}

impl Stack {
    /// Nothing around a driver yet.
    pub fn new(driver: impl InstanceSet + 'static) -> Self {
        Self {
            driver: Arc::new(driver),
            chaos: None,
            metrics: None,
            in_flight: None,
            learned: None,
            rate: None,
            hold_off: false,
            default_tags: None,
            filter: None,
        }
    }

    /// With [`Chaos`].
    pub fn chaos(mut self, faults: Faults) -> Self {
        self.chaos = Some(faults);
        self
    }

    /// With [`Instrument`].
    pub fn instrument(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// With [`InFlight`].
    pub fn in_flight(mut self, limits: InFlightLimits) -> Self {
        self.in_flight = Some(limits);
        self
    }

    /// With [`Governor`].
    pub fn governor(mut self, learned: Learned) -> Self {
        self.learned = Some(learned);
        self
    }

    /// With [`Rate`].
    pub fn rate(mut self, limit: RateLimit) -> Self {
        self.rate = Some(limit);
        self
    }

    /// With [`HoldOff`].
    pub fn hold_off(mut self) -> Self {
        self.hold_off = true;
        self
    }

    /// With [`DefaultTags`].
    pub fn default_tags(mut self, tags: Tags) -> Self {
        self.default_tags = Some(tags);
        self
    }

    /// With [`Filter`].
    pub fn filter(mut self, tags: Tags) -> Self {
        self.filter = Some(tags);
        self
    }

    /// The driver with its layers.
    #[must_use]
    pub fn build(self) -> Arc<dyn InstanceSet> {
        let mut set = self.driver;
        if let Some(faults) = self.chaos {
            set = Arc::new(Chaos::new(set, faults));
        }
        if let Some(metrics) = self.metrics {
            set = Arc::new(Instrument::new(set, metrics));
        }
        let holds = self.hold_off.then(Holds::new);
        let calls_wait = self.in_flight.is_some() || self.rate.is_some() || self.learned.is_some();
        if let Some(holds) = holds.clone().filter(|_| calls_wait) {
            set = Arc::new(Held::new(set, holds));
        }
        if let Some(limits) = self.in_flight {
            set = Arc::new(InFlight::new(set, limits));
        }
        if let Some(limit) = self.rate {
            set = Arc::new(Rate::new(set, limit));
        }
        if let Some(learned) = self.learned {
            set = Arc::new(Governor::new(set, learned));
        }
        if let Some(holds) = holds {
            set = Arc::new(HoldOff::sharing(set, holds));
        }
        if let Some(tags) = self.default_tags {
            set = Arc::new(DefaultTags::new(set, tags));
        }
        if let Some(tags) = self.filter {
            set = Arc::new(Filter::new(set, tags));
        }
        set
    }

    /// The same in a box, as a [`Driver`](longshore_cloud::Driver) returns it.
    #[must_use]
    pub fn build_boxed(self) -> Box<dyn InstanceSet> {
        Box::new(self.build())
    }
}
