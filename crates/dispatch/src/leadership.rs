//! Which of several dispatchers of one installation may act.

use std::time::Duration;

use longshore_types::{Deadline, Instant};

/// How long a new holder of the lock waits before it acts, so that whatever its predecessor still
/// did has arrived or was noticed.
///
/// No example: see [`Leadership`].
pub const HOLD_BACK: Duration = Duration::from_secs(15);
/// How long an answer of the lock service is believed, from the moment at which it was asked.
/// Shorter than [`HOLD_BACK`]: whoever lost the lock has stopped before its successor begins.
///
/// No example: see [`Leadership`].
pub const TRUST: Duration = Duration::from_secs(10);

/// What the lock service says of the lock of this installation.
///
/// ```
/// use longshore_dispatch::LockNews;
/// assert_ne!(LockNews::Held { session: 1 }, LockNews::Lost);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "an answer that is not understood counts as none, which is no news"
)]
pub enum LockNews {
    /// It is this process's, in this session with the lock service.
    Held {
        /// Another number whenever the lock was got anew: between two sessions of one process
        /// another one may have had it.
        session: u64,
    },
    /// It is not, or not any more.
    Lost,
}

/// How far a dispatcher is with leading its installation.
///
/// ```
/// use longshore_dispatch::Standing;
/// assert_eq!(Standing::Standby.to_string(), "standby: another dispatcher has the lock");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever decides what to do must see each"
)]
pub enum Standing {
    /// Another one has the lock.
    Standby,
    /// It has the lock, and waits before it acts.
    HoldingBack {
        /// Until when.
        until: Instant,
    },
    /// It acts.
    Acting,
    /// It has acted and does not any more, for ever: what it knows may be wrong by now. The process
    /// has to end; started anew it is a standby.
    Lost,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Standby => "standby: another dispatcher has the lock",
            Self::HoldingBack { .. } => "it has just got the lock, and waits before it acts",
            Self::Acting => "it has the lock and acts",
            Self::Lost => "it has lost the lock, and has to be started anew",
        })
    }
}

/// The rule that two dispatchers of one installation never act at once. Pure.
///
/// # Driving it
///
/// 1. Ask the lock service every second or two. Tell [`Leadership::handle_lock`] each answer, with
///    the moment at which it was asked for; say nothing of questions without an answer.
/// 2. Tell [`Leadership::handle_sleep`] of time that the clock did not count or the process did not
///    see, and [`Leadership::handle_timeout`] when the moment of [`Leadership::poll_timeout`] has
///    come; late and needless calls do no harm.
/// 3. Make a [`Core`](crate::Core) when [`Leadership::may_act`] first says yes. Ask again before
///    each effect is carried out; once the standing is [`Standing::Lost`], end the process.
///
/// # What this guarantees, and what it cannot
///
/// Whoever loses the lock decides nothing more than [`TRUST`] later, and its successor nothing
/// before [`HOLD_BACK`]. A process that is stopped between the question and the act, and a request
/// that is slow on its way, may still act later. Those are harmless for another reason: a start
/// names an instance that the controller has recorded for that attempt for good, runners refuse
/// attempts that they have seen, and the controller refuses calls that its record has left behind
/// ([`longshore_queue::Call`]). What remains is an instance that is destroyed although its successor
/// has put something there: that is lost with it, and run again.
///
/// ```
/// use std::time::Duration;
/// use longshore_dispatch::{HOLD_BACK, Leadership, LockNews, Standing, TRUST};
/// use longshore_types::Instant;
///
/// let mut leadership = Leadership::default();
/// let mut later = Instant::ZERO;
/// let held = LockNews::Held { session: 1 };
/// leadership.handle_lock(held, later, later);
/// while later < Instant::ZERO + HOLD_BACK {
///     assert!(!leadership.may_act(later));
///     later = later + Duration::from_secs(1);
///     leadership.handle_lock(held, later, later);
/// }
/// assert!(leadership.may_act(later));
/// assert_eq!(leadership.poll_timeout().unwrap().at, later + TRUST);
///
/// leadership.handle_sleep(Duration::from_secs(600), later);
/// leadership.handle_timeout(later);
/// assert!(!leadership.may_act(later));
/// assert_eq!(leadership.standing(), Standing::Lost);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Leadership {
    standing: Standing,
    /// Until when the last good answer is believed.
    trusted_until: Instant,
    /// Since which session it holds back or acts.
    session: u64,
}

