//! Which workers have which secret, and which have the same.

use std::collections::{BTreeMap, BTreeSet};

use longshore_types::InstanceId;

/// The workers by their secrets.
#[derive(Debug, Default)]
pub(crate) struct BySecret {
    workers: BTreeMap<String, BTreeSet<InstanceId>>,
    /// The secrets that more than one worker has: hardly ever any.
    shared: BTreeSet<String>,
}

impl BySecret {
    pub(crate) fn insert(&mut self, secret: &str, id: &InstanceId) {
        let workers = self.workers.entry(secret.to_owned()).or_default();
        workers.insert(id.clone());
        if workers.len() > 1 {
            self.shared.insert(secret.to_owned());
        }
    }

    pub(crate) fn remove(&mut self, secret: &str, id: &InstanceId) {
        let Some(workers) = self.workers.get_mut(secret) else {
            return;
        };
        workers.remove(id);
        if workers.len() < 2 {
            self.shared.remove(secret);
        }
        if workers.is_empty() {
            self.workers.remove(secret);
        }
    }

    /// The secrets that more than one worker has.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &str> {
        self.shared.iter().map(String::as_str)
    }

    /// Whether more than one worker has a secret.
    pub(crate) fn is_shared(&self, secret: &str) -> bool {
        self.shared.contains(secret)
    }

    /// The workers with a secret, if there is more than one.
    pub(crate) fn twins(&self, secret: &str) -> Option<&BTreeSet<InstanceId>> {
        let workers = self.workers.get(secret);
        workers.filter(|workers| workers.len() > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shared_while_more_than_one_has_it() {
        let mut by_secret = BySecret::default();
        let ids = ["i-1", "i-2", "i-3"].map(InstanceId::from);
        by_secret.insert("a", &ids[0]);
        by_secret.insert("b", &ids[2]);
        assert!(by_secret.twins("a").is_none() && by_secret.shared().next().is_none());
        by_secret.insert("a", &ids[1]);
        assert_eq!(by_secret.shared().collect::<Vec<_>>(), ["a"]);
        assert_eq!(by_secret.twins("a").map(BTreeSet::len), Some(2));
        assert!(by_secret.is_shared("a") && !by_secret.is_shared("b"));
        assert!(by_secret.twins("b").is_none());
        by_secret.remove("a", &ids[0]);
        assert!(by_secret.twins("a").is_none() && by_secret.shared().next().is_none());
        by_secret.remove("a", &ids[1]);
        by_secret.remove("b", &ids[2]);
        assert!(by_secret.workers.is_empty());
    }
}
