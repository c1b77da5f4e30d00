//! Applying the rules to one container, and keeping counts and indexes in step.

use std::collections::BTreeSet;

use longshore_types::{ContainerState, HeldContainer, InstanceId, Instant, Resources};

use crate::action::Action;
use crate::case::{Booking, Case, Counted, Origin, Standing};
use crate::core::Core;
use crate::ids::{CaseNo, OrderKey, SlotNo};
use crate::judge::{World, is_anywhere, is_ours, verdict};
use crate::shape::Eligible;
use crate::slots::{Slot, SlotOn};

/// Those that come into line in one pass, with their shapes: all of them at once is cheaper than
/// one by one.
pub(crate) type Entering = Vec<Enters>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Enters {
    key: OrderKey,
    shape: usize,
    line: bool,
    queue: bool,
}

impl Core {
    /// Applies the rules to one container and keeps the indexes in step.
    pub(crate) fn judge(&mut self, no: CaseNo, now: Instant) {
        let mut entering = Entering::default();
        self.judge_later(no, now, &mut entering);
        self.enter(entering);
    }

    /// The same, but it comes into line only with [`Core::enter`].
    pub(crate) fn judge_later(&mut self, no: CaseNo, now: Instant, entering: &mut Entering) {
        self.note_sightings(no);
        let Some(case) = self.cases.get(no) else {
            return;
        };
        if is_anywhere(case, &self.config) {
            self.workers.sync_probes();
        }
        let shape = case
            .entry
            .as_ref()
            .and_then(|_| self.shapes.shape(case.shape));
        let nothing = Eligible::default();
        let world = World {
            config: &self.config,
            limits: &self.limits,
            workers: &self.workers,
            gone: &self.gone,
            eligible: shape.map_or(Ok(&nothing), |shape| {
                shape.eligible.as_ref().map_err(String::as_str)
            }),
            now,
        };
        let verdict = verdict(case, &world);
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        case.touched = false;
        case.standing = verdict.standing;
        if case.ties.watch != verdict.watch {
            let old = std::mem::replace(&mut case.ties.watch, verdict.watch);
            if let Some(old) = old
                && let Some(watching) = self.watch.get_mut(&old)
            {
                watching.remove(&no);
                if watching.is_empty() {
                    self.watch.remove(&old);
                }
            }
            if let Some(new) = &case.ties.watch {
                self.watch.entry(new.clone()).or_default().insert(no);
            }
        }
        if verdict.cleared {
            case.ties.cleared_at.get_or_insert(now);
        } else if let Some(ties) = case.ties.touched_mut() {
            ties.cleared_at = None;
        }
        let mut wants = verdict.wants;
        wants.retain(|a| !case.ties.in_flight.iter().any(|doing| doing.covers(a)));
        let wished = wants.len();
        wants.retain(|a| !case.ties.holds_back(a, now));
        if wants.len() < wished && case.standing == Standing::Calling {
            // The call is made once the pause has ended.
            case.standing = Standing::Paused;
        }
        if wants != case.ties.wants {
            case.ties.wants = wants;
        }
        self.settle_booking(no, verdict.room);
        self.note_standing(no, now);
        self.count(no, entering);
        self.keep_or_drop(no);
    }

