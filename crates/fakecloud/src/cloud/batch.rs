//! Calls about several instances.

use longshore_cloud::{ErrorKind, InstanceState, Tags};
use longshore_types::InstanceId;

use super::rules::Fate;
use super::{Cloud, Refusal};
use crate::call::Results;
use crate::{CallKind, Happening};

impl Cloud {
    pub(super) fn destroy(&mut self, ids: &[InstanceId], fate: &Fate) -> Results {
        let kind = CallKind::Destroy;
        let most = self.settings.capabilities.destroy_batch;
        let mut results = Results::with_capacity(ids.len());
        for id in ids {
            let done = self
                .check_batch(kind, ids.len(), most)
                .and_then(|()| self.check_id(kind, id, fate));
            if done.is_ok()
                && let Some(serial) = self.serial(id)
            {
                self.strike_named(serial, id, fate);
                self.stop_instance(serial, true);
            }
            results.push((id.clone(), done.map_err(|r| self.error(kind, &r))));
        }
        results
    }

    pub(super) fn set_tags(&mut self, changes: Vec<(InstanceId, Tags)>, fate: &Fate) -> Results {
        let kind = CallKind::SetTags;
        let (given, most) = (changes.len(), self.settings.capabilities.tag_batch);
        let mut results = Results::with_capacity(given);
        for (id, tags) in changes {
            let done = self
                .check_batch(kind, given, most)
                .and_then(|()| self.check_id(kind, &id, fate))
                .and_then(|()| self.merge_tags(&id, tags, fate));
            let done = done.map_err(|r| self.error(kind, &r));
            results.push((id, done));
        }
        results
    }

    fn check_batch(&self, kind: CallKind, given: usize, most: usize) -> Result<(), Refusal> {
        if most == 0 || given <= most {
            return Ok(());
        }
        let words = format!("{given} in one call to {kind}, {most} is the most");
        Err(Refusal::new(ErrorKind::InvalidRequest, words))
    }

    /// What may go wrong with one id of a batch, whatever is wanted of it.
    fn check_id(&mut self, kind: CallKind, id: &InstanceId, fate: &Fate) -> Result<(), Refusal> {
        self.take_token_for_id(kind)?;
        for (only, chance, kind) in &fate.fail_some {
            if only.as_ref().is_none_or(|only| only == id) && self.random.happens(*chance) {
                return Err(Refusal::new(kind.clone(), "refused by a rule"));
            }
        }
        Ok(())
    }

    fn merge_tags(&mut self, id: &InstanceId, tags: Tags, fate: &Fate) -> Result<(), Refusal> {
        let now = self.now;
        let found = self.serial(id).and_then(|serial| self.fleet.get(serial));
        let listed = found.filter(|i| i.vanished.is_none() && i.state != InstanceState::Gone);
        let Some((serial, mut merged)) = listed.map(|i| (i.serial, i.tags.clone())) else {
            return Err(Refusal::new(ErrorKind::NotFound, "no such instance"));
        };
        merged.extend(tags);
        self.check_tags(&merged)?;
        if let Some(instance) = self.fleet.current_mut(serial) {
            instance.tags = merged;
            instance.record(now);
            self.note(Happening::Tagged(id.clone()));
        }
        self.strike_named(serial, id, fate);
        Ok(())
    }

    fn strike_named(&mut self, serial: u64, id: &InstanceId, fate: &Fate) {
        for (only, after, misfortune) in &fate.strikes {
            if only.as_ref().is_none_or(|only| only == id) {
                self.strike_later(serial, *after, misfortune.clone());
            }
        }
    }

    pub(super) fn serial(&self, id: &InstanceId) -> Option<u64> {
        let found = self.fleet.find(self.settings.name, id);
        found.map(|instance| instance.serial)
    }
}
