//! Whose turn it is: shares of a token bucket for each kind of call. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_cloud::Operation;
use longshore_types::Instant;

use crate::bucket::TokenBucket;
use crate::kind::PerKind;

/// After so many destroys in a row that others had to wait for, one of the others goes.
pub(crate) const DESTROYS_IN_A_ROW: u32 = 16;

/// The place of a call in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) operation: Operation,
    pub(crate) number: u64,
}

/// What a waiting call does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It goes; its ticket is spent.
    Go,
    /// It is next, and its token is there at this moment.
    At(Instant),
    /// Others are before it.
    Later,
}

/// The queues of one bucket.
///
/// Destroys go first. The others share what is left by stride scheduling (Waldspurger and Weihl,
/// 1995): each kind has a pass, the least goes, and going adds the kind's stride to it. A kind
/// that waited for nothing begins at the pass of the last one that went, so it has saved nothing
/// up, and what it did not use was lent to the others.
#[derive(Debug)]
pub(crate) struct Turns {
    bucket: TokenBucket,
    most_waiting: usize,
    queues: PerKind<BTreeSet<u64>>,
    passes: PerKind<u64>,
    pass: u64,
    destroys_in_a_row: u32,
    next_number: u64,
}

impl Turns {
    pub(crate) fn new(bucket: TokenBucket, most_waiting: usize) -> Self {
        Self {
            bucket,
            most_waiting,
            queues: PerKind::default(),
            passes: PerKind::default(),
            pass: 0,
            destroys_in_a_row: 0,
            next_number: 0,
        }
    }

    /// Queues a call; none if too many of its kind wait.
    pub(crate) fn enter(&mut self, operation: Operation, now: Instant) -> Option<Ticket> {
        let goes_at_once = self.nobody_waits() && self.bucket.tokens(now) > 0;
        let queue = self.queues.of_mut(operation);
        if queue.len() >= self.most_waiting && !goes_at_once {
            return None;
        }
        if queue.is_empty() {
            let pass = self.passes.of_mut(operation);
            *pass = (*pass).max(self.pass);
        }
        let number = self.next_number;
        self.next_number += 1;
        queue.insert(number);
        Some(Ticket { operation, number })
    }

    /// Takes a call out of its queue; one that went already is ignored.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.queues.of_mut(ticket.operation).remove(&ticket.number);
    }

    /// The call whose turn it is.
    pub(crate) fn head(&self) -> Option<Ticket> {
        let destroy = self.first(Operation::Destroy);
        let other = self.first_other();
        match (destroy, other) {
            (Some(_), Some(other)) if self.destroys_in_a_row >= DESTROYS_IN_A_ROW => Some(other),
            (destroy, other) => destroy.or(other),
        }
    }

    /// Asks for a call whether it goes.
    pub(crate) fn step(&mut self, ticket: Ticket, now: Instant) -> Step {
        if self.head() != Some(ticket) {
            return Step::Later;
        }
        if !self.bucket.take(now) {
            return Step::At(self.bucket.ready_at());
        }
        self.leave(ticket);
        self.count(ticket.operation);
        Step::Go
    }

    /// About how long a call that comes now would wait.
    pub(crate) fn wait(&self, operation: Operation, now: Instant) -> Duration {
        let ahead = u32::try_from(self.queues.of(operation).len()).unwrap_or(u32::MAX);
        let first = self.bucket.ready_at().since(now);
        first.saturating_add(self.bucket.interval().saturating_mul(ahead))
    }

    fn nobody_waits(&self) -> bool {
        self.queues.iter().all(|(_, queue)| queue.is_empty())
    }

    fn first(&self, operation: Operation) -> Option<Ticket> {
        let number = *self.queues.of(operation).first()?;
        Some(Ticket { operation, number })
    }

    fn first_other(&self) -> Option<Ticket> {
        let waiting = self.queues.iter().filter_map(|(kind, _)| self.first(kind));
        waiting
            .filter(|ticket| ticket.operation != Operation::Destroy)
            .min_by_key(|ticket| *self.passes.of(ticket.operation))
    }

    fn count(&mut self, operation: Operation) {
        if operation == Operation::Destroy {
            let others_wait = self.first_other().is_some();
            self.destroys_in_a_row = if others_wait {
                self.destroys_in_a_row + 1
            } else {
                0
            };
        } else {
            self.destroys_in_a_row = 0;
            let pass = self.passes.of_mut(operation);
            self.pass = *pass;
            *pass = pass.saturating_add(stride(operation));
        }
    }
}

