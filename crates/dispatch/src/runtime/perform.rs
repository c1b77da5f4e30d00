//! Carrying out one effect, so that it surely ends in one answer.

use std::error::Error as StdError;
use std::sync::Arc;

use longshore_pool::runtime::Shell;
use longshore_pool::{EffectId, Outcome};
use longshore_queue::{Queue, QueueError, QueueErrorKind};
use tokio::time::timeout;

use crate::{Effect, QueueAction, QueueFailure, QueueReply, QueueRequest, RequestId};

/// What came of an effect.
#[derive(Debug)]
pub(super) enum Answer {
    Pool(EffectId, Outcome),
    Queue(RequestId, QueueReply),
}

/// Carries `effect` out. A panic on the way counts as "nobody knows".
pub(super) async fn perform(effect: Effect, shell: Arc<Shell>, queue: Arc<dyn Queue>) -> Answer {
    match effect {
        Effect::Pool(effect) => {
            let id = effect.id;
            Answer::Pool(id, shell.perform(&effect).await)
        }
        Effect::Queue(request) => {
            let id = request.id;
            let action = request.action.clone();
            let asking = tokio::spawn(async move { ask(&request, &*queue).await });
            let reply = asking
                .await
                .unwrap_or_else(|error| failed(&action, &error.to_string()));
            Answer::Queue(id, reply)
        }
    }
}

async fn ask(request: &QueueRequest, queue: &dyn Queue) -> QueueReply {
    // The controller is to keep the time itself; this is for one that does not.
    let limit = request.timeout + request.timeout / 4;
    let within = request.timeout;
    let reply = async {
        match &request.action {
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
    timeout(limit, reply)
        .await
        .unwrap_or_else(|_| failed(&request.action, "no answer in time"))
}

fn failure(error: QueueError) -> QueueFailure {
    let mut text = error.to_string();
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    QueueFailure {
        kind: error.kind,
        error: text,
    }
}

/// The answer to a request of which nobody knows what came.
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
