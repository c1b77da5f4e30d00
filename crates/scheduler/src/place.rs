//! Who gets which room.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use longshore_types::{ContainerState, Instant, Resources};

use crate::action::Action;
use crate::case::{Booking, OrderKey};
use crate::core::Core;
use crate::shape::Stop;
use crate::slots::{SlotId, Tier};

impl Core {
    /// Finds a place for everybody in line, in order, as far as there is room.
    pub(crate) fn place_all(&mut self, now: Instant) {
        let mut heads: BTreeSet<(OrderKey, usize)> = self
            .shapes
            .iter()
            .filter_map(|(id, shape)| shape.queue.first().map(|key| (*key, id)))
            .collect();
        for shape in self.shapes.iter_mut() {
            shape.stop = None;
        }
        let (mut active, mut supervisors) = (self.active, self.active_supervisors);
        let caps: BTreeMap<usize, u32> = heads
            .iter()
            .filter_map(|&(_, id)| Some((id, self.supervisor_cap(id, now)?)))
            .collect();
        while let Some((key, id)) = heads.pop_first() {
            let Some(shape) = self.shapes.shape(id) else {
                continue;
            };
            let stop = if !self.limits.accept_new {
                Some(Stop::NotAccepting)
            } else if let Some(limit) = self.limits.max_containers
                // Whatever supervisors run, one other container always may.
                && active >= limit.max(supervisors.saturating_add(1))
            {
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
        self.soft.insert(uuid);
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
}

/// How often something fits into some room.
fn times_in(need: &Resources, room: &Resources) -> u32 {
    let part = |need: u64, room: u64| room.checked_div(need).unwrap_or(u64::MAX);
    let times = part(need.vcpus.into(), room.vcpus.into())
        .min(part(need.ram.0, room.ram.0))
        .min(part(need.scratch.0, room.scratch.0))
        .min(part(need.gpus.into(), room.gpus.into()));
    u32::try_from(times).unwrap_or(u32::MAX)
}
