//! Small keys: numbers in place of names, and names in a form that compares fast.

use std::cmp::Ordering;

use std::sync::Arc;

use longshore_types::{ContainerUuid, InstanceId, Timestamp};

/// The number of a container's case, while that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CaseNo(u32);

/// The number of a worker, while it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WorkerNo(u32);

/// The number of a slot, while there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotNo(u32);

/// A number that stands for a place in a list.
pub(crate) trait Number: Copy {
    fn from_index(index: usize) -> Self;
    fn index(self) -> usize;
}

macro_rules! number {
    ($name:ident) => {
        impl Number for $name {
            fn from_index(index: usize) -> Self {
                // More than that do not fit in memory.
                Self(u32::try_from(index).unwrap_or(u32::MAX))
            }

            fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

number!(CaseNo);
number!(WorkerNo);
number!(SlotNo);

/// Things by number; a number is used again once its thing has been taken out.
///
/// They are kept in chunks, so that nothing is moved when there are more of them.
#[derive(Debug)]
pub(crate) struct Slab<N, T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<N>,
}

impl<N, T> Default for Slab<N, T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<N: Number, T> Slab<N, T> {
    const CHUNK: usize = 64;

    pub(crate) fn insert(&mut self, thing: T) -> N {
        if let Some(no) = self.free.pop() {
            if let Some(place) = self.place(no) {
                *place = Some(thing);
            }
            return no;
        }
        if self
            .chunks
            .last()
            .is_none_or(|last| last.len() == Self::CHUNK)
        {
            self.chunks.push(Vec::with_capacity(Self::CHUNK));
        }
        let before = (self.chunks.len() - 1) * Self::CHUNK;
        let last = &mut self.chunks[before / Self::CHUNK];
        last.push(Some(thing));
        N::from_index(before + last.len() - 1)
    }

    pub(crate) fn remove(&mut self, no: N) -> Option<T> {
        let thing = self.place(no)?.take()?;
        self.free.push(no);
        Some(thing)
    }

    /// How many things there are.
    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(crate) fn get(&self, no: N) -> Option<&T> {
        let chunk = self.chunks.get(no.index() / Self::CHUNK)?;
        chunk.get(no.index() % Self::CHUNK)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, no: N) -> Option<&mut T> {
        self.place(no)?.as_mut()
    }

    fn place(&mut self, no: N) -> Option<&mut Option<T>> {
        let chunk = self.chunks.get_mut(no.index() / Self::CHUNK)?;
        chunk.get_mut(no.index() % Self::CHUNK)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (N, &T)> {
        let numbered = self.chunks.iter().flatten().enumerate();
        numbered.filter_map(|(index, thing)| Some((N::from_index(index), thing.as_ref()?)))
    }
}

/// A container's UUID, six bits a character: ordered as the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UuidKey(u64, u64);

impl UuidKey {
    pub(crate) fn of(uuid: ContainerUuid) -> Self {
        // Five characters of cluster, "-dz642-", and fifteen more.
        let [
            c0,
            c1,
            c2,
            c3,
            c4,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            m0,
            m1,
            m2,
            m3,
            m4,
            last @ ..,
        ] = *uuid.as_bytes();
        Self(pack([c0, c1, c2, c3, c4, m0, m1, m2, m3, m4]), pack(last))
    }
}

/// Digits and small letters: the letters follow the digits as they do in the text.
fn pack(text: [u8; 10]) -> u64 {
    text.iter().fold(0, |sum, &byte| {
        let first = if byte < b'a' { b'0' } else { b'a' - 10 };
        (sum << 6) | u64::from(byte.wrapping_sub(first) & 63)
    })
}

/// The place in line: Locked before Queued, then priority, age, and UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OrderKey {
    /// All but the UUID, most significant first: one comparison settles most.
    head: u128,
    uuid: UuidKey,
    pub(crate) case: CaseNo,
}

impl OrderKey {
    pub(crate) fn new(
        locked: bool,
        priority: i64,
        created_at: Timestamp,
        uuid: UuidKey,
        case: CaseNo,
    ) -> Self {
        // Moved so that the least is 0. Moments a hundred million years from now count as one.
        let least = u64::MAX - ascending(priority);
        let age = ascending(created_at.0.clamp(i64::MIN / 2, i64::MAX / 2)) - (1 << 62);
        Self {
            head: (u128::from(!locked) << 127) | (u128::from(least) << 63) | u128::from(age),
            uuid,
            case,
        }
    }
}

/// The same order, from 0.
fn ascending(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}

/// A name that is ordered as its text is; short ones without looking at the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameKey {
    /// The first 15 bytes and the length, or `LONG`.
    head: u128,
    /// The text of a long one.
    tail: Option<Arc<str>>,
}

impl Ord for NameKey {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // Seldom equal, unless the names are long.
        match self.head.cmp(&other.head) {
            Ordering::Equal => self.tail.cmp(&other.tail),
            order => order,
        }
    }
}

