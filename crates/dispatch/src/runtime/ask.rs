//! Asking the controller, so that each request surely ends in one reply.

use std::sync::Arc;

use longshore_queue::{Queue, QueueError, QueueErrorKind};
use longshore_types::error_chain;
use tokio::time::timeout;

use crate::{QueueAction, QueueFailure, QueueReply, QueueRequest, RequestId};

/// Asks the controller. A panic on the way, or silence, counts as "nobody knows".
pub(super) async fn ask(request: QueueRequest, queue: Arc<dyn Queue>) -> (RequestId, QueueReply) {
    let QueueRequest {
        id,
        action,
        timeout,
    } = request;
    let asked = action.clone();
    // A task of its own, so that a controller client that panics harms only this request.
    let asking = tokio::spawn(async move { ask_within(&asked, &*queue, timeout).await });
    let reply = asking.await.unwrap_or_else(|error| {
        tracing::error!(%error, "bug: asking the controller panicked");
        failed(&action, "the controller client failed")
    });
    (id, reply)
}

async fn ask_within(
    action: &QueueAction,
    queue: &dyn Queue,
    within: std::time::Duration,
) -> QueueReply {
    let reply = async {
        match action {
            QueueAction::Refresh(known) => {
                QueueReply::Refreshed(queue.refresh(known, within).await.map_err(failure))
            }
            QueueAction::Watch => QueueReply::Changed(queue.changes(within).await.map_err(failure)),
            QueueAction::Call(uuid, call) => {
                QueueReply::Called(queue.call(*uuid, call, within).await.map_err(failure))
            }
            QueueAction::Document(uuid) => {
                QueueReply::Document(queue.document(*uuid, within).await.map_err(failure))
            }
        }
    };
    // The controller client is to keep the time itself; this is for one that does not.
    timeout(within + within / 4, reply)
        .await
        .unwrap_or_else(|_| failed(action, "no answer in time"))
}

fn failure(error: QueueError) -> QueueFailure {
    QueueFailure {
        error: error_chain(&error),
        kind: error.kind,
    }
}

/// The reply to a request of which nobody knows what came.
fn failed(action: &QueueAction, error: &str) -> QueueReply {
    let failure = QueueFailure {
        kind: QueueErrorKind::Unknown,
        error: error.to_owned(),
    };
    match action {
        QueueAction::Refresh(_) => QueueReply::Refreshed(Err(failure)),
        QueueAction::Watch => QueueReply::Changed(Err(failure)),
        QueueAction::Call(..) => QueueReply::Called(Err(failure)),
        QueueAction::Document(_) => QueueReply::Document(Err(failure)),
    }
}
