//! From the nodes of a file to settings.

use std::collections::BTreeSet;
use std::path::Path;

use longshore_cloud::Scope;
use longshore_fakecloud::{Quota, Spread};
use longshore_types::{ByteSize, InstanceType, Price};

use super::Settings;
use super::keys::{self, Keys};
use super::scalar::{assign, decimal, duration, has_gpus, packing};
use crate::text::{clean, excerpt};
use crate::yaml::problem::{Position, Problems};
use crate::yaml::tree::{Entry, Node, Value};
use crate::yaml::value::{boolean, mapping, nearest, number, size};

/// One machine in six takes longer to boot than the median times 2 to the power of this/100.
const BOOT_DEVIATION_PERCENT: u32 = 50;
const COUNT_MAX: u64 = 100_000;

/// Settings while they are read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) done: Settings,
    ignored: BTreeSet<&'static str>,
    gpu_types: Vec<String>,
}

pub(super) fn read(root: &Node<'_>, problems: &mut Problems) -> Reading {
    let mut reading = Reading::default();
    reading.root(root, true, problems);
    reading
}

impl Reading {
    fn root(&mut self, node: &Node<'_>, is_outermost: bool, problems: &mut Problems) {
        let expected = "a mapping with keys like \"InstanceTypes\" and \"Containers\"";
        for Entry { key, at, value } in mapping(node, expected, problems).unwrap_or_default() {
            match &**key {
                "Clusters" if is_outermost => self.clusters(value, problems),
                "InstanceTypes" => self.types(value, problems),
                "Containers" => self.containers(value, problems),
                "Simulation" => self.simulation(value, problems),
                key => self.other(key, *at, keys::ROOT, problems),
            }
        }
    }

    /// The whole of a configuration file: its one cluster.
    fn clusters(&mut self, node: &Node<'_>, problems: &mut Problems) {
        let clusters = mapping(node, "a mapping from a cluster's id", problems);
        match clusters {
            Some([cluster]) => self.root(&cluster.value, false, problems),
            Some(_) => problems.add(node.at, "expected exactly one cluster"),
            None => {}
        }
    }

    fn types(&mut self, node: &Node<'_>, problems: &mut Problems) {
        let expected = "a mapping from names to instance types";
        let Some(entries) = mapping(node, expected, problems) else {
            return;
        };
        let mut types = Vec::new();
        for Entry { key, at, value } in entries {
            match self.instance_type(key, *at, value, problems) {
                Some((_, true)) => self.gpu_types.push(excerpt(key)),
                Some((one, false)) => types.push(one),
                None => {}
            }
        }
        if types.is_empty() && problems.is_empty() {
            problems.add(node.at, "there is no instance type without GPUs; add one");
        }
        self.done.config.pool.types.clone_from(&types);
        self.done.config.scheduler.types = types;
    }

    /// A type, and whether it has GPUs.
    fn instance_type(
        &mut self,
        name: &str,
        at: Position,
        node: &Node<'_>,
        problems: &mut Problems,
    ) -> Option<(InstanceType, bool)> {
        let expected = "a mapping with the keys \"VCPUs\", \"RAM\" and \"Price\"";
        let mut one = InstanceType::new(name, 0, ByteSize::ZERO, Price::default());
        let (mut has_price, mut has_gpu) = (false, false);
        for Entry { key, at, value } in mapping(node, expected, problems)? {
            match &**key {
                "VCPUs" => assign(number(value, 1..=10_000, problems), &mut one.vcpus),
                "RAM" => assign(size(value, problems), &mut one.ram),
                "IncludedScratch" => assign(size(value, problems), &mut one.included_scratch),
                "AddedScratch" => assign(size(value, problems), &mut one.added_scratch),
                "Preemptible" => assign(boolean(value, problems), &mut one.preemptible),
                "Price" => {
                    has_price = true;
                    if let Some(units) = decimal(value, 0.0, 1e9, problems) {
                        one.price = Price::from_units(units).unwrap_or_default();
                    }
                }
                "GPU" => has_gpu = has_gpus(value),
                key => self.other(key, *at, keys::INSTANCE_TYPE, problems),
            }
        }
        if problems.is_empty() {
            let missing = [
                (one.vcpus == 0, "VCPUs"),
                (one.ram < ByteSize::mib(1), "RAM (at least 1MiB)"),
                (!has_price, "Price"),
            ];
            let missing = missing.iter().filter(|(lacks, _)| *lacks);
            let missing: Vec<&str> = missing.map(|(_, key)| *key).collect();
            if !missing.is_empty() {
                let (name, missing) = (excerpt(name), missing.join(", "));
                problems.add(at, format!("the instance type {name:?} lacks {missing}"));
            }
        }
        Some((one, has_gpu))
    }

