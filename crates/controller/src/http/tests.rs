use http_body_util::BodyExt as _;
use longshore_queue::{Call, Queue as _};
use longshore_types::{Attempt, Exit, ExitCause};
use tower::ServiceExt as _;

use super::*;
use crate::Settings;

const LONG: Duration = Duration::from_secs(60);
const TOKEN: &str = "0123456789012345678901234567890123456789";

/// Every container has written this to its standard output; of the middle the second of three bytes
/// was left out.
#[derive(Debug, Default)]
struct Output(Vec<u8>);

#[async_trait]
impl ReadOutput for Output {
    async fn read(
        &self,
        _uuid: ContainerUuid,
        stream: &'static str,
        from: u64,
        length: u64,
    ) -> Result<Window, QueueError> {
        let written = if stream == "stdout" { &self.0[..] } else { &[] };
        let (from, length) = (usize::try_from(from).unwrap(), length.min(1 << 40) as usize);
        let cut = written.len() / 2;
        let from = if from == cut { cut + 1 } else { from };
        let end = if from < cut { cut } else { written.len() };
        let bytes = written.get(from..end.min(from + length)).unwrap_or(&[]);
        Ok(Window::new(from as u64, bytes.to_vec()))
    }
}

struct World {
    store: Arc<Store>,
    router: Router,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with_output(Vec::new())
    }

    fn with_output(written: Vec<u8>) -> Self {
        Self::that_reads(Arc::new(Output(written)))
    }

    fn that_reads(output: Arc<dyn ReadOutput>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path(), Settings::default()).unwrap());
        let api = Api {
            store: store.clone(),
            token: Token::new(TOKEN),
            output,
        };
        Self {
            store,
            router: api.router(),
            _directory: directory,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/arvados/v1/{path}"))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
        answer
    }

    /// A request that is committed, and its container.
    async fn committed(&self, name: &str, priority: i64) -> ContainerUuid {
        let body = json!({ "name": name, "command": ["true"], "priority": priority,
                           "state": "Committed" });
        let made = self.done("POST", "container_requests", body).await;
        made["container_uuid"].as_str().unwrap().parse().unwrap()
    }

    async fn run(&self, uuid: ContainerUuid, end: Option<i32>) {
        let attempt = Attempt(1);
        let planned = Some("i-1".into());
        let mut calls = vec![
            Call::Lock { attempt, planned },
            Call::Running {
                attempt,
                started_at: None,
            },
        ];
        calls.extend(end.map(|code| Call::Ended {
            attempt,
            exit: Exit::unseen(ExitCause::Exited { code }),
        }));
        for call in calls {
            self.store.call(uuid, &call, LONG).await.unwrap();
        }
    }
}

#[tokio::test]
async fn of_updates_at_the_same_moment_none_is_lost() {
    let world = World::new();
    for _ in 0..20 {
        let body = json!({ "name": "before", "command": ["true"] });
        let made = world.done("POST", "container_requests", body).await;
        let path = format!("container_requests/{}", made["uuid"].as_str().unwrap());
        let path = path.as_str();
        let update = |changes| world.done("PATCH", path, changes);
        tokio::join!(
            update(json!({ "name": "after" })),
            update(json!({ "description": "described" })),
            update(json!({ "properties": { "a": 1 } })),
            update(json!({ "priority": 7 })),
        );
        let now = world.done("GET", path, json!({})).await;
        assert_eq!(now["name"], "after");
        assert_eq!(now["description"], "described");
        assert_eq!(now["properties"], json!({ "a": 1 }));
        assert_eq!(now["priority"], 7);
    }
}

