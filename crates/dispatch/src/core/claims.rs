//! What workers claim to have that this dispatcher did not place there, judged by the records.
//!
//! `docs/states.md` has the table.

use longshore_pool::{Claim, ClaimAnswer};
use longshore_types::{Attempt, Container, ContainerState, ContainerUuid, InstanceId, Instant};

use super::Core;

/// What the controller has of a container that is claimed.
#[derive(Clone, Copy, Debug)]
enum Known<'a> {
    /// Nobody knows yet.
    Unknown,
    /// It has no such record.
    Absent,
    Record {
        container: &'a Container,
        /// The newest attempt that may have been started when this dispatcher first saw the
        /// record: it has started all later ones itself.
        inherited: Attempt,
    },
}

/// Whether a worker of an earlier dispatcher may have what it claims; none while nobody knows.
fn answer(known: Known<'_>, attempt: Attempt, instance: &InstanceId) -> Option<ClaimAnswer> {
    use ContainerState::{Locked, Running};
    let (container, inherited) = match known {
        Known::Unknown => return None,
        Known::Absent => return Some(ClaimAnswer::Possible),
        Known::Record {
            container,
            inherited,
        } => (container, inherited),
    };
    let newest = container.attempt();
    let held = matches!(container.state, Locked | Running);
    let here = container.placed_on.as_ref() == Some(instance);
    let nowhere = container.placed_on.is_none();
    // Another dispatcher's: no instance of this one has it.
    let theirs = held && !container.locked_by_us;
    Some(if attempt > newest || attempt > inherited {
        // Nobody gave that number, or only this dispatcher can have started it, and not there.
        ClaimAnswer::False
    } else if attempt != newest && attempt != Attempt(0) {
        ClaimAnswer::Possible
    } else if theirs {
        ClaimAnswer::False
    } else if here && held {
        ClaimAnswer::Placed
    } else if !here && (!nowhere || container.state == Locked) {
        ClaimAnswer::False
    } else {
        ClaimAnswer::Possible
    })
}

impl Core {
    /// Decides what workers claim of a container, as far as its record is known. Whether anything
    /// was decided.
    pub(super) fn judge_claims(&mut self, uuid: ContainerUuid, now: Instant) -> bool {
        self.judge_claims_as_of(uuid, None, now)
    }

    /// The same, where the controller had no record of it at `absent_as_of`.
    pub(super) fn judge_claims_as_of(
        &mut self,
        uuid: ContainerUuid,
        absent_as_of: Option<Instant>,
        now: Instant,
    ) -> bool {
        let claims: Vec<Claim> = self.pool.claims_of(uuid).collect();
        if claims.is_empty() {
            return false;
        }
        let entry = self.cache.get(uuid);
        let mut decided = false;
        for claim in claims {
            let known = match &entry {
                Some(entry) => Known::Record {
                    container: &entry.container,
                    inherited: self.inherited_attempt(&entry.container),
                },
                None if absent_as_of.is_some_and(|at| at >= claim.since) => Known::Absent,
                None => Known::Unknown,
            };
            let (attempt, instance) = (claim.attempt, &claim.instance);
            match answer(known, attempt, instance) {
                Some(answer) => {
                    self.pool.answer_claim(uuid, attempt, instance, answer, now);
                    decided = true;
                }
                None => {
                    self.strangers.insert(uuid);
                }
            }
        }
        decided
    }

    fn inherited_attempt(&self, container: &Container) -> Attempt {
        let first_seen = self.inherited.get(&container.uuid).copied();
        first_seen.unwrap_or_else(|| newest_started(container))
    }
}

/// The newest attempt that whoever wrote a record may have started: not one that has no place yet.
pub(super) fn newest_started(container: &Container) -> Attempt {
    let Attempt(newest) = container.attempt();
    let unplaced = container.state == ContainerState::Locked && container.placed_on.is_none();
    Attempt(newest.saturating_sub(u32::from(unplaced)))
}

#[cfg(test)]
mod tests {
    use longshore_types::{ResourceRequest, Timestamp};

    use super::*;

    /// The newest attempt of the record.
    const NEWEST: u32 = 3;

