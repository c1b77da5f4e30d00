//! Answers in the forms that clients of Arvados know.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// What a handler answers, whether it came to its end or refused on the way.
pub async fn answer(
    result: impl Future<Output = Result<Response<Body>, Response<Body>>>,
) -> Response<Body> {
    match result.await {
        Ok(answer) | Err(answer) => answer,
    }
}

/// `{"errors": [message]}` with a status.
pub fn errors(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = json_text(status, json!({ "errors": [message.into()] }).to_string());
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Anything as JSON, status 200. It is written as it is read: nothing is built of it in between,
/// which of long lists would take many times the room of the answer.
pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(text) => with_type(StatusCode::OK, "application/json", text),
        Err(error) => errors(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// A line of plain text.
pub fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", text.into())
}

fn json_text(status: StatusCode, text: String) -> Response<Body> {
    with_type(status, "application/json", text)
}

fn with_type(status: StatusCode, kind: &'static str, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