impl PartialOrd for NameKey {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl NameKey {
    const HEAD: usize = 15;
    const LONG: u8 = u8::MAX;

    pub(crate) fn of(id: &InstanceId) -> Self {
        let text = id.as_str().as_bytes();
        let mut head = [0; Self::HEAD + 1];
        let part = text.len().min(Self::HEAD);
        head[..part].copy_from_slice(&text[..part]);
        let long = text.len() > Self::HEAD;
        head[Self::HEAD] = if long {
            Self::LONG
        } else {
            u8::try_from(part).unwrap_or(Self::LONG)
        };
        Self {
            head: u128::from_be_bytes(head),
            tail: long.then(|| id.shared()),
        }
    }

    /// A number in place of a name; not to be mixed with names.
    pub(crate) fn number(number: u64) -> Self {
        Self {
            head: number.into(),
            tail: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any number, but often one of a few, so that two are equal or differ by little.
    fn small() -> impl Strategy<Value = i64> {
        let half = i64::MIN / 2..=i64::MAX / 2;
        prop_oneof![-2i64..3, half, Just(i64::MAX / 2), Just(i64::MIN / 2)]
    }

    proptest! {
        #[test]
        fn uuid_keys_are_ordered_as_the_text(a in "[a-z0-9]{20}", b in "[a-z0-9]{20}", same in 0usize..=20) {
            let b = format!("{}{}", &a[..same], &b[same..]);
            let uuid = |t: &str| format!("{}-dz642-{}", &t[..5], &t[5..]).parse::<ContainerUuid>().unwrap();
            let (a, b) = (uuid(&a), uuid(&b));
            prop_assert_eq!(UuidKey::of(a).cmp(&UuidKey::of(b)), a.cmp(&b));
        }

        #[test]
        fn the_line_is_by_state_priority_age_and_uuid(
            a in (any::<bool>(), small(), small(), 0u64..3), b in (any::<bool>(), small(), small(), 0u64..3)
        ) {
            let place = |(locked, priority, age, uuid): (bool, i64, i64, u64)| OrderKey::new(
                locked, priority, Timestamp(age), UuidKey(0, uuid), CaseNo(0),
            );
            let order = |(locked, priority, age, uuid): (bool, i64, i64, u64)| (
                !locked, std::cmp::Reverse(priority), Timestamp(age), uuid,
            );
            prop_assert_eq!(place(a).cmp(&place(b)), order(a).cmp(&order(b)));
        }

        #[test]
        fn name_keys_are_ordered_as_the_text(a in "[\0a-c]{0,18}", b in "[\0a-c]{0,18}", same in 0usize..18) {
            let same = same.min(a.len());
            let b = format!("{}{b}", &a[..same]);
            let (a, b) = (InstanceId::from(a.as_str()), InstanceId::from(b.as_str()));
            prop_assert_eq!(NameKey::of(&a).cmp(&NameKey::of(&b)), a.cmp(&b));
        }
    }
}
