//! Each rule of the pool that is there because a sequence of events breaks any weaker one, as that
//! sequence.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../common/mod.rs"]
mod common;
mod creates;
mod hold_offs;
mod idleness;
mod kills;
mod listings;
mod restart;
mod results;
mod silence;
mod starts;

use common::*;

/// An attempt has ended, and the runner has forgotten it.
fn end_and_forget(rig: &mut Rig, attempt: u32) {
    rig.report("a", vec![finished(1, attempt)]);
    rig.acknowledge("a", 1, attempt);
    rig.wait(SECOND);
    rig.answer(is_short, report(vec![]));
    assert!(rig.phase("a", 1).is_none());
}
