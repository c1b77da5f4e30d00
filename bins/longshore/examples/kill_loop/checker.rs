//! What the witness must say: nothing lost, nothing twice, nothing at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::witness::{Event, Record};

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
            Self::Inherited { uuid, descriptors } => {
                write!(f, "{uuid} inherited descriptors: {descriptors:?}")
            }
        }
    }
}

/// All violations in records, which are in the order of events. Each of `expected` must have run
/// exactly once.
pub(crate) fn check(records: &[Record], expected: &BTreeSet<String>) -> BTreeSet<Violation> {
    let mut violations = BTreeSet::new();
    let mut running: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut started: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for record in records {
        let (uuid, attempt) = (record.uuid.clone(), record.attempt);
        let open = running.entry(&record.uuid).or_default();
        match record.event {
            Event::Start => {
                let before = started.entry(&record.uuid).or_default();
                if before.contains(&attempt) {
                    violations.insert(Violation::DoubleStart {
                        uuid: uuid.clone(),
                        attempt,
                    });
                }
                before.push(attempt);
                for &other in open.iter().filter(|&&other| other != attempt) {
                    let (uuid, started) = (uuid.clone(), attempt);
                    violations.insert(Violation::Overlap {
                        uuid,
                        running: other,
                        started,
                    });
                }
                open.insert(attempt);
                if !record.descriptors.is_empty() {
                    let descriptors = record.descriptors.clone();
                    violations.insert(Violation::Inherited { uuid, descriptors });
                }
            }
            Event::Stop => {
                if !open.remove(&attempt) {
                    violations.insert(Violation::StrayStop { uuid, attempt });
                }
            }
        }
    }
    for (uuid, attempts) in running {
        violations.extend(attempts.into_iter().map(|attempt| {
            let uuid = uuid.to_owned();
            Violation::LostStop { uuid, attempt }
        }));
    }
    for uuid in expected
        .iter()
        .filter(|uuid| !started.contains_key(uuid.as_str()))
    {
        violations.insert(Violation::NeverRan { uuid: uuid.clone() });
    }
    for (uuid, attempts) in started {
        let uuid = uuid.to_owned();
        if !expected.contains(&uuid) {
            violations.insert(Violation::Unknown { uuid: uuid.clone() });
        }
        if attempts.len() > 1 {
            violations.insert(Violation::RunAgain { uuid, attempts });
        }
    }
    violations
}

/// Whether the checker finds forged wrongs; what it overlooked is the error.
pub(crate) fn self_test() -> Result<usize, String> {
    use Event::{Start, Stop};
    type Case = (
        &'static str,
        &'static [(Event, u32)],
        fn(&Violation) -> bool,
    );
    let cases: [Case; 6] = [
        (
            "a double start",
            &[(Start, 1), (Start, 1), (Stop, 1)],
            |v| matches!(v, Violation::DoubleStart { .. }),
        ),
        (
            "a double start, one after the other",
            &[(Start, 1), (Stop, 1), (Start, 1), (Stop, 1)],
            |v| matches!(v, Violation::DoubleStart { .. }),
        ),
        (
            "an overlap",
            &[(Start, 1), (Start, 2), (Stop, 1), (Stop, 2)],
            |v| {
                matches!(
                    v,
                    Violation::Overlap {
                        running: 1,
                        started: 2,
                        ..
                    }
                )
            },
        ),
        ("a lost stop", &[(Start, 1)], |v| {
            matches!(v, Violation::LostStop { attempt: 1, .. })
        }),
        (
            "a second run",
            &[(Start, 1), (Stop, 1), (Start, 2), (Stop, 2)],
            |v| matches!(v, Violation::RunAgain { .. }),
        ),
        ("a lost container", &[], |v| {
            matches!(v, Violation::NeverRan { .. })
        }),
    ];
    let expected = BTreeSet::from(["forged".to_owned()]);
    for (what, events, wanted) in cases {
        let records: Vec<Record> = events
            .iter()
            .map(|&(e, attempt)| forge("forged", e, attempt))
            .collect();
        if !check(&records, &expected).iter().any(wanted) {
            return Err(format!("the checker overlooks {what}"));
        }
    }
    let good = [forge("forged", Start, 1), forge("forged", Stop, 1)];
    match check(&good, &expected).first() {
        None => Ok(cases.len()),
        Some(wrong) => Err(format!("the checker finds in what is right: {wrong}")),
    }
}

/// A record that no job has written.
pub(crate) fn forge(uuid: &str, event: Event, attempt: u32) -> Record {
    Record {
        event,
        uuid: uuid.to_owned(),
        attempt,
        pid: 1,
        host: "forged".to_owned(),
        boot: "forged".to_owned(),
        time_ms: 0,
        descriptors: Vec::new(),
    }
}

/// Puts a start of another attempt behind the first start of some container, which runs then.
pub(crate) fn inject_double(records: &mut Vec<Record>) -> bool {
    let Some(at) = records
        .iter()
        .position(|record| record.event == Event::Start)
    else {
        return false;
    };
    let mut forged = records[at].clone();
    forged.attempt += 1;
    records.insert(at + 1, forged);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_wrongs_are_found() {
        assert_eq!(self_test(), Ok(6));
    }

    #[test]
    fn an_injected_double_is_found() {
        let mut records = vec![forge("a", Event::Start, 1), forge("a", Event::Stop, 1)];
        let expected = BTreeSet::from(["a".to_owned()]);
        assert!(check(&records, &expected).is_empty());
        assert!(inject_double(&mut records));
        let found = check(&records, &expected);
        assert!(
            found.iter().any(|v| matches!(v, Violation::Overlap { .. })),
            "{found:?}"
        );
    }

    #[test]
    fn strangers_and_leaks_are_found() {
        let mut start = forge("a", Event::Start, 1);
        start.descriptors = vec!["socket:[1]".to_owned()];
        let found = check(
            &[
                start,
                forge("a", Event::Stop, 1),
                forge("a", Event::Stop, 1),
            ],
            &BTreeSet::new(),
        );
        let uuid = || "a".to_owned();
        assert_eq!(
            found,
            BTreeSet::from([
                Violation::Inherited {
                    uuid: uuid(),
                    descriptors: vec!["socket:[1]".to_owned()]
                },
                Violation::StrayStop {
                    uuid: uuid(),
                    attempt: 1
                },
                Violation::Unknown { uuid: uuid() },
            ])
        );
    }
}
