//! Books on room: what is granted, what is promised, and where something fits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use longshore_types::Resources;

use crate::apply::{FEW, merge};
use crate::coming::COMING;
use crate::ids::{CaseNo, NameKey, Slab, SlotNo, WorkerNo};
use crate::shelf::{Aisle, Names, Place, Wanted, room};

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
    /// What is promised here, to whom; where it is not ready only what is to stay promised.
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
    fn place(&self) -> Option<(Tier, Place)> {
        let place = Place {
            type_index: self.base.type_index?,
            load: Reverse(self.load()),
            room: room(&self.spare()),
        };
        (self.base.open && !self.reserved).then_some((self.base.tier, place))
    }

    /// Its name, and its number.
    pub(crate) fn name(&self) -> &NameKey {
        &self.key
    }
}

/// All slots, with the index over those that are open.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Slab<SlotNo, Slot>,
    /// The index over those that are ready.
    ready: Aisle<Names>,
    /// The index over the others, by tier.
    coming: [Aisle<Names>; COMING],
    /// Open slots by type.
    open_by_type: Vec<u32>,
    /// Ready slots that are not in the index yet, and the most room that one of them has of each
    /// kind: as long as a need does not fit in that, nobody has to look there.
    arrivals: Vec<SlotNo>,
    arrivals_room: Resources,
    /// The same of the other tiers.
    coming_arrivals: Vec<SlotNo>,
}

impl Slots {
    pub(crate) fn new(types: usize) -> Self {
        Self {
            slots: Slab::default(),
            ready: Aisle::default(),
            coming: Default::default(),
            open_by_type: vec![0; types],
            arrivals: Vec::new(),
            arrivals_room: Resources::NONE,
            coming_arrivals: Vec::new(),
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

    /// Puts what changed into the index.
    pub(crate) fn shelve(&mut self) {
        self.shelve_ready();
        let arrivals = std::mem::take(&mut self.coming_arrivals);
        self.shelve_all(arrivals);
    }

    fn shelve_ready(&mut self) {
        self.arrivals_room = Resources::NONE;
        let arrivals = std::mem::take(&mut self.arrivals);
        self.shelve_all(arrivals);
    }

    /// Many at once are sorted first.
    fn shelve_all(&mut self, mut arrivals: Vec<SlotNo>) {
        arrivals.retain(|no| {
            let slot = self.slots.get_mut(*no);
            slot.is_some_and(|slot| !std::mem::replace(&mut slot.shelved, true))
        });
        let standing = |no: SlotNo| {
            let slot = self.slots.get(no)?;
            let (tier, place) = slot.place()?;
            Some((tier, place, slot.key.clone(), no))
        };
        let mut standing: Vec<_> = arrivals.into_iter().filter_map(standing).collect();
        let many = standing.len() >= FEW;
        if many {
            standing.sort_unstable();
        }
        for of_one in standing.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (tier, place) = (of_one[0].0, of_one[0].1);
            let count = u32::try_from(of_one.len()).unwrap_or(u32::MAX);
            self.open_by_type[place.type_index] += count;
            let bucket = self.aisle_mut(tier).bucket_mut(&place);
            let entries = of_one.iter().map(|(.., key, no)| (key.clone(), *no));
            if many {
                merge(bucket, entries.collect());
            } else {
                bucket.extend(entries);
            }
        }
    }

    fn aisle_mut(&mut self, tier: Tier) -> &mut Aisle<Names> {
        match tier {
            Tier::Ready => &mut self.ready,
            coming => &mut self.coming[coming as usize - 1],
        }
    }

    fn aisle(&self, tier: Tier) -> &Aisle<Names> {
        match tier {
            Tier::Ready => &self.ready,
            coming => &self.coming[coming as usize - 1],
        }
    }

    /// Lends the index over what is not ready, while a pass gives room on it out: until it is given
    /// back, slots of these tiers only come.
    pub(crate) fn lend_coming(&mut self) -> [Aisle<Names>; COMING] {
        std::mem::take(&mut self.coming)
    }

    pub(crate) fn give_back_coming(&mut self, index: [Aisle<Names>; COMING]) {
        self.coming = index;
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

    /// Takes back what is promised on a slot, if it is entered there.
    pub(crate) fn release(&mut self, no: SlotNo, case: CaseNo) {
        let holds = |slot: &Slot| slot.holders.iter().any(|(holder, _)| *holder == case);
        if !self.slots.get(no).is_some_and(holds) {
            return;
        }
        self.change(no, |slot| {
            slot.holders.retain(|(holder, _)| *holder != case);
            slot.booked = slot.sum();
        });
    }

    /// The best ready slot with room.
    pub(crate) fn find_ready(&mut self, wanted: &Wanted<'_>) -> Option<SlotNo> {
        if !self.arrivals.is_empty() && wanted.need.fits_in(&self.arrivals_room) {
            self.shelve_ready();
        }
        let capacity = |no| self.slots.get(no).map(|slot| slot.base.capacity);
        let found = self
            .ready
            .find(wanted, |no| capacity(no).unwrap_or_default());
        found.map(|(_, no)| no)
    }

    /// Open, ready slots of a type on which there is nothing, those with most room first.
    pub(crate) fn empty_ready(&self, type_index: usize) -> impl Iterator<Item = SlotNo> {
        let shelf = self.ready.shelves.get(&type_index);
        let level = shelf.and_then(|shelf| shelf.get(&Reverse(0)));
        level
            .into_iter()
            .flat_map(|level| level.values().rev())
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
        if slot.base.tier != Tier::Ready {
            self.coming_arrivals.push(no);
            return;
        }
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
        let Some((tier, place)) = slot.place() else {
            return;
        };
        let key = slot.key.clone();
        self.open_by_type[place.type_index] -= 1;
        self.aisle_mut(tier).take_from(&place, |bucket| {
            // What was found first is what is taken most often.
            if bucket.first().is_some_and(|(_, first)| *first == no) {
                bucket.pop_first();
            } else {
                bucket.remove(&(key, no));
            }
            ((), bucket.is_empty())
        });
    }

    /// How much there is of each kind.
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 3] {
        let holders = self.slots.iter().map(|(_, slot)| slot.holders.len());
        [
            ("slots", self.slots.len()),
            ("promises", holders.sum()),
            (
                "slots to be put into the index",
                self.arrivals.len() + self.coming_arrivals.len(),
            ),
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
                if !self.arrivals.contains(&no) && !self.coming_arrivals.contains(&no) {
                    return Err(format!("{:?} is nowhere in the index", slot.on));
                }
            } else if let Some((tier, place)) = slot.place() {
                indexed += 1;
                let bucket = self.aisle(tier).bucket(&place);
                if !bucket.is_some_and(|bucket| bucket.contains(&(slot.key.clone(), no))) {
                    return Err(format!("{:?} is not where the index has it", slot.on));
                }
            }
        }
        let aisles = std::iter::once(&self.ready).chain(&self.coming);
        let shelves = aisles.flat_map(|aisle| aisle.shelves.values());
        let buckets = shelves
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values);
        let on_shelves: usize = buckets.map(BTreeSet::len).sum();
        let open: u32 = self.open_by_type.iter().sum();
        if on_shelves != indexed || u32::try_from(indexed) != Ok(open) {
            return Err(format!(
                "{indexed} open slots, {on_shelves} in the index, {open} counted"
            ));
        }
        Ok(())
    }
}
