//! One promise, looked at from beginning to end.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::call::panic_message;
use crate::jobs;
use crate::lab::{Lab, Step, Stop};
use crate::{Finding, Promise, Subject, Verdict};

/// Runs a check, and removes what it made: also when the check fails, and when the caller drops
/// this future.
pub(crate) async fn run<F, R>(subject: &Subject, promise: Promise, check: F) -> Finding
where
    F: FnOnce(Arc<Lab>) -> R + Send + 'static,
    R: Future<Output = Step<()>> + Send + 'static,
{
    let needed = promise.instances_at_once();
    if needed > subject.at_once {
        let why = format!(
            "it needs {needed} instances at once, and {} are allowed \
             (Subject::with_instances_at_once)",
            subject.at_once
        );
        return Finding::new(promise, Verdict::NotRun { why });
    }
    let lab = Arc::new(Lab::new(subject.clone(), promise));
    let (alive, caller_gone) = oneshot::channel::<()>();
    let whole = tokio::spawn(check_and_clean(lab, check, caller_gone));
    let finding = match whole.await {
        Ok(finding) => finding,
        Err(error) => {
            let what = format!("the suite itself failed: {}", panic_message(error));
            Finding::new(promise, Verdict::Broken { what })
        }
    };
    drop(alive);
    finding
}

async fn check_and_clean<F, R>(
    lab: Arc<Lab>,
    check: F,
    caller_gone: oneshot::Receiver<()>,
) -> Finding
where
    F: FnOnce(Arc<Lab>) -> R + Send + 'static,
    R: Future<Output = Step<()>> + Send + 'static,
{
    let started = Instant::now();
    let mut job = jobs::start(check(Arc::clone(&lab)));
    let verdict = tokio::select! {
        done = &mut job => match done {
            Ok(Ok(())) => Verdict::Kept,
            Ok(Err(Stop::Broken(what))) => Verdict::Broken { what },
            Ok(Err(Stop::NotRun(why))) => Verdict::NotRun { why },
            Err(error) => Verdict::Broken {
                what: format!("the check itself failed: {}", panic_message(error)),
            },
        },
        _ = caller_gone => {
            let why = "it was dropped before its end".into();
            Verdict::NotRun { why }
        }
    };
    drop(job);
    lab.close();
    let creates = lab.made().creates;
    let left_behind = match creates {
        0 => Vec::new(),
        _ => lab.clean_up().await,
    };
    Finding {
        creates,
        took: started.elapsed(),
        left_behind,
        ..Finding::new(lab.promise, verdict)
    }
}