    fn containers(&mut self, node: &Node<'_>, problems: &mut Problems) {
        let expected = "a mapping with keys like \"CloudVMs\"";
        for Entry { key, at, value } in mapping(node, expected, problems).unwrap_or_default() {
            let scheduler = &mut self.done.config.scheduler;
            match &**key {
                "CloudVMs" => self.cloud_vms(value, problems),
                "MaximumPriceFactor" => {
                    if let Some(factor) = decimal(value, 0.0, 1e6, problems) {
                        scheduler.maximum_price_factor = factor;
                    }
                }
                "Packing" => assign(packing(value, problems), &mut scheduler.packing),
                "ReserveExtraRAM" => {
                    assign(size(value, problems), &mut scheduler.reserve_extra_ram);
                }
                "LocalKeepBlobBuffersPerVCPU" => {
                    let buffers = number(value, 0..=10_000, problems);
                    assign(buffers, &mut scheduler.keep_buffers_per_vcpu);
                }
                key => self.other(key, *at, keys::CONTAINERS, problems),
            }
        }
    }

    fn cloud_vms(&mut self, node: &Node<'_>, problems: &mut Problems) {
        let expected = "a mapping with keys like \"MaxInstances\"";
        for Entry { key, at, value } in mapping(node, expected, problems).unwrap_or_default() {
            let config = &mut self.done.config;
            let time = match &**key {
                "PollInterval" => Some(&mut config.poll_interval),
                "ReserveAfter" => Some(&mut config.scheduler.reserve_after),
                "SyncInterval" => Some(&mut config.pool.sync_interval),
                "ProbeInterval" => Some(&mut config.pool.probe_interval),
                "TimeoutIdle" => Some(&mut config.pool.timeout_idle),
                "TimeoutBooting" => Some(&mut config.pool.timeout_booting),
                "TimeoutProbe" => Some(&mut config.pool.timeout_probe),
                "TimeoutShutdown" => Some(&mut config.pool.timeout_shutdown),
                "TimeoutSignal" => Some(&mut config.pool.timeout_signal),
                "TimeoutTERM" => Some(&mut config.pool.timeout_term),
                "TimeoutStaleRunLock" => Some(&mut config.pool.timeout_stale),
                _ => None,
            };
            if let Some(time) = time {
                *time = duration(value, problems).unwrap_or(*time);
                continue;
            }
            match &**key {
                "MaxInstances" => {
                    let most = number(value, 0..=COUNT_MAX, problems);
                    assign(most, &mut config.pool.max_instances);
                }
                "MaxConcurrentInstanceCreateOps" => {
                    let most = number(value, 0..=COUNT_MAX, problems);
                    assign(most, &mut config.pool.max_creates_in_flight);
                }
                "MaxProbesPerSecond" => {
                    let most = number(value, 0..=COUNT_MAX, problems);
                    assign(most, &mut config.pool.max_probes_per_second);
                }
                "SupervisorFraction" => {
                    if let Some(fraction) = decimal(value, 0.0, 1.0, problems) {
                        config.scheduler.supervisor_fraction = fraction;
                    }
                }
                key => self.other(key, *at, keys::CLOUD_VMS, problems),
            }
        }
    }

