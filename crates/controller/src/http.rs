//! The API of Arvados for containers and container requests, over HTTP.
//!
//! [`Api::router`] has as much of it as its clients (the Python SDK among them) need to ask for a
//! container, to follow it and to end it. Which server answers, and where, is up to the program.

#![expect(
    clippy::result_large_err,
    reason = "the error is the answer, made once a request"
)]

mod discovery;
mod job;
mod list;
mod log;
mod show;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, Response, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use longshore_http::{Parameters, Token, answer, authorize, errors, json};
use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::{ContainerUuid, error_chain};
use serde_json::{Map, Value, json};

use crate::{ContainerRequest, JobFilter, JobStates, Store, Window};
use list::Question;

/// The largest body of a request in bytes.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;
/// How many containers are looked at for a list, the newest first.
const MAX_LOOKED_AT: usize = 100_000;

/// Reads what containers wrote, also of those that run.
#[async_trait]
pub trait ReadOutput: fmt::Debug + Send + Sync {
    /// At most `length` bytes of a stream (`stdout` or `stderr`) from the byte `from` on, as far
    /// as they are written.
    async fn read(
        &self,
        uuid: ContainerUuid,
        stream: &'static str,
        from: u64,
        length: u64,
    ) -> Result<Window, QueueError>;
}

/// What the API needs.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where containers and requests are.
    pub store: Arc<Store>,
    /// What clients have to present.
    pub token: Token,
    /// Reads output.
    pub output: Arc<dyn ReadOutput>,
}

type Shared = State<Arc<Api>>;
type Answer = Response<Body>;

impl Api {
    /// `/arvados/v1/containers`, `/arvados/v1/container_requests`, the current token and user, the
    /// configuration, and the discovery document, for which no token is needed.
    pub fn router(self) -> Router {
        let api = Arc::new(self);
        let routes = Router::new()
            .route("/containers", get(list_containers))
            .route(
                "/containers/{uuid}",
                get(container).put(update_container).patch(update_container),
            )
            .route("/containers/{uuid}/lock", post(not_for_others))
            .route("/containers/{uuid}/unlock", post(not_for_others))
            .route("/container_requests", get(list_requests).post(create))
            .route(
                "/container_requests/{uuid}",
                get(request).put(update).patch(update),
            )
            .route(
                "/container_requests/{uuid}/log/{container}/{file}",
                get(log::log),
            )
            .route("/api_client_authorizations/current", get(authorization))
            .route("/users/current", get(user))
            .route("/config", get(config))
            .route_layer(from_fn_with_state(api.token.clone(), authorize))
            .with_state(api);
        Router::new().nest("/arvados/v1", routes).route(
            "/discovery/v1/apis/arvados/v1/rest",
            get(discovery::document),
        )
    }

    async fn container(&self, uuid: ContainerUuid) -> Result<Value, Answer> {
        let missing = || errors(StatusCode::NOT_FOUND, "there is no such container");
        let job = self.store.job(uuid).await.map_err(failed)?;
        let job = job.ok_or_else(missing)?;
        let document = longshore_queue::Queue::document(&*self.store, uuid, TIMEOUT).await;
        let document = document.map_err(failed)?;
        Ok(show::container(&job, &document))
    }

    async fn shown(&self, request: &ContainerRequest) -> Result<Value, Answer> {
        let container = match request.container {
            Some(uuid) => self.store.job(uuid).await.map_err(failed)?,
            None => None,
        };
        Ok(show::request(request, container.as_ref()))
    }
}

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

