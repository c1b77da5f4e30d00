//! What the core tells those above it.

use longshore_types::{Attempt, ContainerUuid, Exit, InstanceId, Timestamp, TypeName};

/// Something that happened.
///
/// ```
/// use longshore_pool::{Event, Refusal};
/// fn tell(event: &Event) -> Option<String> {
///     match event {
///         Event::Ended { uuid, exit, .. } => Some(format!("{uuid}: {}", exit.cause)),
///         Event::CreateFailed { type_name, error } => Some(format!("{type_name}: {error}")),
///         Event::Alarm { text } => Some(text.clone()),
///         Event::Running { .. } | Event::NotStarted { .. } => None,
///         Event::NeverRan { .. } | Event::Claimed { .. } => None,
///     }
/// }
/// let alarm = Event::Alarm { text: "instance i-1 is gone".into() };
/// assert_eq!(tell(&alarm).unwrap(), "instance i-1 is gone");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever composes a pool must decide about each"
)]
pub enum Event {
    /// The runner says that an attempt runs. Told once for each attempt and process of ours.
    Running {
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Where.
        instance: InstanceId,
        /// When its process was started, on the clock of its machine, if known.
        started_at: Option<Timestamp>,
    },
    /// An attempt ended and its output was brought home as far as that was possible: what was not
    /// is [lost](Exit::lost_output), and an alarm says so, too. It is told again after a restart until [`Core::acknowledge`](crate::Core::acknowledge), and not told
    /// at all if that comes first.
    Ended {
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Where.
        instance: InstanceId,
        /// How.
        exit: Exit,
    },
    /// A start failed, and it is settled that the attempt does not run.
    NotStarted {
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Where.
        instance: InstanceId,
        /// Why, one line.
        error: String,
        /// Whether the runner refuses this attempt from now on, so that only a later one can run.
        spent: bool,
    },
    /// A kill was settled without a result: the attempt never ran and will not.
    NeverRan {
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Where.
        instance: InstanceId,
    },
    /// An instance could not be created.
    ///
    /// Told at once where the provider surely refused. Where nobody knows what a create did (no
    /// answer in time, a connection that broke, a driver that panicked) it is not told then: the
    /// create stays pending, and is repeated where creates are idempotent, else looked for in
    /// listings. This is told once [`Config::create_grace`](crate::Config::create_grace) has
    /// passed and a listing after that does not show it; never, if it turns up. Until then
    /// [`Snapshot::pendings`](crate::Snapshot::pendings) has it, and the pool's log the error.
    CreateFailed {
        /// The type that was asked for.
        type_name: TypeName,
        /// Why, one line.
        error: String,
    },
    /// A worker says that it has a container which this pool did not place there: see
    /// [`Config::asks_about_claims`](crate::Config::asks_about_claims), without which this is
    /// never told. [`Core::answer_claim`](crate::Core::answer_claim) decides.
    Claimed {
        /// The container.
        uuid: ContainerUuid,
        /// The attempt.
        attempt: Attempt,
        /// Where.
        instance: InstanceId,
    },
    /// Something that an operator should look at.
    Alarm {
        /// What, one line.
        text: String,
    },
}

/// A part of the pool's state that has changed since it was last polled.
///
/// ```
/// use longshore_cloud::CreateRequest;
/// use longshore_pool::{Changed, Config, Core};
/// use longshore_types::Instant;
/// let types = vec![CreateRequest::example().instance_type];
/// let mut core = Core::new(Config::new("set", types), [0; 32], Instant::ZERO);
/// let pending = core.create(&"small".into(), Instant::ZERO)?;
/// let changed: Vec<Changed> = std::iter::from_fn(|| core.poll_changed()).collect();
/// assert_eq!(changed, [Changed::Pending(pending.id), Changed::CreateGate]);
/// # Ok::<(), longshore_pool::Refusal>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever mirrors a pool must mirror all of it"
)]
pub enum Changed {
    /// A worker: see [`Core::worker`](crate::Core::worker), which gives none once it is gone.
    Worker(InstanceId),
    /// When a worker last answered, and nothing else of what [`Core::worker`](crate::Core::worker)
    /// shows, unless [`Changed::Worker`] says so.
    Answered(InstanceId),
    /// A pending create: see [`Core::pending`](crate::Core::pending), none once it has ended.
    Pending(u64),
    /// Which creates would be refused: see [`Core::create_refusal`](crate::Core::create_refusal).
    CreateGate,
    /// What listings have shown so far: see [`Core::is_listed`](crate::Core::is_listed),
    /// [`Core::absence_is_evidence`](crate::Core::absence_is_evidence) and
    /// [`Core::listing_error`](crate::Core::listing_error).
    Evidence,
}
