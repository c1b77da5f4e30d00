//! Which host keys were judged.

use std::collections::{BTreeMap, VecDeque};

use longshore_types::{HostKey, InstanceId};

/// The last verdicts, per instance and key.
#[derive(Debug)]
pub(crate) struct Verdicts {
    limit: usize,
    /// By instance: the key and whether it may be trusted. An instance has one key at a time.
    known: BTreeMap<InstanceId, (HostKey, bool)>,
    /// In the order in which they came; the oldest goes first.
    order: VecDeque<InstanceId>,
}

impl Verdicts {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            known: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether this key of this instance was trusted or refused.
    pub(crate) fn trusted(&self, instance: &InstanceId, key: &HostKey) -> Option<bool> {
        self.known
            .get(instance)
            .filter(|(known, _)| known == key)
            .map(|(_, trusted)| *trusted)
    }

    pub(crate) fn remember(&mut self, instance: &InstanceId, key: HostKey, trusted: bool) {
        self.forget(instance);
        self.known.insert(instance.clone(), (key, trusted));
        self.order.push_back(instance.clone());
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    pub(crate) fn forget(&mut self, instance: &InstanceId) {
        if self.known.remove(instance).is_some() {
            self.order.retain(|other| other != instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> HostKey {
        HostKey {
            algorithm: "ssh-ed25519".to_owned(),
            blob: vec![byte],
        }
    }

    #[test]
    fn only_the_same_key_is_known_and_the_oldest_goes() {
        let mut verdicts = Verdicts::new(2);
        let (a, b, c) = ("a".into(), "b".into(), "c".into());
        verdicts.remember(&a, key(1), true);
        verdicts.remember(&b, key(2), false);
        assert_eq!(verdicts.trusted(&a, &key(1)), Some(true));
        assert_eq!(verdicts.trusted(&a, &key(2)), None);
        verdicts.remember(&a, key(3), true);
        verdicts.remember(&c, key(4), true);
        assert_eq!(verdicts.trusted(&b, &key(2)), None);
        assert_eq!(verdicts.trusted(&a, &key(3)), Some(true));
        verdicts.forget(&a);
        assert_eq!(verdicts.trusted(&a, &key(3)), None);
        assert_eq!(verdicts.order.len(), 1);
    }
}
