//! What a test does to the cloud, and sees of it.

use longshore_types::{InstanceId, Instant};

use super::{Cloud, Timer};
use crate::{CallId, FakeInstance, Happening, HeldCall, HeldId, Misfortune, Settings};

const CONSOLE_BYTES_MAX: usize = 64 << 10;

impl Cloud {
    /// Changes how it behaves from now on. Capabilities and extensions are better left alone:
    /// whoever opened the cloud has asked for them already.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// A misfortune befalls an instance now; false if it is not listed.
    pub fn strike(&mut self, id: &InstanceId, misfortune: Misfortune, now: Instant) -> bool {
        self.handle_timeout(now);
        let found = self.fleet.find(self.settings.name, id);
        let listed = found.filter(|instance| instance.vanished.is_none());
        let Some(serial) = listed.map(|instance| instance.serial) else {
            return false;
        };
        self.strike_later(serial, std::time::Duration::ZERO, misfortune);
        true
    }

    /// Where an instance answers from now on; false if it is not listed.
    pub fn set_address(&mut self, id: &InstanceId, address: &str, now: Instant) -> bool {
        self.handle_timeout(now);
        let at = self.now;
        let serial = self.serial(id);
        let Some(instance) = serial.and_then(|serial| self.fleet.current_mut(serial)) else {
            return false;
        };
        instance.address = Some(address.to_owned());
        instance.record(at);
        self.note(Happening::Running(id.clone(), address.to_owned()));
        true
    }

    /// An instance prints something on its console, of which the last 64 KiB are kept; false if it
    /// is not listed.
    pub fn print(&mut self, id: &InstanceId, text: &[u8]) -> bool {
        let serial = self.serial(id);
        let Some(instance) = serial.and_then(|serial| self.fleet.current_mut(serial)) else {
            return false;
        };
        instance.console.extend_from_slice(text);
        let surplus = instance.console.len().saturating_sub(CONSOLE_BYTES_MAX);
        instance.console.drain(..surplus);
        true
    }

    /// The calls that are held, oldest first.
    pub fn held(&self) -> Vec<HeldCall> {
        let held = self.held.iter();
        held.filter_map(|(id, call)| {
            let open = self.calls.get(call)?;
            Some(HeldCall {
                id: *id,
                call: *call,
                kind: open.kind,
                acted: open.call.is_none(),
                abandoned: open.abandoned,
                token: open.token.clone(),
                ids: open.ids.clone(),
            })
        })
        .collect()
    }

    /// A held call goes on: it acts, or its reply leaves. False if it is not held (any more).
    pub fn release(&mut self, id: HeldId, now: Instant) -> bool {
        self.handle_timeout(now);
        let Some(call) = self.held.remove(&id) else {
            return false;
        };
        let Some(open) = self.calls.get_mut(&call) else {
            return false;
        };
        open.held = None;
        if open.call.is_some() {
            self.schedule_call(call, self.now, Timer::Act(call));
        } else if !open.fate.lose_reply {
            self.send_reply(call);
        }
        self.handle_timeout(self.now);
        true
    }

    /// Every instance that can be listed: the truth about it.
    pub fn instances(&self) -> impl Iterator<Item = &FakeInstance> {
        self.fleet.all()
    }

    /// The instances that have vanished and are not forgotten yet.
    pub fn past(&self) -> impl Iterator<Item = &FakeInstance> {
        self.fleet.past()
    }

    /// The truth about an instance, whether it has vanished or not.
    pub fn instance(&self, id: &InstanceId) -> Option<&FakeInstance> {
        self.fleet.find(self.settings.name, id)
    }

    /// Whether an instance runs and had booted at `now`.
    pub fn is_booted(&mut self, id: &InstanceId, now: Instant) -> bool {
        self.handle_timeout(now);
        self.instance(id).is_some_and(|instance| {
            instance.booted.is_some() && instance.state == longshore_cloud::InstanceState::Running
        })
    }

    pub(super) fn hold(&mut self, id: CallId) {
        self.held_made += 1;
        let held = HeldId(self.held_made);
        if let Some(open) = self.calls.get_mut(&id) {
            open.held = Some(held);
            self.held.insert(held, id);
            self.note(Happening::CallHeld(id));
        }
    }
}
