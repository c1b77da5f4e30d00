//! Keeping instances free for the first in line, and giving back what nobody in line can use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_types::{ContainerUuid, IdleBehavior, InstanceId, Instant};

use crate::case::Case;
use crate::core::Core;
use crate::ids::{OrderKey, SlotNo};
use crate::pass::Planned;
use crate::shape::{Shape, Stop};
use crate::slots::{Slot, SlotOn, Tier};

/// Those whose best type is the same stand in one line; each such line is a scope.
pub(crate) type ScopeNo = usize;

/// Who is first in line without a place, since when, and what is kept free for it.
#[derive(Debug)]
struct Reservation {
    head: ContainerUuid,
    since: Instant,
    instance: Option<InstanceId>,
}

/// One reservation for each scope in which somebody waits.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    scopes: BTreeMap<ScopeNo, Reservation>,
}

impl Reservations {
    pub(crate) fn len(&self) -> usize {
        self.scopes.len()
    }

    /// When the next instance is to be reserved, none if nobody waits for that.
    pub(crate) fn due(&self, after: Duration) -> Option<Instant> {
        let open = self.scopes.values().filter(|r| r.instance.is_none());
        open.map(|r| r.since + after).min()
    }

    pub(crate) fn worker_gone(&mut self, id: &InstanceId, now: Instant) {
        for reservation in self.scopes.values_mut() {
            if reservation.instance.as_ref() == Some(id) {
                reservation.instance = None;
                // What it freed is given time to become an instance for the head.
                reservation.since = now;
            }
        }
    }

    /// For whom an instance is kept free, if it is.
    pub(crate) fn kept_for(&self, id: &InstanceId) -> Option<ContainerUuid> {
        let mut all = self.scopes.values();
        let kept = all.find(|r| r.instance.as_ref() == Some(id));
        kept.map(|r| r.head)
    }

    fn instances(&self) -> impl Iterator<Item = (&Reservation, &InstanceId)> {
        self.scopes
            .values()
            .filter_map(|r| Some((r, r.instance.as_ref()?)))
    }
}

impl Core {
    fn worker_slot(&self, instance: &InstanceId) -> Option<SlotNo> {
        self.workers.worker(self.workers.no(instance)?)?.slot
    }

    /// The instance that is reserved for a container, if it is ready and has room.
    pub(crate) fn reserved_slot(&self, uuid: ContainerUuid, shape: &Shape) -> Option<SlotNo> {
        let reservation = self.reservations.scopes.get(shape.types().first()?)?;
        let instance = reservation.instance.as_ref()?;
        if reservation.head != uuid {
            return None;
        }
        let no = self.worker_slot(instance)?;
        let slot = self.slots.slot(no)?;
        let eligible = shape.types().contains(&slot.base.type_index?);
        let usable = slot.base.open && slot.base.tier == Tier::Ready;
        (usable && eligible && shape.need.fits_in(&slot.spare())).then_some(no)
    }

    pub(crate) fn reserve_and_give_back(&mut self, now: Instant) {
        self.let_go_of_held();
        let mut heads: BTreeMap<ScopeNo, (OrderKey, usize)> = BTreeMap::new();
        for (id, shape) in self.shapes.iter() {
            if let (Some((key, Stop::NoRoom(_))), Some(&scope)) =
                (&shape.stop, shape.types().first())
            {
                let head = heads.entry(scope).or_insert((*key, id));
                *head = (*head).min((*key, id));
            }
        }
        let scopes: BTreeSet<ScopeNo> = heads
            .keys()
            .chain(self.reservations.scopes.keys())
            .copied()
            .collect();
        for scope in scopes {
            let head = heads
                .get(&scope)
                .and_then(|(key, _)| self.cases.get(key.case));
            self.follow_head(scope, head.map(|case| case.uuid), now);
        }
        if heads.is_empty() {
            return;
        }
        self.reserve_for(heads, now);
        self.give_back();
    }

    /// An instance that was put on hold, or is drained, is kept free for nobody: another one is.
    fn let_go_of_held(&mut self) {
        let held = |instance: &InstanceId| {
            let view = self.workers.get(instance);
            view.is_some_and(|view| view.idle_behavior != IdleBehavior::Run)
        };
        let kept = self.reservations.instances().map(|(_, id)| id.clone());
        let held: Vec<InstanceId> = kept.filter(held).collect();
        for instance in held {
            self.set_reserved(&instance, false);
            for reservation in self.reservations.scopes.values_mut() {
                reservation.instance.take_if(|kept| *kept == instance);
            }
        }
    }

    /// Reserves an instance for each head that has waited for long, the first in line first; never
    /// more than half of all instances.
    fn reserve_for(&mut self, heads: BTreeMap<ScopeNo, (OrderKey, usize)>, now: Instant) {
        let after = self.config.reserve_after;
        if self.reservations.due(after).is_none_or(|at| at > now) {
            return;
        }
        let mut in_order: Vec<(OrderKey, usize, ScopeNo)> = heads
            .into_iter()
            .map(|(scope, (key, shape))| (key, shape, scope))
            .collect();
        in_order.sort_unstable();
        for (_, shape, scope) in in_order {
            let waits = self.reservations.scopes.get(&scope);
            let due = waits.is_some_and(|r| r.instance.is_none() && r.since + after <= now);
            if due {
                self.choose_reserved(scope, shape, now);
            }
        }
    }

