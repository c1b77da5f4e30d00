//! Why one container waits, in full.

mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::{option_seconds, seconds};
use crate::{
    Container, ContainerState, ContainerUuid, InstanceId, Price, Reason, Resource, Resources,
    TypeName,
};

/// Why one container waits: what was considered for it, why each was rejected, and what would
/// unblock it.
///
/// Everything in it is bounded: what is left out is counted. Durations count from the moment at
/// which it was asked for, in seconds on the wire. [`std::fmt::Display`] renders all of it as some
/// lines of text.
///
/// ```
/// use longshore_types::{ContainerState, Explanation, Reason, Resources};
/// let uuid = "zzzzz-dz642-0123456789abcde".parse()?;
/// let mut why = Explanation::new(uuid, ContainerState::Queued, 500, Reason::CallInFlight);
/// (why.position, why.in_line) = (Some(3), 7);
/// assert_eq!(why.sentence(), "3rd of 7 in line: waiting for the controller to answer");
/// assert_eq!((why.needs, why.estimate), (Resources::NONE, None));
/// # Ok::<(), longshore_types::ParseUuidError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// Which container.
    pub uuid: ContainerUuid,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Its priority.
    pub priority: i64,
    /// Its place in line, from 1; none if it is not in line.
    pub position: Option<usize>,
    /// How many are in line.
    pub in_line: usize,
    /// Why it is not being started.
    pub reason: Reason,
    /// What it needs of an instance: what it asks for, and what is granted beyond that.
    pub needs: Resources,
    /// The instance types: those that may be used, best first, then those that come nearest.
    pub types: Vec<TypeConsidered>,
    /// How many more types there are.
    pub types_left_out: usize,
    /// The instances that there are, in groups. Empty if no place is looked for.
    pub instances: Vec<InstancesConsidered>,
    /// How many more instances there are.
    pub instances_left_out: usize,
    /// What is held off that concerns the types that may be used.
    pub hold_offs: Vec<HoldOff>,
    /// What would unblock it, a sentence each, the easiest first. Empty if nothing waits.
    pub unblock: Vec<String>,
    /// When it will start, where that can be said honestly.
    pub estimate: Option<Estimate>,
    /// What it has waited for, oldest first, the present last.
    pub history: Vec<Spell>,
    /// How many older spells were forgotten.
    pub history_left_out: usize,
}

impl Explanation {
    /// One of which nothing but the reason is known.
    pub fn new(uuid: ContainerUuid, state: ContainerState, priority: i64, reason: Reason) -> Self {
        Self {
            uuid,
            state,
            priority,
            position: None,
            in_line: 0,
            reason,
            needs: Resources::NONE,
            types: Vec::new(),
            types_left_out: 0,
            instances: Vec::new(),
            instances_left_out: 0,
            hold_offs: Vec::new(),
            unblock: Vec::new(),
            estimate: None,
            history: Vec::new(),
            history_left_out: 0,
        }
    }

    /// What the record of a container says by itself, for those that no dispatcher knows: it has
    /// ended, or its priority is 0. None if it is to run, so that a dispatcher will read it.
    ///
    /// ```
    /// use longshore_types::{Container, Explanation, ResourceRequest};
    /// let uuid = "zzzzz-dz642-0123456789abcde".parse()?;
    /// let mut container = Container::queued(uuid, ResourceRequest::default());
    /// assert_eq!(Explanation::of_record(&container), None);
    /// container.priority = 0;
    /// let why = Explanation::of_record(&container).unwrap();
    /// assert_eq!(why.unblock, ["raise its priority to 1 or more"]);
    /// # Ok::<(), longshore_types::ParseUuidError>(())
    /// ```
    pub fn of_record(record: &Container) -> Option<Self> {
        let of = |reason| Self::new(record.uuid, record.state, record.priority, reason);
        if record.state.is_final() {
            return Some(of(Reason::NotWaiting));
        }
        if record.state != ContainerState::Queued || record.priority >= 1 {
            return None;
        }
        let mut why = of(Reason::PriorityZero);
        why.unblock = vec!["raise its priority to 1 or more".to_owned()];
        Some(why)
    }

    /// The reason as one plain sentence, with the place in line.
    pub fn sentence(&self) -> String {
        self.reason
            .sentence(self.state, self.position, self.in_line)
    }
}

