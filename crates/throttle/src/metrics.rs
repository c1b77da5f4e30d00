//! What is counted about the calls of a driver.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use longshore_cloud::{CloudError, ErrorKind, Operation};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::kind::PerKind;

/// Upper ends of the buckets of a duration, in seconds.
const SECONDS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];
/// The operations that the old counter had.
const OLD: [Operation; 4] = [
    Operation::Create,
    Operation::List,
    Operation::Destroy,
    Operation::SetTags,
];
const OUTCOMES: [&str; 7] = [
    "ok",
    "rate_limited",
    "quota",
    "capacity",
    "timed_out",
    "error",
    "dropped",
];

/// Counters of an [`Instrument`](crate::Instrument) layer; clones share them.
///
/// | name | type | labels |
/// |---|---|---|
/// | `arvados_dispatchcloud_driver_operations` | counter | `operation` (`Create`, `List`, `Destroy`, `SetTags`), `error` (0, 1) |
/// | `longshore_driver_calls` | counter | `operation`, `outcome` (`ok`, `rate_limited`, `quota`, `capacity`, `timed_out`, `error`, `dropped`) |
/// | `longshore_driver_calls_under_way` | gauge | `operation` |
/// | `longshore_driver_call_seconds` | histogram | `operation` |
///
/// A batch is one call, and failed if anything in it did. The first name is exported without the
/// `_total` that OpenMetrics wants, because dashboards know it so. Every series is there from the
/// beginning, with zero.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::{Instrument, Metrics};
/// use prometheus_client::{encoding::text, registry::Registry};
/// # block_on(async {
/// let (metrics, mut registry) = (Metrics::new(), Registry::default());
/// metrics.register(&mut registry);
/// let set = Instrument::new(Stub::default(), metrics);
/// set.list(&CallContext::example(), &Tags::new()).await.unwrap();
/// let mut text = String::new();
/// text::encode(&mut text, &registry).unwrap();
/// let line = r#"arvados_dispatchcloud_driver_operations{operation="List",error="0"} 1"#;
/// assert!(text.lines().any(|l| l == line), "{text}");
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    calls: PerKind<[AtomicU64; OUTCOMES.len()]>,
    under_way: PerKind<AtomicI64>,
    seconds: PerKind<Histogram>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            calls: PerKind::default(),
            under_way: PerKind::default(),
            seconds: PerKind::from_fn(|_| Histogram::new(SECONDS)),
        }
    }
}

impl Metrics {
    /// Counters that stand at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds them to a registry of the caller's.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    pub(crate) fn begin(&self, operation: Operation) {
        self.0
            .under_way
            .of(operation)
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, operation: Operation, outcome: &'static str, took: Duration) {
        self.0
            .under_way
            .of(operation)
            .fetch_sub(1, Ordering::Relaxed);
        if let Some(i) = OUTCOMES.iter().position(|known| *known == outcome) {
            self.0.calls.of(operation)[i].fetch_add(1, Ordering::Relaxed);
        }
        self.0.seconds.of(operation).observe(took.as_secs_f64());
    }

    fn count(&self, operation: Operation, outcome: usize) -> u64 {
        self.0.calls.of(operation)[outcome].load(Ordering::Relaxed)
    }
}

/// The label of a call with these errors: the first that is worth telling apart.
pub(crate) fn outcome(errors: &[&CloudError]) -> &'static str {
    let labels = errors.iter().map(|error| match error.kind {
        ErrorKind::RateLimited { .. } => "rate_limited",
        ErrorKind::QuotaExceeded(_) => "quota",
        ErrorKind::NoCapacity(_) => "capacity",
        ErrorKind::TimedOut => "timed_out",
        _ => "error",
    });
    let rank = |label: &&str| OUTCOMES.iter().position(|known| known == label);
    labels.min_by_key(rank).unwrap_or("ok")
}

/// How a driver's call is called in labels.
pub(crate) fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "Create",
        Operation::List => "List",
        Operation::Destroy => "Destroy",
        Operation::SetTags => "SetTags",
        Operation::VerifyHostKey => "VerifyHostKey",
        _ => "Other",
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.encode_old(&mut encoder)?;
        self.encode_calls(&mut encoder)?;
        self.encode_under_way(&mut encoder)?;
        self.encode_seconds(&mut encoder)
    }
}

impl Metrics {
    /// A counter as the old exposition had it: a gauge's line under a counter's heading, because
    /// the encoder gives a counter's line a suffix.
    fn encode_old(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "arvados_dispatchcloud_driver_operations",
            "Number of instance-create/destroy/list/set-tags operations sent to the driver.",
            None,
            MetricType::Counter,
        )?;
        for operation in OLD {
            let good = self.count(operation, 0);
            let bad: u64 = (1..OUTCOMES.len()).map(|i| self.count(operation, i)).sum();
            for (error, count) in [("0", good), ("1", bad)] {
                let labels = [("operation", name(operation)), ("error", error)];
                metric.encode_family(&labels)?.encode_gauge(&count)?;
            }
        }
        Ok(())
    }

    fn encode_calls(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "longshore_driver_calls",
            "Calls that the driver was given, by how they ended.",
            None,
            MetricType::Counter,
        )?;
        for (operation, calls) in self.0.calls.iter() {
            for (outcome, count) in OUTCOMES.into_iter().zip(calls) {
                let labels = [("operation", name(operation)), ("outcome", outcome)];
                let count = count.load(Ordering::Relaxed);
                let mut family = metric.encode_family(&labels)?;
                family.encode_counter::<[(&str, &str); 0], u64, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn encode_under_way(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "longshore_driver_calls_under_way",
            "Calls that the driver has not answered yet.",
            None,
            MetricType::Gauge,
        )?;
        for (operation, calls) in self.0.under_way.iter() {
            let labels = [("operation", name(operation))];
            let calls = calls.load(Ordering::Relaxed);
            metric.encode_family(&labels)?.encode_gauge(&calls)?;
        }
        Ok(())
    }

    fn encode_seconds(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut metric = encoder.encode_descriptor(
            "longshore_driver_call_seconds",
            "How long the driver took to answer.",
            None,
            MetricType::Histogram,
        )?;
        for (operation, seconds) in self.0.seconds.iter() {
            let labels = [("operation", name(operation))];
            seconds.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
