//! What is known of one bucket of a provider, and when the next call goes. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use longshore_types::Instant;

use super::answer::{Answer, Permission, Permit};
use super::head_room::HeadRoom;

/// Calls per second that are tried first after the first refusal.
const FIRST_PACE: f64 = 10.0;
/// The slowest and the fastest pace, in calls per second.
const PACES: (f64, f64) = (1.0 / 60.0, 1e6);
/// So many calls between refusals make a first estimate.
const LEARNED_AFTER: f64 = 16.0;
/// The most refusals that are looked back at, and the most calls between them.
const MOST_ANCHORS: usize = 64;
const MOST_CALLS: f64 = 5000.0;
/// The most tokens that are left in the bucket after a refusal.
const MOST_CUSHION: f64 = 10.0;
/// A pace that has to be so much faster than the rate before anything is refused: the bucket
/// had filled up, and the refusal says little about the rate.
const HIDDEN_GROWTH: f64 = 0.25;
/// The longest that a provider's word is taken for.
const MOST_ASKED: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was ever refused.
    Free,
    /// The rate is looked for.
    Learning,
    /// The rate is known and probed slowly.
    Steady,
}

/// A refusal: the bucket was empty, after so many tokens in all.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Anchor {
    at: Instant,
    passed: u64,
}

/// Learns one token bucket of a provider from its refusals. The module's documentation says how.
///
/// ```
/// use std::time::Duration;
/// use longshore_throttle::governor::{Answer, Core, Permission};
/// use longshore_types::Instant;
///
/// let (mut core, mut now) = (Core::new(), Instant::ZERO);
/// // A provider with a bucket of 10 tokens and 2 more each second.
/// let (mut tokens, mut refused) = (10.0, 0);
/// for _ in 0..1000 {
///     match core.handle_request(1, now) {
///         Permission::At(at) => {
///             tokens = f64::min(10.0, tokens + 2.0 * at.since(now).as_secs_f64());
///             now = at;
///         }
///         Permission::Go(permit) if tokens >= 1.0 => {
///             tokens -= 1.0;
///             core.handle_answer(permit, Answer::passed(1), now);
///         }
///         Permission::Go(permit) => {
///             refused += 1;
///             core.handle_answer(permit, Answer::refused(1), now);
///         }
///     }
/// }
/// let rate = core.head_room(now).rate.unwrap();
/// assert!((1.9..2.1).contains(&rate) && refused < 20, "{rate} {refused}");
/// ```
#[derive(Clone, Debug)]
pub struct Core {
    phase: Phase,
    latest: Instant,
    /// Tokens that are believed to be there, at `latest`; less than none while a cushion grows.
    level: f64,
    /// Tokens per second at which calls are sent.
    pace: f64,
    rate: Option<f64>,
    size: Option<f64>,
    /// How much faster than the rate the pace is.
    growth: f64,
    /// Since when the pace is what it is.
    paced_at: Instant,
    /// Calls that were sent at this pace and passed.
    streak: f64,
    anchors: VecDeque<Anchor>,
    passed: u64,
    refused: u64,
    /// When the latest refusal was learned of; calls sent before belong to it.
    refused_at: Instant,
    passed_at_refusal: u64,
    not_before: Instant,
    /// Tokens that the latest request wanted to be there.
    wanted: f64,
    /// Whether calls waited for the pace all the time since the last anchor.
    saturated: bool,
    /// When the bucket was last believed to be full, and what had passed by then.
    full: Option<Anchor>,
}

impl Default for Core {
    fn default() -> Self {
        Self::new()
    }
}

impl Core {
    /// A core that knows nothing and lets everything go.
    pub fn new() -> Self {
        Self {
            phase: Phase::Free,
            latest: Instant::ZERO,
            level: 0.0,
            pace: FIRST_PACE,
            rate: None,
            size: None,
            growth: 0.0,
            paced_at: Instant::ZERO,
            streak: 0.0,
            anchors: VecDeque::new(),
            passed: 0,
            refused: 0,
            refused_at: Instant::ZERO,
            passed_at_refusal: 0,
            not_before: Instant::ZERO,
            wanted: 1.0,
            saturated: true,
            full: None,
        }
    }

    /// Asks for a call of so many tokens. A clock that goes back counts as one that stands still.
    pub fn handle_request(&mut self, tokens: u32, now: Instant) -> Permission {
        let now = self.refill(now);
        let permit = Permit { sent: now };
        if self.phase == Phase::Free {
            let passed = self.passed;
            self.full.get_or_insert(Anchor { at: now, passed });
            return Permission::Go(permit);
        }
        if now < self.not_before {
            return Permission::At(self.not_before);
        }
        self.wanted = self.wanted(tokens);
        if self.level < self.wanted - 1e-6 {
            self.handle_end_of_level();
            let wait = seconds((self.wanted - self.level) / self.pace).max(Duration::from_nanos(1));
            return Permission::At(now + wait);
        }
        // More than the bucket holds was never in it: that would be waited for in vain.
        let least = match self.phase {
            Phase::Steady => -self.size.unwrap_or(1.0),
            Phase::Free | Phase::Learning => 0.0,
        };
        self.level = (self.level - f64::from(tokens)).max(least);
        Permission::Go(permit)
    }

