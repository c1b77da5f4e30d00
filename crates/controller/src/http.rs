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
use std::time::{Duration, Instant};

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

use crate::listing::{self, Listing, Load, Table};
use crate::{ContainerRequest, RequestChange, Store, Window};
use list::Question;

/// The largest body of a request in bytes.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;
/// How many objects are looked at for a list, the newest first, where the database does not know
/// all that is asked.
const MAX_LOOKED_AT: usize = 100_000;
/// For how long at most.
const MAX_LOOK: Duration = Duration::from_secs(30);

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
        let mut listing = Listing::of(&listing::CONTAINERS);
        listing.narrow("uuid", "=", &uuid.as_str().into());
        let window = listing::Window {
            offset: 0,
            limit: 1,
            count: false,
        };
        let show = |(job, document): listing::Listed| show::container(&job, &document);
        let found = self.store.list(listing, window, listing::container, show);
        let missing = || errors(StatusCode::NOT_FOUND, "there is no such container");
        let mut found = found.await.map_err(failed)?;
        found.rows.pop().ok_or_else(missing)
    }

    /// Answers with a list: asks the database for the part that is wanted, or looks through what
    /// there is where it does not know all that is asked.
    async fn list<T: Send + 'static>(
        &self,
        mut question: Question,
        table: &'static Table,
        load: Load<T>,
        show: fn(&T) -> Value,
        kind: &str,
    ) -> Result<Answer, Answer> {
        let listing = question.put_to(table);
        if let Some(window) = question.window() {
            let select = question.select();
            let show = move |row| list::only(show(&row), select.as_deref());
            let listed = self.store.list(listing, window, load, show).await;
            return Ok(question.answer(listed.map_err(failed)?, kind));
        }
        let found = list::Found::new(question);
        let visit = move |found: &mut list::Found, row: T| found.add(show(&row));
        let bounds = (MAX_LOOKED_AT, Instant::now() + MAX_LOOK);
        let looked = self.store.look_through(listing, bounds, load, found, visit);
        looked.await.map_err(failed)?.answer(kind)
    }
}

async fn list_containers(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let question = Question::read(parameters(request).await?, show::CONTAINER)?;
        let show = |(job, document): &listing::Listed| show::container(job, document);
        let (table, load) = (&listing::CONTAINERS, listing::container as _);
        api.list(question, table, load, show, "arvados#containerList")
            .await
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
        // All of it is understood before any of it is done.
        let changes = changes.iter().map(ContainerChange::read);
        let changes = changes.collect::<Result<Vec<_>, _>>();
        for change in changes.map_err(unprocessable)? {
            let done = match change {
                ContainerChange::Cancel => api.store.cancel(uuid).await,
                ContainerChange::Priority(priority) => api.store.set_priority(uuid, priority).await,
            };
            done.map_err(failed)?;
        }
        Ok(json(&api.container(uuid).await?))
    })
    .await
}

/// What can be changed of a container.
enum ContainerChange {
    Cancel,
    Priority(i64),
}

impl ContainerChange {
    fn read((name, value): (&String, &Value)) -> Result<Self, String> {
        match (name.as_str(), value) {
            ("state", Value::String(state)) if state == "Cancelled" => Ok(Self::Cancel),
            ("priority", value) => job::priority(value).map(Self::Priority),
            _ => Err(format!("{name} of a container cannot be set so")),
        }
    }
}

async fn not_for_others() -> Answer {
    let message = "containers of this installation are locked by its own dispatcher only";
    errors(StatusCode::FORBIDDEN, message)
}

async fn list_requests(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let question = Question::read(parameters(request).await?, show::REQUEST)?;
        let (table, load) = (&listing::REQUESTS, listing::request as _);
        let kind = "arvados#containerRequestList";
        api.list(question, table, load, show::request, kind).await
    })
    .await
}

async fn create(State(api): Shared, request: Request<Body>) -> Answer {
    answer(async {
        let given = attributes(parameters(request).await?, "container_request")?;
        let wanted = job::Wanted::read(&given).map_err(unprocessable)?;
        let (job, priority) = (wanted.job, wanted.priority);
        let made = api.store.create_request(given, job, priority).await;
        Ok(json(&show::request(&made.map_err(not_created)?)))
    })
    .await
}

async fn request(State(api): Shared, Path(uuid): Path<String>, request: Request<Body>) -> Answer {
    answer(async {
        let select = list::select(&parameters(request).await?)?;
        let found = api.store.request(&uuid).await.map_err(failed)?;
        let shown = show::request(&found);
        Ok(json(&list::only(shown, select.as_deref())))
    })
    .await
}

async fn update(State(api): Shared, Path(uuid): Path<String>, request: Request<Body>) -> Answer {
    answer(async {
        let changes = attributes(parameters(request).await?, "container_request")?;
        let change = move |before: &ContainerRequest| {
            let refused = |why| QueueError::new(QueueErrorKind::Refused, why);
            changed(before, &changes).map_err(refused)
        };
        let updated = api.store.update_request(&uuid, change).await;
        Ok(json(&show::request(&updated.map_err(failed)?)))
    })
    .await
}

/// What becomes of a request with these attributes in place of the ones it had. The error is what
/// is wrong with them, one line.
fn changed(
    before: &ContainerRequest,
    changes: &Map<String, Value>,
) -> Result<RequestChange, String> {
    let committed = before.container.is_some();
    let changeable = ["priority", "name", "description", "properties", "state"];
    for (name, value) in changes {
        let same = before.attributes.get(name) == Some(value);
        if committed && !changeable.contains(&name.as_str()) && !same {
            return Err(format!(
                "{name} cannot be changed once a request is committed"
            ));
        }
    }
    let stays = |state: &Value| state == "Committed";
    if committed && !changes.get("state").is_none_or(stays) {
        return Err("a request that was committed stays so".into());
    }
    let priority = changes.get("priority").map(job::priority).transpose()?;
    let mut attributes = before.attributes.clone();
    attributes.extend(changes.clone());
    // What was in it before counts, too.
    if listing::size_of_map(&attributes) > MAX_REQUEST_BYTES {
        return Err("the attributes of a request have at most 8 MiB".into());
    }
    let wanted = job::Wanted::read(&attributes)?;
    Ok(RequestChange {
        attributes,
        job: wanted.job,
        priority: if committed {
            priority
        } else {
            Some(wanted.priority)
        },
    })
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
        QueueErrorKind::Overloaded | QueueErrorKind::Unavailable | QueueErrorKind::Unknown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    errors(status, error_chain(&error))
}

/// The answer to a request that makes something anew each time: where nobody knows whether it did,
/// the status is one with which clients do not repeat it by themselves.
fn not_created(error: QueueError) -> Answer {
    if error.kind != QueueErrorKind::Unknown {
        return failed(error);
    }
    let why = error_chain(&error);
    let message = format!(
        "nobody knows whether the request was stored; look for it before asking again: {why}"
    );
    errors(StatusCode::FAILED_DEPENDENCY, message)
}

#[cfg(test)]
mod tests;