/// An instance type that was considered for a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TypeConsidered {
    /// Its name.
    pub name: TypeName,
    /// Its price per hour.
    pub price: Price,
    /// What speaks for it or against it.
    #[serde(flatten)]
    pub verdict: TypeVerdict,
}

impl TypeConsidered {
    /// A type and what was found.
    ///
    /// ```
    /// use longshore_types::{Price, TypeConsidered, TypeVerdict};
    /// let considered = TypeConsidered::new("small".into(), Price::default(), TypeVerdict::Usable);
    /// assert_eq!(considered.verdict.to_string(), "fits, and more can be created");
    /// ```
    pub fn new(name: TypeName, price: Price, verdict: TypeVerdict) -> Self {
        Self {
            name,
            price,
            verdict,
        }
    }
}

/// What speaks for an instance type, or against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
#[non_exhaustive]
pub enum TypeVerdict {
    /// It fits, and an instance of it can be created.
    Usable,
    /// It fits, and no further instance of it is created at the moment.
    Blocked {
        /// Why, as one clause.
        why: String,
        /// How long still, if that is known.
        #[serde(with = "option_seconds")]
        remaining: Option<Duration>,
    },
    /// It would fit and costs more than `MaximumPriceFactor` allows.
    TooDear {
        /// By how many percent it is above the highest price that is allowed.
        percent: f64,
    },
    /// It lacks something.
    Lacks {
        /// What, a clause each.
        what: Vec<String>,
    },
}

impl std::fmt::Display for TypeVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usable => f.write_str("fits, and more can be created"),
            Self::Blocked { why, remaining } => {
                write!(f, "fits, but no further one is created: {why}")?;
                match remaining {
                    Some(time) => write!(f, " (for another {})", crate::format_duration(*time)),
                    None => Ok(()),
                }
            }
            Self::TooDear { percent } => write!(
                f,
                "would fit, but is {percent:.0} % dearer than MaximumPriceFactor allows"
            ),
            Self::Lacks { what } => f.write_str(&what.join(", ")),
        }
    }
}

/// Instances of one type of which the same is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstancesConsidered {
    /// Their type, none if it is not configured any more.
    pub type_name: Option<TypeName>,
    /// What speaks for them or against them.
    #[serde(flatten)]
    pub verdict: InstanceVerdict,
    /// How many there are.
    pub count: usize,
    /// Some of them.
    pub examples: Vec<InstanceId>,
}

impl InstancesConsidered {
    /// A group of which no instance is known yet.
    ///
    /// ```
    /// use longshore_types::{InstanceVerdict, InstancesConsidered};
    /// let mut group = InstancesConsidered::new(Some("small".into()), InstanceVerdict::Draining);
    /// (group.count, group.examples) = (1, vec!["i-1".into()]);
    /// assert_eq!(group.verdict.to_string(), "drained, takes nothing new");
    /// ```
    pub fn new(type_name: Option<TypeName>, verdict: InstanceVerdict) -> Self {
        Self {
            type_name,
            verdict,
            count: 0,
            examples: Vec::new(),
        }
    }
}

/// What speaks for an instance, or against it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
#[non_exhaustive]
pub enum InstanceVerdict {
    /// The container has its place here.
    Chosen,
    /// There is room.
    HasRoom,
    /// There is room once it has booted.
    Booting,
    /// Too little of something is left.
    Full {
        /// What.
        lacking: Resource,
    },
    /// It is kept free for another container.
    Reserved {
        /// For whom.
        container: ContainerUuid,
    },
    /// The last start of the container failed here.
    Avoided,
    /// Its type does not fit, or costs too much.
    WrongType,
    /// It was put on hold.
    Held,
    /// It takes nothing new and is given back once it is empty.
    Draining,
    /// It is being destroyed.
    ShuttingDown,
}

impl std::fmt::Display for InstanceVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chosen => f.write_str("has the place of this container"),
            Self::HasRoom => f.write_str("has room"),
            Self::Booting => f.write_str("has room once it has booted"),
            Self::Full { lacking } => write!(f, "has not enough {lacking} left"),
            Self::Reserved { container } => write!(f, "kept free for {container}"),
            Self::Avoided => f.write_str("avoided: the last start of this container failed there"),
            Self::WrongType => f.write_str("of a type that does not fit or costs too much"),
            Self::Held => f.write_str("on hold, takes nothing new"),
            Self::Draining => f.write_str("drained, takes nothing new"),
            Self::ShuttingDown => f.write_str("being destroyed"),
        }
    }
}

