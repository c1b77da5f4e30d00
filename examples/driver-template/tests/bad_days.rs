//! What the suite cannot bring about from outside: the provider's faults.

mod emulator;

use std::sync::Arc;
use std::time::Duration;

use emulator::Emulator;
use longshore_cloud::{
    CallContext, CloudError, CreateRequest, ErrorKind, Instance, InstanceSet, Outcome, Scope, Tags,
};
use longshore_driver_acme::{AcmeSet, Parameters};
use longshore_types::InstanceId;
use tokio::time::Instant;

const LAG: Duration = Duration::from_secs(20);

fn acme() -> (Arc<Emulator>, AcmeSet) {
    let json = serde_json::json!({ "region": "north-1", "project": "p", "token_file": "/token" });
    let parameters = Parameters::parse(&json).expect("they are right");
    let api = Arc::new(Emulator::default());
    (api.clone(), AcmeSet::new(api, parameters))
}

async fn create(set: &AcmeSet, token: &str) -> Result<Instance, CloudError> {
    let mut request = CreateRequest::example();
    request.instance_type.provider_type = "s1.small".into();
    request.image = "debian".into();
    request.token = token.into();
    set.create(&CallContext::example(), &request).await
}

async fn list(set: &AcmeSet) -> Result<Vec<Instance>, CloudError> {
    set.list(&CallContext::example(), &Tags::new()).await
}

async fn five(set: &AcmeSet) -> Vec<InstanceId> {
    let mut ids = Vec::new();
    for token in ["a", "b", "c", "d", "e"] {
        ids.push(create(set, token).await.expect("there is room").id);
    }
    tokio::time::sleep(LAG).await;
    ids
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_costs_no_second_server() {
    let (api, set) = acme();
    api.state().lose_replies = 1;
    let lost = create(&set, "same").await.unwrap_err();
    assert_eq!(lost.outcome(), Outcome::Unknown, "{lost}");
    let made = create(&set, "same").await.unwrap();
    tokio::time::sleep(LAG).await;
    assert_eq!(list(&set).await.unwrap()[0].id, made.id);
    assert_eq!(api.state().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_whole_or_fails() {
    let (api, set) = acme();
    let ids = five(&set).await;
    // Pages overlap: each server is there once.
    api.state().page_size = 2;
    let listed = list(&set).await.unwrap();
    assert_eq!(listed.into_iter().map(|i| i.id).collect::<Vec<_>>(), ids);
    api.state().breaks_pages = true;
    assert_eq!(list(&set).await.unwrap_err().kind, ErrorKind::Other);
    api.state().breaks_pages = false;
    api.state().endless = true;
    assert_eq!(list(&set).await.unwrap_err().kind, ErrorKind::Other);
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_the_provider_ignores_shows_nothing_foreign() {
    let (api, set) = acme();
    five(&set).await;
    api.state().ignores_tags = true;
    let foreign = Tags::from([("ExampleInstanceSetID".into(), "another".into())]);
    let listed = set.list(&CallContext::example(), &foreign).await.unwrap();
    assert_eq!(listed, []);
}

#[tokio::test(start_paused = true)]
async fn refusals_have_their_kinds() {
    let (api, set) = acme();
    api.state().quota = 1;
    create(&set, "a").await.unwrap();
    let full = create(&set, "b").await.unwrap_err();
    assert_eq!(full.kind, ErrorKind::QuotaExceeded(Scope::Everything));
    api.state().rate = 1.0;
    list(&set).await.unwrap();
    let hasty = list(&set).await.unwrap_err();
    let retry_after = Some(Duration::from_secs(1));
    assert_eq!(hasty.kind, ErrorKind::RateLimited { retry_after });
    tokio::time::sleep(Duration::from_secs(1)).await;
    list(&set).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_failure_does_not_stop_a_batch() {
    let (api, set) = acme();
    let ids = five(&set).await;
    api.state().stuck = Some(ids[2].to_string());
    let context = CallContext::example();
    let changes: Vec<_> = ids.iter().map(|id| (id.clone(), Tags::new())).collect();
    for results in [
        set.set_tags(&context, &changes).await,
        set.destroy(&context, &ids).await,
    ] {
        let failed: Vec<_> = results.iter().filter(|(_, r)| r.is_err()).collect();
        assert_eq!((results.len(), failed.len()), (5, 1));
        assert_eq!(failed[0].0, ids[2]);
    }
    assert_eq!(api.state().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_leaves_the_others_of_a_batch_their_time() {
    let (api, set) = acme();
    let ids = five(&set).await;
    // The first, after which all others come.
    api.state().hangs = Some(ids[0].to_string());
    let context = CallContext::example();
    let changes: Vec<_> = ids.iter().map(|id| (id.clone(), Tags::new())).collect();
    for results in [
        set.set_tags(&context, &changes).await,
        set.destroy(&context, &ids).await,
    ] {
        let failed: Vec<_> = results.iter().filter(|(_, r)| r.is_err()).collect();
        assert_eq!((results.len(), failed.len()), (5, 1), "{results:?}");
        assert_eq!(failed[0].0, ids[0]);
    }
    assert_eq!(api.state().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    let (api, set) = acme();
    let ids = five(&set).await;
    api.state().silent = true;
    let (began, context) = (Instant::now(), CallContext::example());
    let results = set.destroy(&context, &ids).await;
    assert_eq!(results.len(), 5);
    for (id, result) in results {
        assert_eq!(result.unwrap_err().kind, ErrorKind::TimedOut, "{id}");
    }
    assert_eq!(list(&set).await.unwrap_err().kind, ErrorKind::TimedOut);
    let created = create(&set, "f").await.unwrap_err();
    assert_eq!(created.outcome(), Outcome::Unknown);
    let slack = Duration::from_millis(10);
    assert!(began.elapsed() <= 3 * context.timeout + slack);
}
