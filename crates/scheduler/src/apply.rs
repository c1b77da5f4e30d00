//! Applying the rules to one container, and keeping counts and indexes in step.

use std::collections::BTreeSet;

use longshore_types::{ContainerState, ContainerUuid, InstanceId, Instant};

use crate::action::Action;
use crate::case::{Booking, Case, Origin, Standing};
use crate::core::Core;
use crate::judge::{World, verdict};
use crate::shape::Eligible;
use crate::slots::{Slot, SlotId};

impl Core {
    /// Applies the rules to one container and keeps the indexes in step.
    pub(crate) fn judge(&mut self, uuid: ContainerUuid, now: Instant) {
        self.note_sightings(uuid);
        let Some(case) = self.cases.get(&uuid) else {
            return;
        };
        let shape = case.entry.is_some().then_some(case.shape);
        let eligible = shape
            .and_then(|s| self.shapes.shape(s))
            .map(|s| &s.eligible);
        let nothing = BTreeSet::new();
        let world = World {
            config: &self.config,
            limits: &self.limits,
            workers: &self.workers,
            gone: &self.gone,
            by_probe: &self.by_probe,
            eligible: match eligible {
                Some(Ok(Eligible { names, .. })) => Ok(names),
                Some(Err(error)) => Err(error),
                None => Ok(&nothing),
            },
            now,
        };
        let verdict = verdict(case, &world);
        self.leave_line(uuid, shape);
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        if case.watch != verdict.watch {
            if let Some(old) = case.watch.take()
                && let Some(watching) = self.watch.get_mut(&old)
            {
                watching.remove(&uuid);
                if watching.is_empty() {
                    self.watch.remove(&old);
                }
            }
            if let Some(new) = &verdict.watch {
                self.watch.entry(new.clone()).or_default().insert(uuid);
            }
            case.watch = verdict.watch;
        }
        if verdict.cleared {
            case.cleared_at.get_or_insert(now);
        } else {
            case.cleared_at = None;
        }
        case.standing = verdict.standing;
        let paused = case.pause.as_ref().is_some_and(|p| p.until > now);
        case.wants = verdict.wants;
        case.wants
            .retain(|a| !paused && !case.in_flight.iter().any(|f| same_act(a, f)));
        self.settle_booking(uuid);
        self.enter_line(uuid);
        let Some(case) = self.cases.get(&uuid) else {
            return;
        };
        if case.wants.is_empty() {
            self.todo.remove(&uuid);
        } else {
            self.todo.insert(uuid);
        }
        if case.entry.is_none() && case.claims.is_empty() && case.in_flight.is_empty() {
            if let Some(pause) = &case.pause {
                self.pauses.remove(&(pause.until, uuid));
            }
            self.cases.remove(&uuid);
        }
    }

    /// Keeps what claims say about the latest attempt.
    fn note_sightings(&mut self, uuid: ContainerUuid) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let Some(entry) = &case.entry else {
            return;
        };
        if !matches!(
            entry.container.state,
            ContainerState::Locked | ContainerState::Running
        ) {
            return;
        }
        let here = |instance: &InstanceId| {
            !self.config.records_placement || entry.container.placed_on.as_ref() == Some(instance)
        };
        let sighting = case
            .claims
            .iter()
            .find(|c| here(&c.instance) && !Case::is_outdated(entry, c));
        if let Some(claim) = sighting {
            case.ran = true;
            if case.origin == Origin::Unknown {
                case.origin = Origin::On(claim.instance.clone());
            }
        }
    }

    /// Keeps room for what is under way or bound, and gives back what is not needed any more.
    fn settle_booking(&mut self, uuid: ContainerUuid) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let shown = case.booking.as_ref().is_some_and(|b| {
            case.claims
                .iter()
                .any(|c| b.slot == SlotId::Worker(c.instance.clone()) && c.phase.may_run())
        });
        let keep = case.booking.as_ref().is_some_and(|b| {
            let busy = case.entry_busy() || case.starting_on().is_some();
            let waits = case.standing == Standing::Waiting;
            let bound = match &case.standing {
                Standing::Bound(instance) => b.slot == SlotId::Worker(instance.clone()),
                Standing::Paused => is_bound(case),
                _ => false,
            };
            !shown && ((b.hard && (busy || bound)) || (!b.hard && waits))
        });
        if !keep && let Some(booking) = case.booking.take() {
            self.slots.release(&booking.slot, uuid);
            // Somebody else may use that room now.
            self.dirty |= booking.hard && !shown;
        }
        let (Standing::Bound(instance), Some(entry)) = (&case.standing, &case.entry) else {
            return;
        };
        let Some(shape) = self.shapes.shape(case.shape) else {
            return;
        };
        let slot = SlotId::Worker(instance.clone());
        if case.booking.is_none() {
            let room = self.slots.slot(&slot).map(Slot::spare);
            if room.is_some_and(|room| shape.need.fits_in(&room)) {
                self.slots.book(&slot, uuid, shape.need);
                case.booking = Some(Booking { slot, hard: true });
            }
        }
        if case.booking.is_some() && self.limits.accept_new && case.starting_on().is_none() {
            case.wants.push(Action::Start {
                uuid,
                attempt: entry.container.attempt(),
                instance: instance.clone(),
                resources: shape.need,
            });
        }
    }

    /// Takes a container out of every count and queue.
    pub(crate) fn leave_line(&mut self, uuid: ContainerUuid, shape: Option<usize>) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let counted = std::mem::take(&mut case.counted);
        if let Some(supervisor) = counted.active {
            self.active -= 1;
            self.active_supervisors -= u32::from(supervisor);
        }
        if let Some(key) = counted.line {
            self.line.remove(&key);
            if let Some(shape) = shape.and_then(|s| self.shapes.shape_mut(s)) {
                shape.members -= 1;
                if counted.queued {
                    shape.queue.remove(&key);
                }
            }
        }
    }

    fn enter_line(&mut self, uuid: ContainerUuid) {
        let Some(case) = self.cases.get_mut(&uuid) else {
            return;
        };
        let (Some(entry), Some(key)) = (&case.entry, case.order()) else {
            return;
        };
        let container = &entry.container;
        let claimed = case.claims.iter().any(|c| c.phase.may_run());
        let hard = case.booking.as_ref().is_some_and(|b| b.hard);
        let takes = matches!(
            container.state,
            ContainerState::Queued | ContainerState::Locked
        );
        if container.state == ContainerState::Running
            || (container.state == ContainerState::Locked && claimed)
            || hard
        {
            case.counted.active = Some(container.supervisor);
            self.active += 1;
            self.active_supervisors += u32::from(container.supervisor);
        }
        let starting = claimed || case.starting_on().is_some();
        if takes && container.priority >= 1 && !starting {
            case.counted.line = Some(key);
            self.line.insert(key);
            if let Some(shape) = self.shapes.shape_mut(case.shape) {
                shape.members += 1;
                if case.standing == Standing::Waiting && !hard {
                    case.counted.queued = true;
                    shape.queue.insert(key);
                }
            }
        }
    }
}

/// Whether a locked container can be started on one instance only.
fn is_bound(case: &Case) -> bool {
    case.entry.as_ref().is_some_and(|e| {
        e.container.state == ContainerState::Locked && e.container.placed_on.is_some()
    })
}

/// Whether two actions do the same to the same object.
fn same_act(a: &Action, b: &Action) -> bool {
    match (a, b) {
        (
            Action::Kill {
                uuid: u,
                instance: i,
                ..
            },
            Action::Kill {
                uuid: v,
                instance: j,
                ..
            },
        ) => u == v && i == j,
        _ => a == b,
    }
}
