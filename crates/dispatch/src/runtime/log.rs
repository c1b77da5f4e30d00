//! Notices as log records with fields.

use longshore_pool::Event;
use longshore_scheduler::Action;
use tracing::{debug, info, warn};

use crate::Notice;

pub(super) fn log(notice: &Notice) {
    match notice {
        Notice::Decided(action) => log_decided(action),
        Notice::NotDone { action, error } => {
            let container_uuid = action.uuid().map(tracing::field::display);
            warn!(
                container_uuid,
                ?action,
                error,
                "could not do what was decided"
            );
        }
        Notice::Happened(event) => log_event(event),
        Notice::WorkerGone(instance) => info!(%instance, "instance is gone"),
        Notice::Told(uuid, call) => {
            debug!(container_uuid = %uuid, ?call, "the controller took it");
        }
        Notice::NotTold { uuid, call, error } => {
            warn!(container_uuid = %uuid, ?call, error, "the controller did not take it");
        }
        Notice::QueueUnreadable { error } => warn!(error, "the queue could not be read"),
        Notice::Dropped(count) => warn!(count, "notices were dropped"),
    }
}

fn log_decided(action: &Action) {
    match action {
        Action::Create { type_name } => info!(instance_type = %type_name, "creating an instance"),
        Action::GiveBack { instance } => info!(%instance, "giving an instance back"),
        Action::Kill {
            only_unstarted: true,
            uuid,
            instance,
            attempt,
            reason,
        } => {
            info!(container_uuid = %uuid, %instance, %attempt, reason, "withdrawing an attempt");
        }
        Action::Kill {
            only_unstarted: false,
            uuid,
            instance,
            attempt,
            reason,
        } => {
            info!(container_uuid = %uuid, %instance, %attempt, reason, "killing a container");
        }
        Action::Cancel { uuid, error } => {
            warn!(container_uuid = %uuid, error, "cancelling a container");
        }
        Action::Lost {
            uuid,
            attempt,
            cause,
        } => {
            warn!(container_uuid = %uuid, %attempt, %cause, "an attempt was lost");
        }
        Action::Start {
            uuid,
            attempt,
            instance,
            ..
        } => {
            info!(container_uuid = %uuid, %attempt, %instance, "starting a container");
        }
        action => {
            let container_uuid = action.uuid().map(tracing::field::display);
            debug!(container_uuid, ?action, "decided");
        }
    }
}

fn log_event(event: &Event) {
    match event {
        Event::Running {
            uuid,
            attempt,
            instance,
            ..
        } => {
            info!(container_uuid = %uuid, %attempt, %instance, "container runs");
        }
        Event::Ended {
            uuid,
            attempt,
            instance,
            exit,
        } => {
            let cause = &exit.cause;
            info!(container_uuid = %uuid, %attempt, %instance, %cause, "container ended");
        }
        Event::NotStarted {
            uuid,
            attempt,
            instance,
            error,
            ..
        } => {
            warn!(container_uuid = %uuid, %attempt, %instance, error, "container was not started");
        }
        Event::NeverRan {
            uuid,
            attempt,
            instance,
        } => {
            info!(container_uuid = %uuid, %attempt, %instance, "container never ran there");
        }
        Event::CreateFailed { type_name, error } => {
            warn!(instance_type = %type_name, error, "an instance could not be created");
        }
        Event::Claimed {
            uuid,
            attempt,
            instance,
        } => {
            info!(container_uuid = %uuid, %attempt, %instance, "container is said to be there");
        }
        Event::Alarm { text } => tracing::error!("{text}"),
    }
}
