//! Every situation of a worker, and everything that may happen in it: `cells.txt` has what follows.
//!
//! A cell says what is so afterwards: `=` that nothing has changed, `.` that it cannot happen there
//! (which is checked), `x` that it is refused. Else it is the state (`U`nknown, `B`ooting, `I`dle,
//! `R`unning, `S`hutdown, `-` gone), the phase of container 1 (`s`tarting, `r`unning, `k`illing,
//! `g`iven up, s`t`ale, `e`nded), `>` with the behaviour if that changed (`r`un, `h`old, `d`rain),
//! and `!` for an alarm. A timer's row says what is so once it has gone off, with nothing
//! answered; a situation that ends before that has the cell of how it ended.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../common/mod.rs"]
mod common;
mod inputs;
mod situations;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use common::*;
use inputs::{apply, inputs};
use longshore_pool::*;
use longshore_types::*;
use situations::{SITUATIONS, prepare};

const TABLE: &str = include_str!("cells.txt");

const BEHAVIORS: [IdleBehavior; 3] = [IdleBehavior::Run, IdleBehavior::Hold, IdleBehavior::Drain];

/// What can be seen of worker `a`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen(Option<(WorkerState, Option<HeldPhase>, IdleBehavior)>);

pub(crate) fn seen(rig: &Rig) -> Seen {
    Seen(
        rig.view("a")
            .map(|view| (view.state, rig.phase("a", 1), view.idle_behavior)),
    )
}

fn cell(before: &Seen, after: &Seen, alarm: bool) -> String {
    let mut text = String::new();
    if before != after {
        match &after.0 {
            None => text.push('-'),
            Some((state, phase, behavior)) => {
                text.push(state_letter(*state));
                text.extend(phase.as_ref().map(phase_letter));
                let old = before.0.as_ref().map(|seen| seen.2);
                if old != Some(*behavior) {
                    text.push('>');
                    text.extend(behavior.as_str().chars().next());
                }
            }
        }
    }
    if alarm {
        text.push('!');
    }
    if text.is_empty() { "=".into() } else { text }
}

fn state_letter(state: WorkerState) -> char {
    match state {
        WorkerState::Unknown => 'U',
        WorkerState::Booting => 'B',
        WorkerState::Idle => 'I',
        WorkerState::Running => 'R',
        WorkerState::Shutdown => 'S',
    }
}

fn phase_letter(phase: &HeldPhase) -> char {
    match phase {
        HeldPhase::Starting => 's',
        HeldPhase::Running => 'r',
        HeldPhase::Killing => 'k',
        HeldPhase::GivenUp => 'g',
        HeldPhase::Stale => 't',
        HeldPhase::Ended(_) => 'e',
    }
}

