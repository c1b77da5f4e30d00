//! Kinds of machines, and what a container asks of one.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ByteSize, Price, Resources, TypeName};

/// How an instance is paid for; each market has capacity and quotas of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "mirrors the boolean `preemptible` of the configuration"
)]
pub enum Market {
    /// The provider keeps it running until we give it back.
    OnDemand,
    /// The provider may take it away at any time.
    Preemptible,
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnDemand => "on-demand",
            Self::Preemptible => "preemptible",
        })
    }
}

/// A family of GPU software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "the two stacks that the configuration format knows"
)]
pub enum GpuStack {
    /// NVIDIA CUDA.
    Cuda,
    /// AMD ROCm.
    Rocm,
}

/// The GPUs of an instance type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gpu {
    /// Which software they run.
    pub stack: GpuStack,
    /// Version of the installed driver, components separated by dots.
    pub driver_version: String,
    /// The architecture they execute, such as `9.0` (cuda) or `gfx90a` (rocm).
    pub hardware_target: String,
    /// Number of devices, at least 1.
    pub device_count: u32,
    /// Memory of each device.
    pub vram: ByteSize,
}

/// The GPUs that a container asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GpuRequest {
    /// Which software it was built for.
    pub stack: GpuStack,
    /// The oldest driver version it works with.
    pub driver_version: String,
    /// The architectures it was built for.
    pub hardware_targets: Vec<String>,
    /// Number of devices, at least 1.
    pub device_count: u32,
    /// Memory needed on each device.
    pub vram: ByteSize,
}

/// A configured kind of machine.
///
/// ```
/// use longshore_types::{ByteSize, InstanceType, Price};
/// let price = Price::from_units(0.096).unwrap();
/// let mut large = InstanceType::new("m5.large", 2, ByteSize::gib(8), price);
/// large.included_scratch = ByteSize::gib(50);
/// assert_eq!(large.provider_type, "m5.large");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstanceType {
    /// The configured name, unique.
    pub name: TypeName,
    /// What the provider calls it.
    pub provider_type: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in bytes.
    pub ram: ByteSize,
    /// Disk space that comes with the machine, in bytes.
    pub included_scratch: ByteSize,
    /// Disk space that is bought with it, in bytes.
    pub added_scratch: ByteSize,
    /// Price per hour.
    pub price: Price,
    /// Whether the provider may take it away at any time.
    pub preemptible: bool,
    /// Its GPUs, if it has any.
    pub gpu: Option<Gpu>,
}

impl InstanceType {
    /// A type that the provider calls by the same name: on demand, without scratch or GPUs.
    pub fn new(name: impl Into<TypeName>, vcpus: u32, ram: ByteSize, price: Price) -> Self {
        let name = name.into();
        Self {
            provider_type: name.to_string(),
            name,
            vcpus,
            ram,
            included_scratch: ByteSize::ZERO,
            added_scratch: ByteSize::ZERO,
            price,
            preemptible: false,
            gpu: None,
        }
    }

    /// What a container may use of a machine of this type.
    pub fn resources(&self) -> Resources {
        Resources {
            vcpus: self.vcpus,
            ram: self.ram,
            scratch: ByteSize(self.included_scratch.0.saturating_add(self.added_scratch.0)),
            gpus: self.gpu.as_ref().map_or(0, |gpu| gpu.device_count),
        }
    }

    /// The market it is bought on.
    pub fn market(&self) -> Market {
        if self.preemptible {
            Market::Preemptible
        } else {
            Market::OnDemand
        }
    }
}

/// Whether a container is to run on preemptible machines: `false`, `true` or `"prefer"` on the
/// wire.
///
/// ```
/// use longshore_types::Preemptible;
/// assert_eq!("prefer".parse(), Ok(Preemptible::Prefer));
/// assert_eq!(Preemptible::from(true), Preemptible::Only);
/// assert_eq!(serde_json::to_string(&Preemptible::Never).unwrap(), "false");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "which types fit is by this; a new one must not compile unnoticed"
)]
pub enum Preemptible {
    /// On no preemptible machine.
    #[default]
    Never,
    /// On preemptible machines only.
    Only,
    /// On preemptible machines while they are to be had, else on others.
    Prefer,
}

impl Preemptible {
    /// Whether a machine of a type may do.
    pub fn allows(self, preemptible: bool) -> bool {
        self == Self::Prefer || preemptible == (self == Self::Only)
    }
}

impl From<bool> for Preemptible {
    fn from(only: bool) -> Self {
        if only { Self::Only } else { Self::Never }
    }
}

/// A text that says nothing about preemptible machines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of true, false and prefer")]
pub struct ParsePreemptibleError(String);

impl std::str::FromStr for Preemptible {
    type Err = ParsePreemptibleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "false" => Ok(Self::Never),
            "true" => Ok(Self::Only),
            "prefer" => Ok(Self::Prefer),
            other => Err(ParsePreemptibleError(other.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for Preemptible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Never => "false",
            Self::Only => "true",
            Self::Prefer => "prefer",
        })
    }
}

impl Serialize for Preemptible {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => to.serialize_bool(false),
            Self::Only => to.serialize_bool(true),
            Self::Prefer => to.serialize_str("prefer"),
        }
    }
}

impl<'de> Deserialize<'de> for Preemptible {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Bool(bool),
            Text(String),
        }
        match Wire::deserialize(from)? {
            Wire::Bool(only) => Ok(only.into()),
            Wire::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// What a container asks of the machine it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRequest {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in bytes.
    pub ram: ByteSize,
    /// Memory for the cache of input data, in bytes.
    pub keep_cache_ram: ByteSize,
    /// Disk space for temporary files, the image not included, in bytes.
    pub scratch: ByteSize,
    /// Estimated size of the unpacked image, in bytes.
    pub image: ByteSize,
    /// Disk space for the cache of input data, in bytes.
    pub keep_cache_disk: ByteSize,
    /// GPUs, if any.
    pub gpu: Option<GpuRequest>,
    /// Whether it is to run on preemptible machines.
    pub preemptible: Preemptible,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preemptible_goes_over_the_wire_and_back() {
        for (value, wire) in [
            (Preemptible::Never, "false"),
            (Preemptible::Only, "true"),
            (Preemptible::Prefer, "\"prefer\""),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), wire);
            assert_eq!(serde_json::from_str::<Preemptible>(wire).unwrap(), value);
            assert_eq!(value.to_string().parse(), Ok(value));
        }
        assert!(serde_json::from_str::<Preemptible>("\"sometimes\"").is_err());
        let old: ResourceRequest = serde_json::from_str("{\"preemptible\": true}").unwrap();
        assert_eq!(old.preemptible, Preemptible::Only);
    }
}
