//! What a container has waited for, with times.

use std::collections::VecDeque;
use std::time::Duration;

use longshore_types::{InstanceId, Instant, Reason, Spell};

use crate::case::{Case, Standing};
use crate::core::Core;
use crate::ids::CaseNo;
use crate::shape::{Shape, Stop};
use crate::slots::{SlotOn, Tier};

/// Shorter spells are not kept: nobody wants to know of each call to the controller.
const SHORT: Duration = Duration::from_millis(100);
/// The most spells that are kept of one container.
const MAX_SPELLS: usize = 16;
/// The most changes that are kept of why a shape gets no more room.
const MAX_STOPS: usize = 32;

/// What a container waits for, in little memory: most wait in line, and their shape knows why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Nothing: it runs or has ended.
    Nothing,
    /// Room; the stops of its shape say why there is none.
    Line,
    Call,
    Starting(Box<InstanceId>),
    Boot {
        type_index: u32,
        instance: Option<Box<InstanceId>>,
    },
    Other(Box<Reason>),
}

/// What a container waits for, since when, and what it waited for before.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    what: What,
    since: Instant,
    kept: Option<Box<Kept>>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    spells: VecDeque<Past>,
    forgotten: usize,
}

#[derive(Clone, Debug)]
struct Past {
    reason: Reason,
    from: Instant,
    to: Instant,
}

impl Log {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            what: What::Line,
            since: now,
            kept: None,
        }
    }

    fn keep(&mut self, spells: Vec<Past>) {
        for spell in spells {
            let kept = self.kept.get_or_insert_default();
            add(&mut kept.spells, spell);
            if kept.spells.len() > MAX_SPELLS {
                kept.spells.pop_front();
                kept.forgotten += 1;
            }
        }
    }
}

/// Adds a spell; one that goes on with the same makes the last one longer.
fn add(spells: &mut VecDeque<Past>, new: Past) {
    match spells.back_mut() {
        Some(last) if new.from.since(last.to) <= SHORT && is_same(&last.reason, &new.reason) => {
            last.to = new.to;
            last.reason = new.reason;
        }
        _ => spells.push_back(new),
    }
}

/// Whether two reasons are the same but for what changes all the time.
fn is_same(a: &Reason, b: &Reason) -> bool {
    match (a, b) {
        (
            Reason::WaitingForBoot { instance: a, .. },
            Reason::WaitingForBoot { instance: b, .. },
        ) => a == b,
        (Reason::Pausing { error: a, .. }, Reason::Pausing { error: b, .. }) => a == b,
        (Reason::ContainerLimit { .. }, Reason::ContainerLimit { .. })
        | (Reason::SupervisorLimit { .. }, Reason::SupervisorLimit { .. }) => true,
        (
            Reason::NoRoom {
                types: a,
                create_blocked_by: why_a,
                ..
            },
            Reason::NoRoom {
                types: b,
                create_blocked_by: why_b,
                ..
            },
        ) => (a, why_a) == (b, why_b),
        _ => a == b,
    }
}

/// Why the containers of a shape got no more room, since when; none: they got it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops(VecDeque<(Instant, Option<Stop>)>);

impl Stops {
    pub(crate) fn note(&mut self, stop: Option<&Stop>, now: Instant) {
        if self.0.back().and_then(|(_, last)| last.as_ref()) == stop {
            return;
        }
        self.0.push_back((now, stop.cloned()));
        if self.0.len() > MAX_STOPS {
            self.0.pop_front();
        }
    }
}

impl Core {
    /// Takes note of what a container waits for from now on.
    pub(crate) fn note(&mut self, no: CaseNo, what: What, now: Instant) {
        let Some(case) = self.cases.get_mut(no) else {
            return;
        };
        if case.log.what == what {
            return;
        }
        let since = case.log.since;
        let past = if now.since(since) < SHORT {
            Vec::new()
        } else {
            self.past(no, now)
        };
        if let Some(case) = self.cases.get_mut(no) {
            case.log.keep(past);
            case.log.what = what;
            case.log.since = now;
        }
    }

    /// The same after a container was judged. Who waits for a place is noted after the pass.
    pub(crate) fn note_standing(&mut self, no: CaseNo, now: Instant) {
        let Some(case) = self.cases.get(no) else {
            return;
        };
        if let Some(what) = standing(case, now) {
            self.note(no, what, now);
        }
    }

    /// The same once a pass has given out the room: `before` had some until then.
    pub(crate) fn note_places(&mut self, before: Vec<CaseNo>, now: Instant) {
        for no in before {
            let waits = self
                .cases
                .get(no)
                .is_some_and(|case| case.booking.is_none() && case.standing == Standing::Waiting);
            if waits {
                self.note(no, What::Line, now);
            }
        }
        for at in 0..self.soft.len() {
            self.note_boot(self.soft[at], now);
        }
    }

    /// The same if it waits for a boot.
    pub(crate) fn note_boot(&mut self, no: CaseNo, now: Instant) {
        if let Some(boot) = self.boot(no) {
            self.note(no, boot, now);
        }
    }

