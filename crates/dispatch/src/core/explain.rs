//! Why one container waits, in full: what the scheduler says, and what the pool knows beyond that.

use longshore_pool::{HoldOffView, Refusal};
use longshore_types::{
    ContainerUuid, Estimate, Explanation, HoldOff, IdleBehavior, Instant, Reason, TypeName,
    TypeVerdict, WorkerState, WorkerView, format_duration,
};

use super::Core;

impl Core {
    /// Why a container waits, in full; none if it is not in the queue as far as is known.
    ///
    /// Looks at every instance and type, for one container at a time.
    pub fn explain(&self, uuid: ContainerUuid, now: Instant) -> Option<Explanation> {
        let mut why = self.scheduler.explain(uuid, now)?;
        let looks_for_room = matches!(why.reason, Reason::NoRoom { .. });
        let mut refusals: Vec<(TypeName, Refusal)> = Vec::new();
        for considered in &mut why.types {
            let name = considered.name.clone();
            if let TypeVerdict::Blocked { why, remaining } = &mut considered.verdict
                && let Some(refusal) = self.pool.create_refusal(&name, now)
            {
                *why = refusal.cause();
                if let Refusal::HeldOff {
                    remaining: left, ..
                } = &refusal
                {
                    *remaining = Some(*left);
                }
                refusals.push((name, refusal));
            }
        }
        why.hold_offs = self.hold_offs_of(&why, now);
        if looks_for_room {
            self.name_what_blocks(&refusals, &mut why);
        }
        if let Some(estimate) = self.boot_estimate(&why, now) {
            why.estimate = Some(estimate);
        }
        Some(why)
    }

    /// What is held off that concerns the types that fit.
    fn hold_offs_of(&self, why: &Explanation, now: Instant) -> Vec<HoldOff> {
        let mut found: Vec<HoldOff> = Vec::new();
        let fits = |verdict: &TypeVerdict| {
            matches!(verdict, TypeVerdict::Usable | TypeVerdict::Blocked { .. })
        };
        for considered in why.types.iter().filter(|t| fits(&t.verdict)) {
            for view in self.pool.hold_offs_of(&considered.name, now) {
                let hold = told(&view, now);
                if !found.contains(&hold) {
                    found.push(hold);
                }
            }
        }
        found
    }

    /// Says of each thing that keeps a further instance from being created what ends it, in place
    /// of what the scheduler knew of it.
    fn name_what_blocks(&self, refusals: &[(TypeName, Refusal)], why: &mut Explanation) {
        let Some((first, _)) = refusals.first() else {
            return;
        };
        let general = format!("a new {first} instance is not created");
        let at = why.unblock.iter().position(|way| way.starts_with(&general));
        let at = at.unwrap_or(why.unblock.len());
        let mut ways: Vec<String> = Vec::new();
        for (name, refusal) in refusals {
            let way = self.way_out(name, refusal);
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        why.unblock
            .splice(at..(at + 1).min(why.unblock.len()), ways);
    }

    fn way_out(&self, name: &TypeName, refusal: &Refusal) -> String {
        match refusal {
            Refusal::MaxInstances { limit } => format!(
                "MaxInstances {limit} is reached: raise it, or {}",
                self.wait_for_one_less()
            ),
            Refusal::DriverLimit { .. } => format!("{refusal}: {}", self.wait_for_one_less()),
            Refusal::PriceCeiling {
                price,
                spent,
                ceiling,
                ..
            } => format!(
                "the price ceiling of {ceiling} per hour is reached ({spent} are spent, a {name} \
                 instance costs {price}): raise it, or wait until an instance is given back"
            ),
            Refusal::CreatesInFlight { limit } => {
                format!("nothing to do: {limit} creates are under way, and one of them has to end")
            }
            Refusal::HeldOff {
                what,
                quota,
                remaining,
                cause,
            } => {
                let left = format_duration(*remaining);
                if *quota {
                    format!(
                        "the provider's quota for {what} is reached ({cause}): have it raised, or \
                         wait until an instance is given back, or for {left} until it is tried \
                         again"
                    )
                } else {
                    format!("wait for {left}, then {what} is tried again ({cause})")
                }
            }
            Refusal::Trial { what, cause } => format!(
                "nothing to do: a trial create for {what} is under way, and more follow when it \
                 succeeds ({cause})"
            ),
            other => other.to_string(),
        }
    }

    fn wait_for_one_less(&self) -> String {
        match self.pool.workers().filter(is_going).count() {
            0 => "wait until one is given back".to_owned(),
            1 => "wait for the one that is on its way out".to_owned(),
            n => format!("wait for one of the {n} that are on their way out"),
        }
    }

    fn boot_estimate(&self, why: &Explanation, now: Instant) -> Option<Estimate> {
        let Reason::WaitingForBoot {
            type_name,
            instance: Some(instance),
            ..
        } = &why.reason
        else {
            return None;
        };
        self.boots.estimate(type_name, instance, now)
    }
}

fn told(view: &HoldOffView, now: Instant) -> HoldOff {
    let mut hold = HoldOff::new(view.what.clone(), view.cause.clone(), view.until.since(now));
    hold.is_quota = view.is_quota;
    hold
}

/// Whether an instance is given back sooner or later.
fn is_going(view: &WorkerView) -> bool {
    view.state == WorkerState::Shutdown || view.idle_behavior == IdleBehavior::Drain
}
