//! Books on room: what is granted, what is promised, and where something fits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{ContainerUuid, InstanceId, Resources};

/// Something that containers can be placed on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SlotId {
    /// A worker.
    Worker(InstanceId),
    /// A create that was asked for, by its number.
    Pending(u64),
    /// A create that this core wants or has just asked for: type and running number.
    New(usize, u32),
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

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) base: Base,
    /// What is promised here, to whom.
    pub(crate) holders: BTreeMap<ContainerUuid, Resources>,
    /// Set while the slot is kept free for one container.
    pub(crate) reserved: bool,
    booked: Resources,
}

/// Slots with the same room and the same number of containers share a bucket, so that a search
/// looks at each kind of slot once, however many there are.
type BucketKey = (Reverse<u32>, u32, u64, u64, u32);
type Shelf = [BTreeMap<BucketKey, BTreeSet<SlotId>>; 4];

impl Slot {
    pub(crate) fn spare(&self) -> Resources {
        self.base
            .capacity
            .saturating_sub(self.base.used.saturating_add(self.booked))
    }

    /// How many containers it has or was promised.
    pub(crate) fn load(&self) -> u32 {
        let holders = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        self.base.count.saturating_add(holders)
    }

    fn key(&self) -> BucketKey {
        let spare = self.spare();
        (
            Reverse(self.load()),
            spare.vcpus,
            spare.ram.0,
            spare.scratch.0,
            spare.gpus,
        )
    }

    /// Where it stands in the index, none if nothing may be placed on it.
    fn shelf(&self) -> Option<(usize, usize)> {
        let type_index = self.base.type_index?;
        (self.base.open && !self.reserved).then_some((type_index, self.base.tier as usize))
    }
}

fn key_room(key: &BucketKey) -> Resources {
    Resources {
        vcpus: key.1,
        ram: longshore_types::ByteSize(key.2),
        scratch: longshore_types::ByteSize(key.3),
        gpus: key.4,
    }
}

/// All slots, with the index over those that are open.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: BTreeMap<SlotId, Slot>,
    shelves: Vec<Shelf>,
    /// Open slots by type.
    open_by_type: Vec<u32>,
}

impl Slots {
    pub(crate) fn new(types: usize) -> Self {
        Self {
            slots: BTreeMap::new(),
            shelves: vec![Shelf::default(); types],
            open_by_type: vec![0; types],
        }
    }

    pub(crate) fn slot(&self, id: &SlotId) -> Option<&Slot> {
        self.slots.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SlotId, &Slot)> {
        self.slots.iter()
    }

    pub(crate) fn open_of_type(&self, type_index: usize) -> u32 {
        self.open_by_type.get(type_index).copied().unwrap_or(0)
    }

    /// Sets what is known of a slot; promises on it stay.
    pub(crate) fn set(&mut self, id: &SlotId, base: Base) {
        if let Some(slot) = self.slots.get(id) {
            if slot.base == base {
                return;
            }
            self.change(id, |slot| slot.base = base);
            return;
        }
        let slot = Slot {
            base,
            holders: BTreeMap::new(),
            reserved: false,
            booked: Resources::NONE,
        };
        self.slots.insert(id.clone(), slot);
        self.enter(id);
    }

    /// Removes a slot; returns who was promised room there.
    pub(crate) fn remove(&mut self, id: &SlotId) -> Vec<ContainerUuid> {
        self.leave(id);
        let slot = self.slots.remove(id);
        slot.map_or_else(Vec::new, |slot| slot.holders.into_keys().collect())
    }

    pub(crate) fn reserve(&mut self, id: &SlotId, reserved: bool) {
        self.change(id, |slot| slot.reserved = reserved);
    }

    pub(crate) fn book(&mut self, id: &SlotId, uuid: ContainerUuid, need: Resources) {
        self.change(id, |slot| {
            slot.holders.insert(uuid, need);
            slot.booked = slot.holders.values().copied().sum();
        });
    }

