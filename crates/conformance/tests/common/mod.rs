//! What the tests share.
#![allow(
    dead_code,
    reason = "each test file is a program of its own and uses a part of this"
)]
#![allow(
    clippy::unwrap_used,
    reason = "only tests are here, though not in functions marked as such"
)]

pub(crate) mod fake;
pub(crate) mod memory;
pub(crate) mod slow;
pub(crate) mod wrong;

use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{CreateRequest, InstanceSet};
use longshore_conformance::{Promise, Report, Subject};

use memory::{Memory, key, nobodys_key};

/// A subject over an instance set in memory, or around one.
pub(crate) fn subject(set: Arc<dyn InstanceSet>) -> Subject {
    let again = Arc::clone(&set);
    let mut request = CreateRequest::example();
    request.public_key = Some("ssh-ed25519 AAAA test".into());
    Subject::new(set, request)
        .with_call_timeout(Duration::from_secs(10))
        .with_reopen(move || {
            let again = Arc::clone(&again);
            async move { Ok(again) }
        })
        .with_host_keys(
            |instance| async move { Some(key(instance.id.as_str())) },
            nobodys_key(),
        )
}

/// A subject that is a layer around an instance set in memory.
pub(crate) fn layer(set: Arc<dyn InstanceSet>, inner: Memory) -> Subject {
    subject(set).with_inner(Arc::new(inner))
}

/// The promises that a report says were not run.
pub(crate) fn not_run(report: &Report) -> Vec<Promise> {
    report.not_run().map(|finding| finding.promise).collect()
}