#[tokio::test]
async fn a_request_is_committed_once_however_many_commit_it_at_the_same_moment() {
    let world = World::new();
    let body = json!({ "command": ["true"] });
    let made = world.done("POST", "container_requests", body).await;
    let path = format!("container_requests/{}", made["uuid"].as_str().unwrap());
    let commit = |name: &str| {
        world.done(
            "PATCH",
            &path,
            json!({ "state": "Committed", "name": name }),
        )
    };
    let (a, b, c) = tokio::join!(commit("a"), commit("b"), commit("c"));
    assert!(a["container_uuid"].is_string());
    assert_eq!(a["container_uuid"], b["container_uuid"]);
    assert_eq!(a["container_uuid"], c["container_uuid"]);
    let all = world.done("GET", "containers", json!({})).await;
    assert_eq!(all["items_available"], 1);
}

#[tokio::test]
async fn nothing_of_a_change_is_done_if_a_part_of_it_cannot_be() {
    let world = World::new();
    let uuid = world.committed("held", 5).await;
    let path = format!("containers/{uuid}");
    let wrong = json!({ "priority": 9, "progress": 0.5, "state": "Complete" });
    let (status, answer) = world.ask("PATCH", &path, wrong).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let now = world.done("GET", &path, json!({})).await;
    assert_eq!(now["priority"], 5);
}

#[test]
fn only_what_was_not_done_for_certain_invites_to_be_repeated() {
    let status = |kind| not_created(QueueError::new(kind, "")).status();
    let repeated = [408, 409, 423, 429, 500, 502, 503, 504];
    assert!(!repeated.contains(&status(QueueErrorKind::Unknown).as_u16()));
    for kind in [QueueErrorKind::Overloaded, QueueErrorKind::Unavailable] {
        assert_eq!(status(kind), StatusCode::SERVICE_UNAVAILABLE);
    }
}

/// Containers in every state; their UUIDs.
async fn populate(world: &World) -> Vec<String> {
    let mut uuids = Vec::new();
    for (n, (priority, name)) in [
        (1, "a"),
        (500, "b"),
        (0, "b"),
        (500, "it's"),
        (9, "%"),
        (9, "z"),
    ]
    .into_iter()
    .enumerate()
    {
        let uuid = world.committed(name, priority).await;
        match n {
            1 => world.run(uuid, None).await,
            3 => world.run(uuid, Some(0)).await,
            4 => world.run(uuid, Some(3)).await,
            5 => world.store.cancel(uuid).await.unwrap(),
            _ => {}
        }
        uuids.push(uuid.to_string());
    }
    uuids
}

fn filters_of_both(uuids: &[String], one: &Value) -> Vec<Value> {
    vec![
        json!([]),
        json!([["state", "=", "Queued"]]),
        json!([["state", "in", ["Queued", "Running"]]]),
        json!([["state", "=", "Uncommitted"]]),
        json!([["state", "=", "Committed"]]),
        json!([["state", "=", "Final"]]),
        json!([["state", "in", ["Uncommitted", "Final", "Complete"]]]),
        json!([["state", "in", ["Uncommitted", "Final"]]]),
        json!([["state", "in", ["Complete", "Cancelled", "Locked"]]]),
        json!([["state", "not in", ["Queued", "Final"]]]),
        json!([["state", "!=", "Complete"]]),
        json!([["state", ">", "D"], ["priority", ">=", 1]]),
        json!([["state", "in", []]]),
        json!([["uuid", "=", uuids[2]]]),
        json!([
            ["uuid", "in", [uuids[0], uuids[4], "x"]],
            ["state", "=", "Queued"]
        ]),
        json!([["uuid", "not in", uuids]]),
        json!([["priority", "=", "500"]]),
        json!([["priority", "<", 500]]),
        json!([["priority", "<", 8.5]]),
        json!([["priority", "in", [9, "500"]]]),
        json!([["priority", "=", "x' OR 1=1 --"]]),
        json!([["priority", "!=", null]]),
        json!([["name", "=", "it's"]]),
        json!([["name", "like", "%'%"]]),
        json!([["name", "ilike", "B"], ["priority", "=", 0]]),
        json!([["name", ">", 5]]),
        json!([["created_at", "<=", one["created_at"]]]),
        json!([["created_at", ">", "2026"]]),
        json!([
            ["modified_at", ">=", one["modified_at"]],
            ["state", "!=", "Queued"]
        ]),
        json!([["modified_at", "not in", [one["modified_at"]]]]),
    ]
}

