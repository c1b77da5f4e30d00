//! The governor as a layer.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_cloud::{CallContext, CloudError, ErrorKind, Operation};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use super::answer::{Answer as CoreAnswer, Permission, Permit};
use super::core::Core;
use super::head_room::HeadRoom;
use crate::budget::{Budget, Clock};
use crate::call::{Answer, Call};
use crate::in_flight::Waiting;
use crate::kind::PerKind;
use crate::layer::layer;
use crate::metrics::name;
use crate::refused::Refused;

/// How many calls of each kind may wait.
const MOST_WAITING: usize = 10_000;
/// How often the refused part of a call is sent again.
const MOST_RESENDS: u32 = 100;

/// What a [`Governor`] has learned; clones share it.
///
/// ```
/// use longshore_cloud::Operation;
/// use longshore_throttle::governor::Learned;
/// let learned = Learned::new();
/// assert_eq!(learned.head_room(Operation::Create).rate, None);
/// assert!(learned.to_string().starts_with("destroy: no limit seen; create: no limit seen"));
/// ```
#[derive(Clone, Debug)]
pub struct Learned(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    clock: Clock,
    of: PerKind<Bucket>,
}

/// One bucket of the provider, and the queue before it.
#[derive(Debug, Default)]
struct Bucket {
    core: Mutex<Core>,
    /// Held by the call that is next; fair.
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    /// An answer may have changed when the next one goes.
    changed: Notify,
    /// The provider counts the ids of a batch: it refused some of one.
    counts_ids: AtomicBool,
}

impl Default for Learned {
    fn default() -> Self {
        Self::new()
    }
}

impl Learned {
    /// Nothing yet.
    pub fn new() -> Self {
        let clock = Clock::start();
        let of = PerKind::default();
        Self(Arc::new(Buckets { clock, of }))
    }

    /// Adds `longshore_governor_tokens`, `_tokens_per_second` and `_bucket_size`, gauges by
    /// `operation`, to a registry of the caller's; a series is there once its value is known.
    ///
    /// No example: it is as [`Metrics::register`](crate::Metrics::register).
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// What is believed to be left for one kind of call.
    pub fn head_room(&self, operation: Operation) -> HeadRoom {
        self.0.of.of(operation).core().head_room(self.0.clock.now())
    }
}

impl Collector for Learned {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        type Value = fn(&HeadRoom) -> Option<f64>;
        let gauges: [(&str, &str, Value); 3] = [
            (
                "longshore_governor_tokens",
                "Calls believed to be left.",
                |room| room.tokens,
            ),
            (
                "longshore_governor_tokens_per_second",
                "Calls believed allowed.",
                |room| room.rate,
            ),
            (
                "longshore_governor_bucket_size",
                "Calls in a burst.",
                |room| room.size,
            ),
        ];
        for (metric, help, value) in gauges {
            let mut gauge = encoder.encode_descriptor(metric, help, None, MetricType::Gauge)?;
            for operation in crate::kind::ALL {
                let labels = [("operation", name(operation))];
                if let Some(value) = value(&self.head_room(operation)) {
                    gauge.encode_family(&labels)?.encode_gauge(&value)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, operation) in crate::kind::ALL.into_iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{operation}: {}", self.head_room(operation))?;
        }
        Ok(())
    }
}

