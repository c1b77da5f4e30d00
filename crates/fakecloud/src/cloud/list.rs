//! Listings.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{ErrorKind, Instance, InstanceState, Tags};
use longshore_types::Instant;

use super::rules::Fate;
use super::{Cloud, Refusal};

impl Cloud {
    /// A listing, and how many pages it took.
    pub(super) fn list(
        &mut self,
        tags: &Tags,
        fate: &Fate,
    ) -> (Result<Vec<Arc<Instance>>, Refusal>, u64) {
        let age = if self.settings.capabilities.consistent_listing {
            Duration::ZERO
        } else {
            self.random.duration(&self.settings.listing_lag)
        };
        let age = age.max(fate.stale.unwrap_or_default());
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        // Before the beginning there was nothing.
        let at = self.now.as_nanos().checked_sub(nanos);
        let listed = at.map(|at| self.listed_at(Instant::from_nanos(at), tags));
        let mut listed = listed.unwrap_or_default();
        if !fate.omit.is_empty() {
            let omit: BTreeSet<_> = fate.omit.iter().collect();
            listed.retain(|instance| !omit.contains(&instance.id));
        }
        listed.retain(|_| !self.random.happens(fate.omit_some));
        let page = match self.settings.page_size {
            0 => usize::MAX,
            size => size,
        };
        let pages = u64::try_from(listed.len().div_ceil(page).max(1)).unwrap_or(u64::MAX);
        if let Some(read) = fate.fail_after_pages {
            let read = u64::from(read).min(pages);
            let words = format!("page {} could not be read", read + 1);
            return (Err(Refusal::new(ErrorKind::Other, words)), read + 1);
        }
        if fate.repeat_pages {
            listed = repeat_ends(listed, page);
        }
        (Ok(listed), pages)
    }

    fn listed_at(&mut self, at: Instant, tags: &Tags) -> Vec<Arc<Instance>> {
        let mut listed: Vec<_> = Vec::with_capacity(self.fleet.len());
        self.fleet.each_listed_since(at, |instance| {
            // An old listing may miss one that was gone and has come back, but never says that it
            // is gone: that is for good.
            let back = instance.gone.is_none();
            if let Some(version) = instance.version_at(at)
                && !(back && version.shown.state == InstanceState::Gone)
                && version.has_tags(tags)
            {
                listed.push(Arc::clone(&version.shown));
            }
        });
        listed
    }
}

/// Each page after the first begins with the end of the page before; a single page repeats its
/// own.
fn repeat_ends(listed: Vec<Arc<Instance>>, page: usize) -> Vec<Arc<Instance>> {
    let mut repeated = Vec::with_capacity(listed.len() + 1);
    for chunk in listed.chunks(page) {
        if let Some(last) = repeated.last().cloned() {
            repeated.push(last);
        }
        repeated.extend(chunk.iter().cloned());
    }
    if listed.len() <= page {
        repeated.extend(listed.last().cloned());
    }
    repeated
}
