//! What can go wrong, and when.

use std::fmt;
use std::time::Duration;

use longshore_cloud::ErrorKind;
use longshore_types::{InstanceId, Market, TypeName};

use crate::{CallKind, Chance};

/// What goes wrong with a call.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::ErrorKind;
/// use longshore_fakecloud::{CallKind, Fault, Misfortune, Rule};
/// let lost = Rule::new(CallKind::Create, Fault::LoseReply).times(1);
/// let refused = Rule::new(CallKind::Destroy, Fault::Refuse(ErrorKind::Denied));
/// let dies = Fault::Strike { after: Duration::from_secs(60), misfortune: Misfortune::Vanish };
/// let mortal = Rule::new(CallKind::Create, dies);
/// # let _ = (lost, refused, mortal);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The provider refuses it; nothing is done.
    Refuse(ErrorKind),
    /// The request is lost: nothing is done, and no reply comes before the timeout.
    LoseRequest,
    /// It is done, but no reply comes before the timeout.
    LoseReply,
    /// It is done, but the reply is an error.
    FailAfterActing(ErrorKind),
    /// It takes longer.
    Delay {
        /// Until it acts.
        before: Duration,
        /// From there until the reply.
        after: Duration,
    },
    /// It does not act until [`Cloud::release`](crate::Cloud::release).
    HoldRequest,
    /// It acts, but its reply does not leave until [`Cloud::release`](crate::Cloud::release).
    HoldReply,
    /// A listing shows what was true so long ago.
    StaleListing(Duration),
    /// A listing misses these instances and says nothing of it: the provider lies.
    OmitInstances(Vec<InstanceId>),
    /// A listing misses about so many of the instances and says nothing of it.
    OmitSome(Chance),
    /// A listing shows some instances twice: each page after the first begins with the last
    /// instance of the page before; if all fit on one page, its last instance occurs twice.
    RepeatPages,
    /// A listing fails after so many pages; one with fewer pages fails at its end.
    FailAfterPages(u32),
    /// So many ids of a batch fail, the others are done. With [`Match::of_instance`] only that
    /// instance fails.
    FailSome(Chance, ErrorKind),
    /// A create makes an instance but answers with an empty id.
    EmptyId,
    /// A create makes an instance but answers with the id of the one made before.
    RepeatedId,
    /// A misfortune befalls the instances that the call made or named (with
    /// [`Match::of_instance`] only that one).
    Strike {
        /// So long after the call acted.
        after: Duration,
        /// What happens to them.
        misfortune: Misfortune,
    },
}

/// What goes wrong with an instance, whatever calls are made.
///
/// ```
/// use longshore_fakecloud::{Cloud, Misfortune, Settings};
/// use longshore_types::Instant;
/// let mut cloud = Cloud::new(Settings::instant(), 1);
/// assert!(!cloud.strike(&"nobody".into(), Misfortune::Vanish, Instant::ZERO));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfortune {
    /// It never boots (unless it has).
    NeverBoot,
    /// It is no more, from one moment to the next, and no listing ever says so.
    Vanish,
    /// It is off: it runs nothing, and is shown as stopping until it is destroyed.
    PowerOff,
    /// It gets another address.
    ChangeAddress,
    /// The provider takes it away, after a notice that is so much earlier if there is one; a
    /// preemptible instance only.
    Interrupt(Option<Duration>),
    /// Once it is being destroyed it stays so for ever.
    LingerStopping,
    /// Once it is gone it comes back so much later, running as before, whatever the quotas say.
    ComeBack(Duration),
    /// All its tags are lost.
    LoseTags,
    /// The values of its tags become rubbish.
    GarbleTags,
}

/// Which calls a rule is about: those that meet everything that is set.
///
/// ```
/// use longshore_fakecloud::{CallKind, Match};
/// use longshore_types::Market;
/// let third = Match::from(CallKind::Create).on_market(Market::Preemptible).nth(3);
/// let small = Match::any().of_type("small").with_token("token-1");
/// let one = Match::from(CallKind::Destroy).of_instance("fake-1");
/// # let _ = (third, small, one);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Match {
    /// Of this kind.
    pub kind: Option<CallKind>,
    /// Creates of this configured type, and calls that name an instance of it.
    pub type_name: Option<TypeName>,
    /// Creates on this market, and calls that name an instance of it.
    pub market: Option<Market>,
    /// Calls that name this instance.
    pub instance: Option<InstanceId>,
    /// Creates with this token.
    pub token: Option<String>,
    /// Only the call that is the so-manieth, counted from 1, to meet the rest since the rule was
    /// injected.
    pub nth: Option<u64>,
}