async fn list_containers(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let question = Question::read(parameters(request).await?, show::CONTAINER)?;
        // One that is asked for by UUID is not looked for.
        if let Some(uuids) = question.uuids() {
            let mut found = Vec::new();
            for uuid in uuids.iter().filter_map(|uuid| uuid.parse().ok()) {
                match api.container(uuid).await {
                    Ok(container) => found.push(container),
                    Err(answer) if answer.status() == StatusCode::NOT_FOUND => {}
                    Err(answer) => return Err(answer),
                }
            }
            return question.answer(found, None, "arvados#containerList");
        }
        let filter = JobFilter {
            states: if question.wants_unfinished() {
                JobStates::Unfinished
            } else {
                JobStates::All
            },
            batch: None,
            limit: MAX_LOOKED_AT,
        };
        // Where everything is meant, what is behind the page is only counted.
        let (enough, available) = match question.whole_page() {
            Some(end) => {
                let available = api.store.count_jobs(filter.states).await.map_err(failed)?;
                (end, Some(available))
            }
            None => (usize::MAX, None),
        };
        let found = {
            let question = question.clone();
            let visit = move |job: &crate::JobStatus, document: &[u8]| {
                let value = show::container(job, document);
                question.has(&value).then_some(value)
            };
            let visited = api.store.visit_jobs(filter, enough, visit).await;
            visited.map_err(failed)?
        };
        question.answer(found, available, "arvados#containerList")
    })
    .await
}

async fn container(State(api): Shared, Path(uuid): Path<String>, request: Request<Body>) -> Answer {
    answer(async {
        let select = list::select(&parameters(request).await?)?;
        let container = api.container(container_uuid(&uuid)?).await?;
        Ok(json(&list::only(container, select.as_deref())))
    })
    .await
}

async fn update_container(
    State(api): Shared,
    Path(uuid): Path<String>,
    request: Request<Body>,
) -> Answer {
    answer(async {
        let uuid = container_uuid(&uuid)?;
        let changes = attributes(parameters(request).await?, "container")?;
        api.container(uuid).await?;
        for (name, value) in &changes {
            match (name.as_str(), value) {
                ("state", Value::String(state)) if state == "Cancelled" => {
                    api.store.cancel(uuid).await.map_err(failed)?;
                }
                ("priority", value) => {
                    let priority = job::priority(value).map_err(unprocessable)?;
                    let done = api.store.set_priority(uuid, priority).await;
                    done.map_err(failed)?;
                }
                _ => {
                    let message = format!("{name} of a container cannot be set so");
                    return Err(unprocessable(message));
                }
            }
        }
        Ok(json(&api.container(uuid).await?))
    })
    .await
}

async fn not_for_others() -> Answer {
    let message = "containers of this installation are locked by its own dispatcher only";
    errors(StatusCode::FORBIDDEN, message)
}

async fn list_requests(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let question = Question::read(parameters(request).await?, show::REQUEST)?;
        let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
        let visit = {
            let (requests, mut looked_at) = (requests.clone(), 0);
            move |request: ContainerRequest| {
                let mut requests = requests.lock().unwrap_or_else(|e| e.into_inner());
                requests.push(request);
                looked_at += 1;
                looked_at < MAX_LOOKED_AT
            }
        };
        api.store.visit_requests(visit).await.map_err(failed)?;
        let requests = std::mem::take(&mut *requests.lock().unwrap_or_else(|e| e.into_inner()));
        let mut found = Vec::new();
        for request in requests {
            // Most questions are answered by what the client itself gave.
            let without = show::request(&request, None);
            if question.may_have(&without) {
                let shown = api.shown(&request).await?;
                if question.has(&shown) {
                    found.push(shown);
                }
            }
            if question.is_answered_by(&found) {
                break;
            }
        }
        question.answer(found, None, "arvados#containerRequestList")
    })
    .await
}

async fn create(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let given = attributes(parameters(request).await?, "container_request")?;
        let wanted = job::Wanted::read(&given).map_err(unprocessable)?;
        let (job, priority) = (wanted.job, wanted.priority);
        let made = api.store.create_request(given, job, priority).await;
        Ok(json(&api.shown(&made.map_err(failed)?).await?))
    })
    .await
}

async fn request(State(api): Shared, Path(uuid): Path<String>, request: Request<Body>) -> Answer {
    answer(async {
        let select = list::select(&parameters(request).await?)?;
        let found = api.store.request(&uuid).await.map_err(failed)?;
        let shown = api.shown(&found).await?;
        Ok(json(&list::only(shown, select.as_deref())))
    })
    .await
}

