//! Calls and replies as data.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{
    CloudError, CreateRequest, Instance, InstanceResults, Interruption, Operation, PricePoint, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId};

/// One call, from its beginning to its reply.
///
/// No example: [`Cloud::handle_call`] gives it.
///
/// [`Cloud::handle_call`]: crate::Cloud::handle_call
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(crate) u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}", self.0)
    }
}

/// What somebody asks of the cloud.
///
/// ```
/// use longshore_cloud::Tags;
/// use longshore_fakecloud::{Call, CallKind};
/// assert_eq!(Call::List(Tags::new()).kind(), CallKind::List);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "one for each method of an instance set and its extensions"
)]
pub enum Call {
    /// Make an instance.
    Create(CreateRequest),
    /// List the instances that have all of these tags.
    List(Tags),
    /// Destroy instances.
    Destroy(Vec<InstanceId>),
    /// Merge tags into those of instances.
    SetTags(Vec<(InstanceId, Tags)>),
    /// Check the host key of an instance.
    VerifyHostKey(InstanceId, HostKey),
    /// The last so many bytes of what an instance printed.
    Console(InstanceId, usize),
    /// What an instance cost during the last so long.
    Prices(InstanceId, Duration),
    /// Which instances are about to be taken away.
    Interruptions,
}

impl Call {
    /// Which kind of call this is.
    pub fn kind(&self) -> CallKind {
        match self {
            Self::Create(_) => CallKind::Create,
            Self::List(_) => CallKind::List,
            Self::Destroy(_) => CallKind::Destroy,
            Self::SetTags(_) => CallKind::SetTags,
            Self::VerifyHostKey(..) => CallKind::VerifyHostKey,
            Self::Console(..) => CallKind::Console,
            Self::Prices(..) => CallKind::Prices,
            Self::Interruptions => CallKind::Interruptions,
        }
    }

    /// The instances that the call names.
    pub(crate) fn ids(&self) -> Vec<InstanceId> {
        match self {
            Self::Destroy(ids) => ids.clone(),
            Self::SetTags(changes) => changes.iter().map(|(id, _)| id.clone()).collect(),
            Self::VerifyHostKey(id, _) | Self::Console(id, _) | Self::Prices(id, _) => {
                vec![id.clone()]
            }
            Self::Create(_) | Self::List(_) | Self::Interruptions => Vec::new(),
        }
    }
}

/// A kind of call.
///
/// ```
/// use longshore_cloud::Operation;
/// use longshore_fakecloud::CallKind;
/// assert_eq!(CallKind::SetTags.operation(), Operation::SetTags);
/// assert_eq!(CallKind::Console.to_string(), "console");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "one for each method of an instance set and its extensions"
)]
pub enum CallKind {
    /// [`Call::Create`].
    Create,
    /// [`Call::List`].
    List,
    /// [`Call::Destroy`].
    Destroy,
    /// [`Call::SetTags`].
    SetTags,
    /// [`Call::VerifyHostKey`].
    VerifyHostKey,
    /// [`Call::Console`].
    Console,
    /// [`Call::Prices`].
    Prices,
    /// [`Call::Interruptions`].
    Interruptions,
}

impl CallKind {
    /// Every kind of call.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::List,
        Self::Destroy,
        Self::SetTags,
        Self::VerifyHostKey,
        Self::Console,
        Self::Prices,
        Self::Interruptions,
    ];

    /// What errors of such a call name as their operation.
    pub fn operation(self) -> Operation {
        match self {
            Self::Create => Operation::Create,
            Self::List => Operation::List,
            Self::Destroy => Operation::Destroy,
            Self::SetTags => Operation::SetTags,
            Self::VerifyHostKey => Operation::VerifyHostKey,
            Self::Console | Self::Prices | Self::Interruptions => Operation::Other,
        }
    }
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::List => "list",
            Self::Destroy => "destroy",
            Self::SetTags => "set tags",
            Self::VerifyHostKey => "verify host key",
            Self::Console => "console",
            Self::Prices => "prices",
            Self::Interruptions => "interruptions",
        })
    }
}

/// One result for each instance of a call.
pub(crate) type Results = InstanceResults;

/// What the cloud answers, one for each [`Call`].
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::Tags;
/// use longshore_fakecloud::{Call, Cloud, Reply, Settings};
/// use longshore_types::Instant;
/// let mut cloud = Cloud::new(Settings::instant(), 1);
/// let call = cloud.handle_call(Call::List(Tags::new()), Duration::from_secs(1), Instant::ZERO);
/// let Some((replied, Reply::Listed(Ok(instances)))) = cloud.poll_reply() else { panic!() };
/// assert_eq!(replied, call);
/// assert!(instances.is_empty());
/// ```
#[derive(Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "one for each method of an instance set and its extensions"
)]
pub enum Reply {
    /// To [`Call::Create`].
    Created(Result<Instance, CloudError>),
    /// To [`Call::List`]; what has not changed since the last one is shared with it.
    Listed(Result<Vec<Arc<Instance>>, CloudError>),
    /// To [`Call::Destroy`]: one result for each id.
    Destroyed(InstanceResults),
    /// To [`Call::SetTags`]: one result for each change.
    Tagged(InstanceResults),
    /// To [`Call::VerifyHostKey`].
    HostKey(Result<HostKeyVerdict, CloudError>),
    /// To [`Call::Console`].
    Console(Result<Vec<u8>, CloudError>),
    /// To [`Call::Prices`].
    Prices(Result<Vec<PricePoint>, CloudError>),
    /// To [`Call::Interruptions`].
    Interruptions(Result<Vec<Interruption>, CloudError>),
}

impl Reply {
    /// The reply to a call of which everything failed in the same way.
    pub(crate) fn failed(
        kind: CallKind,
        ids: &[InstanceId],
        error: impl Fn() -> CloudError,
    ) -> Self {
        let each = || ids.iter().map(|id| (id.clone(), Err(error()))).collect();
        match kind {
            CallKind::Create => Self::Created(Err(error())),
            CallKind::List => Self::Listed(Err(error())),
            CallKind::Destroy => Self::Destroyed(each()),
            CallKind::SetTags => Self::Tagged(each()),
            CallKind::VerifyHostKey => Self::HostKey(Err(error())),
            CallKind::Console => Self::Console(Err(error())),
            CallKind::Prices => Self::Prices(Err(error())),
            CallKind::Interruptions => Self::Interruptions(Err(error())),
        }
    }

    /// Every error in it.
    ///
    /// ```
    /// # use longshore_fakecloud::Reply;
    /// assert!(Reply::Listed(Ok(Vec::new())).errors().is_empty());
    /// ```
    pub fn errors(&self) -> Vec<&CloudError> {
        match self {
            Self::Created(result) => result.as_ref().err().into_iter().collect(),
            Self::Listed(result) => result.as_ref().err().into_iter().collect(),
            Self::Destroyed(results) | Self::Tagged(results) => results
                .iter()
                .filter_map(|(_, result)| result.as_ref().err())
                .collect(),
            Self::HostKey(result) => result.as_ref().err().into_iter().collect(),
            Self::Console(result) => result.as_ref().err().into_iter().collect(),
            Self::Prices(result) => result.as_ref().err().into_iter().collect(),
            Self::Interruptions(result) => result.as_ref().err().into_iter().collect(),
        }
    }
}
