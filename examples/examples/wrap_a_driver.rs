//! The layers of `longshore-throttle` around a driver, each of them seen at work. The driver is the
//! fake cloud, and the time is tokio's paused time, so that a minute of limits takes no time.
//!
//! It fails if a layer does not do what is said here.
#![expect(clippy::print_stdout, reason = "it is a program that shows something")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::*;
use longshore_fakecloud::{self as fakecloud, CallKind, FakeCloud, Fault, Latency, Rule, Settings};
use longshore_throttle::governor::Learned;
use longshore_throttle::{InFlightLimits, Metrics, RateLimit, Refused, Stack};
use longshore_types::InstanceId;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio::time::Instant;

type Done = Result<(), Box<dyn Error>>;

const CREATE_TAKES: Duration = Duration::from_secs(3);
const CREATES_AT_ONCE: usize = 4;
const RETRY_AFTER: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Done {
    let latency = Latency::new(CREATE_TAKES, Duration::ZERO);
    let settings = Settings::instant().with_latency_of(CallKind::Create, latency);
    let cloud = FakeCloud::tokio(settings, 1);
    let (mut registry, metrics) = (Registry::default(), Metrics::new());
    metrics.register(&mut registry);
    // In whatever order they are named, the stack puts the layers in the right one.
    let set = Stack::new(cloud.clone())
        .filter(tags("ExampleInstanceSetID", "set"))
        .default_tags(tags("team", "genomics"))
        .hold_off()
        .rate(RateLimit::new(5.0).with_burst(5))
        .in_flight(InFlightLimits::default().with(Operation::Create, CREATES_AT_ONCE))
        .instrument(metrics)
        .build();
    println!("{set}\n");

    rate(&set).await?;
    let ours = in_flight_and_tags(&set).await?;
    filter(&set, &cloud).await?;
    hold_off(&set, &cloud, &ours).await?;
    counted(&registry)?;
    governor().await
}

/// Fifteen calls at once, where five may go at once and five more each second.
async fn rate(set: &Arc<dyn InstanceSet>) -> Done {
    let began = Instant::now();
    list_often(set, 15).await?;
    let took = began.elapsed();
    println!("rate: 15 listings at once took {took:.1?}, at 5/s after a burst of 5");
    check(
        about(took, Duration::from_secs(2)),
        "10 of them wait for 2 s",
    )
}

/// Eight creates at once, where four may be under way: two rounds. All instances have the tags.
async fn in_flight_and_tags(set: &Arc<dyn InstanceSet>) -> Result<Vec<InstanceId>, Box<dyn Error>> {
    let began = Instant::now();
    let mut creates = JoinSet::new();
    for number in 0..2 * CREATES_AT_ONCE {
        let (set, mut request) = (Arc::clone(set), CreateRequest::example());
        request.token = format!("token-{number}");
        creates.spawn(async move { set.create(&context(), &request).await });
    }
    let mut ids = Vec::new();
    while let Some(made) = creates.join_next().await {
        let made = made??;
        check(
            made.has_tags(&tags("team", "genomics")),
            "new instances have the default tag",
        )?;
        ids.push(made.id);
    }
    let (count, took) = (ids.len(), began.elapsed());
    println!("in-flight: {count} creates of {CREATE_TAKES:?}, 4 at a time, took {took:.1?}");
    check(
        took >= 2 * CREATE_TAKES && took < 3 * CREATE_TAKES,
        "there are two rounds of creates",
    )?;
    println!("default tags: each of the {count} has team=genomics");
    Ok(ids)
}

/// An instance of somebody else in the same account: not shown, and not touched.
async fn filter(set: &Arc<dyn InstanceSet>, cloud: &FakeCloud) -> Done {
    let mut request = CreateRequest::example();
    request.tags = tags("owner", "somebody else");
    request.token = "foreign".into();
    let foreign = cloud.create(&context(), &request).await?.id;
    let shown = set.list(&context(), &Tags::new()).await?;
    check(
        shown.len() == 8 && shown.iter().all(|instance| instance.id != foreign),
        "a foreign instance is not shown",
    )?;
    let refused = only(
        set.destroy(&context(), std::slice::from_ref(&foreign))
            .await,
    )?;
    let Err(refused) = refused else {
        return Err("a foreign instance must not be destroyed".into());
    };
    println!("filter: {}", refused.chain());
    check(
        refused.kind == ErrorKind::Denied && cloud.counts(CallKind::Destroy).begun == 0,
        "the refusal never reached the provider",
    )
}

