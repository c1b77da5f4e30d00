//! The cloud-driver interface.
//!
//! An [`InstanceSet`] creates, lists, tags and destroys instances at one provider. A [`Driver`]
//! opens one from JSON parameters. Everything between the pool and a provider (rate limits,
//! instrumentation, filters) is an `InstanceSet` around an `InstanceSet`.
//!
//! # A driver in a hundred lines
//!
//! Instances that are files in a directory, each holding its type and its tags. (The calls to the file system
//! block, which is no matter for a short one. One that waits for a network must not block, and has
//! to end within [`CallContext::timeout`].)
//!
//! ```
//! use std::path::{Path, PathBuf};
//! use std::sync::{Mutex, MutexGuard, PoisonError};
//! use std::{fmt, fs, io};
//!
//! use async_trait::async_trait;
//! use longshore_cloud::*;
//! use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};
//!
//! #[derive(Debug)]
//! struct Directory(PathBuf, Mutex<()>);
//!
//! impl fmt::Display for Directory {
//!     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
//!         write!(f, "Directory({})", self.0.display())
//!     }
//! }
//!
//! /// The one place that maps the provider's errors to kinds.
//! fn classify(operation: Operation, error: io::Error) -> CloudError {
//!     let kind = match error.kind() {
//!         io::ErrorKind::NotFound => ErrorKind::NotFound,
//!         io::ErrorKind::PermissionDenied => ErrorKind::Denied,
//!         io::ErrorKind::StorageFull => ErrorKind::QuotaExceeded(Scope::Everything),
//!         _ => ErrorKind::Other,
//!     };
//!     CloudError::new(operation, "directory", kind, error)
//! }
//!
//! impl Directory {
//!     /// A file of this directory, whatever the name says.
//!     fn path(&self, name: &str) -> PathBuf {
//!         self.0.join(name.replace('/', "%"))
//!     }
//!
//!     /// Held while a file changes, since calls run at the same time: new tags for one that was
//!     /// removed since it was read would bring a destroyed instance back.
//!     fn alone(&self) -> MutexGuard<'_, ()> {
//!         self.1.lock().unwrap_or_else(PoisonError::into_inner)
//!     }
//! }
//!
//! fn describe(path: &Path) -> io::Result<Instance> {
//!     let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
//!     let (provider_type, tags): (String, Tags) = serde_json::from_slice(&fs::read(path)?)?;
//!     Ok(Instance::new(name, provider_type, InstanceState::Running, tags))
//! }
//!
//! /// Writes beside the file and renames: a crash leaves no half of one for listings to trip over.
//! fn write(path: &Path, provider_type: &str, tags: &Tags) -> io::Result<()> {
//!     let half = path.with_extension("half");
//!     fs::write(&half, serde_json::to_vec(&(provider_type, tags))?)?;
//!     fs::rename(half, path)
//! }
//!
//! #[async_trait]
//! impl InstanceSet for Directory {
//!     async fn create(&self, _: &CallContext, request: &CreateRequest)
//!         -> Result<Instance, CloudError> {
//!         // The token is the name: a repeated request finds what the first one made.
//!         let path = self.path(&request.token);
//!         let _alone = self.alone();
//!         let make = || match path.exists() {
//!             true => Ok(()),
//!             false => write(&path, &request.instance_type.provider_type, &request.tags),
//!         };
//!         let made = make().and_then(|()| describe(&path));
//!         made.map_err(|error| classify(Operation::Create, error))
//!     }
//!
//!     async fn list(&self, _: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
//!         let read = || -> io::Result<Vec<Instance>> {
//!             let paths: Vec<PathBuf> = fs::read_dir(&self.0)?
//!                 .map(|entry| Ok(entry?.path()))
//!                 .collect::<io::Result<_>>()?;
//!             let whole = paths.iter().filter(|path| path.extension().is_none());
//!             whole.map(|path| describe(path)).collect()
//!         };
//!         let mut instances = read().map_err(|error| classify(Operation::List, error))?;
//!         instances.retain(|instance| instance.has_tags(tags));
//!         Ok(instances)
//!     }
//!
//!     async fn destroy(&self, _: &CallContext, ids: &[InstanceId]) -> InstanceResults {
//!         let _alone = self.alone();
//!         let remove = |id: &InstanceId| match fs::remove_file(self.path(id.as_str())) {
//!             Err(error) if error.kind() != io::ErrorKind::NotFound => {
//!                 Err(classify(Operation::Destroy, error))
//!             }
//!             _ => Ok(()),
//!         };
//!         ids.iter().map(|id| (id.clone(), remove(id))).collect()
//!     }
//!
//!     async fn set_tags(&self, _: &CallContext, changes: &[(InstanceId, Tags)])
//!         -> InstanceResults {
//!         let _alone = self.alone();
//!         let merge = |id: &InstanceId, tags: &Tags| -> io::Result<()> {
//!             let path = self.path(id.as_str());
//!             let Instance { provider_type, tags: mut all, .. } = describe(&path)?;
//!             all.extend(tags.clone());
//!             write(&path, &provider_type, &all)
//!         };
//!         changes.iter()
//!             .map(|(id, tags)| {
//!                 let done = merge(id, tags).map_err(|e| classify(Operation::SetTags, e));
//!                 (id.clone(), done)
//!             })
//!             .collect()
//!     }
//!
//!     async fn verify_host_key(&self, _: &CallContext, _: &InstanceId, _: &HostKey)
//!         -> Result<HostKeyVerdict, CloudError> {
//!         Ok(HostKeyVerdict::Unsupported)
//!     }
//!
//!     fn quota_group(&self, _: &InstanceType) -> Option<String> { None }
//!
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::new()
//!             .with_idempotent_create()
//!             .with_tags_at_birth()
//!             .with_consistent_listing()
//!     }
//!
//!     fn extensions(&self) -> Extensions<'_> { Extensions::default() }
//!
//!     async fn stop(&self) {}
//! }
//! # let folder = std::env::temp_dir().join(format!("longshore-doc-{}", std::process::id()));
//! # fs::create_dir_all(&folder).unwrap();
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let cloud = Directory(folder.clone(), Mutex::default());
//! let context = CallContext::example();
//! let request = CreateRequest::example();
//! let made = cloud.create(&context, &request).await?;
//! let again = cloud.create(&context, &request).await?;
//! assert_eq!(made.id, again.id);
//! assert_eq!(cloud.list(&context, &request.tags).await?.len(), 1);
//! assert!(cloud.destroy(&context, &[made.id]).await[0].1.is_ok());
//! assert!(cloud.list(&context, &Tags::new()).await?.is_empty());
//! # fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), CloudError>(()) }).unwrap();
//! ```