/// The inverse of a kind's share: creates 4, listings and host keys 2, all else 1.
fn stride(operation: Operation) -> u64 {
    match operation {
        Operation::Create => 3,
        Operation::List | Operation::VerifyHostKey => 6,
        _ => 12,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kind::ALL;

    const SECOND: Duration = Duration::from_secs(1);

    fn turns() -> Turns {
        Turns::new(TokenBucket::new(1.0, 1).unwrap(), 10_000)
    }

    /// Lets everything go, one call a second, and says what went.
    fn drain(turns: &mut Turns) -> Vec<Ticket> {
        let mut now = Instant::ZERO;
        let mut gone = Vec::new();
        while let Some(head) = turns.head() {
            now = now + SECOND;
            assert_eq!(turns.step(head, now), Step::Go);
            gone.push(head);
        }
        gone
    }

    #[test]
    fn a_destroy_goes_before_a_thousand_of_everything() {
        let mut turns = turns();
        for operation in ALL.into_iter().filter(|o| *o != Operation::Destroy) {
            for _ in 0..1000 {
                turns.enter(operation, Instant::ZERO).unwrap();
            }
        }
        let destroy = turns.enter(Operation::Destroy, Instant::ZERO).unwrap();
        assert_eq!(turns.head(), Some(destroy));
    }

    #[test]
    fn a_create_goes_before_listings_that_wait() {
        let mut turns = turns();
        for _ in 0..1000 {
            turns.enter(Operation::List, Instant::ZERO).unwrap();
        }
        for i in 1..20 {
            let head = turns.head().unwrap();
            turns.step(head, Instant::ZERO + SECOND * i);
        }
        let create = turns.enter(Operation::Create, Instant::ZERO).unwrap();
        assert_eq!(turns.head(), Some(create));
    }

    #[test]
    fn everybody_gets_the_share() {
        let mut turns = turns();
        for operation in ALL {
            for _ in 0..200 {
                turns.enter(operation, Instant::ZERO).unwrap();
            }
        }
        let gone = drain(&mut turns);
        let count = |n: usize, o: Operation| gone[..n].iter().filter(|t| t.operation == o).count();
        assert_eq!(count(170, Operation::Destroy), 160);
        // After all the destroys, by 4, 2, 2, 1 and 1.
        let others: Vec<_> = gone
            .iter()
            .filter(|t| t.operation != Operation::Destroy)
            .collect();
        let part = |o: Operation| others[..100].iter().filter(|t| t.operation == o).count();
        assert_eq!(part(Operation::Create), 40);
        assert_eq!(part(Operation::List), 20);
        assert_eq!(part(Operation::SetTags), 10);
    }

    proptest! {
        #[test]
        fn order_is_kept_within_a_kind_and_nothing_waits_for_ever(
            calls in prop::collection::vec(0usize..6, 1..300),
            leavers in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let mut turns = turns();
            let mut tickets: Vec<Ticket> = calls
                .iter()
                .map(|&kind| turns.enter(ALL[kind], Instant::ZERO).unwrap())
                .collect();
            for leaver in leavers {
                if !tickets.is_empty() {
                    turns.leave(tickets.remove(leaver.index(tickets.len())));
                }
            }
            let gone = drain(&mut turns);
            prop_assert_eq!(gone.len(), tickets.len());
            for kind in ALL {
                let order = |all: &[Ticket]| -> Vec<u64> {
                    all.iter().filter(|t| t.operation == kind).map(|t| t.number).collect()
                };
                prop_assert_eq!(order(&gone), order(&tickets));
            }
        }

        #[test]
        fn a_call_goes_soon_however_many_others_come(kind in 0usize..6, ahead in 0usize..5) {
            let mut turns = turns();
            for _ in 0..ahead {
                turns.enter(ALL[kind], Instant::ZERO).unwrap();
            }
            let mine = turns.enter(ALL[kind], Instant::ZERO).unwrap();
            let mut now = Instant::ZERO;
            for turn in 0.. {
                for other in ALL {
                    turns.enter(other, now).unwrap();
                    turns.enter(other, now).unwrap();
                }
                now = now + SECOND;
                let head = turns.head().unwrap();
                prop_assert_eq!(turns.step(head, now), Step::Go);
                if head == mine {
                    break;
                }
                prop_assert!(turn < 12 * 17 * (ahead + 1));
            }
        }
    }

    #[test]
    fn who_is_next_is_told_when_and_the_others_to_wait() {
        let mut turns = turns();
        let first = turns.enter(Operation::List, Instant::ZERO).unwrap();
        let second = turns.enter(Operation::List, Instant::ZERO).unwrap();
        assert_eq!(turns.step(second, Instant::ZERO), Step::Later);
        assert_eq!(turns.step(first, Instant::ZERO), Step::Go);
        assert_eq!(
            turns.step(second, Instant::ZERO),
            Step::At(Instant::ZERO + SECOND)
        );
        turns.leave(first);
        turns.leave(second);
        assert_eq!(turns.head(), None);
    }
}
