//! Why something waits, and where it stands in line.

use longshore_types::{ContainerState, ContainerUuid, InstanceId, Instant, Reason};

use crate::case::{Case, Standing};
use crate::core::Core;
use crate::slots::{SlotOn, Tier};

impl Core {
    /// Why a container is not being started, as of the last time that all actions were drained;
    /// none if there is no entry of it, or if it came since then.
    ///
    /// Reasons do not change by themselves: only the rest of a pause is counted from `now`.
    pub fn reason(&self, uuid: ContainerUuid, now: Instant) -> Option<Reason> {
        let case = self.case(uuid)?;
        let entry = case.entry.as_ref()?;
        if let Some(instance) = case.starting_on()
            && entry.state == ContainerState::Locked
        {
            return Some(Reason::Starting {
                instance: instance.clone(),
            });
        }
        Some(match &case.standing {
            Standing::Settled(reason) => (**reason).clone(),
            Standing::Calling => Reason::CallInFlight,
            Standing::Paused => pausing(case, now),
            Standing::Bound => self.bound_reason(uuid, case, case.bound_to()?),
            Standing::Waiting => self.waiting_reason(case)?,
            Standing::Absent => return None,
        })
    }

    /// Its place among those that wait, from 1; none if it does not wait.
    ///
    /// Takes time in proportion to the result; for many at once use [`Core::waiting`].
    pub fn position(&self, uuid: ContainerUuid) -> Option<usize> {
        let no = self.known(uuid)?;
        let case = self.cases.get(no).filter(|case| case.counted.line)?;
        let key = case.order(no)?;
        Some(self.line.range(..=key).count())
    }

    /// How many wait.
    pub fn line_length(&self) -> usize {
        self.line.len()
    }

    /// Those that wait, the first in line first.
    pub fn waiting(&self) -> impl Iterator<Item = ContainerUuid> + '_ {
        self.line
            .iter()
            .filter_map(|key| Some(self.cases.get(key.case)?.uuid))
    }

    /// Why what can only start on one instance is not started there, if anything is in its way.
    fn bound_reason(&self, uuid: ContainerUuid, case: &Case, instance: &InstanceId) -> Reason {
        let no_room = |why: &str| Reason::NoRoom {
            types: self
                .workers
                .get(instance)
                .and_then(|w| w.type_name.clone())
                .into_iter()
                .collect(),
            held: None,
            create_blocked_by: format!("it is bound to {instance}, {why}"),
        };
        let Some(booking) = case.booking else {
            return no_room("which is full");
        };
        let slot = self.slots.slot(booking.slot);
        let fits = slot.is_some_and(|slot| booking.need.fits_in(&slot.unused()));
        let waits = self
            .known(uuid)
            .is_some_and(|no| self.waits_for_another(no));
        if !self.limits.accept_new {
            Reason::NotAccepting
        } else if booking.over || !fits || waits {
            no_room("where room is kept for what may still start there")
        } else {
            Reason::Ready {
                instance: instance.clone(),
            }
        }
    }

    fn waiting_reason(&self, case: &Case) -> Option<Reason> {
        if let Some(booking) = &case.booking {
            let slot = self.slots.slot(booking.slot);
            let tier = slot.map_or(Tier::New, |s| s.base.tier);
            if case.entry_busy() && tier == Tier::Ready {
                return Some(Reason::CallInFlight);
            }
            let worker = match slot.map(|s| s.on) {
                Some(SlotOn::Worker(no)) => self.workers.worker(no),
                _ => None,
            };
            let instance = worker.map(|worker| worker.id.clone());
            if let (Some(instance), Tier::Ready) = (&instance, tier) {
                return Some(Reason::Ready {
                    instance: instance.clone(),
                });
            }
            let type_index = slot.and_then(|s| s.base.type_index);
            let t = self.config.types.get(type_index?)?;
            let view = worker.and_then(|worker| worker.view.as_ref());
            return Some(Reason::WaitingForBoot {
                type_name: t.name.clone(),
                last_error: view.and_then(|view| view.last_error.clone()),
                instance,
            });
        }
        if case.entry_busy() {
            return Some(Reason::CallInFlight);
        }
        let shape = self.shapes.shape(case.shape)?;
        // None yet if nothing was looked at since it came.
        let (_, stop) = shape.stop.as_ref()?;
        let mut reason = self.stop_reason(shape, stop);
        if let Reason::NoRoom { held, .. } = &mut reason {
            *held = self.workers.on_hold(shape.types()).cloned();
        }
        Some(reason)
    }
}

pub(crate) fn pausing(case: &Case, now: Instant) -> Reason {
    match case.ties.pauses.last(now) {
        Some(pause) => Reason::Pausing {
            remaining: pause.until.since(now),
            error: pause.error.clone(),
        },
        None => Reason::CallInFlight,
    }
}
