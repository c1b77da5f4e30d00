//! The idle behaviour, kept in a tag of the instance.

use longshore_cloud::{ErrorKind, TagKeys, Tags};
use longshore_types::{IdleBehavior, InstanceId, Instant, TypeName, WorkerState};

use crate::blackhole::Duds;
use crate::core::{Core, FlightAction, WorkerFlight};
use crate::effect::{EffectAction, Outcome};
use crate::holdoff::growing;
use crate::refusal::Refusal;
use crate::timers::{Timer, WorkerTimer};
use crate::worker::{Seq, Worker};

const RETRY_PAUSE: (u64, u64) = (5, 300);

impl Core {
    /// Sets what a worker does when it has nothing to do, and writes it to the instance's tag.
    ///
    /// One with a container that could not be ended, or that has claimed what was not so, drains
    /// where it is to run: it takes nothing more, and goes once nothing else is there.
    pub fn set_idle_behavior(
        &mut self,
        instance: &InstanceId,
        behavior: IdleBehavior,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.advance(now);
        self.allowed(instance)?;
        if let Some(worker) = self.workers.get_mut(instance) {
            if worker.state == WorkerState::Shutdown {
                let instance = instance.clone();
                return Err(Refusal::ShuttingDown { instance });
            }
            worker.behavior = behavior;
            worker.duds = Duds::default();
            if behavior == IdleBehavior::Run
                && let Some(why) = worker.has_to_go()
            {
                self.drain(instance, &why);
                return Ok(());
            }
        }
        self.repair_tags(instance);
        self.settle(instance);
        Ok(())
    }

    /// Writes our tags if the instance was last seen with others.
    pub(crate) fn repair_tags(&mut self, id: &InstanceId) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let tries = worker.tags_tries;
        let timer = || Timer::Worker(id.clone(), WorkerTimer::Tags);
        match (self.wrong_tags(id).is_empty(), tries) {
            // Without a failure no timer is armed.
            (true, 0) => {}
            (true, _) => self.timers.clear(&timer()),
            (false, 0) => self.set_tags(id),
            (false, tries) => {
                let pause = growing(RETRY_PAUSE, tries - 1);
                self.timers.set_once(timer(), self.now + pause);
            }
        }
    }

    fn wrong_tags(&self, id: &InstanceId) -> Tags {
        let Some(worker) = self.workers.get(id) else {
            return Tags::new();
        };
        let wrong = worker.wrong_tags(&self.config.tag_keys);
        wrong
            .map(|(key, value)| (key.clone(), value.to_owned()))
            .collect()
    }

    pub(crate) fn set_tags(&mut self, id: &InstanceId) {
        let tags = self.wrong_tags(id);
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let shutdown = worker.state == WorkerState::Shutdown;
        if tags.is_empty() || worker.tags_in_flight || shutdown {
            return;
        }
        let about = FlightAction::OnWorker(id.clone(), worker.serial, WorkerFlight::Tags);
        let timeout = self.config.cloud_call_timeout;
        let action = EffectAction::SetTags(id.clone(), tags.clone());
        if let Some((_, began)) = self.send(timeout, action, about)
            && let Some(worker) = self.workers.get_mut(id)
        {
            worker.tags_in_flight = true;
            worker.tags_seq = began;
            // What was sent is taken as what is there until a listing that began later says
            // otherwise.
            worker.tags.extend(tags);
        }
    }

    pub(crate) fn on_tags_set(&mut self, id: &InstanceId, outcome: Outcome, began: (Seq, Instant)) {
        let seq = self.next_seq();
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.tags_in_flight = false;
        worker.tags_seq = seq;
        match outcome {
            Outcome::TagsSet(Ok(())) => {
                worker.tags_tries = 0;
                self.timers
                    .clear(&Timer::Worker(id.clone(), WorkerTimer::Tags));
            }
            Outcome::TagsSet(Err(failure)) => {
                worker.tags_tries = worker.tags_tries.saturating_add(1);
                // Nobody knows what is there now.
                worker.tags.remove(&self.config.tag_keys.idle_behavior);
                self.set_error(id, &failure.error);
                if failure.kind == ErrorKind::NotFound {
                    self.miss_also(id, began);
                }
            }
            _ => {}
        }
        // Another behaviour may have been asked for meanwhile.
        self.repair_tags(id);
    }
}

impl Worker {
    /// Whether an instance is shown with the tags that it is known to have, and these are as they
    /// are to be.
    pub(crate) fn tags_are_right(&self, shown: &Tags, keys: &TagKeys) -> bool {
        let ours = [&keys.instance_type, &keys.idle_behavior, &keys.secret];
        shown.get(&keys.secret) == self.secret.as_ref()
            && ours
                .iter()
                .all(|key| shown.get(*key) == self.tags.get(*key))
            && self.wrong_tags(keys).next().is_none()
    }

    /// The tags that it was last seen without, as they are to be.
    pub(crate) fn wrong_tags<'a>(
        &'a self,
        keys: &'a TagKeys,
    ) -> impl Iterator<Item = (&'a String, &'a str)> {
        let name = self.type_name.as_ref();
        let wanted = [
            (&keys.idle_behavior, Some(self.behavior.as_str())),
            (&keys.instance_type, name.map(TypeName::as_str)),
        ];
        wanted
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .filter(|(key, value)| self.tags.get(*key).map(String::as_str) != Some(*value))
    }
}
