//! Calls that cannot hang or bring down the suite.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use longshore_cloud::{CallContext, InstanceSet, Operation};
use longshore_types::format_duration;
use tokio::task::JoinError;

use crate::jobs;
use crate::lab::{Lab, Step, Stop};

impl Lab {
    /// Calls the instance set in a task of its own, and gives up when the call outlives its
    /// timeout by more than the slack.
    pub(crate) async fn call<T, F, R>(
        &self,
        operation: Operation,
        timeout: Duration,
        call: F,
    ) -> Step<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn InstanceSet>, CallContext) -> R,
        R: Future<Output = T> + Send + 'static,
    {
        let name = format!("{}-{}", self.subject.run(), self.subject.next_number());
        let context = CallContext::new(timeout, name);
        let call = call(self.subject.set(), context);
        self.watch(&operation.to_string(), timeout, call).await
    }

    /// Polls a call at most `polls` times, then drops it; what it gave if it was over before.
    pub(crate) async fn call_and_drop<T, F, R>(
        &self,
        operation: Operation,
        polls: usize,
        call: F,
    ) -> Step<Option<T>>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn InstanceSet>, CallContext) -> R,
        R: Future<Output = T> + Send + 'static,
    {
        let timeout = self.subject.timing.call;
        self.call(operation, timeout, move |set, context| Polled {
            call: Box::pin(call(set, context)),
            left: polls,
        })
        .await
    }

    /// Asks the instance set something that takes no time.
    pub(crate) async fn ask<T, F>(&self, what: &str, question: F) -> Step<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn InstanceSet) -> T + Send + 'static,
    {
        let set = self.subject.set();
        let timeout = self.subject.timing.call;
        self.watch(what, timeout, async move { question(&*set) })
            .await
    }

    /// Waits for a call of the driver in a task of its own.
    pub(crate) async fn watch<T: Send + 'static>(
        &self,
        what: &str,
        timeout: Duration,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Step<T> {
        let slack = self.subject.timing.slack;
        let mut job = jobs::start(call);
        match tokio::time::timeout(timeout + slack, &mut job).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Stop::Broken(format!(
                "Done: called {what}.\nSeen: the driver panicked: {}.\nContract: each call ends with an \
                 answer or a CloudError; there is none that panics.\nTo fix: return a CloudError \
                 where it panics now.",
                panic_message(error)
            ))),
            Err(_) => Err(Stop::Broken(format!(
                "Done: called {what}, with a timeout of {}.\nSeen: no answer {} after the timeout, \
                     so it was given up.\nContract: {CONTRACT}\nTo fix: bound everything the call \
                     waits for by the timeout: the provider's answer, locks, its turn in a queue.",
                format_duration(timeout),
                format_duration(slack),
            ))),
        }
    }
}

const CONTRACT: &str =
    "Each call ends within CallContext::timeout, with ErrorKind::TimedOut if need be.";

/// What a task said when it panicked.
pub(crate) fn panic_message(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else {
        return "the task was cancelled".into();
    };
    let payload: &(dyn Any + Send) = &*payload;
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "without a message".into()
    }
}

/// A call that is dropped after so many polls.
struct Polled<T> {
    call: Pin<Box<dyn Future<Output = T> + Send>>,
    left: usize,
}

impl<T> Future for Polled<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.left = self.left.saturating_sub(1);
        match self.call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