/// The provider refuses one call for its rate: the next ones are not sent until its time has come.
async fn hold_off(set: &Arc<dyn InstanceSet>, cloud: &FakeCloud, ours: &[InstanceId]) -> Done {
    let kind = ErrorKind::RateLimited {
        retry_after: Some(RETRY_AFTER),
    };
    cloud.inject(Rule::new(CallKind::SetTags, Fault::Refuse(kind)).times(1));
    let id = ours.first().ok_or("there are instances")?;
    let change = [(id.clone(), tags("step", "2"))];
    let tag = async || only(set.set_tags(&context(), &change).await);

    let by_provider = tag().await?.err().ok_or("the provider refuses the first")?;
    let by_layer = tag().await?.err().ok_or("the layer refuses the second")?;
    println!("hold-off: first  {}", by_provider.chain());
    println!("hold-off: second {}", by_layer.chain());
    check(
        by_layer.source.downcast_ref() == Some(&Refused::HeldOff),
        "the second call is held off",
    )?;
    let begun = cloud.counts(CallKind::SetTags).begun;
    check(begun == 1, "the second call was not sent")?;
    tokio::time::sleep(RETRY_AFTER).await;
    tag().await??;
    println!("hold-off: after {RETRY_AFTER:?} the third call goes");
    Ok(())
}

/// What the registry of the caller says about all of that: calls that were sent, no others.
fn counted(registry: &Registry) -> Done {
    let mut all = String::new();
    text::encode(&mut all, registry)?;
    println!("\nmetrics:");
    let calls = all
        .lines()
        .filter(|line| line.starts_with("longshore_driver_calls_total"));
    for line in calls.filter(|line| !line.ends_with(" 0")) {
        println!("  {line}");
    }
    for (operation, outcome, count) in [
        ("Create", "ok", 8),
        ("SetTags", "rate_limited", 1),
        ("SetTags", "ok", 1),
    ] {
        let labels = format!("operation=\"{operation}\",outcome=\"{outcome}\"");
        let line = format!("longshore_driver_calls_total{{{labels}}} {count}");
        check(all.lines().any(|l| l == line), &line)?;
    }
    Ok(())
}

/// A provider whose limit nobody knows: the governor finds it, and sends again what was refused.
async fn governor() -> Done {
    let limit = fakecloud::RateLimit::new(20, 2);
    let cloud = FakeCloud::tokio(Settings::instant().with_rate(CallKind::List, limit), 1);
    let learned = Learned::new();
    let set = Stack::new(cloud.clone()).governor(learned.clone()).build();
    println!("\n{set}\n");
    list_often(&set, 60).await?;
    let counts = cloud.counts(CallKind::List);
    let room = learned.head_room(Operation::List);
    let refused: u64 = counts.errors.values().sum();
    println!("governor: 60 listings done, {refused} refusals on the way; learned: {room}");
    check(
        refused > 0 && room.rate.is_some(),
        "the governor met the limit and learned it",
    )
}

/// So many listings at once; all of them have to succeed.
async fn list_often(set: &Arc<dyn InstanceSet>, times: usize) -> Done {
    let mut listings = JoinSet::new();
    for _ in 0..times {
        let set = Arc::clone(set);
        listings.spawn(async move { set.list(&context(), &Tags::new()).await.map(drop) });
    }
    while let Some(listed) = listings.join_next().await {
        listed??;
    }
    Ok(())
}

fn context() -> CallContext {
    CallContext::new(Duration::from_secs(120), "req-wrap-a-driver")
}

fn tags(name: &str, value: &str) -> Tags {
    [(name.to_owned(), value.to_owned())].into()
}

/// The one result of a call about one instance.
fn only(results: InstanceResults) -> Result<Result<(), CloudError>, Box<dyn Error>> {
    let mut results = results.into_iter().map(|(_, result)| result);
    let first = results.next().ok_or("a call about one id has one result")?;
    check(results.next().is_none(), "and no more than one")?;
    Ok(first)
}

fn about(took: Duration, expected: Duration) -> bool {
    took.abs_diff(expected) < Duration::from_millis(200)
}

fn check(holds: bool, what: &str) -> Done {
    match holds {
        true => Ok(()),
        false => Err(format!("not as expected: {what}").into()),
    }
}
