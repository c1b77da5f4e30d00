//! Keeping instances free for the first in line, and giving back what nobody in line can use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_types::{
    ContainerState, ContainerUuid, IdleBehavior, InstanceId, Instant, WorkerState,
};

use crate::case::Case;
use crate::core::Core;
use crate::ids::{OrderKey, SlotNo};
use crate::judge::is_ours;
use crate::pass::Planned;
use crate::shape::{Shape, Stop};
use crate::slots::{Slot, SlotOn, Tier};

/// Something is kept free for a container that has failed fewer times in a row than this.
const PATIENCE: u32 = 4;

/// Those whose best type is the same stand in one line; each such line is a scope.
pub(crate) type ScopeNo = usize;

/// Who is first in line without a place, since when, and what is kept free for it.
#[derive(Debug)]
struct Reservation {
    head: ContainerUuid,
    since: Instant,
    /// When an instance is looked for again, if there was none to be had.
    again: Instant,
    instance: Option<InstanceId>,
    /// Whether the limit on containers is reached, so that nobody knows whether there is room.
    limited: bool,
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
        let due = |r: &&Reservation| r.instance.is_none() && !r.limited;
        let open = self.scopes.values().filter(due);
        open.map(|r| (r.since + after).max(r.again)).min()
    }

    pub(crate) fn worker_gone(&mut self, id: &InstanceId, now: Instant) {
        for reservation in self.scopes.values_mut() {
            if reservation.instance.take_if(|kept| kept == id).is_some() {
                // What it freed is given time to become an instance for the head.
                reservation.since = now;
            }
        }
    }

    /// Another one is reserved at once.
    fn let_go_of(&mut self, id: &InstanceId) {
        for reservation in self.scopes.values_mut() {
            reservation.instance.take_if(|kept| kept == id);
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
        self.let_go_of_held(now);
        let mut heads: BTreeMap<ScopeNo, (OrderKey, usize)> = BTreeMap::new();
        let mut limited: BTreeSet<ScopeNo> = BTreeSet::new();
        for (id, shape) in self.shapes.iter() {
            let (Some((key, stop)), Some(&scope)) = (&shape.stop, shape.types().first()) else {
                continue;
            };
            match stop {
                Stop::NoRoom(_) => {
                    let mut from_there = shape.queue.range(*key..);
                    if let Some(key) =
                        from_there.find(|key| self.cases.get(key.case).is_some_and(may_keep))
                    {
                        let head = heads.entry(scope).or_insert((*key, id));
                        *head = (*head).min((*key, id));
                    }
                }
                Stop::Containers(_) => {
                    limited.insert(scope);
                }
                Stop::Supervisors(_) | Stop::NotAccepting => {}
            }
        }
        let scopes: BTreeSet<ScopeNo> = heads
            .keys()
            .chain(self.reservations.scopes.keys())
            .copied()
            .collect();
        for scope in scopes {
            if limited.contains(&scope) && self.stays_through_limit(scope) {
                continue;
            }
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

    /// Whether whoever is first in a scope still waits: the limit on containers, which is reached
    /// and left again with each that ends, changes nothing about that.
    fn stays_through_limit(&mut self, scope: ScopeNo) -> bool {
        let head = self.reservations.scopes.get(&scope).map(|r| r.head);
        let waits = head.is_some_and(|head| self.case(head).is_some_and(waits_for_a_place));
        if let Some(reservation) = self.reservations.scopes.get_mut(&scope) {
            reservation.limited = waits;
        }
        waits
    }

    /// An instance that was put on hold, is drained or is on its way out is kept free for nobody:
    /// another one is.
    fn let_go_of_held(&mut self, now: Instant) {
        let kept = self.reservations.instances().map(|(_, id)| id.clone());
        for instance in kept.collect::<Vec<_>>() {
            let Some(view) = self.workers.get(&instance) else {
                continue;
            };
            let leaves = view.state == WorkerState::Shutdown;
            let held = view.idle_behavior != IdleBehavior::Run;
            if !leaves && !held {
                continue;
            }
            self.set_reserved(&instance, false);
            if leaves {
                self.reservations.worker_gone(&instance, now);
            } else {
                self.reservations.let_go_of(&instance);
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
            let due =
                waits.is_some_and(|r| r.instance.is_none() && !r.limited && r.since + after <= now);
            if due {
                self.choose_reserved(scope, shape, now);
            }
        }
    }

    /// Starts to count anew when somebody else is first in a scope; lets go of what was kept.
    fn follow_head(&mut self, scope: ScopeNo, head: Option<ContainerUuid>, now: Instant) {
        if let Some(old) = self.reservations.scopes.get_mut(&scope) {
            old.limited = false;
        }
        let old = self.reservations.scopes.get(&scope);
        if old.map(|r| r.head) == head {
            return;
        }
        if let Some(Reservation {
            head: old,
            instance: Some(instance),
            ..
        }) = old
            && self.still_comes(*old, instance, now)
        {
            return;
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
                again: now,
                instance: None,
                limited: false,
            };
            self.reservations.scopes.insert(scope, reservation);
        }
    }

    /// Whether a head that is not first in line any more is on its way to what is kept for it: it
    /// has its place there until the next pass, or the controller is asked for it, or will be
    /// again after a pause.
    fn still_comes(&self, head: ContainerUuid, instance: &InstanceId, now: Instant) -> bool {
        let Some(case) = self.case(head) else {
            return false;
        };
        let there = self.worker_slot(instance);
        match case.booking {
            _ if !waits_for_a_place(case) => false,
            Some(booking) => Some(booking.slot) == there,
            None => case.calling.is_some() || case.ties.is_paused(now),
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
                // With the next one that is due, if that is sooner: it does not go before this one.
                reservation.again = now + self.config.reserve_after;
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
        let allowed = short.saturating_sub(self.workers.going());
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

/// Whether a container is wanted, has not begun anywhere, and something may be kept free for it.
fn waits_for_a_place(case: &Case) -> bool {
    let waits = case.entry.as_ref().is_some_and(|entry| {
        let before_start = [ContainerState::Queued, ContainerState::Locked];
        before_start.contains(&entry.state) && is_ours(entry) && entry.priority >= 1
    });
    let begun = case.starting_on().is_some() || !case.ties.claims.is_empty();
    waits && !begun && may_keep(case)
}

/// Whether something may be kept free for a container: not for one that comes to nothing again and
/// again, which would keep it from everybody else.
fn may_keep(case: &Case) -> bool {
    case.ties.pauses.failures() < PATIENCE
}
