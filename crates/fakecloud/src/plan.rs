//! Random faults over time.

use std::fmt;
use std::time::Duration;

use crate::{Chance, Spread};

/// Random faults: how likely each is. What is drawn depends on the seed.
///
/// | | [`mild`](Self::mild) | [`wild`](Self::wild) |
/// |---|---|---|
/// | of calls: lost before acting, reply lost, failed after acting | 0.1 % each | 3 %, 5 %, 2 % |
/// | of calls: slower, by so much | 1 %, about 5 s | 5 %, about 20 s |
/// | of listings: pages repeated, broken off | 0.5 %, 0.1 % | 10 %, 3 % |
/// | of listings: stale, by so much | 0.5 %, up to 1 min | 10 %, up to 5 min |
/// | of listings: silently short, by so much of the instances | none | 2 %, by 20 % |
/// | of the ids of a batch: refused | 0.1 % | 5 % |
/// | of instances: wrong id from create | none | 1 % |
/// | of instances: never boots, vanishes | 0.5 %, 0.2 % | 5 % each |
/// | of instances: interrupted (preemptible ones, 2 min notice) | 2 % | 20 % |
/// | of instances: another address, lingers in stopping | 0.1 % each | 3 % each |
/// | of instances: comes back, loses its tags, garbles them | none | 1 % each |
/// | misfortunes befall instances within | 4 h | 1 h |
/// | episodes: time between them, how long they last | about 12 h, 5 min | about 1 h, 5 min |
///
/// ```
/// use longshore_fakecloud::{Chance, FaultPlan, Settings};
/// let mut plan = FaultPlan::none();
/// plan.lose_reply = Chance::percent(10);
/// let settings = Settings::default().with_plan(plan);
/// # let _ = (settings, FaultPlan::mild(), FaultPlan::wild());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultPlan {
    /// A call is lost before it acts.
    pub lose_request: Chance,
    /// A call acts and its reply is lost.
    pub lose_reply: Chance,
    /// A call acts and its reply is an error of kind `Other`.
    pub fail_after_acting: Chance,
    /// A call takes longer, half of the time before it acts and half after.
    pub slow: Chance,
    /// By so much.
    pub slow_by: Option<Spread>,
    /// A listing repeats instances.
    pub repeat_pages: Chance,
    /// A listing breaks off after its first page.
    pub break_pages: Chance,
    /// A listing is stale.
    pub stale: Chance,
    /// By so much.
    pub stale_by: Option<Spread>,
    /// A listing is silently short: the provider lies.
    pub short: Chance,
    /// It misses about so many of the instances.
    pub short_by: Chance,
    /// An id of a batch fails with an error of kind `Other`.
    pub fail_id: Chance,
    /// A create answers with an empty id or that of another instance.
    pub wrong_id: Chance,
    /// An instance never boots.
    pub never_boot: Chance,
    /// An instance vanishes.
    pub vanish: Chance,
    /// A preemptible instance is interrupted.
    pub interrupt: Chance,
    /// So long after its notice.
    pub interrupt_notice: Option<Duration>,
    /// An instance changes its address.
    pub change_address: Chance,
    /// An instance lingers for ever once it is being destroyed.
    pub linger: Chance,
    /// An instance comes back a minute after it is gone.
    pub come_back: Chance,
    /// An instance loses its tags.
    pub lose_tags: Chance,
    /// An instance's tags become rubbish.
    pub garble_tags: Chance,
    /// From the birth of an instance until a misfortune befalls it; zero if there is none.
    pub misfortune_after: Option<Spread>,
    /// The time between two episodes, at least a second; none for no episodes.
    pub episode_every: Option<Spread>,
    /// How long an episode lasts, at least a second.
    pub episode_length: Option<Spread>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// What a decent provider does on an ordinary day.
    pub fn mild() -> Self {
        let seconds = Duration::from_secs;
        let one_in_a_thousand = Chance::per_million(1_000);
        Self {
            lose_request: one_in_a_thousand,
            lose_reply: one_in_a_thousand,
            fail_after_acting: one_in_a_thousand,
            slow: Chance::percent(1),
            slow_by: Some(Spread::long_tailed(seconds(5), 100)),
            repeat_pages: Chance::per_million(5_000),
            break_pages: one_in_a_thousand,
            stale: Chance::per_million(5_000),
            stale_by: Some(Spread::uniform(seconds(0), seconds(60))),
            fail_id: one_in_a_thousand,
            never_boot: Chance::per_million(5_000),
            vanish: Chance::per_million(2_000),
            interrupt: Chance::percent(2),
            interrupt_notice: Some(seconds(120)),
            change_address: one_in_a_thousand,
            linger: one_in_a_thousand,
            misfortune_after: Some(Spread::uniform(seconds(0), seconds(4 * 3_600))),
            episode_every: Some(Spread::long_tailed(seconds(12 * 3_600), 100)),
            episode_length: Some(Spread::long_tailed(seconds(300), 100)),
            ..Self::none()
        }
    }

    /// A day on which everything goes wrong, lies of the provider included.
    pub fn wild() -> Self {
        let seconds = Duration::from_secs;
        let percent = Chance::percent;
        Self {
            lose_request: percent(3),
            lose_reply: percent(5),
            fail_after_acting: percent(2),
            slow: percent(5),
            slow_by: Some(Spread::long_tailed(seconds(20), 100)),
            repeat_pages: percent(10),
            break_pages: percent(3),
            stale: percent(10),
            stale_by: Some(Spread::uniform(seconds(0), seconds(300))),
            short: percent(2),
            short_by: percent(20),
            fail_id: percent(5),
            wrong_id: percent(1),
            never_boot: percent(5),
            vanish: percent(5),
            interrupt: percent(20),
            interrupt_notice: Some(seconds(120)),
            change_address: percent(3),
            linger: percent(3),
            come_back: percent(1),
            lose_tags: percent(1),
            garble_tags: percent(1),
            misfortune_after: Some(Spread::uniform(seconds(0), seconds(3_600))),
            episode_every: Some(Spread::long_tailed(seconds(3_600), 100)),
            episode_length: Some(Spread::long_tailed(seconds(300), 100)),
        }
    }
}

/// A bad time for every call, drawn by a [`FaultPlan`] that has episodes; each kind as often.
///
/// ```
/// assert_eq!(longshore_fakecloud::Episode::Outage.to_string(), "an outage");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Episode {
    /// Requests are lost before they act.
    Outage,
    /// Every call is rate-limited.
    Throttling,
    /// There is no capacity for anything.
    Drought,
    /// Listings show what was true five minutes ago.
    Lag,
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outage => "an outage",
            Self::Throttling => "a time of throttling",
            Self::Drought => "a time without capacity",
            Self::Lag => "a time of stale listings",
        })
    }
}
