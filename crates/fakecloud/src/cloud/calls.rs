//! The two moments of a call: it acts, and its reply arrives.

use std::time::Duration;

use longshore_cloud::ErrorKind;

use super::rules::Fate;
use super::{Cloud, Refusal, Timer};
use crate::{Call, CallId, CallKind, Happening, Reply};

impl Cloud {
    /// The first of the two moments of a call.
    pub(super) fn act(&mut self, id: CallId) {
        let Some((kind, call, fate, abandoned)) = self.calls.get_mut(&id).and_then(|open| {
            open.next = None;
            let call = open.call.take()?;
            Some((open.kind, call, open.fate.clone(), open.abandoned))
        }) else {
            return;
        };
        self.count_mut(kind).acted += 1;
        self.note(Happening::CallActed(id));
        let (reply, pages) = self.perform(kind, call, &fate);
        if abandoned {
            self.end(id);
            return;
        }
        let mut after = self
            .calls
            .get(&id)
            .map_or(Duration::ZERO, |open| open.after);
        for _ in 1..pages {
            let page = self.settings.latency_of(kind).after;
            after = after.saturating_add(self.random.duration(&page));
        }
        if let Some(open) = self.calls.get_mut(&id) {
            open.reply = Some(reply);
            open.after = after;
        }
        if fate.hold_reply {
            self.hold(id);
        } else if !fate.lose_reply {
            self.send_reply(id);
        }
    }

    /// The reply of a call that has acted leaves.
    pub(super) fn send_reply(&mut self, id: CallId) {
        match self.calls.get(&id).map(|open| open.after) {
            Some(Duration::ZERO) => self.arrive(id),
            Some(after) => self.schedule_call(id, self.now + after, Timer::Arrive(id)),
            None => {}
        }
    }

    /// The second of the two moments of a call.
    pub(super) fn arrive(&mut self, id: CallId) {
        let open = self.calls.get_mut(&id);
        if let Some((kind, reply)) = open.and_then(|open| Some((open.kind, open.reply.take()?))) {
            self.end(id);
            self.reply(id, kind, reply);
        }
    }

    /// The caller has waited long enough.
    pub(super) fn give_up(&mut self, id: CallId) {
        let Some(open) = self.calls.get(&id).filter(|open| !open.abandoned) else {
            return;
        };
        let refusal = Refusal::new(ErrorKind::TimedOut, "no answer in time");
        let kind = open.kind;
        let failed = Reply::failed(kind, &open.ids, || self.error(open.kind, &refusal));
        self.reply(id, kind, failed);
        self.abandon(id);
    }

    /// Forgets a call, unless it has yet to act.
    pub(super) fn abandon(&mut self, id: CallId) {
        let Some(open) = self.calls.get_mut(&id) else {
            return;
        };
        open.abandoned = true;
        self.timers.remove(&open.give_up);
        if open.call.is_none() || open.fate.lose_request {
            self.end(id);
        }
    }

    /// Forgets a call.
    pub(super) fn end(&mut self, id: CallId) {
        if let Some(open) = self.calls.remove(&id) {
            self.timers.remove(&open.give_up);
            open.held.and_then(|held| self.held.remove(&held));
        }
    }

    fn perform(&mut self, kind: CallKind, call: Call, fate: &Fate) -> (Reply, u64) {
        let ids = call.ids();
        if let Err(refusal) = self.admit(kind, fate) {
            return (Reply::failed(kind, &ids, || self.error(kind, &refusal)), 1);
        }
        let error = |cloud: &Self, refusal: Refusal| cloud.error(kind, &refusal);
        let mut pages = 1;
        let reply = match call {
            Call::Create(request) => {
                Reply::Created(self.create(&request, fate).map_err(|r| error(self, r)))
            }
            Call::List(tags) => {
                let listed = self.list(&tags, fate);
                pages = listed.1;
                Reply::Listed(listed.0.map_err(|r| error(self, r)))
            }
            Call::Destroy(ids) => Reply::Destroyed(self.destroy(&ids, fate)),
            Call::SetTags(changes) => Reply::Tagged(self.set_tags(changes, fate)),
            Call::VerifyHostKey(id, key) => {
                Reply::HostKey(self.verify(&id, &key).map_err(|r| error(self, r)))
            }
            Call::Console(id, limit) => {
                Reply::Console(self.console(&id, limit).map_err(|r| error(self, r)))
            }
            Call::Prices(id, span) => {
                Reply::Prices(self.prices(&id, span).map_err(|r| error(self, r)))
            }
            Call::Interruptions => Reply::Interruptions(Ok(self.interruptions())),
        };
        if let Some(kind_of_error) = &fate.fail_after {
            let refusal = Refusal::new(kind_of_error.clone(), "an error after it was done");
            return (
                Reply::failed(kind, &ids, || self.error(kind, &refusal)),
                pages,
            );
        }
        (reply, pages)
    }

    /// What the provider checks before it looks at what a call wants.
    fn admit(&mut self, kind: CallKind, fate: &Fate) -> Result<(), Refusal> {
        if let Some(refused) = &fate.refuse {
            return Err(Refusal::new(refused.clone(), "refused by a rule"));
        }
        if self.settings.denied.contains(&kind) {
            return Err(Refusal::new(ErrorKind::Denied, "not allowed"));
        }
        let offered = match kind {
            CallKind::Console | CallKind::Prices | CallKind::Interruptions => {
                self.settings.extensions.contains(&kind)
            }
            _ => true,
        };
        if !offered {
            return Err(Refusal::new(ErrorKind::Unsupported, "no such call"));
        }
        self.take_token(kind)
    }
}
