//! The management API of a dispatcher, and its metrics, over HTTP.
//!
//! [`Management::router`] has the end points of Arvados' dispatcher, with its tokens, its status
//! codes and its bodies. Which server answers, and where, is up to the program.

#![expect(
    clippy::result_large_err,
    reason = "the error is the answer, made once a request"
)]

mod exposition;
mod metrics;
mod show;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use longshore_http::{Parameters, Token, answer, errors, json, plain, presented};
use longshore_pool::Refusal;
use longshore_types::{
    ContainerUuid, IdleBehavior, InstanceId, InstanceType, TypeName, format_duration,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::runtime::{Ended, Handle};

/// The largest body of a request in bytes: two parameters.
const MAX_BODY: usize = 64 << 10;
/// How long the list of containers may be old.
const CACHED: Duration = Duration::from_secs(1);
/// How long the event loop may take to show that it is alive.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who ends a container for good when an operator kills it.
#[async_trait]
pub trait KillContainer: fmt::Debug + Send + Sync {
    /// Sees to it that the container stops and is not started again.
    async fn kill(&self, uuid: ContainerUuid, reason: &str) -> Result<(), KillError>;
}

/// A container was not killed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KillError {
    /// There is no such container.
    #[error("container not found")]
    NotFound,
    /// Something else, one line.
    #[error("{0}")]
    Failed(String),
}

/// Who knows whether what becomes of containers can be recorded.
#[async_trait]
pub trait CheckController: fmt::Debug + Send + Sync {
    /// Says why it cannot, if that is so; one line. Must answer within seconds.
    async fn check(&self) -> Result<(), String>;
}

/// What the management API needs.
#[derive(Clone)]
pub struct Management {
    /// The dispatcher.
    pub dispatcher: Handle,
    /// What clients have to present; an empty one lets nobody in.
    pub token: Token,
    /// Ends containers.
    pub kill: Arc<dyn KillContainer>,
    /// Says whether the controller is well.
    pub controller: Arc<dyn CheckController>,
    /// The types that are configured.
    pub types: BTreeMap<TypeName, InstanceType>,
    /// What `/metrics` tells beside what the dispatcher itself has to tell.
    pub registry: Arc<Registry>,
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Management").finish_non_exhaustive()
    }
}

struct Api {
    management: Management,
    /// The list of containers, and when it was made.
    containers: Mutex<Option<(Instant, Arc<str>)>>,
}

type Shared = State<Arc<Api>>;
type Answer = Response<Body>;

impl Management {
    /// Everything below `/arvados/v1/dispatch`, `/metrics`, `/metrics.json` and `/_health/ping`.
    pub fn router(self) -> Router {
        let api = Arc::new(Api {
            management: self,
            containers: Mutex::new(None),
        });
        let dispatch = Router::new()
            .route("/containers", get(containers))
            .route("/container", get(container))
            .route("/containers/kill", post(kill_container))
            .route("/instances", get(instances))
            .route("/instances/hold", post(hold))
            .route("/instances/drain", post(drain))
            .route("/instances/run", post(run))
            .route("/instances/kill", post(kill_instance));
        Router::new()
            .nest("/arvados/v1/dispatch", dispatch)
            .route("/metrics", get(metrics_text))
            .route("/metrics.json", get(metrics_json))
            .route_layer(from_fn_with_state(api.clone(), authorize))
            .route("/_health/ping", get(ping))
            .with_state(api)
    }
}

async fn authorize(State(api): Shared, request: Request<Body>, next: Next) -> Answer {
    match api.refusal(&request) {
        Some((status, text)) => plain(status, text),
        None => next.run(request).await,
    }
}

impl Api {
    /// Why a request is not answered, if it is not.
    fn refusal<B>(&self, request: &Request<B>) -> Option<(StatusCode, &'static str)> {
        let token = &self.management.token;
        if token.is_empty() {
            let text = "Management API authentication is not configured";
            return Some((StatusCode::FORBIDDEN, text));
        }
        match presented(request.headers(), request.uri().query()) {
            None => Some((StatusCode::UNAUTHORIZED, "Unauthorized")),
            Some(other) if !token.matches(&other) => Some((StatusCode::FORBIDDEN, "Forbidden")),
            Some(_) => None,
        }
    }

    /// Why nothing could be done for anybody, if that is so.
    async fn unhealthy(&self) -> Option<String> {
        let patience = format_duration(PATIENCE);
        // The event loop answers this, so it is alive.
        match timeout(PATIENCE, self.management.dispatcher.instances()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Some(error.to_string()),
            Err(_) => return Some(format!("the dispatcher has not answered for {patience}")),
        }
        match timeout(PATIENCE, self.management.controller.check()).await {
            Ok(checked) => checked.err(),
            Err(_) => Some(format!("the controller has not answered for {patience}")),
        }
    }