    /// The boot that a container waits for, none if it has another place or none.
    fn boot(&self, no: CaseNo) -> Option<What> {
        let booking = self.cases.get(no)?.booking?;
        let slot = self.slots.slot(booking.slot)?;
        if slot.base.tier == Tier::Ready {
            return None;
        }
        let instance = match slot.on {
            SlotOn::Worker(worker) => {
                let worker = self.workers.worker(worker);
                worker.map(|worker| Box::new(worker.id.clone()))
            }
            SlotOn::Pending(_) | SlotOn::New => None,
        };
        Some(What::Boot {
            type_index: u32::try_from(slot.base.type_index?).ok()?,
            instance,
        })
    }

    /// What it has waited for since the last change, until now.
    fn past(&self, no: CaseNo, now: Instant) -> Vec<Past> {
        let Some(case) = self.cases.get(no) else {
            return Vec::new();
        };
        let from = case.log.since;
        let one = |reason| {
            vec![Past {
                reason,
                from,
                to: now,
            }]
        };
        match &case.log.what {
            What::Nothing => one(Reason::NotWaiting),
            What::Line => self.in_line(case, from, now),
            What::Call => one(Reason::CallInFlight),
            What::Starting(instance) => one(Reason::Starting {
                instance: (**instance).clone(),
            }),
            What::Boot {
                type_index,
                instance,
            } => self
                .config
                .types
                .get(*type_index as usize)
                .map_or_else(Vec::new, |t| {
                    one(Reason::WaitingForBoot {
                        type_name: t.name.clone(),
                        instance: instance.as_deref().cloned(),
                        last_error: None,
                    })
                }),
            What::Other(reason) => one((**reason).clone()),
        }
    }

    /// Why there was no room from one moment to another.
    fn in_line(&self, case: &Case, from: Instant, to: Instant) -> Vec<Past> {
        let Some(shape) = self.shapes.shape(case.shape) else {
            return Vec::new();
        };
        let stops = &shape.stops.0;
        let ends = stops.iter().skip(1).map(|(at, _)| *at).chain([to]);
        let spells = stops.iter().zip(ends).filter_map(|((begin, stop), end)| {
            let (from, to) = ((*begin).max(from), end.min(to));
            let reason = self.stop_reason(shape, stop.as_ref()?);
            (to > from && to.since(from) >= SHORT).then_some(Past { reason, from, to })
        });
        spells.collect()
    }

    pub(crate) fn stop_reason(&self, shape: &Shape, stop: &Stop) -> Reason {
        match stop {
            Stop::NoRoom(why) => Reason::NoRoom {
                types: shape
                    .types()
                    .iter()
                    .map(|&index| self.config.types[index].name.clone())
                    .collect(),
                // It says what was so, and what is on hold is known of the present.
                held: None,
                create_blocked_by: why.clone(),
            },
            Stop::Supervisors(limit) => Reason::SupervisorLimit { limit: *limit },
            Stop::Containers(limit) => Reason::ContainerLimit { limit: *limit },
            Stop::NotAccepting => Reason::NotAccepting,
        }
    }

    /// What a container has waited for, oldest first, and how many older spells were forgotten.
    pub(crate) fn history(&self, no: CaseNo, now: Instant) -> (Vec<Spell>, usize) {
        let Some(case) = self.cases.get(no) else {
            return (Vec::new(), 0);
        };
        let kept = case.log.kept.as_deref().cloned().unwrap_or_default();
        let mut spells = kept.spells;
        for spell in self.past(no, now) {
            add(&mut spells, spell);
        }
        let told = spells.back().map_or(Instant::ZERO, |last| last.to);
        if told < now
            && let Some(reason) = self.reason(case.uuid, now)
        {
            let from = told.max(case.log.since);
            add(
                &mut spells,
                Past {
                    reason,
                    from,
                    to: now,
                },
            );
        }
        let told = |past: Past| {
            let (ago, lasted) = (now.since(past.from), past.to.since(past.from));
            Spell::new(past.reason, ago, lasted)
        };
        (spells.into_iter().map(told).collect(), kept.forgotten)
    }
}

/// It can be started on one instance only, where there is no room.
pub(crate) fn bound_to_full(instance: &InstanceId) -> Reason {
    Reason::NoRoom {
        types: Vec::new(),
        held: None,
        create_blocked_by: format!("it is bound to {instance}, which is full"),
    }
}

/// What follows from the verdict, none if the room decides.
fn standing(case: &Case, now: Instant) -> Option<What> {
    if let Some(instance) = case.starting_on() {
        return Some(What::Starting(Box::new(instance.clone())));
    }
    Some(match &case.standing {
        Standing::Settled(reason) if **reason == Reason::NotWaiting => What::Nothing,
        Standing::Settled(reason) => match &**reason {
            Reason::Starting { instance } => What::Starting(Box::new(instance.clone())),
            _ => What::Other(reason.clone()),
        },
        Standing::Calling => What::Call,
        Standing::Paused => What::Other(Box::new(crate::explain::pausing(case, now))),
        Standing::Bound if case.booking.is_none() => {
            What::Other(Box::new(bound_to_full(case.bound_to()?)))
        }
        Standing::Bound | Standing::Absent => return None,
        Standing::Waiting => {
            let booting = matches!(case.log.what, What::Boot { .. });
            if booting || case.booking.is_some() {
                return None;
            }
            What::Line
        }
    })
}
