//! Tasks that end with whoever waits for them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};

use crate::lab::{Lab, Step, Stop};

/// A task that is aborted when nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Job<T>(JoinHandle<T>);

pub(crate) fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Job<T> {
    Job(tokio::spawn(work))
}

impl<T> Future for Job<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs checks at the same time, and gives what they give in their order.
pub(crate) async fn all<T, F>(jobs: impl IntoIterator<Item = F>) -> Step<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Step<T>> + Send + 'static,
{
    let running: Vec<_> = jobs.into_iter().map(start).collect();
    let mut results = Vec::new();
    // All are waited for, so that what they make is known before it is removed.
    for job in running {
        results.push(match job.await {
            Ok(result) => result,
            Err(error) => Err(Stop::Broken(format!("a part of the check failed: {error}"))),
        });
    }
    results.into_iter().collect()
}

/// A copy of the pointer for a job of its own.
pub(crate) fn share(lab: &Arc<Lab>) -> Arc<Lab> {
    Arc::clone(lab)
}