fn filters_of_containers(one: &Value) -> Vec<Value> {
    vec![
        json!([["exit_code", "=", 3]]),
        json!([["exit_code", "!=", 0]]),
        json!([["exit_code", "not in", [0, 3]]]),
        json!([["exit_code", "=", null]]),
        json!([["finished_at", ">", "1999-01-01T00:00:00.000Z"]]),
        json!([["finished_at", "!=", one["finished_at"]]]),
        json!([["lock_count", ">", 0]]),
    ]
}

/// Every list is compared with the one that is made by looking at each object.
#[tokio::test]
async fn what_the_database_answers_is_what_looking_at_each_object_finds() {
    let world = World::new();
    let uuids = populate(&world).await;
    let body = json!({ "name": "uncommitted", "priority": 3 });
    world.done("POST", "container_requests", body).await;
    let one = world
        .done("GET", &format!("containers/{}", uuids[3]), json!({}))
        .await;
    let filters = filters_of_both(&uuids, &one);
    let only_containers = filters_of_containers(&one);
    let orders = [
        "",
        "created_at",
        "priority desc",
        "priority,name desc",
        "modified_at desc",
        "uuid",
        "state,uuid",
        "command",
        "priority,command",
    ];
    let pages = [
        "",
        "limit=2",
        "limit=2&offset=1",
        "limit=1&count=none",
        "limit=0",
        "offset=99",
    ];
    let mut told = 0;
    for order in orders {
        for page in pages {
            let query = |filters: &Value| {
                let mut query = form_urlencoded::Serializer::new(String::from(page));
                query.append_pair("filters", &filters.to_string());
                query.append_pair("order", order).finish()
            };
            for filters in filters.iter().chain(&only_containers) {
                let (query, table) = (query(filters), &listing::CONTAINERS);
                let shown = show_container as fn(&_) -> _;
                let expected = looked_at(
                    &world,
                    &query,
                    show::CONTAINER,
                    table,
                    listing::container,
                    shown,
                );
                let answer = world
                    .done("GET", &format!("containers?{query}"), json!({}))
                    .await;
                assert_eq!(answer, expected.await, "containers?{query}");
                told += answer["items"].as_array().unwrap().len();
            }
            for filters in &filters {
                let (query, table) = (query(filters), &listing::REQUESTS);
                let expected = looked_at(
                    &world,
                    &query,
                    show::REQUEST,
                    table,
                    listing::request,
                    show::request,
                );
                let path = format!("container_requests?{query}");
                let answer = world.done("GET", &path, json!({})).await;
                let mut expected = expected.await;
                expected["kind"] = answer["kind"].clone();
                assert_eq!(answer, expected, "container_requests?{query}");
            }
        }
    }
    assert!(told > 1000, "{told} containers were told of");
}

fn show_container((job, document): &listing::Listed) -> Value {
    show::container(job, document)
}

