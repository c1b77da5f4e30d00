//! What the provider does wrong by the clock.

use std::time::Duration;

use longshore_cloud::{ErrorKind, InstanceState, Scope, Tags};
use longshore_fakecloud::{
    Call, CallKind, Chance, FakeInstance, Fault, Match, Misfortune, Quota, Rule, Spread,
};
use longshore_types::{InstanceId, Instant, Market};

use super::{Event, World};
use crate::FaultKind;
use crate::story::About;

/// Short listings are at least so far apart: a provider that leaves an instance out again and
/// again says that it is gone.
const SHORT_LISTING_PAUSE: Duration = Duration::from_secs(300);
/// No listing is older than the time that the pool allows for that.
const STALE_MAX: Duration = Duration::from_secs(45);

impl World {
    pub(super) fn provider_fails(&mut self, kind: FaultKind) {
        match kind {
            FaultKind::Lingering | FaultKind::SlowBoot | FaultKind::QuotaLowered => {
                self.other_settings(kind);
            }
            FaultKind::Reappears
            | FaultKind::Interrupted
            | FaultKind::TagsChanged
            | FaultKind::TagsLost => self.instance_suffers(kind),
            _ => self.calls_fail(kind),
        }
    }

    /// Something is otherwise than usual for a while.
    fn other_settings(&mut self, kind: FaultKind) {
        let live = self.cloud.instances().filter(|i| i.is_live()).count();
        let nearly = self.config.pool.timeout_booting / 10 * 9;
        // None, where others use up what the account may have.
        let fewer = self.random.below(u64::try_from(live).unwrap_or(0) + 1);
        let settings = self.cloud.settings_mut();
        match kind {
            FaultKind::Lingering => {
                settings.stopping =
                    Spread::uniform(Duration::from_secs(120), Duration::from_secs(2_400));
            }
            FaultKind::SlowBoot => settings.boot = Spread::Constant(nearly),
            _ => settings
                .quotas
                .push(Quota::instances(Scope::Everything, fewer)),
        }
        self.fault(kind, About::default());
        let after = self.random.seconds(60, 1_200);
        self.schedule(after, Event::Ends(kind));
    }

    /// All is as usual again.
    pub(in crate::world) fn end_of(&mut self, kind: FaultKind) {
        let usual = self.usual.clone();
        let settings = self.cloud.settings_mut();
        match kind {
            FaultKind::Lingering => settings.stopping = usual.stopping,
            FaultKind::SlowBoot => settings.boot = usual.boot,
            _ => settings.quotas = usual.quotas,
        }
    }

    /// What lingers is gone at last.
    pub(super) fn done_with_lingering(&mut self) {
        let stopping = |i: &&FakeInstance| i.state == InstanceState::Stopping;
        let ids: Vec<InstanceId> = self
            .cloud
            .instances()
            .filter(stopping)
            .map(|i| i.id.clone())
            .collect();
        for id in ids {
            self.cloud.strike(&id, Misfortune::Vanish, self.now);
        }
        self.look_at_instances();
    }

    fn instance_suffers(&mut self, kind: FaultKind) {
        let preemptible = |i: &FakeInstance| i.market == Market::Preemptible;
        let ids: Vec<InstanceId> = self
            .cloud
            .instances()
            .filter(|i| i.is_live() && !self.witness.others.contains(&i.id))
            .filter(|i| kind != FaultKind::Interrupted || preemptible(i))
            .map(|i| i.id.clone())
            .collect();
        let nth = self.random.index(ids.len());
        let Some(id) = ids.get(nth) else { return };
        self.fault(kind, About::instance(id));
        self.trouble(id);
        let misfortune = match kind {
            FaultKind::Reappears => {
                if let Some(machine) = self.machines.get_mut(id) {
                    machine.comes_back = true;
                }
                Misfortune::ComeBack(self.random.seconds(200, 1_800))
            }
            FaultKind::Interrupted => {
                Misfortune::Interrupt(self.random.percent(50).then_some(Duration::from_secs(120)))
            }
            FaultKind::TagsLost if self.random.percent(50) => Misfortune::LoseTags,
            FaultKind::TagsLost => Misfortune::GarbleTags,
            _ => {
                self.change_tag(id.clone());
                return;
            }
        };
        self.cloud.strike(id, misfortune, self.now);
        self.look_at_instances();
    }

    fn change_tag(&mut self, id: InstanceId) {
        let keys = self.config.pool.tag_keys.clone();
        let (key, value) = match self.random.below(5) {
            0 => (keys.instance_type, "no-such-type"),
            1 => (keys.secret, "0"),
            2 => (keys.idle_behavior, "drain"),
            3 => (keys.idle_behavior, "sometimes"),
            _ => ("Owner".to_owned(), "somebody"),
        };
        let tags = Tags::from([(key, value.to_owned())]);
        let timeout = Duration::from_secs(60);
        let call = Call::SetTags(vec![(id, tags)]);
        self.cloud.handle_call(call, timeout, self.now);
    }

    fn calls_fail(&mut self, kind: FaultKind) {
        let mut times = None;
        let (on, fault) = match kind {
            FaultKind::Denied => (Match::any(), Fault::Refuse(ErrorKind::Denied)),
            FaultKind::RepeatedIds => (Match::from(CallKind::List), Fault::RepeatPages),
            FaultKind::BrokenPages => (Match::from(CallKind::List), Fault::FailAfterPages(1)),
            FaultKind::CloudStorm => {
                let retry_after = self.random.percent(50).then(|| self.random.seconds(1, 30));
                let refused = ErrorKind::RateLimited { retry_after };
                (Match::any(), Fault::Refuse(refused))
            }
            FaultKind::NoCapacity => {
                let types = &self.config.pool.types;
                let nth = self.random.index(types.len());
                let Some(name) = types.get(nth).map(|t| t.name.clone()) else {
                    return;
                };
                let refused = ErrorKind::NoCapacity(Scope::Type(name.clone()));
                let on = Match::from(CallKind::Create).of_type(name);
                (on, Fault::Refuse(refused))
            }
            _ if self.cloud.settings().capabilities.consistent_listing => return,
            FaultKind::ShortListing => {
                let early = |at: Instant| self.now.since(at) < SHORT_LISTING_PAUSE;
                if self.short_listing_at.is_some_and(early) {
                    return;
                }
                self.short_listing_at = Some(self.now);
                // Whoever is told of fewer instances may make more.
                self.excuse(self.machines.keys().cloned().collect());
                times = Some(1);
                (
                    Match::from(CallKind::List),
                    Fault::OmitSome(Chance::percent(40)),
                )
            }
            _ => {
                times = Some(3);
                (Match::from(CallKind::List), Fault::StaleListing(STALE_MAX))
            }
        };
        self.fault(kind, About::default());
        let mut rule = Rule::new(on, fault);
        rule.times = times;
        let id = self.stand(rule);
        let after = self.random.seconds(10, 300);
        self.schedule(after, Event::Lift(id));
    }
}
