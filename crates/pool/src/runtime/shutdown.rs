//! How a pool ends, and what it leaves behind.

use std::fmt;

use longshore_types::{ContainerUuid, HeldPhase, InstanceId, PendingView};

use super::performer::Performer;
use crate::core::Core;
use crate::effect::{Effect, EffectAction};

/// The most lines about effects in one [`Shutdown`].
const MAX_ABANDONED: usize = 1000;

/// What becomes of the instances when a pool ends.
///
/// ```
/// use longshore_pool::runtime::Ending;
/// assert_ne!(Ending::Keep, Ending::Destroy);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two things that can be done")]
pub enum Ending {
    /// They stay, with what runs on them; a later pool of the same instance set ID takes them over.
    Keep,
    /// They are destroyed, whatever runs there and whatever their idle behaviour is; those of
    /// creates that are under way too, as far as the deadline permits.
    Destroy,
}

/// What a pool left behind when it ended.
///
/// ```
/// use longshore_pool::runtime::Shutdown;
/// let nothing = Shutdown::default();
/// assert!(nothing.is_clean());
/// assert_eq!(nothing.to_string(), "nothing is left");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Effects that had not ended when the deadline came, a line each, at most 1000. Nobody knows
    /// what became of them. Reports that wait for a change are not waited for, nor told of here.
    pub abandoned: Vec<String>,
    /// Instances that may still exist.
    pub instances: Vec<InstanceId>,
    /// Creates whose instance is not known: it may exist, or come to exist.
    pub pendings: Vec<PendingView>,
    /// What may still run, and where.
    pub running: Vec<(ContainerUuid, InstanceId)>,
    /// Whether it never came to a complete listing, so that there may be instances of an earlier
    /// pool which are not among the above. With [`Ending::Destroy`] there must have been two, far
    /// enough apart for what lags behind to appear
    /// ([`Config::consistency_grace`](crate::Config::consistency_grace)).
    pub never_listed: bool,
    /// What was found to be wrong with the pool itself, if anything was. A bug.
    pub error: Option<String>,
}

impl Shutdown {
    /// Whether nothing at all is left.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn broken(error: impl Into<String>) -> Self {
        Self {
            never_listed: true,
            error: Some(error.into()),
            ..Self::default()
        }
    }

    pub(super) fn of(core: &Core, performer: &Performer) -> Self {
        let mut running = Vec::new();
        let mut instances = Vec::new();
        for worker in core.workers() {
            let held = worker.containers.iter();
            let may_run = held.filter(|held| HeldPhase::may_run(&held.phase));
            running.extend(may_run.map(|held| (held.uuid, worker.instance.clone())));
            instances.push(worker.instance);
        }
        Self {
            abandoned: performer
                .effects()
                .filter(|effect| !waits_for_change(&effect.action))
                .take(MAX_ABANDONED)
                .map(describe)
                .collect(),
            instances,
            pendings: core.pendings().collect(),
            running,
            never_listed: !core.is_listed(),
            error: None,
        }
    }
}

/// Whether nothing is lost when it is dropped: it waits to be told of something.
fn waits_for_change(action: &EffectAction) -> bool {
    matches!(action, EffectAction::Report(_, options) if !options.wait.is_zero())
}

fn describe(effect: &Effect) -> String {
    let kind = effect.action.kind();
    match effect.action.host() {
        Some(host) => format!("{kind} on {}", host.instance),
        None => kind.to_owned(),
    }
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("nothing is left");
        }
        let types = self.pendings.iter().map(|pending| &pending.type_name);
        let running = self
            .running
            .iter()
            .map(|(uuid, on)| format!("{uuid} on {on}"));
        let never_listed =
            "instances were not listed often enough to be sure that there are no more";
        let parts = [
            listed("may still exist", self.instances.iter()),
            listed("was asked for and may come to exist", types),
            listed("may still run", running),
            listed("had not ended", self.abandoned.iter()),
            self.never_listed.then(|| never_listed.to_owned()),
            self.error.clone(),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join("; "))
    }
}

/// Some names, how many more there are, and what is said of them; none if there are no names.
fn listed(what: &str, names: impl ExactSizeIterator<Item: fmt::Display>) -> Option<String> {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<String> = names.take(SHOWN).map(|name| name.to_string()).collect();
    match (shown.len(), more) {
        (0, _) => None,
        (_, 0) => Some(format!("{} {what}", shown.join(", "))),
        (_, more) => Some(format!("{} and {more} more {what}", shown.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_named_and_what_is_not_there_is_left_out() {
        let mut left = Shutdown {
            instances: vec!["vm-1".into(), "vm-2".into()],
            abandoned: vec!["report on vm-1".into()],
            ..Shutdown::default()
        };
        assert_eq!(
            left.to_string(),
            "vm-1, vm-2 may still exist; report on vm-1 had not ended"
        );
        left = Shutdown {
            instances: (0..8).map(|n| format!("vm-{n}").as_str().into()).collect(),
            never_listed: true,
            ..Shutdown::default()
        };
        assert_eq!(
            left.to_string(),
            "vm-0, vm-1, vm-2, vm-3, vm-4 and 3 more may still exist; instances were not listed \
             often enough to be sure that there are no more"
        );
    }
}
