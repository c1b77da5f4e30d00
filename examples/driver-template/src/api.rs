//! The provider's API: what this driver asks of Acme, and nothing else.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{CallContext, Tags};

// ------------------------------------------------------------------------------------------------
// REPLACE: implement `Api` for a type of your own, with an HTTP client or the provider's SDK, and
// give it to `AcmeDriver::new`. Nothing else in this crate talks to the provider. Change the calls
// below to those that your provider really has; the emulator in `tests/` changes with them.
// ------------------------------------------------------------------------------------------------

/// The calls of the provider's API: each method is one request, without paging and retries.
///
/// A call ends within [`CallContext::timeout`] and does not block its thread: a blocking SDK goes
/// into `tokio::task::spawn_blocking`, with the timeout set in the SDK as well. If the provider
/// logs a name for each call, it is [`CallContext::request_id`].
///
/// No example: `tests/emulator` implements it.
#[async_trait]
pub trait Api: fmt::Debug + Send + Sync {
    /// Makes a server. The same [`Order::token`] once more gives the server that it made before.
    async fn create_server(&self, context: &CallContext, order: &Order)
    -> Result<Server, ApiError>;

    /// One page of the servers with these tags; the first page has no token.
    async fn list_servers(
        &self,
        context: &CallContext,
        tags: &Tags,
        page: Option<&str>,
    ) -> Result<Page, ApiError>;

    /// Deletes a server.
    async fn delete_server(&self, context: &CallContext, id: &str) -> Result<(), ApiError>;

    /// Adds tags to a server. If yours replaces them all, read them first, and send the union.
    async fn set_tags(&self, context: &CallContext, id: &str, tags: &Tags) -> Result<(), ApiError>;

    /// What a server has printed on its console.
    async fn console(&self, context: &CallContext, id: &str) -> Result<Vec<u8>, ApiError>;
}

/// What server to make.
///
/// No example: [`AcmeSet`](crate::AcmeSet) makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The same when a request is repeated.
    pub token: String,
    /// The provider's name of the type.
    pub server_type: String,
    /// The provider's name of the image.
    pub image: String,
    /// The size of its disk, in GiB.
    pub disk_gib: u64,
    /// Tags from birth.
    pub tags: Tags,
    /// A script for its first boot.
    pub user_data: Option<String>,
    /// The key that may log in.
    pub ssh_key: Option<String>,
    /// Whether the internet has to reach it.
    pub public_address: bool,
    /// Whether the provider may take it away.
    pub spot: bool,
}

/// A server, as the provider describes it.
///
/// No example: an [`Api`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The provider's identifier.
    pub id: String,
    /// The provider's name of the type.
    pub server_type: String,
    /// The provider's word for its state.
    pub status: String,
    /// Where it answers SSH, once that is known.
    pub address: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: Option<i64>,
}

/// A part of a listing.
///
/// No example: an [`Api`] makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The servers on it.
    pub servers: Vec<Server>,
    /// What to ask the next page with; none on the last one.
    pub next: Option<String>,
}

/// A request that failed.
///
/// ```
/// use longshore_driver_acme::ApiError;
/// let error = ApiError::Refused {
///     status: 404,
///     code: "no_such_server".into(),
///     message: "srv-7".into(),
///     retry_after: None,
/// };
/// assert_eq!(error.to_string(), "HTTP status 404, no_such_server: srv-7");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The provider said no.
    #[error("HTTP status {status}, {code}: {message}")]
    Refused {
        /// The status of the reply.
        status: u16,
        /// The provider's code for the problem.
        code: String,
        /// Its words for people.
        message: String,
        /// When to come back, if it says so.
        retry_after: Option<Duration>,
    },
    /// The request surely never left: no such host, connection refused.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The request may have reached the provider, but no reply came.
    #[error("no reply: {0}")]
    NoReply(String),
    /// There was a reply that makes no sense.
    #[error("unreadable reply: {0}")]
    Unreadable(String),
}