async fn update(State(api): Shared, Path(uuid): Path<String>, request: Request<Body>) -> Answer {
    answer(async {
        let changes = attributes(parameters(request).await?, "container_request")?;
        let before = api.store.request(&uuid).await.map_err(failed)?;
        let committed = before.container.is_some();
        let changeable = ["priority", "name", "description", "properties", "state"];
        for (name, value) in &changes {
            let same = before.attributes.get(name) == Some(value);
            if committed && !changeable.contains(&name.as_str()) && !same {
                let message = format!("{name} cannot be changed once a request is committed");
                return Err(unprocessable(message));
            }
        }
        if committed
            && changes
                .get("state")
                .is_some_and(|state| state != "Committed")
        {
            return Err(unprocessable(
                "a request that was committed stays so".into(),
            ));
        }
        let priority = changes.get("priority").map(job::priority).transpose();
        let priority = priority.map_err(unprocessable)?;
        let mut attributes = before.attributes;
        attributes.extend(changes);
        let wanted = job::Wanted::read(&attributes).map_err(unprocessable)?;
        let priority = if committed {
            priority
        } else {
            Some(wanted.priority)
        };
        let updated = api
            .store
            .update_request(&uuid, attributes, wanted.job, priority);
        Ok(json(&api.shown(&updated.await.map_err(failed)?).await?))
    })
    .await
}

async fn authorization(State(api): Shared) -> Answer {
    let uuid = format!("{}-gj3su-000000000000000", api.store.settings.cluster);
    json(&json!({
        "uuid": uuid, "kind": "arvados#apiClientAuthorization", "etag": "",
        "owner_uuid": owner(&api.store), "scopes": ["all"], "expires_at": null,
        "created_at": null, "modified_at": null,
    }))
}

async fn user(State(api): Shared) -> Answer {
    json(&json!({
        "uuid": owner(&api.store), "kind": "arvados#user", "etag": "",
        "owner_uuid": owner(&api.store), "is_active": true, "is_admin": true,
        "username": "longshore", "email": "", "first_name": "", "last_name": "", "full_name": "",
    }))
}

async fn config(State(api): Shared) -> Answer {
    json(&json!({
        "ClusterID": api.store.settings.cluster,
        "API": { "MaxItemsPerResponse": list::MAX_LIMIT, "MaxRequestSize": MAX_REQUEST_BYTES },
        "Containers": { "MaxDispatchAttempts": api.store.settings.max_dispatch_attempts },
    }))
}

/// The one user that there is.
fn owner(store: &Store) -> String {
    format!("{}-tpzed-000000000000000", store.settings.cluster)
}

async fn parameters(request: Request<Body>) -> Result<Parameters, Answer> {
    Parameters::read(request, MAX_REQUEST_BYTES)
        .await
        .map_err(|refused| *refused)
}

/// The attributes of an object in a body: wrapped in its name, or bare.
fn attributes(parameters: Parameters, name: &str) -> Result<Map<String, Value>, Answer> {
    match parameters.value(name).map_err(|refused| *refused)? {
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(unprocessable(format!("{name} is no object"))),
        None => {
            // What belongs to the request itself, and not to what is asked for.
            let about = [
                "api_token",
                "alt",
                "ensure_unique_name",
                "select",
                "cluster_id",
                "_method",
            ];
            let map = parameters.into_map().into_iter();
            Ok(map
                .filter(|(name, _)| !about.contains(&name.as_str()))
                .collect())
        }
    }
}

fn container_uuid(uuid: &str) -> Result<ContainerUuid, Answer> {
    let missing = |_| errors(StatusCode::NOT_FOUND, "there is no such container");
    uuid.parse().map_err(missing)
}

fn unprocessable(message: String) -> Answer {
    errors(StatusCode::UNPROCESSABLE_ENTITY, message)
}

/// The answer to a request that the controller did not carry out.
pub fn failed(error: QueueError) -> Response<Body> {
    let status = match error.kind {
        QueueErrorKind::NotFound => StatusCode::NOT_FOUND,
        QueueErrorKind::Refused => StatusCode::UNPROCESSABLE_ENTITY,
        QueueErrorKind::BadRecord => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    errors(status, error_chain(&error))
}
