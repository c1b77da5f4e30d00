//! What a pool tells Prometheus.
//!
//! Gauges and counters are computed from the last snapshot when they are read, so that they agree
//! with each other and nothing stays of what is gone. The label sets are bounded by the
//! configuration and by enums; nothing that a provider or a host says becomes a label.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_types::{InstanceId, InstanceType, Price, TypeName, WorkerState, WorkerView};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;

use super::clock::Clock;
use crate::effect::{Effect, EffectAction, EffectId, Outcome};
use crate::view::Snapshot;

type Labels<const N: usize> = [(&'static str, String); N];

/// The categories of instances.
const CATEGORIES: [&str; 5] = ["inuse", "hold", "booting", "unknown", "idle"];

/// The metrics of one pool.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    live: Arc<Live>,
    time_to_ssh: Histogram,
    time_to_ready: Histogram,
    time_to_disappear: Histogram,
    probes: Family<Labels<1>, Histogram>,
    provider_failures: Family<Labels<2>, Counter>,
}

/// What is read when somebody asks.
#[derive(Default)]
struct Live(Mutex<Option<Source>>);

struct Source {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clock: Clock,
    types: BTreeMap<TypeName, Price>,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        // 0.5 s to about 34 minutes.
        let slow = || Histogram::new(exponential_buckets(0.5, 2.0, 13));
        let metrics = Self {
            live: Arc::default(),
            time_to_ssh: slow(),
            time_to_ready: slow(),
            time_to_disappear: slow(),
            // 1 ms to about 33 s.
            probes: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 16))
            }),
            provider_failures: Family::default(),
        };
        registry.register_collector(Box::new(metrics.live.clone()));
        registry.register(
            "longshore_pool_time_to_ssh_seconds",
            "From the reply to a create to the first command on the instance that succeeded",
            metrics.time_to_ssh.clone(),
        );
        registry.register(
            "longshore_pool_time_to_ready_seconds",
            "From the reply to a create to the instance being ready for work",
            metrics.time_to_ready.clone(),
        );
        registry.register(
            "longshore_pool_time_from_shutdown_request_to_disappearance_seconds",
            "From the decision to shut an instance down to its being gone",
            metrics.time_to_disappear.clone(),
        );
        registry.register(
            "longshore_pool_probe_duration_seconds",
            "How long probes of workers took, those that wait for a change left out",
            metrics.probes.clone(),
        );
        registry.register(
            "longshore_pool_provider_failures",
            "Provider calls that failed; of those for several instances each one counts",
            metrics.provider_failures.clone(),
        );
        metrics
    }

    /// Both labels are ours, not what a provider said.
    pub(super) fn count_provider_failure(&self, operation: &'static str, kind: &'static str) {
        let labels = [
            ("operation", operation.to_owned()),
            ("kind", kind.to_owned()),
        ];
        self.provider_failures.get_or_create(&labels).inc();
    }

    /// From now on the pool with these snapshots is what is told of.
    pub(super) fn begin(
        &self,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        clock: Clock,
        types: &[InstanceType],
    ) {
        let types = types.iter().map(|t| (t.name.clone(), t.price)).collect();
        let source = Source {
            snapshots,
            clock,
            types,
        };
        let mut live = self.live.0.lock().unwrap_or_else(PoisonError::into_inner);
        *live = Some(source);
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A pool that has not begun, or has ended, has nothing to tell.
        let Some(source) = live.as_ref().filter(|s| s.snapshots.has_changed().is_ok()) else {
            return Ok(());
        };
        let snapshot = source.snapshots.borrow().clone();
        let mut page = Page {
            encoder: &mut encoder,
        };
        source.encode_instances(&snapshot, &mut page)?;
        source.encode_ages(&snapshot, &mut page)?;
        encode_rest(&snapshot, &mut page)?;
        encode_counters(&snapshot, &mut page)
    }
}

#[derive(Clone, Copy, Default)]
struct Sums {
    price: f64,
    vcpus: u64,
    ram: u64,
}