async fn looked_at<T: Send + 'static>(
    world: &World,
    query: &str,
    known: &[&str],
    table: &'static Table,
    load: Load<T>,
    show: fn(&T) -> Value,
) -> Value {
    let request = Request::get(format!("/?{query}"))
        .body(Body::empty())
        .unwrap();
    let question = Question::read(parameters(request).await.unwrap(), known).unwrap();
    let everything = Listing::of(table);
    let visit = move |found: &mut list::Found, row: T| found.add(show(&row));
    let found = list::Found::new(question);
    let bounds = (1000, Instant::now() + LONG);
    let found = world
        .store
        .look_through(everything, bounds, load, found, visit);
    let answer = found
        .await
        .unwrap()
        .answer("arvados#containerList")
        .unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// Requests of a megabyte each.
async fn with_large_requests(count: usize) -> World {
    let world = World::new();
    let large = "x".repeat(1 << 20);
    for n in 0..count {
        let body = json!({ "name": format!("n{n:03}"), "command": ["true"],
                           "properties": { "large": large } });
        world.done("POST", "container_requests", body).await;
    }
    world
}

#[tokio::test]
async fn a_list_ends_before_it_is_too_large_and_goes_on() {
    let world = with_large_requests(40).await;
    for looked_through in ["", "&filters=%5B%5B%22name%22,%22like%22,%22n%25%22%5D%5D"] {
        let mut names = Vec::new();
        loop {
            let path = format!("container_requests?offset={}{looked_through}", names.len());
            let answer = world.done("GET", &path, json!({})).await;
            assert_eq!(answer["items_available"], 40);
            let items = answer["items"].as_array().unwrap();
            assert!(items.len() < 35, "{}", items.len());
            if items.is_empty() {
                break;
            }
            names.extend(items.iter().map(|item| item["name"].to_string()));
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 40);
    }
    for path in [
        "container_requests?select=%5B%22name%22%5D",
        "container_requests?select=%5B%22name%22%5D&order=output_name,name",
    ] {
        let answer = world.done("GET", path, json!({})).await;
        assert_eq!(answer["items"].as_array().unwrap().len(), 40);
        assert_eq!(answer["items"][0]["properties"], Value::Null);
    }
    let path = "container_requests?order=output_name,name";
    let (status, answer) = world.ask("GET", path, json!({})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let path = "container_requests?order=output_name,name&limit=3";
    let answer = world.done("GET", path, json!({})).await;
    assert_eq!(answer["items"][2]["name"], "n002");
}

#[tokio::test]
async fn a_request_does_not_grow_for_ever() {
    let world = World::new();
    let part = "x".repeat(3 << 20);
    let body = json!({ "command": ["true"], "description": part });
    let made = world.done("POST", "container_requests", body).await;
    let path = format!("container_requests/{}", made["uuid"].as_str().unwrap());
    let more = json!({ "properties": { "large": part } });
    world.done("PATCH", &path, more).await;
    let more = json!({ "environment": { "A": part } });
    let (status, answer) = world.ask("PATCH", &path, more).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["errors"][0].as_str().unwrap().contains("8 MiB"));
}

/// Each part is a megabyte of the first attempt, until the third one comes from the second.
#[derive(Debug)]
struct Replaced;

#[async_trait]
impl ReadOutput for Replaced {
    async fn read(
        &self,
        _uuid: ContainerUuid,
        _stream: &'static str,
        from: u64,
        _length: u64,
    ) -> Result<Window, QueueError> {
        let attempt = if from < 2 << 20 { 1 } else { 2 };
        Ok(Window::new(from, vec![b'a'; 1 << 20]).of_attempt(attempt))
    }
}

#[tokio::test]
async fn a_log_of_two_attempts_is_cut_off_where_the_client_sees_it() {
    let world = World::that_reads(Arc::new(Replaced));
    world.committed("a", 1).await;
    let answer = ask_for_log(&world, "stdout.txt", None).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let error = answer.into_body().collect().await.unwrap_err();
    assert!(error.to_string().contains("another attempt"), "{error}");
}

/// The status, what `Content-Range` says, and the body.
async fn log(world: &World, file: &str, range: Option<&str>) -> (StatusCode, String, Vec<u8>) {
    let answer = ask_for_log(world, file, range).await;
    let headers = answer.headers().get("content-range");
    let place = headers
        .map_or("", |place| place.to_str().unwrap())
        .to_owned();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, place, body.to_vec())
}

async fn ask_for_log(world: &World, file: &str, range: Option<&str>) -> Response<Body> {
    let requests = world.done("GET", "container_requests", json!({})).await;
    let request = &requests["items"][0];
    let (uuid, container) = (&request["uuid"], &request["container_uuid"]);
    let (uuid, container) = (uuid.as_str().unwrap(), container.as_str().unwrap());
    let mut asked = Request::get(format!(
        "/arvados/v1/container_requests/{uuid}/log/{container}/{file}"
    ))
    .header("authorization", format!("Bearer {TOKEN}"));
    if let Some(range) = range {
        asked = asked.header("range", range);
    }
    let asked = asked.body(Body::empty()).unwrap();
    world.router.clone().oneshot(asked).await.unwrap()
}

