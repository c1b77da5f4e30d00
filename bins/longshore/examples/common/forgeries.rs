//! Forged records, to see that the checker finds what is wrong in them.

use std::collections::BTreeSet;

use super::checker::{Violation, check};
use super::witness::{Event, Record};

/// A wrong that is put into records: what it is, the records, and what the checker must say.
type Forgery = (
    &'static str,
    &'static [(Event, u32, &'static str)],
    fn(&Violation) -> bool,
);

/// What must be found, where the host `lost` was rightly given up and no other was.
const FORGERIES: &[Forgery] = {
    use Event::{Off, Start, Stop};
    &[
        (
            "a double start",
            &[(Start, 1, "a"), (Start, 1, "a"), (Stop, 1, "a")],
            |v| matches!(v, Violation::DoubleStart { .. }),
        ),
        (
            "a double start, one after the other",
            &[
                (Start, 1, "a"),
                (Stop, 1, "a"),
                (Start, 1, "a"),
                (Stop, 1, "a"),
            ],
            |v| matches!(v, Violation::DoubleStart { .. }),
        ),
        (
            "an overlap",
            &[
                (Start, 1, "a"),
                (Start, 2, "b"),
                (Stop, 1, "a"),
                (Stop, 2, "b"),
            ],
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
        (
            "an overlap while another host is ended",
            &[
                (Start, 1, "a"),
                (Off, 0, "lost"),
                (Start, 2, "b"),
                (Stop, 1, "a"),
            ],
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
        (
            "an overlap with a host that is ended only then",
            &[
                (Start, 1, "lost"),
                (Start, 2, "b"),
                (Off, 0, "lost"),
                (Stop, 2, "b"),
            ],
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
        ("a lost stop", &[(Start, 1, "a")], |v| {
            matches!(v, Violation::LostStop { attempt: 1, .. })
        }),
        (
            "a second run",
            &[
                (Start, 1, "a"),
                (Stop, 1, "a"),
                (Start, 2, "a"),
                (Stop, 2, "a"),
            ],
            |v| matches!(v, Violation::RunAgain { .. }),
        ),
        (
            "a second run before the host of the first was ended",
            &[
                (Start, 1, "lost"),
                (Stop, 1, "lost"),
                (Start, 2, "a"),
                (Stop, 2, "a"),
            ],
            |v| matches!(v, Violation::RunAgain { .. }),
        ),
        (
            "a second run for a host that was ended without reason",
            &[
                (Start, 1, "a"),
                (Stop, 1, "a"),
                (Off, 0, "a"),
                (Start, 2, "b"),
                (Stop, 2, "b"),
            ],
            |v| matches!(v, Violation::RunAgain { .. }),
        ),
        (
            "a host that was ended without reason under what ran there",
            &[
                (Start, 1, "a"),
                (Off, 0, "a"),
                (Start, 2, "b"),
                (Stop, 2, "b"),
            ],
            |v| matches!(v, Violation::CutShort { attempt: 1, .. }),
        ),
        (
            "an attempt that went on after its host was ended",
            &[(Start, 1, "lost"), (Off, 0, "lost"), (Stop, 1, "lost")],
            |v| matches!(v, Violation::StrayStop { attempt: 1, .. }),
        ),
        (
            "a start on a host that was ended",
            &[(Off, 0, "lost"), (Start, 1, "lost"), (Stop, 1, "lost")],
            |v| matches!(v, Violation::Undead { .. }),
        ),
        (
            "an attempt with a smaller number than an earlier one",
            &[
                (Start, 2, "lost"),
                (Off, 0, "lost"),
                (Start, 1, "a"),
                (Stop, 1, "a"),
            ],
            |v| {
                matches!(
                    v,
                    Violation::Backwards {
                        attempt: 1,
                        before: 2,
                        ..
                    }
                )
            },
        ),
        ("a lost container", &[], |v| {
            matches!(v, Violation::NeverRan { .. })
        }),
    ]
};

/// What must not be found fault with.
const RIGHT: &[&[(Event, u32, &str)]] = {
    use Event::{Off, Start, Stop};
    &[
        &[(Start, 1, "a"), (Stop, 1, "a"), (Off, 0, "a")],
        &[
            (Start, 1, "lost"),
            (Off, 0, "lost"),
            (Start, 3, "a"),
            (Stop, 3, "a"),
        ],
    ]
};

/// Whether the checker finds forged wrongs; what it overlooked is the error.
pub(crate) fn self_test() -> Result<usize, String> {
    let expected = BTreeSet::from(["forged".to_owned()]);
    let given_up = BTreeSet::from(["lost".to_owned()]);
    let found = |events: &[(Event, u32, &str)]| {
        let forged = events
            .iter()
            .map(|&(e, n, host)| forge("forged", e, n, host));
        let records: Vec<Record> = forged.collect();
        check(&records, &expected, &given_up)
    };
    for (what, events, wanted) in FORGERIES {
        if !found(events).iter().any(wanted) {
            return Err(format!("the checker overlooks {what}"));
        }
    }
    for events in RIGHT {
        if let Some(wrong) = found(events).first() {
            return Err(format!("the checker finds in what is right: {wrong}"));
        }
    }
    Ok(FORGERIES.len())
}

/// A record that no job has written.
pub(crate) fn forge(uuid: &str, event: Event, attempt: u32, host: &str) -> Record {
    Record {
        event,
        uuid: uuid.to_owned(),
        attempt,
        pid: 1,
        host: host.to_owned(),
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
        assert_eq!(self_test(), Ok(FORGERIES.len()));
    }

    #[test]
    fn an_injected_double_is_found() {
        let mut records = vec![
            forge("a", Event::Start, 1, "h"),
            forge("a", Event::Stop, 1, "h"),
        ];
        let expected = BTreeSet::from(["a".to_owned()]);
        assert!(check(&records, &expected, &BTreeSet::new()).is_empty());
        assert!(inject_double(&mut records));
        let found = check(&records, &expected, &BTreeSet::new());
        assert!(
            found.iter().any(|v| matches!(v, Violation::Overlap { .. })),
            "{found:?}"
        );
    }

    #[test]
    fn strangers_and_leaks_are_found() {
        let mut start = forge("a", Event::Start, 1, "h");
        start.descriptors = vec!["socket:[1]".to_owned()];
        let found = check(
            &[
                start,
                forge("a", Event::Stop, 1, "h"),
                forge("a", Event::Stop, 1, "h"),
            ],
            &BTreeSet::new(),
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