    fn container(state: ContainerState, placed_on: Option<&str>) -> Container {
        Container {
            uuid: "zzzzz-dz642-0123456789abcde".parse().unwrap(),
            state,
            priority: 500,
            created_at: Timestamp(0),
            request: ResourceRequest::default(),
            supervisor: false,
            lock_count: NEWEST,
            given_back: None,
            locked_by_us: true,
            placed_on: placed_on.map(Into::into),
            revision: 1,
        }
    }

    fn given(container: &Container, inherited: u32, attempt: u32) -> Option<ClaimAnswer> {
        let inherited = Attempt(inherited);
        let known = Known::Record {
            container,
            inherited,
        };
        answer(known, Attempt(attempt), &"here".into())
    }

    /// The table of `docs/states.md`, for a claim of the newest attempt that an earlier dispatcher
    /// may have started.
    const TABLE: [(ContainerState, [ClaimAnswer; 3]); 5] = {
        use ClaimAnswer::{False, Placed, Possible};
        use ContainerState::{Cancelled, Complete, Locked, Queued, Running};
        // Placed here, placed elsewhere, placed nowhere.
        [
            (Queued, [Possible, False, Possible]),
            (Locked, [Placed, False, False]),
            (Running, [Placed, False, Possible]),
            (Complete, [Possible, False, Possible]),
            (Cancelled, [Possible, False, Possible]),
        ]
    };

    const PLACES: [Option<&str>; 3] = [Some("here"), Some("there"), None];

    #[test]
    fn a_record_decides_every_claim() {
        for (state, answers) in TABLE {
            for (placed_on, of_newest) in PLACES.into_iter().zip(answers) {
                let container = container(state, placed_on);
                for inherited in 0..=NEWEST {
                    for attempt in 0..=NEWEST + 1 {
                        let expected = match attempt {
                            // A runner that does not number attempts means the newest.
                            0 => of_newest,
                            _ if attempt > NEWEST || attempt > inherited => ClaimAnswer::False,
                            NEWEST => of_newest,
                            _ => ClaimAnswer::Possible,
                        };
                        assert_eq!(
                            given(&container, inherited, attempt),
                            Some(expected),
                            "attempt {attempt} of {inherited}, {state:?} on {placed_on:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_another_dispatcher_has_is_on_no_instance_of_this_one() {
        let inherited = NEWEST;
        for (state, _) in TABLE {
            for placed_on in PLACES {
                let mut container = container(state, placed_on);
                let ours = given(&container, inherited, NEWEST);
                container.locked_by_us = false;
                let expected = match state {
                    ContainerState::Locked | ContainerState::Running => Some(ClaimAnswer::False),
                    _ => ours,
                };
                assert_eq!(given(&container, inherited, NEWEST), expected, "{state:?}");
                let older = given(&container, inherited, NEWEST - 1);
                assert_eq!(older, Some(ClaimAnswer::Possible), "{state:?}");
            }
        }
    }

    #[test]
    fn an_attempt_without_a_place_was_not_started() {
        for (state, _) in TABLE {
            for placed_on in PLACES {
                let unplaced = state == ContainerState::Locked && placed_on.is_none();
                let newest = Attempt(NEWEST - u32::from(unplaced));
                assert_eq!(newest_started(&container(state, placed_on)), newest);
            }
        }
    }

    #[test]
    fn records_are_asked_where_they_say_where_containers_are_and_else_nobody_is() {
        for takes_reports in [false, true] {
            let pool = longshore_pool::Config::new("set", vec![]);
            let scheduler = longshore_scheduler::Config::new(vec![]);
            let queue = longshore_queue::Capabilities {
                takes_reports,
                ..longshore_queue::Capabilities::default()
            };
            let config = crate::Config::new(pool, scheduler, queue);
            let core = Core::new(config, [0; 32], Instant::ZERO);
            assert_eq!(core.config.pool.asks_about_claims, takes_reports);
            assert_eq!(core.config.scheduler.records_placement, takes_reports);
        }
    }

    #[test]
    fn without_a_record_it_is_known_that_there_is_none_or_nothing() {
        let here = InstanceId::from("here");
        for attempt in [Attempt(0), Attempt(1)] {
            assert_eq!(answer(Known::Unknown, attempt, &here), None);
            let absent = answer(Known::Absent, attempt, &here);
            assert_eq!(absent, Some(ClaimAnswer::Possible));
        }
    }
}
