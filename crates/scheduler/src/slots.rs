//! Books on room: what is granted, what is promised, and where something fits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{ByteSize, Resources};

use crate::Packing;
use crate::apply::{FEW, merge};
use crate::ids::{CaseNo, NameKey, Slab, SlotNo, WorkerNo};
use crate::shape::Eligible;

/// What a slot is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotOn {
    /// A worker.
    Worker(WorkerNo),
    /// A create that was asked for, by its number.
    Pending(u64),
    /// A create that this core wants or has just asked for.
    New,
}

/// How soon a slot can run something; the soonest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    Ready,
    Booting,
    Pending,
    New,
}

impl Tier {
    pub(crate) const ALL: [Self; 4] = [Self::Ready, Self::Booting, Self::Pending, Self::New];
}

/// What is known of a slot apart from what this core promised on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// Its type, none if that is not configured.
    pub(crate) type_index: Option<usize>,
    pub(crate) tier: Tier,
    /// Whether anything new may be placed on it.
    pub(crate) open: bool,
    pub(crate) capacity: Resources,
    /// What is granted on it, and to how many containers.
    pub(crate) used: Resources,
    pub(crate) count: u32,
}

/// Something that containers can be placed on.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) on: SlotOn,
    /// Where it stands among equals.
    key: NameKey,
    pub(crate) base: Base,
    /// What is promised here, to whom.
    pub(crate) holders: Vec<(CaseNo, Resources)>,
    /// Set while the slot is kept free for one container.
    pub(crate) reserved: bool,
    booked: Resources,
    /// Whether the index has it as it is.
    shelved: bool,
}

impl Slot {
    pub(crate) fn spare(&self) -> Resources {
        self.base
            .capacity
            .saturating_sub(self.base.used.saturating_add(self.booked))
    }

    /// What nothing that is known to be there has.
    pub(crate) fn unused(&self) -> Resources {
        self.base.capacity.saturating_sub(self.base.used)
    }

    /// How many containers it has or was promised.
    pub(crate) fn load(&self) -> u32 {
        let holders = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        self.base.count.saturating_add(holders)
    }

    fn sum(&self) -> Resources {
        self.holders.iter().map(|(_, need)| *need).sum()
    }

    /// Where it stands in the index, none if nothing may be placed on it.
    fn shelf(&self) -> Option<(usize, usize)> {
        let type_index = self.base.type_index?;
        (self.base.open && !self.reserved).then_some((type_index, self.base.tier as usize))
    }
}

/// Spare room, ordered.
type Room = (u32, u64, u64, u32);

fn room(of: &Resources) -> Room {
    (of.vcpus, of.ram.0, of.scratch.0, of.gpus)
}

fn resources(of: &Room) -> Resources {
    Resources {
        vcpus: of.0,
        ram: ByteSize(of.1),
        scratch: ByteSize(of.2),
        gpus: of.3,
    }
}

/// Slots with the same room and the same number of containers share a bucket, so that a search
/// looks at each kind of slot once, however many there are.
type Bucket = BTreeSet<(NameKey, SlotNo)>;

/// Slots with the same number of containers.
#[derive(Debug, Default)]
struct Level {
    buckets: BTreeMap<Room, Bucket>,
}

impl Level {
    /// Buckets with room for this, the least room first.
    fn fitting<'a>(&'a self, need: &'a Resources) -> impl Iterator<Item = &'a Bucket> {
        let from = (need.vcpus, need.ram.0, 0, 0);
        self.buckets
            .range(from..)
            .filter(|(room, _)| need.fits_in(&resources(room)))
            .map(|(_, bucket)| bucket)
    }
}

/// The open slots of one type and tier, the fullest first.
#[derive(Debug, Default)]
struct Shelf {
    levels: BTreeMap<Reverse<u32>, Level>,
}

