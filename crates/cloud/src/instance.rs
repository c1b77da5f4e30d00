//! Instances as data.

use longshore_types::{InstanceId, Timestamp};

use crate::Tags;

/// Where an instance is in its life, as its provider says.
///
/// ```
/// use longshore_cloud::InstanceState;
///
/// fn state(word: &str) -> Option<InstanceState> {
///     Some(match word {
///         "starting" => InstanceState::Pending,
///         "on" => InstanceState::Running,
///         // It still costs money, and must not be taken for gone.
///         "stopping" => InstanceState::Stopping,
///         "deleted" => InstanceState::Gone,
///         _ => return None,
///     })
/// }
/// # assert_eq!(state("on"), Some(InstanceState::Running));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the pool's rules are by state; a new one must not compile unnoticed"
)]
pub enum InstanceState {
    /// It was asked for and does not run yet.
    Pending,
    /// It runs.
    Running,
    /// It is being destroyed; or it stopped by itself, was powered off or crashed, and there is
    /// still something of it that costs money or has to be removed. It is destroyed until it is
    /// gone.
    Stopping,
    /// Nothing of it is left. It is never destroyed again.
    Gone,
}

/// A virtual machine as a driver describes it. Plain data, a snapshot, not a handle.
///
/// ```
/// use longshore_cloud::{Instance, InstanceState, Tags};
/// let tags = Tags::from([("SetID".to_owned(), "mine".to_owned())]);
/// let mut instance = Instance::new("i-1", "m5.large", InstanceState::Running, tags.clone());
/// instance.address = Some("10.0.0.7:22".into());
/// assert!(instance.has_tags(&tags) && instance.has_tags(&Tags::new()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// The provider's identifier: never empty, unique within the instance set, and not given to
    /// another instance later.
    pub id: InstanceId,
    /// What the provider calls its type.
    pub provider_type: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Where it answers: host, or host and port; none until it is known. A pool does not use an
    /// instance before it has one, so where nothing is reached by address (an executor that goes by
    /// the id, say) any text that looks like a host will do.
    pub address: Option<String>,
    /// The user to log in as; none means the configured one.
    pub remote_user: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// When it was launched, if the provider says.
    pub launched_at: Option<Timestamp>,
    /// Its zone, if the provider has any.
    pub zone: Option<String>,
}

impl Instance {
    /// An instance of which nothing more is known.
    pub fn new(
        id: impl Into<InstanceId>,
        provider_type: impl Into<String>,
        state: InstanceState,
        tags: Tags,
    ) -> Self {
        Self {
            id: id.into(),
            provider_type: provider_type.into(),
            state,
            address: None,
            remote_user: None,
            tags,
            launched_at: None,
            zone: None,
        }
    }

    /// Whether it has all of `tags`.
    pub fn has_tags(&self, tags: &Tags) -> bool {
        tags.iter()
            .all(|(key, value)| self.tags.get(key) == Some(value))
    }
}

/// The names of the tags by which Longshore knows its instances, all beginning with one prefix.
///
/// ```
/// use longshore_cloud::TagKeys;
/// assert_eq!(TagKeys::new("Arvados").set_id, "ArvadosInstanceSetID");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagKeys {
    /// Which installation it belongs to.
    pub set_id: String,
    /// The configured name of its type.
    pub instance_type: String,
    /// `run`, `hold` or `drain`.
    pub idle_behavior: String,
    /// 40 lower-case hex digits that only the instance and its dispatcher know.
    pub secret: String,
}

impl TagKeys {
    /// The names that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self {
            set_id: format!("{prefix}InstanceSetID"),
            instance_type: format!("{prefix}InstanceType"),
            idle_behavior: format!("{prefix}IdleBehavior"),
            secret: format!("{prefix}InstanceSecret"),
        }
    }
}
