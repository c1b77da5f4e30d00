//! Keeping an instance free for the first in line, and giving back what nobody in line can use.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_types::{ContainerUuid, InstanceId, Instant};

use crate::core::Core;
use crate::ids::SlotNo;
use crate::pass::Planned;
use crate::shape::{Shape, Stop};
use crate::slots::{SlotOn, Tier};

/// Who is first in line without a place, since when, and what is kept free for it.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    pub(crate) head: Option<(ContainerUuid, Instant)>,
    pub(crate) instance: Option<InstanceId>,
}

impl Reservation {
    /// When an instance is to be reserved, none if nobody waits or one is.
    pub(crate) fn due(&self, after: Duration) -> Option<Instant> {
        match (&self.head, &self.instance) {
            (Some((_, since)), None) => Some(*since + after),
            _ => None,
        }
    }

    pub(crate) fn worker_gone(&mut self, id: &InstanceId, now: Instant) {
        if self.instance.as_ref() == Some(id) {
            self.instance = None;
            // What it freed is given time to become an instance for the head.
            if let Some((_, since)) = &mut self.head {
                *since = now;
            }
        }
    }
}

impl Core {
    fn worker_slot(&self, instance: &InstanceId) -> Option<SlotNo> {
        self.workers.worker(self.workers.no(instance)?)?.slot
    }

    /// For whom an instance is kept free, if it is.
    pub(crate) fn reservation_of(&self, id: Option<&InstanceId>) -> Option<ContainerUuid> {
        let kept = self.reservation.instance.as_ref();
        (kept.is_some() && kept == id)
            .then(|| self.reservation.head.map(|(uuid, _)| uuid))
            .flatten()
    }

    /// The reserved instance, if it is ready, has room, and is this container's.
    pub(crate) fn reserved_slot(&self, uuid: ContainerUuid, shape: &Shape) -> Option<SlotNo> {
        let instance = self.reservation.instance.as_ref()?;
        if self.reservation.head.map(|(head, _)| head) != Some(uuid) {
            return None;
        }
        let no = self.worker_slot(instance)?;
        let slot = self.slots.slot(no)?;
        let eligible = shape.types().contains(&slot.base.type_index?);
        let usable = slot.base.open && slot.base.tier == Tier::Ready;
        (usable && eligible && shape.need.fits_in(&slot.spare())).then_some(no)
    }

    pub(crate) fn reserve_and_give_back(&mut self, now: Instant) {
        let unplaced = self
            .shapes
            .iter()
            .filter_map(|(id, shape)| match &shape.stop {
                Some((key, Stop::NoRoom(_))) => Some((*key, id)),
                _ => None,
            })
            .min();
        self.follow_head(
            unplaced.and_then(|(key, _)| Some(self.cases.get(key.case)?.uuid)),
            now,
        );
        let Some((_, shape)) = unplaced else {
            return;
        };
        if self
            .reservation
            .due(self.config.reserve_after)
            .is_some_and(|at| at <= now)
        {
            self.choose_reserved(shape, now);
        }
        self.give_back();
    }

    /// Starts to count anew when somebody else is first; lets go of what was kept.
    fn follow_head(&mut self, head: Option<ContainerUuid>, now: Instant) {
        let old = self.reservation.head.map(|(uuid, _)| uuid);
        if old == head {
            return;
        }
        // The head that has its place on the reserved instance keeps it.
        if let (Some(old), Some(instance)) = (old, &self.reservation.instance) {
            let slot = self.worker_slot(instance);
            let placed = self.case(old).and_then(|c| c.booking);
            if placed.is_some_and(|b| Some(b.slot) == slot && !b.hard) {
                return;
            }
        }
        self.reservation.head = head.map(|uuid| (uuid, now));
        if let Some(instance) = self.reservation.instance.take() {
            self.set_reserved(&instance, false);
            self.dirty = true;
        }
    }

    fn set_reserved(&mut self, instance: &InstanceId, reserved: bool) {
        if let Some(slot) = self.worker_slot(instance) {
            self.slots.reserve(slot, reserved);
        }
    }

    /// Keeps the instance free that has least left to do: one that the head can use, if any.
    fn choose_reserved(&mut self, shape: usize, now: Instant) {
        let Some(shape) = self.shapes.shape(shape) else {
            return;
        };
        let quota = self.quota_is_short(shape.types());
        let best = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.base.open && slot.base.tier <= Tier::Booting)
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
        match best {
            Some(instance) => {
                self.set_reserved(&instance, true);
                self.reservation.instance = Some(instance);
            }
            // Looked for again after another while.
            None => {
                if let Some((_, since)) = &mut self.reservation.head {
                    *since = now;
                }
            }
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
        let reserved = self.reservation.instance.iter().filter_map(|instance| {
            let no = self.worker_slot(instance)?;
            let slot = self.slots.slot(no)?;
            let of_use = slot.base.type_index.is_some_and(|t| self.head_can_use(t));
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

    fn head_can_use(&self, type_index: usize) -> bool {
        let head = self.reservation.head.and_then(|(uuid, _)| self.case(uuid));
        head.is_some_and(|case| self.shapes.types(case.shape).contains(&type_index))
    }
}
