//! What is tested.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longshore_cloud::{CreateRequest, Instance, InstanceSet, Tags};
use longshore_types::{HostKey, InstanceId};

/// The tag that every instance of a run has; its value is [`Subject::run`].
///
/// ```
/// assert_eq!(longshore_conformance::RUN_TAG, "longshore-conformance");
/// ```
pub const RUN_TAG: &str = "longshore-conformance";

/// The tag by which a check finds its own instances.
pub(crate) const CHECK_TAG: &str = "longshore-conformance-check";

type Hook<A, T> = Arc<dyn Fn(A) -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// An instance set that was opened again, or why it could not be.
type Opened = Result<Arc<dyn InstanceSet>, OpenError>;

type OpenError = Box<dyn Error + Send + Sync>;

/// How long things may take; see the methods of [`Subject`] that set them.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    pub(crate) call: Duration,
    pub(crate) slack: Duration,
    pub(crate) appear: Duration,
    pub(crate) vanish: Duration,
    pub(crate) boot: Duration,
    pub(crate) poll: Duration,
}

/// What is tested: an instance set, and what the suite has to know of its provider.
///
/// Cheap to clone; clones share the instance set, also when it was opened again.
///
/// ```
/// # use std::sync::Arc;
/// # use longshore_cloud::{CreateRequest, InstanceSet};
/// use std::time::Duration;
/// use longshore_conformance::Subject;
/// # fn subject(set: Arc<dyn InstanceSet>, request: CreateRequest) -> Subject {
/// Subject::new(set, request)
///     .with_instances_at_once(3)
///     .with_call_timeout(Duration::from_secs(60))
///     .with_appearance(Duration::from_secs(120))
///     .with_vanishing(Duration::from_secs(600))
///     .with_poll(Duration::from_secs(5))
/// # }
/// ```
#[derive(Clone)]
pub struct Subject {
    set: Arc<Mutex<Arc<dyn InstanceSet>>>,
    pub(crate) request: CreateRequest,
    pub(crate) timing: Timing,
    pub(crate) at_once: usize,
    pub(crate) unknown_ids: Arc<dyn Fn(usize) -> InstanceId + Send + Sync>,
    pub(crate) any_type: bool,
    pub(crate) any_image: bool,
    pub(crate) name: Option<String>,
    pub(crate) inner: Option<Arc<dyn InstanceSet>>,
    pub(crate) wrong_key: Option<HostKey>,
    true_key: Option<Hook<Instance, Option<HostKey>>>,
    reopen: Option<Hook<(), Opened>>,
    run: String,
    nonce: String,
    counter: Arc<AtomicU64>,
}

impl Subject {
    /// An instance set, and the request that its instances are made with: type, image, tags that
    /// they must have, script and key as the provider needs them. The token is replaced, and tags
    /// are added that tell the instances of this run from all others.
    ///
    /// Until said otherwise: 4 instances at once, 30 s and 2 s of slack for a call, 60 s until an
    /// instance is listed, 5 min until it has vanished, 10 min until it has booted, and one
    /// listing a second while the suite waits.
    pub fn new(set: Arc<dyn InstanceSet>, request: CreateRequest) -> Self {
        let nonce = random_hex();
        Self {
            set: Arc::new(Mutex::new(set)),
            request,
            timing: Timing {
                call: Duration::from_secs(30),
                slack: Duration::from_secs(2),
                appear: Duration::from_secs(60),
                vanish: Duration::from_secs(300),
                boot: Duration::from_secs(600),
                poll: Duration::from_secs(1),
            },
            at_once: 4,
            unknown_ids: Arc::new(|n| format!("no-such-instance-{n}").into()),
            any_type: false,
            any_image: false,
            name: None,
            inner: None,
            wrong_key: None,
            true_key: None,
            reopen: None,
            run: nonce.clone(),
            nonce,
            counter: Arc::default(),
        }
    }

    /// How many instances there may be at once; promises that need more are not run, and the
    /// report says so.
    #[must_use]
    pub fn with_instances_at_once(mut self, most: usize) -> Self {
        self.at_once = most;
        self
    }