/// How much of what is needed most of, in millionths of the capacity, is left on a slot afterwards.
fn share_left(need: &Resources, slot: &Slot) -> u64 {
    let (spare, whole) = (slot.spare(), slot.base.capacity);
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

/// All slots, with the index over those that are open.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Slab<SlotNo, Slot>,
    shelves: Vec<[Shelf; 4]>,
    /// Types that have any open slot of a tier.
    stocked: [BTreeSet<usize>; 4],
    /// Open slots by type.
    open_by_type: Vec<u32>,
    /// Slots that are not in the index yet, and the most room that one of them has of each kind:
    /// as long as a need does not fit in that, nobody has to look there.
    arrivals: Vec<SlotNo>,
    arrivals_room: Resources,
}

impl Slots {
    pub(crate) fn new(types: usize) -> Self {
        Self {
            slots: Slab::default(),
            shelves: std::iter::repeat_with(Default::default)
                .take(types)
                .collect(),
            stocked: Default::default(),
            open_by_type: vec![0; types],
            arrivals: Vec::new(),
            arrivals_room: Resources::NONE,
        }
    }

    pub(crate) fn slot(&self, no: SlotNo) -> Option<&Slot> {
        self.slots.get(no)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotNo, &Slot)> {
        self.slots.iter()
    }

    pub(crate) fn open_of_type(&self, type_index: usize) -> u32 {
        self.open_by_type.get(type_index).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, on: SlotOn, key: NameKey, base: Base) -> SlotNo {
        let no = self.slots.insert(Slot {
            on,
            key,
            base,
            holders: Vec::new(),
            reserved: false,
            booked: Resources::NONE,
            shelved: false,
        });
        self.arrive(no);
        no
    }

    /// Puts what changed into the index: many at once are sorted first.
    pub(crate) fn shelve(&mut self) {
        self.arrivals_room = Resources::NONE;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        arrivals.retain(|no| {
            let slot = self.slots.get_mut(*no);
            slot.is_some_and(|slot| !std::mem::replace(&mut slot.shelved, true))
        });
        if arrivals.len() < FEW {
            arrivals.into_iter().for_each(|no| self.enter(no));
            return;
        }
        let place = |no: SlotNo| {
            let slot = self.slots.get(no)?;
            let (type_index, tier) = slot.shelf()?;
            let bucket = (type_index, tier, Reverse(slot.load()), room(&slot.spare()));
            Some((bucket, slot.key.clone(), no))
        };
        let mut places: Vec<_> = arrivals.into_iter().filter_map(place).collect();
        places.sort_unstable();
        for of_one in places.chunk_by(|a, b| a.0 == b.0) {
            let (type_index, tier, load, room) = of_one[0].0;
            let count = u32::try_from(of_one.len()).unwrap_or(u32::MAX);
            self.open_by_type[type_index] += count;
            self.stocked[tier].insert(type_index);
            let levels = &mut self.shelves[type_index][tier].levels;
            let buckets = &mut levels.entry(load).or_default().buckets;
            let keys = of_one.iter().map(|(_, key, no)| (key.clone(), *no));
            merge(buckets.entry(room).or_default(), keys.collect());
        }
    }

    /// Sets what is known of a slot; promises on it stay.
    pub(crate) fn set(&mut self, no: SlotNo, base: Base) {
        if self.slots.get(no).is_some_and(|slot| slot.base != base) {
            self.change(no, |slot| slot.base = base);
        }
    }

    /// Removes a slot; returns who was promised room there.
    pub(crate) fn remove(&mut self, no: SlotNo) -> Vec<CaseNo> {
        self.leave(no);
        let slot = self.slots.remove(no);
        slot.map_or_else(Vec::new, |slot| {
            slot.holders.into_iter().map(|(case, _)| case).collect()
        })
    }

    pub(crate) fn reserve(&mut self, no: SlotNo, reserved: bool) {
        self.change(no, |slot| slot.reserved = reserved);
    }

    pub(crate) fn book(&mut self, no: SlotNo, case: CaseNo, need: Resources) {
        self.change(no, |slot| {
            slot.holders.push((case, need));
            slot.booked = slot.booked.saturating_add(need);
        });
    }

