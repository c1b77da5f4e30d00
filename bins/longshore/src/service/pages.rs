//! Long lists as answers: written part by part, so that no more than a few parts are held.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use http_body_util::channel::{Channel, Sender};
use longshore_queue::QueueError;
use serde::Serialize;

/// A part of a list, and where the next one begins if there is one.
pub(super) type Page<T> = (Vec<T>, Option<u64>);
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// `{"items": […]}` of a first part and of those that `more` gives. Should one of them fail, the
/// answer breaks off, which its client cannot mistake for the end.
pub(super) fn items<T, F>(
    first: Page<T>,
    more: impl FnMut(u64) -> F + Send + 'static,
) -> Response<Body>
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<Page<T>, QueueError>> + Send,
{
    let (mut sender, body) = Channel::<Bytes, Broken>::new(1);
    tokio::spawn(async move {
        if let Err(error) = write(&mut sender, first, more).await {
            tracing::warn!(%error, "a list broke off");
            sender.abort(error);
        }
    });
    let mut response = Response::new(Body::new(body));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn write<T, F>(
    sender: &mut Sender<Bytes, Broken>,
    first: Page<T>,
    mut more: impl FnMut(u64) -> F,
) -> Result<(), Broken>
where
    T: Serialize,
    F: Future<Output = Result<Page<T>, QueueError>>,
{
    let mut text = b"{\"items\":[".to_vec();
    let (mut page, mut is_first) = (first, true);
    loop {
        for item in &page.0 {
            if !std::mem::take(&mut is_first) {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, item)?;
        }
        if page.1.is_none() {
            text.extend(b"]}");
        }
        // Whoever asked may have gone.
        let sent = sender.send_data(std::mem::take(&mut text).into()).await;
        match page.1 {
            Some(next) if sent.is_ok() => page = more(next).await?,
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use longshore_queue::QueueErrorKind;

    use super::*;

    async fn collected(pages: Vec<Result<Vec<u32>, QueueError>>) -> Result<String, axum::Error> {
        let mut pages = pages.into_iter().enumerate();
        let count = pages.len();
        let mut next = move || {
            let (n, page) = pages.next().expect("the last one has no next");
            let more = (n + 1 < count).then_some(n as u64);
            page.map(|page| (page, more))
        };
        let first = next().unwrap();
        let answer = items(first, move |_| std::future::ready(next()));
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn parts_are_one_list() {
        let parts = |parts: &[&[u32]]| parts.iter().map(|part| Ok(part.to_vec())).collect();
        for (pages, expected) in [
            (parts(&[&[]]), "{\"items\":[]}"),
            (parts(&[&[1]]), "{\"items\":[1]}"),
            (parts(&[&[1, 2], &[3], &[]]), "{\"items\":[1,2,3]}"),
            (
                parts(&[&[], &[], &[4], &[], &[5, 6]]),
                "{\"items\":[4,5,6]}",
            ),
        ] {
            assert_eq!(collected(pages).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_list_of_which_a_part_fails_has_no_end() {
        let failed = QueueError::new(QueueErrorKind::Unknown, "broken");
        assert!(collected(vec![Ok(vec![1]), Err(failed)]).await.is_err());
    }
}
