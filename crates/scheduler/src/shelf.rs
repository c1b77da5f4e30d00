//! Where slots stand so that a search looks at each kind of slot once, however many there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{ByteSize, Resources};

use crate::Packing;
use crate::ids::{NameKey, SlotNo};
use crate::shape::Eligible;

/// Spare room, ordered.
pub(crate) type Room = (u32, u64, u64, u32);

pub(crate) fn room(of: &Resources) -> Room {
    (of.vcpus, of.ram.0, of.scratch.0, of.gpus)
}

pub(crate) fn resources(of: &Room) -> Resources {
    Resources {
        vcpus: of.0,
        ram: ByteSize(of.1),
        scratch: ByteSize(of.2),
        gpus: of.3,
    }
}

/// Slots of one type with the same room and the same number of containers, the first by name first.
pub(crate) trait Bucket {
    /// The first one that is not this one.
    fn first_but(&self, avoid: Option<SlotNo>) -> Option<SlotNo>;
}

/// A bucket that is kept between passes.
pub(crate) type Names = BTreeSet<(NameKey, SlotNo)>;

impl Bucket for Names {
    fn first_but(&self, avoid: Option<SlotNo>) -> Option<SlotNo> {
        let mut slots = self.iter().map(|(_, no)| *no);
        slots.find(|no| Some(*no) != avoid)
    }
}

/// Buckets with the same number of containers on each slot, by room.
pub(crate) type Level<B> = BTreeMap<Room, B>;

/// The open slots of one type, the fullest first.
pub(crate) type Shelf<B> = BTreeMap<Reverse<u32>, Level<B>>;

/// The open slots of one tier, by type. Nothing in it is empty.
#[derive(Debug)]
pub(crate) struct Aisle<B> {
    pub(crate) shelves: BTreeMap<usize, Shelf<B>>,
}

/// Where a slot stands in an aisle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) type_index: usize,
    pub(crate) load: Reverse<u32>,
    pub(crate) room: Room,
}

/// What is looked for.
pub(crate) struct Wanted<'a> {
    /// The types, best first.
    pub(crate) types: &'a Eligible,
    pub(crate) need: Resources,
    /// Taken only if there is no other.
    pub(crate) avoid: Option<SlotNo>,
    pub(crate) packing: Packing,
}

impl<B> Default for Aisle<B> {
    fn default() -> Self {
        Self {
            shelves: BTreeMap::new(),
        }
    }
}

impl<B> Aisle<B> {
    /// The same with other buckets.
    pub(crate) fn map<'a, C>(&'a self, bucket: impl Fn(&'a B) -> C) -> Aisle<C> {
        let level = |(room, b): (&Room, &'a B)| (*room, bucket(b));
        let shelf = |shelf: &'a Shelf<B>| {
            let levels = shelf.iter();
            levels
                .map(|(load, buckets)| (*load, buckets.iter().map(level).collect()))
                .collect()
        };
        let shelves = self.shelves.iter();
        Aisle {
            shelves: shelves.map(|(index, of)| (*index, shelf(of))).collect(),
        }
    }

    /// The bucket at a place; none if nothing stands there.
    pub(crate) fn bucket(&self, at: &Place) -> Option<&B> {
        let shelf = self.shelves.get(&at.type_index)?;
        shelf.get(&at.load)?.get(&at.room)
    }

    /// The bucket at a place, an empty one if nothing stands there: something is put into it.
    pub(crate) fn bucket_mut(&mut self, at: &Place) -> &mut B
    where
        B: Default,
    {
        let shelf = self.shelves.entry(at.type_index).or_default();
        shelf
            .entry(at.load)
            .or_default()
            .entry(at.room)
            .or_default()
    }

    /// Takes something out of the bucket at a place; `take` says whether it is empty then.
    pub(crate) fn take_from<T>(
        &mut self,
        at: &Place,
        take: impl FnOnce(&mut B) -> (T, bool),
    ) -> Option<T> {
        let shelf = self.shelves.get_mut(&at.type_index)?;
        let level = shelf.get_mut(&at.load)?;
        let (taken, empty) = take(level.get_mut(&at.room)?);
        if empty {
            level.remove(&at.room);
            if level.is_empty() {
                shelf.remove(&at.load);
            }
            if shelf.is_empty() {
                self.shelves.remove(&at.type_index);
            }
        }
        Some(taken)
    }
}

