//! The governor: what it learns of a bucket, and how it sends again what was refused.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod stub {
    include!("support/stub.rs");
}
include!("support/model.rs");

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use longshore_throttle::governor::{Governor, Learned};
use longshore_throttle::{HoldOff, Refused, TokenBucket};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};
use proptest::prelude::*;
use stub::*;

#[test]
fn it_keeps_just_under_what_the_bucket_allows() {
    for scene in scenes() {
        let figures = simulate(&scene);
        // Others who take at random moments from a bucket of five make it overflow or run dry.
        let (least, most) = if scene.others > 0.0 && scene.size < 10.0 {
            (0.85, 0.015)
        } else {
            (0.95, 0.01)
        };
        let (achieved, refused) = (figures.achieved(), figures.refused_part());
        assert!(
            achieved >= least && achieved < 1.05,
            "{}: {achieved}",
            scene.name
        );
        assert!(refused < most, "{}: {refused}", scene.name);
        let room = figures.core.head_room(figures.end);
        let rate = room.rate.unwrap();
        let truth = figures.possible / (scene.until - scene.from);
        assert!((rate / truth - 1.0).abs() < 0.2, "{}: {room}", scene.name);
    }
}

#[test]
fn it_learns_within_few_refusals() {
    for (size, rate) in [
        (1000.0, 2.0),
        (100.0, 20.0),
        (10.0, 0.5),
        (5.0, 10.0),
        (50.0, 500.0),
    ] {
        let scene = Scene {
            from: 0.0,
            until: 1200.0,
            ..scene("", size, rate)
        };
        let figures = simulate(&scene);
        let refused = figures.core.head_room(figures.end).refused as f64;
        let allowed = 40.0 + 0.01 * figures.passed;
        assert!(
            refused <= allowed,
            "{size} + {rate}/s: {refused} of {}",
            figures.passed
        );
        assert!(
            figures.passed >= 0.8 * rate * 1200.0,
            "{size} + {rate}/s: {}",
            figures.passed
        );
    }
}

#[test]
fn it_knows_the_size_of_the_bucket_and_lets_a_burst_through() {
    let scene = Scene {
        until: 2000.0,
        ..scene("", 100.0, 2.0)
    };
    let mut figures = simulate(&scene);
    let room = figures.core.head_room(figures.end);
    assert!((90.0..=110.0).contains(&room.size.unwrap()), "{room}");
    let quiet = figures.end + Duration::from_secs(600);
    let room = figures.core.head_room(quiet);
    assert_eq!(room.until_full(), Some(Duration::ZERO), "{room}");
    let burst = (0..1000)
        .take_while(|_| matches!(figures.core.handle_request(1, quiet), Permission::Go(_)))
        .count();
    assert!((90..=110).contains(&burst), "{burst}");
}

proptest! {
    #[test]
    fn nothing_waits_for_ever_whatever_the_provider_and_the_clock_do(
        steps in prop::collection::vec(
            (any::<u64>(), any::<u32>(), any::<u32>(), any::<Option<u64>>()), 0..60),
    ) {
        let mut core = Core::new();
        let mut latest = 0;
        for (now, passed, refused, after) in steps {
            let mut now = Instant::from_nanos(now >> 8);
            latest = latest.max(now.as_nanos());
            for _ in 0..3 {
                match core.handle_request(passed, now) {
                    Permission::Go(permit) => {
                        let mut answer = Answer::refused(refused).with_passed(passed);
                        answer.retry_after = after.map(Duration::from_nanos);
                        core.handle_answer(permit, answer, now);
                        let _room = core.head_room(now).to_string();
                    }
                    Permission::At(at) => {
                        let latest_seen = Instant::from_nanos(latest);
                        prop_assert!(at > now);
                        prop_assert!(at.since(latest_seen) <= Duration::from_secs(3600));
                        now = at;
                        latest = latest.max(at.as_nanos());
                    }
                }
            }
        }
    }

    #[test]
    fn a_promised_moment_comes_true(refusals in 1usize..40, seconds in 0u64..100) {
        let mut core = Core::new();
        let mut now = Instant::ZERO;
        for _ in 0..refusals {
            now = match core.handle_request(1, now) {
                Permission::Go(permit) => {
                    core.handle_answer(permit, Answer::refused(1), now);
                    now + Duration::from_secs(seconds)
                }
                Permission::At(at) => at,
            };
        }
        // With nothing happening meanwhile, whoever comes when told goes.
        if let Permission::At(at) = core.handle_request(1, now) {
            prop_assert!(matches!(core.handle_request(1, at), Permission::Go(_)));
        }
    }
}

/// A provider that counts ids, or calls, against a bucket of each kind.
#[derive(Debug)]
struct Provider {
    tokens: Mutex<TokenBucket>,
    start: tokio::time::Instant,
    by_id: bool,
    done: Mutex<Vec<InstanceId>>,
    refused: Mutex<usize>,
}