    /// Takes note of what came of a call. One whose answer is not known counts as passed.
    pub fn handle_answer(&mut self, permit: Permit, answer: Answer, now: Instant) {
        let now = self.refill(now);
        self.passed = self.passed.saturating_add(u64::from(answer.passed));
        if answer.refused == 0 {
            if permit.sent > self.paced_at {
                self.streak += f64::from(answer.passed);
                self.grow(now);
            }
            return;
        }
        self.refused = self.refused.saturating_add(u64::from(answer.refused));
        let asked = answer.retry_after.unwrap_or_default().min(MOST_ASKED);
        self.not_before = self.not_before.max(now + asked);
        // What was under way when the last refusal was learned of was refused with it.
        if self.phase == Phase::Free || permit.sent > self.refused_at {
            self.handle_refusal(now);
            self.refused_at = now;
            self.passed_at_refusal = self.passed;
        }
    }

    /// What is believed to be left.
    pub fn head_room(&self, now: Instant) -> HeadRoom {
        let mut core = self.clone();
        let now = core.refill(now);
        let held = core.not_before.since(now);
        HeadRoom::new(
            core.tokens(),
            core.rate,
            core.size,
            held,
            [self.passed, self.refused],
        )
    }

    /// Tokens believed there; none while nothing is known.
    fn tokens(&self) -> Option<f64> {
        (self.phase != Phase::Free).then_some(self.level.max(0.0))
    }

    fn refill(&mut self, now: Instant) -> Instant {
        let now = now.max(self.latest);
        let level = self.level + self.pace * now.since(self.latest).as_secs_f64();
        self.latest = now;
        // A call that waits comes as soon as it can; more than that was left unused.
        if level > self.wanted + 1.0 + self.pace * 0.01 {
            self.saturated = false;
            self.streak = 0.0;
        }
        let passed = self.passed;
        self.level = match self.size {
            Some(size) if level >= size.max(2.0) => {
                self.full = Some(Anchor { at: now, passed });
                size.max(2.0)
            }
            _ => level.min(1e9),
        };
        now
    }

    /// How many tokens have to be there for a request: all of its own, if the bucket holds as many.
    fn wanted(&self, tokens: u32) -> f64 {
        let holds = match self.phase {
            Phase::Steady => self.size.unwrap_or(1.0) - self.cushion(),
            Phase::Free | Phase::Learning => 1.0,
        };
        f64::from(tokens).min(holds).max(1.0)
    }

    /// The pace grows while nothing is refused, faster the longer that lasts.
    fn grow(&mut self, now: Instant) {
        let calls = match self.phase {
            Phase::Free => return,
            Phase::Learning => 2.0,
            Phase::Steady => (2.0 * self.cushion() / self.growth)
                .min(2.0 * self.window().unwrap_or(MOST_CALLS))
                .max(4.0),
        };
        if self.streak < calls {
            return;
        }
        self.streak = 0.0;
        self.paced_at = now;
        match (self.phase, self.rate) {
            (Phase::Steady, Some(rate)) => {
                self.growth *= 2.0;
                self.pace = bounded(rate * (1.0 + self.growth));
            }
            _ => self.pace = bounded(self.pace * 1.5),
        }
    }

    fn handle_refusal(&mut self, now: Instant) {
        let before = self.phase;
        match self.phase {
            Phase::Free => self.learn(now, FIRST_PACE),
            Phase::Learning => self.narrow(now),
            // What was saved up meanwhile hides the rate: look for it afresh, now that it is gone.
            Phase::Steady if self.growth > HIDDEN_GROWTH => {
                self.learn(now, self.rate.unwrap_or(FIRST_PACE));
            }
            Phase::Steady if !self.saturated => self.handle_end_of_burst(now),
            Phase::Steady => self.estimate(now),
        }
        if before == Phase::Steady {
            self.full = None;
        }
        self.saturated = true;
        self.streak = 0.0;
        self.paced_at = now;
        self.level = match self.phase {
            Phase::Steady => -self.cushion(),
            Phase::Free | Phase::Learning => self.level.min(0.0),
        };
    }

    /// A bucket that was full is spent, and nothing was refused: it may hold more.
    fn handle_end_of_level(&mut self) {
        if self.phase == Phase::Steady && self.full.take().is_some() {
            self.size = self.size.map(|size| (size * 1.25).min(1e9));
        }
    }

