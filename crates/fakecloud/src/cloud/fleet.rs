//! Every instance, and what they count against.

use std::collections::{BTreeMap, VecDeque};

use longshore_cloud::Scope;
use longshore_types::{InstanceId, Instant};

use crate::FakeInstance;

/// Every instance.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// Those that are listed.
    current: BTreeMap<u64, FakeInstance>,
    /// Those that are not any more.
    past: BTreeMap<u64, FakeInstance>,
    /// The order in which they vanished, with when.
    vanished: VecDeque<(Instant, u64)>,
    tokens: BTreeMap<String, u64>,
    used: BTreeMap<Scope, (u64, u64)>,
    made: u64,
    addresses: u64,
}

impl Fleet {
    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// The id of the instance that was made before another.
    pub(super) fn previous(&self, serial: u64) -> Option<InstanceId> {
        let current = self.current.range(..serial).next_back();
        let past = self.past.range(..serial).next_back();
        let latest = current
            .into_iter()
            .chain(past)
            .max_by_key(|(made, _)| **made);
        latest.map(|(_, instance)| instance.id.clone())
    }

    pub(super) fn get(&self, serial: u64) -> Option<&FakeInstance> {
        self.current.get(&serial).or_else(|| self.past.get(&serial))
    }

    /// One that is listed.
    pub(super) fn current_mut(&mut self, serial: u64) -> Option<&mut FakeInstance> {
        self.current.get_mut(&serial)
    }

    pub(super) fn by_token(&self, token: &str) -> Option<u64> {
        self.tokens.get(token).copied()
    }

    /// One by its identifier, listed or not.
    pub(super) fn find(&self, name: &str, id: &InstanceId) -> Option<&FakeInstance> {
        let serial = id.as_str().strip_prefix(name)?.strip_prefix('-')?;
        let found = self.get(serial.parse().ok()?)?;
        (found.id == *id).then_some(found)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &FakeInstance> {
        self.current.values()
    }

    pub(super) fn past(&self) -> impl Iterator<Item = &FakeInstance> {
        self.past.values()
    }

    /// Goes through those that were listed at a moment, or are: those that vanished since come
    /// first, in that order.
    pub(super) fn each_listed_since(
        &mut self,
        at: Instant,
        mut look: impl FnMut(&mut FakeInstance),
    ) {
        let recent = self.vanished.partition_point(|(when, _)| *when <= at);
        for (when, serial) in self.vanished.range(recent..) {
            let left = self.past.get_mut(serial);
            if let Some(instance) = left.filter(|left| left.vanished == Some(*when)) {
                look(instance);
            }
        }
        self.current.values_mut().for_each(look);
    }

    pub(super) fn used(&self, scope: &Scope) -> (u64, u64) {
        self.used.get(scope).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, mut instance: FakeInstance, now: Instant) {
        instance.record(now);
        if !instance.token.is_empty() {
            self.tokens
                .entry(instance.token.clone())
                .or_insert(instance.serial);
        }
        let serial = instance.serial;
        self.current.insert(serial, instance);
        self.count(serial, true);
    }

    /// An instance counts against the quotas, or does so no more.
    pub(super) fn count(&mut self, serial: u64, more: bool) {
        let Some(instance) = self.current.get(&serial) else {
            return;
        };
        let vcpus = u64::from(instance.vcpus);
        for scope in scopes(instance) {
            let used = self.used.entry(scope.clone()).or_default();
            if more {
                *used = (used.0 + 1, used.1.saturating_add(vcpus));
            } else {
                *used = (used.0.saturating_sub(1), used.1.saturating_sub(vcpus));
            }
            if used.0 == 0 {
                self.used.remove(&scope);
            }
        }
    }

    /// Moves an instance out of the listings, and forgets those that vanished long ago.
    pub(super) fn retire(&mut self, serial: u64, now: Instant, past_max: usize) {
        let Some(mut instance) = self.current.remove(&serial) else {
            return;
        };
        instance.vanished = Some(now);
        self.past.insert(serial, instance);
        self.vanished.push_back((now, serial));
        while self.vanished.len() > past_max {
            let Some((when, serial)) = self.vanished.pop_front() else {
                return;
            };
            let left = self.past.get(&serial);
            if left.is_some_and(|left| left.vanished == Some(when))
                && let Some(forgotten) = self.past.remove(&serial)
                && self.tokens.get(&forgotten.token) == Some(&serial)
            {
                self.tokens.remove(&forgotten.token);
            }
        }
    }

    /// Moves an instance back into the listings.
    pub(super) fn revive(&mut self, serial: u64) {
        if let Some(mut instance) = self.past.remove(&serial) {
            instance.vanished = None;
            self.current.insert(serial, instance);
        }
    }

    pub(super) fn new_address(&mut self) -> String {
        self.addresses += 1;
        let [.., a, b, c] = self.addresses.to_be_bytes();
        format!("10.{a}.{b}.{c}")
    }
}

fn scopes(instance: &FakeInstance) -> Vec<Scope> {
    let market = instance.market;
    let mut scopes = vec![
        Scope::Everything,
        Scope::Market(market),
        Scope::Type(instance.type_name.clone()),
    ];
    let group = instance.quota_group.clone();
    scopes.extend(group.map(|group| Scope::QuotaGroup(group, market)));
    scopes.extend(instance.zone.clone().map(Scope::Zone));
    scopes
}
