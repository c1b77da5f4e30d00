//! Counting, and the log of events.

use std::collections::{BTreeMap, VecDeque};

use longshore_cloud::CloudError;
use longshore_types::{Instant, Market, Price, TypeName};

use super::Cloud;
use crate::{CallId, CallKind, Counts, Event, FakeInstance, Happening, Reply, Usage};

/// The most types that are counted one by one; the others are counted together.
const TYPES_MAX: usize = 10_000;

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Witness {
    counts: BTreeMap<CallKind, Counts>,
    usage: BTreeMap<TypeName, Usage>,
    total: Usage,
    events: VecDeque<Event>,
    dropped: u64,
}

impl Witness {
    fn usage(&mut self, instance: &FakeInstance) -> [&mut Usage; 2] {
        let known = self.usage.len() < TYPES_MAX || self.usage.contains_key(&instance.type_name);
        let name = if known {
            instance.type_name.clone()
        } else {
            "(others)".into()
        };
        [self.usage.entry(name).or_default(), &mut self.total]
    }

    /// An instance begins to be pending or running, for the first time or again.
    pub(super) fn live(&mut self, instance: &FakeInstance, is_new: bool) {
        for usage in self.usage(instance) {
            usage.made += u64::from(is_new);
            usage.live += 1;
            usage.peak = usage.peak.max(usage.live);
        }
    }

    /// An instance is no longer pending or running, and has cost so much.
    pub(super) fn dead(&mut self, instance: &FakeInstance, nanos: u128, cost: u128) {
        for usage in self.usage(instance) {
            usage.live = usage.live.saturating_sub(1);
            usage.nanos = usage.nanos.saturating_add(nanos);
            usage.cost = usage.cost.saturating_add(cost);
        }
    }
}

impl Cloud {
    /// How many calls of a kind there were, and how they ended.
    pub fn counts(&self, kind: CallKind) -> Counts {
        self.witness.counts.get(&kind).cloned().unwrap_or_default()
    }

    /// What the instances of each type added up to until `now`: by the configured name of the
    /// type; those after the first 10,000 types together as `(others)`.
    ///
    /// A preemptible instance costs what [`Settings::prices`](crate::Settings::prices) say at each
    /// moment, every other what its type says. It costs from its birth until it begins to be
    /// destroyed.
    pub fn usage(&mut self, now: Instant) -> BTreeMap<TypeName, Usage> {
        self.handle_timeout(now);
        let mut usage = self.witness.usage.clone();
        for instance in self.fleet.all() {
            if let Some((nanos, cost)) = self.owed(instance)
                && let Some(usage) = usage_of(&mut usage, &instance.type_name)
            {
                usage.nanos = usage.nanos.saturating_add(nanos);
                usage.cost = usage.cost.saturating_add(cost);
            }
        }
        usage
    }

    /// What all instances added up to until `now`.
    pub fn total_usage(&mut self, now: Instant) -> Usage {
        self.handle_timeout(now);
        let mut total = self.witness.total.clone();
        for (nanos, cost) in self.fleet.all().filter_map(|i| self.owed(i)) {
            total.nanos = total.nanos.saturating_add(nanos);
            total.cost = total.cost.saturating_add(cost);
        }
        total
    }

    /// The next event of the log, oldest first. At most
    /// [`Settings::events_max`](crate::Settings::events_max) wait here.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.witness.events.pop_front()
    }

    /// How many events were dropped because nobody asked for them in time.
    pub fn events_dropped(&self) -> u64 {
        self.witness.dropped
    }

    /// What an instance has cost since it was last billed, and for how long.
    fn owed(&self, instance: &FakeInstance) -> Option<(u128, u128)> {
        let from = instance.billed_from?;
        let points = match instance.market {
            Market::Preemptible => self.settings.prices.get(&instance.provider_type),
            Market::OnDemand => None,
        };
        let points = points.map_or(&[][..], Vec::as_slice);
        let cost = cost(points, instance.price, from, self.now);
        Some((self.now.since(from).as_nanos(), cost))
    }

    /// An instance stops costing.
    pub(super) fn bill(&mut self, serial: u64) {
        let owed = self.fleet.get(serial).and_then(|i| self.owed(i));
        if let Some((nanos, cost)) = owed
            && let Some(instance) = self.fleet.current_mut(serial)
        {
            instance.billed_from = None;
            self.witness.dead(instance, nanos, cost);
        }
    }

    pub(super) fn note(&mut self, what: Happening) {
        let witness = &mut self.witness;
        if witness.events.len() >= self.settings.events_max {
            witness.dropped += 1;
            if witness.events.pop_front().is_none() {
                return;
            }
        }
        let at = self.now;
        witness.events.push_back(Event { at, what });
    }

    pub(super) fn count_mut(&mut self, kind: CallKind) -> &mut Counts {
        self.witness.counts.entry(kind).or_default()
    }

    /// A reply arrives.
    pub(super) fn reply(&mut self, id: CallId, kind: CallKind, reply: Reply) {
        let kind_of = |error: &CloudError| error.kind.clone();
        let errors: Vec<_> = reply.errors().into_iter().map(kind_of).collect();
        let counts = self.count_mut(kind);
        counts.ended += 1;
        errors.iter().for_each(|error| counts.add_error(error));
        self.note(Happening::CallEnded(id, errors));
        self.replies.push_back((id, reply));
    }
}

fn usage_of<'a>(
    usage: &'a mut BTreeMap<TypeName, Usage>,
    name: &TypeName,
) -> Option<&'a mut Usage> {
    if usage.contains_key(name) {
        usage.get_mut(name)
    } else {
        usage.get_mut(&TypeName::from("(others)"))
    }
}

/// What an instance costs between two moments, in billionths times nanoseconds of an hour.
fn cost(points: &[(Instant, Price)], before: Price, from: Instant, to: Instant) -> u128 {
    let held = points.partition_point(|(at, _)| *at <= from);
    let mut price = held.checked_sub(1).map_or(before, |last| points[last].1);
    let (mut since, mut total) = (from, 0_u128);
    for (at, next) in points[held..].iter().take_while(|(at, _)| *at < to) {
        total = total.saturating_add(at.since(since).as_nanos() * billionths(price));
        (since, price) = (*at, *next);
    }
    total.saturating_add(to.since(since).as_nanos() * billionths(price))
}

fn billionths(price: Price) -> u128 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a price is at most 10^18 billionths"
    )]
    let billionths = (price.units() * 1e9).round() as u64;
    u128::from(billionths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_instance_costs_follows_its_price() {
        let price = |units| Price::from_units(units).unwrap();
        let at = |hours: u64| Instant::from_nanos(hours * 3_600_000_000_000);
        let hour = u128::from(at(1).as_nanos());
        let points = [(at(2), price(2.0)), (at(4), price(3.0))];
        let cost = |from, to| cost(&points, price(1.0), at(from), at(to)) / hour / 1_000_000_000;
        assert_eq!(cost(0, 2), 2);
        assert_eq!(cost(0, 3), 4);
        assert_eq!(cost(3, 6), 8);
        assert_eq!(cost(5, 6), 3);
        assert_eq!(cost(6, 5), 0);
    }
}
