//! What is written into a group, and read from it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use longshore_runner_api::StartDocument;
use longshore_types::{AppliedLimits, ByteSize, Means};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::{Deserialize, Serialize};

/// With less than this not even a shell starts.
pub(crate) const LEAST_RAM: ByteSize = ByteSize::mib(4);
/// What the kernel may ask for at once, in bytes: so much less than its limit a group may have when
/// that is reached.
const LARGEST_PART: u64 = 512 << 10;
/// Microseconds of the period in which processor time is counted.
const CPU_PERIOD: u64 = 100_000;

/// Tells whether the kernel had to end a process of a group for want of memory, and whose memory
/// that was.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    group: PathBuf,
    /// Version 1 counts only in the group of the process that was ended; this tells of groups
    /// below, too, but also if the limit of a group above was reached.
    event: Option<(EventFd, File)>,
}

/// Whose memory was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shortage {
    /// What the job may have.
    OfJob,
    /// That of the machine, or of a group above; the job need not have had much of it.
    OfMachine,
}

impl MemoryWatch {
    /// Whether that has happened since it was last asked.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        let (ended, at_limit) = match self.group.join("memory.events").exists() {
            true => {
                let ended = self.count("memory.events", "oom_kill ");
                (ended, ended && self.count("memory.events", "oom "))
            }
            false => {
                let ended = self.count("memory.oom_control", "oom_kill ");
                let told = self.event.as_ref();
                let told = told.map_or(ended, |(event, _)| event.read().is_ok());
                (ended, told && self.has_come_to_its_limit())
            }
        };
        match (at_limit, ended) {
            (true, _) => Some(Shortage::OfJob),
            (false, true) => Some(Shortage::OfMachine),
            (false, false) => None,
        }
    }

    /// Version 1: whether the group ever had as much as it may, with swap or without; both have the
    /// same limit. Not by the counts of failures, which newer kernels do not keep.
    fn has_come_to_its_limit(&self) -> bool {
        let number = |kind: &str, file: &str| -> Option<u64> {
            let path = self.group.join(format!("{kind}.{file}"));
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        ["memory", "memory.memsw"].iter().any(|kind| {
            let most = number(kind, "max_usage_in_bytes");
            let limit = number(kind, "limit_in_bytes");
            most.zip(limit)
                .is_some_and(|(most, limit)| most.saturating_add(LARGEST_PART) >= limit)
        })
    }

    /// Whether a file of the group has a number other than 0 behind this.
    fn count(&self, file: &str, name: &str) -> bool {
        let text = std::fs::read_to_string(self.group.join(file)).unwrap_or_default();
        let mut counts = text.lines().filter_map(|line| line.strip_prefix(name));
        counts.any(|count| count.trim() != "0")
    }
}

/// Writes the limits of a document into those files of a group that are there, and notes which
/// limits hold from now on.
pub(super) fn apply(
    group: &Path,
    document: &StartDocument,
    limits: &mut AppliedLimits,
    memory: &mut Option<MemoryWatch>,
) {
    let write = |file: &str, text: String| std::fs::write(group.join(file), text).is_ok();
    let is_there = |file: &str| group.join(file).exists();
    let means = means(group);
    if let Some(ram) = document.ram {
        let ram = ram.max(LEAST_RAM).0.to_string();
        let limited = match is_there("memory.max") {
            // Swap is counted apart here, so there is none.
            true => {
                let _ = write("memory.swap.max", "0".into());
                write("memory.max", ram)
            }
            false => {
                let limited = write("memory.limit_in_bytes", ram.clone());
                // RAM and swap together; missing where the kernel does not count swap.
                let _ = limited && write("memory.memsw.limit_in_bytes", ram);
                limited
            }
        };
        if limited {
            limits.ram = means;
            *memory = Some(watch(group));
        }
    }
    if let Some(vcpus) = document.vcpus {
        let quota = u64::from(vcpus).saturating_mul(CPU_PERIOD);
        let limited = match is_there("cpu.max") {
            true => write("cpu.max", format!("{quota} {CPU_PERIOD}")),
            false => {
                write("cpu.cfs_period_us", CPU_PERIOD.to_string())
                    && write("cpu.cfs_quota_us", quota.to_string())
            }
        };
        if limited {
            limits.vcpus = means;
        }
    }
    if is_there("pids.max") && write("pids.max", document.process_limit.to_string()) {
        limits.processes = means;
    }
}

/// Has the kernel end all of a group if it has to end a part: what has lost a part is no longer
/// what was asked for. Not where an engine's own processes are in the group.
pub(super) fn end_together(group: &Path) {
    let _ = std::fs::write(group.join("memory.oom.group"), "1");
}

/// Takes back what [`apply`] noted for a group.
pub(super) fn forget(group: &Path, limits: &mut AppliedLimits) {
    let is_there = |names: [&str; 2]| names.iter().any(|name| group.join(name).exists());
    if is_there(["memory.max", "memory.limit_in_bytes"]) {
        limits.ram = Means::Nothing;
    }
    if is_there(["cpu.max", "cpu.cfs_quota_us"]) {
        limits.vcpus = Means::Nothing;
    }
    if is_there(["pids.max", "pids.max"]) {
        limits.processes = Means::Nothing;
    }
}

