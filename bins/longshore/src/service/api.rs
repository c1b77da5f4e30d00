//! The API for jobs: `/longshore/v1/…`, for the commands of this program.

#![expect(
    clippy::result_large_err,
    reason = "the error is the answer, made once a request"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use longshore_controller::SubmitError;
use longshore_controller::http::failed;
use longshore_http::{Parameters, Token, answer, authorize, errors, json, read_body};
use longshore_queue::QueueError;
use longshore_runner_api::command::OutputStream;
use longshore_types::{ContainerUuid, error_chain};
use serde_json::{Value, json};

use super::local::{Local, PAGE, filter};
use super::pages;
use super::view::{JobView, ListView, NewBatchView};

/// The largest batch in bytes; other bodies are far smaller.
const MAX_BATCH_BYTES: usize = 512 << 20;
const MAX_BODY_BYTES: usize = 64 << 10;
/// The longest that a request waits for something to happen.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How many jobs are in one part of a list unless the client says.
const DEFAULT_LISTED: usize = 100;
/// How much output is given at once unless the client says.
const DEFAULT_WINDOW: u64 = 256 << 10;

/// The status of an answer to who comes while this process ends.
pub(super) const ENDING: StatusCode = StatusCode::GONE;
pub(super) const FROM: &str = "x-longshore-from";
pub(super) const ATTEMPT: &str = "x-longshore-attempt";
pub(super) const COMPLETE: &str = "x-longshore-complete";

#[derive(Debug)]
struct Api {
    local: Local,
    token: Token,
}

type Shared = State<Arc<Api>>;
type Answer = Response<Body>;

/// The routes. Whoever presents the token may do everything.
pub(super) fn router(local: Local, token: Token) -> Router {
    let api = Arc::new(Api { local, token });
    let routes = Router::new()
        .route("/batches", get(find_batches).post(submit))
        .route("/batches/{id}", get(batch))
        .route("/batches/{id}/jobs", get(jobs_of))
        .route("/batches/{id}/cancel", post(cancel_batch))
        .route("/batches/{id}/abandon", post(abandon_batch))
        .route("/instance_types", get(instance_types))
        .route("/jobs", get(list))
        .route("/jobs/{uuid}", get(job))
        .route("/jobs/{uuid}/explain", get(explain))
        .route("/jobs/{uuid}/cancel", post(cancel))
        .route("/jobs/{uuid}/output/{stream}", get(output))
        .route_layer(from_fn_with_state(api.token.clone(), authorize))
        .with_state(api);
    Router::new().nest("/longshore/v1", routes)
}

async fn find_batches(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let parameters = parameters(request).await?;
        let found = match parameters.text("key") {
            Some(key) => {
                let found = api.local.find_batch(&key).await.map_err(failed)?;
                found.into_iter().collect()
            }
            None => api.local.unfinished_batches().await.map_err(failed)?,
        };
        items(&found)
    })
    .await
}

async fn submit(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let body = read_body(request, MAX_BATCH_BYTES).await.map_err(|r| *r)?;
        let batch: NewBatchView = serde_json::from_slice(&body).map_err(|error| {
            let message = format!("the body is not a batch: {error}");
            errors(StatusCode::UNPROCESSABLE_ENTITY, message)
        })?;
        // It may be large, and storing takes its time.
        drop(body);
        let id = api.local.submit(batch).await.map_err(not_submitted)?;
        Ok(json(&json!({ "id": id })))
    })
    .await
}

async fn batch(State(api): Shared, Path(id): Path<u64>, request: Request<Body>) -> Answer {
    answer(async {
        let parameters = parameters(request).await?;
        let wait = wait(&parameters)?;
        if !wait.is_zero() {
            let since = number(&parameters, "since", 0)?;
            let watched = api.local.watch_batch(id, since, wait).await;
            watched.map_err(failed)?;
        }
        one(&api.local.batch(id).await.map_err(failed)?)
    })
    .await
}

async fn jobs_of(State(api): Shared, Path(id): Path<u64>) -> Answer {
    answer(async {
        let (local, reasons) = (api.local.clone(), Arc::new(api.local.reasons()));
        let part = move |place| {
            let (local, reasons) = (local.clone(), reasons.clone());
            async move { local.jobs_after(id, place, &reasons).await }
        };
        // An error of the first part is the answer.
        let first = part(0).await.map_err(failed)?;
        Ok(pages::items(first, part))
    })
    .await
}

async fn cancel_batch(State(api): Shared, Path(id): Path<u64>) -> Answer {
    answer(async { concerned(api.local.cancel_batch(id, false).await) }).await
}

async fn abandon_batch(State(api): Shared, Path(id): Path<u64>) -> Answer {
    answer(async { concerned(api.local.cancel_batch(id, true).await) }).await
}

async fn instance_types(State(api): Shared) -> Answer {
    answer(async { items(api.local.instance_types()) }).await
}

