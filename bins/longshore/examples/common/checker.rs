//! What the witness must say: nothing lost, nothing twice, nothing at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::witness::{Event, Record};

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    DoubleStart {
        uuid: String,
        attempt: u32,
    },
    Overlap {
        uuid: String,
        running: u32,
        started: u32,
    },
    RunAgain {
        uuid: String,
        attempts: Vec<u32>,
    },
    LostStop {
        uuid: String,
        attempt: u32,
    },
    StrayStop {
        uuid: String,
        attempt: u32,
    },
    NeverRan {
        uuid: String,
    },
    Unknown {
        uuid: String,
    },
    Backwards {
        uuid: String,
        attempt: u32,
        before: u32,
    },
    CutShort {
        uuid: String,
        attempt: u32,
        host: String,
    },
    Undead {
        uuid: String,
        host: String,
    },
    Inherited {
        uuid: String,
        descriptors: Vec<String>,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoubleStart { uuid, attempt } => {
                write!(f, "double: attempt {attempt} of {uuid} started twice")
            }
            Self::Overlap {
                uuid,
                running,
                started,
            } => write!(
                f,
                "double: attempt {started} of {uuid} started while attempt {running} ran"
            ),
            Self::RunAgain { uuid, attempts } => {
                write!(f, "{uuid} was run again: attempts {attempts:?}")
            }
            Self::LostStop { uuid, attempt } => {
                write!(
                    f,
                    "lost: attempt {attempt} of {uuid} started and never stopped"
                )
            }
            Self::StrayStop { uuid, attempt } => {
                write!(f, "attempt {attempt} of {uuid} stopped without running")
            }
            Self::NeverRan { uuid } => write!(f, "lost: {uuid} never ran"),
            Self::Unknown { uuid } => write!(f, "{uuid} ran and is not in the store"),
            Self::Backwards {
                uuid,
                attempt,
                before,
            } => write!(
                f,
                "attempt {attempt} of {uuid} started after attempt {before}"
            ),
            Self::CutShort {
                uuid,
                attempt,
                host,
            } => write!(
                f,
                "attempt {attempt} of {uuid} ran on {host}, which was ended without good reason"
            ),
            Self::Undead { uuid, host } => {
                write!(f, "{uuid} started on {host}, which was ended before")
            }
            Self::Inherited { uuid, descriptors } => {
                write!(f, "{uuid} inherited descriptors: {descriptors:?}")
            }
        }
    }
}

/// All violations in records, which are in the order of events. Each of `expected` must have run
/// exactly once; again only after the hosts of all earlier attempts were ended, and are among
/// those that were `given_up` with good reason.
pub(crate) fn check(
    records: &[Record],
    expected: &BTreeSet<String>,
    given_up: &BTreeSet<String>,
) -> BTreeSet<Violation> {
    let mut books = Books {
        given_up,
        lives: BTreeMap::new(),
        off: BTreeSet::new(),
        violations: BTreeSet::new(),
    };
    for record in records {
        match record.event {
            Event::Start => books.start(record),
            Event::Stop => books.stop(record),
            Event::Off => books.off(&record.host),
        }
    }
    books.close(expected)
}

/// What the records so far have told.
struct Books<'r> {
    given_up: &'r BTreeSet<String>,
    lives: BTreeMap<&'r str, Life<'r>>,
    off: BTreeSet<&'r str>,
    violations: BTreeSet<Violation>,
}

/// What happened to a container.
#[derive(Default)]
struct Life<'r> {
    /// What runs: attempt and host.
    open: BTreeMap<u32, &'r str>,
    /// Every start, in order.
    started: Vec<(u32, &'r str)>,
    run_again: bool,
}

impl<'r> Books<'r> {
    fn start(&mut self, record: &'r Record) {
        let (attempt, host) = (record.attempt, record.host.as_str());
        let uuid = || record.uuid.clone();
        let life = self.lives.entry(&record.uuid).or_default();
        let mut found = Vec::new();
        match life.started.iter().map(|&(earlier, _)| earlier).max() {
            _ if life.started.iter().any(|&(earlier, _)| earlier == attempt) => {
                found.push(Violation::DoubleStart {
                    uuid: uuid(),
                    attempt,
                });
            }
            Some(before) if before > attempt => found.push(Violation::Backwards {
                uuid: uuid(),
                attempt,
                before,
            }),
            _ => {}
        }
        let others = life.open.keys().filter(|&&other| other != attempt);
        found.extend(others.map(|&running| Violation::Overlap {
            uuid: uuid(),
            running,
            started: attempt,
        }));
        let excused =
            |&(_, host): &(u32, &str)| self.off.contains(host) && self.given_up.contains(host);
        life.run_again |= !life.started.iter().all(excused);
        life.started.push((attempt, host));
        life.open.insert(attempt, host);
        if self.off.contains(host) {
            found.push(Violation::Undead {
                uuid: uuid(),
                host: host.to_owned(),
            });
        }
        if !record.descriptors.is_empty() {
            found.push(Violation::Inherited {
                uuid: uuid(),
                descriptors: record.descriptors.clone(),
            });
        }
        self.violations.extend(found);
    }

    fn stop(&mut self, record: &'r Record) {
        let (uuid, attempt) = (record.uuid.clone(), record.attempt);
        let life = self.lives.entry(&record.uuid).or_default();
        if life.open.remove(&attempt).is_none() {
            self.violations
                .insert(Violation::StrayStop { uuid, attempt });
        }
    }

    fn off(&mut self, host: &'r str) {
        self.off.insert(host);
        let rightly = self.given_up.contains(host);
        for (uuid, life) in &mut self.lives {
            let (ended, open) = std::mem::take(&mut life.open)
                .into_iter()
                .partition::<BTreeMap<u32, &str>, _>(|&(_, on)| on == host);
            life.open = open;
            if !rightly {
                self.violations
                    .extend(ended.into_keys().map(|attempt| Violation::CutShort {
                        uuid: (*uuid).to_owned(),
                        attempt,
                        host: host.to_owned(),
                    }));
            }
        }
    }

    fn close(mut self, expected: &BTreeSet<String>) -> BTreeSet<Violation> {
        for (&uuid, life) in &self.lives {
            let uuid = || uuid.to_owned();
            let open = life.open.keys().map(|&attempt| Violation::LostStop {
                uuid: uuid(),
                attempt,
            });
            self.violations.extend(open);
            if !expected.contains(&uuid()) {
                self.violations.insert(Violation::Unknown { uuid: uuid() });
            }
            if life.run_again {
                let attempts = life.started.iter().map(|&(attempt, _)| attempt).collect();
                self.violations.insert(Violation::RunAgain {
                    uuid: uuid(),
                    attempts,
                });
            }
        }
        let ran = |uuid: &&String| {
            let life = self.lives.get(uuid.as_str());
            life.is_some_and(|life| !life.started.is_empty())
        };
        let never = expected.iter().filter(|uuid| !ran(uuid));
        let never: Vec<Violation> = never
            .map(|uuid| Violation::NeverRan { uuid: uuid.clone() })
            .collect();
        self.violations.extend(never);
        self.violations
    }
}
