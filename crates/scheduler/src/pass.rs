//! From what changed to what is to be done.

use std::collections::BTreeMap;

use longshore_types::{Deadline, InstanceId, Instant, Resources};

use crate::action::Action;
use crate::apply::Entering;
use crate::case::{Call, Case, Doing, KillMark, Origin};
use crate::core::Core;
use crate::ids::{CaseNo, NameKey, SlotNo, UuidKey, WorkerNo};
use crate::slots::{Base, SlotOn, Tier};

/// What a pass wants done about room; the rest of the action is in the books.
#[derive(Clone, Debug)]
pub(crate) enum Planned {
    Lock(CaseNo),
    Place(CaseNo),
    Start(CaseNo),
    Create(usize),
    GiveBack(InstanceId),
}

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
            while let Some(&(key, no)) = self.todo.first() {
                if let Some(action) = self.next_wanted(key, no, now) {
                    self.emit(no, &action, now);
                    return Some(action);
                }
            }
            while let Some(planned) = self.planned.pop_front() {
                if let Some(action) = self.carry_on(planned, now) {
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
        let pause = self.pauses.first().map(|(at, ..)| *at);
        let type_pause = self.type_wakes.first().map(|(at, _)| *at);
        let deadline = |at: Option<Instant>, why| at.map(|at| Deadline { at, why });
        let pauses = Deadline::earliest(
            deadline(pause, "a container's pause ends"),
            deadline(type_pause, "an instance type's pause ends"),
        );
        let reserve = self.reservations.due(self.config.reserve_after);
        Deadline::earliest(
            pauses,
            deadline(reserve, "an instance is kept free for the first in line"),
        )
    }

    /// Notices what the time alone has changed.
    fn wake(&mut self, now: Instant) {
        while let Some(&(until, _, no)) = self.pauses.first() {
            if until > now {
                break;
            }
            self.pauses.pop_first();
            self.touch(no);
        }
        while let Some((until, _)) = self.type_wakes.first()
            && *until <= now
        {
            self.type_wakes.pop_first();
            self.dirty = true;
        }
        if self
            .reservations
            .due(self.config.reserve_after)
            .is_some_and(|at| at <= now)
        {
            self.dirty = true;
        }
    }

    fn pass(&mut self, now: Instant) {
        self.dirty = false;
        let placed_before = self.release_soft();
        self.sync_slots();
        let mut entering = Entering::default();
        let mut touched = std::mem::take(&mut self.touched);
        // In an order that does not depend on how the news came.
        touched.sort_unstable();
        for (_, no) in touched {
            if self.cases.get(no).is_some_and(|case| case.touched) {
                self.judge_later(no, now, &mut entering);
            }
        }
        self.enter(entering);
        self.place_all(now);
        self.reserve_and_give_back(now);
        self.note_places(placed_before, now);
    }

    /// Takes back the room that was promised until this pass only; returns from whom.
    fn release_soft(&mut self) -> Vec<CaseNo> {
        let soft = std::mem::take(&mut self.soft);
        for no in &soft {
            let Some(case) = self.cases.get_mut(*no) else {
                continue;
            };
            if let Some(booking) = case.booking.take_if(|b| !b.hard) {
                self.slots.release(booking.slot, *no);
            }
        }
        soft
    }

    /// What these are promised until the next pass only on slots that are not ready: how many they
    /// are on each, and the sum.
    pub(crate) fn promised(
        &self,
        whom: impl Iterator<Item = CaseNo>,
    ) -> BTreeMap<SlotNo, (usize, Resources)> {
        let mut promised: BTreeMap<SlotNo, (usize, Resources)> = BTreeMap::new();
        let bookings = whom.filter_map(|no| self.cases.get(no)?.booking);
        for booking in bookings.filter(|booking| !booking.hard) {
            let slot = self.slots.slot(booking.slot);
            if slot.is_some_and(|slot| slot.base.tier != Tier::Ready) {
                let (count, sum) = promised.entry(booking.slot).or_default();
                *count += 1;
                *sum = sum.saturating_add(booking.need);
            }
        }
        promised
    }

    fn sync_slots(&mut self) {
        for no in std::mem::take(&mut self.workers.dirty) {
            self.sync_worker(no);
        }
        for number in std::mem::take(&mut self.dirty_pendings) {
            self.sync_pending(number);
        }
        self.slots.shelve();
        for index in std::mem::take(&mut self.dirty_types) {
            let wanted = self.creating[index];
            while self.new_slots[index].len() > wanted {
                if let Some(slot) = self.new_slots[index].pop() {
                    self.remove_slot(slot);
                }
            }
            while self.new_slots[index].len() < wanted {
                self.add_new_slot(index);
            }
        }
    }

    fn sync_worker(&mut self, no: WorkerNo) {
        let Some(worker) = self.workers.worker_mut(no) else {
            return;
        };
        worker.dirty = false;
        let slot = worker.slot;
        let Some(view) = &worker.view else {
            self.workers.drop_cleared(no);
            if let Some(slot) = slot {
                self.remove_slot(slot);
            }
            return;
        };
        let count = view.containers.iter().filter(|c| c.phase.may_run()).count();
        let base = Base {
            type_index: worker.type_index,
            tier: if view.takes_containers() {
                Tier::Ready
            } else {
                Tier::Booting
            },
            open: view.will_take_containers() && !worker.giving_back,
            capacity: view.capacity,
            used: view.granted,
            count: u32::try_from(count).unwrap_or(u32::MAX),
        };
        match slot {
            Some(slot) => self.slots.set(slot, base),
            None => {
                let key = NameKey::of(&worker.id);
                worker.slot = Some(self.slots.add(SlotOn::Worker(no), key, base));
            }
        }
    }

    fn sync_pending(&mut self, number: u64) {
        let Some(pending) = self.pendings.get_mut(&number) else {
            return;
        };
        let slot = pending.slot;
        let Some(view) = &pending.view else {
            self.pendings.remove(&number);
            if let Some(slot) = slot {
                self.remove_slot(slot);
            }
            return;
        };
        let (name, capacity) = (view.type_name.clone(), view.capacity);
        let base = Base {
            type_index: self.type_index(&name),
            tier: Tier::Pending,
            open: true,
            capacity,
            used: Resources::NONE,
            count: 0,
        };
        match slot {
            Some(slot) => self.slots.set(slot, base),
            None => {
                let key = NameKey::number(number);
                let slot = self.slots.add(SlotOn::Pending(number), key, base);
                if let Some(pending) = self.pendings.get_mut(&number) {
                    pending.slot = Some(slot);
                }
            }
        }
    }

    /// Removes a slot; those who had room there are judged again.
    fn remove_slot(&mut self, slot: SlotNo) {
        for no in self.slots.remove(slot) {
            if let Some(case) = self.cases.get_mut(no) {
                case.booking = None;
                self.touch(no);
            }
        }
    }

    fn next_wanted(&mut self, key: UuidKey, no: CaseNo, now: Instant) -> Option<Action> {
        // What was touched since is judged again before anything is done about it.
        if self.cases.get(no).is_some_and(|case| case.touched) {
            self.judge(no, now);
        }
        let case = self.cases.get_mut(no);
        if let Some(ties) = case.and_then(|case| case.ties.touched_mut()) {
            let wants = &mut ties.wants;
            if !wants.is_empty() {
                let action = wants.remove(0);
                let starts = matches!(action, Action::Start { .. });
                if starts && self.waits_for_another(no) {
                    return None;
                }
                return Some(action);
            }
            *wants = Vec::new();
        }
        self.todo.remove(&(key, no));
        None
    }

    /// Begins what was planned, unless what came in since the pass speaks against it.
    fn carry_on(&mut self, planned: Planned, now: Instant) -> Option<Action> {
        match planned {
            Planned::Create(index) => {
                if self.create_blocked(index, now).is_some() {
                    return None;
                }
                self.creating[index] += 1;
                let type_name = self.config.types[index].name.clone();
                Some(Action::Create { type_name })
            }
            Planned::GiveBack(instance) => {
                let no = self.workers.no(&instance)?;
                if self.workers.worker(no).is_none_or(|worker| worker.dirty) {
                    return None;
                }
                self.workers.set_giving_back(no, true);
                self.workers.mark_dirty(no);
                Some(Action::GiveBack { instance })
            }
            Planned::Lock(no) | Planned::Place(no) | Planned::Start(no) => {
                let action = self.planned_action(&planned, no);
                if let Some(action) = &action {
                    self.emit(no, action, now);
                }
                self.keep_soft(no, now);
                action
            }
        }
    }

    /// Forgets what was planned; the room that it was for is free with the next pass.
    pub(crate) fn drop_planned(&mut self) {
        for planned in std::mem::take(&mut self.planned) {
            if let Planned::Lock(no) | Planned::Place(no) | Planned::Start(no) = planned {
                self.soft.push(no);
            }
        }
    }

    /// What nothing under way relies on is promised until the next pass only.
    fn keep_soft(&mut self, no: CaseNo, now: Instant) {
        let booking = self.cases.get(no).and_then(|case| case.booking);
        if booking.is_some_and(|booking| !booking.hard) {
            self.soft.push(no);
            self.note_boot(no, now);
        }
    }

    fn planned_action(&self, planned: &Planned, no: CaseNo) -> Option<Action> {
        let case = self.cases.get(no).filter(|case| !case.touched)?;
        let booking = case.booking.filter(|booking| !booking.hard)?;
        let slot = self.slots.slot(booking.slot)?;
        let instance = match slot.on {
            SlotOn::Worker(worker) => {
                let worker = self.workers.worker(worker).filter(|w| !w.dirty)?;
                (slot.base.tier == Tier::Ready).then(|| worker.id.clone())
            }
            SlotOn::Pending(number) if self.dirty_pendings.contains(&number) => return None,
            _ => None,
        };
        let uuid = case.uuid;
        Some(match (planned, instance) {
            (Planned::Place(_), Some(instance)) => Action::Place { uuid, instance },
            (Planned::Start(_), Some(instance)) => Action::Start {
                uuid,
                attempt: case.entry.as_ref()?.attempt(),
                instance,
                resources: booking.need,
            },
            (Planned::Lock(_), instance) => Action::Lock { uuid, instance },
            _ => return None,
        })
    }

    fn emit(&mut self, no: CaseNo, action: &Action, now: Instant) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        if let Some(doing) = Doing::of(action) {
            case.ties.in_flight.push(doing);
        }
        case.calling = Call::of(action).or(case.calling);
        match action {
            Action::Start { instance, .. } => {
                case.ties.origin = Origin::On(instance.clone());
                harden(case);
            }
            Action::Lock {
                instance: Some(_), ..
            }
            | Action::Place { .. } => harden(case),
            Action::Kill {
                only_unstarted,
                instance,
                attempt,
                ..
            } => {
                case.ties.kill = Some(KillMark {
                    instance: instance.clone(),
                    attempt: *attempt,
                    only_unstarted: *only_unstarted,
                    gone: false,
                });
            }
            _ => {}
        }
        // One less in line: an instance that only it could use may be of no use any more.
        self.dirty |= !self.limits.quota_blocked.is_empty();
        self.judge(no, now);
    }
}

fn harden(case: &mut Case) {
    if let Some(booking) = &mut case.booking {
        booking.hard = true;
    }
}