/// A part of a list, and from where it goes on: whoever asks for the next part says so (`before`).
async fn list(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let parameters = parameters(request).await?;
        let all = parameters.text("all").is_some_and(|text| text == "true");
        let limit = number(&parameters, "limit", DEFAULT_LISTED as u64)?;
        let limit = usize::try_from(limit).unwrap_or(PAGE).min(PAGE);
        if let Some(text) = parameters.text("match") {
            return items(&api.local.find(&text, limit).await.map_err(failed)?);
        }
        let wanted = Wanted {
            status: parameters.text("status"),
            name: parameters.text("name"),
        };
        let batch = optional_number(&parameters, "batch")?;
        let before = optional_number(&parameters, "before")?;
        let filter = filter(all, batch, before, limit);
        let found = api.local.list(filter, |job| wanted.has(job)).await;
        let (items, next) = found.map_err(failed)?;
        Ok(json(&ListView { items, next }))
    })
    .await
}

/// What a list is narrowed down to.
struct Wanted {
    status: Option<String>,
    /// A part of the name.
    name: Option<String>,
}

impl Wanted {
    fn has(&self, job: &JobView) -> bool {
        self.status
            .as_ref()
            .is_none_or(|status| job.verdict == *status)
            && self
                .name
                .as_ref()
                .is_none_or(|name| job.name.contains(name.as_str()))
    }
}

async fn job(State(api): Shared, Path(uuid): Path<String>) -> Answer {
    answer(async {
        let (view, document) = api.local.job(known(&uuid)?).await.map_err(failed)?;
        let mut value = to_value(&view)?;
        value["document"] = to_value(&document)?;
        Ok(json(&value))
    })
    .await
}

async fn explain(State(api): Shared, Path(uuid): Path<String>) -> Answer {
    answer(async { one(&api.local.explain(known(&uuid)?).await.map_err(failed)?) }).await
}

async fn cancel(State(api): Shared, Path(uuid): Path<String>) -> Answer {
    answer(async {
        api.local.cancel(known(&uuid)?).await.map_err(failed)?;
        Ok(json(&json!({})))
    })
    .await
}

async fn output(
    State(api): Shared,
    Path((uuid, stream)): Path<(String, String)>,
    request: Request<Body>,
) -> Answer {
    answer(async {
        let uuid = known(&uuid)?;
        let streams = OutputStream::ALL.into_iter();
        let stream = streams.into_iter().find(|known| known.as_str() == stream);
        let no_stream = || errors(StatusCode::NOT_FOUND, "there are stdout and stderr");
        let stream = stream.ok_or_else(no_stream)?;
        let parameters = parameters(request).await?;
        let from = number(&parameters, "from", 0)?;
        let length = number(&parameters, "length", DEFAULT_WINDOW)?;
        let wait = wait(&parameters)?;
        let part = api.local.output(uuid, stream, (from, length), wait).await;
        let part = part.map_err(failed)?;
        let mut response = Response::new(Body::from(part.bytes));
        let headers = response.headers_mut();
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert("content-type", octets);
        headers.insert(FROM, part.from.into());
        headers.insert(ATTEMPT, part.attempt.into());
        headers.insert(COMPLETE, u32::from(part.complete).into());
        Ok(response)
    })
    .await
}

async fn parameters(request: Request<Body>) -> Result<Parameters, Answer> {
    Parameters::read(request, MAX_BODY_BYTES)
        .await
        .map_err(|r| *r)
}

fn number(parameters: &Parameters, name: &str, default: u64) -> Result<u64, Answer> {
    let Some(text) = parameters.text(name) else {
        return Ok(default);
    };
    text.parse().map_err(|_| {
        let message = format!("the parameter {name:?} is not a whole number");
        errors(StatusCode::UNPROCESSABLE_ENTITY, message)
    })
}

fn optional_number(parameters: &Parameters, name: &str) -> Result<Option<u64>, Answer> {
    let given = parameters.text(name);
    given.map(|_| number(parameters, name, 0)).transpose()
}

fn wait(parameters: &Parameters) -> Result<Duration, Answer> {
    Ok(Duration::from_millis(number(parameters, "wait_ms", 0)?).min(MAX_WAIT))
}

fn known(uuid: &str) -> Result<ContainerUuid, Answer> {
    uuid.parse().map_err(|_| {
        let shown: String = uuid.chars().take(40).collect();
        errors(StatusCode::NOT_FOUND, format!("there is no job {shown:?}"))
    })
}

fn items<T: serde::Serialize>(found: &[T]) -> Result<Answer, Answer> {
    #[derive(serde::Serialize)]
    struct Items<'a, T> {
        items: &'a [T],
    }
    Ok(json(&Items { items: found }))
}

fn one<T: serde::Serialize>(found: &T) -> Result<Answer, Answer> {
    Ok(json(found))
}

fn to_value<T: serde::Serialize>(found: &T) -> Result<Value, Answer> {
    serde_json::to_value(found)
        .map_err(|error| errors(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn concerned(count: Result<usize, QueueError>) -> Result<Answer, Answer> {
    let count = count.map_err(failed)?;
    Ok(json(&json!({ "jobs": count })))
}

fn not_submitted(error: SubmitError) -> Answer {
    match error {
        SubmitError::Store(error) => failed(error),
        SubmitError::Closed => errors(ENDING, error.to_string()),
        SubmitError::Unfinished { .. } => errors(StatusCode::CONFLICT, error.to_string()),
        other => errors(StatusCode::UNPROCESSABLE_ENTITY, error_chain(&other)),
    }
}
