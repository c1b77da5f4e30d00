//! What a dispatcher tells Prometheus when somebody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use longshore_types::{ContainerState, HeldPhase, InstanceType, Reason, TypeName, WorkerState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::Snapshot;
use crate::runtime::{Measured, Summary};

/// The categories of instances.
const CATEGORIES: [&str; 5] = ["inuse", "hold", "booting", "unknown", "idle"];
/// What the names of Arvados' dispatcher begin with.
const PREFIX: &str = "arvados_dispatchcloud_";

/// What a dispatcher was like at one moment.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) measured: Measured,
    pub(super) types: BTreeMap<TypeName, InstanceType>,
}

impl Page {
    /// All of it, and what is in a registry, as text.
    pub(super) fn text(self, others: &Registry) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let summaries = summaries(&self.measured);
        let mut own = Registry::default();
        own.register_collector(Box::new(self));
        encode_registry(&mut text, &own)?;
        text.push_str(&summaries);
        encode_registry(&mut text, others)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut lines = Lines {
            encoder: &mut encoder,
        };
        self.encode_containers(&mut lines)?;
        self.encode_limits(&mut lines)?;
        self.encode_instances(&mut lines)?;
        self.encode_counters(&mut lines)
    }
}

impl Page {
    fn encode_containers(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        let snapshot = &self.snapshot;
        let workers = snapshot.workers.iter();
        let held: Vec<_> = workers.flat_map(|worker| &worker.containers).collect();
        let is_starting = |phase: &HeldPhase| *phase == HeldPhase::Starting;
        let starting = held.iter().filter(|held| is_starting(&held.phase)).count();
        let running = held.iter().filter(|held| held.phase.may_run()).count() - starting;
        let locked = |state| snapshot.waiting.iter().filter(|e| e.state == state).count();
        let figures = &self.measured.figures;
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
                "arvados_dispatchcloud_containers_not_allocated_over_quota",
                "Number of containers that wait for room on instances that are not created",
                self.over_quota(),
            ),
            (
                "longshore_queue_unfinished",
                "Containers that have not ended",
                snapshot.unfinished,
            ),
            (
                "longshore_queue_waiting_locked",
                "Containers that are locked and wait, of the first 200 in line",
                locked(ContainerState::Locked),
            ),
            (
                "longshore_queue_ready",
                "Whether the queue was read and the instances were listed",
                usize::from(snapshot.ready),
            ),
        ] {
            lines.gauge(name, help, number(value))?;
        }
        lines.gauge(
            "arvados_dispatchcloud_containers_longest_wait_time_seconds",
            "Time since the container that has waited longest was first seen",
            figures.longest_wait.as_secs_f64(),
        )?;
        let entries = figures.entries.iter().map(|((state, name), count)| {
            let name = name.as_ref().map_or("", TypeName::as_str);
            let labels = vec![("state", state.as_str()), ("instance_type", name)];
            (labels, *count)
        });
        lines.gauges(
            "arvados_dispatchcloud_queue_entries",
            "Containers of the queue, by state and the type that is preferred",
            entries,
        )
    }

    /// Reasons are known of the first in line; those behind them wait for the same.
    fn over_quota(&self) -> usize {
        let waiting = &self.snapshot.waiting;
        let no_room = |reason: &Reason| matches!(reason, Reason::NoRoom { .. });
        let known = waiting.iter().filter(|e| no_room(&e.reason)).count();
        let last = waiting.last().is_some_and(|last| no_room(&last.reason));
        let behind = self.measured.figures.waiting.saturating_sub(waiting.len());
        known + if last { behind } else { 0 }
    }

    fn encode_limits(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        let figures = &self.measured.figures;
        let last_503 = figures.since_overload.map_or(0.0, |since| {
            let now = wall_time().duration_since(SystemTime::UNIX_EPOCH);
            now.unwrap_or_default().saturating_sub(since).as_secs_f64()
        });
        let ages = &figures.probe_ages;
        let median = ages.get(ages.len() / 2).copied().unwrap_or_default();
        let longest = ages.last().copied().unwrap_or_default();
        for (name, help, value) in [
            (
                "at_quota",
                "Whether creates are held off for lack of quota",
                f64::from(u8::from(figures.at_quota)),
            ),
            (
                "last_503_time",
                "When the controller last had too much to do, in seconds since 1970; 0 if never",
                last_503,
            ),
            (
                "max_concurrent_containers",
                "Limit on containers that run at once; 0 for none",
                f64::from(figures.max_containers.unwrap_or(0)),
            ),
            (
                "probe_age_seconds_max",
                "Longest time since a ready worker last said what runs there",
                longest.as_secs_f64(),
            ),
            (
                "probe_age_seconds_median",
                "Median time since ready workers last said what runs there",
                median.as_secs_f64(),
            ),
        ] {
            lines.gauge(&format!("{PREFIX}{name}"), help, value)?;
        }
        lines.gauge(
            "longshore_pool_hold_offs",
            "Kinds of creates that are held off",
            number(figures.hold_offs),
        )?;
        lines.gauge(
            "longshore_pool_pending_creates",
            "Creates whose instance is not known",
            number(figures.pending_creates),
        )
    }

    fn encode_instances(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for category in CATEGORIES {
            for name in self.types.keys() {
                counts.insert((category, name.as_str()), 0);
            }
        }
        let mut sums: BTreeMap<&str, (f64, f64, f64)> =
            CATEGORIES.iter().map(|c| (*c, (0.0, 0.0, 0.0))).collect();
        for worker in &self.snapshot.workers {
            let name = worker.type_name.as_ref().map_or("", TypeName::as_str);
            *counts.entry((worker.category(), name)).or_default() += 1;
            let price = worker.type_name.as_ref().and_then(|n| self.types.get(n));
            let sum = sums.entry(worker.category()).or_default();
            sum.0 += price.map_or(0.0, |t| t.price.units());
            sum.1 += f64::from(worker.capacity.vcpus);
            sum.2 += as_f64(worker.capacity.ram.0);
        }
        let counts = counts.into_iter().map(|((category, name), count)| {
            (vec![("category", category), ("instance_type", name)], count)
        });
        lines.gauges(
            "arvados_dispatchcloud_instances_total",
            "Number of cloud VMs",
            counts,
        )?;
        let mut by_category = |name: &str, help: &str, pick: fn(&(f64, f64, f64)) -> f64| {
            let values = sums
                .iter()
                .map(|(c, sum)| (vec![("category", *c)], pick(sum)));
            lines.gauges(&format!("{PREFIX}{name}"), help, values)
        };
        by_category("instances_price", "Price of cloud VMs", |s| s.0)?;
        by_category("vcpus_total", "Total VCPUs on all cloud VMs", |s| s.1)?;
        by_category("memory_bytes_total", "Total memory on all cloud VMs", |s| {
            s.2
        })
    }

    fn encode_counters(&self, lines: &mut Lines<'_, '_>) -> fmt::Result {
        let tally = &self.measured.figures.tally;
        let boots = [
            ("failure", tally.boots_failed),
            ("success", tally.boots_succeeded),
            ("aborted", tally.boots_aborted),
            ("disappeared", tally.boots_disappeared),
        ];
        lines.counters(
            "arvados_dispatchcloud_boot_outcomes",
            "What became of boots",
            boots.map(|(outcome, count)| (vec![("outcome", outcome)], count)),
        )?;
        let gone = WorkerState::ALL.map(|state| {
            let count = tally.disappeared.get(&state).copied().unwrap_or_default();
            (vec![("state", state.as_str())], count)
        });
        lines.counters(
            "arvados_dispatchcloud_instances_disappeared",
            "Instances that are gone, by the state that they were in",
            gone,
        )
    }
}

