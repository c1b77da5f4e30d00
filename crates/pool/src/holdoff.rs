//! Hold-offs: kinds of creates that are not tried for a while. One table, one owner.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use longshore_cloud::{ErrorKind, Scope};
use longshore_types::{InstanceType, Instant, TypeName};

use crate::books::Count;
use crate::core::Core;
use crate::effect::{CloudFailure, EffectId};
use crate::event::Changed;
use crate::refusal::Refusal;
use crate::timers::Timer;

const CAPACITY_PAUSE: Duration = Duration::from_secs(60);
const RATE_PAUSE: (u64, u64) = (1, 60);
const QUOTA_PAUSE: (u64, u64) = (60, 15 * 60);
const ERROR_PAUSE: (u64, u64) = (1, 5 * 60);
const BOOT_PAUSE: (u64, u64) = (60, 30 * 60);
/// The most hold-offs; more scopes than this are not told apart from no hold-off.
const MAX_HOLD_OFFS: usize = 1000;
/// A hold-off is forgotten once this many creates at a time were allowed after it.
const FULL_ALLOWANCE: usize = 256;
/// Boots of one type that fail in a row before creates of it are held off.
const MAX_BOOT_FAILURES: u32 = 3;

/// What is held off. Lack of quota and of capacity are different things with one scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HoldKey {
    Rate,
    Quota(Scope),
    Capacity(Scope),
    /// A type, and what kind of error it was.
    Error(TypeName, &'static str),
    /// Instances of this type do not boot.
    Boot(TypeName),
    /// Nothing comes to run on instances of this type.
    BlackHole(TypeName),
}

impl HoldKey {
    /// The same, of one type.
    fn of_type(&self, name: &TypeName) -> Self {
        let scope = Scope::Type(name.clone());
        match self {
            Self::Quota(_) => Self::Quota(scope),
            Self::Capacity(_) => Self::Capacity(scope),
            other => other.clone(),
        }
    }
}