fn means(group: &Path) -> Means {
    match group.join("cgroup.controllers").exists() {
        true => Means::CgroupV2,
        false => Means::CgroupV1,
    }
}

fn watch(group: &Path) -> MemoryWatch {
    let event = match group.join("memory.events").exists() {
        true => None,
        false => subscribe(group).ok(),
    };
    let group = group.to_owned();
    MemoryWatch { group, event }
}

/// Has the kernel count in an event, too.
fn subscribe(group: &Path) -> std::io::Result<(EventFd, File)> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let file = File::open(group.join("memory.oom_control"))?;
    let line = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
    std::fs::write(group.join("cgroup.event_control"), line)?;
    Ok((event, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a group of version 2 is made of, as plain files; no kernel is behind them.
    fn group() -> tempfile::TempDir {
        let group = tempfile::tempdir().unwrap();
        for name in [
            "cgroup.controllers",
            "memory.max",
            "memory.swap.max",
            "memory.oom.group",
            "cpu.max",
            "pids.max",
        ] {
            std::fs::write(group.path().join(name), "").unwrap();
        }
        std::fs::write(group.path().join("memory.events"), "oom 1\noom_kill 0\n").unwrap();
        group
    }

    #[test]
    fn version_2_is_told_every_limit() {
        let group = group();
        let mut document = StartDocument::new(vec!["true".into()]);
        (document.ram, document.vcpus) = (Some(ByteSize::mib(64)), Some(3));
        document.process_limit = 7;
        let mut limits = AppliedLimits::all(Means::Nothing);
        let mut memory = None;
        apply(group.path(), &document, &mut limits, &mut memory);
        assert_eq!(limits, AppliedLimits::all(Means::CgroupV2));
        end_together(group.path());
        let said = |name: &str| std::fs::read_to_string(group.path().join(name)).unwrap();
        assert_eq!(said("memory.max"), (64 << 20).to_string());
        assert_eq!(said("memory.swap.max"), "0");
        assert_eq!(said("memory.oom.group"), "1");
        assert_eq!(said("cpu.max"), "300000 100000");
        assert_eq!(said("pids.max"), "7");
        let memory = memory.unwrap();
        let after = |events: &str| {
            std::fs::write(group.path().join("memory.events"), events).unwrap();
            memory.shortage()
        };
        assert_eq!(after("oom 1\noom_kill 0\n"), None);
        assert_eq!(after("oom 2\noom_kill 1\n"), Some(Shortage::OfJob));
        assert_eq!(after("oom 0\noom_kill 1\n"), Some(Shortage::OfMachine));
        forget(group.path(), &mut limits);
        assert_eq!(limits, AppliedLimits::all(Means::Nothing));
    }

    #[test]
    fn what_was_not_asked_for_is_not_limited() {
        let group = group();
        let document = StartDocument::new(vec!["true".into()]);
        let mut limits = AppliedLimits::all(Means::Nothing);
        apply(group.path(), &document, &mut limits, &mut None);
        assert_eq!((limits.ram, limits.vcpus), (Means::Nothing, Means::Nothing));
        assert_eq!(limits.processes, Means::CgroupV2);
    }

    #[test]
    fn version_1_tells_the_jobs_limit_from_others() {
        let group = tempfile::tempdir().unwrap();
        let set = |name: &str, text: &str| std::fs::write(group.path().join(name), text).unwrap();
        set("memory.oom_control", "oom_kill_disable 0\noom_kill 0\n");
        set("memory.limit_in_bytes", "33554432\n");
        set("memory.max_usage_in_bytes", "4096\n");
        set("memory.memsw.limit_in_bytes", "33554432\n");
        set("memory.memsw.max_usage_in_bytes", "8192\n");
        let memory = watch(group.path());
        let tell = || memory.event.as_ref().unwrap().0.write(1).unwrap();
        assert_eq!(memory.shortage(), None);
        // The limit of a group above was reached, and somebody else ended for it.
        tell();
        assert_eq!(memory.shortage(), None);
        // Its own, but files gave way.
        set("memory.memsw.max_usage_in_bytes", "33550336\n");
        assert_eq!(memory.shortage(), None);
        // A process of a group below was ended, which is not counted here.
        tell();
        assert_eq!(memory.shortage(), Some(Shortage::OfJob));
        set("memory.oom_control", "oom_kill_disable 0\noom_kill 1\n");
        assert_eq!(memory.shortage(), Some(Shortage::OfMachine));
        tell();
        assert_eq!(memory.shortage(), Some(Shortage::OfJob));
        set("memory.memsw.max_usage_in_bytes", "8192\n");
        assert_eq!(memory.shortage(), Some(Shortage::OfMachine));
    }
}