#[expect(clippy::disallowed_methods, reason = "only shown")]
fn wall_time() -> SystemTime {
    SystemTime::now()
}

/// Writes families of values.
struct Lines<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

impl Lines<'_, '_> {
    fn gauge<V: EncodeGaugeValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        value: V,
    ) -> fmt::Result {
        let encoder = &mut self.encoder;
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn gauges<'l, V: EncodeGaugeValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, values)
    }

    /// Counters as the old exposition had them: the lines of gauges under a counter's heading,
    /// because the encoder gives the line of a counter a suffix.
    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, values)
    }

    fn family<'l, V: EncodeGaugeValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let encoder = &mut self.encoder;
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The summaries, for which the encoder has no type.
fn summaries(measured: &Measured) -> String {
    let mut text = String::new();
    let starts = [(None, &measured.starts)];
    summary(
        &mut text,
        "containers_time_from_queue_to_crunch_run_seconds",
        "Time from a container's being seen in the queue to its process",
        starts,
    );
    let probes = [
        (Some("success"), &measured.probes),
        (Some("fail"), &measured.failed_probes),
    ];
    summary(
        &mut text,
        "instances_run_probe_duration_seconds",
        "How long asking a worker what runs there took",
        probes,
    );
    text
}

fn summary<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Option<&'a str>, &'a Summary)>,
) {
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# HELP {PREFIX}{name} {help}.\n# TYPE {PREFIX}{name} summary"
    );
    for (outcome, summary) in values {
        let label = outcome.map(|outcome| format!("outcome=\"{outcome}\""));
        let labels = |more: Option<String>| {
            let all: Vec<String> = label.clone().into_iter().chain(more).collect();
            match all[..] {
                [] => String::new(),
                _ => format!("{{{}}}", all.join(",")),
            }
        };
        for (quantile, value) in &summary.quantiles {
            let labels = labels(Some(format!("quantile=\"{quantile}\"")));
            let _ = writeln!(text, "{PREFIX}{name}{labels} {value}");
        }
        let labels = labels(None);
        let _ = writeln!(text, "{PREFIX}{name}_sum{labels} {}", summary.sum);
        let _ = writeln!(text, "{PREFIX}{name}_count{labels} {}", summary.count);
    }
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Exact up to 2^53, which is 8 PiB.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