    pub(crate) fn release(&mut self, no: SlotNo, case: CaseNo) {
        self.change(no, |slot| {
            slot.holders.retain(|(holder, _)| *holder != case);
            slot.booked = slot.sum();
        });
    }

    /// The best slot with room among these types, best first: the soonest; of those the fullest;
    /// of those the one of the type that comes first; `avoid` only if there is no other of its
    /// tier.
    pub(crate) fn find(
        &mut self,
        types: &Eligible,
        need: &Resources,
        avoid: Option<SlotNo>,
        packing: Packing,
    ) -> Option<SlotNo> {
        if !self.arrivals.is_empty() && need.fits_in(&self.arrivals_room) {
            self.shelve();
        }
        Tier::ALL.into_iter().find_map(|tier| {
            let stocked = &self.stocked[tier as usize];
            let few: Vec<usize>;
            let types = if stocked.len() < types.indexes.len() {
                few = types.among(stocked);
                &few
            } else {
                &types.indexes
            };
            let find_in = match packing {
                Packing::BestFit => Self::tightest_in,
                Packing::Fullest | Packing::CheapestShare => Self::find_in,
            };
            let found = find_in(self, types, need, tier, avoid);
            if avoid.is_some() && found.is_none() {
                return find_in(self, types, need, tier, None);
            }
            found
        })
    }

    fn find_in(
        &self,
        types: &[usize],
        need: &Resources,
        tier: Tier,
        avoid: Option<SlotNo>,
    ) -> Option<SlotNo> {
        let mut best: Option<(Reverse<u32>, SlotNo)> = None;
        for &type_index in types {
            let shelf = &self.shelves[type_index][tier as usize];
            for (load, level) in &shelf.levels {
                // The fullest come first; an equal load of an earlier type wins.
                if best.is_some_and(|(best, _)| best <= *load) {
                    break;
                }
                let other = |bucket: &Bucket| {
                    let mut slots = bucket.iter().map(|(_, no)| *no);
                    slots.find(|no| Some(*no) != avoid)
                };
                if let Some(no) = level.fitting(need).find_map(other) {
                    best = Some((*load, no));
                    break;
                }
            }
        }
        best.map(|(_, no)| no)
    }

    /// The slot with the least left afterwards of what is needed most of.
    fn tightest_in(
        &self,
        types: &[usize],
        need: &Resources,
        tier: Tier,
        avoid: Option<SlotNo>,
    ) -> Option<SlotNo> {
        let mut best: Option<(u64, SlotNo)> = None;
        for &type_index in types {
            let levels = self.shelves[type_index][tier as usize].levels.values();
            for bucket in levels.flat_map(|level| level.fitting(need)) {
                let other = bucket
                    .iter()
                    .map(|(_, no)| *no)
                    .find(|no| Some(*no) != avoid);
                let Some((no, slot)) = other.and_then(|no| Some((no, self.slots.get(no)?))) else {
                    continue;
                };
                let left = share_left(need, slot);
                if best.is_none_or(|(least, _)| left < least) {
                    best = Some((left, no));
                }
            }
        }
        best.map(|(_, no)| no)
    }

    /// Open, ready slots of a type on which there is nothing, those with most room first.
    pub(crate) fn empty_ready(&self, type_index: usize) -> impl Iterator<Item = SlotNo> {
        let level = self.shelves[type_index][Tier::Ready as usize]
            .levels
            .get(&Reverse(0));
        level
            .into_iter()
            .flat_map(|level| level.buckets.values().rev())
            .flat_map(|bucket| bucket.iter().map(|(_, no)| *no))
    }

    fn change(&mut self, no: SlotNo, change: impl FnOnce(&mut Slot)) {
        self.leave(no);
        if let Some(slot) = self.slots.get_mut(no) {
            change(slot);
        }
        self.arrive(no);
    }