/// A kind of action that is not tried for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HoldOff {
    /// What is held off, as a phrase.
    pub what: String,
    /// The failure that led to it, one line.
    pub cause: String,
    /// How long still.
    #[serde(with = "seconds")]
    pub remaining: Duration,
    /// Whether it is for lack of quota, so that one instance less ends it.
    pub is_quota: bool,
}

impl HoldOff {
    /// What is held off, why, and for how long still.
    ///
    /// ```
    /// use std::time::Duration;
    /// use longshore_types::HoldOff;
    /// let hold = HoldOff::new("type small", "no capacity", Duration::from_secs(40));
    /// assert!(!hold.is_quota);
    /// ```
    pub fn new(what: impl Into<String>, cause: impl Into<String>, remaining: Duration) -> Self {
        Self {
            what: what.into(),
            cause: cause.into(),
            remaining,
            is_quota: false,
        }
    }
}

/// When a container will start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Estimate {
    /// In how long.
    #[serde(with = "seconds")]
    pub remaining: Duration,
    /// What that is concluded from, as one clause.
    pub basis: String,
}

impl Estimate {
    /// In how long, and from what that is concluded.
    ///
    /// ```
    /// use std::time::Duration;
    /// let estimate = longshore_types::Estimate::new(Duration::from_secs(20), "earlier boots");
    /// assert_eq!(estimate.basis, "earlier boots");
    /// ```
    pub fn new(remaining: Duration, basis: impl Into<String>) -> Self {
        Self {
            remaining,
            basis: basis.into(),
        }
    }
}

/// A time during which a container waited for one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spell {
    /// What it waited for.
    pub reason: Reason,
    /// How long ago that began.
    #[serde(with = "seconds")]
    pub ago: Duration,
    /// How long it lasted, so far.
    #[serde(with = "seconds")]
    pub lasted: Duration,
}

impl Spell {
    /// A reason, how long ago it began, and how long it lasted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use longshore_types::{Reason, Spell};
    /// let seconds = Duration::from_secs;
    /// let reason = Reason::WaitingForBoot {
    ///     type_name: "small".into(),
    ///     instance: Some("i-123".into()),
    ///     last_error: None,
    /// };
    /// let spell = Spell::new(reason, seconds(90), seconds(40));
    /// assert_eq!(spell.to_string(), "40.0s for the boot of i-123");
    /// ```
    pub fn new(reason: Reason, ago: Duration, lasted: Duration) -> Self {
        Self {
            reason,
            ago,
            lasted,
        }
    }
}

impl std::fmt::Display for Spell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (lasted, what) = (
            crate::format_duration(self.lasted),
            self.reason.waited_for(),
        );
        write!(f, "{lasted} {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_flat_and_in_seconds() {
        let uuid = "zzzzz-dz642-0123456789abcde".parse().unwrap();
        let pausing = Reason::Pausing {
            remaining: Duration::from_millis(1500),
            error: "refused".into(),
        };
        let mut why = Explanation::new(uuid, ContainerState::Queued, 1, pausing.clone());
        let blocked = TypeVerdict::Blocked {
            why: "quota".into(),
            remaining: Some(Duration::from_secs(2)),
        };
        why.types = vec![TypeConsidered::new("a".into(), Price::default(), blocked)];
        let mut full = InstancesConsidered::new(
            None,
            InstanceVerdict::Full {
                lacking: Resource::Ram,
            },
        );
        full.count = 2;
        why.instances = vec![full];
        why.hold_offs = vec![HoldOff::new("a", "b", Duration::from_secs(3))];
        why.estimate = Some(Estimate::new(Duration::ZERO, "c"));
        why.history = vec![Spell::new(pausing, Duration::from_secs(9), Duration::ZERO)];
        let wire = serde_json::to_value(&why).unwrap();
        assert_eq!(wire["reason"]["remaining"], 1.5);
        assert_eq!(wire["types"][0]["verdict"], "blocked");
        assert_eq!(wire["types"][0]["remaining"], 2.0);
        assert_eq!(wire["instances"][0]["lacking"], "ram");
        assert_eq!(wire["hold_offs"][0]["remaining"], 3.0);
        assert_eq!(wire["history"][0]["ago"], 9.0);
        assert_eq!(serde_json::from_value::<Explanation>(wire).unwrap(), why);
    }
}
