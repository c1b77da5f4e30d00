//! From what changed to what is to be done.

use longshore_types::{ContainerUuid, Deadline, Instant, Resources};

use crate::action::Action;
use crate::case::{Case, KillMark, Origin};
use crate::core::Core;
use crate::slots::{Base, SlotId, Tier};

impl Core {
    /// The next thing to do now, none if there is nothing.
    ///
    /// What was returned counts as under way until the next delta about that object, or until
    /// [`Core::action_failed`].
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        self.wake(now);
        loop {
            if self.dirty && self.planned.is_empty() {
                self.pass(now);
            }
            while let Some(&uuid) = self.todo.first() {
                if let Some(action) = self.next_wanted(uuid, now) {
                    self.emit(&action, now);
                    return Some(action);
                }
            }
            while let Some(action) = self.planned.pop_front() {
                if self.still_right(&action, now) {
                    self.emit(&action, now);
                    return Some(action);
                }
            }
            if !self.dirty {
                return None;
            }
        }
    }

    /// When [`Core::poll_action`] should be called again even if nothing changes.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let pause = self.pauses.first().map(|(at, _)| *at);
        let type_pause = self.type_wakes.first().map(|(at, _)| *at);
        let deadline = |at: Option<Instant>, why| at.map(|at| Deadline { at, why });
        let pauses = Deadline::earliest(
            deadline(pause, "a container's pause ends"),
            deadline(type_pause, "an instance type's pause ends"),
        );
        let reserve = self.reservation.due(self.config.reserve_after);
        Deadline::earliest(
            pauses,
            deadline(reserve, "an instance is kept free for the first in line"),
        )
    }

    /// Notices what the time alone has changed.
    fn wake(&mut self, now: Instant) {
        while let Some(&(until, uuid)) = self.pauses.first() {
            if until > now {
                break;
            }
            self.pauses.pop_first();
            self.touch(uuid, now);
        }
        while let Some((until, _)) = self.type_wakes.first()
            && *until <= now
        {
            self.type_wakes.pop_first();
            self.dirty = true;
        }
        if self
            .reservation
            .due(self.config.reserve_after)
            .is_some_and(|at| at <= now)
        {
            self.dirty = true;
        }
    }

    fn pass(&mut self, now: Instant) {
        self.dirty = false;
        self.release_soft();
        self.sync_slots();
        while let Some(uuid) = self.touched.pop_first() {
            self.judge(uuid, now);
        }
        self.place_all(now);
        self.reserve_and_give_back(now);
    }

    fn release_soft(&mut self) {
        for uuid in std::mem::take(&mut self.soft) {
            let Some(case) = self.cases.get_mut(&uuid) else {
                continue;
            };
            if let Some(booking) = case.booking.take_if(|b| !b.hard) {
                self.slots.release(&booking.slot, uuid);
            }
        }
    }

    fn sync_slots(&mut self) {
        for id in std::mem::take(&mut self.dirty_slots) {
            match self.base_of(&id) {
                Some(base) => self.slots.set(&id, base),
                None => {
                    for uuid in self.slots.remove(&id) {
                        self.lose_booking(uuid);
                    }
                }
            }
        }
        for index in 0..self.creating.len() {
            let wanted = self.creating[index];
            while self.new_slots[index] > wanted {
                self.new_slots[index] -= 1;
                let id = SlotId::New(index, self.new_slots[index]);
                for uuid in self.slots.remove(&id) {
                    self.lose_booking(uuid);
                }
            }
            while self.new_slots[index] < wanted {
                self.add_new_slot(index);
            }
        }
    }

    fn lose_booking(&mut self, uuid: ContainerUuid) {
        if let Some(case) = self.cases.get_mut(&uuid) {
            case.booking = None;
            self.touched.insert(uuid);
        }
    }

    pub(crate) fn add_new_slot(&mut self, type_index: usize) -> SlotId {
        let id = SlotId::New(type_index, self.new_slots[type_index]);
        self.new_slots[type_index] += 1;
        let base = Base {
            type_index: Some(type_index),
            tier: Tier::New,
            open: true,
            capacity: self.config.types[type_index].resources(),
            used: Resources::NONE,
            count: 0,
        };
        self.slots.set(&id, base);
        id
    }

    fn base_of(&self, id: &SlotId) -> Option<Base> {
        match id {
            SlotId::Worker(instance) => {
                let view = self.workers.get(instance)?;
                let count = view.containers.iter().filter(|c| c.phase.may_run()).count();
                Some(Base {
                    type_index: view.type_name.as_ref().and_then(|n| self.type_index(n)),
                    tier: if view.takes_containers() {
                        Tier::Ready
                    } else {
                        Tier::Booting
                    },
                    open: view.will_take_containers() && !self.giving_back.contains(instance),
                    capacity: view.capacity,
                    used: view.granted,
                    count: u32::try_from(count).unwrap_or(u32::MAX),
                })
            }
            SlotId::Pending(number) => {
                let view = self.pendings.get(number)?;
                Some(Base {
                    type_index: self.type_index(&view.type_name),
                    tier: Tier::Pending,
                    open: true,
                    capacity: view.capacity,
                    used: Resources::NONE,
                    count: 0,
                })
            }
            SlotId::New(..) => None,
        }
    }

    fn next_wanted(&mut self, uuid: ContainerUuid, now: Instant) -> Option<Action> {
        // What was touched since is judged again before anything is done about it.
        if self.touched.remove(&uuid) {
            self.judge(uuid, now);
        }
        let case = self.cases.get_mut(&uuid);
        let action = case.and_then(|case| (!case.wants.is_empty()).then(|| case.wants.remove(0)));
        if action.is_none() {
            self.todo.remove(&uuid);
        }
        action
    }

    /// Whether nothing that came in since the pass speaks against an action.
    fn still_right(&self, action: &Action, now: Instant) -> bool {
        match action {
            Action::Create { type_name } => self
                .type_index(type_name)
                .is_some_and(|index| self.create_blocked(index, now).is_none()),
            Action::GiveBack { instance } => {
                let slot = SlotId::Worker(instance.clone());
                !self.dirty_slots.contains(&slot)
            }
            other => other.uuid().is_some_and(|uuid| {
                let booking = self.cases.get(&uuid).and_then(|c| c.booking.as_ref());
                !self.touched.contains(&uuid)
                    && booking.is_some_and(|b| !b.hard && !self.dirty_slots.contains(&b.slot))
            }),
        }
    }

    fn emit(&mut self, action: &Action, now: Instant) {
        match action {
            Action::Create { type_name } => {
                if let Some(index) = self.type_index(type_name) {
                    self.creating[index] += 1;
                }
                return;
            }
            Action::GiveBack { instance } => {
                self.giving_back.insert(instance.clone());
                self.dirty_slots.insert(SlotId::Worker(instance.clone()));
                return;
            }
            _ => {}
        }
        let Some(uuid) = action.uuid() else {
            return;
        };
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        case.in_flight.push(action.clone());
        match action {
            Action::Start { instance, .. } => {
                case.origin = Origin::On(instance.clone());
                harden(case);
                self.soft.remove(&uuid);
            }
            Action::Lock {
                instance: Some(_), ..
            }
            | Action::Place { .. } => {
                harden(case);
                self.soft.remove(&uuid);
            }
            Action::Kill {
                instance, attempt, ..
            } => {
                case.kill = Some(KillMark {
                    instance: instance.clone(),
                    attempt: *attempt,
                    gone: false,
                });
            }
            _ => {}
        }
        // One less in line: an instance that only it could use may be of no use any more.
        self.dirty |= !self.limits.quota_blocked.is_empty();
        self.judge(uuid, now);
    }
}

fn harden(case: &mut Case) {
    if let Some(booking) = &mut case.booking {
        booking.hard = true;
    }
}