impl Default for Leadership {
    fn default() -> Self {
        Self {
            standing: Standing::Standby,
            trusted_until: Instant::ZERO,
            session: 0,
        }
    }
}

impl Leadership {
    /// The lock service has answered what it was asked at `asked_at`.
    pub fn handle_lock(&mut self, news: LockNews, asked_at: Instant, now: Instant) {
        self.handle_timeout(now);
        let trusted_until = asked_at.min(now) + TRUST;
        match news {
            LockNews::Lost => self.give_up(),
            // So late that it says nothing about now.
            LockNews::Held { .. } if trusted_until <= now => {}
            LockNews::Held { session } => {
                if session != self.session {
                    self.give_up();
                    self.session = session;
                }
                self.trusted_until = self.trusted_until.max(trusted_until);
                if self.standing == Standing::Standby {
                    let until = now + HOLD_BACK;
                    self.standing = Standing::HoldingBack { until };
                }
            }
        }
        self.handle_timeout(now);
    }

    /// The process or its machine was asleep for `duration`, which the clock need not have counted.
    pub fn handle_sleep(&mut self, duration: Duration, now: Instant) {
        let left = self.trusted_until.since(now);
        self.trusted_until = now + left.saturating_sub(duration);
        self.handle_timeout(now);
    }

    /// A moment that was waited for has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let held = matches!(
            self.standing,
            Standing::HoldingBack { .. } | Standing::Acting
        );
        if held && self.trusted_until <= now {
            self.give_up();
        }
        if let Standing::HoldingBack { until } = self.standing
            && until <= now
        {
            self.standing = Standing::Acting;
        }
    }

    /// When [`Leadership::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let at = match self.standing {
            Standing::HoldingBack { until } => until.min(self.trusted_until),
            Standing::Acting => self.trusted_until,
            Standing::Standby | Standing::Lost => return None,
        };
        let why = "the lock";
        Some(Deadline { at, why })
    }

    /// Whether an effect may be carried out now.
    pub fn may_act(&mut self, now: Instant) -> bool {
        self.handle_timeout(now);
        self.standing == Standing::Acting
    }

    /// How far it is; its text is what a health check says.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    fn give_up(&mut self) {
        self.standing = match self.standing {
            // It has done nothing yet, and may begin again.
            Standing::Standby | Standing::HoldingBack { .. } => Standing::Standby,
            Standing::Acting | Standing::Lost => Standing::Lost,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELD: LockNews = LockNews::Held { session: 1 };

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// One that acts since `HOLD_BACK`, and was told last that it may.
    fn acting() -> (Leadership, Instant) {
        let mut leadership = Leadership::default();
        let mut now = Instant::ZERO;
        while now < Instant::ZERO + HOLD_BACK {
            leadership.handle_lock(HELD, now, now);
            assert!(!leadership.may_act(now));
            now = now + Duration::from_secs(1);
        }
        leadership.handle_lock(HELD, now, now);
        assert!(leadership.may_act(now));
        (leadership, now)
    }

    #[test]
    fn without_answers_it_stops_in_time() {
        let (mut leadership, now) = acting();
        let end = leadership.poll_timeout().unwrap().at;
        assert_eq!(end, now + TRUST);
        assert!(leadership.may_act(now + (TRUST - Duration::from_nanos(1))));
        assert!(!leadership.may_act(end));
        leadership.handle_lock(HELD, end, end);
        assert_eq!(leadership.standing(), Standing::Lost, "for ever");
    }

    #[test]
    fn an_answer_counts_from_when_it_was_asked_for() {
        let (mut leadership, now) = acting();
        let late = now + Duration::from_secs(9);
        leadership.handle_lock(HELD, now, late);
        assert!(!leadership.may_act(now + TRUST));
    }

    #[test]
    fn whoever_slept_must_ask_first() {
        let (mut leadership, now) = acting();
        leadership.handle_sleep(Duration::from_secs(3), now);
        assert!(leadership.may_act(now), "a nap");
        leadership.handle_sleep(TRUST, now);
        assert!(!leadership.may_act(now));
    }

    #[test]
    fn one_that_loses_it_while_holding_back_waits_for_all_of_it_again() {
        let mut leadership = Leadership::default();
        leadership.handle_lock(HELD, at(0), at(0));
        leadership.handle_lock(LockNews::Lost, at(8), at(8));
        assert_eq!(leadership.standing(), Standing::Standby);
        leadership.handle_lock(HELD, at(9), at(9));
        leadership.handle_lock(HELD, at(18), at(18));
        assert!(!leadership.may_act(at(23)));
        assert!(leadership.may_act(at(24)));
    }

    #[test]
    fn another_session_is_a_new_beginning() {
        let again = LockNews::Held { session: 2 };
        let mut leadership = Leadership::default();
        leadership.handle_lock(HELD, at(0), at(0));
        leadership.handle_lock(again, at(8), at(8));
        leadership.handle_lock(again, at(15), at(15));
        assert!(!leadership.may_act(at(22)));
        assert!(leadership.may_act(at(23)));
        leadership.handle_lock(LockNews::Held { session: 3 }, at(24), at(24));
        assert_eq!(leadership.standing(), Standing::Lost);
    }

    /// A lock service and some processes, as they really are.
    #[derive(Clone, Debug)]
    enum Step {
        /// So much time passes.
        Pass(u64),
        /// A process asks, and hears so much later, or never.
        Ask(usize, Option<u64>),
        /// The service ends the session of whoever has the lock.
        End,
        /// A process is started anew, whatever it was.
        Restart(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (100u64..4_000).prop_map(Step::Pass),
            8 => (0usize..3, prop::option::weighted(0.9, 0u64..3_000))
                .prop_map(|(who, after)| Step::Ask(who, after)),
            1 => Just(Step::End),
            1 => (0usize..3).prop_map(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn two_never_act_at_once(steps in prop::collection::vec(step(), 0..400)) {
            let mut now = 0u64;
            let instant = |millis: u64| Instant::ZERO + Duration::from_millis(millis);
            let mut processes = [Leadership::default(); 3];
            let mut holder: Option<usize> = None;
            let mut session = 0;
            let mut answers: Vec<(u64, usize, LockNews, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(millis) => now += millis,
                    Step::End => holder = None,
                    Step::Restart(who) => {
                        processes[who] = Leadership::default();
                        answers.retain(|(_, asker, ..)| *asker != who);
                        holder = holder.filter(|h| *h != who);
                    }
                    Step::Ask(who, after) => {
                        let acted = matches!(processes[who].standing(), Standing::Acting | Standing::Lost);
                        // One that has acted watches its session and never begins another.
                        if holder.is_none() && !acted {
                            holder = Some(who);
                            session += 1;
                        }
                        let news = if holder == Some(who) { LockNews::Held { session } } else { LockNews::Lost };
                        answers.extend(after.map(|after| (now + after, who, news, now)));
                    }
                }
                answers.sort_by_key(|(at, ..)| *at);
                while answers.first().is_some_and(|(at, ..)| *at <= now) {
                    let (at, who, news, asked_at) = answers.remove(0);
                    processes[who].handle_lock(news, instant(asked_at), instant(at));
                }
                let acting = processes.iter_mut().filter_map(|p| p.may_act(instant(now)).then_some(()));
                prop_assert!(acting.count() <= 1);
            }
        }
    }
}