    /// Notes that a slot has to be put into the index.
    fn arrive(&mut self, no: SlotNo) {
        let Some(slot) = self.slots.get(no) else {
            return;
        };
        let (spare, most) = (slot.spare(), &mut self.arrivals_room);
        *most = Resources {
            vcpus: most.vcpus.max(spare.vcpus),
            ram: most.ram.max(spare.ram),
            scratch: most.scratch.max(spare.scratch),
            gpus: most.gpus.max(spare.gpus),
        };
        self.arrivals.push(no);
    }

    fn leave(&mut self, no: SlotNo) {
        let Some(slot) = self.slots.get_mut(no) else {
            return;
        };
        if !std::mem::take(&mut slot.shelved) {
            return;
        }
        let Some((type_index, tier)) = slot.shelf() else {
            return;
        };
        self.open_by_type[type_index] -= 1;
        let shelf = &mut self.shelves[type_index][tier];
        let (load, room) = (Reverse(slot.load()), room(&slot.spare()));
        let Some(level) = shelf.levels.get_mut(&load) else {
            return;
        };
        if let Some(bucket) = level.buckets.get_mut(&room) {
            // What was found first is what is taken most often.
            if bucket.first().is_some_and(|(_, first)| *first == no) {
                bucket.pop_first();
            } else {
                bucket.remove(&(slot.key.clone(), no));
            }
            if bucket.is_empty() {
                level.buckets.remove(&room);
            }
        }
        if level.buckets.is_empty() {
            shelf.levels.remove(&load);
        }
        if shelf.levels.is_empty() {
            self.stocked[tier].remove(&type_index);
        }
    }

    fn enter(&mut self, no: SlotNo) {
        let Some(slot) = self.slots.get(no) else {
            return;
        };
        let Some((type_index, tier)) = slot.shelf() else {
            return;
        };
        self.open_by_type[type_index] += 1;
        let shelf = &mut self.shelves[type_index][tier];
        if shelf.levels.is_empty() {
            self.stocked[tier].insert(type_index);
        }
        shelf
            .levels
            .entry(Reverse(slot.load()))
            .or_default()
            .buckets
            .entry(room(&slot.spare()))
            .or_default()
            .insert((slot.key.clone(), no));
    }

    /// How much there is of each kind.
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 3] {
        let holders = self.slots.iter().map(|(_, slot)| slot.holders.len());
        [
            ("slots", self.slots.len()),
            ("promises", holders.sum()),
            ("slots to be put into the index", self.arrivals.len()),
        ]
    }

    /// Compares the index with the slots.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut indexed = 0;
        for (no, slot) in self.slots.iter() {
            if slot.booked != slot.sum() {
                return Err(format!("{:?}: the sum of its promises is wrong", slot.on));
            }
            if !slot.shelved {
                if !self.arrivals.contains(&no) {
                    return Err(format!("{:?} is nowhere in the index", slot.on));
                }
            } else if let Some((type_index, tier)) = slot.shelf() {
                indexed += 1;
                let level = self.shelves[type_index][tier]
                    .levels
                    .get(&Reverse(slot.load()));
                let bucket = level.and_then(|level| level.buckets.get(&room(&slot.spare())));
                if !bucket.is_some_and(|bucket| bucket.contains(&(slot.key.clone(), no))) {
                    return Err(format!("{:?} is not where the index has it", slot.on));
                }
            }
        }
        let shelves = self.shelves.iter().flatten();
        let levels = shelves.flat_map(|shelf| shelf.levels.values());
        let buckets = levels.flat_map(|level| level.buckets.values());
        let on_shelves: usize = buckets.map(BTreeSet::len).sum();
        let open: u32 = self.open_by_type.iter().sum();
        if on_shelves != indexed || u32::try_from(indexed) != Ok(open) {
            return Err(format!(
                "{indexed} open slots, {on_shelves} in the index, {open} counted"
            ));
        }
        for (tier, stocked) in self.stocked.iter().enumerate() {
            let full = |&index: &usize| !self.shelves[index][tier].levels.is_empty();
            if !(0..self.shelves.len())
                .filter(full)
                .eq(stocked.iter().copied())
            {
                return Err(format!("the types with slots of tier {tier} are wrong"));
            }
        }
        Ok(())
    }
}
