//! Every call and every extension reaches what a layer wraps, with the same arguments.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

include!("support/stub.rs");

use std::sync::Arc;

use longshore_throttle::*;

/// Makes every call there is and says what came back.
async fn call_everything(set: &dyn InstanceSet) -> Vec<String> {
    let context = CallContext::new(Duration::from_secs(77), "req-7");
    let request = CreateRequest::example();
    let id = InstanceId::from(request.token.as_str());
    let key = HostKey {
        algorithm: "ssh-ed25519".into(),
        blob: vec![1, 2, 3],
    };
    let tags = Tags::from([("a".to_owned(), "b".to_owned())]);
    let extensions = set.extensions();
    let prices = extensions.price_history.unwrap();
    let console = extensions.console_output.unwrap();
    let notices = extensions.interruption_notices.unwrap();
    let span = Duration::from_secs(5);
    let answers = vec![
        format!("{:?}", set.create(&context, &request).await),
        format!("{:?}", set.list(&context, &request.tags).await),
        format!("{:?}", set.set_tags(&context, &[(id.clone(), tags)]).await),
        format!("{:?}", set.verify_host_key(&context, &id, &key).await),
        format!("{:?}", prices.price_history(&context, &id, span).await),
        format!("{:?}", console.console_output(&context, &id, 99).await),
        format!("{:?}", notices.interruptions(&context).await),
        format!(
            "{:?}",
            set.destroy(&context, std::slice::from_ref(&id)).await
        ),
        format!("{:?}", set.destroy(&context, &[]).await),
        format!("{:?}", set.set_tags(&context, &[]).await),
        format!("{:?}", set.quota_group(&request.instance_type)),
        format!("{:?}", set.capabilities()),
    ];
    set.stop().await;
    answers
}

fn layers(driver: &Arc<Stub>) -> Vec<Box<dyn InstanceSet>> {
    let driver = || Arc::clone(driver);
    vec![
        Box::new(Instrument::new(driver(), Metrics::new())),
        Box::new(InFlight::new(driver(), InFlightLimits::default())),
        Box::new(InFlight::new(driver(), InFlightLimits::all(1))),
        Box::new(Rate::new(driver(), RateLimit::new(0.0))),
        Box::new(Rate::new(driver(), RateLimit::new(1.0).with_burst(100))),
        Box::new(governor::Governor::new(driver(), governor::Learned::new())),
        Box::new(HoldOff::new(driver())),
        Box::new(DefaultTags::new(driver(), Tags::new())),
        Box::new(Filter::new(driver(), Tags::new())),
        Box::new(Chaos::new(driver(), Faults::new(1))),
        Box::new(InFlight::new(
            Box::new(driver()) as Box<dyn InstanceSet>,
            InFlightLimits::all(3),
        )),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_call_reaches_the_driver_unchanged() {
    let bare = Stub::default();
    let expected = call_everything(&bare).await;
    assert_eq!(bare.heard().len(), 10);
    for i in 0..layers(&Arc::default()).len() {
        let driver = Arc::new(Stub::default());
        let layer = layers(&driver).swap_remove(i);
        assert_eq!(call_everything(&layer).await, expected, "{layer}");
        assert_eq!(driver.heard(), bare.heard(), "{layer}");
        assert_eq!(driver.timeouts(), bare.timeouts(), "{layer}");
        assert!(
            driver.stopped.load(std::sync::atomic::Ordering::SeqCst),
            "{layer}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn errors_come_back_unchanged() {
    for kind in [
        ErrorKind::QuotaExceeded(Scope::Everything),
        ErrorKind::NoCapacity(Scope::Zone("a".into())),
        ErrorKind::NotFound,
        ErrorKind::Denied,
        ErrorKind::InvalidRequest,
        ErrorKind::Unsupported,
        ErrorKind::TimedOut,
        ErrorKind::Other,
    ] {
        let bare = Stub::refusing(kind.clone());
        // What a filter has never seen it does not touch, so it is left out here.
        let expected = call_everything(&bare).await;
        let driver = Arc::new(Stub::refusing(kind));
        for layer in layers(&driver) {
            if !layer.to_string().starts_with("Filter") {
                assert_eq!(call_everything(&layer).await, expected, "{layer}");
            }
        }
    }
}

#[test]
fn powers_that_are_not_there_are_not_invented() {
    let driver = Arc::new(Stub {
        plain: true,
        ..Stub::default()
    });
    for layer in layers(&driver) {
        let nothing = format!("{:?}", Extensions::default());
        assert_eq!(format!("{:?}", layer.extensions()), nothing, "{layer}");
    }
}

#[tokio::test(start_paused = true)]
async fn extensions_are_counted_and_limited_as_other_calls() {
    let driver = Arc::new(Stub::taking(Duration::from_secs(10)));
    let limits = InFlightLimits::all(0).with(Operation::Other, 1);
    let set = InFlight::new(driver, limits);
    let context = CallContext::new(Duration::from_secs(5), "");
    let extensions = set.extensions();
    let (notices, console) = (
        extensions.interruption_notices.unwrap(),
        extensions.console_output.unwrap(),
    );
    let id = "i-1".into();
    let (_, second) = tokio::join!(
        notices.interruptions(&context),
        console.console_output(&context, &id, 1)
    );
    let error = second.unwrap_err();
    assert_eq!(error.source.downcast_ref(), Some(&Refused::NotInTime));
    assert_eq!(error.operation, Operation::Other);
}

#[test]
fn the_whole_stack_prints_itself() {
    let tags = |name: &str| Tags::from([(name.to_owned(), "x".to_owned())]);
    let set = Stack::new(Stub::default())
        .rate(RateLimit::new(5.0))
        .filter(tags("set"))
        .chaos(Faults::new(9))
        .in_flight(
            InFlightLimits::all(0)
                .with(Operation::Create, 2)
                .with(Operation::Destroy, 4),
        )
        .default_tags(tags("team"))
        .instrument(Metrics::new())
        .hold_off()
        .build();
    assert_eq!(
        set.to_string(),
        "Filter(set=x, DefaultTags(team=x, HoldOff(Rate(5/s, InFlight(destroy 4, create 2, \
         Held(Instrument(Chaos(seed 9, Stub))))))))"
    );
    assert_eq!(Stack::new(Stub::default()).build().to_string(), "Stub");
    assert_eq!(
        Rate::new(
            InFlight::new(Stub::default(), InFlightLimits::default()),
            RateLimit::new(0.0)
        )
        .to_string(),
        "Rate(no limit, InFlight(no limit, Stub))"
    );
}
