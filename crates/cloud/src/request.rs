//! What a caller says with a call.

use std::time::Duration;

use longshore_types::{ByteSize, InstanceType, Price};

use crate::Tags;

/// What goes with every call.
///
/// The timeout is relative, so that drivers, layers and simulators need no common clock. A driver
/// that blocks cannot be stopped by dropping its future, so it has to keep the timeout itself.
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::CallContext;
/// let context = CallContext::new(Duration::from_secs(30), "req-9f86d081");
/// assert_eq!(context.timeout.as_secs(), 30);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallContext {
    /// How long the call may take from now.
    pub timeout: Duration,
    /// A name for this call in the logs of both sides.
    pub request_id: String,
}

impl CallContext {
    /// A context for one call.
    pub fn new(timeout: Duration, request_id: impl Into<String>) -> Self {
        Self {
            timeout,
            request_id: request_id.into(),
        }
    }

    /// A context for documentation and tests: 10 s, `req-example`.
    pub fn example() -> Self {
        Self::new(Duration::from_secs(10), "req-example")
    }
}

/// Which address of an instance is used to reach it.
///
/// ```
/// use longshore_cloud::{AddressKind, CreateRequest};
/// let mut request = CreateRequest::example();
/// assert_eq!(request.address_kind, AddressKind::Private);
/// request.address_kind = AddressKind::Public;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressKind {
    /// The address inside the provider's network.
    #[default]
    Private,
    /// An address that the internet can reach.
    Public,
}

/// What instance to make.
///
/// ```
/// use longshore_cloud::CreateRequest;
/// use longshore_types::{ByteSize, InstanceType, Price};
/// let small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
/// let mut request = CreateRequest::new(small, "token-1");
/// request.image = "debian-12".into();
/// request.tags.insert("Owner".into(), "batch".into());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateRequest {
    /// The configured type.
    pub instance_type: InstanceType,
    /// The provider's name of the image; empty where the provider has only one.
    pub image: String,
    /// Tags that the instance has from birth.
    pub tags: Tags,
    /// A script, beginning with `#!`, that the instance runs as root when it first boots; empty
    /// for none.
    pub init_script: String,
    /// The public key, in OpenSSH's one-line form, that may log in; none if the image has one.
    pub public_key: Option<String>,
    /// Which address the instance is to have.
    pub address_kind: AddressKind,
    /// Chosen by the caller, `[a-z0-9-]`, at most 64 bytes; the same when a request is repeated.
    pub token: String,
}

impl CreateRequest {
    /// A request for an instance of a type: no tags, no image, no script, no key.
    pub fn new(instance_type: InstanceType, token: impl Into<String>) -> Self {
        Self {
            instance_type,
            image: String::new(),
            tags: Tags::new(),
            init_script: String::new(),
            public_key: None,
            address_kind: AddressKind::default(),
            token: token.into(),
        }
    }

    /// A request for documentation and tests: type `small`, which the provider calls `s1`, with 1
    /// vCPU, 1 GiB RAM and 10 GiB scratch; image `image`; the tag `ExampleInstanceSetID` = `set`;
    /// an init script that does nothing; token `token-1`.
    pub fn example() -> Self {
        let mut small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
        small.provider_type = "s1".into();
        small.included_scratch = ByteSize::gib(10);
        let mut request = Self::new(small, "token-1");
        request.image = "image".into();
        request.tags = [("ExampleInstanceSetID".to_owned(), "set".to_owned())].into();
        request.init_script = "#!/bin/sh\n".into();
        request
    }
}