/// The whole table as it is.
fn table() -> String {
    let mut text = String::new();
    for behavior in BEHAVIORS {
        let possible: Vec<&str> = SITUATIONS
            .into_iter()
            .filter(|situation| is_possible(situation, behavior))
            .collect();
        write!(text, "{:35}", format!("[{behavior}]")).unwrap();
        for situation in &possible {
            write!(text, " {situation:>5}").unwrap();
        }
        text.push('\n');
        for input in inputs() {
            write!(text, "{input:35}").unwrap();
            for situation in &possible {
                let mut rig = prepare(situation, behavior);
                let (before, alarms) = (seen(&rig), rig.alarms());
                let cell = match apply(&mut rig, &input) {
                    Err(why) => {
                        assert!(
                            why == '.' || seen(&rig) == before,
                            "refused, and it changed"
                        );
                        why.to_string()
                    }
                    Ok(()) => cell(&before, &seen(&rig), rig.alarms() > alarms),
                };
                let width = situation.len().max(5);
                write!(text, " {cell:>width$}").unwrap();
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// A drained worker on which nothing is left has gone on already.
fn is_possible(situation: &str, behavior: IdleBehavior) -> bool {
    let over = situation.starts_with("shut");
    let Seen(Some((state, _, now))) = seen(&prepare(situation, behavior)) else {
        panic!("{situation} has no worker")
    };
    if over {
        return behavior == IdleBehavior::Run;
    }
    state != WorkerState::Shutdown && now == behavior
}

#[test]
fn every_cell_is_as_written_down() {
    let is = table();
    let differs = |(line, (is, wanted)): (usize, (&str, &str))| {
        (is != wanted).then(|| format!("{:4} is     {is}\n     wanted {wanted}\n", line + 1))
    };
    let lines = is.lines().zip(TABLE.lines()).enumerate();
    let different: String = lines.filter_map(differs).collect();
    assert!(
        is == TABLE,
        "cells.txt is to be\n\n{is}\nwhere it differs:\n{different}"
    );
}

/// The cells of a behaviour: input, situation, and what follows.
fn cells(behavior: IdleBehavior) -> Vec<(&'static str, &'static str, &'static str)> {
    let head = format!("[{behavior}]");
    let block = TABLE.split("\n\n").find(|block| block.starts_with(&head));
    let mut lines = block.unwrap().lines();
    let situations: Vec<&str> = lines.next().unwrap().split_whitespace().skip(1).collect();
    let rows = lines.map(|line| line.split_at(35));
    rows.flat_map(|(input, cells)| {
        let cells = situations.clone().into_iter().zip(cells.split_whitespace());
        cells.map(move |(situation, cell)| (input.trim_end(), situation, cell))
    })
    .collect()
}

#[test]
fn what_is_held_is_only_shut_down_on_request_or_by_the_provider() {
    let causes = ["ask shut-down", "ask drain", "list stopping"];
    for (input, situation, cell) in cells(IdleBehavior::Hold) {
        // It is not held any more then, and of no use.
        let let_go = (input, situation) == ("ask run", "givenup");
        assert!(
            !cell.starts_with('S') || causes.contains(&input) || let_go,
            "{situation}: {input}: {cell}"
        );
    }
}

#[test]
fn what_is_shut_down_stays_so_until_it_is_gone() {
    let after = ["=", ".", "x", "-", "Sk"];
    for (input, situation, cell) in cells(IdleBehavior::Run) {
        let stays = !situation.starts_with("shut") || after.contains(&cell);
        // A new machine has its id.
        assert!(
            stays || input == "create same-id",
            "{situation}: {input}: {cell}"
        );
    }
}

#[test]
fn nothing_but_the_instance_going_makes_what_may_run_elsewhere() {
    let running = [
        "unwell-runs",
        "unsettled",
        "kill",
        "givenup",
        "stale",
        "silent",
    ];
    let proof = ["report", "start", "kill", "list", "create"];
    for behavior in BEHAVIORS {
        for (input, situation, cell) in cells(behavior) {
            let kind = input.split(' ').next().unwrap();
            let gone = cell.starts_with(['-', 'I', 'B']) || ["S", "R"].contains(&cell);
            let proved = proof.contains(&kind) || !running.contains(&situation);
            assert!(!gone || proved, "{situation}: {input}: {cell}");
        }
    }
}

#[test]
fn every_kind_of_effect_and_every_state_has_cells() {
    let inputs = inputs();
    let kinds: BTreeSet<&str> = inputs.iter().filter_map(|i| i.split(' ').next()).collect();
    for kind in EffectAction::KINDS {
        assert!(kinds.contains(kind), "no row for outcomes of {kind}");
    }
    let mut states = BTreeSet::new();
    let mut pairs = BTreeSet::new();
    for behavior in BEHAVIORS {
        for situation in SITUATIONS {
            let Seen(Some((state, phase, now))) = seen(&prepare(situation, behavior)) else {
                unreachable!()
            };
            states.insert(state);
            pairs.insert((state_letter(state), phase.as_ref().map(phase_letter), now));
        }
    }
    assert_eq!(states, WorkerState::ALL.into_iter().collect());
    for phase in "srkgte".chars() {
        assert!(
            pairs.iter().any(|pair| pair.1 == Some(phase)),
            "no column with {phase}"
        );
    }
}