    fn simulation(&mut self, node: &Node<'_>, problems: &mut Problems) {
        let expected = "a mapping with keys like \"BootTime\"";
        for Entry { key, at, value } in mapping(node, expected, problems).unwrap_or_default() {
            match &**key {
                "BootTime" => {
                    if let Some(boot) = self.boot_time(value, problems) {
                        self.done.boot = boot;
                    }
                }
                "Quota" => self.quota(value, problems),
                "ControllerPushes" => {
                    assign(boolean(value, problems), &mut self.done.controller_pushes);
                }
                key => self.other(key, *at, keys::SIMULATION, problems),
            }
        }
    }

    /// `40s`, `{Min: 20s, Max: 2m}` or `{Median: 40s}`.
    fn boot_time(&mut self, node: &Node<'_>, problems: &mut Problems) -> Option<Spread> {
        let Value::Map(entries) = node.value() else {
            return duration(node, problems).map(Spread::Constant);
        };
        let [mut least, mut most, mut median] = [None; 3];
        for Entry { key, at, value } in entries {
            match &**key {
                "Min" => least = duration(value, problems),
                "Max" => most = duration(value, problems),
                "Median" => median = duration(value, problems),
                key => self.other(key, *at, keys::BOOT_TIME, problems),
            }
        }
        match (least, most, median) {
            (Some(least), Some(most), None) if least <= most => Some(Spread::uniform(least, most)),
            (None, None, Some(median)) => Some(Spread::long_tailed(median, BOOT_DEVIATION_PERCENT)),
            _ => {
                let forms = "expected a duration like 40s, {Min: 20s, Max: 2m} or {Median: 40s}";
                problems.add(node.at, forms);
                None
            }
        }
    }

    fn quota(&mut self, node: &Node<'_>, problems: &mut Problems) {
        let expected = "a mapping with the keys \"Instances\" and \"VCPUs\"";
        for Entry { key, at, value } in mapping(node, expected, problems).unwrap_or_default() {
            let quota = match &**key {
                "Instances" => Quota::instances,
                "VCPUs" => Quota::vcpus,
                key => {
                    self.other(key, *at, keys::QUOTA, problems);
                    continue;
                }
            };
            if let Some(most) = number(value, 1..=1_000_000_000, problems).good() {
                self.done.quotas.push(quota(Scope::Everything, *most));
            }
        }
    }

    /// A key that means nothing here: notes one that is right elsewhere, complains about others.
    fn other(&mut self, key: &str, at: Position, keys: Keys, problems: &mut Problems) {
        if let Some(known) = keys.ignored.iter().find(|known| **known == key) {
            self.ignored.insert(known);
            return;
        }
        let shown = excerpt(key);
        let known = [keys.used, keys.ignored].concat();
        let advice = match nearest(key, &known) {
            Some(meant) if meant != key => format!("did you mean {meant:?}?"),
            _ => format!("known keys are {}", keys.used.join(", ")),
        };
        let place = keys.place;
        problems.add(at, format!("{place} has no key {shown:?}; {advice}"));
    }

    /// Says what was read and changes nothing.
    pub(super) fn note_ignored(&mut self, path: &Path) {
        let path = clean(&path.to_string_lossy());
        if !self.ignored.is_empty() {
            let keys: Vec<&str> = self.ignored.iter().copied().collect();
            let keys = keys.join(", ");
            let note = format!("{path}: without effect in a simulation: {keys}");
            self.done.notes.push(note);
        }
        if !self.gpu_types.is_empty() {
            let types = clean(&self.gpu_types.join(", "));
            let note = format!("{path}: no simulated container uses GPUs; left out: {types}");
            self.done.notes.push(note);
        }
    }
}
