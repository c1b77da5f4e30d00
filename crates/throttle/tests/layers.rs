//! Hold-off, default tags, filter, faults and metrics.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

include!("support/stub.rs");

use std::sync::Arc;

use longshore_throttle::*;
use prometheus_client::{encoding::text, registry::Registry};

fn tags(all: &[(&str, &str)]) -> Tags {
    all.iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

fn context() -> CallContext {
    CallContext::example()
}

async fn list(set: &dyn InstanceSet) -> Result<Vec<Instance>, CloudError> {
    set.list(&context(), &Tags::new()).await
}

fn left(error: &CloudError) -> Duration {
    match error.kind {
        ErrorKind::RateLimited {
            retry_after: Some(left),
        } => left,
        _ => panic!("{error:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_rate_limit_calls_of_that_kind_fail_at_once_until_the_time_has_come() {
    let retry_after = Some(Duration::from_secs(30));
    let driver = Arc::new(Stub::refusing(ErrorKind::RateLimited { retry_after }));
    let set = HoldOff::new(Arc::clone(&driver));
    assert_eq!(list(&set).await.unwrap_err().provider, "stub");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let error = list(&set).await.unwrap_err();
    assert_eq!(
        (left(&error), error.provider),
        (Duration::from_secs(20), "hold-off")
    );
    assert_eq!(error.source.downcast_ref(), Some(&Refused::HeldOff));
    assert_eq!(driver.heard().len(), 1);
    // Another kind is not concerned.
    assert_eq!(
        set.create(&context(), &CreateRequest::example())
            .await
            .unwrap_err()
            .provider,
        "stub"
    );
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(list(&set).await.unwrap_err().provider, "stub");
}

#[tokio::test(start_paused = true)]
async fn quota_and_capacity_hold_nothing_off() {
    for kind in [
        ErrorKind::QuotaExceeded(Scope::Everything),
        ErrorKind::NoCapacity(Scope::Everything),
        ErrorKind::Other,
    ] {
        let set = HoldOff::new(Stub::refusing(kind));
        for _ in 0..3 {
            assert_eq!(list(&set).await.unwrap_err().provider, "stub");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_inner_layer_kept_back_holds_nothing_off() {
    let limit = RateLimit::new(1.0).with_waiting(0);
    let set = HoldOff::new(Rate::new(Stub::default(), limit));
    assert!(list(&set).await.is_ok());
    for _ in 0..3 {
        assert_eq!(list(&set).await.unwrap_err().provider, "rate");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(list(&set).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn default_tags_are_given_to_creates_only_and_override_nothing() {
    let driver = Arc::new(Stub::default());
    let set = DefaultTags::new(
        Arc::clone(&driver),
        tags(&[("team", "a"), ("set", "stolen")]),
    );
    let mut request = CreateRequest::example();
    request.tags = tags(&[("set", "ours")]);
    let made = set.create(&context(), &request).await.unwrap();
    assert_eq!(made.tags, tags(&[("team", "a"), ("set", "ours")]));
    set.list(&context(), &tags(&[("x", "y")])).await.unwrap();
    set.set_tags(&context(), &[(made.id, tags(&[("x", "y")]))])
        .await;
    assert!(
        driver.heard()[1..]
            .iter()
            .all(|call| !call.contains("team")),
        "{:?}",
        driver.heard()
    );
}

fn shared_account(ignores_filter: bool) -> Arc<Stub> {
    let mut driver = Stub::default()
        .with_instance("i-ours", &[("set", "ours"), ("kind", "a")])
        .with_instance("i-theirs", &[("set", "theirs")])
        .with_instance("i-bare", &[]);
    driver.ignores_filter = ignores_filter;
    Arc::new(driver)
}

#[tokio::test(start_paused = true)]
async fn only_ours_are_listed_whatever_the_driver_does() {
    for ignores_filter in [false, true] {
        let set = Filter::new(shared_account(ignores_filter), tags(&[("set", "ours")]));
        let ids = |all: Vec<Instance>| -> Vec<String> {
            all.iter().map(|instance| instance.id.to_string()).collect()
        };
        assert_eq!(ids(list(&set).await.unwrap()), ["i-ours"]);
        for (wanted, expected) in [
            (tags(&[("kind", "a")]), vec!["i-ours"]),
            (tags(&[("kind", "b")]), vec![]),
            (tags(&[("set", "theirs")]), vec![]),
        ] {
            assert_eq!(
                ids(set.list(&context(), &wanted).await.unwrap()),
                expected,
                "{wanted:?}"
            );
        }
        let notices = set.extensions().interruption_notices.unwrap();
        let notices = notices.interruptions(&context()).await.unwrap();
        assert_eq!(notices, [Interruption::new("i-ours", None)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_instance_is_never_touched() {
    for seen_before in [false, true] {
        let driver = shared_account(true);
        let set = Filter::new(Arc::clone(&driver), tags(&[("set", "ours")]));
        if seen_before {
            list(&set).await.unwrap();
        }
        let key = HostKey {
            algorithm: "a".into(),
            blob: Vec::new(),
        };
        let extensions = set.extensions();
        for id in ["i-theirs", "i-bare"].map(InstanceId::from) {
            let change = (id.clone(), tags(&[("set", "ours")]));
            let span = Duration::from_secs(1);
            let errors = [
                set.destroy(&context(), std::slice::from_ref(&id))
                    .await
                    .remove(0)
                    .1
                    .unwrap_err(),
                set.set_tags(&context(), &[change])
                    .await
                    .remove(0)
                    .1
                    .unwrap_err(),
                set.verify_host_key(&context(), &id, &key)
                    .await
                    .unwrap_err(),
                extensions
                    .console_output
                    .unwrap()
                    .console_output(&context(), &id, 1)
                    .await
                    .unwrap_err(),
                extensions
                    .price_history
                    .unwrap()
                    .price_history(&context(), &id, span)
                    .await
                    .unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind, ErrorKind::Denied, "{}", error.chain());
                assert!(error.chain().contains(id.as_str()));
            }
        }
        assert!(
            driver.heard().iter().all(|call| call.contains(" list ")),
            "{:?}",
            driver.heard()
        );
        assert_eq!(driver.heard().len(), 1, "one listing is enough");
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_sorted_out_id_by_id() {
    let driver = shared_account(false);
    let set = Filter::new(Arc::clone(&driver), tags(&[("set", "ours")]));
    let ids = ["i-ours", "i-theirs", "i-nowhere"].map(InstanceId::from);
    let steal = |id: &InstanceId| (id.clone(), tags(&[("set", "theirs")]));
    let changes: Vec<_> = ids.iter().map(steal).collect();
    for (id, done) in set.set_tags(&context(), &changes).await {
        let expected = match id.as_str() {
            "i-ours" => ErrorKind::InvalidRequest,
            "i-theirs" => ErrorKind::Denied,
            _ => ErrorKind::NotFound,
        };
        assert_eq!(done.unwrap_err().kind, expected, "{id}");
    }
    let results = set.destroy(&context(), &ids).await;
    let refused: Vec<&str> = results
        .iter()
        .filter(|(_, done)| done.is_err())
        .map(|(id, _)| id.as_str())
        .collect();
    assert_eq!((results.len(), refused), (3, vec!["i-theirs"]));
    let destroys: Vec<String> = driver
        .heard()
        .into_iter()
        .filter(|call| call.contains("destroy"))
        .collect();
    assert_eq!(destroys, [r#"req-example destroy ["i-ours"]"#]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_up_is_not_touched() {
    // A look-up that times out has touched nothing either.
    let driver = Arc::new(Stub::refusing(ErrorKind::TimedOut));
    let set = Filter::new(Arc::clone(&driver), tags(&[("set", "ours")]));
    let error = set
        .destroy(&context(), &["i-1".into()])
        .await
        .remove(0)
        .1
        .unwrap_err();
    assert_eq!(
        (error.operation, error.kind.clone(), error.outcome()),
        (Operation::Destroy, ErrorKind::TimedOut, Outcome::NotDone)
    );
    assert!(
        error.chain().contains("could not find out"),
        "{}",
        error.chain()
    );
    assert_eq!(driver.heard().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_made_here_is_ours_before_any_listing_shows_its_tags() {
    let driver = shared_account(true);
    let set = Filter::new(Arc::clone(&driver), tags(&[("set", "ours")]));
    let mut request = CreateRequest::example();
    let made = set.create(&context(), &request).await.unwrap();
    assert_eq!(made.tags["set"], "ours");
    driver
        .instances
        .lock()
        .unwrap()
        .get_mut(&made.id)
        .unwrap()
        .clear();
    list(&set).await.unwrap();
    assert!(
        set.destroy(&context(), &[made.id])
            .await
            .remove(0)
            .1
            .is_ok()
    );
    assert!(driver.heard().last().unwrap().contains("destroy"));
    request.tags = tags(&[("set", "other")]);
    let error = set.create(&context(), &request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
}

#[tokio::test(start_paused = true)]
async fn faults_come_before_or_after_acting_as_they_say() {
    let request = CreateRequest::example();
    let none = Faults::new(5);
    for (faults, outcome, acted, seconds) in [
        (
            none.clone().with_before(1.0, ErrorKind::NotFound),
            Some(Outcome::NotDone),
            0,
            0,
        ),
        (none.clone().with_after(1.0), Some(Outcome::Unknown), 1, 0),
        (none.clone().with_lost(1.0), Some(Outcome::Unknown), 1, 10),
        (none.clone(), None, 1, 0),
    ] {
        let driver = Arc::new(Stub::default());
        let set = Chaos::new(Arc::clone(&driver), faults);
        let start = tokio::time::Instant::now();
        let error = set.create(&context(), &request).await.err();
        assert_eq!(error.map(|error| error.outcome()), outcome);
        assert_eq!(driver.heard().len(), acted);
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    let driver = Arc::new(Stub::default());
    let late = none.with_delay(Duration::from_secs(1_000_000));
    let set = Chaos::new(Arc::clone(&driver), late);
    let error = set.create(&context(), &request).await.unwrap_err();
    assert_eq!((error.kind, driver.heard().len()), (ErrorKind::TimedOut, 0));
}

fn encoded(metrics: &Metrics) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    text
}

#[tokio::test(start_paused = true)]
async fn metrics_have_the_old_names_and_true_histograms() {
    let metrics = Metrics::new();
    let zero = encoded(&metrics);
    for operation in ["Create", "List", "Destroy", "SetTags"] {
        for error in 0..2 {
            let series = format!("{{operation=\"{operation}\",error=\"{error}\"}} 0\n");
            assert!(zero.contains(&format!("arvados_dispatchcloud_driver_operations{series}")));
        }
    }
    let good = Instrument::new(Stub::taking(Duration::from_millis(300)), metrics.clone());
    let quota = ErrorKind::QuotaExceeded(Scope::Everything);
    let bad = Instrument::new(Stub::refusing(quota), metrics.clone());
    let ids = ["a", "b", "c"].map(InstanceId::from);
    good.destroy(&context(), &ids).await;
    bad.destroy(&context(), &ids).await;
    bad.create(&context(), &CreateRequest::example())
        .await
        .unwrap_err();
    let watched = tokio::time::timeout(Duration::from_millis(10), list(&good)).await;
    assert!(watched.is_err());
    let text = encoded(&metrics);
    for line in [
        "# TYPE arvados_dispatchcloud_driver_operations counter",
        r#"arvados_dispatchcloud_driver_operations{operation="Destroy",error="0"} 1"#,
        r#"arvados_dispatchcloud_driver_operations{operation="Destroy",error="1"} 1"#,
        r#"arvados_dispatchcloud_driver_operations{operation="Create",error="1"} 1"#,
        r#"arvados_dispatchcloud_driver_operations{operation="SetTags",error="0"} 0"#,
        r#"longshore_driver_calls_total{operation="Create",outcome="quota"} 1"#,
        r#"longshore_driver_calls_total{operation="List",outcome="dropped"} 1"#,
        r#"longshore_driver_calls_under_way{operation="List"} 0"#,
        "# TYPE longshore_driver_call_seconds histogram",
        r#"longshore_driver_call_seconds_bucket{le="0.25",operation="Destroy"} 1"#,
        r#"longshore_driver_call_seconds_bucket{le="0.5",operation="Destroy"} 2"#,
        r#"longshore_driver_call_seconds_count{operation="Destroy"} 2"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_extensions_are_counted() {
    let metrics = Metrics::new();
    let set = Instrument::new(Stub::default(), metrics.clone());
    let (extensions, id) = (set.extensions(), InstanceId::from("i-1"));
    let prices = extensions.price_history.unwrap();
    let console = extensions.console_output.unwrap();
    let notices = extensions.interruption_notices.unwrap();
    let span = Duration::from_secs(1);
    for count in 1..4 {
        match count {
            1 => drop(prices.price_history(&context(), &id, span).await.unwrap()),
            2 => drop(console.console_output(&context(), &id, 1).await.unwrap()),
            _ => drop(notices.interruptions(&context()).await.unwrap()),
        }
        let line = r#"longshore_driver_calls_total{operation="Other",outcome="ok"}"#;
        let line = format!("{line} {count}");
        assert!(encoded(&metrics).lines().any(|l| l == line), "{line}");
    }
}
