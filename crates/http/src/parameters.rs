//! What is asked for.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use crate::errors;

/// A body that is too large is read and dropped if it has at most so many bytes, so that its
/// client sees the answer.
const MAX_DROPPED: u64 = 64 << 20;

/// The parameters of a request, wherever they are: in the query, in a form body, or in a JSON
/// object as the body. What is in the body wins.
///
/// ```
/// use axum::{body::Body, http::Request};
/// use longshore_http::Parameters;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let request = Request::post("/?limit=5&api_token=x")
///     .header("content-type", "application/json")
///     .body(Body::from(r#"{"filters": [["state", "=", "Queued"]]}"#))?;
/// let parameters = Parameters::read(request, 1 << 20).await.map_err(|_| "it is well-formed")?;
/// assert_eq!(parameters.text("limit").as_deref(), Some("5"));
/// assert!(parameters.value("filters").map_err(|_| "it is JSON")?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(BTreeMap<String, Value>);

impl Parameters {
    /// Reads the whole request, with a body of at most `limit` bytes. The error is the answer.
    pub async fn read(request: Request<Body>, limit: usize) -> Result<Self, Box<Response<Body>>> {
        let mut found = BTreeMap::new();
        add_form(
            request.uri().query().unwrap_or_default().as_bytes(),
            &mut found,
        );
        let kind = content_type(request.headers());
        let body = read_body(request, limit).await?;
        if body.is_empty() {
            return Ok(Self(found));
        }
        if kind == "application/json" {
            match serde_json::from_slice(&body) {
                Ok(Value::Object(map)) => found.extend(map),
                Ok(_) => return Err(unreadable("the body is JSON, but no object")),
                Err(error) => return Err(unreadable(&format!("the body is not JSON: {error}"))),
            }
        } else {
            add_form(&body, &mut found);
        }
        Ok(Self(found))
    }

    /// A parameter as text; a number or a boolean in a JSON body is given as it is written.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A parameter that is an array or an object: as such in a JSON body, or as JSON in a text.
    /// An empty text is none. The error is the answer.
    pub fn value(&self, name: &str) -> Result<Option<Value>, Box<Response<Body>>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text).map(Some).map_err(|error| {
                unreadable(&format!("the parameter {name:?} is not JSON: {error}"))
            }),
            Some(value) => Ok(Some(value.clone())),
        }
    }

    /// All of them, by name.
    pub fn into_map(self) -> BTreeMap<String, Value> {
        self.0
    }
}

/// A body of at most `limit` bytes. The error is the answer: 413 beyond the limit, 400 if the
/// client broke off.
pub async fn read_body(request: Request<Body>, limit: usize) -> Result<Bytes, Box<Response<Body>>> {
    let too_large = || {
        let message = format!("the body has more than {limit} bytes");
        Box::new(errors(StatusCode::PAYLOAD_TOO_LARGE, message))
    };
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = announced.filter(|length| *length > limit as u64) {
        if length <= MAX_DROPPED {
            drop_body(request.into_body()).await;
        }
        return Err(too_large());
    }
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Box::new(errors(
            StatusCode::BAD_REQUEST,
            "the body broke off",
        ))),
    }
}

/// Reads what nobody wants: a client that is still sending would not read the answer.
async fn drop_body(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// What a client means by a POST whose `X-HTTP-Method-Override` says GET, PUT, PATCH or DELETE:
/// long lists come like this. To be applied before a router looks at the method.
pub fn method_override<B>(mut request: Request<B>) -> Request<B> {
    if request.method() == Method::POST
        && let Some(name) = request.headers().get("x-http-method-override")
        && let Ok(method) = Method::from_bytes(name.as_bytes().to_ascii_uppercase().as_slice())
        && matches!(
            method,
            Method::GET | Method::PUT | Method::PATCH | Method::DELETE
        )
    {
        *request.method_mut() = method;
    }
    request
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

fn add_form(bytes: &[u8], found: &mut BTreeMap<String, Value>) {
    let pairs = form_urlencoded::parse(bytes);
    found.extend(pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))));
}

fn unreadable(message: &str) -> Box<Response<Body>> {
    Box::new(errors(StatusCode::UNPROCESSABLE_ENTITY, message))
}
