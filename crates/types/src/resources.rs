//! Amounts of what a container needs and an instance has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ByteSize;

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "one variant for each field of Resources"
)]
pub enum Resource {
    /// Virtual CPUs.
    Vcpus,
    /// Memory.
    Ram,
    /// Disk space for temporary files.
    Scratch,
    /// GPU devices.
    Gpus,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcpus => "vCPUs",
            Self::Ram => "RAM",
            Self::Scratch => "scratch",
            Self::Gpus => "GPUs",
        })
    }
}

/// An amount of each kind of resource.
///
/// ```
/// use longshore_types::{ByteSize, Resources};
/// let one = Resources { vcpus: 1, ram: ByteSize::gib(1), ..Resources::default() };
/// let two = one.saturating_add(one);
/// assert!(one.fits_in(&two) && !two.fits_in(&one));
/// assert_eq!(two.checked_sub(one), Some(one));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in bytes.
    pub ram: ByteSize,
    /// Disk space in bytes.
    pub scratch: ByteSize,
    /// GPU devices.
    pub gpus: u32,
}

impl Resources {
    /// Nothing of anything.
    pub const NONE: Self = Self {
        vcpus: 0,
        ram: ByteSize::ZERO,
        scratch: ByteSize::ZERO,
        gpus: 0,
    };

    /// Whether there is at least this much of everything in `room`.
    pub fn fits_in(&self, room: &Self) -> bool {
        self.lacking_in(room).is_none()
    }

    /// The first resource of which `room` has less than this, if any.
    pub fn lacking_in(&self, room: &Self) -> Option<Resource> {
        if self.vcpus > room.vcpus {
            Some(Resource::Vcpus)
        } else if self.ram > room.ram {
            Some(Resource::Ram)
        } else if self.scratch > room.scratch {
            Some(Resource::Scratch)
        } else if self.gpus > room.gpus {
            Some(Resource::Gpus)
        } else {
            None
        }
    }

    /// The sum of both, each field saturating.
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_add(other.vcpus),
            ram: ByteSize(self.ram.0.saturating_add(other.ram.0)),
            scratch: ByteSize(self.scratch.0.saturating_add(other.scratch.0)),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    /// What is left after taking `other` away, none if some of it is not there.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            vcpus: self.vcpus.checked_sub(other.vcpus)?,
            ram: ByteSize(self.ram.0.checked_sub(other.ram.0)?),
            scratch: ByteSize(self.scratch.0.checked_sub(other.scratch.0)?),
            gpus: self.gpus.checked_sub(other.gpus)?,
        })
    }

    /// What is left after taking `other` away, each field at least zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            ram: ByteSize(self.ram.0.saturating_sub(other.ram.0)),
            scratch: ByteSize(self.scratch.0.saturating_sub(other.scratch.0)),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }

    /// The amount of one kind, as text with its unit.
    pub fn describe(&self, resource: Resource) -> String {
        match resource {
            Resource::Vcpus => format!("{} vCPUs", self.vcpus),
            Resource::Ram => format!("{} RAM", self.ram),
            Resource::Scratch => format!("{} scratch", self.scratch),
            Resource::Gpus => format!("{} GPUs", self.gpus),
        }
    }
}

impl std::iter::Sum for Resources {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::NONE, Self::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_resources() -> impl Strategy<Value = Resources> {
        let edge = prop_oneof![0u64..5, Just(u64::MAX), any::<u64>()];
        let small = prop_oneof![0u32..5, Just(u32::MAX), any::<u32>()];
        (small.clone(), edge.clone(), edge, small).prop_map(|(vcpus, ram, scratch, gpus)| {
            Resources {
                vcpus,
                ram: ByteSize(ram),
                scratch: ByteSize(scratch),
                gpus,
            }
        })
    }

    proptest! {
        #[test]
        fn fitting_means_that_subtraction_works(a in any_resources(), b in any_resources()) {
            prop_assert_eq!(a.fits_in(&b), b.checked_sub(a).is_some());
            if let Some(rest) = b.checked_sub(a) {
                prop_assert_eq!(rest.saturating_add(a), b);
                prop_assert_eq!(b.saturating_sub(a), rest);
            }
        }
    }
}
