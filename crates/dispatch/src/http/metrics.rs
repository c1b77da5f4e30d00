//! What a dispatcher tells Prometheus, read from its last snapshot when somebody asks.

use std::collections::BTreeMap;
use std::fmt;

use longshore_types::{
    ContainerState, HeldPhase, IdleBehavior, InstanceType, TypeName, WorkerState, WorkerView,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::Snapshot;
use crate::runtime::Handle;

/// The categories of instances.
const CATEGORIES: [&str; 5] = ["inuse", "hold", "booting", "unknown", "idle"];

/// Gauges with the names of Arvados' dispatcher: `arvados_dispatchcloud_` and
/// `containers_running`, `containers_allocated_not_started`,
/// `instances_total{category,instance_type}`, `instances_price{category}`, `vcpus_total{category}`,
/// `memory_bytes_total{category}`; and `longshore_queue_unfinished`, `longshore_queue_waiting`
/// (of the first 200 in line, by state).
#[derive(Debug)]
pub struct DispatchMetrics {
    dispatcher: Handle,
    types: BTreeMap<TypeName, InstanceType>,
}

impl DispatchMetrics {
    /// Tells of a dispatcher in a registry.
    pub fn register(
        dispatcher: Handle,
        types: BTreeMap<TypeName, InstanceType>,
        registry: &mut Registry,
    ) {
        registry.register_collector(Box::new(Self { dispatcher, types }));
    }
}

impl Collector for DispatchMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let snapshot = self.dispatcher.snapshot();
        encode_containers(&snapshot, &mut encoder)?;
        self.encode_instances(&snapshot, &mut encoder)
    }
}

impl DispatchMetrics {
    fn encode_instances(
        &self,
        snapshot: &Snapshot,
        encoder: &mut DescriptorEncoder,
    ) -> fmt::Result {
        let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for category in CATEGORIES {
            for name in self.types.keys() {
                counts.insert((category, name.as_str()), 0);
            }
        }
        let mut sums: BTreeMap<&str, (f64, f64, f64)> =
            CATEGORIES.iter().map(|c| (*c, (0.0, 0.0, 0.0))).collect();
        for worker in &snapshot.workers {
            let name = worker.type_name.as_ref().map_or("", |name| name.as_str());
            *counts.entry((category(worker), name)).or_default() += 1;
            let price = worker.type_name.as_ref().and_then(|n| self.types.get(n));
            let sum = sums.entry(category(worker)).or_default();
            sum.0 += price.map_or(0.0, |t| t.price.units());
            sum.1 += f64::from(worker.capacity.vcpus);
            sum.2 += as_f64(worker.capacity.ram.0);
        }
        let name = "arvados_dispatchcloud_instances_total";
        let help = "Number of cloud VMs";
        let gauge = ConstGauge::new(0);
        let mut family = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        for ((category, instance_type), count) in counts {
            let labels = [("category", category), ("instance_type", instance_type)];
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        let by_category = |pick: fn(&(f64, f64, f64)) -> f64| {
            let values = sums.iter().map(move |(c, sum)| (*c, pick(sum)));
            values.collect::<Vec<_>>()
        };
        for (name, help, values) in [
            (
                "instances_price",
                "Price of cloud VMs",
                by_category(|s| s.0),
            ),
            (
                "vcpus_total",
                "Total VCPUs on all cloud VMs",
                by_category(|s| s.1),
            ),
            (
                "memory_bytes_total",
                "Total memory on all cloud VMs",
                by_category(|s| s.2),
            ),
        ] {
            let name = format!("arvados_dispatchcloud_{name}");
            let gauge = ConstGauge::new(0.0);
            let mut family = encoder.encode_descriptor(&name, help, None, gauge.metric_type())?;
            for (category, value) in values {
                ConstGauge::new(value).encode(family.encode_family(&[("category", category)])?)?;
            }
        }
        Ok(())
    }
}

fn encode_containers(snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let held = || {
        snapshot
            .workers
            .iter()
            .flat_map(|worker| &worker.containers)
    };
    let starting = held()
        .filter(|held| held.phase == HeldPhase::Starting)
        .count();
    let running = held().filter(|held| held.phase.may_run()).count() - starting;
    let waiting = |state| snapshot.waiting.iter().filter(|e| e.state == state).count();
    for (name, help, value) in [
        (
            "arvados_dispatchcloud_containers_running",
            "Number of containers reported running by cloud VMs",
            running,
        ),
        (
            "arvados_dispatchcloud_containers_allocated_not_started",
            "Number of containers allocated to a worker but not started yet",
            starting,
        ),
        (
            "longshore_queue_unfinished",
            "Containers that have not ended",
            snapshot.unfinished,
        ),
        (
            "longshore_queue_waiting_locked",
            "Containers that are locked and wait, of the first 200 in line",
            waiting(ContainerState::Locked),
        ),
        (
            "longshore_queue_ready",
            "Whether the queue was read and the instances were listed",
            usize::from(snapshot.ready),
        ),
    ] {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(metric)?;
    }
    Ok(())
}

fn category(worker: &WorkerView) -> &'static str {
    if worker.idle_behavior == IdleBehavior::Hold {
        return "hold";
    }
    match worker.state {
        WorkerState::Running => "inuse",
        WorkerState::Booting => "booting",
        WorkerState::Unknown => "unknown",
        WorkerState::Idle | WorkerState::Shutdown => "idle",
    }
}

/// Exact up to 2^53, which is 8 PiB.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