    /// Begins to look for the rate.
    fn learn(&mut self, now: Instant, pace: f64) {
        self.phase = Phase::Learning;
        self.pace = bounded(pace);
        self.level = 0.0;
        self.anchor_afresh(now);
    }

    fn anchor_afresh(&mut self, now: Instant) {
        let passed = self.passed;
        self.anchors.clear();
        self.anchors.push_back(Anchor { at: now, passed });
    }

    /// Another refusal while the rate is looked for.
    fn narrow(&mut self, now: Instant) {
        let Some((calls, span)) = self.anchors.front().map(|a| self.since(a, now)) else {
            return self.learn(now, self.pace);
        };
        if !self.saturated {
            self.pace = bounded(self.pace.min(calls.max(1.0) / span.max(1e-9)));
            self.anchor_afresh(now);
        } else if calls >= LEARNED_AFTER && span > 0.0 {
            self.settle(calls / span, now);
        } else if self.passed == self.passed_at_refusal {
            self.pace = bounded(self.pace / 2.0);
        } else if span > 0.0 {
            self.pace = bounded(calls.max(1.0) / span);
        }
    }

    /// The rate is known well enough.
    fn settle(&mut self, rate: f64, now: Instant) {
        self.phase = Phase::Steady;
        if let (None, Some(start), Some(first)) = (self.size, self.full, self.anchors.front()) {
            let burst = first.passed.saturating_sub(start.passed) as f64;
            let refilled = rate * first.at.since(start.at).as_secs_f64();
            self.size = Some((burst - refilled).max(1.0));
        }
        let passed = self.passed;
        self.anchors.push_back(Anchor { at: now, passed });
        self.full = None;
        self.follow(rate);
    }

    fn follow(&mut self, rate: f64) {
        self.rate = Some(rate);
        self.growth = self.first_growth();
        self.pace = bounded(rate * (1.0 + self.growth));
    }

    /// A refusal after calls that had not waited: it tells the size, not the rate.
    fn handle_end_of_burst(&mut self, now: Instant) {
        if let (Some(full), Some(rate)) = (self.full, self.rate) {
            let (calls, span) = self.since(&full, now);
            self.size = Some((calls - rate * span).max(1.0));
        }
        self.anchor_afresh(now);
        self.follow(self.rate.unwrap_or(FIRST_PACE));
    }

    /// Another refusal while the rate is probed: the window between refusals gives the rate, as
    /// far back as the parts of the window agree.
    fn estimate(&mut self, now: Instant) {
        if self.passed == self.passed_at_refusal {
            return self.learn(now, self.pace / 2.0);
        }
        let (mut least, mut most) = (0.0f64, f64::INFINITY);
        let mut rate = self.rate.unwrap_or(FIRST_PACE);
        let mut agreeing = 0;
        for anchor in self.anchors.iter().rev() {
            let (calls, span) = self.since(anchor, now);
            let slack = 1.0 + 3.0 * calls.sqrt();
            let low = least.max((calls - slack) / span);
            let high = most.min((calls + slack) / span);
            if span <= 0.0 || low > high || (agreeing > 1 && calls > MOST_CALLS) {
                break;
            }
            (least, most, rate) = (low, high, calls / span);
            agreeing += 1;
        }
        let rate = rate.clamp(least, most);
        let outdated = self.anchors.len() - agreeing;
        self.anchors.drain(..outdated);
        if self.anchors.len() >= MOST_ANCHORS {
            self.anchors.pop_front();
        }
        let passed = self.passed;
        self.anchors.push_back(Anchor { at: now, passed });
        self.follow(rate);
    }

    fn since(&self, anchor: &Anchor, now: Instant) -> (f64, f64) {
        let calls = self.passed.saturating_sub(anchor.passed) as f64;
        (calls, now.since(anchor.at).as_secs_f64())
    }

    /// Calls between the first and the last refusal that are looked at.
    fn window(&self) -> Option<f64> {
        let (first, last) = (self.anchors.front()?, self.anchors.back()?);
        Some(last.passed.saturating_sub(first.passed) as f64)
    }

    /// Tokens that are left in the bucket after a refusal, so that what others take from it does
    /// not become a refusal at once. Nothing is lost by it: the faster pace spends them again.
    fn cushion(&self) -> f64 {
        (self.size.unwrap_or(1.0) / 3.0).clamp(0.5, MOST_CUSHION)
    }

    fn first_growth(&self) -> f64 {
        (self.cushion() * 0.004).clamp(0.004, 0.02)
    }
}

fn bounded(pace: f64) -> f64 {
    pace.clamp(PACES.0, PACES.1)
}

/// Seconds as a duration, at most an hour.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, 3600.0)).unwrap_or_default()
}
