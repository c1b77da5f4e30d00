//! Removing what was made.

use std::collections::{BTreeMap, BTreeSet};

use longshore_cloud::{ErrorKind, Tags};
use longshore_types::InstanceId;
use tokio::time::Instant;

use crate::lab::{Lab, Listing, Stop, is_alive};
use crate::{LeftBehind, Promise, Subject};

impl Subject {
    /// Destroys every instance of this run, and says which it could not.
    ///
    /// Each promise cleans up by itself; this is for what a run left that was killed: open the
    /// same instance set, give the name of that run ([`Subject::with_run`]), and call this. Only
    /// what carries the tag of the run is touched.
    ///
    /// ```
    /// # use longshore_conformance::Subject;
    /// # async fn clean(subject: Subject) {
    /// let left = subject.with_run("nightly-17").clean_up().await;
    /// assert!(left.is_empty(), "remove by hand: {left:?}");
    /// # }
    /// ```
    pub async fn clean_up(&self) -> Vec<LeftBehind> {
        let mut lab = Lab::new(self.clone(), Promise::DestroyedInstancesVanish);
        lab.tags = self.run_tags();
        lab.clean_up().await
    }
}

/// How far the removal has come.
#[derive(Debug, Default)]
struct Progress {
    /// What has to go.
    targets: BTreeSet<InstanceId>,
    /// What destroy said Ok about.
    accepted: BTreeSet<InstanceId>,
    /// When it last did so about one more.
    accepted_at: Option<Instant>,
    /// What the last listing shows alive, and what that means.
    alive: BTreeMap<InstanceId, String>,
    /// What destroy answered in place of Ok.
    refused: BTreeMap<InstanceId, String>,
    /// Why nothing could be listed.
    blind: Option<String>,
}

impl Progress {
    fn is_done(&self) -> bool {
        self.alive.is_empty() && self.refused.is_empty() && self.blind.is_none()
    }

    fn accept(&mut self, id: &InstanceId) {
        self.refused.remove(id);
        if self.accepted.insert(id.clone()) {
            self.accepted_at = Some(Instant::now());
        }
    }

    fn refuse(&mut self, id: &InstanceId, why: String) {
        self.refused.insert(id.clone(), why);
    }
}

impl Lab {
    /// Destroys whatever this check made until no listing shows it alive.
    pub(crate) async fn clean_up(&self) -> Vec<LeftBehind> {
        let timing = &self.subject.timing;
        let doubtful = self.close();
        // What a create made that never said so may be listed only now.
        let surely_listed = doubtful.map(|at| at + timing.call + timing.appear);
        let started = Instant::now();
        let since = surely_listed.map_or(started, |at| at.max(started));
        let mut progress = Progress::default();
        progress.targets.extend(self.made().ids.iter().cloned());
        progress.targets.retain(|id| !self.was_there(id));
        loop {
            self.find_targets(&mut progress).await;
            self.destroy_targets(&mut progress).await;
            let waited = surely_listed.is_none_or(|at| Instant::now() >= at);
            if waited && progress.is_done() {
                return Vec::new();
            }
            // However long the destroys took, what the last of them was about has its time, too.
            let since = progress.accepted_at.map_or(since, |at| at.max(since));
            if Instant::now() >= since + timing.vanish {
                self.find_targets(&mut progress).await;
                return self.left_behind(progress, doubtful.is_some());
            }
            tokio::time::sleep(timing.poll).await;
        }
    }

    /// Lists what is there; what was accepted and is not listed alive needs no more care.
    async fn find_targets(&self, progress: &mut Progress) {
        let timeout = self.subject.timing.call;
        let listing = match self.patiently(|| self.try_list(&self.tags, timeout)).await {
            Ok(Ok(listed)) => listed.into_iter().map(|i| (i.id.clone(), i)).collect(),
            Ok(Err(error)) => return progress.blind = Some(error.chain()),
            Err(stop) => return progress.blind = Some(stop.words()),
        };
        progress.blind = None;
        progress.alive.clear();
        for id in self.ours(&listing) {
            let state = listing[&id].state;
            let said = match progress.accepted.contains(&id) {
                true => "destroy said Ok, but it is still listed as",
                false => "it is listed as",
            };
            progress
                .alive
                .insert(id.clone(), format!("{said} {state:?}"));
            progress.targets.insert(id);
        }
    }

    /// The living instances of a listing that carry our tags for sure, whatever the driver
    /// believes to have filtered.
    fn ours(&self, listing: &Listing) -> Vec<InstanceId> {
        let ours = listing.values().filter(|instance| {
            is_alive(instance)
                && instance.has_tags(&self.tags)
                && !self.was_there(&instance.id)
                && !instance.id.as_str().is_empty()
        });
        ours.map(|instance| instance.id.clone()).collect()
    }

    /// Destroys what is alive or was not accepted yet.
    async fn destroy_targets(&self, progress: &mut Progress) {
        let wanted =
            |id: &&InstanceId| !progress.accepted.contains(*id) || progress.alive.contains_key(*id);
        let ids: Vec<InstanceId> = progress.targets.iter().filter(wanted).cloned().collect();
        let limit = self.ask("capabilities", |set| set.capabilities().destroy_batch);
        let batch = match limit.await {
            Ok(0) | Err(_) => 100,
            Ok(limit) => limit.min(100),
        };
        for ids in ids.chunks(batch) {
            let answers = match self.destroy(ids).await {
                Ok(answers) => answers,
                Err(stop) => {
                    let words = stop.words();
                    ids.iter().for_each(|id| progress.refuse(id, words.clone()));
                    continue;
                }
            };
            for id in ids {
                match answers.iter().find(|(answered, _)| answered == id) {
                    Some((_, Ok(()))) => progress.accept(id),
                    // Not what is promised, but gone it is; if not, listings say so.
                    Some((_, Err(error))) if error.kind == ErrorKind::NotFound => {
                        progress.accept(id);
                    }
                    Some((_, Err(error))) => progress.refuse(id, error.chain()),
                    None => progress.refuse(id, "destroy gave no answer about it".into()),
                }
            }
        }
    }

    fn left_behind(&self, progress: Progress, doubtful: bool) -> Vec<LeftBehind> {
        let mut trouble = progress.alive;
        trouble.extend(progress.refused);
        let trouble = trouble.into_iter();
        let mut left: Vec<_> = trouble.map(|(id, why)| LeftBehind::new(id, why)).collect();
        let unsure = doubtful || !self.made().ids.is_empty();
        if let Some(why) = progress.blind.filter(|_| unsure) {
            let tags = tag_list(&self.tags);
            let why = format!("nothing could be listed by the tags {tags}: {why}");
            left.push(LeftBehind::new("", why));
        }
        left
    }
}

impl Stop {
    /// What happened, on one line.
    fn words(&self) -> String {
        let (Self::Broken(text) | Self::NotRun(text)) = self;
        text.replace('\n', " ")
    }
}

/// Tags as a person reads them.
pub(crate) fn tag_list(tags: &Tags) -> String {
    let pairs: Vec<_> = tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(", ")
}

/// A value as a person reads it: quoted, and not too long.
pub(crate) fn shown(value: &str) -> String {
    const LONG: usize = 60;
    let length = value.chars().count();
    if length <= LONG {
        return format!("{value:?}");
    }
    let begin: String = value.chars().take(LONG / 3).collect();
    format!("{begin:?}... ({length} characters)")
}
