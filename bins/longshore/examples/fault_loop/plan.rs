//! What will be done to a round, and when.

use std::fmt;
use std::time::Duration;

use crate::common::random::Random;

/// Something that is done to the dispatcher or to hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The link of a host is cut.
    Cut,
    /// The links of all hosts are cut.
    CutAll,
    /// The SSH server of a host is stopped (SIGSTOP), with every connection.
    Stop,
    /// It is killed, with every connection, and started again later.
    Kill,
    /// It is killed, and never comes again.
    KillForGood,
    /// The power of a host is off, and the cloud knows.
    PowerOff,
    /// The power of a host is off, and the cloud goes on to list it as running.
    PowerOffUnnoticed,
    /// The dispatcher is stopped (SIGSTOP).
    PauseDispatcher,
    /// The dispatcher is killed, and started again later.
    KillDispatcher,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Cut,
        Self::CutAll,
        Self::Stop,
        Self::Kill,
        Self::KillForGood,
        Self::PowerOff,
        Self::PowerOffUnnoticed,
        Self::PauseDispatcher,
        Self::KillDispatcher,
    ];

    /// Whether it happens to the dispatcher and not to hosts.
    pub(crate) fn is_of_dispatcher(self) -> bool {
        matches!(self, Self::PauseDispatcher | Self::KillDispatcher)
    }

    /// Whether a host never answers again.
    pub(crate) fn is_for_good(self) -> bool {
        matches!(
            self,
            Self::KillForGood | Self::PowerOff | Self::PowerOffUnnoticed
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cut => "link cut",
            Self::CutAll => "all links cut",
            Self::Stop => "sshd stopped",
            Self::Kill => "sshd killed",
            Self::KillForGood => "sshd killed for good",
            Self::PowerOff => "power off",
            Self::PowerOffUnnoticed => "power off, still listed",
            Self::PauseDispatcher => "dispatcher stopped",
            Self::KillDispatcher => "dispatcher killed",
        })
    }
}

/// Something that will be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Not before this, from the start of the round.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    /// How long, unless it is for good.
    pub(crate) lasts: Duration,
}

/// What is done in each round: kind, earliest moment, shortest and longest time, in seconds.
///
/// Each kill of the dispatcher makes the next one wait anew for hosts that are silent. So there is
/// none late, and a cut of a minute and a host that is silent for good come after the last.
const EVENTS: [(Kind, u64, u64, u64); 18] = [
    (Kind::Cut, 4, 60, 60),
    (Kind::PowerOff, 6, 0, 0),
    (Kind::KillDispatcher, 8, 0, 2),
    (Kind::Stop, 10, 5, 60),
    (Kind::Kill, 12, 2, 10),
    (Kind::Cut, 14, 5, 90),
    (Kind::KillDispatcher, 17, 0, 1),
    (Kind::PauseDispatcher, 20, 3, 6),
    (Kind::CutAll, 24, 5, 12),
    (Kind::KillDispatcher, 27, 0, 3),
    (Kind::PowerOffUnnoticed, 32, 0, 0),
    (Kind::Kill, 34, 1, 5),
    (Kind::KillDispatcher, 38, 0, 1),
    (Kind::KillForGood, 47, 0, 0),
    (Kind::Cut, 52, 60, 60),
    (Kind::Stop, 56, 5, 15),
    (Kind::Kill, 57, 1, 5),
    (Kind::PauseDispatcher, 58, 2, 5),
];

/// A round's plan, in the order of time.
pub(crate) fn draw(random: &mut Random) -> Vec<Planned> {
    let mut plan: Vec<Planned> = EVENTS
        .into_iter()
        .map(|(kind, at, least, most)| Planned {
            at: Duration::from_secs(at) + random.duration_ms(4000),
            kind,
            lasts: Duration::from_secs(least) + random.duration_ms((most - least) * 1000),
        })
        .collect();
    plan.sort_by_key(|planned| planned.at);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_has_every_kind_and_a_cut_of_a_minute() {
        for seed in 0..100 {
            let plan = draw(&mut Random(seed));
            for kind in Kind::ALL {
                assert!(plan.iter().any(|planned| planned.kind == kind), "{kind}");
            }
            let minute = |p: &Planned| p.kind == Kind::Cut && p.lasts == Duration::from_secs(60);
            assert!(plan.iter().any(minute));
            assert_eq!(plan, draw(&mut Random(seed)));
        }
    }
}
