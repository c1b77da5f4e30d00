//! Listings: which instances there are, and what a missing one means.
//!
//! What a listing shows is from some moment between its beginning and its answer. So two are as
//! far apart as the answer of the first and the beginning of the second.

use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{ErrorKind, Instance, InstanceState};
use longshore_types::{InstanceId, Instant, WorkerState};

use crate::config::Config;
use crate::core::{Core, FlightAction};
use crate::effect::{CloudFailure, EffectAction, Outcome};
use crate::event::Changed;
use crate::holdoff::growing;
use crate::intake::{is_usable_id, tidy};
use crate::timers::Timer;
use crate::worker::{Right, Seq, Worker};

const RETRY_PAUSE: (u64, u64) = (1, 60);
/// Listings follow each other no faster than this.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// From a create whose reply had no address to the listing that may show it.
const FIRST_LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Listing {
    in_flight: bool,
    /// Whether another one is wanted no later than then.
    wanted: Option<Instant>,
    failures: u32,
    /// What the clock of silence showed when the last one was asked for.
    heard: Duration,
    /// Why the last one failed, if it did.
    error: Option<String>,
    last_began_at: Instant,
    /// None begins earlier: the last one failed, or the provider asked for a pause.
    not_before: Instant,
    /// When the last complete one began, in the order of inputs; 0 before the first.
    pub(crate) complete_began: Seq,
    /// When the first complete one was answered.
    first_complete_at: Option<Instant>,
    pub(crate) evidence: bool,
    /// Instances of ours in the last listing whose id cannot be used.
    unusable: usize,
    /// Since when listings miss more than half of the instances, if they do.
    short_since: Option<Instant>,
}

impl Listing {
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// What listings miss is doubted for as long again.
    pub(crate) fn restart(&mut self, now: Instant) {
        if let Some(since) = &mut self.short_since {
            *since = now;
        }
    }
}

impl Core {
    /// Whether a complete listing was seen since the start, so that every worker of an earlier
    /// process is known as far as listings show them.
    pub fn is_listed(&self) -> bool {
        self.listing.first_complete_at.is_some()
    }

    /// Why the last listing failed, if it did.
    pub fn listing_error(&self) -> Option<&str> {
        self.listing.error.as_deref()
    }

    /// Whether two complete listings, far enough apart, were seen since the start, so that an
    /// instance which was in none of them does not exist.
    pub fn absence_is_evidence(&self) -> bool {
        self.listing.evidence
    }

    /// Whether a listing shows every instance of ours that there is. Ours are those that carry our
    /// tags: where these come later than the instance, no listing proves that it is not there.
    pub(crate) fn lists_everything(&self) -> bool {
        let capabilities = &self.config.capabilities;
        capabilities.consistent_listing && capabilities.tags_at_birth
    }

    pub(crate) fn grace(&self) -> Duration {
        if self.lists_everything() {
            Duration::ZERO
        } else {
            self.config.consistency_grace
        }
    }

    pub(crate) fn list(&mut self) {
        if self.listing.in_flight {
            return;
        }
        let timeout = self.config.cloud_call_timeout;
        let action = EffectAction::List(self.ours.clone());
        if self.send(timeout, action, FlightAction::List).is_some() {
            self.listing.in_flight = true;
            self.listing.wanted = None;
            self.listing.last_began_at = self.now;
            self.listing.heard = self.hearing.listened();
            self.timers.clear(&Timer::List);
        }
    }

    /// Wants a listing that begins no later than `pause` from now, unless listings fail.
    pub(crate) fn listing_soon(&mut self, pause: Duration) {
        if self.stopping {
            return;
        }
        let earliest = (self.listing.last_began_at + MIN_PAUSE).max(self.listing.not_before);
        let at = (self.now + pause).max(earliest);
        if self.listing.in_flight {
            let wanted = self.listing.wanted.map_or(at, |wanted| wanted.min(at));
            self.listing.wanted = Some(wanted);
        } else {
            self.timers.set_by(Timer::List, at);
        }
    }

