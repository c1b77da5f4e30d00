//! What the controller has yet to be told about attempts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_queue::Call;
use longshore_types::{Attempt, ContainerUuid, Exit, InstanceId, Instant, Timestamp};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// News of one attempt.
#[derive(Clone, Debug)]
struct News {
    attempt: Attempt,
    instance: InstanceId,
    running: Option<Option<Timestamp>>,
    ended: Option<Exit>,
    failures: u32,
    /// Not told again before this.
    not_before: Instant,
    /// Its place in the order of telling; none while a call about the container is under way.
    queued: Option<Instant>,
}

/// News of attempts that the controller has not confirmed, newest attempt of each container, told
/// in the order in which they become due. At most one entry a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    news: BTreeMap<ContainerUuid, News>,
    due: BTreeSet<(Instant, ContainerUuid)>,
}

impl Progress {
    pub(crate) fn running(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: InstanceId,
        started_at: Option<Timestamp>,
        now: Instant,
    ) {
        if let Some(news) = self.newest(uuid, attempt, instance, now)
            && news.ended.is_none()
        {
            news.running = Some(started_at);
        }
    }

    pub(crate) fn ended(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: InstanceId,
        exit: Exit,
        now: Instant,
    ) {
        if let Some(news) = self.newest(uuid, attempt, instance, now) {
            // The end implies the beginning; the first end that was told stands.
            news.running = None;
            news.ended.get_or_insert(exit);
        }
    }

    /// Whether the end of an attempt is waiting to be told.
    pub(crate) fn has_ended(&self, uuid: ContainerUuid, attempt: Attempt) -> bool {
        self.news
            .get(&uuid)
            .is_some_and(|n| n.attempt == attempt && n.ended.is_some())
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next call that is due, of a container for which `free` says that no other is under way.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        free: impl Fn(ContainerUuid) -> bool,
    ) -> Option<(ContainerUuid, Call)> {
        while let Some(&(at, uuid)) = self.due.first() {
            if at > now {
                return None;
            }
            self.due.pop_first();
            let Some(news) = self.news.get_mut(&uuid) else {
                continue;
            };
            // One that is not free is queued again when the call about it has ended.
            news.queued = None;
            if free(uuid)
                && let Some(call) = news.call()
            {
                return Some((uuid, call));
            }
        }
        None
    }

    /// A call about the container ended, so that news of it can be told.
    pub(crate) fn handle_free(&mut self, uuid: ContainerUuid, now: Instant) {
        self.queue(uuid, now);
    }

    /// The controller has taken `call`. Gives the instance of an attempt whose end it has taken.
    pub(crate) fn handle_success(
        &mut self,
        uuid: ContainerUuid,
        call: &Call,
    ) -> Option<(Attempt, InstanceId)> {
        let news = self.news.get_mut(&uuid)?;
        match call {
            Call::Running { attempt, .. } if news.attempt == *attempt => {
                news.running = None;
                news.failures = 0;
                if news.ended.is_none() {
                    self.remove(uuid);
                }
                None
            }
            Call::Ended { attempt, .. } if news.attempt == *attempt => {
                self.remove(uuid).map(|news| (news.attempt, news.instance))
            }
            _ => None,
        }
    }

    /// The controller did not take it: told again after a growing pause.
    pub(crate) fn handle_failure(&mut self, uuid: ContainerUuid, now: Instant) {
        if let Some(news) = self.news.get_mut(&uuid) {
            let pause = FIRST_PAUSE * 2u32.saturating_pow(news.failures.min(16));
            news.failures += 1;
            news.not_before = now + pause.min(LONGEST_PAUSE);
            self.queue(uuid, now);
        }
    }

    /// Nobody wants to know any more.
    pub(crate) fn drop_news(&mut self, uuid: ContainerUuid, attempt: Attempt) {
        if self
            .news
            .get(&uuid)
            .is_some_and(|news| news.attempt == attempt)
        {
            self.remove(uuid);
        }
    }

    /// There is no such container any more.
    pub(crate) fn drop_all(&mut self, uuid: ContainerUuid) {
        self.remove(uuid);
    }

    /// Whether anything of a container is waiting to be told.
    pub(crate) fn has_news(&self, uuid: ContainerUuid) -> bool {
        self.news.contains_key(&uuid)
    }

    pub(crate) fn len(&self) -> usize {
        self.news.len()
    }

