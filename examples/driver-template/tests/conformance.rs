//! The promises of a driver, against the emulator: minutes of its time take none of ours.

mod emulator;

use std::sync::Arc;

use emulator::Emulator;
use longshore_cloud::{CreateRequest, Driver as _, InstanceSet};
use longshore_conformance::{Promise, Subject, Suite};
use longshore_driver_acme::{AcmeDriver, Api};
use serde_json::json;

/// What is not looked at, and why. A promise that is missing here is kept, or the test fails.
const NOT_RUN: &[(Promise, &str)] = &[
    (
        Promise::ExtensionsAreForwarded,
        "this is a driver, not a layer",
    ),
    (
        Promise::ConsistentListingShowsAllThatWasDone,
        "listings lag, so consistent_listing is not declared",
    ),
    (
        Promise::HostKeysAreJudged,
        "the provider does not say which key a server has",
    ),
    (
        Promise::PriceHistoryIsSorted,
        "the provider has no history of prices",
    ),
    (
        Promise::InterruptionsAreOfListedInstances,
        "the provider gives no notice",
    ),
];

async fn open(api: Arc<Emulator>) -> Result<Arc<dyn InstanceSet>, Error> {
    let driver = AcmeDriver::new(move |_| {
        let api: Arc<dyn Api> = api.clone();
        Ok(api)
    });
    let parameters = json!({ "region": "north-1", "project": "test", "token_file": "/token" });
    Ok(Arc::from(driver.open(&parameters).await?))
}

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::test(start_paused = true)]
async fn the_driver_keeps_its_promises() {
    let api = Arc::new(Emulator::default());
    let mut request = CreateRequest::example();
    request.instance_type.provider_type = "s1.small".into();
    request.image = "debian".into();
    let set = open(api.clone()).await.unwrap();
    let again = api.clone();
    let subject = Subject::new(set, request)
        .with_name("Acme(north-1)")
        .with_instances_at_once(1_100)
        .with_unknown_ids(|n| format!("srv-unknown-{n}").into())
        .with_reopen(move || open(again.clone()));

    let report = Suite::new().run(&subject).await;
    eprintln!("{report}");
    for (promise, why) in NOT_RUN {
        eprintln!("{promise} is not run: {why}");
    }
    report.assert_kept();
    let not_run: Vec<_> = report.not_run().map(|finding| finding.promise).collect();
    let expected: Vec<_> = NOT_RUN.iter().map(|(promise, _)| *promise).collect();
    assert_eq!(not_run, expected);
    // The emulator knows better than any listing.
    assert_eq!(api.state().count(), 0);
}
