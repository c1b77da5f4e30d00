//! From what changed to what is to be done.

use std::collections::BTreeSet;
use std::ops::Bound;

use longshore_types::{ContainerState, ContainerUuid, Deadline, Instant};

use crate::action::Action;
use crate::case::{Booking, Case, KillMark, OrderKey, Origin, Standing};
use crate::core::Core;
use crate::judge::{World, verdict};
use crate::shape::{Eligible, Stop};
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

    fn add_new_slot(&mut self, type_index: usize) -> SlotId {
        let id = SlotId::New(type_index, self.new_slots[type_index]);
        self.new_slots[type_index] += 1;
        let base = Base {
            type_index: Some(type_index),
            tier: Tier::New,
            open: true,
            capacity: self.config.types[type_index].resources(),
            used: longshore_types::Resources::NONE,
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
                    used: longshore_types::Resources::NONE,
                    count: 0,
                })
            }
            SlotId::New(..) => None,
        }
    }

    /// Applies the rules to one container and keeps the indexes in step.
    pub(crate) fn judge(&mut self, uuid: ContainerUuid, now: Instant) {
        self.note_sightings(uuid);
        let Some(case) = self.cases.get(&uuid) else {
            return;
        };
        let shape = case.entry.is_some().then_some(case.shape);
        let eligible = shape
            .and_then(|s| self.shapes.shape(s))
            .map(|s| &s.eligible);
        let nothing = BTreeSet::new();
        let world = World {
            config: &self.config,
            limits: &self.limits,
            workers: &self.workers,
            gone: &self.gone,
            by_probe: &self.by_probe,
            eligible: match eligible {
                Some(Ok(Eligible { names, .. })) => Ok(names),
                Some(Err(error)) => Err(error),
                None => Ok(&nothing),
            },
            now,
        };
        let verdict = verdict(case, &world);
        self.leave_line(uuid, shape);
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        if case.watch != verdict.watch {
            if let Some(old) = case.watch.take()
                && let Some(watching) = self.watch.get_mut(&old)
            {
                watching.remove(&uuid);
                if watching.is_empty() {
                    self.watch.remove(&old);
                }
            }
            if let Some(new) = &verdict.watch {
                self.watch.entry(new.clone()).or_default().insert(uuid);
            }
            case.watch = verdict.watch;
        }
        if verdict.cleared {
            case.cleared_at.get_or_insert(now);
        } else {
            case.cleared_at = None;
        }
        case.standing = verdict.standing;
        let paused = case.pause.as_ref().is_some_and(|p| p.until > now);
        case.wants = verdict.wants;
        case.wants
            .retain(|a| !paused && !case.in_flight.iter().any(|f| same_act(a, f)));
        self.settle_booking(uuid);
        self.enter_line(uuid);
        let Some(case) = self.cases.get(&uuid) else {
            return;
        };
        if case.wants.is_empty() {
            self.todo.remove(&uuid);
        } else {
            self.todo.insert(uuid);
        }
        if case.entry.is_none() && case.claims.is_empty() && case.in_flight.is_empty() {
            self.orphans.remove(&uuid);
            if let Some(pause) = &case.pause {
                self.pauses.remove(&(pause.until, uuid));
            }
            self.cases.remove(&uuid);
        }
    }

    /// Keeps what claims say about the latest attempt.
    fn note_sightings(&mut self, uuid: ContainerUuid) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let Some(entry) = &case.entry else {
            return;
        };
        if !matches!(
            entry.container.state,
            ContainerState::Locked | ContainerState::Running
        ) {
            return;
        }
        let here = |instance: &longshore_types::InstanceId| {
            !self.config.records_placement || entry.container.placed_on.as_ref() == Some(instance)
        };
        let sighting = case
            .claims
            .iter()
            .find(|c| here(&c.instance) && !Case::is_outdated(entry, c));
        if let Some(claim) = sighting {
            case.ran = true;
            if case.origin == Origin::Unknown {
                case.origin = Origin::On(claim.instance.clone());
            }
        }
    }

    /// Keeps room for what is under way or bound, and gives back what is not needed any more.
    fn settle_booking(&mut self, uuid: ContainerUuid) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let shown = case.booking.as_ref().is_some_and(|b| {
            case.claims
                .iter()
                .any(|c| b.slot == SlotId::Worker(c.instance.clone()) && c.phase.may_run())
        });
        let keep = case.booking.as_ref().is_some_and(|b| {
            let busy = case.entry_busy() || case.starting_on().is_some();
            let waits = case.standing == Standing::Waiting;
            let bound = match &case.standing {
                Standing::Bound(instance) => b.slot == SlotId::Worker(instance.clone()),
                Standing::Paused => is_bound(case),
                _ => false,
            };
            !shown && ((b.hard && (busy || bound)) || (!b.hard && waits))
        });
        if !keep && let Some(booking) = case.booking.take() {
            self.slots.release(&booking.slot, uuid);
            // Somebody else may use that room now.
            self.dirty |= booking.hard && !shown;
        }
        let (Standing::Bound(instance), Some(entry)) = (&case.standing, &case.entry) else {
            return;
        };
        let Some(shape) = self.shapes.shape(case.shape) else {
            return;
        };
        let slot = SlotId::Worker(instance.clone());
        if case.booking.is_none() {
            let room = self.slots.slot(&slot).map(crate::slots::Slot::spare);
            if room.is_some_and(|room| shape.need.fits_in(&room)) {
                self.slots.book(&slot, uuid, shape.need);
                case.booking = Some(Booking { slot, hard: true });
            }
        }
        if case.booking.is_some() && self.limits.accept_new && case.starting_on().is_none() {
            case.wants.push(Action::Start {
                uuid,
                attempt: entry.container.attempt(),
                instance: instance.clone(),
                resources: shape.need,
            });
        }
    }

    /// Takes a container out of every count and queue.
    pub(crate) fn leave_line(&mut self, uuid: ContainerUuid, shape: Option<usize>) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let counted = std::mem::take(&mut case.counted);
        if let Some(supervisor) = counted.active {
            self.active -= 1;
            self.active_supervisors -= u32::from(supervisor);
        }
        if let Some(key) = counted.line {
            self.line.remove(&key);
            if let Some(shape) = shape.and_then(|s| self.shapes.shape_mut(s)) {
                shape.members -= 1;
                if counted.queued {
                    shape.queue.remove(&key);
                }
            }
        }
    }

    fn enter_line(&mut self, uuid: ContainerUuid) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let (Some(entry), Some(key)) = (&case.entry, case.order()) else {
            return;
        };
        let container = &entry.container;
        let claimed = case.claims.iter().any(|c| c.phase.may_run());
        let hard = case.booking.as_ref().is_some_and(|b| b.hard);
        let takes = matches!(
            container.state,
            ContainerState::Queued | ContainerState::Locked
        );
        if container.state == ContainerState::Running
            || (container.state == ContainerState::Locked && claimed)
            || hard
        {
            case.counted.active = Some(container.supervisor);
            self.active += 1;
            self.active_supervisors += u32::from(container.supervisor);
        }
        let starting = claimed || case.starting_on().is_some();
        if takes && container.priority >= 1 && !starting {
            case.counted.line = Some(key);
            self.line.insert(key);
            if let Some(shape) = self.shapes.shape_mut(case.shape) {
                shape.members += 1;
                if case.standing == Standing::Waiting && !hard {
                    case.counted.queued = true;
                    shape.queue.insert(key);
                }
            }
        }
    }

    /// Finds a place for everybody in line, in order, as far as there is room.
    fn place_all(&mut self, now: Instant) {
        let mut heads: BTreeSet<(OrderKey, usize)> = self
            .shapes
            .iter()
            .filter_map(|(id, shape)| shape.queue.first().map(|key| (*key, id)))
            .collect();
        for shape in self.shapes.iter_mut() {
            shape.stop = None;
        }
        let limit = self
            .limits
            .max_containers
            .map(|limit| limit.max(self.active_supervisors.saturating_add(1)));
        let (mut active, mut supervisors) = (self.active, self.active_supervisors);
        let caps: std::collections::BTreeMap<usize, u32> = heads
            .iter()
            .filter_map(|&(_, id)| Some((id, self.supervisor_cap(id, now)?)))
            .collect();
        while let Some((key, id)) = heads.pop_first() {
            let Some(shape) = self.shapes.shape(id) else {
                continue;
            };
            let stop = if !self.limits.accept_new {
                Some(Stop::NotAccepting)
            } else if let Some(limit) = limit.filter(|limit| active >= *limit) {
                Some(Stop::Containers(limit))
            } else if let Some(cap) = caps.get(&id).filter(|cap| supervisors >= **cap) {
                Some(Stop::Supervisors(*cap))
            } else {
                let supervisor = u32::from(shape.supervisor);
                let stop = self.place_one(&key, id, now).err();
                if stop.is_none() {
                    active += 1;
                    supervisors += supervisor;
                }
                stop
            };
            let Some(shape) = self.shapes.shape_mut(id) else {
                continue;
            };
            if let Some(stop) = stop {
                shape.stop = Some((key, stop));
            } else {
                let after = (Bound::Excluded(key), Bound::Unbounded);
                heads.extend(shape.queue.range(after).next().map(|key| (*key, id)));
            }
        }
    }

    /// The most containers of a supervisors' shape that may run at once, none without a limit.
    fn supervisor_cap(&self, id: usize, now: Instant) -> Option<u32> {
        let shape = self.shapes.shape(id).filter(|s| s.supervisor)?;
        let blocked = shape
            .types()
            .iter()
            .all(|&index| self.create_blocked(index, now).is_some());
        let room = blocked.then(|| {
            let fits = |&index: &usize| {
                let each = times_in(&shape.need, &self.config.types[index].resources());
                each.saturating_mul(self.slots.open_of_type(index))
            };
            shape.types().iter().map(fits).fold(0, u32::saturating_add)
        });
        let base = [self.limits.max_containers, room]
            .into_iter()
            .flatten()
            .min()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a fraction of a u32, and casts of floats saturate"
        )]
        let part = (f64::from(base) * self.config.supervisor_fraction.clamp(0.0, 1.0)) as u32;
        Some(part.max(1))
    }

    /// Why no instance of a type can be created now, none if one can.
    pub(crate) fn create_blocked(&self, type_index: usize, now: Instant) -> Option<&str> {
        let name = &self.config.types[type_index].name;
        if let Some(why) = self.limits.create_blocked.get(name) {
            return Some(why);
        }
        let pause = self.type_pauses.get(name)?;
        (pause.until > now).then_some(pause.error.as_str())
    }

    fn place_one(&mut self, key: &OrderKey, id: usize, now: Instant) -> Result<(), Stop> {
        let uuid = key.3;
        let (Some(shape), Some(case)) = (self.shapes.shape(id), self.cases.get(&uuid)) else {
            return Ok(());
        };
        let need = shape.need;
        let found = self
            .slots
            .find(shape.types(), &need, case.avoid.as_ref())
            .or_else(|| self.reserved_slot(uuid, &need));
        let slot = match found {
            Some(slot) => slot,
            None => self.new_slot(id, now)?,
        };
        let Some(tier) = self.slots.slot(&slot).map(|s| s.base.tier) else {
            return Ok(());
        };
        self.slots.book(&slot, uuid, need);
        self.soft.push(uuid);
        let Some(case) = self.cases.get_mut(&uuid) else {
            return Ok(());
        };
        case.booking = Some(Booking {
            slot: slot.clone(),
            hard: false,
        });
        let Some(entry) = case.entry.as_ref().filter(|_| !case.entry_busy()) else {
            return Ok(());
        };
        let instance = match (slot, tier) {
            (SlotId::Worker(instance), Tier::Ready) => Some(instance),
            _ => None,
        };
        let action = match (entry.container.state, instance) {
            (ContainerState::Queued, instance) => {
                (tier != Tier::New).then_some(Action::Lock { uuid, instance })
            }
            (_, Some(instance)) if self.config.records_placement => {
                Some(Action::Place { uuid, instance })
            }
            (_, Some(instance)) => Some(Action::Start {
                uuid,
                attempt: entry.container.attempt(),
                instance,
                resources: need,
            }),
            (_, None) => None,
        };
        self.planned.extend(action);
        Ok(())
    }

    /// A slot on an instance to be created, of the best type that can be.
    fn new_slot(&mut self, shape: usize, now: Instant) -> Result<SlotId, Stop> {
        let types = self.shapes.shape(shape).map_or(&[][..], |s| s.types());
        let mut causes: Vec<&str> = Vec::new();
        for &index in types {
            match self.create_blocked(index, now) {
                None => {
                    self.planned.push_back(Action::Create {
                        type_name: self.config.types[index].name.clone(),
                    });
                    return Ok(self.add_new_slot(index));
                }
                Some(why) if !causes.contains(&why) => causes.push(why),
                Some(_) => {}
            }
        }
        Err(Stop::NoRoom(causes.join("; ")))
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
            }
            Action::Lock {
                instance: Some(_), ..
            }
            | Action::Place { .. } => harden(case),
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
        self.judge(uuid, now);
    }
}

/// Whether a locked container can be started on one instance only.
fn is_bound(case: &Case) -> bool {
    case.entry.as_ref().is_some_and(|e| {
        e.container.state == ContainerState::Locked && e.container.placed_on.is_some()
    })
}

fn harden(case: &mut Case) {
    if let Some(booking) = &mut case.booking {
        booking.hard = true;
    }
}

/// Whether two actions do the same to the same object.
fn same_act(a: &Action, b: &Action) -> bool {
    match (a, b) {
        (
            Action::Kill {
                uuid: u,
                instance: i,
                ..
            },
            Action::Kill {
                uuid: v,
                instance: j,
                ..
            },
        ) => u == v && i == j,
        _ => a == b,
    }
}

/// How often something fits into some room.
fn times_in(need: &longshore_types::Resources, room: &longshore_types::Resources) -> u32 {
    let part = |need: u64, room: u64| room.checked_div(need).unwrap_or(u64::MAX);
    let times = part(need.vcpus.into(), room.vcpus.into())
        .min(part(need.ram.0, room.ram.0))
        .min(part(need.scratch.0, room.scratch.0))
        .min(part(need.gpus.into(), room.gpus.into()));
    u32::try_from(times).unwrap_or(u32::MAX)
}