impl Provider {
    fn new(rate: f64, burst: u32, by_id: bool) -> Arc<Self> {
        Arc::new(Self {
            tokens: Mutex::new(TokenBucket::new(rate, burst).unwrap()),
            start: tokio::time::Instant::now(),
            by_id,
            done: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    fn take(&self, operation: Operation) -> Result<(), CloudError> {
        let now = Instant::ZERO + self.start.elapsed();
        if self.tokens.lock().unwrap().take(now) {
            return Ok(());
        }
        *self.refused.lock().unwrap() += 1;
        let kind = ErrorKind::RateLimited { retry_after: None };
        Err(CloudError::new(operation, "provider", kind, "slow down"))
    }

    fn batch(
        &self,
        operation: Operation,
        ids: Vec<InstanceId>,
    ) -> Vec<(InstanceId, Result<(), CloudError>)> {
        let whole = (!self.by_id).then(|| self.take(operation).is_ok());
        let each = |id: InstanceId| {
            let done = match whole {
                None => self.take(operation),
                Some(true) => Ok(()),
                Some(false) => {
                    let kind = ErrorKind::RateLimited { retry_after: None };
                    Err(CloudError::new(operation, "provider", kind, "slow down"))
                }
            };
            if done.is_ok() {
                self.done.lock().unwrap().push(id.clone());
            }
            (id, done)
        };
        ids.into_iter().map(each).collect()
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Provider")
    }
}

#[async_trait]
impl InstanceSet for Provider {
    async fn create(&self, _: &CallContext, r: &CreateRequest) -> Result<Instance, CloudError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.take(Operation::Create)?;
        self.done.lock().unwrap().push(r.token.as_str().into());
        Ok(Instance::new(
            r.token.as_str(),
            "x",
            InstanceState::Running,
            r.tags.clone(),
        ))
    }

    async fn list(&self, _: &CallContext, _: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.take(Operation::List).map(|()| Vec::new())
    }

    async fn destroy(
        &self,
        _: &CallContext,
        ids: &[InstanceId],
    ) -> Vec<(InstanceId, Result<(), CloudError>)> {
        self.batch(Operation::Destroy, ids.to_vec())
    }

    async fn set_tags(
        &self,
        _: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> Vec<(InstanceId, Result<(), CloudError>)> {
        self.batch(
            Operation::SetTags,
            changes.iter().map(|(id, _)| id.clone()).collect(),
        )
    }

    async fn verify_host_key(
        &self,
        _: &CallContext,
        _: &InstanceId,
        _: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        Ok(HostKeyVerdict::Unsupported)
    }

    fn quota_group(&self, _: &InstanceType) -> Option<String> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
    }

    fn extensions(&self) -> Extensions<'_> {
        Extensions::default()
    }

    async fn stop(&self) {}
}

fn context(seconds: u64) -> CallContext {
    CallContext::new(Duration::from_secs(seconds), "")
}

fn ids(count: usize) -> Vec<InstanceId> {
    (0..count)
        .map(|i| InstanceId::from(format!("i-{i}")))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn only_what_was_refused_of_a_batch_is_sent_again() {
    let provider = Provider::new(10.0, 20, true);
    let set = Governor::new(Arc::clone(&provider), Learned::new());
    let changes: Vec<(InstanceId, Tags)> =
        ids(60).into_iter().map(|id| (id, Tags::new())).collect();
    let destroyed = set.destroy(&context(600), &ids(60)).await;
    let tagged = set.set_tags(&context(600), &changes).await;
    for batch in [destroyed, tagged] {
        let seen: BTreeSet<&InstanceId> = batch.iter().map(|(id, _)| id).collect();
        assert_eq!(
            (batch.len(), seen.len()),
            (60, 60),
            "one result for each id"
        );
        assert!(batch.iter().all(|(_, done)| done.is_ok()), "{batch:?}");
        let mut done = std::mem::take(&mut *provider.done.lock().unwrap());
        let rest = done.split_off(60.min(done.len()));
        provider.done.lock().unwrap().extend(rest);
        done.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        done.dedup();
        assert_eq!(done.len(), 60, "each id once");
    }
    assert!(provider.done.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_within_its_timeout_and_keeps_what_was_done() {
    let provider = Provider::new(1.0, 5, true);
    let set = Governor::new(Arc::clone(&provider), Learned::new());
    let start = tokio::time::Instant::now();
    let results = set.destroy(&context(3), &ids(50)).await;
    assert!(
        start.elapsed() <= Duration::from_millis(3001),
        "{:?}",
        start.elapsed()
    );
    let done = results.iter().filter(|(_, done)| done.is_ok()).count();
    assert_eq!(
        (results.len(), done),
        (50, provider.done.lock().unwrap().len())
    );
    assert!(done >= 5);
    for (_, result) in results.iter().filter(|(_, done)| done.is_err()) {
        let error = result.as_ref().unwrap_err();
        assert_eq!(
            (error.provider, error.outcome()),
            ("provider", Outcome::NotDone)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_creates_through_a_bucket_are_all_made_once_with_few_refusals() {
    let provider = Provider::new(5.0, 50, false);
    let learned = Learned::new();
    // Around it a hold-off, which must not take notice of what the governor already mended.
    let set = Arc::new(HoldOff::new(Governor::new(
        Arc::clone(&provider),
        learned.clone(),
    )));
    let calls: Vec<_> = (0..1000)
        .map(|i| {
            let set = Arc::clone(&set);
            tokio::spawn(async move {
                let mut request = CreateRequest::example();
                request.token = format!("token-{i}");
                // They do not all come at once.
                tokio::time::sleep(Duration::from_millis(i * 100)).await;
                set.create(&context(3600), &request).await.map(|_| ())
            })
        })
        .collect();
    let start = tokio::time::Instant::now();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    assert!((188.0..210.0).contains(&seconds), "{seconds}");
    let refused = *provider.refused.lock().unwrap();
    assert!(refused < 40, "{refused}");
    assert_eq!(provider.done.lock().unwrap().len(), 1000);
    let room = learned.head_room(Operation::Create);
    assert!((4.5..5.5).contains(&room.rate.unwrap()), "{room}");
    assert!(learned.to_string().contains("create: "), "{learned}");
    let mut registry = prometheus_client::registry::Registry::default();
    learned.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(
        text.contains("longshore_governor_tokens_per_second{operation=\"Create\"} "),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_not_let_through_in_time_was_not_sent_and_who_gives_up_leaves_no_trace() {
    let provider = Provider::new(0.01, 1, false);
    let set = Arc::new(Governor::new(Arc::clone(&provider), Learned::new()));
    set.list(&context(1), &Tags::new()).await.unwrap();
    assert_eq!(
        set.list(&context(2), &Tags::new())
            .await
            .unwrap_err()
            .provider,
        "provider"
    );
    let error = loop {
        let error = set.list(&context(1), &Tags::new()).await.unwrap_err();
        if error.provider == "governor" {
            break error;
        }
    };
    assert_eq!(error.source.downcast_ref(), Some(&Refused::NotInTime));
    for _ in 0..100 {
        let (context, tags) = (context(1_000_000), Tags::new());
        let call = set.list(&context, &tags);
        assert!(
            tokio::time::timeout(Duration::from_millis(1), call)
                .await
                .is_err()
        );
    }
    set.list(&context(1_000_000), &Tags::new()).await.unwrap();
}

/// What a batch was charged for and did not get is not waited for.
#[test]
fn a_batch_that_is_larger_than_the_bucket_goes_as_fast_as_the_provider_allows() {
    for (ids, size, rate) in [(1000_u32, 10, 10.0), (5000, 100, 20.0), (300, 5, 0.5)] {
        let mut bucket = TokenBucket::new(rate, size).unwrap();
        let (mut core, mut now, mut left, mut calls) = (Core::new(), Instant::ZERO, ids, 0);
        while left > 0 {
            match core.handle_request(left, now) {
                Permission::At(at) => now = at,
                Permission::Go(permit) => {
                    calls += 1;
                    now = now + Duration::from_millis(50);
                    let passed = (0..left).take_while(|_| bucket.take(now)).count();
                    let passed = u32::try_from(passed).unwrap();
                    left -= passed;
                    let answer = match left {
                        0 => Answer::passed(passed),
                        _ => Answer::refused(left).with_passed(passed),
                    };
                    core.handle_answer(permit, answer, now);
                }
            }
        }
        let took = now.since(Instant::ZERO).as_secs_f64();
        let least = f64::from(ids - size) / rate;
        assert!(
            took < 1.5 * least + 10.0,
            "{ids} of {size} + {rate}/s: {took} s, not {least} s"
        );
        assert!(calls <= ids, "{calls} calls");
    }
}

/// One batch that was refused in part does not make the provider count ids for ever.
#[test]
fn a_large_batch_that_passes_whole_is_not_paid_off_for_hours() {
    let (mut core, mut now) = (Core::new(), Instant::ZERO);
    let go = |core: &mut Core, now: &mut Instant, tokens| {
        loop {
            match core.handle_request(tokens, *now) {
                Permission::Go(permit) => return permit,
                Permission::At(at) => *now = at,
            }
        }
    };
    let permit = go(&mut core, &mut now, 1);
    core.handle_answer(permit, Answer::refused(1), now);
    let permit = go(&mut core, &mut now, 10_000);
    core.handle_answer(permit, Answer::passed(10_000), now);
    let begun = now;
    go(&mut core, &mut now, 1);
    assert!(
        now.since(begun) < Duration::from_secs(10),
        "{:?}",
        now.since(begun)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_without_time_was_not_sent_and_is_not_counted() {
    let provider = Provider::new(1.0, 1, false);
    let learned = Learned::new();
    let set = Governor::new(Arc::clone(&provider), learned.clone());
    let error = set.list(&context(0), &Tags::new()).await.unwrap_err();
    assert_eq!(error.source.downcast_ref(), Some(&Refused::NotInTime));
    assert_eq!(learned.head_room(Operation::List).passed, 0);
}