    /// The news of this attempt, replacing those of older ones; none if there are newer ones.
    fn newest(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: InstanceId,
        now: Instant,
    ) -> Option<&mut News> {
        if self
            .news
            .get(&uuid)
            .is_some_and(|known| known.attempt > attempt)
        {
            return None;
        }
        if self
            .news
            .get(&uuid)
            .is_some_and(|known| known.attempt < attempt)
        {
            self.remove(uuid);
        }
        self.news.entry(uuid).or_insert(News {
            attempt,
            instance,
            running: None,
            ended: None,
            failures: 0,
            not_before: now,
            queued: None,
        });
        self.queue(uuid, now);
        self.news.get_mut(&uuid)
    }

    /// Puts news in the order of telling, unless they are in it.
    fn queue(&mut self, uuid: ContainerUuid, now: Instant) {
        if let Some(news) = self.news.get_mut(&uuid)
            && news.queued.is_none()
        {
            let at = news.not_before.max(now);
            news.queued = Some(at);
            self.due.insert((at, uuid));
        }
    }

    fn remove(&mut self, uuid: ContainerUuid) -> Option<News> {
        let news = self.news.remove(&uuid)?;
        if let Some(at) = news.queued {
            self.due.remove(&(at, uuid));
        }
        Some(news)
    }
}

impl News {
    fn call(&self) -> Option<Call> {
        let attempt = self.attempt;
        if let Some(exit) = &self.ended {
            return Some(Call::Ended {
                attempt,
                exit: exit.clone(),
            });
        }
        self.running.map(|started_at| Call::Running {
            attempt,
            started_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use longshore_types::ExitCause;

    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn uuid() -> ContainerUuid {
        "zzzzz-dz642-0123456789abcde".parse().unwrap()
    }

    fn exit() -> Exit {
        Exit::unseen(ExitCause::Exited { code: 0 })
    }

    fn ended(attempt: u32) -> Call {
        Call::Ended {
            attempt: Attempt(attempt),
            exit: exit(),
        }
    }

    #[test]
    fn the_end_is_told_without_the_beginning() {
        let mut progress = Progress::default();
        progress.running(uuid(), Attempt(1), "i".into(), None, NOW);
        progress.ended(uuid(), Attempt(1), "i".into(), exit(), NOW);
        assert_eq!(progress.poll(NOW, |_| true), Some((uuid(), ended(1))));
        assert_eq!(
            progress.handle_success(uuid(), &ended(1)),
            Some((Attempt(1), "i".into()))
        );
        assert_eq!(progress.poll(NOW, |_| true), None);
        assert_eq!(progress.len(), 0);
    }

    #[test]
    fn waits_for_the_call_that_is_under_way() {
        let mut progress = Progress::default();
        progress.ended(uuid(), Attempt(1), "i".into(), exit(), NOW);
        assert_eq!(progress.poll(NOW, |_| false), None);
        assert_eq!(
            progress.poll(NOW, |_| true),
            None,
            "not asked again before it is free"
        );
        progress.handle_free(uuid(), NOW);
        assert_eq!(progress.poll(NOW, |_| true), Some((uuid(), ended(1))));
    }

    #[test]
    fn is_told_again_after_a_failure_with_growing_pauses() {
        let mut progress = Progress::default();
        progress.ended(uuid(), Attempt(1), "i".into(), exit(), NOW);
        let mut now = NOW;
        for pause_ms in [250, 500, 1000] {
            assert!(progress.poll(now, |_| true).is_some());
            progress.handle_failure(uuid(), now);
            assert_eq!(
                progress.next_due(),
                Some(now + Duration::from_millis(pause_ms))
            );
            assert_eq!(progress.poll(now, |_| true), None);
            now = now + Duration::from_millis(pause_ms);
        }
        for _ in 0..40 {
            now = progress.next_due().unwrap_or(now);
            assert!(progress.poll(now, |_| true).is_some());
            progress.handle_failure(uuid(), now);
        }
        assert_eq!(progress.next_due(), Some(now + LONGEST_PAUSE));
    }

    #[test]
    fn old_attempts_say_nothing_about_newer_ones() {
        let mut progress = Progress::default();
        progress.ended(uuid(), Attempt(2), "b".into(), exit(), NOW);
        progress.ended(
            uuid(),
            Attempt(1),
            "a".into(),
            Exit::unseen(ExitCause::Killed),
            NOW,
        );
        assert_eq!(progress.poll(NOW, |_| true), Some((uuid(), ended(2))));
        assert_eq!(progress.handle_success(uuid(), &ended(1)), None);
        assert!(progress.has_ended(uuid(), Attempt(2)));
    }
}
