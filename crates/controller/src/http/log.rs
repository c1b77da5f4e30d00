//! Logs, in ranges, so that clients can follow them.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Channel;
use longshore_http::errors;
use longshore_queue::{QueueError, QueueErrorKind};
use longshore_types::ContainerUuid;

use super::{Answer, Api, Shared, answer, container_uuid, failed};
use crate::Window;

/// How much is given at once, of a range, and read at once.
const MAX_PART: u64 = 1 << 20;

/// What the container of a request wrote: `stdout.txt` or `stderr.txt`, all of it, or from the byte
/// on that `Range` names, at most 1 MiB at once.
pub(super) async fn log(
    State(api): Shared,
    Path((uuid, container, file)): Path<(String, String, String)>,
    request: Request<Body>,
) -> Answer {
    let range = request.headers().get(header::RANGE);
    let range = range.and_then(|value| value.to_str().ok()).map(range_of);
    answer(async {
        let nothing = || errors(StatusCode::NOT_FOUND, "there is no such log");
        let stream = match file.as_str() {
            "stdout.txt" => "stdout",
            "stderr.txt" => "stderr",
            _ => return Err(nothing()),
        };
        let found = api.store.request(&uuid).await.map_err(failed)?;
        let container = container_uuid(&container)?;
        if found.container != Some(container) {
            return Err(nothing());
        }
        let (from, length) = match range {
            None => return whole(api, container, stream).await,
            Some(Some((from, length))) => (from, length.min(MAX_PART)),
            Some(None) => return Err(not_satisfiable()),
        };
        let part = api.output.read(container, stream, from, length).await;
        let part = part.map_err(failed)?;
        if part.bytes.is_empty() {
            return Err(not_satisfiable());
        }
        let last = end(&part) - 1;
        let mut response = text(Body::from(part.bytes));
        if let Ok(value) = format!("bytes {}-{last}/*", part.from).parse() {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        Ok(response)
    })
    .await
}

/// All that is written, also while it is sent, read as the client takes it.
async fn whole(
    api: Arc<Api>,
    container: ContainerUuid,
    stream: &'static str,
) -> Result<Answer, Answer> {
    let read = async move |from| api.output.read(container, stream, from, MAX_PART).await;
    let first = read(0).await.map_err(failed)?;
    let attempt = first.attempt;
    let mut part = read(end(&first)).await.map_err(failed)?;
    let mut written = marked(0, &first);
    if part.bytes.is_empty() {
        return Ok(text(Body::from(written)));
    }
    written.extend(marked(end(&first), &part));
    let (mut sender, body) = Channel::<Bytes, QueueError>::new(1);
    tokio::spawn(async move {
        while !part.bytes.is_empty() && sender.send_data(written.into()).await.is_ok() {
            let next = end(&part);
            // Of an attempt that took its place nothing belongs here.
            let following = read(next)
                .await
                .and_then(|part| match part.attempt == attempt {
                    true => Ok(part),
                    false => Err(QueueError::new(
                        QueueErrorKind::Unavailable,
                        "another attempt has taken the place of the one that wrote this",
                    )),
                });
            part = match following {
                Ok(part) => part,
                // The client sees that it has not all of it.
                Err(error) => return sender.abort(error),
            };
            written = marked(next, &part);
        }
    });
    Ok(text(Body::new(body)))
}

/// What follows a byte of a log, with a line that says how much is missing before it, if anything
/// is.
fn marked(from: u64, part: &Window) -> Vec<u8> {
    let missing = part.from.saturating_sub(from);
    if missing == 0 || part.bytes.is_empty() {
        return part.bytes.clone();
    }
    let mark = format!("\n[longshore: {missing} bytes of output were left out here]\n");
    [mark.as_bytes(), &part.bytes].concat()
}

fn end(part: &Window) -> u64 {
    part.from + part.bytes.len() as u64
}

fn text(body: Body) -> Answer {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let bytes = HeaderValue::from_static("bytes");
    response.headers_mut().insert(header::ACCEPT_RANGES, bytes);
    response
}

/// `bytes=FROM-` or `bytes=FROM-LAST`, as the first byte and the length.
fn range_of(text: &str) -> Option<(u64, u64)> {
    let (from, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    if last.is_empty() {
        return Some((from, u64::MAX));
    }
    let last: u64 = last.parse().ok()?;
    Some((from, last.checked_sub(from)?.saturating_add(1)))
}

fn not_satisfiable() -> Answer {
    errors(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "there is nothing at this range, or not yet",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_refused() {
        assert_eq!(range_of("bytes=5-"), Some((5, u64::MAX)));
        assert_eq!(range_of("bytes=5-9"), Some((5, 5)));
        assert_eq!(
            range_of("bytes=0-18446744073709551615"),
            Some((0, u64::MAX))
        );
        for bad in [
            "",
            "bytes=",
            "bytes=-5",
            "bytes=9-5",
            "lines=1-2",
            "bytes=1-2,4-5",
            "bytes=x-",
        ] {
            assert_eq!(range_of(bad), None, "{bad}");
        }
    }
}
