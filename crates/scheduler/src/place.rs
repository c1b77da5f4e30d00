//! Who gets which room.

use std::cmp::Reverse;
use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use longshore_types::{ContainerState, Instant, Resources};

use crate::Packing;
use crate::case::Booking;
use crate::coming::Coming;
use crate::core::Core;
use crate::ids::{NameKey, OrderKey, SlotNo};
use crate::pass::Planned;
use crate::shape::{Shape, Shapes, Stop};
use crate::shelf::Wanted;
use crate::slots::{Base, SlotOn, Tier};

/// The queues of all shapes as one, in order of the line.
#[derive(Default)]
struct Heads<'a> {
    queues: BTreeMap<usize, Iter<'a, OrderKey>>,
    first: BinaryHeap<Reverse<(OrderKey, usize)>>,
}

impl<'a> Heads<'a> {
    fn of(shapes: &'a Shapes) -> Self {
        let mut heads = Self::default();
        for (id, shape) in shapes.iter() {
            let mut queue = shape.queue.iter();
            if let Some(key) = queue.next() {
                heads.first.push(Reverse((*key, id)));
                heads.queues.insert(id, queue);
            }
        }
        heads
    }

    fn pop(&mut self) -> Option<(OrderKey, usize)> {
        self.first.pop().map(|Reverse(head)| head)
    }

    /// The one that is next after one of this shape was placed.
    fn after(&mut self, shape: usize) -> Option<(OrderKey, usize)> {
        let next = self.queues.get_mut(&shape).and_then(Iter::next);
        let Some(key) = next else {
            return self.pop();
        };
        let own = (*key, shape);
        match self.first.peek_mut() {
            Some(mut other) if other.0 < own => {
                Some(std::mem::replace(&mut *other, Reverse(own)).0)
            }
            _ => Some(own),
        }
    }
}

impl Core {
    /// Finds a place for everybody in line, in order, as far as there is room.
    pub(crate) fn place_all(&mut self, now: Instant) {
        self.slots.shelve();
        let mut shapes = std::mem::take(&mut self.shapes);
        let index = self.slots.lend_coming();
        let mut coming = Coming::new(&index, shapes.least_need());
        let mut stops: BTreeMap<usize, (OrderKey, Stop)> = BTreeMap::new();
        let mut heads = Heads::of(&shapes);
        let caps: BTreeMap<usize, u32> = heads
            .queues
            .keys()
            .filter_map(|&id| Some((id, self.supervisor_cap(shapes.shape(id)?, now)?)))
            .collect();
        let (mut active, mut supervisors) = (self.active, self.active_supervisors);
        let mut next = heads.pop();
        while let Some((key, id)) = next {
            let Some(shape) = shapes.shape(id) else {
                break;
            };
            let stop = if !self.limits.accept_new {
                Some(Stop::NotAccepting)
            } else if let Some(limit) = self.limits.max_containers
                // Whatever supervisors run, one other container always may.
                && active >= limit.max(supervisors.saturating_add(1))
            {
                Some(Stop::Containers(limit))
            } else if shape.supervisor
                && let Some(cap) = caps.get(&id).filter(|cap| supervisors >= **cap)
            {
                Some(Stop::Supervisors(*cap))
            } else {
                self.place_one(&key, shape, &mut coming, now).err()
            };
            next = if let Some(stop) = stop {
                stops.insert(id, (key, stop));
                heads.pop()
            } else {
                active += 1;
                supervisors += u32::from(shape.supervisor);
                heads.after(id)
            };
        }
        self.slots.give_back_coming(index);
        self.slots.shelve();
        shapes.set_stops(stops, now);
        self.shapes = shapes;
    }

    /// The most containers of a supervisors' shape that may run at once, none without a limit.
    fn supervisor_cap(&self, shape: &Shape, now: Instant) -> Option<u32> {
        if !shape.supervisor {
            return None;
        }
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
        if let Some(why) = &self.gates[type_index].blocked {
            return Some(why);
        }
        let pause = self.type_pauses.get(&type_index)?;
        (pause.until > now).then_some(pause.error.as_str())
    }

