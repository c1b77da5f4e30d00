//! Room on instances that are not ready, as one pass gives it out.
//!
//! Who waits for which of them is decided anew in each pass, since an instance that is ready goes to
//! the first in line, and everybody behind moves up. Nothing relies on it, so it is not entered into
//! the books: it is given out from what the index has, and the index stays as it is.

use std::cmp::Reverse;
use std::collections::btree_set::Iter;

use longshore_types::Resources;

use crate::ids::{NameKey, SlotNo};
use crate::shelf::{Aisle, Bucket, Names, Place, Wanted, resources, room};
use crate::slots::{Slots, Tier};

/// How many tiers are not ready; the last of them is that of instances to be created.
pub(crate) const COMING: usize = Tier::ALL.len() - 1;
const NEW: usize = COMING - 1;

/// What is left of a bucket of the index, and what has come there in this pass.
#[derive(Debug, Default)]
struct Left<'a> {
    untouched: Iter<'a, (NameKey, SlotNo)>,
    touched: Names,
}

impl Bucket for Left<'_> {
    fn first_but(&self, avoid: Option<SlotNo>) -> Option<SlotNo> {
        let other = |(_, no): &&(NameKey, SlotNo)| Some(*no) != avoid;
        let untouched = self.untouched.clone().find(other);
        let touched = self.touched.iter().find(other);
        untouched
            .into_iter()
            .chain(touched)
            .min()
            .map(|(_, no)| *no)
    }
}

impl Left<'_> {
    /// Takes out one of the first two.
    fn take(&mut self, no: SlotNo) -> Option<NameKey> {
        let here = |entry: &&(NameKey, SlotNo)| entry.1 == no;
        if let Some(entry) = self.touched.iter().take(2).find(here).cloned() {
            self.touched.remove(&entry);
            return Some(entry.0);
        }
        let first = self.untouched.next()?;
        if here(&first) {
            return Some(first.0.clone());
        }
        self.touched.insert(first.clone());
        self.untouched
            .next()
            .filter(here)
            .map(|(key, _)| key.clone())
    }

    fn is_empty(&self) -> bool {
        self.untouched.len() == 0 && self.touched.is_empty()
    }
}

/// What is left of the tiers that are not ready.
#[derive(Debug)]
pub(crate) struct Coming<'a> {
    index: &'a [Aisle<Names>; COMING],
    left: [Option<Aisle<Left<'a>>>; COMING],
    /// What everybody in line needs at least: where that does not fit nobody has to look.
    least: Resources,
}

impl<'a> Coming<'a> {
    pub(crate) fn new(index: &'a [Aisle<Names>; COMING], least: Resources) -> Self {
        Self {
            index,
            left: [None, None, None],
            least,
        }
    }

    /// Gives room on the best slot: the soonest, then as the policy says.
    pub(crate) fn take(&mut self, wanted: &Wanted<'_>, slots: &Slots) -> Option<SlotNo> {
        let capacity = |no| slots.slot(no).map(|slot| slot.base.capacity);
        let capacity = |no| capacity(no).unwrap_or_default();
        for (index, left) in self.index.iter().zip(&mut self.left) {
            let left = left.get_or_insert_with(|| untouched(index));
            let Some((place, no)) = left.find(wanted, capacity) else {
                continue;
            };
            let key = left.take_from(&place, |bucket| (bucket.take(no), bucket.is_empty()));
            let spare = resources(&place.room).saturating_sub(wanted.need);
            if self.least.fits_in(&spare) {
                let fuller = Place {
                    load: Reverse(place.load.0.saturating_add(1)),
                    room: room(&spare),
                    ..place
                };
                let key = key.flatten()?;
                left.bucket_mut(&fuller).touched.insert((key, no));
            }
            return Some(no);
        }
        None
    }

    /// An instance of this type is to be created, and something is to be put on it.
    pub(crate) fn add_new(
        &mut self,
        type_index: usize,
        (key, no): (NameKey, SlotNo),
        spare: Resources,
    ) {
        if self.least.fits_in(&spare) {
            let at = Place {
                type_index,
                load: Reverse(1),
                room: room(&spare),
            };
            let (index, left) = (&self.index[NEW], &mut self.left[NEW]);
            let left = left.get_or_insert_with(|| untouched(index));
            left.bucket_mut(&at).touched.insert((key, no));
        }
    }
}

/// Everything that the index has of a tier.
fn untouched(index: &Aisle<Names>) -> Aisle<Left<'_>> {
    index.map(|names| Left {
        untouched: names.iter(),
        touched: Names::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slab;

    /// Some slots, by name.
    fn names(numbers: impl Iterator<Item = u64>) -> Vec<(NameKey, SlotNo)> {
        let mut slots = Slab::default();
        numbers
            .map(|number| (NameKey::number(number), slots.insert(())))
            .collect()
    }

    #[test]
    fn the_first_by_name_is_taken_wherever_it_came_from() {
        let all = names(0..4);
        let index = Names::from_iter([all[1].clone(), all[3].clone()]);
        let mut left = Left {
            untouched: index.iter(),
            touched: Names::from_iter([all[0].clone(), all[2].clone()]),
        };
        for (key, no) in &all {
            assert_eq!(left.first_but(None), Some(*no));
            assert_eq!(left.take(*no).as_ref(), Some(key));
        }
        assert!(left.is_empty());
    }

    #[test]
    fn what_is_avoided_stays() {
        let all = names(0..2);
        for moved in 0..=2 {
            let touched = Names::from_iter(all[..moved].iter().cloned());
            let index = Names::from_iter(all[moved..].iter().cloned());
            let mut left = Left {
                untouched: index.iter(),
                touched,
            };
            let [first, second] = [all[0].1, all[1].1];
            assert_eq!(left.first_but(Some(first)), Some(second));
            assert_eq!(left.take(second), Some(all[1].0.clone()));
            assert_eq!(left.first_but(Some(first)), None);
            assert_eq!(left.first_but(None), Some(first));
            assert!(!left.is_empty());
        }
    }
}