    pub(crate) fn release(&mut self, id: &SlotId, uuid: ContainerUuid) {
        self.change(id, |slot| {
            slot.holders.remove(&uuid);
            slot.booked = slot.holders.values().copied().sum();
        });
    }

    /// The best slot with room: the soonest; of those the fullest; of those the one of the type
    /// that comes first; `avoid` only if there is no other of its tier.
    pub(crate) fn find(
        &self,
        types: &[usize],
        need: &Resources,
        avoid: Option<&SlotId>,
    ) -> Option<SlotId> {
        Tier::ALL.into_iter().find_map(|tier| {
            self.find_in(types, need, tier, avoid)
                .or_else(|| self.find_in(types, need, tier, None))
        })
    }

    fn find_in(
        &self,
        types: &[usize],
        need: &Resources,
        tier: Tier,
        avoid: Option<&SlotId>,
    ) -> Option<SlotId> {
        let mut best: Option<(Reverse<u32>, &SlotId)> = None;
        for &type_index in types {
            let shelf = &self.shelves[type_index][tier as usize];
            for (key, ids) in shelf {
                // Within a type buckets come fullest first; an equal load of an earlier type wins.
                if best.is_some_and(|(load, _)| load <= key.0) {
                    break;
                }
                if !need.fits_in(&key_room(key)) {
                    continue;
                }
                if let Some(id) = ids.iter().find(|&id| Some(id) != avoid) {
                    best = Some((key.0, id));
                    break;
                }
            }
        }
        best.map(|(_, id)| id.clone())
    }

    /// Open, ready workers of a type on which there is nothing, by id.
    pub(crate) fn empty_ready(&self, type_index: usize) -> impl Iterator<Item = &SlotId> {
        self.shelves[type_index][Tier::Ready as usize]
            .iter()
            .rev()
            .take_while(|(key, _)| key.0 == Reverse(0))
            .flat_map(|(_, ids)| ids.iter())
    }

    fn change(&mut self, id: &SlotId, change: impl FnOnce(&mut Slot)) {
        self.leave(id);
        if let Some(slot) = self.slots.get_mut(id) {
            change(slot);
        }
        self.enter(id);
    }

    fn leave(&mut self, id: &SlotId) {
        let Some(slot) = self.slots.get(id) else {
            return;
        };
        if let Some((type_index, tier)) = slot.shelf() {
            self.open_by_type[type_index] -= 1;
            let shelf = &mut self.shelves[type_index][tier];
            let key = slot.key();
            if let Some(ids) = shelf.get_mut(&key) {
                ids.remove(id);
                if ids.is_empty() {
                    shelf.remove(&key);
                }
            }
        }
    }

    fn enter(&mut self, id: &SlotId) {
        let Some(slot) = self.slots.get(id) else {
            return;
        };
        if let Some((type_index, tier)) = slot.shelf() {
            self.open_by_type[type_index] += 1;
            self.shelves[type_index][tier]
                .entry(slot.key())
                .or_default()
                .insert(id.clone());
        }
    }

    /// Compares the index with the slots.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut indexed = 0;
        for (id, slot) in &self.slots {
            if slot.booked != slot.holders.values().copied().sum() {
                return Err(format!("{id:?}: the sum of its promises is wrong"));
            }
            if let Some((type_index, tier)) = slot.shelf() {
                indexed += 1;
                let bucket = self.shelves[type_index][tier].get(&slot.key());
                if !bucket.is_some_and(|ids| ids.contains(id)) {
                    return Err(format!("{id:?} is not where the index has it"));
                }
            }
        }
        let on_shelves: usize = self
            .shelves
            .iter()
            .flatten()
            .flat_map(BTreeMap::values)
            .map(BTreeSet::len)
            .sum();
        let open: u32 = self.open_by_type.iter().sum();
        if on_shelves != indexed || u32::try_from(indexed) != Ok(open) {
            return Err(format!(
                "{indexed} open slots, {on_shelves} in the index, {open} counted"
            ));
        }
        Ok(())
    }
}
