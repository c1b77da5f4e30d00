//! Why something waits, in full.

use std::collections::BTreeMap;

use longshore_types::{
    ContainerUuid, Explanation, IdleBehavior, InstanceId, InstanceVerdict, InstancesConsidered,
    Instant, Reason, Resources, TypeConsidered, TypeName, TypeVerdict, WorkerState,
    format_duration,
};

use crate::case::{Case, Standing};
use crate::core::Core;
use crate::ids::SlotNo;
use crate::shape::Shape;
use crate::slots::{Slot, SlotOn, Tier};
use crate::type_choice::{Fit, considered};

/// The most types that are shown.
const MAX_TYPES: usize = 12;
/// Of those that may not be used, the most that are shown.
const MAX_UNFIT: usize = 4;
/// The most groups of instances that are shown.
const MAX_GROUPS: usize = 16;
/// The most instances of a group that are named.
const MAX_EXAMPLES: usize = 3;

impl Core {
    /// Why a container waits, in full: what was considered for it, why each was rejected, what would
    /// unblock it, and what it has waited for; none if there is no entry of it, or if it came since
    /// all actions were drained.
    ///
    /// Looks at every instance and type, for one container at a time. Hold-offs are known to
    /// whoever sets the limits, and are for them to add.
    pub fn explain(&self, uuid: ContainerUuid, now: Instant) -> Option<Explanation> {
        let no = self.known(uuid)?;
        let case = self.cases.get(no)?;
        let entry = case.entry.as_ref()?;
        let shape = self.shapes.shape(case.shape)?;
        let reason = self.reason(uuid, now)?;
        let mut why = Explanation::new(uuid, entry.state, entry.priority, reason);
        why.position = self.position(uuid);
        why.in_line = self.line.len();
        why.needs = shape.need;
        self.consider_types(shape, &mut why, now);
        if matches!(case.standing, Standing::Waiting | Standing::Bound) {
            self.consider_instances(case, shape, &mut why);
        }
        (why.history, why.history_left_out) = self.history(no, now);
        why.unblock = self.unblock(&why, case.bound_to(), now);
        Some(why)
    }

    fn consider_types(&self, shape: &Shape, why: &mut Explanation, now: Instant) {
        let all = considered(&shape.request, &self.config);
        let count = all.len();
        let mut unfit = 0;
        for (index, fit) in all {
            if why.types.len() == MAX_TYPES {
                break;
            }
            let verdict = match fit {
                Fit::Eligible => self.eligible_verdict(index, now),
                _ if unfit == MAX_UNFIT => break,
                Fit::TooDear(percent) => TypeVerdict::TooDear { percent },
                Fit::Lacks(what) => TypeVerdict::Lacks { what },
            };
            unfit += usize::from(matches!(
                verdict,
                TypeVerdict::TooDear { .. } | TypeVerdict::Lacks { .. }
            ));
            let t = &self.config.types[index];
            why.types
                .push(TypeConsidered::new(t.name.clone(), t.price, verdict));
        }
        why.types_left_out = count - why.types.len();
    }

    fn eligible_verdict(&self, index: usize, now: Instant) -> TypeVerdict {
        let Some(cause) = self.create_blocked(index, now) else {
            return TypeVerdict::Usable;
        };
        let pause = self.type_pauses.get(&index).filter(|p| p.until > now);
        TypeVerdict::Blocked {
            why: cause.to_owned(),
            remaining: pause
                .filter(|_| self.gates[index].blocked.is_none())
                .map(|p| p.until.since(now)),
        }
    }

