//! The requests that are being answered, and how long answers took.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response};
use axum::middleware::Next;
use longshore_http::{Limits, json};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

/// The longest part of a path that is shown, in characters.
const MAX_PATH: usize = 200;
/// There is one line in which requests are answered.
const QUEUE: [(&str, &str); 1] = [("queue", "api")];

type Labels = [(&'static str, String); 2];

/// What is known of requests; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    active: Arc<Mutex<Active>>,
    seconds: Family<Labels, Histogram>,
}

#[derive(Debug, Default)]
struct Active {
    next: u64,
    requests: BTreeMap<u64, Begun>,
}

#[derive(Debug)]
struct Begun {
    method: Method,
    path: String,
    at: Instant,
}

impl Requests {
    /// None so far; they are told of in a registry.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests = Self {
            active: Arc::default(),
            // 1 ms to about 2 minutes.
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 18))
            }),
        };
        registry.register(
            "request_duration_seconds",
            "How long answers to requests took, with what is waited for by agreement",
            requests.seconds.clone(),
        );
        registry.register_collector(Box::new(requests.clone()));
        requests
    }

    fn active(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, request: &Request) -> Answering<'_> {
        let mut active = self.active();
        let id = active.next;
        active.next += 1;
        let begun = Begun {
            method: request.method().clone(),
            // Without the query, where a token may be.
            path: request.uri().path().chars().take(MAX_PATH).collect(),
            at: Instant::now(),
        };
        active.requests.insert(id, begun);
        Answering { requests: self, id }
    }

    /// Those that are being answered, the oldest first.
    fn list(&self) -> Vec<Value> {
        let active = self.active();
        let show = |request: &Begun| {
            json!({
                "method": request.method.as_str(),
                "path": request.path,
                "seconds": request.at.elapsed().as_secs_f64(),
            })
        };
        active.requests.values().map(show).collect()
    }
}

/// A request that is being answered, until this is dropped.
struct Answering<'a> {
    requests: &'a Requests,
    id: u64,
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.requests.active().requests.remove(&self.id);
    }
}

/// Takes note of a request; for the middleware of a router.
pub(super) async fn note(
    State(requests): State<Requests>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
        _ => "other",
    };
    let method = method.to_lowercase();
    let (answering, since) = (requests.begin(&request), Instant::now());
    let response = next.run(request).await;
    drop(answering);
    let code = response.status().as_u16().to_string();
    let seconds = requests
        .seconds
        .get_or_create(&[("code", code), ("method", method)]);
    seconds.observe(since.elapsed().as_secs_f64());
    drop(seconds);
    response
}

/// What is being answered, for operators.
pub(super) async fn inspect(State(requests): State<Requests>) -> Response<Body> {
    json(&Value::Array(requests.list()))
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (count, oldest) = {
            let active = self.active();
            let oldest = active.requests.values().next().map(|begun| begun.at);
            (active.requests.len(), oldest)
        };
        let oldest = oldest.map_or(0.0, |at| at.elapsed().as_secs_f64());
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        for (name, help, value) in [
            (
                "arvados_concurrent_requests",
                "Requests that are being answered",
                number(count),
            ),
            (
                "arvados_max_concurrent_requests",
                "How many connections are answered at once, on each address",
                number(Limits::default().connections),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            let mut metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric.encode_family(&QUEUE)?)?;
        }
        let gauge = ConstGauge::new(oldest);
        let metric = encoder.encode_descriptor(
            "longshore_request_age_seconds_max",
            "How long the oldest request that is being answered has been there",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}
