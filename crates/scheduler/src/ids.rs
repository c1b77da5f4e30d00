//! Small keys: numbers in place of names, and names in a form that compares fast.

use std::cmp::Reverse;

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
#[derive(Debug)]
pub(crate) struct Slab<N, T> {
    list: Vec<Option<T>>,
    free: Vec<N>,
}

impl<N, T> Default for Slab<N, T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<N: Number, T> Slab<N, T> {
    pub(crate) fn insert(&mut self, thing: T) -> N {
        if let Some(no) = self.free.pop() {
            self.list[no.index()] = Some(thing);
            return no;
        }
        self.list.push(Some(thing));
        N::from_index(self.list.len() - 1)
    }

    pub(crate) fn remove(&mut self, no: N) -> Option<T> {
        let thing = self.list.get_mut(no.index())?.take()?;
        self.free.push(no);
        Some(thing)
    }

    pub(crate) fn get(&self, no: N) -> Option<&T> {
        self.list.get(no.index())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, no: N) -> Option<&mut T> {
        self.list.get_mut(no.index())?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (N, &T)> {
        let numbered = self.list.iter().enumerate();
        numbered.filter_map(|(index, thing)| Some((N::from_index(index), thing.as_ref()?)))
    }
}

/// A container's UUID, six bits a character: ordered as the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UuidKey(u64, u64);

impl UuidKey {
    pub(crate) fn of(uuid: ContainerUuid) -> Self {
        let text = uuid.as_str().as_bytes();
        // Five characters of cluster, "-dz642-", and fifteen more.
        let (cluster, rest) = text.split_at(5.min(text.len()));
        let rest = rest.get(7..).unwrap_or_default();
        let (middle, last) = rest.split_at(5.min(rest.len()));
        Self(pack(middle, pack(cluster, 0)), pack(last, 0))
    }
}

fn pack(text: &[u8], start: u64) -> u64 {
    text.iter().fold(start, |sum, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => byte.wrapping_sub(b'a').wrapping_add(10),
        };
        (sum << 6) | u64::from(digit & 63)
    })
}

/// The place in line: Locked before Queued, then priority, age, and UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OrderKey {
    unlocked: bool,
    priority: Reverse<i64>,
    created_at: Timestamp,
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
        Self {
            unlocked: !locked,
            priority: Reverse(priority),
            created_at,
            uuid,
            case,
        }
    }
}

/// A name that is ordered as its text is; short ones without looking at the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameKey {
    /// The first 15 bytes and the length, or `LONG`.
    head: u128,
    /// The text of a long one.
    tail: Option<InstanceId>,
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
            tail: long.then(|| id.clone()),
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

    proptest! {
        #[test]
        fn uuid_keys_are_ordered_as_the_text(a in "[a-z0-9]{20}", b in "[a-z0-9]{20}", same in 0usize..=20) {
            let b = format!("{}{}", &a[..same], &b[same..]);
            let uuid = |t: &str| format!("{}-dz642-{}", &t[..5], &t[5..]).parse::<ContainerUuid>().unwrap();
            let (a, b) = (uuid(&a), uuid(&b));
            prop_assert_eq!(UuidKey::of(a).cmp(&UuidKey::of(b)), a.cmp(&b));
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