impl From<CallKind> for Match {
    fn from(kind: CallKind) -> Self {
        Self {
            kind: Some(kind),
            ..Self::default()
        }
    }
}

impl Match {
    /// Every call.
    pub fn any() -> Self {
        Self::default()
    }

    /// Only creates of this configured type, and calls that name an instance of it.
    #[must_use]
    pub fn of_type(mut self, name: impl Into<TypeName>) -> Self {
        self.type_name = Some(name.into());
        self
    }

    /// Only creates on this market, and calls that name an instance of it.
    #[must_use]
    pub fn on_market(mut self, market: Market) -> Self {
        self.market = Some(market);
        self
    }

    /// Only calls that name this instance.
    #[must_use]
    pub fn of_instance(mut self, id: impl Into<InstanceId>) -> Self {
        self.instance = Some(id.into());
        self
    }

    /// Only creates with this token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Only the `n`th such call, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.nth = Some(n);
        self
    }
}

/// A fault, and which calls have it. A call that meets several rules has all their faults; of two
/// that contradict each other, that of the older rule.
///
/// ```
/// use longshore_fakecloud::{CallKind, Chance, Cloud, Fault, Match, Rule, Settings};
/// let mut cloud = Cloud::new(Settings::default(), 1);
/// let rule = Rule::new(Match::from(CallKind::List), Fault::RepeatPages)
///     .times(10)
///     .with_probability(Chance::percent(50));
/// let id = cloud.inject(rule);
/// assert!(cloud.lift(id));
/// assert!(!cloud.lift(id));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Which calls.
    pub on: Match,
    /// What goes wrong.
    pub fault: Fault,
    /// How often at most; none means always.
    pub times: Option<u32>,
    /// How likely, for each of the calls.
    pub probability: Chance,
}

impl Rule {
    /// The fault, with every such call.
    pub fn new(on: impl Into<Match>, fault: Fault) -> Self {
        Self {
            on: on.into(),
            fault,
            times: None,
            probability: Chance::ALWAYS,
        }
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Only so likely.
    #[must_use]
    pub fn with_probability(mut self, probability: Chance) -> Self {
        self.probability = probability;
        self
    }
}

/// A rule that was injected.
///
/// No example: see [`Rule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub(crate) u64);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.0)
    }
}

/// A call that is held, at one place.
///
/// No example: see [`HeldCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldId(pub(crate) u64);

/// A call that waits for [`Cloud::release`](crate::Cloud::release).
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::CreateRequest;
/// use longshore_fakecloud::{Call, CallKind, Cloud, Fault, Rule, Settings};
/// use longshore_types::Instant;
/// let (mut cloud, now) = (Cloud::new(Settings::instant(), 1), Instant::ZERO);
/// cloud.inject(Rule::new(CallKind::Create, Fault::HoldReply));
/// cloud.handle_call(Call::Create(CreateRequest::example()), Duration::from_secs(9), now);
/// assert_eq!(cloud.instances().count(), 1);
/// assert!(cloud.poll_reply().is_none());
/// let held = cloud.held().remove(0);
/// assert!(held.acted && held.kind == CallKind::Create);
/// assert!(cloud.release(held.id, now));
/// assert!(cloud.poll_reply().is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldCall {
    /// What to release.
    pub id: HeldId,
    /// Which call.
    pub call: crate::CallId,
    /// Its kind.
    pub kind: CallKind,
    /// Whether it has acted, so that only its reply is held.
    pub acted: bool,
    /// Whether the caller has given up: its timeout has passed or it was cancelled.
    pub abandoned: bool,
    /// The token of a create.
    pub token: Option<String>,
    /// The instances that it names.
    pub ids: Vec<InstanceId>,
}
