//! Workers as seen from outside the pool.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Attempt, ContainerUuid, Exit, InstanceId, InstanceType, Instant, Resources, TypeName};

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "the transition table of the pool; a new state must not compile unnoticed"
)]
pub enum WorkerState {
    /// Seen in a listing, not created by this process, not probed yet.
    Unknown,
    /// Created by this process, not probed yet.
    Booting,
    /// Probed, runs nothing.
    Idle,
    /// Probed, runs something.
    Running,
    /// To be destroyed until it is no longer listed.
    Shutdown,
}

impl WorkerState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Booting,
        Self::Idle,
        Self::Running,
        Self::Shutdown,
    ];

    /// The name, as the management API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Booting => "booting",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a worker does when it has nothing to do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[expect(
    clippy::exhaustive_enums,
    reason = "the values of the IdleBehavior tag"
)]
pub enum IdleBehavior {
    /// Takes containers; is shut down after a while without any.
    #[default]
    Run,
    /// Takes no containers; is never shut down automatically.
    Hold,
    /// Takes no containers; is shut down when empty.
    Drain,
}

impl IdleBehavior {
    /// The name, as tag values and the management API spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Hold => "hold",
            Self::Drain => "drain",
        }
    }

    /// The behaviour that a tag value names, none if it names none.
    pub fn from_tag(value: &str) -> Option<Self> {
        [Self::Run, Self::Hold, Self::Drain]
            .into_iter()
            .find(|b| b.as_str() == value)
    }
}

impl fmt::Display for IdleBehavior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How far a container on a worker has come, as far as the pool knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the scheduler's rules are by phase; a new one must not compile unnoticed"
)]
pub enum HeldPhase {
    /// A start is under way, or its outcome is not settled; it may run there and nowhere else.
    Starting,
    /// The runner says that it runs.
    Running,
    /// A kill is under way; it may still run.
    Killing,
    /// The kill was given up; it may still run, the worker drains.
    GivenUp,
    /// Its supervisor is gone but something holds its lock; it may still run.
    Stale,
    /// It ended. Its resources are free; the entry stays until it is acknowledged or forgotten.
    Ended(Box<Exit>),
}

impl HeldPhase {
    /// Whether the container may have a process on the worker.
    pub fn may_run(&self) -> bool {
        !matches!(self, Self::Ended(_))
    }
}

/// A container on a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldContainer {
    /// Which.
    pub uuid: ContainerUuid,
    /// Which attempt.
    pub attempt: Attempt,
    /// How far it has come.
    pub phase: HeldPhase,
    /// What was granted to it; nothing once it has ended.
    pub granted: Resources,
}

/// A worker as the scheduler and the management API see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its instance.
    pub instance: InstanceId,
    /// The configured name of its type, none if no such type is configured any more.
    pub type_name: Option<TypeName>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// What it does when it has nothing to do.
    pub idle_behavior: IdleBehavior,
    /// What containers may use of it altogether.
    pub capacity: Resources,
    /// What is granted to containers on it.
    pub granted: Resources,
    /// Its containers, by UUID.
    pub containers: Vec<HeldContainer>,
    /// When a complete answer about its containers last counted: none before the first one. What
    /// is not in `containers` did not run there then.
    pub probed_at: Option<Instant>,
    /// The last thing that went wrong on it, as one line.
    pub last_error: Option<String>,
}

impl WorkerView {
    /// An idle worker of a type, on which nothing is granted, and that answered at `probed_at`.
    ///
    /// ```
    /// use longshore_types::{ByteSize, InstanceType, Instant, Price, WorkerView};
    /// let small = InstanceType::new("small", 2, ByteSize::gib(4), Price::default());
    /// let view = WorkerView::idle("i-1", &small, Instant::ZERO);
    /// assert!(view.takes_containers() && view.spare() == small.resources());
    /// ```
    pub fn idle(
        instance: impl Into<InstanceId>,
        instance_type: &InstanceType,
        probed_at: Instant,
    ) -> Self {
        Self {
            instance: instance.into(),
            type_name: Some(instance_type.name.clone()),
            state: WorkerState::Idle,
            idle_behavior: IdleBehavior::Run,
            capacity: instance_type.resources(),
            granted: Resources::NONE,
            containers: Vec::new(),
            probed_at: Some(probed_at),
            last_error: None,
        }
    }

    /// What it counts as in metrics: `inuse`, `hold`, `booting`, `unknown` or `idle`. One that runs
    /// something is in use, also when it is on hold; one that shuts down counts as idle.
    ///
    /// ```
    /// use longshore_types::{ByteSize, IdleBehavior, InstanceType, Instant, Price, WorkerView};
    /// let small = InstanceType::new("small", 2, ByteSize::gib(4), Price::default());
    /// let mut view = WorkerView::idle("i-1", &small, Instant::ZERO);
    /// assert_eq!(view.category(), "idle");
    /// view.idle_behavior = IdleBehavior::Hold;
    /// assert_eq!(view.category(), "hold");
    /// ```
    pub fn category(&self) -> &'static str {
        match (self.state, self.idle_behavior) {
            (WorkerState::Running, _) => "inuse",
            (_, IdleBehavior::Hold) => "hold",
            (WorkerState::Booting, _) => "booting",
            (WorkerState::Unknown, _) => "unknown",
            (WorkerState::Idle | WorkerState::Shutdown, _) => "idle",
        }
    }

    /// Whether a container may be started on it now.
    pub fn takes_containers(&self) -> bool {
        matches!(self.state, WorkerState::Idle | WorkerState::Running)
            && self.idle_behavior == IdleBehavior::Run
    }

    /// Whether containers may be started on it now or once it has booted.
    pub fn will_take_containers(&self) -> bool {
        self.state != WorkerState::Shutdown && self.idle_behavior == IdleBehavior::Run
    }

    /// What is not granted to anybody.
    pub fn spare(&self) -> Resources {
        self.capacity.saturating_sub(self.granted)
    }
}

/// An instance that was asked for and is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingView {
    /// Number of the request, unique within the process.
    pub id: u64,
    /// The type that was asked for.
    pub type_name: TypeName,
    /// What containers may use of it.
    pub capacity: Resources,
}
