//! What an operator does to instances, and to the dispatcher.

use std::time::Duration;

use longshore_types::{IdleBehavior, InstanceId};

use super::{Event, World};
use crate::FaultKind;
use crate::story::About;

/// An operator looks again after so long whether the dispatcher is there.
const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    /// An operator holds, drains or destroys an instance, if there is a dispatcher to ask.
    pub(super) fn operator_acts(&mut self) {
        let nth = self.random.index(self.machines.len());
        let Some(id) = self.machines.keys().nth(nth).cloned() else {
            return;
        };
        let choice = self.random.below(3);
        let held_for = self.random.seconds(10, 900);
        let (Some(core), None) = (&mut self.core, &self.sleep) else {
            return;
        };
        let done = match choice {
            0 => core.set_idle_behavior(&id, IdleBehavior::Hold, self.now),
            1 => core.set_idle_behavior(&id, IdleBehavior::Drain, self.now),
            _ => core.kill_instance(&id, "an operator wants it gone", self.now),
        };
        if done.is_err() {
            return;
        }
        self.fault(FaultKind::Operator, About::instance(&id));
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.troubled = true;
            // Whatever is there: it is the operator's decision.
            machine.heard.judged |= choice == 2;
        }
        if choice == 0 {
            self.schedule(held_for, Event::Release(id));
        }
    }

    /// An operator stops the dispatcher, or has it wind down; it ends soon, whether that is done or
    /// not, and another begins.
    pub(super) fn operator_stops(&mut self) {
        let winds_down = self.random.percent(50);
        let within = self.random.seconds(1, if winds_down { 300 } else { 30 });
        let (Some(core), None) = (&mut self.core, &self.sleep) else {
            return;
        };
        if winds_down {
            core.wind_down(self.now);
            for machine in self.machines.values_mut() {
                // It drains: what was locked for it is given back.
                machine.troubled = true;
            }
        } else {
            core.stop(self.now);
        }
        self.fault(FaultKind::Stopped, About::default());
        self.schedule(within, Event::Die);
    }

    /// The operator lets an instance run again that was on hold, and says so until both dispatcher
    /// and tag do: a dispatcher may die, or not be there.
    pub(super) fn release(&mut self, id: InstanceId) {
        let hold = IdleBehavior::Hold.to_string();
        let Some(instance) = self.cloud.instance(&id) else {
            return;
        };
        let tagged = instance.tags.values().any(|value| *value == hold);
        let (now, asleep) = (self.now, self.sleep.is_some());
        let Some(core) = self.core.as_mut().filter(|_| !asleep) else {
            return self.schedule(PATIENCE, Event::Release(id));
        };
        let entries = core.instances();
        let shown = entries.iter().find(|entry| entry.worker.instance == id);
        let held = shown.is_some_and(|e| e.worker.idle_behavior == IdleBehavior::Hold);
        if held || tagged {
            // Refused of one that is on its way out, or not known yet.
            let _ = core.set_idle_behavior(&id, IdleBehavior::Run, now);
            self.schedule(PATIENCE, Event::Release(id));
        }
    }
}