impl fmt::Display for HoldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate => f.write_str("everything"),
            Self::Quota(scope) | Self::Capacity(scope) => scope.fmt(f),
            Self::Error(name, _) | Self::Boot(name) | Self::BlackHole(name) => {
                write!(f, "type {name}")
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct HoldOff {
    pub(crate) until: Instant,
    pub(crate) cause: String,
    /// How often it was begun with no success between; the pauses grow with it.
    times: u32,
    /// How many creates at a time are allowed once it has ended; doubles with each success.
    allowance: usize,
    /// Creates that were under way at the error, for a quota; when the last has ended, the
    /// instances are counted.
    open: BTreeSet<EffectId>,
    /// That count, of the instances that the quota is about; a smaller one later ends the hold-off.
    /// None while it is not taken yet, and for all that is not about a quota: that an instance which did not boot has gone, say, is no
    /// reason to make the next one at once.
    baseline: Option<usize>,
}

impl Core {
    /// Why a create of this type would be refused at the moment; none if it would not.
    ///
    /// A type that is not configured, limits on instances, on what they cost and on creates under
    /// way, and hold-offs are looked at, in this order.
    pub fn create_refusal(&self, type_name: &TypeName, now: Instant) -> Option<Refusal> {
        if self.stopping {
            return Some(Refusal::Stopping);
        }
        let Some(instance_type) = self.types.get(type_name) else {
            let type_name = type_name.clone();
            return Some(Refusal::UnknownType { type_name });
        };
        let there = self.workers.len() + self.pendings.len();
        let limit = self.config.capabilities.max_instances;
        if limit > 0 && there >= limit {
            return Some(Refusal::DriverLimit { limit });
        }
        let limit = self.config.max_instances;
        if limit > 0 && there >= limit {
            return Some(Refusal::MaxInstances { limit });
        }
        if let Some(refusal) = self.price_refusal(instance_type) {
            return Some(refusal);
        }
        let limit = self.config.max_creates_in_flight;
        if limit > 0 && self.creates_in_flight.len() >= limit {
            return Some(Refusal::CreatesInFlight { limit });
        }
        self.hold_offs
            .iter()
            .filter(|(key, _)| self.concerns(key, instance_type))
            .find_map(|(key, hold)| self.held_off(key, hold, now))
    }

    fn held_off(&self, key: &HoldKey, hold: &HoldOff, now: Instant) -> Option<Refusal> {
        let what = key.to_string();
        let cause = hold.cause.clone();
        if hold.until > now {
            let remaining = hold.until.since(now);
            return Some(Refusal::HeldOff {
                what,
                quota: matches!(key, HoldKey::Quota(_)),
                remaining,
                cause,
            });
        }
        (self.trials(key) >= hold.allowance).then_some(Refusal::Trial { what, cause })
    }

    /// Instances that are to show whether what led to a hold-off is over.
    fn trials(&self, key: &HoldKey) -> usize {
        match key {
            HoldKey::Boot(name) | HoldKey::BlackHole(name) => {
                let count = self.books.count(name);
                count.pending + count.booting
            }
            HoldKey::Error(name, _) => self.books.count(name).pending,
            HoldKey::Rate | HoldKey::Quota(_) | HoldKey::Capacity(_) => {
                self.counts_concerned(key).map(|count| count.pending).sum()
            }
        }
    }

    /// The counts of the types that a hold-off is about.
    fn counts_concerned(&self, key: &HoldKey) -> impl Iterator<Item = Count> {
        let concerned = |name: &TypeName| {
            let configured = self.types.get(name);
            configured.is_some_and(|t| self.concerns(key, t))
        };
        let counts = self.books.iter();
        counts
            .filter(move |(name, _)| concerned(name))
            .map(|(_, count)| *count)
    }

    /// How many instances there are that use up what a hold-off is about.
    fn instances_concerned(&self, key: &HoldKey) -> usize {
        match key {
            // Those of types that are no longer configured, too.
            HoldKey::Quota(Scope::Everything) => self.workers.len(),
            key => self.counts_concerned(key).map(|count| count.workers).sum(),
        }
    }

    fn price_refusal(&self, instance_type: &InstanceType) -> Option<Refusal> {
        let ceiling = self.config.max_price_per_hour?;
        let spent = self.hourly_price();
        let price = instance_type.price;
        (spent.saturating_add(price) > ceiling).then(|| Refusal::PriceCeiling {
            type_name: instance_type.name.clone(),
            price,
            spent,
            ceiling,
        })
    }

    pub(crate) fn concerns(&self, key: &HoldKey, instance_type: &InstanceType) -> bool {
        match key {
            HoldKey::Rate => true,
            HoldKey::Error(name, _) | HoldKey::Boot(name) | HoldKey::BlackHole(name) => {
                *name == instance_type.name
            }
            HoldKey::Quota(scope) | HoldKey::Capacity(scope) => self.is_in(scope, instance_type),
        }
    }

    fn is_in(&self, scope: &Scope, instance_type: &InstanceType) -> bool {
        match scope {
            Scope::Everything => true,
            Scope::Type(name) => *name == instance_type.name,
            Scope::Market(market) => *market == instance_type.market(),
            Scope::QuotaGroup(group, market) => {
                *market == instance_type.market()
                    && self.config.quota_groups.get(&instance_type.name) == Some(group)
            }
            // Nothing in a request chooses a zone; `hold_off_failed_create` holds the type.
            Scope::Zone(_) => false,
        }
    }

    /// Draws the consequences of a create that surely made nothing.
    pub(crate) fn hold_off_failed_create(
        &mut self,
        instance_type: &InstanceType,
        failure: &CloudFailure,
    ) {
        let name = &instance_type.name;
        let here = |scope: &Scope| match scope {
            Scope::Zone(_) => Scope::Type(name.clone()),
            scope => scope.clone(),
        };
        let (key, range, at_least) = match &failure.kind {
            ErrorKind::RateLimited { retry_after } => (HoldKey::Rate, RATE_PAUSE, *retry_after),
            ErrorKind::QuotaExceeded(scope) => (HoldKey::Quota(here(scope)), QUOTA_PAUSE, None),
            ErrorKind::NoCapacity(scope) => {
                let seconds = CAPACITY_PAUSE.as_secs();
                (HoldKey::Capacity(here(scope)), (seconds, seconds), None)
            }
            ErrorKind::NotFound
            | ErrorKind::Denied
            | ErrorKind::InvalidRequest
            | ErrorKind::Unsupported
            | ErrorKind::TimedOut
            | ErrorKind::Other => {
                let key = HoldKey::Error(name.clone(), failure.kind_label());
                (key, ERROR_PAUSE, None)
            }
        };
        // A scope without the type in it would let that be asked for again at once.
        let missed = (!self.concerns(&key, instance_type)).then(|| key.of_type(name));
        for key in std::iter::once(key).chain(missed) {
            self.hold_off(key, range, at_least, &failure.error);
        }
    }

    /// Begins a hold-off, or prolongs it; a shorter one never shortens a longer one. `exactly` is
    /// what the provider asked for, in place of our own growing pause; some say zero when they know
    /// no better.
    fn hold_off(
        &mut self,
        key: HoldKey,
        range: (u64, u64),
        exactly: Option<Duration>,
        cause: &str,
    ) {
        if self.hold_offs.len() >= MAX_HOLD_OFFS && !self.hold_offs.contains_key(&key) {
            let now = self.now;
            self.hold_offs.retain(|_, hold| hold.until > now);
            if self.hold_offs.len() >= MAX_HOLD_OFFS {
                return;
            }
        }
        let quota = matches!(key, HoldKey::Quota(_));
        let open = quota.then(|| self.creates_in_flight.clone());
        let open: BTreeSet<EffectId> = open.unwrap_or_default();
        let count = self.instances_concerned(&key);
        let now = self.now;
        let hold = self.hold_offs.entry(key.clone()).or_insert(HoldOff {
            until: now,
            cause: String::new(),
            times: 0,
            allowance: 1,
            open: BTreeSet::new(),
            baseline: None,
        });
        // Errors of creates that were sent together are one error.
        if hold.until <= now {
            hold.times = hold.times.saturating_add(1);
        }
        let grown = growing(range, hold.times.saturating_sub(1));
        let exactly = exactly.filter(|pause| !pause.is_zero());
        hold.until = hold.until.max(now + exactly.unwrap_or(grown));
        hold.cause = cause.to_owned();
        hold.allowance = 1;
        hold.baseline = (quota && open.is_empty()).then_some(count);
        hold.open = open;
        let until = hold.until;
        self.timers.set(Timer::HoldOff(key), until);
        self.changed(Changed::CreateGate);
    }

    /// Takes note that a create has ended, well or not.
    pub(crate) fn create_ended(&mut self, id: EffectId) {
        let mut settled = Vec::new();
        for (key, hold) in &mut self.hold_offs {
            if hold.open.remove(&id) && hold.open.is_empty() {
                settled.push(key.clone());
            }
        }
        for key in settled {
            let count = self.instances_concerned(&key);
            if let Some(hold) = self.hold_offs.get_mut(&key) {
                hold.baseline = Some(count);
            }
        }
        self.changed(Changed::CreateGate);
    }

    /// Takes note that an instance of this type was made.
    pub(crate) fn create_succeeded(&mut self, instance_type: &InstanceType) {
        let now = self.now;
        let concerned: Vec<HoldKey> = self
            .hold_offs
            .keys()
            .filter(|key| !matches!(key, HoldKey::Boot(_) | HoldKey::BlackHole(_)))
            .filter(|key| self.concerns(key, instance_type))
            .cloned()
            .collect();
        for key in concerned {
            let Some(hold) = self.hold_offs.get_mut(&key) else {
                continue;
            };
            // A success of a create that was sent before the hold-off began proves nothing.
            if hold.until > now {
                continue;
            }
            hold.times = 0;
            hold.allowance = hold.allowance.saturating_mul(2);
            if hold.allowance > FULL_ALLOWANCE || !matches!(key, HoldKey::Quota(_)) {
                self.end_hold_off(&key);
            }
        }
    }

    /// Takes note that there are fewer instances.
    pub(crate) fn instances_fell(&mut self) {
        let now = self.now;
        let held = self.hold_offs.iter();
        let held =
            held.filter_map(|(key, hold)| Some((key, hold.baseline.filter(|_| hold.until > now)?)));
        let fell = held.filter(|(key, baseline)| self.instances_concerned(key) < *baseline);
        let fell: Vec<HoldKey> = fell.map(|(key, _)| key.clone()).collect();
        for key in fell {
            if let Some(hold) = self.hold_offs.get_mut(&key) {
                hold.until = now;
                hold.baseline = None;
                self.timers.clear(&Timer::HoldOff(key));
            }
        }
        self.changed(Changed::CreateGate);
    }

    /// Takes note that a booting instance of this type went, or goes, by no doing of ours. It did
    /// not boot, then; but a preemptible one may be taken away at any time.
    pub(crate) fn boot_lost(&mut self, type_name: &TypeName, why: &str) {
        let preemptible = self.types.get(type_name).is_some_and(|t| t.preemptible);
        if !preemptible {
            self.boot_failed(type_name, why);
        }
    }

    /// Takes note that an instance of this type did not come to be ready.
    pub(crate) fn boot_failed(&mut self, type_name: &TypeName, cause: &str) {
        let failures = self.boot_failures.entry(type_name.clone()).or_default();
        *failures = failures.saturating_add(1);
        if *failures >= MAX_BOOT_FAILURES {
            let cause = format!("instances of it do not boot: {cause}");
            self.hold_off(HoldKey::Boot(type_name.clone()), BOOT_PAUSE, None, &cause);
        }
    }

    /// Takes note that an instance of this type booted.
    pub(crate) fn boot_succeeded(&mut self, type_name: &TypeName) {
        self.boot_failures.remove(type_name);
        self.end_hold_off(&HoldKey::Boot(type_name.clone()));
    }

    /// Holds off a type on whose instances nothing comes to run.
    pub(crate) fn hold_off_black_holes(&mut self, type_name: &TypeName, error: &str) {
        let cause = format!("nothing can be started on instances of it: {error}");
        self.hold_off(
            HoldKey::BlackHole(type_name.clone()),
            BOOT_PAUSE,
            None,
            &cause,
        );
    }

    /// The same, if it was held off before: a trial has failed.
    pub(crate) fn prolong_black_holes(&mut self, type_name: &TypeName, error: &str) {
        let key = HoldKey::BlackHole(type_name.clone());
        if self.hold_offs.contains_key(&key) {
            self.hold_off_black_holes(type_name, error);
        }
    }

    pub(crate) fn black_holes_ended(&mut self, type_name: &TypeName) {
        self.end_hold_off(&HoldKey::BlackHole(type_name.clone()));
    }

    fn end_hold_off(&mut self, key: &HoldKey) {
        if self.hold_offs.remove(key).is_some() {
            self.timers.clear(&Timer::HoldOff(key.clone()));
            self.changed(Changed::CreateGate);
        }
    }
}

/// The smallest pause of a range, doubled `times` times, at most the largest.
pub(crate) fn growing((least, most): (u64, u64), times: u32) -> Duration {
    let factor = 1u64.checked_shl(times.min(32)).unwrap_or(u64::MAX);
    Duration::from_secs(least.saturating_mul(factor).min(most))
}
