//! Asking the service of a state directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use longshore_http::Token;
use longshore_runner_api::MAX_WINDOW_BYTES;
use longshore_types::InstanceType;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::files::{self, API_TOKEN, MANAGEMENT_TOKEN};
use super::view::OutputView;
use super::{api, files::About};
use crate::ending::UsageError;

/// How long an answer may take beyond what is waited for by agreement.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const MAX_ANSWER: usize = 1 << 30;

/// What answers on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "the two that hold a state directory"
)]
pub enum ServiceKind {
    /// `longshore serve`: it stays.
    Serve,
    /// `longshore run`: it ends with its jobs.
    Run,
}

/// The service that holds a state directory.
#[derive(Clone, Debug)]
pub struct Client {
    state_dir: PathBuf,
    about: About,
    api_token: Token,
    management_token: Token,
}

/// A request that was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers; what was asked for may have been done if it had been sent.
    #[error("the service of {} does not answer", state_dir.display())]
    Gone {
        /// The state directory.
        state_dir: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service refused it.
    #[error("{message}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it said.
        message: String,
    },
}

impl ClientError {
    /// Whether the service is gone, or was not reached.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// Whether the service does not have what was asked for.
    pub fn is_not_there(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the service is about to go, and so did nothing.
    pub fn is_ending(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == api::ENDING.as_u16())
    }
}

struct Reply {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Client {
    /// The service of a state directory; none if nobody answers there.
    pub async fn find(state_dir: &Path) -> Option<Self> {
        let about = files::read_about(state_dir).ok()?;
        let client = Self {
            api_token: files::read_token(state_dir, API_TOKEN).ok()?,
            management_token: files::read_token(state_dir, MANAGEMENT_TOKEN).ok()?,
            state_dir: state_dir.to_owned(),
            about,
        };
        client.connect().await.ok()?;
        Some(client)
    }

    /// The service of a state directory, or what to do to have one.
    pub async fn need(state_dir: &Path) -> anyhow::Result<Self> {
        let found = Self::find(state_dir).await;
        if found.is_none() {
            Self::check_tokens(state_dir).await?;
        }
        found.ok_or_else(|| {
            let path = state_dir.display();
            UsageError::new(format!(
                "no service runs for the state directory {path}; start one with `longshore \
                 serve`, or name another directory with --state-dir"
            ))
            .into()
        })
    }

    /// Whether a service is there whose tokens cannot be read.
    async fn check_tokens(state_dir: &Path) -> Result<(), UsageError> {
        let answers = async {
            let socket = files::socket(state_dir).ok()?;
            UnixStream::connect(&socket.path).await.ok()
        };
        if answers.await.is_none() {
            return Ok(());
        }
        for name in [API_TOKEN, MANAGEMENT_TOKEN] {
            files::read_token(state_dir, name).map_err(|error| {
                let path = state_dir.join(name);
                UsageError::new(format!(
                    "the token {} cannot be read: {error}; end the service and start it again to \
                     have a new one",
                    path.display()
                ))
            })?;
        }
        Ok(())
    }

    /// What answers.
    pub fn kind(&self) -> ServiceKind {
        self.about.kind
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.about.pid
    }

    /// The instance types that it has; none if it does not say, which does not limit anything.
    pub async fn instance_types(&self) -> Result<Vec<InstanceType>, ClientError> {
        #[derive(Deserialize)]
        struct Items {
            items: Vec<InstanceType>,
        }
        match self.get("/longshore/v1/instance_types").await {
            Ok(Items { items }) => Ok(items),
            // An older one.
            Err(ClientError::Refused { status: 404, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Asks with the token of the API for jobs, and reads the answer as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.get_waiting(path, Duration::ZERO).await
    }

    /// As [`Client::get`], where the service waits so long by agreement.
    pub async fn get_waiting<T: DeserializeOwned>(
        &self,
        path: &str,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let asked = self.ask(Method::GET, path, &self.api_token, Vec::new(), wait);
        self.read(&asked.await?.body)
    }

    /// Sends JSON with the token of the API for jobs.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.gone(error))?;
        let asked = self.ask(Method::POST, path, &self.api_token, body, Duration::ZERO);
        self.read(&asked.await?.body)
    }

    /// Asks the management API; an empty answer is null.
    pub async fn manage(&self, method: Method, path: &str) -> Result<Value, ClientError> {
        let asked = self.ask(
            method,
            path,
            &self.management_token,
            Vec::new(),
            Duration::ZERO,
        );
        let reply = asked.await?;
        if reply.body.is_empty() {
            return Ok(Value::Null);
        }
        self.read(&reply.body)
    }

    /// A part of the output of a job.
    pub async fn output(
        &self,
        uuid: &str,
        stream: &str,
        from: u64,
        wait: Duration,
    ) -> Result<OutputView, ClientError> {
        let wait_ms = wait.as_millis();
        let path = format!(
            "/longshore/v1/jobs/{uuid}/output/{stream}?from={from}&length={MAX_WINDOW_BYTES}\
             &wait_ms={wait_ms}"
        );
        let asked = self.ask(Method::GET, &path, &self.api_token, Vec::new(), wait);
        let reply = asked.await?;
        let number = |name: &str| {
            let value = reply.headers.get(name)?.to_str().ok()?;
            value.parse::<u64>().ok()
        };
        Ok(OutputView {
            attempt: number(api::ATTEMPT).map_or(0, |n| u32::try_from(n).unwrap_or(0)),
            from: number(api::FROM).unwrap_or(from),
            complete: number(api::COMPLETE) == Some(1),
            bytes: reply.body,
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        token: &Token,
        body: Vec<u8>,
        wait: Duration,
    ) -> Result<Reply, ClientError> {
        let asked = timeout(TIMEOUT + wait, self.converse(method, path, token, body));
        match asked.await {
            Ok(answer) => answer,
            Err(_) => Err(self.gone("no answer in time")),
        }
    }

    async fn converse(
        &self,
        method: Method,
        path: &str,
        token: &Token,
        body: Vec<u8>,
    ) -> Result<Reply, ClientError> {
        let stream = self.connect().await.map_err(|error| self.gone(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.gone(error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
            .body(Body::from(body))
            .map_err(|error| self.gone(error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.gone(error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.gone(error))?.to_bytes().to_vec();
        connection.abort();
        if parts.status == StatusCode::OK {
            let headers = parts.headers;
            return Ok(Reply { headers, body });
        }
        // Of what is asked here nothing is forbidden to who has the right token.
        let message = match parts.status {
            StatusCode::FORBIDDEN => format!(
                "the token in {} is not the one that the service began with; put that back, or \
                 end the service and start it again",
                self.state_dir.display()
            ),
            _ => said(&body),
        };
        Err(ClientError::Refused {
            status: parts.status.as_u16(),
            message,
        })
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        let socket = files::socket(&self.state_dir)?;
        UnixStream::connect(&socket.path).await
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.gone(error))
    }

    fn gone(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Gone {
            state_dir: self.state_dir.clone(),
            source: source.into(),
        }
    }
}

/// The text of an error that the service answered.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    match serde_json::from_slice::<Errors>(body) {
        Ok(said) => said.errors.join("; "),
        Err(_) => String::from_utf8_lossy(body).chars().take(500).collect(),
    }
}

/// A text as a part of a path or a query.
pub(crate) fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