impl Bucket {
    /// What the errors of a call say about the bucket.
    fn judge(&self, errors: &[&CloudError], size: u32, tokens: u32) -> CoreAnswer {
        let (ours, theirs): (Vec<&CloudError>, Vec<&CloudError>) =
            errors.iter().partition(|error| Refused::is_cause_of(error));
        let times: Vec<Option<Duration>> = theirs
            .iter()
            .filter_map(|error| match error.kind {
                ErrorKind::RateLimited { retry_after } => Some(retry_after),
                _ => None,
            })
            .collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let refused = count(times.len());
        let passed = size
            .saturating_sub(refused)
            .saturating_sub(count(ours.len()));
        let mut answer = match (refused, passed) {
            // An inner layer of ours kept all of it back.
            (0, 0) if size > 0 => CoreAnswer::passed(0),
            (0, _) => CoreAnswer::passed(tokens),
            (_, 0) => CoreAnswer::refused(refused.min(tokens)),
            _ => {
                self.counts_ids.store(true, Ordering::Relaxed);
                CoreAnswer::refused(refused).with_passed(passed)
            }
        };
        answer.retry_after = times.into_iter().max().flatten();
        answer
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `tokens` may be taken.
    async fn wait(&self, clock: &Clock, tokens: u32, left: Duration) -> Result<Permit, Refused> {
        let _waiting =
            Waiting::enter(&self.waiting, MOST_WAITING).ok_or(Refused::TooManyWaiting)?;
        let turn = async {
            let _turn = self.turn.lock().await;
            loop {
                let permission = self.core().handle_request(tokens, clock.now());
                let sleep = match permission {
                    Permission::Go(permit) => return permit,
                    Permission::At(at) => at.since(clock.now()),
                };
                tokio::select! {
                    () = tokio::time::sleep(sleep) => {}
                    () = self.changed.notified() => {}
                }
            }
        };
        tokio::time::timeout(left, turn)
            .await
            .map_err(|_| Refused::NotInTime)
    }
}

/// Learns how many calls of each kind the provider allows, and keeps just under it.
///
/// What the provider refuses for its rate is sent again, as long as the caller's timeout lasts, at
/// most 100 times; of a batch only the ids that were refused, and the other results are kept.
/// A refusal has the outcome [`NotDone`](longshore_cloud::Outcome::NotDone), so nothing is done
/// twice. A call whose turn does not come in time ends with
/// [`RateLimited`](ErrorKind::RateLimited) and [`Refused`]. Calls of one kind keep their order, and
/// kinds do not wait for each other.
///
/// ```
/// # mod stub { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stub.rs")); }
/// # use stub::*;
/// use longshore_throttle::governor::{Governor, Learned};
/// # block_on(async {
/// let learned = Learned::new();
/// let set = Governor::new(Stub::default(), learned.clone());
/// assert_eq!(set.to_string(), "Governor(Stub)");
/// set.list(&CallContext::example(), &Tags::new()).await.unwrap();
/// assert_eq!(learned.head_room(Operation::List).passed, 1);
/// # });
/// ```
#[derive(Debug)]
pub struct Governor<S> {
    inner: S,
    learned: Learned,
}

impl<S> Governor<S> {
    /// A layer around `inner` that keeps what it learns in `learned`.
    pub fn new(inner: S, learned: Learned) -> Self {
        Self { inner, learned }
    }

    async fn pass<C: Call>(&self, context: &CallContext, call: C) -> C::Answer {
        let budget = Budget::start(context);
        let mut answer = match self.send(&budget, &call).await {
            Ok(answer) => answer,
            Err(refused) => {
                let wait = self.wait_of(call.operation());
                return call.failed(&|| refused.error(call.operation(), "governor", wait));
            }
        };
        let mut resent = call.refused_part(&answer);
        for _ in 0..MOST_RESENDS {
            let Some(part) = resent else { break };
            // What is not sent again in time keeps the provider's answer.
            let Ok(later) = self.send(&budget, &part).await else {
                break;
            };
            resent = part.refused_part(&later);
            answer.amend(later);
        }
        answer
    }

    async fn send<C: Call>(&self, budget: &Budget<'_>, call: &C) -> Result<C::Answer, Refused> {
        let buckets = &self.learned.0;
        let bucket = buckets.of.of(call.operation());
        let counts_ids = bucket.counts_ids.load(Ordering::Relaxed);
        let size = u32::try_from(call.size()).unwrap_or(u32::MAX);
        let tokens = if counts_ids { size } else { 1 };
        let permit = bucket
            .wait(&buckets.clock, tokens, budget.patience())
            .await?;
        let mut sent = Sent {
            buckets,
            bucket,
            permit,
            answer: CoreAnswer::passed(0),
        };
        let Some(rest) = budget.rest() else {
            return Err(Refused::NotInTime);
        };
        sent.answer = CoreAnswer::passed(tokens);
        let answer = call.send(&rest).await;
        sent.answer = bucket.judge(&answer.errors(), size, tokens);
        Ok(answer)
    }

    fn wait_of(&self, operation: Operation) -> Option<Duration> {
        let rate = self.learned.head_room(operation).rate?;
        Duration::try_from_secs_f64(1.0 / rate).ok()
    }
}

/// A call that was sent; tells the core when it is dropped, by then with its answer or without.
struct Sent<'a> {
    buckets: &'a Buckets,
    bucket: &'a Bucket,
    permit: Permit,
    answer: CoreAnswer,
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        let now = self.buckets.clock.now();
        self.bucket
            .core()
            .handle_answer(self.permit, self.answer, now);
        self.bucket.changed.notify_one();
    }
}

layer!(Governor);

impl<S: fmt::Display> fmt::Display for Governor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Governor({})", self.inner)
    }
}