    fn consider_instances(&self, case: &Case, shape: &Shape, why: &mut Explanation) {
        let mut groups: BTreeMap<(usize, InstanceVerdict, Option<usize>), Vec<&InstanceId>> =
            BTreeMap::new();
        let mut counts: BTreeMap<(usize, InstanceVerdict, Option<usize>), usize> = BTreeMap::new();
        let promised = self.promised(self.soft.iter().copied());
        for (no, slot) in self.slots.iter() {
            let promised = promised.get(&no).map_or(Resources::NONE, |(_, sum)| *sum);
            let spare = slot.spare().saturating_sub(promised);
            let Some((verdict, id)) = self.instance_verdict((no, slot), spare, case, shape) else {
                continue;
            };
            let type_index = slot.base.type_index;
            let rank = shape
                .types()
                .iter()
                .position(|index| Some(*index) == type_index);
            let key = (rank.unwrap_or(usize::MAX), verdict, type_index);
            *counts.entry(key.clone()).or_default() += 1;
            let examples = groups.entry(key).or_default();
            examples.extend(id);
        }
        let total: usize = counts.values().sum();
        let mut shown = 0;
        for ((key, count), mut ids) in counts
            .into_iter()
            .zip(groups.into_values())
            .take(MAX_GROUPS)
        {
            let name = key.2.map(|index| self.config.types[index].name.clone());
            let mut group = InstancesConsidered::new(name, key.1);
            ids.sort_unstable();
            group.count = count;
            group.examples = ids.into_iter().take(MAX_EXAMPLES).cloned().collect();
            shown += count;
            why.instances.push(group);
        }
        why.instances_left_out = total - shown;
    }

    /// What speaks for a slot with so much to spare, or against it; none if there is no instance yet.
    fn instance_verdict(
        &self,
        (no, slot): (SlotNo, &Slot),
        spare: Resources,
        case: &Case,
        shape: &Shape,
    ) -> Option<(InstanceVerdict, Option<&InstanceId>)> {
        let worker = match slot.on {
            SlotOn::New => return None,
            SlotOn::Pending(_) => None,
            SlotOn::Worker(worker) => Some(self.workers.worker(worker)?),
        };
        let id = worker.map(|worker| &worker.id);
        if case.booking.is_some_and(|booking| booking.slot == no) {
            return Some((InstanceVerdict::Chosen, id));
        }
        let bound = case.bound_to();
        if bound.is_some() && id != bound {
            return None;
        }
        let view = worker.and_then(|worker| worker.view.as_ref());
        let going = worker.is_some_and(|worker| worker.giving_back);
        let eligible = slot
            .base
            .type_index
            .is_some_and(|index| shape.types().contains(&index));
        let verdict = match view.map(|view| (view.state, view.idle_behavior)) {
            Some((WorkerState::Shutdown, _)) => InstanceVerdict::ShuttingDown,
            _ if going => InstanceVerdict::ShuttingDown,
            _ if bound.is_some() => self.room_verdict((slot, id), spare, case, shape),
            _ if !eligible => InstanceVerdict::WrongType,
            Some((_, IdleBehavior::Hold)) => InstanceVerdict::Held,
            Some((_, IdleBehavior::Drain)) => InstanceVerdict::Draining,
            _ => self.room_verdict((slot, id), spare, case, shape),
        };
        Some((verdict, id))
    }

    fn room_verdict(
        &self,
        (slot, id): (&Slot, Option<&InstanceId>),
        spare: Resources,
        case: &Case,
        shape: &Shape,
    ) -> InstanceVerdict {
        let kept_for = id.and_then(|id| self.reservations.kept_for(id));
        let kept_for = kept_for.filter(|container| *container != case.uuid);
        if let (true, Some(container)) = (slot.reserved, kept_for) {
            return InstanceVerdict::Reserved { container };
        }
        if let Some(lacking) = shape.need.lacking_in(&spare) {
            return InstanceVerdict::Full { lacking };
        }
        if id.is_some() && case.ties.avoid.as_ref() == id {
            return InstanceVerdict::Avoided;
        }
        if slot.base.tier == Tier::Ready {
            InstanceVerdict::HasRoom
        } else {
            InstanceVerdict::Booting
        }
    }