    /// Looks for the address of a new instance, without which it can be asked nothing.
    ///
    /// The first listing for it begins 2 s after its create was answered, the next ones after
    /// pauses that grow by half, up to the regular ones. One listing is for all such instances,
    /// and the youngest decides: however many there are, at most one begins in 2 s.
    pub(crate) fn look_for_addresses(&mut self) {
        let since = self.workers.values().filter_map(Worker::unaddressed_since);
        if let Some(youngest) = since.max() {
            self.listing_soon(FIRST_LOOK + self.now.since(youngest) / 2);
        }
    }

    /// The same, where the youngest is an instance that came just now.
    pub(crate) fn look_for_new_address(&mut self) {
        self.listing_soon(FIRST_LOOK);
    }

    pub(crate) fn on_listed(&mut self, began: Seq, began_at: Instant, outcome: Outcome) {
        self.listing.in_flight = false;
        let error_before = self.listing.error.take();
        let pause = match outcome {
            Outcome::Listed(Ok(instances)) => {
                self.listing.failures = 0;
                self.listing.complete_began = began;
                self.on_complete_listing(began, began_at, instances);
                None
            }
            Outcome::Listed(Err(failure)) => Some(self.on_listing_failed(&failure)),
            _ => Some(MIN_PAUSE),
        };
        if self.listing.error != error_before {
            self.changed(Changed::Evidence);
        }
        self.listing.not_before = pause.map_or(self.now, |pause| self.now + pause);
        if self.stopping {
            return;
        }
        let regular = began_at + self.config.sync_interval;
        let mut at = pause.map_or(regular, |pause| self.now + pause);
        if let Some(wanted) = self.listing.wanted.take()
            && pause.is_none()
        {
            at = at.min(wanted);
        }
        self.timers.set_by(Timer::List, at.max(self.now));
    }

    fn on_listing_failed(&mut self, failure: &CloudFailure) -> Duration {
        if self.listing.failures == 0 {
            self.hear_nothing_since(self.listing.heard);
        }
        self.listing.failures = self.listing.failures.saturating_add(1);
        self.listing.error = Some(failure.error.clone());
        if self.listing.failures == 3 {
            self.alarm(format!("instances cannot be listed: {}", failure.error));
        }
        let grown = growing(RETRY_PAUSE, self.listing.failures - 1);
        match failure.kind {
            ErrorKind::RateLimited {
                retry_after: Some(pause),
            } => pause.max(MIN_PAUSE),
            _ => grown.min(self.config.sync_interval).max(MIN_PAUSE),
        }
    }

    fn on_complete_listing(
        &mut self,
        began: Seq,
        began_at: Instant,
        instances: Vec<Arc<Instance>>,
    ) {
        let compared = self.compare(one_of_each(instances), began);
        // Missing ones first: a worker that this listing adds is not one that it could miss.
        self.mark_missing(compared.missing, compared.wanted, began, began_at);
        let mut unusable = 0;
        for instance in compared.others {
            if !instance.has_tags(&self.ours) {
                continue;
            }
            if !is_usable_id(instance.id.as_str()) {
                unusable += 1;
                continue;
            }
            let mut instance = Arc::unwrap_or_clone(instance);
            let problem = tidy(&mut instance, &self.config);
            let id = problem.is_some().then(|| instance.id.clone());
            self.on_listed_instance(instance, began);
            if let (Some(id), Some(problem)) = (id, problem) {
                self.set_error(&id, &problem);
            }
        }
        if unusable > self.listing.unusable {
            self.alarm(format!(
                "a listing shows {unusable} instances of ours without an id that can be used"
            ));
        }
        self.listing.unusable = unusable;
        self.resolve_all_twins();
        self.count_evidence(began_at);
        self.look_for_addresses();
    }

    /// Goes through the workers and what is listed side by side, both in the order of ids, and
    /// takes note of those that are shown as they are known: found out before anything of them is
    /// copied or cut, since it is so with nearly all of them.
    fn compare(&mut self, listed: Vec<Arc<Instance>>, began: Seq) -> Compared {
        let mut compared = Compared::default();
        let mut listed = listed.into_iter().peekable();
        for (id, worker) in &mut self.workers {
            while let Some(other) = listed.next_if(|instance| instance.id < *id) {
                compared.others.push(other);
            }
            let shown = listed.next_if(|instance| instance.id == *id);
            let shown = shown.filter(|instance| {
                worker.is_shown_as_before(instance) || instance.has_tags(&self.ours)
            });
            if worker.seen < began && !worker.is_expected_to_go() {
                compared.wanted += 1;
            }
            match shown {
                Some(instance) if worker.is_shown_as_known(&instance, &self.config) => {
                    worker.seen_in_listing(began);
                }
                Some(instance) => compared.others.push(instance),
                None if worker.seen < began => compared.missing.push(id.clone()),
                None => {}
            }
        }
        compared.others.extend(listed);
        compared
    }

