//! Answering on the socket, and on TCP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::routing::get;
use longshore_controller::http::Api;
use longshore_dispatch::http::Management;
use longshore_http::{Limits, Listener, Token, authorize, errors, method_override, serve};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::util::MapRequestLayer;
use tower::{Layer as _, Service};

use super::client::ServiceKind;
use super::files::{self, About, SocketPath};
use super::requests::{self, Requests};
use crate::embedded::Embedded;
use crate::ending::UsageError;
use crate::state::{StateDirectory, StateError};

/// The longest that answering a request may take, whatever it waits for.
const MAX_REQUEST: Duration = Duration::from_secs(120);

/// Where a service answers beside its socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerSettings {
    pub(crate) listen: Option<SocketAddr>,
    /// The files of a certificate chain and of its key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
}

/// Everything that answering needs, taken before anything acts.
#[derive(Debug)]
pub(crate) struct Bound {
    listeners: Vec<Listener>,
    management_token: Token,
    api_token: Token,
    socket: SocketPath,
    url: Option<String>,
}

impl Bound {
    /// Takes the addresses and makes the tokens. Whoever asks waits until it is answered.
    pub(crate) async fn new(
        state: &StateDirectory,
        kind: ServiceKind,
        settings: &ServerSettings,
    ) -> anyhow::Result<Self> {
        let state_dir = state.path().to_owned();
        let tcp = match settings.listen {
            Some(address) => Some(listen(address, settings).await?),
            None => None,
        };
        let url = tcp.as_ref().and_then(Listener::address).map(|address| {
            let scheme = settings.tls.as_ref().map_or("http", |_| "https");
            format!("{scheme}://{address}")
        });
        let management_token = files::token(&state_dir, files::MANAGEMENT_TOKEN)?;
        let api_token = files::token(&state_dir, files::API_TOKEN)?;
        let unusable = |what: &'static str| {
            let path = state_dir.clone();
            move |source| StateError::unusable(&path, what, source)
        };
        let socket = files::socket(&state_dir).map_err(unusable("opening it"))?;
        // Whoever held the directory before has gone, and with it who answered there.
        files::remove_socket(&socket.path).map_err(unusable("removing an old service.sock"))?;
        let about = About {
            pid: std::process::id(),
            kind,
            url: url.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        files::write_about(&state_dir, &about).map_err(unusable("writing service.json"))?;
        let unix = Listener::unix(&socket.path).map_err(unusable("making service.sock"))?;
        Ok(Self {
            listeners: tcp.into_iter().chain([unix]).collect(),
            management_token,
            api_token,
            socket,
            url,
        })
    }

    /// Answers from now on.
    pub(crate) fn serve(self, embedded: &Embedded) -> Server {
        let router = router(&self, embedded);
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            let limits = Limits::default();
            tasks.spawn(serve(listener, router.clone(), limits, stopping.clone()));
        }
        Server {
            stop,
            tasks,
            socket: self.socket,
            url: self.url,
        }
    }
}

/// The servers of a process.
#[derive(Debug)]
pub(crate) struct Server {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// In the directory in which it was made, wherever that is by now.
    socket: SocketPath,
    url: Option<String>,
}

impl Server {
    /// Where it answers on TCP.
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Answers nothing new, and waits a moment for what is being answered.
    pub(crate) async fn stop(mut self) {
        if let Err(error) = files::remove_socket(&self.socket.path) {
            tracing::warn!(%error, "service.sock cannot be removed");
        }
        // Its receivers are gone only once the servers are.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn listen(address: SocketAddr, settings: &ServerSettings) -> anyhow::Result<Listener> {
    let tls = match &settings.tls {
        Some((certificate, key)) => {
            let acceptor = longshore_http::tls_acceptor(certificate, key);
            let wrong = |error| {
                let why = longshore_types::error_chain(&error);
                UsageError::new(format!("--tls-cert, --tls-key: {why}"))
            };
            Some(acceptor.map_err(wrong)?)
        }
        None => None,
    };
    Listener::tcp(address, tls).await.map_err(|error| {
        UsageError::new(format!(
            "cannot listen on {address}: {error}; choose another address with --listen"
        ))
        .into()
    })
}

fn router(bound: &Bound, embedded: &Embedded) -> Router {
    let local = embedded.local();
    let types = embedded.types().iter();
    let types: std::collections::BTreeMap<_, _> =
        types.map(|t| (t.name.clone(), t.clone())).collect();
    let mut registry = Registry::default();
    let handle = embedded.dispatcher().handle();
    embedded.driver_metrics().register(&mut registry);
    let requests = Requests::register(&mut registry);
    register_version(&mut registry);
    let management = Management {
        dispatcher: handle,
        token: bound.management_token.clone(),
        kill: Arc::new(local.clone()),
        controller: Arc::new(local.clone()),
        types,
        registry: Arc::new(registry),
    };
    let inspect = Router::new()
        .route("/_inspect/requests", get(requests::inspect))
        .route_layer(from_fn_with_state(management.token.clone(), authorize))
        .with_state(requests.clone());
    let api = Api {
        store: embedded.store().clone(),
        token: bound.api_token.clone(),
        output: Arc::new(local.clone()),
    };
    let routes = super::api::router(local, bound.api_token.clone())
        .merge(management.router())
        .merge(api.router())
        .merge(inspect)
        .fallback(async || errors(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            errors(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has no such method",
            )
        })
        .layer(from_fn(within))
        .layer(from_fn_with_state(requests, requests::note));
    // Before the routes are looked at.
    Router::new().fallback_service(overridable(routes))
}

/// What is running, for who compares installations.
fn register_version(registry: &mut Registry) {
    let version = Family::<[(&str, &str); 1], Gauge>::default();
    let labels = [("version", env!("CARGO_PKG_VERSION"))];
    version.get_or_create(&labels).set(1);
    registry.register(
        "arvados_version_running",
        "Whether the service is of this version",
        version,
    );
}

fn overridable(
    routes: Router,
) -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = std::convert::Infallible,
    Future = impl Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static {
    MapRequestLayer::new(method_override::<Body>).layer(routes)
}

/// However slow a client sends its body, or a store answers: a request has its end.
async fn within(request: Request<Body>, next: Next) -> Response<Body> {
    let answered = tokio::time::timeout(MAX_REQUEST, next.run(request)).await;
    answered.unwrap_or_else(|_| errors(StatusCode::REQUEST_TIMEOUT, "the request took too long"))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use axum::body::Bytes;
    use axum::response::IntoResponse as _;
    use axum::routing::post;
    use hyper::body::{Body as HttpBody, Frame};
    use longshore_http::read_body;
    use tokio::time::{Instant, Interval, interval};
    use tower::ServiceExt as _;

    use super::*;

    /// A byte a second, without end.
    struct Trickle(Interval);

    impl HttpBody for Trickle {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            ready!(self.0.poll_tick(context));
            let byte = Frame::data(Bytes::from_static(b" "));
            Poll::Ready(Some(Ok(byte)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_a_byte_a_second_has_its_end() {
        let read = |request| async {
            match read_body(request, 1 << 20).await {
                Ok(_) => StatusCode::OK.into_response(),
                Err(refused) => *refused,
            }
        };
        let router = Router::new().route("/", post(read)).layer(from_fn(within));
        let body = Body::new(Trickle(interval(Duration::from_secs(1))));
        let (request, since) = (Request::post("/").body(body), Instant::now());
        let answer = router.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(since.elapsed(), MAX_REQUEST);
    }
}
