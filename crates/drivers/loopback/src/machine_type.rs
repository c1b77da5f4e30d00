//! What this machine has to offer.

use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use longshore_types::{ByteSize, InstanceType, Price};

/// Name and provider type of the implicit instance type.
pub const TYPE_NAME: &str = "localhost";

/// What this machine, or an equal part of it, has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measurements {
    /// CPUs that this process may use, at least 1.
    pub vcpus: u32,
    /// Memory, as bounded by control groups.
    pub ram: ByteSize,
    /// Size of the file system that holds temporary files.
    pub scratch: ByteSize,
    /// Into how many equal parts the machine is divided.
    pub parts: NonZeroU32,
}

impl Measurements {
    /// Measures this machine; scratch is the size of the file system of `directory`.
    ///
    /// Fails if `/proc/meminfo` or the file system cannot be read.
    pub fn take(directory: &Path) -> io::Result<Self> {
        let vcpus = std::thread::available_parallelism()?.get();
        let memory = total_memory(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?;
        let disk = nix::sys::statvfs::statvfs(directory)?;
        let ram = group_limits().into_iter().fold(memory, u64::min);
        Ok(Self {
            vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
            ram: ByteSize(ram),
            scratch: ByteSize(disk.blocks().saturating_mul(disk.fragment_size())),
            parts: NonZeroU32::MIN,
        })
    }

    /// One of `n` equal parts of this; each has at least one CPU.
    #[must_use]
    pub fn divided_by(self, n: NonZeroU32) -> Self {
        Self {
            vcpus: (self.vcpus / n).max(1),
            ram: ByteSize(self.ram.0 / u64::from(n.get())),
            scratch: ByteSize(self.scratch.0 / u64::from(n.get())),
            parts: self.parts.saturating_mul(n),
        }
    }

    /// The type `localhost` with these resources. The whole machine costs 1.0 an hour, a part of
    /// it its share.
    pub fn instance_type(&self) -> InstanceType {
        let price = Price::from_units(1.0 / f64::from(self.parts.get())).unwrap_or_default();
        let mut whole = InstanceType::new(TYPE_NAME, self.vcpus, self.ram, price);
        whole.included_scratch = self.scratch;
        whole
    }
}

/// The instance type that stands for all of this machine, with the file system of `directory`.
///
/// For one of several small instances use [`Measurements::divided_by`].
///
/// ```
/// let whole = longshore_driver_loopback::implicit_type(&std::env::temp_dir()).unwrap();
/// assert_eq!(whole.name.as_str(), "localhost");
/// assert!(whole.vcpus >= 1 && whole.ram.0 > 0);
/// ```
pub fn implicit_type(directory: &Path) -> io::Result<InstanceType> {
    Ok(Measurements::take(directory)?.instance_type())
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The memory limits of the control groups that this process is in; "max" is none.
fn group_limits() -> Vec<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&groups)
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .collect()
}

/// The files that may hold memory limits, of each group named in `/proc/self/cgroup` and of all
/// groups around it.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|g| Path::new(root).join(g).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kib() {
        let text = "MemTotal:       24689764 kB\nMemFree:        1 kB\n";
        assert_eq!(total_memory(text), Some(24_689_764 * 1024));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn limits_of_all_outer_groups_count() {
        let files = limit_files("4:memory,x:/a/b\n1:cpu:/c\n0::/d\n");
        let names: Vec<_> = files.iter().map(|f| f.to_string_lossy()).collect();
        assert_eq!(
            names,
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/d/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
    }

    #[test]
    fn parts_share_everything_and_the_price() {
        let whole = Measurements {
            vcpus: 8,
            ram: ByteSize::gib(16),
            scratch: ByteSize::gib(100),
            parts: NonZeroU32::MIN,
        };
        let part = whole
            .divided_by(NonZeroU32::new(4).unwrap())
            .instance_type();
        assert_eq!((part.vcpus, part.ram), (2, ByteSize::gib(4)));
        assert_eq!(part.included_scratch, ByteSize::gib(25));
        assert_eq!(part.price, Price::from_units(0.25).unwrap());
        assert_eq!(whole.divided_by(NonZeroU32::new(99).unwrap()).vcpus, 1);
        assert_eq!(whole.instance_type().price, Price::from_units(1.0).unwrap());
    }
}