mod error;
mod extensions;
mod instance;
mod pointers;
mod request;
mod tags;

use std::fmt;

use async_trait::async_trait;
pub use error::{CloudError, ErrorKind, Operation, Outcome, Scope};
pub use extensions::{
    ConsoleOutput, Extensions, Interruption, InterruptionNotices, PriceHistory, PricePoint,
};
pub use instance::{Instance, InstanceState, TagKeys};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};
pub use request::{AddressKind, CallContext, CreateRequest};
pub use tags::Tags;

/// What came of a call for each of several instances, in any order.
///
/// ```
/// use longshore_cloud::{CloudError, InstanceResults};
/// fn failures(results: &InstanceResults) -> Vec<&CloudError> {
///     results.iter().filter_map(|(_, result)| result.as_ref().err()).collect()
/// }
/// assert!(failures(&vec![("i-1".into(), Ok(()))]).is_empty());
/// ```
pub type InstanceResults = Vec<(InstanceId, Result<(), CloudError>)>;

/// All instances at one provider that an installation may touch.
///
/// # What every implementation promises
///
/// - Each call ends within [`CallContext::timeout`], with [`ErrorKind::TimedOut`] if need be.
/// - Calls may run at the same time as each other.
/// - A future that is dropped may still have acted.
/// - An error says by its [`Outcome`] whether the call may have had an effect.
/// - `Display` names the stack: a layer prints itself around what it wraps, a driver its name and
///   where: `Rate(5/s, Ec2(us-east-1))`.
///
/// # What a layer owes besides
///
/// - It forwards every method and every extension; what it does not change it passes on unchanged.
/// - Time that a call waits in the layer comes off the timeout that the inner call gets.
/// - A call that was never passed on is refused with a kind whose outcome is
///   [`Outcome::NotDone`].
/// - A dropped future gives back whatever it held.
///
/// No method has a default body, so that a layer that forgets to forward one does not compile.
///
/// The crate documentation has a whole driver. What a caller does with one:
///
/// ```
/// # use longshore_cloud::{CallContext, CloudError, CreateRequest, Instance, InstanceSet};
/// /// Makes an instance, and looks whether the provider shows it.
/// async fn made_and_listed(
///     cloud: &dyn InstanceSet,
///     context: &CallContext,
///     request: &CreateRequest,
/// ) -> Result<bool, CloudError> {
///     let made = cloud.create(context, request).await?;
///     let listed = cloud.list(context, &request.tags).await?;
///     Ok(listed.iter().any(|instance| instance.id == made.id))
/// }
/// ```
#[async_trait]
pub trait InstanceSet: fmt::Debug + fmt::Display + Send + Sync {
    /// Makes one instance.
    ///
    /// With [`Capabilities::idempotent_create`] a repeated request with the same
    /// [`CreateRequest::token`] returns the instance that the first one made. The reply may be
    /// lost after success; such an error has the outcome [`Outcome::Unknown`]. A token is not used
    /// any more once its instance was destroyed: what a request with it does then is not promised.
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError>;

