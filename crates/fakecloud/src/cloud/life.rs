//! The lives of instances.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{InstanceState, Scope, Tags};
use longshore_types::{InstanceId, Instant, Market};

use super::{Cloud, Timer};
use crate::{FakeInstance, Misfortune};

/// What happens to an instance at a moment.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Its address becomes known.
    Run,
    /// It has booted.
    Boot,
    /// The tags of its request show.
    Tag,
    /// It is destroyed for good.
    Go,
    /// It leaves the listings.
    Vanish,
    /// It runs again.
    ComeBack,
    /// The provider takes it away.
    Interrupt,
    /// A misfortune befalls it.
    Strike(Misfortune),
}

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

    /// Those that were listed at a moment, or are.
    pub(super) fn listed_since(&self, at: Instant) -> Vec<&FakeInstance> {
        let recent = self
            .vanished
            .iter()
            .rev()
            .take_while(|(when, _)| *when > at);
        let mut listed: Vec<_> = recent
            .filter_map(|(when, serial)| {
                let instance = self.past.get(serial)?;
                (instance.vanished == Some(*when)).then_some(instance)
            })
            .collect();
        listed.reverse();
        listed.extend(self.current.values());
        listed
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
        self.count(&instance, true);
        self.current.insert(instance.serial, instance);
    }

    fn count(&mut self, instance: &FakeInstance, more: bool) {
        for scope in scopes(instance) {
            let used = self.used.entry(scope).or_default();
            let vcpus = u64::from(instance.vcpus);
            *used = if more {
                (used.0 + 1, used.1.saturating_add(vcpus))
            } else {
                (used.0.saturating_sub(1), used.1.saturating_sub(vcpus))
            };
        }
    }

    /// Moves an instance out of the listings, and forgets those that vanished long ago.
    fn retire(&mut self, serial: u64, now: Instant, past_max: usize) {
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
    fn revive(&mut self, serial: u64) {
        if let Some(mut instance) = self.past.remove(&serial) {
            instance.vanished = None;
            self.current.insert(serial, instance);
        }
    }

    fn new_address(&mut self) -> String {
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

impl Cloud {
    /// Something will happen to an instance, or happens if there is no delay.
    pub(super) fn live_later(&mut self, serial: u64, delay: Duration, step: Step) {
        if delay.is_zero() {
            self.live(serial, step);
        } else {
            self.set_timer(self.now + delay, Timer::Live(serial, step));
        }
    }

    pub(super) fn live(&mut self, serial: u64, step: Step) {
        match step {
            Step::Run => self.run(serial),
            Step::Boot => self.boot(serial),
            Step::Tag => self.show_tags(serial),
            Step::Go => self.go(serial),
            Step::Vanish => self.vanish_if_gone(serial),
            Step::ComeBack => self.come_back(serial),
            Step::Interrupt => self.stop_instance(serial, false),
            Step::Strike(misfortune) => self.befall(serial, misfortune),
        }
    }

    fn run(&mut self, serial: u64) {
        let address = self.fleet.new_address();
        let now = self.now;
        if let Some(instance) = self.fleet.current_mut(serial)
            && instance.state == InstanceState::Pending
        {
            instance.state = InstanceState::Running;
            instance.address = Some(address);
            instance.record(now);
        }
    }

    fn boot(&mut self, serial: u64) {
        let now = self.now;
        if let Some(instance) = self.fleet.current_mut(serial)
            && instance.state == InstanceState::Running
            && !instance.never_boots
        {
            instance.booted.get_or_insert(now);
        }
    }

    fn show_tags(&mut self, serial: u64) {
        let now = self.now;
        if let Some(instance) = self.fleet.current_mut(serial)
            && let Some(late) = instance.late_tags.take()
        {
            let mut tags = (*late).clone();
            tags.extend((*instance.tags).clone());
            instance.tags = Arc::new(tags);
            instance.record(now);
        }
    }

    /// An instance begins to be destroyed, by its owner or by the provider.
    pub(super) fn stop_instance(&mut self, serial: u64, by_owner: bool) {
        let now = self.now;
        let Some(instance) = self.fleet.current_mut(serial) else {
            return;
        };
        if by_owner {
            instance.destroyed.get_or_insert(now);
        }
        if !instance.is_live() {
            return;
        }
        instance.state = InstanceState::Stopping;
        instance.record(now);
        self.bill(serial);
        let delay = self.random.duration(&self.settings.stopping);
        self.live_later(serial, delay, Step::Go);
    }

    fn bill(&mut self, serial: u64) {
        if let Some(instance) = self.fleet.current_mut(serial) {
            instance.billed_from = None;
        }
    }

    fn go(&mut self, serial: u64) {
        let now = self.now;
        let Some(instance) = self.fleet.current_mut(serial) else {
            return;
        };
        if instance.state != InstanceState::Stopping || instance.lingers {
            return;
        }
        instance.state = InstanceState::Gone;
        instance.gone = Some(now);
        instance.record(now);
        let comes_back = instance.comes_back.take();
        let counted = instance.clone();
        self.fleet.count(&counted, false);
        if let Some(delay) = comes_back {
            self.live_later(serial, delay, Step::ComeBack);
        }
        let delay = self.random.duration(&self.settings.gone);
        self.live_later(serial, delay, Step::Vanish);
    }

    fn vanish_if_gone(&mut self, serial: u64) {
        let found = self.fleet.current_mut(serial);
        if found.is_some_and(|instance| instance.state == InstanceState::Gone) {
            self.fleet.retire(serial, self.now, self.settings.past_max);
        }
    }

    fn come_back(&mut self, serial: u64) {
        let now = self.now;
        self.fleet.revive(serial);
        let Some(instance) = self.fleet.current_mut(serial) else {
            return;
        };
        if instance.state != InstanceState::Gone {
            return;
        }
        instance.state = InstanceState::Running;
        instance.gone = None;
        instance.billed_from = Some(now);
        instance.record(now);
        let counted = instance.clone();
        self.fleet.count(&counted, true);
    }

    pub(super) fn strike_later(&mut self, serial: u64, after: Duration, misfortune: Misfortune) {
        self.live_later(serial, after, Step::Strike(misfortune));
    }

    fn befall(&mut self, serial: u64, misfortune: Misfortune) {
        let (now, seed) = (self.now, self.random.next());
        let fresh = self.fleet.new_address();
        let Some(instance) = self.fleet.current_mut(serial) else {
            return;
        };
        match misfortune {
            Misfortune::NeverBoot => instance.never_boots = true,
            Misfortune::Vanish => self.vanish_now(serial),
            Misfortune::ChangeAddress => {
                if instance.address.is_some() {
                    instance.address = Some(fresh);
                }
            }
            Misfortune::Interrupt(notice) => {
                if instance.is_live() && instance.market == Market::Preemptible {
                    let notice = notice.unwrap_or_default();
                    instance.interrupted = Some(now + notice);
                    self.live_later(serial, notice, Step::Interrupt);
                }
            }
            Misfortune::LingerStopping => instance.lingers = true,
            Misfortune::ComeBack(delay) => instance.comes_back = Some(delay),
            Misfortune::LoseTags => {
                instance.tags = Arc::new(Tags::new());
                instance.late_tags = None;
            }
            Misfortune::GarbleTags => {
                let garbled = |(i, key): (u64, &String)| {
                    let rubbish = format!("\u{fffd}{:x}", seed.wrapping_add(i));
                    (key.clone(), rubbish)
                };
                instance.tags = Arc::new((0..).zip(instance.tags.keys()).map(garbled).collect());
            }
        }
        if let Some(instance) = self.fleet.current_mut(serial) {
            instance.record(now);
        }
    }

    /// An instance is no more, and no listing ever says so.
    fn vanish_now(&mut self, serial: u64) {
        self.bill(serial);
        let now = self.now;
        let Some(instance) = self.fleet.current_mut(serial) else {
            return;
        };
        if instance.gone.is_none() {
            instance.gone = Some(now);
            instance.state = InstanceState::Gone;
            let counted = instance.clone();
            self.fleet.count(&counted, false);
        }
        self.fleet.retire(serial, now, self.settings.past_max);
    }
}
