//! Kinds of machines, and what a container asks of one.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// Whether it is to run on a preemptible machine (and on no other).
    pub preemptible: bool,
}