    /// Every instance that has all of `tags`, also those that boot or die.
    ///
    /// May lag behind reality unless [`Capabilities::consistent_listing`]. An answer that could
    /// not read every page is an error, never a short `Ok`. The same id may occur twice; callers
    /// de-duplicate.
    async fn list(&self, context: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError>;

    /// Destroys instances; one result for each id, in any order. An unknown id is success. An id
    /// that is named twice has one result or two.
    ///
    /// Success means that the provider accepted it, not that the instance is gone.
    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> InstanceResults;

    /// Sets tags of instances; one result for each change, in any order. Tags are merged, never
    /// removed. An unknown id fails with [`ErrorKind::NotFound`], and the others are changed all
    /// the same.
    async fn set_tags(
        &self,
        context: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults;

    /// Whether `key` is the SSH host key of an instance.
    async fn verify_host_key(
        &self,
        context: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError>;

    /// The name of the quota that instances of a type count against; none if they have no group.
    /// Pure: no call to the provider.
    fn quota_group(&self, instance_type: &InstanceType) -> Option<String>;

    /// What this instance set can do. Pure, and always the same answer.
    fn capabilities(&self) -> Capabilities;

    /// Optional powers; layers forward those of what they wrap.
    fn extensions(&self) -> Extensions<'_>;

    /// Ends background work. Calls after it may fail. Destroys nothing.
    async fn stop(&self);
}

/// What an instance set can do. What is false makes the pool more careful.
///
/// ```
/// use longshore_cloud::Capabilities;
/// let capabilities = Capabilities::new()
///     .with_tags_at_birth()
///     .with_host_keys()
///     .with_rented()
///     .with_destroy_batch(1000)
///     .with_tag_batch(100)
///     .with_max_instances(64);
/// assert!(capabilities.host_keys && !capabilities.idempotent_create);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// A repeated create with the same token makes no second instance.
    pub idempotent_create: bool,
    /// An instance is never listed without the tags of its request.
    pub tags_at_birth: bool,
    /// A listing shows everything that was done before it began.
    pub consistent_listing: bool,
    /// [`InstanceSet::verify_host_key`] can tell.
    pub host_keys: bool,
    /// Each instance is a machine of its own that costs money while it is on, so that one which
    /// nobody looks after any more is to power itself off. Never where instances are parts of a
    /// machine that others use, as those of a loopback driver are.
    pub rented: bool,
    /// The most ids in one [`InstanceSet::destroy`]; 0 means no limit.
    pub destroy_batch: usize,
    /// The most changes in one [`InstanceSet::set_tags`]; 0 means no limit.
    pub tag_batch: usize,
    /// The most instances that there can be at once, whatever is paid; 0 means no limit that is
    /// known. Beyond that no create is tried, and nobody is advised to raise a limit of his own.
    /// A quota that the provider may change is none: creates fail with
    /// [`ErrorKind::QuotaExceeded`] then.
    pub max_instances: usize,
}

impl Capabilities {
    /// None at all, and no limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// With [`Capabilities::idempotent_create`].
    #[must_use]
    pub fn with_idempotent_create(mut self) -> Self {
        self.idempotent_create = true;
        self
    }

    /// With [`Capabilities::tags_at_birth`].
    #[must_use]
    pub fn with_tags_at_birth(mut self) -> Self {
        self.tags_at_birth = true;
        self
    }

    /// With [`Capabilities::consistent_listing`].
    #[must_use]
    pub fn with_consistent_listing(mut self) -> Self {
        self.consistent_listing = true;
        self
    }

    /// With [`Capabilities::host_keys`].
    #[must_use]
    pub fn with_host_keys(mut self) -> Self {
        self.host_keys = true;
        self
    }

    /// With [`Capabilities::rented`].
    #[must_use]
    pub fn with_rented(mut self) -> Self {
        self.rented = true;
        self
    }

    /// With at most so many ids in one destroy; 0 means no limit.
    #[must_use]
    pub fn with_destroy_batch(mut self, most: usize) -> Self {
        self.destroy_batch = most;
        self
    }

    /// With at most so many changes in one call that sets tags; 0 means no limit.
    #[must_use]
    pub fn with_tag_batch(mut self, most: usize) -> Self {
        self.tag_batch = most;
        self
    }

    /// With at most so many instances at once; 0 means no limit that is known.
    #[must_use]
    pub fn with_max_instances(mut self, most: usize) -> Self {
        self.max_instances = most;
        self
    }
}

/// Opens instance sets of one provider.
///
/// ```
/// use async_trait::async_trait;
/// use longshore_cloud::{Driver, InstanceSet, ParameterError, ParameterErrors};
///
/// # fn connect(_: &serde_json::Value) -> Box<dyn InstanceSet> { unreachable!() }
/// #[derive(Debug)]
/// struct Acme;
///
/// #[async_trait]
/// impl Driver for Acme {
///     fn name(&self) -> &'static str { "acme" }
///
///     async fn open(&self, parameters: &serde_json::Value)
///         -> Result<Box<dyn InstanceSet>, ParameterErrors> {
///         let mut errors = Vec::new();
///         for name in ["region", "project"] {
///             if parameters[name].as_str().is_none_or(str::is_empty) {
///                 errors.push(ParameterError::new(name, "give its name as a string"));
///             }
///         }
///         if !errors.is_empty() {
///             return Err(ParameterErrors(errors));
///         }
///         Ok(connect(parameters))
///     }
/// }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let wrong = Acme.open(&serde_json::json!({ "region": 7 })).await.unwrap_err();
/// assert_eq!(wrong.0.len(), 2);
/// # });
/// ```
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync {
    /// The name, as the configuration spells it.
    fn name(&self) -> &'static str;

    /// Opens the instance set that `parameters` describe, or says everything that is wrong with
    /// them at once. Makes no call that costs money or changes anything at the provider.
    async fn open(
        &self,
        parameters: &serde_json::Value,
    ) -> Result<Box<dyn InstanceSet>, ParameterErrors>;
}

/// Everything that is wrong with a driver's parameters; never empty.
///
/// ```
/// use longshore_cloud::{ParameterError, ParameterErrors};
/// let region = ParameterError::new("region", "give its name as a string");
/// let size = ParameterError::new("disk.size", "-3 is not a size; give GiB, at least 1");
/// let errors = ParameterErrors(vec![region, size]);
/// assert!(errors.to_string().contains("; disk.size: "));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ParameterErrors(pub Vec<ParameterError>);

/// One thing that is wrong with a driver's parameters.
///
/// ```
/// use longshore_cloud::ParameterError;
/// let error = ParameterError::new("region", "give its name as a string");
/// assert_eq!(error.to_string(), "region: give its name as a string");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {problem}")]
#[non_exhaustive]
pub struct ParameterError {
    /// The name of the parameter, with dots between levels.
    pub parameter: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl ParameterError {
    /// A problem with one parameter.
    pub fn new(parameter: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            parameter: parameter.into(),
            problem: problem.into(),
        }
    }
}