    fn count_evidence(&mut self, began_at: Instant) {
        if self.listing.evidence {
            return;
        }
        let grace = self.grace();
        match self.listing.first_complete_at {
            None => {
                self.listing.first_complete_at = Some(self.now);
                self.changed(Changed::Evidence);
                self.listing_soon(grace);
            }
            Some(first) if began_at.since(first) >= grace => {
                self.listing.evidence = true;
                self.changed(Changed::Evidence);
            }
            Some(first) => self.listing_soon(grace.saturating_sub(self.now.since(first))),
        }
    }

    /// Takes note of the workers that a listing misses, where it could have shown so many that are
    /// wanted.
    fn mark_missing(
        &mut self,
        missing: Vec<InstanceId>,
        wanted: usize,
        began: Seq,
        began_at: Instant,
    ) {
        let goes = |core: &Self, id: &InstanceId| {
            core.workers.get(id).is_some_and(Worker::is_expected_to_go)
        };
        let lost = missing.iter().filter(|id| !goes(self, id)).count();
        let believed = self.is_believed(lost, wanted, began_at);
        for id in missing {
            if believed || goes(self, &id) {
                self.miss(&id, began, began_at);
            }
        }
    }

    /// Whether a listing that misses `lost` of `known` wanted instances says anything about them.
    ///
    /// One that misses most of them rather shows a fault of the listing. But where complete
    /// listings go on to miss them for as long as a silent worker is put up with, they are gone:
    /// an instance that gave any sign of life since is not among the missing.
    fn is_believed(&mut self, lost: usize, known: usize, began_at: Instant) -> bool {
        let short = known >= 2 && lost * 2 > known;
        if !short {
            self.listing.short_since = None;
            return true;
        }
        let since = match self.listing.short_since {
            Some(since) => since,
            None => {
                self.alarm(format!(
                    "a listing misses {lost} of {known} instances; it is not believed for now"
                ));
                self.listing.short_since = Some(self.now);
                self.now
            }
        };
        began_at.since(since) >= self.config.timeout_probe
    }

    /// One piece of evidence that an instance does not exist. Two are wanted, and time between
    /// them: listings that follow each other quickly may be wrong for one and the same reason.
    fn miss(&mut self, id: &InstanceId, began: Seq, began_at: Instant) {
        let (now, grace, complete) = (self.now, self.grace(), self.lists_everything());
        let timeout_shutdown = self.config.timeout_shutdown;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let down = worker.state == WorkerState::Shutdown;
        let apart = match (down, worker.destroy_accepted) {
            (true, Some(_)) if complete => Duration::ZERO,
            (true, Some(_)) if worker.listed => timeout_shutdown,
            // It may not have come to be listed yet, nor been known to whoever accepted its end.
            (true, _) => timeout_shutdown.max(grace),
            (false, _) => grace,
        };
        let mut last = worker.missed_at;
        let mut enough = last.is_some();
        let mut why = "it disappeared from the listing";
        match worker.destroy_accepted {
            _ if !down => {}
            Some((accepted, accepted_at)) if accepted <= began => {
                last = last.or(Some(accepted_at));
                enough |= complete;
                why = "it was destroyed";
            }
            // Somebody else may have removed it, where we may not.
            None if worker.listed => {}
            _ => return,
        }
        if let Some(last) = last
            && began_at.since(last) < apart
        {
            self.listing_soon(apart.saturating_sub(now.since(last)));
        } else if enough {
            self.drop_worker(id, why);
        } else {
            worker.missed_at = Some(now);
            self.listing_soon(apart);
            if !down {
                // If it is there it says so before the next listing.
                self.want_report(id);
            }
        }
    }