impl<B: Bucket> Aisle<B> {
    /// The best slot with room, and where it stands: by the policy, then of the type that comes
    /// first, then the one with the least room, then the first by name.
    pub(crate) fn find(
        &self,
        wanted: &Wanted<'_>,
        capacity: impl Fn(SlotNo) -> Resources,
    ) -> Option<(Place, SlotNo)> {
        let few: Vec<usize>;
        let types = if self.shelves.len() < wanted.types.indexes.len() {
            few = wanted.types.among(self.shelves.keys());
            &few
        } else {
            &wanted.types.indexes
        };
        let find = |avoid: Option<SlotNo>| match wanted.packing {
            Packing::BestFit => self.tightest(types, &wanted.need, avoid, &capacity),
            Packing::Fullest | Packing::CheapestShare => self.fullest(types, &wanted.need, avoid),
        };
        let found = find(wanted.avoid);
        if wanted.avoid.is_some() && found.is_none() {
            return find(None);
        }
        found
    }

    fn fullest(
        &self,
        types: &[usize],
        need: &Resources,
        avoid: Option<SlotNo>,
    ) -> Option<(Place, SlotNo)> {
        let mut best: Option<(Place, SlotNo)> = None;
        for (type_index, shelf) in self.of_types(types) {
            for (load, level) in shelf {
                // The fullest come first; an equal load of an earlier type wins.
                if best.is_some_and(|(best, _)| best.load <= *load) {
                    break;
                }
                let other = |(room, bucket): (&Room, &B)| Some((*room, bucket.first_but(avoid)?));
                if let Some((room, slot)) = fitting(level, need).find_map(other) {
                    let place = Place {
                        type_index,
                        load: *load,
                        room,
                    };
                    best = Some((place, slot));
                    break;
                }
            }
        }
        best
    }

    /// The slot with the least left afterwards of what is needed most of.
    fn tightest(
        &self,
        types: &[usize],
        need: &Resources,
        avoid: Option<SlotNo>,
        capacity: impl Fn(SlotNo) -> Resources,
    ) -> Option<(Place, SlotNo)> {
        let mut best: Option<(u64, Place, SlotNo)> = None;
        for (type_index, shelf) in self.of_types(types) {
            for (load, level) in shelf {
                for (room, bucket) in fitting(level, need) {
                    let Some(slot) = bucket.first_but(avoid) else {
                        continue;
                    };
                    let left = share_left(need, &resources(room), &capacity(slot));
                    if best.is_none_or(|(least, ..)| left < least) {
                        let place = Place {
                            type_index,
                            load: *load,
                            room: *room,
                        };
                        best = Some((left, place, slot));
                    }
                }
            }
        }
        best.map(|(_, place, slot)| (place, slot))
    }

    fn of_types(&self, types: &[usize]) -> impl Iterator<Item = (usize, &Shelf<B>)> {
        types
            .iter()
            .filter_map(|index| Some((*index, self.shelves.get(index)?)))
    }
}

/// Buckets with room for this, the least room first.
fn fitting<'a, B>(
    level: &'a Level<B>,
    need: &'a Resources,
) -> impl Iterator<Item = (&'a Room, &'a B)> {
    let from = (need.vcpus, need.ram.0, 0, 0);
    level
        .range(from..)
        .filter(|(room, _)| need.fits_in(&resources(room)))
}

/// How much of what is needed most of, in millionths of the capacity, is left of some room
/// afterwards.
fn share_left(need: &Resources, spare: &Resources, whole: &Resources) -> u64 {
    let millionths = |part: u64, whole: u64| {
        let share = u128::from(part) * 1_000_000 / u128::from(whole.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    let kinds = [
        (need.vcpus.into(), spare.vcpus.into(), whole.vcpus.into()),
        (need.ram.0, spare.ram.0, whole.ram.0),
        (need.scratch.0, spare.scratch.0, whole.scratch.0),
        (need.gpus.into(), spare.gpus.into(), whole.gpus.into()),
    ];
    let most = kinds
        .into_iter()
        .max_by_key(|(need, _, whole)| millionths(*need, *whole));
    most.map_or(0, |(need, spare, whole)| {
        millionths(spare.saturating_sub(need), whole)
    })
}