    /// Notes whether it has wishes; a case of which nothing is left goes.
    fn keep_or_drop(&mut self, no: CaseNo) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        case.ties.tidy();
        let key = case.key;
        if !case.ties.wants.is_empty() {
            self.todo.insert((key, no));
        } else if !self.todo.is_empty() {
            self.todo.remove(&(key, no));
        }
        let idle = case.calling.is_none() && case.ties.in_flight.is_empty();
        if case.entry.is_none() && case.ties.claims.is_empty() && idle {
            for pause in case.ties.pauses.iter() {
                self.pauses.remove(&(pause.until, key, no));
            }
            self.numbers.remove(&key);
            self.cases.remove(no);
        }
    }

    /// Keeps what claims say about the latest attempt.
    fn note_sightings(&mut self, no: CaseNo) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        let Some(entry) = &case.entry else {
            return;
        };
        if !matches!(
            entry.state,
            ContainerState::Locked | ContainerState::Running
        ) {
            return;
        }
        let here = |instance: &InstanceId| {
            !self.config.records_placement || entry.placed_on.as_deref() == Some(instance)
        };
        let sighting = case
            .ties
            .claims
            .iter()
            .find(|c| here(&c.instance) && !Case::is_outdated(entry, c));
        if let Some(claim) = sighting {
            // A start that is under way may surely be refused yet.
            let runs = claim.phase.shows_process();
            let origin = Origin::On(claim.instance.clone());
            let ties = &mut *case.ties;
            ties.ran |= runs;
            // It was started before it was withdrawn, and goes on.
            ties.kill.take_if(|kill| runs && kill.only_unstarted);
            if ties.origin == Origin::Unknown {
                ties.origin = origin;
            }
        }
    }

    /// Keeps room for what is under way or bound, and gives back what is not needed any more.
    fn settle_booking(&mut self, no: CaseNo, room: Option<InstanceId>) {
        self.give_up_booking(no, room.as_ref());
        let Some(instance) = room else { return };
        self.book_room(no, &instance);
        let Some(case) = self.cases.get(no) else {
            return;
        };
        let bound = case.standing == Standing::Bound;
        let (true, Some(entry), Some(booking)) = (bound, &case.entry, case.booking) else {
            return;
        };
        let (uuid, attempt) = (case.uuid, entry.attempt());
        let action = if booking.over {
            self.is_really_full(&instance).then(|| Action::Kill {
                only_unstarted: true,
                uuid,
                attempt,
                instance,
                reason: "it does not fit there beside the others".into(),
            })
        } else {
            let may_start = self.limits.accept_new && case.starting_on().is_none();
            let slot = self.slots.slot(booking.slot);
            let fits = slot.is_some_and(|slot| booking.need.fits_in(&slot.unused()));
            let may_start = may_start && fits && !self.waits_for_another(no);
            may_start.then_some(Action::Start {
                uuid,
                attempt,
                instance,
                resources: booking.need,
            })
        };
        if let (Some(action), Some(case)) = (action, self.cases.get_mut(no)) {
            case.ties.wants.push(action);
        }
    }

    /// Keeps room on an instance: of one that may start there unasked also where there is less.
    fn book_room(&mut self, no: CaseNo, instance: &InstanceId) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        let (Some(entry), Some(shape)) = (&case.entry, self.shapes.shape(case.shape)) else {
            return;
        };
        let worker = self.workers.no(instance);
        let worker = worker.and_then(|w| self.workers.worker(w));
        let Some(slot) = worker.and_then(|worker| worker.slot) else {
            return;
        };
        let holds = case.booking.is_some_and(|booking| booking.slot == slot);
        if case.booking.is_some() && !holds {
            return;
        }
        let Some(mut spare) = self.slots.slot(slot).map(Slot::spare) else {
            return;
        };
        if holds && case.booking.is_some_and(|booking| !booking.over) {
            return;
        }
        if holds {
            self.slots.release(slot, no);
            case.booking = None;
            spare = self.slots.slot(slot).map(Slot::spare).unwrap_or_default();
        }
        let fits = shape.need.fits_in(&spare);
        let again = entry.tries < self.config.max_dispatch_attempts;
        let unasked = entry.state == ContainerState::Locked && !case.ties.own_lock && again;
        if fits || unasked {
            self.slots.book(slot, no, shape.need);
            case.booking = Some(Booking {
                slot,
                hard: true,
                over: !fits,
                need: shape.need,
            });
        }
        if holds && fits {
            // Those beside it have waited for what did not fit.
            self.touch_holders(slot);
        }
    }

    /// Those that have room on a slot are judged again.
    fn touch_holders(&mut self, slot: SlotNo) {
        let holders = self.slots.slot(slot).map(|slot| &slot.holders);
        let holders: Vec<CaseNo> = holders.into_iter().flatten().map(|(no, _)| *no).collect();
        for no in holders {
            self.touch(no);
        }
    }

    /// Whether what is on a worker is known, and not only taken for all that it has.
    fn is_really_full(&self, instance: &InstanceId) -> bool {
        let Some(view) = self.workers.get(instance) else {
            return false;
        };
        let running = || view.containers.iter().filter(|c| c.phase.may_run());
        let is_known = |held: &HeldContainer| {
            let case = self.case(held.uuid);
            let shape =
                case.and_then(|c| c.entry.as_ref().and_then(|_| self.shapes.shape(c.shape)));
            shape.is_some_and(|shape| shape.need == held.granted)
        };
        let sum: Resources = running().map(|held| held.granted).sum();
        sum == view.granted && running().all(is_known)
    }

    /// Whether something else may start unasked where a container has room, for which there is none.
    pub(crate) fn waits_for_another(&self, no: CaseNo) -> bool {
        let booking = self.cases.get(no).and_then(|case| case.booking);
        let slot = booking.and_then(|booking| self.slots.slot(booking.slot));
        slot.is_some_and(|slot| {
            slot.holders.iter().any(|(other, _)| {
                let booking = self.cases.get(*other).and_then(|case| case.booking);
                *other != no && booking.is_some_and(|booking| booking.over)
            })
        })
    }

    /// Gives back room that is not needed any more.
    fn give_up_booking(&mut self, no: CaseNo, room: Option<&InstanceId>) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        let Some(booking) = case.booking else {
            return;
        };
        let on = self.slots.slot(booking.slot).map(|slot| slot.on);
        let instance = match on {
            Some(SlotOn::Worker(worker)) => self.workers.worker(worker).map(|w| &w.id),
            _ => None,
        };
        let here = |other: &InstanceId| instance == Some(other);
        let shown = case
            .ties
            .claims
            .iter()
            .any(|c| here(&c.instance) && c.phase.may_run());
        let keep = if booking.hard {
            case.entry_busy() || case.starting_on().is_some() || room.is_some_and(here)
        } else {
            case.standing == Standing::Waiting
        };
        if keep && !shown {
            return;
        }
        case.booking = None;
        self.slots.release(booking.slot, no);
        // Somebody else may use that room now.
        self.dirty |= booking.hard && !shown;
        if booking.over {
            self.touch_holders(booking.slot);
        }
    }

    /// Takes a container out of every count and queue; its entry is still the one that it was
    /// counted with.
    pub(crate) fn leave_line(&mut self, no: CaseNo) {
        if let Some(case) = self.cases.get_mut(no)
            && let Some(key) = case.order(no)
        {
            let old = std::mem::take(&mut case.counted);
            let shape = case.shape;
            self.uncount(old, Counted::default(), &key, shape);
        }
    }

    /// Counts a container as what it is now.
    fn count(&mut self, no: CaseNo, entering: &mut Entering) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        // Without an entry it was taken out before.
        let Some(key) = case.order(no) else {
            return;
        };
        let new = counted(case);
        let old = std::mem::replace(&mut case.counted, new);
        if old == new {
            return;
        }
        let shape = case.shape;
        self.uncount(old, new, &key, shape);
        if let (None, Some(supervisor)) = (old.active, new.active) {
            self.active += 1;
            self.active_supervisors += u32::from(supervisor);
        }
        let (line, queue) = (new.line && !old.line, new.queued && !old.queued);
        if line && let Some(shape) = self.shapes.shape_mut(shape) {
            shape.members += 1;
        }
        if line || queue {
            entering.push(Enters {
                key,
                shape,
                line,
                queue,
            });
        }
    }

    /// Takes away what `old` has and `new` has not.
    fn uncount(&mut self, old: Counted, new: Counted, key: &OrderKey, shape: usize) {
        if let Some(supervisor) = old.active
            && new.active.is_none()
        {
            self.active -= 1;
            self.active_supervisors -= u32::from(supervisor);
        }
        let Some(shape) = self.shapes.shape_mut(shape) else {
            return;
        };
        if old.line && !new.line {
            self.line.remove(key);
            shape.members -= 1;
        }
        if old.queued && !new.queued {
            // The first in line are those that get something.
            if shape.queue.first() == Some(key) {
                shape.queue.pop_first();
            } else {
                shape.queue.remove(key);
            }
        }
    }

    /// Puts into line and queues those that come there.
    pub(crate) fn enter(&mut self, mut entering: Entering) {
        if entering.len() < FEW {
            for Enters {
                key,
                shape,
                line,
                queue,
            } in entering
            {
                if line {
                    self.line.insert(key);
                }
                if queue && let Some(shape) = self.shapes.shape_mut(shape) {
                    shape.queue.insert(key);
                }
            }
            return;
        }
        entering.sort_unstable_by_key(|enters| enters.key);
        let line = entering.iter().filter(|enters| enters.line);
        merge(&mut self.line, line.map(|enters| enters.key).collect());
        entering.retain(|enters| enters.queue);
        // Stable: within a shape they stay in order.
        entering.sort_by_key(|enters| enters.shape);
        for of_one in entering.chunk_by(|a, b| a.shape == b.shape) {
            if let Some(shape) = self.shapes.shape_mut(of_one[0].shape) {
                let keys = of_one.iter().map(|enters| enters.key).collect();
                merge(&mut shape.queue, keys);
            }
        }
    }
}

/// So many are put into line one by one.
pub(crate) const FEW: usize = 8;

/// Adds ordered keys to a set: one by one if there are few, else all at once.
pub(crate) fn merge<K: Ord>(set: &mut BTreeSet<K>, keys: Vec<K>) {
    if keys.len() < FEW + set.len() / 8 {
        set.extend(keys);
    } else {
        set.append(&mut keys.into_iter().collect());
    }
}

fn counted(case: &Case) -> Counted {
    // What another installation runs is neither in our line nor at our expense.
    let Some(entry) = case.entry.as_ref().filter(|entry| is_ours(entry)) else {
        return Counted::default();
    };
    let claimed = case.ties.claims.iter().any(|c| c.phase.may_run());
    let hard = case.booking.as_ref().is_some_and(|b| b.hard);
    let starting = claimed || case.starting_on().is_some();
    let waits = matches!(entry.state, ContainerState::Queued | ContainerState::Locked)
        && entry.priority >= 1
        && !starting;
    let active = entry.state == ContainerState::Running
        || (entry.state == ContainerState::Locked && claimed)
        || hard;
    Counted {
        line: waits,
        queued: waits && case.standing == Standing::Waiting && !hard,
        active: active.then_some(entry.supervisor),
    }
}
