//! The suite over the fake cloud, in several shapes.

mod common;

use std::time::Duration;

use common::fake::{self, Shape};
use common::not_run;
use longshore_conformance::{Finding, Promise, Suite};
use longshore_fakecloud::{CallKind, RateLimit};

async fn keeps_everything_but(shape: Shape, left_out: &[Promise]) {
    let cloud = fake::cloud(&shape);
    let mut told = Vec::new();
    let tell = |finding: &Finding| told.push(finding.clone());
    let subject = fake::subject(&cloud, &shape);
    let report = Suite::new().run_and_tell(&subject, tell).await;
    report.assert_kept();
    assert_eq!(told, report.findings);
    assert_eq!(not_run(&report), left_out);
    assert_eq!(fake::alive(&cloud), []);
}

#[tokio::test(start_paused = true)]
async fn with_every_capability() {
    let mut shape = Shape::full();
    shape.at_once = 1_100;
    keeps_everything_but(shape, &[Promise::ExtensionsAreForwarded]).await;
}

#[tokio::test(start_paused = true)]
async fn without_any_capability_and_without_extensions() {
    keeps_everything_but(Shape::bare(), WITHOUT_CAPABILITIES).await;
}

const WITHOUT_CAPABILITIES: &[Promise] = &[
    Promise::ExtensionsAreForwarded,
    Promise::RepeatedCreateMakesNothingNew,
    Promise::ConcurrentRepeatsMakeOneInstance,
    Promise::DroppedCreateCanBeRepeated,
    Promise::ListsMoreThanOnePage,
    Promise::ConsistentListingShowsAllThatWasDone,
    Promise::HostKeysAreJudged,
    Promise::PriceHistoryIsSorted,
    Promise::ConsoleOutputKeepsItsLimit,
    Promise::InterruptionsAreOfListedInstances,
];

#[tokio::test(start_paused = true)]
async fn slow_and_late() {
    let mut shape = Shape::bare();
    let seconds = Duration::from_secs;
    shape.settings = shape
        .settings
        .with_latency(longshore_fakecloud::Latency::new(seconds(2), seconds(3)))
        .with_listing_lag(seconds(40))
        .with_tag_delay(seconds(30))
        .with_stopping(seconds(90));
    shape.appear = seconds(120);
    keeps_everything_but(shape, WITHOUT_CAPABILITIES).await;
}

#[tokio::test(start_paused = true)]
async fn with_small_pages_small_batches_and_zones() {
    let mut shape = Shape::full();
    let capabilities = shape.settings.capabilities.clone();
    shape.settings = shape
        .settings
        .with_page_size(2)
        .with_capabilities(capabilities.with_destroy_batch(2).with_tag_batch(1))
        .with_zone("a")
        .with_zone("b");
    let left_out = [
        Promise::ExtensionsAreForwarded,
        Promise::ListsMoreThanOnePage,
    ];
    keeps_everything_but(shape, &left_out).await;
}

/// What a provider refuses for its rate is done a little later; no promise is broken by it.
#[tokio::test(start_paused = true)]
async fn with_few_calls_allowed() {
    let mut shape = Shape::full();
    for kind in CallKind::ALL {
        let mut limit = RateLimit::every(1, Duration::from_millis(1500));
        if kind == CallKind::SetTags {
            limit = RateLimit::every(20, Duration::from_millis(100)).per_id();
        }
        if kind == CallKind::List {
            limit = limit.silent();
        }
        shape.settings = shape.settings.with_rate(kind, limit);
    }
    let left_out = [
        Promise::ExtensionsAreForwarded,
        Promise::ListsMoreThanOnePage,
    ];
    keeps_everything_but(shape, &left_out).await;
}