    /// The timeout that calls are given.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.timing.call = timeout;
        self
    }

    /// How much longer than its timeout a call may take before it counts as hung: what a busy
    /// machine needs.
    #[must_use]
    pub fn with_slack(mut self, slack: Duration) -> Self {
        self.timing.slack = slack;
        self
    }

    /// How long after a call returned a listing may not show yet what it did.
    #[must_use]
    pub fn with_appearance(mut self, within: Duration) -> Self {
        self.timing.appear = within;
        self
    }

    /// How long after its destruction was accepted an instance may still be listed as pending or
    /// running. Also how long the suite waits for room if the provider has none.
    #[must_use]
    pub fn with_vanishing(mut self, within: Duration) -> Self {
        self.timing.vanish = within;
        self
    }

    /// How long an instance takes until its host key can be checked.
    #[must_use]
    pub fn with_boot(mut self, within: Duration) -> Self {
        self.timing.boot = within;
        self
    }

    /// The pause between two listings while the suite waits for something.
    #[must_use]
    pub fn with_poll(mut self, pause: Duration) -> Self {
        self.timing.poll = pause;
        self
    }

    /// The name of this run, the value of [`RUN_TAG`]; random until said otherwise. With the name
    /// of a run that was killed, [`Subject::clean_up`] removes what it left.
    ///
    /// Lower-case letters, digits and dashes are legal as a tag at every provider.
    #[must_use]
    pub fn with_run(mut self, run: impl Into<String>) -> Self {
        self.run = run.into();
        self
    }

    /// Ids that no instance has, another one for each number from 0 to 1,099, in the form that
    /// the provider's ids have, so that they are not refused for their form.
    ///
    /// ```
    /// # use longshore_conformance::Subject;
    /// # fn with_ids(subject: Subject) -> Subject {
    /// subject.with_unknown_ids(|n| format!("i-{n:017x}").into())
    /// # }
    /// ```
    #[must_use]
    pub fn with_unknown_ids(
        mut self,
        ids: impl Fn(usize) -> InstanceId + Send + Sync + 'static,
    ) -> Self {
        self.unknown_ids = Arc::new(ids);
        self
    }

    /// The provider makes instances of any type name, so that an unknown one is not refused.
    #[must_use]
    pub fn with_any_type_accepted(mut self) -> Self {
        self.any_type = true;
        self
    }

    /// The provider has no images, so that an unknown one is not refused.
    #[must_use]
    pub fn with_any_image_accepted(mut self) -> Self {
        self.any_image = true;
        self
    }

    /// What `Display` of the instance set has to contain, such as `Ec2(`.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The instance set that the tested one is a layer around: its extensions have to be shown,
    /// and its name.
    #[must_use]
    pub fn with_inner(mut self, inner: Arc<dyn InstanceSet>) -> Self {
        self.inner = Some(inner);
        self
    }

    /// Host keys, for an instance set that declares them: a hook that finds out the key of an
    /// instance some other way (none while it cannot be known), and a key that none has.
    ///
    /// ```
    /// # use longshore_conformance::Subject;
    /// # use longshore_types::HostKey;
    /// # async fn scan(address: Option<String>) -> Option<HostKey> { None }
    /// # fn with_keys(subject: Subject) -> Subject {
    /// let nobodys = HostKey { algorithm: "ssh-ed25519".into(), blob: vec![0; 51] };
    /// subject.with_host_keys(|instance| scan(instance.address), nobodys)
    /// # }
    /// ```
    #[must_use]
    pub fn with_host_keys<F, R>(mut self, true_key: F, wrong_key: HostKey) -> Self
    where
        F: Fn(Instance) -> R + Send + Sync + 'static,
        R: Future<Output = Option<HostKey>> + Send + 'static,
    {
        self.true_key = Some(Arc::new(move |instance| Box::pin(true_key(instance))));
        self.wrong_key = Some(wrong_key);
        self
    }

    /// How to open the same instance set again after it was stopped: the same account, the same
    /// instances. Without it, what `stop` promises is not run, because nothing could be removed
    /// afterwards.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use longshore_cloud::{Driver, InstanceSet};
    /// # use longshore_conformance::Subject;
    /// # fn with_stop(subject: Subject, driver: Arc<dyn Driver>) -> Subject {
    /// subject.with_reopen(move || {
    ///     let driver = Arc::clone(&driver);
    ///     async move {
    ///         let opened = driver.open(&serde_json::json!({ "region": "x" })).await?;
    ///         Ok(Arc::from(opened))
    ///     }
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn with_reopen<F, R>(mut self, open: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Arc<dyn InstanceSet>, OpenError>> + Send + 'static,
    {
        self.reopen = Some(Arc::new(move |()| Box::pin(open())));
        self
    }

    /// The name of this run.
    ///
    /// ```
    /// # use longshore_conformance::Subject;
    /// # fn tell(subject: &Subject) {
    /// eprintln!("if this run is killed, its instances have the name {}", subject.run());
    /// # }
    /// ```
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The instance set, as opened last.
    pub(crate) fn set(&self) -> Arc<dyn InstanceSet> {
        Arc::clone(&self.set.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn can_reopen(&self) -> bool {
        self.reopen.is_some()
    }

    /// Opens the instance set again; it is the tested one from then on.
    pub(crate) async fn open_again(&self) -> Result<(), OpenError> {
        if let Some(reopen) = &self.reopen {
            let opened = tokio::time::timeout(self.timing.call, reopen(())).await??;
            *self.set.lock().unwrap_or_else(PoisonError::into_inner) = opened;
        }
        Ok(())
    }

    /// What the hook says; none as well if it takes longer than a call may.
    pub(crate) async fn true_key(&self, instance: Instance) -> Option<HostKey> {
        let hook = self.true_key.as_ref()?;
        let asked = tokio::time::timeout(self.timing.call, hook(instance)).await;
        asked.ok().flatten()
    }

    /// A number that nobody else of this subject gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A token that no other request ever has.
    pub(crate) fn fresh_token(&self) -> String {
        format!("conformance-{}-{}", self.nonce, self.next_number())
    }

    /// The tags of one check: what the request has, the run, and the check itself.
    pub(crate) fn fresh_tags(&self) -> Tags {
        let mut tags = self.run_tags();
        let check = format!("{}-{}", self.nonce, self.next_number());
        tags.insert(CHECK_TAG.into(), check);
        tags
    }

    pub(crate) fn run_tags(&self) -> Tags {
        [(RUN_TAG.to_owned(), self.run.clone())].into()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("set", &self.set())
            .field("request", &self.request)
            .field("timing", &self.timing)
            .field("at_once", &self.at_once)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// 16 hexadecimal digits that differ from run to run.
fn random_hex() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