    fn place_one(
        &mut self,
        key: &OrderKey,
        shape: &Shape,
        coming: &mut Coming<'_>,
        now: Instant,
    ) -> Result<(), Stop> {
        let no = key.case;
        let Some(case) = self.cases.get(no) else {
            return Ok(());
        };
        let (uuid, need) = (case.uuid, shape.need);
        let avoid = case.ties.avoid.as_ref().and_then(|id| {
            let worker = self.workers.worker(self.workers.no(id)?)?;
            worker.slot
        });
        let wanted = shape.eligible.as_ref().ok().map(|types| Wanted {
            types,
            need,
            avoid,
            packing: self.config.packing,
        });
        let ready = wanted.as_ref().and_then(|w| self.slots.find_ready(w));
        let found = ready
            .or_else(|| coming.take(wanted.as_ref()?, &self.slots))
            .or_else(|| self.reserved_slot(uuid, shape));
        let slot = match found {
            Some(slot) => slot,
            None => self.new_slot(key, shape, coming, now)?,
        };
        let Some(tier) = self.slots.slot(slot).map(|s| s.base.tier) else {
            return Ok(());
        };
        if tier == Tier::Ready {
            self.slots.book(slot, no, need);
        }
        let Some(case) = self.cases.get_mut(no) else {
            return Ok(());
        };
        case.booking = Some(Booking {
            slot,
            hard: false,
            over: false,
            need,
        });
        let Some(entry) = case.entry.as_ref().filter(|_| !case.entry_busy()) else {
            self.soft.push(no);
            return Ok(());
        };
        let ready = tier == Tier::Ready;
        let planned = match entry.state {
            ContainerState::Queued => (tier != Tier::New).then_some(Planned::Lock(no)),
            _ if !ready => None,
            _ if self.config.records_placement => Some(Planned::Place(no)),
            _ => Some(Planned::Start(no)),
        };
        match planned {
            // What begins it relies on its room, or leaves it among the soft.
            Some(planned) => self.planned.push_back(planned),
            None => self.soft.push(no),
        }
        Ok(())
    }

    /// A slot on an instance to be created, of the best type that can be.
    fn new_slot(
        &mut self,
        key: &OrderKey,
        shape: &Shape,
        coming: &mut Coming<'_>,
        now: Instant,
    ) -> Result<SlotNo, Stop> {
        if let Some(index) = self.type_to_create(key, shape, now) {
            self.planned.push_back(Planned::Create(index));
            // The next pass keeps it only if the create was begun.
            self.dirty_types.insert(index);
            let no = self.add_new_slot(index);
            if let Some(slot) = self.slots.slot(no) {
                let spare = slot.spare().saturating_sub(shape.need);
                coming.add_new(index, (slot.name().clone(), no), spare);
            }
            return Ok(no);
        }
        let mut seen = BTreeSet::new();
        let causes: Vec<&str> = shape
            .types()
            .iter()
            .filter_map(|&index| self.create_blocked(index, now))
            .filter(|why| seen.insert(*why))
            .collect();
        Err(Stop::NoRoom(causes.join("; ")))
    }

    fn type_to_create(&self, key: &OrderKey, shape: &Shape, now: Instant) -> Option<usize> {
        let free = |index: &&usize| self.create_blocked(**index, now).is_none();
        let mut free = shape.types().iter().filter(free).copied();
        let first = free.next()?;
        if self.config.packing != Packing::CheapestShare {
            return Some(first);
        }
        let waiting = shape.queue.range(key..).take(MAX_TOGETHER).count();
        // Of which market one is, is not a matter of the price.
        let market = self.config.types[first].preemptible;
        let types = std::iter::once(first).chain(free).map(|index| {
            let t = &self.config.types[index];
            let fit = times_in(&shape.need, &t.resources()) as usize;
            (index, t, fit.min(waiting).max(1))
        });
        let of_market = types.filter(|(_, t, _)| t.preemptible == market);
        of_market
            .reduce(|best, other| {
                let cheaper = other.1.price.times(best.2) < best.1.price.times(other.2);
                if cheaper { other } else { best }
            })
            .map(|(index, ..)| index)
    }

    pub(crate) fn add_new_slot(&mut self, type_index: usize) -> SlotNo {
        let slots = &mut self.new_slots[type_index];
        let base = Base {
            type_index: Some(type_index),
            tier: Tier::New,
            open: true,
            capacity: self.config.types[type_index].resources(),
            used: Resources::NONE,
            count: 0,
        };
        let key = NameKey::number(slots.len() as u64);
        let no = self.slots.add(SlotOn::New, key, base);
        slots.push(no);
        no
    }
}

/// So many equal containers are looked at for one new instance.
const MAX_TOGETHER: usize = 256;

/// How often something fits into some room.
fn times_in(need: &Resources, room: &Resources) -> u32 {
    let part = |need: u64, room: u64| room.checked_div(need).unwrap_or(u64::MAX);
    let times = part(need.vcpus.into(), room.vcpus.into())
        .min(part(need.ram.0, room.ram.0))
        .min(part(need.scratch.0, room.scratch.0))
        .min(part(need.gpus.into(), room.gpus.into()));
    u32::try_from(times).unwrap_or(u32::MAX)
}
