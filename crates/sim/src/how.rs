//! What the dispatcher hears of an effect, as the story keeps it.

use std::fmt;
use std::hash::{Hash, Hasher};

use longshore_pool::{CloudFailure, HostFailure, KillOutcome, Outcome, StartOutcome};
use longshore_types::{ContainerReport, InstanceId, ReportedState};

/// What came of an effect. Put into words only where somebody reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Done,
    Made(InstanceId),
    Listed(Vec<InstanceId>),
    Destroyed { ids: usize, failed: usize },
    Reported(Vec<ContainerReport>),
    Started(StartOutcome),
    Killed(KillOutcome),
    CloudFailed(CloudFailure),
    HostFailed(HostFailure),
}

impl How {
    /// The kind of the effect, and what came of it.
    pub(crate) fn of(outcome: &Outcome) -> (&'static str, Self) {
        let host = |result: &Result<(), HostFailure>| match result {
            Ok(()) => Self::Done,
            Err(failure) => Self::HostFailed(failure.clone()),
        };
        match outcome {
            Outcome::Created(Ok(instance)) => ("create", Self::Made(instance.id.clone())),
            Outcome::Created(Err(failure)) => ("create", Self::CloudFailed(failure.clone())),
            Outcome::Listed(Ok(listed)) => {
                let ids = listed.iter().map(|instance| instance.id.clone());
                ("list", Self::Listed(ids.collect()))
            }
            Outcome::Listed(Err(failure)) => ("list", Self::CloudFailed(failure.clone())),
            Outcome::Destroyed(results) => {
                let ids = results.len();
                let failed = results.iter().filter(|(_, result)| result.is_err()).count();
                ("destroy", Self::Destroyed { ids, failed })
            }
            Outcome::TagsSet(Ok(())) => ("tags", Self::Done),
            Outcome::TagsSet(Err(failure)) => ("tags", Self::CloudFailed(failure.clone())),
            Outcome::Booted(result) => ("boot", host(result)),
            Outcome::Deployed(result) => ("deploy", host(result)),
            Outcome::Reported(Ok(report)) => ("report", Self::Reported(report.containers.clone())),
            Outcome::Reported(Err(failure)) => ("report", Self::HostFailed(failure.clone())),
            Outcome::Started(outcome) => ("start", Self::Started(outcome.clone())),
            Outcome::Killed(outcome) => ("kill", Self::Killed(outcome.clone())),
            Outcome::Collected(result) => ("collect", host(result)),
            Outcome::Console(Ok(_)) => ("console", Self::Done),
            Outcome::Console(Err(failure)) => ("console", Self::CloudFailed(failure.clone())),
            Outcome::Disconnected => ("disconnect", Self::Done),
        }
    }
}

impl Hash for How {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Done => {}
            Self::Made(id) => id.hash(state),
            Self::Listed(ids) => ids.hash(state),
            Self::Destroyed { ids, failed } => (ids, failed).hash(state),
            Self::Reported(containers) => {
                for shown in containers {
                    (shown.uuid, shown.attempt).hash(state);
                    std::mem::discriminant(&shown.state).hash(state);
                    if let ReportedState::Finished(exit) = &shown.state {
                        std::mem::discriminant(&exit.cause).hash(state);
                    }
                }
            }
            Self::Started(outcome) => std::mem::discriminant(outcome).hash(state),
            Self::Killed(outcome) => std::mem::discriminant(outcome).hash(state),
            Self::CloudFailed(failure) => failure.error.hash(state),
            Self::HostFailed(failure) => failure.error.hash(state),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("ok"),
            Self::Made(id) => write!(f, "made {id}"),
            Self::Listed(ids) => {
                write!(f, "{} instances:", ids.len())?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::Destroyed { ids, failed } => write!(f, "{ids} ids, {failed} failed"),
            Self::Reported(containers) => {
                f.write_str("[")?;
                for (n, shown) in containers.iter().enumerate() {
                    let comma = if n > 0 { ", " } else { "" };
                    write!(f, "{comma}{} {} ", shown.uuid, shown.attempt)?;
                    match &shown.state {
                        ReportedState::Running { .. } => f.write_str("runs")?,
                        ReportedState::Stale => f.write_str("stale")?,
                        ReportedState::Finished(exit) => exit.cause.fmt(f)?,
                    }
                }
                f.write_str("]")
            }
            Self::Started(outcome) => write!(f, "{outcome:?}"),
            Self::Killed(outcome) => write!(f, "{outcome:?}"),
            Self::CloudFailed(failure) => write!(f, "{failure:?}"),
            Self::HostFailed(failure) => write!(f, "{failure:?}"),
        }
    }
}