    /// What would unblock it, the easiest first.
    fn unblock(&self, why: &Explanation, bound: Option<&InstanceId>, now: Instant) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match &why.reason {
            Reason::NotWaiting => Vec::new(),
            Reason::CallInFlight => one("nothing to do: it goes on when the controller answers"),
            Reason::PriorityZero => one("raise its priority to 1 or more"),
            Reason::Starting { instance } => {
                vec![format!(
                    "nothing to do: the runner on {instance} has to answer"
                )]
            }
            Reason::WaitingForBoot { instance: None, .. } => {
                one("nothing to do: the provider has to make the instance")
            }
            Reason::WaitingForBoot {
                instance: Some(instance),
                last_error,
                ..
            } => {
                let mut ways = vec![format!(
                    "nothing to do: {instance} has to answer and to pass its boot probe"
                )];
                if let Some(error) = last_error {
                    ways.push(format!(
                        "if that lasts, look at what went wrong there last: {error}"
                    ));
                }
                ways
            }
            Reason::Ready { .. } => one("nothing to do: it is started at once"),
            Reason::MayRunOn { instance, unblock } => {
                let mut ways = vec![unblock.clone()];
                ways.extend(instance.as_ref().map(|instance| {
                    format!("or destroy {instance}, if nothing on it is of value")
                }));
                ways
            }
            Reason::Stopping { instance } => vec![format!(
                "nothing to do: the process is told to end again and again, and if it does not, \
                 {instance} is drained and destroyed"
            )],
            Reason::NoRoom { .. } => match bound {
                Some(instance) => vec![
                    format!("wait until something on {instance} ends"),
                    format!("or destroy {instance}, if nothing on it is of value"),
                ],
                None => self.unblock_room(why, now),
            },
            Reason::Unsatisfiable { .. } => one(
                "ask for less, or configure an instance type that has what it needs, and submit it \
                 again",
            ),
            Reason::ContainerLimit { .. } => vec![format!(
                "wait until one of the {} containers that run or are being started ends, or until \
                 the limit is raised",
                self.active
            )],
            Reason::SupervisorLimit { .. } => vec![
                format!(
                    "wait until one of the {} supervisors that run or are being started ends",
                    self.active_supervisors
                ),
                "raise SupervisorFraction, or add room for more containers".to_owned(),
            ],
            Reason::NotAccepting => one(
                "nothing is begun before the queue and the instances have been read, nor while \
                     the dispatcher ends: if it ends, start it again",
            ),
            Reason::Pausing { remaining, error } => vec![
                format!(
                    "nothing to do: it is tried again in {}",
                    format_duration(*remaining)
                ),
                format!("if it fails again, mend the cause: {error}"),
            ],
        }
    }

    fn unblock_room(&self, why: &Explanation, now: Instant) -> Vec<String> {
        let mut ways = Vec::new();
        let full = why.instances.iter().filter(|group| {
            matches!(
                group.verdict,
                InstanceVerdict::Full { .. } | InstanceVerdict::Reserved { .. }
            )
        });
        let full: usize = full.map(|group| group.count).sum();
        if full > 0 {
            let which = if full == 1 {
                "the instance".to_owned()
            } else {
                format!("one of the {full} instances")
            };
            ways.push(format!(
                "wait until something ends on {which} that could run it"
            ));
        }
        let held: Vec<&InstancesConsidered> = why
            .instances
            .iter()
            .filter(|group| group.verdict == InstanceVerdict::Held)
            .collect();
        if let Some(example) = held.iter().find_map(|group| group.examples.first()) {
            ways.push(format!(
                "let {example} take containers again, which is on hold"
            ));
        }
        let blocked = why.types.iter().find_map(|t| match &t.verdict {
            TypeVerdict::Blocked { why, .. } => Some((&t.name, why)),
            _ => None,
        });
        if let Some((name, cause)) = blocked {
            ways.push(format!("a new {name} instance is not created: {cause}"));
        }
        // One that could not be created either is no way out.
        let can_be_created = |name: &TypeName| {
            let index = self.type_index(name);
            index.is_some_and(|index| self.create_blocked(index, now).is_none())
        };
        let dear = why.types.iter().find_map(|t| match t.verdict {
            TypeVerdict::TooDear { percent } if can_be_created(&t.name) => Some((&t.name, percent)),
            _ => None,
        });
        if let Some((name, percent)) = dear {
            ways.push(format!(
                "raise MaximumPriceFactor: {name} would fit, and is {percent:.0} % dearer than it \
                 allows"
            ));
        }
        ways
    }
}