#[tokio::test]
async fn a_log_is_given_whole_or_as_the_part_that_was_asked_for() {
    let written: Vec<u8> = (0..5_000_001).map(|n: u32| (n % 251) as u8).collect();
    let world = World::with_output(written.clone());
    world.committed("a", 1).await;
    let (status, _, body) = log(&world, "stdout.txt", None).await;
    assert_eq!(status, StatusCode::OK);
    let mut kept = written.clone();
    let mark = *b"\n[longshore: 1 bytes of output were left out here]\n";
    kept.splice(2_500_000..=2_500_000, mark);
    assert!(body == kept, "{} bytes", body.len());
    let (status, place, body) = log(&world, "stdout.txt", Some("bytes=3-")).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(place, "bytes 3-1048578/*");
    assert!(body == written[3..1_048_579]);
    let (status, place, body) = log(&world, "stdout.txt", Some("bytes=7-8")).await;
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert_eq!((place.as_str(), body), ("bytes 7-8/*", vec![7, 8]));
}

#[tokio::test]
async fn of_an_empty_log_there_is_no_part() {
    let world = World::new();
    world.committed("a", 1).await;
    for range in ["bytes=0-", "bytes=0-9", "bytes=5-"] {
        let (status, place, _) = log(&world, "stderr.txt", Some(range)).await;
        assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
        assert_eq!(place, "");
    }
    let (status, _, body) = log(&world, "stderr.txt", None).await;
    assert_eq!((status, body), (StatusCode::OK, Vec::new()));
}

#[tokio::test]
async fn nobody_looks_for_longer_than_is_allowed() {
    let world = World::new();
    world.committed("a", 1).await;
    let everything = || Listing::of(&listing::CONTAINERS);
    let looked = |until| {
        let count = |found: &mut usize, _: listing::Listed| {
            *found += 1;
            true
        };
        let bounds = (1000, until);
        world
            .store
            .look_through(everything(), bounds, listing::container, 0, count)
    };
    assert_eq!(looked(Instant::now() + LONG).await.unwrap(), 1);
    let error = looked(Instant::now()).await.unwrap_err();
    assert_eq!(error.kind, QueueErrorKind::Refused, "nobody asks again");
}

#[tokio::test]
async fn of_many_objects_each_is_looked_at_once_and_few_are_held() {
    let world = World::new();
    let job = |n: usize| {
        let document = longshore_runner_api::StartDocument::new(vec!["true".into()]);
        crate::NewJob::new(format!("j{n:04}"), document, Default::default())
    };
    let batch = crate::NewBatch {
        key: "many".into(),
        content_hash: String::new(),
        name: "many".into(),
        followed: false,
        jobs: (0..5001).map(job).collect(),
    };
    world.store.submit_batch(batch).await.unwrap();
    for (query, first) in [
        ("limit=3", "j5000"),
        ("limit=3&order=name", "j0000"),
        (
            "limit=3&order=%5B%22command%22%2C%22name+desc%22%5D",
            "j5000",
        ),
        ("limit=3&order=command,name", "j0000"),
    ] {
        let answer = world
            .done("GET", &format!("containers?{query}"), json!({}))
            .await;
        assert_eq!(answer["items_available"], 5001, "{query}");
        assert_eq!(answer["items"].as_array().unwrap().len(), 3, "{query}");
        assert_eq!(answer["items"][0]["name"], first, "{query}");
    }
    let path = "containers?order=command,name&limit=2&offset=4999";
    let answer = world.done("GET", path, json!({})).await;
    assert_eq!(answer["items"][1]["name"], "j5000");
}