    /// Starts to count anew when somebody else is first in a scope; lets go of what was kept.
    fn follow_head(&mut self, scope: ScopeNo, head: Option<ContainerUuid>, now: Instant) {
        let old = self.reservations.scopes.get(&scope);
        if old.map(|r| r.head) == head {
            return;
        }
        // The head that has its place on the reserved instance keeps it.
        if let Some(Reservation {
            head: old,
            instance: Some(instance),
            ..
        }) = old
        {
            let slot = self.worker_slot(instance);
            let placed = self.case(*old).and_then(|c| c.booking);
            if placed.is_some_and(|b| Some(b.slot) == slot && !b.hard) {
                return;
            }
        }
        let old = self.reservations.scopes.remove(&scope);
        if let Some(instance) = old.and_then(|r| r.instance) {
            self.set_reserved(&instance, false);
            self.dirty = true;
        }
        if let Some(head) = head {
            let reservation = Reservation {
                head,
                since: now,
                instance: None,
            };
            self.reservations.scopes.insert(scope, reservation);
        }
    }

    fn set_reserved(&mut self, instance: &InstanceId, reserved: bool) {
        if let Some(slot) = self.worker_slot(instance) {
            self.slots.reserve(slot, reserved);
        }
    }

    /// Keeps the instance free that has least left to do: one that the head can use, if any.
    fn choose_reserved(&mut self, scope: ScopeNo, shape: usize, now: Instant) {
        let Some(shape) = self.shapes.shape(shape) else {
            return;
        };
        let quota = self.quota_is_short(shape.types());
        let open = || {
            let open = |slot: &Slot| slot.base.open && slot.base.tier <= Tier::Booting;
            self.slots.iter().filter(move |(_, slot)| open(slot))
        };
        let kept = self.reservations.instances().count();
        let allowed = kept == 0 || kept < open().count() / 2;
        let best = open()
            .filter(|(_, slot)| allowed && !slot.reserved)
            .filter_map(|(_, slot)| {
                let usable = slot
                    .base
                    .type_index
                    .is_some_and(|t| shape.types().contains(&t))
                    && shape.need.fits_in(&slot.base.capacity);
                let SlotOn::Worker(worker) = slot.on else {
                    return None;
                };
                let instance = &self.workers.worker(worker)?.id;
                (usable || quota).then_some((!usable, slot.load(), instance))
            })
            .min()
            .map(|(_, _, instance)| instance.clone());
        if let Some(instance) = &best {
            self.set_reserved(instance, true);
        }
        if let Some(reservation) = self.reservations.scopes.get_mut(&scope) {
            if best.is_none() {
                // Looked for again after another while.
                reservation.since = now;
            }
            reservation.instance = best;
        }
    }

    fn quota_is_short(&self, types: &[usize]) -> bool {
        types.iter().any(|&index| self.gates[index].quota)
    }

    /// Gives empty instances back that nobody in line can use, one for each kind of container
    /// that a quota keeps from getting one.
    fn give_back(&mut self) {
        let short = self
            .shapes
            .iter()
            .filter(|(_, s)| matches!(s.stop, Some((_, Stop::NoRoom(_)))))
            .filter(|(_, s)| self.quota_is_short(s.types()))
            .count();
        let allowed = short.saturating_sub(self.workers.giving_back);
        if allowed == 0 {
            return;
        }
        let wanted: BTreeSet<usize> = self
            .shapes
            .iter()
            .filter(|(_, shape)| shape.members > 0)
            .flat_map(|(_, shape)| shape.types().iter().copied())
            .collect();
        let unused = (0..self.config.types.len()).filter(|index| !wanted.contains(index));
        let empty = unused.flat_map(|index| self.slots.empty_ready(index));
        let reserved = self
            .reservations
            .instances()
            .filter_map(|(kept, instance)| {
                let no = self.worker_slot(instance)?;
                let slot = self.slots.slot(no)?;
                let can_use = |t| self.can_use(kept.head, t);
                let of_use = slot.base.type_index.is_some_and(can_use);
                let ready = slot.base.open && slot.base.tier == Tier::Ready && slot.load() == 0;
                (ready && !of_use).then_some(no)
            });
        let instances = reserved.chain(empty).filter_map(|no| {
            let SlotOn::Worker(worker) = self.slots.slot(no)?.on else {
                return None;
            };
            let worker = self.workers.worker(worker)?;
            let empty = worker.view.as_ref()?.containers.is_empty();
            empty.then(|| worker.id.clone())
        });
        let planned: Vec<Planned> = instances.take(allowed).map(Planned::GiveBack).collect();
        self.planned.extend(planned);
    }

    fn can_use(&self, container: ContainerUuid, type_index: usize) -> bool {
        let types = |case: &Case| self.shapes.types(case.shape).contains(&type_index);
        self.case(container).is_some_and(types)
    }
}
