//! What the tests share.
#![expect(clippy::unwrap_used, reason = "a test fails that way")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::Duration;

use longshore_cloud::{
    CallContext, CloudError, CreateRequest, ErrorKind, Instance, InstanceResults, InstanceSet, Tags,
};
use longshore_fakecloud::{FakeCloud, ManualClock, Settings};
use longshore_types::{InstanceId, InstanceType};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn context() -> CallContext {
    CallContext::new(SECOND * 10, "test")
}

pub(crate) fn request(token: &str) -> CreateRequest {
    let mut request = CreateRequest::example();
    request.token = token.into();
    request
}

pub(crate) fn preemptible(token: &str) -> CreateRequest {
    let mut request = request(token);
    request.instance_type.preemptible = true;
    request
}

pub(crate) fn typed(token: &str, change: impl FnOnce(&mut InstanceType)) -> CreateRequest {
    let mut request = request(token);
    change(&mut request.instance_type);
    request
}

/// A cloud that a test drives step by step on this thread.
pub(crate) struct Lab {
    pub(crate) cloud: FakeCloud,
    pub(crate) clock: ManualClock,
}

impl Lab {
    pub(crate) fn new(settings: Settings) -> Self {
        let (cloud, clock) = FakeCloud::manual(settings, 1);
        Self { cloud, clock }
    }

    pub(crate) fn instant() -> Self {
        Self::new(Settings::instant())
    }

    pub(crate) fn create(&self, request: &CreateRequest) -> Result<Instance, CloudError> {
        self.clock.run(self.cloud.create(&context(), request))
    }

    /// An instance that is sure to be made.
    pub(crate) fn made(&self, token: &str) -> Instance {
        self.create(&request(token)).unwrap()
    }

    pub(crate) fn refused(&self, request: &CreateRequest) -> ErrorKind {
        self.create(request).unwrap_err().kind
    }

    pub(crate) fn try_list(&self) -> Result<Vec<Instance>, CloudError> {
        self.clock.run(self.cloud.list(&context(), &Tags::new()))
    }

    pub(crate) fn list(&self) -> Vec<Instance> {
        self.try_list().unwrap()
    }

    pub(crate) fn listed_ids(&self) -> Vec<String> {
        self.list().iter().map(|i| i.id.to_string()).collect()
    }

    pub(crate) fn destroy(&self, ids: &[InstanceId]) -> Vec<Result<(), ErrorKind>> {
        let results = self.clock.run(self.cloud.destroy(&context(), ids));
        kinds(results)
    }

    pub(crate) fn set_tags(&self, changes: &[(InstanceId, Tags)]) -> Vec<Result<(), ErrorKind>> {
        let results = self.clock.run(self.cloud.set_tags(&context(), changes));
        kinds(results)
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

fn kinds(results: InstanceResults) -> Vec<Result<(), ErrorKind>> {
    let kind = |(_, result): (_, Result<(), CloudError>)| result.map_err(|error| error.kind);
    results.into_iter().map(kind).collect()
}

pub(crate) fn tags(key: &str, value: &str) -> Tags {
    [(key.to_owned(), value.to_owned())].into()
}
