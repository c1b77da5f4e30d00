//! Logs, in ranges, so that clients can follow them.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use longshore_http::errors;

use super::{Answer, Shared, answer, container_uuid, failed};

/// How much is given at once.
const MAX_PART: u64 = 1 << 20;

/// What the container of a request wrote: `stdout.txt` or `stderr.txt`, from the byte on that
/// `Range` names, at most 1 MiB at once.
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
            None => (0, MAX_PART),
            Some(Some((from, length))) => (from, length.min(MAX_PART)),
            Some(None) => return Err(not_satisfiable()),
        };
        let part = api.output.read(container, stream, from, length).await;
        let part = part.map_err(failed)?;
        if part.bytes.is_empty() && from > 0 {
            return Err(not_satisfiable());
        }
        let last = (part.from + part.bytes.len() as u64).saturating_sub(1);
        let mut response = Response::new(Body::from(part.bytes));
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        let bytes = HeaderValue::from_static("bytes");
        response.headers_mut().insert(header::ACCEPT_RANGES, bytes);
        if range.is_some()
            && let Ok(value) = format!("bytes {}-{last}/*", part.from).parse()
        {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        Ok(response)
    })
    .await
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
