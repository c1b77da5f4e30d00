//! When calls of a kind are tried again after a refusal. Pure.

use std::time::Duration;

use longshore_types::Instant;

const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);
/// The longest that a provider's word is taken for.
const MOST_ASKED: Duration = Duration::from_secs(3600);

/// The hold-off of one kind of call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    until: Instant,
    /// Our own pause, grown with each refusal in a row.
    pause: Duration,
    /// When it was last begun; answers of calls that were sent before say nothing new.
    begun: Option<Instant>,
}

impl Hold {
    /// How long calls are still held off; none if they are not.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        // A clock that went back far must not hold for longer than was ever meant.
        let left = self.until.since(now).min(MOST_ASKED);
        (!left.is_zero()).then_some(left)
    }

    /// Takes note of a refusal of a call that was sent at `sent`.
    pub(crate) fn handle_refusal(
        &mut self,
        sent: Instant,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        // Some say zero when they know no better: calls at once would be refused for ever.
        let retry_after = retry_after.filter(|asked| !asked.is_zero());
        let pause = match retry_after {
            Some(asked) => asked.min(MOST_ASKED),
            None => {
                if self.is_news(sent) {
                    let grown = self.pause * 3 / 2 + LEAST;
                    self.pause = grown.clamp(LEAST, MOST);
                }
                self.pause.max(LEAST)
            }
        };
        // Refusals of calls that were sent together are one refusal.
        if self.is_news(sent) || retry_after.is_some() {
            self.until = self.until.max(now + pause);
            self.begun = Some(now);
        }
    }

    /// Takes note that a call that was sent at `sent` ended in any other way.
    pub(crate) fn handle_other(&mut self, sent: Instant) {
        if self.is_news(sent) {
            *self = Self::default();
        }
    }

    fn is_news(&self, sent: Instant) -> bool {
        self.begun.is_none_or(|begun| sent > begun)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_grow_by_the_formula_up_to_a_minute() {
        let mut hold = Hold::default();
        let mut now = Instant::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..10 {
            now = now + Duration::from_nanos(1);
            hold.handle_refusal(now, None, now);
            let left = hold.left(now).unwrap();
            pauses.push(left.as_secs_f64());
            now = now + left;
        }
        let expected = [
            1.0, 2.5, 4.75, 8.125, 13.1875, 20.78125, 32.171875, 49.2578125, 60.0, 60.0,
        ];
        assert_eq!(pauses, expected);
        hold.handle_other(now + LEAST);
        assert_eq!(hold, Hold::default());
    }

    #[test]
    fn the_provider_knows_best_and_a_shorter_time_shortens_nothing() {
        let mut hold = Hold::default();
        hold.handle_refusal(at(1), Some(Duration::from_secs(30)), at(1));
        hold.handle_refusal(at(1), Some(Duration::from_secs(5)), at(2));
        assert_eq!(hold.left(at(2)), Some(Duration::from_secs(29)));
        assert_eq!(hold.left(at(31)), None);
    }

    #[test]
    fn a_provider_that_says_at_once_is_not_asked_at_once_for_ever() {
        let mut hold = Hold::default();
        for pause in [1.0, 2.5, 4.75] {
            let now = hold.until + Duration::from_nanos(1);
            hold.handle_refusal(now, Some(Duration::ZERO), now);
            assert_eq!(hold.left(now), Some(Duration::from_secs_f64(pause)));
        }
    }

    #[test]
    fn a_word_of_years_is_not_believed() {
        let mut hold = Hold::default();
        hold.handle_refusal(at(1), Some(Duration::MAX), at(1));
        assert_eq!(hold.left(at(1)), Some(MOST_ASKED));
    }

    #[test]
    fn calls_that_were_sent_together_are_refused_once() {
        let mut hold = Hold::default();
        for _ in 0..100 {
            hold.handle_refusal(at(1), None, at(2));
        }
        assert_eq!(hold.left(at(2)), Some(LEAST));
        // One of them came through: that says nothing about now.
        hold.handle_other(at(1));
        assert_eq!(hold.left(at(2)), Some(LEAST));
    }

    proptest! {
        #[test]
        fn never_longer_than_an_hour_whatever_the_clock_does(
            steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<Option<u64>>()), 0..50),
            now in any::<u64>(),
        ) {
            let mut hold = Hold::default();
            for (sent, now, asked) in steps {
                let (sent, now) = (Instant::from_nanos(sent), Instant::from_nanos(now));
                hold.handle_refusal(sent, asked.map(Duration::from_nanos), now);
            }
            let left = hold.left(Instant::from_nanos(now)).unwrap_or_default();
            prop_assert!(left <= MOST_ASKED);
        }
    }
}
