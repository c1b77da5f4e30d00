//! The lives of instances.

use std::time::Duration;

use longshore_cloud::{InstanceState, Tags};
use longshore_types::Market;

use super::{Cloud, Timer};
use crate::{Happening, Misfortune};

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
            let address = instance.address.get_or_insert(address).clone();
            instance.record(now);
            let id = instance.id.clone();
            self.note(Happening::Running(id, address));
        }
    }

    fn boot(&mut self, serial: u64) {
        let now = self.now;
        if let Some(instance) = self.fleet.current_mut(serial)
            && instance.state == InstanceState::Running
            && !instance.never_boots
            && instance.booted.is_none()
        {
            instance.booted = Some(now);
            let id = instance.id.clone();
            self.note(Happening::Booted(id));
        }
    }

    fn show_tags(&mut self, serial: u64) {
        let now = self.now;
        if let Some(instance) = self.fleet.current_mut(serial)
            && let Some(late) = instance.late_tags.take()
        {
            let mut tags = late;
            tags.extend(instance.tags.clone());
            instance.tags = tags;
            instance.record(now);
            let id = instance.id.clone();
            self.note(Happening::Tagged(id));
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
        let was_off = std::mem::take(&mut instance.is_off);
        if !was_off && !instance.is_live() {
            return;
        }
        instance.state = InstanceState::Stopping;
        instance.record(now);
        let id = instance.id.clone();
        self.note(Happening::Stopping(id, by_owner));
        self.bill(serial);
        let delay = self.random.duration(&self.settings.stopping);
        self.live_later(serial, delay, Step::Go);
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
        let id = instance.id.clone();
        self.note(Happening::Gone(id));
        self.fleet.count(serial, false);
        if let Some(delay) = comes_back {
            self.live_later(serial, delay, Step::ComeBack);
        }
        let delay = self.random.duration(&self.settings.gone);
        self.live_later(serial, delay, Step::Vanish);
    }

    fn vanish_if_gone(&mut self, serial: u64) {
        let found = self.fleet.current_mut(serial);
        let gone = found.filter(|instance| instance.state == InstanceState::Gone);
        if let Some(id) = gone.map(|instance| instance.id.clone()) {
            self.note(Happening::Vanished(id));
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
        self.witness.live(instance, false);
        let id = instance.id.clone();
        self.note(Happening::CameBack(id));
        self.fleet.count(serial, true);
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
        let struck = Happening::Struck(instance.id.clone(), misfortune.clone());
        match misfortune {
            Misfortune::NeverBoot => instance.never_boots = true,
            Misfortune::Vanish => self.vanish_now(serial),
            Misfortune::PowerOff => self.power_off(serial),
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
                instance.tags = Tags::new();
                instance.late_tags = None;
            }
            Misfortune::GarbleTags => {
                let garbled = |(i, key): (u64, &String)| {
                    let rubbish = format!("\u{fffd}{:x}", seed.wrapping_add(i));
                    (key.clone(), rubbish)
                };
                instance.tags = (0..).zip(instance.tags.keys()).map(garbled).collect();
            }
        }
        self.note(struck);
        if let Some(instance) = self.fleet.current_mut(serial) {
            instance.record(now);
        }
    }

    /// An instance is off, and there is something of it until it is destroyed.
    fn power_off(&mut self, serial: u64) {
        let Some(instance) = self.fleet.current_mut(serial) else {
            return;
        };
        if instance.is_live() {
            instance.state = InstanceState::Stopping;
            instance.is_off = true;
            let id = instance.id.clone();
            self.note(Happening::Stopping(id, false));
            self.bill(serial);
        }
    }

    /// An instance is no more, and no listing ever says so.
    fn vanish_now(&mut self, serial: u64) {
        self.bill(serial);
        let now = self.now;
        let Some(instance) = self.fleet.current_mut(serial) else {
            return;
        };
        let id = instance.id.clone();
        if instance.gone.is_none() {
            instance.gone = Some(now);
            instance.state = InstanceState::Gone;
            self.fleet.count(serial, false);
        }
        self.note(Happening::Vanished(id));
        self.fleet.retire(serial, now, self.settings.past_max);
    }
}
