//! Waiting for a reply.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use longshore_types::Instant;

use super::{FakeCloud, Slot};
use crate::{Call, CallId, Reply};

type BoxedSleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The reply of a call. Whoever waits moves the cloud on, whenever something of the call is due.
pub(super) struct Waiting {
    cloud: FakeCloud,
    call: Option<(Call, Duration)>,
    id: Option<CallId>,
    sleep: Option<(Instant, BoxedSleep)>,
}

impl Waiting {
    pub(super) fn new(cloud: &FakeCloud, call: Call, timeout: Duration) -> Self {
        Self {
            cloud: cloud.clone(),
            call: Some((call, timeout)),
            id: None,
            sleep: None,
        }
    }

    /// The reply if it is there, else when to look again.
    fn look(&mut self, waker: &Waker) -> Result<Reply, Instant> {
        let now = self.cloud.now();
        let mut state = self.cloud.state();
        if let Some((call, timeout)) = self.call.take() {
            let id = state.cloud.handle_call(call, timeout, now);
            state.waiting.insert(id, Slot::default());
            self.id = Some(id);
        } else {
            state.cloud.handle_timeout(now);
        }
        let woken = state.deliver();
        let due = self.id.and_then(|id| state.cloud.call_due(id));
        // A waker is only dropped when nothing is locked: it may own a future that waits here too.
        let (mut reply, mut unused) = (None, None);
        if let Some(id) = self.id
            && let Some(slot) = state.waiting.get_mut(&id)
        {
            reply = slot.reply.take();
            unused = slot.waker.replace(waker.clone());
            if reply.is_some() {
                unused = unused.or(state.waiting.remove(&id).and_then(|slot| slot.waker));
                self.id = None;
            }
        }
        drop(state);
        drop(unused);
        woken.into_iter().for_each(Waker::wake);
        reply.ok_or(due.unwrap_or(Instant::FAR_FUTURE))
    }
}

impl Future for Waiting {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        loop {
            let due = match self.look(context.waker()) {
                Ok(reply) => return Poll::Ready(reply),
                Err(due) => due,
            };
            if self.sleep.as_ref().is_none_or(|(until, _)| *until != due) {
                self.sleep = Some((due, self.cloud.shared.clock.sleep_until(due)));
            }
            if let Some((_, sleep)) = &mut self.sleep
                && sleep.as_mut().poll(context).is_pending()
            {
                return Poll::Pending;
            }
            self.sleep = None;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let now = self.cloud.now();
            let mut state = self.cloud.state();
            let slot = state.waiting.remove(&id);
            state.cloud.cancel(id, now);
            let woken = state.deliver();
            drop(state);
            drop(slot);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}