    /// Another call than a listing said that there is no such instance: one miss.
    pub(crate) fn miss_also(&mut self, id: &InstanceId, (began, began_at): (Seq, Instant)) {
        if self
            .workers
            .get(id)
            .is_some_and(|worker| worker.seen < began)
        {
            self.miss(id, began, began_at);
        }
    }

    fn on_listed_instance(&mut self, instance: Instance, began: Seq) {
        if let Some(worker) = self.workers.get_mut(&instance.id)
            && worker.is_wanted_as_it_is()
            && is_as_known(worker, &instance, &self.config)
        {
            worker.seen_in_listing(began);
            return;
        }
        if let Some(worker) = self.workers.get(&instance.id) {
            let seen = worker.seen;
            let tag = instance.tags.get(&self.config.tag_keys.secret);
            let another = tag != worker.secret.as_ref()
                && tag.is_some_and(|tag| self.pending_secrets.contains_key(tag));
            if another && self.may_be_replaced(&instance.id) {
                let id = instance.id.clone();
                self.drop_worker(&id, "the provider gave its id to a new instance");
                self.match_pending(&instance);
                return;
            }
            if seen < began {
                self.update_worker(instance, began);
            }
            return;
        }
        if self.match_pending(&instance) || instance.state == InstanceState::Gone {
            return;
        }
        self.adopt(instance);
    }

    /// Whether an id was given twice, and this is about another machine than the one that a worker
    /// stands for, on which something may run.
    fn is_about_another(&self, instance: &Instance) -> bool {
        let known = self.workers.get(&instance.id);
        let secret = known.and_then(|worker| worker.secret.as_ref());
        let tag = instance.tags.get(&self.config.tag_keys.secret);
        secret.is_some() && tag.is_some() && tag != secret && !self.may_be_replaced(&instance.id)
    }

    fn update_worker(&mut self, instance: Instance, began: Seq) {
        let id = instance.id.clone();
        if self.is_about_another(&instance) {
            // It proves nothing of ours. But what answers at its address is not to be asked what
            // runs on ours, nor is ours gone because that one goes.
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.seen = began;
                worker.missed_at = None;
            }
            return;
        }
        if instance.state == InstanceState::Gone {
            self.drop_worker(&id, "the provider says that it is gone");
            return;
        }
        let now = self.now;
        let pause = self.config.timeout_shutdown;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.seen = began;
        worker.listed = true;
        worker.missed_at = None;
        let mut probe = false;
        if instance.address.is_some() && worker.address != instance.address {
            worker.address = instance.address;
            probe = true;
        }
        if let Some(user) = instance.remote_user {
            worker.user = user;
        }
        worker.launched_at = instance.launched_at.or(worker.launched_at);
        // Equal ones stay the same object: what was found right with them is compared at a glance.
        if worker.tags_seq < began && worker.tags != instance.tags {
            worker.tags = instance.tags;
        }
        let shutdown = worker.state == WorkerState::Shutdown;
        let again = worker
            .destroy_sent_at
            .is_none_or(|sent| now.since(sent) >= pause);
        if shutdown && again {
            self.queue_destroy(&id);
        } else if !shutdown && instance.state == InstanceState::Stopping {
            self.condemn_taken_away(&id);
        } else if !shutdown {
            self.repair_tags(&id);
        }
        if probe {
            self.worker_changed(&id);
            self.probe(&id);
        }
    }
}

/// What a listing is compared with the workers.
#[derive(Debug, Default)]
struct Compared {
    /// What is not shown as it is known, or is not known.
    others: Vec<Arc<Instance>>,
    /// The workers that it does not show, and could have.
    missing: Vec<InstanceId>,
    /// How many workers that are wanted it could have shown.
    wanted: usize,
}

impl Worker {
    /// Whether somebody has accepted that it goes. One that is to go where nobody has is missed like
    /// any other.
    fn is_expected_to_go(&self) -> bool {
        self.destroy_accepted.is_some()
    }

    /// Whether nothing has to be done about it as long as it is shown as it is known.
    fn is_wanted_as_it_is(&self) -> bool {
        self.state != WorkerState::Shutdown && self.tags_tries == 0
    }