impl Source {
    fn encode_instances(&self, snapshot: &Snapshot, page: &mut Page<'_, '_>) -> fmt::Result {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for name in self.types.keys() {
            for category in CATEGORIES {
                counts.insert((category, name.as_str()), 0);
            }
        }
        let mut sums = CATEGORIES.map(|category| (category, Sums::default()));
        for worker in &snapshot.workers {
            let category = worker.category();
            let known = worker
                .type_name
                .as_ref()
                .and_then(|n| self.types.get_key_value(n));
            let name = known.map_or("", |(name, _)| name.as_str());
            *counts.entry((category, name)).or_default() += 1;
            for (_, sum) in sums.iter_mut().filter(|(c, _)| *c == category) {
                sum.price += known.map_or(0.0, |(_, price)| price.units());
                sum.vcpus += u64::from(worker.capacity.vcpus);
                sum.ram = sum.ram.saturating_add(worker.capacity.ram.0);
            }
        }
        let counts = counts.into_iter().map(|((category, name), count)| {
            let labels = [
                ("category", category.to_owned()),
                ("instance_type", name.to_owned()),
            ];
            (labels, count)
        });
        page.gauges("arvados_dispatchcloud_instances_total", "Instances", counts)?;
        let by_category = |name: &'static str| [("category", name.to_owned())];
        page.gauges(
            "arvados_dispatchcloud_instances_price",
            "Price per hour of all instances",
            sums.iter().map(|(c, sum)| (by_category(c), sum.price)),
        )?;
        page.gauges(
            "arvados_dispatchcloud_vcpus_total",
            "vCPUs of all instances",
            sums.iter().map(|(c, sum)| (by_category(c), sum.vcpus)),
        )?;
        page.gauges(
            "arvados_dispatchcloud_memory_bytes_total",
            "Memory of all instances",
            sums.iter().map(|(c, sum)| (by_category(c), sum.ram)),
        )
    }

    fn encode_ages(&self, snapshot: &Snapshot, page: &mut Page<'_, '_>) -> fmt::Result {
        let now = self.clock.now();
        let ready = |w: &&WorkerView| matches!(w.state, WorkerState::Idle | WorkerState::Running);
        let probed = snapshot.workers.iter().filter(ready);
        let mut ages: Vec<Duration> = probed
            .filter_map(|worker| Some(now.since(worker.probed_at?)))
            .collect();
        ages.sort_unstable();
        let median = ages.get(ages.len() / 2).copied().unwrap_or_default();
        page.gauge(
            "arvados_dispatchcloud_probe_age_seconds_max",
            "Longest time since a ready worker last said what runs there",
            ages.last().copied().unwrap_or_default().as_secs_f64(),
        )?;
        page.gauge(
            "arvados_dispatchcloud_probe_age_seconds_median",
            "Median time since ready workers last said what runs there",
            median.as_secs_f64(),
        )
    }
}

fn encode_rest(snapshot: &Snapshot, page: &mut Page<'_, '_>) -> fmt::Result {
    let count = |n: usize| n as u64;
    let by_state = WorkerState::ALL.map(|state| {
        let workers = snapshot.counts.get(&state).copied().unwrap_or_default();
        ([("state", state.to_string())], count(workers))
    });
    page.gauges("longshore_pool_workers", "Workers", by_state)?;
    let quota = snapshot.hold_offs.iter().any(|hold| hold.is_quota);
    page.gauge(
        "arvados_dispatchcloud_at_quota",
        "Whether creates are held off for lack of quota",
        u64::from(quota),
    )?;
    page.gauge(
        "longshore_pool_hold_offs",
        "Kinds of creates that are held off",
        count(snapshot.hold_offs.len()),
    )?;
    page.gauge(
        "longshore_pool_pending_creates",
        "Creates whose instance is not known",
        count(snapshot.pendings.len()),
    )?;
    let kinds = EffectAction::KINDS.map(|kind| {
        let under_way = snapshot.effects_by_kind.get(kind).copied();
        ([("kind", kind.to_owned())], count(under_way.unwrap_or(0)))
    });
    page.gauges(
        "longshore_pool_effects_in_flight",
        "Calls and commands under way",
        kinds,
    )
}

