//! The suite over every layer around the fake cloud, and over all of them.

mod common;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::fake::{self, Shape};
use common::not_run;
use longshore_cloud::{InstanceSet, Tags};
use longshore_conformance::{Promise, Suite};
use longshore_fakecloud::FakeCloud;
use longshore_throttle::{
    Chaos, DefaultTags, Faults, Filter, HoldOff, InFlight, InFlightLimits, Instrument, Metrics,
    Rate, RateLimit, Stack,
};

/// Everything is kept by a layer around a fake cloud, except what one page more than it may have
/// would need.
async fn keeps_everything<S: InstanceSet + fmt::Display + 'static>(
    name: &str,
    wrap: impl Fn(FakeCloud) -> S + Send + Sync + 'static,
) {
    let shape = Shape::full();
    let cloud = fake::cloud(&shape);
    let subject = fake::around(&cloud, &shape, move |cloud| Arc::new(wrap(cloud)))
        .with_inner(Arc::new(cloud.reopen()))
        .with_name(name);
    let report = Suite::new().run(&subject).await;
    eprintln!("{report}");
    report.assert_kept();
    assert_eq!(not_run(&report), [Promise::ListsMoreThanOnePage]);
    assert_eq!(fake::alive(&cloud), []);
}

fn tags(key: &str, value: &str) -> Tags {
    [(key.to_owned(), value.to_owned())].into()
}

#[tokio::test(start_paused = true)]
async fn instrument() {
    keeps_everything("Instrument(", |cloud| {
        Instrument::new(cloud, Metrics::new())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn in_flight() {
    keeps_everything("InFlight(", |cloud| {
        InFlight::new(cloud, InFlightLimits::all(1))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn rate() {
    keeps_everything("Rate(", |cloud| Rate::new(cloud, RateLimit::new(1.0))).await;
}

#[tokio::test(start_paused = true)]
async fn hold_off() {
    keeps_everything("HoldOff(", HoldOff::new).await;
}

#[tokio::test(start_paused = true)]
async fn default_tags() {
    keeps_everything("DefaultTags(", |cloud| {
        DefaultTags::new(cloud, tags("team", "b"))
    })
    .await;
}

/// The tag that the filter wants is in the request.
#[tokio::test(start_paused = true)]
async fn filter() {
    keeps_everything("Filter(", |cloud| {
        Filter::new(cloud, tags("ExampleInstanceSetID", "set"))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn chaos_without_faults() {
    keeps_everything("Chaos(", |cloud| Chaos::new(cloud, Faults::new(3))).await;
}

#[tokio::test(start_paused = true)]
async fn all_of_them() {
    keeps_everything("Filter(", |cloud| {
        Stack::new(cloud)
            .chaos(Faults::new(3))
            .instrument(Metrics::new())
            .in_flight(InFlightLimits::all(3))
            .rate(RateLimit::new(5.0))
            .hold_off()
            .default_tags(tags("ExampleInstanceSetID", "set"))
            .filter(tags("ExampleInstanceSetID", "set"))
            .build()
    })
    .await;
}

/// Other people's instances stay what they are, though the layer is the one thing between them
/// and the suite.
#[tokio::test(start_paused = true)]
async fn other_instances_in_the_account_are_not_touched() {
    let shape = Shape::full();
    let cloud = fake::cloud(&shape);
    let context = longshore_cloud::CallContext::new(Duration::from_secs(10), "others");
    let mut request = fake::request();
    request.tags = tags("ExampleInstanceSetID", "set");
    let others = cloud.create(&context, &request).await.unwrap();
    let report = Suite::new().run(&fake::subject(&cloud, &shape)).await;
    report.assert_kept();
    assert_eq!(fake::alive(&cloud), [others.id]);
}