    /// What Prometheus reads.
    async fn metrics(&self) -> Result<String, Answer> {
        let dispatcher = &self.management.dispatcher;
        let page = metrics::Page {
            measured: dispatcher.measure().await.map_err(gone)?,
            snapshot: dispatcher.snapshot(),
            types: self.management.types.clone(),
        };
        let failed =
            |error: fmt::Error| errors(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        page.text(&self.management.registry).map_err(failed)
    }

    async fn set_idle_behavior(
        &self,
        request: Request<Body>,
        behavior: IdleBehavior,
    ) -> Result<Answer, Answer> {
        let instance = instance_id(&parameters(request).await?)?;
        let dispatcher = &self.management.dispatcher;
        let done = dispatcher.set_idle_behavior(instance, behavior).await;
        finished(done, "requested instance does not exist")
    }
}

async fn containers(State(api): Shared) -> Answer {
    // Held while the list is made, so that many who ask at once cost one list.
    let mut cached = api.containers.lock().await;
    if let Some((made, text)) = &*cached
        && made.elapsed() < CACHED
    {
        return json_text(text);
    }
    let (entries, now) = match api.management.dispatcher.entries().await {
        Ok(shown) => shown,
        Err(ended) => return gone(ended),
    };
    let types = &api.management.types;
    let items: Vec<Value> = entries
        .iter()
        .map(|entry| show::entry(entry, types, now))
        .collect();
    let text: Arc<str> = show::list(items).to_string().into();
    *cached = Some((Instant::now(), text.clone()));
    json_text(&text)
}

async fn container(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let parameters = parameters(request).await?;
        let not_found = || errors(StatusCode::NOT_FOUND, "container not found");
        let uuid = parameters.text("container_uuid").unwrap_or_default();
        let uuid = uuid.parse().map_err(|_| not_found())?;
        let (entry, now) = api.management.dispatcher.entry(uuid).await.map_err(gone)?;
        let entry = entry.ok_or_else(not_found)?;
        let mut shown = show::entry(&entry, &api.management.types, now);
        let why = api
            .management
            .dispatcher
            .explain(uuid)
            .await
            .map_err(gone)?;
        shown["scheduling_explanation"] = json!(why);
        Ok(json(&shown))
    })
    .await
}

async fn kill_container(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let parameters = parameters(request).await?;
        let missing = "container_uuid parameter not provided";
        let uuid = required(&parameters, "container_uuid", missing)?;
        let not_found = || errors(StatusCode::NOT_FOUND, "container not found");
        let uuid: ContainerUuid = uuid.parse().map_err(|_| not_found())?;
        match api.management.kill.kill(uuid, &reason(&parameters)).await {
            Ok(()) => Ok(empty()),
            Err(KillError::NotFound) => Err(not_found()),
            Err(error) => Err(errors(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        }
    })
    .await
}

async fn instances(State(api): Shared) -> Answer {
    let dispatcher = &api.management.dispatcher;
    match dispatcher.instances().await {
        Ok((instances, now)) => {
            let pending = &dispatcher.snapshot().pending;
            json(&show::instances(
                &instances,
                pending,
                &api.management.types,
                now,
            ))
        }
        Err(ended) => gone(ended),
    }
}

async fn hold(State(api): Shared, request: Request<Body>) -> Answer {
    answer(api.set_idle_behavior(request, IdleBehavior::Hold)).await
}

async fn drain(State(api): Shared, request: Request<Body>) -> Answer {
    answer(api.set_idle_behavior(request, IdleBehavior::Drain)).await
}

async fn run(State(api): Shared, request: Request<Body>) -> Answer {
    answer(api.set_idle_behavior(request, IdleBehavior::Run)).await
}

async fn kill_instance(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let parameters = parameters(request).await?;
        let instance = instance_id(&parameters)?;
        let dispatcher = &api.management.dispatcher;
        let done = dispatcher
            .kill_instance(instance, reason(&parameters))
            .await;
        finished(done, "instance not found")
    })
    .await
}

async fn metrics_text(State(api): Shared) -> Answer {
    answer(async { Ok(plain(StatusCode::OK, api.metrics().await?)) }).await
}

async fn metrics_json(State(api): Shared) -> Answer {
    answer(async { Ok(json(&exposition::families(&api.metrics().await?))) }).await
}

async fn ping(State(api): Shared, request: Request<Body>) -> Answer {
    if api.management.token.is_empty() {
        return errors(StatusCode::NOT_FOUND, "no management token is configured");
    }
    if let Some((status, text)) = api.refusal(&request) {
        return errors(status, text);
    }
    match api.unhealthy().await {
        None => json(&json!({ "health": "OK" })),
        Some(error) => json(&json!({ "health": "ERROR", "error": error })),
    }
}

async fn parameters(request: Request<Body>) -> Result<Parameters, Answer> {
    Parameters::read(request, MAX_BODY)
        .await
        .map_err(|refused| *refused)
}

fn required(parameters: &Parameters, name: &str, missing: &str) -> Result<String, Answer> {
    let given = parameters.text(name).filter(|text| !text.is_empty());
    given.ok_or_else(|| errors(StatusCode::BAD_REQUEST, missing))
}

fn instance_id(parameters: &Parameters) -> Result<InstanceId, Answer> {
    let missing = "instance_id parameter not provided";
    required(parameters, "instance_id", missing).map(InstanceId::from)
}

/// Why somebody wants it, one short line.
fn reason(parameters: &Parameters) -> String {
    let given = parameters.text("reason").unwrap_or_default();
    let given: String = given
        .chars()
        .filter(|c| !c.is_control())
        .take(500)
        .collect();
    if given.is_empty() {
        "via management API".to_owned()
    } else {
        format!("via management API: {given}")
    }
}

fn finished(done: Result<Result<(), Refusal>, Ended>, unknown: &str) -> Result<Answer, Answer> {
    match done {
        Ok(Ok(())) => Ok(empty()),
        Ok(Err(Refusal::UnknownInstance { .. })) => Err(errors(StatusCode::NOT_FOUND, unknown)),
        Ok(Err(refusal)) => Err(errors(StatusCode::CONFLICT, refusal.to_string())),
        Err(ended) => Err(gone(ended)),
    }
}

fn gone(ended: Ended) -> Answer {
    errors(StatusCode::SERVICE_UNAVAILABLE, ended.to_string())
}

fn empty() -> Answer {
    Response::new(Body::empty())
}

fn json_text(text: &Arc<str>) -> Answer {
    let mut response = plain(StatusCode::OK, text.to_string());
    let kind = axum::http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(axum::http::header::CONTENT_TYPE, kind);
    response
}