fn encode_counters(snapshot: &Snapshot, page: &mut Page<'_, '_>) -> fmt::Result {
    let tally = &snapshot.tally;
    let boots = [
        ("success", tally.boots_succeeded),
        ("failure", tally.boots_failed),
        ("aborted", tally.boots_aborted),
        ("disappeared", tally.boots_disappeared),
    ];
    page.counters(
        "longshore_pool_boot_outcomes",
        "What became of boots",
        boots.map(|(outcome, count)| ([("outcome", outcome.to_owned())], count)),
    )?;
    let gone = WorkerState::ALL.map(|state| {
        let count = tally.disappeared.get(&state).copied().unwrap_or_default();
        ([("state", state.to_string())], count)
    });
    page.counters(
        "longshore_pool_instances_disappeared",
        "Instances that are gone, by the state they were in",
        gone,
    )
}

/// Writes families of values.
struct Page<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Page<'_, '_> {
    fn gauge<V>(&mut self, name: &str, help: &str, value: V) -> fmt::Result
    where
        V: EncodeGaugeValue + Copy,
    {
        let gauge = ConstGauge::new(value);
        let encoder = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode(encoder)
    }

    fn gauges<V, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, V)>,
    ) -> fmt::Result
    where
        V: EncodeGaugeValue + Copy,
    {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<V, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, V)>,
    ) -> fmt::Result
    where
        V: EncodeCounterValue + Copy,
    {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Measures how long things take.
pub(super) struct Recorder {
    metrics: Metrics,
    workers: BTreeMap<InstanceId, Life>,
    probes: BTreeMap<EffectId, (Instant, Option<InstanceId>)>,
}

/// When what happened to a worker.
struct Life {
    since: Instant,
    /// Whether it was made by this process, and is waited for.
    boots: bool,
    reached: bool,
    shut_down: Option<Instant>,
}

impl Recorder {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            workers: BTreeMap::new(),
            probes: BTreeMap::new(),
        }
    }

    pub(super) fn on_effect(&mut self, effect: &Effect) {
        let probed = match &effect.action {
            EffectAction::Boot(host) => Some(host.instance.clone()),
            EffectAction::Report(_, options) if options.wait.is_zero() => None,
            _ => return,
        };
        self.probes.insert(effect.id, (Instant::now(), probed));
    }

    pub(super) fn on_outcome(&mut self, id: EffectId, outcome: &Outcome) {
        let Some((began, booted)) = self.probes.remove(&id) else {
            return;
        };
        let good = matches!(outcome, Outcome::Booted(Ok(())) | Outcome::Reported(Ok(_)));
        let outcome = if good { "success" } else { "fail" };
        let labels = [("outcome", outcome.to_owned())];
        let probes = self.metrics.probes.get_or_create(&labels);
        probes.observe(began.elapsed().as_secs_f64());
        drop(probes);
        let life = booted.and_then(|instance| self.workers.get_mut(&instance));
        if let Some(life) = life.filter(|life| good && life.boots && !life.reached) {
            life.reached = true;
            let time = life.since.elapsed().as_secs_f64();
            self.metrics.time_to_ssh.observe(time);
        }
    }

    pub(super) fn on_worker(&mut self, id: &InstanceId, state: Option<WorkerState>) {
        let Some(state) = state else {
            let life = self.workers.remove(id);
            if let Some(since) = life.and_then(|life| life.shut_down) {
                let time = since.elapsed().as_secs_f64();
                self.metrics.time_to_disappear.observe(time);
            }
            return;
        };
        let life = self.workers.entry(id.clone()).or_insert_with(|| Life {
            since: Instant::now(),
            boots: state == WorkerState::Booting,
            reached: false,
            shut_down: None,
        });
        match state {
            WorkerState::Idle | WorkerState::Running if life.boots => {
                life.boots = false;
                let time = life.since.elapsed().as_secs_f64();
                self.metrics.time_to_ready.observe(time);
            }
            WorkerState::Shutdown => {
                life.shut_down.get_or_insert_with(Instant::now);
            }
            _ => {}
        }
    }
}
