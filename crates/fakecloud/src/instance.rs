//! Instances as they really are.

use std::collections::VecDeque;
use std::sync::Arc;

use longshore_cloud::{Instance, InstanceState, Tags};
use longshore_types::{InstanceId, Instant, Market, Price, Timestamp, TypeName};

/// The most moments of an instance that are remembered for listings that show the past.
pub(crate) const VERSIONS_MAX: usize = 16;

/// The truth about an instance, whatever listings say.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::CreateRequest;
/// use longshore_fakecloud::{Call, Cloud, Settings};
/// use longshore_types::Instant;
/// let (mut cloud, now) = (Cloud::new(Settings::instant(), 1), Instant::ZERO);
/// cloud.handle_call(Call::Create(CreateRequest::example()), Duration::from_secs(9), now);
/// let made = cloud.instances().next().unwrap();
/// assert_eq!(made.token, "token-1");
/// assert_eq!(made.booted, Some(now));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FakeInstance {
    /// Its identifier.
    pub id: InstanceId,
    /// The configured name of its type.
    pub type_name: TypeName,
    /// What the provider calls its type.
    pub provider_type: String,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// The market it was bought on.
    pub market: Market,
    /// What its type says it costs an hour.
    pub price: Price,
    /// The quota group it counts against.
    pub quota_group: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Its image.
    pub image: String,
    /// The token of the create that made it.
    pub token: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Where it answers, once that is known.
    pub address: Option<String>,
    /// Its tags as the provider knows them.
    pub tags: Tags,
    /// The value that the create gave for the tag whose name ends with `InstanceSecret`.
    pub secret: Option<String>,
    /// When it was made.
    pub born: Instant,
    /// When it was made, by the wall clock.
    pub launched_at: Timestamp,
    /// When it booted, if it has.
    pub booted: Option<Instant>,
    /// When a destroy was first accepted.
    pub destroyed: Option<Instant>,
    /// When it will be, or was, taken away by the provider, if it gave notice.
    pub interrupted: Option<Instant>,
    /// When it stopped for good.
    pub gone: Option<Instant>,
    /// When it left the listings.
    pub vanished: Option<Instant>,

    pub(crate) serial: u64,
    /// The user to log in as, if listings say.
    pub(crate) remote_user: Option<String>,
    /// What is paid for: from when, if it is running up a bill.
    pub(crate) billed_from: Option<Instant>,
    /// The tags that it gets later, where they do not come at birth.
    pub(crate) late_tags: Option<Tags>,
    pub(crate) never_boots: bool,
    pub(crate) lingers: bool,
    /// Whether it powered itself off, and nobody has destroyed it since.
    pub(crate) is_off: bool,
    pub(crate) comes_back: Option<std::time::Duration>,
    /// Of the request that made it.
    pub(crate) fingerprint: u64,
    pub(crate) console: Vec<u8>,
    pub(crate) versions: VecDeque<Version>,
}

/// What listings show of an instance from a moment on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) from: Instant,
    pub(crate) shown: Arc<Instance>,
    /// The tags that it was last asked for, and whether it has them: nearly every listing asks for
    /// the same.
    asked: Option<(Tags, bool)>,
}

impl Version {
    /// Whether it has all of `tags`.
    pub(crate) fn has_tags(&mut self, tags: &Tags) -> bool {
        match &self.asked {
            Some((asked, has)) if asked == tags => *has,
            _ => {
                let has = self.shown.has_tags(tags);
                self.asked = Some((tags.clone(), has));
                has
            }
        }
    }
}

impl FakeInstance {
    /// Whether it is pending or running.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use longshore_cloud::CreateRequest;
    /// # use longshore_fakecloud::{Call, Cloud, Settings};
    /// # use longshore_types::Instant;
    /// # let (mut cloud, now) = (Cloud::new(Settings::instant(), 1), Instant::ZERO);
    /// # cloud.handle_call(Call::Create(CreateRequest::example()), Duration::MAX, now);
    /// assert!(cloud.instances().all(|instance| instance.is_live()));
    /// ```
    pub fn is_live(&self) -> bool {
        self.vanished.is_none()
            && matches!(self.state, InstanceState::Pending | InstanceState::Running)
    }

    /// Remembers what listings show from `now` on.
    pub(crate) fn record(&mut self, now: Instant) {
        if self.versions.back().is_some_and(|last| last.from == now) {
            self.versions.pop_back();
        }
        if self.versions.len() >= VERSIONS_MAX {
            self.versions.pop_front();
        }
        self.versions.push_back(Version {
            from: now,
            shown: Arc::new(self.describe()),
            asked: None,
        });
    }

    /// As the interface describes it.
    fn describe(&self) -> Instance {
        let (id, tags) = (self.id.clone(), self.tags.clone());
        let mut instance = Instance::new(id, self.provider_type.clone(), self.state, tags);
        instance.address.clone_from(&self.address);
        instance.remote_user.clone_from(&self.remote_user);
        instance.launched_at = Some(self.launched_at);
        instance.zone.clone_from(&self.zone);
        instance
    }

    /// What listings showed at a moment: none before its birth and after it vanished.
    pub(crate) fn version_at(&mut self, at: Instant) -> Option<&mut Version> {
        if at < self.born || self.vanished.is_some_and(|vanished| vanished <= at) {
            return None;
        }
        let known = self.versions.iter().rposition(|v| v.from <= at);
        self.versions.get_mut(known.unwrap_or_default())
    }
}