    /// Whether an instance is shown as it was when there was last nothing to do about it, and is to
    /// have the same tags since.
    fn is_shown_as_before(&self, instance: &Arc<Instance>) -> bool {
        self.right.as_ref().is_some_and(|right| {
            right.behavior == self.behavior && right.kept == self.tags && right.shown == *instance
        })
    }

    /// Whether an instance of ours is shown as it is known, so that there is nothing to do about it:
    /// so it is with nearly all of them, nearly always.
    fn is_shown_as_known(&mut self, instance: &Arc<Instance>, config: &Config) -> bool {
        let is_wanted = self.is_wanted_as_it_is();
        if is_wanted && self.is_shown_as_before(instance) {
            return true;
        }
        let is_known = is_wanted && is_as_known(self, instance, config);
        // Only what is no more than ours and the name of the set: others may be of any size.
        let is_small = instance.tags.len() <= self.tags.len() + 1;
        self.right = (is_known && is_small).then(|| Right {
            shown: Arc::clone(instance),
            kept: self.tags.clone(),
            behavior: self.behavior,
        });
        is_known
    }

    /// A listing that began then shows it.
    fn seen_in_listing(&mut self, began: Seq) {
        self.listed = true;
        if self.seen < began {
            self.seen = began;
            self.missed_at = None;
        }
    }
}

/// The instances in the order of their ids, of those that are shown twice the later one.
fn one_of_each(mut listed: Vec<Arc<Instance>>) -> Vec<Arc<Instance>> {
    listed.sort_by(|one, other| one.id.cmp(&other.id));
    listed.dedup_by(|later, earlier| {
        let same = later.id == earlier.id;
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
    listed
}

/// Whether an instance of ours is shown as a worker is known, with the tags that it is to have. What
/// is shown need not be cut yet.
fn is_as_known(worker: &Worker, instance: &Instance, config: &Config) -> bool {
    let address = instance.address.as_deref();
    let user = instance.remote_user.as_ref();
    let goes = matches!(
        instance.state,
        InstanceState::Stopping | InstanceState::Gone
    );
    !goes
        && address.is_none_or(|shown| is_known_as(shown, worker.address.as_deref(), config))
        && user.is_none_or(|user| *user == worker.user)
        && (instance.launched_at.is_none() || instance.launched_at == worker.launched_at)
        && worker.tags_are_right(&instance.tags, &config.tag_keys)
}

/// Whether an address, which may lack our port, is the known one, which has it.
fn is_known_as(shown: &str, known: Option<&str>, config: &Config) -> bool {
    let rest = known.and_then(|known| known.strip_prefix(shown));
    rest.is_some_and(|rest| {
        let port = rest.strip_prefix(':').map(str::parse);
        rest.is_empty() || !shown.contains(':') && port == Some(Ok(config.ssh_port))
    })
}

#[cfg(test)]
mod tests {
    use longshore_cloud::Tags;

    use super::*;

    #[test]
    fn an_address_is_the_known_one_with_or_without_our_port() {
        let mut config = Config::new("set", vec![]);
        config.ssh_port = 2222;
        let known = |shown: &str, known: &str| is_known_as(shown, Some(known), &config);
        assert!(known("10.0.0.1", "10.0.0.1:2222") && known("10.0.0.1:22", "10.0.0.1:22"));
        assert!(!known("10.0.0.1", "10.0.0.1:22") && !known("10.0.0.1", "10.0.0.12:2222"));
        assert!(!known("fe80:", "fe80::2222") && !known("", "10.0.0.1"));
        assert!(!is_known_as("10.0.0.1", None, &config));
    }

    #[test]
    fn of_what_is_listed_twice_the_later_is_taken() {
        let instance =
            |id: &str, kind: &str| Instance::new(id, kind, InstanceState::Running, Tags::new());
        let listed = vec![
            instance("b", "1"),
            instance("a", "2"),
            instance("b", "3"),
            instance("b", "4"),
        ];
        let listed = one_of_each(listed.into_iter().map(Arc::new).collect());
        let shown: Vec<_> = listed
            .iter()
            .map(|i| (i.id.as_str(), &*i.provider_type))
            .collect();
        assert_eq!(shown, [("a", "2"), ("b", "4")]);
    }
}
